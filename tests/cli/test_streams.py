"""Commands whose output nobody reads, and commands that are interrupted, end quietly, with the code that a shell gives for it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.cli.application import GROUPS
from tests.cli.test_commands import PRINTS, environment, run
from tests.draws import long
from tests.small import hours, spine, table, write

BROKEN_PIPE, INTERRUPTED = 128 + signal.SIGPIPE, 128 + signal.SIGINT
LONGEST_S = 600.0


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    run(folder, "init", "shop")
    for command in ("apply", "materialize", "push", "historical"):
        run(folder / "shop", *shlex.split(PRINTS[command]))
    with FeatureStore(folder / "shop") as store:
        store.get_online_features({"customer": "ann", "amount": 1.0}, "order_model")
    run(folder / "shop", "backup", "../whole.tar")
    return folder / "shop"


def started(where: Path, line: str, **streams: Any) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "featurestore", *shlex.split(line)]
    process: subprocess.Popen[bytes] = subprocess.Popen(
        words, cwd=where, env=environment(), stderr=subprocess.PIPE, **streams
    )
    return process


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Its exit code, and what it said on stderr."""
    try:
        _, told = process.communicate(timeout=LONGEST_S)
    finally:
        process.kill()  # one that does not end, so that it takes nothing from those who come after it
    return process.returncode, told.decode()


@contextmanager
def nobody() -> Iterator[int]:
    """The end of a pipe that nobody reads."""
    read, unread = os.pipe()
    os.close(read)
    yield unread
    os.close(unread)


SAYS = {
    **PRINTS, "optimize": "optimize", "poison": "poison list carts", "quarantine": "quarantine list", "statistics": "statistics", "drift": "drift order_model --baseline json.parquet", "materialize": "materialize", "init": "init other", "verify": "verify", "keys": "keys list", "docs": "docs build site", "registry": "registry copy .featurestore/registry.db moved.db", "help": "--help", "version": "--version",
    "help of one": "push --help", "restore": "--repo ../restored restore ../whole.tar", "export-feast": "export-feast elsewhere",
}  # fmt: skip
UNREAD = [
    name
    for name in dict.fromkeys([*itertools.chain(*GROUPS.values()), *SAYS])
    if name not in {"serve", "ui", "teardown", "import-feast", "consume"}
]


EACH_ITS_WAY = "plan status materialize push audit explain keys help".split()
"""Commands that print before, while and after they work, as a table, as text, as lines of JSON, and by the library of options."""


@pytest.mark.parametrize(
    "command", [name if name in EACH_ITS_WAY else pytest.param(name, marks=long) for name in UNREAD]
)
def test_a_command_whose_output_nobody_reads_ends_quietly(shop: Path, command: str) -> None:
    """Whatever it prints. Servers end when they are told to, of teardown's repository the others live, import-feast needs Feast, and consume
    a broker."""
    with nobody() as unread:
        assert ended(started(shop, SAYS[command], stdout=unread)) == (BROKEN_PIPE, "")


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "plan --json",
        "--help",
        "push carts /dev/null",
        pytest.param("show customer_orders", marks=long),
        pytest.param("history", marks=long),
    ],
)
def test_so_does_one_whose_output_is_closed(shop: Path, line: str) -> None:
    """As `>&-` closes it: no file that it opens gets the number of standard output, which whatever prints would write into."""
    command = f"exec {shlex.join([sys.executable, '-m', 'featurestore', *shlex.split(line)])} >&-"
    done = subprocess.run(
        ["bash", "-c", command], cwd=shop, env=environment(), capture_output=True, timeout=LONGEST_S, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (BROKEN_PIPE, b"", b"")


def test_errors_are_told_and_work_is_done_without_the_streams_that_are_not_needed(shop: Path) -> None:
    """A refusal keeps its code; where errors or input are closed, or nothing is printed, all goes as ever."""

    def code(line: str, closed: str) -> int:
        words = shlex.join([sys.executable, "-m", "featurestore", *shlex.split(line)])
        done = subprocess.run(
            ["bash", "-c", f"exec {words} {closed}"], cwd=shop, env=environment(), timeout=LONGEST_S, check=False
        )
        return done.returncode

    assert code("show nobody", ">&- 2>/dev/null") == 1
    assert code("show nobody", ">/dev/null 2>&-") == 1
    assert code("materialize --quiet", "<&- >&- 2>&-") == 0
    assert code("status", "<&- >/dev/null 2>&-") == 0
    assert code("status", "<&- >&- 2>&-") == BROKEN_PIPE


SLOW = """
import os
from pathlib import Path
from featurestore import Count, Entity, FeatureService, FeatureView, Latest, ParquetSource, PushSource
from featurestore.types import Int64, String, Timestamp

thing = Entity("thing", key={"thing": Int64})
rows = ParquetSource("rows", "rows.parquet", event_time="at")
slow = "levenshtein(repeat(word, 40000), repeat('b', 40000)) > 0"  # seconds for a row, and no row is skipped
view = FeatureView("view", entity=thing, source=rows, refresh="1h", features={"n": Count(window="365000d", where=slow)})
other = FeatureView("other", entity=thing, source=rows, refresh="1h", features={"n": Count(window="364000d", where=slow)})
model = FeatureService("model", features=[view, other])
pushed = PushSource("pushed", schema={"id": Int64, "thing": Int64, "at": Timestamp}, event_time="at", identity="id")
counts = FeatureView("counts", entity=thing, source=pushed, features={"n": Count(window="1d")})
counted = FeatureService("counted", features=[counts])
Path(__file__).with_name("loaded").touch()
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of which every value takes long to compute, and which says when its definitions are loaded."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "featurestore.toml").write_text('project = "slow"\n')
    (folder / "definitions.py").write_text(SLOW)
    many = 3_000
    write(folder / "rows.parquet", table(thing=[*range(many)], at=[hours(0)] * many, word=["a"] * many))
    write(folder / "spine.parquet", spine(hours(1), thing=[*range(many)]))
    run(folder, "apply", "--yes")
    return folder


def when(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Return when something is so; never where the process ends before."""
    end = time.monotonic() + LONGEST_S
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("after_s", [0.0, 1.0], ids=["at once", "later"])
@pytest.mark.parametrize(
    "line",
    [
        "materialize",
        "historical spine.parquet model -o out.parquet",
        pytest.param("snapshot view --at 2024-06-01", marks=long),
        pytest.param("explain view thing=1", marks=long),
        pytest.param("simulate --from 2024-05-01 --to 2024-05-02 --service model", marks=long),
    ],
)
def test_an_interrupted_command_ends_with_130_and_no_word(slow: Path, line: str, after_s: float) -> None:
    """Wherever it is: in a query of the engine, in threads that are waited for, or on its way there."""
    (slow / "loaded").unlink(missing_ok=True)
    process = started(slow, line, stdout=subprocess.DEVNULL)
    when((slow / "loaded").exists, process)
    time.sleep(after_s)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ended(process) == (INTERRUPTED, "")
    assert not (slow / "out.parquet").exists()


def test_what_was_pushed_before_an_interruption_stays_and_is_told(slow: Path) -> None:
    """In the middle of a stream of rows: those of whole parts are online; all of them again are retries and new ones."""
    lines = [json.dumps({"id": n, "thing": n % 3, "at": datetime.now(UTC).isoformat()}) + "\n" for n in range(7_000)]
    with FeatureStore(slow) as store:
        process = started(slow, "push pushed", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert process.stdin is not None
        process.stdin.write("".join(lines[:6_000]).encode())
        process.stdin.flush()
        when(lambda: store.offline.log(store.catalog.sources["pushed"]).read().num_rows == 5_000, process)  # type: ignore[arg-type]  # a push source, by its name
        process.send_signal(signal.SIGINT)
        code, told = ended(process)
        assert code == INTERRUPTED
        whether = "The first (5000 rows of - stay pushed|0 rows of - stay pushed, and perhaps the 5000 after them)"
        assert re.fullmatch(rf"Interrupted\. {whether}; pushing the file again is safe where .*\n", told), told
        assert store.push("pushed", [json.loads(line) for line in lines], json=True) == (2_000, 5_000, 0)
        found = store.get_online_features([{"thing": n} for n in range(3)], "counted").to_dict()
    assert found["counts__n"] == [2_334, 2_333, 2_333]


def test_an_interrupted_server_ends(shop: Path) -> None:
    process = started(shop, "serve --port 0", stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    while b"running on" not in (line := process.stderr.readline()):
        assert line, process.wait(LONGEST_S)
    process.send_signal(signal.SIGINT)
    code, told = ended(process)
    assert code in {0, INTERRUPTED}
    assert "Traceback" not in told

"""What earlier versions wrote is read, to the bit; and the page says which formats there are."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import featurestore
from featurestore import FeatureStore, ManualClock
from featurestore.registry.store import UPGRADES
from tests import golden_project
from tests.golden_project import PROJECTS, call, copy, log_of, served, told, trained

PACKAGE = Path(featurestore.__file__).parent
PAGE = PACKAGE.parent / "docs" / "upgrading.md"


class Golden(NamedTuple):
    """A copy of a golden project, opened at the instant at which it was left, and what it must give."""

    folder: Path
    store: FeatureStore
    clock: ManualClock
    expected: dict[str, Any]


@pytest.fixture(params=PROJECTS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Golden]:
    expected = copy(request.param, tmp_path / "golden")
    clock = ManualClock(datetime.fromisoformat(expected["at"]))
    with FeatureStore(tmp_path / "golden", clock=clock) as store:
        yield Golden(tmp_path / "golden", store, clock, expected)


def test_there_is_one_of_this_version() -> None:
    """And together they are small."""
    assert featurestore_version() in PROJECTS
    assert sum(path.stat().st_size for path in golden_project.GOLDEN.rglob("*") if path.is_file()) < 1_000_000


def featurestore_version() -> str:
    (found,) = re.findall(r'^version = "(.+)"$', (PACKAGE.parent / "pyproject.toml").read_text(), re.MULTILINE)
    return str(found)


def test_what_it_served_and_trained_is_what_this_version_does(golden: Golden) -> None:
    """Values online, statuses, instants, and training, with the definitions that are applied; nothing is planned."""
    store, expected = golden.store, golden.expected
    assert store.plan().steps == ()
    assert served(store) == expected["now"]
    assert trained(store) == expected["trained"]
    assert store.verify().ok


def test_its_journals_and_logs_are_read(golden: Golden) -> None:
    """Versions, runs, the trail, keys of the service, arrivals, pushed rows, and what was served: all of it is exact."""
    store, expected = golden.store, golden.expected
    audit = store.audit()
    assert (audit.compared, audit.skewed, dict(audit.damaged)) == (expected["compared"], 0, {})
    assert [version.digest for version in store.history()] == expected["digests"]
    assert [[run.view, run.instant, run.rows, run.keys] for run in store.registry.runs()] == expected["runs"]
    assert [one.what for one in store.activity()] == expected["activity"]
    assert told(log_of(store).read().to_pylist()) == expected["log"]
    assert [key.name for key in store.registry.api_keys()] == ["web"]


def test_it_goes_on(golden: Golden) -> None:
    """A retry changes nothing, a correction and a new row count, and runs add to what is online; also where the online store
    is made anew from the journals and logs."""
    store, clock, expected = golden.store, golden.clock, golden.expected
    clock.advance(timedelta(minutes=1))
    again = store.push("calls", [call(4, "Bern", 4, -0.0), call(1, "Bern", -70, 2.0), call(5, "Bern", 70, 0.3)])
    assert (again.unchanged, again.accepted) == (1, 2)
    clock.advance(timedelta(hours=1))
    store.materialize(progress=False)
    assert store.verify().ok
    log_of(store).compact(everything=True)
    before = served(store)
    assert before != expected["now"]
    assert store.audit().skewed == 0
    store.close()
    shutil.rmtree(golden.folder / "state" / "online")
    with FeatureStore(golden.folder, clock=clock) as anew:
        anew.materialize(progress=False)
        assert served(anew)["values"] == before["values"]
        assert anew.verify().ok


# --- the page -------------------------------------------------------------------------------

FORMATS = {
    "`registry.db`: its tables": ("registry/store.py", "SCHEMA"),
    "`registry.db`: an applied version": ("registry/documents.py", "FORMAT"),
    "`registry.arrivals.db`": ("sources/arrivals.py", "SCHEMA"),
    "a push log: `manifest.json`": ("sources/log/manifest.py", "VERSION"),
    "a push log: a frame": ("sources/log/frame.py", "MAGIC", "NOTED_MAGIC"),
    "a push log: `positions`": ("sources/log/positions.py", "VERSION"),
    "messages of streams that were kept aside: `poison.db`": ("streams/poison.py", "SCHEMA"),
    "a push log in PostgreSQL: its tables": ("sources/log/postgresql_log.py", "VERSION"),
    "an owner's file (`owner.json`)": ("durable/owner.py", "VERSION"),
    "the serving log: the words in a file": ("serving/store_version.py", "FORMAT"),
    "a backup": ("backup/archive.py", "VERSION"),
    "online: a record": ("online/view_codec.py", "FORMAT"),
    "online: a watermark": ("online/view_codec.py", "FORMAT", "EDITED_FORMAT"),
    "online: a materialized view's state": ("materialize/run_plan.py", "STATE_FORMAT"),
    "online: which chunks of a run are done": ("materialize/done_chunks.py", "CHUNKS_FORMAT"),
    "online: a push source's state": ("online/source_state.py", "FORMAT"),
    "online: tiles of pushed keys": ("tiles/tile_codec.py", "FORMAT"),
    "tiles of files": ("tiles/file_tile_store.py", "FORMAT"),
    "copies of rows that lie in no Parquet file": ("sources/copies.py", "VERSION"),
    "the plan of a frame in parts": ("training/parts.py", "FORMAT"),
    "sorted copies of sources": ("sources/sorted/sorted_copies.py", "FORMAT"),
    "statistics of some of the rows, between processes": ("statistics/partial_statistics.py", "VERSION"),
    "what a task of an engine tells of an audit": ("engines/audit_outcome.py", "FORMAT"),
    "what lies beside records for TensorFlow": ("integrations/tensorflow/records.py", "FORMAT"),
}
"""Each row of the page's table, and the constants that it tells of."""

CONSTANT = re.compile(r'^((?:\w+_)?(?:FORMAT|VERSION|SCHEMA|MAGIC)) = (\d+|b".*")$', re.MULTILINE)


def constants() -> dict[tuple[str, str], Any]:
    """All of the package that name a format: a number, or bytes."""
    return {
        (path.relative_to(PACKAGE).as_posix(), name): ast.literal_eval(value)
        for path in PACKAGE.rglob("*.py")
        for name, value in CONSTANT.findall(path.read_text())
    }


def test_the_page_tells_every_format() -> None:
    """The table has a row for each constant of the code, with its value, and the older schemas that the registry reads."""
    values = constants()
    named = {(file, name) for file, *names in FORMATS.values() for name in names}
    assert set(values) == named
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    table = {row[0]: row for row in rows if row[0] in FORMATS}
    assert set(table) == set(FORMATS)
    for what, (file, *names) in FORMATS.items():
        said = re.findall(r"`(\w+)`|(\d+)", table[what][1])
        shown = [word or number for word, number in said]
        value = [values[file, name] for name in names]
        assert shown == [one.decode() if isinstance(one, bytes) else str(one) for one in value], what
    assert table["`registry.db`: its tables"][2] == f"{min(UPGRADES)}–{max(UPGRADES)}"

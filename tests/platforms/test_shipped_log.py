"""The serving log in an object store: shipped once, kept until it is, read back, erased from; through kills and a way that is cut."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore, ManualClock
from featurestore.errors import ConfigError, LogError, NotFoundError
from featurestore.serving.log.serving_log import segments
from featurestore.serving.log.shipping import ship
from featurestore.serving.log.upkeep import Limits
from tests.platforms.conftest import Told
from tests.platforms.s3_server import bad_way, s3_server
from tests.servers import free_port

TEN = datetime(2026, 3, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
WAIT_SECONDS = 120
DEFINITIONS = """
from featurestore import Entity, FeatureService, FeatureView, ParquetSource
from featurestore.types import String

fleet = FeatureView(
    "fleet", entity=Entity("carrier", key={"carrier": String}), source=ParquetSource("fleet_rows", "fleet.parquet", event_time=None),
    features=["seats"], refresh="1h",
)
model = FeatureService("model", features=[fleet])
"""


@pytest.fixture
def s3() -> Iterator[pafs.FileSystem]:
    with s3_server() as client:
        client.create_dir("logs")
        client.delete_dir_contents("logs")  # servers of one process have what others left
        yield client


def shop(folder: Path, *said: str) -> Path:
    """A project that logs all that it serves, and ships it."""
    folder.mkdir(exist_ok=True)
    pd.DataFrame({"carrier": ["UA", "AA", "DL"], "seats": [180, 160, 140]}).to_parquet(folder / "fleet.parquet")
    words = ["rate = 1.0", 'ship_to = "s3://logs/served/"', *said]
    (folder / "featurestore.toml").write_text(
        'project = "shop"\ndefinitions = ["shop.py"]\n[serving_log]\n' + "\n".join(words) + "\n"
    )
    (folder / "shop.py").write_text(DEFINITIONS)
    return folder


def served(store: FeatureStore, *requests: str) -> None:
    for number, request in enumerate(requests):
        carrier = ["UA", "AA", "DL"][number % 3]
        store.get_online_features([{"carrier": carrier}], "model", request_id=request)
    store._project.serving_log.flush()


def filled(folder: Path) -> tuple[FeatureStore, ManualClock]:
    """A store that served nine requests, three in each of three hours, in two segments an hour."""
    clock = ManualClock(TEN)
    store = FeatureStore(folder, clock=clock)
    store.apply()
    store.materialize(progress=False)
    for hour in range(3):
        clock.set(TEN + hour * HOUR)
        served(store, f"{hour}-0", f"{hour}-1")
        served(store, f"{hour}-2")
    return store, clock


NINE = sorted(f"{hour}-{number}" for hour in range(3) for number in range(3))


def there(s3: pafs.FileSystem) -> dict[str, int]:
    found = s3.get_file_info(pafs.FileSelector("logs", recursive=True, allow_not_found=True))
    return {info.path: info.size for info in found if info.type == pafs.FileType.File}


def requests(store: FeatureStore) -> list[str]:
    """The requests of all rows that the log has, here and there."""
    files = store._project.serving_log.segments()
    return sorted(one for of in files.values() for path in of for one in pq.read_table(path)["request"].to_pylist())


def local(store: FeatureStore) -> list[Path]:
    return sorted(store.config.serving_log.folder.glob("*/*/[0-9]*.parquet"))


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_hour_is_shipped_once_and_read_from_there(s3: pafs.FileSystem, tmp_path: Path, tell: Told) -> None:
    """Then retention deletes it here; audit, explain and training frames take it from the store."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"'))
    with store:
        clock.set(TEN + 2 * HOUR + timedelta(minutes=10))  # the third hour is not over
        done = store.compact_serving_log()
        assert done is not None
        assert (done.merged, done.into, done.shipped) == (4, 2, 2)
        (mark,) = {Path(path).parent.name for path in there(s3)}
        assert {str(Path(path).parent) for path in there(s3)} == {f"logs/served/shop/model/{mark}"}
        before = there(s3)
        again = store.compact_serving_log()
        assert again is not None
        assert again.shipped == 0
        assert there(s3) == before
        assert requests(store) == NINE
        clock.set(TEN + 9 * HOUR)
        late = store.compact_serving_log()
        assert late is not None
        assert late.shipped == 1
        assert len(there(s3)) == 3
        assert local(store) == []  # all of it is in the store, and older than an hour
        assert requests(store) == NINE
        audited = store.audit()
        assert (audited.skewed, audited.compared) == (0, 9)
        assert store.explain_request("1-2").request == "1-2"
        with pytest.raises(NotFoundError):
            store.explain_request("never")
        spine = pa.table({
            "carrier": ["UA", "AA"], "event_timestamp": pa.array([TEN + HOUR] * 2, pa.timestamp("us", "UTC"))
        })  # fmt: skip
        frame = store.get_historical_features(spine, "model", from_log="0s").to_arrow()
        assert frame["values_from"].to_pylist() == ["log", "log"]
        assert frame["fleet__seats"].to_pylist() == [180, 160]
    with FeatureStore(tmp_path / "shop", clock=clock) as another:  # which has nothing here
        assert requests(another) == NINE
        assert another.audit(since=TEN + HOUR, until=TEN + 2 * HOUR).compared == 3
    tell("s3", version=f"moto {version('moto')}", ran="the serving log was shipped and audited", compared=9)


def test_what_comes_late_and_what_was_merged_again_counts_once(s3: pafs.FileSystem, tmp_path: Path) -> None:
    store, clock = filled(shop(tmp_path / "shop"))
    with store:
        clock.set(TEN + 4 * HOUR)
        log = store._project.serving_log
        assert log.ship() is not None  # before anything was merged
        assert len(there(s3)) == 6
        done = store.compact_serving_log()
        assert done is not None
        assert done.into == 3
        assert len(there(s3)) == 3  # what was merged takes the place of its parts there too
        assert requests(store) == NINE
        clock.set(TEN)
        served(store, "late")  # by a process that stood still, for one
        clock.set(TEN + 5 * HOUR)
        for path in store.config.serving_log.folder.glob("*/*/*-merged-*.parquet"):
            os.utime(path, (0, 0))  # the grace of what they replaced is over
        for _ in range(2):
            store.compact_serving_log()
        assert requests(store) == sorted([*NINE, "late"])
        assert store.audit().skewed == 0


def test_nothing_is_deleted_that_is_not_there(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """While the store cannot be reached files stay, whatever their age; then each goes there once."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"', "max_bytes = 1"))
    with store:
        clock.set(TEN + 48 * HOUR)
        with bad_way() as way:
            way.left = 0
            with pytest.raises(
                LogError, match="serving log's files in s3://logs/served/shop are not to be had: .*s3://logs"
            ):
                store.compact_serving_log()
            with pytest.raises(LogError, match="are not to be had"):
                store.audit()
            shipping = store._project.serving_log._shipping  # as a process that serves does it
            assert shipping is not None
            shipping.wake()
            wait_until(lambda: "s3://logs/served/shop" in (store.serving_log_losses().last_error or ""))
        assert there(s3) == {}
        assert len({path.name.split("-")[0] for path in local(store)}) >= 3
        shipping.wake()  # the same thread
        wait_until(lambda: not local(store))
        assert len(there(s3)) == 3
        assert requests(store) == NINE


def test_what_was_damaged_there_is_told(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """As what was damaged here is: the rest is audited. One that came by half is shipped again while it is here."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"'))
    with store:
        clock.set(TEN + 2 * HOUR + timedelta(minutes=10))
        store._project.serving_log._limits = Limits  # type: ignore[method-assign]
        store.compact_serving_log()
        name, size = min(there(s3).items())
        with s3.open_input_file(name) as file:
            whole = file.read()
        with s3.open_output_stream(name) as file:
            file.write(whole[: size // 2])
        done = store.compact_serving_log()
        assert done is not None
        assert done.shipped == 1
        assert there(s3)[name] == size
        for path in local(store):
            path.unlink()
        with s3.open_output_stream(name) as file:
            file.write(whole[:200] + b"?" + whole[201:])
        audited = store.audit()
        assert (audited.compared, audited.skewed) == (3, 0)
        (damaged,) = audited.damaged
        assert damaged.endswith(name.rpartition("/")[2])


KILLED = """
import os, signal, sys
from featurestore import FeatureStore, ManualClock
from featurestore.serving.log import shipping
from datetime import datetime

class Killed(shipping.ShippedLog):
    def put(self, path):
        super().put(path)
        if sys.argv[3] == "put":
            os.kill(os.getpid(), signal.SIGKILL)
    def remove(self, path):
        super().remove(path)
        if sys.argv[3] == "remove":
            os.kill(os.getpid(), signal.SIGKILL)

with FeatureStore(sys.argv[1], clock=ManualClock(datetime.fromisoformat(sys.argv[2]))) as store:
    store._project.serving_log.there.__class__ = Killed
    if sys.argv[3] == "delete":
        shipping.delete = lambda files: os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[4] == "forget":
        store.forget("carrier", {"carrier": "UA"})
    else:
        store.compact_serving_log()
"""


def run(folder: Path, at: datetime, when: str, what: str = "compact") -> int:
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), at.isoformat(), when, what], timeout=600, check=False
    ).returncode


def rows_of(s3: pafs.FileSystem, carrier: str) -> int:
    """How many rows of a carrier lie in the store."""
    found = 0
    for name in there(s3):
        with s3.open_input_file(name) as file:
            found += pq.read_table(file)["input:carrier"].to_pylist().count(carrier)
    return found


def test_what_is_damaged_here_is_read_and_erased_there(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """A file that was shipped whole, and then damaged on this disk, costs nothing; and a forgotten key leaves the one in the store."""
    store, clock = filled(shop(tmp_path / "shop"))
    with store:
        clock.set(TEN + 9 * HOUR)
        store.compact_serving_log()
        merged = [path for path in local(store) if "-merged-" in path.name]
        assert 0 < len(merged) < len(local(store))  # what they replaced is here yet, and counts no more
        for path in merged:
            whole = path.read_bytes()
            path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
        audited = store.audit()
        assert (audited.compared, audited.damaged) == (9, {})
        assert rows_of(s3, "UA") == 6
        assert store.forget("carrier", {"carrier": "UA"}).served_rows == 6
        assert rows_of(s3, "UA") == 0
        assert requests(store) == ["0-1", "1-1", "2-1"]


def test_a_key_that_one_machine_forgot_leaves_the_disk_of_another(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """With the next time that it ships: its files count no more, and would otherwise stay for ever, as nothing ships them."""
    store, clock = filled(shop(tmp_path / "shop"))
    with store:
        clock.set(TEN + 9 * HOUR)
        store.compact_serving_log()
        shutil.copytree(tmp_path / "shop", tmp_path / "other")
        with FeatureStore(tmp_path / "other", clock=clock) as other:
            assert other.forget("carrier", {"carrier": "UA"}).served_rows == 6
        assert len(local(store)) >= 3
        store.compact_serving_log()
        assert local(store) == []
        assert requests(store) == ["0-1", "1-1", "2-1"]
        assert len(there(s3)) == 3


def test_files_of_others_beside_the_log_are_left_alone(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """Here and in the store, whatever they are called."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"'))
    with store:
        clock.set(TEN + 2 * HOUR + timedelta(minutes=10))
        folder = local(store)[0].parent
        for name in ("2026-notes.parquet", "1.parquet"):
            (folder / name).write_bytes(b"notes")
        store.compact_serving_log()
        place = min(there(s3)).rpartition("/")[0]
        for name in ("2026-notes.parquet", "1.parquet"):
            with s3.open_output_stream(f"{place}/{name}") as file:
                file.write(b"notes")
        clock.set(TEN + 9 * HOUR)
        store.compact_serving_log()
        assert requests(store) == NINE
        assert store.audit().compared == 9
        assert store.forget("carrier", {"carrier": "UA"}).served_rows == 6
        assert {path.name for path in local(store)} >= {"2026-notes.parquet", "1.parquet"}


@pytest.mark.parametrize("when", ["put", "delete", "remove"])
def test_a_killed_process_loses_and_doubles_nothing(s3: pafs.FileSystem, tmp_path: Path, when: str) -> None:
    """After a file went to the store, after what it replaced went away there, before one is deleted here."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"'))
    with store:
        at = TEN + 9 * HOUR
        clock.set(at)
        if when == "remove":
            store._project.serving_log.ship()  # parts, which the merged ones will replace
            retained = requests(store)
            assert retained == NINE
        kills = 0
        while run(tmp_path / "shop", at, when) == -signal.SIGKILL:
            kills += 1
            assert requests(store) == NINE
            assert store.audit().compared == 9
            if when == "delete":
                break
        assert kills >= (0 if when == "remove" else 1)
        store.compact_serving_log()
        assert requests(store) == NINE
        assert local(store) == []


def test_a_process_that_is_killed_on_the_way(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """While a file goes to the store: nothing of it is seen there."""
    store, _ = filled(shop(tmp_path / "shop"))
    with store, bad_way() as way:
        at = TEN + 9 * HOUR
        way.stalls, way.left = True, 6000
        words = [sys.executable, "-c", KILLED, str(tmp_path / "shop"), at.isoformat(), "never", "compact"]
        process = subprocess.Popen(words)
        assert way.reached.wait(WAIT_SECONDS)
        process.kill()
        process.wait()
        way.left = 1 << 60
        assert requests(store) == NINE
        assert run(tmp_path / "shop", at, "never") == 0
        assert len(there(s3)) == 3
        assert requests(store) == NINE


def test_a_forgotten_key_leaves_the_store(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """Killed on the way, the same call completes it; another machine's copy does not come back."""
    store, clock = filled(shop(tmp_path / "shop"))
    with store:
        at = TEN + 9 * HOUR
        clock.set(at)
        store.compact_serving_log()
        other = tmp_path / "other"
        for path in local(store):  # a machine that shipped the same files, and has them still
            place = other / path.relative_to(store.config.serving_log.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
        for path in local(store)[:1]:
            path.unlink()  # one lies in the store alone
    assert run(tmp_path / "shop", at, "put", "forget") == -signal.SIGKILL
    with FeatureStore(tmp_path / "shop", clock=clock) as store:
        left = sorted(set(NINE) - {"0-0", "1-0", "2-0", "0-2", "1-2", "2-2"})
        found = set(requests(store))
        assert found >= set(left)
        assert store.forget("carrier", {"carrier": "UA"}).served_rows >= 1
        assert not any(name.endswith(("-0", "-2")) for name in requests(store))
        assert requests(store) == left
        for name in there(s3):
            with s3.open_input_file(name) as file:
                assert "UA" not in pq.read_table(file)["input:carrier"].to_pylist()
        assert store.audit().skewed == 0
        before = there(s3)
        log = store._project.serving_log
        assert log.there is not None
        live = {name for version in log.there.listing() for name in log.there.segments(other)[version]}
        assert not any(path.is_relative_to(other) for path in live)  # what is in the store replaces it
        assert ship(other, log.there, Limits(), now=int(clock().timestamp() * 1e6)) is not None
        assert there(s3) == before


SERVER = """
import sys
from featurestore.serving.log import serving_log
serving_log.UPKEEP_SECONDS = 0.2
serving_log.FLUSH_SECONDS = 0.1
from featurestore.cli import main
sys.argv = ["featurestore", "--repo", sys.argv[1], "serve", "--no-authentication", "--port", sys.argv[2]]
main()
"""


def test_a_server_ships_and_answers_while_the_way_is_cut(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """What its thread that ships waits for keeps neither lookups nor the log waiting."""
    store, _ = filled(shop(tmp_path / "shop"))
    store.close()
    with FeatureStore(tmp_path / "shop") as now:
        now.materialize(progress=False)
        folder = now.config.serving_log.folder
    port = free_port()
    with bad_way() as way:
        way.stalls, way.left = True, 0
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path / "shop"), str(port)])
        try:
            url = f"http://127.0.0.1:{port}"

            def asked(number: int) -> Any:
                body = json.dumps({"service": "model", "rows": [{"carrier": "UA"}]}).encode()
                headers = {"Content-Type": "application/json", "X-Request-ID": f"live-{number}"}
                with urllib.request.urlopen(
                    urllib.request.Request(f"{url}/v1/online-features", body, headers)
                ) as answer:
                    return json.load(answer)

            def is_up() -> bool:
                try:
                    return bool(asked(0))
                except OSError:
                    assert process.poll() is None
                    return False

            wait_until(is_up)
            assert way.reached.wait(WAIT_SECONDS)  # its thread that ships waits for the store
            for number in range(1, 20):
                assert asked(number)["rows"]

            def logged() -> int:
                files = segments(folder).values()
                return sum(pq.read_metadata(path).num_rows for of in files for path in of)

            wait_until(lambda: logged() >= len(NINE) + 20)
            assert there(s3) == {}
            way.stalls, way.left = False, 1 << 60
            wait_until(lambda: len(there(s3)) == 3)
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)
    with FeatureStore(tmp_path / "shop") as after:
        assert [name for name in requests(after) if not name.startswith("live")] == NINE
        assert after.audit(until=TEN + 3 * HOUR).skewed == 0


def test_several_ship_at_once(s3: pafs.FileSystem, tmp_path: Path) -> None:
    store, clock = filled(shop(tmp_path / "shop"))
    with store:
        clock.set(TEN + 9 * HOUR)
        store._project.serving_log.keep_up()
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.append(store.compact_serving_log())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(there(s3)) == 3
        assert requests(store) == NINE


@pytest.mark.parametrize(
    "url",
    [
        "served",
        "file:///served",
        "s3://",
        "s3://key:secret@logs/x",
        "s3://logs/*",
        "s3://logs//x",
        "s3://logs/..",
        "s3://logs/a/../b",
        "s3://logs/./x",
        "s3://logs/x\\ny",
    ],  # fmt: skip
)
def test_a_place_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    folder = shop(tmp_path / "shop")
    (folder / "featurestore.toml").write_text(f'project = "shop"\n[serving_log]\nship_to = "{url}"\n')
    with pytest.raises(ConfigError, match="serving_log.ship_to.* must be a folder in an object store") as caught:
        FeatureStore(folder)
    assert "secret" not in str(caught.value)

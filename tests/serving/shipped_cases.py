"""The serving log in an object store: projects that ship it, and what must hold wherever the store is. `s3` is its file system, in which
`logs` is the bucket. Run in a folder by tests/serving/test_shipping.py, and over a server by tests/platforms/test_shipped_log.py."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore, ManualClock
from featurestore.errors import LogError, NotFoundError
from featurestore.serving.log.upkeep import Limits

TEN = datetime(2026, 3, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
WAIT_SECONDS = 600
STORE = "s3"
"""How URLs of the store begin."""
DEFINITIONS = """
from featurestore import Entity, FeatureService, FeatureView, ParquetSource
from featurestore.types import String

fleet = FeatureView(
    "fleet", entity=Entity("carrier", key={"carrier": String}), source=ParquetSource("fleet_rows", "fleet.parquet", event_time=None),
    features=["seats"], refresh="1h",
)
model = FeatureService("model", features=[fleet])
"""


def shop(folder: Path, *said: str) -> Path:
    """A project that logs all that it serves, and ships it."""
    folder.mkdir(exist_ok=True)
    pd.DataFrame({"carrier": ["UA", "AA", "DL"], "seats": [180, 160, 140]}).to_parquet(folder / "fleet.parquet")
    words = ["rate = 1.0", f'ship_to = "{STORE}://logs/served/"', *said]
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


def test_each_hour_is_shipped_once_and_read_from_there(s3: pafs.FileSystem, tmp_path: Path) -> None:
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


def test_what_was_damaged_there_is_told(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """As what was damaged here is: the rest is audited. One that came by half is shipped again while it is here."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"'))
    with store:
        clock.set(TEN + 2 * HOUR + timedelta(minutes=10))
        store._project.serving_log._limits = Limits  # type: ignore[method-assign]  # replaced for this log alone
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


def test_a_bucket_that_is_not_there_is_told(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """It is no log without files; a bucket in which there is no such folder yet is."""
    folder = shop(tmp_path / "shop")
    store, _ = filled(folder)
    with store:
        assert (there(s3), store.audit().compared) == ({}, 9)
    settings = folder / "featurestore.toml"
    settings.write_text(settings.read_text().replace("s3://logs/", "s3://lgos/"))
    with FeatureStore(folder, clock=ManualClock(TEN + 9 * HOUR)) as mistaken:
        for ask in (mistaken.audit, mistaken.compact_serving_log):
            with pytest.raises(LogError, match="files in s3://lgos/served/shop are not to be had: .* no bucket 'lgos'"):
                ask()

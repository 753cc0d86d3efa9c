"""Delta Lake tables that the `deltalake` library writes: their rows, versions and deletions."""

from __future__ import annotations

import base64
import json
import shutil
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as Number
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from featurestore import (
    ARRIVAL,
    Count,
    DeltaSource,
    Entity,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
)
from featurestore.errors import DeclarationError, SourceError
from featurestore.sources.tables import delta_tables
from featurestore.types import Bool, Date, Decimal, Float64, Int64, String, Timestamp
from tests.migrate.feast_records import Repository, entity, matters, view
from tests.platforms.conftest import Told
from tests.platforms.s3_server import s3_server
from tests.sources.same_rows import ROWS, WORDS, answers, parquet, table

USER = Entity("user", key={"user": String})
SPINE_AT = datetime(2026, 3, 9, tzinfo=UTC)


def orders(*rows: tuple[str, int, date | None, str], **more: Any) -> pa.Table:
    users, amounts, days, cities = zip(*rows, strict=True) if rows else ((), (), (), ())
    at = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=amount) for amount in amounts]
    columns = {
        "user": pa.array(users, pa.string()),
        "at": pa.array(at, pa.timestamp("us", "UTC")),
        "amount": pa.array(amounts, pa.int64()),
        "day": pa.array(days, pa.date32()),
        "city": pa.array(cities, pa.string()),
    }
    return pa.table(columns | more)


FIRST = orders(("ann", 1, date(2026, 3, 1), "x y"), ("ben", 2, None, "ü/=%"), ("ann", 3, date(2026, 3, 2), "x y"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SPINE_AT)


@pytest.fixture
def store(clock: ManualClock) -> Iterator[FeatureStore]:
    with FeatureStore.local(clock=clock) as store:
        yield store


def source(folder: Path, **said: Any) -> DeltaSource:
    return DeltaSource("orders", folder, event_time="at", **said)


def counted(store: FeatureStore, source: DeltaSource) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of each user how many rows there are and the last amount, by training; and the manifest."""
    folds = FeatureView("rows", entity=USER, source=source, refresh="1h", features={"n": Count(window="lifetime")})
    last = FeatureView("last", entity=USER, source=source, refresh="1h", features=["amount"])
    users = ["ann", "ben", "cleo"]
    frame = store.get_historical_features(pa.table({"user": users, "event_timestamp": [SPINE_AT] * 3}), [folds, last])
    found = frame.to_arrow()
    said = zip(users, found["rows__n"].to_pylist(), found["last__amount"].to_pylist(), strict=True)
    return {user: (n, amount) for user, n, amount in said}, frame.manifest


def test_values_types_and_statuses_are_those_of_parquet(tmp_path: Path, tell: Told) -> None:
    for name in ("parquet", "delta"):
        (tmp_path / name).mkdir()
    expected = answers(parquet(tmp_path / "parquet", ROWS, **WORDS))
    listed = table(ROWS).rename_columns({"embedding": "list"})
    for part in (listed[:17], listed[17:40], listed[40:]):
        write_deltalake(tmp_path / "delta", part, mode="append")
    words = {**WORDS, "derived": {"embedding": "CAST(list AS FLOAT[2])"}}
    found = answers(DeltaSource("rows", tmp_path / "delta", **words))
    assert found == expected
    compared = sum(map(len, found[0]["values"])) + sum(map(len, found[1]["values"]))
    tell("delta", version=f"deltalake {version('deltalake')}", ran="it wrote the tables", compared=compared)


def test_partitions_are_those_of_the_log(store: FeatureStore, tmp_path: Path) -> None:
    write_deltalake(tmp_path, FIRST, partition_by=["day", "city"])
    with pytest.raises(SourceError, match=r"its partition 'day' is Date in the table; say partitions=\{'day': Date\}"):
        counted(store, source(tmp_path))
    view = FeatureView(
        "where", entity=USER, source=source(tmp_path, partitions={"day": Date}), refresh="1h", features=["day", "city"]
    )
    spine = pa.table({"user": ["ann", "ben"], "event_timestamp": [SPINE_AT] * 2})
    found = store.get_historical_features(spine, [view]).to_arrow()
    assert found["where__day"].to_pylist() == [date(2026, 3, 2), None]
    assert found["where__city"].to_pylist() == ["x y", "ü/=%"]


def test_partitions_of_every_type(store: FeatureStore, tmp_path: Path) -> None:
    """Null, before 1970, and signs that names of folders encode; the empty text is null."""
    cases: list[tuple[str, Any, Any]] = [
        ("seen", Timestamp, [None, datetime(1969, 3, 1, 12, 30, 1, 5, UTC), datetime(2026, 3, 1, tzinfo=UTC)]),
        ("flag", Bool, [None, True, False]), ("price", Decimal(10, 2), [None, Number("0.00"), Number("7.10")]),
        ("ratio", Float64, [None, 0.1, -0.0]), ("many", Int64, [None, -(2**63), 2**63 - 1]),
        ("text", String, [None, " ", "a/b=c%20 d"]),
    ]  # fmt: skip
    for name, of, values in cases:
        write_deltalake(tmp_path / name, FIRST.append_column(name, pa.array(values, of.arrow)), partition_by=[name])
        said = source(tmp_path / name, partitions={} if of == String else {name: of})
        view = FeatureView(name, entity=USER, source=said, refresh="1h", features=[name])
        spine = pa.table({"user": ["ben", "ann"], "event_timestamp": [SPINE_AT] * 2})
        found = store.get_historical_features(spine, [view]).to_arrow()[f"{name}__{name}"].to_pylist()
        assert list(map(repr, found)) == [repr(pa.scalar(value, of.arrow).as_py()) for value in values[1:]]
    write_deltalake(tmp_path / "empty", FIRST.append_column("text", pa.array(["", "", ""])), partition_by=["text"])
    view = FeatureView("text", entity=USER, source=source(tmp_path / "empty"), refresh="1h", features=["text"])
    assert store.get_historical_features(spine, [view]).to_arrow()["text__text"].to_pylist() == [None, None]
    write_deltalake(tmp_path / "raw", FIRST.append_column("raw", pa.array([b"a"] * 3)), partition_by=["raw"])
    with pytest.raises(SourceError, match="its partition 'raw' is Bytes, which is not read"):
        counted(store, source(tmp_path / "raw"))
    assert counted(store, source(tmp_path / "raw", partitions={"raw": None}))[0]["ann"] == (2, 3)


def test_a_version_is_pinned_and_told_by_the_manifest(store: FeatureStore, tmp_path: Path) -> None:
    """What a training set was made of can be read again, whatever happened to the table since."""
    write_deltalake(tmp_path, FIRST)
    write_deltalake(tmp_path, orders(("ann", 4, None, "z"), ("cleo", 5, None, "z")), mode="append")
    newest, manifest = counted(store, source(tmp_path))
    assert newest == {"ann": (3, 4), "ben": (1, 2), "cleo": (1, 5)}
    assert {file["table_version"] for file in manifest["sources"]["orders"]} == {1}
    DeltaTable(tmp_path).delete("amount = 4")
    DeltaTable(tmp_path).optimize.compact()
    after, manifest = counted(store, source(tmp_path))
    assert after == {"ann": (2, 3), "ben": (1, 2), "cleo": (1, 5)}
    assert {file["table_version"] for file in manifest["sources"]["orders"]} == {3}
    assert counted(store, source(tmp_path, table_version=1))[0] == newest
    assert counted(store, source(tmp_path, table_version=0))[0] == {"ann": (2, 3), "ben": (1, 2), "cleo": (None, None)}


def test_runs_of_materialize_follow_the_versions(store: FeatureStore, clock: ManualClock, tmp_path: Path) -> None:
    """Appended rows, deleted ones, and files that were written anew with the same rows."""
    write_deltalake(tmp_path, FIRST)
    orders_of = source(tmp_path)
    view = FeatureView("rows", entity=USER, source=orders_of, refresh="1h", features={"n": Count(window="lifetime")})
    store.apply([view])
    steps = [
        lambda: None,
        lambda: write_deltalake(tmp_path, orders(("ben", 9, None, "q")), mode="append"),
        lambda: DeltaTable(tmp_path).delete("user = 'ann' AND amount = 1"),
        lambda: DeltaTable(tmp_path).optimize.compact(max_concurrent_tasks=1),
        lambda: DeltaTable(tmp_path).vacuum(0, dry_run=False, enforce_retention_duration=False),
    ]
    for number, step in enumerate(steps):
        step()
        clock.set(SPINE_AT + timedelta(hours=number))
        store.materialize(progress=False)
        served = store.get_online_features([{"user": name} for name in ("ann", "ben")], [view]).to_arrow()
        trained = store.get_historical_features(
            pa.table({"user": ["ann", "ben"], "event_timestamp": [SPINE_AT + timedelta(hours=number)] * 2}), [view]
        ).to_arrow()
        assert served["rows__n"].to_pylist() == trained["rows__n"].to_pylist()
        assert served["rows__n"].to_pylist() == [[2, 1], [2, 2], [1, 2], [1, 2], [1, 2]][number]


def test_a_column_that_came_later_is_null_before(store: FeatureStore, tmp_path: Path) -> None:
    write_deltalake(tmp_path, FIRST)
    later = orders(("ben", 7, None, "z"), score=pa.array([0.5]))
    write_deltalake(tmp_path, later, mode="append", schema_mode="merge")
    view = FeatureView("score", entity=USER, source=source(tmp_path), refresh="1h", features=["score"])
    spine = pa.table({"user": ["ann", "ben"], "event_timestamp": [SPINE_AT] * 2})
    assert store.get_historical_features(spine, [view]).to_arrow()["score__score"].to_pylist() == [None, 0.5]


Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def deletion_vector(rows: list[int]) -> dict[str, Any]:
    """Rows of a file that are deleted, as the log holds them inline: an array of one roaring bitmap, in Z85."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    data = struct.pack("<Iq I", 1681511377, 1, 0) + bitmap
    data += bytes(-len(data) % 4)
    python = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    text = base64.b85encode(data).decode().translate(str.maketrans(python, Z85))
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}


@pytest.mark.parametrize("where", ["plain", "a table", "ü x"])
def test_rows_below_a_deletion_vector_do_not_count(store: FeatureStore, tmp_path: Path, where: str) -> None:
    """As Databricks deletes: the file stays, and the log says which of its rows are gone. The library reads it alike."""
    tmp_path = tmp_path / where
    same = FIRST.set_column(4, "city", pa.array(["ü/= %"] * 3))
    write_deltalake(tmp_path, same, partition_by=["city"], configuration={"delta.enableDeletionVectors": "true"})
    log = tmp_path / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020}.json").read_text().splitlines()]
    (add,) = [action["add"] for action in actions if "add" in action]
    vector = deletion_vector([0, 2])
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    written = [{"remove": remove}, {"add": {**add, "deletionVector": vector}}, {"commitInfo": {"operation": "DELETE"}}]
    (log / f"{1:020}.json").write_text("\n".join(map(json.dumps, written)))
    assert DeltaTable(tmp_path).version() == 1
    (left,) = pa.table(DeltaTable(tmp_path).deletion_vectors()).to_pylist()
    assert left["selection_vector"][:3] == [False, True, False]
    assert counted(store, source(tmp_path))[0] == {"ann": (None, None), "ben": (1, 2), "cleo": (None, None)}
    assert counted(store, source(tmp_path, table_version=0))[0] == {"ann": (2, 3), "ben": (1, 2), "cleo": (None, None)}


def commit(folder: Path, version: int, *actions: dict[str, Any]) -> None:
    """Commit by hand what the library writes not itself."""
    (folder / "_delta_log").mkdir(parents=True, exist_ok=True)
    (folder / "_delta_log" / f"{version:020}.json").write_text("\n".join(map(json.dumps, actions)))


def mapped(names: dict[str, tuple[str, str]], mode: str) -> dict[str, Any]:
    """The metadata of a table with column mapping: column → its type, and its name in files; numbers are their places."""
    fields = [
        {
            "name": name, "type": of, "nullable": True,
            "metadata": {"delta.columnMapping.id": int(own.rpartition("-")[2]), "delta.columnMapping.physicalName": own},
        }
        for name, (of, own) in names.items()
    ]  # fmt: skip
    return {
        "metaData": {
            "id": "5522e546-5d2a-4fc7-9c67-5e6d14091e91", "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": fields}), "partitionColumns": ["city"], "createdTime": 1,
            "configuration": {"delta.columnMapping.mode": mode, "delta.columnMapping.maxColumnId": "9"},
        }
    }  # fmt: skip


def added(folder: Path, name: str, rows: pa.Table, city: str | None, **more: Any) -> dict[str, Any]:
    pq.write_table(rows, folder / name)
    size = (folder / name).stat().st_size
    return {
        "add": {
            "path": quote(name),
            "partitionValues": {"col-4": city},
            "size": size,
            "modificationTime": 1,
            "dataChange": True,
            "stats": json.dumps({"numRecords": rows.num_rows}),
            **more,
        }
    }


@pytest.mark.parametrize("mode", ["name", "id"])
def test_columns_that_files_name_otherwise(store: FeatureStore, tmp_path: Path, mode: str) -> None:
    """As Databricks names them after a rename: by names, or by numbers beside them. One is dropped, and its name is another's."""
    names = {
        "user": ("string", "col-1"),
        "at": ("timestamp", "col-2"),
        "amount": ("long", "col-3"),
        "city": ("string", "col-4"),
    }
    numbered = FIRST.select(["user", "at", "amount"]).append_column("gone", pa.array(["g"] * 3))
    inside = [f"col-{n}" for n in (1, 2, 3, 5)] if mode == "name" else ["amount", "x", "user", "at"]
    fields = [
        pa.field(own, of.type, metadata={"PARQUET:field_id": str(number)})
        for own, of, number in zip(inside, numbered.schema, (1, 2, 3, 5), strict=True)
    ]
    rows = pa.table(numbered.columns, schema=pa.schema(fields))
    folder = tmp_path / "a table"
    folder.mkdir()
    features = ["columnMapping", "deletionVectors"]
    protocol = {
        "protocol": {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": features,
            "writerFeatures": features,
        }
    }
    commit(folder, 0, protocol, mapped(names, mode), added(folder, "a b.parquet", rows, "x y"))
    commit(folder, 1, added(folder, "c.parquet", rows.slice(0, 1), None, deletionVector=deletion_vector([0])))
    found, _ = counted(store, source(folder))
    assert found == {"ann": (2, 3), "ben": (1, 2), "cleo": (None, None)}
    view = FeatureView("where", entity=USER, source=source(folder), refresh="1h", features=["city"])
    spine = pa.table({"user": ["ann"], "event_timestamp": [SPINE_AT]})
    assert store.get_historical_features(spine, [view]).to_arrow()["where__city"].to_pylist() == ["x y"]
    write_deltalake(tmp_path / "own", FIRST, partition_by=["city"], configuration={"delta.columnMapping.mode": mode})
    assert counted(store, source(tmp_path / "own"))[0] == found
    swapped = {**names, "amount": names["user"], "user": names["amount"]}
    commit(
        folder,
        2,
        mapped(
            {**swapped, "amount": ("long", "col-3"), "user": ("string", "col-1"), "gone": ("string", "col-5")}, mode
        ),
    )
    assert counted(store, source(folder))[0] == found
    gone = FeatureView("gone", entity=USER, source=source(folder), refresh="1h", features=["gone"])
    assert store.get_historical_features(spine, [gone]).to_arrow()["gone__gone"].to_pylist() == ["g"]
    assert counted(store, source(folder, table_version=1))[0] == found


def test_a_table_that_is_made_again_is_read_again(store: FeatureStore, tmp_path: Path) -> None:
    """Of as many versions as it had; a log in which nothing changed is read once."""
    write_deltalake(tmp_path / "t", FIRST)
    assert counted(store, source(tmp_path / "t"))[0]["ann"] == (2, 3)
    known = store.offline._delta_tables._known["orders"][1]
    assert counted(store, source(tmp_path / "t"))[0]["ann"] == (2, 3)
    assert store.offline._delta_tables._known["orders"][1] is known
    shutil.rmtree(tmp_path / "t")
    with pytest.raises(SourceError, match="there is no Delta table in"):
        counted(store, source(tmp_path / "t"))
    write_deltalake(tmp_path / "t", orders(("ann", 7, None, "q")))
    assert counted(store, source(tmp_path / "t"))[0]["ann"] == (1, 7)
    write_deltalake(tmp_path / "t", FIRST, mode="append")
    DeltaTable(tmp_path / "t").create_checkpoint()
    assert counted(store, source(tmp_path / "t"))[0]["ann"] == (3, 7)


def test_a_table_in_an_object_store(store: FeatureStore, clock: ManualClock) -> None:
    """Its partitions, versions, deletions, and files that vanish while they are read."""
    with s3_server() as s3:
        s3.create_dir("lake")
        url = "s3://lake/orders"
        options = {"AWS_ALLOW_HTTP": "true", "aws_conditional_put": "etag"}
        write_deltalake(url, FIRST, partition_by=["city"], storage_options=options)
        of = source(url)  # type: ignore[arg-type]  # words of several types
        view = FeatureView("rows", entity=USER, source=of, refresh="1h", features={"n": Count(window="lifetime")})
        store.apply([view])
        store.materialize(progress=False)
        write_deltalake(url, orders(("ann", 4, None, "ü/=%")), mode="append", storage_options=options)
        clock.set(SPINE_AT + timedelta(hours=1))
        assert [run.keys for run in store.materialize(progress=False)] == [1]
        assert counted(store, of)[0] == {"ann": (3, 4), "ben": (1, 2), "cleo": (None, None)}
        DeltaTable(url, storage_options=options).delete("amount = 4")
        newest, manifest = counted(store, of)
        assert newest == {"ann": (2, 3), "ben": (1, 2), "cleo": (None, None)}
        assert {file["table_version"] for file in manifest["sources"]["orders"]} == {2}
        assert counted(store, source(url, table_version=1))[0]["ann"] == (3, 4)  # type: ignore[arg-type]  # words of several types
        late = "s3://lake/late"
        write_deltalake(late, FIRST, storage_options=options)
        write_deltalake(late, orders(("ann", 4, None, "z")), mode="append", storage_options=options)
        times = []
        for number in range(2):
            with s3.open_input_file(f"lake/late/_delta_log/{number:020}.json") as log:
                infos = [json.loads(line).get("commitInfo") for line in log.read().splitlines()]
                times += [info["timestamp"] for info in infos if info]
        arriving = DeltaSource("late", late, event_time="at", known_at=ARRIVAL)
        at = [datetime.fromtimestamp(time / 1000, UTC) for time in (times[0] - 1, *times)]
        view = FeatureView(
            "late", entity=USER, source=arriving, refresh="continuous", features={"n": Count(window="lifetime")}
        )
        with FeatureStore.local(clock=ManualClock(datetime(2200, 1, 1, tzinfo=UTC))) as later:
            trained = later.get_historical_features(pa.table({"user": ["ann"] * 3, "event_timestamp": at}), [view])
            assert trained.to_arrow()["late__n"].to_pylist() == [None, 2, 3]
        with pytest.raises(SourceError, match=r"s3://lake/orders is a Delta table.*declare it as a DeltaSource"):
            store.offline.files(ParquetSource("orders", url, event_time="at"))
        s3.delete_dir("lake/orders")
        with pytest.raises(SourceError, match="there is no Delta table in s3://lake/orders"):
            counted(store, of)


def committed(folder: Path, hour: int) -> None:
    """Say in the log that its newest version was committed at an hour of 8 March."""
    newest = max((folder / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in newest.read_text().splitlines()]
    at = datetime(2026, 3, 8, hour, tzinfo=UTC)
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["timestamp"] = int(at.timestamp() * 1000)
    newest.write_text("\n".join(map(json.dumps, actions)))


def known(store: FeatureStore, of: DeltaSource, *hours: int) -> list[int | None]:
    """How many rows of Ann training knows at each hour of 8 March."""
    view = FeatureView("rows", entity=USER, source=of, refresh="continuous", features={"n": Count(window="lifetime")})
    at = [datetime(2026, 3, 8, hour, tzinfo=UTC) for hour in hours]
    spine = pa.table({"user": ["ann"] * len(at), "event_timestamp": pa.array(at, pa.timestamp("us", "UTC"))})
    found: list[int | None] = store.get_historical_features(spine, [view]).to_arrow()["rows__n"].to_pylist()
    return found


def test_rows_are_known_from_the_commit_that_added_them(
    store: FeatureStore, clock: ManualClock, tmp_path: Path
) -> None:
    """A compaction makes none of them later, as long as what it replaced is there, or was copied."""
    of = source(tmp_path / "t", known_at=ARRIVAL)
    write_deltalake(tmp_path / "t", FIRST)
    committed(tmp_path / "t", 10)
    write_deltalake(tmp_path / "t", orders(("ann", 4, None, "z")), mode="append")
    committed(tmp_path / "t", 12)
    assert known(store, of, 9, 10, 11, 12) == [None, 2, 2, 3]
    DeltaTable(tmp_path / "t").optimize.compact()
    committed(tmp_path / "t", 14)
    write_deltalake(tmp_path / "t", orders(("ann", 5, None, "z")), mode="append")
    committed(tmp_path / "t", 16)
    assert known(store, of, 9, 10, 12, 14, 16) == [None, 2, 3, 3, 4]
    view = FeatureView("rows", entity=USER, source=of, refresh="1h", features={"n": Count(window="lifetime")})
    store.apply([view])
    assert "counts from the commit" in str(store.plan([view]).notices)
    store.materialize(progress=False)
    assert store.get_online_features([{"user": "ann"}], [view]).to_arrow()["rows__n"].to_pylist() == [4]
    DeltaTable(tmp_path / "t").optimize.compact()
    committed(tmp_path / "t", 18)
    assert known(store, of, 9, 10, 12, 14, 16) == [None, 2, 3, 3, 4]
    DeltaTable(tmp_path / "t").vacuum(0, dry_run=False, enforce_retention_duration=False)
    assert known(store, of, 9, 10, 12, 14, 16) == [None, 2, 3, 3, 4]
    with FeatureStore.local(
        clock=clock
    ) as another:  # which never saw what was vacuumed: known when the last of them came
        assert known(another, of, 10, 12, 15, 16) == [None, None, None, 4]
    DeltaTable(tmp_path / "t").delete("amount = 4")
    with pytest.raises(
        SourceError, match=r"known_at=ARRIVAL: version \d+ \(DELETE\) of its table wrote rows anew, into part-"
    ):
        known(store, of, 10)


def test_what_a_run_counted_without_a_commit_is_known_later(
    store: FeatureStore, clock: ManualClock, tmp_path: Path
) -> None:
    """Whatever the commit says of itself: an instant that was served keeps its rows."""
    of = source(tmp_path, known_at=ARRIVAL)
    write_deltalake(tmp_path, FIRST)
    committed(tmp_path, 10)
    view = FeatureView("rows", entity=USER, source=of, refresh="1h", features={"n": Count(window="lifetime")})
    store.apply([view])
    clock.set(datetime(2026, 3, 9, 6, tzinfo=UTC))
    store.materialize(progress=False)
    write_deltalake(tmp_path, orders(("ann", 4, None, "z")), mode="append")
    committed(tmp_path, 12)
    clock.set(datetime(2026, 3, 9, 9, tzinfo=UTC))
    at = [datetime(2026, 3, 9, hour, tzinfo=UTC) for hour in (6, 7)]
    spine = pa.table({"user": ["ann"] * 2, "event_timestamp": at})
    assert store.get_historical_features(spine, [view]).to_arrow()["rows__n"].to_pylist() == [2, 3]
    store.materialize(progress=False)
    assert store.get_online_features([{"user": "ann"}], [view]).to_arrow()["rows__n"].to_pylist() == [3]


def test_a_commit_is_no_earlier_than_the_one_before(store: FeatureStore, tmp_path: Path) -> None:
    """Though the clock of its writer says so: who saw it saw the one before, too. One that changed no row makes no other later."""
    for minute, hour in ((1, 10), (2, 14), (3, 12), (4, 16)):
        write_deltalake(tmp_path, orders(("ann", minute, None, "z")), mode="append")
        committed(tmp_path, hour)
        if hour > 10:
            DeltaTable(tmp_path).optimize.compact()
            committed(tmp_path, 20)
    of = source(tmp_path, known_at=ARRIVAL)
    assert known(store, of, 9, 10, 12, 13, 14, 15, 16) == [None, 1, 1, 1, 3, 3, 4]


def test_a_commit_while_the_log_is_read(store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are known from it, though the log was listed before it."""
    of = source(tmp_path, known_at=ARRIVAL)
    write_deltalake(tmp_path, FIRST)
    committed(tmp_path, 10)
    real = delta_tables._table

    def committing(*given: Any) -> DeltaTable:
        monkeypatch.setattr(delta_tables, "_table", real)
        write_deltalake(tmp_path, orders(("ann", 4, None, "z")), mode="append")
        committed(tmp_path, 12)
        return real(*given)

    monkeypatch.setattr(delta_tables, "_table", committing)
    assert known(store, of, 9, 10, 11, 12) == [None, 2, 2, 3]
    DeltaTable(tmp_path).create_checkpoint()
    for entry in (tmp_path / "_delta_log").glob("*.json"):
        entry.unlink()
    with pytest.raises(SourceError, match="has no commit of version 1 any more, so when its rows came is not known"):
        known(store, of, 12)


def test_what_is_new_and_what_only_lies_elsewhere(store: FeatureStore, tmp_path: Path) -> None:
    """An overwritten table has new rows; a deletion vector leaves the others as they were; what is older than the log had come."""
    of = source(tmp_path, known_at=ARRIVAL)
    write_deltalake(tmp_path, FIRST, configuration={"delta.enableDeletionVectors": "true"})
    committed(tmp_path, 8)
    write_deltalake(tmp_path, FIRST, mode="overwrite")
    committed(tmp_path, 10)
    assert known(store, of, 9, 10) == [None, 2]
    log = tmp_path / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{1:020}.json").read_text().splitlines()]
    (add,) = [action["add"] for action in actions if "add" in action]
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    written = [{"remove": remove}, {"add": {**add, "deletionVector": deletion_vector([0])}}]
    commit(tmp_path, 2, *written, {"commitInfo": {"operation": "DELETE"}})
    committed(tmp_path, 12)
    assert known(store, of, 9, 10, 12) == [None, 1, 1]
    assert known(store, source(tmp_path, known_at=ARRIVAL, table_version=1), 10) == [2]
    DeltaTable(tmp_path).create_checkpoint()
    for number in (0, 1):
        (log / f"{number:020}.json").unlink()
    assert known(store, of, 10, 12) == [1, 1]  # as is journalled
    with FeatureStore.local(clock=ManualClock(SPINE_AT)) as another:
        assert known(another, of, 10, 12) == [None, 1]


def test_what_is_not_read_is_refused_by_name(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no Delta table in"):
        counted(store, source(tmp_path / "nothing"))
    bad = mapped({"user": ("string", "col-1"), "city": ("string", "col-4")}, "name")
    text = bad["metaData"]["schemaString"].replace("delta.columnMapping.physicalName", "other")
    (tmp_path / "mapped").mkdir()
    bad["metaData"]["schemaString"] = text
    commit(tmp_path / "mapped", 0, {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}, bad)
    with pytest.raises(SourceError, match="mapped.* cannot be read|does not say delta.columnMapping.physicalName"):
        counted(store, source(tmp_path / "mapped"))
    write_deltalake(tmp_path / "empty", FIRST[:0])
    with pytest.raises(SourceError, match="has no rows, in version 0"):
        counted(store, source(tmp_path / "empty"))
    write_deltalake(tmp_path / "rows", FIRST)
    with pytest.raises(SourceError, match="version 7, cannot be read"):
        counted(store, source(tmp_path / "rows", table_version=7))
    files = ParquetSource("orders", tmp_path / "rows", event_time="at")
    view = FeatureView("rows", entity=USER, source=files, refresh="1h", features=["amount"])
    with pytest.raises(SourceError, match="Declare it as a DeltaSource"):
        store.apply([view])
    for file in (tmp_path / "rows").glob("*.parquet"):
        file.unlink()
    with pytest.raises(SourceError, match="there is no file"):
        counted(store, source(tmp_path / "rows"))
    for said, words in (
        ({"table_version": -1}, "table_version"),
        ({"partitions": {"day": "day"}}, "'day' is no type"),
    ):
        with pytest.raises(DeclarationError, match=words):
            source(tmp_path, **said)
    with pytest.raises(DeclarationError, match="a table lies in one folder"):
        DeltaSource("orders", ["a", "b"], event_time="at")  # type: ignore[arg-type]  # the mistake


def test_a_table_of_feasts_is_moved_as_one(tmp_path: Path) -> None:
    """Looked at as files are: types of keys and when rows were created are those of the table's newest version."""
    repository = Repository(tmp_path)
    write_deltalake(str(repository.feast / "lake"), FIRST)
    write_deltalake(str(repository.feast / "lake"), FIRST, mode="overwrite")
    places = {"path": "lake", "file_format": "DeltaFormat"}
    stored = {"name": "rows", "kind": "FileSource", "places": places, "event_time": "at"}
    declared = view("spent", {"amount": "Int32"}, "user", batch=stored, ttl_seconds=None)
    moved = repository.move(entities=[entity("user", "user", of="INT64")], views=[declared])
    assert (moved.refused, moved.exports) == ([], [])
    assert 'DeltaSource("rows", "../feast/lake", event_time="at")' in repository.definitions
    assert matters(moved, "user")["key type"] == "String"
    with repository.opened() as store:
        frame = store.snapshot("spent", at=SPINE_AT).to_pandas()
        assert dict(zip(frame["user"], frame["spent__amount"], strict=True)) == {"ann": 3, "ben": 2}

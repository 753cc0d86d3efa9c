"""Delta Lake tables that the `deltalake` library writes: their rows, versions and deletions."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
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
from featurestore.types import Date, String
from tests.platforms.conftest import Told
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


def test_rows_below_a_deletion_vector_do_not_count(store: FeatureStore, tmp_path: Path) -> None:
    """As Databricks deletes: the file stays, and the log says which of its rows are gone. The library reads it alike."""
    write_deltalake(tmp_path, FIRST, configuration={"delta.enableDeletionVectors": "true"})
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


def test_what_is_not_read_is_refused_by_name(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no Delta table in"):
        counted(store, source(tmp_path / "nothing"))
    write_deltalake(tmp_path / "mapped", FIRST, configuration={"delta.columnMapping.mode": "name"})
    with pytest.raises(SourceError, match=r"delta\.columnMapping\.mode = name"):
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
        ({"known_at": ARRIVAL}, "known_at=ARRIVAL is for files"),
        ({"table_version": -1}, "table_version"),
        ({"partitions": {"day": "day"}}, "'day' is no type"),
    ):
        with pytest.raises(DeclarationError, match=words):
            source(tmp_path, **said)
    with pytest.raises(DeclarationError, match="a table lies in one folder"):
        DeltaSource("orders", ["a", "b"], event_time="at")  # type: ignore[arg-type]

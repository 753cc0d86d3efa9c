"""Apache Iceberg tables that the `pyiceberg` library writes, in a catalog in SQLite: their rows, snapshots, deletions and schemas."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal as Number
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.io.pyarrow import _dataframe_to_data_files, schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update import snapshot as snapshot_module
from pyiceberg.transforms import BucketTransform, DayTransform, IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import (
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)
from pyroaring import BitMap

from featurestore import (
    ARRIVAL,
    Count,
    Entity,
    FeatureStore,
    FeatureView,
    IcebergSource,
    Latest,
    ManualClock,
    ParquetSource,
    Sum,
)
from featurestore.errors import DeclarationError, FilesChangedError, SourceError
from featurestore.types import Int64, String
from tests.draws import draws
from tests.platforms.conftest import Told
from tests.platforms.s3_server import s3_server
from tests.sources.same_rows import ROWS, WORDS, answers, parquet, table

USER = Entity("user", key={"user": String})
AT = datetime(2026, 3, 9, tzinfo=UTC)
SCHEMA = Schema(
    NestedField(1, "user", StringType()), NestedField(2, "at", TimestamptzType()), NestedField(3, "amount", IntegerType()),
    NestedField(4, "city", StringType()),
)  # fmt: skip

CONFIGURED = 'project = "shop"\ndefinitions = []\n[catalogs.lake]\ntype = "sql"\nuri = "sqlite:///catalog.db"\n'


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(AT)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with closing(opened(tmp_path)) as catalog:
        catalog.create_namespace("sales")
        yield catalog


def opened(folder: Path) -> Catalog:
    """The lake of a test, in a folder whose name has a space."""
    words = {"uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}/the lake"}
    return load_catalog("lake", type="sql", **words)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock, catalog: Catalog) -> Iterator[FeatureStore]:
    (tmp_path / "featurestore.toml").write_text(CONFIGURED)
    with FeatureStore(tmp_path, clock=clock) as store:
        yield store


def rows(*given: tuple[str, int, str], schema: Schema = SCHEMA, **more: list[Any]) -> pa.Table:
    users, amounts, cities = (list(column) for column in zip(*given, strict=True)) if given else ([], [], [])
    at = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=amount) for amount in amounts]
    columns = {"user": users, "at": at, "amount": amounts, "city": cities, **more}
    fields = schema_to_pyarrow(schema, include_field_ids=False)
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in fields})


FIRST = rows(("ann", 1, "x y"), ("ben", 2, "ü/=%"), ("ann", 3, "x y"))
SECOND = rows(("ann", 4, "z"), ("cleo", 5, "z"))


def source(**said: Any) -> IcebergSource:
    return IcebergSource("orders", **{"catalog": "lake", "table": "sales.orders", "event_time": "at", **said})


def views(of: IcebergSource) -> list[FeatureView]:
    n = {"n": Count(window="lifetime"), "sum": Sum("amount", window="lifetime")}
    return [
        FeatureView("rows", entity=USER, source=of, refresh="1h", features=n),
        FeatureView("last", entity=USER, source=of, refresh="1h", features={"amount": Latest("amount", type=Int64)}),
    ]


def counted(store: FeatureStore, of: IcebergSource, at: datetime = AT) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of each user how many rows there are, their sum, and the last amount, by training; and the manifest."""
    users = ["ann", "ben", "cleo"]
    frame = store.get_historical_features(pa.table({"user": users, "event_timestamp": [at] * 3}), views(of))
    found = frame.to_arrow()
    names = ("rows__n", "rows__sum", "last__amount")
    said = zip(users, *(found[name].to_pylist() for name in names), strict=True)
    return {user: values for user, *values in said if values[0] is not None}, frame.manifest


def copies(root: Path) -> set[str]:
    """The names of the copies that a project has, by their table."""
    return {f"{path.parent.name}/{path.name}" for path in (root / ".featurestore" / "copies").glob("*/*.parquet")}


def snapshots(of: Table) -> list[int]:
    return [one.snapshot_id for one in of.metadata.snapshots]


def commit_deletes(of: Table, data: DataFile, positions: list[int], **said: Any) -> None:
    """Delete rows of a data file by a file of positions, as Spark, Flink and Trino do; the library itself writes none."""
    place = f"{of.location()}/data/{uuid.uuid4()}-deletes.parquet"
    path = place.removeprefix("file://")
    fields = [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": "2147483546"}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": "2147483545"}),
    ]
    content = {"file_path": [data.file_path] * len(positions), "pos": positions}
    pq.write_table(pa.table(content, schema=pa.schema(fields)), path)
    commit_file(
        of,
        DataFile.from_args(
            content=DataFileContent.POSITION_DELETES, file_path=place, file_format=FileFormat.PARQUET,
            partition=data.partition, record_count=len(positions), file_size_in_bytes=Path(path).stat().st_size, **said,
        ),
        data.spec_id,
    )  # fmt: skip


def commit_file(of: Table, file: DataFile, number: int) -> None:
    """Commit one more file of deletions; the library has no call for that, so its writer of manifests is told that they have some."""
    from pyiceberg.manifest import ManifestContent, ManifestWriterV2

    file.spec_id = number

    class Deletes(ManifestWriterV2):
        def content(self) -> ManifestContent:
            return ManifestContent.DELETES

    with of.transaction() as transaction:
        with transaction.update_snapshot().fast_append() as update:
            update.append_data_file(file)
            update.new_manifest_writer = lambda spec: Deletes(  # type: ignore[method-assign]  # replaced for this update alone
                of.specs()[number], of.schema(), update.new_manifest_output(), update._snapshot_id, "deflate"
            )
    of.refresh()


def data_files(of: Table) -> list[DataFile]:
    return [task.file for task in of.scan().plan_files()]


def test_values_types_and_statuses_are_those_of_parquet(tmp_path: Path, catalog: Catalog, tell: Told) -> None:
    """By files as they are, and by copies of them: of the second table each file has a row deleted."""
    expected = answers(parquet(tmp_path, ROWS, **WORDS))
    listed = table(ROWS).rename_columns({"embedding": "list"})
    words = {**WORDS, "derived": {"embedding": "CAST(list AS FLOAT[2])"}}
    compared = 0
    for name, extra in (("plain", []), ("deleted", ROWS[:3])):
        of = catalog.create_table(f"sales.{name}", schema=listed.schema, properties={"format-version": "2"})
        for part in (listed[:17], listed[17:40], listed[40:]):
            gone = table(extra[-1:]).rename_columns({"embedding": "list"}) if extra else part[:0]
            of.append(pa.concat_tables([gone, part]))
        for file in data_files(of) if extra else ():
            commit_deletes(of, file, [0])
        where = Path(of.location().removeprefix("file://"))
        found = answers(IcebergSource("rows", where, **words))
        assert found == expected
        compared += sum(map(len, found[0]["values"])) + sum(map(len, found[1]["values"]))
    tell("iceberg", version=f"pyiceberg {version('pyiceberg')}", ran="it wrote the tables", compared=compared)


def test_a_snapshot_is_pinned_and_told_by_the_manifest(store: FeatureStore, catalog: Catalog) -> None:
    """What a training set was made of can be read again, until its snapshot is expired."""
    of = catalog.create_table("sales.orders", schema=SCHEMA)
    of.append(FIRST)
    of.append(SECOND)
    newest, manifest = counted(store, source())
    assert newest == {"ann": [3, 8, 4], "ben": [1, 2, 2], "cleo": [1, 5, 5]}
    of.manage_snapshots().create_tag(snapshots(of)[0], "first").commit()
    (pinned,) = {file["snapshot"] for file in manifest["sources"]["orders"]}
    assert pinned == snapshots(of)[1]
    of.delete("amount = 4")
    after, manifest = counted(store, source())
    assert after == {"ann": [2, 4, 3], "ben": [1, 2, 2], "cleo": [1, 5, 5]}
    assert {file["snapshot"] for file in manifest["sources"]["orders"]} == {of.metadata.current_snapshot_id}
    assert counted(store, source(snapshot=pinned))[0] == newest
    assert counted(store, source(ref="first"))[0] == {"ann": [2, 4, 3], "ben": [1, 2, 2]}
    of.maintenance.expire_snapshots().by_id(pinned).commit()
    with pytest.raises(SourceError, match=f"has no snapshot {pinned} any more, or never had it"):
        counted(store, source(snapshot=pinned))
    with pytest.raises(SourceError, match="no branch or tag 'second'; it has first, main"):
        counted(store, source(ref="second"))


def test_runs_of_materialize_follow_the_snapshots(store: FeatureStore, clock: ManualClock, catalog: Catalog) -> None:
    """Appended rows, rows deleted in both ways, a rewritten table, and another table of its name."""
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    of.append(FIRST)
    view = views(source())[0]
    store.apply([view])

    def another() -> None:
        catalog.drop_table("sales.orders")
        catalog.create_table("sales.orders", schema=SCHEMA).append(SECOND)

    steps = [
        (lambda: None, [2, 1]),
        (lambda: of.append(rows(("ben", 9, "q"))), [2, 2]),
        (lambda: of.delete("user = 'ann' AND amount = 1"), [1, 2]),
        (lambda: commit_deletes(of, next(f for f in data_files(of) if f.record_count == 1), [0]), [1, 1]),
        (lambda: of.overwrite(of.scan().to_arrow()), [1, 1]),
        (another, [1, None]),
    ]
    for number, (step, expected) in enumerate(steps):
        step()
        clock.set(AT + timedelta(hours=number))
        store.materialize(progress=False)
        served = store.get_online_features([{"user": name} for name in ("ann", "ben")], [view]).to_arrow()
        trained, _ = counted(store, source(), AT + timedelta(hours=number))
        assert served["rows__n"].to_pylist() == expected == [trained.get(user, [None])[0] for user in ("ann", "ben")]


def test_a_run_after_an_append_asks_for_what_came(store: FeatureStore, clock: ManualClock, catalog: Catalog) -> None:
    of = catalog.create_table("sales.orders", schema=SCHEMA)
    of.append(FIRST)
    store.apply(views(source())[:1])
    assert [run.keys for run in store.materialize(progress=False)] == [2]
    of.append(rows(("cleo", 7, "q")))
    clock.set(AT + timedelta(hours=1))
    assert [run.keys for run in store.materialize(progress=False)] == [1]


def test_schemas_change(store: FeatureStore, catalog: Catalog, tmp_path: Path) -> None:
    """Columns are followed by their ids: renamed, moved, widened, added with another column's old name, dropped."""
    of = catalog.create_table("sales.orders", schema=SCHEMA)
    of.append(FIRST)
    with of.update_schema() as change:
        change.add_column("score", DoubleType())
    assert counted(store, source())[0] == {"ann": [2, 4, 3], "ben": [1, 2, 2]}
    assert len(copies(tmp_path)) == 1  # of which the type of the column is known that no file has
    view = FeatureView("score", entity=USER, source=source(), refresh="1h", features=["score"])
    spine = pa.table({"user": ["ann", "ben"], "event_timestamp": [AT] * 2})
    assert store.get_historical_features(spine, [view]).to_arrow()["score__score"].to_pylist() == [None, None]
    with of.update_schema() as change:
        change.update_column("amount", LongType())
        change.rename_column("city", "town")
        change.move_first("score")
    with of.update_schema() as change:
        change.add_column("city", StringType())
    of.append(rows(("ben", 7, "new"), schema=of.schema(), score=[0.5], town=["old"]))
    assert counted(store, source())[0] == {"ann": [2, 4, 3], "ben": [2, 9, 7]}
    named = FeatureView("named", entity=USER, source=source(), refresh="1h", features=["score", "town", "city"])
    found = store.get_historical_features(spine, [named]).to_arrow()
    assert found["named__score"].to_pylist() == [None, 0.5]
    assert found["named__town"].to_pylist() == ["x y", "old"]
    assert found["named__city"].to_pylist() == [None, "new"]
    with of.update_schema() as change:
        change.delete_column("town")
    with pytest.raises(DeclarationError, match="town"):
        store.get_historical_features(spine, [named])


def test_partitions_are_columns_as_any(store: FeatureStore, catalog: Catalog) -> None:
    """Of all transforms, with null, and where the table was partitioned otherwise before."""
    spec = PartitionSpec(
        PartitionField(4, 1000, IdentityTransform(), "city"), PartitionField(2, 1001, DayTransform(), "at_day"),
        PartitionField(1, 1002, BucketTransform(4), "user_bucket"),
    )  # fmt: skip
    of = catalog.create_table("sales.orders", schema=SCHEMA, partition_spec=spec, properties={"format-version": "2"})
    of.append(pa.concat_tables([FIRST, rows(("cleo", 6, None))]))  # type: ignore[arg-type]  # an Arrow table
    with of.update_spec() as change:
        change.remove_field("city")
    with of.update_spec() as change:
        change.remove_field("user_bucket")
    of.append(SECOND)
    assert counted(store, source())[0] == {"ann": [3, 8, 4], "ben": [1, 2, 2], "cleo": [2, 11, 6]}
    view = FeatureView("where", entity=USER, source=source(), refresh="1h", features=["city"])
    spine = pa.table({"user": ["ann", "ben", "cleo"], "event_timestamp": [AT] * 3})
    found = store.get_historical_features(spine, [view]).to_arrow()
    assert found["where__city"].to_pylist() == ["z", "ü/=%", None]
    old = next(file for file in data_files(of) if file.spec_id == 0 and "ann" in str(file.lower_bounds[1]))
    commit_deletes(of, old, [1])
    assert counted(store, source())[0]["ann"] == [2, 5, 4]
    with of.update_schema() as change:
        change.delete_column("city")
    assert counted(store, source())[0]["ann"] == [2, 5, 4]


def test_deletions_by_position(store: FeatureStore, catalog: Catalog, tmp_path: Path) -> None:
    """Several for one file, all of its rows, and rows that came after them."""
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    of.append(FIRST)
    (file,) = data_files(of)
    before = of.metadata.current_snapshot_id
    commit_deletes(of, file, [0])
    assert counted(store, source())[0] == {"ann": [1, 3, 3], "ben": [1, 2, 2]}
    of.append(FIRST)  # of another file
    commit_deletes(of, file, [2])
    assert counted(store, source())[0] == {"ann": [2, 4, 3], "ben": [2, 4, 2]}
    commit_deletes(of, file, [0, 1, 2])
    assert counted(store, source())[0] == {"ann": [2, 4, 3], "ben": [1, 2, 2]}
    assert counted(store, source(snapshot=before))[0] == {"ann": [2, 4, 3], "ben": [1, 2, 2]}
    assert len(copies(tmp_path)) == 5  # a file of deletions that says no bounds may be about each file that was there
    commit_file(
        of,
        DataFile.from_args(
            content=DataFileContent.EQUALITY_DELETES, file_path=f"{of.location()}/data/e.parquet", file_format=FileFormat.PARQUET,
            partition=Record(), record_count=1, file_size_in_bytes=1, equality_ids=[1],
        ), 0,
    )  # fmt: skip
    with pytest.raises(
        SourceError, match=r"has equality deletes, as Flink and others write them\. They are not read: rewrite"
    ):
        counted(store, source())


def vectors(deleted: dict[str, list[int]]) -> bytes:
    """A Puffin file of deletion vectors, as Iceberg's third version keeps them: by data file the rows that are gone."""
    content, blobs = b"PFA1", []
    for path, rows in deleted.items():
        bitmap = struct.pack("<qI", 1, 0) + BitMap(rows).serialize()
        inside = bytes.fromhex("d1d33964") + bitmap
        blob = struct.pack(">I", len(inside)) + inside + struct.pack(">I", zlib.crc32(inside))
        blobs.append({
            "type": "deletion-vector-v1", "fields": [], "snapshot-id": -1, "sequence-number": -1, "offset": len(content),
            "length": len(blob), "properties": {"referenced-data-file": path, "cardinality": str(len(rows))},
        })  # fmt: skip
        content += blob
    footer = json.dumps({"blobs": blobs}).encode()
    return content + b"PFA1" + footer + struct.pack("<i", len(footer)) + bytes(4) + b"PFA1"


def test_deletion_vectors(store: FeatureStore, catalog: Catalog) -> None:
    """Of several data files in one file, and newer ones of the same."""
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    of.append(FIRST)
    of.append(SECOND)
    paths = {file.record_count: file.file_path for file in data_files(of)}
    for deleted in ({paths[3]: [1], paths[2]: [0]}, {paths[3]: [0, 1]}):
        place = f"{of.location()}/data/{uuid.uuid4()}.puffin"
        content = vectors(deleted)
        Path(place.removeprefix("file://")).write_bytes(content)
        commit_file(
            of,
            DataFile.from_args(
                content=DataFileContent.POSITION_DELETES, file_path=place, file_format=FileFormat.PUFFIN, partition=Record(),
                record_count=1, file_size_in_bytes=len(content),
            ), 0,
        )  # fmt: skip
        last = counted(store, source())[0]
        assert last == (
            {"ann": [1, 3, 3], "cleo": [1, 5, 5]} if 0 in deleted[paths[3]] else {"ann": [2, 4, 3], "cleo": [1, 5, 5]}
        )


def test_types_and_their_refusals(store: FeatureStore, catalog: Catalog) -> None:
    """As files and as copies have them: what is a feature's type, and what is not."""
    fields = [
        ("id", UUIDType()), ("cost", DecimalType(12, 3)), ("plain", TimestampType()), ("ratio", FloatType()), ("raw", FixedType(3)),
        ("days", ListType(101, IntegerType(), element_required=False)), ("clock", TimeType()), ("box", StructType(NestedField(102, "x", FloatType()))),
    ]  # fmt: skip
    schema = Schema(*SCHEMA.fields, *(NestedField(10 + n, name, of) for n, (name, of) in enumerate(fields)))
    of = catalog.create_table("sales.orders", schema=schema, properties={"format-version": "2"})
    key = uuid.UUID(int=7)
    naive = datetime(2026, 3, 1, 12)  # noqa: DTZ001
    said = {
        "id": [key.bytes], "cost": [Number("1.500")], "plain": [naive], "ratio": [0.1], "raw": [b"abc"], "days": [[1, None]],
        "clock": [naive.time()], "box": [{"x": 1.0}],
    }  # fmt: skip
    of.append(rows(("ann", 1, "x"), schema=of.schema(), **said))
    read = ["id", "cost", "plain", "ratio", "raw", "days"]
    view = FeatureView("wide", entity=USER, source=source(), refresh="1h", features=read)
    spine = pa.table({"user": ["ann"], "event_timestamp": [AT]})
    plain = store.get_historical_features(spine, [view]).to_arrow()
    of.append(rows(("ben", 2, "x"), schema=of.schema(), **said))
    with of.update_schema() as change:
        change.rename_column("city", "town")  # so that each file is copied
    copied = store.get_historical_features(spine, [view]).to_arrow()
    assert copied.drop_columns(["event_timestamp"]) == plain.drop_columns(["event_timestamp"])
    assert plain["wide__id"].to_pylist() == [str(key)]
    assert plain["wide__cost"].to_pylist() == [Number("1.500")]
    assert plain["wide__plain"].to_pylist() == [naive.replace(tzinfo=UTC)]
    assert plain["wide__raw"].to_pylist() == [b"abc"]
    for name in ("clock", "box"):
        with pytest.raises(SourceError, match=f"column '{name}' of source 'orders' is .*which no feature type holds"):
            store.plan([FeatureView("none", entity=USER, source=source(), refresh="1h", features=[name])])


def test_a_folder_without_its_catalog(store: FeatureStore, catalog: Catalog, tmp_path: Path) -> None:
    """The newest metadata count; of two that are both the newest nobody knows which."""
    of = catalog.create_table("sales.orders", schema=SCHEMA)
    of.append(FIRST)
    first = of.metadata_location.removeprefix("file://")
    of.append(SECOND)
    folder = Path(of.location().removeprefix("file://"))
    lying = IcebergSource("orders", folder, event_time="at")
    assert counted(store, lying)[0] == counted(store, source())[0]
    assert counted(store, IcebergSource("orders", first, event_time="at"))[0]["ann"] == [2, 4, 3]
    newest = Path(of.metadata_location.removeprefix("file://"))
    newest.with_name(newest.name.replace("-", "-0", 1)).write_bytes(newest.read_bytes())
    with pytest.raises(SourceError, match="its catalog alone knows which of them counts"):
        counted(store, lying)
    files = ParquetSource("orders", folder, event_time="at")
    with pytest.raises(SourceError, match="Declare it as an IcebergSource"):
        counted(store, files)  # type: ignore[arg-type]  # words of several types
    (tmp_path / "none").mkdir()
    for place, words in (
        ("none", "there is no Iceberg table in"),
        ("catalog.db", "is no metadata of an Iceberg table"),
    ):
        with pytest.raises(SourceError, match=words):
            counted(store, IcebergSource("orders", tmp_path / place, event_time="at"))


def test_what_is_wrong_is_told(store: FeatureStore, catalog: Catalog, tmp_path: Path) -> None:
    for of, words in (
        (source(), r"catalog 'lake' has no table 'sales\.orders'"),
        (source(table="other.orders"), r"catalog 'lake' has no table 'other\.orders'"),
        (source(table="orders"), "catalog 'lake' cannot be read: "),
        (source(catalog="sea"), r"featurestore\.toml has no \[catalogs\.sea\]"),
    ):
        with pytest.raises(SourceError, match=words):
            counted(store, of)
    table = catalog.create_table("sales.orders", schema=SCHEMA)
    with pytest.raises(SourceError, match="has no snapshot yet"):
        counted(store, source())
    table.append(FIRST)
    table.delete("amount > 0")
    with pytest.raises(SourceError, match="has no rows, in snapshot"):
        counted(store, source())
    table.append(FIRST)
    Path(data_files(table)[0].file_path.removeprefix("file://")).unlink()
    with pytest.raises(SourceError, match="gone|no file"):
        counted(store, source())
    for said, words in (
        ({"catalog": None}, "catalog and table must be said, or path"),
        ({"path": "lake"}, "two ways to say where the table lies"),
        ({"snapshot": 1, "ref": "main"}, "snapshot and ref are two ways"),
        ({"snapshot": -1}, "snapshot"),
        ({"catalog": ""}, "catalog: must not be empty"),
        ({"path": ["a", "b"], "catalog": None, "table": None}, "path"),
        ({"path": "s3://lake/orders", "catalog": None, "table": None}, "lies in no folder of this machine"),
    ):
        with pytest.raises(DeclarationError, match=words):
            source(**said)


def test_secrets_of_a_catalog_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_TOKEN", "geheim-1")
    (tmp_path / "featurestore.toml").write_text(
        'project = "shop"\ndefinitions = []\n[catalogs.lake]\ntype = "rest"\nuri = "https://me:geheim-2@localhost:1/x"\n'
        '"token" = "${LAKE_TOKEN}"\n"s3.secret-access-key" = "geheim-3"\n'
    )
    with FeatureStore(tmp_path) as store:
        with pytest.raises(SourceError, match="catalog 'lake' cannot be read") as told:
            counted(store, source())
        assert "geheim" not in str(told.value)
        assert "geheim" not in repr(store.config)
        assert "'token': '${LAKE_TOKEN}'" in repr(store.config)


def compact(of: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write all data files anew as one, as rewrite_data_files does; the library itself knows of no such commit."""
    real = snapshot_module.update_snapshot_summaries

    def told(summary: Summary, previous_summary: Any = None) -> Summary:
        said = real(Summary(Operation.OVERWRITE, **summary.additional_properties), previous_summary)
        return Summary(Operation.REPLACE, **said.additional_properties)

    with monkeypatch.context() as patch, of.transaction() as transaction:
        patch.setattr(snapshot_module, "update_snapshot_summaries", told)
        with transaction.update_snapshot().overwrite() as update:
            for old in data_files(of):
                update.delete_data_file(old)
            for new in _dataframe_to_data_files(transaction.table_metadata, of.scan().to_arrow(), of.io):
                update.append_data_file(new)
    of.refresh()


def known(store: FeatureStore, of: IcebergSource, at: list[datetime]) -> list[int | None]:
    """How many rows of Ann training knows at each instant."""
    view = FeatureView("rows", entity=USER, source=of, refresh="continuous", features={"n": Count(window="lifetime")})
    spine = pa.table({"user": ["ann"] * len(at), "event_timestamp": pa.array(at, pa.timestamp("us", "UTC"))})
    found: list[int | None] = store.get_historical_features(spine, [view]).to_arrow()["rows__n"].to_pylist()
    return found


def test_rows_are_known_from_the_snapshot_that_added_them(
    store: FeatureStore, clock: ManualClock, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compaction makes none of them later, as long as what it replaced is there, or was copied."""
    clock.set(datetime(2200, 1, 1, tzinfo=UTC))
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    arriving = source(known_at=ARRIVAL)
    of.append(FIRST)
    of.append(SECOND)
    at = [datetime.fromtimestamp(one.timestamp_ms / 1000, UTC) for one in of.metadata.snapshots]
    at = [at[0] - timedelta(milliseconds=1), *at]
    assert known(store, arriving, at) == [None, 2, 3]
    compact(of, monkeypatch)
    assert len(data_files(of)) == 1
    assert known(store, arriving, at) == [None, 2, 3]
    with of.update_schema() as change:
        change.rename_column("user", "who")
        change.rename_column("city", "user")
    assert known(store, arriving, at) == [None, None, None]
    with of.update_schema() as change:
        change.rename_column("user", "city")
        change.rename_column("who", "user")
    assert known(store, arriving, at) == [None, 2, 3]
    view = FeatureView("rows", entity=USER, source=arriving, refresh="1h", features={"n": Count(window="lifetime")})
    store.apply([view])
    commit_deletes(of, data_files(of)[0], [0])  # of a file that no arrival is known of
    with pytest.raises(SourceError, match=r"known_at=ARRIVAL: snapshot \d+ \(replace\) of its table wrote rows anew"):
        known(store, arriving, at)
    of.manage_snapshots().rollback_to_snapshot(snapshots(of)[2]).commit()
    assert known(store, arriving, at) == [None, 2, 3]
    for old in snapshots(of)[:2]:
        of.maintenance.expire_snapshots().by_id(old).commit()
    with pytest.raises(SourceError, match=r"known_at=ARRIVAL: snapshot \d+ \(replace\) of its table wrote rows anew"):
        known(store, arriving, at)
    with FeatureStore.local(clock=clock) as another:  # to which nothing was known before
        lying = IcebergSource("orders", of.location().removeprefix("file://"), event_time="at", known_at=ARRIVAL)
        came = datetime.fromtimestamp(of.current_snapshot().timestamp_ms / 1000, UTC)  # type: ignore[union-attr]  # there is one
        assert known(another, lying, [at[2], came]) == [None, 3]


def write_anew(of: Table, rows: pa.Table) -> None:
    """Write all data files anew as one of these rows, as an update that copies on write does."""
    with of.transaction() as transaction, transaction.update_snapshot().overwrite() as update:
        for old in data_files(of):
            update.delete_data_file(old)
        for new in _dataframe_to_data_files(transaction.table_metadata, rows, of.io):
            update.append_data_file(new)
    of.refresh()


def instants(of: Table) -> list[datetime]:
    return [datetime.fromtimestamp(one.timestamp_ms / 1000, UTC) for one in of.metadata.snapshots]


def test_a_snapshot_that_changes_no_row_is_no_arrival(
    store: FeatureStore, clock: ManualClock, catalog: Catalog
) -> None:
    """One that writes files anew, and says of itself that rows changed: the rows are compared."""
    clock.set(datetime(2200, 1, 1, tzinfo=UTC))
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    arriving = source(known_at=ARRIVAL)
    of.append(FIRST)
    of.append(SECOND)
    at = instants(of)
    assert known(store, arriving, at) == [2, 3]
    write_anew(of, of.scan().to_arrow()[::-1])
    assert of.current_snapshot().summary.operation == Operation.OVERWRITE  # type: ignore[union-attr]  # there is one
    view = FeatureView("rows", entity=USER, source=arriving, refresh="1h", features={"n": Count(window="lifetime")})
    store.apply([view])
    assert known(store, arriving, at) == [2, 3]
    of.append(rows(("ann", 9, "z")))
    assert known(store, arriving, instants(of)) == [2, 3, 3, 4]
    of.manage_snapshots().rollback_to_snapshot(snapshots(of)[2]).commit()
    of.append(rows(("ann", 8, "z"), ("ann", 9, "z")))
    assert known(store, arriving, instants(of)) == [2, 3, 3, 3, 5]
    changed = of.scan().to_arrow().to_pylist()
    changed[0]["amount"] += 1
    write_anew(of, pa.Table.from_pylist(changed, rows(schema=SCHEMA).schema))
    with pytest.raises(SourceError, match=r"known_at=ARRIVAL: snapshot \d+ \(overwrite\) of its table wrote rows anew"):
        known(store, arriving, at)


def test_a_snapshot_that_is_published_later_came_then(
    store: FeatureStore, clock: ManualClock, catalog: Catalog
) -> None:
    """Rows that are written to a branch, and come to the main one when somebody looked at them, came to it then."""
    clock.set(datetime(2200, 1, 1, tzinfo=UTC))
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    of.append(FIRST)
    of.manage_snapshots().create_branch(snapshots(of)[0], "audit").commit()
    of.append(SECOND, branch="audit")
    of.append(rows(("ann", 8, "z")), branch="audit")
    of.refresh()
    written = instants(of)
    while datetime.now(UTC) <= written[-1] + timedelta(milliseconds=2):
        time.sleep(0.001)
    of.manage_snapshots().set_current_snapshot(ref_name="audit").commit()
    of.refresh()
    published = datetime.fromtimestamp(of.metadata.snapshot_log[-1].timestamp_ms / 1000, UTC)
    assert published > written[-1]
    at = [*written, published]
    assert known(store, source(known_at=ARRIVAL), at) == [2, 2, 2, 4]
    assert known(store, source(known_at=ARRIVAL, ref="main"), at) == [2, 2, 2, 4]
    of.append(rows(("ann", 9, "z")))
    at.append(instants(of)[-1])
    assert known(store, source(known_at=ARRIVAL), at) == [2, 2, 2, 4, 5]
    of.manage_snapshots().rollback_to_snapshot(snapshots(of)[0]).commit()
    of.manage_snapshots().set_current_snapshot(snapshots(of)[-1]).commit()  # no later for having been away
    assert known(store, source(known_at=ARRIVAL), at) == [2, 2, 2, 4, 5]
    branch = IcebergSource(
        "branch", catalog="lake", table="sales.orders", event_time="at", known_at=ARRIVAL, ref="audit"
    )
    assert known(store, branch, at[:4]) == [2, 3, 4, 4]


def test_of_what_lies_before_the_oldest_snapshot_no_arrival_is_made_up(
    store: FeatureStore, clock: ManualClock, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that were seen stay known from then on; one that a compaction wrote whose snapshot is expired is in no place of others."""
    clock.set(datetime(2200, 1, 1, tzinfo=UTC))
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    arriving = source(known_at=ARRIVAL)
    of.append(FIRST)
    of.append(SECOND)
    at = instants(of)
    view = FeatureView("rows", entity=USER, source=arriving, refresh="1h", features={"n": Count(window="lifetime")})
    store.apply([view])
    of.append(rows(("ann", 8, "z")))
    of.maintenance.expire_snapshots().by_id(snapshots(of)[0]).commit()
    assert known(store, arriving, [*at, *instants(of)]) == [2, 3, 3, 4]
    compact(of, monkeypatch)
    of.append(rows(("ann", 9, "z")))
    assert known(store, arriving, [*at, instants(of)[-1]]) == [2, 3, 5]
    for old in snapshots(of)[:-1]:
        of.maintenance.expire_snapshots().by_id(old).commit()
    with pytest.raises(
        SourceError, match=r"snapshot \d+ \(append\) is the oldest of its table that is known any more, and"
    ):
        known(store, arriving, at)


class History:
    """A table, and beside it its rows with the instant from which each is known: what a naive replay of its changes says. Each row has an
    amount that no other has."""

    def __init__(self, catalog: Catalog) -> None:
        self.of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
        self.rows: dict[int, tuple[str, datetime]] = {}
        """By amount whose row it is, and since when it is known."""
        self.is_told = True
        """Whether the table says all that there is to know of it."""
        self.past: dict[int, tuple[dict[int, tuple[str, datetime]], bool]] = {}
        """By snapshot what its rows were then, and whether it said all."""
        self.at, self._next, self._appended = set[datetime](), 1, set[str]()
        self.append(["ann", "ben", "ann"])

    def do(self, kind: str, of: Any) -> None:
        """One of its changes."""
        getattr(self, kind)(*([] if of is None else [of]))

    def _changed(self) -> datetime:
        """When the newest snapshot was made; no other one is of that millisecond."""
        self.of.refresh()
        snapshot = self.of.current_snapshot()
        assert snapshot is not None
        at = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
        self.at |= {at - timedelta(milliseconds=1), at}
        while datetime.now(UTC) <= at + timedelta(milliseconds=2):
            time.sleep(0.001)
        return at

    def _kept(self) -> None:
        self.past[self.of.metadata.current_snapshot_id or 0] = (dict(self.rows), self.is_told)

    def append(self, users: list[str]) -> None:
        amounts = range(self._next, self._next + len(users))
        self._next += len(users)
        before = {file.file_path for file in data_files(self.of)}
        self.of.append(rows(*((user, amount, "z") for user, amount in zip(users, amounts, strict=True))))
        at = self._changed()
        self.rows |= {amount: (user, at) for user, amount in zip(users, amounts, strict=True)}
        self._appended |= {file.file_path for file in data_files(self.of)} - before
        self._kept()

    def delete(self, place: int) -> None:
        """By the library: a whole file, or the rest of one is written anew, of which the table does not say when its rows came."""
        if len(self.rows) > 1:
            amount = sorted(self.rows)[place % len(self.rows)]
            before = {file.file_path for file in data_files(self.of)}
            self.of.delete(f"amount = {amount}")
            self._changed()
            self.is_told = self.is_told and {file.file_path for file in data_files(self.of)} <= before
            del self.rows[amount]
            self._kept()

    def delete_by_position(self, place: int) -> None:
        """Of a file that was appended, or of one of rows that came at several times, of which it is not said then."""
        files = sorted(data_files(self.of), key=lambda file: file.file_path)
        if len(self.rows) > 1 and files:
            file = files[place % len(files)]
            position = place % file.record_count
            amount = pq.read_table(file.file_path.removeprefix("file://"))["amount"][position].as_py()
            commit_deletes(self.of, file, [position])
            self._changed()
            self.is_told = self.is_told and file.file_path in self._appended
            self.rows.pop(amount, None)
            self._kept()

    def compact(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            compact(self.of, patch)
        self._changed()
        self._kept()

    def write_anew(self) -> None:
        """The same rows, which a snapshot says to have changed."""
        write_anew(self.of, self.of.scan().to_arrow()[::-1])
        self._changed()
        self._kept()

    def update(self, place: int) -> None:
        """A row gets another amount, in a file that is written anew with all others."""
        given = self.of.scan().to_arrow().to_pylist()
        before = given[place % len(given)]["amount"]
        given[place % len(given)]["amount"] = self._next
        write_anew(self.of, pa.Table.from_pylist(given, rows(schema=SCHEMA).schema))
        user, _ = self.rows.pop(before)
        self.rows[self._next] = (user, self._changed())
        self._next, self.is_told = self._next + 1, False
        self._kept()

    def roll_back(self, place: int) -> None:
        """To an earlier one: its rows are those that they were, and came when they came."""
        line, one = list[int](), self.of.current_snapshot()
        while one is not None:
            line.append(one.snapshot_id)
            one = None if one.parent_snapshot_id is None else self.of.snapshot_by_id(one.parent_snapshot_id)
        if earlier := [number for number in line[1:] if number in self.past]:
            chosen = earlier[place % len(earlier)]
            self.of.manage_snapshots().rollback_to_snapshot(chosen).commit()
            self.of.refresh()
            self.rows, self.is_told = dict(self.past[chosen][0]), self.past[chosen][1]

    def expire(self, place: int) -> None:
        """A snapshot, after which it may be that not all is said."""
        others = [number for number in snapshots(self.of) if number != self.of.metadata.current_snapshot_id]
        if others:
            chosen = others[place % len(others)]
            self.of.maintenance.expire_snapshots().by_id(chosen).commit()
            self.of.refresh()
            del self.past[chosen]
            self.past, self.is_told = {number: (then, False) for number, (then, _) in self.past.items()}, False

    def expected(self, at: list[datetime]) -> list[tuple[int | None, int | None]]:
        found: list[tuple[int | None, int | None]] = []
        for instant in at:
            for user in ("ann", "ben"):
                amounts = [amount for amount, (whose, since) in self.rows.items() if whose == user and since <= instant]
                found.append((len(amounts), sum(amounts)) if amounts else (None, None))
        return found


def arriving() -> FeatureView:
    folds = {"n": Count(window="lifetime"), "sum": Sum("amount", window="lifetime")}
    return FeatureView("rows", entity=USER, source=source(known_at=ARRIVAL), refresh="continuous", features=folds)


def told_of(store: FeatureStore, at: list[datetime]) -> list[tuple[int | None, int | None]]:
    """How many rows of Ann, and of Ben, training knows at each instant, and their sum."""
    instants = pa.array([instant for instant in at for _ in range(2)], pa.timestamp("us", "UTC"))
    spine = pa.table({"user": ["ann", "ben"] * len(at), "event_timestamp": instants})
    found = store.get_historical_features(spine, [arriving()]).to_arrow()
    return list(zip(found["rows__n"].to_pylist(), found["rows__sum"].to_pylist(), strict=True))


CHANGES = st.one_of(
    st.tuples(st.just("append"), st.lists(st.sampled_from(["ann", "ben"]), min_size=1, max_size=3)),
    *(st.tuples(st.just(kind), st.none()) for kind in ("compact", "write_anew")),
    *(st.tuples(st.just(kind), st.integers(0, 9)) for kind in ("delete", "delete_by_position", "update", "roll_back", "expire")),
)  # fmt: skip


@settings(max_examples=draws(20), deadline=None)
@given(changes=st.lists(CHANGES, min_size=2, max_size=7), looks=st.sets(st.integers(0, 6)))
def test_any_changes(changes: list[tuple[str, Any]], looks: set[int]) -> None:
    """A store that looks now and then. What the table says is answered, and what it does not say is answered the same or refused."""
    with tempfile.TemporaryDirectory() as name, closing(opened(Path(name))) as catalog:
        catalog.create_namespace("sales")
        Path(name, "featurestore.toml").write_text(CONFIGURED)
        history = History(catalog)
        with FeatureStore(name, clock=ManualClock(datetime(2200, 1, 1, tzinfo=UTC))) as store:
            store.apply(
                [arriving()]
            )  # before which all would count from the newest snapshot, where it is not said since when
            for number, (kind, of) in enumerate(changes):
                history.do(kind, of)
                if number in looks or number == len(changes) - 1:
                    at = sorted(history.at)
                    with nullcontext() if history.is_told else suppress(SourceError):
                        assert told_of(store, at) == history.expected(at)


KILLED = """
import sys
from featurestore.sources import copies
real = copies.pq.ParquetWriter.write_table
def killed(self, *given):
    real(self, *given)
    __import__("os").kill(__import__("os").getpid(), 9)
copies.pq.ParquetWriter.write_table = killed
from tests.platforms import test_iceberg as t
with t.FeatureStore(sys.argv[1]) as store:
    t.counted(store, t.source())
"""


def test_a_copy_that_was_killed_counts_for_nothing(store: FeatureStore, catalog: Catalog, tmp_path: Path) -> None:
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    of.append(FIRST)
    commit_deletes(of, data_files(of)[0], [0])
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not copies(tmp_path)
    assert list((tmp_path / ".featurestore" / "copies").glob("*/.*.partial"))
    assert counted(store, source())[0] == {"ann": [1, 3, 3], "ben": [1, 2, 2]}


def test_commits_under_a_reading(store: FeatureStore, catalog: Catalog) -> None:
    """What a session listed it reads to its end, where its files stay; where they are removed, it is read again."""
    of = catalog.create_table("sales.orders", schema=SCHEMA)
    of.append(FIRST)
    with store.offline.session() as session, session.reading():
        listed = session.files(source())
        of.append(SECOND)
        scan = session.scan(source())
        assert session.connection.sql(f"SELECT count(*) FROM {scan.relation}").fetchall() == [(3,)]
    assert len(store.offline.files(source())) == 2

    def under_a_change() -> None:
        with store.offline.session() as session, session.reading():
            session.scan(source())
            of.overwrite(SECOND)
            Path(listed[0].path).unlink()

    with pytest.raises(FilesChangedError, match="is gone"):
        under_a_change()
    assert counted(store, source())[0] == {"ann": [1, 4, 4], "cleo": [1, 5, 5]}


def test_a_table_in_an_object_store(tmp_path: Path, clock: ManualClock) -> None:
    """What its catalog says of the store is said to nobody else; copies are read on when the store is away."""
    with s3_server() as s3:
        s3.create_dir("lake")
        uri = f"sqlite:///{tmp_path}/catalog.db"
        words = {
            "s3.endpoint": os.environ["AWS_ENDPOINT_URL"], "s3.access-key-id": "some", "s3.secret-access-key": "secret",
            "s3.region": "us-east-1",
        }  # fmt: skip
        told = "".join(f'"{name}" = "{value}"\n' for name, value in words.items())
        (tmp_path / "featurestore.toml").write_text(
            f'project = "shop"\ndefinitions = []\n[catalogs.lake]\ntype = "sql"\nuri = "{uri}"\n{told}'
        )
        lake = load_catalog("lake", type="sql", uri=uri, warehouse="s3://lake/the lake", **words)
        with closing(lake), FeatureStore(tmp_path, clock=clock) as store:
            lake.create_namespace("sales")
            of = lake.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
            of.append(FIRST)
            store.apply(views(source())[:1])
            store.materialize(progress=False)
            of.append(SECOND)
            clock.set(AT + timedelta(hours=1))
            assert [run.keys for run in store.materialize(progress=False)] == [2]
            of.delete("amount = 4")
            assert counted(store, source())[0] == {"ann": [2, 4, 3], "ben": [1, 2, 2], "cleo": [1, 5, 5]}
            with store.offline.session() as session, session.reading():
                scan = session.scan(source())
                s3.delete_dir("lake/the lake")
                assert session.connection.sql(f"SELECT count(*) FROM {scan.relation}").fetchall() == [(4,)]
            with pytest.raises(SourceError, match="is gone"):
                counted(store, source())


def test_reports_and_forgetting(store: FeatureStore, catalog: Catalog) -> None:
    of = catalog.create_table("sales.orders", schema=SCHEMA, properties={"format-version": "2"})
    of.append(FIRST)
    commit_deletes(of, data_files(of)[0], [0])
    assert "orders" in str(store.plan(views(source())))
    store.apply(views(source()))
    store.materialize(progress=False)
    explained = store.explain("rows", {"user": "ann"})
    assert explained.to_dict()["values"]["n"] == 1
    assert [status.view for status in store.status()] == ["last", "rows"]
    store.forget("user", {"user": "ann"})
    store.materialize(full=True, progress=False)
    assert list(counted(store, source())[0]) == ["ben"]
    commit_deletes(of, data_files(of)[0], [1])
    assert not counted(store, source())[0]

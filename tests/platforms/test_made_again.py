"""Training frames over Delta and Iceberg tables, made again from their manifests after the tables went on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.types import LongType, NestedField, StringType, TimestamptzType
from typer.testing import CliRunner

from featurestore import (
    ARRIVAL,
    Count,
    DeltaSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    IcebergSource,
    ManualClock,
    Sum,
)
from featurestore.cli.application import app
from featurestore.errors import ManifestError, SourceError
from featurestore.types import String
from tests.platforms.conftest import Told
from tests.platforms.s3_server import s3_server

USER = Entity("user", key={"user": String})
AT = datetime(2026, 3, 9, tzinfo=UTC)


def orders(*amounts: int) -> pa.Table:
    at = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=amount) for amount in amounts]
    users = ["ann" if amount % 2 else "ben" for amount in amounts]
    return pa.table({"user": users, "at": pa.array(at, pa.timestamp("us", "UTC")), "amount": list(amounts)})


def model(of: Any) -> FeatureService:
    folds = {"n": Count(window="lifetime"), "sum": Sum("amount", window="lifetime")}
    rows = FeatureView("rows", entity=USER, source=of, refresh="1h", features=folds)
    last = FeatureView("last", entity=USER, source=of, refresh="1h", features=["amount"])
    return FeatureService("model", features=[rows, last])


SPINE = pa.table({"user": ["ann", "ben"], "event_timestamp": [AT] * 2})


@pytest.fixture
def store() -> Iterator[FeatureStore]:
    with FeatureStore.local(clock=ManualClock(AT)) as store:
        yield store


def values(frame: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = frame.to_arrow().to_pylist()
    return found


def test_delta_frames_are_made_again(store: FeatureStore, tmp_path: Path, tell: Told) -> None:
    """After appends, deletes, updates and compactions, each frame from its own version, until a vacuum."""
    folder, frames = tmp_path / "t", []
    write_deltalake(folder, orders(1, 2, 3))
    service = model(DeltaSource("orders", folder, event_time="at"))

    def made() -> None:
        frames.append(store.get_historical_features(SPINE, service))

    made()
    write_deltalake(folder, orders(4, 5), mode="append")
    made()
    DeltaTable(folder).delete("amount = 3")
    made()
    DeltaTable(folder).update({"amount": "amount + 100"}, predicate="amount = 5")
    made()
    DeltaTable(folder).optimize.compact()
    made()
    write_deltalake(folder, orders(6).append_column("score", pa.array([0.5])), mode="append", schema_mode="merge")
    made()
    write_deltalake(folder, orders(7), mode="overwrite", schema_mode="overwrite")
    DeltaTable(folder).create_checkpoint()
    newest = values(store.get_historical_features(SPINE, service))
    pa.parquet.write_table(SPINE, tmp_path / "spine.parquet")
    compared = 0
    for number, frame in enumerate(frames):
        again = store.get_historical_features(SPINE, service, sources_as_in=frame)
        assert values(again) == values(frame) != newest
        assert again.manifest["sources"] == frame.manifest["sources"]
        assert {file["table_version"] for file in again.manifest["sources"]["orders"]} == {number}
        assert values(store.snapshot(service, at=AT, sources_as_in=frame)) == values(frame)
        parts = store.historical_parts(
            tmp_path / f"parts{number}", tmp_path / "spine.parquet", service, sources_as_in=frame
        )
        assert pa.parquet.read_table(parts.folder).to_pylist() == values(frame)
        assert parts.manifest["sources"] == frame.manifest["sources"]
        compared += 3 * 2 * 3
    assert len({json.dumps(values(frame), default=str) for frame in frames}) == 5  # a compaction changes none
    assert values(store.get_historical_features(SPINE, service)) == newest  # which a pinned reading does not touch
    store.apply([service])
    manifest = store.load_manifest(frames[1])
    assert values(store.get_historical_features(SPINE, manifest, sources_as_in=manifest)) == values(frames[1])
    DeltaTable(folder).vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(
        SourceError,
        match=r"The rows of table_version 1, which the manifest of model@\w+ names, cannot be read; a vacuum.*part-",
    ):
        store.get_historical_features(SPINE, service, sources_as_in=frames[1])
    with pytest.raises(SourceError, match=r"The rows of table_version 1, which the manifest of model@\w+ names"):
        store.historical_parts(tmp_path / "none", tmp_path / "spine.parquet", service, sources_as_in=frames[1])
    assert values(store.get_historical_features(SPINE, service)) == newest
    tell("delta", version=f"deltalake {version('deltalake')}", ran="frames made again", compared=compared)


def test_delta_frames_in_a_store_are_made_again(store: FeatureStore) -> None:
    """Where nothing is looked at before it is read, what a vacuum took is told all the same."""
    with s3_server() as s3:
        s3.create_dir("lake")
        options = {"AWS_ALLOW_HTTP": "true", "aws_conditional_put": "etag"}
        write_deltalake("s3://lake/t", orders(1, 2, 3), storage_options=options)
        service = model(DeltaSource("orders", "s3://lake/t", event_time="at"))
        first = store.get_historical_features(SPINE, service)
        DeltaTable("s3://lake/t", storage_options=options).delete("amount = 3")
        newest = store.get_historical_features(SPINE, service)
        again = store.get_historical_features(SPINE, service, sources_as_in=first)
        assert values(again) == values(first) != values(newest)
        DeltaTable("s3://lake/t", storage_options=options).vacuum(0, dry_run=False, enforce_retention_duration=False)
        with pytest.raises(SourceError, match=r"table_version 0, which the manifest .* is gone"):
            store.get_historical_features(SPINE, service, sources_as_in=first)
        assert values(store.get_historical_features(SPINE, service, sources_as_in=newest)) == values(newest)


def test_a_table_that_was_made_anew_is_another(store: FeatureStore, tmp_path: Path) -> None:
    """Though it has a version of that number; and a manifest that is of other sources says nothing of these."""
    write_deltalake(tmp_path / "t", orders(1, 2))
    service = model(DeltaSource("orders", tmp_path / "t", event_time="at"))
    first = store.get_historical_features(SPINE, service)
    for file in sorted((tmp_path / "t").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    write_deltalake(tmp_path / "t", orders(1, 2))
    with pytest.raises(
        SourceError, match="table_version 0 has other files than the manifest of .* the table was made anew"
    ):
        store.get_historical_features(SPINE, service, sources_as_in=first)
    other = model(DeltaSource("others", tmp_path / "t", event_time="at"))
    with pytest.raises(ManifestError, match="names no files of DeltaSource 'others'"):
        store.get_historical_features(SPINE, other, sources_as_in=first)
    said = {**first.manifest, "sources": {"orders": [{**first.manifest["sources"]["orders"][0]}]}}
    del said["sources"]["orders"][0]["table_version"]
    with pytest.raises(ManifestError, match="does not say which table_version of DeltaSource 'orders' was read"):
        store.get_historical_features(SPINE, service, sources_as_in=said)


def test_rows_are_known_from_the_same_commits(store: FeatureStore, tmp_path: Path) -> None:
    """Also after what they came with was compacted; in a project whose journal says otherwise it is told."""
    of = DeltaSource("orders", tmp_path / "t", event_time="at", known_at=ARRIVAL)
    folds = {"n": Count(window="lifetime")}
    view = FeatureView("rows", entity=USER, source=of, refresh="continuous", features=folds)
    write_deltalake(tmp_path / "t", orders(1))
    _committed(tmp_path / "t", 10)
    write_deltalake(tmp_path / "t", orders(3), mode="append")
    _committed(tmp_path / "t", 12)
    at = [datetime(2026, 3, 8, hour, tzinfo=UTC) for hour in (9, 10, 12, 14)]
    spine = pa.table({"user": ["ann"] * 4, "event_timestamp": pa.array(at, pa.timestamp("us", "UTC"))})
    first = store.get_historical_features(spine, [view])
    assert first.to_arrow()["rows__n"].to_pylist() == [None, 1, 2, 2]
    DeltaTable(tmp_path / "t").optimize.compact()
    write_deltalake(tmp_path / "t", orders(5), mode="append")
    _committed(tmp_path / "t", 14)
    assert store.get_historical_features(spine, [view]).to_arrow()["rows__n"].to_pylist() == [None, 1, 2, 3]
    again = store.get_historical_features(spine, [view], sources_as_in=first)
    assert values(again) == values(first)
    assert again.manifest["sources"] == first.manifest["sources"]
    told = store.offline.arrivals.stays("orders")
    assert not any(stay.missed for stay in told)  # a reading of the past journals nothing as gone
    said = json.loads(json.dumps(first.manifest))
    said["sources"]["orders"][0]["first_seen"] = "2026-03-08T09:00:00+00:00"
    with pytest.raises(SourceError, match="says from 2026-03-08T09:00:00.*the journal of arrivals is another"):
        store.get_historical_features(spine, [view], sources_as_in=said)


def _committed(folder: Path, hour: int) -> None:
    newest = max((folder / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in newest.read_text().splitlines()]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["timestamp"] = int(datetime(2026, 3, 8, hour, tzinfo=UTC).timestamp() * 1000)
    newest.write_text("\n".join(map(json.dumps, actions)))


SCHEMA = Schema(
    NestedField(1, "user", StringType()), NestedField(2, "at", TimestamptzType()), NestedField(3, "amount", LongType())
)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    words = {"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"file://{tmp_path}/lake"}
    with closing(load_catalog("lake", type="sql", **words)) as catalog:
        catalog.create_namespace("sales")
        yield catalog.create_table("sales.orders", SCHEMA)


def test_iceberg_frames_are_made_again(table: Table, tmp_path: Path, tell: Told) -> None:
    """After appends, deletes, overwrites and a branch that moved, on the command line too, until their snapshots are expired."""
    (tmp_path / "featurestore.toml").write_text(
        'project = "shop"\ndefinitions = ["shop.py"]\n[catalogs.lake]\ntype = "sql"\nuri = "sqlite:///catalog.db"\n'
    )
    (tmp_path / "shop.py").write_text(
        "from featurestore import Count, Entity, FeatureService, FeatureView, IcebergSource, Sum\n"
        "from featurestore.types import String\n"
        'of = IcebergSource("orders", catalog="lake", table="sales.orders", ref="main", event_time="at")\n'
        'user = Entity("user", key={"user": String})\n'
        'folds = {"n": Count(window="lifetime"), "sum": Sum("amount", window="lifetime")}\n'
        'rows = FeatureView("rows", entity=user, source=of, refresh="1h", features=folds)\n'
        'last = FeatureView("last", entity=user, source=of, refresh="1h", features=["amount"])\n'
        'model = FeatureService("model", features=[rows, last])\n'
    )
    pa.parquet.write_table(SPINE, tmp_path / "spine.parquet")
    frames: list[Any] = []
    with FeatureStore(tmp_path, clock=ManualClock(AT)) as store:
        changes = (
            lambda: table.append(orders(1, 2, 3).cast(table.schema().as_arrow())),
            lambda: table.append(orders(4, 5).cast(table.schema().as_arrow())),
            lambda: table.delete("amount = 3"),
            lambda: table.overwrite(orders(7, 8).cast(table.schema().as_arrow())),
        )
        for number, change in enumerate(changes):
            change()
            frames.append(store.get_historical_features(SPINE, "model"))
            frames[-1].to_parquet(tmp_path / f"{number}.parquet")
        newest = values(frames[-1])
        for number, frame in enumerate(frames):
            again = store.get_historical_features(SPINE, "model", sources_as_in=tmp_path / f"{number}.parquet")
            assert values(again) == values(frame)
            assert again.manifest["sources"] == frame.manifest["sources"]
        assert len({json.dumps(values(frame), default=str) for frame in frames}) == 4
        assert values(store.get_historical_features(SPINE, "model")) == newest
    said = ["--repo", str(tmp_path), "historical", str(tmp_path / "spine.parquet"), "model"]
    options = ["--sources-as-in", str(tmp_path / "1.parquet"), "-o", str(tmp_path / "again.parquet")]
    done = CliRunner().invoke(app, [*said, *options])
    assert done.exit_code == 0, done.output
    assert pa.parquet.read_table(tmp_path / "again.parquet").to_pylist() == values(frames[1])
    refused = CliRunner().invoke(app, [*said, *options, "--estimate"])
    assert refused.exit_code == 2
    assert "--estimate" in refused.output
    options = [*options[:2], "-o", str(tmp_path / "parts"), "--part-rows", "1"]
    asked = ["--repo", str(tmp_path), "snapshot", "model", "--at", AT.isoformat(), *options[:2]]
    for words in ([*said, *options], [*asked, "-o", str(tmp_path / "snapshot.parquet")]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    for name in ("parts", "snapshot.parquet"):
        assert pa.parquet.read_table(tmp_path / name).to_pylist() == values(frames[1])
    old = frames[1].manifest["sources"]["orders"][0]["snapshot"]
    table.maintenance.expire_snapshots().by_id(old).commit()
    with FeatureStore(tmp_path, clock=ManualClock(AT)) as store:
        with pytest.raises(
            SourceError,
            match=rf"The rows of snapshot {old}, .*it has no snapshot|its table has no snapshot {old} any more",
        ):
            store.snapshot("model", at=AT, sources_as_in=frames[1])
        assert values(store.get_historical_features(SPINE, "model", sources_as_in=frames[2])) == values(frames[2])
    tell("iceberg", version=f"pyiceberg {version('pyiceberg')}", ran="frames made again", compared=4 * 2 * 3)


def test_iceberg_columns_are_those_that_were_read(table: Table, tmp_path: Path) -> None:
    """Renamed and widened without a snapshot, and again after it: a snapshot alone does not say the columns."""
    words = f'[catalogs.lake]\ntype = "sql"\nuri = "sqlite:///{tmp_path}/catalog.db"\n'
    (tmp_path / "featurestore.toml").write_text(f'project = "shop"\ndefinitions = []\n{words}')
    table.append(orders(1, 2, 3).cast(table.schema().as_arrow()))
    with table.update_schema() as update:
        update.rename_column("amount", "price")
    of = IcebergSource("orders", catalog="lake", table="sales.orders", event_time="at")
    last = FeatureView("last", entity=USER, source=of, refresh="1h", features=["price"])
    with FeatureStore(tmp_path, clock=ManualClock(AT)) as store:
        first = store.get_historical_features(SPINE, [last])
        assert first.to_arrow()["last__price"].to_pylist() == [3, 2]
        with table.update_schema() as update:
            update.add_column("more", StringType())
        table.append(
            pa.table({"user": ["ann"], "at": pa.array([AT], pa.timestamp("us", "UTC")), "price": [9], "more": ["x"]})
        )
        assert store.get_historical_features(SPINE, [last]).to_arrow()["last__price"].to_pylist() == [9, 2]
        again = store.get_historical_features(SPINE, [last], sources_as_in=first)
        assert values(again) == values(first)
        assert again.manifest["sources"] == first.manifest["sources"]
        older = json.loads(json.dumps(first.manifest))  # of before manifests said the schema
        del older["sources"]["orders"][0]["schema_id"]
        older["sources"]["orders"][0]["snapshot"] = table.metadata.current_snapshot_id
        with pytest.raises(SourceError, match="has other files than the manifest"):
            store.get_historical_features(SPINE, [last], sources_as_in=older)

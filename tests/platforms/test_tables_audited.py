"""What was served of Delta and Iceberg tables that went on meanwhile, audited: nothing is skewed, and what was deleted since is rewritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
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
    FeatureService,
    FeatureStore,
    FeatureView,
    IcebergSource,
    ManualClock,
    Sum,
)
from featurestore.types import String
from tests.platforms.conftest import Told
from tests.platforms.test_delta import commit, deletion_vector
from tests.platforms.test_iceberg import commit_deletes, compact, data_files, opened

USER = Entity("user", key={"user": String})
NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def orders(hour: int, *amounts: int) -> pa.Table:
    """Rows that happened and were learned in an hour after noon; those of even amounts are Ben's."""
    at = pa.array([NOON + hour * HOUR + timedelta(minutes=one % 60) for one in amounts], pa.timestamp("us", "UTC"))
    users = ["ann" if amount % 2 else "ben" for amount in amounts]
    return pa.table({"user": users, "at": at, "amount": list(amounts), "loaded": at})


def project(folder: Path, clock: ManualClock, of: Any, words: str = "") -> FeatureStore:
    folder.mkdir(exist_ok=True)
    (folder / "featurestore.toml").write_text(f'project = "shop"\ndefinitions = []\n[serving_log]\nrate = 1.0\n{words}')
    folds = {"n": Count(window="lifetime"), "sum": Sum("amount", window="6h")}
    rows = FeatureView("rows", entity=USER, source=of, refresh="1h", features=folds)
    last = FeatureView("last", entity=USER, source=of, refresh="1h", features=["amount"])
    store = FeatureStore(folder, clock=clock)
    store.apply([FeatureService("model", features=[rows, last])])
    return store


def lived(store: FeatureStore, clock: ManualClock, changes: list[Callable[[], object]], *, per_hour: int) -> Any:
    """An hour each: a change of the table, a run, requests of every user; then what the audit says."""
    for hour, change in enumerate(changes, start=1):
        change()
        clock.set(NOON + hour * HOUR + timedelta(minutes=1))
        store.materialize(progress=False)
        for _ in range(per_hour):
            store.get_online_features([{"user": user} for user in ("ann", "ben", "cleo")], "model")
    return store.audit()


def test_a_delta_table_with_appends_deletions_and_compactions(tmp_path: Path, tell: Told) -> None:
    folder, clock = tmp_path / "t", ManualClock(NOON)
    write_deltalake(folder, orders(-1, 1, 2, 3), configuration={"delta.enableDeletionVectors": "true"})
    of = DeltaSource("orders", folder, event_time="at", known_at="loaded")

    def append(*amounts: int) -> None:
        at = round((clock() - NOON) / HOUR)
        write_deltalake(folder, orders(at, *amounts), mode="append")

    def compacted() -> None:
        DeltaTable(folder).optimize.compact()

    def by_vector() -> None:
        """Rows of the first file that is there, as Databricks deletes them."""
        log, number = folder / "_delta_log", DeltaTable(folder).version()
        adds = [
            json.loads(line)["add"]
            for entry in sorted(log.glob("*.json")) for line in entry.read_text().splitlines() if '"add"' in line
        ]  # fmt: skip
        there = pa.table(DeltaTable(folder).get_add_actions()).to_pylist()[0]["path"]
        add = next(one for one in adds if one["path"] == there)
        remove = {"path": there, "deletionTimestamp": 1, "dataChange": True}
        vector = {**add, "deletionVector": deletion_vector([0])}
        commit(folder, number + 1, {"remove": remove}, {"add": vector}, {"commitInfo": {"operation": "DELETE"}})

    changes: list[Callable[[], object]] = [
        lambda: append(4, 5), compacted, lambda: append(6, 7), by_vector,
        lambda: append(8), lambda: DeltaTable(folder).delete("amount = 7"), lambda: append(9),
        compacted,
        lambda: DeltaTable(folder).vacuum(0, dry_run=False, enforce_retention_duration=False), lambda: append(10, 11),
    ]  # fmt: skip
    with project(tmp_path / "shop", clock, of) as store:
        audited = lived(store, clock, changes, per_hour=2)
        assert audited.compared == 10 * 2 * 3 * 3
        assert (audited.skewed, audited.not_audited, audited.damaged) == (0, {}, {})
        assert 0 < audited.rewritten < audited.compared / 2
        tell("delta", version=f"deltalake {version('deltalake')}", ran="served and audited", compared=audited.compared)


def test_a_delta_table_whose_rows_are_known_from_their_commits(tmp_path: Path) -> None:
    """Appended, compacted and vacuumed: nothing is rewritten."""
    folder, clock = tmp_path / "t", ManualClock(NOON)

    def committed() -> None:
        newest = max((folder / "_delta_log").glob("*.json"))
        actions = [json.loads(line) for line in newest.read_text().splitlines()]
        for action in actions:
            if "commitInfo" in action:
                action["commitInfo"]["timestamp"] = int(clock().timestamp() * 1000)
        newest.write_text("\n".join(map(json.dumps, actions)))

    def append(*amounts: int) -> None:
        write_deltalake(folder, orders(-2, *amounts), mode="append")  # long ago, and known from now on
        committed()

    def compacted() -> None:
        DeltaTable(folder).optimize.compact()
        committed()

    append(1, 2)
    of = DeltaSource("orders", folder, event_time="at", known_at=ARRIVAL)
    changes: list[Callable[[], object]] = [
        lambda: append(3), compacted, lambda: append(4), lambda: append(5), compacted,
        lambda: DeltaTable(folder).vacuum(0, dry_run=False, enforce_retention_duration=False), lambda: append(6),
    ]  # fmt: skip
    with project(tmp_path / "shop", clock, of) as store:
        audited = lived(store, clock, changes, per_hour=1)
        assert audited.compared == 7 * 3 * 3
        assert (audited.skewed, audited.rewritten, audited.not_audited) == (0, 0, {})
        last = store.get_online_features([{"user": "ann"}, {"user": "ben"}], "model").to_arrow()
        assert last["rows__n"].to_pylist() == [3, 3]


def test_an_iceberg_table_with_appends_deletions_and_compactions(
    tmp_path: Path, tell: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(NOON)
    with closing(opened(tmp_path)) as catalog:
        catalog.create_namespace("sales")
        table = catalog.create_table("sales.orders", orders(-1, 1).schema)

        def append(*amounts: int) -> None:
            table.append(orders(round((clock() - NOON) / HOUR), *amounts))

        def deletes() -> None:
            commit_deletes(table, data_files(table)[0], [0])

        append(1, 2, 3)
        words = f'[catalogs.lake]\ntype = "sql"\nuri = "sqlite:///{tmp_path}/catalog.db"\n'
        of = IcebergSource("orders", catalog="lake", table="sales.orders", event_time="at", known_at="loaded")
        changes: list[Callable[[], object]] = [
            lambda: append(4, 5), lambda: compact(table, monkeypatch), lambda: append(6, 7), deletes, lambda: append(8),
            lambda: table.delete("amount = 7"), lambda: append(9), lambda: compact(table, monkeypatch), lambda: append(10),
        ]  # fmt: skip
        with project(tmp_path / "shop", clock, of, words) as store:
            audited = lived(store, clock, changes, per_hour=2)
            assert audited.compared == 9 * 2 * 3 * 3
            assert (audited.skewed, audited.not_audited, audited.damaged) == (0, {}, {})
            assert 0 < audited.rewritten < audited.compared / 2
            what = f"pyiceberg {version('pyiceberg')}"
            tell("iceberg", version=what, ran="served and audited", compared=audited.compared)

"""Definitions that change: the old version is served until the new one is complete, and never a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, Latest, ManualClock, ParquetSource
from featurestore.catalog import Catalog
from featurestore.errors import FingerprintError, NotFoundError, NotMaterializedError, PlanOutdatedError
from featurestore.materialize import materializer
from featurestore.materialize.progress import Progress
from featurestore.online.view_codec import key_prefix
from featurestore.types import String

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[FeatureStore]:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "first.parquet", {"a": 1, "b": 2}, at=NOON - 2 * HOUR)
    (tmp_path / "featurestore.toml").write_text('project = "versions"\ndefinitions = []\n')
    with FeatureStore(tmp_path, clock=clock) as store:
        yield store


def write(path: Path, values: dict[str, int], *, at: datetime) -> None:
    times = pa.array([at] * len(values), pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"id": list(values), "at": times, "x": list(values.values())}), path)


def service(*, default: int | None = None, description: str = "", **words: Any) -> FeatureService:
    source = ParquetSource("rows", "data", event_time="at")
    said: dict[str, Any] = {"refresh": "1h", "ready_after": "10m", **words}
    view = FeatureView(
        "facts", entity=Entity("thing", key={"id": String}), source=source,
        features={"x": Latest("x", default=default)}, description=description, **said,
    )  # fmt: skip
    return FeatureService("service", features=[view])


def values(store: FeatureStore, *ids: str, fingerprint: str | None = None) -> list:
    store.reload()
    return store.get_online_features([{"id": i} for i in ids], "service", fingerprint=fingerprint).to_dict()["facts__x"]


def fill(store: FeatureStore) -> list:
    return store.materialize(progress=False)


def test_the_old_version_is_served_until_the_new_one_is_complete(store: FeatureStore) -> None:
    """A changed definition changes nothing that is served before it is filled, and everything at once then."""
    store.apply([service()])
    fill(store)
    assert values(store, "a", "z") == [1, None]
    store.apply([service(default=-1)])
    assert values(store, "a", "z") == [1, None]
    fill(store)
    assert values(store, "a", "z") == [1, -1]


def test_a_pinned_model_gets_its_definitions_or_a_refusal(store: FeatureStore) -> None:
    """The fingerprint of a training frame is served exactly, or refused with what changed."""
    store.apply([service()])
    fill(store)
    spine = pa.table({"id": ["a"], "event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))})
    trained = store.get_historical_features(spine, "service").manifest["fingerprint"]
    assert values(store, "a", fingerprint=trained) == [1]
    store.apply([service(default=-1)])
    assert values(store, "z", fingerprint=trained) == [None]
    fill(store)
    with pytest.raises(FingerprintError, match="default"):
        values(store, "z", fingerprint=trained)
    with pytest.raises(FingerprintError, match="never applied"):
        values(store, "z", fingerprint="0" * 32)


def test_a_version_is_freed_when_all_of_its_successor_is_served(store: FeatureStore) -> None:
    """A service whose views are filled one by one answers as it did before until the last of them is complete."""

    def two(default: int | None) -> FeatureService:
        views = [
            FeatureView(
                name, entity=Entity("thing", key={"id": String}), source=ParquetSource("rows", "data", event_time="at"),
                features={"x": Latest("x", default=default)}, refresh="1h", ready_after="10m",
            )
            for name in ("facts", "others")
        ]  # fmt: skip
        return FeatureService("service", features=views)

    store.apply([two(None)])
    fill(store)
    store.apply([two(-1)])
    store.materialize(["facts"], progress=False)
    assert values(store, "a", "z") == [1, None]
    assert len(store.registry.leftovers()) == 2
    fill(store)
    assert values(store, "a", "z") == [1, -1]
    assert store.registry.leftovers() == ()


def test_a_kept_version_of_what_is_declared_no_more_is_served_on(
    store: FeatureStore, clock: ManualClock, tmp_path: Path
) -> None:
    """A service and its view that are removed are kept whole: filled, served by fingerprint, and gone when retired."""
    store.apply([service()])
    fill(store)
    trained = store.registry.current().document["services"]["service"]["fingerprint"]
    store._project.catalog = Catalog()
    store.apply(keep=True)
    assert store.registry.current().document["services"] == {}
    clock.advance(HOUR)
    write(tmp_path / "data" / "second.parquet", {"a": 10}, at=NOON + HOUR / 2)
    assert len(fill(store)) == 1
    clock.advance(HOUR / 2)
    assert values(store, "a", "z", fingerprint=trained) == [10, None]
    with pytest.raises(NotFoundError):
        values(store, "a")
    applied = store.apply(retire=f"service@{trained[:4]}")
    assert [keys > 0 for _, _, keys in applied.freed] == [True]
    with pytest.raises(FingerprintError, match="retired.*no service of that name is applied"):
        values(store, "a", fingerprint=trained)


def test_a_run_leaves_nothing_of_a_version_that_is_retired_under_its_hands(
    store: FeatureStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that had listed it before, nor one that begins just then, nor one in the middle."""
    store.apply([service()])
    fill(store)
    first = store.registry.current().document["views"]["facts"]["fingerprint"]
    for default, where in enumerate(("before", "between", "within")):
        store.apply([service(default=default)], keep=True)
        fill(store)
        retired = next(view for view in store._project.applied() if view.fingerprint == first)
        prefix = key_prefix("versions", "facts", first)
        assert any(store.online.scan(prefix))
        clock.advance(HOUR)

        def retire(*_: object, **__: Any) -> None:
            if store.registry.kept():
                store.apply(retire="all")

        with monkeypatch.context() as patch:
            if where == "before":
                retire()
            elif where == "between":
                real = materializer.materialize_view  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
                patch.setattr(materializer, "materialize_view", lambda *a, **k: (retire(), real(*a, **k))[1])
            else:
                patch.setattr(Progress, "start", retire)
            store._project.materializer.materialize(retired, full=False, progress=Progress(shown=False))
        assert store.registry.kept() == ()
        assert not any(store.online.scan(prefix)), where
        first = store.registry.current().document["views"]["facts"]["fingerprint"]


def test_keep_and_retire_belong_to_the_plan(store: FeatureStore) -> None:
    """A plan that was made is applied as it is."""
    plan = store.plan([service()])
    with pytest.raises(ValueError, match="when the plan is made"):
        store.apply(plan, keep=True)
    store.apply(plan)


def test_teardown_frees_what_is_kept_too(store: FeatureStore) -> None:
    """Nothing of the project is left online, and nothing is kept."""
    store.apply([service()])
    fill(store)
    store.apply([service(default=-1)], keep=True)
    fill(store)
    assert store.teardown() > 0
    assert (store.registry.kept(), store.registry.leftovers()) == ((), ())
    assert not any(store.online.scan(b""))


def test_a_label_changes_no_value_and_refills_nothing(store: FeatureStore) -> None:
    """A description is no part of a fingerprint."""
    store.apply([service()])
    fill(store)
    before = store.status()[0].fingerprint
    plan = store.plan([service(description="facts of things")])
    assert [type(step).__name__ for step in plan.steps] == ["ChangeLabel"]
    store.apply(plan)
    assert store.status()[0].fingerprint == before
    assert values(store, "a") == [1]


def test_a_plan_that_is_no_longer_current_is_refused(store: FeatureStore) -> None:
    """What another applied meanwhile, or a column that changed, makes a plan that was shown void."""
    plan = store.plan([service()])
    store.apply([service(default=3)])
    with pytest.raises(PlanOutdatedError):
        store.apply(plan)


def test_stale_values_are_marked_or_withheld(store: FeatureStore, clock: ManualClock) -> None:
    """Values older than the refresh asks for say so; a view may withhold them."""
    store.apply([service()])
    fill(store)
    clock.advance(5 * HOUR)
    result = store.get_online_features([{"id": "a"}], "service")
    assert result.stale == {"facts": True}
    assert result.to_dict()["facts__x"] == [1]
    store.apply([service(stale="withhold")])
    fill(store)
    assert values(store, "a") == [1]
    clock.advance(5 * HOUR)
    result = store.get_online_features([{"id": "a"}], "service")
    assert result.statuses["facts__x"] == ["WITHHELD"]
    assert result.to_dict()["facts__x"] == [None]


def test_an_emptied_store_is_an_error_and_is_caught_up(store: FeatureStore) -> None:
    """A store that lost its values never answers MISSING for them; teardown then apply works."""
    store.apply([service()])
    with pytest.raises(NotMaterializedError):
        values(store, "a")
    fill(store)
    assert store.teardown() > 0
    with pytest.raises(NotFoundError):
        values(store, "a")
    store.apply([service()])
    with pytest.raises(NotMaterializedError):
        values(store, "a")
    fill(store)
    assert values(store, "a") == [1]


def test_files_that_arrive_change_or_vanish_are_noticed(
    store: FeatureStore, clock: ManualClock, tmp_path: Path
) -> None:
    """Old rows in a new file are picked up by the next instant; a changed or removed file means all keys."""
    store.apply([service()])
    fill(store)
    write(tmp_path / "data" / "late.parquet", {"a": 10, "c": 30}, at=NOON - HOUR)
    assert values(store, "a", "c") == [1, None]
    clock.advance(HOUR)
    run = fill(store)[-1]
    assert (run.full, run.keys) == (False, 2)
    clock.advance(HOUR)
    assert values(store, "a", "b", "c") == [10, 2, 30]
    (tmp_path / "data" / "late.parquet").unlink()
    run = fill(store)[-1]
    assert run.full
    clock.advance(HOUR)
    assert values(store, "a", "b", "c") == [1, 2, None]


def test_features_listed_in_another_order_are_the_same_version(store: FeatureStore, clock: ManualClock) -> None:
    """The order in a view is no part of its identity, and changes no record."""
    source = ParquetSource("rows", "data", event_time="at")
    for features in (["x", "at"], ["at", "x"]):
        view = FeatureView(
            "facts", entity=Entity("thing", key={"id": String}), source=source, features=features, refresh="1h"
        )
        store.apply([FeatureService("service", features=[view])])
        fill(store)
        clock.advance(HOUR)
    assert values(store, "a", "b") == [1, 2]


def test_running_twice_writes_nothing_new(store: FeatureStore) -> None:
    """What is complete is not due."""
    store.apply([service()])
    assert len(fill(store)) == 2
    assert fill(store) == []

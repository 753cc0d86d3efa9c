"""Assets and checks run by Dagster itself, in process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from featurestore.declare.frames import content_digest
from featurestore.errors import DeclarationError, NotFoundError, RequestError
from featurestore.integrations.dagster import audit_check, online_features, training_set
from featurestore.store import FeatureStore
from tests.platforms.conftest import Told
from tests.platforms.frameworks import PAGES, example_project, run_blocks
from tests.platforms.shop import bits
from tests.tampering import tamper


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    with example_project(tmp_path) as names:
        yield names


def metadata(result: Any, asset: str) -> dict[str, Any]:
    (found,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in found.metadata.items()}


def checked(result: Any) -> list[Any]:
    return list(result.get_asset_check_evaluations())


def test_the_page_runs_and_writes_what_the_store_says(project: dict[str, Any], tmp_path: Path, tell: Told) -> None:
    """docs/platforms/dagster.md: metadata, and files whose values are the verbs'."""
    names = run_blocks((PAGES / "dagster.md").read_text(), project)
    store, result = names["store"], names["result"]
    expected = store.get_historical_features(names["rides"], "ranking").to_arrow()
    found = pq.read_table(tmp_path / "training.parquet")
    assert found.schema.names == expected.schema.names
    for name in expected.column_names:
        assert bits(found[name].to_pylist()) == bits(expected[name].to_pylist())
    told = metadata(result, "training_set")
    assert told["dagster/row_count"] == 4
    assert told["content"] == content_digest(expected)
    assert told["fingerprint"] == store.load_manifest(tmp_path / "training.parquet").fingerprint
    (check,) = checked(result)
    assert check.passed
    day = pq.read_table(tmp_path / "history-2026-01-01.parquet")
    every = store.snapshot("ranking", at=datetime(2026, 1, 2, tzinfo=UTC)).to_arrow()
    assert day.to_pylist() == every.to_pylist()
    assert dict(zip(day["driver_id"].to_pylist(), day["drivers__fare"].to_pylist(), strict=True))["d1"] == 14.0
    tell(
        "dagster",
        version=version("dagster"),
        ran="it ran, in process",
        compared=expected.num_rows * expected.num_columns,
    )


def test_what_is_due_is_told_once(project: dict[str, Any], tmp_path: Path) -> None:
    """A run that has something to do says which instant; one by the project's path, as another process has it."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("featurestore.toml", "definitions.py"):
        (other / name).write_text((tmp_path / name).read_text())
    with FeatureStore(other) as store:
        store.apply()
    first = metadata(dg.materialize([online_features(other)]), "online_features")
    assert first["drivers"]["keys"] == 2
    assert first["drivers"]["fingerprint"] == project["store"].status()[0].fingerprint
    with pytest.raises(NotFoundError):
        dg.materialize([online_features(other, name="odd", views=["nothing"])])


def test_skew_stops_what_depends_on_it(project: dict[str, Any], tmp_path: Path) -> None:
    """The gate: nothing is learned while a value that nobody computed is online, and served."""
    rides = project["rides"]
    (tmp_path / "featurestore.toml").write_text(
        (tmp_path / "featurestore.toml").read_text() + "[serving_log]\nrate = 1.0\n"
    )
    with FeatureStore(tmp_path) as store:
        for minimum, learns in ((1, False), (0, True)):  # nobody was served yet
            path, online = tmp_path / f"nobody{minimum}.parquet", online_features(store)
            learned = training_set(store, "ranking", spine=lambda: rides, path=path, deps=[online])
            gate = audit_check(store, minimum_compared=minimum)
            (check,) = checked(dg.materialize([online, gate, learned], raise_on_error=False))
            assert check.passed is learns
            assert path.exists() is learns
            assert learns or "0 values were compared, and a gate wants 1 at least" in check.description
        for skewed, blocking, learns in ((0, True, True), (1, True, False), (2, False, True)):
            if skewed:
                tamper(store, "drivers", ["d2"], {"fare": 20.5}, event_time=datetime(2026, 1, 2, 8, tzinfo=UTC))
            store.get_online_features([{"driver_id": "d1"}, {"driver_id": "d2"}], "ranking")
            path = tmp_path / f"{skewed}.parquet"
            online = online_features(store)
            learned = training_set(store, "ranking", spine=lambda: rides, path=path, deps=[online])
            result = dg.materialize([online, audit_check(store, blocking=blocking), learned], raise_on_error=False)
            (check,) = checked(result)
            assert check.passed is (skewed == 0)
            assert check.metadata["skewed"].value == skewed
            assert path.exists() is learns


def test_mistakes_are_told_where_it_is_declared(project: dict[str, Any]) -> None:
    """And not when it runs."""
    days, odd = dg.DailyPartitionsDefinition("2026-01-01"), dg.StaticPartitionsDefinition(["a"])
    with pytest.raises(DeclarationError, match="a spine, or partitions"):
        training_set(project["store"], "ranking", path="x.parquet")
    with pytest.raises(DeclarationError, match="has {partition} in it"):
        training_set(project["store"], "ranking", path="x.parquet", partitions=days)
    with pytest.raises(DeclarationError, match="partitions are of time, such as DailyPartitionsDefinition"):
        training_set(project["store"], "ranking", path="{partition}.parquet", partitions=odd)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(DeclarationError, match="spine is a function that gives the rows"):
        training_set(project["store"], "ranking", path="x.parquet", spine=project["rides"])
    with pytest.raises(DeclarationError, match=r"'drivers'; \['drivers'\] is one of one view"):
        online_features(project["store"], views="drivers")
    with pytest.raises(RequestError, match="minimum_compared is a number of values"):
        audit_check(project["store"], minimum_compared=-1)


def test_partitions_of_an_hour_and_of_another_zone(project: dict[str, Any], tmp_path: Path) -> None:
    """Keys with a colon, in a path that is relative; and days that end at another hour than UTC's."""
    store = project["store"]
    hours = dg.HourlyPartitionsDefinition("2026-01-01-00:00")
    tokyo = dg.DailyPartitionsDefinition("2026-01-01", timezone="Asia/Tokyo")
    for partitions, key, end in (
        (hours, "2026-01-02-08:00", datetime(2026, 1, 2, 9, tzinfo=UTC)),
        (tokyo, "2026-01-02", datetime(2026, 1, 2, 15, tzinfo=UTC)),
    ):
        history = training_set(store, "ranking", name="h", partitions=partitions, path="h-{partition}.parquet")
        told = metadata(dg.materialize([history], partition_key=key), "h")
        assert told["content"] == content_digest(store.snapshot("ranking", at=end).to_arrow())
        assert store.load_manifest(f"h-{key}.parquet").fingerprint == told["fingerprint"]


def test_what_is_dagsters_own_is_said_in_its_words(project: dict[str, Any], tmp_path: Path) -> None:
    """A retry of a spine that fails once, a column of times of another name, a group, and a check for each of two services."""
    tried: list[int] = []

    def spine() -> Any:
        tried.append(1)
        if len(tried) == 1:
            raise dg.RetryRequested(max_retries=2)
        return project["rides"].rename(columns={"event_timestamp": "asked"})

    store, online = project["store"], online_features(project["store"], group_name="features")
    learned = training_set(
        store, "ranking", spine=spine, path="a.parquet", timestamp="asked", retry_policy=dg.RetryPolicy(max_retries=2)
    )
    gates = [audit_check(store, name=f"audit_{n}", service="ranking", minimum_compared=0) for n in (1, 2)]
    result = dg.materialize([online, *gates, learned])
    assert len(tried) == 2
    assert metadata(result, "training_set")["dagster/row_count"] == 4
    assert [check.passed for check in checked(result)] == [True, True]
    assert online.group_names_by_key[dg.AssetKey("online_features")] == "features"

"""How much of what is served is logged, and who may look after the log."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ParquetSource
from featurestore.durable.lock import alone
from featurestore.errors import LogBusyError
from featurestore.serving.log.erasure import erase_served
from featurestore.serving.log.upkeep import UPKEEP
from featurestore.types import Int64

THINGS = range(64)


@pytest.fixture
def shop(tmp_path: Path) -> Callable[[str], FeatureStore]:
    """A store over things, with words of `[serving_log]`."""
    table = pa.table({"thing": pa.array(THINGS, pa.int64()), "size": pa.array(THINGS, pa.int64())})
    pq.write_table(table, tmp_path / "things.parquet")

    def made(said: str) -> FeatureStore:
        (tmp_path / "featurestore.toml").write_text(f'project = "p"\ndefinitions = []\n[serving_log]\n{said}\n')
        store = FeatureStore(tmp_path)
        source = ParquetSource("rows", "things.parquet", event_time=None)
        view = FeatureView(
            "things", entity=Entity("thing", key={"thing": Int64}), source=source, features=["size"], refresh="1h"
        )
        store.apply([FeatureService("model", features=[view])])
        store.materialize(progress=False)
        return store

    return made


def logged(store: FeatureStore) -> list[bool]:
    """Of each thing, asked for alone, whether that was logged."""
    return [store.get_online_features([{"thing": one}], "model").request is not None for one in THINGS]


def test_a_part_of_the_requests_is_logged(shop: Callable[[str], FeatureStore]) -> None:
    """By chance: of 64 at a rate of a half all or none would be one in 2^63."""
    with shop("rate = 0.5") as store:
        assert 0 < sum(logged(store)) < len(THINGS)


def test_rows_of_some_keys_are_logged_each_time(shop: Callable[[str], FeatureStore]) -> None:
    """And those of others never, whichever request they are in; a rate of a service is its own."""
    with shop('rate = 0\nrates = {model = 0.5}\nbys = {model = "key"}') as store:
        first = logged(store)
        assert 0 < sum(first) < len(THINGS)
        assert logged(store) == first
        request = store.get_online_features([{"thing": one} for one in THINGS], "model").request
        store._project.serving_log.flush()
        rows = [
            row
            for files in store._project.serving_log.segments().values()
            for path in files
            for row in pq.read_table(path).select(["request", "input:thing"]).to_pylist()
        ]
        assert {row["input:thing"] for row in rows if row["request"] == request} == {
            one for one, is_logged in zip(THINGS, first, strict=True) if is_logged
        }
        ((name, _),) = store._project.serving_log.versions()
        assert name == "model"


def test_rows_are_not_erased_beside_whoever_looks_after_the_log(shop: Callable[[str], FeatureStore]) -> None:
    """It is waited for, and then said."""
    with shop("rate = 1.0") as store:
        logged(store)
        store._project.serving_log.flush()
        folder = store.config.serving_log.folder
        with alone(folder / UPKEEP) as is_alone:
            assert is_alone
            with pytest.raises(LogBusyError, match=r"has been looked after for more than 0.1 s; try again"):
                erase_served(folder, lambda name, fingerprint: [], wait_seconds=0.1)
        assert erase_served(folder, lambda name, fingerprint: [], wait_seconds=60) == 0

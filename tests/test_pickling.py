"""What goes to another process, by pickle: results, frames and errors do; what is bound to its process says what to send instead."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import Any

import pandas as pd
import pytest

import featurestore
from featurestore import FeatureStore, Latest, Request, on_demand
from featurestore.errors import (
    FeatureStoreError,
    FingerprintError,
    ForbiddenError,
    MessagesLostError,
    MissingPackageError,
    OnlineDamagedError,
    RowRefusedError,
    StreamReplacedError,
    UnauthenticatedError,
)
from featurestore.materialize.lease import Holder, LeaseTakenError
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import Float64
from tests.small import NOON, hours, opened, table, view_of

VIEW = view_of(
    table(thing=[1, 2], at=[hours(-2), hours(-1)], x=[1.0, 0.5], s=["a", None], n=[2**62, None]),
    {"x": Latest("x"), "s": Latest("s"), "n": Latest("n")}, refresh="1h",
)  # fmt: skip


@on_demand(inputs=[VIEW["x"], Request("by", Float64)], output=Float64)
def scaled(x, by):  # type: ignore[no-untyped-def]  # a user's function without types  # noqa: ANN001, ANN201
    """What no other process has by its name: the name is that of the feature."""
    return None if x is None else x * by


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    with opened(VIEW) as (store, _):
        store.materialize(progress=False)
        yield store


def passed(value: Any) -> Any:
    """The value as a process has it that was started anew."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_back, (value,))


def _back(value: Any) -> Any:
    value.to_numpy(columns=[])
    return value


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)), "copy": copy.copy, "deepcopy": copy.deepcopy, "spawn": passed,
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_result_is_the_same_in_another_process(store: FeatureStore, way: str) -> None:
    result = store.get_online_features([{"thing": 1, "by": 2.0}, {"thing": 3, "by": 2.0}], [VIEW, scaled])
    other = WAYS[way](result)
    assert other.to_arrow().equals(result.to_arrow())
    assert other.to_dict() == result.to_dict()
    pd.testing.assert_frame_equal(other.to_pandas(), result.to_pandas())
    assert (other.statuses, other.as_of, other.stale) == (result.statuses, result.as_of, result.stale)
    assert (repr(other), other._repr_html_()) == (repr(result), result._repr_html_())
    assert other.service.fingerprint == result.service.fingerprint


def test_a_result_that_is_sent_is_as_large_as_its_values() -> None:
    """The frames of its sources are not in it."""
    rows = table(thing=list(range(100_000)), at=[hours(-1)] * 100_000, x=[1.0] * 100_000)
    with opened(view_of(rows, ["x"])) as (store, _):
        store.materialize(progress=False)
        assert len(pickle.dumps(store.get_online_features({"thing": 1}, "service"))) < 10_000


def spines() -> dict[str, Any]:
    arrow = table(thing=[1, 2, 1], event_timestamp=[NOON, NOON, hours(-5)], by=[2.0, 3.0, 4.0], label=["a", "b", "c"])
    return {"arrow": arrow, "pandas": arrow.to_pandas().set_index(pd.Index([7, 8, 9])), "stream": arrow.to_reader()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["arrow", "pandas", "stream"])
def test_a_training_frame_is_the_same_in_another_process(
    store: FeatureStore, way: str, kind: str, tmp_path: Any
) -> None:
    frame = store.get_historical_features(spines()[kind], [VIEW, scaled], with_status=True, with_event_time=True)
    other: TrainingFrame = WAYS[way](frame)
    assert other.to_arrow().equals(frame.to_arrow())
    assert other.to_arrow().schema.equals(frame.to_arrow().schema, check_metadata=True)
    pd.testing.assert_frame_equal(other.to_pandas(), frame.to_pandas())
    pd.testing.assert_frame_equal(other.features, frame.features)
    assert store.load_manifest(other).fingerprint == store.load_manifest(frame).fingerprint
    assert [len(part) for part in other.split_by_time(hours(-1))] == [1, 2]
    assert pd.read_parquet(other.to_parquet(tmp_path / "frame.parquet")).shape == frame.to_pandas().shape


def test_what_is_bound_to_its_process_says_what_to_send(store: FeatureStore, tmp_path: Any) -> None:
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[env.prod]\nproject = "q"\n')
    with FeatureStore(tmp_path) as own, FeatureStore(tmp_path, env="prod") as prod:
        bound = {
            own: f"FeatureStore({str(tmp_path)!r})",
            prod: f"FeatureStore({str(tmp_path)!r}, env='prod')",
            store: "This one is temporary",
            store.lookup("service"): "open FeatureStore(path) there",
            own.registry: "open FeatureStore(path) there",
            own.offline: "open FeatureStore(path) there",
            own.online: "open FeatureStore(path) there",
        }
        for value, says in bound.items():
            for way in ("pickle", "copy", "deepcopy"):
                with pytest.raises(FeatureStoreError) as caught:
                    WAYS[way](value)
                assert f"A {type(value).__name__} cannot be copied or sent to another process" in str(caught.value)
                assert says in str(caught.value)


def errors() -> list[type[FeatureStoreError]]:
    """Every class of error of the package."""
    for module in pkgutil.walk_packages(featurestore.__path__, "featurestore."):
        is_of_platform = module.name.startswith(
            ("featurestore.integrations.", "featurestore.streams.")
        )  # whose package may not be here
        with suppress(ModuleNotFoundError, MissingPackageError) if is_of_platform else nullcontext():
            if "__main__" not in module.name:
                importlib.import_module(module.name)
    found = [FeatureStoreError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__.startswith("featurestore.")]


def test_every_error_is_the_same_in_another_process() -> None:
    """A worker's error is pickled, too; one that cannot be made anew there hung the pool."""
    made: dict[type, Exception] = {
        OnlineDamagedError: OnlineDamagedError("Redis at x", [b"k\0", b"l"]),
        FingerprintError: FingerprintError("other", changes=[("a", "1", None)]),
        UnauthenticatedError: UnauthenticatedError("who asks?", challenge="Bearer"),
        ForbiddenError: ForbiddenError("not that", scope="push"),
        RowRefusedError: RowRefusedError("row 3: no", {3: "no"}),
        MessagesLostError: MessagesLostError("gone", partition=1, place="7", lost=2),
        StreamReplacedError: StreamReplacedError("another", partition=1),
        LeaseTakenError: LeaseTakenError("View 'v'", Holder("host", 7, "token", 0)),
    }
    kinds = errors()
    assert len(kinds) > 20
    for kind in kinds:
        error = made.get(kind) or kind("what is wrong")
        for way in ("pickle", "copy", "deepcopy"):
            other = WAYS[way](error)
            assert type(other) is kind
            assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
            assert other.retry == kind.retry
        if issubclass(kind, FeatureStoreError):  # told again with more words
            other = error.saying(f"{error}; and more")  # type: ignore[attr-defined]  # errors of the store have it
            assert type(other) is kind
            assert (str(other), vars(other)) == (f"{error}; and more", vars(error))

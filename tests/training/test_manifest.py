"""Manifests: read back from wherever they were written, and compared with what is applied and at hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    Request,
    on_demand,
)
from featurestore.errors import FingerprintError, ManifestError
from featurestore.training.manifest import Manifest, library_versions, load_manifest
from featurestore.types import Float64, Int64, String

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
ROWS = pa.table(
    {"id": ["a", "b"], "at": pa.array([NOON - timedelta(hours=2)] * 2, pa.timestamp("us", "UTC")), "x": [1, 2]}
)
FACTS = DataFrameSource("facts", ROWS, event_time="at")


def model(*, window: str = "1d", name: str = "model") -> FeatureService:
    view = FeatureView(
        "counts", entity=Entity("thing", key={"id": String}), source=FACTS, features={"n": Count(window=window)}, refresh="1h"
    )  # fmt: skip

    @on_demand(inputs=[view["n"], Request("of", Int64)], output=Float64)
    def share(n, of):
        return None if n is None else n / of

    return FeatureService(name, features=[view, share])


@pytest.fixture
def store() -> Iterator[FeatureStore]:
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        yield store


def frame(store: FeatureStore, service: Any) -> Any:
    times = pa.array([NOON], pa.timestamp("us", "UTC"))
    return store.get_historical_features(pa.table({"id": ["a"], "of": [2], "event_timestamp": times}), service)


def test_a_manifest_is_read_from_wherever_it_was_written(store: FeatureStore, tmp_path: Path) -> None:
    """In the Parquet file, beside it, the frame, its table or a dict: the same manifest each time."""
    training = frame(store, model())
    path = training.to_parquet(tmp_path / "training.parquet")
    beside = tmp_path / "training.parquet.manifest.json"
    whole = store.load_manifest(path)
    assert (whole.service, whole.fingerprint) == ("model", training.manifest["fingerprint"])
    assert whole.definition == training.manifest["definition"]
    assert whole.versions == library_versions()
    assert whole.created == NOON
    assert list(whole.columns) == ["counts__n", "share"]
    assert whole.raw == training.manifest
    same = [
        store.load_manifest(given) for given in (str(path), beside, training, training.to_arrow(), training.manifest)
    ]
    bare = pq.read_table(path).replace_schema_metadata(None)
    pq.write_table(bare, path)  # by another program, which knows of no manifest
    same.append(store.load_manifest(path))
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00")  # records of another form
    same.append(store.load_manifest(path))
    path.unlink()
    same.append(store.load_manifest(path))
    assert {one.model_copy(update={"origin": ""}).model_dump_json() for one in same} == {
        whole.model_copy(update={"origin": ""}).model_dump_json()
    }
    with pytest.raises(ValueError, match="frozen"):
        whole.service = "other"  # type: ignore[misc]  # which is refused


def damaged(tmp_path: Path, of: Manifest) -> dict[str, tuple[Any, str]]:
    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    bare = tmp_path / "bare.parquet"
    pq.write_table(ROWS, bare)
    other = tmp_path / "other.parquet"
    pq.write_table(ROWS.replace_schema_metadata({b"featurestore.manifest": json.dumps(of.raw).encode()}), other)
    written("other.parquet.manifest.json", json.dumps({**of.raw, "fingerprint": "0" * 32, "definition": None}))
    return {
        "no file": (tmp_path / "nope.parquet", "There is no file .*nope.parquet, nor nope.parquet.manifest.json beside it"),
        "no JSON": (written("a.json", "service = 1"), "a.json is neither a Parquet file nor JSON"),
        "a list": (written("b.json", "[]"), "b.json is no manifest: it is list"),
        "no fingerprint": ({"service": "model"}, "a dict is no manifest of a training frame: fingerprint: must be given"),
        "short": ({"service": "model", "fingerprint": "1a"}, "fingerprint: must be text of the form"),
        "changed by hand": ({**of.raw, "fingerprint": "0" * 32}, f"has fingerprint {of.fingerprint} and not 0000.*changed"),
        "bare": (bare, "has no manifest in its metadata, and there is no bare.parquet.manifest.json"),
        "of another": (other, "one of them is of another training frame"),
        "a table": (ROWS, "Arrow table has no manifest"),
        "a number": (3, "int is no manifest; give a training frame as get_historical_features returned it"),
    }  # fmt: skip


def test_what_is_no_manifest_is_refused_by_name(store: FeatureStore, tmp_path: Path) -> None:
    """Each with what is wrong of it."""
    for given, says in damaged(tmp_path, load_manifest(frame(store, model()))).values():
        with pytest.raises(ManifestError, match=says):
            store.load_manifest(given)


def test_what_was_never_applied_is_refused_with_what_differs(store: FeatureStore) -> None:
    """A manifest holds its definition; a fingerprint alone cannot tell."""
    manifest = store.load_manifest(frame(store, model(window="3d")))
    rows = [{"id": "a", "of": 2}]
    with pytest.raises(FingerprintError, match="no service of that name is applied"):
        store.get_online_features(rows, manifest)
    store.apply([model()])
    with pytest.raises(FingerprintError, match=r"Present the manifest itself") as bare:
        FeatureStore.get_online_features(store, rows, "model", fingerprint="0" * 32)
    assert bare.value.changes == ()
    with pytest.raises(FingerprintError, match=r"~ parts.counts.view.features.n.window: 3d → 1d") as refused:
        store.get_online_features(rows, manifest)
    assert refused.value.changes == (("parts.counts.view.features.n.window", "3d", "1d"),)
    with pytest.raises(ManifestError, match="the fingerprint given is"):
        store.get_online_features(rows, manifest, fingerprint="0" * 32)


def test_training_on_the_definitions_of_a_manifest(store: FeatureStore) -> None:
    """Of a service as it was, of what is not applied, and of a list of features; what is nowhere is refused with what differs."""
    old = frame(store, model())  # which was never applied
    store.apply([model(window="3h")])
    first = frame(store, "model")
    listed = frame(store, ["counts:n"])
    store.apply([model(window="1h")])
    assert frame(store, "model").to_arrow()["counts__n"].to_pylist() == [0]
    for made in (first, listed):
        again = frame(store, store.load_manifest(made))
        assert again.manifest["fingerprint"] == made.manifest["fingerprint"]
        assert again.to_arrow().to_pylist() == made.to_arrow().to_pylist()
        assert again.to_arrow()["counts__n"].to_pylist() == [1]
        every = store.snapshot(store.load_manifest(made), at=NOON) if made is listed else None
        assert every is None or every.to_arrow()["counts__n"].to_pylist() == [1, 1]
    with pytest.raises(FingerprintError, match="was never applied with fingerprint") as raised:
        frame(store, store.load_manifest(old))
    assert ("parts.counts.view.features.n.window", "1d", "1h") in raised.value.changes
    with pytest.raises(
        FingerprintError,
        match=r"(?s)The list of features was never .* what is applied of its features has [0-9a-f]{32}[.] .*n.window: 3h → 1h",
    ):
        store.get_online_features([{"id": "a"}], store.load_manifest(listed))


def test_a_check_tells_the_same_from_what_differs(store: FeatureStore) -> None:
    """Against what is applied and at hand, libraries too; before and after it is filled, kept and retired."""
    manifest = store.load_manifest(frame(store, model()))
    assert store.check_manifest(manifest).to_dict()["state"] == "never applied"
    store.apply([model()])
    check = store.check_manifest(manifest)
    assert (check.state, check.same, check.served, check.unfilled) == ("applied", True, False, ("counts",))
    store.materialize(progress=False)
    check = store.check_manifest(manifest)
    assert (check.served, check.applied, check.at_hand, check.libraries) == (True, (), (), {})
    assert "applied: the same\n  at hand: the same" in str(check)

    old = {**manifest.raw, "versions": {**manifest.versions, "numpy": "1.20.0", "polars": "1.0"}}
    store.apply([model(window="2d")], keep=True)
    store.materialize(progress=False)
    check = store.check_manifest(old)
    assert (check.state, check.served, check.same) == ("kept", True, False)
    assert [str(change) for change in check.applied or ()] == ["~ parts.counts.view.features.n.window: 1d → 2d"]
    assert check.at_hand == check.applied
    assert check.libraries == {"numpy": ("1.20.0", library_versions()["numpy"]), "polars": ("1.0", None)}
    assert "library numpy: made with 1.20.0, here" in str(check)
    assert store.get_online_features([{"id": "a", "of": 2}], manifest).to_dict()["share"] == [0.5]

    store.apply(retire="all")
    check = store.check_manifest(old)
    assert (check.state, check.served) == ("replaced", False)
    assert "~ parts.counts.view.features.n.window: 1d → 2d" in (check.refusal or "")


def test_a_list_of_features_is_compared_as_a_service_is(store: FeatureStore) -> None:
    """With what the same list gives at hand; what was made of other definitions is refused, with what changed."""
    store.apply([model()])
    with_function = frame(store, ["counts:n", "share"])
    for made in (with_function, frame(store, "counts"), frame(store, store.catalog.view("counts").alias("other"))):
        check = store.check_manifest(made)
        assert (check.state, check.at_hand) == ("never applied", ())
        check.refuse_others("It")
    store.apply([model(window="2d")])
    check = store.check_manifest(with_function)
    with pytest.raises(
        FingerprintError, match=r"training.tfrecord is of adhoc@\w+, and the definitions at hand are"
    ) as refused:
        check.refuse_others("training.tfrecord")
    assert refused.value.changes == (("parts.counts.view.features.n.window", "1d", "2d"),)
    assert "~ parts.counts.view.features.n.window: 1d → 2d" in str(refused.value)


def test_what_is_not_at_hand_any_more_is_refused(store: FeatureStore) -> None:
    """A service, and a view of a list, that nothing declares; a service of old by its fingerprint alone is not."""
    listed, whole = store.load_manifest(frame(store, [model().features[0]])), store.load_manifest(frame(store, model()))
    for manifest in (listed, whole):
        with pytest.raises(FingerprintError, match="and the definitions at hand are not those"):
            store.check_manifest(manifest).refuse_others("It")
    store.apply([model()])
    for manifest in (listed, whole):
        store.check_manifest(manifest).refuse_others("It")

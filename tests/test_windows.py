"""Folds over windows: training says what the naive reading of the rules says, to the bit."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import DataFrameSource, Entity, FeatureStore, Max, Min
from featurestore.declare.views import FeatureView
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from featurestore.types import Int64
from tests.draws import draws
from tests.folding import FoldSpec, fold_specs, judged_fold, reading, windows_of
from tests.histories import History, histories, instants_on_edges, to_arrow, write_parquet
from tests.oracle import as_of, sort_key
from tests.world import declare, resolved, spine_of

FULL = Options(with_status=True)


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline(Path())


@st.composite
def folded_histories(draw: st.DrawFn, *, bare: bool = False) -> tuple[History, list[FoldSpec], bool]:
    """A history, some folds of its columns, and whether plain columns stand beside them. Half of what is asked is asked for
    an edge of a window."""
    history = draw(histories(bare=bare))
    specs = draw(st.lists(fold_specs(history, timed=history.source.event_time is not None), min_size=1, max_size=4))
    at = instants_on_edges(history, windows_of(specs))
    spine = [(key, draw(at) if draw(st.booleans()) else t) for key, t in history.spine]
    return replace(history, spine=spine), specs, draw(st.booleans())


def view_of(history: History, specs: list[FoldSpec], *, plain: bool, paths: list[Path] | None = None) -> FeatureView:
    """The history's view with folds, with or without its plain columns."""
    own = declare(history, paths=paths)
    folds: dict[str, Any] = {f"fold_{i}": spec.declare() for i, spec in enumerate(specs)}
    said = {word: getattr(own, word) for word in ("refresh_offset", "settle", "ready_after", "ttl")}
    words: dict[str, Any] = {word: f"{value}us" for word, value in said.items() if value is not None}
    refresh = own.refresh if own.refresh == "continuous" else f"{own.refresh}us"
    return FeatureView(
        own.name, entity=own.entity, source=own.source, key=own.key, refresh=refresh,
        features={**(own.features if plain else {}), **folds}, **words,
    )  # fmt: skip


def check(history: History, specs: list[FoldSpec], offline: Offline, *, plain: bool, paths: Any = None) -> None:
    view = view_of(history, specs, plain=plain, paths=paths)
    service = resolved(view, offline)
    types = {feature.name: str(feature.type).replace(", ", ",") for feature in service.parts[0].view.features}
    trained = get_historical_features(spine_of(history), service, offline, now=0, options=FULL)
    frame, conflicts = trained.to_arrow(), set()
    read = reading(history, specs, plain=plain)
    for n, (key, t) in enumerate(history.spine):
        instant, known_by = as_of(history.view, t)
        for i, spec in enumerate(specs):
            name = f"fold_{i}"
            *expected, tied = judged_fold(history, read, spec, types[name], key=key, as_of=instant, known_by=known_by)
            if tied:
                conflicts.add(n)
            got = frame[f"view__{name}__status"][n].as_py(), frame[f"view__{name}"][n].as_py()
            of = types[name].replace(",", ", ") if types[name].startswith("Array(Float32,") else types[name]
            assert (got[0], sort_key(of, got[1])) == (expected[0], sort_key(of, expected[1])), (n, key, t, spec)
    if not plain:
        assert trained.manifest["conflicts"]["view"] == len(conflicts)


@settings(max_examples=draws(270), deadline=None, suppress_health_check=list(HealthCheck))
@given(world=folded_histories())
def test_folds_over_windows_are_the_oracle_to_the_bit(
    offline: Offline, world: tuple[History, list[FoldSpec], bool]
) -> None:
    """Every fold, window, offset, hop, ttl and condition, over ties, late rows, corrections, deletions, nulls and NaN."""
    history, specs, plain = world
    check(history, specs, offline, plain=plain)


@settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    world=folded_histories(),
    files=st.integers(1, 4),
    seed=st.integers(0, 99),
    width=st.sampled_from((1, 7)),
    bound=st.sampled_from(("MEMORY_BATCH_CELLS", "KEY_BATCH_ROWS")),
    threads=st.sampled_from((1, 2, 5)),
)
def test_files_order_and_passes_change_no_fold(
    world: tuple[History, list[FoldSpec], bool], files: int, seed: int, width: int, bound: str, threads: int
) -> None:
    """Shuffled rows in several files, read by any number of threads, folded a few keys at a time, are the same values."""
    history, specs, plain = world
    offline = Offline(Path(), instances=Instances(threads=threads))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurestore.query.windows.batching." + bound, width)
        paths = write_parquet(to_arrow(history.rows, history.types), Path(folder), files=files, seed=seed)
        check(history, specs, offline, plain=plain, paths=paths)


def test_a_null_is_no_zero_to_a_least_or_greatest_value() -> None:
    """A row without a value counts for no Min or Max, beside a row whose value is 0 too."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = pa.table({"id": [1, 1, 1], "at": [start, start, start], "x": [None, 0.0, None]})
    view = FeatureView(
        "view", entity=Entity("thing", key={"id": Int64}), source=DataFrameSource("rows", rows, event_time="at"),
        refresh="continuous", features={"least": Min("x", window="1d"), "greatest": Max("x", window="1d")},
    )  # fmt: skip
    with FeatureStore.local() as store:
        spine = pa.table({"id": [1], "event_timestamp": [start]})
        frame = store.get_historical_features(spine, [view]).to_arrow()
    assert (frame["view__least"].to_pylist(), frame["view__greatest"].to_pylist()) == ([0.0], [0.0])

"""Every fold over columns of every kind, in small worlds in which nearly every instant is an edge: the naive reading's values."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal as D
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from tests.folding import NUMBERS, FoldSpec, reading
from tests.oracle import as_of, value_at
from tests.query.test_dense import DENSE, SOURCES, VIEWS, world
from tests.test_windows import check, view_of
from tests.world import resolved, spine_of

VALUES: dict[str, list[Any]] = {
    "Int64": [1, -3, 1 << 62, -(1 << 62), (1 << 63) - 1],
    "Float64": [0.0, -0.0, 1.5, -2.5, math.inf, -math.inf, math.nan],
    "Float32": [0.0, -0.0, 1.5, 0.25],
    "Decimal(38,0)": [D(1), D(-7), D("9" * 38), D("-" + "9" * 38)],
    "String": ["", "a", "b", "ä"],
    "Bool": [True, False],
    "Date": [date(1969, 12, 31), date(1970, 1, 1), date(9999, 12, 31)],
    "Timestamp": [datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)],
    "Array(Int64)": [[], [1], [None, 2]],
}
SPANS: list[dict[str, Any]] = [
    {"window": "lifetime"}, {"window": 3}, {"window": 4, "offset": 2}, {"window": 1}, {"window": "lifetime", "where": '"row" % 2 = 0'},
]  # fmt: skip
CASES = [
    ("Int64", "corrected by time", "with a ttl"), ("Float64", "alone", "continuous"), ("Float32", "versions", "refreshed"),
    ("Decimal(38,0)", "named", "continuous"), ("String", "named, deleted", "refreshed, with a ttl"),
    ("Bool", "alone", "continuous"), ("Date", "versions", "with a ttl"), ("Timestamp", "alone", "refreshed"),
    ("Array(Int64)", "corrected by time", "continuous"),
]  # fmt: skip


def folds_of(of: str, *, hops: bool) -> list[FoldSpec]:
    """Each that a column of the type allows, over one span after the other."""
    kinds: list[tuple[str, tuple[tuple[str, Any], ...]]] = [("Count", ()), ("Latest", ()), ("First", ())]
    if not of.startswith("Array"):
        kinds += [("LastN", (("n", 3),)), ("LastDistinctN", (("n", 2),)), ("CountDistinct", (("bound", 2),))]
    if not of.startswith("Array") and of != "Bool":
        kinds += [("Min", ()), ("Max", ())]
    if of in NUMBERS:
        kinds += [("Sum", ()), ("Mean", ()), ("Var", (("ddof", 1),)), ("StdDev", (("ddof", 0),))]
        kinds += [("ApproxQuantile", (("q", 0.5), ("accuracy", 0.1)))]
    folds = [
        FoldSpec(kind, "value_0", words, **SPANS[(number + step) % len(SPANS)])
        for number, (kind, words) in enumerate(kinds)
        for step in (0, 2)
    ]
    folds += [FoldSpec("Count", None, window=2), FoldSpec("Latest", "value_0", where="value_0 IS NOT NULL")]
    return [replace(fold, hop=min(2, fold.window) if hops and isinstance(fold.window, int) else None) for fold in folds]


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline(Path(), instances=Instances(threads=2))


@pytest.mark.parametrize(("of", "source", "view"), CASES)
def test_every_fold_at_every_instant(offline: Offline, of: str, source: str, view: str) -> None:
    """At all instants and at one alone, of all keys at once and of a few at a time."""
    history = world(SOURCES[source], VIEWS[view], DENSE, seed=len(of))
    chance = random.Random(of)
    rows = [{**row, "value_0": chance.choice([None, *VALUES[of], *VALUES[of]])} for row in history.rows]
    history = replace(history, rows=rows, types={**history.types, "value_0": of})
    folds = folds_of(of, hops="refresh_us" not in VIEWS[view])
    check(history, folds, offline, plain=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurestore.query.windows.batching.MEMORY_BATCH_CELLS", 100)
        patch.setattr("featurestore.query.windows.batching.KEY_BATCH_ROWS", 5)
        check(replace(history, spine=[(key, 3) for key, t in history.spine if t == 3]), folds, offline, plain=False)


@pytest.mark.parametrize(
    ("source", "view"), [("corrected by time", "with a ttl"), ("versions", "continuous"), ("named", "refreshed")]
)
@pytest.mark.parametrize("plain", [False, True])
def test_the_event_time_is_the_newest_rows(offline: Offline, source: str, view: str, *, plain: bool) -> None:
    """Of those that count, whatever the windows see; none where it is older than the ttl."""
    history = world(SOURCES[source], VIEWS[view], DENSE, seed=7)
    folds = [FoldSpec("Count", None, window=1, hop=None if "refresh_us" in VIEWS[view] else 1)]
    service = resolved(view_of(history, folds, plain=plain), offline)
    asked = get_historical_features(spine_of(history), service, offline, now=0, options=Options(with_event_time=True))
    found = asked.to_arrow()["view__event_time"].cast(pa.int64()).to_pylist()
    read = reading(history, folds, plain=plain)
    for (key, t), event_time in zip(history.spine, found, strict=True):
        at, known_by = as_of(history.view, t)
        assert event_time == value_at(history.source, read, history.rows, history.types, key, at, known_by).event_time


def test_of_nulls_nothing_is_picked_where_rows_tie(offline: Offline) -> None:
    """And so nothing decides what was picked."""
    history = world(SOURCES["alone"], VIEWS["continuous"], DENSE, columns=0, seed=3)
    history = replace(history, rows=[{**row, "value_0": None} for row in history.rows])
    folds = [FoldSpec("LastDistinctN", "value_0", (("n", 2),)), FoldSpec("LastN", "row", (("n", 1),))]
    check(history, folds, offline, plain=False)


@pytest.mark.parametrize("asked", [[], [((None,), 3), ((None,), 4)]], ids=["nothing", "no key"])
@pytest.mark.parametrize("plain", [False, True])
def test_where_no_key_is_asked_for_there_is_no_value(offline: Offline, asked: list[Any], *, plain: bool) -> None:
    history = replace(world(SOURCES["alone"], VIEWS["continuous"], DENSE, seed=3), spine=asked)
    check(history, folds_of("Float64", hops=True), offline, plain=plain)

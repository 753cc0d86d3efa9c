"""Small worlds in which nearly every instant is an edge of some rule, asked for every key at every instant, along each path.

Random histories try all that a source can say, and seldom two edges at once. Here the times of 30 rows are eleven instants, so
that each question has ties, corrections, deletions and ends on its very instant; the answers are the naive reading's.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from featurestore.clock import ManualClock, to_datetime
from featurestore.materialize.materialize import materialize_view
from featurestore.materialize.progress import Progress
from featurestore.online import open_online
from featurestore.semantics.service import ResolvedService
from featurestore.serving.lookup import Lookup
from featurestore.sources.offline import Offline
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from tests.folding import FoldSpec, judged_fold, reading
from tests.histories import EPOCH, MICROSECOND, History
from tests.oracle import SourceSpec, ViewSpec, as_of, sort_key, value_at
from tests.test_windows import view_of
from tests.world import resolved, spine_of

TIMES = range(-5, 6)
ASKED = range(-6, 10)
DENSE, SPARSE = (1, 1, 1, 2), tuple(range(1, 13))
"""Keys with ties at each instant; keys of which a run has to touch few."""
TYPES = {
    "row": "Int64", "key_0": "Int64", "key_1": "Int64", "value_0": "Float64", "event_time": "Timestamp", "known_at": "Timestamp",
    "until": "Timestamp", "id": "Int64", "version": "Int64", "tie": "Int64", "deleted": "Bool",
}  # fmt: skip

BATCH = SourceSpec(event_time="event_time", known_at="known_at")
NAMED = replace(BATCH, identity=("id",))
SOURCES = {
    "alone": SourceSpec(event_time="event_time", known_after_us=2),
    "corrected by time": replace(BATCH, tiebreak=("tie",), history_until=-1, known_after_us=1),
    "named": replace(NAMED, until="until"),
    "named, deleted": replace(NAMED, deleted="deleted", tiebreak=("tie",)),
    "versions": replace(NAMED, version="version", deleted="deleted", until="until"),
}
VIEWS: dict[str, dict[str, Any]] = {
    "continuous": {},
    "with a ttl": {"ttl_us": 3},
    "refreshed": {"refresh_us": 3, "offset_us": 1, "settle_us": 2, "ready_after_us": 4},
    "refreshed, with a ttl": {"refresh_us": 2, "settle_us": 1, "ttl_us": 4},
}
FOLDS = [
    FoldSpec("Sum", "value_0", window=3),
    FoldSpec("Count", None, window=4, offset=2),
    FoldSpec("Latest", "value_0", where='"row" % 2 = 0'),
    FoldSpec("Latest", "value_0", window=4),
    FoldSpec("First", "value_0", window="lifetime"),
    FoldSpec("Max", "value_0", window=1, offset=1),
    FoldSpec("LastN", "value_0", (("n", 2),)),
    FoldSpec("LastDistinctN", "value_0", (("n", 2),), window=5),
]


def world(source: SourceSpec, words: dict[str, Any], keys: tuple[int, ...], *, columns: int = 1, seed: int) -> History:
    """Thirty rows of so many keys, of one column, several or none, and every question."""
    chance = random.Random(seed)
    rows = []
    for number in range(30):
        at = chance.choice(TIMES)
        known = at + chance.choice((0, 0, 0, 1, 1, 2, 4, -1))
        rows.append(
            {
                "row": number,
                "key_0": None if chance.random() < 0.05 else chance.choice(keys),
                "key_1": chance.choice((1, 1, 2)),
                "value_0": chance.choice((None, 0.0, -0.0, 1.5, 2.5)),
                "event_time": None if chance.random() < 0.05 else EPOCH + at * MICROSECOND,
                "known_at": None if chance.random() < 0.05 else EPOCH + known * MICROSECOND,
                "until": chance.choice((None, EPOCH + (at + chance.choice((0, 1, 3))) * MICROSECOND)),
                "id": chance.choice((1, 2, 3, 4, 5, 6, 7, None)),
                "version": chance.choice((None, 1, 2, 3)),
                "tie": chance.choice((None, 1, 2)),
                "deleted": chance.choice((None, False, False, True)),
            }
        )
    names = {f"entity_{n}": f"key_{n}" for n in range(columns)}
    asked = product(*[[*sorted({*keys}), 9, None], [1, 2]][:columns])
    view = ViewSpec(key=names, features={"feature_0": "value_0", "feature_1": "row"}, **words)
    return History(source, view, rows, TYPES, [(key, t) for key in asked for t in ASKED], 0, 1)


def folds_of(words: dict[str, Any]) -> list[FoldSpec]:
    """The folds, with hops where the view has any."""
    hops = "refresh_us" not in words
    return [replace(fold, hop=min(2, fold.window) if hops and isinstance(fold.window, int) else None) for fold in FOLDS]


def expected(
    history: History, folds: list[FoldSpec], service: ResolvedService, key: tuple[Any, ...], instant: int
) -> list[Any]:
    """The statuses and the values of the plain features and the folds, for an instant that is served."""
    known_by = instant + history.view.settle_us
    read = reading(history, folds, plain=True)
    source, rows = history.source, history.rows
    plain = value_at(
        source, replace(read, features=history.view.features | read.features), rows, TYPES, key, instant, known_by
    )
    found: list[Any] = [
        (plain.status, sort_key(TYPES[column], plain.values[name])) for name, column in history.view.features.items()
    ]
    types = {feature.name: str(feature.type) for feature in service.parts[0].view.features}
    for number, fold in enumerate(folds):
        of = types[f"fold_{number}"]
        status, value, _ = judged_fold(history, read, fold, of, key=key, as_of=instant, known_by=known_by)
        found.append((status, sort_key(of, value)))
    return found


def answered(
    service: ResolvedService, values: dict[str, list[Any]], statuses: dict[str, list[str]], row: int
) -> list[Any]:
    of = {f"view__{feature.name}": str(feature.type) for feature in service.parts[0].view.features}
    return [(statuses[name][row], sort_key(of[name], values[name][row])) for name in of]


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline(Path())


WORLDS = [
    ("continuous", "alone", 0), ("with a ttl", "corrected by time", 1), ("continuous", "named", 1),
    ("with a ttl", "named, deleted", 2), ("refreshed", "versions", 1), ("refreshed, with a ttl", "named", 1),
]  # fmt: skip


@pytest.mark.parametrize(("view", "source", "columns"), WORLDS)
def test_training_at_every_instant(offline: Offline, view: str, source: str, columns: int) -> None:
    """All instants at once, and one alone, which is a way of its own."""
    history, folds = (
        world(SOURCES[source], VIEWS[view], DENSE, columns=columns, seed=len(source)),
        folds_of(VIEWS[view]),
    )
    service = resolved(view_of(history, folds, plain=True), offline)
    spines = [history.spine, *[[(key, at) for key, at in history.spine if at == t] for t in (-1, 3)]]
    for spine in spines:
        asked = spine_of(replace(history, spine=spine))
        frame = get_historical_features(asked, service, offline, now=0, options=Options(with_status=True)).to_arrow()
        values = frame.to_pydict()
        statuses = {name: values[f"{name}__status"] for name in values if f"{name}__status" in values}
        for row, (key, t) in enumerate(spine):
            wanted = expected(history, folds, service, key, as_of(history.view, t)[0])
            assert answered(service, values, statuses, row) == wanted, (key, t)


@pytest.mark.parametrize(("view", "source", "columns"), WORLDS)
def test_lookups_after_a_run_at_every_instant(
    offline: Offline, tmp_path: Path, view: str, source: str, columns: int
) -> None:
    """Each run computes the keys that may have changed since the one before, and no other."""
    history, folds = (
        world(SOURCES[source], VIEWS[view], SPARSE, columns=columns, seed=len(source)),
        folds_of(VIEWS[view]),
    )
    service = resolved(view_of(history, folds, plain=True), offline)
    keys = list(dict.fromkeys(key for key, _ in history.spine))
    clock = ManualClock(to_datetime(ASKED[0]))
    store = open_online(f"lmdb://{tmp_path}/online", clock=clock)
    try:
        lookup = Lookup(service, store, project="dense")
        for t in ASKED:
            clock.set(to_datetime(t))
            list(
                materialize_view(service.parts[0].view, offline, store, project="dense", progress=Progress(shown=False))
            )
            result = lookup.get([dict(zip(history.view.key, key, strict=True)) for key in keys])
            values, instant = result.to_dict(), as_of(history.view, t)[0]
            for row, key in enumerate(keys):
                wanted = expected(history, folds, service, key, instant)
                assert answered(service, values, result.statuses, row) == wanted, (key, t)
    finally:
        store.close()

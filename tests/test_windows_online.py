"""Folds over windows, materialized and looked up: what is served is the oracle's value at the as_of served, to the bit."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.clock import ManualClock, instant_of, to_datetime
from featurestore.errors import NotMaterializedError
from featurestore.materialize.materialize import materialize_view
from featurestore.materialize.progress import Progress
from featurestore.online import OnlineStore, open_online
from featurestore.semantics.service import ResolvedService
from featurestore.serving.lookup import Lookup
from featurestore.sources.offline import Offline
from tests.draws import draws
from tests.folding import FoldSpec, folded_value, reading, windows_of
from tests.histories import History, clocks, keys_of
from tests.oracle import sort_key
from tests.test_windows import folded_histories, view_of
from tests.world import resolved

QUIET = Progress(shown=False)
PROJECTS = (f"w{n}" for n in itertools.count())


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def online_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The two stores; every example uses a project of its own in them."""
    if request.param == "redis":
        yield request.getfixturevalue("redis_url")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"lmdb://{folder}/online"


@st.composite
def stories(draw: st.DrawFn) -> tuple[History, list[FoldSpec], bool, list[tuple[int, bool]]]:
    """A history with folds, and what happens: when, and whether there is a run before the lookup."""
    history, specs, plain = draw(folded_histories(bare=draw(st.booleans())))
    times = draw(clocks(history, windows_of(specs), most=7))
    return history, specs, plain, [(at, draw(st.sampled_from((True, True, False)))) for at in times]


def check(
    history: History, specs: list[FoldSpec], service: ResolvedService, store: OnlineStore, *, project: str, plain: bool
) -> None:
    view = service.parts[0].view
    keys = keys_of(history)
    rows = [dict(zip(history.view.key, key, strict=True)) for key in keys]
    try:
        result = Lookup(service, store, project=project).get(rows)
    except NotMaterializedError:
        return
    base = instant_of(result.as_of["view"])
    read = reading(history, specs, plain=plain)
    served, statuses = result.to_dict(), result.statuses
    types = {feature.name: str(feature.type).replace(", ", ",") for feature in view.features}
    for number, key in enumerate(keys):
        for i, spec in enumerate(specs):
            name = f"view__fold_{i}"
            of = types[f"fold_{i}"]
            expected = folded_value(history, read, spec, of, key=key, as_of=base, known_by=base + view.timing.settle)
            shown = of.replace(",", ", ") if of.startswith("Array(Float32,") else of
            got = statuses[name][number], sort_key(shown, served[name][number])
            assert got == (expected[0], sort_key(shown, expected[1])), (key, base, spec)


@settings(max_examples=draws(85), deadline=None, suppress_health_check=list(HealthCheck))
@given(story=stories())
def test_what_is_served_of_a_fold_is_the_oracle(
    online_url: str, story: tuple[History, list[FoldSpec], bool, list[tuple[int, bool]]]
) -> None:
    """Skipped and late runs, keys whose rows only left a window included: lookup = oracle at the as_of served."""
    history, specs, plain, events = story
    offline, project = Offline(Path()), next(PROJECTS)
    clock = ManualClock(to_datetime(events[0][0]))
    store = open_online(online_url, clock=clock)
    try:
        service = resolved(view_of(history, specs, plain=plain), offline)
        for at, runs in events:
            clock.set(to_datetime(at))
            if runs:
                list(materialize_view(service.parts[0].view, offline, store, project=project, progress=QUIET))
            check(history, specs, service, store, project=project, plain=plain)
    finally:
        store.close()
        offline.close()

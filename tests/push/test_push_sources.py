"""The pushers of a project: which source a view version takes its rows from, and what was ever over one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from featurestore import FeatureService, FeatureStore, Max, PushSource, Sum
from featurestore.errors import NotFoundError
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.view import ResolvedView
from tests.small import raised
from tests.test_push import SCHEMA, SWIPES, opened, view_over

CLICKS = PushSource("clicks", schema=SCHEMA, event_time="at", identity="id", deleted="gone")
FIRST = {"most": Max("x", window="1h")}


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    """Two push sources: over one of them two views, one of which once was another version, which is freed; over the other a view
    of which that is so too."""
    before = [view_over(features=FIRST), view_over(CLICKS, name="other", features=FIRST)]
    with opened(*before, view_over(name="beside")) as (store, _):
        after = [view_over(), view_over(CLICKS, name="other", features={"sum": Sum("x", window="1h")})]
        store.materialize(progress=False)
        store.apply([*after, FeatureService("service", features=after)])
        store.materialize(progress=False)
        yield store


def first_of(store: FeatureStore, name: str) -> ResolvedView:
    return store._project.registry.version(1).view(name)


def test_of_the_versions_that_were_over_a_source_those_that_are_no_more(store: FeatureStore) -> None:
    """What is online of them is to go with all else of the source, and what is another source's is not."""
    gone = store._project.pushing._applied("swipes").gone()
    assert gone == [ViewCodec(store.config.project, first_of(store, "view")).watermark_key]


def test_pushes_wait_while_a_version_is_freed_that_takes_them(store: FeatureStore) -> None:
    """Those to the source that it is over, beside which other views stand; of a version that nobody knows none do."""
    log, pushing = store.offline.log(SWIPES), store._project.pushing
    now = store._project.registry.current().view("view")
    with pushing.alone(now.name, now.fingerprint), log.attempt("looking") as free:
        assert not free
    with pushing.alone("nobody", now.fingerprint), log.attempt("looking") as free:
        assert free


def test_only_a_push_source_can_be_compacted(store: FeatureStore) -> None:
    """By its name; of another name the nearest is told."""
    assert list(store.compact(["swipes"])) == ["swipes"]
    assert "Did you mean 'swipes'" in raised(NotFoundError, lambda: store.compact(["swipe"]))

"""What a move changes in a view, and how each of these changes is taken back, to see whether it is why a value differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from featurestore.declare.on_demand import OnDemand
from featurestore.declare.push import PushSource
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView, Selection
from featurestore.migrate.frame_differences import FINER, HISTORY, LATE, REFRESH, TTL, TTL_EDGE


class MoveChange(NamedTuple):
    """What a move changes in a view, which is a cause of differences. reverted: the view without it, None where it has no such
    thing. earlier: by how many µs the spine is moved back for it."""

    cause: str
    reverted: Callable[[FeatureView], FeatureView | None]
    earlier: int = 0


def batch_source(view: FeatureView) -> Source | None:
    """The source of files that a view reads, itself or as the history of its push source."""
    return view.source.history if isinstance(view.source, PushSource) else view.source


def without_refresh(view: FeatureView) -> FeatureView | None:
    """The view at any instant."""
    plain = {"refresh": "continuous", "refresh_offset": None, "settle": None, "ready_after": None}
    return None if isinstance(view.source, PushSource) else view.model_copy(update=plain)


def without_known_at(view: FeatureView) -> FeatureView | None:
    """The view whose rows are known when they happen."""
    whole, source = without_refresh(view), view.source
    if whole is None or source.known_at is None:
        return None
    plain = {"known_at": None, "history_until": None, "known_after": 0, "tiebreak": (source.known_at,)}
    return whole.model_copy(update={"source": source.model_copy(update=plain)})


def over_history(view: FeatureView) -> FeatureView | None:
    """A view of pushed rows over the files alone, each row known when it happened."""
    source = batch_source(view)
    if not isinstance(view.source, PushSource) or source is None:
        return None
    created = () if source.known_at is None else (source.known_at,)
    plain = {"known_after": 0, "known_at": None, "history_until": None, "tiebreak": (*source.tiebreak, *created)}
    return view.model_copy(update={"source": source.model_copy(update=plain), "refresh": "continuous"})


def as_in_feast(view: FeatureView) -> FeatureView | None:
    """The view with all of that taken back."""
    return over_history(view) or without_known_at(view) or without_refresh(view)


def _with_ttl(add: int | None) -> Callable[[FeatureView], FeatureView | None]:
    """The view as in Feast with a ttl that is so many µs longer; None: without one."""

    def changed(view: FeatureView) -> FeatureView | None:
        whole, ttl = as_in_feast(view), view.said("ttl")
        if not ttl or whole is None:
            return None
        return whole.model_copy(update={"ttl": None if add is None else max(0, ttl + add)})

    return changed


CHANGES = (
    MoveChange(REFRESH, without_refresh),
    MoveChange(LATE, without_known_at),
    MoveChange(HISTORY, over_history),
    MoveChange(FINER, as_in_feast, earlier=1),
    MoveChange(TTL_EDGE, _with_ttl(-1)),
    MoveChange(TTL_EDGE, _with_ttl(1)),
    MoveChange(TTL, _with_ttl(None)),
)
"""All of them, in the order in which they are tried."""

AS_IN_FEAST = MoveChange("", as_in_feast)
"""All that a move changes, taken back."""


def with_reverted(items: Sequence[Any], change: MoveChange) -> list[Any] | None:
    """Views, selections and on-demand features with a change reverted; None where none of them has it."""
    changed = [_item_with_reverted(item, change) for item in items]
    if all(one is None for one in changed):
        return None
    return [new or old for new, old in zip(changed, items, strict=True)]


def _item_with_reverted(item: Any, change: MoveChange) -> Any:
    if isinstance(item, FeatureView):
        return change.reverted(item)
    if isinstance(item, Selection):
        view = change.reverted(item.view)
        return None if view is None else item.model_copy(update={"view": view})
    assert isinstance(item, OnDemand)
    read = [one for one in item.inputs if isinstance(one, Selection)]
    changed = with_reverted(read, change) if read else None
    if changed is None:
        return None
    given = iter(changed)
    inputs = tuple(next(given) if isinstance(one, Selection) else one for one in item.inputs)
    return item.model_copy(update={"inputs": inputs})

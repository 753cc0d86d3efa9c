"""Views that clients of other platforms write to: rows of a view's push source, under the names of its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from featurestore.declare.push import PushSource
from featurestore.errors import PushError
from featurestore.push.pushed import Pushed
from featurestore.semantics.view import ResolvedView
from featurestore.server.problems import BadRequest
from featurestore.store import FeatureStore


class WrittenView(NamedTuple):
    """A view, the push source that it is over, and by the name that a client uses the column of the source."""

    view: ResolvedView
    source: PushSource
    columns: Mapping[str, str]


def check_late(pushed: Pushed) -> None:
    """PushError where a row came too late to count, which no answer of another platform can tell; the others are kept."""
    if pushed.late:
        raise PushError(pushed.notices[0])


def written_view(store: FeatureStore, name: str) -> WrittenView:
    """The view of a name; BadRequest where nobody can write to it, NotFoundError."""
    service = store.lookup(name).service
    if service.name == name or len(service.parts) != 1 or service.on_demand:
        views = ", ".join(part.view.name for part in service.parts)
        raise BadRequest(f"'{name}' is a service, which is read; write to one of its views: {views}")
    view = service.parts[0].view
    source = view.source
    if not isinstance(source, PushSource) or not view.is_pushed:
        raise BadRequest(f"View '{name}' is refreshed from its source, and takes no records")
    if lacking := [key.column for key in view.keys if key.column not in source.columns]:
        raise BadRequest(f"'{lacking[0]}' is computed by {source.title}, so that no record can have it")
    columns = {column: column for column in source.columns}
    columns |= {key.name: key.column for key in view.keys}
    plain = {feature.name: feature.fold.column for feature in view.plain}
    columns |= {name: column for name, column in plain.items() if column is not None and column in source.columns}
    return WrittenView(view, source, columns)

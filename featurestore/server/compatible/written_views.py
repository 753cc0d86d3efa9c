"""What clients of other platforms name, and may: views and services that they read, and views that they write to, as rows of a push
source under the names of its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from featurestore.access.principal import Principal
from featurestore.declare.push import PushSource
from featurestore.errors import NotFoundError, PushError
from featurestore.push.pushed import Pushed
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.view import ResolvedView
from featurestore.server.problems import BadRequest
from featurestore.store import FeatureStore


class WrittenView(NamedTuple):
    """A view, the push source that it is over, and by the name that a client uses the column of the source."""

    view: ResolvedView
    source: PushSource
    columns: Mapping[str, str]


def put(row: dict[str, Any], column: str, value: Any, name: str) -> None:
    """Put a value into a row, under the name that a client gives it. BadRequest where the row has another for that column, as a key has."""
    if column in row and repr(row[column]) != repr(value):
        raise BadRequest(f"'{name}' is given twice, with different values: column '{column}' of the source has one")
    row[column] = value


def check_late(pushed: Pushed) -> None:
    """PushError where a row came too late to count, or is quarantined, which no answer of another platform can tell; the others are
    kept."""
    if pushed.late or pushed.quarantined:
        raise PushError(pushed.notices[0])


def resource_of(store: FeatureStore, name: str) -> str:
    """What a key may be limited to, to read or write what has a name: a service, or a view."""
    return f"{'service' if name in store.registry.current().document['services'] else 'view'}:{name}"


def may_read(store: FeatureStore, name: str, principal: Principal) -> None:
    """ForbiddenError where the principal is limited to others, whether it is there or not."""
    if principal.only_on is not None:  # else the registry may be away
        principal.must("read", resource_of(store, name))


def check_named(service: ResolvedService, name: str) -> None:
    """NotFoundError where a name is neither a service's nor a view's: a lookup takes others too, `view:feature` and on-demand features,
    which no client of another platform can describe, list or be limited to."""
    if service.name != name and [part.view.name for part in service.parts] != [name]:
        raise NotFoundError(f"No feature view or service '{name}' was applied.")


def readable(store: FeatureStore, name: str, principal: Principal) -> ResolvedService:
    """The service, or the view as one, that is read. Who may not is told nothing of it."""
    may_read(store, name, principal)
    service = store.lookup(name).service
    check_named(service, name)
    return service


def may_push(store: FeatureStore, name: str, principal: Principal) -> None:
    """ForbiddenError where the principal is limited to other sources than that of a view, or of one that is not there."""
    if principal.only_on is None:
        return
    try:
        sources = [f"source:{part.view.source.name}" for part in store.lookup(name).service.parts]
    except NotFoundError:
        sources = []
    if not sources or not principal.may("push", *sources):
        principal.must("push", resource_of(store, name), *sources)


def written_view(store: FeatureStore, name: str, principal: Principal) -> WrittenView:
    """The view of a name; BadRequest where nobody can write to it, NotFoundError. Who may not is told nothing of it."""
    may_push(store, name, principal)
    service = store.lookup(name).service
    check_named(service, name)
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

"""Steps: how the rows of a service's sources come to the rows of a spine, whatever engine moves them.

A step answers parts that take their keys from the same columns of the spine. The rows of a source go by those keys; where a
correction may move a row to another key, they first go by identity, and every version of it to each key that it ever had. A source
that lies in no Parquet file, and one of an entity without keys, is small: its rows go along with the task, to every partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from featurestore.declare.delta_source import DeltaSource
from featurestore.declare.push import PushSource
from featurestore.declare.sources import ParquetSource, Source
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.rows import keys_stay
from featurestore.semantics.service import ResolvedService, ServiceColumn, ServiceView
from featurestore.semantics.source_columns import read_columns
from featurestore.semantics.view import ResolvedView
from featurestore.types import FeatureType


class Route(NamedTuple):
    """How the rows of one source come to their keys. parts: those of the step that read it."""

    source: Source
    parts: tuple[ServiceView, ...]
    keys: tuple[tuple[str, FeatureType], ...]
    """The source's key columns in the order of the step's, each with the type of the key."""

    columns: dict[str, str]
    """Its own columns that are read, with their DuckDB types."""

    by_identity: bool
    """Whether versions of a row may have other keys, so that rows go by identity first."""

    @property
    def view(self) -> ResolvedView:
        """One of the views; what it says of identity is the source's, and its keys are the route's."""
        return self.parts[0].view


class Step(NamedTuple):
    """Parts that are answered together.

    inputs: the columns of the spine that make their key, with its types, in one order. routes: the sources whose rows go by it. sent:
    those whose rows go to every partition.
    """

    inputs: dict[str, FeatureType]
    service: ResolvedService
    routes: tuple[Route, ...]
    sent: tuple[Source, ...]


def goes_by_key(source: Source, part: ServiceView) -> bool:
    """Whether a source's rows are read by the engine: they lie in Parquet files, and have keys."""
    return bool(part.inputs) and isinstance(source, (ParquetSource, DeltaSource))


def steps_of(service: ResolvedService, raw: Mapping[str, RawColumns]) -> list[Step]:
    """The steps of a service, one after the other. raw: by source its columns."""
    groups: list[tuple[tuple[str, ...], list[ServiceView]]] = []
    for part in sorted(service.parts, key=lambda part: not part.inputs):  # those without keys fit into any step
        names = tuple(sorted(part.inputs))
        fitting = (parts for inputs, parts in groups if (inputs == names or not names) and _agrees(part, parts))
        found = next(fitting, None)
        if found is None:
            groups.append((names, [part]))
        else:
            found.append(part)
    return [_step(service, names, parts, raw, alone=len(groups) == 1) for names, parts in groups]


def _agrees(part: ServiceView, parts: Sequence[ServiceView]) -> bool:
    """Whether a part's source has its keys in the columns in which the other parts say that it has them."""
    own = _key_columns(part)
    return all(own == _key_columns(other) for other in parts if other.view.source.name == part.view.source.name)


def _key_columns(part: ServiceView) -> dict[str, str]:
    return {name: key.column for name, key in zip(part.inputs, part.view.keys, strict=True)}


def _step(
    service: ResolvedService, names: Sequence[str], parts: Sequence[ServiceView], raw: Mapping[str, RawColumns], *, alone: bool
) -> Step:  # fmt: skip
    """A step of these parts; alone: it is the only one."""
    routes, sent = [], []
    for source in {part.view.source.name: part.view.source for part in parts}.values():
        own = tuple(part for part in parts if part.view.source.name == source.name)
        if not goes_by_key(source, own[0]):
            sent.append(source)
            continue
        columns, types = _key_columns(own[0]), service.key_inputs
        routes.append(_route(own, tuple((columns[name], types[name]) for name in names), raw[source.name]))
    inputs = {name: service.key_inputs[name] for name in names}
    return Step(inputs, service if alone else _part_of(service, parts), tuple(routes), tuple(sent))


def part_of_view(view: ResolvedView) -> ServiceView:
    """A view as a part that takes its key from columns of the key's own names, all features of it."""
    return ServiceView(view.name, view, tuple(key.name for key in view.keys), view.features)


def route_of(view: ResolvedView, raw: RawColumns) -> Route:
    """How the rows of a view's source come to its keys, whatever is asked of them."""
    return _route((part_of_view(view),), tuple((key.column, key.type) for key in view.keys), raw)


def _route(parts: tuple[ServiceView, ...], keys: tuple[tuple[str, FeatureType], ...], raw: RawColumns) -> Route:
    """How the rows of the source of some parts come to these keys. raw: its columns."""
    source = parts[0].view.source
    moves = not keys_stay(source, [column for column, _ in keys])
    read = read_columns(source, [part.view for part in parts], raw)
    return Route(source, parts, keys, read, by_identity=moves and not isinstance(source, PushSource))


def _part_of(service: ResolvedService, parts: Sequence[ServiceView]) -> ResolvedService:
    """A service of all features of some parts, those that only functions read among them, and of no function."""
    columns = [
        ServiceColumn(part.column(feature.name), feature.type, part.name, feature.name, None)
        for part in parts
        for feature in part.features
    ]
    inputs = {name: service.key_inputs[name] for part in parts for name in part.inputs}
    declared = service.declared.model_copy(update={"features": tuple(service.declared.selections())})
    return replace(
        service, declared=declared, parts=tuple(parts), columns=tuple(columns), key_inputs=inputs, request_inputs={}
    )

"""Definitions written as plain JSON, and read back.

A dump is short, because it leaves out what has its default; durations, types and instants are text in it. What is read
back equals what was dumped, except for what a dump cannot hold: a frame's rows, an on-demand feature's function (its
code's fingerprint is kept), and the line that declared it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from featurestore.declare.database_source import DatabaseSource
from featurestore.declare.declaration import Declaration, Origin
from featurestore.declare.delta_source import DeltaSource
from featurestore.declare.entity import Entity
from featurestore.declare.expectations import Expectation
from featurestore.declare.folds import Fold
from featurestore.declare.iceberg_source import IcebergSource
from featurestore.declare.on_demand import Input, OnDemand
from featurestore.declare.problems import problems
from featurestore.declare.push import PushSource
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import DataFrameSource, ParquetSource, Source, TableSource
from featurestore.declare.streams import KafkaStream, RedisStream, Stream
from featurestore.declare.text_sources import CsvSource, JsonLinesSource
from featurestore.declare.views import FeatureView, Selection
from featurestore.errors import RegistryError, did_you_mean

D = TypeVar("D", bound=Declaration)

STORED = Origin("the registry")
KINDS = (
    ParquetSource,
    CsvSource,
    JsonLinesSource,
    DeltaSource,
    IcebergSource,
    DatabaseSource,
    TableSource,
    DataFrameSource,
    PushSource,
    KafkaStream,
    RedisStream,
)
"""Every class of sources and streams, imported here so that `_of_kind` finds it, whatever else a process has imported."""


def dump(item: Declaration, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The fields that are not at their defaults, as plain JSON; a source's and a fold's `kind` always."""
    fields = item.model_dump(mode="json", exclude_defaults=True, exclude=set(without))
    history = getattr(item, "history", None)
    if isinstance(history, Source) and "history" in fields:
        fields["history"] = dump(history)
    stream = getattr(item, "stream", None)
    if isinstance(stream, Stream):
        fields["stream"] = dump(stream)
    if fields.get("expectations"):
        fields["expectations"] = [dump(one) for one in getattr(item, "expectations", ())]
    kind = getattr(item, "kind", None)
    return fields if kind is None else {"kind": kind, **fields}


def read(kind: type[D], fields: Mapping[str, Any]) -> D:
    """The definition of class `kind` with these fields, validated as when it was declared.

    Raises RegistryError where this version has no such field or value.
    """
    item = kind.__new__(kind)
    try:
        item.fill(**fields)
    except ValidationError as error:
        what = f"{kind.__name__} '{fields.get('name', '')}'"
        raise RegistryError(f"{what} of the registry cannot be read by this version: {problems(error)}") from None
    item._origin = STORED
    return item


def read_source(fields: Mapping[str, Any]) -> Source:
    """A source of the class that its `kind` names; the frame of a DataFrameSource is not at hand."""
    history = fields.get("history")
    if isinstance(history, Mapping):
        fields = {**fields, "history": read_source(history)}
    stream = fields.get("stream")
    if isinstance(stream, Mapping):
        fields = {**fields, "stream": read(_of_kind(Stream, stream["kind"]), stream)}
    return read(_of_kind(Source, fields["kind"]), _with_expectations(fields))


def _with_expectations(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a source or a view, its expectations as definitions."""
    said = fields.get("expectations")
    if not said:
        return fields
    return {**fields, "expectations": [read(_of_kind(Expectation, one["kind"]), one) for one in said]}


def read_fold(fields: Mapping[str, Any]) -> Fold:
    """A fold of the class that its `kind` names; `default` is the Python value, not its JSON form."""
    return read(_of_kind(Fold, fields["kind"]), fields)


def read_view(fields: Mapping[str, Any]) -> FeatureView:
    """A view whose entity, source and folds are dumps or definitions."""
    entity, source = fields["entity"], fields["source"]
    return read(
        FeatureView,
        {
            **_with_expectations(fields),
            "entity": entity if isinstance(entity, Entity) else read(Entity, entity),
            "source": source if isinstance(source, Source) else read_source(source),
            "features": {
                name: fold if isinstance(fold, Fold) else read_fold(fold) for name, fold in fields["features"].items()
            },
        },
    )


def read_on_demand(fields: Mapping[str, Any], inputs: Sequence[Input]) -> OnDemand:
    """An on-demand feature over definitions read before; it knows its code's fingerprint and has no function."""
    return read(OnDemand, {**fields, "inputs": tuple(inputs)})


def read_service(fields: Mapping[str, Any], features: Sequence[Selection | OnDemand]) -> FeatureService:
    """A service over definitions read before."""
    return read(FeatureService, {**fields, "features": tuple(features)})


def _of_kind(base: type[D], kind: str) -> type[D]:
    known = {str(cls.model_fields["kind"].default): cls for cls in _below(base)}
    if kind not in known:
        hint = did_you_mean(kind, known, noun="It knows")
        raise RegistryError(
            f"The registry holds a {base.__name__} of kind '{kind}', which this version does not.{hint}"
        )
    return known[kind]


def _below(base: type[D]) -> Iterator[type[D]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _below(cls)

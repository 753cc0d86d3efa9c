"""What is applied, as definitions of Feast, so that a client of Feast's knows what it can ask a server of ours for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from featurestore.registry.records import Version
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.view import ResolvedView
from featurestore.types import FeatureType

HEAD = '''"""The views and services of project {project}, for Feast's client. Written by featurestore export-feast: change them there."""

from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
'''
SETTINGS = """# For Feast's client: what it asks is answered by featurestore serve --compatible feast.
project: {project}
provider: local
registry: registry.db
online_store:
  type: remote
  path: {url}
offline_store:
  type: file
entity_key_serialization_version: 3
"""
AS_TEXT = {"Date", "Decimal"}
VALUES = {"Bool": "BOOL", "Int32": "INT32", "Int64": "INT64", "Bytes": "BYTES", "Timestamp": "UNIX_TIMESTAMP"}
"""Feast's types of keys; all others go as text."""


def feast_settings(project: str, url: str) -> str:
    """The text of feature_store.yaml."""
    return SETTINGS.format(project=project, url=url)


def feast_definitions(project: str, version: Version) -> str:
    """The text of a file of definitions, of all views and services of an applied version."""
    views = [version.view(name) for name in sorted(version.document["views"])]
    services = [version.service(name) for name in sorted(version.document["services"])]
    entities = {key.name: key.type for view in views for key in view.keys}
    written = _written(views)
    parts = [HEAD.format(project=project)]
    parts += [_entity(name, of) for name, of in sorted(entities.items())]
    for view in views:
        parts += [_source(view, is_written=view.name in written), _view(view)]
    parts += [_service(service) for service in services]
    return "\n".join(parts)


def _entity(name: str, of: FeatureType) -> str:
    return f"{_variable('entity', name)} = Entity(name={name!r}, join_keys=[{name!r}], value_type=ValueType.{VALUES.get(of.kind, 'STRING')})"


def _written(views: Sequence[ResolvedView]) -> set[str]:
    """The views that Feast's client can push to: it sends a row to each view of a push source, with that view's features alone. So
    these are columns, and the source has one such view."""
    pushed = [view for view in views if view.is_pushed and not view.folded]
    names = [view.source.name for view in pushed]
    return {view.name for view in pushed if names.count(view.source.name) == 1}


def _source(view: ResolvedView, *, is_written: bool) -> str:
    """A source of which nothing is read: Feast wants one."""
    time = view.source.event_time or "event_timestamp"
    source = f"FileSource(name={f'{view.name}_rows'!r}, path='unused.parquet', timestamp_field={time!r})"
    if is_written:
        source = f"PushSource(name={view.source.name!r}, batch_source={source})"
    return f"{_variable('source', view.name)} = {source}"


def _view(view: ResolvedView) -> str:
    lines = [
        f"{_variable('view', view.name)} = FeatureView(",
        f"    name={view.name!r},",
        f"    entities=[{', '.join(_variable('entity', key.name) for key in view.keys)}],",
        f"    ttl=timedelta(microseconds={view.ttl or 0}),",
        "    schema=[",
        *(f"        Field(name={key.name!r}, dtype={_type(key.type)})," for key in view.keys),
        *(f"        Field(name={name!r}, dtype={_type(of)})," for name, of in _features(view)),
        "    ],",
        f"    source={_variable('source', view.name)},",
        ")",
    ]
    return "\n".join(lines)


def _features(view: ResolvedView) -> Iterator[tuple[str, FeatureType]]:
    """In the order in which they are declared."""
    types = {feature.name: feature.type for feature in view.features}
    return ((name, types[name]) for name in view.declared.features)


def _service(service: ResolvedService) -> str:
    """Its views' features; what its functions compute, the server adds."""
    chosen = []
    for part in service.parts:
        names = [column.feature for column in service.columns if column.part == part.name]
        if names:
            projection = f"{_variable('view', part.view.name)}[{names!r}]"
            if part.name != part.view.name:
                mapped = {key.name: name for key, name in zip(part.view.keys, part.inputs, strict=True)}
                projection += f".with_name({part.name!r}).with_join_key_map({mapped!r})"
            chosen.append(projection)
    lines = [f"{_variable('service', service.name)} = FeatureService(", f"    name={service.name!r},", "    features=["]
    return "\n".join([*lines, *(f"        {projection}," for projection in chosen), "    ],", ")"])


def _type(of: FeatureType) -> str:
    if of.element is not None:
        return f"Array({_type(of.element)})"
    return "String" if of.kind in AS_TEXT else "UnixTimestamp" if of.kind == "Timestamp" else of.kind


def _variable(kind: str, name: str) -> str:
    """A variable's name: names of declarations are letters, digits and underscores."""
    return f"{kind}_{name}"

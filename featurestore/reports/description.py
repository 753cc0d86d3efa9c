"""Descriptions: the whole meaning of a definition, by name, as it is at hand or else as it was applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.declare.durations import show_duration
from featurestore.declare.entity import Entity
from featurestore.declare.on_demand import Input, OnDemand, Request
from featurestore.declare.push import PushSource
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView, Selection
from featurestore.errors import DeclarationError, FeatureStoreError, NotFoundError, SourceError, did_you_mean
from featurestore.hidden import hidden
from featurestore.project import Project
from featurestore.registry.documents import KINDS
from featurestore.report import Report, Reported, ReportTable, cell
from featurestore.semantics.columns import type_of_column
from featurestore.semantics.view import ResolvedFeature, ResolvedView
from featurestore.types import to_json

LABELS = ("description", "owner", "tags")
TIME_WORDS = ("refresh", "refresh_offset", "settle", "ready_after", "ttl", "freshness")


@dataclass(frozen=True)
class Description(Reported):
    """What one definition means. kind: what it is; fields: word → value, plain JSON; tables: word → a list of records.

    What a definition does not say, and what does not apply to it, is left out.
    """

    kind: str
    name: str
    fields: Mapping[str, Any]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]

    def report(self) -> Report:
        """Its words, then a table for each kind of part."""
        words = [(word, _line(value)) for word, value in self.fields.items() if word != "code"]
        parts = [Report(title, (_table(rows),)) for title, rows in self.tables.items() if rows]
        if "code" in self.fields:
            parts.append(Report("code", tuple(str(self.fields["code"]).splitlines())))
        return Report(f"{self.kind} {self.name}", (ReportTable((), words), *parts))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind,
            "name": self.name,
            **self.fields,
            **{key: list(rows) for key, rows in self.tables.items()},
        }


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_line(item)}" for name, item in value.items())
    return ", ".join(map(_line, value)) if isinstance(value, (list, tuple)) else cell(value)


def _table(rows: Sequence[Mapping[str, Any]]) -> ReportTable:
    """The records under the words that any of them has."""
    header = list(dict.fromkeys(word for row in sorted(rows, key=len, reverse=True) for word in row))
    return ReportTable(header, [["" if row.get(word) is None else _line(row[word]) for word in header] for row in rows])


def _hidden(value: Any) -> Any:
    return (
        [_hidden(item) for item in value]
        if isinstance(value, list)
        else hidden(value)
        if isinstance(value, str)
        else value
    )


def _said(values: Mapping[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in values.items() if value not in (None, "", {}, [], ())}


def describe_all(project: Project) -> tuple[Description, ...]:
    """Every definition, at hand or applied."""
    describer = _Describer(project)
    return tuple(describer.of(item) for item in describer.every())


def describe(project: Project, name: str) -> tuple[Description, ...]:
    """What bears a name: definitions, several where they are of several kinds, and features, as "view:feature",
    "view__feature" or by their own name in every view.

    Raises NotFoundError with the nearest name.
    """
    describer = _Describer(project)
    found = [describer.of(item) for item in describer.every() if item.name == name]
    features = {(view.name, feature): view for view in describer.catalog.views.values() for feature in view.features}
    for (view, feature), declared in features.items():
        if name in {f"{view}:{feature}", f"{view}__{feature}"} or (not found and name == feature):
            found.append(describer.feature(declared, feature))
    if not found:
        known = [item.name for item in describer.every()]
        near = known if ":" not in name and "__" not in name else [f"{view}:{feature}" for view, feature in features]
        raise NotFoundError(f"There is no definition '{name}', nor a feature of that name.{did_you_mean(name, near)}")
    return tuple(found)


class _Describer:
    """Describes definitions of a project, in the light of all others."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.catalog = project.definitions
        differs = project.differences()
        self._changed, self._gone = {*differs.changed}, {*differs.gone}
        self._version = project.registry.current()
        self._applied = self._version.document

    def every(self) -> Iterator[Any]:
        """All definitions, kind by kind."""
        for kind in KINDS:
            yield from getattr(self.catalog, kind).values()

    def of(self, item: Any) -> Description:
        """What one means."""
        kind, told = next(
            (kind, told)
            for kind, of, told in (
                ("entities", Entity, self._entity),
                ("sources", Source, self._source),
                ("views", FeatureView, self._view),
                ("on_demand", OnDemand, self._on_demand),
                ("services", FeatureService, self._service),
            )
            if isinstance(item, of)
        )
        fields, tables = told(item)
        labels = item.model_dump(mode="json", include=set(LABELS))
        about = {**labels, "declared": item.origin, "state": self._state(kind, item.name)}
        return Description(KINDS[kind], item.name, _said({**about, **fields}), tables)

    def _state(self, kind: str, name: str) -> str:
        if name not in self._applied[kind]:
            return "not applied"
        if name in self._gone:
            return "applied, and not at hand"
        return "changed since it was applied" if name in self._changed else "applied"

    def _resolved(self, view: FeatureView) -> tuple[ResolvedView | None, dict[str, Any]]:
        """The view over its source, or as it was applied; and where neither is at hand, why no types are told."""
        try:
            return self._project.view(view), {}
        except (SourceError, DeclarationError) as error:
            if self._state("views", view.name).startswith("applied"):
                return self._version.view(view.name), {}
            return None, {"types": f"not known: {hidden(str(error))}"}

    def _entity(self, entity: Entity) -> tuple[dict[str, Any], dict[str, Any]]:
        views = [view.name for view in self.catalog.views.values() if view.entity.name == entity.name]
        return {"views": views}, {"key": [{"column": name, "type": str(of)} for name, of in entity.key.items()]}

    # --- views and features -------------------------------------------------------------------

    def _view(self, view: FeatureView) -> tuple[dict[str, Any], dict[str, Any]]:
        resolved, types = self._resolved(view)
        fields = {
            "entity": view.entity.name,
            "source": view.source.name,
            "where": view.where,
            **_times(view),
            "fingerprint": None if resolved is None else resolved.fingerprint,
            "services": self._services_of(view.name, None),
            **types,
        }
        features = [_feature(view, name, resolved) for name in view.features]
        return fields, {"keys": _keys(view), "features": features, **_expectations(view)}

    def feature(self, view: FeatureView, name: str) -> Description:
        """What one feature of a view means."""
        resolved, types = self._resolved(view)
        told = _feature(view, name, resolved)
        del told["feature"]
        fields = {
            "column": f"{view.name}__{name}",
            "reads": told.pop("column", None),
            **told,
            "view": view.name,
            "entity": view.entity.name,
            "source": view.source.name,
            **_times(view),
            "services": self._services_of(view.name, name),
            "declared": view.origin,
            "state": self._state("views", view.name),
            **types,
        }
        return Description("feature", f"{view.name}:{name}", _said(fields), {"keys": _keys(view)})

    def _services_of(self, view: str, feature: str | None) -> list[str]:
        return [
            service.name
            for service in self.catalog.services.values()
            if any(
                item.view.name == view and (feature is None or feature in item.features)
                for item in service.selections()
            )
        ]

    # --- on-demand features and services --------------------------------------------------------

    def _on_demand(self, item: OnDemand) -> tuple[dict[str, Any], dict[str, Any]]:
        services = [service.name for service in self.catalog.services.values() if item in service.on_demand]
        fields = {
            "type": str(item.output), "mode": item.mode, "libraries": list(item.libraries), "services": services,
            "fingerprint": item.code, "code": item.source,
        }  # fmt: skip
        return fields, {"inputs": [self._input(value) for value in item.inputs]}

    def _input(self, value: Input) -> dict[str, Any]:
        if isinstance(value, Selection):
            resolved, _ = self._resolved(value.view)
            (name,) = value.features
            of = _feature(value.view, name, resolved).get("type")
            return {"input": value.columns[0], "from": f"{value.view.name}:{name}", "type": of}
        if isinstance(value, Request):
            return {"input": value.name, "from": "the request", "type": str(value.type)}
        return {"input": "the request's time", "from": "the request", "type": str(value.type)}

    def _service(self, item: FeatureService) -> tuple[dict[str, Any], dict[str, Any]]:
        kept = [str(one.named) for one in self._project.registry.kept() if one.service == item.name]
        fields: dict[str, Any] = {"kept": kept, "skew_budget": item.skew_budget or None}
        try:
            service = self._project.service(item)
        except (SourceError, DeclarationError) as error:
            return {**fields, "types": f"not known: {hidden(str(error))}"}, {
                "columns": [{"column": name} for name in item.columns]
            }
        views = {part.name: part.view.name for part in service.parts}
        columns = [
            {
                "column": column.name,
                "from": "on demand" if column.part is None else f"{views[column.part]}:{column.feature}",
                "type": str(column.type),
            }
            for column in service.columns
        ]
        parts = [
            {
                "view": part.view.name,
                "as": part.name,
                "key": dict(zip((key.name for key in part.view.keys), part.inputs, strict=True)),
            }
            for part in service.parts
        ]
        asked = [{"input": name, "is": "key", "type": str(of)} for name, of in service.key_inputs.items()]
        asked += [
            {"input": name, "is": "request value", "type": str(of)} for name, of in service.request_inputs.items()
        ]
        return {**fields, "fingerprint": service.fingerprint}, {"columns": columns, "views": parts, "inputs": asked}

    # --- sources --------------------------------------------------------------------------------

    def _source(self, source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
        words = source.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={"name", "kind", "columns", "derived", "history", "expectations", *LABELS},
        )
        located = self._project.config.model_dump(include={"sources"})["sources"].get(source.name)
        fields = {
            "type": type(source).__name__,
            **{word: _hidden(value) for word, value in words.items()},
            "event_time": source.event_time or "none: a table without time",
            "located": located,
            "views": [view.name for view in self.catalog.views.values() if view.source.name == source.name],
        }
        if isinstance(source, PushSource):
            fields |= {
                "lateness": show_duration(source.lateness), "tolerance": show_duration(source.tolerance),
                "history": None if source.history is None else source.history.name,
            }  # fmt: skip
            columns = [{"column": name, "type": str(of)} for name, of in source.columns.items()]
            columns += [{"column": name, "derived_as": text} for name, text in source.derived.items()]
            return fields, {"columns": columns, **_expectations(source)}
        try:
            raw = self._project.offline.raw_types(source)
        except FeatureStoreError as error:
            return {**fields, "types": f"not known: {hidden(str(error))}"}, {}
        columns = [
            _said({"column": name, "type": str(type_of_column(of) or of), "derived_as": source.derived.get(name)})
            for name, of in raw.items()
        ]
        return fields, {"columns": columns, **_expectations(source)}


def _times(view: FeatureView) -> dict[str, Any]:
    """The words about time that hold for a view, those that nobody said too, and which of them its source says."""
    said = {word: view.said(word) for word in TIME_WORDS}
    inherited = [word for word in TIME_WORDS if said[word] is not None and getattr(view, word) is None]
    if said["refresh"] != "continuous":
        said["settle"] = said["settle"] or 0
        said["ready_after"] = said["settle"] if said["ready_after"] is None else said["ready_after"]
    times = {
        word: value if value is None or isinstance(value, str) else show_duration(value) for word, value in said.items()
    }
    return {**times, "said_by_source": inherited, "stale": view.stale}


def _expectations(item: Source | FeatureView) -> dict[str, list[dict[str, Any]]]:
    """What a source or a view itself expects, and what happens where it is not met; no table where nothing is expected."""
    said = [{"expectation": one.title, "otherwise": one.otherwise} for one in item.expectations]
    return {"expectations": said} if said else {}


def _keys(view: FeatureView) -> list[dict[str, Any]]:
    return [{"key": key, "type": str(of), "read_from": view.key_column(key)} for key, of in view.entity.key.items()]


def _feature(view: FeatureView, name: str, resolved: ResolvedView | None) -> dict[str, Any]:
    """One feature as a record; types, steps and conditions as they are settled, where they could be."""
    fold = view.features[name]
    settled: ResolvedFeature | None = None
    if resolved is not None:
        settled = next(feature for feature in resolved.features if feature.name == name)
    of = fold.type if settled is None else settled.type
    span = None if settled is None else settled.span
    default = fold.default if settled is None or fold.default is None else to_json(settled.type, settled.default)
    window = fold.window
    return _said(
        {
            "feature": name,
            "fold": fold.kind,
            "column": fold.column,
            **fold.parameters,
            "window": window if window is None or isinstance(window, str) else show_duration(window),
            "offset": show_duration(fold.offset) if fold.offset else None,
            "hop": show_duration(span.hop) if span is not None and span.hop else None,
            "where": fold.where if settled is None else settled.where,
            "default": default,
            "type": None if of is None else str(of),
        }
    )

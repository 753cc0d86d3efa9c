"""The applied state as one plain JSON document, and definitions read back from it.

    {"format": 1, "entities": {name: record}, "sources": …, "views": …, "on_demand": …, "services": …}

A record has `declared` (the definition as it was written, other definitions in it by name), `definition` (all that can
change a value, types settled), `fingerprint` (of that), and `label` (the fingerprint of description, owner and tags).
A view's record has `raw` too: the DuckDB types of the columns that it reads, so that it can be settled again without
its data. Where the data lies is in `declared` only: it is configuration, not identity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from featurestore.catalog import Catalog
from featurestore.declare.entity import Entity
from featurestore.declare.on_demand import Input, OnDemand, Request, RequestTime
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import Source
from featurestore.declare.stored import dump, read, read_fold, read_on_demand, read_service, read_source, read_view
from featurestore.declare.views import FeatureView, Selection
from featurestore.errors import DeclarationError, NotFoundError, RegistryError, SourceError, did_you_mean
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.service import ResolvedService, resolve_service
from featurestore.semantics.view import ResolvedView, fingerprint_of, resolve
from featurestore.types import from_json, parse_type, to_json

FORMAT = 1

KINDS = {
    "entities": "entity",
    "sources": "source",
    "views": "feature view",
    "on_demand": "on-demand feature",
    "services": "feature service",
}
"""The parts of a document, in the order in which definitions refer to each other, and what one of each is called."""

Document = dict[str, Any]
Record = dict[str, Any]

LABELS = ("description", "owner", "tags")
PLACES = ("kind", "path", "table", "content")
"""Where a source's rows lie."""

BESIDE = (*LABELS, *PLACES, "freshness", "stream")
"""The fields of a definition that are no part of its fingerprint."""


def empty_document() -> Document:
    """The state in which nothing has been applied."""
    return {"format": FORMAT, **{kind: {} for kind in KINDS}}


def digest_of(document: Document) -> str:
    """32 hex digits that differ where the documents do, the order of features included."""
    return hashlib.blake2b(orjson.dumps(document), digest_size=16).hexdigest()


def document_of(
    catalog: Catalog, views: Mapping[str, ResolvedView], services: Mapping[str, ResolvedService]
) -> Document:
    """The document of a catalog whose views and services are resolved, by name."""
    records: dict[str, dict[str, Record]] = {
        "entities": {name: _entity_record(item) for name, item in catalog.entities.items()},
        "sources": {name: _source_record(item) for name, item in catalog.sources.items()},
        "views": {name: _view_record(item) for name, item in views.items()},
        "on_demand": {name: _on_demand_record(item) for name, item in catalog.on_demand.items()},
        "services": {name: _service_record(item) for name, item in services.items()},
    }
    return {"format": FORMAT, **{kind: dict(sorted(records[kind].items())) for kind in KINDS}}


def _record(declared: dict[str, Any], definition: Any, item: Any, **more: Any) -> Record:
    label = fingerprint_of({word: getattr(item, word) for word in LABELS})
    return {
        "declared": declared,
        "definition": definition,
        "fingerprint": fingerprint_of(definition),
        "label": label,
        **more,
    }


def _entity_record(item: Entity) -> Record:
    return _record(dump(item), {"name": item.name, "key": [[name, str(of)] for name, of in item.key.items()]}, item)


def _source_record(item: Source) -> Record:
    beside = dict.fromkeys(BESIDE, True)
    definition = item.model_dump(mode="json", exclude={**beside, "history": beside})  # of a push source's history too
    for said in (definition, definition.get("history") or {}):
        for word in ("partitions", "optional", "expectations"):
            if not said.get(word, True):  # nothing was said, as before there was such a word
                del said[word]
    return _record(dump(item), definition, item)


def _view_record(view: ResolvedView) -> Record:
    declared = view.declared
    settled = {feature.name: feature for feature in view.features}
    folds = {
        feature.name: {
            **dump(feature.fold, without={"default"}),
            **({} if feature.default is None else {"default": to_json(feature.type, feature.default)}),
        }
        for feature in (settled[name] for name in declared.features)  # in the order in which they were listed
    }
    written = dump(declared, without={"entity", "source", "features"})
    written |= {"entity": declared.entity.name, "source": declared.source.name, "features": folds}
    return _record(written, view.definition, declared, raw=dict(sorted(view.named_raw.items())))


def _on_demand_record(item: OnDemand) -> Record:
    inputs = [_input_ref(value) for value in item.inputs]
    definition = {"name": item.name, "code": item.code, "mode": item.mode, "output": str(item.output), "inputs": inputs}
    return _record({**dump(item, without={"inputs"}), "inputs": inputs}, definition, item)


def _service_record(service: ResolvedService) -> Record:
    item = service.declared
    return _record({**dump(item, without={"features"}), "features": _feature_refs(item)}, service.definition, item)


def _feature_refs(service: FeatureService) -> list[dict[str, Any]]:
    return [
        {"on_demand": feature.name} if isinstance(feature, OnDemand) else _selection_ref(feature)
        for feature in service.features
    ]


def is_as_applied(kind: str, item: Any, record: Record) -> bool:
    """Whether a definition is that of an applied record in all that can change a value of its own; what it refers to is
    asked for by itself. The types that a view reads are those that it was applied with."""
    if kind == "services":
        return bool(_feature_refs(item) == record["declared"]["features"])
    if kind == "views":
        try:
            return bool(resolve(item, record["raw"], checked=True).fingerprint == record["fingerprint"])
        except (DeclarationError, SourceError):  # it reads other columns
            return False
    made: dict[str, Callable[[Any], Record]] = {
        "entities": _entity_record, "sources": _source_record, "on_demand": _on_demand_record,
    }  # fmt: skip
    return bool(made[kind](item)["fingerprint"] == record["fingerprint"])


def _selection_ref(item: Selection) -> dict[str, Any]:
    return {"view": item.view.name, "name": item.name, "key": item.key, "features": list(item.features)}


def _input_ref(item: Input) -> dict[str, Any]:
    if isinstance(item, Selection):
        return _selection_ref(item)
    if isinstance(item, Request):
        return {"request": item.name, "type": str(item.type)}
    return {"request_time": True}


def _find(document: Document, kind: str, name: str) -> Record:
    if document.get("format") != FORMAT:
        raise RegistryError(
            f"The registry's document has format {document.get('format')}; this version reads format {FORMAT}"
        )
    if name not in document[kind]:
        raise NotFoundError(f"No {KINDS[kind]} '{name}' was applied.{did_you_mean(name, document[kind])}")
    record: Record = document[kind][name]
    return record


def view_from(document: Document, name: str) -> FeatureView:
    """The view as it was declared; NotFoundError, or RegistryError where this version cannot read it."""
    record = _find(document, "views", name)
    declared, settled = record["declared"], record["definition"]["features"]
    folds = {}
    for feature, fold in declared["features"].items():
        default = from_json(parse_type(settled[feature]["type"]), fold.get("default"))
        folds[feature] = read_fold({**fold, "default": default})
    return read_view(
        {
            **declared,
            "features": folds,
            "entity": _find(document, "entities", declared["entity"])["declared"],
            "source": _find(document, "sources", declared["source"])["declared"],
        }
    )


def resolved_view(document: Document, name: str) -> ResolvedView:
    """The view with the types that were found when it was applied; no data is read.

    Raises NotFoundError, and RegistryError where this version would give it another fingerprint than it was applied with.
    """
    record = _find(document, "views", name)
    view = resolve(view_from(document, name), record["raw"], checked=True)
    if view.fingerprint != record["fingerprint"]:
        raise RegistryError(
            f"Feature view '{name}' was applied by a version that settles definitions differently "
            f"({record['fingerprint'][:8]}, here {view.fingerprint[:8]}); plan and apply again with this one"
        )
    return view


def service_from(document: Document, name: str) -> FeatureService:
    """The service as it was declared, over the document's views; its on-demand features have no functions."""
    reader = _DefinitionReader(document)
    return reader.service(name)


def resolved_service(document: Document, name: str) -> ResolvedService:
    """The service over the document's views, with the fingerprint that it was applied with.

    Raises as `resolved_view`, and DeclarationError where it reads a feature that its view no longer has.
    """
    service = service_from(document, name)
    names = dict.fromkeys(selection.view.name for selection in service.selections())
    return resolve_service(service, {view: resolved_view(document, view) for view in names})


def catalog_of(document: Document) -> Catalog:
    """Everything that was applied, as definitions."""
    reader = _DefinitionReader(document)
    return Catalog(
        entities={name: read(Entity, record["declared"]) for name, record in document["entities"].items()},
        sources={name: read_source(record["declared"]) for name, record in document["sources"].items()},
        views={name: reader.view(name) for name in document["views"]},
        on_demand={name: reader.on_demand(name) for name in document["on_demand"]},
        services={name: reader.service(name) for name in document["services"]},
        applied=True,
    )


def view_fingerprints(document: Document) -> dict[str, str]:
    """View name → value fingerprint."""
    return {name: record["fingerprint"] for name, record in document["views"].items()}


def service_views(document: Document, name: str) -> dict[str, str]:
    """View name → value fingerprint of the views that a service reads, those of its on-demand features included."""
    refs = list(document["services"][name]["declared"]["features"])
    for ref in [ref for ref in refs if "on_demand" in ref]:
        refs += document["on_demand"][ref["on_demand"]]["declared"]["inputs"]
    return {ref["view"]: document["views"][ref["view"]]["fingerprint"] for ref in refs if "view" in ref}


def pushed_source(document: Document, view: str) -> str | None:
    """The name of the push source that a view is over; None where it is over another one."""
    name: str = document["views"][view]["declared"]["source"]
    return name if document["sources"][name]["declared"]["kind"] == "push" else None


class _DefinitionReader:
    """Reads definitions that refer to each other, each once."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.views: dict[str, FeatureView] = {}

    def view(self, name: str) -> FeatureView:
        if name not in self.views:
            self.views[name] = view_from(self.document, name)
        return self.views[name]

    def on_demand(self, name: str) -> OnDemand:
        fields = _find(self.document, "on_demand", name)["declared"]
        return read_on_demand(fields, [self._input(f"on-demand feature '{name}'", ref) for ref in fields["inputs"]])

    def service(self, name: str) -> FeatureService:
        fields = _find(self.document, "services", name)["declared"]
        features: list[Selection | OnDemand] = [
            self.on_demand(ref["on_demand"]) if "on_demand" in ref else self._selection(f"service '{name}'", ref)
            for ref in fields["features"]
        ]
        return read_service(fields, features)

    def _input(self, reader: str, ref: Mapping[str, Any]) -> Input:
        if "request" in ref:
            return read(Request, {"name": ref["request"], "type": ref["type"]})
        return read(RequestTime, {}) if "request_time" in ref else self._selection(reader, ref)

    def _selection(self, reader: str, ref: Mapping[str, Any]) -> Selection:
        view = self.view(ref["view"])
        for part, wanted, known in (("feature", ref["features"], view.features), ("key", ref["key"], view.entity.key)):
            for name in wanted:
                if name not in known:
                    hint = did_you_mean(name, known, noun=f"It has {part}s")
                    raise DeclarationError(
                        f"The applied {reader} reads {part} '{name}' of view '{view.name}', which it no longer has; apply "
                        f"it too.{hint}"
                    )
        return read(Selection, {**ref, "view": view, "features": tuple(ref["features"])})


def merged(current: Document, listed: Document, *, raw_of: Callable[[str], dict[str, str]]) -> Document:
    """`current` with what is in `listed` added or put in place; nothing is removed.

    What was applied before and stands on a definition that changes is settled again: views over a changed entity or
    source (`raw_of` gives the column types of a source, by name), services over changed views or functions.
    """
    document: Document = {
        "format": FORMAT,
        **{kind: dict(sorted({**current[kind], **listed[kind]}.items())) for kind in KINDS},
    }

    def changed(kind: str, name: str) -> bool:
        old = current[kind].get(name)
        return old is not None and old["fingerprint"] != document[kind][name]["fingerprint"]

    for name in current["views"].keys() - listed["views"].keys():
        declared = current["views"][name]["declared"]
        if changed("sources", declared["source"]) or changed("entities", declared["entity"]):
            try:
                view = view_from(document, name)
            except RegistryError as error:
                changes = f"entity '{declared['entity']}' and source '{declared['source']}' as they would be"
                raise DeclarationError(f"Applied feature view '{name}' does not fit {changes}: {error}") from None
            raw = RawColumns.named_as(raw_of(declared["source"]), current["views"][name]["raw"])
            document["views"][name] = _view_record(resolve(view, raw))
    for name in current["services"].keys() - listed["services"].keys():
        service = service_from(current, name)
        if any(changed("views", item.view.name) for item in service.selections()) or any(
            changed("on_demand", item.name) for item in service.on_demand
        ):
            document["services"][name] = _service_record(resolved_service(document, name))
    return document

"""A repository of Feast's as definitions of ours: what each object becomes, what differs by it, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.migrate.feast_objects import (
    FeastNamed,
    FeastObjects,
    FeastProjection,
    FeastService,
    FeastSource,
)
from featurestore.migrate.found import Moved, MovedView, WrittenStatement
from featurestore.migrate.move_functions import MoveFunctions, selected
from featurestore.migrate.move_keys import MoveKeys
from featurestore.migrate.move_sources import MovedSource, MoveSources
from featurestore.migrate.move_views import MoveViews, Ready, cutover_of, mapped_keys
from featurestore.migrate.names import Names, problem_of, variable
from featurestore.migrate.services_in_code import AskedList, asked_lists
from featurestore.migrate.written import Declares, Name, Picked, built
from featurestore.semantics.service import resolve_service
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.sources.offline import Offline
from featurestore.types import FeatureType

N = TypeVar("N", bound=FeastNamed)

SECTIONS = ("entities", "sources", "views", "on-demand", "services")


@dataclass(frozen=True)
class MoveOptions:
    """What the user says of a move. repo: the folder of feature_store.yaml; root: the one that was named; out: what is written.
    refresh: µs, None where the data says it."""

    repo: Path
    root: Path
    out: Path
    refresh: int | None = None
    cutover: datetime | None = None


def move(objects: FeastObjects, options: MoveOptions) -> Moved:
    """What a repository becomes; nothing is written."""
    return _Move(objects, options).done()


class _Move:
    def __init__(self, objects: FeastObjects, options: MoveOptions) -> None:
        self._objects, self._options = objects, options
        self._moved = Moved()
        self._sources = MoveSources(self._moved, repo=options.repo, root=options.root, out=options.out)
        self._keys = MoveKeys(self._moved, objects.entities)
        self._views = MoveViews(self._moved, self._sources, self._keys, refresh=options.refresh)
        self._names = {kind: Names(prefix=kind) for kind in ("view", "push", "service")}
        self._taken = {"datetime", "UTC", "on_demand"}
        self._variables: dict[str, Any] = {}
        self._written: dict[tuple[str, str], str] = {}
        self._offline = Offline(options.out.parent)
        self._resolved: dict[str, ResolvedView] = {}

    def done(self) -> Moved:
        """The move as a whole."""
        try:
            self._tell_always()
            ready = self._ready_views()
            for view in ready:
                if view.feast.stream is None:
                    self._write_batch(view)
                else:
                    self._write_pushed(view.feast.stream, view, ready)
            self._functions()
            for service in self._once("feature service", self._objects.services):
                self._service(service)
            self._services_in_code()
            self._leftovers()
        finally:
            self._offline.close()
        order = {section: place for place, section in enumerate(SECTIONS)}
        self._moved.statements.sort(key=lambda one: order[one.section])  # stable: each section in its own order
        return self._moved

    def _tell_always(self) -> None:
        if self._objects.views:
            self._moved.differs(
                "every view",
                "columns",
                "feature, or view__feature with full_feature_names",
                "view__feature",
                "one name everywhere",
            )
            self._moved.differs(
                "every view", "training rows", "sorted by time; some are dropped where nothing lies within the ttl",
                "each row of the spine comes back once, in its order", "a missing value is a null with a status",
            )  # fmt: skip
        if self._objects.older:
            self._moved.differs(
                "every file", "older words", ", ".join(self._objects.older), "read as the words of the installed version",
                f"Feast {self._objects.feast} takes them no more",
            )  # fmt: skip
        for file in self._objects.files:
            if file.error is not None:
                at = "" if file.line is None else f":{file.line}"
                so_far = f"; {file.declared} objects that it declared before are taken over" if file.declared else ""
                self._moved.refuse(
                    "file", f"{file.path}{at}", f"it does not load in Feast's Python: {file.error}{so_far}"
                )
        for labels in self._objects.labels:
            self._moved.refuse(
                "label view", labels.name, "there are none: labels are columns of the spine", "join them to the spine"
            )

    # --- views -----------------------------------------------------------------------------------

    def _ready_views(self) -> list[Ready]:
        usable = []
        for view in self._once("feature view", self._objects.views):
            found = self._views.usable(view)
            if found is not None:
                usable.append((view, *found))
        self._keys.settle(usable)
        made = [self._views.ready(view, source, keys) for view, source, keys in usable]
        return [view for view in made if view is not None and self._place_keys(view)]

    def _once(self, kind: str, named: Iterable[N]) -> list[N]:
        """The objects, each name once."""
        first: dict[str, N] = {}
        for one in named:
            if one.name in first:
                self._moved.refuse(kind, one.name, f"another of that name is declared in {first[one.name].where}")
            else:
                first[one.name] = one
        return list(first.values())

    def _place_keys(self, view: Ready) -> bool:
        """Find the columns of a view's keys, before its source is written, which may have to derive them."""
        try:
            for key in view.keys:
                if view.source is not None:
                    self._keys.column(view.feast, view.source, key)
        except ValueError as error:
            self._moved.refuse("feature view", view.feast.name, str(error))
            return False
        return True

    def _write_batch(self, view: Ready) -> None:
        source = view.source
        assert source is not None
        call = self._sources.call(source)
        self._write_view(view, self._declared("sources", source.name, f"{source.name}_source", call), refresh=True)
        self._sources.tell(source)

    def _write_pushed(self, stream: FeastSource, view: Ready, ready: Sequence[Ready]) -> None:
        readers = [one for one in ready if one.feast.stream is not None and one.feast.stream.name == stream.name]
        if view is not readers[0]:  # written with the first
            return
        name = self._named("push", stream.name)
        history, cutover = self._history(name, view.source)
        call = self._views.push_source(stream, readers, name, history, cutover)
        try:
            pushed = self._declared("sources", name, f"{name}_source", call)
        except FeatureStoreError as error:
            for one in readers:
                self._moved.refuse("feature view", one.feast.name, f"source '{name}': {error}")
            return
        self._tell_push(stream, name, history, cutover)
        for one in readers:
            self._write_view(one, pushed, refresh=False)

    def _history(self, name: str, source: MovedSource | None) -> tuple[str | None, datetime | None]:
        """The variable of a push source's batch source, and until when it counts; none where it cannot be one."""
        if (
            source is None
            or source.look is None
            or source.problem is not None
            or source.raw(source.event_time) == "DATE"
        ):
            return None, None
        cutover = cutover_of(source, self._options.cutover)
        if cutover is None:
            return None, None
        call = self._sources.call(source, name=f"{name}_history", history=True)
        return self._declared("sources", f"{name}_history", f"{name}_history", call), cutover

    def _tell_push(self, stream: FeastSource, name: str, history: str | None, cutover: datetime | None) -> None:
        kind = stream.kind.removesuffix("Source")
        there = (
            "its rows come from a topic" if kind != "Push" else "a push goes online, or to the batch source, or to both"
        )
        why = "" if kind == "Push" else f"; a consumer of yours reads {kind} and calls store.push('{name}', rows)"
        self._moved.differs(
            name, "push", there, "a push goes into the store's log, and is online when it returns",
            f"training reads what was pushed, from the instant at which it was{why}",
        )  # fmt: skip
        self._moved.differs(
            name, "types", "pushed numbers are cast to the declared type", "Float64 for numbers with a point",
            "nothing is rounded: a Float32 would refuse 0.85",
        )  # fmt: skip
        if history is None:
            self._moved.differs(
                name,
                "history",
                "the rows of its batch source",
                "none",
                "they are not at hand: say history= and cutover= of files",
            )
        elif cutover is not None:
            said = (
                "--cutover says so"
                if self._options.cutover is not None
                else "just after the newest row of its batch source"
            )
            self._moved.differs(
                name, "cutover", "training reads the batch source for ever", f"until {cutover.isoformat()}, then what is pushed",
                f"{said}; rows that come into the files later reach no view: push them",
            )  # fmt: skip
            self._moved.differs(
                name, "known_after", "a row counts at the very instant at which it happened", "a second after",
                "an event is no part of its own features",
            )  # fmt: skip

    def _write_view(self, view: Ready, source: str, *, refresh: bool) -> None:
        feast = view.feast
        entity, declared, key_names = self._keys.entity(feast, view.keys)
        name = self._named("view", feast.name)
        columns = {
            key.join_key: key.column if view.source is None else self._keys.column(feast, view.source, key)
            for key in view.keys
        }
        call = Declares("FeatureView", (name,), {})
        entity_variable = self._declared("entities", entity, f"{entity}_entity", declared)
        call = call.saying(
            entity=Name(entity_variable), source=Name(source), key=mapped_keys(view.keys, columns, key_names)
        )
        call = call.saying(refresh=self._views.refresh_of(view) if refresh else None, ttl=self._views.ttl_of(view))
        call = call.saying(features=self._views.features_of(view))
        call = call.saying(owner=feast.owner, description=self._views.describe(feast), tags=feast.tags)
        try:
            own = self._declared("views", name, f"{name}_view", call)
            self._resolve(own)
        except FeatureStoreError as error:
            self._withdraw("views", name)
            self._moved.refuse("feature view", feast.name, str(error))
            return
        self._moved.views[feast.name] = MovedView(
            feast.name, name, own, feast.entities, key_names,
            {there: here for there, here in view.names.given.items() if here in view.features},
            has_data=view.source is not None and view.source.look is not None, pushed=view.pushed,
        )  # fmt: skip
        if not feast.online:
            self._moved.differs(
                name, "online", "online=False: for training alone", "materialized and served",
                "each applied view is; one for training need not be applied",
            )  # fmt: skip

    def _resolve(self, variable_of_view: str) -> None:
        """Settle a view over its data, where that is at hand; FeatureStoreError where it cannot be."""
        declared = self._variables[variable_of_view]
        assert isinstance(declared, FeatureView)
        self._offline.located.update(self._sources.located)
        ready = declared.source if declared.source.kind != "push" else getattr(declared.source, "history", None)
        if isinstance(ready, Source) and self._has_files(ready):
            self._resolved[declared.name] = resolve(declared, self._offline.raw_types(declared.source))

    def _has_files(self, source: Source) -> bool:
        try:
            return bool(self._offline.files(source))
        except FeatureStoreError:
            return False

    # --- statements ------------------------------------------------------------------------------

    def _named(self, kind: str, name: str) -> str:
        own = self._names[kind].of(name)
        if own != name:
            why = problem_of(name) or "another bears that name"
            self._moved.differs(own, "name", name, own, why)
        return own

    def _declared(self, section: str, name: str, other: str, call: Declares) -> str:
        """The variable of a definition, which is written when it is first asked for. other: what it is called where the name is
        another's."""
        known = self._written.get((section, name))
        if known is not None:
            return known
        own = variable(name if name not in self._taken else other, self._taken | DECLARATIONS)
        self._variables[own] = built(call, self._variables)
        self._taken.add(own)
        self._written[section, name] = own
        self._moved.statements.append(WrittenStatement(section, own, name, call))
        return own

    def _withdraw(self, section: str, name: str) -> None:
        """Take a definition back."""
        self._written.pop((section, name), None)
        self._moved.statements = [one for one in self._moved.statements if (one.section, one.name) != (section, name)]

    # --- functions and services ------------------------------------------------------------------

    def _functions(self) -> None:
        types: dict[tuple[str, str], FeatureType] = {}
        for there, view in self._moved.views.items():
            resolved = self._resolved.get(view.name)
            known = {} if resolved is None else {feature.name: feature.type for feature in resolved.features}
            types |= {(there, name): known[own] for name, own in view.features.items() if own in known}
        requests = {
            value.name for view in self._objects.on_demand for request in view.requests for value in request.fields
        }
        inputs = {*self._keys.columns.given.values(), *requests}
        functions = MoveFunctions(self._moved, self._taken, self._variables, features=types, inputs=inputs)
        functions.move(self._once("on-demand feature view", self._objects.on_demand))

    def _service(self, service: FeastService) -> None:
        lost: list[str] = []
        items: list[Any] = []
        for projection in service.features:
            items += self._items(projection, lost)
        for reference in service.references:
            items += self._referred(reference, lost)
        name = self._named("service", service.name)
        call = Declares("FeatureService", (name,), {"features": items})
        call = call.saying(owner=service.owner, description=service.description, tags=service.tags)
        if self._write_service(service.name, name, call, items, lost) and service.logged is not None:
            self._moved.logged[name] = service.logged

    def _write_service(self, there: str, name: str, call: Declares, items: Sequence[Any], lost: Sequence[str]) -> bool:
        if not items:
            self._moved.refuse("feature service", there, f"none of its features is taken over: {', '.join(lost)}")
            return False
        try:
            own = self._declared("services", name, f"{name}_service", call)
            self._resolve_service(self._variables[own])
        except FeatureStoreError as error:
            self._withdraw("services", name)
            self._moved.refuse("feature service", there, str(error))
            return False
        if lost:
            self._moved.differs(
                name,
                "features",
                f"also {', '.join(lost)}",
                "without them",
                "they are refused; a model that takes them needs another",
            )
        self._moved.services.append(name)
        return True

    def _resolve_service(self, service: Any) -> None:
        """Settle a service, where the rows of all its views are at hand; FeatureStoreError where it cannot be."""
        views = {item.view.name: self._resolved.get(item.view.name) for item in service.selections()}
        known = {name: view for name, view in views.items() if view is not None}
        if len(known) == len(views):
            resolve_service(service, known)

    def _items(self, projection: FeastProjection, lost: list[str]) -> list[Any]:
        """What one part of a service is here."""
        wanted = projection.fields or projection.wanted
        function = self._moved.functions.get(projection.view)
        if function is not None:
            names = wanted or tuple(function.features)
            lost += [f"{projection.view}:{name}" for name in names if name not in function.variables]
            return [Name(function.variables[name]) for name in names if name in function.variables]
        view = self._moved.views.get(projection.view)
        if view is None:
            lost += [f"{projection.view}:{name}" for name in wanted] or [projection.view]
            return []
        names = wanted or tuple(view.features)
        lost += [f"{projection.view}:{name}" for name in names if name not in view.features]
        chosen = tuple(view.features[name] for name in names if name in view.features)
        return self._chosen(view, projection, chosen)

    def _chosen(self, view: MovedView, projection: FeastProjection, chosen: tuple[str, ...]) -> list[Any]:
        own = selected(view, projection)
        if not chosen:
            return []
        return (
            [own]
            if set(chosen) == set(view.features.values()) and chosen == tuple(view.features.values())
            else [Picked(own, chosen)]
        )

    def _referred(self, reference: str, lost: list[str]) -> list[Any]:
        """What "view:feature", or "view", is here."""
        view, _, feature = reference.partition(":")
        view = view.partition("@")[0]
        known: dict[str, Any] = {**self._moved.views, **self._moved.functions}
        if view not in known or (feature and feature not in known[view].features):
            lost.append(reference)
            return []
        return self._items(FeastProjection(view=view, fields=(feature,) if feature else ()), lost)

    def _services_in_code(self) -> None:
        known = {tuple(_refers(service)): service.name for service in self._objects.services}
        found: dict[tuple[str, ...], AskedList] = {}
        for asked in asked_lists(self._options.root):
            if asked.references is None:
                self._moved.refuse(
                    "list of features", f"{asked.file}:{asked.line}", "it is made while the program runs",
                    "declare a FeatureService of what it comes to",
                )  # fmt: skip
            elif tuple(sorted(asked.references)) not in known:
                found.setdefault(asked.references, asked)
        for references, asked in found.items():
            self._listed(references, asked)

    def _listed(self, references: tuple[str, ...], asked: AskedList) -> None:
        """A service of a list that stands in a program."""
        lost: list[str] = []
        items = [item for reference in references for item in self._referred(reference, lost)]
        items = _merged(items)
        there = f"the list at {asked.file}:{asked.line}"
        if not items:
            self._moved.refuse(
                "list of features", f"{asked.file}:{asked.line}", f"none of them is taken over: {', '.join(lost)}"
            )
            return
        stem = Path(asked.file).stem
        name = self._names["service"].fresh(f"{stem}_features")
        call = Declares("FeatureService", (name,), {"features": items, "description": f"What {asked.file} asks for."})
        if self._write_service(there, name, call, items, lost):
            self._moved.differs(
                name, "service", f"a list of {len(references)} features in {asked.file}:{asked.line}", "a service",
                "a model is pinned to a service; columns come in its order",
            )  # fmt: skip

    def _leftovers(self) -> None:
        used = {name for view in self._moved.views.values() for name in view.entities}
        for entity in self._objects.entities:
            if entity.name not in used:
                self._moved.differs(
                    entity.name, "entity", "declared", "not written", "no view that is taken over has it"
                )
        streams = {view.stream.name for view in self._objects.views if view.stream is not None}
        for source in self._objects.sources:
            if source.kind in {"PushSource", "KafkaSource", "KinesisSource"} and source.name not in streams:
                self._moved.refuse(
                    "push source",
                    source.name,
                    "no view reads it, so that nothing says its columns",
                    "declare it with its schema",
                )


DECLARATIONS = frozenset(
    {
        "Entity", "ParquetSource", "PushSource", "FeatureView", "FeatureService", "Request", "Latest", "First", "Count", "Sum", "Mean",
        "Min", "Max", "Var", "StdDev", "CountDistinct", "Array", "Bool", "Bytes", "Date", "Decimal", "Float32", "Float64", "Int32",
        "Int64", "String", "Timestamp", "on_demand", "datetime", "UTC",
    }
)  # fmt: skip
"""Names that a file of definitions may import."""


def _refers(service: FeastService) -> list[str]:
    """The references that a service of Feast's stands for, sorted."""
    named = [f"{one.alias or one.view}:{name}" for one in service.features for name in one.fields]
    return sorted([*named, *service.references])


def _merged(items: Sequence[Any]) -> list[Any]:
    """Features of one view that follow one another, as one selection."""
    found: list[Any] = []
    for item in items:
        last = found[-1] if found else None
        if isinstance(item, Picked) and isinstance(last, Picked) and item.view == last.view:
            found[-1] = Picked(last.view, (*last.features, *item.features))
        else:
            found.append(item)
    return found

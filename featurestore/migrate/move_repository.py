"""A repository of Feast's as definitions of ours: what each object becomes, what differs by it, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from featurestore.declare.sources import FileSource, Source, is_url
from featurestore.declare.views import FeatureView
from featurestore.errors import FeatureStoreError
from featurestore.migrate.definition_file import DefinitionFile
from featurestore.migrate.definition_text import DeclarationCall, VariableName
from featurestore.migrate.feast_objects import (
    FeastNamed,
    FeastObjects,
    FeastSource,
)
from featurestore.migrate.move_functions import MoveFunctions
from featurestore.migrate.move_keys import MoveKeys
from featurestore.migrate.move_result import MovedView, MoveResult, named_here
from featurestore.migrate.move_services import MoveServices
from featurestore.migrate.move_sources import MovedSource, MoveSources
from featurestore.migrate.move_views import MoveViews, Ready, cutover_of, mapped_keys
from featurestore.migrate.names import Names
from featurestore.migrate.services_in_code import asked_lists
from featurestore.plurals import plural
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.sources.offline import Offline
from featurestore.types import FeatureType

N = TypeVar("N", bound=FeastNamed)

NEWEST = (0, 67)
"""The newest version of Feast that was tried."""

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


def move(objects: FeastObjects, options: MoveOptions) -> MoveResult:
    """What a repository becomes; nothing is written."""
    return _Move(objects, options).done()


class _Move:
    def __init__(self, objects: FeastObjects, options: MoveOptions) -> None:
        self._objects, self._options = objects, options
        self._moved = MoveResult()
        self._sources = MoveSources(self._moved, repo=options.repo, root=options.root, out=options.out)
        self._keys = MoveKeys(self._moved, objects.entities)
        self._views = MoveViews(self._moved, self._sources, self._keys, refresh=options.refresh)
        self._names = {kind: Names(prefix=kind) for kind in ("view", "push")}
        self._file = DefinitionFile(self._moved.statements)
        self._offline = Offline(options.out.parent)
        self._resolved: dict[str, ResolvedView] = {}

    def done(self) -> MoveResult:
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
            self._services().move(
                self._once("feature service", self._objects.services), asked_lists(self._options.root)
            )
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
        if tuple(int(one) for one in re.findall(r"\d+", self._objects.feast)[:2]) > NEWEST:
            self._moved.differs(
                "every file", "version", f"Feast {self._objects.feast}", f"read as {'.'.join(map(str, NEWEST))} is",
                "it is newer than any that was tried: look at the proof",
            )  # fmt: skip
        if self._objects.older:
            self._moved.differs(
                "every file", "older words", ", ".join(self._objects.older), "read as the words of the installed version",
                f"Feast {self._objects.feast} takes them no more",
            )  # fmt: skip
        for file in self._objects.files:
            if file.error is not None:
                at = "" if file.line is None else f":{file.line}"
                so_far = (
                    f"; {file.declared} {plural(file.declared, 'object')} that it declared before are taken over"
                    if file.declared
                    else ""
                )
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
        """The objects, each name once; a file that is imported under two names declares the same ones twice."""
        first: dict[str, N] = {}
        for one in named:
            if first.setdefault(one.name, one).anywhere() != one.anywhere():
                self._moved.refuse(kind, one.name, f"another of that name is declared in {first[one.name].where}")
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
        self._write_view(view, self._file.declare("sources", source.name, f"{source.name}_source", call), refresh=True)
        self._sources.tell(source)

    def _write_pushed(self, stream: FeastSource, view: Ready, ready: Sequence[Ready]) -> None:
        readers = [one for one in ready if one.feast.stream is not None and one.feast.stream.name == stream.name]
        if view is not readers[0]:  # written with the first
            return
        name = self._named("push", stream.name)
        history, cutover = self._history(name, view.source)
        call = self._views.push_source(stream, readers, name, history, cutover)
        try:
            pushed = self._file.declare("sources", name, f"{name}_source", call)
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
            or source.data is None
            or source.problem is not None
            or source.raw(source.event_time) == "DATE"
        ):
            return None, None
        cutover = cutover_of(source, self._options.cutover)
        if cutover is None:
            return None, None
        call = self._sources.call(source, name=f"{name}_history", history=True)
        return self._file.declare("sources", f"{name}_history", f"{name}_history", call), cutover

    def _tell_push(self, stream: FeastSource, name: str, history: str | None, cutover: datetime | None) -> None:
        kind = stream.kind.removesuffix("Source")
        there = (
            "its rows come from a topic" if kind != "Push" else "a push goes online, or to the batch source, or to both"
        )
        why = "" if kind == "Push" else f"; a consumer of yours reads {kind} and calls store.push('{name}', rows)"
        if kind == "Kafka":
            why = "; say stream=KafkaStream(topic, broker=…) of it, and featurestore consume reads the topic (docs/streams.md)"
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
        call = DeclarationCall("FeatureView", (name,), {})
        entity_variable = self._file.declare("entities", entity, f"{entity}_entity", declared)
        call = call.with_keywords(
            entity=VariableName(entity_variable),
            source=VariableName(source),
            key=mapped_keys(view.keys, columns, key_names),
        )
        call = call.with_keywords(
            refresh=self._views.refresh_of(view) if refresh else None, ttl=self._views.ttl_of(view)
        )
        call = call.with_keywords(features=self._views.features_of(view))
        call = call.with_keywords(owner=feast.owner, description=self._views.describe(feast), tags=feast.tags)
        try:
            own = self._file.declare("views", name, f"{name}_view", call)
            self._resolve(own)
        except FeatureStoreError as error:
            self._file.withdraw("views", name)
            self._moved.refuse("feature view", feast.name, str(error))
            return
        self._moved.views[feast.name] = MovedView(
            feast.name, name, own, feast.entities, key_names,
            {there: here for there, here in view.names.given.items() if here in view.features},
            has_data=view.source is not None and view.source.data is not None, pushed=view.pushed,
        )  # fmt: skip
        if not feast.online:
            self._moved.differs(
                name, "online", "online=False: for training alone", "materialized and served",
                "each applied view is; one for training need not be applied",
            )  # fmt: skip

    def _resolve(self, variable_of_view: str) -> None:
        """Settle a view over its data, where that is at hand; FeatureStoreError where it cannot be."""
        declared = self._file.variables[variable_of_view]
        assert isinstance(declared, FeatureView)
        self._offline.located.update(self._sources.located)
        ready = declared.source if declared.source.kind != "push" else getattr(declared.source, "history", None)
        if isinstance(ready, Source) and self._has_files(ready):
            self._resolved[declared.name] = resolve(declared, self._offline.raw_types(declared.source))

    def _has_files(self, source: Source) -> bool:
        """Whether its files are on this machine: no store is asked over the network."""
        if isinstance(source, FileSource) and any(is_url(path) for path in source.path):
            return False
        try:
            return bool(self._offline.files(source))
        except FeatureStoreError:
            return False

    # --- statements ------------------------------------------------------------------------------

    def _named(self, kind: str, name: str) -> str:
        return named_here(self._moved, self._names[kind], name)

    # --- functions, services and what is left over ------------------------------------------------------------------

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
        roots = list(dict.fromkeys((self._options.repo.resolve(), self._options.root.resolve())))
        functions = MoveFunctions(self._moved, self._file, features=types, inputs=inputs, roots=roots)
        functions.move(self._once("on-demand feature view", self._objects.on_demand))

    def _services(self) -> MoveServices:
        return MoveServices(self._moved, self._file, self._resolved)

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

"""Feast's feature services, and the lists of features that programs ask for, as services of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featurestore.errors import FeatureStoreError
from featurestore.migrate.definition_file import DefinitionFile
from featurestore.migrate.definition_text import DeclarationCall, VariableName, ViewFeatures
from featurestore.migrate.feast_objects import FeastProjection, FeastService
from featurestore.migrate.move_functions import selected
from featurestore.migrate.move_result import MovedView, MoveResult, named_here
from featurestore.migrate.names import Names
from featurestore.migrate.services_in_code import AskedList
from featurestore.plurals import plural
from featurestore.semantics.service import resolve_service
from featurestore.semantics.view import ResolvedView


class MoveServices:
    """Makes services. resolved: the views of which the rows are at hand, by name."""

    def __init__(self, moved: MoveResult, file: DefinitionFile, resolved: Mapping[str, ResolvedView]) -> None:
        self._moved, self._file, self._resolved = moved, file, resolved
        self._names = Names(prefix="service")

    def move(self, services: Sequence[FeastService], lists: Sequence[AskedList]) -> None:
        """Move services, and then the lists that none of them is."""
        for service in services:
            self._service(service)
        self._of_code(services, lists)

    def _service(self, service: FeastService) -> None:
        lost: list[str] = []
        items: list[Any] = []
        for projection in service.features:
            items += self._items(projection, lost)
        for reference in service.references:
            items += self._referred(reference, lost)
        name = named_here(self._moved, self._names, service.name)
        call = DeclarationCall("FeatureService", (name,), {"features": items})
        call = call.with_keywords(owner=service.owner, description=service.description, tags=service.tags)
        if self._write_service(service.name, name, call, items, lost) and service.logged is not None:
            self._moved.logged[name] = service.logged

    def _write_service(
        self, there: str, name: str, call: DeclarationCall, items: Sequence[Any], lost: Sequence[str]
    ) -> bool:
        if not items:
            self._moved.refuse("feature service", there, f"none of its features is taken over: {', '.join(lost)}")
            return False
        try:
            own = self._file.declare("services", name, f"{name}_service", call)
            self._resolve_service(self._file.variables[own])
        except FeatureStoreError as error:
            self._file.withdraw("services", name)
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
            return [VariableName(function.variables[name]) for name in names if name in function.variables]
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
            else [ViewFeatures(own, chosen)]
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

    def _of_code(self, services: Sequence[FeastService], lists: Sequence[AskedList]) -> None:
        known = {tuple(_refers(service)): service.name for service in services}
        found: dict[tuple[str, ...], AskedList] = {}
        for asked in lists:
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
        name = self._names.fresh(f"{stem}_features")
        call = DeclarationCall(
            "FeatureService", (name,), {"features": items, "description": f"What {asked.file} asks for."}
        )
        if self._write_service(there, name, call, items, lost):
            self._moved.differs(
                name, "service", f"a list of {len(references)} {plural(len(references), 'feature')} in {asked.file}:{asked.line}", "a service",
                "a model is pinned to a service; columns come in its order",
            )  # fmt: skip


def _refers(service: FeastService) -> list[str]:
    """The references that a service of Feast's stands for, sorted."""
    named = [f"{one.alias or one.view}:{name}" for one in service.features for name in one.fields]
    return sorted([*named, *service.references])


def _merged(items: Sequence[Any]) -> list[Any]:
    """Features of one view that follow one another, as one selection."""
    found: list[Any] = []
    for item in items:
        last = found[-1] if found else None
        if isinstance(item, ViewFeatures) and isinstance(last, ViewFeatures) and item.view == last.view:
            found[-1] = ViewFeatures(last.view, (*last.features, *item.features))
        else:
            found.append(item)
    return found

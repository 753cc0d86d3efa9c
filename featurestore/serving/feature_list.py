"""What a lookup asks for beside an applied service's name: definitions, "view", "view:feature" and lists of these.

They mean what they mean in training. Names are looked for in what was applied; a view that is given as a definition has to
be the one that was applied, since no other has values online. Functions and services made of such views may be new.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from featurestore.catalog import Catalog
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.services import FeatureService
from featurestore.declare.views import FeatureView, Selection
from featurestore.errors import DeclarationError, FingerprintError, NotFoundError, SourceError, did_you_mean
from featurestore.registry.diff import changes
from featurestore.registry.documents import Document
from featurestore.registry.records import Version
from featurestore.semantics.service import ResolvedService, resolve_service
from featurestore.semantics.view import resolve

NAMING = (str, FeatureService, FeatureView, Selection, OnDemand)
"""What one feature, or several, can be named by."""


def is_features(given: Any) -> bool:
    """Whether this names features: a text, a definition, or a list of these that is not empty."""
    if isinstance(given, (list, tuple)):
        return bool(given) and all(isinstance(item, NAMING) for item in given)
    return isinstance(given, NAMING)


@dataclass(frozen=True, slots=True)
class FeatureList:
    """Features as they were asked for. Two are equal where they hold the same texts and the same definitions, not equal ones."""

    key: Hashable
    features: Any = field(compare=False)

    @classmethod
    def of(cls, features: Any) -> FeatureList:
        """The list of what `is_features`."""
        return cls(_key(features), tuple(features) if isinstance(features, list) else features)


def _key(item: Any) -> Hashable:
    if isinstance(item, str):
        return item
    if isinstance(item, (list, tuple)):
        return tuple(map(_key, item))
    if isinstance(item, Selection):  # made anew by each view["x"]
        return id(item.view), item.name, tuple(item.key.items()), item.features
    return id(item)  # which is kept, so that no other can have it


def listed_service(features: Any, version: Version) -> ResolvedService:
    """The service that features make of an applied version.

    Raises NotFoundError for what was not applied, FingerprintError for a definition of a view that is not the applied one.
    """
    own = _Applied(version)
    asked = own.service(version.catalog.service_of(features))
    return resolve_service(asked, {item.view.name: version.view(item.view.name) for item in asked.selections()})


class _Applied:
    """Definitions as a version has them."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self._same: dict[int, FeatureView] = {}  # by the id of a view that is given

    def service(self, given: FeatureService) -> FeatureService:
        """The service over the version's views."""
        features = tuple(
            self.selection(item) if isinstance(item, Selection) else self.function(item) for item in given.features
        )
        return given.model_copy(update={"features": features})

    def function(self, given: OnDemand) -> OnDemand:
        """The on-demand feature over the version's views."""
        inputs = tuple(self.selection(item) if isinstance(item, Selection) else item for item in given.inputs)
        return given.model_copy(update={"inputs": inputs})

    def selection(self, given: Selection) -> Selection:
        """The selection of the version's view."""
        view = self._same.get(id(given.view))
        if view is None:
            view = self._same[id(given.view)] = self._view(given.view)
        return given.model_copy(update={"view": view})

    def _view(self, given: FeatureView) -> FeatureView:
        applied = self.version.catalog.views.get(given.name)
        record = self.version.document["views"].get(given.name)
        if applied is None or record is None:
            known = did_you_mean(given.name, self.version.document["views"], noun="Applied are")
            raise NotFoundError(f"No feature view '{given.name}' was applied, so it has no values online.{known}")
        if given == applied:
            return applied
        before, after, why = record["definition"], None, ""
        try:
            view = resolve(given, record["raw"])
            if view.fingerprint == record["fingerprint"]:
                return applied
            after = view.definition
        except (DeclarationError, SourceError) as error:  # it reads columns that the applied one does not
            why = f": {error}"
        found = () if after is None else changes(after, before)
        text = "".join(f"\n  {change}" for change in found)
        raise FingerprintError(
            f"{given.title} is not as it was applied{why}; only what was applied has values online. Run featurestore apply and "
            f"materialize, or ask for it by name ({given.origin})"
            + (f". Asked for and applied differ:{text}" if text else ""),
            changes=found,
        )


def selections_of(definition: Document, catalog: Catalog) -> Sequence[Any]:
    """The features that a definition of a service lists, as the catalog has them; NotFoundError for what it has not."""
    found: list[Any] = []
    for name, _ in definition["columns"]:
        if name in definition["on_demand"]:
            if name not in catalog.on_demand:
                raise NotFoundError(f"There is no on-demand feature '{name}'")
            found.append(catalog.on_demand[name])
            continue
        part = next(part for part in definition["parts"] if name.startswith(f"{part}__"))
        made = definition["parts"][part]
        view = catalog.view(made["view"]["view"])
        key = {key[0]: column for key, column in zip(made["view"]["keys"], made["inputs"], strict=True)}
        found.append(view.alias(part, key=key)[name.removeprefix(f"{part}__")])
    return found

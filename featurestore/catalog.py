"""Everything declared, as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from featurestore.declare.declaration import Declaration
from featurestore.declare.entity import Entity
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView, Selection
from featurestore.errors import DeclarationError, NotFoundError, RequestError, did_you_mean

D = TypeVar("D", bound=Declaration)


@dataclass(frozen=True)
class Catalog:
    """All definitions by name. What a listed definition refers to belongs to the catalog too."""

    entities: dict[str, Entity] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    views: dict[str, FeatureView] = field(default_factory=dict)
    on_demand: dict[str, OnDemand] = field(default_factory=dict)
    services: dict[str, FeatureService] = field(default_factory=dict)

    @classmethod
    def of(cls, definitions: Iterable[Any]) -> Catalog:
        """The catalog of these definitions; DeclarationError where two that differ bear one name."""
        catalog = cls()
        for item in definitions:
            catalog._add(item)
        return catalog

    def _add(self, item: Any) -> None:
        if isinstance(item, FeatureService):
            _put(self.services, item)
            for feature in item.features:
                self._add(feature)
        elif isinstance(item, OnDemand):
            _put(self.on_demand, item)
            for selection in item.selections:
                self._add(selection)
        elif isinstance(item, Selection):
            self._add(item.view)
        elif isinstance(item, FeatureView):
            _put(self.views, item)
            _put(self.entities, item.entity)
            _put(self.sources, item.source)
        elif isinstance(item, Source):
            _put(self.sources, item)
        elif isinstance(item, Entity):
            _put(self.entities, item)
        else:
            raise DeclarationError(
                f"{type(item).__name__} is no definition; entities, sources, feature views, on-demand features and "
                "feature services are"
            )

    def merged(self, other: Catalog) -> Catalog:
        """This catalog with the other's definitions put in place of those that bear the same names."""
        return Catalog(
            {**self.entities, **other.entities},
            {**self.sources, **other.sources},
            {**self.views, **other.views},
            {**self.on_demand, **other.on_demand},
            {**self.services, **other.services},
        )

    def view(self, name: str) -> FeatureView:
        """A view by name; NotFoundError with the nearest name."""
        return _find(self.views, name, "feature view")

    def service(self, name: str) -> FeatureService:
        """A service by name; NotFoundError with the nearest name."""
        return _find(self.services, name, "feature service")

    def service_of(self, features: Any) -> FeatureService:
        """A service by name, as it is, or made of a list of features: services, views, selections and on-demand features,
        each itself or by its name, "view" or "view:feature". A name that a service and a view share is the service's.

        Raises NotFoundError with the nearest name, RequestError for what names no feature.
        """
        if isinstance(features, FeatureService):
            return features
        if isinstance(features, str) and features in self.services:
            return self.services[features]
        items = features if isinstance(features, (list, tuple)) else [features]
        if not items:
            raise RequestError("The list of features is empty")
        return FeatureService("adhoc", features=[one for item in items for one in self._features(item)])

    def _features(self, item: Any) -> Iterable[FeatureView | Selection | OnDemand]:
        """What one item of a list stands for."""
        if isinstance(item, FeatureService):
            return item.features
        if isinstance(item, (FeatureView, Selection, OnDemand)):
            return [item]
        if not isinstance(item, str):
            raise RequestError(
                f"{type(item).__name__} names no feature; features are a service, a view, a selection or an on-demand feature, "
                'or the name of one: "view" or "view:feature", or a list of these'
            )
        view, colon, feature = item.partition(":")
        if colon:
            return [self.view(view)[feature]]
        found: list[Any] = [known[item] for known in (self.services, self.views, self.on_demand) if item in known]
        if not found:
            known = did_you_mean(item, {**self.services, **self.views, **self.on_demand})
            raise NotFoundError(f"There is no feature service, feature view or on-demand feature '{item}'.{known}")
        if len(found) > 1:
            raise RequestError(f"'{item}' names more than one definition; rename one, or pass the definition itself")
        return self._features(found[0])


def _put(known: dict[str, D], item: D) -> None:
    name = str(getattr(item, "name"))  # noqa: B009 - every kind of definition in a catalog has one
    first = known.setdefault(name, item)
    if first != item:
        raise DeclarationError(f"{item.title} is declared twice, with a difference: {first.origin} and {item.origin}")


def _find(known: dict[str, D], name: str, noun: str) -> D:
    if name not in known:
        raise NotFoundError(f"There is no {noun} '{name}'.{did_you_mean(name, known)}")
    return known[name]

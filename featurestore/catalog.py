"""Everything declared, as a whole."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from featurestore.declare.declaration import Declaration
from featurestore.declare.entity import Entity
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView, Selection
from featurestore.errors import DeclarationError, NotFoundError, RequestError, did_you_mean, did_you_mean_of

D = TypeVar("D", bound=Declaration)


@dataclass(frozen=True)
class Catalog:
    """All definitions by name. What a listed definition refers to belongs to the catalog too."""

    entities: dict[str, Entity] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    views: dict[str, FeatureView] = field(default_factory=dict)
    on_demand: dict[str, OnDemand] = field(default_factory=dict)
    services: dict[str, FeatureService] = field(default_factory=dict)
    applied: bool = field(default=False, compare=False)
    """Whether these are what was applied, for messages."""

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
        return self._find(self.views, name, "feature view")

    def service(self, name: str) -> FeatureService:
        """A service by name; NotFoundError with the nearest name."""
        return self._find(self.services, name, "feature service")

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
        return FeatureService.asked([one for item in items for one in self._features(item)])

    def view_and_feature(self, text: str) -> tuple[FeatureView, str]:
        """The view and the feature of it that "view:feature" names; NotFoundError with the nearest name."""
        name, _, feature = text.partition(":")
        view = self.view(name)
        if feature not in view.features:
            near = did_you_mean(feature, view.features, noun="Features")
            raise NotFoundError(f"{view.title}: no feature '{feature}'.{near} ({view.origin})")
        return view, feature

    def kind_of(self, name: str) -> str:
        """The part of a message about a name that is asked for as something else: what bears it; "" where nothing does."""
        kinds: dict[str, Container[str]] = {
            "a feature service": self.services, "a feature view": self.views, "a source": self.sources,
            "an on-demand feature": self.on_demand, "an entity": self.entities,
        }  # fmt: skip
        return next((f"; '{name}' is {kind}" for kind, known in kinds.items() if name in known), "")

    def _nearest(self, name: str) -> str:
        """The end of the message about a word that names no feature: what may be meant, and all that there is."""
        features = {f"{view.name}:{one}": one for view in self.views.values() for one in view.features}
        meant = [text for text, one in features.items() if name in {one, text.replace(":", "__")}]
        if meant:
            return f" Did you mean '{meant[0]}'?" + did_you_mean_of("", self._kinds)
        return did_you_mean_of(name, self._kinds, also=features)

    @property
    def _kinds(self) -> dict[str, Iterable[str]]:
        """What features can be asked for by, by the name of its kind."""
        return {"Feature services": self.services, "Feature views": self.views, "On-demand features": self.on_demand}

    def _find(self, known: dict[str, D], name: str, noun: str) -> D:
        if name not in known:
            raise NotFoundError(f"{self._none_called(noun, name)}{self.kind_of(name)}.{did_you_mean(name, known)}")
        return known[name]

    def _none_called(self, noun: str, name: str) -> str:
        return f"No {noun} '{name}' was applied" if self.applied else f"There is no {noun} '{name}'"

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
        if ":" in item:
            view, feature = self.view_and_feature(item)
            return [view[feature]]
        found: list[Any] = [known[item] for known in (self.services, self.views, self.on_demand) if item in known]
        if not found:
            noun = "feature service, feature view or on-demand feature"
            raise NotFoundError(f"{self._none_called(noun, item)}.{self._nearest(item)}")
        if len(found) > 1:
            raise RequestError(f"'{item}' names more than one definition; rename one, or pass the definition itself")
        return self._features(found[0])


def _put(known: dict[str, D], item: D) -> None:
    name = str(getattr(item, "name"))  # noqa: B009 - every kind of definition in a catalog has one
    first = known.setdefault(name, item)
    if first != item:
        raise DeclarationError(f"{item.title} is declared twice, with a difference: {first.origin} and {item.origin}")

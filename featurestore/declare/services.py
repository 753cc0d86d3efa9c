"""Feature services: the ordered list of features that one model version eats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from featurestore.declare.declaration import NOWHERE, Declaration, Name, declares
from featurestore.declare.drift_limits import DriftLimits, check_columns
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.problems import shown
from featurestore.declare.views import FeatureView, Selection

ADHOC = "adhoc"
"""What a list of features that somebody asks for is called where a service has a name."""


def _item(value: Any) -> Any:
    return Selection(view=value) if isinstance(value, FeatureView) else value


def _items(value: Any) -> Any:
    if isinstance(value, (FeatureView, Selection, OnDemand)):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"must be a list of views, view['x'], aliases and on-demand features, and is {shown(value)}")
    items = tuple(_item(item) for item in value)
    for item in items:
        if not isinstance(item, (Selection, OnDemand)):
            raise ValueError(f"{shown(item)} is no view, view['x'], alias or on-demand feature")
    return items


class FeatureService(Declaration):
    """The ordered list of features that one model version eats."""

    name: Name
    """Its name, by which a model asks for it."""
    features: Annotated[tuple[Selection | OnDemand, ...], BeforeValidator(_items), Field(min_length=1)]
    """Views (all their features), `view["x"]`, `view.alias(...)` and on-demand features. Their columns come in this
    order everywhere: `view__feature` (or `alias__feature`), on-demand features by their own name."""
    skew_budget: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The share of its served values, 0 to 1, that an audit may find skewed before `featurestore audit --fail-on-skew`
    fails."""
    drift_limits: DriftLimits = {}
    """How far served values may be from a baseline before `featurestore drift --fail-on-drift` fails: by measure
    (`featurestore.declare.drift_limits`) for every feature, and by column another dict of measures for that feature alone."""
    owner: str = ""
    """Who answers for it, for readers."""
    description: str = ""
    """What it is, for readers."""
    tags: dict[str, str] = {}
    """Words of your own about it, by name."""

    @declares
    def __init__(
        self,
        name: str,
        *,
        features: Sequence[FeatureView | Selection | OnDemand],
        skew_budget: float = 0.0,
        drift_limits: Mapping[str, float | Mapping[str, float]] | None = None,
        owner: str = "",
        description: str = "",
        tags: dict[str, str] | None = None,
    ) -> None:
        options = {"owner": owner, "description": description, "tags": tags or {}}
        limits = {} if drift_limits is None else drift_limits
        self.fill(name=name, features=features, skew_budget=skew_budget, drift_limits=limits, **options)

    @model_validator(mode="after")
    def _limits_are_of_its_columns(self) -> Self:
        check_columns(self.drift_limits, self.columns)
        return self

    @classmethod
    def asked(cls, features: Sequence[FeatureView | Selection | OnDemand]) -> Self:
        """What a list of features makes that somebody asks for: nothing declares it."""
        service = cls(ADHOC, features=features)
        service._origin = NOWHERE
        return service

    @property
    def title(self) -> str:
        """Its kind and name, for messages; of what is only asked for, what it is."""
        return super().title if self.origin else "The features asked for"

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature columns, in the service's order."""
        return tuple(column for item in self.features for column in item.columns)

    @property
    def on_demand(self) -> tuple[OnDemand, ...]:
        """Its on-demand features."""
        return tuple(item for item in self.features if isinstance(item, OnDemand))

    def selections(self) -> Iterator[Selection]:
        """Every selection that it needs, those that only its on-demand features read included."""
        for item in self.features:
            if isinstance(item, Selection):
                yield item
            else:
                yield from item.selections

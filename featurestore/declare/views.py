"""Feature views: features of one entity from one source, and selections of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Required, Self, Unpack

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from featurestore.declare.declaration import ColumnName, Declaration, Name, caller, declares, takes_words
from featurestore.declare.durations import Duration, PositiveDuration, show_duration
from featurestore.declare.entity import Entity
from featurestore.declare.expectations import Expectation, Expectations
from featurestore.declare.folds import EXAMPLE, Condition, Fold, Latest, expanded
from featurestore.declare.problems import shown
from featurestore.declare.sources import Refresh, RefreshOptions, Source
from featurestore.errors import DeclarationError, did_you_mean
from featurestore.report import Report, ReportTable


class ViewOptions(RefreshOptions, total=False):
    """What a view says beside its name."""

    entity: Required[Entity]
    source: Required[Source]
    features: Required[Mapping[str, Fold] | Sequence[str]]
    key: Mapping[str, str] | None
    where: str | None
    expectations: Sequence[Expectation]
    stale: Literal["serve", "withhold"]
    owner: str
    description: str
    tags: dict[str, str]


def _features(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Sequence):
        if any(isinstance(item, Fold) for item in value):
            raise ValueError("a fold has a name of its own: features={'total': Sum('x', window='7d')}")
        for place, item in enumerate(value):
            if not isinstance(item, str):
                raise ValueError(f"{shown(item)} is no name of a column; in a list each is one")
            if item in value[:place]:
                raise ValueError(f"'{item}' is listed twice")
        return {column: Latest(column) for column in value}
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a dict of folds, or a list of columns, and is {shown(value)}")
    for name, fold in value.items():
        if isinstance(fold, str):
            raise ValueError(f"'{name}' is {fold!r}, which is no fold; a column's newest value is Latest({fold!r})")
    return expanded(value)


class FeatureView(Declaration):
    """Features of one entity, computed from the rows of one source.

    What it does not say about time is inherited from the source; how it is said is in RefreshOptions.
    """

    name: Name
    """Its name, which its columns begin with: `view__feature`."""
    entity: Entity
    """What the features are about."""
    source: SerializeAsAny[Source]
    """Where the rows come from."""
    features: Annotated[dict[ColumnName, SerializeAsAny[Fold]], BeforeValidator(_features), Field(min_length=1)]
    """By name how each value is made of the rows; a list of columns is short for `Latest` of each."""
    key: dict[str, str] = {}
    """By key column of the entity the source's column, where the names differ."""
    refresh: Refresh | None = None
    """How far apart the instants are at which values change (µs); "continuous": they change at any instant. None: as
    its source says."""
    refresh_offset: Duration | None = None
    """By how much those instants are moved (µs). None: as its source says, or not at all."""
    settle: Duration | None = None
    """For how long after an instant rows are awaited that count for it (µs). None: as its source says, or not at
    all."""
    ready_after: Duration | None = None
    """How long after an instant its values are served (µs). None: as its source says, or as long as `settle`."""
    ttl: Duration | None = None
    """How far back a row still counts (µs), inclusive. None: as its source says, or without end."""
    freshness: PositiveDuration | None = None
    """How old the newest row of a continuous view may be (µs) before that is reported. None: as its source says, or
    never."""
    where: Annotated[Condition | None, EXAMPLE] = None
    """An SQL condition on the rows of all its folds; whether a key is known does not depend on it. None: all rows."""
    expectations: Expectations = ()
    """What must be true of the rows that it is made of, beside what its source expects of them."""
    stale: Literal["serve", "withhold"] = "serve"
    """Whether values older than their refresh asks for are served with a mark ("serve"), or withheld: null, WITHHELD
    ("withhold")."""
    owner: str = ""
    """Who answers for it, for readers."""
    description: str = ""
    """What it is, for readers."""
    tags: dict[str, str] = {}
    """Words of your own about it, by name."""

    @declares
    def __init__(self, name: str, **options: Unpack[ViewOptions]) -> None:
        key = options.pop("key", None)
        self.fill(name=name, key=key or {}, **options)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.key:
            if name not in self.entity.key:
                known = did_you_mean(name, self.entity.key, noun="Its keys")
                raise ValueError(f"key: entity '{self.entity.name}' has no key '{name}'.{known}")
        if self.said("refresh") is None:
            raise ValueError("refresh must be said: how often its values change, such as '1h' or '1d', or 'continuous'")
        if self.said("refresh") == "continuous":
            for option in ("refresh_offset", "settle", "ready_after"):
                if self.said(option):
                    raise ValueError(f"{option} is for refreshed views; this one is continuous")
        else:
            self._check_refreshed()
        if self.source.event_time is None and self.source.valid_from is None and self.ttl is not None:
            raise ValueError("ttl needs event_time; its source is a table without time")
        if self.expectations and self.source.kind == "push":
            raise ValueError(
                f"expectations: a pushed row is judged once, when it comes; say them of PushSource '{self.source.name}'"
            )
        return self

    def _check_refreshed(self) -> None:
        settle, refresh = self.said("settle") or 0, self.said("refresh")
        ready = self.said("ready_after")
        if ready is not None and ready < settle:
            raise ValueError(
                f"ready_after is {show_duration(ready)}, and must be at least settle, which is {show_duration(settle)}: rows are "
                "awaited for so long"
            )
        if ready is not None and ready > refresh + settle:
            raise ValueError(
                f"ready_after is {show_duration(ready)}, and must be at most refresh + settle, which is "
                f"{show_duration(refresh + settle)}: by then the next values are due"
            )
        offset = self.said("refresh_offset") or 0
        if offset >= refresh:
            raise ValueError(
                f"refresh_offset is {show_duration(offset)}, and must be shorter than refresh, which is {show_duration(refresh)}"
            )

    def said(self, option: str) -> Any:
        """The value of an option about time: the view's, or else its source's; None if neither has one."""
        own = getattr(self, option)
        return own if own is not None else getattr(self.source, option)

    def key_column(self, key: str) -> str:
        """The source column that holds an entity key."""
        return self.key.get(key, key)

    def asked_error(self, problem: str) -> DeclarationError:
        """An error about what somebody asks of the view, who stands elsewhere than the view does."""
        here = str.__str__(caller())
        at = here if here == self.origin else f"{here}; the view is declared at {self.origin}"
        return DeclarationError(f"{self.title}: {problem}", at)

    def __getitem__(self, feature: str | list[str] | tuple[str, ...]) -> Selection:
        """One feature (or a list of them), to be listed in a service or read by an on-demand function."""
        return Selection(view=self)[feature]

    @takes_words
    def alias(self, name: str, *, key: Mapping[str, str] | None = None) -> Selection:
        """The same view under another name, its entity's keys read from other columns of the spine or request."""
        for own in key if isinstance(key, Mapping) else ():
            if own not in self.entity.key:
                known = did_you_mean(own, self.entity.key, noun="Its keys")
                raise self.asked_error(f"alias '{name}': key: entity '{self.entity.name}' has no key '{own}'.{known}")
        return Selection(view=self, name=name, key=key)

    def _repr_html_(self) -> str:
        rows = [(name, fold.title, str(fold.type or "the column's")) for name, fold in self.features.items()]
        table = ReportTable(("feature", "fold", "type"), rows)
        return Report(f"FeatureView {self.name} · entity {self.entity.name}", (table,)).html()


class Selection(Declaration):
    """Some features of a view, perhaps under another name and with other key columns."""

    view: FeatureView
    name: Name
    key: dict[str, str]
    features: tuple[str, ...]

    @classmethod
    def titled(cls, args: tuple[Any, ...], said: Mapping[str, Any]) -> str:
        """That of its view."""
        view, name = said.get("view", args[0] if args else None), said.get("name")
        alias = f": alias '{name}'" if isinstance(name, str) else ": alias"
        return f"{view.title}{alias}" if isinstance(view, FeatureView) else cls.__name__

    @declares
    def __init__(
        self,
        view: FeatureView,
        *,
        name: str | None = None,
        key: Mapping[str, str] | None = None,
        features: tuple[str, ...] | None = None,
    ) -> None:
        key = {} if key is None else key
        self.fill(
            view=view,
            name=view.name if name is None else name,
            key={own: key.get(own, own) for own in view.entity.key} if isinstance(key, Mapping) else key,
            features=tuple(view.features) if features is None else features,
        )

    def __getitem__(self, feature: str | list[str] | tuple[str, ...]) -> Selection:
        """One feature of the selection, or a list of them."""
        wanted = [feature] if isinstance(feature, str) else list(feature) if isinstance(feature, (list, tuple)) else []
        if not wanted or not all(isinstance(name, str) for name in wanted):
            raise self.view.asked_error(
                f"features are asked for by a name or a list of names, and not by {shown(feature)}"
            )
        for name in wanted:
            if name not in self.features:
                raise self.view.asked_error(f"no feature '{name}'.{did_you_mean(name, self.features, noun='Features')}")
        return Selection(view=self.view, name=self.name, key=self.key, features=tuple(wanted))

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that its features have as columns."""
        return tuple(f"{self.name}__{feature}" for feature in self.features)

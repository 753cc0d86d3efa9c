"""Feast's objects as plain records: the contract with `feast_reader`, which tells them as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from featurestore.errors import ConfigError

CONTRACT = 1
"""Which form of the reader's answers is read here."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FeastField(_Record):
    """A feature, or a value of a request. type: as Feast writes it, `Array(Int64)`, or in its older words `INT64_LIST`."""

    name: str
    type: str | None = None
    description: str = ""
    vector: bool = False


class FeastNamed(_Record):
    """What every object of Feast's has. kind: its class. where: the file that declares it."""

    name: str
    kind: str = ""
    where: str = ""
    description: str = ""
    owner: str = ""
    tags: dict[str, str] = {}

    def anywhere(self) -> Any:
        """What it declares, whichever file it was met in: equal where that is the same."""
        return _without_where(self.model_dump())


def _without_where(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: _without_where(value) for name, value in told.items() if name != "where"}
    return [_without_where(one) for one in told] if isinstance(told, (list, tuple)) else told


class FeastEntity(FeastNamed):
    """An entity. keys: its join keys, of which it has one in all versions that can be used."""

    keys: tuple[str, ...]
    type: str | None = None


class FeastSource(FeastNamed):
    """A source. places: what says where its rows lie, by Feast's words (path, table, query, …). renamed: field_mapping."""

    places: dict[str, str] = {}
    event_time: str = ""
    created: str = ""
    renamed: dict[str, str] = {}
    batch: FeastSource | None = None
    fields: tuple[FeastField, ...] = ()

    def column(self, name: str) -> str:
        """The column of its rows that a name of a feature or of a time stands for."""
        return next((column for column, renamed in self.renamed.items() if renamed == name), name)


class FeastAggregation(_Record):
    """An aggregation of a column over a window; without one, over all rows."""

    column: str
    function: str
    window_seconds: float | None = None
    name: str = ""


class FeastView(FeastNamed):
    """A view of rows. keys: the fields of its join keys, where it tells their types."""

    entities: tuple[str, ...] = ()
    ttl_seconds: float | None = None
    keys: tuple[FeastField, ...] = ()
    fields: tuple[FeastField, ...] = ()
    batch: FeastSource | None = None
    stream: FeastSource | None = None
    source_views: tuple[str, ...] = ()
    online: bool = True
    transformed: bool = False
    aggregations: tuple[FeastAggregation, ...] = ()


class FeastProjection(_Record):
    """Some features of a view, perhaps under another name and with other key columns (join key → column of the spine).
    wanted: those that were asked for of a view whose features are not known yet."""

    view: str
    alias: str | None = None
    keys: dict[str, str] = {}
    fields: tuple[str, ...] = ()
    wanted: tuple[str, ...] = ()


class FeastRequest(_Record):
    """Values that a request brings."""

    name: str
    fields: tuple[FeastField, ...] = ()


class FeastCode(_Record):
    """A function. text: of it alone, its decorators included. file, line: where it stands, where that is known."""

    text: str = ""
    name: str | None = None
    file: str | None = None
    line: int | None = None


class FeastOnDemand(FeastNamed):
    """A view that a function computes. mode: "pandas", "python", … stored: whether its values are stored online."""

    fields: tuple[FeastField, ...] = ()
    inputs: tuple[FeastProjection, ...] = ()
    requests: tuple[FeastRequest, ...] = ()
    mode: str = "pandas"
    singleton: bool = False
    stored: bool = False
    aggregations: tuple[FeastAggregation, ...] = ()
    code: FeastCode = FeastCode()


class FeastService(FeastNamed):
    """A service, in its order. references: "view:feature" that are not resolved. logged: the share that is logged."""

    features: tuple[FeastProjection, ...] = ()
    references: tuple[str, ...] = ()
    logged: float | None = None


class FeastLabels(_Record):
    """A view of labels."""

    name: str
    where: str = ""


class FeastFile(_Record):
    """A file that was loaded: how many objects it declared, and the error that ended it, with its line."""

    path: str
    declared: int = 0
    error: str | None = None
    line: int | None = None


class FeastObjects(_Record):
    """All that a repository of Feast's declares. absent: the libraries that it imports and that are not installed beside Feast.
    older: words of older versions of Feast, which were read as those of the installed one.

    settings: what feature_store.yaml says, as it is written.
    """

    contract: Literal[1]
    feast: str
    python: str
    read_from: Literal["files", "registry"]
    project: str | None = None
    settings: dict[str, Any] = {}
    files: tuple[FeastFile, ...] = ()
    absent: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    entities: tuple[FeastEntity, ...] = ()
    sources: tuple[FeastSource, ...] = ()
    views: tuple[FeastView, ...] = ()
    on_demand: tuple[FeastOnDemand, ...] = ()
    labels: tuple[FeastLabels, ...] = ()
    services: tuple[FeastService, ...] = ()


def feast_objects(told: Mapping[str, Any]) -> FeastObjects:
    """The objects that a reader told; ConfigError where that is none of the contract's form."""
    if told.get("contract") != CONTRACT:
        raise ConfigError(
            f"The reader of Feast's objects speaks contract {told.get('contract')!r}, and {CONTRACT} is read: both come with "
            "one version of featurestore"
        )
    try:
        return FeastObjects(**told)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"What Feast's objects were told as cannot be read: {place}: {first['msg']}") from None

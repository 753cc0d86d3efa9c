"""Push sources: rows that applications send one by one, kept in the store's own log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Required, Self, Unpack

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from featurestore.clock import instant_of, to_datetime
from featurestore.declare.declaration import ColumnName, Name, TypeField, declares
from featurestore.declare.durations import PositiveDuration, parse_duration
from featurestore.declare.expectations import Expectation, RowExpectation
from featurestore.declare.sources import RefreshOptions, Source, aware
from featurestore.declare.streams import Stream
from featurestore.errors import PushError, did_you_mean
from featurestore.types import FeatureType

KNOWN_AT, REPLACES = "known_at", "__replaces"
"""The log's own columns, int64 µs: when the store learned of a row, and the known_at of the version that it replaces."""

DEFAULT_LATENESS, DEFAULT_TOLERANCE = parse_duration("7d"), parse_duration("1s")


class PushOptions(RefreshOptions, total=False):
    """What a push source says; see SourceOptions for more of the options that all sources share."""

    schema: Required[Mapping[str, FeatureType | str]]
    """By name the type of each column of a pushed row."""
    event_time: Required[str]
    """The column of when a row happened, a Timestamp."""
    identity: str | list[str] | tuple[str, ...]
    """The columns that name a row: a row pushed again changes nothing, one that differs replaces the last. Empty: every
    row counts."""
    tiebreak: str | list[str] | tuple[str, ...]
    """The columns that order rows of equal times."""
    deleted: str | None
    """The boolean column of a version that makes its row vanish. None: no row vanishes."""
    until: str | None
    """The column where a row's validity ends. None: it has no end."""
    lateness: Any
    """Rows that happened longer ago are kept aside, and identities are remembered that long: "7d" where nothing is
    said."""
    tolerance: Any
    """How far ahead of the store's clock a row may have happened: "1s" where nothing is said."""
    history: Source | None
    """A batch source with the same columns, of which the rows count that happened and were known up to `cutover`. None:
    there is none."""
    cutover: datetime | None
    """Until when the history counts; rows are pushed after it. None: there is no history."""
    stream: Stream | None
    """A KafkaStream or a RedisStream, whose messages `featurestore consume` pushes. None: there is none."""
    derived: Mapping[str, str]
    """New columns as SQL expressions over the source's own."""
    expectations: Sequence[Expectation]
    """What must be true of each row, in the columns of its schema: judged when it is pushed, and of its history when that is read."""
    owner: str
    """Who answers for it, for readers."""
    description: str
    """What it is, for readers."""
    tags: dict[str, str]
    """Words of your own about it, by name."""


class PushSource(Source):
    """Rows that are pushed: `PushSource("swipes", schema={"card": String, "at": Timestamp, "amount": Float64}, event_time="at")`.

    The store says when it learned of each row, on the online store's clock. A view over it is continuous unless it says
    otherwise.
    """

    SAID_AS: ClassVar[Mapping[str, str]] = {"columns": "schema"}

    kind: Literal["push"] = "push"
    """Which of the sources it is."""
    columns: Annotated[dict[ColumnName, TypeField], Field(min_length=1, examples=["{'user': String}"])]
    """By name the type of each column of a pushed row; it is given as `schema`."""
    event_time: str
    """The column of when a row happened, a Timestamp."""
    lateness: PositiveDuration = DEFAULT_LATENESS
    """For how long (µs) a row may be late, and its identity is remembered; rows that happened longer ago are kept
    aside."""
    tolerance: PositiveDuration = DEFAULT_TOLERANCE
    """How far ahead of the store's clock (µs) a row may have happened."""
    history: SerializeAsAny[Source] | None = None
    """The batch source whose rows count up to `cutover`. None: there is none."""
    cutover: Annotated[datetime, AfterValidator(aware)] | None = None
    """Until when the history counts, in UTC. None: there is no history."""
    stream: SerializeAsAny[Stream] | None = None
    """The stream whose messages are pushed to it. None: there is none."""

    @declares
    def __init__(self, name: Name, **options: Unpack[PushOptions]) -> None:
        said: dict[str, Any] = {"refresh": "continuous", **options}
        self.fill(name=name, columns=said.pop("schema", {}), **said)

    @property
    def cutover_instant(self) -> int | None:
        """The instant (µs) up to which rows of the history count; None for a source without a history."""
        return None if self.cutover is None else instant_of(self.cutover)

    def is_open(self, now: int) -> bool:
        """Whether rows can be pushed at `now` (µs): its history, if it has one, is over."""
        return self.cutover_instant is None or now >= self.cutover_instant

    def check_open(self, now: int) -> None:
        """PushError where rows cannot be pushed yet."""
        if self.cutover_instant is not None and not self.is_open(now):
            raise PushError(
                f"{self.title} takes rows from its cutover on, {to_datetime(self.cutover_instant).isoformat()}; at "
                f"{to_datetime(now).isoformat()} its history still counts"
            )

    @model_validator(mode="after")
    def _pushed(self) -> Self:
        lower: dict[str, str] = {}
        for column in self.columns:
            if column.lower() == KNOWN_AT:
                raise ValueError(f"schema: a pushed row has no column '{column}': the store says when it learned of it")
            other = lower.setdefault(column.lower(), column)
            if other != column:
                raise ValueError(
                    f"schema: columns '{other}' and '{column}' differ in case alone, which SQL cannot tell apart"
                )
        for column in self.option_columns:
            if column not in self.columns:
                hint = did_you_mean(column, self.columns, noun="Its columns")
                raise ValueError(f"{self.option_of(column)}: the schema has no column '{column}'.{hint}")
        if self.columns[self.event_time].kind != "Timestamp":
            raise ValueError(
                f"event_time column '{self.event_time}' is {self.columns[self.event_time]}, and must be Timestamp"
            )
        for column in self.stream.fields if self.stream is not None else ():
            if column not in self.columns:
                hint = did_you_mean(column, self.columns, noun="Its columns")
                raise ValueError(f"stream: fields: the schema has no column '{column}'.{hint}")
        self._check_expectations()
        if (self.history is None) != (self.cutover is None):
            raise ValueError("history and cutover go together: the batch rows, and until when they count")
        if self.history is not None:
            self._check_history(self.history)
        return self

    def _check_expectations(self) -> None:
        for one in self.expectations:
            if not isinstance(one, RowExpectation):
                raise ValueError(
                    f"expectations: {one.title} is about all rows together, and rows are pushed one by one"
                )
            if one.column not in self.columns:
                hint = did_you_mean(one.column, self.columns, noun="Its columns")
                raise ValueError(f"expectations: the schema has no column '{one.column}'.{hint}")
            one.limits(self.columns[one.column])

    def _check_history(self, history: Source) -> None:
        if history.expectations:
            raise ValueError("its history has expectations; say them of the push source, whose rows both are")
        if history.known_at is None and not history.known_after:
            raise ValueError(
                "its history must say known_at, or known_after longer than 0: an event is no part of its own features"
            )
        if history.kind == "push":
            raise ValueError("its history is a batch source; what was pushed before is another PushSource's")
        if history.identity:
            raise ValueError("its history has an identity; give it one row for each event, since all of its rows count")
        if history.event_time != self.event_time or history.period is not None:
            raise ValueError(
                f"its history must have the event_time '{self.event_time}' too, and no period: rows of both are one table"
            )

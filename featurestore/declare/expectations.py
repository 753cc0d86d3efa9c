"""Expectations: what must be true of the rows of a source or a view, and what becomes of rows of which it is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Literal, TypedDict, Unpack

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, SerializeAsAny, model_validator

from featurestore.declare.declaration import Declaration, declares
from featurestore.declare.durations import PositiveDuration, show_duration
from featurestore.declare.problems import shown
from featurestore.types import FarDate, FarTimestamp, FeatureType, Float64, Int64, to_json

Otherwise = Literal["refuse", "quarantine", "warn"]


class ExpectationOptions(TypedDict, total=False):
    """What every expectation may say."""

    otherwise: Otherwise
    """What happens where it is not met. "refuse": nothing is trained, materialized or taken. "quarantine": such a row counts
    nowhere, and is kept and counted. "warn": it counts, and is counted."""


_READ: Mapping[str, Callable[[str], Any]] = {
    "decimal": Decimal, "date": date.fromisoformat, "timestamp": datetime.fromisoformat,
}  # fmt: skip


def _value(given: Any) -> Any:
    """A number, text, boolean, day or instant; as `_plain` wrote it, or itself."""
    if isinstance(given, Mapping) and len(given) == 1:
        ((kind, text),) = given.items()
        if isinstance(text, str) and kind in _READ:
            return _READ[kind](text)
    if isinstance(given, (FarDate, FarTimestamp)) or not isinstance(given, (bool, int, float, Decimal, str, date)):
        raise ValueError(f"must be a number, text, a boolean, a date or a datetime, and is {shown(given)}")
    if isinstance(given, (float, Decimal)) and not math.isfinite(given):
        raise ValueError(f"must be finite, and is {given}")
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ValueError("an instant must have a zone: datetime(…, tzinfo=UTC)")
        return given.astimezone(UTC)
    return _text(given) if isinstance(given, str) else given


def _plain(value: Any) -> Any:
    """A value as plain JSON that tells its kind."""
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    if isinstance(value, datetime):
        return {"timestamp": value.isoformat()}
    return {"date": value.isoformat()} if isinstance(value, date) else value


def _text(given: str) -> str:
    if "\0" in given:
        raise ValueError("text must not hold a NUL")
    given.encode()  # a UnicodeEncodeError is a ValueError
    return given


Value = Annotated[Any, PlainValidator(_value), PlainSerializer(_plain)]
RANGED = ("Int32", "Int64", "Float32", "Float64", "Decimal", "Date", "Timestamp")
LONGEST_TITLE = 300
"""Characters of an expectation by which messages, counts and metrics call it."""
LISTED = ("Int32", "Int64", "String", "Bool", "Date", "Decimal")


class Expectation(Declaration):
    """Something that must be true of rows, and what becomes of it where it is not."""

    takes: ClassVar[tuple[str, ...]] = ()
    """Its own parameters."""

    kind: str
    """Which of the expectations it is."""
    otherwise: Otherwise = "refuse"
    """What happens where it is not met: "refuse", "quarantine" or "warn"."""

    @property
    def title(self) -> str:
        """As it is written, without what happens otherwise. Of a long one the beginning, and by what it is known from others."""
        said = ((name, getattr(self, name)) for name in self.takes)
        inside = [
            repr(value) if name == "column" else f"{name}={_shown(value)}" for name, value in said if value is not None
        ]
        whole = f"{type(self).__name__}({', '.join(inside)})"
        if len(whole) <= LONGEST_TITLE:
            return whole
        return f"{whole[:LONGEST_TITLE]}… {blake2b(whole.encode(), digest_size=4).hexdigest()})"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value) if isinstance(value, (Decimal, date)) else repr(value)


class RowExpectation(Expectation):
    """What each row must be by itself, in one of its columns. A null meets all of these but NotNull, and so does a row that deletes."""

    column: str

    def limits(self, of: FeatureType) -> tuple[Any, ...]:  # noqa: ARG002 - the others' values are of it
        """Its parameters as values of a column's type, as they are compared; ValueError where they are none."""
        return ()

    def meaning(self, of: FeatureType) -> list[Any]:
        """All that says which rows meet it, as plain JSON; equal where they are the same."""
        return [self.kind, self.column, *(to_json(compared(of), limit) for limit in self.limits(of))]

    def _checked(self, of: FeatureType, kinds: tuple[str, ...]) -> None:
        if of.kind not in kinds:
            raise ValueError(f"{self.title}: column '{self.column}' is {of}, and it is for {', '.join(kinds)}")

    def _limit(self, of: FeatureType, name: str, value: Any) -> Any:
        try:
            return compared(of).accept(value)
        except ValueError as error:
            raise ValueError(f"{self.title}: {name} must be {of}, as column '{self.column}' is: {error}") from None


def compared(of: FeatureType) -> FeatureType:
    """The type as which values of a column are compared with limits."""
    return {"Int32": Int64, "Float32": Float64}.get(of.kind, of)


class NotNull(RowExpectation):
    """A column has a value in each row."""

    takes: ClassVar[tuple[str, ...]] = ("column",)

    kind: Literal["not_null"] = "not_null"
    """Which of the expectations it is."""

    @declares
    def __init__(self, column: str, **options: Unpack[ExpectationOptions]) -> None:
        self.fill(column=column, **options)


class InRange(RowExpectation):
    """A number, day or instant lies between two limits, both inclusive; NaN lies in no range."""

    takes: ClassVar[tuple[str, ...]] = ("column", "at_least", "at_most")

    kind: Literal["in_range"] = "in_range"
    """Which of the expectations it is."""
    at_least: Value | None = None
    """The least value that there may be. None: there is none."""
    at_most: Value | None = None
    """The greatest value that there may be. None: there is none."""

    @declares
    def __init__(
        self, column: str, *, at_least: Any = None, at_most: Any = None, **options: Unpack[ExpectationOptions]
    ) -> None:
        self.fill(column=column, at_least=at_least, at_most=at_most, **options)

    @model_validator(mode="after")
    def _bounded(self) -> InRange:
        if self.at_least is None and self.at_most is None:
            raise ValueError("say at_least or at_most, or both")
        return self

    def limits(self, of: FeatureType) -> tuple[Any, ...]:
        """The least value and the greatest; None where there is none."""
        self._checked(of, RANGED)
        least, most = (self._limit(of, name, getattr(self, name)) for name in ("at_least", "at_most"))
        if least is not None and most is not None and least > most:
            raise ValueError(f"{self.title}: at_least is greater than at_most, so no value lies between them")
        return least, most


def _values(given: Any) -> Any:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ValueError(f"must be a list of values, and is {shown(given)}")
    return tuple(given)


class InSet(RowExpectation):
    """A value is one of a list."""

    takes: ClassVar[tuple[str, ...]] = ("column", "values")

    kind: Literal["in_set"] = "in_set"
    """Which of the expectations it is."""
    values: Annotated[tuple[Value, ...], BeforeValidator(_values), Field(min_length=1)]
    """The values that there may be."""

    @declares
    def __init__(self, column: str, values: Iterable[Any], **options: Unpack[ExpectationOptions]) -> None:
        self.fill(column=column, values=values, **options)

    def limits(self, of: FeatureType) -> tuple[Any, ...]:
        """The values, each once, in their order."""
        self._checked(of, LISTED)
        return tuple(sorted({self._limit(of, "each of values", value) for value in self.values}))


def _pattern(given: Any) -> Any:
    return _text(given) if isinstance(given, str) else given


class Matches(RowExpectation):
    """Text matches a regular expression (RE2's syntax) as a whole."""

    takes: ClassVar[tuple[str, ...]] = ("column", "pattern")

    kind: Literal["matches"] = "matches"
    """Which of the expectations it is."""
    pattern: Annotated[str, BeforeValidator(_pattern), Field(min_length=1)]
    """The regular expression."""

    @declares
    def __init__(self, column: str, pattern: str, **options: Unpack[ExpectationOptions]) -> None:
        self.fill(column=column, pattern=pattern, **options)

    def limits(self, of: FeatureType) -> tuple[Any, ...]:
        """The pattern."""
        self._checked(of, ("String",))
        return (self.pattern,)


class SourceExpectation(Expectation):
    """What the rows of a source must be together; there is no row to put aside where they are not."""

    @model_validator(mode="after")
    def _of_all_rows(self) -> SourceExpectation:
        if self.otherwise == "quarantine":
            raise ValueError(
                "otherwise: it is about all rows together, so there is none to quarantine; say 'refuse' or 'warn'"
            )
        return self


def _columns(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


class Unique(SourceExpectation):
    """No two rows have equal values in these columns; rows with a null in one of them are left out."""

    takes: ClassVar[tuple[str, ...]] = ("columns",)

    kind: Literal["unique"] = "unique"
    """Which of the expectations it is."""
    columns: Annotated[tuple[str, ...], BeforeValidator(_columns), Field(min_length=1)]
    """The columns that are compared together."""

    @declares
    def __init__(self, columns: str | list[str] | tuple[str, ...], **options: Unpack[ExpectationOptions]) -> None:
        self.fill(columns=columns, **options)


class Freshness(SourceExpectation):
    """The newest row was learned at most so long ago."""

    takes: ClassVar[tuple[str, ...]] = ("within",)

    kind: Literal["freshness"] = "freshness"
    """Which of the expectations it is."""
    within: PositiveDuration
    """How long ago (µs) the newest row may have been learned."""

    @declares
    def __init__(self, within: Any, **options: Unpack[ExpectationOptions]) -> None:
        self.fill(within=within, **options)

    @property
    def title(self) -> str:
        """As it is written."""
        return f"Freshness(within={show_duration(self.within)!r})"


class RowCount(SourceExpectation):
    """A source has a number of rows that fits that of the last load, which is the last run of materialize."""

    takes: ClassVar[tuple[str, ...]] = ("at_least", "at_most")

    kind: Literal["row_count"] = "row_count"
    """Which of the expectations it is."""
    at_least: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """The least share of the last load's rows, as 0.9. None: there is none."""
    at_most: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """The greatest share of the last load's rows, as 2. None: there is none."""

    @declares
    def __init__(
        self,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        **options: Unpack[ExpectationOptions],
    ) -> None:
        self.fill(at_least=at_least, at_most=at_most, **options)

    @model_validator(mode="after")
    def _bounded(self) -> RowCount:
        if self.at_least is None and self.at_most is None:
            raise ValueError("say at_least or at_most, or both")
        return self


def _expectations(given: Any) -> Any:
    if isinstance(given, Expectation):
        return (given,)
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"must be a list of expectations, such as [NotNull('amount')], and is {shown(given)}")
    for item in given:
        if not isinstance(item, Expectation):
            raise ValueError(f"{shown(item)} is no expectation, such as NotNull('amount')")
    return tuple(given)


Expectations = Annotated[tuple[SerializeAsAny[Expectation], ...], BeforeValidator(_expectations)]

"""The columns of a test's rows: dicts of Python values and ISO text as Arrow, and the types that values show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from featurestore.clock import datetime_of, instant_of
from featurestore.declare.sources import Source
from featurestore.errors import SourceError
from featurestore.lazy import pa
from featurestore.number_texts import decimal_of


def column_of(source: Source, name: str, rows: Sequence[Mapping[str, Any]], *, of: pa.DataType) -> pa.Array:
    """A column of dict rows as Arrow of type `of`; SourceError names the row whose value does not fit."""
    values = []
    for n, row in enumerate(rows):
        try:
            value = _value(row.get(name), of, ZoneInfo(source.timezone or "UTC"))
            pa.scalar(value, of)
        except (ValueError, TypeError, OverflowError) as error:
            raise SourceError(
                f"{source.title}: row {n} has {name}={row[name]!r}, and the column is {of}: {error}"
            ) from None
        values.append(value)
    return pa.array(values, of)


def _value(value: Any, of: pa.DataType, zone: ZoneInfo) -> Any:
    """A value as Arrow takes it for a column of type `of`.

    Text is read as a date, an instant or a decimal. An instant loses its zone in a column of local times; a local time
    in a column of instants is the later one where it is ambiguous, as everywhere.
    """
    if isinstance(value, str) and pa.types.is_date(of):
        return date.fromisoformat(value)
    if isinstance(value, str) and pa.types.is_decimal(of):
        return decimal_of(value)
    if not pa.types.is_timestamp(of):
        return value
    moment = datetime_of(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime) or (moment.tzinfo is None) == (of.tz is None):
        return moment
    if moment.tzinfo is None:
        return max((moment.replace(tzinfo=zone, fold=fold) for fold in (0, 1)), key=instant_of)
    return moment.astimezone(zone).replace(tzinfo=None)


def time_type(source: Source, name: str, values: Sequence[Any]) -> pa.DataType:
    """What the values of a time word are: dates, instants, or local times in the source's timezone."""
    kinds = set()
    for value in values:
        try:
            moment = datetime_of(value) if isinstance(value, str) else value
        except ValueError:
            raise SourceError(f"{source.title}: {name}={value!r} is no time such as '2013-01-01T12:10Z'") from None
        if not isinstance(moment, date):  # a datetime is one too
            raise SourceError(f"{source.title}: {name}={value!r} is no time; pass a datetime or ISO text")
        day = len(value) == 10 if isinstance(value, str) else not isinstance(moment, datetime)
        kinds.add("dates" if day else "times without a zone" if getattr(moment, "tzinfo", None) is None else "instants")
    if len(kinds) > 1:
        raise SourceError(f"{source.title}: column '{name}' mixes {' and '.join(sorted(kinds))}")
    types = {"dates": pa.date32(), "times without a zone": pa.timestamp("us")}
    return types.get(kinds.pop() if kinds else "", pa.timestamp("us", "UTC"))


def inferred(source: Source, name: str, values: Sequence[Any]) -> pa.DataType:
    """The type that values have in common; SourceError where there is none."""
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SourceError(f"{source.title}: the values of column '{name}' have no type in common: {error}") from None

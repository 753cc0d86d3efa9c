"""Which rows meet an expectation: each kind written here once, in SQL and over Arrow side by side.

A null meets all but NotNull. A row that is not met by an expectation that refuses or quarantines counts nowhere, as if nobody
had ever learned of it: see `timed_sql` for the rows of files; a pushed one never comes into the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.declare.expectations import RowExpectation, compared
from featurestore.declare.push import PushSource
from featurestore.declare.sources import Source
from featurestore.lazy import pa, pc
from featurestore.semantics.columns import read_sql, type_of_column
from featurestore.semantics.sql import literal, quote
from featurestore.types import FeatureType, micros_of

Flags = npt.NDArray[np.bool_]


class SettledExpectation(NamedTuple):
    """An expectation of rows, the type of its column, and its parameters as values of that."""

    said: RowExpectation
    type: FeatureType
    limits: tuple[Any, ...]

    @property
    def removes(self) -> bool:
        """Whether a row that does not meet it counts nowhere."""
        return self.said.otherwise != "warn"

    @property
    def meaning(self) -> list[Any]:
        """All that says which rows meet it, as plain JSON."""
        return self.said.meaning(self.type)

    def is_of(self, raw: str) -> bool:
        """Whether it means the same of a column of a DuckDB type."""
        of = type_of_column(raw)
        return not self.limits or (of is not None and compared(of) == compared(self.type))


def settle(said: RowExpectation, of: FeatureType) -> SettledExpectation:
    """An expectation of a column of a type; ValueError where it is none that such a column can meet."""
    settled = SettledExpectation(said, of, said.limits(of))
    if said.kind == "matches":
        pattern = settled.limits[0]
        try:
            for tried in (pattern, _whole(pattern)):  # alone too: what would close the parentheses around it is none
                pc.match_substring_regex(pa.array([""]), tried)
        except pa.ArrowInvalid as error:
            why = str(error).removeprefix("Invalid regular expression: ").removesuffix(f": {_whole(pattern)}")
            why += r"; end with \E what begins with \Q" if tried != pattern else ""
            raise ValueError(f"{said.title}: it is no regular expression of RE2: {why}") from None
    return settled


def _whole(pattern: str) -> str:
    """A pattern that matches where this one matches as a whole."""
    return rf"\A(?:{pattern})\z"


def pushed_expectations(source: PushSource) -> tuple[SettledExpectation, ...]:
    """Those of a push source, over the columns of its schema; DeclarationError where one cannot be met by its column."""
    try:
        rows = [one for one in source.expectations if isinstance(one, RowExpectation)]
        return tuple(settle(one, source.columns[one.column]) for one in rows)
    except ValueError as error:
        raise source.error(f"expectations: {error}") from None


class _BothForms(NamedTuple):
    """Whether a value meets a kind of expectation; null where it is null, and may be either.

    sql: of the SQL of the value, its type, and the limits. arrow: of an array, its type, and the limits.
    """

    sql: Callable[[str, FeatureType, tuple[Any, ...]], str]
    arrow: Callable[[Any, FeatureType, tuple[Any, ...]], Any]


def _range_sql(value: str, of: FeatureType, limits: tuple[Any, ...]) -> str:
    least, most = limits
    terms = [f"NOT isnan({value})"] if of.is_float else []
    terms += [] if least is None else [f"{value} >= {_literal(of, least)}"]
    terms += [] if most is None else [f"{value} <= {_literal(of, most)}"]
    return " AND ".join(terms)


def _range(values: Any, of: FeatureType, limits: tuple[Any, ...]) -> Any:
    least, most = limits
    within: Any = pc.is_valid(values)  # a NaN is neither at least nor at most anything
    if least is not None:
        within = pc.and_(within, pc.greater_equal(values, _scalar(of, least)))
    if most is not None:
        within = pc.and_(within, pc.less_equal(values, _scalar(of, most)))
    return within


def _set_sql(value: str, of: FeatureType, limits: tuple[Any, ...]) -> str:
    return f"{value} IN ({', '.join(_literal(of, limit) for limit in limits)})"


FORMS: dict[str, _BothForms] = {
    "not_null": _BothForms(lambda value, _, __: f"{value} IS NOT NULL", lambda values, _, __: pc.is_valid(values)),
    "in_range": _BothForms(_range_sql, _range),
    "in_set": _BothForms(
        _set_sql,
        lambda values, of, limits: pc.is_in(values, pa.array([*limits, None], of.arrow)),
    ),
    "matches": _BothForms(
        lambda value, _, limits: f"regexp_full_match({value}, {literal(limits[0])})",
        lambda values, _, limits: pc.match_substring_regex(values, _whole(limits[0])),
    ),
}
"""By kind both forms."""


def _scalar(of: FeatureType, value: Any) -> Any:
    return pa.scalar(value, of.arrow)


def _literal(of: FeatureType, value: Any) -> str:
    """A canonical scalar as SQL."""
    if of.kind == "String":
        return literal(value)
    if of.kind == "Timestamp":
        return f"timezone('UTC', make_timestamp({micros_of(value)}))"
    if of.kind == "Bool":
        return "true" if value else "false"
    return f"CAST({literal(str(value))} AS {of.duckdb})"


def met_sql(one: SettledExpectation, raw: str, zone: str) -> str:
    """Whether a source row meets an expectation; raw: the DuckDB type of its column. zone: that of naive timestamps.

    `TRY` hides from the engine what a file's statistics say of a column of floats, which leave NaN out.
    """
    column = f"TRY({quote(one.said.column)})" if one.type.is_float else quote(one.said.column)
    if one.said.kind == "not_null":
        return FORMS["not_null"].sql(column, one.type, one.limits)
    of = compared(one.type)
    return f"coalesce({FORMS[one.said.kind].sql(read_sql(column, raw, of, zone), of, one.limits)}, true)"


def met(one: SettledExpectation, values: pa.Array | pa.ChunkedArray) -> Flags:
    """Whether each value of a column meets an expectation."""
    of = compared(one.type)
    if one.said.kind != "not_null":
        values = values.cast(of.arrow)
    found = FORMS[one.said.kind].arrow(values, of, one.limits)
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    flags: Flags = pc.fill_null(found, True).to_numpy(zero_copy_only=False).astype(bool)
    return flags


def unmet_sql(
    source: Source, expectations: Sequence[SettledExpectation], raw: Mapping[str, str], deletes: str
) -> list[str]:
    """Whether a source row does not meet each expectation, in their order. deletes: whether it deletes, of which nothing is expected."""
    zone = source.timezone or "UTC"
    kept = f"NOT ({deletes}) AND " if deletes else ""
    return [f"({kept}NOT {met_sql(one, raw[one.said.column], zone)})" for one in expectations]


def unmet(source: Source, expectations: Sequence[SettledExpectation], rows: pa.Table) -> list[Flags]:
    """The same of each row of a table."""
    kept = np.ones(rows.num_rows, bool)
    if source.deleted is not None and expectations:
        kept = ~pc.fill_null(rows[source.deleted], False).to_numpy().astype(bool)
    return [kept & ~met(one, rows[one.said.column]) for one in expectations]


def removing(expectations: Iterable[SettledExpectation]) -> list[int]:
    """The places of those whose unmet rows count nowhere."""
    return [place for place, one in enumerate(expectations) if one.removes]

"""A source's columns as SQL reads them: keys, times and cells, and the terms of rule 2 that order its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.declare.sources import Source
from featurestore.semantics.columns import RawColumns, floored_sql, floored_type, instant_sql, read_sql
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.order import order_sql
from featurestore.semantics.sql import quote
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.view import ResolvedView
from featurestore.types import FeatureType

ARRIVED = "__arrived"
"""BIGINT µs, beside the columns of a source of files: when the store first saw the file that a row lies in."""


class Scan(NamedTuple):
    """How SQL reads a source: a FROM item, and the two of its columns, as SQL names them, that together point at one of its
    rows; no column of the source has their names, whatever these are."""

    relation: str
    file: str
    row: str
    forgotten: ForgottenKeys | None = None
    """The keys whose rows do not count."""


def key_list(view: ResolvedView, table: str = "") -> str:
    """The key columns as the as-of query names them, `k0, k1, …`; one constant column for an entity without keys."""
    prefix = f"{table}." if table else ""
    return ", ".join(f"{prefix}k{i}" for i in range(max(1, len(view.keys))))


def has_key(view: ResolvedView) -> str:
    """That no key column is null: a row or a request with such a key belongs to nothing."""
    return " AND ".join(f"k{i} IS NOT NULL" for i in range(len(view.keys))) or "true"


def same_key(view: ResolvedView, one: str, other: str) -> str:
    """That two tables of which each has `key_list` bear one key."""
    return " AND ".join(f"{one}.k{i} = {other}.k{i}" for i in range(max(1, len(view.keys))))


def cell(column: str) -> str:
    """A source column as it is named in `words_sql`, where no name of ours can meet it."""
    return quote(f"c_{column}")


def happened_of(source: Source, raw: Mapping[str, str]) -> str:
    """BIGINT µs: when a row happened. Rows without time happened at the beginning, or at `valid_from`."""
    if source.event_time is not None:
        return instant_sql(source, quote(source.event_time), raw[source.event_time], happened=True)
    if source.valid_from is not None:
        return instant_sql(source, quote(source.valid_from), raw[source.valid_from])
    return f"CAST({BEGINNING} AS BIGINT)"


def own_columns(source: Source) -> tuple[str, ...]:
    """The BIGINT columns that the store itself adds to a source's rows."""
    if isinstance(source, PushSource):
        return (KNOWN_AT, REPLACES)
    return (ARRIVED,) if source.arrives else ()


def read_columns(source: Source, views: Iterable[ResolvedView], raw: RawColumns) -> dict[str, str]:
    """The own columns of a source that views read, with their DuckDB types, those of its derived columns among them. raw: all of its
    columns."""
    named = {column for view in views for column in view.raw}
    if source.derived:  # any of which may name any column
        named |= set(raw)
    beside = {*source.derived, *own_columns(source)}
    return {column: of for column, of in raw.items() if column in named and column not in beside}


def known_of(source: Source, raw: Mapping[str, str]) -> str:
    """BIGINT µs: when a row was learned, as it is ordered by."""
    if isinstance(source, PushSource):
        return KNOWN_AT
    if source.arrives:
        return ARRIVED
    if source.known_at is not None:
        return instant_sql(source, quote(source.known_at), raw[source.known_at])
    return f"{happened_of(source, raw)} + {source.known_after}"


def until_sql(view: ResolvedView) -> str:
    """BIGINT µs: the end of a row's validity, END where it is open."""
    until = view.source.until
    if until is None:
        return f"CAST({END} AS BIGINT)"
    epoch = "DATE '1970-01-01'" if view.raw[until] == "DATE" else "TIMESTAMP '1970-01-01'"
    infinite = f"CASE WHEN {cell(until)} < {epoch} THEN {BEGINNING} ELSE {END} END"  # it has no µs
    return f"coalesce({instant_sql(view.source, cell(until), floored_type(view.raw[until]))}, {infinite})"


def cell_sql(view: ResolvedView, column: str) -> str:
    """A column as `cell` names it, its timestamps floored to µs."""
    return f"{floored_sql(quote(column), view.raw[column])} AS {cell(column)}"


def read_cell(view: ResolvedView, column: str, of: FeatureType, *, table: str = "") -> str:
    """A cell as a value of a type."""
    return read_sql(table + cell(column), floored_type(view.raw[column]), of, view.source.timezone or "UTC")


def order_terms(view: ResolvedView, *, first: tuple[str, ...]) -> list[str]:
    """Ascending ORDER BY terms: `first`, then the canonical bytes of all columns that the view reads, by name."""
    terms = [f"{name} ASC NULLS FIRST" for name in first]
    for column in sorted(view.columns):
        terms += order_sql(cell(column), view.columns[column])
    return terms


def tiebreak_terms(view: ResolvedView) -> list[str]:
    """Ascending ORDER BY terms of the source's tiebreak columns."""
    return [term for column in view.source.tiebreak for term in order_sql(cell(column), view.columns[column])]


def learned_terms(view: ResolvedView) -> list[str]:
    """Ascending ORDER BY terms of the versions of one identity; the greatest was learned last."""
    version = view.source.version
    return [
        *(order_sql(cell(version), view.columns[version]) if version else []),
        *order_terms(view, first=("learned_us", "event_us"))[:2],
        *tiebreak_terms(view),
        *order_terms(view, first=()),
    ]


def identity_terms(view: ResolvedView) -> str:
    """The expressions whose values are equal for versions of one row."""
    return ", ".join(_grouped(view, column) for column in view.source.identity)


def _grouped(view: ResolvedView, column: str) -> str:
    """An identity column as it is compared: floats by sign too, since DuckDB thinks that -0.0 = 0.0; see `order_sql`."""
    name = cell(column)
    return f"{name} + 0, ({name} = 0 AND signbit({name}))" if view.columns[column].is_float else name

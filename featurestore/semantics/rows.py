"""Rule 1 as SQL: a source's rows with the two instants between which each of them counts.

A row counts at as_of when `counts_from <= as_of < counts_until`, where

    counts_from  = greatest(event_time, known − settle)     it has happened, and is known by as_of + settle
    counts_until = superseded − settle                      from then on a later version of its identity is known

because known_by is as_of + settle for every lookup of a view. Whether it still lies within the ttl is judged
afterwards, on the one row that was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from featurestore.clock import instant_of
from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.declare.sources import Source
from featurestore.semantics.columns import floored_sql, floored_type, instant_sql, order_sql, read_sql
from featurestore.semantics.expressions import guarded
from featurestore.semantics.sql import quote
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.view import ResolvedView
from featurestore.types import FeatureType

__all__ = [
    "ARRIVED",
    "Scan",
    "cell",
    "cell_sql",
    "happened_of",
    "has_key",
    "identity_terms",
    "invalid_sql",
    "kept_terms",
    "key_list",
    "known_of",
    "learned_terms",
    "named_terms",
    "order_terms",
    "own_columns",
    "read_cell",
    "rows_sql",
    "tiebreak_terms",
    "until_sql",
    "visible_known_of",
    "whole_sql",
    "whole_terms",
    "words_sql",
]

ARRIVED = "__arrived"
"""BIGINT µs, beside the columns of a source of files: when the store first saw the file that a row lies in."""


class Scan(NamedTuple):
    """How SQL reads a source: a FROM item, and the two of its columns, as SQL names them, that together point at one of its
    rows; no column of the source has their names, whatever these are."""

    relation: str
    file: str
    row: str


def key_list(view: ResolvedView, table: str = "") -> str:
    """The key columns as the as-of query names them, `k0, k1, …`; one constant column for an entity without keys."""
    prefix = f"{table}." if table else ""
    return ", ".join(f"{prefix}k{i}" for i in range(max(1, len(view.keys))))


def has_key(view: ResolvedView) -> str:
    """That no key column is null: a row or a request with such a key belongs to nothing."""
    return " AND ".join(f"k{i} IS NOT NULL" for i in range(len(view.keys))) or "true"


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


def words_sql(view: ResolvedView, scan: Scan, *, conditions: Sequence[str] = ()) -> str:
    """The source's rows: `k…` (key), `event_us` (happened), `learned_us` (known, for order), `known` (for
    visibility), `file`, `row`, each column that the view reads as `cell` names it, and whether each of the conditions is true, `w0, w1, …`."""
    zone = view.source.timezone or "UTC"
    keys = [read_sql(quote(key.column), view.raw[key.column], key.type, zone) for key in view.keys] or ["0"]
    cells = [cell_sql(view, column) for column in view.columns]
    tests = [f"(({text}) IS TRUE) AS w{i}" for i, text in enumerate(conditions)]
    source, file, row = scan
    if conditions:  # over columns of which DuckDB knows no statistics: see `guarded`
        columns = {column: view.raw[column] for column in view.columns}
        columns |= dict.fromkeys(own_columns(view.source), "BIGINT")
        source = f"(SELECT {guarded(columns)}, {file}, {row} FROM {source})"
    replaces = [f"{REPLACES} AS replaces"] if isinstance(view.source, PushSource) else []
    selected = ", ".join([f"{sql} AS k{i}" for i, sql in enumerate(keys)] + cells + tests + replaces)
    return (
        f"SELECT *, {visible_known_of(view.source)} AS known FROM (SELECT {selected}, "
        f"{happened_of(view.source, view.raw)} AS event_us, {known_of(view.source, view.raw)} AS learned_us, {file} AS file, {row} AS row FROM {source})"
    )


def visible_known_of(source: Source) -> str:
    """`known` of `event_us` and `learned_us`: history that was loaded in bulk counts from when it would have been known."""
    until = source.history_until
    if until is None:
        return "learned_us"
    return f"CASE WHEN learned_us IS NOT NULL AND event_us <= {instant_of(until)} THEN least(learned_us, event_us + {source.known_after}) ELSE learned_us END"


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


def whole_terms(view: ResolvedView, table: str = "") -> list[str]:
    """That a row of `words_sql` has a key, has happened and is known."""
    keys = [f"k{i}" for i in range(len(view.keys))]
    return [f"{table}{name} IS NOT NULL" for name in (*keys, "event_us", "known")]


def named_terms(view: ResolvedView, table: str = "") -> list[str]:
    """That a row of `words_sql` has an identity, where its source has any."""
    return [f"{table}{cell(column)} IS NOT NULL" for column in view.source.identity]


def kept_terms(view: ResolvedView, table: str = "") -> list[str]:
    """That a row of `words_sql` is no deletion."""
    return [f"{table}{cell(view.source.deleted)} IS NOT TRUE"] if view.source.deleted else []


def rows_sql(
    view: ResolvedView, scan: Scan, *, carried: Sequence[str] = ("file", "row"), conditions: Sequence[str] = ()
) -> str:
    """Every valid row as `(k…, event_us, counts_from, counts_until)` and what is `carried`, expressions over `words_sql` with
    these conditions; counts_until only where the source has identities.

    A null known_at or identity drops a row first; a null key or event_time, and a deletion, after superseding.
    """
    settle = view.timing.settle
    words = words_sql(view, scan, conditions=conditions)
    source = view.source
    keys = key_list(view)
    carry = ", ".join(carried)
    valid = whole_terms(view)
    visible = f"greatest(event_us, known - {settle}) AS counts_from"
    if not source.identity:
        return f"SELECT {keys}, event_us, {visible}, {carry} FROM ({words}) WHERE {' AND '.join(valid)}"
    versions = _replaced(words) if isinstance(source, PushSource) else _superseded(view, words)
    valid += ["superseded > known", *kept_terms(view)]
    return (
        f"SELECT {keys}, event_us, {visible}, superseded - {settle} AS counts_until, {carry} FROM ({versions}) "
        f"WHERE {' AND '.join(valid)}"
    )


def _superseded(view: ResolvedView, words: str) -> str:
    """The versions of identities with the instant from which a later one of theirs is known, END where there is none."""
    superseded = (
        f"coalesce(min(known) OVER (PARTITION BY {identity_terms(view)} ORDER BY {', '.join(learned_terms(view))} "
        f"ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), {END})"
    )
    return f"SELECT *, {superseded} AS superseded FROM ({words}) WHERE {' AND '.join(['known IS NOT NULL', *named_terms(view)])}"


def _replaced(words: str) -> str:
    """The rows of a push log with the instant from which another replaces them: by exactly what each row names (rule 7)."""
    replacing = (
        f"SELECT replaces AS replaced, min(known) AS superseded FROM ({words}) WHERE replaces IS NOT NULL GROUP BY 1"
    )
    return (
        f"SELECT w.*, coalesce(p.superseded, {END}) AS superseded FROM ({words}) w LEFT JOIN ({replacing}) p "
        "ON w.learned_us = p.replaced"
    )


def whole_sql(view: ResolvedView, scan: Scan) -> str:
    """One row: whether no source row lacks known_at, identity, key or event_time, which a file's own statistics often tell."""
    words = ["known", "event_us", *(f"k{i}" for i in range(len(view.keys))), *map(cell, view.source.identity)]
    least = ", ".join(f"count({word})" for word in words)
    return f"SELECT least({least}) = count(*) FROM ({words_sql(view, scan)})"


def invalid_sql(view: ResolvedView, scan: Scan) -> str:
    """One row: how many source rows lack known_at or identity, and how many of the rest lack a key or event_time."""
    nameless = " OR ".join(["known IS NULL", *(f"{cell(column)} IS NULL" for column in view.source.identity)])
    keyless = " OR ".join(["event_us IS NULL", *(f"k{i} IS NULL" for i in range(len(view.keys)))])
    if view.source.deleted:
        keyless = f"({keyless}) AND {cell(view.source.deleted)} IS NOT TRUE"
    return (
        f"SELECT count(*) FILTER ({nameless}), count(*) FILTER (NOT ({nameless}) AND ({keyless})) "
        f"FROM ({words_sql(view, scan)})"
    )


def _grouped(view: ResolvedView, column: str) -> str:
    """An identity column as it is compared: floats by sign too, since DuckDB thinks that -0.0 = 0.0."""
    name = cell(column)
    return f"{name}, ({name} = 0 AND signbit({name}))" if view.columns[column].is_float else name

"""Rule 1 as SQL: a source's rows with the two instants between which each of them counts.

A row counts at as_of when `v <= as_of < g`, where

    v = greatest(event_time, known − settle)      it has happened, and is known by as_of + settle
    g = superseded − settle                       from then on a later version of its identity is known

because known_by is as_of + settle for every lookup of a view. Whether it still lies within the ttl is judged
afterwards, on the one row that was chosen.
"""

from __future__ import annotations

from typing import NamedTuple

from featurestore.clock import instant_of
from featurestore.semantics.columns import instant_sql, order_sql, read_sql
from featurestore.semantics.sql import quote
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.view import ResolvedView

__all__ = [
    "Scan",
    "cell",
    "happened_sql",
    "identity_terms",
    "invalid_sql",
    "key_list",
    "known_sql",
    "learned_terms",
    "order_terms",
    "rows_sql",
    "tiebreak_terms",
    "until_sql",
    "words_sql",
]


class Scan(NamedTuple):
    """How SQL reads a source: a FROM item, and the two expressions that together point at one of its rows."""

    relation: str
    file: str
    row: str


def key_list(view: ResolvedView, table: str = "") -> str:
    """The key columns as the as-of query names them, `k0, k1, …`; one constant column for an entity without keys."""
    prefix = f"{table}." if table else ""
    return ", ".join(f"{prefix}k{i}" for i in range(max(1, len(view.keys))))


def cell(column: str) -> str:
    """A source column as it is named in `words_sql`, where no name of ours can meet it."""
    return quote(f"c_{column}")


def happened_sql(view: ResolvedView) -> str:
    """BIGINT µs: when a row happened. Rows without time happened at the beginning, or at `valid_from`."""
    source = view.source
    if source.event_time is not None:
        return instant_sql(source, quote(source.event_time), view.raw[source.event_time], happened=True)
    if source.valid_from is not None:
        return instant_sql(source, quote(source.valid_from), view.raw[source.valid_from])
    return f"CAST({BEGINNING} AS BIGINT)"


def known_sql(view: ResolvedView) -> str:
    """BIGINT µs: when a row was learned, as it is ordered by."""
    source = view.source
    if source.known_at is not None:
        return instant_sql(source, quote(source.known_at), view.raw[source.known_at])
    return f"{happened_sql(view)} + {source.known_after}"


def until_sql(view: ResolvedView) -> str:
    """BIGINT µs: the end of a row's validity, END where it is open."""
    until = view.source.until
    if until is None:
        return f"CAST({END} AS BIGINT)"
    return f"coalesce({instant_sql(view.source, cell(until), view.raw[until])}, {END})"


def words_sql(view: ResolvedView, scan: Scan) -> str:
    """The source's rows: `k…` (key), `e` (happened), `o` (known, for order), `known` (for visibility), `file`, `row`,
    and each column that the view reads as `cell` names it."""
    zone = view.source.timezone or "UTC"
    keys = [read_sql(quote(key.column), view.raw[key.column], key.type, zone) for key in view.keys] or ["0"]
    cells = [f"{quote(column)} AS {cell(column)}" for column in view.columns]
    selected = ", ".join([f"{sql} AS k{i}" for i, sql in enumerate(keys)] + cells)
    return (
        f"SELECT *, {_visible_known(view)} AS known FROM (SELECT {selected}, {happened_sql(view)} AS e, "
        f"{known_sql(view)} AS o, {scan.file} AS file, {scan.row} AS row FROM {scan.relation})"
    )


def _visible_known(view: ResolvedView) -> str:
    """`known`: history that was loaded in bulk counts from when it would have been known."""
    until = view.source.history_until
    if until is None:
        return "o"
    return (
        f"CASE WHEN o IS NOT NULL AND e <= {instant_of(until)} THEN least(o, e + {view.source.known_after}) ELSE o END"
    )


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
        *order_terms(view, first=("o", "e"))[:2],
        *tiebreak_terms(view),
        *order_terms(view, first=()),
    ]


def identity_terms(view: ResolvedView) -> str:
    """The expressions whose values are equal for versions of one row."""
    return ", ".join(_grouped(view, column) for column in view.source.identity)


def rows_sql(view: ResolvedView, scan: Scan) -> str:
    """Every valid row as `(k…, e, v, g, file, row)`.

    A null known_at or identity drops a row first; a null key or event_time, and a deletion, after superseding.
    """
    settle = view.timing.settle
    words = words_sql(view, scan)
    source = view.source
    keys = key_list(view)
    valid = [f"k{i} IS NOT NULL" for i in range(len(view.keys))] + ["e IS NOT NULL", "known IS NOT NULL"]
    visible = f"greatest(e, known - {settle}) AS v"
    if not source.identity:
        return f"SELECT {keys}, e, {visible}, file, row FROM ({words}) WHERE {' AND '.join(valid)}"
    named = [f"{cell(column)} IS NOT NULL" for column in source.identity]
    superseded = (
        f"coalesce(min(known) OVER (PARTITION BY {identity_terms(view)} ORDER BY {', '.join(learned_terms(view))} "
        f"ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), {END})"
    )
    versions = (
        f"SELECT *, {superseded} AS superseded FROM ({words}) WHERE {' AND '.join(['known IS NOT NULL', *named])}"
    )
    valid.append("superseded > known")
    if source.deleted:
        valid.append(f"{cell(source.deleted)} IS NOT TRUE")
    return (
        f"SELECT {keys}, e, {visible}, superseded - {settle} AS g, file, row FROM ({versions}) "
        f"WHERE {' AND '.join(valid)}"
    )


def invalid_sql(view: ResolvedView, scan: Scan) -> str:
    """One row: how many source rows lack known_at or identity, and how many of the rest lack a key or event_time."""
    nameless = " OR ".join(["known IS NULL", *(f"{cell(column)} IS NULL" for column in view.source.identity)])
    keyless = " OR ".join(["e IS NULL", *(f"k{i} IS NULL" for i in range(len(view.keys)))])
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

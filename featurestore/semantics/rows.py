"""Rule 1: which rows count at an instant. Each part of it is written here once, in SQL and in Python side by side.

A row is *known* from some instant on. Of the known versions of one identity only the last learned is *current*, and none
where that one deletes it. A current row is *visible* once it has happened, as far back as a window or a ttl reaches. All
but how far back is one interval of instants: a row counts at as_of when `counts_from <= as_of < counts_until`, where

    counts_from  = greatest(event_time, known − settle)     it has happened, and is known by as_of + settle
    counts_until = superseded − settle                      from then on a later version of its identity is known

because known_by is as_of + settle for every lookup of a view.

SQL forms are over the columns that `words_sql` and `rows_sql` name; Python forms take ints, or numpy arrays of int64, in µs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.clock import instant_of
from featurestore.declare.push import REPLACES, PushSource
from featurestore.declare.sources import Source
from featurestore.semantics.columns import read_sql
from featurestore.semantics.expectations import SettledExpectation, removing, unmet_sql
from featurestore.semantics.expressions import guarded
from featurestore.semantics.forgotten import has_forgotten, without_forgotten_sql
from featurestore.semantics.source_columns import (
    Scan,
    cell,
    cell_sql,
    happened_of,
    identity_terms,
    key_list,
    known_of,
    learned_terms,
    own_columns,
    read_cell,
)
from featurestore.semantics.sql import quote
from featurestore.semantics.time import END
from featurestore.semantics.view import ResolvedFeature, ResolvedView
from featurestore.semantics.windows import Span

Ints = npt.NDArray[np.int64]


def known(learned_us: Any, event_us: Any, *, history_until: int | None, known_after: int) -> Any:
    """When a row becomes known: history that was loaded in bulk when it would have been."""
    if history_until is None:
        return learned_us
    return np.where(event_us <= history_until, np.minimum(learned_us, event_us + known_after), learned_us)


def known_sql(source: Source) -> str:
    """`known` of `learned_us` and `event_us`, either of which may be null."""
    until = source.history_until
    if until is None:
        return "learned_us"
    bulk = f"learned_us IS NOT NULL AND event_us <= {instant_of(until)}"
    return f"CASE WHEN {bulk} THEN least(learned_us, event_us + {source.known_after}) ELSE learned_us END"


def is_known_sql(known_by: int) -> str:
    """Whether a row is known by an instant."""
    return f"known <= {known_by}"


def counts_from(event_us: Any, known: Any, settle: int = 0) -> Any:
    """The first as_of at which a row has happened and is known."""
    return np.maximum(event_us, known - settle)


def counts_from_sql(settle: int = 0, *, known: str = "known") -> str:
    """`counts_from` of `event_us` and of when the row became known."""
    return f"greatest(event_us, {known} - {settle})" if settle else f"greatest(event_us, {known})"


def counts_until(superseded: Any, settle: int) -> Any:
    """The first as_of at which a row no longer counts, as a later version of it is known from `superseded` on."""
    return superseded - settle


def counts_until_sql(settle: int) -> str:
    """`counts_until` of `superseded`."""
    return f"superseded - {settle}"


def counts_at(counts_from: Any, counts_until: Any | None, as_of: Any) -> Any:
    """Whether a row counts at an instant; counts_until is None where rows count for ever."""
    begun = counts_from <= as_of
    return begun if counts_until is None else begun & (as_of < counts_until)


class RowTimes(NamedTuple):
    """When each of some rows counts, by place."""

    key: Ints
    """The row's key as a number, from 0 on."""

    event_us: Ints
    """When it happened."""

    counts_from: Ints
    counts_until: Ints | None
    """None where all rows count for ever."""

    def counting(self, places: Ints, as_of: Ints) -> npt.NDArray[np.bool_]:
        """Whether each of these rows counts at an instant of its own."""
        until = None if self.counts_until is None else self.counts_until[places]
        found: npt.NDArray[np.bool_] = counts_at(self.counts_from[places], until, as_of)
        return found


def counts_at_sql(view: ResolvedView, as_of: int | str, *, table: str = "") -> str:
    """`counts_at` of a row of `rows_sql`."""
    begun = f"{table}counts_from <= {as_of}"
    return f"{begun} AND {table}counts_until > {as_of}" if view.source.identity else begun


def before_ttl(event_us: Any, as_of: Any, ttl: int) -> Any:
    """Whether a row happened too long ago for a ttl, which is inclusive."""
    return event_us < as_of - ttl


def before_ttl_sql(as_of: int, ttl: int) -> str:
    """`before_ttl` of `event_us`."""
    return f"event_us < {as_of - ttl}"


def visible_span(view: ResolvedView, feature: ResolvedFeature) -> Span:
    """How far back a feature sees: its window, else the view's ttl, which is inclusive, as a window is not."""
    return feature.span or Span(None if view.ttl is None else view.ttl + 1)


def happened_sql(as_of: int) -> str:
    """Whether a row has happened by an instant."""
    return f"event_us <= {as_of}"


def within_sql(span: Span, as_of: int) -> str:
    """Whether a row happened within a window."""
    return f"event_us > {span.start(as_of)} AND {happened_sql(span.end(as_of))}"


def between_sql(condition: Callable[[int], str], after: int, upto: int) -> str:
    """Whether what can begin to hold, and does not end, began after an instant, and by another."""
    return f"(NOT ({condition(after)}) AND {condition(upto)})"


def keys_stay(source: Source, columns: Collection[str]) -> bool:
    """Whether all versions of a row have one key, which these columns of a source make: then no row of another key replaces it."""
    return not source.identity or {*columns} <= {*source.identity}


def named_terms(view: ResolvedView, table: str = "") -> list[str]:
    """That a row is known at all, and has an identity where its source has any; without them it is dropped first."""
    return [f"{table}{name} IS NOT NULL" for name in ("known", *map(cell, view.source.identity))]


def _whole(view: ResolvedView, table: str = "") -> list[str]:
    """That a row has happened and has a key; without them it is dropped after superseding, so that deletions need neither."""
    return [f"{table}{name} IS NOT NULL" for name in ("event_us", *(f"k{i}" for i in range(len(view.keys))))]


def _kept(view: ResolvedView, table: str = "") -> list[str]:
    """That a row is no deletion."""
    return [f"{table}{cell(view.source.deleted)} IS NOT TRUE"] if view.source.deleted else []


def valid_terms(view: ResolvedView, table: str = "") -> list[str]:
    """That a row of `words_sql` can count at all, whatever its other versions are."""
    return [*named_terms(view, table), *_kept(view, table), *_whole(view, table)]


def timed_sql(
    source: Source, raw: Mapping[str, str], scan: Scan, selected: str, *, learned: str | None = None,
    expectations: Sequence[SettledExpectation] = (),
) -> str:  # fmt: skip
    """A source's rows: what is `selected` of each, `event_us` (happened), `learned_us` (known, for order), `file`, `row` and
    `known` (for when they count). learned: when rows were, instead of what the source says. Where something is expected of rows:
    `u0, u1, …`, whether each of the expectations is not met, and `quarantined`, whether the row counts nowhere for that: then it is
    never known, so neither does it replace another version of it."""
    known, deletes = known_sql(source), quote(source.deleted) if source.deleted else ""
    if expectations:
        found = unmet_sql(source, expectations, raw, f"coalesce({deletes}, false)" if deletes else "")
        selected += "".join(f", {sql} AS u{i}" for i, sql in enumerate(found))
        unmet = " OR ".join(f"u{i}" for i in removing(expectations)) or "false"
        known = f"({unmet}) AS quarantined, CASE WHEN NOT ({unmet}) THEN {known} END"
    return (
        f"SELECT *, {known} AS known FROM (SELECT {selected}, {happened_of(source, raw)} AS event_us, "
        f"{learned or known_of(source, raw)} AS learned_us, {scan.file} AS file, {scan.row} AS row FROM {scan.relation})"
    )


def holds_sql(condition: str) -> str:
    """That a condition holds for a row: it is true, and not null."""
    return f"(({condition}) IS TRUE)"


def words_sql(view: ResolvedView, scan: Scan, *, conditions: Sequence[str] = ()) -> str:
    """`timed_sql` with `k…` (key), each column that the view reads as `cell` names it, and whether each of the conditions is
    true, `w0, w1, …`. Rows of forgotten keys have none."""
    zone = view.source.timezone or "UTC"
    keys = [read_sql(quote(key.column), view.raw[key.column], key.type, zone) for key in view.keys] or ["0"]
    cells = [cell_sql(view, column) for column in view.columns]
    tests = [f"{holds_sql(text)} AS w{i}" for i, text in enumerate(conditions)]
    if conditions:  # over columns of which DuckDB knows no statistics: see `guarded`
        columns = {column: view.raw[column] for column in view.columns}
        columns |= dict.fromkeys(own_columns(view.source), "BIGINT")
        guard = f"(SELECT {guarded(columns)}, {scan.file}, {scan.row} FROM {scan.relation})"
        scan = scan._replace(relation=guard)
    replaces = [f"{REPLACES} AS replaces"] if isinstance(view.source, PushSource) else []
    selected = ", ".join([f"{sql} AS k{i}" for i, sql in enumerate(keys)] + cells + tests + replaces)
    rows = timed_sql(view.source, view.raw, scan, selected, expectations=view.expectations)
    return without_forgotten_sql(view, rows, scan.forgotten)


def rows_sql(
    view: ResolvedView, scan: Scan, *, carried: Sequence[str] = ("file", "row"), conditions: Sequence[str] = ()
) -> str:
    """Every valid row as `(k…, event_us, counts_from, counts_until)` and what is `carried`, expressions over `words_sql` with
    these conditions; counts_until only where the source has identities."""
    settle, valid = view.timing.settle, valid_terms(view)
    rows, times = words_sql(view, scan, conditions=conditions), f"{counts_from_sql(settle)} AS counts_from"
    if view.source.identity:
        rows = versions_sql(view, rows)
        valid.append("superseded > known")
        times += f", {counts_until_sql(settle)} AS counts_until"
    return f"SELECT {key_list(view)}, event_us, {times}, {', '.join(carried)} FROM ({rows}) WHERE {' AND '.join(valid)}"


def versions_sql(view: ResolvedView, rows: str, *, ties: Sequence[str] = ()) -> str:
    """(b) current: rows of `words_sql` with `superseded`, the instant from which a later version of their identity is known;
    END where there is none. Rows of a push log are replaced by exactly what names them (rule 7).

    ties: ascending terms that order versions which are equal in every byte.
    """
    if not view.source.identity:
        return f"SELECT *, CAST({END} AS BIGINT) AS superseded FROM ({rows})"
    if isinstance(view.source, PushSource):
        by = (
            f"SELECT replaces AS replaced, min(known) AS superseded FROM ({rows}) WHERE replaces IS NOT NULL GROUP BY 1"
        )
        return (
            f"SELECT w.*, coalesce(p.superseded, {END}) AS superseded FROM ({rows}) w LEFT JOIN ({by}) p "
            "ON w.learned_us = p.replaced"
        )
    later = f"PARTITION BY {identity_terms(view)} ORDER BY {', '.join([*learned_terms(view), *ties])}"
    return (
        f"SELECT *, coalesce(min(known) OVER ({later} ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), {END}) AS superseded "
        f"FROM ({rows})"
    )


def current_terms(view: ResolvedView, as_of: int) -> list[tuple[str, str]]:
    """What a row of `versions_sql` must be to be current at an instant, in the order of the rule, each beside what a row is
    called that is not that."""
    known_by = view.timing.known_by(as_of)
    return [
        *((("NOT quarantined", "quarantined"),) if view.expectations else ()),
        (" AND ".join(named_terms(view)), "invalid"),
        (is_known_sql(known_by), "not yet known"),
        (f"superseded > {known_by}", "superseded"),
        *((term, "deleted") for term in _kept(view)),
        (" AND ".join(_whole(view)), "invalid"),
    ]


def visible_terms(view: ResolvedView, as_of: int) -> list[tuple[str, str]]:
    """The same of a current row that is visible to the view's plain features."""
    within = [] if view.ttl is None else [(f"NOT ({before_ttl_sql(as_of, view.ttl)})", "expired")]
    return [(happened_sql(as_of), "too new"), *within]


def whole_sql(view: ResolvedView, scan: Scan) -> str:
    """One row: whether no source row lacks known_at, identity, key or event_time, which a file's own statistics often tell."""
    words = [term.removesuffix(" IS NOT NULL") for term in (*named_terms(view), *_whole(view))]
    least = ", ".join(f"count({word})" for word in words)
    return f"SELECT least({least}) = count(*) FROM ({words_sql(view, scan)})"


def invalid_sql(view: ResolvedView, scan: Scan) -> str:
    """One row: how many source rows lack known_at or identity, and how many of the rest lack a key or event_time."""
    named = " AND ".join(named_terms(view))
    keyless = " AND ".join([named, *_kept(view), f"NOT ({' AND '.join(_whole(view))})"])
    rows = f"({words_sql(view, scan)})"
    if isinstance(view.source, PushSource):
        rows += f" WHERE NOT {_emptied(view)}"
    if view.expectations:
        rows = f"(FROM {rows} WHERE NOT quarantined)"
    if has_forgotten(view, scan.forgotten):
        rows = f"(FROM {rows}) WHERE NOT forgotten"
    return f"SELECT count(*) FILTER (NOT ({named})), count(*) FILTER ({keyless}) FROM {rows}"


def newest_known_sql(view: ResolvedView, scan: Scan, now: int) -> str:
    """One row: when the newest row was learned (µs) of those that are known by an instant."""
    return f"SELECT max(known) FROM ({words_sql(view, scan)}) WHERE {is_known_sql(now)}"


def unmet_counts_sql(view: ResolvedView, scan: Scan) -> str:
    """One row: how many source rows do not meet each of the view's expectations, in their order, those of forgotten keys left out."""
    counts = ", ".join(f"count(*) FILTER (u{i})" for i in range(len(view.expectations)))
    rows = f"({words_sql(view, scan)})" + (" WHERE NOT forgotten" if has_forgotten(view, scan.forgotten) else "")
    return f"SELECT {counts} FROM {rows}"


def unmet_rows_sql(view: ResolvedView, scan: Scan, *, most: int) -> str:
    """Where the rows lie that do not meet some of the view's expectations, `u0, u1, …`, each column read as its type, `v0, v1, …`,
    those of forgotten keys left out; so many at most."""
    values = [f"{read_cell(view, column, of)} AS v{i}" for i, (column, of) in enumerate(sorted(view.columns.items()))]
    flags = [f"u{i}" for i in range(len(view.expectations))]
    kept = "" if not has_forgotten(view, scan.forgotten) else " AND NOT forgotten"
    return (
        f"SELECT file, row, {', '.join([*flags, *values])} FROM ({words_sql(view, scan)}) "
        f"WHERE ({' OR '.join(flags)}){kept} ORDER BY file, row LIMIT {most}"
    )


def _emptied(view: ResolvedView) -> str:
    """Whether nothing is left of a logged row but when it was known and what it replaced: its key was forgotten."""
    return " AND ".join(["(event_us IS NULL", *_kept(view)]) + ")"

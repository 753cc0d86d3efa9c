"""Why each row of one key is the answer or is not, as SQL; for explanations.

The answer itself comes from the as-of query, which names the row that it chose. What is added here is one verdict for
each of the other rows: the first of rule 1's conditions that it fails, in the order of the rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from featurestore.declare.push import PushSource
from featurestore.semantics.columns import read_sql
from featurestore.semantics.judge import ended_sql
from featurestore.semantics.rows import (
    current_terms,
    is_known_sql,
    named_terms,
    versions_sql,
    visible_span,
    visible_terms,
    within_sql,
    words_sql,
)
from featurestore.semantics.source_columns import (
    Scan,
    cell_sql,
    happened_of,
    identity_terms,
    learned_terms,
    own_columns,
    read_cell,
    same_key,
    until_sql,
)
from featurestore.semantics.sql import literal, quote
from featurestore.semantics.view import ResolvedView

VERDICTS = (
    "chosen", "ended", "older", "expired", "too new", "not yet known", "superseded", "deleted", "invalid", "other key",
    "quarantined",
)  # fmt: skip
"""Every verdict there is. "other key" is a current version, of a row that once bore the key and now bears another."""

CURRENT = ("chosen", "ended", "older", "expired")
"""The verdicts of rows that are known, current, and have happened: those that a fold may count."""

JUDGED, NEAREST = "explain_judged", "explain_nearest"


class Chosen(NamedTuple):
    """The row that the as-of query put last: where it lies, and its event_time in µs."""

    file: int
    row: int
    event_time: int


class Narrowed(NamedTuple):
    """The rows of one key, and all versions of their identities: what the as-of query needs of the source for that key."""

    scan: Scan
    statements: tuple[str, ...]
    """What is to be run before."""

    whole: Scan
    """In which a row is found by where it lies."""


def cells_sql(view: ResolvedView, scan: Scan, requests: str) -> str | None:
    """One number: how many values `narrowed` would copy; None where it must."""
    if view.source.identity or isinstance(view.source, PushSource):
        return None
    own = f"FROM {scan.relation} s{_of_key(view, requests)}"
    return f"SELECT count(*) * {len(view.columns)} {own}"


def narrowed(view: ResolvedView, scan: Scan, requests: str, *, copied: bool) -> Narrowed:
    """The rows of the source that matter for the one key that `requests` holds.

    The key is compared column by column, so that the scan of a Parquet file skips what cannot hold it. copied: the rows
    are read once, into a table; else each question reads the source again, but only the columns that it asks for. Rows
    that have versions, which all columns tell apart, are copied, and those of a push log, which lie everywhere.
    """
    columns = ", ".join(map(quote, [*sorted(view.columns), *own_columns(view.source)]))
    rows = f"(SELECT {columns}, {scan.file}, {scan.row} FROM {scan.relation}) s"
    mine = f"SELECT * FROM {rows}{_of_key(view, requests)}"
    if not copied:
        return Narrowed(scan._replace(relation=f"({mine})"), (), scan)
    table = scan._replace(relation="explain_rows")
    made = [f"CREATE OR REPLACE TEMP TABLE {table.relation} AS {mine}"]
    if view.source.identity and view.keys:
        identity = " AND ".join(f"s.{quote(column)} = i.{quote(column)}" for column in view.source.identity)
        made.append(
            f"INSERT INTO {table.relation} SELECT s.* FROM (SELECT s.* FROM {rows}, {requests} q "
            f"WHERE ({_same(view)}) IS NOT TRUE) s SEMI JOIN (FROM {table.relation}) i ON {identity}"
        )
    return Narrowed(table, tuple(made), table)


def since(view: ResolvedView, scan: Scan, instant: int) -> Scan:
    """The rows of a scan that happened at `instant` (µs) or later; all of them, where a row has versions, which may have
    happened before and still replace one that did not."""
    if view.source.identity:
        return scan
    happened = happened_of(view.source, view.raw)
    return scan._replace(relation=f"(SELECT * FROM {scan.relation} WHERE {happened} >= {instant})")


def _of_key(view: ResolvedView, requests: str) -> str:
    """What restricts source rows `s` to those of the requested key; an entity without keys has one, of all rows."""
    return f" SEMI JOIN {requests} q ON {_same(view)}" if view.keys else ""


def _same(view: ResolvedView) -> str:
    """Whether a source row `s` is of the key of a request `q`."""
    zone = view.source.timezone or "UTC"
    terms = [
        f"{read_sql(f's.{quote(key.column)}', view.raw[key.column], key.type, zone)} = q.k{i}"
        for i, key in enumerate(view.keys)
    ]
    return " AND ".join(terms)


def judged_statement(view: ResolvedView, rows: Narrowed, requests: str, *, as_of: int, chosen: Chosen | None) -> str:
    """The statement that makes `judged`: the narrowed rows with `verdict`, the words of `words_sql`, `until`, `last_…`, the version that
    replaced a superseded one, and `f0, f1, …`: whether the row counts for each folded feature of the view."""
    won = "false" if chosen is None else f"file = {chosen.file} AND row = {chosen.row}"
    words = words_sql(view, rows.scan, conditions=_conditions(view))
    rows_won = (
        f"SELECT s.*, coalesce({same_key(view, 's', 'q')}, false) AS mine, {won} AS won FROM ({words}) s, {requests} q"
    )
    named, known = " AND ".join(named_terms(view)), is_known_sql(view.timing.known_by(as_of))
    counted = f"SELECT *, {named} AS named, coalesce({named} AND {known}, false) AS counted FROM ({rows_won})"
    # Versions that are equal in every byte are one: the pick among them falls on the row that the query chose.
    versions, relevant = versions_sql(view, counted, ties=["won"]), "mine"
    if view.source.identity:
        replaced = _replaced(versions, counted) if isinstance(view.source, PushSource) else _superseded(view, versions)
        versions = (
            f"SELECT *, bool_or(mine) OVER (PARTITION BY named, {identity_terms(view)}) AS bore FROM ({replaced})"
        )
        relevant = "mine OR (named AND bore)"
    else:
        versions = f"SELECT *, file AS last_file, row AS last_row, learned_us AS last_learned_us FROM ({versions})"
    verdict = _verdict(view, as_of)
    judged = f"SELECT *, {until_sql(view)} AS until, {verdict} AS verdict FROM ({versions}) WHERE {relevant}"
    kind = "TABLE" if view.source.identity else "VIEW"  # which is asked twice; versions are found once
    return f"CREATE OR REPLACE TEMP {kind} {JUDGED} AS SELECT *{''.join(_counts(view, as_of))} FROM ({judged})"


def _superseded(view: ResolvedView, versions: str) -> str:
    """The rows with the last learned version of each: the row itself where it is that."""
    last = ", ".join(f"last_value({name}) OVER learned AS last_{name}" for name in ("file", "row", "learned_us"))
    order = ", ".join([*learned_terms(view), "won"])
    return (
        f"SELECT *, {last} FROM ({versions}) WINDOW learned AS (PARTITION BY counted, {identity_terms(view)} "
        f"ORDER BY {order} ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)"
    )


def _replaced(versions: str, counted: str) -> str:
    """The rows of a push log with the known one that names each as what it replaces."""
    by = "SELECT replaces, arg_min(file, learned_us) AS last_file, arg_min(row, learned_us) AS last_row, "
    by += f"min(learned_us) AS last_learned_us FROM ({counted}) WHERE counted GROUP BY replaces"
    return f"SELECT c.*, b.* EXCLUDE (replaces) FROM ({versions}) c LEFT JOIN ({by}) b ON c.learned_us = b.replaces"


def _conditions(view: ResolvedView) -> list[str]:
    return list(dict.fromkeys(feature.where for feature in view.folded if feature.where is not None))


def _counts(view: ResolvedView, as_of: int) -> Iterator[str]:
    """For each folded feature, whether a row is visible to it: current, within its window, and true of its condition."""
    current = f"verdict IN ({', '.join(map(literal, CURRENT))})"
    conditions = _conditions(view)
    for i, feature in enumerate(view.folded):
        met = [current, within_sql(visible_span(view, feature), as_of)]
        if feature.where is not None:
            met.append(f"w{conditions.index(feature.where)}")
        yield f", ({' AND '.join(met)}) AS f{i}"


def _verdict(view: ResolvedView, as_of: int) -> str:
    """The first of rule 1's conditions that a row does not meet; of those that meet all, the one that was chosen is told."""
    terms = [*current_terms(view, as_of), ("mine", "other key"), *visible_terms(view, as_of)]
    cases = [(f"({term}) IS NOT TRUE", name) for term, name in terms]
    cases += [(f"won AND {ended_sql(until_sql(view), as_of)}", "ended"), ("won", "chosen")]
    return "CASE " + " ".join(f"WHEN {when} THEN {literal(name)}" for when, name in cases) + " ELSE 'older' END"


def counts_sql(view: ResolvedView) -> str:
    """The rows of `judged` by verdict: how many there are, and how many of them count for each folded feature."""
    sums = "".join(f", count(*) FILTER (f{i})" for i in range(len(view.folded)))
    return f"SELECT verdict, count(*){sums} FROM {JUDGED} GROUP BY verdict"


def nearest_sql(view: ResolvedView, rows: Narrowed, *, anchor: int, limit: int) -> list[str]:
    """Statements of which the last gives the `limit` rows of `judged` nearest to the answer, nearest first; each source
    column read as its type, `v0, v1, …`, and for each folded feature whether the row counts, `f0, f1, …`.

    anchor: the event_time that nearness is measured from, in µs. Which rows they are is found first; only of those the
    other columns are read.
    """
    values = "".join(
        f", {read_cell(view, column, of, table='s.')} AS v{i}"
        for i, (column, of) in enumerate(sorted(view.columns.items()))
    )
    cells = "".join(f", {cell_sql(view, column)}" for column in view.columns)
    names = [
        "verdict",
        "mine",
        "event_us",
        "learned_us",
        "known",
        "until",
        "file",
        "row",
        "last_file",
        "last_row",
        "last_learned_us",
        "won",
    ]
    names += [f"f{i}" for i in range(len(view.folded))]
    names += [f"u{i}" for i in range(len(view.expectations))]
    order = f"won DESC, abs(event_us - {anchor}) ASC NULLS LAST, event_us DESC, learned_us DESC NULLS LAST, file DESC, row DESC"
    whole = f"SELECT {rows.whole.file} AS file, {rows.whole.row} AS row{cells} FROM {rows.whole.relation}"
    return [
        f"CREATE OR REPLACE TEMP TABLE {NEAREST} AS SELECT {', '.join(names)} FROM {JUDGED} ORDER BY {order} LIMIT {limit}",
        f"SELECT * FROM (SELECT n.*{values} FROM {NEAREST} n JOIN ({whole}) s USING (file, row)) ORDER BY {order}",
    ]

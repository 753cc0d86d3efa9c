"""The keys that a run of materialize asks for, as SQL: all, or by rule 6 those whose values may have changed since a complete instant."""

from __future__ import annotations

from collections.abc import Sequence

from featurestore.query.asof import newest_column
from featurestore.semantics.judge import ended_sql
from featurestore.semantics.rows import (
    between_sql,
    counts_at_sql,
    counts_from_sql,
    happened_sql,
    is_known_sql,
    valid_terms,
    visible_span,
    words_sql,
)
from featurestore.semantics.source_columns import Scan, cell, has_key, key_list, until_sql
from featurestore.semantics.view import ResolvedView


def has_newest(view: ResolvedView) -> bool:
    """Whether the search for keys can say when their newest rows happened: nothing replaces a row, and some feature is read from one."""
    return not view.source.identity and any(feature.plain for feature in view.features)


def all_keys_sql(view: ResolvedView, scan: Scan, *, newest_at: Sequence[int] = ()) -> str:
    """Every key that any version of a row ever had, once each, as `(k…)`. newest_at: instants (µs) at which these keys will be asked
    for; of each, where the as-of query takes it, `newest_column`."""
    keys, words = key_list(view), words_sql(view, scan)
    if not newest_at or not has_newest(view):
        return f"SELECT DISTINCT {keys} FROM ({words}) WHERE {has_key(view)}"
    valid, times = " AND ".join(valid_terms(view)), f"{counts_from_sql(view.timing.settle)} AS counts_from"
    newest = newest_terms(view, newest_at, valid)
    return f"SELECT {keys}, {newest} FROM (SELECT *, {times} FROM ({words})) WHERE {has_key(view)} GROUP BY {keys}"


def newest_terms(view: ResolvedView, instants: Sequence[int], valid: str = "true") -> str:
    """The `newest_column` of each of these instants (µs), of the rows of a key. valid: that one can count at all."""
    return ", ".join(
        f"max(event_us) FILTER ({valid} AND {counts_at_sql(view, at)}) AS {newest_column(at)}" for at in instants
    )


def keyed_rows_sql(view: ResolvedView, scan: Scan) -> str:
    """Every row that has a key, as `(k…, event_us, known, file, row)`, of a view that `has_newest`: it is valid where its times are not null,
    since only what replaces rows can delete them."""
    return f"SELECT {key_list(view)}, event_us, known, file, row FROM ({words_sql(view, scan)}) WHERE {has_key(view)}"


def changed_keys_sql(
    view: ResolvedView, scan: Scan, *, after: int, upto: int, new_files: Sequence[int], new_rows_from: int | None = None
) -> str:
    """The keys that may answer differently at `upto` than at `after` (µs), once each, as `(k…)`.

    Those of any version of a row that was learned in between, of rows that happened in between, of rows that an edge of a
    window passed in between, and of all versions of rows in files that arrived since (`new_files`, by number in the scan; of rows that
    lie in no file, those that have a number from `new_rows_from` on).
    The ttl and the `until` of plain features need no mention: both are judged at lookup.
    """
    learned = between_sql(lambda at: is_known_sql(view.timing.known_by(at)), after, upto)
    if new_files:
        learned = f"({learned} OR file IN ({', '.join(map(str, new_files))}))"
    if new_rows_from is not None:
        learned = f"({learned} OR row >= {new_rows_from})"
    touched = " OR ".join([learned, *_passed(view, after, upto)])
    words = words_sql(view, scan)
    if view.source.identity:
        names = ", ".join(cell(column) for column in view.source.identity)
        touched += f" OR ({names}) IN (SELECT ({names}) FROM ({words}) WHERE {learned})"
    return f"SELECT DISTINCT {key_list(view)} FROM ({words}) WHERE {has_key(view)} AND ({touched})"


def _passed(view: ResolvedView, after: int, upto: int) -> list[str]:
    """Conditions on the rows that came into sight of a fold, or went out of it, between two instants."""
    edges = {(after, upto)}
    for span in {visible_span(view, feature) for feature in view.folded}:
        edges.add((span.end(after), span.end(upto)))
        if span.length is not None:
            edges.add((span.start(after), span.start(upto)))
    passed = [between_sql(happened_sql, *edge) for edge in sorted(edges) if edge[0] < edge[1]]
    if view.source.until is not None and any(feature.fold.kind == "Latest" for feature in view.folded):
        passed.append(between_sql(lambda at: ended_sql(until_sql(view), at), after, upto))
    return passed

"""What is expected of the rows of a view's source, held against them: row by row, and all of them together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from featurestore.declare.durations import show_duration
from featurestore.declare.expectations import Expectation, Freshness, RowCount, SourceExpectation, Unique
from featurestore.declare.push import PushSource
from featurestore.errors import ExpectationError, did_you_mean
from featurestore.plurals import plural
from featurestore.semantics.expectations import SettledExpectation, pushed_expectations
from featurestore.semantics.rows import newest_known_sql, unmet_counts_sql
from featurestore.semantics.sql import quote
from featurestore.semantics.view import ResolvedView
from featurestore.sources.history import unmet_history_sql
from featurestore.sources.session import Session

UnmetRows = Mapping[str, int]
"""By expectation, as it is written, how many source rows do not meet it; 1 of one that is about no row."""


class Finding(NamedTuple):
    """Something expected of a source that is not so."""

    said: Expectation
    rows: int
    """How many rows do not meet it; 1 where it is about no row."""
    why: str
    """What is so instead, in words that follow the source's name."""


def row_expectations(view: ResolvedView) -> tuple[SettledExpectation, ...]:
    """What is expected of each row of files that a view reads; of pushed rows it is when they are pushed, of those of a history here."""
    source = view.source
    if isinstance(source, PushSource):
        return () if source.history is None else pushed_expectations(source)
    return view.expectations


def unmet_rows(session: Session, view: ResolvedView) -> UnmetRows:
    """How many rows of its source's files do not meet each expectation of a view."""
    expected, source = row_expectations(view), view.source
    if not expected:
        return {}
    if not isinstance(source, PushSource):
        sql = unmet_counts_sql(view, session.scan(source))
    elif source.history is None or session.is_given(source):
        return {}
    else:
        sql = unmet_history_sql(source, source.history, session.scan(source.history), session.columns(source.history))
    counts = session.connection.execute(sql).fetchall()[0]
    return {one.said.title: count for one, count in zip(expected, counts, strict=True)}


def check_rows(view: ResolvedView, unmet: UnmetRows) -> Iterator[str]:
    """What is to be known of rows that do not meet expectations that do not refuse, in words; ExpectationError where one does."""
    found = [
        (one, Finding(one.said, count, f"{_rows(count)} not meet {one.said.title}"))
        for one in row_expectations(view)
        if (count := unmet.get(one.said.title))
    ]
    _refuse(view, [finding for _, finding in found])
    for one, finding in found:
        yield f"view '{view.name}': of {view.source.title}, {finding.why}: {_becomes(one, finding.rows)}"


def source_findings(session: Session, view: ResolvedView, *, now: int, last_rows: int | None = None) -> list[Finding]:
    """What a view and its source expect of all rows together that is not so at `now` (µs). last_rows: how many there were at the
    last load; None where that is not known. Raises DeclarationError where there is no column of a name."""
    found = []
    for by in (view.source, view.declared):
        for one in by.expectations:
            if isinstance(one, SourceExpectation):
                finding = _finding(session, view, one, now=now, last_rows=last_rows)
                found += [] if finding is None else [finding]
    return found


def check_source(view: ResolvedView, found: Sequence[Finding]) -> Iterator[str]:
    """What is to be known of a source of which less is true than is expected, in words; ExpectationError where that refuses."""
    _refuse(view, found)
    for one in found:
        yield f"view '{view.name}': of {view.source.title}, {one.why}"


def counts_rows(view: ResolvedView) -> bool:
    """Whether anything is expected of how many rows its source has."""
    return any(isinstance(one, RowCount) for one in (*view.source.expectations, *view.declared.expectations))


def count_rows(session: Session, view: ResolvedView) -> int:
    """How many rows its source has."""
    (count,) = session.connection.execute(f"SELECT count(*) FROM {session.scan(view.source).relation}").fetchall()[0]
    return int(count)


def _finding(
    session: Session, view: ResolvedView, one: SourceExpectation, *, now: int, last_rows: int | None
) -> Finding | None:
    scan = session.scan(view.source)
    if isinstance(one, Unique):
        known = session.columns(view.source)
        for column in one.columns:
            if column not in known:
                hint = did_you_mean(column, known, noun="Columns")
                raise view.source.error(f"there is no column '{column}' for its expectation {one.title}.{hint}")
        names = ", ".join(map(quote, one.columns))
        given = " AND ".join(f"{quote(column)} IS NOT NULL" for column in one.columns)
        repeated = f"SELECT count(*) AS times FROM {scan.relation} WHERE {given} GROUP BY {names} HAVING count(*) > 1"
        (rows,) = session.connection.execute(f"SELECT coalesce(sum(times - 1), 0) FROM ({repeated})").fetchall()[0]
        return (
            Finding(
                one,
                int(rows),
                f"{int(rows):,} {plural(int(rows), 'row repeats', 'rows repeat')} another, where {one.title} is expected",
            )
            if rows
            else None
        )
    if isinstance(one, Freshness):
        (newest,) = session.connection.execute(newest_known_sql(view, scan, now)).fetchall()[0]
        if newest is not None and now - newest <= one.within:
            return None
        why = "no row is known" if newest is None else f"the newest row was learned {show_duration(now - newest)} ago"
        return Finding(one, 1, f"{why}, where {one.title} is expected")
    assert isinstance(one, RowCount)
    if last_rows is None:
        return None
    rows = count_rows(session, view)
    few = one.at_least is not None and rows < one.at_least * last_rows
    many = one.at_most is not None and rows > one.at_most * last_rows
    why = f"there {plural(rows, 'is', 'are')} {rows:,} {plural(rows, 'row')}, after {last_rows:,} at the last load, where {one.title} is expected"
    return Finding(one, 1, why) if few or many else None


def _refuse(view: ResolvedView, found: Sequence[Finding]) -> None:
    refused = [one for one in found if one.said.otherwise == "refuse"]
    if refused:
        rows = any(not isinstance(one.said, SourceExpectation) for one in refused)
        listed = rows and not isinstance(view.source, PushSource)
        shows = f"; `featurestore quarantine show {view.name}` lists the rows" if listed else ""
        other = 'otherwise="quarantine" or "warn"' if rows else 'otherwise="warn"'
        raise ExpectationError(
            f"{view.declared.title}: of {view.source.title}, {'; '.join(one.why for one in refused)}. Correct the data, or say "
            f"{other}{shows} ({refused[0].said.origin})"
        )


def _rows(count: int) -> str:
    return f"{count:,} {plural(count, 'row does', 'rows do')}"


def _becomes(one: SettledExpectation, rows: int) -> str:
    return f"quarantined, and {plural(rows, 'counts', 'count')} nowhere" if one.removes else "counted all the same"

"""What is in quarantine: of which source and view how many rows do not meet what is expected, and these rows one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.declare.problems import shown
from featurestore.declare.push import PushSource
from featurestore.errors import NotFoundError, PushError, RequestError, SourceError, did_you_mean
from featurestore.lazy import duckdb, pa
from featurestore.project import Project
from featurestore.push.pushed import Pushed
from featurestore.push.quarantine import PushedQuarantine, QuarantinedRow
from featurestore.report import Report, Reported, ReportTable, within
from featurestore.semantics.rows import unmet_rows_sql
from featurestore.semantics.values import scalars
from featurestore.semantics.view import ResolvedView
from featurestore.sources.expected import row_expectations, unmet_rows
from featurestore.sources.session import Session
from featurestore.sources.unreadable import engine_words


@dataclass(frozen=True)
class UnmetExpectation:
    """One expectation, and how many rows do not meet it."""

    of: str
    """The view over files, or the push source."""
    expectation: str
    """As it is written."""
    otherwise: str
    """What becomes of such rows: "refuse", "quarantine" or "warn"."""
    rows: int
    """How many there are now."""


@dataclass(frozen=True)
class Quarantine(Reported):
    """What is expected of the rows of every view and push source, and how many rows do not meet it."""

    unmet: tuple[UnmetExpectation, ...]
    """Every expectation of rows, those that all rows meet among them, and of each push source the rows that are kept aside."""

    def report(self) -> Report:
        """One table."""
        rows = [(one.of, one.expectation, one.otherwise, one.rows) for one in self.unmet]
        parts = [ReportTable(("of", "expectation", "otherwise", "rows"), rows)] if rows else []
        return Report("" if rows else "Nothing is expected of any row.", parts)


IN_QUARANTINE = "(rows in quarantine)"


def quarantine(project: Project) -> Quarantine:
    """What is in quarantine of all that is applied. Raises SourceError and LogError."""
    found = []
    for view in project.applied(None):
        if expected := row_expectations(view):
            with project.offline.session() as session:
                counts = _asked(session, view)
            found += [
                UnmetExpectation(view.name, one.said.title, one.said.otherwise, counts[one.said.title])
                for one in expected
            ]
    for source in project.pushing.sources():
        aside = pushed_quarantine(project, source.name)
        count = aside.count()
        if count or source.expectations:
            found.append(UnmetExpectation(source.name, IN_QUARANTINE, "quarantine", count))
    return Quarantine(tuple(found))


def quarantined_rows(project: Project, name: str, *, most: int) -> list[QuarantinedRow]:
    """The rows of a view's files that do not meet what is expected, or those of a push source that are kept aside; so many at most.

    Raises NotFoundError, SourceError and LogError.
    """
    views = {view.name: view for view in project.applied(None)}
    of_files = [view for view in views.values() if not isinstance(view.source, PushSource)]
    if name not in views and (over := [view.name for view in of_files if view.source.name == name]):
        raise NotFoundError(
            f"'{name}' is no push source: ask by view for the rows of its files: {', '.join(sorted(over))}."
        )
    if name not in views:
        return pushed_quarantine(project, name, others=list(views)).rows(most=most)
    view = views[name]
    if isinstance(view.source, PushSource):
        return pushed_quarantine(project, view.source.name).rows(most=most)
    return _rows_of_files(project, view, most=most) if view.expectations else []


def pushed_quarantine(project: Project, name: str, *, others: list[str] | None = None) -> PushedQuarantine:
    """The quarantine of a push source. others: what else could be named."""
    known = {source.name: source for source in project.pushing.sources()}
    if name not in known:
        noun = "push source" if others is None else "feature view or push source"
        hint = did_you_mean(name, [*known, *(others or ())], noun="There are")
        raise NotFoundError(f"No {noun} '{name}' was applied.{hint}")
    return PushedQuarantine(known[name], project.offline, project.pushing)


def replay_quarantined(
    project: Project, source: str, ids: Sequence[int] | None, told: Callable[[str, Pushed], object]
) -> dict[int, Pushed | PushError]:
    """Push rows again that are kept aside (only these, by their ids) and meet by now what is expected; what became of each. told: is called
    for each that was taken."""
    done = pushed_quarantine(project, source).replay(_checked_ids(ids))
    for one in done.values():
        if isinstance(one, Pushed):
            told(source, one)
    return done


def discard_quarantined(project: Project, source: str, ids: Sequence[int] | None) -> int:
    """Erase rows that are kept aside (only these, by their ids), without pushing them; how many."""
    return pushed_quarantine(project, source).discard(_checked_ids(ids))


def _checked_ids(ids: Sequence[int] | None) -> Sequence[int] | None:
    if ids is not None and (not isinstance(ids, Sequence) or not all(type(one) is int for one in ids)):
        raise RequestError(f"ids is a list of numbers, by which `quarantined_rows` names rows, and not {shown(ids)}")
    return ids


def _asked(session: Session, view: ResolvedView) -> dict[str, int]:
    try:
        return dict(unmet_rows(session, view))
    except duckdb.Error as error:
        raise _unreadable(view, error) from error


def _unreadable(view: ResolvedView, error: duckdb.Error) -> SourceError:
    return SourceError(f"{view.declared.title} over {view.source.title}: {engine_words(error)} ({view.source.origin})")


def _rows_of_files(project: Project, view: ResolvedView, *, most: int) -> list[QuarantinedRow]:
    with project.offline.session() as session:
        try:
            sql = unmet_rows_sql(view, session.scan(view.source), most=most)
            table: pa.Table = session.connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            raise _unreadable(view, error) from error
        paths = [within(file.path, project.offline.root) for file in session.files(view.source)]
    columns: dict[str, list[Any]] = {
        name: scalars(table[f"v{place}"]) for place, name in enumerate(sorted(view.columns))
    }
    flags = [table[f"u{place}"].to_pylist() for place in range(len(view.expectations))]
    places = zip(table["file"].to_pylist(), table["row"].to_pylist(), strict=True)
    return [
        QuarantinedRow(
            None,
            f"{paths[file] if 0 <= file < len(paths) else 'frame'} row {row}",
            {name: values[number] for name, values in columns.items()},
            tuple(one.said.title for one, unmet in zip(view.expectations, flags, strict=True) if unmet[number]),
        )
        for number, (file, row) in enumerate(places)
    ]

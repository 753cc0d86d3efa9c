"""Availability, measured: how late rows really became known and servable, from the journals of arrivals, of runs and of
pushes; and what follows for the words that promise it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from featurestore.declare.durations import began
from featurestore.declare.push import PushSource
from featurestore.declare.sources import DataFrameSource, Source
from featurestore.errors import SourceError
from featurestore.lazy import duckdb
from featurestore.online.view_codec import ViewCodec
from featurestore.project import Project
from featurestore.reports.availability.advice import advice_on
from featurestore.reports.availability.measuring import (
    MeasuredView,
    late_rows,
    measure_known,
    measure_served,
    prepare,
    switches,
)
from featurestore.reports.availability.report import (
    SIGHTING,
    Availability,
    KnownLags,
    Lag,
    ServedLags,
    ViewAvailability,
)
from featurestore.reports.journals import Completions, completions_of, landings
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.view import ResolvedView
from featurestore.sources.push_logs import LATE, ROWS
from featurestore.sources.session import Session
from featurestore.sources.unreadable import engine_words


def availability(
    project: Project, views: Sequence[str] | None = None, *, since: datetime | str | None = None
) -> Availability:
    """Measure the applied views (only those named). since: an aware datetime, or how long ago, "7d".

    Nothing is written, and no source is looked at anew. Raises NotFoundError, SourceError, OnlineStoreError.
    """
    now = project.online.get([]).now
    start = began(since, now)
    found = {}
    for view in project.applied(views):
        try:
            found[view.name] = _measured(project, view, since=BEGINNING if start is None else start, now=now)
        except duckdb.Error as error:
            raise SourceError(
                f"{view.source.title} cannot be read: {engine_words(error)} ({view.source.origin})"
            ) from error
    return Availability(found, start, now)


def _measured(project: Project, view: ResolvedView, *, since: int, now: int) -> ViewAvailability:
    source, timing, done = view.source, view.timing, completions_of(project, view)
    how, begin = _how(source), _begin(project, view, done)
    promised = _promised(source, how)
    known, served = KnownLags(), ServedLags()
    late, late_lag, pushed_p99 = 0, Lag(), None
    with project.offline.session() as session:
        landed = landings(project, source, session.files(source), done)  # of the very files that it reads
        asked = MeasuredView(view, how, since, now, landed, done, begin)
        if source.event_time is not None:
            prepare(session, asked)
            known = measure_known(session, asked, promised or 0)
            served = measure_served(session, asked)
            late, late_lag, pushed_p99 = _late(project, session, asked)
        switched = switches(session, asked)
    said: int | None = view.declared.said("settle") if timing.refresh is not None else None
    found = ViewAvailability(
        view=view.name, fingerprint=view.fingerprint, source=source.name, how=how, **vars(known), **vars(served),
        late=late, late_lag=late_lag, switches=switched,
        refresh=timing.refresh, known_after=promised, settle=said, ready_after=timing.ready_after,
        lateness=source.lateness if isinstance(source, PushSource) else None,
    )  # fmt: skip
    longest = timing.known_by(timing.refresh or 0)
    return replace(found, advice=tuple(advice_on(found, longest_ready=longest, pushed_p99=pushed_p99)))


def _late(project: Project, session: Session, asked: MeasuredView) -> tuple[int, Lag, int | None]:
    source = asked.view.source
    if not isinstance(source, PushSource):
        return 0, Lag(), None
    is_there = project.offline.logs.has(source.name, LATE)  # opening one that is not would make it
    log = project.offline.log(source, LATE if is_there else ROWS).scan(session.connection, "late_rows")
    return late_rows(session, asked, log.relation if is_there else f"(SELECT * FROM {log.relation} WHERE false)")


def _how(source: Source) -> str:
    """How it is told when a row became known; see HOW."""
    if source.event_time is None:
        return "nothing"
    if isinstance(source, PushSource):
        return "log"
    if source.arrives:
        return "arrival"
    if source.known_column is not None:
        return "column"
    return "nothing" if isinstance(source, DataFrameSource) else SIGHTING


def _promised(source: Source, how: str) -> int | None:
    """What known_after promises: of every row, or of history, which those that came since are held against."""
    promises = how == SIGHTING or (source.history_until is not None and how in {"column", "arrival"})
    return source.known_after if promises else None


def _begin(project: Project, view: ResolvedView, done: Completions) -> int:
    """Since when (µs) what happens can be served by the view version: its first complete instant; END where it is none."""
    if view.is_pushed:
        (mark,) = project.online.get(
            [ViewCodec(project.config.project, view, tagged=project.online.tagged).watermark_key]
        ).values
        if mark is None:
            return END
        return done.instants[0] if done.instants else BEGINNING  # published before the first row, without a run
    return done.instants[0] if done.instants else END

"""What a plan says about its definitions: what their rules cost, and what in the data may surprise.

Ages are measured: for the rows of a source, how long after it happened a row is served for the first time. That is the
first instant of the view's refresh by which the row has happened and is known, plus `ready_after`, minus its event_time;
for a continuous view, when it is known. A source of more rows than `SAMPLE_ROWS` is measured on a sample chosen by row number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from featurestore.declare.durations import rough_duration, show_duration
from featurestore.declare.push import PushSource
from featurestore.declare.sources import FileSource, Source
from featurestore.declare.zones import read_as_utc
from featurestore.errors import SourceError
from featurestore.lazy import duckdb
from featurestore.plurals import plural
from featurestore.registry.steps import Notice
from featurestore.semantics.columns import NAIVE
from featurestore.semantics.expressions import columns_named
from featurestore.semantics.rows import (
    before_ttl_sql,
    counts_from_sql,
    happened_sql,
    is_known_sql,
    timed_sql,
    words_sql,
)
from featurestore.semantics.sql import floor_div
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import NoFileError
from featurestore.sources.unreadable import engine_words

SAMPLE_ROWS = 500_000
"""The most rows of one source that ages are measured on; enough for a percentile, and quick on any source."""

MINUTE_US = 60_000_000


def rule_notices(views: Iterable[ResolvedView]) -> Iterator[Notice]:
    """What follows from the definitions alone."""
    sources: dict[str, list[ResolvedView]] = {}
    for view in views:
        sources.setdefault(view.source.name, []).append(view)
        for text in _timing(view):
            yield Notice("views", view.name, text, act=True)
    for name, readers in sources.items():
        source = readers[0].source
        yield from _naive(source, {column: raw for view in readers for column, raw in view.raw.items()})
        yield from (Notice("sources", name, text) for text in _words(source))


def column_notices(views: Iterable[ResolvedView], offline: Offline) -> Iterator[Notice]:
    """How the files of sources differ in their columns."""
    sources: dict[str, list[ResolvedView]] = {}
    for view in views:
        sources.setdefault(view.source.name, []).append(view)
    for name, readers in sources.items():
        source = readers[0].source
        raw = offline.raw_types(source)
        read = {column for view in readers for column in view.columns}
        read |= {column for text in source.derived.values() for column in columns_named(text)}
        for column, mix in raw.mixed.items():
            if column in read:
                yield Notice(
                    "sources",
                    name,
                    f"column '{column}' is {mix.shown}; it is read as {raw[column]}, which holds all of them",
                )
        for column, path in raw.missing.items():
            if column in read and column in raw:
                yield Notice("sources", name, f"column '{column}' is null in files without it, such as {path}")
        others = [column for column in (*raw.faults, *raw.mixed, *raw.missing) if column not in read]
        if others and isinstance(source, FileSource):
            listed = ", ".join(f"'{column}'" for column in dict.fromkeys(others))
            yield Notice("sources", name, f"its files differ in columns that no view reads: {listed}")


def _timing(view: ResolvedView) -> Iterator[str]:
    timing = view.timing
    if view.ttl == 0:
        yield "ttl 0s: a row counts at its own instant alone, and is EXPIRED after it. Where it is to last, say no ttl"
    if timing.refresh is None and isinstance(view.source, PushSource):
        return
    if timing.refresh is None:
        yield (
            "it is continuous over a batch source: training answers for the instant of each row, serving for the last run of "
            "materialize. Say refresh='1h', or how often that runs, to train on what is served"
        )
        return
    settle, ready, refresh = (
        show_duration(timing.settle),
        show_duration(timing.ready_after),
        show_duration(timing.refresh),
    )
    if timing.ready_after == timing.settle:
        yield (
            f"ready_after is settle ({settle}): values are asked for {ready} after each refresh, which leaves the job no time; they are "
            "stale until it is done. Say a longer ready_after, such as '5m'"
        )
    if view.ttl and view.ttl < timing.refresh:
        unseen = show_duration(timing.refresh - view.ttl)
        yield (
            f"ttl {show_duration(view.ttl)} is shorter than refresh {refresh}: rows in the first {unseen} after an instant are "
            "never served"
        )


def _naive(source: Source, raw: Mapping[str, str]) -> Iterator[Notice]:
    naive = sorted(column for column, of in raw.items() if of.partition("[")[0] in NAIVE)
    if naive and source.timezone is None:
        yield Notice("sources", source.name, read_as_utc(naive), act=True)


def _words(source: Source) -> Iterator[str]:
    if source.arrives:
        yield from _arrival(source)
    if source.event_time is None and source.valid_from is None:
        yield ("it has no event_time: its history is not point-in-time, training sees the table as it is now")
    elif source.event_time is None:
        yield (
            f"it has no event_time: a row counts from '{source.valid_from}' on; its history is point-in-time only where rows "
            "are never changed"
        )


def _arrival(source: Source) -> Iterator[str]:
    earlier = (
        "training sees none of them at earlier instants; say history_until= for rows that were known before"
        if source.history_until is None
        else f"those that happened up to {source.history_until.isoformat()} count {show_duration(source.known_after)} after "
        "they happened, as history_until says"
    )
    if isinstance(source, FileSource) and source.IMMUTABLE:
        yield (
            "known_at=ARRIVAL: a row counts from the commit of its table that added it. Where rows are written anew, by a deletion or an "
            "update with neither deletion vectors nor a change data feed, when they came is lost, and the source is refused"
        )
        return
    yield (
        f"known_at=ARRIVAL: the rows of a file count from when the store first saw it. What lies there at the first apply is "
        f"known from then on: {earlier}. Add files, and change none: one that is written anew counts from then on"
    )


def data_notices(views: Iterable[ResolvedView], offline: Offline, *, now: int) -> Iterator[Notice]:
    """What the data says at `now` (µs); reads the time columns of each source once, and the keys of views with a ttl.

    SourceError where they cannot be read.
    """
    sources: dict[str, list[ResolvedView]] = {}
    for view in views:
        if view.source.event_time is not None:
            sources.setdefault(view.source.name, []).append(view)
    for name, readers in sources.items():
        source = readers[0].source
        with offline.session() as session:
            try:
                total, kept = _measure(session, readers[0])
                if kept:
                    of = (
                        f"{total:,} {plural(total, 'row')}"
                        if kept == total
                        else f"{kept:,} of {total:,} {plural(total, 'row')}, a sample"
                    )
                    yield from (Notice("views", view.name, _age(session, view, of)) for view in readers)
                    yield from (Notice("sources", name, text, act=True) for text in _loads(session, source))
                    for view in readers:
                        yield from _expired(session, view, total, now)
                yield from (Notice("sources", name, text) for text in _after_cutover(session, source, offline))
                yield from (Notice("sources", name, text) for text in _unseen(source, offline))
            except NoFileError:
                yield Notice("sources", name, NO_FILE, act=True)
            except duckdb.Error as error:
                raise SourceError(f"{source.title} cannot be read: {engine_words(error)} ({source.origin})") from error


NO_FILE = "it has no file yet, and its columns are those of its schema: training and materialize refuse its views until there is one"


def _measure(session: Session, view: ResolvedView) -> tuple[int, int]:
    """Fill `times` (event_us, known, loaded in µs) from the view's source; the rows there are, and those that were kept."""
    scan = session.scan(view.source)
    total = _row(session, f"SELECT count(*) FROM {scan.relation}")[0]
    every = -(-total // SAMPLE_ROWS)
    some = f"AND hash(row) % {every} = 0" if every > 1 else ""
    session.connection.execute(
        "CREATE OR REPLACE TEMP TABLE times AS SELECT event_us, known, learned_us AS loaded FROM "
        f"({words_sql(view, scan)}) WHERE event_us IS NOT NULL AND known IS NOT NULL {some}"
    )
    return total, _row(session, "SELECT count(*) FROM times")[0]


def _age(session: Session, view: ResolvedView, of: str) -> str:
    timing = view.timing
    lag, served = "greatest(known - event_us, 0)", counts_from_sql()
    if timing.refresh is not None:
        served = timing.served_from_sql(timing.first_sql(counts_from_sql(timing.settle)))
    quantile = "CAST(quantile_disc({}, {}) AS BIGINT)"
    columns = [quantile.format(lag, 0.5), *(quantile.format(f"{served} - event_us", q) for q in (0.5, 0.95))]
    known, half, most = map(rough_duration, _row(session, f"SELECT {', '.join(columns)} FROM times"))
    if timing.refresh is None:
        return f"a row can be used {half} after it happened, 95 % of them within {most} (when they are known; {of})"
    bounds = f"{rough_duration(timing.ready_after)} to {rough_duration(timing.ready_after + timing.refresh)}"
    return (
        f"a row is first served {half} after it happened, 95 % of them within {most}: known after {known} (medians of {of}); "
        f"the instant that is served is {bounds} old"
    )


def _expired(session: Session, view: ResolvedView, total: int, now: int) -> Iterator[Notice]:
    """The share of the keys that are known at `now` and have no row within the ttl then; of many rows, of a sample of keys.

    That a row was replaced or deleted is left out of account.
    """
    if not view.ttl:
        return
    as_of = view.timing.as_of(now)
    keys = [f"k{i}" for i in range(len(view.keys))]
    terms = [happened_sql(as_of), is_known_sql(view.timing.known_by(as_of)), *(f"{key} IS NOT NULL" for key in keys)]
    if keys and (every := -(-total // SAMPLE_ROWS)) > 1:
        terms.append(f"hash({', '.join(keys)}) % {every} = 0")
    known, gone, newest = session.connection.execute(
        f"SELECT count(*), count(*) FILTER ({before_ttl_sql(as_of, view.ttl)}), "
        "strftime(make_timestamp(max(event_us)), '%Y-%m-%d %H:%M') "
        f"FROM (SELECT max(event_us) AS event_us FROM ({words_sql(view, session.scan(view.source))}) "
        f"WHERE {' AND '.join(terms)} GROUP BY {', '.join(keys) or '()'})"
    ).fetchall()[0]
    if gone:
        last = (
            f"; the newest row is of {newest} UTC, and --at takes an instant of then for now" if gone == known else ""
        )
        text = (
            f"{_share(gone, known)} of its keys would be EXPIRED now: they have no row within ttl "
            f"{show_duration(view.ttl)}{last}"
        )
        yield Notice("views", view.name, text, act=gone > known / 2)


def _share(some: int, of: int) -> str:
    """A percentage that is 0 or 100 where it is exactly."""
    if 0 < some < of / 100:
        return "less than 1%"
    return "over 99%" if of * 0.99 < some < of else f"{some / of:.0%}"


def _loads(session: Session, source: Source) -> Iterator[str]:
    """Whether one minute holds most of the known_at values, of rows that happened over a longer time than that."""
    if source.known_column is None or source.history_until is not None:
        return
    minute = floor_div("loaded", MINUTE_US)
    rows = session.connection.execute(
        f"SELECT {minute} AS minute, count(*) / (SELECT count(*) FROM times) AS share, "
        "strftime(make_timestamp(min(loaded)), '%Y-%m-%d %H:%M') FROM times "
        f"GROUP BY minute HAVING share > 0.5 AND max(event_us) - min(event_us) > {MINUTE_US}"
    ).fetchall()
    for _, share, at in rows:
        yield (
            f"one load holds most of its rows: {share:.0%} of '{source.known_column}' lies in the minute {at} UTC; training sees "
            "few of them before. Where they were known earlier, say history_until="
        )


def _after_cutover(session: Session, source: Source, offline: Offline) -> Iterator[str]:
    """How many rows of a push source's batch history no view reads, since they count from after the cutover only."""
    if not isinstance(source, PushSource) or source.history is None or source.cutover is None:
        return
    history = source.history
    rows = timed_sql(history, offline.raw_types(history), session.scan(history), "1 AS one")
    late, every = _row(
        session,
        f"SELECT count(*) FILTER ({counts_from_sql()} > {source.cutover_instant}), count(*) FROM ({rows}) "
        "WHERE event_us IS NOT NULL AND known IS NOT NULL",
    )
    if late:
        yield (
            f"{late:,} of {every:,} {plural(every, 'row')} of its history '{history.name}' happened or were known after the cutover, "
            f"{source.cutover.isoformat()}: they reach no view. Push those that were not pushed"
        )


def _unseen(source: Source, offline: Offline) -> Iterator[str]:
    """How many files of a source whose rows count from their arrival nobody has journalled."""
    if source.arrives and not (isinstance(source, FileSource) and source.IMMUTABLE):  # a table says when its rows came
        seen = offline.arrivals.seen(source.name, [file.sighting for file in offline.files(source)])
        if None in seen:
            yield f"{seen.count(None)} of {len(seen)} {plural(len(seen), 'file was', 'files were')} not seen before: their rows are known from the apply on"


def _row(session: Session, sql: str) -> tuple[int, ...]:
    row: tuple[int, ...] = session.connection.execute(sql).fetchall()[0]
    return row

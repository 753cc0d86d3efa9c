"""The lags of a view's rows, counted in SQL over the scan of its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.clock import instant_of
from featurestore.declare.push import KNOWN_AT, PushSource
from featurestore.lazy import pa
from featurestore.reports.availability.report import KnownLags, Lag, ServedLags, Settling, Switches
from featurestore.reports.journals import Completions, Landing
from featurestore.semantics.rows import counts_from_sql, valid_terms, words_sql
from featurestore.semantics.source_columns import happened_of, identity_terms
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.view import ResolvedView
from featurestore.sources.session import Session

QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class MeasuredView:
    """What is measured: a view, told in the way `how`, over rows that happened from `since` to `now` (µs).

    landings: of each file of its source, None where its rows lie in none. begin: since when (µs) rows of the view that
    happen can be served, END where they cannot.
    """

    view: ResolvedView
    how: str
    since: int
    now: int
    landings: Sequence[Landing] | None
    completions: Completions
    begin: int


def prepare(session: Session, asked: MeasuredView) -> None:
    """Fill the temporary table `measured` with what is counted of each row, in µs.

    event_us: it happened; known: as the view counts it; came, after: it became known at the latest then, and later than that;
    told: whether those two are measured; first: whether it is the first version of its row; counted: whether it can be told
    when it was served; instant: the complete instant before which no run can have found it, served: since when that is.
    """
    view, source = asked.view, asked.view.source
    words, joined = words_sql(view, session.scan(source)), ""
    told = "true" if source.history_until is None else f"w.event_us > {instant_of(source.history_until)}"
    came, after, instant, served, counted = "w.learned_us", "w.learned_us - 1", str(BEGINNING), str(BEGINNING), "true"
    if asked.landings is not None:
        columns = zip(*asked.landings, strict=True)
        landed = {name: pa.array(column, pa.int64()) for name, column in zip(Landing._fields, columns, strict=True)}
        session.connection.register("landed", pa.table({"number": pa.array(range(len(asked.landings))), **landed}))
        joined = "LEFT JOIN landed l ON l.number = w.file"
        found = f"CASE WHEN w.event_us > l.replaced THEN l.{{}} ELSE {BEGINNING} END"
        instant, served = found.format("instant"), found.format("served")
        if asked.how != "column":
            came, after, told = "l.came", "l.after", f"{told} AND w.event_us > l.since"
        if source.arrives:  # whose rows count anew with each file that they lie in
            counted, after = "w.event_us > l.replaced", "l.came - 1"
    elif asked.how not in {"column", "log"}:
        told = "false"
    valid = valid_terms(view, "w.")
    if isinstance(source, PushSource):
        valid.append("w.file > 0")  # the log; its history lies below
    session.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE measured AS SELECT event_us, known, came, after, told, first, counted, instant, served "
        f"FROM (SELECT w.*, {came} AS came, {after} AS after, coalesce({told}, false) AS told, {_first(view, came)} AS first, "
        f"{instant} AS instant, {served} AS served, coalesce({counted}, false) AS counted FROM ({words}) w {joined}) w "
        f"WHERE {' AND '.join(valid)} AND w.event_us >= {asked.since} AND w.event_us <= {asked.now}"
    )


def _first(view: ResolvedView, came: str) -> str:
    """Whether a row is the first version of its identity that became known; those that follow are corrections."""
    source = view.source
    if not source.identity:
        return "true"
    if isinstance(source, PushSource):
        return "w.replaces IS NULL"
    return (
        f"row_number() OVER (PARTITION BY {identity_terms(view)} ORDER BY {came} NULLS LAST, w.learned_us NULLS LAST, "
        "w.event_us NULLS LAST, w.file, w.row) = 1"
    )


def measure_known(session: Session, asked: MeasuredView, known_after: int) -> KnownLags:
    """How late the prepared rows became known, and how many of them later than `known_after` (µs) for certain."""
    timing, told = asked.view.timing, "FILTER (WHERE told AND first)"
    by = timing.known_by_sql("i")
    instant = "event_us" if timing.refresh is None else timing.first_sql("event_us")
    # For an instant a row counts when it is known as its words say; the file of a row that only promises that is there besides.
    rows = f"SELECT *, {instant} AS i, greatest(came, known) AS late, greatest(after, known - 1) AS least FROM measured"
    row = _row(
        session,
        f"SELECT {_lag('came - event_us', told)}, {_lag('after + 1 - event_us', told)}, count(*) FILTER (WHERE first AND NOT told), "
        f"count(*) FILTER (WHERE told AND first AND after >= event_us + {known_after}), "
        f"count(*) FILTER (WHERE told AND first AND came > event_us + {known_after}), count(*) FILTER (WHERE NOT first), "
        f"count(*) FILTER (WHERE told AND first AND late > i AND least < {by}), "
        f"count(*) FILTER (WHERE told AND first AND least >= {by}), "
        f"quantile_disc(greatest(late - i, 0), 0.99) {told}, quantile_disc(greatest(least + 1 - i, 0), 0.99) {told}, "
        f"max(greatest(late - i, 0)) {told} FROM ({rows})",
    )
    known, (untold, beyond, most, versions, *settling) = _lag_of(row[0:3]), row[6:]
    refreshed = timing.refresh is not None and known.rows
    return KnownLags(
        known=known, known_least=_lag_of(row[3:6]), untold=untold, beyond=beyond, beyond_at_most=most, versions=versions,
        settling=Settling(*settling) if refreshed else None,
    )  # fmt: skip


def measure_served(session: Session, asked: MeasuredView) -> ServedLags:
    """How late the prepared rows could be served first, of those that happened since the view was first complete.

    A run counts a row when it has happened by its instant, is known by its instant + settle, and its file is there when
    the run begins. Rows that are pushed into records count as soon as they are known.
    """
    done, timing = asked.completions, asked.view.timing
    if asked.view.is_pushed:
        rows = f"SELECT event_us, {counts_from_sql(known='came')} AS used FROM measured WHERE first"
        absent = "false"
    else:
        runs = {"instant": done.instants, "served": done.served}
        session.connection.register("runs", pa.table({name: pa.array(of, pa.int64()) for name, of in runs.items()}))
        # Instants are distinct, so there is one nearest run for each row.
        absent = "instant > run"
        rows = (
            f"SELECT m.event_us, m.instant, r.instant AS run, CASE WHEN m.instant > coalesce(r.instant, {END}) THEN m.served "
            f"ELSE coalesce(r.served, {END}) END AS used FROM (SELECT *, {counts_from_sql(timing.settle)} AS need "
            "FROM measured WHERE first AND counted) m ASOF LEFT JOIN runs r ON m.need <= r.instant"
        )
    used = f"used <= {asked.now}"
    lag = _lag("used - event_us", f"FILTER (WHERE {used})")
    row = _row(
        session,
        f"SELECT {lag}, count(*) FILTER (WHERE NOT {used}), count(*) FILTER (WHERE {absent}) FROM ({rows}) WHERE event_us > {asked.begin}",
    )
    return ServedLags(servable=_lag_of(row[0:3]), waiting=row[3], absent=row[4])


def switches(session: Session, asked: MeasuredView) -> Switches | None:
    """How late the instants were that lookups should have been served by now; None for continuous views."""
    timing, done = asked.view.timing, asked.completions
    if timing.refresh is None:
        return None
    if not done.instants:
        return Switches(0, 0, 0, Lag())
    low = timing.first(max(done.instants[0] + 1, asked.since))
    runs = {"instant": done.instants, "finished": done.finishes}
    session.connection.register("finishes", pa.table({name: pa.array(of, pa.int64()) for name, of in runs.items()}))
    row = _row(
        session,
        f"SELECT {_lag('delay', '')}, count(*) FILTER (WHERE delay > {timing.ready_after}), "
        "count(*) FILTER (WHERE run IS DISTINCT FROM i) FROM (SELECT g.i, r.instant AS run, "
        f"coalesce(r.finished, {asked.now}) - g.i AS delay FROM range({low}, {asked.now - timing.ready_after + 1}, "
        f"{timing.refresh}) g(i) ASOF LEFT JOIN finishes r ON g.i <= r.instant)",
    )
    delay = _lag_of(row[0:3])
    return Switches(delay.rows, row[3], row[4], delay)


def late_rows(session: Session, asked: MeasuredView, relation: str) -> tuple[int, Lag, int | None]:
    """Of the rows that were pushed too late to count: how many, their lag, and the 99th percentile over these and those
    that count. relation: where they are kept aside."""
    rows = (
        f"SELECT {KNOWN_AT} - event_us AS lag FROM (SELECT {KNOWN_AT}, {happened_of(asked.view.source, asked.view.raw)} AS event_us "
        f"FROM {relation}) WHERE event_us IS NOT NULL AND event_us >= {asked.since} AND event_us <= {asked.now}"
    )
    lag = _lag_of(_row(session, f"SELECT {_lag('lag', '')} FROM ({rows})"))
    every = f"{rows} UNION ALL SELECT came - event_us FROM measured WHERE told AND first"
    (p99,) = _row(session, f"SELECT quantile_disc(lag, 0.99) FROM ({every})")
    return lag.rows, lag, p99


def _lag(expression: str, of: str) -> str:
    """Three columns that `_lag_of` reads; of: a FILTER."""
    wanted = ", ".join(map(str, QUANTILES))
    return f"count(*) {of}, quantile_disc({expression}, [{wanted}]) {of}, max({expression}) {of}"


def _lag_of(columns: Sequence[Any]) -> Lag:
    rows, quantiles, greatest = columns
    if not rows:
        return Lag()
    p50, p95, p99 = quantiles
    return Lag(rows, p50, p95, p99, greatest)


def _row(session: Session, sql: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = session.connection.execute(sql).fetchall()[0]
    return row

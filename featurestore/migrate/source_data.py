"""A look at the files of a source: its columns, its times, and what the column of when rows were created says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from featurestore.clock import to_datetime
from featurestore.declare.delta_source import DeltaSource
from featurestore.declare.durations import parse_duration, show_duration
from featurestore.declare.sources import ParquetSource
from featurestore.errors import FeatureStoreError
from featurestore.lazy import duckdb
from featurestore.plurals import plural
from featurestore.semantics.columns import NAIVE, ZONED, RawColumns, instant_sql
from featurestore.semantics.sql import quote
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.unreadable import engine_words
from featurestore.types import FIRST_MICRO, LAST_MICRO

STEPS = tuple(map(parse_duration, ("1d", "12h", "6h", "1h", "30m", "15m", "10m", "5m", "1m")))
"""Steps on which event times may lie, the longest first."""

ONE_LOAD = 0.95
"""Share of rows from which on one minute of `created` is the load of them all."""

FEW_LOADS = 3
"""So many minutes of `created`, and no more, are loads by hand, and not arrivals."""

ARRIVED = 0.99
"""Share of rows that were created when or after they happened, from which on the column may say when they came."""

Created = Literal["load", "arrival", "loaded history, then arrival"]


@dataclass(frozen=True)
class CreatedColumn:
    """What a column of when rows were created holds, and why that is thought.

    load: of a history that was loaded at once before rows came one by one, the instant. lag: after how long rows come, µs.
    """

    says: Created
    why: str
    load: datetime | None = None
    lag: int = 0


@dataclass(frozen=True)
class SourceData:
    """What the files of a source hold. problem: why nothing of them can be said; None where something can.

    columns: name → DuckDB type, with the faults of those that cannot be read. step: the longest step on which all event times
    lie, µs; None where there is none. ties: keys and times that more rows than one have.
    """

    problem: str | None = None
    columns: RawColumns = field(default_factory=lambda: RawColumns({}))
    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None
    step: int | None = None
    without_time: int = 0
    created: CreatedColumn | None = None


def read_source_data(path: Path, *, event_time: str, created: str, is_delta: bool = False) -> SourceData:
    """Look at the files of a source. event_time, created: columns of theirs; "" where none is named. is_delta: whether it is a
    Delta Lake table."""
    offline = Offline(Path("/"))
    try:
        form = DeltaSource if is_delta else ParquetSource
        source = form("looked_at", str(path), event_time=None)
        with offline.session() as session:
            return _looked(session, source, event_time=event_time, created=created)
    except FeatureStoreError as error:
        return SourceData(problem=re.sub(r"^\w+ 'looked_at'", "", str(error)).lstrip(": ").removesuffix(" ()"))
    except duckdb.Error as error:
        return SourceData(problem=engine_words(error))
    finally:
        offline.close()


def _looked(session: Session, source: ParquetSource | DeltaSource, *, event_time: str, created: str) -> SourceData:
    columns = session.columns(source)
    relation = session.scan(source).relation
    query = session.connection.execute
    (rows,) = query(f"SELECT count(*) FROM {relation}").fetchall()[0]
    happened = _instant(source, event_time, columns)
    if happened is None:
        return SourceData(columns=columns, rows=rows)
    steps = ", ".join(f"bool_and(t % {step} = 0)" for step in STEPS)
    first, last, missing, *on_step = query(
        f"SELECT min(t), max(t), count(*) FILTER (t IS NULL), {steps} FROM (SELECT {happened} AS t FROM {relation})"
    ).fetchall()[0]
    step = next((step for step, holds in zip(STEPS, on_step, strict=True) if holds), None)
    learned = _instant(source, created, columns)
    return SourceData(
        columns=columns, rows=rows, first=_moment(first), last=_moment(last), step=step, without_time=missing,
        created=None if learned is None or not rows else _created(session, relation, happened, learned),
    )  # fmt: skip


def _instant(source: ParquetSource | DeltaSource, name: str, columns: RawColumns) -> str | None:
    """BIGINT µs of a column of instants or days, which begin them; None where it is none."""
    raw = columns.get(name)
    if raw not in {*NAIVE, *ZONED, "DATE"} or raw is None:
        return None
    return instant_sql(source.model_copy(update={"date": "start"}), quote(name), raw)


def _moment(instant: int | None) -> datetime | None:
    """An instant; None where there is none, or none that a datetime can hold."""
    return to_datetime(instant) if instant is not None and FIRST_MICRO <= instant <= LAST_MICRO else None


def _created(session: Session, relation: str, happened: str, learned: str) -> CreatedColumn:
    """What its values say; a minute that holds most of them is one load."""
    table = f"(SELECT {happened} AS t, {learned} AS k FROM {relation})"
    rows, known, after = session.connection.execute(
        f"SELECT count(*), count(k), count(*) FILTER (k >= t) FROM {table} WHERE t IS NOT NULL"
    ).fetchall()[0]
    if known < rows:
        return CreatedColumn(
            "load",
            f"{rows - known:,} of {rows:,} {plural(rows, 'row has', 'rows have')} none, and would be known at no time",
        )
    if not rows:
        return CreatedColumn("load", "there are no rows")
    minute, most, minutes = session.connection.execute(
        f"SELECT arg_max(m, n), max(n), count(*) FROM (SELECT k // 60000000 AS m, count(*) AS n FROM {table} GROUP BY m)"
    ).fetchall()[0]
    load = to_datetime(min(max(minute * 60_000_000, FIRST_MICRO), LAST_MICRO))
    if most >= ONE_LOAD * rows:
        return CreatedColumn(
            "load", f"one minute, {load:%Y-%m-%d %H:%M}, holds {most / rows:.0%} of {rows:,} {plural(rows, 'row')}"
        )
    if after < ARRIVED * rows:
        return CreatedColumn(
            "load", f"{rows - after:,} of {rows:,} {plural(rows, 'row was', 'rows were')} created before they happened"
        )
    if minutes <= FEW_LOADS:
        return CreatedColumn(
            "load", f"{minutes} {plural(minutes, 'load holds', 'loads hold')} all {rows:,} {plural(rows, 'row')}"
        )
    share = most / rows
    if share > 1 / FEW_LOADS:
        lag = _lag(session, f"{table} WHERE k // 60000000 <> {minute}")
        why = f"one minute, {load:%Y-%m-%d %H:%M}, holds {share:.0%} of {rows:,} {plural(rows, 'row')}, and the others came {show_duration(lag)} after"
        return CreatedColumn("loaded history, then arrival", why, load + timedelta(minutes=1), lag)
    lag = _lag(session, table)
    return CreatedColumn(
        "arrival",
        f"{rows:,} {plural(rows, 'row')} came in {minutes:,} {plural(minutes, 'minute')}, half of them {show_duration(lag)} after",
        None,
        lag,
    )


def _lag(session: Session, table: str) -> int:
    """After how many whole seconds half of the rows had come, in µs."""
    (lag,) = session.connection.execute(f"SELECT median(k - t)::BIGINT // 1000000 FROM {table}").fetchall()[0]
    return max(0, int(lag or 0)) * 1_000_000

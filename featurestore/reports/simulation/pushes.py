"""The rows of a push source: what was known before the start lies in the log, the rest is pushed.

Rows are those of the source's log, at the instants at which it learned of them; or rows that are given, at their
`known_at`, else as they happened; or those of its batch history that lie after the start, as they were known by the
history's words. For these the cutover is moved to the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.clock import to_datetime
from featurestore.declare.durations import parse_duration
from featurestore.declare.frames import table_of
from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.errors import PushError
from featurestore.lazy import pa, pc
from featurestore.push.rows import table_of_rows
from featurestore.reports.simulation.faults import Faults, Stretch, chances
from featurestore.reports.simulation.landing import Came
from featurestore.semantics.rows import counts_from_sql
from featurestore.semantics.sql import quote
from featurestore.sources.history import history_sql
from featurestore.sources.log import Log
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session

MOST_PUSHES = 2_000
"""Pushes of one source that a simulation makes at most, retries aside; rows that are learned close together share one."""

APPENDED_ROWS = 100_000
"""Rows that are appended to the log at once."""

RETRY_AFTER_US, RETRY_WITHIN_US = parse_duration("1s"), parse_duration("10m")
"""How long after its push a row comes again, and by how much a row in disorder is behind the others at most."""

DISORDER_SHARE = 0.1
"""The share of the rows that come in disorder."""

Ints = npt.NDArray[np.int64]


@dataclass
class Sent(Came):
    """Those of a push source: in how many pushes they came, and of these rows how many were accepted, unchanged (retries) and
    kept aside; pushes that died."""

    pushes: int = 0
    accepted: int = 0
    unchanged: int = 0
    kept_aside: int = 0
    died: int = 0


@dataclass(frozen=True)
class Batch:
    """Rows that are pushed together, at an instant (µs)."""

    at: int
    rows: pa.Table


class PushFeed:
    """One push source of `offline`, the real one. given: rows in place of those of its log (a frame), or None."""

    def __init__(self, source: PushSource, offline: Offline, session: Session, given: Any = None) -> None:
        self.source = source
        self.done = Sent()
        self._offline, self._session = offline, session
        self._rows = _given(source, given) if given is not None else _logged(source, offline)
        if given is not None:
            self._rows = _replacing(session, source, self._rows)

    def newest(self, upto: int) -> int | None:
        """The last instant up to `upto` (µs) at which a row became known."""
        found: int | None = pc.max(self._rows.filter(pc.field(KNOWN_AT) <= upto)[KNOWN_AT]).as_py()
        return found

    def cutover_moves(self, span: Stretch) -> bool:
        """Whether rows of its batch history lie after the start."""
        cutover = self.source.cutover_instant
        return cutover is not None and cutover > span.start

    def moved(self, span: Stretch, history: Any) -> PushSource:
        """The source as it is declared, over its history where that lies now."""
        update: dict[str, Any] = {"history": history}
        if self.cutover_moves(span):
            update["cutover"] = to_datetime(span.start)
        return self.source.model_copy(update=update)

    def begin(self, span: Stretch, log: Log) -> None:
        """Put what was known at the start into the log of the simulation."""
        before = self._rows.filter(pc.field(KNOWN_AT) <= span.start)
        if self.cutover_moves(span):
            before = before.slice(0, 0)
            self._rows = pa.concat_tables([_of_history(self.source, self._offline, self._session, span), self._rows])
        self.done.history = before.num_rows
        with log.lock():
            for first in range(0, before.num_rows, APPENDED_ROWS):
                part = before.slice(first, APPENDED_ROWS).select(log.schema.names).cast(log.schema).combine_chunks()
                log.append(part.to_batches())

    def batches(self, span: Stretch, faults: Faults, seed: int) -> Iterator[Batch]:
        """What is pushed, in the order of its time; rows that come twice are in two of them."""
        rows = self._rows.filter((pc.field(KNOWN_AT) > span.start) & (pc.field(KNOWN_AT) <= span.end))
        known: Ints = rows[KNOWN_AT].to_numpy()
        if not len(known):
            return
        rows = rows.select(list(self.source.columns)).combine_chunks()
        drawn = chances(seed, f"pushes of {self.source.name}")
        at, count = known, len(known)
        if faults.disorder:
            behind = drawn.integers(1, min(RETRY_WITHIN_US, max(self.source.lateness // 4, 1)) + 1, count)
            at = at + np.where(drawn.random(count) < DISORDER_SHARE, behind, 0)
        late = faults.delays(drawn, count)
        at = at + late
        self.done.late, self.done.late_by = int((late > 0).sum()), int(late.max())
        # A batch is pushed when its last row is known; batches begin anew where a length of time does.
        length = max(span.length // MOST_PUSHES, 1)
        yield from _batches(rows, np.arange(count), at, length)
        if self.source.identity and faults.duplicates:
            again = np.flatnonzero(drawn.random(count) < faults.duplicates)
            # After the batch that has the row, so that the second one is the retry.
            yield from _batches(
                rows, again, at[again] + length + drawn.integers(RETRY_AFTER_US, RETRY_WITHIN_US, len(again)), length
            )


def _batches(rows: pa.Table, places: Ints, at: Ints, length: int) -> Iterator[Batch]:
    if not len(at):
        return
    order = np.lexsort((places, at))
    places, at = places[order], at[order]
    starts = [0, *(np.flatnonzero(np.diff(at // length)) + 1)]
    for first, end in zip(starts, [*starts[1:], len(at)], strict=True):
        yield Batch(int(at[end - 1]), rows.take(pa.array(places[first:end])))


def _schema(source: PushSource) -> pa.Schema:
    own = [pa.field(name, of.arrow) for name, of in source.columns.items()]
    return pa.schema([*own, pa.field(KNOWN_AT, pa.int64()), pa.field(REPLACES, pa.int64())])


def _logged(source: PushSource, offline: Offline) -> pa.Table:
    """The rows of the source's log, but those that were emptied with a forgotten key; a log that is not there is not made."""
    if not offline.logs.has(source.name):
        return _schema(source).empty_table()
    rows = offline.log(source).read().cast(_schema(source))
    there = pc.is_valid(rows[source.event_time])
    if source.deleted is not None:
        there = pc.or_(there, pc.fill_null(rows[source.deleted], False))
    return rows.filter(there)


def _given(source: PushSource, given: Any) -> pa.Table:
    """The rows of a frame in the order in which they are learned, a µs apart at least."""
    try:
        frame = table_of(given)
    except TypeError as error:
        raise PushError(f"{source.title}: {error}") from None
    named = [name for name in frame.column_names if name in source.columns]
    rows = table_of_rows(source, frame.select(named))
    known: Any = rows[source.event_time].cast(pa.int64())
    if KNOWN_AT in frame.column_names:
        said = frame[KNOWN_AT].cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64())
        known = pc.max_element_wise(said, known)
    if known.null_count:
        raise PushError(
            f"{source.title}: a row has neither '{source.event_time}' nor known_at: nothing says when to push it"
        )
    values: Ints = known.to_numpy()
    order = np.argsort(values, kind="stable")
    number = np.arange(len(values))
    values = np.maximum.accumulate(values[order] - number) + number
    rows = rows.take(pa.array(order)).append_column(KNOWN_AT, pa.array(values, pa.int64()))
    return rows.append_column(REPLACES, pa.nulls(len(values), pa.int64())).cast(_schema(source))


def _replacing(session: Session, source: PushSource, rows: pa.Table) -> pa.Table:
    """The rows, each naming the version of its identity that it replaces."""
    if not source.identity:
        return rows
    identity = ", ".join(map(quote, source.identity))
    session.connection.register("given", rows)
    replaced = session.connection.sql(
        f"SELECT lag({KNOWN_AT}) OVER (PARTITION BY {identity} ORDER BY {KNOWN_AT}) AS replaced FROM given ORDER BY {KNOWN_AT}"
    ).to_arrow_table()
    session.connection.unregister("given")
    return rows.set_column(rows.schema.get_field_index(REPLACES), REPLACES, replaced["replaced"])


def _of_history(source: PushSource, offline: Offline, session: Session, span: Stretch) -> pa.Table:
    """The rows of the batch history that were known after the start and before the cutover, as the log has its own."""
    history, cutover = source.history, source.cutover_instant
    assert history is not None
    assert cutover is not None
    rows = history_sql(source, history, session.scan(history), offline.raw_types(history), known=counts_from_sql())
    within = f"{counts_from_sql()} > {span.start} AND {counts_from_sql()} <= {min(cutover, span.end)}"
    table = session.connection.sql(f"{rows} AND {within} ORDER BY ALL").to_arrow_table()
    return table.cast(_schema(source))

"""The kernel: what a service says of some rows of a spine, from whatever its session reads.

Number the spine's rows; per view, compute each row's as_of by rule 0 and ask the as-of query; place the answers by
row number; evaluate on-demand features; lay the columns out in the service's order. It knows neither where a source's rows
lie nor what runs beside it: one machine gives it chunks of the spine and its files, an engine of many the rows of some keys.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from featurestore.declare.zones import naive_columns, read_as_utc
from featurestore.errors import SourceError
from featurestore.lazy import duckdb, pa
from featurestore.query.answer import Answer, ask
from featurestore.semantics.columns import said_type
from featurestore.semantics.evaluate import evaluate, input_names
from featurestore.semantics.rows import invalid_sql, whole_sql
from featurestore.semantics.service import REQUEST_TIME, ResolvedService, ServiceColumn, ServiceView
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedView
from featurestore.sources.expected import check_rows, check_source, row_expectations, source_findings, unmet_rows
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.unreadable import engine_words
from featurestore.training.spine import SpineChunk
from featurestore.training.spine_table import SpineTable, load_chunk
from featurestore.training.training_frame import Block, check_names, statuses_of

VIEWS_AT_ONCE = 2
"""Views that are asked at once. With two, a frame of 1,000,000 rows of two views takes a tenth less time: what one does in a single
thread leaves room for the other."""

Instants = npt.NDArray[np.int64]

STATUS_NAMES = [status.name for status in Status]


@dataclass(frozen=True)
class Options:
    """What a caller may ask for beside the features."""

    timestamp: str = "event_timestamp"
    """The spine's column of instants."""
    timezone: str | None = None
    """The zone of those that have none; where it is not said, they are read as UTC, and the manifest has a notice of it."""
    with_status: bool = False
    with_event_time: bool = False

    @property
    def zone(self) -> str:
        """The zone as which timestamps without one are read."""
        return "UTC" if self.timezone is None else self.timezone


@dataclass(frozen=True)
class Counts:
    """What the manifest counts of the rows that were answered; counts of disjoint rows add up."""

    rows: int = 0
    """Rows of the spine."""

    conflicts: Mapping[str, int] = field(default_factory=dict)
    """By part the requests in which only bytes decided a value."""

    past: Mapping[str, int] = field(default_factory=dict)
    """By part the requests past the last complete instant."""

    invalid: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """By part how many source rows lack known_at or identity, and how many of the rest lack a key or event_time. Parts whose
    rows were not counted are not there."""

    unmet: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By part, of each expectation of its source and view, how many source rows do not meet it."""

    notices: tuple[str, ...] = ()

    statistics: tuple[str, ...] = ()
    """What tasks of an engine gathered of the rows' values, see `engines/task_statistics.py`; it is in no manifest."""

    def __add__(self, other: Counts) -> Counts:
        invalid = dict(self.invalid)
        for part, (dropped, keyless) in other.invalid.items():
            before = invalid.get(part, (0, 0))
            invalid[part] = before[0] + dropped, before[1] + keyless
        return Counts(
            self.rows + other.rows,
            _sum(self.conflicts, other.conflicts),
            _sum(self.past, other.past),
            invalid,
            {part: _sum(self.unmet.get(part, {}), other.unmet.get(part, {})) for part in {**self.unmet, **other.unmet}},
            tuple(dict.fromkeys([*self.notices, *other.notices])),
            self.statistics + other.statistics,
        )

    def plain(self) -> dict[str, Any]:
        """These counts as plain JSON."""
        return asdict(self)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """What `plain` said."""
        invalid = {part: (int(dropped), int(keyless)) for part, (dropped, keyless) in said["invalid"].items()}
        return cls(
            said["rows"], said["conflicts"], said["past"], invalid, said["unmet"], tuple(said["notices"]),
            tuple(said["statistics"]),
        )  # fmt: skip

    def enter(self, manifest: dict[str, Any]) -> None:
        """Put them into a manifest in place of those that it has."""
        manifest["rows"] = self.rows
        manifest["conflicts"] = dict(self.conflicts)
        manifest["invalid_rows"] = {
            part: {"no known_at or identity": dropped, "no key or event_time": keyless}
            for part, (dropped, keyless) in self.invalid.items()
        }
        if self.unmet:
            manifest["unmet_expectations"] = {part: dict(unmet) for part, unmet in self.unmet.items()}
        manifest["spine_rows_past_the_last_complete_instant"] = dict(self.past)
        manifest["notices"] += [notice for notice in self.notices if notice not in manifest["notices"]]


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {part: one.get(part, 0) + other.get(part, 0) for part in dict.fromkeys([*one, *other])}


@dataclass(frozen=True)
class PartValues:
    """One part's features for n rows: columns and statuses by column name, and the event time of the newest row."""

    columns: dict[str, pa.Array]
    statuses: dict[str, npt.NDArray[np.uint8]]
    event_times: pa.Array


def answer_rows(
    service: ResolvedService, rows: Mapping[str, pa.Table], spine: pa.Table, *, offline: Offline, now: int, options: Options,
    counted: Container[str],
) -> tuple[pa.Table, Counts]:  # fmt: skip
    """The spine's columns and the service's beside them, row by row, from the rows of its sources.

    rows: by source all rows of every key in the spine, with the columns that the service reads (see `Session.rows`). offline: says
    how much memory and how many threads are used, which folder is spilled to, and which keys are forgotten. counted: see `answer`.
    Raises SourceError where a column is of another type than the definitions were settled over.
    """
    with offline.session(rows=rows) as session:
        for part in service.parts:
            check_types(part.view, session)
        block, counts = answer(session, SpineChunk(spine, 0), service, now=now, options=options, counted=counted)
    return block.table(), counts


def check_types(view: ResolvedView, session: Session) -> None:
    """SourceError where a session reads a view's columns as other types than the view was settled over."""
    found = session.columns(view.source)
    for column, raw in view.raw.items():
        if found.get(column) != raw:
            is_ = f"is {said_type(found[column])}" if column in found else "is missing"
            raise SourceError(
                f"{view.declared.title}: column '{column}' of source '{view.source.name}' {is_} in the rows that it is to be answered "
                f"from, and {said_type(raw)} where its definition was settled ({view.source.origin})"
            )


def answer(
    session: Session, chunk: SpineChunk, service: ResolvedService, *, now: int, options: Options, counted: Container[str],
    from_pandas: bool = False,
) -> tuple[Block, Counts]:  # fmt: skip
    """A service's features for a chunk of a spine, and what was counted.

    now: µs; tells which rows lie past the last complete instant. counted: the parts whose source rows that cannot count are counted, as is done
    once for each. from_pandas: whether the spine was a pandas frame.
    """
    names = chunk.table.column_names
    check_names(names, [column.name for column in service.columns])
    table = load_chunk(
        session.connection, chunk, timestamp=options.timestamp, timezone=options.zone, inputs=service.inputs,
        from_pandas=from_pandas,
    )  # fmt: skip
    notices = () if options.timezone is not None else _naive_notices(chunk, service, options)
    values: dict[str, PartValues] = {}
    counts = Counts(rows=chunk.table.num_rows, notices=notices)
    answered = _answered(session, service.parts, table, now=now, counted=counted)
    for part, (of_part, of_counts) in zip(service.parts, answered, strict=True):
        values[part.name] = of_part
        counts += of_counts
    features = columns_of(service, values, table, session.connection)
    extra = _extra(service, values, options)
    check_names(names, list(extra))
    return Block(chunk.table, features, extra, table.times), counts


def status_name(column: ServiceColumn) -> str:
    """The column of a frame with a feature's statuses."""
    return f"{column.name}__status"


def event_time_name(part: ServiceView) -> str:
    """The column of a frame with the event_time of a view's rows."""
    return f"{part.name}__event_time"


def _extra(service: ResolvedService, values: Mapping[str, PartValues], options: Options) -> dict[str, pa.Array]:
    """The columns that were asked for beside the features."""
    extra: dict[str, pa.Array] = {}
    if options.with_status:
        for column in service.columns:
            if column.part is not None:
                extra[status_name(column)] = statuses_of(values[column.part].statuses[column.name], STATUS_NAMES)
    if options.with_event_time:
        for part in service.parts:
            extra[event_time_name(part)] = values[part.name].event_times
    return extra


def _naive_notices(chunk: SpineChunk, service: ResolvedService, options: Options) -> tuple[str, ...]:
    """A notice where timestamps have no zone, as a plan has one of a source's."""
    naive = naive_columns(chunk.table.schema, {options.timestamp, *service.inputs})
    return (read_as_utc(naive),) if naive else ()


def _answered(
    session: Session, parts: Sequence[ServiceView], spine: SpineTable, *, now: int, counted: Container[str]
) -> list[tuple[PartValues, Counts]]:
    """The values of parts for the spine, two parts at a time: what one does in a single thread leaves room for the other."""

    def answered(part: ServiceView) -> tuple[PartValues, Counts]:
        with session.beside() as own:
            found = answer_part(own, part, spine)
            past = int((found.as_of > part.view.timing.as_of(now)).sum())
            counts = Counts(0, {part.name: int(found.conflicts.sum())}, {part.name: past})
            return part_values(part, found), counts + source_counts(own, [part] if part.name in counted else [])

    if len(parts) == 1:  # what a thread is waited for cannot be interrupted
        return [answered(parts[0])]
    with ThreadPoolExecutor(VIEWS_AT_ONCE) as pool:
        return list(pool.map(answered, parts))


def answer_part(session: Session, part: ServiceView, spine: SpineTable, *, served: Instants | None = None) -> Answer:
    """Ask one view for the temporary table `spine`.

    served: the as_of of each row, where it is not rule 0 that gives it; the table `served_for (n, a)` has them too.
    """
    view = part.view
    columns = [spine.columns[name] for name in part.inputs]
    keys = ", ".join(f"{column} AS k{i}" for i, column in enumerate(columns)) or "0 AS k0"
    known = " AND ".join(f"{column} IS NOT NULL" for column in columns) or "true"
    as_of = view.timing.as_of_sql("t") if served is None else "as_of"
    rows = "spine" if served is None else "spine JOIN served_for ON n = request_no"
    session.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE requests AS SELECT n AS request_no, {keys}, {as_of} AS as_of FROM {rows} WHERE {known}"
    )
    instants = view.timing.as_of(spine.times) if served is None else served
    try:
        return ask(
            session.connection, view, session.scan_of_keys(view, "requests"), requests="requests", as_of=instants,
            features=part.features,
        )  # fmt: skip
    except duckdb.Error as error:
        raise SourceError(
            f"{view.declared.title} over {view.source.title}: {engine_words(error)} ({view.source.origin})"
        ) from error


def part_values(part: ServiceView, answer: Answer) -> PartValues:
    """The columns of a part, with defaults, from its answer."""
    statuses = answer.statuses_of(part.features)
    columns = answer.columns(part.features, statuses)
    named = {part.column(feature.name): column for feature, column in zip(part.features, columns, strict=True)}
    judged = {part.column(name): status for name, status in statuses.items()}
    return PartValues(named, judged, answer.event_times())


def columns_of(
    service: ResolvedService, values: dict[str, PartValues], spine: SpineTable, connection: duckdb.DuckDBPyConnection
) -> dict[str, pa.Array]:
    """The service's columns in its order, on-demand features evaluated over the spine's values."""
    inputs: dict[str, pa.Array] = {name: array for part in values.values() for name, array in part.columns.items()}
    wanted = {name for item in service.on_demand for name in input_names(item)}
    inputs |= spine.values(connection, [name for name in service.inputs if name in wanted])
    if REQUEST_TIME in wanted:
        inputs[REQUEST_TIME] = pa.array(spine.times).cast(pa.timestamp("us", "UTC"))
    result = {}
    for column in service.columns:
        if column.on_demand is None:
            result[column.name] = inputs[column.name]
        else:
            result[column.name] = evaluate(
                column.on_demand, inputs, lambda i: spine.row(connection, list(service.key_inputs), i)
            )
    return result


def source_counts(session: Session, parts: Sequence[ServiceView]) -> Counts:
    """What is counted of the source rows of parts, whatever is asked for."""
    invalid = {part.name: invalid_rows(session, part.view) for part in parts}
    unmet = {part.name: unmet_rows(session, part.view) for part in parts if row_expectations(part.view)}
    return Counts(invalid=invalid, unmet=unmet)


def check_sources(session: Session, service: ResolvedService, *, now: int) -> Counts:
    """What is counted of sources as a whole, of which less is true than is expected; ExpectationError where that refuses."""
    unmet: dict[str, dict[str, int]] = {}
    said: list[str] = []
    for part in service.parts:
        found = source_findings(session, part.view, now=now)
        said += check_source(part.view, found)
        if found:
            unmet[part.name] = {one.said.title: one.rows for one in found}
    return Counts(unmet=unmet, notices=tuple(said))


def check_expected(service: ResolvedService, counts: Counts) -> Counts:
    """The counts, with a notice of rows that do not meet expectations; ExpectationError where one of these refuses."""
    said: list[str] = []
    for part in service.parts:
        unmet = counts.unmet.get(part.name, {})
        said += check_rows(part.view, unmet)
    return counts + Counts(notices=tuple(said))


def invalid_rows(session: Session, view: ResolvedView) -> tuple[int, int]:
    """How many source rows lack known_at or identity, and how many of the rest lack a key or event_time."""
    scan = session.scan(view.source)
    if session.connection.execute(whole_sql(view, scan)).fetchall()[0][0]:
        return 0, 0
    dropped, keyless = session.connection.execute(invalid_sql(view, scan)).fetchall()[0]
    return dropped, keyless

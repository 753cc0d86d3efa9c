"""Training: the function of key and instant, asked for every row of a spine.

Number the spine's rows; per view, compute each row's as_of by rule 0 and ask the as-of query; place the answers by
row number; evaluate on-demand features; lay the columns out in the service's order.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.clock import to_datetime
from featurestore.declare.sources import Source, known_zone
from featurestore.declare.zones import naive_columns, read_as_utc
from featurestore.errors import FilesChangedError, SourceError, SpineError
from featurestore.lazy import duckdb, pa
from featurestore.query.answer import Answer, ask
from featurestore.semantics.engine import is_relation
from featurestore.semantics.evaluate import evaluate, input_names
from featurestore.semantics.rows import invalid_sql, whole_sql
from featurestore.semantics.service import REQUEST_TIME, ResolvedService, ServiceColumn, ServiceView
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import SourceFile
from featurestore.sources.unreadable import engine_words
from featurestore.training.manifest import library_versions
from featurestore.training.spine import SpineChunk, chunks_of, pandas_of, stays
from featurestore.training.spine_table import SpineTable, load_chunk
from featurestore.training.training_frame import Block, TrainingFrame, check_names, statuses_of

Listing = dict[str, tuple[SourceFile, ...]]
"""By source its files, each as it was found."""

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
class PartValues:
    """One part's features for n rows: columns and statuses by column name, and the event time of the newest row."""

    columns: dict[str, pa.Array]
    statuses: dict[str, npt.NDArray[np.uint8]]
    event_times: pa.Array


def get_historical_features(
    spine: Any,
    service: ResolvedService,
    offline: Offline,
    *,
    now: int,
    options: Options,
    listing: Listing | None = None,
) -> TrainingFrame:
    """The training frame of a service for a spine; `now`, µs, tells which rows lie past the last complete instant.

    listing: the files to read, and no others; else those that are there now, or when the frame is read anew because one
    of these changed.
    """
    pandas = pandas_of(spine)
    _check_extra(service, options)
    if options.zone != "UTC":
        _check_zone(options.zone)
    given, reading = listing, listing or listing_of(service, offline)
    manifest = manifest_of(service, offline, reading, now=now, options=options)

    def blocks() -> Iterator[Block]:
        nonlocal reading
        if given is None and _changed(service, offline, reading):
            reading = listing_of(service, offline)
        manifest.update(sources=_sources(service, offline, reading), rows=0, conflicts={}, invalid_rows={},
                        spine_rows_past_the_last_complete_instant={})  # fmt: skip
        for chunk in chunks_of(spine if pandas is None else pandas, zone=options.zone):
            with offline.session(files=reading) as session, session.reading():
                block = _block(session, chunk, service, options=options, from_pandas=pandas is not None,
                               manifest=manifest, now=now)  # fmt: skip
            yield block

    types = {column.name: column.type for column in service.columns}
    frame = TrainingFrame(types, manifest, blocks, pandas, once=given is not None or not stays(spine))
    if not is_relation(spine) and not isinstance(spine, (str, bytes)) and not hasattr(spine, "__fspath__"):
        len(frame)  # in memory already: answered now, so that mistakes show here
    return frame


def status_name(column: ServiceColumn) -> str:
    """The column of a frame with a feature's statuses."""
    return f"{column.name}__status"


def event_time_name(part: ServiceView) -> str:
    """The column of a frame with the event_time of a view's rows."""
    return f"{part.name}__event_time"


def _check_zone(zone: object) -> None:
    try:
        known_zone(str(zone))
    except ValueError as error:
        raise SpineError(str(error)) from None


def _check_extra(service: ResolvedService, options: Options) -> None:
    """SpineError where a column that is asked for beside the features has the name of one of them."""
    names = {column.name for column in service.columns}
    asked = {"with_status": [status_name(column) for column in service.columns if column.part] * options.with_status}
    asked["with_event_time"] = [event_time_name(part) for part in service.parts] * options.with_event_time
    for word, added in asked.items():
        for name in added:
            if name in names:
                raise SpineError(
                    f"{word} adds a column '{name}', which is a feature too; rename the feature, or leave it out"
                )


def listing_of(service: ResolvedService, offline: Offline) -> Listing:
    """The files of every source of a service as they are now, those that are new being journalled."""
    listing: Listing = {}
    for part in service.parts:
        if part.view.source.name not in listing:
            listing |= offline.listing(part.view.source, offline.see(part.view.source))
    return listing


def _changed(service: ResolvedService, offline: Offline, listing: Listing) -> bool:
    try:
        for part in service.parts:
            offline.check_unchanged(part.view.source, listing[part.view.source.name])
    except FilesChangedError:
        return True
    return False


def _block(
    session: Session, chunk: SpineChunk, service: ResolvedService, *, options: Options, from_pandas: bool,
    manifest: dict[str, Any], now: int,
) -> Block:  # fmt: skip
    names = chunk.table.column_names
    check_names(names, [column.name for column in service.columns])
    if options.timezone is None:
        _note_naive(chunk, service, options, manifest["notices"])
    table = load_chunk(
        session.connection, chunk, timestamp=options.timestamp, timezone=options.zone, inputs=service.inputs,
        from_pandas=from_pandas,
    )  # fmt: skip
    values: dict[str, PartValues] = {}
    answered = _answered(session, service.parts, table, now=now, counted=manifest["invalid_rows"])
    for part, (of_part, counts) in zip(service.parts, answered, strict=True):
        values[part.name] = of_part
        _count(manifest, part.name, counts)
    manifest["rows"] += chunk.table.num_rows
    features = columns_of(service, values, table, session.connection)
    extra: dict[str, pa.Array] = {}
    if options.with_status:
        for column in service.columns:
            if column.part is not None:
                extra[status_name(column)] = statuses_of(values[column.part].statuses[column.name], STATUS_NAMES)
    if options.with_event_time:
        for part in service.parts:
            extra[event_time_name(part)] = values[part.name].event_times
    check_names(names, list(extra))
    return Block(chunk.table, features, extra, table.times)


def _note_naive(chunk: SpineChunk, service: ResolvedService, options: Options, notices: list[str]) -> None:
    """A notice where timestamps have no zone, as a plan has one of a source's."""
    naive = naive_columns(chunk.table.schema, {options.timestamp, *service.inputs})
    if naive and read_as_utc(naive) not in notices:
        notices.append(read_as_utc(naive))


def _answered(
    session: Session, parts: Sequence[ServiceView], spine: SpineTable, *, now: int, counted: Container[str]
) -> list[tuple[PartValues, _AnswerCounts]]:
    """The values of parts for the spine, two parts at a time: what one does in a single thread leaves room for the other.

    counted: names of parts whose invalid rows are known.
    """

    def answered(part: ServiceView) -> tuple[PartValues, _AnswerCounts]:
        with session.beside() as own:
            answer = answer_part(own, part, spine)
            past = int((answer.as_of > part.view.timing.as_of(now)).sum())
            invalid = None if part.name in counted else _invalid(own, part.view)
            return part_values(part, answer), _AnswerCounts(int(answer.conflicts.sum()), past, invalid)

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
            session.connection, view, session.scan(view.source), requests="requests", as_of=instants, features=part.features,
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


def manifest_of(
    service: ResolvedService, offline: Offline, listing: Listing, *, now: int, options: Options
) -> dict[str, Any]:
    """What a frame is made of: definitions by fingerprint, source files, versions; counts are added as rows are made."""
    sources = {part.view.source.name: part.view.source for part in service.parts}
    return {
        "service": service.name,
        "fingerprint": service.fingerprint,
        "columns": {column.name: str(column.type) for column in service.columns},
        "views": {part.name: part.view.fingerprint for part in service.parts},
        "created": to_datetime(now).isoformat(),
        "timestamp": options.timestamp,
        "timezone": options.zone,
        "notices": [],
        "sources": _sources(service, offline, listing),
        "without_history": sorted(name for name, source in sources.items() if source.event_time is None),
        "versions": library_versions(),
        "definition": service.definition,
    }


def _sources(service: ResolvedService, offline: Offline, listing: Listing) -> dict[str, list[dict[str, Any]]]:
    sources = {part.view.source.name: part.view.source for part in service.parts}
    return {name: _files(source, offline, listing[name]) for name, source in sources.items()}


def _files(source: Source, offline: Offline, found: Sequence[SourceFile]) -> list[dict[str, Any]]:
    """The files of a source for the manifest, with when each was first seen where that is when its rows are known."""
    files: list[dict[str, Any]] = [
        {"path": file.path, "size": file.size, "modified_ns": file.modified} for file in found
    ]
    version = offline.table_version(source, tuple(found))
    if version is not None:
        files = [{**file, "table_version": version} for file in files]
    if source.arrives:
        for file, instant in zip(
            files, offline.arrivals.seen(source.name, [file.sighting for file in found]), strict=True
        ):
            file["first_seen"] = None if instant is None else to_datetime(instant).isoformat()
    return files


class _AnswerCounts(NamedTuple):
    """What the manifest counts of a part's answer: requests that only bytes decided, and past the last complete instant; as
    `_invalid`, None where that was counted before."""

    conflicts: int
    past: int
    invalid: tuple[int, int] | None


def _invalid(session: Session, view: ResolvedView) -> tuple[int, int]:
    """How many source rows lack known_at or identity, and how many of the rest lack a key or event_time."""
    scan = session.scan(view.source)
    if session.connection.execute(whole_sql(view, scan)).fetchall()[0][0]:
        return 0, 0
    dropped, keyless = session.connection.execute(invalid_sql(view, scan)).fetchall()[0]
    return dropped, keyless


def _count(manifest: dict[str, Any], part: str, counts: _AnswerCounts) -> None:
    later, conflicts = manifest["spine_rows_past_the_last_complete_instant"], manifest["conflicts"]
    later[part] = later.get(part, 0) + counts.past
    conflicts[part] = conflicts.get(part, 0) + counts.conflicts
    if counts.invalid is not None:
        dropped, keyless = counts.invalid
        manifest["invalid_rows"][part] = {"no known_at or identity": dropped, "no key or event_time": keyless}

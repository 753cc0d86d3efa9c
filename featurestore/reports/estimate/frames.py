"""What a training frame or a snapshot will take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.declare.frames import is_pandas
from featurestore.durable.parquet import storable
from featurestore.errors import FeatureStoreError, RequestError, SpineError
from featurestore.lazy import pa, pq
from featurestore.plurals import plural
from featurestore.reports.estimate.calibration import Calibration, Job, calibrated
from featurestore.reports.estimate.estimate import Estimate, EstimatedWork
from featurestore.reports.estimate.scale_model import SAMPLE_ROWS, KeyGroup, SampledSource, part_of, sampled
from featurestore.reports.estimate.source_size import KeyCount, SourceSize, keys_of, size_of, spread
from featurestore.semantics.engine import is_relation
from featurestore.semantics.service import ResolvedService, ServiceView
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.training.historical import Listing, check_options
from featurestore.training.kernel import Options, answer_rows
from featurestore.training.parts import check_part_rows
from featurestore.training.snapshot import check_snapshot, keys_at
from featurestore.training.spine import CHUNK_ROWS, SpineChunk, SpineFiles, chunks_of
from featurestore.training.spine_table import load_chunk
from featurestore.training.training_frame import check_names

ASKED_ROWS = 100_000
"""Rows of a spine that the speed is measured with."""


VALUES_READ = 2
"""Rows whose values are read for each one that is chosen: the engine leaves most of the others out. Measured with 10,000 and 1 M rows of
a spine over 10 M rows: `python -m benchmarks estimate`."""


class AskedRows(NamedTuple):
    """The rows of a spine, or keys at instants: how many there are, and some of them."""

    rows: int
    sample: pa.Table
    row_bytes: float
    """Of a row in memory."""

    least: int
    most: int
    at: tuple[int, ...] = ()
    """The instants (µs) at which every key is asked for, where that is so, as in a snapshot; the sample is empty then."""


@dataclass(frozen=True)
class SizedSources:
    """The sources of some views as they are now."""

    offline: Offline
    listing: Listing
    sizes: Mapping[str, SourceSize]
    keys: Mapping[str, KeyCount]
    """By view."""

    @classmethod
    def of(cls, views: Iterable[ResolvedView], offline: Offline, listing: Listing) -> SizedSources:
        """Their sizes. Raises SourceError."""
        by_source = _by_source(views)
        sizes = {name: size_of(of[0].source, of, offline, listing[name]) for name, of in by_source.items()}
        keys = {
            view.name: keys_of(view, offline, listing[view.source.name], sizes[view.source.name])
            for of in by_source.values() for view in of
        }  # fmt: skip
        return cls(offline, listing, sizes, keys)

    def samples(self, views: Iterable[ResolvedView]) -> dict[str, SampledSource]:
        """Some rows of each source. Raises SourceError."""
        by_source = _by_source(views)
        total = sum(self.sizes[name].rows for name in by_source)
        share = min(1.0, SAMPLE_ROWS / max(1, total))
        return {
            name: sampled(self.offline, of[0].source, of, self.listing[name], self.sizes[name],
                          max(1, round(self.sizes[name].rows * share)))
            for name, of in by_source.items()
        }  # fmt: skip

    def stored_bytes(self, views: Iterable[ResolvedView]) -> int | None:
        """What is read of these views' sources, where all tell it."""
        found = [self.sizes[view.source.name].stored_bytes for view in views]
        return None if None in found else sum(count or 0 for count in found)

    def rows(self, views: Iterable[ResolvedView]) -> int:
        """The rows that these views read."""
        return sum(self.sizes[view.source.name].rows for view in views)

    def read_seconds(self, views: Iterable[ResolvedView], samples: Mapping[str, SampledSource], asked: float) -> float:
        """On the processors, to read these views' sources once: keys and times of all rows, and values of those that are chosen."""
        found = 0.0
        for view in views:
            sample, rows = samples[view.source.name], self.sizes[view.source.name].rows
            found += rows * sample.times_s + min(rows, VALUES_READ * asked) * sample.values_s
        return found

    def reading_bytes(self, views: Iterable[ResolvedView]) -> int:
        """Of memory, while files are read: each thread has a row group."""
        with self.offline.session() as session:
            (threads,) = session.connection.execute("SELECT current_setting('threads')").fetchall()[0]
        return int(threads) * max((self.sizes[view.source.name].group_bytes for view in views), default=0)


def _by_source(views: Iterable[ResolvedView]) -> dict[str, list[ResolvedView]]:
    found: dict[str, list[ResolvedView]] = {}
    for view in views:
        found.setdefault(view.source.name, []).append(view)
    return found


def estimate_spine(
    spine: Any, service: ResolvedService, offline: Offline, *, now: int, options: Options, part_rows: int | None = None
) -> Estimate:
    """What the training frame of a spine takes, written to a Parquet file, or in parts of so many rows. Raises SpineError, SourceError and
    RequestError."""
    check_part_rows(part_rows)
    check_options(service, options)
    asked = _asked_of(spine)
    check_names(asked.sample.column_names, [column.name for column in service.columns])
    with offline.session() as session:  # what is wrong with a spine is told here, too
        load_chunk(
            session.connection, SpineChunk(asked.sample, 0), timestamp=options.timestamp, timezone=options.zone,
            inputs=service.inputs, from_pandas=is_pandas(spine),
        )  # fmt: skip
    return _estimate(service, offline, lambda _: asked, now=now, options=options, part_rows=part_rows)


def estimate_snapshot(
    service: ResolvedService, offline: Offline, *, at: Sequence[int], now: int, options: Options, part_rows: int | None = None
) -> Estimate:  # fmt: skip
    """What a snapshot of so many instants (µs) takes, written to a Parquet file. Raises SpineError, SourceError."""
    check_part_rows(part_rows)
    check_snapshot(service)
    if not at:
        raise RequestError("at: a snapshot needs an instant, or several")
    return _estimate(
        service, offline, lambda sized: _every_key(service, sized, at), now=now, options=options, part_rows=part_rows
    )


def _asked_of(spine: Any) -> AskedRows:
    if isinstance(spine, (str, Path)):
        files = SpineFiles.of(spine)
        some = [files.read(sum(file.rows for file in files.files[: one.file]) + one.first, one.rows)
                for one in spread([file.rows for file in files.files], ASKED_ROWS, 4)]  # fmt: skip
        table = pa.concat_tables(some) if some else files.read(0, 0)
        return _rows(files.rows, table)
    if is_relation(spine) or isinstance(spine, pa.RecordBatchReader):
        raise SpineError("An estimate needs a spine whose length is known: a frame, or a Parquet file or folder")
    chunks = [chunk.table for chunk in chunks_of(spine)]
    rows = sum(chunk.num_rows for chunk in chunks)
    share = min(1.0, ASKED_ROWS / max(1, rows))
    return _rows(rows, pa.concat_tables([part_of(chunk, share) for chunk in chunks]))


def _rows(rows: int, table: pa.Table) -> AskedRows:
    return AskedRows(rows, table, table.nbytes / max(1, table.num_rows), rows, rows)


def _every_key(service: ResolvedService, sized: SizedSources, at: Sequence[int]) -> AskedRows:
    """Every key of the view that has most, at each instant; keys that only another view has are more."""
    counts = [sized.keys[part.view.name] for part in service.parts]
    about, least = max(count.about for count in counts), max(count.least for count in counts)
    most = sum({part.view.source.name: count.most for part, count in zip(service.parts, counts, strict=True)}.values())
    return AskedRows(about * len(at), pa.table({}), 16.0, least * len(at), most * len(at), tuple(at))


def _estimate(
    service: ResolvedService, offline: Offline, asking: Callable[[SizedSources], AskedRows], *, now: int, options: Options,
    part_rows: int | None,
) -> Estimate:  # fmt: skip
    views = [part.view for part in service.parts]
    listing: Listing = {}
    for view in views:
        listing |= offline.listing(view.source, offline.files(view.source))
    sized = SizedSources.of(views, offline, listing)
    asked = asking(sized)
    at_once = min(CHUNK_ROWS, part_rows or CHUNK_ROWS)
    chunks = max(1, math.ceil(asked.rows / at_once))
    stored = sized.stored_bytes(views)
    work = EstimatedWork(
        service.name, sized.rows(views), None if stored is None else stored * chunks, asked.rows, asked.least, asked.most,
        notes=(f"the sources are read {chunks:,} {plural(chunks, 'time')}, once for each {at_once:,} {plural(at_once, 'row')}",) * (chunks > 1),
    )  # fmt: skip
    try:
        measured, bytes_a_row, samples = _measured(service, sized, asked, now=now, options=options)
    except FeatureStoreError as error:
        return Estimate((replace(work, notes=(*work.notes, f"its speed could not be measured: {error}")),))
    per_chunk = min(at_once, asked.rows)
    read_s = sized.read_seconds(views, samples, asked.rows / chunks)
    cpu = chunks * (measured.cpu_s.of_job(sized.rows(views), asked.rows / chunks) + read_s)
    peak = None
    if measured.memory_bytes is not None:
        peak = measured.at_rest_bytes + sized.reading_bytes(views)
        peak += round(measured.memory_bytes.of_job(sized.rows(views), per_chunk) + per_chunk * asked.row_bytes)
    done = replace(
        work,
        bytes_written=round(bytes_a_row * asked.rows),
        cpu_seconds=cpu,
        seconds=cpu / measured.cores,
        peak_bytes=peak,
    )
    return Estimate((done,), measured.rows, measured.asked, measured.took_s)


def _measured(
    service: ResolvedService, sized: SizedSources, asked: AskedRows, *, now: int, options: Options
) -> tuple[Calibration, float, dict[str, SampledSource]]:
    """How fast the kernel is, how many bytes a written row has, and the rows of the sources with which that was measured."""
    views = [part.view for part in service.parts]
    samples = sized.samples(views)
    groups = _groups(service, sized, samples, asked)
    spine = _of_every_key(service, groups, asked.at) if asked.at else asked.sample
    sizes: list[float] = []
    prepared = [sum(sample.rows.nbytes for sample in samples.values())]

    def job(rows: float, of_asked: float) -> Job:
        tables: dict[str, pa.Table] = {}
        for name, sample in samples.items():
            tables[name] = part_of(sample.rows, rows)
            for group in groups:
                if name in group.columns:
                    tables[name] = group.rows(name, tables[name], rows)
        some = given = part_of(spine, of_asked)
        for group in groups:
            some = group.spine(some, rows)
        prepared.append(sum(table.nbytes for table in tables.values()) + some.nbytes)

        def call() -> pa.Table:
            found, _ = answer_rows(service, tables, some, offline=sized.offline, now=now, options=options, counted=())
            for name in given.column_names:  # with the keys as they are, since equal ones take less
                found = found.set_column(found.column_names.index(name), name, given[name])
            sizes.append(_written_bytes(found) / max(1, found.num_rows))
            return found

        return call

    rows = sum(samples[view.source.name].rows.num_rows for view in views)
    measured = calibrated(job, rows=rows, asked=spine.num_rows, prepared_bytes=lambda: sum(prepared))
    return measured, sizes[-1], samples


def _of_every_key(service: ResolvedService, groups: Sequence[KeyGroup], at: Sequence[int]) -> pa.Table:
    """The spine of a snapshot of the keys that the samples have."""
    if not groups:
        return keys_at(service, pa.table({"c0": [0]}), at)
    (group,) = groups
    columns = dict(zip(group.asked, group.keys.columns, strict=True))
    keys = pa.table({name: columns[name] for name in service.key_inputs})
    return keys_at(service, keys.slice(0, max(1, ASKED_ROWS // len(at))), at)


def _groups(
    service: ResolvedService, sized: SizedSources, samples: Mapping[str, SampledSource], asked: AskedRows
) -> list[KeyGroup]:
    """The keys of views that are asked for by the same columns; those with more columns first, since the others' are among theirs."""
    by_inputs: dict[tuple[str, ...], list[ServiceView]] = {}
    for part in service.parts:
        if part.inputs:
            by_inputs.setdefault(tuple(sorted(part.inputs)), []).append(part)
    found: list[KeyGroup] = []
    placed: set[str] = set()
    for inputs in sorted(by_inputs, key=len, reverse=True):
        parts = by_inputs[inputs]
        columns: dict[str, tuple[str, ...]] = {}
        counts: dict[str, int] = {}
        for part in parts:
            of = {name: key.column for name, key in zip(part.inputs, part.view.keys, strict=True)}
            columns.setdefault(part.view.source.name, tuple(of[name] for name in inputs))
            counts.setdefault(part.view.source.name, sized.keys[part.view.name].about)
        every = max(counts.values())
        share = min(1.0, -math.expm1(-asked.rows / max(1, every)))
        if placed & {*inputs}:  # asked for by a wider key: its columns stay as they are there
            continue
        placed |= {*inputs}
        found.append(KeyGroup.of(inputs, columns, counts, samples, share))
    return found


def _written_bytes(table: pa.Table) -> int:
    """Of a table as a Parquet file, in which numbers are as many as rows, and texts are few."""
    sink = pa.BufferOutputStream()
    texts = [field.name for field in table.schema if not pa.types.is_primitive(field.type)]
    pq.write_table(storable(table), sink, store_schema=False, use_dictionary=texts)
    return int(sink.getvalue().size)

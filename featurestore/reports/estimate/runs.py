"""What runs of materialize will take."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from featurestore.declare.sources import FileSource
from featurestore.errors import FeatureStoreError
from featurestore.materialize.records import RecordQuery, collect
from featurestore.materialize.run_plan import new_files, read_marks
from featurestore.online.view_codec import ViewCodec, unpack_watermark
from featurestore.plurals import plural
from featurestore.project import Project
from featurestore.query.changed_keys import all_keys_sql
from featurestore.registry.documents import view_from
from featurestore.registry.steps import Plan, Refill
from featurestore.reports.estimate.calibration import Calibration, Job, calibrated, memory_bytes
from featurestore.reports.estimate.estimate import Estimate, EstimatedWork
from featurestore.reports.estimate.frames import SizedSources
from featurestore.reports.estimate.scale_model import KeyGroup, SampledSource, part_of
from featurestore.reports.estimate.source_size import KeyCount, rows_between
from featurestore.semantics.rows import visible_span
from featurestore.semantics.view import ResolvedView
from featurestore.sources.source_files import SourceFile

ASKED_KEYS = 100_000
"""Keys that the speed is measured with."""

WRITE_CPU_US = {"lmdb": 2.2, "redis": 1.1}
"""For each record that is written and read back, on the client's processors, by the scheme of the store's URL; a store is not written to
for an estimate. Measured with 200,000 records of 180 bytes, in batches as runs write them."""

OVERHEAD_BYTES = {"lmdb": 30, "redis": 90}
"""What a store needs for each key beside the bytes of key and record."""


def estimate_runs(project: Project, views: Sequence[str] | None, *, full: bool) -> Estimate:
    """What `materialize` takes now, of the applied views (only those named). Nothing is read online but how far each view has come.
    Raises SourceError, OnlineStoreError, NotFoundError."""
    applied = project.applied(views)
    return _together([_of_view(project, view, full=full) for view in applied])


def estimate_refills(project: Project, plan: Plan) -> Estimate:
    """What the first runs of the views take that a plan says are to be filled. Raises SourceError."""
    filled = {step.view for step in plan.steps if isinstance(step, Refill)}
    views = [project.view(view_from(plan.document, name)) for name in sorted(filled)]
    return _together([_of_view(project, view, full=False, first=True) for view in views])


def _together(estimates: Iterable[Estimate]) -> Estimate:
    every = list(estimates)
    return Estimate(
        tuple(work for one in every for work in one.work), sum(one.measured_rows for one in every),
        sum(one.measured_asked for one in every), sum(one.measured_seconds for one in every),
    )  # fmt: skip


def _of_view(project: Project, view: ResolvedView, *, full: bool, first: bool = False) -> Estimate:
    """first: the view has no values yet, wherever it lies."""
    offline = project.offline
    files = offline.files(view.source)
    now, watermark, state = project.now(), None, None
    tagged = False
    if not first:
        store = project.online
        codec, tagged = ViewCodec(project.config.project, view, tagged=store.tagged), store.tagged
        now, watermark, state, _ = read_marks(store, codec, full=full)
    complete = unpack_watermark(watermark)
    sized = SizedSources.of([view], offline, offline.listing(view.source, files))
    asked = _asked_of_runs(view, files, sized, Online(now, complete, state), full=full)
    runs = len(asked)
    stored = sized.stored_bytes([view])
    notes = ["nothing is due"] * (not runs)
    if view.is_pushed:
        notes.append("it is filled from the log of pushes, and its speed is not measured")
    work = EstimatedWork(
        view.name, sized.rows([view]) * bool(runs), None if stored is None else stored * runs, sum(one.about for one in asked),
        sum(one.least for one in asked), sum(one.most for one in asked), notes=tuple(notes),
    )  # fmt: skip
    if not runs:
        return Estimate((replace(work, bytes_written=0, cpu_seconds=0.0, seconds=0.0, peak_bytes=memory_bytes()),))
    if view.is_pushed:
        return Estimate((work,))
    try:
        measured, record_bytes, samples = _measured(project, view, sized, tagged=tagged, instant=view.timing.as_of(now))
    except FeatureStoreError as error:
        return Estimate((replace(work, notes=(*work.notes, f"its speed could not be measured: {error}")),))
    scheme, chunk_keys = _scheme(project), project.config.materialize.chunk_keys
    chunks = max(math.ceil(one.about / chunk_keys) for one in asked) or 1
    wanted = project.config.materialize.processes if isinstance(view.source, FileSource) else 1
    processes = min(wanted, chunks)
    if chunks > 1:
        beside = f", by {processes} processes side by side" * (processes > 1)
        notes.append(
            f"in about {chunks:,} {plural(chunks, 'chunk')} of {chunk_keys:,} {plural(chunk_keys, 'key')} (`chunk_keys` of [materialize]), which bounds the memory{beside}"
        )
    cpu = work.rows_written * WRITE_CPU_US[scheme] / 1e6
    for one in asked:
        passes = max(1, math.ceil(one.about / chunk_keys))
        read_s = sized.read_seconds([view], samples, one.about / passes)
        read_s += work.rows_read * samples[view.source.name].times_s  # to find the keys
        cpu += passes * (measured.cpu_s.of_job(work.rows_read, one.about / passes) + read_s)
    most = min(max(one.about for one in asked), chunk_keys)
    peak = _peak_bytes(measured, sized.reading_bytes([view]), work.rows_read, most, processes=processes)
    online = round(max(one.about for one in asked) * (record_bytes + OVERHEAD_BYTES[scheme]))
    cores = measured.cores if processes == 1 else min(processes * measured.cores, os.cpu_count() or 1)
    done = replace(
        work, bytes_written=online, cpu_seconds=cpu, seconds=cpu / cores, peak_bytes=peak, chunks=chunks,
        notes=tuple(notes),
    )  # fmt: skip
    return Estimate((done,), measured.rows, measured.asked, measured.took_s)


def _peak_bytes(measured: Calibration, reading_bytes: int, rows: float, keys: float, *, processes: int) -> int | None:
    """The greatest memory of a run over so many rows that asks for so many keys at once, in each of its processes; None where the
    system does not tell memory."""
    if measured.memory_bytes is None:
        return None
    of_each = measured.at_rest_bytes + round(measured.memory_bytes.of_job(rows, keys))
    driver = measured.at_rest_bytes * (processes > 1)
    return processes * of_each + driver + reading_bytes  # what is read at once is divided among their threads


def _scheme(project: Project) -> str:
    return "lmdb" if project.config.online.startswith("lmdb") else "redis"


class Online(NamedTuple):
    """How far a view has come online: its instants that are complete, newest first (µs), and what its last run left."""

    now: int
    complete: tuple[int, ...]
    state: bytes | None


def _asked_of_runs(
    view: ResolvedView, files: Sequence[SourceFile], sized: SizedSources, online: Online, *, full: bool
) -> list[KeyCount]:  # fmt: skip
    """The keys that each run will ask for: all, where there was none before it, else those that may have changed since that."""
    now, complete, state = online
    keys, found = sized.keys[view.name], []
    due = view.timing.due(now, complete[0] if complete else None)
    if view.is_pushed:
        return [keys] * bool(due)
    if full and complete and complete[0] >= view.timing.as_of(now):
        served = view.timing.served(complete, now)
        found += [keys for instant in complete if served is None or instant >= served]
    last = complete[0] if complete else None
    arrived = new_files(view, tuple(files), state) if last is not None else None
    for instant in due:
        is_whole = full or last is None or arrived is None or view.source.event_time is None
        found.append(keys if is_whole else changed_keys(view, files, arrived or (), keys, sized, (last or 0, instant)))
        last, arrived = instant, ()  # the next one has the same files
    return found


def changed_keys(
    view: ResolvedView, files: Sequence[SourceFile], arrived: Sequence[int], keys: KeyCount, sized: SizedSources,
    between: tuple[int, int],
) -> KeyCount:  # fmt: skip
    """The keys that a run after another asks for: at most so many as rows may have changed them, which files' statistics bound; about
    as many as there are if the rows of a row group lie evenly between its least and greatest time. arrived: the files that are new."""
    if not isinstance(view.source, FileSource):
        return KeyCount(0, 0, keys.most)
    after, upto = between
    source = view.source
    slack = source.known_after + view.timing.known_by(0)  # a row may happen so long before it is learned
    edges = {(after, upto)}
    for span in {visible_span(view, feature) for feature in view.folded}:
        edges.add((span.end(after), span.end(upto)))
        if span.length is not None:
            edges.add((span.start(after), span.start(upto)))
    times = {
        name for name in (source.event_time, source.known_at if isinstance(source.known_at, str) else None) if name
    }
    before = [file for number, file in enumerate(files) if number not in arrived]
    sizes = sized.sizes[source.name].files
    came = sum(sizes[number] for number in arrived)
    found = rows_between(source, before, times, sorted(edges), slack=slack)
    most = min(keys.most, came + found.most)
    rows = came + found.about
    about = round(keys.about * -math.expm1(-rows / max(1, keys.about)))
    return KeyCount(min(about, most), 0, most)


def _measured(
    project: Project, view: ResolvedView, sized: SizedSources, *, tagged: bool, instant: int
) -> tuple[Calibration, float, dict[str, SampledSource]]:
    """How fast records are made, how many bytes one has with its key, and the rows of the source with which that was measured."""
    samples = sized.samples([view])
    name = view.source.name
    sample = samples[name]
    columns = {name: tuple(key.column for key in view.keys)}
    group = KeyGroup.of((), columns, {name: sized.keys[view.name].about}, samples) if view.keys else None
    codec = ViewCodec(project.config.project, view, tagged=tagged)
    most = min(ASKED_KEYS, 1 if group is None else max(1, group.folded[name]))
    sizes: list[float] = []
    blocking = _scheme(project) == "redis"
    prepared = [sample.rows.nbytes]

    def job(rows: float, of_asked: float) -> Job:
        table = part_of(sample.rows, rows)
        if group is not None:
            table = group.rows(name, table, rows)
        count = max(1, int(most * of_asked))
        prepared.append(table.nbytes)

        def call() -> object:
            with project.offline.session(rows={name: table}) as session:
                every = all_keys_sql(view, session.scan(view.source), newest_at=[instant])
                keys = collect(session, f"{every} LIMIT {count}")
                asked = RecordQuery(session, view, codec, blocking)
                kept = list(asked.records(keys, instant, 0, size=RECORDS_AT_ONCE))
            made = [
                (key, record) for batch in kept for key, record in zip(batch.keys, batch.records, strict=True) if record
            ]
            sizes.append(sum(len(key) + len(record) for key, record in made) / max(1, len(made)))
            return kept

        return call

    measured = calibrated(job, rows=sample.rows.num_rows, asked=most, prepared_bytes=lambda: sum(prepared))
    return measured, sizes[-1], samples


RECORDS_AT_ONCE = 40_000
"""As many as runs encode at once."""

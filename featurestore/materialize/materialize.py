"""Materialize: the function of key and instant, asked for every key that may have changed, kept online.

What is due is decided from the online watermark. A run for an instant writes two slots into each key that may have
changed since the newest complete instant, reads every batch back, and moves the watermark last; so a run that is
killed anywhere changes nothing that a lookup can see, and the next one completes its work. Lookups go on meanwhile.

A full run first computes again what is served: its slots are of the next edition, which the watermark switches to.

A run has three pieces. Its driver decides what is due and holds the lease; its records are written anywhere, by the
kernel; and the driver publishes them.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from featurestore.clock import to_datetime
from featurestore.durable.owner import OwnedFolder
from featurestore.errors import ExpectationError, MaterializeError, SourceError
from featurestore.lazy import duckdb
from featurestore.materialize.chunk_worker import UnsendableError
from featurestore.materialize.chunk_writer import ChunkWriter, WriterHere
from featurestore.materialize.chunked_run import ChunkedRun
from featurestore.materialize.done_chunks import DoneChunks, noted, read_note, run_digest
from featurestore.materialize.kernel import Changes, Written, keys_sql
from featurestore.materialize.key_chunks import KeyChunks
from featurestore.materialize.lease import Lease
from featurestore.materialize.progress import Progress
from featurestore.materialize.records import PASS_KEYS, collect
from featurestore.materialize.run_plan import (
    PlannedRun,
    begun_state,
    files_in,
    is_unfinished,
    new_files,
    read_marks,
    records_in,
    source_rows_in,
    state_of,
    without_records,
)
from featurestore.materialize.stored_keys import count_records, count_records_by_chunk
from featurestore.materialize.worker_processes import Workers, WriterInProcesses
from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec, edition_of, pack_watermark, unpack_watermark
from featurestore.plurals import plural
from featurestore.registry.frames import feature_name
from featurestore.registry.kept_statistics import GatheredFeatures, Gathering
from featurestore.registry.store import RunRecord
from featurestore.report import instant_json, plain_fields
from featurestore.semantics.view import ResolvedView
from featurestore.sources.expected import (
    UnmetRows,
    check_rows,
    check_source,
    count_rows,
    counts_rows,
    source_findings,
    unmet_rows,
)
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import SourceFile
from featurestore.sources.source_files import again as once_more
from featurestore.sources.unreadable import engine_words
from featurestore.tiles.file_tile_choice import ChosenTiles, tiles_for
from featurestore.types import FeatureType

LOGGER = logging.getLogger("featurestore")


@dataclass(frozen=True)
class Run:
    """One completed instant of one view."""

    view: str
    fingerprint: str
    instant: int
    """µs."""
    started: int
    """When the run began (µs), by the online store's clock: no file that came later was read."""
    keys: int
    """How many keys were asked for."""
    rows: int
    """How many of them have a row that counts."""
    full: bool
    """Whether all keys were asked for, and not only those that may have changed."""
    seconds: float
    files: tuple[SourceFile, ...]
    """The files that were read."""
    again: bool = False
    """Whether it was complete before, and was computed anew."""
    expired: int | None = None
    """How many of the keys with such a row have no value any more; None where that is for each lookup to judge."""
    unmet: UnmetRows = field(default_factory=dict)
    """How many rows of the source do not meet each expectation; 1 of one that is about no row."""

    def __str__(self) -> str:
        kind = ("all, computed again" if self.again else "all") if self.full else "those that may have changed"
        rate = self.keys / self.seconds if self.seconds else 0
        values = (
            f"{self.rows - (self.expired or 0):,} with values{f', {self.expired:,} expired' if self.expired else ''}"
        )
        return (
            f"{self.view} as of {to_datetime(self.instant):%Y-%m-%d %H:%M:%S}Z: {self.keys:,} {plural(self.keys, 'key')} ({kind}), {values}, "
            f"{self.seconds:.1f} s, {rate:,.0f} keys/s"
        )


Gather = Callable[[Mapping[str, tuple[str, FeatureType]]], Gathering | None]
"""Begins to gather statistics; see `StatisticsKeeper.gather`."""


def _nothing_gathered(_: Mapping[str, tuple[str, FeatureType]]) -> None:
    return None


class RunEngine(Protocol):
    """Where the records of a run are written."""

    @property
    def gathered(self) -> dict[int, GatheredFeatures | None]:
        """By instant (µs) what the values of its keys are like; None where that could not be told. The keeper takes them out."""

    def written(self, run: PlannedRun, lease: Lease) -> Iterator[Written]:
        """Write the records of each instant of a run, one after the other, and say what was written. The lease is the driver's, and
        is held."""


@dataclass(frozen=True)
class _Job:
    """What is asked of materialize; see `materialize_view`."""

    view: ResolvedView
    offline: Offline
    store: OnlineStore
    codec: ViewCodec
    progress: Progress
    full: bool
    engine: RunEngine


def materialize_view(
    view: ResolvedView, offline: Offline, store: OnlineStore, *, project: str, progress: Progress, full: bool = False,
    engine: RunEngine | None = None,
) -> Iterator[Run]:  # fmt: skip
    """Compute and publish every instant of the view that is due by the online store's clock; none is no error. Each run comes when it is
    published, before the next one begins.

    full: ask for every key, not only for those that may have changed, read every row, and compute what is served again.
    engine: where records are written; None: in this process, without tiles of files.
    """
    codec = ViewCodec(project, view, tagged=store.tagged)
    note = read_note(store, codec)
    now, watermark, state, _ = read_marks(store, codec, full=full)
    complete = unpack_watermark(watermark)
    due = view.timing.due(now, complete[0] if complete else None)
    of_others = (
        () if full else (_CompleteMeanwhileError,)
    )  # a run that somebody asked for whole is none that another one does
    full = full or is_unfinished(state) or (bool(due) and _are_gone(view, offline, store, codec, state, noted(note)))
    job = _Job(view, offline, store, codec, progress, full, engine or ThisProcess(offline, store, progress))
    offline.see(view.source, now=now, must=True)  # a continuous view's instant is now, and counts what is there
    if full and complete and complete[0] >= view.timing.as_of(now):
        served = view.timing.served(complete, now)
        instants = tuple(instant for instant in reversed(complete) if served is None or instant >= served)
        with suppress(*of_others):
            yield from once_more(partial(_run, job, instants, again=True))
    elif due and not full and (done := noted(note)) is not None and done.is_worth_it(complete, due):
        runs = []
        with suppress(
            _OtherRunError, ExpectationError, *of_others
        ):  # then what is due is begun, which may be of other files
            runs = once_more(partial(_run, job, done.instants, only=done))
        yield from runs
    for instant in due:
        with suppress(*of_others):
            yield from once_more(partial(_run, job, (instant,)))


class _CompleteMeanwhileError(MaterializeError):
    """Another run completed an instant between the moment in which it was found due and the one in which it was begun."""


class _OtherRunError(Exception):
    """A run that was to be gone on with would not write the same any more."""


def _run(
    job: _Job, instants: tuple[int, ...], *, again: bool = False, only: DoneChunks | None = None
) -> list[Run]:  # fmt: skip
    """Compute instants, oldest first, and switch to them at once; again: they are complete, and get the next edition. only: what a
    run that was killed has done of them, of whose files this one is; _OtherRunError where they are not as they were."""
    view, runs, records = job.view, [], 0
    lease = Lease(job.store, job.codec.lease_key, view.declared.title, run_key=job.codec.run_key)
    try:
        plan = _planned(job, lease, instants, again=again, only=only)
        began, last = time.perf_counter(), iter(instants)
        for written in job.engine.written(plan, lease):
            numbers = (next(last), plan.started, written.keys, written.rows, plan.changes is None)
            ended = time.perf_counter()
            told = (ended - began, plan.files, again, written.expired, plan.unmet)
            runs.append(Run(view.name, view.fingerprint, *numbers, *told))
            began, records = ended, (plan.present or 0) + written.records
        _publish(lease, plan, runs[-1], records)
    except BaseException:
        job.progress.stop()
        lease.give_up()
        raise
    for run in runs:
        job.progress.done(run)
    return runs


def _planned(
    job: _Job, lease: Lease, instants: tuple[int, ...], *, again: bool, only: DoneChunks | None
) -> PlannedRun:  # fmt: skip
    """What a run over these instants is to do; it is noted in the store that it has begun."""
    view, offline, store, codec = job.view, job.offline, job.store, job.codec
    (now, watermark, state, damaged), note = read_marks(store, codec, full=job.full), read_note(store, codec)
    complete, last = unpack_watermark(watermark), instants[-1]
    if complete[:1] != (last,) if again else complete and complete[0] >= last:
        raise _CompleteMeanwhileError(
            f"{view.declared.title}: another run changed what is complete meanwhile; run again"
        )
    files = offline.see(view.source, now=now, known_by=view.timing.known_by(last), must=True)
    offline.note(view.source, now=now)
    if only is not None and len(files := only.among(files)) < len(only.files):
        raise _OtherRunError
    unmet, source_rows = _expected(job, files, now=now, state=state)
    arrived = new_files(view, files, state) if complete and not job.full else None
    changes, present = None, None
    if arrived is not None:
        changes = Changes(complete[0], last, arrived)
        if (present := records_in(state)) is None:
            present = count_records(offline, store, codec)
    plan = PlannedRun(
        view, codec, instants, again, now if only is None else only.started, files, complete, edition_of(watermark), changes, job.full, present, state,
        unmet, source_rows,
    )  # fmt: skip
    plan = replace(plan, digest=run_digest(plan, offline))
    # What the next run is to know, if it is killed. A watermark that was taken for gone must not be found whole again.
    begun: dict[bytes, bytes | None] = dict.fromkeys(damaged)
    if state is not None:
        begun[codec.state_key] = begun_state(state, full=job.full)
    done = noted(note)
    if only is not None and (done is None or done.run != plan.digest):
        raise _OtherRunError
    if note is not None and (done is None or done.run != plan.digest):
        begun[codec.chunks_key] = note = None
    if begun:
        lease.write(begun)
    return replace(plan, noted=note)


def _expected(
    job: _Job, files: tuple[SourceFile, ...], *, now: int, state: bytes | None
) -> tuple[UnmetRows, int | None]:
    """How many rows do not meet what is expected, which is logged, and how many there are where that matters; ExpectationError where
    one refuses. state: of the last run."""
    view, offline = job.view, job.offline
    if not (view.expectations or view.source.expectations or view.declared.expectations):
        return {}, None
    with offline.session(files=offline.listing(view.source, files)) as session, session.reading():
        try:
            unmet = unmet_rows(session, view)
            found = source_findings(session, view, now=now, last_rows=source_rows_in(state))
            source_rows = count_rows(session, view) if counts_rows(view) else None
        except duckdb.Error as error:
            raise SourceError(
                f"{view.declared.title} over {view.source.title}: {engine_words(error)} ({view.source.origin})"
            ) from error
    for said in (*check_rows(view, unmet), *check_source(view, found)):
        LOGGER.warning(said)
    return {**unmet, **{one.said.title: one.rows for one in found}}, source_rows


def _publish(lease: Lease, plan: PlannedRun, last: Run, records: int) -> None:
    """Switch all keys to what was written, and give the lease up, at once."""
    mark = pack_watermark(plan.complete_after, plan.edition + plan.again)
    state = state_of(plan, last.keys, last.rows, records)
    lease.release({plan.codec.watermark_key: mark, plan.codec.state_key: state, plan.codec.chunks_key: None})


@dataclass(frozen=True)
class ThisProcess:
    """Writes the records of a run here, from the files of the run, each batch with a word of how far it is. tiles: the folder of tiles
    that runs use and make; None: none. gather: begins to gather what values are like. chunk_keys: how many keys are asked for at once.
    workers: the processes that write where there are several chunks; None: this one does."""

    offline: Offline
    store: OnlineStore
    progress: Progress
    tiles: OwnedFolder | None = None
    gather: Gather = _nothing_gathered
    chunk_keys: int = PASS_KEYS
    workers: Workers | None = None
    gathered: dict[int, GatheredFeatures | None] = field(default_factory=dict)
    """By instant (µs) what the values of its keys are like; None where that could not be told."""

    def written(self, run: PlannedRun, lease: Lease) -> Iterator[Written]:
        """See `RunEngine`."""
        view, offline = run.view, self.offline
        with (
            offline.session(files=offline.listing(view.source, run.files)) as session,
            session.reading(),
            ExitStack() as ends,
        ):
            try:
                tiles = self._chosen_tiles(run, session)
                keys = collect(session, keys_sql(view, session, run.changes, instants=run.instants))
                chunks = KeyChunks(session, view, run.codec, keys, most=self.chunk_keys)
                writer = ends.enter_context(self._writer(run, lease, session, chunks, tiles))
                chunked = ChunkedRun(run, lease, self.store, session, chunks, writer, self.progress)
                done = chunked.begun()
                for marks in run.marks:
                    gathering = self._gathering(view)
                    written, done = chunked.write(marks, done, gathering)
                    if gathering is not None:
                        self.gathered[marks.instant] = gathering.gathered()
                    yield written
            except duckdb.Error as error:
                raise SourceError(
                    f"{view.declared.title} over {view.source.title}: {engine_words(error)} ({view.source.origin})"
                ) from error

    def _gathering(self, view: ResolvedView) -> Gathering | None:
        return self.gather({one.name: (feature_name(view.name, one.name), one.type) for one in view.features})

    def _writer(
        self, run: PlannedRun, lease: Lease, session: Session, chunks: KeyChunks, tiles: ChosenTiles | None
    ) -> AbstractContextManager[ChunkWriter]:
        """What writes the chunks of a run."""
        count = 1 if self.workers is None else min(self.workers.count, len(chunks.all))
        if self.workers is not None and count > 1:
            if run.digest:
                tells = self._gathering(run.view) is not None
                work = self.workers.work(run, session, self.offline, count=count, tiles=tiles, tells=tells)
                try:
                    packed = work.packed()
                except UnsendableError as error:
                    why = f"another one cannot be told what is to be done: {error}"
                else:
                    return WriterInProcesses(run, lease, chunks, packed, count=count, progress=self.progress)
            else:
                why = f"the rows of {run.view.source.title} lie in no files that another one could read"
            LOGGER.warning("%s is materialized by this process alone: %s", run.view.declared.title, why)
        tiling = None if tiles is None else tiles.tiling(session)
        return nullcontext(WriterHere(run, lease, self.store, session, tiling, self.progress))

    def _chosen_tiles(self, run: PlannedRun, session: Session) -> ChosenTiles | None:
        view, state = run.view, run.state
        if self.tiles is None or run.every_row or state is None:
            return None
        try:
            return tiles_for(view, self.offline, session, self.tiles, instant=run.instants[-1], seen=files_in(state))
        except OSError as error:  # a full disk is no reason to serve old values: what is kept only saves time
            warnings.warn(
                f"{view.declared.title}: every row is read, since tiles cannot be kept: {error}", stacklevel=2
            )
            return None


def run_record(run: Run, now: int) -> RunRecord:
    """A run as the registry's journal keeps it; `now`, µs, is when it was finished."""
    numbers = (run.instant, run.started, max(now, run.started), run.rows, run.keys)
    return RunRecord(run.view, run.fingerprint, *numbers, "complete", _detail(run))


def _detail(run: Run) -> dict[str, Any]:
    unmet = {"unmet": dict(run.unmet)} if run.unmet else {}
    return {"full": run.full, "again": run.again, **unmet}


def forget_records(
    view: ResolvedView, store: OnlineStore, *, project: str, keys: Sequence[bytes], beside: Callable[[], object]
) -> int:
    """Delete records of keys that are forgotten; how many there were. MaterializeError while a run goes on. beside: what is to
    be done while there is none.

    Runs that begin later find no row of these keys, so none of them writes their records again.
    """
    codec = ViewCodec(project, view, tagged=store.tagged)
    lease = Lease(store, codec.lease_key, view.declared.title, run_key=codec.run_key)
    try:
        (state, *before), damaged = read_past_damage(store, [codec.state_key, *keys])
        there = [key for key, record in zip(keys, before, strict=True) if record is not None or key in damaged]
        puts: dict[bytes, bytes | None] = dict.fromkeys([*there, codec.chunks_key])
        if (left := without_records(state, len(there))) is not None:
            puts[codec.state_key] = left
        beside()
        lease.release(puts)
    except BaseException:
        lease.give_up()
        raise
    return len(there)


def _are_gone(
    view: ResolvedView, offline: Offline, store: OnlineStore, codec: ViewCodec, state: bytes | None, done: DoneChunks | None
) -> bool:  # fmt: skip
    """Whether there are fewer records than were written, also by a run that was not completed: the store threw keys away, or
    somebody did."""
    written, gone = records_in(state), 0
    if written is not None:
        gone = written - count_records(offline, store, codec)
    elif done is not None and done.can_be_counted:
        written = sum(done.records)
        gone = done.missing_records(count_records_by_chunk(offline, store, codec, chunks=done.chunks))
    if written is None or gone <= 0:
        return False
    warnings.warn(
        f"{view.declared.title}: the online store has {written - gone} of the {written} {plural(written, 'record')} that were written; until now the "
        "others were served as MISSING. All keys are written again. Does the store evict keys, or does another program "
        "delete them? `featurestore verify` compares all that is online",
        stacklevel=3,
    )
    return True


def describe(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The runs as plain values."""
    names = ("view", "fingerprint", "keys", "rows", "expired", "full", "again")
    return [
        {
            **plain_fields(run, *names),
            "as_of": instant_json(run.instant),
            "seconds": round(run.seconds, 3),
            "unmet": dict(run.unmet),
        }
        for run in runs
    ]

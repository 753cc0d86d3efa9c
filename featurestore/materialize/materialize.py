"""Materialize: the function of key and instant, asked for every key that may have changed, kept online.

What is due is decided from the online watermark. A run for an instant writes two slots into each key that may have
changed since the newest complete instant, reads every batch back, and moves the watermark last; so a run that is
killed anywhere changes nothing that a lookup can see, and the next one completes its work. Lookups go on meanwhile.

A full run first computes again what is served: its slots are of the next edition, which the watermark switches to.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import orjson

from featurestore.clock import to_datetime
from featurestore.declare.sources import FileSource
from featurestore.durable.owner import OwnedFolder
from featurestore.errors import MaterializeError, SourceError
from featurestore.lazy import duckdb
from featurestore.materialize.lease import Lease, RunProgress
from featurestore.materialize.progress import Progress
from featurestore.materialize.records import RecordBatch, RecordQuery, collect, existing
from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec, edition_of, pack_watermark, unpack_watermark
from featurestore.query.changed_keys import all_keys_sql, changed_keys_sql
from featurestore.query.windows.tile_protocol import Tiling
from featurestore.registry.store import RunRecord
from featurestore.report import instant_json, plain_fields
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import SourceFile
from featurestore.sources.source_files import again as once_more
from featurestore.sources.unreadable import engine_words
from featurestore.tiles.file_tile_choice import tiles_for

BATCH_KEYS = 4_000
"""Keys that are written at once and read back; few enough that a server's readers do not wait for long."""

EMBEDDED_BATCH_KEYS = 40_000
"""The same for an embedded store, whose readers never wait, and for which each batch means waiting for the disk.
So many keys are encoded at once, whatever the store."""

STATE_FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One completed instant of one view."""

    view: str
    fingerprint: str
    instant: int
    """µs."""
    started: int
    """When the run began (µs), by the online store's clock."""
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

    def __str__(self) -> str:
        kind = ("all, computed again" if self.again else "all") if self.full else "those that may have changed"
        rate = self.keys / self.seconds if self.seconds else 0
        values = (
            f"{self.rows - (self.expired or 0):,} with values{f', {self.expired:,} expired' if self.expired else ''}"
        )
        return (
            f"{self.view} as of {to_datetime(self.instant):%Y-%m-%d %H:%M:%S}Z: {self.keys:,} keys ({kind}), {values}, "
            f"{self.seconds:.1f} s, {rate:,.0f} keys/s"
        )


@dataclass(frozen=True)
class _Job:
    """What is asked of materialize; see `materialize_view`."""

    view: ResolvedView
    offline: Offline
    store: OnlineStore
    codec: ViewCodec
    progress: Progress
    full: bool
    tiles: OwnedFolder | None


@dataclass(frozen=True)
class _Context:
    """What one run works with."""

    view: ResolvedView
    codec: ViewCodec
    store: OnlineStore
    lease: Lease
    session: Session
    marks: _RunInstants
    tiling: Tiling | None


class _RunInstants(NamedTuple):
    """The instant to compute and its edition; `kept`: those that each record keeps a slot for, newest first."""

    instant: int
    edition: int
    kept: tuple[tuple[int, int], ...]


def materialize_view(
    view: ResolvedView, offline: Offline, store: OnlineStore, *, project: str, progress: Progress, full: bool = False,
    tiles: OwnedFolder | None = None,
) -> list[Run]:  # fmt: skip
    """Compute and publish every instant of the view that is due by the online store's clock; none is no error.

    full: ask for every key, not only for those that may have changed, read every row, and compute what is served again.
    tiles: the folder of tiles that runs use and make; None: none.
    """
    codec = ViewCodec(project, view, tagged=store.tagged)
    now, (watermark, state) = store.get([codec.watermark_key, codec.state_key])
    complete = unpack_watermark(watermark)
    due = view.timing.due(now, complete[0] if complete else None)
    full = full or _is_unfinished(state) or (bool(due) and _are_gone(view, store, codec, state))
    job = _Job(view, offline, store, codec, progress, full, None if full else tiles)
    offline.see(view.source, now=now, must=True)  # a continuous view's instant is now, and counts what is there
    runs = []
    if full and complete and complete[0] >= view.timing.as_of(now):
        served = view.timing.served(complete, now)
        instants = [instant for instant in reversed(complete) if served is None or instant >= served]
        runs += once_more(partial(_run, job, instants, again=True))
    for instant in due:
        runs += once_more(partial(_run, job, [instant]))
    return runs


def _run(job: _Job, instants: Sequence[int], *, again: bool = False) -> list[Run]:
    """Compute instants, oldest first, and switch to them at once; again: they are complete, and get the next edition."""
    view, offline, store, codec = job.view, job.offline, job.store, job.codec
    lease = Lease(store, codec.lease_key, view.declared.title)
    try:
        now, (watermark, state) = store.get([codec.watermark_key, codec.state_key])
        complete = unpack_watermark(watermark)
        if complete[:1] != (instants[-1],) if again else complete and complete[0] >= instants[-1]:
            raise MaterializeError(f"{view.declared.title}: another run changed what is complete meanwhile; run again")
        files = offline.see(view.source, now=now, known_by=view.timing.known_by(instants[-1]), must=True)
        offline.note(view.source, now=now)
        last = complete[0] if complete else None
        arrived = None if job.full or last is None else _arrived(view, files, state)
        present = None
        if arrived is not None and (present := _records_of(state)) is None:
            present = len(existing(store, codec))
        if state is not None:  # what whoever comes after this run is to know, if it is killed
            lease.write({codec.state_key: _begun(state, full=job.full)})
        edition = edition_of(watermark)
        kept = [(instant, edition) for instant in (complete if again else complete[:1])]
        runs = []
        with offline.session(files=offline.listing(view.source, files)) as session, session.reading():
            try:
                tiling = _tiling(job, session, instants[-1], state)
                keys = collect(session, view, _keys_sql(job, session, arrived, (last, instants[-1])))
                for instant in instants:
                    began = time.perf_counter()
                    marks = _RunInstants(instant, edition + again, tuple(kept))
                    context = _Context(view, codec, store, lease, session, marks, tiling)
                    rows, expired, records = _write_all(context, keys, present=present, progress=job.progress)
                    numbers = (instant, now, keys, rows, arrived is None, time.perf_counter() - began)
                    runs.append(Run(view.name, view.fingerprint, *numbers, files, again, expired))
                    kept.insert(0, (instant, edition + again))
            except duckdb.Error as error:
                raise SourceError(
                    f"{view.declared.title} over {view.source.title}: {engine_words(error)} ({view.source.origin})"
                ) from error
        mark = pack_watermark(complete if again else [*instants, *complete], edition + again)
        lease.release({codec.watermark_key: mark, codec.state_key: _state(runs[-1], records)})
    except BaseException:
        job.progress.stop()
        lease.give_up()
        raise
    for run in runs:
        job.progress.done(run)
    return runs


def _tiling(job: _Job, session: Session, instant: int, state: bytes | None) -> Tiling | None:
    if job.tiles is None or state is None:
        return None
    try:
        return tiles_for(job.view, job.offline, session, job.tiles, instant=instant, seen=_files_of(state))
    except OSError as error:  # a full disk is no reason to serve old values: what is kept only saves time
        warnings.warn(
            f"{job.view.declared.title}: every row is read, since tiles cannot be kept: {error}", stacklevel=2
        )
        return None


def run_record(run: Run, now: int) -> RunRecord:
    """A run as the registry's journal keeps it; `now`, µs, is when it was finished."""
    numbers = (run.instant, run.started, max(now, run.started), run.rows, run.keys)
    return RunRecord(run.view, run.fingerprint, *numbers, "complete", {"full": run.full, "again": run.again})


def _state(run: Run, records: int) -> bytes:
    files = [list(file) for file in run.files]
    return orjson.dumps(
        {"format": STATE_FORMAT, "keys": run.keys, "rows": run.rows, "files": files, "records": records}
    )


def _is_unfinished(state: bytes | None) -> bool:
    """Whether a run over all keys was begun, and no run was completed since."""
    return state is not None and bool(orjson.loads(state).get("unfinished"))


def forget_records(
    view: ResolvedView, store: OnlineStore, *, project: str, keys: Sequence[bytes], beside: Callable[[], object]
) -> int:
    """Delete records of keys that are forgotten; how many there were. MaterializeError while a run goes on. beside: what is to
    be done while there is none.

    Runs that begin later find no row of these keys, so none of them writes their records again.
    """
    codec = ViewCodec(project, view, tagged=store.tagged)
    lease = Lease(store, codec.lease_key, view.declared.title)
    try:
        (state, *before), damaged = read_past_damage(store, [codec.state_key, *keys])
        there = [key for key, record in zip(keys, before, strict=True) if record is not None or key in damaged]
        puts: dict[bytes, bytes | None] = dict.fromkeys(there)
        if state is not None and (records := _records_of(state)) is not None:
            puts[codec.state_key] = orjson.dumps({**orjson.loads(state), "records": records - len(there)})
        beside()
        lease.release(puts)
    except BaseException:
        lease.give_up()
        raise
    return len(there)


def _begun(state: bytes, *, full: bool) -> bytes:
    """The state while a run goes on: how many records there are is not known."""
    return orjson.dumps({**orjson.loads(state), "records": None, "unfinished": full})


def _records_of(state: bytes | None) -> int | None:
    """How many records the last run left; None where that is not known."""
    records: int | None = None if state is None else orjson.loads(state).get("records")
    return records


def _are_gone(view: ResolvedView, store: OnlineStore, codec: ViewCodec, state: bytes | None) -> bool:
    """Whether there are fewer records than were written: the store threw keys away, or somebody did."""
    written = _records_of(state)
    found = 0 if written is None else len(existing(store, codec))
    if written is None or found >= written:
        return False
    warnings.warn(
        f"{view.declared.title}: the online store has {found} of the {written} records that were written; until now the "
        "others were served as MISSING. All keys are written again. Does the store evict keys, or does another program "
        "delete them? `featurestore verify` compares all that is online",
        stacklevel=3,
    )
    return True


def _arrived(view: ResolvedView, files: tuple[SourceFile, ...], state: bytes | None) -> list[int] | None:
    """The numbers of the files that are new since the last complete run; None where all keys must be asked for."""
    if view.source.event_time is None or not isinstance(view.source, FileSource) or state is None:
        unchanged = state is not None and view.source.event_time is not None and _files_of(state) == set(files)
        return [] if unchanged else None
    before = _files_of(state)
    if not before <= set(files):
        return None
    return [number for number, file in enumerate(files) if file not in before]


def _files_of(state: bytes) -> set[SourceFile]:
    return {SourceFile(*file) for file in orjson.loads(state)["files"]}


def _keys_sql(job: _Job, session: Session, arrived: list[int] | None, between: tuple[int | None, int]) -> str:
    """The keys to ask for; between: the complete instant, and the one due."""
    view, scan = job.view, session.scan(job.view.source)
    after, upto = between
    if arrived is None or after is None:
        return all_keys_sql(view, scan)
    return changed_keys_sql(view, scan, after=after, upto=upto, new_files=arrived)


def _write_all(context: _Context, keys: int, *, present: int | None, progress: Progress) -> tuple[int, int, int]:
    """Ask for all keys and write their records, in the order of their keys; the number of keys that have a row, of those of
    them that are expired, and of the records that there are then. present: how many there are before; None: every record
    is written."""
    rows, expired, everything = 0, 0, present is None
    count = present or 0
    progress.start(f"{context.view.name} as of {to_datetime(context.marks.instant):%Y-%m-%d %H:%M}Z", keys)
    context.lease.progress = RunProgress(context.marks.instant, 0, keys)
    before: Future[int] | None = None
    with ThreadPoolExecutor(max_workers=1) as writer:  # which waits for the store while the next batch is encoded
        for batch, records, of_batch in _batches(context, keys, everything=everything):
            if before is not None:
                count += before.result()
            before = writer.submit(_write, context, batch, records, everything)
            rows, expired = rows + len(records) - records.count(None), expired + of_batch
            progress.advance(len(batch))
        if before is not None:
            count += before.result()
    return rows, expired, count


def _batches(context: _Context, keys: int, *, everything: bool) -> Iterator[RecordBatch]:
    """The batches of the keys asked for, each record with one slot; `everything`: those that vanished too."""
    vanished = existing(context.store, context.codec) if everything else set()
    instant, edition, _ = context.marks
    asked = RecordQuery(context.session, context.view, context.codec, context.store.blocking, context.tiling)
    for batch in asked.records(keys, instant, edition, size=EMBEDDED_BATCH_KEYS):
        vanished.difference_update(batch.keys)
        yield batch
    gone = sorted(vanished)
    for start in range(0, len(gone), EMBEDDED_BATCH_KEYS):
        part = gone[start : start + EMBEDDED_BATCH_KEYS]
        yield RecordBatch(part, [None] * len(part), 0)


def _write(context: _Context, keys: Sequence[bytes], records: Sequence[bytes | None], everything: bool) -> int:
    """Write records, in batches as the store takes them, and read each batch back; how many records there are more, or, where
    every one is written, how many these are."""
    size, more = BATCH_KEYS if context.store.blocking else EMBEDDED_BATCH_KEYS, 0
    for start in range(0, len(keys), size):
        batch = keys[start : start + size]
        puts, there = _puts(context, batch, records[start : start + size])
        more += len(batch) - list(puts.values()).count(None) - (0 if everything else there)
        _advance(context.lease, len(batch))
        context.lease.write(puts)
        written = context.store.get(list(puts)).values
        if written != list(puts.values()):
            wrong = sum(a != b for a, b in zip(written, puts.values(), strict=True))
            raise MaterializeError(
                f"{context.view.declared.title}: {wrong} of {len(puts)} records read back differ from what was written; "
                "is another program writing to this store, or does it evict keys?"
            )
    return more


def _advance(lease: Lease, keys: int) -> None:
    """Say in the lease, with the batch that it is written with, how many keys are written then; those that vanished are more than were
    asked for."""
    assert lease.progress is not None
    instant, written, of = lease.progress
    lease.progress = RunProgress(instant, written + keys, max(of, written + keys))


def _puts(
    context: _Context, keys: Sequence[bytes], records: Sequence[bytes | None]
) -> tuple[dict[bytes, bytes | None], int]:
    """What to write: each record with the slots that are kept of the one before behind its own; and how many there were."""
    codec, (now, edition, kept) = context.codec, context.marks
    if not kept:
        return dict(zip(keys, records, strict=True)), 0
    nothing_yet = codec.record([codec.empty(now, edition)])
    puts: dict[bytes, bytes | None] = {}
    before, damaged = read_past_damage(context.store, keys)
    for key, record, held in zip(keys, records, before, strict=True):
        if key in damaged:
            puts[key] = record or nothing_yet  # what it answered before is not known; until the switch its lookups fail
            continue
        older = [None if held is None else codec.slot(held, instant, edition=of) for instant, of in kept]
        if record is None and all(slot is None or slot.row is None for slot in older):
            puts[key] = None  # without a record the key is MISSING, then as now
            continue
        slots = [codec.of_edition(slot, of) for slot, (_, of) in zip(older, kept, strict=True) if slot is not None]
        if held is None:  # the key had no row until now
            slots.append(codec.empty(*kept[-1]))
        puts[key] = codec.with_older(record or nothing_yet, *dict.fromkeys(slots))
    return puts, len(keys) - before.count(None) + len(damaged)


def describe(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The runs as plain values."""
    names = ("view", "fingerprint", "keys", "rows", "expired", "full", "again")
    return [
        {**plain_fields(run, *names), "as_of": instant_json(run.instant), "seconds": round(run.seconds, 3)}
        for run in runs
    ]

"""Materialize: the function of key and instant, asked for every key that may have changed, kept online.

What is due is decided from the online watermark. A run for an instant writes two slots into each key that may have
changed since the newest complete instant, reads every batch back, and moves the watermark last; so a run that is
killed anywhere changes nothing that a lookup can see, and the next one completes its work. Lookups go on meanwhile.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.clock import to_datetime
from featurestore.compile.answer import ask
from featurestore.compile.changed import all_keys_sql, changed_keys_sql
from featurestore.compile.folding.tiling import Tiling
from featurestore.compile.rows import key_list
from featurestore.declare.sources import ParquetSource
from featurestore.errors import FeatureStoreError, MaterializeError, SourceError
from featurestore.operations.lease import Lease
from featurestore.operations.progress import Progress
from featurestore.operations.tiling import tiles_for
from featurestore.registry.store import Run as RunRecord
from featurestore.semantics.values import take
from featurestore.semantics.view import ResolvedView
from featurestore.stores.codec import ViewCodec, pack_watermark, unpack_watermark
from featurestore.stores.offline import Offline, Session
from featurestore.stores.online import OnlineStore
from featurestore.stores.online.sealing import read_past_damage
from featurestore.stores.source_files import SourceFile, again
from featurestore.stores.wire import cut

__all__ = ["Run", "materialize_view", "run_record"]

BATCH = 4_000
"""Keys that are written at once and read back; few enough that a server's readers do not wait for long."""

EMBEDDED_BATCH = 40_000
"""The same for an embedded store, whose readers never wait, and for which each batch means waiting for the disk.
So many keys are encoded at once, whatever the store."""

PASS = 1_000_000
"""Keys that are asked for at once: what bounds the memory of a run."""

STATE_FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One completed instant of one view: how many keys were asked for, and how many of them have a row that counts.

    instant, started: µs; the second by the online store's clock.
    """

    view: str
    fingerprint: str
    instant: int
    started: int
    keys: int
    rows: int
    full: bool
    seconds: float
    files: tuple[SourceFile, ...]

    def __str__(self) -> str:
        kind = "all keys" if self.full else "changed keys"
        rate = self.keys / self.seconds if self.seconds else 0
        return (
            f"{self.view} as of {to_datetime(self.instant):%Y-%m-%d %H:%M:%S}Z: {self.keys:,} {kind}, {self.rows:,} with "
            f"values, {self.seconds:.1f} s, {rate:,.0f} keys/s"
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
    tiles: Path | None


@dataclass(frozen=True)
class _Context:
    """What one run works with."""

    view: ResolvedView
    codec: ViewCodec
    store: OnlineStore
    lease: Lease
    session: Session
    instant: int
    complete: int | None
    tiling: Tiling | None


def materialize_view(
    view: ResolvedView, offline: Offline, store: OnlineStore, *, project: str, progress: Progress, full: bool = False,
    tiles: Path | None = None,
) -> list[Run]:  # fmt: skip
    """Compute and publish every instant of the view that is due by the online store's clock; none is no error.

    full: ask for every key, not only for those that may have changed, and read every row. tiles: the folder of tiles that
    runs use and make; None: none.
    """
    job = _Job(view, offline, store, ViewCodec(project, view), progress, full, None if full else tiles)
    reading = store.get([job.codec.watermark_key])
    complete = unpack_watermark(reading.values[0])
    offline.see(view.source, now=reading.now, must=True)  # a continuous view's instant is now, and counts what is there
    due = view.timing.due(reading.now, complete[0] if complete else None)
    return [again(partial(_run, job, instant)) for instant in due]


def _run(job: _Job, instant: int) -> Run:
    began = time.perf_counter()
    view, offline, store, codec = job.view, job.offline, job.store, job.codec
    lease = Lease(store, codec.lease_key, view.declared.title)
    try:
        now, (watermark, state) = store.get([codec.watermark_key, codec.state_key])
        instants = unpack_watermark(watermark)
        complete = instants[0] if instants else None
        if complete is not None and complete >= instant:
            raise MaterializeError(f"{view.declared.title}: another run completed {to_datetime(complete)} meanwhile")
        files = offline.see(view.source, now=now, known_by=view.timing.known_by(instant), must=True)
        offline.note(view.source, now=now)
        arrived = None if job.full or complete is None else _arrived(view, files, state)
        with offline.session(files=offline.listing(view.source, files)) as session, session.reading():
            try:
                tiling = _tiling(job, session, instant, state)
                context = _Context(view, codec, store, lease, session, instant, complete, tiling)
                keys = _collect(context, arrived)
                rows = _write_all(context, keys, everything=arrived is None, progress=job.progress)
            except duckdb.Error as error:
                raise SourceError(
                    f"{view.declared.title} over {view.source.title}: {error} ({view.source.origin})"
                ) from error
        seconds = time.perf_counter() - began
        run = Run(view.name, view.fingerprint, instant, now, keys, rows, arrived is None, seconds, files)
        lease.release({codec.watermark_key: pack_watermark([instant, *instants]), codec.state_key: _state(run)})
    except BaseException:
        _give_up(lease)
        raise
    job.progress.done(run)
    return run


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
    return RunRecord(run.view, run.fingerprint, *numbers, "complete", {"full": run.full})


def _give_up(lease: Lease) -> None:
    """Release the lease after a failure, where that is still possible; it runs out by itself otherwise."""
    with contextlib.suppress(FeatureStoreError):  # the failure that led here is the one to tell of
        lease.release({})


def _state(run: Run) -> bytes:
    return orjson.dumps(
        {"format": STATE_FORMAT, "keys": run.keys, "rows": run.rows, "files": [list(file) for file in run.files]}
    )


def _arrived(view: ResolvedView, files: tuple[SourceFile, ...], state: bytes | None) -> list[int] | None:
    """The numbers of the files that are new since the last complete run; None where all keys must be asked for."""
    if view.source.event_time is None or not isinstance(view.source, ParquetSource) or state is None:
        unchanged = state is not None and view.source.event_time is not None and _files_of(state) == set(files)
        return [] if unchanged else None
    before = _files_of(state)
    if not before <= set(files):
        return None
    return [number for number, file in enumerate(files) if file not in before]


def _files_of(state: bytes) -> set[SourceFile]:
    return {SourceFile(*file) for file in orjson.loads(state)["files"]}


def _collect(context: _Context, arrived: list[int] | None) -> int:
    """Fill the temporary table `asked (n, k…)` with the keys to ask for."""
    view, scan = context.view, context.session.scan(context.view.source)
    if arrived is None or context.complete is None:
        sql = all_keys_sql(view, scan)
    else:
        sql = changed_keys_sql(view, scan, after=context.complete, upto=context.instant, new_files=arrived)
    connection = context.session.connection
    connection.execute(
        f"CREATE TEMP TABLE asked AS SELECT row_number() OVER () - 1 AS n, {key_list(view)} FROM ({sql})"
    )
    return int(connection.execute("SELECT count(*) FROM asked").fetchall()[0][0])


def _write_all(context: _Context, keys: int, *, everything: bool, progress: Progress) -> int:
    """Ask for all keys and write their records, in the order of their keys; the number of keys that have a row."""
    rows = 0
    progress.start(context.view.name, context.instant, keys)
    before: Future[None] | None = None
    with ThreadPoolExecutor(max_workers=1) as writer:  # which waits for the store while the next batch is encoded
        for batch, records in _batches(context, keys, everything=everything):
            if before is not None:
                before.result()
            before = writer.submit(_write, context, batch, records)
            rows += len(records) - records.count(None)
            progress.advance(len(batch))
        if before is not None:
            before.result()
    return rows


def _batches(context: _Context, keys: int, *, everything: bool) -> Iterator[tuple[list[bytes], list[bytes | None]]]:
    """Store keys and the record of each with one slot, None where it has no row; `everything`: those that vanished too."""
    vanished = _existing(context) if everything else set()
    for first in range(0, keys, PASS):
        for batch, records in _pass(context, first, min(PASS, keys - first)):
            vanished.difference_update(batch)
            yield batch, records
    gone = sorted(vanished)
    for start in range(0, len(gone), EMBEDDED_BATCH):
        part = gone[start : start + EMBEDDED_BATCH]
        yield part, [None] * len(part)


def _batch_size(store: OnlineStore) -> int:
    return BATCH if store.blocking else EMBEDDED_BATCH


def _existing(context: _Context) -> set[bytes]:
    return {key for keys in context.store.scan(context.codec.record_prefix) for key in keys}


def _pass(context: _Context, first: int, count: int) -> Iterator[tuple[list[bytes], list[bytes | None]]]:
    """The batches of the asked keys from `first` on: for an embedded store in the order of their store keys, whose
    neighbours share pages; for another, which has none, as the query gave their rows, which are then read in order."""
    view, codec, connection = context.view, context.codec, context.session.connection
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE requests AS SELECT n - {first} AS n, {key_list(view)}, "
        f"CAST({context.instant} AS BIGINT) AS a FROM asked WHERE n >= {first} AND n < {first + count}"
    )
    answer = ask(
        connection, view, context.session.scan(view.source), requests="requests",
        as_of=np.full(count, context.instant, np.int64), tiling=context.tiling,
    )  # fmt: skip
    table: pa.Table = connection.sql(f"SELECT n, {key_list(view)} FROM requests").to_arrow_table()
    keys = codec.key_array([table[f"k{i}"].combine_chunks() for i in range(len(view.keys))], count)
    index = answer.index[table["n"].to_numpy()]
    order = np.argsort(index) if context.store.blocking else pc.sort_indices(keys).to_numpy()
    index, names = index[order], [feature.name for feature in view.features]
    for start in range(0, count, EMBEDDED_BATCH):
        batch = cut(keys.take(pa.array(order[start : start + EMBEDDED_BATCH])))
        places = index[start : start + EMBEDDED_BATCH]
        found = np.flatnonzero(places >= 0)
        encoded = codec.records(context.instant, _rows(answer.rows, places[found]), names)
        records: list[bytes | None] = encoded  # type: ignore[assignment]
        if len(found) < len(batch):
            records = [None] * len(batch)
            for place, record in zip(found.tolist(), encoded, strict=True):
                records[place] = record
        yield batch, records


def _rows(rows: pa.Table, places: npt.NDArray[np.int64]) -> pa.Table:
    """The rows at the places, without a copy where they follow each other."""
    if len(places) and (np.diff(places) == 1).all():
        return rows.slice(int(places[0]), len(places))
    return pa.table({name: take(rows[name], places) for name in rows.column_names})


def _write(context: _Context, keys: Sequence[bytes], records: Sequence[bytes | None]) -> None:
    """Write records, in batches as the store takes them, and read each batch back."""
    size = _batch_size(context.store)
    for start in range(0, len(keys), size):
        puts = _puts(context, keys[start : start + size], records[start : start + size])
        context.lease.write(puts)
        written = context.store.get(list(puts)).values
        if written != list(puts.values()):
            wrong = sum(a != b for a, b in zip(written, puts.values(), strict=True))
            raise MaterializeError(
                f"{context.view.declared.title}: {wrong} of {len(puts)} records read back differ from what was written; "
                "is another program writing to this store, or does it evict keys?"
            )


def _puts(context: _Context, keys: Sequence[bytes], records: Sequence[bytes | None]) -> dict[bytes, bytes | None]:
    """What to write: each record with the slot of the newest complete instant behind its own."""
    codec, complete = context.codec, context.complete
    if complete is None:
        return dict(zip(keys, records, strict=True))
    nothing, nothing_yet = codec.empty(complete), codec.record([codec.empty(context.instant)])
    puts: dict[bytes, bytes | None] = {}
    before, damaged = read_past_damage(context.store, keys)
    for key, record, held in zip(keys, records, before, strict=True):
        older = None if held is None else codec.slot(held, complete)
        if key in damaged:
            puts[key] = record or nothing_yet  # what it answered before is not known; until the switch its lookups fail
        elif record is None and (older is None or older.row is None):
            puts[key] = None  # without a record the key is MISSING, then as now
        else:
            puts[key] = codec.with_older(record or nothing_yet, nothing if older is None else older.data)
    return puts


def describe(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The runs as plain values."""
    return [
        {
            "view": run.view,
            "fingerprint": run.fingerprint,
            "as_of": to_datetime(run.instant).isoformat(),
            "keys": run.keys,
            "rows": run.rows,
            "full": run.full,
            "seconds": round(run.seconds, 3),
        }
        for run in runs
    ]

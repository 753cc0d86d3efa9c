"""The kernel of materialize: which keys a run asks for, what their records are, and how they are written and read back.

It reads whatever its session reads, as the kernel of training does: one machine gives it files, an engine of many the rows of some
keys, which are then all that it asks for. What is due, the lease and the watermark are their driver's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from featurestore.errors import MaterializeError
from featurestore.lazy import pa
from featurestore.materialize.records import PASS_KEYS, RecordBatch, RecordQuery, ValueTaker
from featurestore.materialize.stored_keys import StoredKeys
from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec
from featurestore.plurals import plural
from featurestore.query.changed_keys import changed_keys_sql
from featurestore.query.newest_rows import collected_keys_sql
from featurestore.query.windows.tile_protocol import Tiling
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.training.kernel import check_types

BATCH_KEYS = 4_000
"""Keys that are written at once and read back; few enough that a server's readers do not wait for long."""

EMBEDDED_BATCH_KEYS = 40_000
"""The same for an embedded store, whose readers never wait, and for which each batch means waiting for the disk.
So many keys are encoded at once, whatever the store."""


class RunInstants(NamedTuple):
    """The instant to compute and its edition; `kept`: those that each record keeps a slot for, newest first."""

    instant: int
    edition: int
    kept: tuple[tuple[int, int], ...]


class Changes(NamedTuple):
    """Which keys an incremental run asks for: those that may have changed between two instants (µs), and those of rows that came
    since."""

    after: int
    upto: int
    new_files: tuple[int, ...]
    """The files that came since, by number in the listing."""


class Written(NamedTuple):
    """What was written of an instant; that of disjoint keys adds up."""

    keys: int
    """How many were asked for."""

    rows: int
    """How many of them have a row that counts."""

    expired: int
    """How many of those have no value any more."""

    records: int
    """How many records there are more; where every key is asked for, how many there are."""

    def plus(self, other: Written) -> Written:
        """Both together."""
        return Written(*(one + two for one, two in zip(self, other, strict=True)))


class BatchWriter(Protocol):
    """What lets a run write as long as it is the only one: its lease, or its run key."""

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        """Write a batch; MaterializeError where another run has taken over."""


def keys_sql(
    view: ResolvedView, session: Session, changes: Changes | None, *, instants: Sequence[int],
    new_rows_from: int | None = None,
) -> str:  # fmt: skip
    """The keys to ask for at some instants. changes: None: all. new_rows_from: of rows that a session was given, the first that
    lies in one of the new files."""
    scan = session.scan(view.source)
    if changes is None:
        return collected_keys_sql(session.connection, view, scan, instants=instants)
    files = changes.new_files if new_rows_from is None else ()
    return changed_keys_sql(
        view, scan, after=changes.after, upto=changes.upto, new_files=files, new_rows_from=new_rows_from
    )


@contextmanager
def session_of_rows(view: ResolvedView, rows: pa.Table, offline: Offline) -> Iterator[Session]:
    """A session whose rows of the view's source are these: all rows of every key that is asked of it. SourceError where a column
    is of another type than the view was settled over."""
    with offline.session(rows={view.source.name: rows}) as session:
        check_types(view, session)
        yield session


@dataclass(frozen=True)
class SlotWriter:
    """Writes slots of one instant into the records of a view. A batch may be written again by any process that may still write: it is the same
    bytes then."""

    view: ResolvedView
    codec: ViewCodec
    store: OnlineStore
    writer: BatchWriter
    marks: RunInstants
    everything: bool
    """Whether every record gets such a slot, and not only those of keys that may have changed."""

    def write(self, keys: Sequence[bytes], records: Sequence[bytes | None]) -> int:
        """Write records, in batches as the store takes them, and read each batch back; how many records there are more, or, where
        every one is written, how many these are."""
        size, more = BATCH_KEYS if self.store.blocking else EMBEDDED_BATCH_KEYS, 0
        for start in range(0, len(keys), size):
            batch = keys[start : start + size]
            puts, there = self._puts(batch, records[start : start + size])
            more += len(batch) - list(puts.values()).count(None) - (0 if self.everything else there)
            self.writer.write(puts)
            written = self.store.get(list(puts)).values
            if written != list(puts.values()):
                wrong = sum(a != b for a, b in zip(written, puts.values(), strict=True))
                raise MaterializeError(
                    f"{self.view.declared.title}: {wrong} of {len(puts)} {plural(len(puts), 'record')} read back differ from what was written; "
                    "is another program writing to this store, or does it evict keys?"
                )
        return more

    def _puts(self, keys: Sequence[bytes], records: Sequence[bytes | None]) -> tuple[dict[bytes, bytes | None], int]:
        """What to write: each record with the slots that are kept of the one before behind its own; and how many there were."""
        codec, (now, edition, kept) = self.codec, self.marks
        if not kept:
            return dict(zip(keys, records, strict=True)), 0
        nothing_yet = codec.record([codec.empty(now, edition)])
        puts: dict[bytes, bytes | None] = {}
        before, damaged = read_past_damage(self.store, keys)
        for key, record, held in zip(keys, records, before, strict=True):
            if key in damaged:
                # What it answered before is not known; until the switch its lookups fail.
                puts[key] = record or nothing_yet
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


@dataclass(frozen=True)
class RecordWriting:
    """Writes the records of an instant for the keys that were collected in a session. tiling: see `ask`."""

    slots: SlotWriter
    session: Session
    stored: StoredKeys | None = None
    """The store keys that have records, which are emptied where no key that is asked for has them. None: no record is."""

    tiling: Tiling | None = None
    gathering: ValueTaker | None = None
    """Told of all values that are written. None: nobody asks."""

    pass_keys: int = PASS_KEYS
    """How many keys are asked for at once."""

    def write(
        self, keys: int, *, first: int = 0, chunk: int = 0, advance: Callable[[int], object] = int
    ) -> Written:  # fmt: skip
        """Ask for all of so many keys, from the first on, and write their records, in the order of their keys. chunk: in which they are.
        advance: told of how many keys more are encoded."""
        rows = expired = records = 0
        before: Future[int] | None = None
        with ThreadPoolExecutor(max_workers=1) as pool:  # which waits for the store while the next batch is encoded
            for batch, encoded, of_batch in self._batches(keys, first, chunk):
                if before is not None:
                    records += before.result()
                before = pool.submit(self.slots.write, batch, encoded)
                rows, expired = rows + len(encoded) - encoded.count(None), expired + of_batch
                advance(len(batch))
            if before is not None:
                records += before.result()
        return Written(keys, rows, expired, records)

    def _batches(self, keys: int, first: int, chunk: int) -> Iterator[RecordBatch]:
        """The batches of the keys asked for, each record with one slot; then those of their chunk that vanished."""
        slots, stored = self.slots, self.stored
        instant, edition, _ = slots.marks
        asked = RecordQuery(self.session, slots.view, slots.codec, slots.store.blocking, self.tiling, self.gathering)
        for batch in asked.records(
            keys, instant, edition, size=EMBEDDED_BATCH_KEYS, first=first, pass_keys=self.pass_keys
        ):
            if stored is not None:
                stored.meet(batch.keys)
            yield batch
        for gone in () if stored is None else stored.vanished(chunk, EMBEDDED_BATCH_KEYS):
            yield RecordBatch(gone, [None] * len(gone), 0)

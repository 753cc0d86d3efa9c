"""What writes chunks of a run: this process, one after the other, or several processes (`worker_processes`), side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from featurestore.materialize.kernel import RecordWriting, RunInstants, SlotWriter, Written
from featurestore.materialize.key_chunks import KeyChunk
from featurestore.materialize.lease import Lease
from featurestore.materialize.progress import Progress
from featurestore.materialize.records import ValueTaker
from featurestore.materialize.run_plan import PlannedRun
from featurestore.materialize.stored_keys import StoredKeys
from featurestore.online import OnlineStore
from featurestore.query.windows.tile_protocol import Tiling
from featurestore.sources.session import Session


class ChunkWriter(Protocol):
    """Writes the records of the keys in chunks."""

    def written(
        self, marks: RunInstants, chunks: Sequence[KeyChunk], stored: StoredKeys | None, gathering: ValueTaker | None
    ) -> Iterator[tuple[KeyChunk, Written]]:
        """Write chunks of an instant: what was written of each, when it is done, in any order. stored: the store keys that have records,
        where every record is written. gathering: told of the values."""


@dataclass(frozen=True)
class WriterHere:
    """Writes them in this process, by the lease, from the session in which the keys were collected. tiling: see `ask`."""

    run: PlannedRun
    lease: Lease
    store: OnlineStore
    session: Session
    tiling: Tiling | None
    progress: Progress

    def written(
        self, marks: RunInstants, chunks: Sequence[KeyChunk], stored: StoredKeys | None, gathering: ValueTaker | None
    ) -> Iterator[tuple[KeyChunk, Written]]:
        """See `ChunkWriter`."""
        run = self.run
        slots = SlotWriter(run.view, run.codec, self.store, _Telling(self.lease), marks, run.changes is None)
        for chunk in chunks:
            writing = RecordWriting(slots, self.session, stored, self.tiling, gathering, max(1, chunk.keys))
            yield (
                chunk,
                writing.write(chunk.keys, first=chunk.first, chunk=chunk.number, advance=self.progress.advance),
            )


@dataclass(frozen=True)
class _Telling:
    """Writes with a lease, which says with each batch how many keys are written then; those that vanished are more than were
    asked for."""

    lease: Lease

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        """Write a batch and renew the lease, at once."""
        assert self.lease.progress is not None
        self.lease.progress = self.lease.progress.plus(len(puts))
        self.lease.write(puts)

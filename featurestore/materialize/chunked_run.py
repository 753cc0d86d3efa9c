"""A run in this process, chunk by chunk of its keys: each is asked for, written, read back, and noted as done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from featurestore.clock import to_datetime
from featurestore.lazy import pa
from featurestore.materialize.done_chunks import DoneChunks, file_digest, noted
from featurestore.materialize.kernel import EMBEDDED_BATCH_KEYS, RecordWriting, RunInstants, SlotWriter, Written
from featurestore.materialize.key_chunks import KeyChunk, KeyChunks
from featurestore.materialize.lease import Lease, RunProgress
from featurestore.materialize.progress import Progress
from featurestore.materialize.records import asked_keys, existing
from featurestore.materialize.run_plan import PlannedRun
from featurestore.online import OnlineStore
from featurestore.online.judged_slots import JudgedSlots
from featurestore.query.windows.tile_protocol import Tiling
from featurestore.registry.kept_statistics import Gathering
from featurestore.semantics.values import canonical
from featurestore.sources.session import Session


@dataclass(frozen=True)
class ChunkedRun:
    """Writes the records of a run, whose session reads its files. chunks: of the keys that were collected there. tiling: see `ask`."""

    run: PlannedRun
    lease: Lease
    store: OnlineStore
    session: Session
    chunks: KeyChunks
    tiling: Tiling | None
    progress: Progress

    def begun(self) -> DoneChunks | None:
        """What is noted as done, by this run or by one before it that was to write the same; None where nothing is noted. Raises
        MaterializeError where another run has the lease."""
        run, chunks = self.run, self.chunks.all
        keys = sum(chunk.keys for chunk in chunks)
        if not run.digest or len(chunks) == 1:
            self._drop()
            return None
        done = noted(run.noted)
        is_ours = done is not None and (done.run, done.keys, done.chunks) == (run.digest, keys, len(chunks))
        if done is not None and is_ours and (self.everything or (run.present or 0) >= done.records):
            return done
        files = tuple(map(file_digest, run.files))
        fresh = DoneChunks(run.digest, run.started, run.instants, files, keys, len(chunks), run.present or 0)
        self.lease.write({run.codec.chunks_key: fresh.packed()})
        return fresh

    def _drop(self) -> None:
        if self.run.noted is not None:
            self.lease.write({self.run.codec.chunks_key: None})

    @property
    def everything(self) -> bool:
        """Whether every record is written."""
        return self.run.changes is None

    def write(
        self, marks: RunInstants, done: DoneChunks | None, gathering: Gathering | None
    ) -> tuple[Written, DoneChunks | None]:
        """Write the records of one instant, but those of chunks that are done; what was written with them, and what is done then.
        gathering: told of the values of all; those of chunks that are done are read online."""
        run, chunks, written = self.run, self.chunks.all, Written(0, 0, 0, 0)
        keys = sum(chunk.keys for chunk in chunks)
        self.progress.start(f"{run.view.name} as of {to_datetime(marks.instant):%Y-%m-%d %H:%M}Z", keys)
        left = self._left(marks, done)
        for chunk in chunks:
            if chunk not in left:
                assert done is not None
                before = done.of(marks.instant)[chunk.number]
                written = written.plus(before if self.everything else before._replace(records=0))
                if gathering is not None:
                    self._tell(marks, chunk, gathering)
                self.progress.advance(chunk.keys)
        self.lease.progress = RunProgress(marks.instant, written.keys, keys)
        for chunk in left:
            if done is not None and chunk.number in done.of(marks.instant):
                done = done.without(chunk.number)  # of later instants too, whose slots are overwritten here
            of_chunk = self._write(marks, chunk, gathering)
            written = written.plus(of_chunk)
            if done is not None:
                self.session.check_unchanged()
                done = done.plus(marks.instant, chunk.number, of_chunk, everything=self.everything)
                self.lease.write({run.codec.chunks_key: done.packed()})
        return written, done

    def _left(self, marks: RunInstants, done: DoneChunks | None) -> Sequence[KeyChunk]:
        """The chunks that are to be written. A chunk of which records are gone is."""
        stored: Mapping[int, int] = {}
        if self.everything and len(self.chunks.all) > 1:
            stored = self.chunks.take_stored(self.store.scan(self.run.codec.record_prefix))
        before = {} if done is None else done.of(marks.instant)
        return [
            chunk
            for chunk in self.chunks.all
            if chunk.number not in before
            or (self.everything and stored.get(chunk.number, 0) < before[chunk.number].records)
        ]

    def _tell(self, marks: RunInstants, chunk: KeyChunk, gathering: Gathering) -> None:
        """Tell of the values of a chunk that is done."""
        view, codec, end = self.run.view, self.run.codec, chunk.first + chunk.keys
        slots = JudgedSlots(view, codec)

        def values(keys: Sequence[bytes]) -> dict[str, pa.Array]:
            _, columns = slots.judged(self.store.get(keys).values, marks.instant, marks.edition)
            of_features = zip(view.features, columns, strict=True)
            return {one.name: canonical(pa.array(column, one.type.arrow), one.type) for one, column in of_features}

        for first in range(chunk.first, end, EMBEDDED_BATCH_KEYS):
            keys = asked_keys(self.session, view, codec, first, min(end, first + EMBEDDED_BATCH_KEYS)).to_pylist()
            gathering.add(partial(values, keys), len(keys))

    def _write(self, marks: RunInstants, chunk: KeyChunk, gathering: Gathering | None) -> Written:
        run, vanished = self.run, set[bytes]()
        if self.everything:
            is_only = len(self.chunks.all) == 1
            vanished = existing(self.store, run.codec) if is_only else self.chunks.stored(chunk)
        slots = SlotWriter(run.view, run.codec, self.store, _Telling(self.lease), marks, self.everything)
        writing = RecordWriting(slots, self.session, vanished, self.tiling, gathering, max(1, chunk.keys))
        return writing.write(chunk.keys, first=chunk.first, advance=self.progress.advance)


@dataclass(frozen=True)
class _Telling:
    """Writes with a lease, which says with each batch how many keys are written then; those that vanished are more than were
    asked for."""

    lease: Lease

    def write(self, puts: Mapping[bytes, bytes | None]) -> None:
        """Write a batch and renew the lease, at once."""
        assert self.lease.progress is not None
        instant, written, of = self.lease.progress
        self.lease.progress = RunProgress(instant, written + len(puts), max(of, written + len(puts)))
        self.lease.write(puts)

"""A run chunk by chunk of its keys: each is asked for, written, read back, and noted as done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from featurestore.clock import to_datetime
from featurestore.lazy import pa
from featurestore.materialize.chunk_writer import ChunkWriter
from featurestore.materialize.done_chunks import DoneChunks, file_digest, noted
from featurestore.materialize.kernel import EMBEDDED_BATCH_KEYS, RunInstants, Written
from featurestore.materialize.key_chunks import KeyChunk, KeyChunks
from featurestore.materialize.lease import Lease, RunProgress
from featurestore.materialize.progress import Progress
from featurestore.materialize.records import asked_keys
from featurestore.materialize.run_plan import PlannedRun
from featurestore.materialize.stored_keys import StoredKeys
from featurestore.online import OnlineStore
from featurestore.online.judged_slots import JudgedSlots
from featurestore.registry.kept_statistics import Gathering
from featurestore.semantics.values import canonical
from featurestore.sources.session import Session


@dataclass(frozen=True)
class ChunkedRun:
    """Writes the records of a run, whose session reads its files. chunks: of the keys that were collected there. writer: by what each is
    written."""

    run: PlannedRun
    lease: Lease
    store: OnlineStore
    session: Session
    chunks: KeyChunks
    writer: ChunkWriter
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
        if done is not None and (done.run, done.keys, done.chunks) == (run.digest, keys, len(chunks)):
            return done
        files = tuple(map(file_digest, run.files))
        records: tuple[int, ...] = ()
        if not self.everything:
            counts = self._stored().counts()
            records = tuple(counts.get(chunk.number, 0) for chunk in chunks)
        fresh = DoneChunks(run.digest, run.started, run.instants, files, keys, len(chunks), records)
        self._note(fresh)
        return fresh

    def _drop(self) -> None:
        if self.run.noted is not None:
            self.lease.write({self.run.codec.chunks_key: None})

    def _note(self, done: DoneChunks) -> None:
        self.lease.write({self.run.codec.chunks_key: done.packed()})

    def _stored(self) -> StoredKeys:
        """The store keys of the records that there are, in the chunks of this run."""
        scan = self.store.scan(self.run.codec.record_prefix)
        return StoredKeys(self.session.connection, scan, chunks=len(self.chunks.all))

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
        stored = self._stored() if self.everything else None
        left = self._left(marks, done, stored)
        for chunk in chunks:
            if chunk not in left:
                assert done is not None
                before = done.of(marks.instant)[chunk.number]
                written = written.plus(before if self.everything else before._replace(records=0))
                if gathering is not None:
                    self._tell(marks, chunk, gathering)
                self.progress.advance(chunk.keys)
        self.lease.progress = RunProgress(marks.instant, written.keys, keys)
        done = self._without(marks, left, done)
        for chunk, of_chunk in self.writer.written(marks, left, stored, gathering):
            written = written.plus(of_chunk)
            if done is not None:
                self.session.check_unchanged()
                done = done.plus(marks.instant, chunk.number, of_chunk)
                self._note(done)
        return written, done

    def _left(self, marks: RunInstants, done: DoneChunks | None, stored: StoredKeys | None) -> Sequence[KeyChunk]:
        """The chunks that are to be written. A chunk of which records are gone is."""
        before = {} if done is None else done.of(marks.instant)
        counts = {} if stored is None or not before else stored.counts()
        return [
            chunk
            for chunk in self.chunks.all
            if chunk.number not in before
            or (stored is not None and counts.get(chunk.number, 0) < before[chunk.number].records)
        ]

    def _without(self, marks: RunInstants, left: Sequence[KeyChunk], done: DoneChunks | None) -> DoneChunks | None:
        """The same with nothing done of these chunks; noted before they are written again, since slots of later instants are
        overwritten then."""
        again = [] if done is None else [chunk for chunk in left if chunk.number in done.of(marks.instant)]
        for chunk in again:
            assert done is not None
            done = done.without(chunk.number)
        if again and done is not None:
            self._note(done)
        return done

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

"""Which chunks of a run are done: noted beside its records, so that the next run goes on where one that was killed ended.

The note lies in the online store, so it is lost with the records that it tells of. It holds what the run was to do: a run that is to do
anything else takes no notice of it, and it goes away before anything is written that it does not tell of. Files that came since are left
to the run after, as those are that come while a run goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from featurestore.declare.sources import FileSource
from featurestore.lazy import duckdb
from featurestore.materialize.kernel import Written
from featurestore.materialize.run_plan import PlannedRun
from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec
from featurestore.sources.offline import Offline
from featurestore.sources.source_files import SourceFile
from featurestore.training.manifest import library_versions

CHUNKS_FORMAT = 2


@dataclass(frozen=True)
class DoneChunks:
    """What is done of a run. run: what it was to do, as `run_digest` says it. started: when it began, µs, by the online store's clock: it
    reads no file that came later. instants: those that it computes, µs. files: which files it reads, as `file_digest` says each. keys, chunks: how many there are. records: how many each chunk has at least; nothing
    where every one is written. engine: the version by which keys are in chunks. done: by instant and number of the chunk what was written."""

    run: str
    started: int
    instants: tuple[int, ...]
    files: tuple[str, ...]
    keys: int
    chunks: int
    records: tuple[int, ...]
    engine: str = field(default_factory=lambda: duckdb.__version__)
    done: Mapping[int, Mapping[int, Written]] = field(default_factory=dict)

    def is_worth_it(self, complete: Sequence[int], due: Sequence[int]) -> bool:
        """Whether to go on with it though its instant is past: half of it is done, and runs of what is due are quicker after it.
        complete: the instants (µs) that are, newest first."""
        half = 2 * sum(map(len, self.done.values())) >= self.chunks * len(self.instants)
        return half and max(complete[:1], default=min(self.instants) - 1) < min(self.instants) < due[0]

    def among(self, files: Sequence[SourceFile]) -> tuple[SourceFile, ...]:
        """Of files those that it reads, as far as they are there as they were."""
        wanted = set(self.files)
        return tuple(file for file in files if file_digest(file) in wanted)

    def of(self, instant: int) -> Mapping[int, Written]:
        """What was written for an instant, by number of the chunk."""
        return self.done.get(instant, {})

    @property
    def can_be_counted(self) -> bool:
        """Whether it says how many records each chunk has, and this process has the same chunks."""
        return bool(self.records) and self.engine == duckdb.__version__

    def missing_records(self, stored: Mapping[int, int]) -> int:
        """How many records there are less than there were. stored: how many each chunk has."""
        return sum(max(0, least - stored.get(chunk, 0)) for chunk, least in enumerate(self.records))

    def plus(self, instant: int, chunk: int, written: Written) -> DoneChunks:
        """The same with one chunk more."""
        records = tuple(
            count + (written.records if number == chunk else 0) for number, count in enumerate(self.records)
        )
        return replace(self, records=records, done={**self.done, instant: {**self.of(instant), chunk: written}})

    def without(self, chunk: int) -> DoneChunks:
        """The same with one chunk less, of which nothing is done."""
        done = {
            instant: {number: written for number, written in chunks.items() if number != chunk}
            for instant, chunks in self.done.items()
        }
        return replace(self, done=done)

    def packed(self) -> bytes:
        """As bytes, of which `noted` makes it again."""
        done = [
            [instant, chunk, *written] for instant, chunks in self.done.items() for chunk, written in chunks.items()
        ]
        return orjson.dumps(
            {
                "format": CHUNKS_FORMAT,
                "run": self.run,
                "started": self.started,
                "instants": self.instants,
                "files": self.files,
                "keys": self.keys,
                "chunks": self.chunks,
                "records": self.records,
                "engine": self.engine,
                "done": done,
            }
        )


def read_note(store: OnlineStore, codec: ViewCodec) -> bytes | None:
    """The note of a view version. One that is damaged says nothing, and is deleted: in LMDB it would keep the lease beside it from being
    looked for."""
    (value,), damaged = read_past_damage(store, [codec.chunks_key])
    if damaged:
        store.write({codec.chunks_key: None})
    return value


def noted(value: bytes | None) -> DoneChunks | None:
    """What a note says; None where there is none, or one of a format that this version does not know."""
    said = {} if value is None else orjson.loads(value)
    if said.get("format") != CHUNKS_FORMAT:
        return None
    done: dict[int, dict[int, Written]] = {}
    for instant, chunk, *written in said["done"]:
        done.setdefault(instant, {})[chunk] = Written(*written)
    counts = (said["keys"], said["chunks"], tuple(said["records"]))
    return DoneChunks(
        said["run"], said["started"], tuple(said["instants"]), tuple(said["files"]), *counts, said["engine"], done
    )


def file_digest(file: SourceFile) -> str:
    """A file as it was found, in a few characters."""
    return hashlib.blake2b(orjson.dumps(list(file)), digest_size=8).hexdigest()


def run_digest(run: PlannedRun, offline: Offline) -> str:
    """All that decides which bytes a run writes, in a few. Empty where another process cannot know that: rows that lie in no file may be others."""
    source = run.view.source
    if not isinstance(source, FileSource):
        return ""
    forgotten = offline.forgotten()
    made_of = {
        "versions": library_versions(),
        "view": run.view.fingerprint,
        "marks": [list(marks) for marks in run.marks],
        "again": run.again,
        "complete": run.complete,
        "files": [list(file) for file in run.files],
        "arrived": offline.instants(source, run.files) if source.arrives else None,
        "forgotten": None if forgotten is None else [list(key) for key in forgotten.keys],
        "changes": run.changes and list(run.changes),
        "every_row": run.every_row,
    }
    return hashlib.blake2b(orjson.dumps(made_of), digest_size=16).hexdigest()

"""What a run is to do: decided once, by the holder of the lease, from what the online store and the files say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from featurestore.declare.sources import FileSource
from featurestore.materialize.kernel import Changes, RunInstants
from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.view import ResolvedView
from featurestore.sources.expected import UnmetRows
from featurestore.sources.source_files import SourceFile

STATE_FORMAT = 1


@dataclass(frozen=True)
class PlannedRun:
    """A run over some instants of a view, oldest first, all of which are switched to at once."""

    view: ResolvedView
    codec: ViewCodec
    instants: tuple[int, ...]
    again: bool
    """Whether they are complete, and are computed anew, in the next edition."""

    started: int
    """µs, by the online store's clock; of a run that is gone on with from the files that it read, when that began."""

    files: tuple[SourceFile, ...]
    """The files to read, and no others."""

    complete: tuple[int, ...]
    """The instants that were complete before, newest first."""

    edition: int
    """That of what is complete."""

    changes: Changes | None
    """Which keys are asked for; None: all."""

    every_row: bool
    """Whether every row is read, and no tile."""

    present: int | None
    """How many records there are before; None where all are written."""

    state: bytes | None
    """What the run before left."""

    unmet: UnmetRows = field(default_factory=dict)
    """How many rows of the source do not meet each expectation."""

    source_rows: int | None = None
    """How many rows the source has, where anything is expected of that."""

    digest: str = ""
    """Of all that decides which bytes are written; see `run_digest`."""

    noted: bytes | None = None
    """What a run that was to write the same, and was not completed, noted as done."""

    @property
    def marks(self) -> Iterator[RunInstants]:
        """Each instant with what its records keep of others."""
        edition = self.edition + self.again
        kept = [(instant, self.edition) for instant in (self.complete if self.again else self.complete[:1])]
        for instant in self.instants:
            yield RunInstants(instant, edition, tuple(kept))
            kept.insert(0, (instant, edition))

    @property
    def complete_after(self) -> tuple[int, ...]:
        """What is complete once it is done, newest first."""
        return self.complete if self.again else (*reversed(self.instants), *self.complete)


class ViewMarks(NamedTuple):
    """What the online store says of a view version at `now` (µs, by its clock): its watermark, and what the last run left. damaged: the keys
    of those that are not what was written, and are taken for gone."""

    now: int
    watermark: bytes | None
    state: bytes | None
    damaged: frozenset[bytes] = frozenset()


def read_marks(store: OnlineStore, codec: ViewCodec, *, full: bool) -> ViewMarks:
    """What there is of a view version. full: for a run that writes everything anew, whatever there was; for any other one what is damaged
    is OnlineDamagedError."""
    keys = [codec.watermark_key, codec.state_key]
    if not full:
        now, (watermark, state) = store.get(keys)
        return ViewMarks(now, watermark, state)
    now = store.get([]).now
    (watermark, state), damaged = read_past_damage(store, keys)
    return ViewMarks(now, watermark, state, damaged)


def state_of(plan: PlannedRun, keys: int, rows: int, records: int) -> bytes:
    """What a run leaves to the next one: the keys and rows of its last instant, what it read, and how many records there are."""
    told = [list(file) for file in plan.files]
    state = {"format": STATE_FORMAT, "keys": keys, "rows": rows, "files": told, "records": records}
    if is_unfinished(plan.state) and not plan.every_row:
        state["unfinished"] = True
    return orjson.dumps(state if plan.source_rows is None else {**state, "source_rows": plan.source_rows})


def source_rows_in(state: bytes | None) -> int | None:
    """How many rows the source had at the last run; None where nobody asked for it."""
    rows: int | None = None if state is None else orjson.loads(state).get("source_rows")
    return rows


def begun_state(state: bytes, *, full: bool) -> bytes:
    """The state while a run goes on: how many records there are is not known. full: whether it is over all keys; no other one completes
    what such a run has begun."""
    return orjson.dumps({**orjson.loads(state), "records": None, "unfinished": full or is_unfinished(state)})


def is_unfinished(state: bytes | None) -> bool:
    """Whether a run over all keys was begun, and no such run was completed since."""
    return state is not None and bool(orjson.loads(state).get("unfinished"))


def records_in(state: bytes | None) -> int | None:
    """How many records the last run left; None where that is not known."""
    records: int | None = None if state is None else orjson.loads(state).get("records")
    return records


def without_records(state: bytes | None, count: int) -> bytes | None:
    """The state once so many records are deleted; None where it says nothing of them."""
    records = records_in(state)
    if state is None or records is None:
        return None
    return orjson.dumps({**orjson.loads(state), "records": records - count})


def files_in(state: bytes) -> set[SourceFile]:
    """The files that the last run read."""
    return {SourceFile(*file) for file in orjson.loads(state)["files"]}


def new_files(view: ResolvedView, files: tuple[SourceFile, ...], state: bytes | None) -> tuple[int, ...] | None:
    """The numbers of the files that are new since the last complete run; None where all keys must be asked for."""
    if view.source.event_time is None or not isinstance(view.source, FileSource) or state is None:
        unchanged = state is not None and view.source.event_time is not None and files_in(state) == set(files)
        return () if unchanged else None
    before = files_in(state)
    if not before <= set(files):
        return None
    return tuple(number for number, file in enumerate(files) if file not in before)

"""A process that writes chunks of a run for its driver (`worker_processes`), which sends it their keys and gives it a run key.

It reads the files of the run, and no others, by the kernel of materialize, and writes straight into the online store. It ends when its driver
does, in the middle of a batch where it must.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from featurestore import arrow_ipc
from featurestore.errors import FeatureStoreError, MaterializeError
from featurestore.lazy import duckdb, pa
from featurestore.materialize.kernel import RecordWriting, RunInstants, SlotWriter, Written
from featurestore.materialize.lease import RunKey
from featurestore.materialize.stored_keys import StoredKeys
from featurestore.online import OnlineStore, open_online
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.view import ResolvedView
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import SourceFile
from featurestore.sources.sources import SourceFacts
from featurestore.tiles.file_tile_choice import ChosenTiles


class WorkerLimits(NamedTuple):
    """What a worker process may take, as `Offline` takes it. copies: the folder of copies of rows."""

    threads: int
    memory_limit: str
    spill: Path | None
    copies: Path


@dataclass(frozen=True)
class ChunkWork:
    """All that a worker process is told of a run, once. online: the URL of the store. everything: whether every record is written.
    facts: what the driver found of the view's source. tells: whether it is to send the values that it writes."""

    view: ResolvedView
    project: str
    online: str
    everything: bool
    files: tuple[SourceFile, ...]
    facts: SourceFacts
    forgotten: ForgottenKeys | None
    tiles: ChosenTiles | None
    tells: bool
    limits: WorkerLimits

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that reads the files of the run."""
        threads, memory_limit, spill, copies = self.limits
        instances = Instances(memory_limit=memory_limit, threads=threads, spill=spill)
        offline, source = Offline(Path(), instances=instances), self.view.source
        offline.forgotten, offline.facts, offline.copies_folder = (
            lambda: self.forgotten,
            {source.name: self.facts},
            copies,
        )
        with closing(offline), offline.session(files=offline.listing(source, self.files)) as session:
            yield session

    def packed(self) -> bytes:
        """It as it is sent. UnsendableError where something of it is nowhere but in this process: a class or a function of the program's own
        file, of a notebook, or within a function."""
        sink = io.BytesIO()
        try:
            _Packer(sink).dump(self)
        except Exception as error:  # what is raised of what cannot be written is of many kinds, by version of Python
            raise UnsendableError(str(error)) from error
        return sink.getvalue()


class UnsendableError(MaterializeError):
    """What is to be done cannot be told to another process."""


class _Packer(ForkingPickler):
    """Writes what another process can read, of classes and functions only those of modules that it can import."""

    def reducer_override(self, made: object) -> Any:
        """See `pickle.Pickler`."""
        if isinstance(made, (type, FunctionType)) and not _is_importable(made.__module__):
            raise UnsendableError(f"`{made.__qualname__}` of module '{made.__module__}' is in this process alone")
        return NotImplemented


def _is_importable(module: str) -> bool:
    """Whether a module can be found by a process that has not imported it, but has the same search path."""
    top = module.partition(".")[0]
    return top != "__main__" and any(finder.find_spec(top, None) is not None for finder in sys.meta_path)


class ChunkOrder(NamedTuple):
    """A chunk to write: its keys, as `asked` has them, and the store keys that have records in it, where every record is written; both
    as `arrow_ipc` writes them. key: by which it may write."""

    marks: RunInstants
    key: RunKey
    asked: bytes
    stored: bytes | None


class WorkerReady(NamedTuple):
    """A worker's first word: it can take an order."""


class Advanced(NamedTuple):
    """A worker's word: so many keys more are written."""

    keys: int


class Values(NamedTuple):
    """A worker's word: the values of so many rows that it writes, a table by the names of features as `arrow_ipc` writes it, or why it has none."""

    rows: int
    columns: bytes | Exception


class Failed(NamedTuple):
    """A worker's last word: the chunk is not written."""

    error: BaseException


Word = WorkerReady | Advanced | Values | Failed | Written
"""What a worker says; `Written` of a chunk that is done."""


def work(connection: Connection) -> None:
    """Take a `ChunkWork`, then orders, one after the other, until None comes or the driver is gone."""
    driver = _Driver(connection)
    try:
        asked: ChunkWork = driver.told()
        with closing(open_online(asked.online)) as store, asked.session() as session:
            worker = _ChunkWorker(asked, store, session, driver.say)
            driver.say(WorkerReady())
            while (order := driver.told()) is not None:
                driver.say(worker.written(order))
    except Exception as error:  # noqa: BLE001 - the driver raises it
        driver.say(Failed(_sendable(error)))


@dataclass(frozen=True)
class _Driver:
    """The driver, by the connection with it. Where it is gone, so is this process: at once, since nobody wants what it does."""

    connection: Connection

    def told(self) -> Any:
        """What it says next."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            os._exit(1)

    def say(self, word: Word) -> None:
        """Tell it a word; this waits until it takes it."""
        try:
            self.connection.send(word)
        except OSError:
            os._exit(1)


def _sendable(error: Exception) -> Exception:
    """An error as the driver can raise it: of ours, of the engine or of Python's own; else what it says, as one of ours. With where it was
    raised, where it is none of ours."""
    if isinstance(error, (FeatureStoreError, duckdb.Error)):
        return error
    is_known = type(error).__module__ == "builtins"
    told = error if is_known else MaterializeError(f"{type(error).__name__}: {error}")
    told.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    return told


@dataclass(frozen=True)
class _ChunkWorker:
    asked: ChunkWork
    store: OnlineStore
    session: Session
    say: Callable[[Word], object]

    def written(self, order: ChunkOrder) -> Written:
        """Write a chunk."""
        asked, connection = self.asked, self.session.connection
        keys = arrow_ipc.from_bytes(order.asked)
        connection.register("given_keys", keys)
        connection.execute("CREATE OR REPLACE TEMP TABLE asked AS FROM given_keys")
        connection.unregister("given_keys")
        stored = None
        if order.stored is not None:
            stored = StoredKeys(connection, [arrow_ipc.from_bytes(order.stored)["key"].to_pylist()])
        codec = ViewCodec(asked.project, asked.view, tagged=self.store.tagged)
        slots = SlotWriter(asked.view, codec, self.store, order.key.writer(self.store), order.marks, asked.everything)
        tiling = None if asked.tiles is None else asked.tiles.tiling(self.session)
        taker = _SentValues(self.say) if asked.tells else None
        writing = RecordWriting(slots, self.session, stored, tiling, taker, max(1, keys.num_rows))
        return writing.write(keys.num_rows, advance=lambda count: self.say(Advanced(count)))


@dataclass(frozen=True)
class _SentValues:
    """Sends values to the driver, which gathers what they are like: a `ValueTaker`."""

    say: Callable[[Word], object]

    def add(
        self, columns: Mapping[str, pa.Array | pa.ChunkedArray] | Callable[[], Mapping[str, pa.Array]], rows: int
    ) -> None:
        """See `ValueTaker`."""
        sent: bytes | Exception
        try:
            sent = arrow_ipc.to_bytes(pa.table(dict(columns() if callable(columns) else columns)))
        except Exception as error:  # noqa: BLE001 - as in `Gathering`: what is written is more important
            sent = MaterializeError(f"{type(error).__name__}: {error}")
        self.say(Values(rows, sent))

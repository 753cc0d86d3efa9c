"""The embedded online store: LMDB, crash-safe, for the threads and processes of one machine.

A directory holds one environment with two databases: `keys` has the keys that LMDB can take as they are, and
`long` the others (empty, or above 511 bytes) under their first bytes and a digest, with the whole key before the
value, so that prefixes still lie together and nothing depends on digests being distinct by luck.

LMDB has no checksums of its own pages. Every value has one, which covers its key; and before a key is said to be absent, its
two neighbours are looked at, where it would lie if a bit of it had changed. When a process first finds a key absent, it walks over all
keys, up to a million, which must be in order and as many as LMDB has counted: a page that hides some is found so.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from itertools import islice, takewhile
from operator import lt
from pathlib import Path
from typing import Any, ClassVar, TypeAlias
from urllib.parse import unquote
from weakref import WeakValueDictionary

import lmdb

from featurestore.bound import BoundToProcess
from featurestore.clock import Clock, reader
from featurestore.config import lmdb_url
from featurestore.durable.disk import told, unwritable
from featurestore.durable.lock import LOCK_WAIT_SECONDS, BusyError, exclusive
from featurestore.durable.own_folder import own_folder
from featurestore.errors import (
    ConfigError,
    FeatureStoreError,
    OnlineDamagedError,
    OnlineStoreError,
    OnlineUnavailableError,
)
from featurestore.online.contract import Guard, Reading
from featurestore.online.url import Parser, byte_count, parse_options, seconds
from featurestore.online.value_checksums import PutBatch, is_sound, opened, opened_one, sealed
from featurestore.plurals import plural

MAP_BYTES = 256 * 1024**3
"""Bytes of address space by default, not of disk: the file grows with what is in it."""

MAX_READERS = 1024  # read transactions at one time, over all processes
MAX_KEY_BYTES = 511  # bytes; LMDB's own limit
DIGEST_BYTES = 32
STEM = MAX_KEY_BYTES - DIGEST_BYTES
SCAN_KEYS = 1000  # keys that a scan reads in one transaction
COUNTED_KEYS = 1_000_000  # keys that are counted before one is said to be absent, which takes up to half a second once
FORK_WAIT_SECONDS = 5.0  # seconds that a fork waits for transactions to end

_Key = tuple[int, int]
_Transaction: TypeAlias = "lmdb.Transaction[bytes]"  # subscriptable in its stub only


class _Environment:
    """The LMDB environment of one directory in this process, shared by all handles on that directory.

    LMDB must not be opened twice in a process, and an environment must not be used across a fork: a child that
    ends a transaction which its parent had open would free the parent's reader slot. So a fork waits until no
    transaction runs (`running` counts them), and the child closes what it inherited and opens its own on first use.
    """

    def __init__(self, path: Path, map_size: int, lock_timeout: float) -> None:
        self.path = path
        self.where = f"The online store in {path}"
        """The store's name in messages."""
        self.map_size = map_size
        self.lock_timeout = lock_timeout
        self.running: list[None] = []  # a list, because its append and pop are atomic and quicker than a lock
        self.env: lmdb.Environment | None = None  # None during a fork and, after it, in the child
        self._parked: lmdb.Environment | None = None
        self._gate = threading.Lock()
        self.keys: Any = None
        self.long: Any = None
        self.counted = False  # whether this process has seen that no key is hidden
        self._open()

    def _open(self) -> lmdb.Environment:
        # Where it cannot be written nobody writes, and readers need no lock, which could not be written either.
        closed = unwritable(self.path)
        words: dict[str, Any] = {"readonly": True, "lock": False} if closed else {}
        try:
            env = lmdb.open(str(self.path), map_size=self.map_size, max_dbs=2, max_readers=MAX_READERS, **words)
            if closed:
                self.keys, self.long = (env.open_db(name, create=False) for name in (b"keys.v1", b"long.v1"))
            else:
                env.reader_check()
                with self.writing():  # which it is where they are missing, and takes LMDB's lock in any case
                    self.keys, self.long = env.open_db(b"keys.v1"), env.open_db(b"long.v1")
        except (lmdb.Error, OSError) as error:
            raise self.error(error) from error
        self.env = env
        return env

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone among all writers. LMDB would wait for ever for one that was stopped; this names it."""
        if unwritable(self.path):
            raise self.error(OSError(errno.EROFS, os.strerror(errno.EROFS)))
        with ExitStack() as stack:
            doing, wait_seconds = "writing to the online store", self.lock_timeout
            try:
                stack.enter_context(exclusive(self.path / "writer", doing=doing, wait_seconds=wait_seconds))
            except BusyError as error:
                raise OnlineUnavailableError(f"The online store in {self.path} is busy: {error}.") from None
            except OSError as error:
                raise self.error(error) from error
            yield

    def resume(self) -> lmdb.Environment:
        """For a caller that is counted in `running` and found no `env`: wait for the fork to end, then open."""
        self.running.pop()
        with self._gate:
            self.running.append(None)
            return self.env or self._open()

    @contextmanager
    def entered(self) -> Iterator[lmdb.Environment]:
        """The environment, counted as running, with LMDB's errors put into words."""
        self.running.append(None)
        try:
            yield self.env or self.resume()
        except lmdb.Error as error:
            raise self.error(error) from error
        finally:
            self.running.pop()

    def error(self, error: Exception) -> FeatureStoreError:
        """What an error of LMDB or the file system means for this directory."""
        where = self.where
        code = _code(error)
        larger = f"{lmdb_url(self.path)}?map_size={max(2, 2 * self.map_size >> 30)}GiB"
        if isinstance(error, lmdb.MapFullError):
            return OnlineStoreError(
                f"{where} is full: its map_size is {self.map_size} {plural(self.map_size, 'byte')}. Open it with a larger one everywhere, "
                f"such as {larger}; the data stay."
            )
        if isinstance(error, lmdb.MapResizedError):
            return OnlineStoreError(
                f"{where} has outgrown the map_size of {self.map_size} {plural(self.map_size, 'byte')} with which this process opened it. "
                "Open it with the same map_size everywhere, at least the largest."
            )
        if isinstance(error, lmdb.ReadersFullError):
            return OnlineUnavailableError(f"{where} has {MAX_READERS} readers already. Try again, or use fewer.")
        if code in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:  # EIO is how LMDB calls a short write
            return OnlineStoreError(
                f"{where} cannot be written: the disk, a quota or a file size limit is full, or the disk is failing "
                f"({error}). Nothing of the batch was written; make room and write again."
            )
        if unwritable(self.path):
            return OnlineStoreError(f"{where} cannot be written: read-only file system ({self.path}); lookups go on.")
        if code == errno.ENOMEM:
            return OnlineStoreError(
                f"{where} cannot have {self.map_size} {plural(self.map_size, 'byte')} of address space ({error}). Lift the process's limit, "
                f"or open it with a smaller map_size, such as {lmdb_url(self.path)}?map_size=1GiB."
            )
        return OnlineStoreError(f"{where} failed: {error}.")

    def before_fork(self) -> None:
        """Hold new transactions back and wait for those that run."""
        self._gate.acquire()
        self._parked, self.env = self.env, None
        deadline = time.monotonic() + FORK_WAIT_SECONDS
        while self.running and time.monotonic() < deadline:
            time.sleep(0.0002)

    def after_fork(self, *, child: bool) -> None:
        """Go on in the parent; in the child, give up what was inherited."""
        inherited, self._parked = self._parked, None
        if not child:
            self.env = inherited
        else:
            self.running.clear()  # the threads that were counted stayed behind
            if inherited is not None:
                inherited.close()
        self._gate.release()


_ENVIRONMENTS: WeakValueDictionary[_Key, _Environment] = WeakValueDictionary()
_ENVIRONMENTS_LOCK = threading.Lock()
_FORKING: list[_Environment] = []


def _environment(path: Path, map_size: int | None, lock_timeout: float) -> _Environment:
    """This process's environment for a directory, which is made where it is missing."""
    try:
        own_folder(path)
        status = path.stat()
    except OSError as error:
        raise OnlineStoreError(
            f"The online store's directory {path} cannot be made or read: {told(error, path)}."
        ) from error
    with _ENVIRONMENTS_LOCK:
        key = (status.st_dev, status.st_ino)  # not the path, which may lead here through a link
        environment = _ENVIRONMENTS.get(key)
        if environment is None:
            environment = _ENVIRONMENTS[key] = _Environment(path, map_size or MAP_BYTES, lock_timeout)
    if map_size not in {None, environment.map_size}:
        raise ConfigError(
            f"The online store in {path} is open in this process with map_size={environment.map_size}; "
            f"map_size={map_size} can only be had after closing it."
        )
    return environment


def _before_fork() -> None:
    _ENVIRONMENTS_LOCK.acquire()
    _FORKING.extend(_ENVIRONMENTS.values())
    for environment in _FORKING:
        environment.before_fork()


def _after_fork(*, child: bool) -> None:
    for environment in _FORKING:
        environment.after_fork(child=child)
    _FORKING.clear()
    _ENVIRONMENTS_LOCK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(child=False),
        after_in_child=lambda: _after_fork(child=True),
    )


SYSTEM = {os.strerror(code): code for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOMEM)}


def _code(error: Exception) -> int | None:
    """The number of an error; before version 2 LMDB's binding tells those of the system by their text alone."""
    code: int | None = getattr(error, "code", None) or getattr(error, "errno", None)
    return code or SYSTEM.get(str(error).rpartition(": ")[2])


class LmdbStore(BoundToProcess):
    """The online store in a directory: `lmdb:///absolute/path` or `lmdb://relative/path`, `?map_size=64GiB`.

    A write is on the disk (fsync) when it returns. The clock is this machine's unless one is injected.
    """

    blocking: ClassVar[bool] = False
    tagged: ClassVar[bool] = False
    OPTIONS: ClassVar[dict[str, Parser]] = {"map_size": byte_count, "lock_timeout": seconds}

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        place, _, query = url.removeprefix("lmdb://").partition("?")
        options = parse_options(query, self.OPTIONS, scheme="lmdb")
        if not place:
            raise ConfigError("An lmdb:// URL names a directory, such as lmdb://data/online.")
        self._path = Path(unquote(place)).absolute()
        self._now = reader(clock)
        self._written: PutBatch | None = None
        self._environment: _Environment | None = _environment(
            self._path, options.get("map_size"), options.get("lock_timeout", LOCK_WAIT_SECONDS)
        )

    def __repr__(self) -> str:
        return f"LmdbStore('lmdb://{self._path}')"

    def get(self, keys: Sequence[bytes]) -> Reading:
        """The clock, then the values of `keys` in one snapshot; see the contract."""
        now = self._now()
        environment = self._environment or self._refuse()
        written, self._written = self._written, None
        environment.running.append(None)  # `entered`, written out: this is the path that must be quick
        try:
            env = environment.env or environment.resume()
            with env.begin(environment.keys) as txn:
                if written is not None and written.is_stored(keys, lambda _, part: list(map(txn.get, part))):
                    return Reading(now, written.values)
                try:
                    values = list(map(txn.get, keys))
                except lmdb.BadValsizeError:  # an empty key is among them
                    values = [_read(environment, txn, key) for key in keys]
                if None in values:
                    for index, key in enumerate(keys):
                        if len(key) > MAX_KEY_BYTES:  # LMDB finds nothing under a key that is too long for it
                            values[index] = _read(environment, txn, key)
                    absent = [key for key, value in zip(keys, values, strict=True) if value is None]
                    if absent:
                        _check_absent(environment, txn, absent)
        except lmdb.Error as error:
            raise environment.error(error) from error
        finally:
            environment.running.pop()
        return Reading(now, opened(keys, values, where=environment.where))

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        """Write the batch in one transaction, synced to disk, where the guard holds; see the contract."""
        environment = self._environment or self._refuse()
        keys = sorted(puts)  # neighbours share pages, which a batch then touches once
        with environment.entered():
            pass  # a child opens its own, which takes the lock, too
        with environment.writing(), environment.entered() as env:
            env.reader_check()  # what killed readers had in view would never be reused
            with env.begin(environment.keys, write=True) as txn:
                if guard is not None:
                    held = opened_one(guard.key, _read(environment, txn, guard.key), where=environment.where)
                    if held != guard.value:
                        return False
                    if guard.key in puts:  # apart from the batch, which is read back without it
                        keys.remove(guard.key)
                        _put(environment, txn, guard.key, puts[guard.key])
                written = _put_all(environment, txn, keys, [puts[key] for key in keys])
        self._written = written
        return True

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        """Keys that begin with `prefix`, a thousand at a time, each batch from its own snapshot."""
        environment = self._environment or self._refuse()
        return _scan(environment, prefix)

    def close(self) -> None:
        """Let go of the directory; its files are closed when the last handle in the process is."""
        self._environment = None

    def _refuse(self) -> _Environment:
        raise OnlineStoreError(f"The online store in {self._path} was closed.")


def _is_plain(key: bytes) -> bool:
    return 0 < len(key) <= MAX_KEY_BYTES


def _long_key(key: bytes) -> bytes:
    return key[:STEM] + blake2b(key, digest_size=DIGEST_BYTES).digest()


def _split_long(stored: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(stored[:4], "big")
    return stored[4:end], stored[end:]


def _read(environment: _Environment, txn: _Transaction, key: bytes) -> bytes | None:
    if _is_plain(key):
        return txn.get(key, db=environment.keys)
    stored = txn.get(_long_key(key), db=environment.long)
    if stored is None:
        return None
    found, value = _split_long(stored)
    if found != key:
        raise OnlineDamagedError(environment.where, [key])
    return value


def _check_absent(environment: _Environment, txn: _Transaction, keys: Sequence[bytes]) -> None:
    """Look at the neighbours of keys that were not found; OnlineDamagedError where one of them is not what was written, or
    they lie in another order: it may be the key itself, or hide it."""
    if not environment.counted:
        if not all(_has_all(txn, database) for database in (environment.keys, environment.long)):
            raise OnlineDamagedError(environment.where, keys)
        environment.counted = True
    cursors: dict[bool, Any] = {}
    for key in keys:
        long = not _is_plain(key)
        place = _long_key(key) if long else key
        cursor = cursors.get(long)
        if cursor is None:
            cursor = cursors[long] = txn.cursor(environment.long if long else environment.keys)
        if cursor.set_range(place):
            after, stored = cursor.item()
            sound = after > place and _is_sound(after, stored, long=long)
            there = sound and cursor.prev()
        else:
            sound, there = True, cursor.last()
        if there:
            before, stored = cursor.item()
            sound = before < place and _is_sound(before, stored, long=long)
        if not sound:
            raise OnlineDamagedError(environment.where, [key])


def _has_all(txn: _Transaction, database: Any) -> bool:
    """Whether all keys of a database can be reached, in their order, as far as there are not too many to look."""
    entries = txn.stat(database)["entries"]
    if entries > COUNTED_KEYS:
        return True
    count, last, found = 0, b"", txn.cursor(database).iternext(values=False)
    while part := list(islice(found, SCAN_KEYS)):
        if part[0] <= last or not all(map(lt, part, part[1:])):
            return False
        count, last = count + len(part), part[-1]
    return count == entries


def _is_sound(place: bytes, stored: bytes, *, long: bool) -> bool:
    """Whether what lies at a place of the database belongs there as it is."""
    if not long:
        return is_sound(place, stored)
    key, value = _split_long(stored)
    return is_sound(key, value) and _long_key(key) == place


def _put_all(environment: _Environment, txn: _Transaction, keys: list[bytes], values: list[Any]) -> PutBatch | None:
    """Put and delete a batch, whose keys are sorted; how it was stored, where all was put."""
    if None not in values and all(0 < size <= MAX_KEY_BYTES for size in {*map(len, keys)}):
        cursor = txn.cursor(environment.keys)
        return PutBatch.of(keys, values, lambda part, stored: cursor.putmulti(zip(part, stored, strict=True)))
    for key, value in zip(keys, values, strict=True):
        _put(environment, txn, key, value)
    return None


def _put(environment: _Environment, txn: _Transaction, key: bytes, value: bytes | None) -> None:
    """Put a value, or delete the key."""
    if _is_plain(key):
        if value is None:
            txn.delete(key, db=environment.keys)
        else:
            txn.put(key, sealed(key, value), db=environment.keys)
    elif value is None:
        txn.delete(_long_key(key), db=environment.long)
    else:
        stored = len(key).to_bytes(4, "big") + key + sealed(key, value)
        txn.put(_long_key(key), stored, db=environment.long)


def _scan(environment: _Environment, prefix: bytes) -> Iterator[list[bytes]]:
    if len(prefix) <= MAX_KEY_BYTES:
        for page in _pages(environment, prefix, long=False):
            yield [key for key, _ in page]
    for page in _pages(environment, prefix[:STEM], long=True):
        found = [key for key, _ in (_split_long(stored) for _, stored in page) if key.startswith(prefix)]
        if found:
            yield found


def _pages(environment: _Environment, stem: bytes, *, long: bool) -> Iterator[list[tuple[bytes, bytes]]]:
    """Stored keys that begin with `stem`, with their values where `long`; no transaction outlives a page."""
    last = b""
    while True:
        with environment.entered() as env, env.begin() as txn:
            cursor = txn.cursor(environment.long if long else environment.keys)
            start = last or stem
            there = cursor.set_range(start) if start else cursor.first()
            if there and last and cursor.key() == last:
                there = cursor.next()
            page: list[tuple[bytes, bytes]] = []
            if there:
                items = cursor.iternext() if long else ((key, b"") for key in cursor.iternext(values=False))
                page = list(islice(takewhile(lambda item: item[0].startswith(stem), items), SCAN_KEYS))
        if page:
            yield page
        if len(page) < SCAN_KEYS:
            return
        last = page[-1][0]

"""The one place where SQLite files are opened: whose each is, who wrote it, whether it still is what
was written, and what becomes of what a dead writer left.

A writer that is killed leaves a journal, or a log of what it wrote ahead, beside the file. Only somebody who may write can
put that right, so a reader opens the file for reading and writing, and SQLite heals it on the way. Where the disk is
read-only, and that is needed, a copy is healed and read. Where there is no room either for what SQLite makes beside a file,
one that has nothing beside it is read as a file that nobody changes.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from featurestore.durable.disk import told, unwritable
from featurestore.durable.own_folder import own_folder
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import RegistryError, RegistryUnavailableError

LARGE_BYTES = 1 << 20
"""Bytes up to which a file's tables and indexes are looked through whenever it has changed, which takes up to 6 ms; larger ones once a
process."""

_Identity = tuple[int, int, int]
_LOOKED_AT: dict[str, _Identity] = {}

BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PROTOCOL}
"""What SQLite says while others hold the file. It mostly waits by itself, but not for one who heals it or sets it up."""

READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
"""What it says to a reader where the file system lets it heal nothing, or make nothing beside the file."""

NO_ROOM = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
"""What it says where the disk is full."""

RETRY_SECONDS = 0.01
"""Seconds between two attempts."""

BESIDE = ("-wal", "-journal")
"""What belongs to a file's content besides itself."""


class SQLiteConnection(sqlite3.Connection):
    """A transaction on a file."""

    def schema(self) -> int:
        """The version of the tables that the file has."""
        return int(self.execute("PRAGMA user_version").fetchone()[0])

    def tables(self) -> set[str]:
        """The names of the tables that are there."""
        return {name for (name,) in self.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def last_number(self, table: str) -> int:
        """The last number that AUTOINCREMENT gave; 0 before the first."""
        if "sqlite_sequence" not in self.tables():
            return 0
        found = self.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return 0 if found is None else int(found[0])


@dataclass(frozen=True)
class SQLiteFile:
    """An SQLite file. what: its noun in messages. application, schema: the marks that this version gives it. timeout: how
    long (s) others are waited for. ahead: it is written ahead (WAL), so that readers and the writer do not wait.
    project: whose it is; one that another project began is refused. None: of nobody who is told apart.

    A connection lives as long as one `with`. Everything wrong is a RegistryError that names the file.
    """

    path: Path
    what: str
    application: int
    schema: int
    timeout: float
    ahead: bool = False
    project: str | None = None

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def close(self) -> None:
        """Nothing is held between two transactions."""

    @contextmanager
    def reading(self) -> Iterator[SQLiteConnection | None]:
        """A connection within a transaction; None where there is no file, or nothing was ever written. Creates nothing."""
        with self._failing(), ExitStack() as stack:
            if not self.path.exists():
                yield None
                return
            try:
                connection = self._begun(self.path, "BEGIN")
            except sqlite3.OperationalError as error:
                if _code(error) in READ_ONLY:
                    connection = self._begun(stack.enter_context(self._copy(error)), "BEGIN")
                elif _code(error) in NO_ROOM and not any(self._beside()):
                    connection = self._begun(self.path, "BEGIN", mode="ro&immutable=1")
                else:
                    raise
            stack.enter_context(closing(connection))
            yield connection if self._is_set_up(connection) else None

    def copy_to(self, copy: Path) -> bool:
        """Write the file as it is by now to where there is none, by SQLite's own way, beside its writers; False where
        there is no file, or nothing was ever written."""
        with self.reading() as connection:
            if connection is None:
                return False
            with closing(sqlite3.connect(copy)) as made:
                connection.backup(made)
            return True

    @contextmanager
    def writing(self) -> Iterator[tuple[SQLiteConnection, bool]]:
        """One transaction that excludes every other writer from its beginning, and whether the file has tables; where an
        error comes before its end, nothing of it is kept. Code that makes tables calls `mark`."""
        with self._failing():
            self._make_folder()
            if unwritable(self.path if self.path.exists() else self.path.parent):
                raise RegistryError(f"The {self.what} {self.path} cannot be written: read-only file system")
            self._make_file()
            if self.ahead:
                self._write_ahead()
            with closing(self._begun(self.path, "BEGIN IMMEDIATE", mode="rwc")) as connection:
                yield connection, self._is_set_up(connection)
                connection.execute("COMMIT")  # where an error comes before, closing rolls back

    def mark(self, connection: SQLiteConnection) -> None:
        """Say in the file whose it is, and that its tables are this version's."""
        connection.execute(f"PRAGMA application_id = {self.application}")
        connection.execute(f"PRAGMA user_version = {self.schema}")

    def _check_owner(self, connection: SQLiteConnection) -> None:
        """RegistryError where the file is another project's, as its table `owner` says."""
        owner = connection.execute("SELECT project FROM owner").fetchone() if "owner" in connection.tables() else None
        if owner is not None and None not in {owner[0], self.project} and owner[0] != self.project:
            raise RegistryError(
                f"{self.path} is the {self.what} of project '{owner[0]}', and this is project '{self.project}'; give each "
                "project a registry of its own (featurestore.toml, registry)"
            )

    def _begun(self, path: Path, begin: str, *, mode: str = "rw") -> SQLiteConnection:
        """A connection whose transaction has begun, and which sees the file as it is whole."""
        deadline = time.monotonic() + self.timeout
        while True:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}", timeout=self.timeout, isolation_level=None, uri=True,
                factory=SQLiteConnection,
            )  # fmt: skip
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute(begin)
                connection.execute("PRAGMA user_version").fetchone()  # the transaction begins with the first look
            except sqlite3.Error as error:
                connection.close()
                if _code(error) not in BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                return connection

    def _write_ahead(self) -> None:
        """Switch a new file to WAL. SQLite does not wait for others that do the same, so this does."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                with closing(self._begun(self.path, "BEGIN", mode="rwc")) as connection:
                    is_new = not self._is_set_up(connection)
                    connection.execute("COMMIT")
                    if is_new:
                        connection.execute("PRAGMA journal_mode = WAL")
                    return
            except sqlite3.OperationalError as error:
                if _code(error) not in BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    @contextmanager
    def _copy(self, refused: sqlite3.OperationalError) -> Iterator[Path]:
        """A copy of the file, with what a writer left beside it, where it may be healed."""
        with ExitStack() as stack:
            try:
                folder = TemporaryFolder()
                stack.callback(folder.remove)
                copy = self._copied(folder.path / "copy.db")
            except OSError:
                raise refused from None
            yield copy

    def _copied(self, copy: Path) -> Path:
        """The copy, of one state of the file; TimeoutError where it changes all the time."""
        deadline = time.monotonic() + self.timeout
        while time.monotonic() <= deadline:
            before = self._stamps()
            for end in ("", *BESIDE):
                Path(f"{copy}{end}").unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    shutil.copyfile(f"{self.path}{end}", f"{copy}{end}")
            if before == self._stamps():
                return copy
        raise TimeoutError

    def _stamps(self) -> dict[str, tuple[int, int, int]]:
        """What changes when somebody else, of another machine perhaps, writes the file."""
        found = {}
        for end in ("", *BESIDE):
            with suppress(FileNotFoundError):
                stat = Path(f"{self.path}{end}").stat()
                found[end] = stat.st_ino, stat.st_size, stat.st_mtime_ns
        return found

    def _beside(self) -> list[int]:
        """How many bytes lie in what belongs to the file's content besides itself."""
        return [stat[1] for end, stat in self._stamps().items() if end]

    def _is_set_up(self, connection: SQLiteConnection) -> bool:
        """Whether the tables are there; asked within a transaction, since another process may be making them."""
        found = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.schema()
        if found == 0 and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return False
        if found != self.application:
            raise RegistryError(f"{self.path} is an SQLite file of something else, no {self.what}")
        if version < 1:
            raise RegistryError(f"{self.path} is damaged: it says that no version wrote it; restore it from a copy")
        if version > self.schema:
            raise RegistryError(
                f"{self.path} was written by a newer version of featurestore (schema {version}; this one reads "
                f"{self.schema}); upgrade it here"
            )
        self._look_through(connection)
        self._check_owner(connection)
        return True

    def _look_through(self, connection: SQLiteConnection) -> None:
        """RegistryError where tables and indexes contradict each other, or lie in another order than they must."""
        there = self.path.stat()
        changing = there.st_size <= LARGE_BYTES
        identity = there.st_ino, there.st_size if changing else 0, there.st_mtime_ns if changing else 0
        if _LOOKED_AT.get(str(self.path)) == identity:
            return
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise RegistryError(
                f"The {self.what} {self.path} is damaged: {' '.join(found.split())}; restore it from a copy"
            )
        _LOOKED_AT[str(self.path)] = identity

    def _make_folder(self) -> None:
        try:
            own_folder(self.path.parent)
        except OSError as error:
            raise RegistryError(f"The {self.what} {self.path} cannot be used: {told(error)}") from error

    def _make_file(self) -> None:
        """An empty file that its owner alone may read, where there is none; SQLite gives the files beside it the same rights.
        It is not opened under its name: closing it would take this process's locks of it."""
        if self.path.exists():
            return
        with suppress(OSError):  # on a file system without links, say; SQLite makes it, or says what is wrong
            descriptor, made = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            os.close(descriptor)
            try:
                os.link(made, self.path)
            finally:
                Path(made).unlink()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeError) as error:  # the second for a damaged name, and for a text that is none
            kind = RegistryUnavailableError if _code(error) in BUSY else RegistryError
            raise kind(f"The {self.what} {self.path} cannot be used: {self._said(error)}") from error

    def _said(self, error: sqlite3.Error | UnicodeError) -> str:
        if _code(error) in BUSY:
            return f"other processes have been writing to it for {self.timeout:g} s; try again"
        if _code(error) in NO_ROOM:
            return f"{error}: the disk is full, or failing"
        return str(error)


def _code(error: Exception) -> int:
    """What went wrong, as SQLite numbers it; 0 where Python's module itself refused."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF

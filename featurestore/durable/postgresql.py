"""The tables of one project in PostgreSQL, which processes of several machines use at once: a schema, `featurestore_<project>`.

Writers take turns by an advisory lock that ends with their transaction, also where they die; readers see one state and wait
for nobody. A connection that broke while nothing was under way is replaced without a word. One that breaks within a
transaction is an error: of what was being written nothing is kept, unless the server was just confirming it.

SQL comes as SQLite has it. What differs is put in its place here: the mark of a value, and words of `CREATE`.
"""

from __future__ import annotations

import os
import re
import socket
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from featurestore.durable.forks import mutex, renewed_in_child
from featurestore.errors import (
    ConfigError,
    FeatureStoreError,
    MissingPackageError,
    RegistryError,
    RegistryUnavailableError,
)

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:  # pragma: no cover - the extra is not installed
    raise MissingPackageError(f"PostgreSQL needs {error.name}: pip install 'featurestore[postgresql]'") from error

CONNECTIONS = 4
"""Connections that are kept between two transactions at most."""

AGAIN_SECONDS = 5.0
"""Seconds for which a server that answered, and does not now, is tried again: it is being restarted, or another takes its place. A call that
comes later is told at once."""

RETRY_SECONDS = 0.1
"""Seconds between two attempts."""

IDLE_MS = 20_000
"""ms for which a transaction may do nothing: that of a machine that is gone would keep every writer waiting."""

SETTINGS = {
    "connect_timeout": 5, "tcp_user_timeout": 10_000, "keepalives_idle": 30, "keepalives_interval": 5,
    "keepalives_count": 3, "application_name": "featurestore",
}  # fmt: skip
"""What libpq is told where the URL says nothing else, so that a network that is cut is noticed; s, ms for the second."""

LONGEST_BYTES = 63
"""Bytes of a name that PostgreSQL tells from others."""

PLACE = re.compile(r"postgres(?:ql)?://(?:[^@/?#]*@)?[^@/?#]*(?:[/?][^@]*)?")
"""A URL that has an @ only between a password and a host, so that no part of a password is taken for something else."""

FORMATS = """
    CREATE TABLE IF NOT EXISTS formats (what text PRIMARY KEY, schema integer NOT NULL);
    CREATE TABLE IF NOT EXISTS numbers (name text PRIMARY KEY, last bigint NOT NULL);
    CREATE OR REPLACE FUNCTION numbered() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN
        INSERT INTO numbers VALUES (TG_TABLE_NAME, coalesce(NEW.id, 1))
            ON CONFLICT (name) DO UPDATE SET last = coalesce(NEW.id, numbers.last + 1) RETURNING last INTO NEW.id;
        RETURN NEW;
    END $$;
    CREATE OR REPLACE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation';
    END $$;
"""
"""By program the version of its tables; and, since a sequence has gaps, numbers that have none, for AUTOINCREMENT."""

NEWS = "SELECT FROM pg_class LIMIT 1"
"""Makes a connection forget which tables were not there: it is told so by the next relation that it locks, and an advisory lock is
on none. Without it, of two that make the tables at once, the second would make them again."""

WORDS = (
    (re.compile(r"--[^\n]*"), ""),  # not every encoding of a database has the signs of comments
    (re.compile(r"\bINTEGER PRIMARY KEY AUTOINCREMENT\b"), "bigint PRIMARY KEY"),
    (re.compile(r"\bINTEGER\b"), "bigint"),
    (re.compile(r"\bBLOB\b"), "bytea"),
    (re.compile(r"\bTEXT\b"), 'text COLLATE "C"'),  # SQLite orders by bytes
    (re.compile(r"\) WITHOUT ROWID\b"), ")"),
    (re.compile(r"\bBEFORE DELETE ON\b", re.IGNORECASE), "BEFORE DELETE OR TRUNCATE ON"),
    (re.compile(r"\bBEGIN SELECT RAISE\(ABORT, ('[^']*')\); END"), r"EXECUTE FUNCTION refused(\1)"),
)
"""What stands for words of SQLite in `CREATE` and `ALTER`."""

NUMBERED = re.compile(r"CREATE TABLE (\w+) .*\bAUTOINCREMENT\b", re.DOTALL)

UNAVAILABLE = ("08", "57", "53300", "40", "25P03")
"""How the codes of errors begin that pass by themselves: the connection, a server that ends or begins, a statement or a transaction
that it ended, too many connections."""

UNKNOWN = re.compile(r'FATAL: +((?:role|database) "[^"]*" does not exist|password authentication failed)')
"""What a server says to a client with a URL that is wrong; libpq tells no code of it."""

REFUSED = {
    "25006": "this server only reads, as a standby does",
    "42501": "the role may not do that",
    "53100": "the server's disk is full",
}
"""What some codes mean for the reader of the message."""

WATCHED = "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"
"""What the server is told of a connection that holds a lock: that of a machine that is gone is free within half a minute."""

DURABLE = "SELECT set_config('synchronous_commit', 'on', {}) WHERE current_setting('synchronous_commit') = 'off'"
"""Makes a commit wait for the disk where the server, the role or the URL says that it does not; of a transaction (true) or a connection."""

NAME_BYTES = 63
"""Bytes that PostgreSQL keeps of what a connection says of itself."""


class Errors(NamedTuple):
    """As what the errors of a program's tables are raised. away: where the server cannot be reached just now. busy: where others have
    held a lock for too long. setting: the key of featurestore.toml that names the place."""

    wrong: type[FeatureStoreError]
    away: type[FeatureStoreError]
    busy: type[FeatureStoreError]
    setting: str


OF_REGISTRY = Errors(RegistryError, RegistryUnavailableError, RegistryUnavailableError, "registry")

_OF_PARENTS: list[psycopg.Connection[Any]] = []
"""Connections of the process that this one was forked from: to close them would end them for both."""


class PostgreSQLConnection:
    """A transaction that is under way. found: the version of the tables; 0: there are none."""

    def __init__(self, connection: psycopg.Connection[Any], found: int) -> None:
        self._connection, self.found = connection, found

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """Run one statement."""
        if sql.startswith(("CREATE ", "ALTER ")):
            numbered = NUMBERED.match(sql)
            for word, instead in WORDS:
                sql = word.sub(instead, sql)
            if numbered is not None:
                when = f"BEFORE INSERT ON {numbered[1]} FOR EACH ROW"
                sql += f"; CREATE TRIGGER numbered {when} EXECUTE FUNCTION numbered()"
            return self._connection.execute(sql)
        return self._connection.execute(_marked(sql), values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> None:
        """Run one statement for each row of values."""
        with self._connection.cursor() as cursor:
            cursor.executemany(_marked(sql), rows)

    def schema(self) -> int:
        """The version of the tables that are there."""
        return self.found

    def bytes_of(self, sql: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """Run one statement that gives long bytes, which come as they are."""
        return self._connection.execute(_marked(sql), values, binary=True)

    def at_once(self, sql: str) -> Any:
        """Run several statements without values on one way to the server and back; the first row of the last one, if that gives any."""
        cursor = self._connection.execute(sql)
        while cursor.nextset():
            pass
        return None if cursor.description is None else cursor.fetchone()

    @property
    def is_gone(self) -> bool:
        """Whether the connection broke, and with it what it was about to keep."""
        return self._connection.closed

    def tables(self) -> set[str]:
        """The names of the tables that are there."""
        found = self._connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        return {name for (name,) in found}

    def last_number(self, table: str) -> int:
        """The last number that a row of a table was given; 0 before the first."""
        found = self._connection.execute("SELECT last FROM numbers WHERE name = %s", (table,)).fetchone()
        return 0 if found is None else int(found[0])


class PostgreSQL:
    """Tables at a postgresql:// URL. what: their noun in messages. project: whose they are, and what their schema is named
    after; None: of nobody who is told apart. schema: the version of the tables. timeout: how long (s) others are waited for.
    """

    def __init__(
        self, url: str, what: str, *, project: str | None, schema: int, timeout: float, errors: Errors = OF_REGISTRY
    ) -> None:
        self._what, self._schema, self._timeout, self._errors = what, schema, timeout, errors
        self._settings = _settings(url, errors.setting)
        self._secret = str(self._settings.get("password") or "")
        space = "featurestore" if project is None else f"featurestore_{project}"
        if len(space) > LONGEST_BYTES:
            raise ConfigError(
                f"The name of project '{project}' is too long for PostgreSQL, which tells names of "
                f"{LONGEST_BYTES} bytes apart; {LONGEST_BYTES - len('featurestore_')} are left for it"
            )
        self._space = f'"{space}"'
        self.name = f"{_shown(self._settings)} ({space})"
        self._gone_at = float("-inf")  # from when on (monotonic, s) a server that is away is not waited for
        self._lock = mutex()
        self._idle: list[psycopg.Connection[Any]] = []
        self._locking: set[psycopg.Connection[Any]] = set()
        weakref.finalize(self, _close, self._idle)
        renewed_in_child(self)

    def renew(self) -> None:
        """Begin without connections: in a child, those at hand are its parent's. The child lets go of them without a word to the server,
        lest a lock of the parent live as long as the child."""
        theirs = [*self._idle, *self._locking]
        for connection in theirs:
            with suppress(psycopg.Error, OSError):
                os.close(connection.fileno())
        _OF_PARENTS.extend(theirs)
        self._idle.clear()
        self._locking.clear()

    def close(self) -> None:
        """Close the connections that nobody uses; the next transaction makes one."""
        _close(self._idle)

    @contextmanager
    def reading(self) -> Iterator[PostgreSQLConnection | None]:
        """A transaction that sees one state; None where nothing was ever written. It changes nothing."""
        with self._begun("BEGIN ISOLATION LEVEL REPEATABLE READ") as (connection, found):
            yield PostgreSQLConnection(connection, found) if found else None
            connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[tuple[PostgreSQLConnection, bool]]:
        """One transaction that excludes every other writer from its beginning, and whether there are tables; where an
        error comes before its end, nothing of it is kept. Code that makes tables calls `mark`."""
        begin = (  # each statement sees what is so when it begins: after the lock was taken
            f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {DURABLE.format('true')}; "
            f"SET LOCAL lock_timeout = {round(self._timeout * 1000)}; "
            f"SELECT pg_advisory_xact_lock(hashtextextended('{self._space}', 0)); {NEWS}"
        )
        with self._begun(begin) as (connection, found):
            if not found:
                self._make(connection)
            yield PostgreSQLConnection(connection, found), bool(found)
            try:
                connection.execute("COMMIT")
            except psycopg.Error as error:
                if connection.broken:
                    raise self._errors.away(
                        f"The {self._what} {self.name} went away while it was told to keep what was written, and whether it did "
                        f"is not known. Look, and do it again where it did not: {self._said(error)}"
                    ) from error
                raise

    @contextmanager
    def alone(
        self, number: int, doing: str, *, wait_seconds: float | None
    ) -> Iterator[tuple[PostgreSQLConnection, int] | None]:
        """A connection that has the lock of a number alone, as long as it lives, and the process of the server behind it. None where
        others have it, or wait for it, and wait_seconds is None. Waiting is in turn, and ends with an error that says who has it.

        Each statement of the connection is kept by itself, at once: one that comes after the lock was lost cannot be kept, because
        the lock is lost with the connection alone. doing: what for, as others are told.
        """
        lock = f"hashtext('{self._space} {self._what}'), {number}"
        mine = f"featurestore: {doing}, process {os.getpid()} on {socket.gethostname()}"[:NAME_BYTES].replace("'", "''")
        begin = (
            f"SET application_name = '{mine}'; SET search_path TO {self._space}; {WATCHED}; {DURABLE.format('false')}; "
        )
        begin += f"SET lock_timeout = {round((wait_seconds or 0) * 1000)}"
        with self.failing():
            connection, found = self._first(begin)
            self._locking.add(connection)
            try:
                if wait_seconds is None:
                    taken = connection.execute(f"SELECT pg_try_advisory_lock({lock}), pg_backend_pid()").fetchone()
                else:
                    taken = self._waited(connection, lock, wait_seconds)
                assert taken is not None
                has_it, process = taken
                self._check_direct(connection, process)
                yield (PostgreSQLConnection(connection, found), process) if has_it else None
            finally:
                self._locking.discard(connection)
                with suppress(psycopg.Error):
                    connection.execute("SELECT pg_advisory_unlock_all()")
                self._keep(connection)

    def _waited(self, connection: psycopg.Connection[Any], lock: str, wait_seconds: float) -> tuple[bool, int]:
        try:
            taken = connection.execute(f"SELECT pg_backend_pid() FROM pg_advisory_lock({lock})").fetchone()
        except psycopg.errors.LockNotAvailable as error:
            first, second = (part.strip() for part in lock.rsplit(",", 1))
            holders = connection.execute(
                "SELECT application_name, coalesce(host(client_addr), 'the same machine') FROM pg_locks JOIN pg_stat_activity USING (pid) "
                f"WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND objid = {second} "
                f"AND classid = ({first}::bigint & 4294967295)::oid"
            ).fetchone()
            who = "nobody by now" if holders is None else f"{holders[0]}, from {holders[1]}"
            raise self._errors.busy(
                f"The {self._what} {self.name} is locked, and was not free within {wait_seconds:g} s; who has it is: {who}. Where that "
                "process was stopped or hangs, let it go on or end it: its lock goes with it"
            ) from error
        assert taken is not None
        return True, taken[0]

    def _check_direct(self, connection: psycopg.Connection[Any], process: int) -> None:
        """ConfigError where something between here and the server may give the connection, with its lock, to others."""
        if connection.info.backend_pid != process:
            raise ConfigError(
                f"The {self._what} {self.name} is reached through a pool of connections, such as pgbouncer, which may give one and its "
                f"locks to somebody else. Name the server itself (featurestore.toml, {self._errors.setting})"
            )

    def mark(self, connection: PostgreSQLConnection) -> None:
        """Say that the tables are this version's."""
        connection.execute(
            "INSERT INTO formats VALUES (?, ?) ON CONFLICT (what) DO UPDATE SET schema = excluded.schema",
            (self._what, self._schema),
        )
        connection.found = self._schema

    @contextmanager
    def _begun(self, begin: str) -> Iterator[tuple[psycopg.Connection[Any], int]]:
        """A connection whose transaction has begun, and the version of the tables, 0 where there are none. The connection is
        kept for the next one where this one came to its end."""
        begin += f"; SET LOCAL idle_in_transaction_session_timeout = {IDLE_MS}; SET LOCAL search_path TO {self._space}"
        with self.failing():
            connection, found = self._first(begin)
            try:
                if found > self._schema:
                    raise self._errors.wrong(
                        f"The {self._what} {self.name} was written by a newer version of featurestore (schema {found}; this one "
                        f"reads {self._schema}); upgrade it here"
                    )
                yield connection, found
            except BaseException:
                with suppress(psycopg.Error):
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._keep(connection)

    def _first(self, begin: str) -> tuple[psycopg.Connection[Any], int]:
        """A connection, one that was kept or a new one, on which `begin` was run, and the version of the tables. Nothing was
        done before, so it may be done again."""
        began = time.monotonic()
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            was_kept = connection is not None
            try:
                if connection is None:
                    connection = psycopg.connect(**self._settings, autocommit=True, prepare_threshold=None)
                found = self._found(connection, begin)
            except BaseException as error:
                is_gone = isinstance(error, psycopg.OperationalError) and (connection is None or connection.broken)
                if connection is not None:
                    connection.close()
                if not is_gone:
                    raise
                self._gone_at = min(self._gone_at, began + min(AGAIN_SECONDS, self._timeout))
                if not was_kept and time.monotonic() > self._gone_at:
                    raise
                time.sleep(0 if was_kept else RETRY_SECONDS)
            else:
                self._gone_at = float("inf")
                return connection, found

    def _found(self, connection: psycopg.Connection[Any], begin: str) -> int:
        """The version of the tables, in a transaction that begins; one round trip where there are any."""
        look = f"SELECT schema FROM formats WHERE what = '{self._what}'"
        try:
            rows = connection.execute(f"{begin}; {look}")
        except psycopg.errors.UndefinedTable:
            connection.execute("ROLLBACK")
            connection.execute(begin)
            there = connection.execute("SELECT to_regclass(%s)", (f"{self._space}.formats",)).fetchone()
            if there == (None,):
                return 0
            rows = connection.execute(look)  # somebody has made it in between
        while rows.nextset():
            pass
        found = rows.fetchone()
        return 0 if found is None else int(found[0])

    def _keep(self, connection: psycopg.Connection[Any]) -> None:
        idle = psycopg.pq.TransactionStatus.IDLE
        with self._lock:
            if connection.info.transaction_status == idle and len(self._idle) < CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _make(self, connection: psycopg.Connection[Any]) -> None:
        """What every program's tables need, in a schema that somebody may have made for it."""
        if connection.execute("SELECT to_regnamespace(%s)", (self._space,)).fetchone() == (None,):
            connection.execute(f"CREATE SCHEMA {self._space}")
        connection.execute(FORMATS)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """What goes wrong within, as errors of the program's tables."""
        try:
            yield
        except UnicodeError as error:
            raise self._errors.wrong(f"The {self._what} {self.name} cannot be used: {error}") from error
        except psycopg.Error as error:
            state = error.sqlstate or ""
            name, said = f"The {self._what} {self.name}", self._said(error)
            if state == "55P03":
                raise self._errors.busy(
                    f"{name} cannot be used: other processes have been writing to it for {self._timeout:g} s; try again"
                ) from error
            if self._gone_at == float("-inf") and UNKNOWN.search(said):  # and it was never right before
                raise ConfigError(f"{name} cannot be used: {said}. Correct its URL in featurestore.toml") from error
            if state.startswith(UNAVAILABLE) or (not state and isinstance(error, psycopg.OperationalError)):
                raise self._errors.away(f"{name} cannot be reached: {said}") from error
            raise self._errors.wrong(
                f"{name} cannot be used: {REFUSED[state] + ': ' if state in REFUSED else ''}{said}"
            ) from error

    def _said(self, error: psycopg.Error) -> str:
        said = " ".join(str(error).split())
        # As a word of its own alone: a password of one letter would be told by the words that it were missing in.
        return re.sub(rf"(?<!\w){re.escape(self._secret)}(?!\w)", "***", said) if self._secret else said


def _marked(sql: str) -> str:
    """A statement with psycopg's mark of a value."""
    return sql.replace("%", "%%").replace("?", "%s")


def _close(connections: list[psycopg.Connection[Any]]) -> None:
    while connections:
        connections.pop().close()


def _settings(url: str, setting: str) -> dict[str, Any]:
    """What libpq is told; ConfigError, which shows nothing of the URL, where it is none."""
    if not PLACE.fullmatch(url):
        raise ConfigError(
            f"The postgresql:// URL of the {setting} cannot be read. In a user or password, write @ : / ? # % as %40 %3A %2F %3F %23 %25"
        )
    try:
        said = conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # whose message may have a part of a password
        raise ConfigError(
            f"The postgresql:// URL of the {setting} cannot be read: postgresql://USER:PASSWORD@HOST:PORT/DATABASE?option=value, "
            "with the options of libpq, such as sslmode"
        ) from None
    if not re.fullmatch(r"[0-9,]*", str(said.get("port") or "")):
        raise ConfigError(f"The postgresql:// URL of the {setting} has a port that is no number")
    return {**SETTINGS, **said, "client_encoding": "UTF8"}


def _shown(settings: dict[str, Any]) -> str:
    """Where that is, without a user and without a password."""
    host, port, name = (str(settings.get(word) or "") for word in ("host", "port", "dbname"))
    return f"postgresql://{host.replace('/', '%2F')}{port and ':'}{port}/{name}"

"""What a log in PostgreSQL has to bear: connections that break, a server that goes, machines that have the lock."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from featurestore.errors import ConfigError, LogBusyError, LogError, LogUnavailableError
from featurestore.sources.log import Return, postgresql_log
from featurestore.sources.log.postgresql_log import PostgreSQLLog, push_log_database
from featurestore.sources.log.schema import KNOWN_AT
from tests.servers import Front, PostgresServer
from tests.sources.log_rows import SCHEMA, batch


def machine(url: str, folder: Path, *, wait_seconds: float = 60.0, **said: Any) -> PostgreSQLLog:
    """The log as a machine opens it."""
    database = push_log_database(url, "shop", wait_seconds=wait_seconds)
    return PostgreSQLLog(database, "taps/rows", folder, lambda: SCHEMA, wait_seconds=wait_seconds, **said)


@contextmanager
def fronted(postgres: PostgresServer, kind: type[Front] = Front) -> Iterator[tuple[Front, str]]:
    with kind(postgres.socket) as front:
        yield front, f"postgresql://postgres:secret@127.0.0.1:{front.port}/postgres?sslmode=disable"


def known(log: PostgreSQLLog) -> list[int]:
    found: list[int] = log.read()["known_at"].to_pylist()
    return found


def test_an_append_whose_answer_was_lost_is_found_out(postgres: PostgresServer, tmp_path: Path) -> None:
    """It was kept: so it is once, and whoever pushes is told so."""
    with fronted(postgres) as (front, url), machine(url, tmp_path) as log:
        with log.lock():
            front.hang_up_after = b"INSERT INTO push_frames"
            log.append([batch(1, 2)])
            assert front.hang_up_after is None
            with pytest.raises(LogUnavailableError):
                log.confirm(written=9)
        with log.lock():
            log.append([batch(3, 1)])
        assert known(log) == [1, 2, 3]


def test_an_append_that_others_have_sealed_is_found_out(postgres: PostgresServer, tmp_path: Path) -> None:
    """Its answer was lost, and who waited for the lock had it first: rows came after it, and its segment was sealed."""
    with (
        fronted(postgres) as (front, url), machine(url, tmp_path / "a") as log,
        machine(postgres.url, tmp_path / "b", segment_bytes=1) as other,
    ):  # fmt: skip
        rows = batch(1, 40)

        def go_on() -> None:
            with other.lock():
                other.append([batch(41, 1)])
                assert other.compact() == (1, 40, 0)

        waiting = threading.Thread(target=go_on)
        with log.lock():
            waiting.start()
            with psycopg.connect(postgres.url, autocommit=True) as connection:
                look = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                while not connection.execute(look).fetchall():
                    time.sleep(0.01)
            front.hang_up_after = b"INSERT INTO push_frames"
            log.append([rows])
        waiting.join()
        assert known(log) == list(range(1, 42))


def test_an_append_that_never_came_is_not_kept(postgres: PostgresServer, tmp_path: Path) -> None:
    with fronted(postgres) as (front, url), machine(url, tmp_path) as log:
        with log.lock():
            front.drop()
            with pytest.raises(LogUnavailableError, match="and has not") as caught:
                log.append([batch(1, 2)])
        assert caught.value.kept is None
        assert known(log) == []


def test_a_server_that_does_not_come_back_leaves_it_open(postgres: PostgresServer, tmp_path: Path) -> None:
    with machine(postgres.url, tmp_path) as log:
        with log.lock():
            log.append([batch(1, 2)])
        try:
            with log.lock():
                postgres.stop()
                with pytest.raises(LogUnavailableError, match="and is not back") as caught:
                    log.append([batch(3, 1)])
        finally:
            postgres.start()
        assert caught.value.kept == "unknown"
        assert known(log) == [1, 2], "what was acknowledged outlives a crash"


@pytest.mark.parametrize("where", ["role", "URL"])
def test_an_append_is_on_the_disk_whatever_is_usual_there(postgres: PostgresServer, tmp_path: Path, where: str) -> None:
    """Where commits do not wait for the disk, those of the log do."""
    url = postgres.url + ("&options=-csynchronous_commit%3Doff" if where == "URL" else "")
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
        if where == "role":
            connection.execute("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        with machine(url, tmp_path) as log:
            with log.lock():
                log.append([batch(1, 1)])
            with log.lock():
                log.append([batch(2, 1)])
                postgres.stop()
            postgres.start()
            assert known(log) == [1, 2]
    finally:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET wal_writer_delay")
            connection.execute("ALTER ROLE postgres RESET synchronous_commit")
            connection.execute("SELECT pg_reload_conf()")


def test_who_has_lost_the_lock_writes_nothing_more(postgres: PostgresServer, tmp_path: Path) -> None:
    """The server ended the connection, as it does with a machine that is gone; another has the lock since, and wrote."""
    with machine(postgres.url, tmp_path / "a") as lost, machine(postgres.url, tmp_path / "b") as other:
        with lost.lock("pushing rows"):
            with psycopg.connect(postgres.url, autocommit=True) as connection:
                ended = connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'featurestore: pushing rows%'"
                ).fetchall()
            assert ended == [(True,)]
            with other.lock():
                other.append([batch(1, 1)])
                other.confirm(written=7)
            with pytest.raises(LogUnavailableError, match="and has not"):
                lost.append([batch(1, 2)])
        assert known(other) == [1]
        with lost.lock():
            assert lost.confirmed().written == 7


def test_who_gives_up_waiting_is_told_who_has_the_lock(postgres: PostgresServer, tmp_path: Path) -> None:
    with machine(postgres.url, tmp_path) as log, machine(postgres.url, tmp_path, wait_seconds=0.2) as other:
        with log.lock("filling view 'x'"):
            with other.attempt("looking") as alone:
                assert not alone
            with pytest.raises(LogBusyError, match=f"filling view 'x', process {os.getpid()}"), other.lock():
                pass
        with other.attempt("looking") as alone:
            assert alone


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_copy_of_a_sealed_segment_is_fetched_again(postgres: PostgresServer, tmp_path: Path, damage: str) -> None:
    """Of a machine that sealed nothing itself, too."""
    with (
        machine(postgres.url, tmp_path / "a", segment_bytes=1) as sealing,
        machine(postgres.url, tmp_path / "b") as reading,
    ):
        with sealing.lock():
            sealing.append([batch(1, 50)])
            sealing.append([batch(51, 50)])
        assert sealing.compact() == (1, 50, 0)
        assert sealing.compact() == (0, 0, 0)
        with psycopg.connect(postgres.url) as connection:
            assert connection.execute("SELECT count(*) FROM featurestore_shop.push_frames").fetchall() == [(1,)]
        assert known(reading) == list(range(1, 101))
        (copy,) = (tmp_path / "b").glob("*.parquet")
        if damage == "gone":
            copy.unlink()
        else:
            whole = copy.read_bytes()
            copy.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        assert known(reading) == list(range(1, 101))


@pytest.mark.parametrize("step", ["UPDATE push_segments", "DELETE FROM push_frames", "COMMIT"])
def test_who_seals_may_be_killed_anywhere(postgres: PostgresServer, tmp_path: Path, step: str) -> None:
    """No row is lost or doubled, nobody waits for the dead, and the next call seals."""
    with machine(postgres.url, tmp_path / "a", segment_bytes=1) as log:
        with log.lock():
            log.append([batch(1, 5)])
            log.append([batch(6, 5)])
        child = os.fork()
        if child == 0:
            execute = psycopg.Connection.execute

            def dying(connection: Any, query: str, *given: Any, **said: Any) -> Any:
                if query.startswith(step):
                    os.kill(os.getpid(), signal.SIGKILL)
                return execute(connection, query, *given, **said)

            psycopg.Connection.execute = dying  # type: ignore[assignment, method-assign]  # replaced for this process alone
            machine(postgres.url, tmp_path / "a", segment_bytes=1).compact()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert known(log) == list(range(1, 11))
        assert log.compact() == (1, 5, 0)
        assert known(log) == list(range(1, 11))


def test_a_segment_that_is_gone_takes_no_rows(postgres: PostgresServer, tmp_path: Path) -> None:
    """As where somebody put half of a copy back under who pushes: nothing is acknowledged that is not there."""
    with machine(postgres.url, tmp_path) as log, log.lock():
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("DELETE FROM featurestore_shop.push_segments")
        with pytest.raises(LogError, match="has lost its last segment"):
            log.append([batch(1, 1)])


def test_rows_that_are_ahead_are_taken_back(postgres: PostgresServer, tmp_path: Path) -> None:
    """Appends of which any row is known later go, what is confirmed of that time too, and every machine sees it."""
    with machine(postgres.url, tmp_path / "a") as log, machine(postgres.url, tmp_path / "b") as other:
        with log.lock():
            log.append([batch(1, 3)])
            log.append([batch(4, 3)])
            log.confirm(written=6, served=20)
        with other.lock():
            assert other.ahead_of(5)["known_at"].to_pylist() == [4, 5, 6]
            other.take_back(5)
            assert (*other.confirmed(), other.last_known_at()) == (5, 5, 3)
        assert known(log) == [1, 2, 3]
        assert log.segments()[-1].rows == 3
        with log.lock():
            log.append([batch(4, 1)])
            log._roll(log._mine())
            with pytest.raises(LogError, match="in a full segment"):
                log.ahead_of(1)


def test_returns_and_confirmed_instants_are_everybody_s(postgres: PostgresServer, tmp_path: Path) -> None:
    with machine(postgres.url, tmp_path / "a") as log, machine(postgres.url, tmp_path / "b") as other:
        with log.lock():
            log.note_return(Return(5, 9))
            log.confirm(written=5)
            log.confirm(written=3, served=4)
        assert other.returns() == [Return(5, 9)]
        with other.lock():
            assert other.confirmed() == (5, 4)


def test_a_child_does_not_keep_the_lock_of_a_parent_that_dies(postgres: PostgresServer, tmp_path: Path) -> None:
    """It has the parent's socket until it lets go of it: else nobody could push until the child ends."""
    told, tell = os.pipe()
    ends, end = os.pipe()
    with machine(postgres.url, tmp_path, wait_seconds=60) as log:
        parent = os.fork()
        if parent == 0:
            own = machine(postgres.url, tmp_path)
            with own.lock():
                if os.fork() == 0:
                    os.close(end)
                    os.write(tell, b"forked")
                    os.read(ends, 1)  # until the test ends
                    os._exit(0)
                threading.Event().wait(300)
        assert os.read(told, 6) == b"forked"
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        with log.lock():
            log.append([batch(1, 1)])
        assert known(log) == [1]
    for descriptor in (told, tell, ends, end):
        os.close(descriptor)


class Pool(Front):
    """A pool of connections, which says another number of the server's process, as pgbouncer does."""

    def _pump(self, source: Any, sink: Any, deaf: threading.Event, requests: bool) -> None:
        super()._pump(source, sink if requests else Renumbering(sink), deaf, requests)  # type: ignore[arg-type]  # for a moment


class Renumbering:
    def __init__(self, sink: socket.socket) -> None:
        self.shutdown, self._sink = sink.shutdown, sink

    def sendall(self, data: bytes) -> None:
        at = data.find(b"K\0\0\0\x0c")
        self._sink.sendall(data if at < 0 else data[: at + 5] + b"\0\0\0\1" + data[at + 9 :])


def test_a_pool_of_connections_is_refused(postgres: PostgresServer, tmp_path: Path) -> None:
    """What it gives to somebody else would take the lock along."""
    with fronted(postgres, Pool) as (_, url), machine(url, tmp_path) as log:
        with pytest.raises(ConfigError, match="through a pool of connections"), log.lock():
            pass


def emptied(log: PostgreSQLLog) -> list[int]:
    """The known_at of rows of which nothing else is there."""
    table = log.read()
    others = [table[name].is_null().to_pylist() for name in table.column_names if name != KNOWN_AT]
    return [at for at, *nulls in zip(table[KNOWN_AT].to_pylist(), *others, strict=True) if all(nulls)]


def test_rows_are_emptied_on_every_machine_wherever_they_lie(postgres: PostgresServer, tmp_path: Path) -> None:
    """In sealed segments, in a full one, and in the open one; their places stay, others go on appending, and another machine's copies go."""
    with (
        machine(postgres.url, tmp_path / "a", segment_bytes=1) as log,
        machine(postgres.url, tmp_path / "b") as other,
    ):  # fmt: skip
        for first in (1, 4):
            with log.lock():
                log.append([batch(first, 3)])
        log.compact()
        for first in (7, 10):
            with log.lock():
                log.append([batch(first, 3)])
        assert known(other) == known(log)
        stale = {path.name for path in (tmp_path / "b").glob("*.parquet")}
        assert log.erase(pa.array([11, 2, 8, 99]), kept=()) == 3
        assert emptied(log) == emptied(other) == [2, 8, 11]
        assert known(other) == known(log) == list(range(1, 13))
        assert len(stale & {path.name for path in (tmp_path / "b").glob("*.parquet")}) == len(stale) - 1
        with other.lock():
            other.append([batch(13, 1)])
        assert log.erase(pa.array([], pa.int64()), kept=()) == 0
        assert other.erase(pa.array([2, 12, 13]), kept=()) == 2  # beside one that is empty already
        assert emptied(log) == emptied(other) == [2, 8, 11, 12, 13]


def test_two_who_empty_rows_of_one_segment_at_once_lose_nothing_of_each_other(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with machine(postgres.url, tmp_path / "a") as log, machine(postgres.url, tmp_path / "b") as other:
        with log.lock():
            log.append([batch(1, 60)])
        log.compact(everything=True)
        threads = [
            threading.Thread(target=lambda one=one, rows=rows: [one.erase(pa.array([row]), kept=()) for row in rows])
            for one, rows in ((log, range(1, 10)), (other, range(20, 30)))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert emptied(log) == emptied(other) == [*range(1, 10), *range(20, 30)]


def test_a_copy_that_is_deleted_under_the_hands_of_its_reader_is_fetched_anew(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of one machine have one folder of copies: one erases a row while another is about to read, or to erase another row."""
    with machine(postgres.url, tmp_path) as log, machine(postgres.url, tmp_path) as other:
        with log.lock():
            log.append([batch(1, 9)])
        log.compact(everything=True)
        for name, row, call, expected in (
            ("read_segment", 2, lambda: emptied(log), [2]),
            ("emptied", 3, lambda: [log.erase(pa.array([5]), kept=()), *emptied(log)], [1, 2, 3, 5]),
        ):
            real, erased = getattr(postgresql_log, name), list[int]()

            def late(*given: Any, name: str = name, real: Any = real, row: int = row, **words: Any) -> Any:
                monkeypatch.setattr(postgresql_log, name, real)
                erased.append(other.erase(pa.array([row]), kept=()))  # noqa: B023 - called within this turn
                return real(*given, **words)

            monkeypatch.setattr(postgresql_log, name, late)
            assert call() == expected
            assert erased == [1]
        assert known(other) == known(log) == list(range(1, 10))


def test_who_sees_a_segment_as_it_was_leaves_the_copies_of_what_it_became(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what he copied is deleted by the next reader, with the rows that are erased in it."""
    with machine(postgres.url, tmp_path) as log, machine(postgres.url, tmp_path) as other:
        with log.lock():
            log.append([batch(1, 9)])
        log.compact(everything=True)
        real = log._segments

        def listed(transaction: Any) -> Any:
            found = real(transaction)
            monkeypatch.setattr(log, "_segments", real)
            assert other.erase(pa.array([2]), kept=()) == 1
            assert emptied(other) == [2]
            return found

        monkeypatch.setattr(log, "_segments", listed)
        assert emptied(log) == []
        assert {path.name for path in tmp_path.glob("*.parquet")} == {"00000001.0.parquet", "00000001.1.parquet"}
        assert emptied(log) == [2]
        assert {path.name for path in tmp_path.glob("*.parquet")} == {"00000001.1.parquet"}


def test_two_processes_of_a_machine_copy_a_segment_at_once(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its own file until it is whole: neither takes the other's from under its hands, nor for damaged."""
    with machine(postgres.url, tmp_path / "a") as log:
        with log.lock():
            log.append([batch(1, 9)])
        log.compact(everything=True)
    with machine(postgres.url, tmp_path / "b") as log, machine(postgres.url, tmp_path / "b") as other:
        real, read = Path.rename, list[list[int]]()

        def late(path: Path, to: Path) -> Path:
            if not read:
                monkeypatch.setattr(Path, "rename", real)
                read.append(known(other))
            return real(path, to)

        monkeypatch.setattr(Path, "rename", late)
        assert known(log) == list(range(1, 10))
        assert read == [list(range(1, 10))]

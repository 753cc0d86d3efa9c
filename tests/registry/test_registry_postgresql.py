"""What is true of a registry in PostgreSQL, beside what is true of every registry."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from featurestore.config import load_config
from featurestore.errors import ConfigError, RegistryError, RegistryUnavailableError
from featurestore.registry import store
from featurestore.registry.documents import empty_document
from featurestore.registry.store import SCHEMA, Registry, RunRecord
from featurestore.sources.arrivals import Arrivals, Sighting
from tests.registry.places import by_hand
from tests.registry.test_registry import state
from tests.servers import Front, PostgresServer

RUN = RunRecord("v", "f", 1, 2, 3, 4, 5, "complete")
FILE = Sighting("a.parquet", 10, 1)


@pytest.fixture
def registry(postgres: PostgresServer) -> Iterator[Registry]:
    made = Registry(postgres.url, project="shop")
    made.commit(state(views={"v": "f1"}), expected=0)
    yield made
    made.close()


def hang_up(postgres: PostgresServer) -> None:
    """End every connection but this one's, as a server does that is shut down."""
    with psycopg.connect(postgres.url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND application_name = 'featurestore'"
        )


def test_reading_makes_no_schema(postgres: PostgresServer) -> None:
    """It takes a role that may write for that."""
    assert Registry(postgres.url, project="shop").current().number == 0
    assert by_hand(postgres.url, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'featurestore%'") == [(0,)]


def test_projects_of_one_database_never_meet(postgres: PostgresServer, registry: Registry) -> None:
    """Each has a schema of its own, in which its journal of arrivals is too."""
    other = Registry(postgres.url, project="Shop")
    assert other.commit(state(), expected=0) == 1
    assert registry.current().document["views"] == {"v": {"fingerprint": "f1"}}
    journals = [Arrivals(postgres.url, project=name, now=lambda: 5) for name in ("shop", "Shop")]
    journals[0].see("x", lambda: [FILE])
    assert [journal.seen("x", [FILE]) for journal in journals] == [[5], [None]]
    spaces = by_hand(postgres.url, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'featurestore%' ORDER BY 1")
    assert {name for (name,) in spaces} == {"featurestore_shop", "featurestore_Shop"}
    with pytest.raises(ConfigError, match=f"project '{'a' * 60}' is too long .* 50 are left"):
        Registry(postgres.url, project="a" * 60)


def test_processes_that_make_the_tables_at_once_make_them_once(postgres: PostgresServer) -> None:
    """Each has looked before, and was told that there are none: PostgreSQL lets a connection believe that for a while."""
    for number in range(5):
        registries = [Registry(postgres.url, project=f"p{number}") for _ in range(4)]
        assert [registry.generation() for registry in registries] == [0] * 4
        with ThreadPoolExecutor(4) as threads:
            runs = [threads.submit(registry.record_run, RUN) for registry in registries]
            assert sorted(run.result() for run in runs) == [1, 2, 3, 4]
        for registry in registries:
            registry.close()


# --- the URL ------------------------------------------------------------------------------------------


NO_URLS = [
    "postgresql://me:hu@hush@127.0.0.1:1/db",
    "postgresql://me:1/hush@127.0.0.1:1/db",
    "postgresql://me:hush/db",
    "postgresql://me:%zzhush@127.0.0.1:1/db",
    "postgresql://me@127.0.0.1:1/db?pasword=hush",
]


@pytest.mark.parametrize("url", NO_URLS)
def test_a_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    """PostgreSQL's own library would show a part of the password, as a host or a port."""
    with pytest.raises(ConfigError, match=r"The postgresql:// URL of the registry") as caught:
        Registry(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hush@127.0.0.1:1/db",
        "postgresql://me:hush@nowhere.invalid/db?connect_timeout=2",
        "postgresql://127.0.0.1:1/db?user=me&password=hush",
    ],
)
def test_a_password_is_in_no_message(url: str) -> None:
    """However it is spelled."""
    registry = Registry(url)
    assert "hush" not in repr(registry)
    with pytest.raises(RegistryUnavailableError, match="cannot be reached") as caught:
        registry.current()
    assert "hush" not in str(caught.value)


def test_a_short_password_is_not_told_by_the_words_that_miss_it() -> None:
    with pytest.raises(RegistryError, match="refused") as raised:
        Registry("postgresql://user:e@127.0.0.1:1/postgres", project="shop").current()
    assert "***" not in str(raised.value)


def test_what_is_shown_of_a_registry_has_no_secret(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its repr, the configuration and its dumps; the URL may be a variable's."""
    assert "secret" in postgres.url
    assert repr(Registry(postgres.url, project="shop")).endswith("/postgres (featurestore_shop)')")
    assert "secret" not in repr(Registry(postgres.url))
    for said, shown in ((postgres.url, postgres.url.replace("secret", "***")), ("${FS_REGISTRY}",) * 2):
        (tmp_path / "featurestore.toml").write_text(f'project = "shop"\nregistry = "{said}"\n')
        monkeypatch.setenv("FS_REGISTRY", postgres.url)
        config = load_config(tmp_path)
        assert config.registry == postgres.url
        assert config.model_dump()["registry"] == shown
        assert shown in repr(config)
        assert "secret" not in repr(config)


# --- connections that break ---------------------------------------------------------------------------


def test_a_connection_that_broke_between_two_calls_is_replaced(postgres: PostgresServer, registry: Registry) -> None:
    """Nobody notices, neither who reads nor who writes."""
    hang_up(postgres)
    assert registry.generation() == 1
    hang_up(postgres)
    assert registry.commit(state(), expected=1) == 2


def test_a_server_that_restarts_is_waited_for(
    postgres: PostgresServer, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who was answered before; who never was is told at once."""
    monkeypatch.setattr("featurestore.durable.postgresql.AGAIN_SECONDS", 120)
    registry._database._timeout = 120  # type: ignore[attr-defined]  # that of PostgreSQL
    postgres.stop()
    starts = threading.Timer(0.3, postgres.start)
    try:
        began = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match="cannot be reached") as caught:
            Registry(postgres.url, project="shop", timeout=120).current()
        assert time.monotonic() - began < 60
        assert caught.value.retry
    finally:
        starts.start()
    assert registry.commit(state(), expected=1) == 2
    starts.join()
    assert [version.number for version in registry.history()] == [2, 1]


def test_a_connection_that_breaks_within_a_transaction_keeps_nothing(postgres: PostgresServer) -> None:
    """It is told, and whoever asked may do it again."""

    def breaks() -> int:
        hang_up(postgres)
        return 5

    registry = Registry(postgres.url, project="shop", now=breaks)
    with pytest.raises(RegistryUnavailableError, match="cannot be reached"):
        registry.commit(state(), expected=0)
    assert registry.generation() == 0
    registry._now = lambda: 5
    assert registry.commit(state(), expected=0) == 1


def test_what_may_have_been_kept_is_told(postgres: PostgresServer, registry: Registry) -> None:
    """The connection ends while the server confirms: a version may be there, and is, and nobody says that it is not."""
    with Front(postgres.socket) as front:
        far = Registry(f"postgresql://postgres:secret@127.0.0.1:{front.port}/postgres?sslmode=disable", project="shop")
        assert far.generation() == 1
        front.hang_up_after = b"COMMIT\0"
        with pytest.raises(RegistryUnavailableError, match="whether it did is not known"):
            far.commit(state(), expected=1)
        front.drop()
        assert far.generation() == registry.generation() == 2
        far.close()


def test_a_server_that_crashes_while_it_is_written_to_loses_nothing_that_it_confirmed(
    postgres: PostgresServer, registry: Registry
) -> None:
    """Each run is there once whose recording returned; of those that failed there are only such as nobody knew of. Numbers have no gap."""
    kept: list[list[int]] = [[], []]
    open_ends, stop = [0, 0], threading.Event()

    def record(who: int) -> None:
        own, instant = Registry(postgres.url, project="shop"), 0
        while not stop.is_set():
            instant += 1
            try:
                own.record_run(RunRecord(f"v{who}", "f", instant, 2, 3, 4, 5, "complete"))
                kept[who].append(instant)
            except RegistryUnavailableError as error:
                open_ends[who] += "whether it did is not known" in str(error)
        own.close()

    with ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(record, who) for who in range(2)]
        try:
            for crashes in (True, True, False):
                goal = [len(one) + 5 for one in kept]
                while any(len(one) < least for one, least in zip(kept, goal, strict=True)):
                    assert not any(writer.done() for writer in writers)
                    time.sleep(0.01)
                if crashes:
                    postgres.stop()
                    postgres.start()
        finally:
            stop.set()
    runs = registry.runs(limit=1_000_000)
    found = [[run.instant for run in runs if run.view == f"v{who}"] for who in range(2)]
    assert all(set(kept[who]) <= set(found[who]) and len(found[who]) == len(set(found[who])) for who in range(2))
    assert sum(map(len, found)) - sum(map(len, kept)) <= sum(open_ends)
    assert [run.id for run in runs] == list(range(len(runs), 0, -1))
    assert len(registry.activity(what="materialize", limit=1_000_000)) == len(runs)


def test_a_writer_that_does_not_end_is_told(postgres: PostgresServer, registry: Registry) -> None:
    """After `timeout` seconds; readers do not wait for it."""
    inside, done = threading.Event(), threading.Event()

    def stays() -> int:
        inside.set()
        done.wait(600)
        return 5

    slow = Registry(postgres.url, project="shop", now=stays)
    holder = threading.Thread(target=slow.commit, args=(state(),), kwargs={"expected": 1})
    holder.start()
    assert inside.wait(600)
    try:
        waiting = Registry(postgres.url, project="shop", timeout=0.05)
        assert waiting.generation() == 1
        with pytest.raises(
            RegistryUnavailableError, match=r"other processes have been writing to it for 0\.05 s; try again"
        ):
            waiting.commit(state(), expected=1)
    finally:
        done.set()
        holder.join()
    assert registry.generation() == 2


def test_a_child_has_connections_of_its_own(registry: Registry) -> None:
    """What it does, and that it ends, leaves its parent's alone."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = registry.commit(state(), expected=1) - 2
            registry.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    (kept,) = registry._database._idle  # type: ignore[attr-defined]  # that of PostgreSQL
    assert registry.generation() == 2
    assert registry._database._idle == [kept]  # type: ignore[attr-defined]  # that of PostgreSQL


def test_registries_that_are_forgotten_leave_no_connection(postgres: PostgresServer, registry: Registry) -> None:
    """Nor does one that is closed."""
    registry.close()
    for _ in range(3):
        assert Registry(postgres.url, project="shop").generation() == 1
    assert by_hand(postgres.url, "SELECT pg_sleep(0)")
    deadline = time.monotonic() + 600
    alive = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'featurestore'"
    while by_hand(postgres.url, alive) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_keeps_what_it_can(postgres: PostgresServer, encoding: str) -> None:
    """Or says that it cannot."""
    by_hand(postgres.url, f"CREATE DATABASE other ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    other = Registry(postgres.url.replace("/postgres?", "/other?") + "&client_encoding=latin1")
    assert other.commit(state(), expected=0, note="ü") == 1
    assert other.current().note == "ü"
    if encoding == "LATIN1":
        with pytest.raises(RegistryError, match="cannot be used: .* has no equivalent in encoding"):
            other.commit(state(), expected=1, note="→")
    other.close()
    by_hand(postgres.url, "DROP DATABASE other")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (("/postgres?", "/nowhere?"), 'database "nowhere" does not exist'),
        (("postgres:secret@", "nobody:hush@"), 'role "nobody" does not exist'),
        (("postgres:secret@", "walled:hush@"), "password authentication failed"),
    ],
)
def test_a_url_that_names_what_is_not_there_is_wrong(postgres: PostgresServer, url: tuple[str, str], told: str) -> None:
    """And will be tomorrow, so that nobody tries again. A server that went away afterwards is waited for, whatever it says."""
    by_hand(postgres.url, "DROP ROLE IF EXISTS walled", "CREATE ROLE walled LOGIN PASSWORD 'another'")
    wall = "local all walled scram-sha-256"
    with postgres.access(wall):
        with pytest.raises(ConfigError, match=told) as caught:
            Registry(postgres.url.replace(*url), project="shop").current()
    assert not caught.value.retry
    assert "hush" not in str(caught.value)
    by_hand(postgres.url, "DROP ROLE walled", "CREATE ROLE walled LOGIN")
    registry = Registry(postgres.url.replace("postgres:secret@", "walled@"), project="shop", timeout=0.05)
    registry.current()
    registry.close()
    by_hand(postgres.url, "DROP ROLE walled")
    with pytest.raises(RegistryUnavailableError, match='role "walled" does not exist'):
        registry.current()


# --- rights and versions ------------------------------------------------------------------------------


def test_a_role_that_may_only_read_reads(postgres: PostgresServer, registry: Registry) -> None:
    """So that a process of lookups needs no right to write; where it writes, the error says what is missing."""
    by_hand(
        postgres.url,
        "DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN", 'GRANT USAGE ON SCHEMA featurestore_shop TO reader',
        "GRANT SELECT ON ALL TABLES IN SCHEMA featurestore_shop TO reader",
    )  # fmt: skip
    reader = Registry(postgres.url.replace("postgres:secret@", "reader@"), project="shop")
    assert reader.current() == registry.current()
    with pytest.raises(RegistryError, match="the role may not do that: permission denied"):
        reader.commit(empty_document(), expected=1)
    stranger = Registry(postgres.url.replace("postgres:secret@", "reader@"), project="other")
    assert stranger.generation() == 0
    with pytest.raises(RegistryError, match="the role may not do that: permission denied for database"):
        stranger.commit(empty_document(), expected=0)
    reader.close()
    stranger.close()
    registry.close()
    by_hand(postgres.url, "DROP OWNED BY reader", "DROP ROLE reader")


def test_tables_of_an_earlier_version_are_read_as_they_are_and_upgraded_when_they_are_written(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an SQLite file's are, by the same steps."""
    table = "TABLE more (name TEXT PRIMARY KEY, content BLOB) WITHOUT ROWID"
    monkeypatch.setattr(store, "SCHEMA", SCHEMA + 1)
    monkeypatch.setitem(store.UPGRADES, SCHEMA, (f"CREATE {table}",))
    monkeypatch.setitem(store.READ_AS, SCHEMA, (f"CREATE TEMP {table}",))
    newer = Registry(registry.place, project="shop")
    assert newer._read("SELECT * FROM more") == []
    assert newer.current() == registry.current()
    assert by_hand(registry.place, "SELECT schema FROM featurestore_shop.formats") == [(SCHEMA,)]
    assert newer.commit(state(), expected=1) == 2
    assert newer._read("SELECT * FROM more") == []
    monkeypatch.undo()
    with pytest.raises(
        RegistryError, match=f"newer version of featurestore .schema {SCHEMA + 1}; this one reads {SCHEMA}"
    ):
        registry.current()
    newer.close()

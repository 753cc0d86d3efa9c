"""Tables of SQLite and PostgreSQL as sources, through their ADBC drivers."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import ARRIVAL, Count, DatabaseSource, Entity, FeatureStore, FeatureView, ManualClock, Sum
from featurestore.errors import DeclarationError, FeatureStoreError, SourceError
from featurestore.sources.databases import connections, database_copies
from featurestore.types import String
from tests.platforms.conftest import Told
from tests.servers import PostgresServer
from tests.sources.same_rows import NOON, ROWS, WORDS, parquet

USER = Entity("user", key={"user": String})
AT = datetime(2026, 3, 9, tzinfo=UTC)
Run = Callable[..., None]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Run]]:
    """A URL, and what runs SQL there."""
    if request.param == "sqlite":
        path = tmp_path / "shop.db"

        def run(sql: str, *rows: tuple[Any, ...]) -> None:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.executemany(sql, rows) if rows else connection.execute(sql)

        run("SELECT 1")
        path.touch()
        yield f"sqlite:///{path}", run
        return
    server: PostgresServer = request.getfixturevalue("server")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS orders")

        def run_there(sql: str, *rows: tuple[Any, ...]) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(sql.replace("?", "%s"), rows) if rows else cursor.execute(sql)

        yield server.url, run_there


def made(run: Run) -> None:
    run('CREATE TABLE orders (id BIGINT NOT NULL, "user" TEXT, at_us BIGINT, amount DOUBLE PRECISION, gone BOOLEAN)')


def add(run: Run, *rows: tuple[int, str, int, float | None]) -> None:
    us = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1e6)
    said = [(number, user, us + minute * 60_000_000, amount) for number, user, minute, amount in rows]
    run('INSERT INTO orders (id, "user", at_us, amount) VALUES (?, ?, ?, ?)', *said)


def project(folder: Path, url: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "featurestore.toml").write_text(
        f'project = "shop"\nonline = "lmdb://online"\ndefinitions = []\n[databases]\nshop = "{url}"\n'
    )
    return folder


def source(**said: Any) -> DatabaseSource:
    said = {"table": "orders", "cursor": "id", **said}
    derived = {"at": "make_timestamptz(at_us)"}
    return DatabaseSource("orders", "shop", event_time="at", derived=derived, **said)


def views(of: DatabaseSource) -> list[FeatureView]:
    features = {"n": Count(window="lifetime"), "sum": Sum("amount", window="lifetime")}
    return [FeatureView("orders", entity=USER, source=of, refresh="1h", features=features)]


def trained(store: FeatureStore, of: DatabaseSource, at: datetime = AT) -> list[tuple[Any, Any]]:
    spine = pa.table({"user": ["ann", "ben"], "event_timestamp": [at] * 2})
    found = store.get_historical_features(spine, views(of)).to_arrow()
    return list(zip(found["orders__n"].to_pylist(), found["orders__sum"].to_pylist(), strict=True))


def test_rows_are_copied_once_as_they_come(database: tuple[str, Run], tmp_path: Path, tell: Told) -> None:
    """By training and by runs of materialize, of several projects of one database alike."""
    url, run = database
    made(run)
    add(run, (1, "ann", 1, 1.5), (2, "ben", 2, None), (3, "ann", 3, 2.0))
    clock = ManualClock(AT)
    with FeatureStore(project(tmp_path / "here", url), clock=clock) as store:
        of = source()
        assert trained(store, of) == [(2, 3.5), (1, None)]
        store.apply(views(of))
        store.materialize(progress=False)
        add(run, (7, "ben", 4, 4.0))
        clock.set(AT + timedelta(hours=1))
        store.materialize(progress=False)
        served = store.get_online_features([{"user": "ann"}, {"user": "ben"}], views(of)).to_arrow()
        assert served["orders__n"].to_pylist() == [2, 2]
        assert served["orders__sum"].to_pylist() == [3.5, 4.0]
        copies = sorted(file.name for file in (tmp_path / "here/.featurestore/copies").rglob("*.parquet"))
        assert copies == ["000000.parquet", "000001.parquet"]
        run("DELETE FROM orders")
        assert trained(store, of, AT + timedelta(hours=1)) == [(2, 3.5), (2, 4.0)]
    driver = url.partition(":")[0]
    tell(driver, version=f"adbc-driver-{driver} {version(f'adbc-driver-{driver}')}", ran="it ran", compared=8)


def test_a_cursor_has_the_name_that_it_has(database: tuple[str, Run], tmp_path: Path) -> None:
    """Loading tools begin theirs with an underscore, and a column may have any signs."""
    url, run = database
    made(run)
    add(run, (1, "a", 0, 1.0))
    for number, name in enumerate(("_loaded", 'My ""ID""')):
        run(f'ALTER TABLE orders RENAME COLUMN "{"id" if number == 0 else "_loaded"}" TO "{name}"')
        of = source(cursor=name.replace('""', '"'))
        with FeatureStore(project(tmp_path / str(number), url), clock=ManualClock(AT)) as store:
            store.apply(views(of))
            assert trained(store, of)
            assert [one.copied for one in store.optimize()] == [1]


def test_a_query_in_the_databases_own_sql(database: tuple[str, Run], tmp_path: Path) -> None:
    url, run = database
    made(run)
    add(run, (1, "ann", 1, 1.0), (2, "ann", 2, 10.0), (3, "ben", 3, 5.0))
    query = 'SELECT id, "user", at_us, amount * 2 AS amount FROM orders WHERE amount < 10;'
    with FeatureStore(project(tmp_path / "here", url), clock=ManualClock(AT)) as store:
        assert trained(store, source(table=None, query=query)) == [(1, 2.0), (1, 10.0)]


def test_several_processes_copy_each_row_once(database: tuple[str, Run], tmp_path: Path) -> None:
    url, run = database
    made(run)
    add(run, *[(number, "ann", number, 1.0) for number in range(1, 51)])
    folder = project(tmp_path / "here", url)

    def ask(_: int) -> list[tuple[Any, Any]]:
        with FeatureStore(folder, clock=ManualClock(AT)) as store:
            return trained(store, source())

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(8))) == [[(50, 50.0), (None, None)]] * 8
    assert len(list((folder / ".featurestore/copies").rglob("*.parquet"))) == 1


def test_a_copy_that_was_killed_counts_for_nothing(
    database: tuple[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither before its file has its name, nor after, before the index has it."""
    url, run = database
    made(run)
    add(run, (1, "ann", 1, 1.0))
    folder = project(tmp_path / "here", url)
    with FeatureStore(folder, clock=ManualClock(AT)) as store:
        for name in ("write_parquet", "replace"):
            real = getattr(database_copies, name)

            def killed(*said: Any, real: Any = real, **more: Any) -> None:
                if name == "write_parquet":
                    real(*said, **more)
                raise KeyboardInterrupt

            monkeypatch.setattr(database_copies, name, killed)
            with pytest.raises(KeyboardInterrupt):
                trained(store, source())
            monkeypatch.undo()
        add(run, (2, "ann", 2, 1.0))
        assert trained(store, source()) == [(2, 2.0), (None, None)]
        (index,) = (folder / ".featurestore/copies").rglob("index.json")
        assert json.loads(index.read_text()) == {"files": ["000000.parquet"], "upto": "2", "next": 1, "replaced": []}


def test_cursors_of_times_and_text(database: tuple[str, Run], tmp_path: Path) -> None:
    url, run = database
    run('CREATE TABLE orders (id TEXT NOT NULL, "user" TEXT, at_us BIGINT, amount DOUBLE PRECISION, gone BOOLEAN)')
    add(run, ("2026-01-01 o'clock", "ann", 1, 1.0))  # type: ignore[arg-type]  # a value of another type than the column's
    with FeatureStore(project(tmp_path / "here", url), clock=ManualClock(AT)) as store:
        assert trained(store, source()) == [(1, 1.0), (None, None)]
        add(run, ("2026-01-02", "ben", 1, 1.0))  # type: ignore[arg-type]  # a value of another type than the column's
        assert trained(store, source()) == [(1, 1.0), (1, 1.0)]
        assert trained(store, source()) == [(1, 1.0), (1, 1.0)]


def test_times_of_postgresql_as_cursor(server: PostgresServer, tmp_path: Path) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS events")
        connection.execute('CREATE TABLE events ("user" text, at timestamptz, learned timestamptz(6), amount float8)')
        sql = "INSERT INTO events VALUES ('ann', '2026-03-01T00:00:00Z', %s, 1.5)"
        connection.execute(sql, ["2026-03-01T00:00:00.123456+02:00"])
        of = DatabaseSource(
            "orders", "shop", table="public.events", cursor="learned", event_time="at", known_at="learned"
        )
        with FeatureStore(project(tmp_path / "here", server.url), clock=ManualClock(AT)) as store:
            assert trained(store, of)[0] == (1, 1.5)
            assert trained(store, of)[0] == (1, 1.5)
            connection.execute(sql, ["2026-03-01T00:00:00.123457+02:00"])
            assert trained(store, of)[0] == (2, 3.0)


def test_what_is_wrong_is_told_without_secrets(database: tuple[str, Run], tmp_path: Path) -> None:
    url, run = database
    made(run)
    with FeatureStore(project(tmp_path / "here", url), clock=ManualClock(AT)) as store:
        for of, words in (
            (source(), "has no rows yet"),
            (source(table="nothing"), "database 'shop' refuses it"),
            (source(cursor="nothing"), "database 'shop' refuses it"),
            (source(table=None, query="SELEKT 1"), "database 'shop' refuses it"),
            (
                DatabaseSource("orders", "other", table="orders", cursor="id", event_time="at_us"),
                "has no 'other'.*Databases: shop",
            ),
        ):
            with pytest.raises(SourceError, match=words) as caught:
                trained(store, of)
            assert "secret" not in str(caught.value)
        add(run, (1, "ann", 1, 1.5))
        with pytest.raises(SourceError, match="cursor 'amount' is float"):
            trained(store, source(cursor="amount"))


def test_a_database_that_is_away_is_told(tmp_path: Path) -> None:
    for url, words in (
        ("postgresql://me:hush@127.0.0.1:9/shop", "cannot be opened"),
        ("sqlite:///nothing.db", "there is no file"),
        ("oracle://host/shop", "sqlite, postgresql, postgres, redshift, snowflake, bigquery are read"),
    ):
        with FeatureStore(project(tmp_path / "here", url)) as store, pytest.raises(SourceError, match=words) as caught:
            trained(store, source())
        assert "hush" not in str(caught.value)


def test_values_types_and_statuses_are_those_of_parquet(server: PostgresServer, tmp_path: Path) -> None:
    """Of the types that PostgreSQL has; lists and decimals are said in the query."""
    said = {"flag": "boolean", "small": "integer", "big": "bigint", "narrow": "real", "wide": "double precision",
            "text": "text", "raw": "bytea", "day": "date", "moment": "timestamptz"}  # fmt: skip
    columns = ["user text", "at timestamptz", "seen timestamptz", *[f"{name} {of}" for name, of in said.items()]]
    near = [row for row in ROWS if row["moment"] is None or row["moment"].year < 9000]
    with psycopg.connect(server.url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS every")
        named = [f'"{column.partition(" ")[0]}" {column.partition(" ")[2]}' for column in columns]
        cursor.execute(f"CREATE TABLE every (n serial, {', '.join(named)})")
        names = ["user", "at", "seen", *said]
        quoted = ", ".join(f'"{name}"' for name in names)
        cursor.executemany(
            f"INSERT INTO every ({quoted}) VALUES ({', '.join(['%s'] * len(names))})",
            [[row[name] for name in names] for row in near],
        )
    views_of = [*said]
    found = []
    for of in (
        parquet(tmp_path, near, **WORDS),
        DatabaseSource("rows", "shop", table="every", cursor="n", **WORDS),
    ):
        view = FeatureView("plain", entity=USER, source=of, features=views_of, ttl="3h")
        with FeatureStore(
            project(tmp_path / "here", server.url), clock=ManualClock(NOON + timedelta(hours=7))
        ) as store:
            spine = pa.table(
                {
                    "user": ["u0", "u1", "u2"] * 40,
                    "event_timestamp": [NOON + timedelta(minutes=5 * n) for n in range(120)],
                }
            )
            frame = store.get_historical_features(spine, [view], with_status=True).to_arrow()
            found.append(frame)
    assert found[0].schema.remove_metadata() == found[1].schema.remove_metadata()
    assert (
        found[0]
        .drop_columns(["plain__narrow", "plain__wide"])
        .equals(found[1].drop_columns(["plain__narrow", "plain__wide"]))
    )
    for name in ("plain__narrow", "plain__wide"):
        assert list(map(repr, found[0][name].to_pylist())) == list(map(repr, found[1][name].to_pylist()))


def test_declarations_that_cannot_be() -> None:
    for said, words in (
        ({"table": None}, "table or query must be said"),
        ({"query": "SELECT 1"}, "table and query are two ways"),
        ({"known_at": ARRIVAL}, "known_at=ARRIVAL is for files"),
        ({"cursor": ""}, "cursor"),
        ({"overlap": 5}, "overlap: Duration 5 is a bare number"),
    ):
        with pytest.raises(DeclarationError, match=words):
            source(**said)
    with pytest.raises(DeclarationError, match="database is a name, such as 'shop'") as caught:
        DatabaseSource("orders", "postgresql://me:hush@host/shop", table="orders", cursor="id", event_time="at")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "table", "cursor"),
    [
        ("sqlite", '"sales"."or""ders"', 'r."id"'),
        ("postgresql", '"sales"."or""ders"', 'r."id"'),
        ("redshift", '"sales"."or""ders"', 'r."id"'),
        ("snowflake", '"sales"."or""ders"', 'r."id"'),
        ("bigquery", '`sales`.`or"ders`', "r.`id`"),
    ],
)
def test_what_each_kind_is_asked(scheme: str, table: str, cursor: str) -> None:
    of = connections.DATABASES[scheme]
    asked = database_copies.new_rows(source(table='sales.or"ders'), of, "7")
    assert asked == (
        f"SELECT max({cursor}) AS c FROM {table} AS r WHERE {cursor} > 7",
        f"SELECT * FROM {table} AS r WHERE {cursor} > 7 AND {cursor} <= ",
    )
    asked = database_copies.new_rows(source(table=None, query="SELECT 1 AS id ; "), of, None)
    assert asked == (
        f"SELECT max({cursor}) AS c FROM (SELECT 1 AS id \n) AS r",
        f"SELECT * FROM (SELECT 1 AS id \n) AS r WHERE {cursor} <= ",
    )


@pytest.mark.parametrize(
    ("scheme", "text"),
    [("sqlite", r"'o''c\n'"), ("postgresql", r"'o''c\n'"), ("snowflake", r"'o''c\\n'"), ("bigquery", r"'o\'c\\n'")],
)
def test_texts_and_times_of_each_kind(scheme: str, text: str) -> None:
    of = connections.DATABASES[scheme]
    assert connections.literal(of, source(), r"o'c\n") == text
    at = datetime(2026, 3, 1, 2, 0, 0, 1, tzinfo=timezone(timedelta(hours=2)))
    assert connections.literal(of, source(), at) == "'2026-03-01 00:00:00.000001+00:00'"
    assert connections.literal(of, source(), at.date()) == "'2026-03-01'"


def test_urls_of_warehouses() -> None:
    """As their drivers take them."""
    for url, said in (
        (
            "redshift://me:pass@host:5439/db?sslmode=require",
            {"uri": "postgresql://me:pass@host:5439/db?sslmode=require"},
        ),
        (
            "snowflake://me:pass@account/db/schema?warehouse=w",
            {"uri": "snowflake://me:pass@account/db/schema?warehouse=w"},
        ),
        ("bigquery://project", {"db_kwargs": {"adbc.bigquery.sql.project_id": "project"}}),
        (
            "bigquery://project/data?credentials=/key.json&location=EU",
            {
                "db_kwargs": {
                    "adbc.bigquery.sql.project_id": "project",
                    "adbc.bigquery.sql.dataset_id": "data",
                    "adbc.bigquery.sql.auth_type": "adbc.bigquery.sql.auth_type.json_credential_file",
                    "adbc.bigquery.sql.auth_credentials": "/key.json",
                    "adbc.bigquery.sql.location": "EU",
                }
            },
        ),
    ):
        assert connections.database_of(source(), url).connect(url) == said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("snowflake://me:hush@127.0.0.1:9/db/schema?account=a&protocol=http&loginTimeout=2&clientTimeout=2", "cannot be opened: .*127"),
        ("bigquery://project/data?credentials=/no/hush.json", "refuses it|cannot be opened"),
        ("redshift://me:hush@127.0.0.1:9/db", "cannot be opened: .*127"),
    ],
)  # fmt: skip
def test_the_drivers_of_warehouses_are_there_and_say_what_fails(url: str, words: str, tmp_path: Path) -> None:
    """Of services that nobody can come to here."""
    with FeatureStore(project(tmp_path / "here", url)) as store, pytest.raises(SourceError, match=words) as caught:
        trained(store, source())
    assert "hush" not in str(caught.value)
    assert "takes the library" not in str(caught.value)


def test_a_driver_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, extra in (("snowflake", "snowflake"), ("bigquery", "bigquery"), ("postgresql", "databases")):
        monkeypatch.setitem(sys.modules, f"{connections.DATABASES[scheme].driver}.dbapi", None)
        with (
            FeatureStore(project(tmp_path / "here", f"{scheme}://me:hush@host/db")) as store,
            pytest.raises(SourceError, match=rf"adbc_driver_{scheme}.*pip install 'featurestore\[{extra}\]'"),
        ):
            trained(store, source())


def test_many_copies_become_few_of_the_same_rows(
    database: tuple[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order; a column that came and a type that changed in between are as they were. A process that is killed on the
    way leaves what was there, and who began to read before goes on."""
    url, run = database
    made(run)
    monkeypatch.setattr(database_copies, "MANY_FILES", 4)
    folder = project(tmp_path / "here", url)
    with FeatureStore(folder, clock=ManualClock(AT)) as store:
        of = store._project.offline

        def rows() -> list[dict[str, Any]]:
            return [row for file in of.files(source()) for row in pq.read_table(file.parquet).to_pylist()]

        found: list[dict[str, Any]] = []
        for number in range(1, 24):
            if number == 12:
                run("ALTER TABLE orders ADD COLUMN note TEXT")
            add(run, (number, "ann" if number % 2 else "ben", number, (None, 1.5, math.nan)[number % 3]))
            before = of.files(source())
            now = rows()
            assert repr(now[: len(found)]) == repr(found)
            assert [row["id"] for row in now] == [*range(1, number + 1)]
            assert all(Path(file.parquet).exists() for file in before)
            assert len(before) <= 7
            found = now
        assert trained(store, source())[0][0] == 12
        (index,) = (folder / ".featurestore/copies").rglob("index.json")
        monkeypatch.setattr(database_copies, "MANY_FILES", 99)
        for number in range(24, 27):
            add(run, (number, "ann", number, 1.0))
            found = rows()
        monkeypatch.setattr(database_copies, "MANY_FILES", 1)
        for name in ("write_parquet", "_merge", "replace"):
            real = getattr(database_copies, name)

            def killed(*said: Any, real: Any = real, **more: Any) -> None:
                if name != "replace":
                    real(*said, **more)
                raise KeyboardInterrupt

            was = index.read_bytes()
            monkeypatch.setattr(database_copies, name, killed)
            with pytest.raises(KeyboardInterrupt):
                rows()
            monkeypatch.setattr(database_copies, name, real)
            assert index.read_bytes() == was
        assert repr(rows()) == repr(found)
        monkeypatch.setattr(database_copies, "KEPT_SECONDS", -1)
        assert repr(rows()) == repr(found)
        left = {path.name for path in index.parent.iterdir() if path.suffix != ".turn"}
        assert left == {"index.json", "lock", *json.loads(index.read_text())["files"]}


def test_an_index_of_an_earlier_version_goes_on(database: tuple[str, Run], tmp_path: Path) -> None:
    url, run = database
    made(run)
    add(run, (1, "ann", 1, 1.0))
    folder = project(tmp_path / "here", url)
    with FeatureStore(folder, clock=ManualClock(AT)) as store:
        assert trained(store, source()) == [(1, 1.0), (None, None)]
        (index,) = (folder / ".featurestore/copies").rglob("index.json")
        index.write_text('{"files": ["000000.parquet"], "upto": "1"}')
        add(run, (2, "ann", 2, 1.0))
        assert trained(store, source()) == [(2, 2.0), (None, None)]
        assert json.loads(index.read_text())["files"] == ["000000.parquet", "000001.parquet"]


def copied(store: FeatureStore, of: DatabaseSource) -> list[pa.Table]:
    offline = store._project.offline
    return [pq.read_table(file.parquet) for file in offline.files(of)]


def test_infinite_times_of_postgresql(server: PostgresServer, tmp_path: Path) -> None:
    """They are the engine's infinities: what is valid until infinity was valid until long before anything else."""
    columns = [
        "'{}'::timestamptz AS a",
        "'{}'::timestamp AS b",
        "'{}'::date AS c",
        "ARRAY[NULL, '{}'::timestamptz] AS d",
    ]
    parts = [
        f"SELECT {number} AS id, now() AS at, " + ", ".join(column.format(word) for column in columns)
        for number, word in enumerate(("infinity", "-infinity", "2026-03-01"))
    ]
    of = DatabaseSource("rows", "shop", query=" UNION ALL ".join(parts), cursor="id", event_time="at")
    with FeatureStore(project(tmp_path / "here", server.url), clock=ManualClock(AT)) as store:
        (found,) = copied(store, of)
        said = duckdb.sql("SELECT a::TEXT, b::TEXT, c::TEXT, d[2]::TEXT, d[1] FROM found ORDER BY id").fetchall()
    assert said[0] == ("infinity",) * 4 + (None,)
    assert said[1] == ("-infinity",) * 4 + (None,)
    assert said[2][2] == "2026-03-01"


def test_columns_that_the_driver_does_not_know_are_left_out(server: PostgresServer, tmp_path: Path) -> None:
    """They were bytes of PostgreSQL's own; intervals made the whole table one that cannot be copied."""
    query = (
        "SELECT 1 AS id, now() AS at, '10.0.0.1'::inet AS a, interval '1 day' AS b, '[1,5)'::int4range AS c, 1.50::numeric AS d, "
        "'6a2f41a3-c54c-fce8-32d2-0324e1c32e22'::uuid AS e, 'x'::text AS f, '\\x00'::bytea AS g -- and a comment"
    )
    of = DatabaseSource("rows", "shop", query=query, cursor="id", event_time="at")
    with FeatureStore(project(tmp_path / "here", server.url), clock=ManualClock(AT)) as store:
        (found,) = copied(store, of)
        assert found.column_names == ["id", "at", "d", "e", "f", "g"]
        assert found["d"].to_pylist() == ["1.50"]
        view = FeatureView("v", entity=Entity("f", key={"f": String}), source=of, refresh="1h", features=["a"])
        with pytest.raises(FeatureStoreError, match="no column 'a'"):
            store.plan([view])


def test_rows_that_would_never_be_seen_are_told(server: PostgresServer, tmp_path: Path) -> None:
    for query, words in (
        ("SELECT NULL::int AS id, now() AS at UNION ALL SELECT 1, now()", "of its rows 1 have no cursor 'id'"),
        ("SELECT 'infinity'::timestamptz AS id, now() AS at", "cursor 'id' lies outside the years 1 to 9999"),
    ):
        of = DatabaseSource("rows", "shop", query=query, cursor="id", event_time="at")
        with FeatureStore(project(tmp_path / "here", server.url)) as store, pytest.raises(SourceError, match=words):
            copied(store, of)


def test_a_connection_that_ends_midway_leaves_nothing(server: PostgresServer, tmp_path: Path) -> None:
    """What was copied of it by then is gone, and the next reading has every row once."""
    folder = project(tmp_path / "here", server.url)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS long")
        connection.execute(
            "CREATE TABLE long AS SELECT n AS id, now() AS at, repeat('x', 1000) AS v FROM generate_series(1, 20000) n"
        )
        # The backend that is asked ends itself, in the middle of the rows that it sends.
        ends = "CASE WHEN id = 15000 THEN pg_terminate_backend(pg_backend_pid()) END AS z"
        query = f"SELECT id, at, v, {ends} FROM long"
        of = DatabaseSource("rows", "shop", query=query, cursor="id", event_time="at")
        with FeatureStore(folder) as store:
            with pytest.raises(SourceError, match="database 'shop' refuses it: .*terminat"):
                copied(store, of)
            left = [
                path for path in (folder / ".featurestore/copies").rglob("*") if path.suffix in {".parquet", ".partial"}
            ]
            assert left == []
            (found,) = copied(store, DatabaseSource("rows", "shop", table="long", cursor="id", event_time="at"))
            assert found["id"].to_pylist() == [*range(1, 20001)]


def test_a_right_that_is_missing_and_a_view_that_is_gone(server: PostgresServer, tmp_path: Path) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS orders CASCADE")
        connection.execute("CREATE TABLE orders AS SELECT 1 AS id, now() AS at_us")
        connection.execute("CREATE VIEW seen AS SELECT * FROM orders")
        connection.execute(
            "DO $$ BEGIN CREATE ROLE poor LOGIN PASSWORD 'hush'; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
        poor = server.url.replace(urlsplit(server.url).netloc, "poor:hush@")
        assert "poor" in poor
        of = DatabaseSource("rows", "shop", table="seen", cursor="id", event_time="at_us")
        with FeatureStore(project(tmp_path / "poor", poor)) as store:
            with pytest.raises(SourceError, match="permission denied for view seen|cannot be opened") as caught:
                copied(store, of)
            assert "hush" not in str(caught.value)
        with FeatureStore(project(tmp_path / "here", server.url)) as store:
            assert copied(store, of)[0].num_rows == 1
            connection.execute("DROP VIEW seen")
            with pytest.raises(SourceError, match='relation "seen" does not exist'):
                copied(store, of)


def test_rows_that_are_committed_late(server: PostgresServer, tmp_path: Path) -> None:
    """They are found within the overlap, and every row is copied once, however often it is asked for; a row that comes twice is
    two. Beyond it they are not."""
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS late")
        connection.execute("CREATE TABLE late (n int, at timestamptz, v float8, d date)")

        def put(n: int, minute: float, v: float | None = math.nan) -> None:
            at = start + timedelta(minutes=minute)
            connection.execute("INSERT INTO late (n, at, v, d) VALUES (%s, %s, %s, 'infinity')", [n, at, v])

        of = DatabaseSource("rows", "shop", table="late", cursor="at", event_time="at", overlap="10m")
        with FeatureStore(project(tmp_path / "here", server.url)) as store:

            def numbers() -> list[int]:
                return sorted(n for table in copied(store, of) for n in table["n"].to_pylist())

            put(1, 0)
            put(2, 20)
            assert numbers() == numbers() == [1, 2]
            put(3, 15, None)
            put(2, 20)
            put(0, 10)
            assert numbers() == numbers() == [1, 2, 2, 3]
            connection.execute("ALTER TABLE late ADD COLUMN note text DEFAULT 'x', DROP COLUMN v")
            connection.execute("INSERT INTO late (n, at) VALUES (4, %s)", [start + timedelta(minutes=21)])
            assert numbers() == numbers() == [1, 2, 2, 3, 4]
            connection.execute("INSERT INTO late (n, at) VALUES (5, %s)", [start + timedelta(minutes=12)])
            assert numbers() == [1, 2, 2, 3, 4, 5]
        of = DatabaseSource("rows", "shop", table="late", cursor="n", event_time="at", overlap="10m")
        with FeatureStore(project(tmp_path / "other", server.url)) as store:
            assert len(copied(store, of)) == 1
            with pytest.raises(SourceError, match="overlap is for a cursor of times, and 'n' is int32"):
                copied(store, of)


def test_columns_of_sqlite_that_are_null_at_first(tmp_path: Path) -> None:
    """They have the type of the values that come, in the same reading or a later one."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, at_us BIGINT, x REAL, t TEXT, y REAL)")
        rows = [(1_772_366_400_000_000, None, None, None)] * 1500
        connection.executemany("INSERT INTO orders (at_us, x, t, y) VALUES (?, ?, ?, ?)", [*rows, (0, 2.5, "a", None)])
        connection.commit()
        with FeatureStore(project(tmp_path / "here", f"sqlite:///{path}")) as store:
            (found,) = copied(store, source())
            assert found["x"].to_pylist() == [None] * 1500 + [2.5]
            assert found["t"].to_pylist() == [None] * 1500 + ["a"]
            connection.execute("INSERT INTO orders (at_us, x, t, y) VALUES (0, NULL, NULL, 1.5)")
            connection.commit()
            assert [table["y"].to_pylist()[-1] for table in copied(store, source())] == [None, 1.5]
            types = store._project.offline.raw_types(source())
            assert (types["x"], types["t"], types["y"]) == ("DOUBLE", "VARCHAR", "DOUBLE")

"""Files that are not what they are said to be: named, with what they are, and what would be right."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore, FeatureView, ManualClock, ParquetSource, TableSource
from featurestore.declare.sources import Source
from featurestore.errors import DeclarationError, FeatureStoreError, SourceError, SpineError
from tests.small import NOON, THING, hours, opened, table, view_of

ROWS = table(thing=[1, 2], at=[hours(-2), hours(-1)], x=[1.0, 2.0])
FOREIGN = re.compile(r"magic bytes|LINE 1|Catalog Error|IO Error|Parser Error|attached_|Arrow\w*(Invalid|Error)|Errno")
"""What libraries say of files."""


def whole(folder: Path) -> bytes:
    """The bytes of a Parquet file."""
    pq.write_table(ROWS, folder / "whole")
    return (folder / "whole").read_bytes()


def feather(folder: Path) -> bytes:
    ROWS.to_pandas().to_feather(folder / "feather")
    return (folder / "feather").read_bytes()


def database(folder: Path) -> bytes:
    make_database(folder / "database").close()
    return (folder / "database").read_bytes()


def make_database(path: Path) -> duckdb.DuckDBPyConnection:
    """A DuckDB file with a table, and a view of a table that is gone."""
    connection = duckdb.connect(str(path))
    connection.register("given", ROWS)
    connection.execute("CREATE TABLE rows AS FROM given")
    connection.execute("CREATE SCHEMA shop")
    connection.execute("CREATE TABLE shop.orders AS FROM given")
    connection.execute("CREATE TABLE gone AS FROM given")
    connection.execute("CREATE VIEW broken AS FROM gone")
    connection.execute("DROP TABLE gone")
    return connection


NO_PARQUET: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "csv": (lambda _: b"thing,at,x\n1,2024-05-01,1.0\n" * 9, "is no Parquet file, but text, as CSV is"),
    "short": (lambda _: b"abc", "is no Parquet file, but text, as CSV is"),
    "json lines": (lambda _: b'{"thing": 1}\n', "is no Parquet file, but text, as JSON is"),
    "json": (lambda _: b'[{"thing": 1}]', "is no Parquet file, but text, as JSON is"),
    "html": (lambda _: b"<html>404</html>", "perhaps an error page that was saved"),
    "empty": (lambda _: b"", "is empty: 0 bytes"),
    "cut": (lambda folder: whole(folder)[:-10], "begins as a Parquet file and does not end as one: it was not written, or copied, to its end"),
    "footer": (lambda folder: whole(folder)[:-60] + b"\xff" * 52 + whole(folder)[-8:], "is damaged: "),
    "encrypted": (lambda folder: whole(folder)[:-4] + b"PARE", "is encrypted"),
    "gzip": (lambda folder: gzip.compress(whole(folder)), "compressed with gzip; unpack it first"),
    "feather": (feather, "an Arrow (Feather) file"),
    "database": (database, "is no Parquet file, but a DuckDB file; declare it as a TableSource"),
    "bytes": (lambda _: bytes(range(256)), "is no Parquet file, but bytes of another kind"),
}  # fmt: skip
"""What lies in a file, and what is told of it."""


def planned(source: Source) -> None:
    view = FeatureView("view", entity=THING, source=source, refresh="1h", features=["x"])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.plan([view])


def refusal(source: Source) -> str:
    """Why a source cannot be read, which ends with the place of its declaration."""
    with pytest.raises(SourceError) as caught:
        planned(source)
    told = str(caught.value)
    assert told.startswith(source.title)
    assert told.endswith(f" ({source.origin})")
    assert not FOREIGN.search(told), told
    return told


@pytest.mark.parametrize("kind", NO_PARQUET)
def test_a_file_that_is_no_parquet_says_what_it_is(kind: str, tmp_path: Path) -> None:
    """As the file of a source, and as that of a spine."""
    write, says = NO_PARQUET[kind]
    path = tmp_path / "rows.parquet"
    path.write_bytes(write(tmp_path))
    assert f"{path} {says}" in refusal(ParquetSource("rows", path, event_time="at")) or says.startswith(
        ("perhaps", "compressed", "an Arrow")
    )
    assert says in refusal(ParquetSource("rows", path, event_time="at"))
    with opened(view_of(ROWS, ["x"])) as (store, _), pytest.raises(SpineError) as caught:
        store.get_historical_features(str(path), "service", timestamp="at").to_arrow()
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert not FOREIGN.search(str(caught.value))


def test_a_file_that_is_whole_and_has_what_arrow_does_not_read_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"thing": [1], "x": [1.0], "wide": pl.Series([2**70], dtype=pl.Int128)}).write_parquet(path)
    told = refusal(ParquetSource("rows", path, event_time=None))
    assert f"{path} has what Arrow does not read: Integers with more than 64 bits" in told
    assert "damaged" not in told


@pytest.mark.parametrize("name", ["000000_0", "part-0000.parq", "part-0000.PARQUET"])
def test_a_folder_of_files_of_other_names_says_so(name: str, tmp_path: Path) -> None:
    """Hive's have no suffix; a pattern finds them."""
    (tmp_path / "rows").mkdir()
    pq.write_table(ROWS, tmp_path / "rows" / "_hidden.parquet")
    source = ParquetSource("rows", tmp_path / "rows", event_time="at")
    assert "whose name does not end in" not in refusal(source)
    pq.write_table(ROWS, tmp_path / "rows" / name)
    says = f"there is {tmp_path / 'rows' / name}, whose name does not end in .parquet; where it is one, name it, or a pattern"
    assert says in refusal(source)
    planned(ParquetSource("rows", tmp_path / "rows" / "[0p]*", event_time="at"))


def test_text_can_be_declared_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    for text, advice in (
        (b"thing,at\n1,2\n", "declare it as a CsvSource"),
        (b'{"thing": 1}\n', "declare it as a JsonLinesSource"),
    ):
        path.write_bytes(text)
        assert advice in refusal(ParquetSource("rows", path, event_time="at"))


def test_rows_that_are_damaged_are_told_without_the_engines_sql(tmp_path: Path) -> None:
    """What the columns say is whole, so that the damage shows when rows are read, which each path does."""
    path = tmp_path / "rows.parquet"
    pq.write_table(ROWS, path, compression="zstd", use_dictionary=False)
    first = pq.read_metadata(path).row_group(0).column(2).data_page_offset
    held = path.read_bytes()
    with opened(view_of(path, ["x"])) as (store, _):
        status = path.stat()
        path.write_bytes(held[: first + 8] + b"\xff" * 24 + held[first + 32 :])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        spine = table(thing=[1], event_timestamp=[NOON])
        for read in (
            lambda: store.get_historical_features(spine, "service").to_arrow(),
            lambda: store.materialize(progress=False),
            lambda: store.explain("view", {"thing": 1}),
        ):
            with pytest.raises(FeatureStoreError) as caught:
                read()
            assert "ParquetSource 'view_rows'" in str(caught.value)
            assert not FOREIGN.search(str(caught.value)), caught.value


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("hdfs://bucket/x.parquet", "path: 'hdfs://bucket/x.parquet' lies in no folder of this machine"),
        ("s3:/bucket/x.parquet", "lies in no folder of this machine"),
        ("https://example.org/x.parquet", "lies in no folder of this machine"),
        ("file:///data/x.parquet", "is a URL; write the path alone: '/data/x.parquet'"),
        ("", "path: must not be empty"),
        ("a\0b", "path: 'a\\x00b' is no path: it holds a NUL"),
    ],
)  # fmt: skip
def test_what_is_no_path_is_refused_where_it_is_declared(path: str, says: str) -> None:
    for declare in (
        lambda: ParquetSource("rows", path, event_time="at"),
        lambda: TableSource("rows", path, table="rows", event_time="at"),
    ):
        with pytest.raises(DeclarationError) as caught:
            declare()
        assert says in str(caught.value)
        assert "tests/sources/test_unreadable.py:" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "of_parquet", "of_table"),
    [
        ("s3a://b/x", "; URLs of that object store begin with s3:// here", ", and of object stores only Parquet files are read and"),
        ("GS://b/x", "; URLs of that object store begin with gs:// here", ", and of object stores only Parquet files are read and"),
        ("abfss://c@a.dfs.core.windows.net/x", "; URLs of that object store begin with az://CONTAINER/ here", ", and of object stores"),
        ("hdfs://h/x", ", nor in an object store, whose URLs begin with az://, gs:// or s3://", "; name a folder, or mount the store"),
    ],
)  # fmt: skip
def test_a_url_that_is_not_read_says_which_are(path: str, of_parquet: str, of_table: str) -> None:
    """Other tools name the same stores otherwise, and a source that reads no store does not speak of its URLs."""
    for declare, says in (
        (lambda: ParquetSource("rows", path, event_time="at"), of_parquet),
        (lambda: TableSource("rows", path, table="rows", event_time="at"), of_table),
    ):
        with pytest.raises(DeclarationError) as caught:
            declare()
        assert f"path: '{path}' lies in no folder of this machine{says}" in str(caught.value)


def test_what_is_no_path_is_refused_where_it_is_located_and_as_a_spine(tmp_path: Path) -> None:
    """By featurestore.toml; and a spine's path, of which nothing is asked before its rows are."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\nsources.rows = "hdfs://bucket/x.parquet"\n')
    source = ParquetSource("rows", "rows.parquet", event_time="at")
    view = FeatureView("view", entity=THING, source=source, refresh="1h", features=["x"])
    with FeatureStore(tmp_path) as store, pytest.raises(SourceError, match="lies in no folder of this machine"):
        store.plan([view])
    with (
        opened(view_of(ROWS, ["x"])) as (store, _),
        pytest.raises(SpineError, match="lies in no folder of this machine"),
    ):
        store.get_historical_features("hdfs://bucket/x.parquet", "service").to_arrow()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rosw", "has no table 'rosw'. Did you mean 'rows'? It has: broken, rows, shop.orders."),
        ("orders", "has no table 'orders'. Did you mean 'shop.orders'?"),
        ("nowhere.rows", "has no table 'nowhere.rows'."),
        ("a.b.c.d", "has no table 'a.b.c.d'."),
        ("select 1", "has no table 'select 1'."),
        ("broken", "cannot be read: Table with name gone does not exist!"),
    ],
)
def test_a_table_that_is_not_there_says_which_are(name: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.duckdb"
    make_database(path).close()
    for table_name in ("rows", "main.rows", "ROWS", "shop.orders"):
        planned(TableSource("rows", path, table=table_name, event_time="at"))
    assert says in refusal(TableSource("rows", path, table=name, event_time="at"))


@pytest.mark.parametrize("kind", ["csv", "empty", "cut", "bytes"])
def test_a_file_that_is_no_database_says_what_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.duckdb"
    path.write_bytes(NO_PARQUET[kind][0](tmp_path))
    told = refusal(TableSource("rows", path, table="rows", event_time="at"))
    says = {
        "csv": "text, as CSV is",
        "empty": "is empty: 0 bytes",
        "cut": "a Parquet file; declare it as a ParquetSource",
    }
    assert f"{path} is" in told
    assert says.get(kind, "is no DuckDB file, but bytes of another kind") in told


def test_a_database_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.duckdb"
    path.write_bytes(database(tmp_path)[:-300_000])
    assert "is shorter than it says" in refusal(TableSource("rows", path, table="rows", event_time="at"))


def test_a_database_that_is_open_says_by_whom(tmp_path: Path) -> None:
    """In this process, and in another."""
    path = tmp_path / "rows.duckdb"
    source = TableSource("rows", path, table="rows", event_time="at")
    connection = make_database(path)
    assert f"{path} is open in this process, by duckdb.connect(…); close that connection" in refusal(source)
    connection.close()
    code = f"import duckdb, sys; held = duckdb.connect({str(path)!r}); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        assert f"{path} is open for writing in process {other.pid} (" in refusal(source)
        other.communicate()
    planned(source)

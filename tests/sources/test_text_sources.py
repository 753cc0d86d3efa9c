"""CSV and JSON lines: what is read, what is refused by file, row and column, and their copies."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from featurestore import CsvSource, Entity, FeatureStore, FeatureView, JsonLinesSource, Latest, ManualClock
from featurestore.declare.text_sources import TextSource
from featurestore.errors import DeclarationError, FilesChangedError, SourceError
from featurestore.sources.offline import Offline
from featurestore.sources.text import text_files
from featurestore.types import Array, Bool, Date, Float64, Int32, Int64, String, Timestamp

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SCHEMA = {"user": String, "at": Timestamp, "n": Int64, "x": Float64}
HEAD = "user,at,n,x\n"
ROW = "u1,2026-03-01T10:00:00Z,1,0.5\n"


def csv(folder: Path, text: str | bytes, **said: Any) -> CsvSource:
    path = folder / said.pop("name", "rows.csv")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return CsvSource("rows", path, **{"schema": SCHEMA, "event_time": "at", **said})


def lines(folder: Path, text: str | bytes, **said: Any) -> JsonLinesSource:
    path = folder / said.pop("name", "rows.jsonl")
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return JsonLinesSource("rows", path, **{"schema": SCHEMA, "event_time": "at", **said})


def read(source: TextSource, folder: Path) -> pa.Table:
    offline = Offline(folder)
    offline.copies_folder = folder / "copies"
    try:
        offline.raw_types(source)
        with offline.session() as session:
            names = ", ".join(f'"{name}"' for name in offline.raw_types(source))
            return session.connection.sql(f"SELECT {names} FROM {session.scan(source).relation}").to_arrow_table()
    finally:
        offline.close()


def test_what_is_read(tmp_path: Path) -> None:
    """A BOM, Windows' line ends, columns in another order and beside, quotes, and an end without a line's end."""
    text = '\ufeffmore,n,x,at,user\r\n,1,,2026-03-01 10:00:00+01:00,"a,""b\n"\r\nz,,1e3,2026-03-01,""'
    found = read(csv(tmp_path, text), tmp_path).to_pylist()
    assert found == [
        {"user": 'a,"b\n', "at": datetime(2026, 3, 1, 9, tzinfo=UTC), "n": 1, "x": None},
        {"user": "", "at": datetime(2026, 3, 1, tzinfo=UTC), "n": None, "x": 1000.0},
    ]


def test_columns_are_named_as_the_file_names_them(tmp_path: Path) -> None:
    """Other systems write blanks, quotes, letters of any alphabet, and names that we or the engine have for something else."""
    names = ["Order ID", 'x "q" `.c', "_loaded", "__row", "rowid", "Größe"]
    schema = {"at": Timestamp, **dict.fromkeys(names, Int64)}
    head = ",".join('"' + name.replace('"', '""') + '"' for name in schema)
    values = {"at": "2026-03-01T10:00:00Z", **{name: place for place, name in enumerate(names)}}
    entity = Entity("order", key={"order": Int64})
    for source in (
        csv(tmp_path, f"{head}\n{','.join(map(str, values.values()))}\n", schema=schema),
        lines(tmp_path, orjson.dumps(values), schema=schema),
    ):
        features = {f"f{place}": Latest(name) for place, name in enumerate(names)}
        view = FeatureView(
            "view", entity=entity, source=source, key={"order": "Order ID"}, refresh="1h", features=features
        )
        spine = pa.table({"order": [0], "event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))})
        with FeatureStore.local(clock=ManualClock(NOON)) as store:
            store.apply([view])
            (row,) = store.get_historical_features(spine, [view]).to_arrow().to_pylist()
        assert [row[f"view__f{place}"] for place in range(len(names))] == list(range(len(names)))
    with pytest.raises(DeclarationError, match="'' is no name of a column"):
        csv(tmp_path, HEAD, schema={**SCHEMA, "": Int64})


def test_a_file_of_its_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert read(csv(tmp_path, HEAD), tmp_path).num_rows == 0
    assert read(lines(tmp_path, "\n\n"), tmp_path).num_rows == 0


def test_delimiter_and_null(tmp_path: Path) -> None:
    text = 'user;at;n;x\nNA;2026-03-01T10:00:00Z;NA;1.5\n"NA";2026-03-01T10:00:00Z;2;-\n'
    found = read(csv(tmp_path, text, delimiter=";", null=["NA", "-"]), tmp_path)
    assert found["user"].to_pylist() == [None, "NA"]
    assert found["n"].to_pylist() == [None, 2]
    assert found["x"].to_pylist() == [1.5, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "rows.csv cannot be read as CSV: Empty CSV file"),
        ("user,at,n\n", r"rows.csv has no column 'x'"),
        ("user,at,N,x\n", r"rows.csv has no column 'n'. Its columns: N, at"),
        ("user,at,n,x,n\n", r"rows.csv has two columns 'n'"),
        (HEAD + ROW + "u1,2026-03-01T10:00:00Z,1.5,0\n", r"rows.csv, row 2, column 'n' must be Int64: '1.5' is no integer"),
        (HEAD + "u1,2026-03-01T10:00:00Z,NA,0\n", r"row 1, column 'n' .*where 'NA' stands for null, say null=\['', 'NA'\]"),
        (HEAD + "u1,01.03.2026,1,0\n", r"row 1, column 'at' must be Timestamp: '01.03.2026' is no timestamp such as"),
        (HEAD + "u1,2026-03-01T10:00:00Z,1,\"1,5\"\n", r"column 'x' must be Float64: '1,5' is no number"),
        (HEAD + ROW + "u1,2026-03-01T10:00:00Z,1\n", r"rows.csv cannot be read as CSV.*Expected 4 columns, got 3"),
        (HEAD.encode() + b"\xff,2026-03-01T10:00:00Z,1,1\n", r"rows.csv cannot be read as CSV.*UTF8"),
        (HEAD.encode() + b"u1,2026-03-01T10:00:00Z,99999999999999999999,1\n", r"'99999999999999999999' .*Int64|does not fit"),
        (HEAD + "u1,2026-03-01+05:00,1,0\n", r"row 1, column 'at' must be Timestamp: '2026-03-01\+05:00' is no timestamp"),
        (HEAD + "u1,2026-03-01x10:00,1,0\n", r"row 1, column 'at' must be Timestamp: '2026-03-01x10:00' is no timestamp"),
        ((HEAD + ROW).encode("utf-16"), "rows.csv cannot be read as CSV: it is text in UTF-16; write it in UTF-8"),
        (gzip.compress((HEAD + ROW).encode(), mtime=0), "rows.csv cannot be read as CSV: it is compressed with gzip; let its name end"),
        (b"PK\x03\x04" + bytes(60), "rows.csv cannot be read as CSV: it is a ZIP archive"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_by_file_row_and_column(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        read(csv(tmp_path, text), tmp_path)
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"user": "u1"\n', r"rows.jsonl, line 1 is no JSON"),
        ("\n[1]\n", r"rows.jsonl, line 2 is no object"),
        ('{"at": "2026-03-01T10:00:00Z"}\n\n{"n": "1"}\n', r"rows.jsonl, row 3, column 'n' must be Int64: '1' is no integer"),
        ('{"n": 1.0}\n', r"column 'n' must be Int64: 1.0 is no integer"),
        ('{"x": NaN}\n', r"line 1 is no JSON"),
        ('{"at": 1767225600}\n', r"column 'at' must be Timestamp: 1767225600 is no timestamp"),
        ('{"n": 1, "n": 2}\n', r"rows.jsonl, line 1 has the key 'n' twice"),
        ('{"n": 1}\n{"x": {"a": 1, "a": 1}}\n', r"rows.jsonl, line 2 has the key 'a' twice"),
        ('{"N": 1}\n{"x": 1.0}\n', r"rows.jsonl has no key 'n', and has a key 'N'; declare it as it is written"),
        ('{"at": "yesterday"}\n', r"row 1, column 'at' must be Timestamp: 'yesterday' is no timestamp"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_told_by_file_line_and_column(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        read(lines(tmp_path, text), tmp_path)


def test_an_empty_text_in_quotes_is_null_where_it_is_no_text(tmp_path: Path) -> None:
    """As programs write it that put all values into quotes. Another word in quotes stands for itself."""
    text = 'user,at,n,x\n"","2026-03-01T10:00:00Z","",""\n,"2026-03-01T10:00:00Z","5",NA\n'
    found = read(csv(tmp_path, text, null=["", "NA"]), tmp_path)
    assert found["user"].to_pylist() == ["", None]
    assert (found["n"].to_pylist(), found["x"].to_pylist()) == ([None, 5], [None, None])
    with pytest.raises(SourceError, match="in quotes 'NA' is a text, and stands for null without them"):
        read(csv(tmp_path, HEAD + 'u1,2026-03-01T10:00:00Z,"NA",0\n', name="b.csv", null=["", "NA"]), tmp_path)


@pytest.mark.parametrize("suffix", ["csv.gz", "jsonl.gz"])
def test_a_file_that_its_name_says_is_compressed_and_is_not(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"rows.{suffix}").write_bytes((HEAD + ROW).encode())
    make = csv if suffix == "csv.gz" else lines
    with pytest.raises(
        SourceError, match=rf"rows.{suffix} cannot be read.*: it is not compressed with gzip, as its name says"
    ):
        read(make(tmp_path, (HEAD + ROW).encode(), name=f"rows.{suffix}"), tmp_path)


def test_rows_are_counted_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that is told is the file's, and not the block's."""
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 1 << 12)
    rows = [ROW] * 5000
    assert read(csv(tmp_path, HEAD + "".join(rows)), tmp_path).num_rows == 5000
    rows[4321] = "u1,2026-03-01T10:00:00Z,no,0.5\n"
    with pytest.raises(SourceError, match="row 4322, column 'n'"):
        read(csv(tmp_path, HEAD + "".join(rows), name="more.csv"), tmp_path)
    monkeypatch.setattr(text_files, "JSON_ROWS", 7)
    text = "".join(f'{{"n": {number}}}\n' for number in range(100))
    assert sorted(read(lines(tmp_path, text), tmp_path)["n"].to_pylist()) == list(range(100))


def test_a_gzip_that_was_cut_is_told(tmp_path: Path) -> None:
    whole = gzip.compress((HEAD + ROW * 1000).encode())
    with pytest.raises(SourceError, match=r"rows\.csv\.gz"):
        read(csv(tmp_path, whole[:-20], name="rows.csv.gz"), tmp_path)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}\n' * 1000)[:-9])
    with pytest.raises(SourceError, match=r"rows\.jsonl\.gz cannot be read"):
        read(JsonLinesSource("rows", path, schema=SCHEMA, event_time="at"), tmp_path)


def test_folders_patterns_and_partitions(tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / "rows" / f"day={day}").mkdir(parents=True)
        (tmp_path / "rows" / f"day={day}" / "part.csv").write_text(HEAD + ROW * day)
    (tmp_path / "rows" / "_notes.csv").write_text("not data")
    (tmp_path / "rows" / "readme.txt").write_text("not data")
    source = CsvSource("rows", tmp_path / "rows", schema=SCHEMA, event_time="at", partitions={"day": Int32})
    assert sorted(read(source, tmp_path)["day"].to_pylist()) == [1, 2, 2]
    with pytest.raises(SourceError, match="no CSV file matches"):
        read(CsvSource("rows", tmp_path / "rows" / "*.nothing", schema=SCHEMA, event_time="at"), tmp_path)


def test_columns_that_a_file_may_lack(tmp_path: Path) -> None:
    schema = {**SCHEMA, "list": Array(Int64), "flag": Bool}
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.csv").write_text(HEAD + ROW)
    (tmp_path / "rows" / "b.csv").write_text("flag,user,at,n,x\ntrue," + ROW)
    source = CsvSource("rows", tmp_path / "rows", schema=schema, event_time="at", optional=["list", "flag"])
    found = read(source, tmp_path).sort_by("flag")
    assert found["flag"].to_pylist() == [True, None]
    assert found["list"].type == pa.list_(pa.int64())
    assert found["list"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (lambda: CsvSource("rows", "r.csv", schema={}, event_time=None), "schema"),
        (lambda: CsvSource("rows", "r.csv", schema={"a": Int64}, event_time="at"), "event_time: the schema has no column 'at'"),
        (lambda: CsvSource("rows", "r.csv", schema={"a": Int64, "A": Int64}, event_time=None), "differ in case alone"),
        (lambda: CsvSource("rows", "r.csv", schema={"a": Int64}, event_time=None, delimiter=";;"), "delimiter"),
        (lambda: CsvSource("rows", "r.csv", schema={"a": Int64}, event_time=None, optional="b"), "optional: the schema has no"),
        (lambda: JsonLinesSource("rows", "r.jsonl", schema={"a": "Int65"}, event_time=None), "Int65"),
    ],
)  # fmt: skip
def test_declarations_that_cannot_be(declare: Callable[[], Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        declare()


def test_a_changed_file_is_read_anew_and_old_copies_go(tmp_path: Path) -> None:
    source = csv(tmp_path, HEAD + ROW)
    assert read(source, tmp_path).num_rows == 1
    (old,) = (tmp_path / "copies").rglob("*.parquet")
    aged = time.time() - 2 * 86_400
    os.utime(old, (aged, aged))
    (leftover := old.with_name(".killed.partial")).write_bytes(b"half")
    os.utime(leftover, (aged, aged))
    csv(tmp_path, HEAD + ROW * 3)
    assert read(source, tmp_path).num_rows == 3
    (new,) = [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]
    assert new != old


def test_another_schema_is_another_copy(tmp_path: Path) -> None:
    """And so are another zone and other nulls, so that no definition reads what another one made."""
    text = "user,at,n,x\nNA,2026-03-01 10:00:00,1,2\n"
    plain = read(csv(tmp_path, text), tmp_path)
    assert read(csv(tmp_path, text, null=["NA"]), tmp_path)["user"].to_pylist() == [None]
    assert read(csv(tmp_path, text, schema={**SCHEMA, "n": Float64}), tmp_path)["n"].type == pa.float64()
    assert read(csv(tmp_path, text, timezone="Asia/Tokyo"), tmp_path)["at"] != plain["at"]
    assert read(csv(tmp_path, text), tmp_path) == plain


def test_nulls_and_zones_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        prints = set()
        for said in ({}, {"null": ["", "NA"]}, {"timezone": "Asia/Tokyo"}, {"schema": {**SCHEMA, "n": Float64}}):
            source = csv(tmp_path, HEAD + ROW, **said)
            user = Entity("user", key={"user": String})
            store.apply([FeatureView("view", entity=user, source=source, features=["n", "x"], refresh="1h")])
            prints.add(store.status()[0].fingerprint)
    assert len(prints) == 4


def test_a_file_that_changes_while_it_is_copied_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = csv(tmp_path, HEAD + ROW)
    whole = text_files.batches

    def changing(source: Any, path: str) -> Any:
        csv(tmp_path, HEAD + ROW * 2)
        return whole(source, path)

    monkeypatch.setattr("featurestore.sources.sources.batches", changing)
    with pytest.raises(FilesChangedError, match=r"rows\.csv was written anew"):
        read(source, tmp_path)
    monkeypatch.undo()
    assert read(source, tmp_path).num_rows == 2


def test_a_copy_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    offline = Offline(tmp_path)
    offline.copies_folder = tmp_path / "copies"
    source = csv(tmp_path, HEAD + ROW, schema={**SCHEMA, "day": Date}, optional="day")
    offline.raw_types(source)

    def read_without_copies() -> None:
        with offline.session() as session, session.reading():
            scan = session.scan(source)
            for copy in (tmp_path / "copies").rglob("*.parquet"):
                copy.unlink()
            session.connection.sql(f"FROM {scan.relation}").to_arrow_table()

    with pytest.raises(FilesChangedError, match="has lost its copy"):
        read_without_copies()
    with offline.session() as session:
        assert session.connection.sql(f"FROM {session.scan(source).relation}").to_arrow_table().num_rows == 1
    offline.close()


def test_where_no_copy_can_be_made_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("in the way")
    with pytest.raises(SourceError, match=r"no copy of .*rows\.csv can be made"):
        read(csv(tmp_path, HEAD + ROW), tmp_path)

"""The durable log of a push source."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import ManualClock, PushSource
from featurestore.errors import LogDamagedError, LogError
from featurestore.sources.log import FileLog, Log
from featurestore.sources.log.frame import HEADER
from featurestore.sources.push_logs import PushLogs
from featurestore.types import Float64, Int64, String, Timestamp
from tests.draws import PERCENT, at_length
from tests.sources.conftest import Opened
from tests.sources.log_rows import SCHEMA, batch, bits

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def fill(log: Log, appends: int, rows: int = 3, start: int = 0) -> pa.Table:
    """Appends of a few rows each, beginning at known_at `start`; returns what they hold."""
    batches = [batch(start + rows * turn, rows, turn=turn) for turn in range(appends)]
    for one in batches:
        with log.lock():
            log.append([one])
    return pa.Table.from_batches(batches, SCHEMA)


def open_file(log: FileLog) -> Path:
    return log.folder / log.segments()[-1].file


@pytest.mark.parametrize("sealed", [False, True])
def test_rows_come_back_to_the_bit(opened: Opened, sealed: bool) -> None:
    """Every type, nulls, NaN of any payload and -0.0 come back from frames and from Parquet as they were appended."""
    with opened() as log:
        expected = fill(log, 40, rows=7)
        if sealed:
            assert log.compact(everything=True) == (1, 280, 0)
        assert log.read().schema == SCHEMA
        assert bits(log.read()) == bits(expected)


def test_reading_between_instants(opened: Opened) -> None:
    """`read` gives the rows with after < known_at ≤ upto, wherever the edges fall in frames, segments and Parquet."""
    with opened(segment_bytes=3000) as log:
        fill(log, 12)
        log.compact()
        everything = fill(log, 12, start=100)
        assert {segment.sealed for segment in log.segments()[:-1]} == {True, False}
        known = [*range(36), *everything["known_at"].to_pylist()]
        for after in [None, *range(-1, 138, 5)]:
            for upto in [None, *range(-1, 138, 7)]:
                wanted = [at for at in known if (after is None or at > after) and (upto is None or at <= upto)]
                assert log.read(after, upto)["known_at"].to_pylist() == wanted
        assert log.read(134)["known_at"].to_pylist() == [135]
        assert log.read(135).num_rows == 0


def test_an_empty_log(opened: Opened) -> None:
    """A log without rows has no last known_at, reads as a table without rows, and can be compacted and scanned."""
    with opened() as log:
        assert log.last_known_at() is None
        assert log.compact(everything=True) == (0, 0, 0)
        with log.lock():
            log.append([])
            log.append([batch(1, 0)])
        assert log.read().schema == SCHEMA
        assert log.read().num_rows == 0
        connection = duckdb.connect()
        scan = log.scan(connection, "logged")
        assert connection.sql(f"SELECT * FROM {scan.relation}").fetchall() == []


def test_several_batches_are_one_append(opened: Opened) -> None:
    """Batches that are given together are kept together, and the last known_at is that of the last row."""
    with opened() as log:
        with log.lock():
            log.append([batch(1, 2), batch(5, 3)])
        assert log.last_known_at() == 7
        assert log.read()["known_at"].to_pylist() == [1, 2, 5, 6, 7]


def test_another_handle_sees_what_was_appended(opened: Opened) -> None:
    """Two handles on one folder agree after each append, whoever made it."""
    with (
        opened(segment_bytes=2000) as one,
        opened() as two,
    ):
        for turn in range(0, 40, 2):
            fill(one, 1, 1, turn)
            assert two.last_known_at() == turn
            fill(two, 1, 1, turn + 1)
            assert one.read(turn)["known_at"].to_pylist() == [turn + 1]
        assert bits(one.read()) == bits(two.read())


def test_who_asks_for_the_columns_closes_nobodys_file(tmp_path: Path) -> None:
    """As the thread that seals segments does, while another appends: each rolls the manifest on."""
    with FileLog(tmp_path / "log", lambda: SCHEMA, segment_bytes=1) as log:
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                assert log._files.schema() == SCHEMA

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for one in asking:
            one.start()
        try:
            fill(log, 100)
        finally:
            done.set()
            for one in asking:
                one.join()
        assert log.read()["known_at"].to_pylist() == [*range(300)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (SCHEMA.append(pa.field("more", pa.int64())), "column 'more' is new"),
        (SCHEMA.remove(2), "column 'bool' is missing"),
        (SCHEMA.set(3, pa.field("int", pa.int64())), "column 'int' was int32 and is now int64"),
        (SCHEMA.set(3, pa.field("int", pa.int32(), nullable=False)), "'int' was nullable and is now without nulls"),
        (
            pa.schema([SCHEMA.field(1), SCHEMA.field(0), *list(SCHEMA)[2:]]),
            "another order: who, turn, .* now turn, who",
        ),
    ],
)
def test_another_schema_is_refused(opened: Opened, given: pa.Schema, told: str) -> None:
    """A log that is read with other columns, and a batch of other columns, are refused with the difference."""
    with opened() as log:
        with opened(lambda: given) as other, pytest.raises(LogError, match=told):
            other.read()
        with log.lock(), pytest.raises(ValueError, match=told):
            log.append([pa.RecordBatch.from_arrays([pa.array([], field.type) for field in given], schema=given)])


def test_columns_that_are_declared_as_they_were_are_taken_again(tmp_path: Path) -> None:
    """In the process that had declared them otherwise, too."""
    logs = PushLogs(tmp_path)
    there, other = (
        PushSource("taps", schema={"id": String, "at": Timestamp, "x": of}, event_time="at", identity="id")
        for of in (Int64, Float64)
    )
    logs.log(there).read()
    logs.close()
    with pytest.raises(LogError, match="column 'x' was int64 and is now double"):
        logs.log(other).read()
    assert logs.log(there).read().num_rows == 0
    logs.close()


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (pa.schema([("a", pa.int64())]), "needs a column 'known_at' of type int64"),
        (pa.schema([("known_at", pa.timestamp("us"))]), "needs a column 'known_at' of type int64"),
        (pa.schema([("a", pa.int64()), ("a", pa.int64()), ("known_at", pa.int64())]), "'a' is there twice"),
        (
            pa.schema([("a", pa.list_(pa.dictionary(pa.int32(), pa.string()))), ("known_at", pa.int64())]),
            "'a' is list.*dictionary",
        ),
    ],
)
def test_schemas_that_no_log_keeps(tmp_path: Path, schema: pa.Schema, told: str) -> None:
    """A log without known_at, with columns of one name, or with dictionaries is refused before anything is made."""
    with pytest.raises(LogError, match=told):
        FileLog(tmp_path / "log", lambda: schema)
    assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("known", [[4, 6, 6], [5, 4], [3], [2, 9], [5, None]])
def test_known_at_increases(opened: Opened, known: list[int | None]) -> None:
    """Rows whose known_at do not increase strictly, over the whole log, are refused, and none of them is kept."""
    schema = pa.schema([("known_at", pa.int64())])
    with opened(lambda: schema) as log, log.lock():
        log.append([pa.record_batch([pa.array([1, 3], pa.int64())], schema=schema)])
        with pytest.raises(ValueError, match="known_at"):
            log.append([pa.record_batch([pa.array(known, pa.int64())], schema=schema)])
        assert log.read()["known_at"].to_pylist() == [1, 3]


def test_appending_needs_the_lock(opened: Opened) -> None:
    """Without the lock, or under that of another thread, nothing can be appended; taking it twice is an error at once."""
    with opened() as log:
        with pytest.raises(RuntimeError, match="under its lock"):
            log.append([batch(1, 1)])
        refused = []

        def intrude() -> None:
            try:
                log.append([batch(1, 1)])
            except RuntimeError as error:
                refused.append(error)

        with log.lock():
            intruder = threading.Thread(target=intrude)
            intruder.start()
            intruder.join()
            with pytest.raises(RuntimeError, match="already"), log.lock():
                pass
        assert len(refused) == 1


def test_threads_exclude_each_other(opened: Opened) -> None:
    """Threads on one handle and on handles of their own, each reading the last known_at and appending the next."""
    with opened() as shared, opened() as own:

        def append(log: Log) -> None:
            for _ in range(25):
                with log.lock():
                    log.append([batch((log.last_known_at() or 0) + 1, 1)])

        threads = [threading.Thread(target=append, args=(log,)) for log in (shared, shared, own)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert shared.read()["known_at"].to_pylist() == list(range(1, 76))


@at_length
def test_a_tail_torn_at_any_byte_is_cut(tmp_path: Path) -> None:
    """Whatever part of the last append reached the file (every byte, in `make test-long`): a reader sees the rows before it, the next appender cuts the
    part off, counts it, and goes on where the log was whole."""
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log:
        before = fill(log, 3)
        whole = open_file(log).read_bytes()
        fill(log, 1, start=50)
        more = open_file(log).read_bytes()
    step = max(1, 200 // PERCENT)
    for length in {*range(len(whole) + 1, len(more), step), len(more) - 1}:
        folder = tmp_path / "torn"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "log", folder)
        (folder / "tip").unlink()  # the append was never acknowledged
        (folder / "00000001.log").write_bytes(more[:length])
        with FileLog(folder, lambda: SCHEMA) as log:
            assert log.last_known_at() == 8
            if length % 50 == 0:
                assert bits(log.read()) == bits(before)
            with log.lock():
                assert (folder / "00000001.log").read_bytes() == whole
                assert log.cuts == 1
                log.append([batch(9, 1)])
            assert log.read()["known_at"].to_pylist() == [*range(10)]


def test_pages_that_were_never_written_are_cut(tmp_path: Path) -> None:
    """A crash of the machine may leave sectors of zeros in an append that was not acknowledged: it is cut off."""
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log:
        before = fill(log, 2)
        whole = open_file(log).stat().st_size
        fill(log, 1, rows=200, start=50)
        path = open_file(log)
    data = bytearray(path.read_bytes())
    start = len(data) // 512 * 512 - 1024  # within known_at
    assert any(data[start : start + 512])
    data[start : start + 512] = bytes(512)
    path.write_bytes(data)
    (tmp_path / "log" / "tip").unlink()
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log:
        assert bits(log.read()) == bits(before)
        with log.lock():
            assert log.cuts == 1
        assert path.stat().st_size == whole


@pytest.mark.parametrize("acknowledged", [False, True])
def test_a_changed_byte_is_never_skipped(tmp_path: Path, acknowledged: bool) -> None:
    """A byte that changed in a frame with frames behind it is an error that names file and offset, for readers and
    appenders, and nothing is removed; so it is in the last frame, where the log knows that it was acknowledged."""
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log:
        fill(log, 2)
        start = open_file(log).stat().st_size
        fill(log, 1, start=10)
        stop = open_file(log).stat().st_size
        if not acknowledged:
            fill(log, 1, start=20)
        path = open_file(log)
    good = path.read_bytes()
    for at in [*range(start, start + HEADER), *range(start + HEADER, stop, 97)]:
        if good[at] == 0 and start + HEADER - 4 <= at < start + HEADER:
            continue  # the header's padding means nothing
        changed = bytearray(good)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        if not acknowledged:
            (tmp_path / "log" / "tip").unlink(missing_ok=True)
        with FileLog(tmp_path / "log", lambda: SCHEMA) as log:
            with pytest.raises(LogDamagedError, match=rf"{path} at byte {start}:"), log.lock():
                pass
            if at % 31 == 0:
                with pytest.raises(LogDamagedError, match=rf"{path} at byte {start}:"):
                    log.read() if not acknowledged else log.lock().__enter__()
        assert path.read_bytes() == bytes(changed)
    path.write_bytes(good)
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log, log.lock():
        assert log.last_known_at() is not None


def test_missing_bytes_that_were_acknowledged(tmp_path: Path) -> None:
    """A file that ends before what was acknowledged is damage, though what is there is whole."""
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log:
        fill(log, 1)
        whole = open_file(log).stat().st_size
        fill(log, 1, start=10)
        os.truncate(open_file(log), whole)
        with pytest.raises(LogDamagedError, match=f"at byte {whole}:"), log.lock():
            pass


@pytest.mark.parametrize("sealed", [False, True])
def test_damage_in_a_full_segment(tmp_path: Path, sealed: bool) -> None:
    """Full segments are held to what the manifest says of them, as frames and as Parquet."""
    with FileLog(tmp_path / "log", lambda: SCHEMA, segment_bytes=2000) as log:
        fill(log, 12)
        if sealed:
            log.compact()
        path = tmp_path / "log" / log.segments()[0].file
        good = path.read_bytes()
        for at in page_ends(path) if sealed else [len(good) // 3]:
            data = bytearray(good)
            data[at] ^= 16
            path.write_bytes(data)
            with pytest.raises(LogDamagedError, match=str(path)):
                log.read()


def page_ends(path: Path) -> list[int]:
    """Where the last byte of each column lies in a Parquet file: in a page, and not in what describes it."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    return [start + column.total_compressed_size - 1 for start, column in zip(starts, columns, strict=True)]


def test_reading_a_frame_that_changed_after_it_was_indexed(tmp_path: Path) -> None:
    """A handle that has seen a frame whole does not give out what became of it."""
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log:
        fill(log, 4)
        log.read()
        path = open_file(log)
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(data)
        with pytest.raises(LogDamagedError, match=str(path)):
            log.read()


FULL_DISK = """
import resource, sys
from pathlib import Path
from featurestore.errors import LogError
from featurestore.sources.log import FileLog, Log
from tests.sources.log_rows import SCHEMA, batch
log = FileLog(Path(sys.argv[1]), lambda: SCHEMA)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
for turn in range(1000):
    try:
        with log.lock():
            log.append([batch(10 * turn, 10, turn=turn)])
    except LogError as error:
        print(turn, error)
        break
size = (log.folder / log.segments()[-1].file).stat().st_size
assert size < limit, size
assert log.read().num_rows == 10 * turn
assert log.cuts == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with log.lock():
    log.append([batch(10 * turn, 10, turn=turn)])
assert log.read().num_rows == 10 * turn + 10
"""


@pytest.mark.parametrize("limit", [5000, 9001, 20_000])
def test_a_full_disk_refuses_the_append_alone(tmp_path: Path, limit: int) -> None:
    """An append that does not fit says so; nothing of it stays, what was there can be read, and once there is room the
    same append is kept."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "log"), str(limit)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the disk, a quota or a file size limit is full" in done.stdout
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log, log.lock():
        rows = log.read()
        expected = [batch(10 * turn, 10, turn=turn) for turn in range(rows.num_rows // 10)]
        assert bits(rows) == bits(pa.Table.from_batches(expected, SCHEMA))


@pytest.mark.parametrize("step", ["pwrite", "fdatasync"])
def test_a_failing_disk_refuses_the_append_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Where the disk fails an append after its bytes were written, other handles that saw them forget them, though the
    next append has the same length."""
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log, FileLog(tmp_path / "log", lambda: SCHEMA) as other:
        fill(log, 1)
        real, seen = getattr(os, step), []

        def fail(*given: object) -> int:
            if seen:
                return int(real(*given) or 0)
            real(*given)
            seen.append(other.read().num_rows)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, step, fail)
        with log.lock(), pytest.raises(LogError, match="Input/output error"):
            log.append([batch(10, 3, turn=1)])
        monkeypatch.undo()
        assert seen == [6]
        expected = fill(log, 1, start=10)
        assert bits(other.read(9)) == bits(expected) == bits(log.read(9))


def test_compaction_seals_full_segments(tmp_path: Path) -> None:
    """Full segments become Parquet; frames and numbers stay readable for the grace period and are deleted after it."""
    clock = ManualClock(NOON)
    folder = tmp_path / "log"
    with FileLog(folder, lambda: SCHEMA, segment_bytes=2000, clock=clock) as log:
        rows = fill(log, 12)
        before = log.segments()
        assert len(before) > 2
        done = log.compact(grace=60)
        assert done == (len(before) - 1, sum(s.rows or 0 for s in before[:-1]), 0)
        after = log.segments()
        assert [s._replace(file="", checks=None) for s in after] == [s._replace(file="") for s in before]
        assert all(segment.sealed for segment in after[:-1])
        clock.advance(timedelta(seconds=59))
        assert log.compact(grace=60).deleted == 0
        assert all((folder / segment.file).exists() for segment in before)
        clock.advance(timedelta(seconds=1))
        assert log.compact(grace=60) == (0, 0, len(before) - 1)
        assert sorted(path.name for path in folder.glob("0*")) == sorted(segment.file for segment in after)
        assert bits(log.read()) == bits(rows)


def test_a_reader_that_meets_a_vanished_file_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a reader found in the manifest and that are deleted before it opens them: it reads their successors."""
    import featurestore.sources.log.file_log as module

    with (
        FileLog(tmp_path / "log", lambda: SCHEMA, segment_bytes=2000) as log,
        FileLog(tmp_path / "log", lambda: SCHEMA) as other,
    ):
        rows = fill(log, 12)
        real, calls = module.read_segment, []  # type: ignore[attr-defined]  # a name that the module imports, to be replaced

        def read(*given: object, **named: Any) -> object:
            if not calls:
                assert other.compact(grace=0).deleted > 1
            calls.append(given)
            return real(*given, **named)  # type: ignore[arg-type]  # whatever it was given

        monkeypatch.setattr(module, "read_segment", read)
        assert bits(log.read()) == bits(rows)
        assert calls


@pytest.mark.parametrize("sealed", [0, 1, 2])
def test_scanning_with_duckdb(opened: Opened, sealed: int) -> None:
    """The view has the log's columns, types and bits; a row's pointer stays the same when its segment is sealed."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    with opened(segment_bytes=6000) as log:
        fill(log, 12)
        if sealed == 1:
            log.compact()
        fill(log, 12, start=100)
        first = log.scan(connection, "before")
        if sealed == 2:
            log.compact()
        scan = log.scan(connection, "logged rows")
        pointers = f"SELECT {scan.file}, {scan.row}, known_at FROM {{}} ORDER BY known_at"
        found = connection.sql(pointers.format(scan.relation)).fetchall()
        assert found == connection.sql(pointers.format(first.relation)).fetchall()
        assert sorted(found) == found
        numbered = {segment.number: segment.rows for segment in log.segments()}
        assert {pointer[0] for pointer in found} == set(numbered)
        assert len(numbered) > 2
        columns = f"SELECT * EXCLUDE ({scan.file}, {scan.row}) FROM {scan.relation} ORDER BY known_at"
        table = connection.sql(columns).to_arrow_table()
        assert bits(table.cast(SCHEMA)) == bits(log.read())
        types = {name: str(of) for name, of in zip(table.column_names, connection.sql(columns).types, strict=True)}
        assert types["embedding"] == "FLOAT[3]"
        assert types["at"] == "TIMESTAMP WITH TIME ZONE"


def test_a_newer_manifest_is_refused(tmp_path: Path) -> None:
    """A manifest of another version, and one that is none, are errors that name the file."""
    FileLog(tmp_path / "log", lambda: SCHEMA).close()
    path = tmp_path / "log" / "manifest.json"
    for text, told in (
        (path.read_text().replace('"version": 2', '"version": 3'), "of version 3"),
        (path.read_text().replace('"number": 1', '"number": 3'), "damaged in .*manifest.json"),
        ("{", "damaged in .*manifest.json"),
    ):
        path.write_text(text)
        with pytest.raises(LogError, match=told):
            FileLog(tmp_path / "log", lambda: SCHEMA)


def test_a_lock_is_not_inherited(opened: Opened) -> None:
    """A child forked while a log was locked does not keep the lock when its parent gives it up, and may take it."""
    with opened() as log:
        with log.lock():
            pid = os.fork()
            if pid == 0:
                with log.lock():
                    log.append([batch((log.last_known_at() or 0) + 1, 1)])
                os._exit(0)
            log.append([batch(1, 1)])
        assert os.waitpid(pid, 0)[1] == 0
        assert log.read()["known_at"].to_pylist() == [1, 2]

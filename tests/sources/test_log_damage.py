"""No bit of a push log changes a row without a word: whatever a bit's change leaves readable is what was written."""

from __future__ import annotations

import zlib
from pathlib import Path

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import FeatureStoreError, LogDamagedError
from featurestore.sources.log import FileLog, files
from tests.damage import flipped, outcome, places
from tests.sources.log_rows import SCHEMA, batch, bits

FILES = ("00000001.parquet", "00000002.parquet", "00000003.log", "00000004.log", "manifest.json", "tip")
"""Two segments that are sealed, a full one that is not, the open one, and what says which are in force."""


def made(folder: Path) -> pa.Table:
    """A log with every kind of file; its rows."""
    with FileLog(folder, lambda: SCHEMA, segment_bytes=4000) as log:
        start = 0

        def fill(segments: int) -> None:
            nonlocal start
            while len(log.segments()) < segments:
                with log.lock():
                    log.append([batch(start, 3)])
                start += 3

        fill(3)
        log.compact()
        fill(4)
        assert [segment.file for segment in log.segments()] == list(FILES[:4])
        return log.read()


def scanned(folder: Path) -> pa.Table:
    """The rows as SQL reads them, by whoever opens the log anew."""
    with FileLog(folder, lambda: SCHEMA) as log, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        scan = log.settled_scan(connection, "log")
        columns = ", ".join(f'"{name}"' for name in SCHEMA.names)
        found = connection.sql(f"SELECT {columns} FROM {scan.relation} ORDER BY known_at")
        return found.to_arrow_table().cast(SCHEMA)


def read(folder: Path) -> pa.Table:
    """The rows as Python reads them, without the log's lock."""
    with FileLog(folder, lambda: SCHEMA) as log:
        return log.read()


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_changes_no_row(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are what was written, or there is an error that names the file; after the bit is back, all are there."""
    monkeypatch.setattr(files, "LOOK_SECONDS", 0)  # nobody is at work on the log, for whom a reader would wait
    folder = tmp_path / "log"
    rows = bits(made(folder))
    errors = 0
    size = (folder / file).stat().st_size
    for bit in places(size, 60, seed=file):
        for reading in (read, scanned):
            with flipped(folder / file, bit):
                found = outcome(lambda reading=reading: bits(reading(folder)))
            if isinstance(found, FeatureStoreError):
                assert file in str(found), bit
                errors += 1
            else:
                assert found == rows, bit
    if file == "tip":
        assert not errors  # it only spares a look
    elif file == "manifest.json":
        assert errors  # there is white space besides
    else:
        assert errors >= 110  # a frame has four bytes that mean nothing
    for reading in (read, scanned):
        assert bits(reading(folder)) == rows


def test_the_error_names_the_place(tmp_path: Path) -> None:
    """Damage of a sealed segment is placed to the megabyte, and a file that was cut short is damaged too."""
    folder = tmp_path / "log"
    with FileLog(folder, lambda: SCHEMA) as log:
        for start in range(0, 60_000, 6_000):
            with log.lock():
                log.append([batch(start, 6_000, seed=start)])
        log.compact(everything=True)
    path = folder / "00000001.parquet"
    size = path.stat().st_size
    assert size > 2 << 20
    with flipped(path, 8 * ((1 << 20) + 5)), pytest.raises(LogDamagedError, match=rf"{path}.* from byte 1048576 on"):
        read(folder)
    with path.open("r+b") as file:
        file.truncate(1 << 20)
    with pytest.raises(LogDamagedError, match=str(path)):
        read(folder)


def test_segments_that_were_sealed_without_checksums(tmp_path: Path) -> None:
    """A log of an earlier version is read as it is, and gets its checksums when it is compacted next."""
    folder = tmp_path / "log"
    rows = bits(made(folder))
    path = folder / "manifest.json"
    words = orjson.loads(path.read_bytes())
    del words["check"]
    words["version"] = 1
    for segment in words["segments"]:
        del segment["checks"]
    path.write_bytes(orjson.dumps(words))
    assert bits(read(folder)) == rows
    sealed = folder / "00000001.parquet"
    with FileLog(folder, lambda: SCHEMA) as log:
        log.compact()
        assert log.segments()[0].checks == f"{zlib.crc32(sealed.read_bytes()):08x}"
    assert bits(read(folder)) == rows
    with flipped(sealed, 8 * (pq.read_metadata(sealed).row_group(0).column(5).data_page_offset + 40)):
        for reading in (read, scanned):
            with pytest.raises(LogDamagedError, match=str(sealed)):
                reading(folder)


@pytest.mark.parametrize("schema", ["AAAA", "not base64", 1])
def test_a_schema_that_says_nothing(tmp_path: Path, schema: object) -> None:
    """The manifest of a log of an earlier version has no checksum; what it says of the columns is read with the rows."""
    made(tmp_path / "log")
    path = tmp_path / "log" / "manifest.json"
    words = orjson.loads(path.read_bytes())
    del words["check"]
    path.write_bytes(orjson.dumps({**words, "version": 1, "schema": schema}))
    with pytest.raises(LogDamagedError, match=str(path)):
        read(tmp_path / "log")

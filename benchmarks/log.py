"""python -m benchmarks.log [FOLDER] [--seconds S]: appends and rows a second into a push log, beside plain fdatasync and SQLite.

Each figure is from a process of its own that holds the lock for one append at a time, as a pusher does.
"""

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer

from featurestore.sources.log import FileLog

SCHEMA = pa.schema(
    [
        ("card", pa.int64()),
        ("merchant", pa.string()),
        ("amount", pa.float64()),
        ("at", pa.timestamp("us", "UTC")),
        ("known_at", pa.int64()),
    ]
)


def rows(start: int, count: int) -> pa.RecordBatch:
    known = np.arange(start, start + count)
    columns = [known % 5000, [f"merchant {n % 300}" for n in range(count)], known * 0.01, known * 1_000_000, known]
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def rate(once: Callable[[int], object], seconds: float) -> float:
    """Calls a second, with the number of the call."""
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        once(done)
        done += 1
    return done / (time.perf_counter() - begun)


def appended(folder: Path, count: int, seconds: float) -> float:
    """Appends a second; the rows are made beforehand, in rounds, and making them is not counted."""
    done, spent = 0, 0.0
    with FileLog(folder, lambda: SCHEMA) as log:
        while spent < seconds:
            prepared = [rows(count * (done + turn), count) for turn in range(200)]
            begun = time.perf_counter()
            for batch in prepared:
                with log.lock():
                    log.append([batch])
            spent += time.perf_counter() - begun
            done += len(prepared)
    return done / spent


def synced(folder: Path, size: int, seconds: float) -> float:
    """The floor: as many bytes written behind each other and synced."""
    data = os.urandom(size)
    descriptor = os.open(folder / "plain", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def once(turn: int) -> None:
        os.pwrite(descriptor, data, turn * size)
        os.fdatasync(descriptor)

    try:
        return rate(once, seconds)
    finally:
        os.close(descriptor)


def inserted(folder: Path, size: int, seconds: float) -> float:
    """As many bytes as a row of an SQLite file that is written ahead (WAL) and synced with each transaction."""
    data = os.urandom(size)
    with closing(sqlite3.connect(folder / "plain.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("DROP TABLE IF EXISTS appends")
        connection.execute("CREATE TABLE appends (turn INTEGER PRIMARY KEY, data BLOB)")
        return rate(lambda turn: connection.execute("INSERT INTO appends VALUES (?, ?)", (turn, data)), seconds)


def reading(folder: Path, seconds: float) -> None:
    with FileLog(folder, lambda: SCHEMA) as log:
        last = log.last_known_at() or 0
        print(f"the last row read: {1e6 / rate(lambda _: log.read(last - 1), seconds):,.0f} µs")
        print(f"last known_at: {1e6 / rate(lambda _: log.last_known_at(), seconds):,.1f} µs")
        begun = time.perf_counter()
        count = log.read().num_rows
        print(f"reading frames: {count / (time.perf_counter() - begun):,.0f} rows/s")
        begun = time.perf_counter()
        count = log.compact(everything=True).rows
        print(f"compaction: {count / (time.perf_counter() - begun):,.0f} rows/s")


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write; a disk, not memory.")] = Path(),
    seconds: Annotated[float, typer.Option(help="For each figure.")] = 3.0,
) -> None:
    """Measure a push log in a temporary folder, which is removed."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="log-") as made:
        for count in (1, 500):
            size = rows(0, count).serialize().size
            floor = synced(Path(made), size, seconds)
            sqlite = inserted(Path(made), size, seconds)
            ours = appended(Path(made) / f"log{count}", count, seconds)
            print(
                f"appends of {count}: {ours:,.0f}/s, {ours * count:,.0f} rows/s; plain write and fdatasync of the same "
                f"{size:,} bytes: {floor:,.0f}/s, ratio {ours / floor:.2f}; inserted into SQLite: {sqlite:,.0f}/s, ratio "
                f"{ours / sqlite:.2f}"
            )
        reading(Path(made) / "log500", seconds)


if __name__ == "__main__":
    typer.run(main)

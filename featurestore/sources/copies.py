"""Copies of rows that lie in no Parquet file, as Parquet files, which the one query reads.

A copy is named by all that it was made of, so it is never changed, and of several processes that make it at once each makes the
same. Copies of states that a file had before go away a day after another took their place.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from featurestore.durable.own_folder import own_folder
from featurestore.durable.parquet import parquet_file, restored, storable, storable_schema
from featurestore.lazy import pa, pq

VERSION = 3
"""Counted up when the same text is read as another value."""

KEPT_SECONDS = 86_400
"""For how long a copy is kept that another has taken the place of: a query that began before may still read it."""

Batches = tuple["pa.Schema", "Iterator[pa.RecordBatch]"]


def copy_of(folder: Path, of: Any, state: Any, rows: Callable[[], Batches], *, whole: bool = True) -> str:
    """The path of the Parquet file in `folder` that holds the rows of something in a state, both told as plain JSON; it is made
    where it is not there. whole: copies of its other states go; else `tidy` has to be called. Raises OSError, and what `rows`
    raises."""
    path = copy_path(folder, of, state)
    try:
        os.utime(path)  # it is in use
    except FileNotFoundError:
        own_folder(path.parent)
        write_parquet(path, *rows())
        if whole:
            tidy(folder, of, path)
    except PermissionError:  # another user's, to be read
        pass
    return str(path)


def copy_path(folder: Path, of: Any, state: Any) -> Path:
    """Where the copy of something in a state is, if there is one."""
    return folder / _digest([VERSION, of]) / f"{_digest(state)}.parquet"


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()


def parquet_batches(path: Path) -> Batches:
    """The rows of a file that `write_parquet` made, in their order."""
    file = parquet_file(path)

    def batches() -> Iterator[pa.RecordBatch]:
        with file:
            for batch in file.iter_batches():
                yield from restored(pa.Table.from_batches([batch])).to_batches()

    return restored(file.schema_arrow.empty_table()).schema, batches()


def write_parquet(path: Path, schema: pa.Schema, rows: Iterator[pa.RecordBatch]) -> None:
    """Make a file of rows, which is on the disk then; nothing has its name until it is whole."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}-", suffix=".partial", delete=False) as file:
        try:
            with pq.ParquetWriter(file, storable_schema(schema)) as writer:
                for batch in rows:
                    writer.write_table(storable(pa.Table.from_batches([batch])))
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).rename(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def tidy(folder: Path, of: Any, *kept: Path) -> None:
    """Remove what is old of the copies of something: of states that it had before, and what killed processes left."""
    before = time.time() - KEPT_SECONDS
    for other in (folder / _digest([VERSION, of])).iterdir():
        with suppress(OSError):
            if other not in kept and other.stat().st_mtime < before:
                other.unlink()

"""Rows that a database is asked for again, as they may have been committed after others with a greater cursor: those that were
copied before are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from featurestore.declare.database_source import DatabaseSource
from featurestore.lazy import pa, pc, pq
from featurestore.sources.source_files import source_error

DAY = 86_400_000_000


def begin_of(source: DatabaseSource, upto: str, copied: Path) -> date | datetime:
    """From where on rows are asked for again. upto: the greatest cursor, as SQL; copied: a file of rows. Raises SourceError."""
    of = pq.read_schema(copied).field(source.cursor).type
    if not pa.types.is_temporal(of):
        raise source_error(source, f"overlap is for a cursor of times, and '{source.cursor}' is {of}")
    text = upto.strip("'")
    if pa.types.is_date(of):
        return date.fromisoformat(text) - timedelta(days=-(-source.overlap // DAY))
    return datetime.fromisoformat(text) - timedelta(microseconds=source.overlap)


def unseen(
    source: DatabaseSource, begin: date | datetime, files: Sequence[Path], reader: pa.RecordBatchReader
) -> Iterator[pa.RecordBatch]:
    """What comes from a reader beside the rows of files beyond a cursor, each of which stands for one. Files from before a column
    came, or after it went, are compared without it."""
    seen: dict[tuple[str, ...], Counter[str]] = {}
    for file in files:
        schema = pq.read_schema(file)
        names = tuple(sorted({*schema.names} & {*reader.schema.names}))
        beyond = pc.field(source.cursor) > pa.scalar(begin, schema.field(source.cursor).type)
        table = pq.read_table(file, columns=list(names), filters=beyond, partitioning=None)
        seen.setdefault(names, Counter()).update(_rows(dict(zip(names, table.columns, strict=True)), names))
    for batch in reader:
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        is_new = [True] * batch.num_rows
        for names, left in seen.items():
            for place, row in enumerate(_rows(columns, names) if left else ()):
                if is_new[place] and left[row] > 0:
                    left[row] -= 1
                    is_new[place] = False
        if any(is_new):
            yield batch.filter(pa.array(is_new))


def _rows(columns: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Each row as text, which is equal where the values are, NaN and null among them."""
    values = [columns[name] for name in names]
    whole = [
        column.cast(pa.int32() if pa.types.is_date32(column.type) else pa.int64())
        if pa.types.is_date32(column.type) or pa.types.is_timestamp(column.type)
        else column
        for column in values
    ]  # Python has not all times
    return map(repr, zip(*(column.to_pylist() for column in whole), strict=True))

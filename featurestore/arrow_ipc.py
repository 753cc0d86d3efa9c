"""A table as bytes, and back: an Arrow IPC stream.

What a process of this store wrote is read as it is. What others sent is checked to be what it says, and may be limited.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from featurestore.lazy import pa
from featurestore.plurals import plural

ROW_BYTES = 8
"""Bytes that a row counts as beside its values: two hundred bytes may say of a billion rows that all their values are null."""


def to_bytes(table: pa.Table, *, compression: str | None = None) -> bytes:
    """A table, with its schema's metadata, as bytes. compression: of its values, "lz4" or "zstd"; None for none."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        stream.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def from_bytes(data: bytes) -> pa.Table:
    """The table that `to_bytes` wrote; its values lie in `data` where they are not compressed. ValueError where it is none."""
    with _as_value_errors(), pa.ipc.open_stream(pa.py_buffer(data)) as stream:
        return stream.read_all()


def from_sent_bytes(data: bytes, most: int | None = None) -> pa.Table:
    """The table that others sent, of which each value is checked.

    most: bytes that its values, and `ROW_BYTES` of each row, have in memory at most; None for no limit. ValueError where they have
    more, and where `data` is no table, or one whose values are none of its types.
    """
    with _as_value_errors(), pa.ipc.open_stream(pa.py_buffer(data)) as stream:
        batches, size = [], 0
        for batch in stream:
            size += batch.nbytes + ROW_BYTES * batch.num_rows
            if most is not None and size > most:
                raise ValueError(f"its rows take more than {most} {plural(most, 'byte')} of memory, which is the limit")
            batch.validate(full=True)
            batches.append(batch)
        return pa.Table.from_batches(batches, stream.schema)


@contextmanager
def _as_value_errors() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error

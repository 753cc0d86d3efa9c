"""Frames of every kind as Arrow tables: pandas, polars, Arrow and whatever else speaks the Arrow C stream.

A NaN in a numpy-backed pandas column is null, because pandas cannot tell them apart; in Arrow and polars it is NaN.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import pyarrow as pa

__all__ = ["content_digest", "is_pandas", "table_of"]


def is_pandas(frame: object) -> bool:
    """Whether it is a pandas frame, without importing pandas for the question."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(frame, pandas.DataFrame)


def table_of(frame: Any) -> pa.Table:
    """The Arrow table of a frame, its index left out; TypeError where it is no frame.

    String views and large strings become plain strings, in lists too; dictionaries become their values.
    """
    if is_pandas(frame):
        table = pa.Table.from_pandas(frame, preserve_index=False)
    elif isinstance(frame, pa.Table):
        table = frame
    elif isinstance(frame, pa.RecordBatch):
        table = pa.Table.from_batches([frame])
    elif isinstance(frame, pa.RecordBatchReader):
        table = frame.read_all()
    elif isinstance(frame, dict) or hasattr(frame, "__arrow_c_stream__"):
        table = pa.table(frame)
    else:
        raise TypeError(f"{type(frame).__name__} is no frame; pandas, polars and Arrow are")
    return pa.table([_plain(column) for column in table.columns], names=table.column_names).replace_schema_metadata(
        None
    )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    of = column.type
    if pa.types.is_dictionary(of):  # decoded over plain values: views cannot be taken by index
        chunks = [pa.DictionaryArray.from_arrays(c.indices, _plain(pa.chunked_array([c.dictionary])).combine_chunks())
                  for c in column.chunks]  # fmt: skip
        return pa.chunked_array([chunk.dictionary_decode() for chunk in chunks], _plain_type(of.value_type))
    plain = _plain_type(of)
    return column if plain == of else column.cast(plain)


def _plain_type(of: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(of) or pa.types.is_string_view(of):
        return pa.string()
    if pa.types.is_large_binary(of) or pa.types.is_binary_view(of):
        return pa.binary()
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        element = _plain_type(of.value_type)
        return of if pa.types.is_list(of) and element == of.value_type else pa.list_(element)
    return of


def content_digest(table: pa.Table) -> str:
    """A digest of a table's schema and content."""
    digest = hashlib.blake2b(digest_size=16)

    class Sink:
        closed = False

        def write(self, data: Any) -> int:
            digest.update(data)
            return len(data)

        def flush(self) -> None:
            pass

        def close(self) -> None:
            pass

    with pa.ipc.new_stream(pa.PythonFile(Sink(), mode="w"), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return digest.hexdigest()

"""What versions of Arrow do differently with Parquet files; no other module asks which one is installed.

Of arrays of a fixed length, Arrow before version 26 can store none that is null, or read none. There they are stored as
lists, and a word beside the column says their length, by which a reader gets them back.
"""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.lazy import pa, pq

LENGTH = b"featurestore.length"
_ARROW = int(version("pyarrow").partition(".")[0])
STORES_FIXED = _ARROW >= 26

_WITH_EXTENSIONS: dict[str, Any] = {"arrow_extensions_enabled": True} if _ARROW >= 21 else {}
"""That a file's columns have the types that it says they have, such as UUID; before version 21 it is not asked."""


def local(path: str | Path) -> Path:
    """A path as Arrow takes it for one: of a relative one with a colon, such as `day-09:00.parquet`, it takes what stands before that for
    a scheme."""
    return Path(path).absolute()


def parquet_file(source: Any, *, dictionaries: Container[str] = ()) -> pq.ParquetFile:
    """A Parquet file that is read batch by batch: a path, or a file of a store far away. dictionaries: columns of texts, or bytes, that are
    read as dictionaries, in half the time.

    Of a path what was read is let go of; of a store Arrow keeps the bytes of all row groups until the file is closed, which it
    asks for in few round trips.
    """
    source = local(source) if isinstance(source, (str, Path)) else source
    words: dict[str, Any] = {"pre_buffer": not isinstance(source, (str, Path)), **_WITH_EXTENSIONS}
    file = pq.ParquetFile(source, **words)
    named = [name for name in file.schema_arrow.names if name in dictionaries] if dictionaries else []
    return pq.ParquetFile(source, metadata=file.metadata, read_dictionary=named, **words) if named else file


def filterable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with texts and bytes that are no views, since Arrow filters none of these."""
    types = [_without_views(field.type) for field in batch.schema]
    arrays = [array if array.type == of else array.cast(of) for array, of in zip(batch.columns, types, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=filterable_schema(batch.schema))


def filterable_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of `filterable` batches."""
    return pa.schema([field.with_type(_without_views(field.type)) for field in schema], schema.metadata)


def _without_views(of: pa.DataType) -> pa.DataType:
    if str(of) in {"string_view", "binary_view"}:  # which Arrow before version 16 does not know
        return pa.string() if str(of) == "string_view" else pa.binary()
    if pa.types.is_map(of):
        return pa.map_(
            _without_views(of.key_type), of.item_field.with_type(_without_views(of.item_type)), of.keys_sorted
        )
    if pa.types.is_struct(of):
        return pa.struct([field.with_type(_without_views(field.type)) for field in of])
    if pa.types.is_list(of):
        return pa.list_(of.value_field.with_type(_without_views(of.value_type)))
    return of


def storable_schema(schema: pa.Schema) -> pa.Schema:
    """The schema that `storable` gives a table."""
    if STORES_FIXED:
        return schema
    return pa.schema([_storable_field(field) for field in schema], schema.metadata)


def storable(table: pa.Table) -> pa.Table:
    """A table as this version of Arrow stores and reads it; itself where that is nothing else."""
    schema = storable_schema(table.schema)
    if schema == table.schema:
        return table
    columns = [
        pa.chunked_array([_as_lists(chunk) for chunk in column.chunks], field.type)
        if pa.types.is_fixed_size_list(column.type)
        else column
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def restored(table: pa.Table) -> pa.Table:
    """A table that was read, whichever version of Arrow stored it, as it was before `storable`."""
    fields = [_restored_field(field) for field in table.schema]
    schema = pa.schema(fields, table.schema.metadata)
    return table if schema.equals(table.schema, check_metadata=True) else table.cast(schema)


def _storable_field(field: pa.Field) -> pa.Field:
    if not pa.types.is_fixed_size_list(field.type):
        return field
    length = {LENGTH: str(field.type.list_size).encode()}
    return field.with_type(pa.list_(field.type.value_field)).with_metadata({**(field.metadata or {}), **length})


def _restored_field(field: pa.Field) -> pa.Field:
    words = dict(field.metadata or {})
    length = words.pop(LENGTH, None)
    if length is None:
        return field
    return field.with_type(pa.list_(field.type.value_type, int(length))).with_metadata(words or None)


def _as_lists(fixed: pa.Array) -> pa.Array:
    """Each array as a list, and a null one as one of no elements."""
    lengths = np.where(fixed.is_valid().to_numpy(zero_copy_only=False), fixed.type.list_size, 0)
    ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    of = pa.list_(fixed.type.value_field)
    return pa.ListArray.from_arrays(ends, fixed.flatten(), type=of, mask=fixed.is_null())

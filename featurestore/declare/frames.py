"""Frames of every kind as Arrow tables: pandas, polars, Arrow and whatever else has the Arrow PyCapsule interface.

A NaN in a numpy-backed pandas column is null, because pandas cannot tell them apart; in Arrow and polars it is NaN.

What is taken is a copy. Arrow and polars wrap memory of others (numpy's, a bytearray) without a sign of it, and code that
still holds that can write there: `pl.Series(array)` shows what is written into `array` later. So there is no frame of a
caller whose memory is known not to change, and all of it is copied once.
"""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from featurestore.declare.problems import shown
from featurestore.declare.zones import has_instants, said_zones, without_zone
from featurestore.lazy import pa, pc
from featurestore.plurals import plural

PYCAPSULES = ("__arrow_c_stream__", "__arrow_c_array__")
"""The methods by which a library hands its frames, or its batches of rows, to others."""

PLAIN_BYTES = 1 << 31
"""From so many bytes on, a chunk of text is no plain one."""

UNCHANGING = (str, bytes, int, float, complex, type(None), date, time, timedelta, Decimal)
"""Kinds of values in a pandas column of objects that nobody can change."""

NO_LISTS = (str, bytes, bytearray, memoryview, Mapping, AbstractSet)
"""What can be gone through, and holds no value for each row."""


def is_pandas(frame: object) -> bool:
    """Whether it is a pandas frame, without importing pandas for the question."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(frame, pandas.DataFrame)


def own_pandas(frame: Any) -> Any:
    """A pandas frame that nothing in another one can change: neither numpy's memory nor lists in its cells."""
    own = frame.copy(deep=True)
    own.index = frame.index.copy(deep=True)
    return own_cells(own)


def own_cells(frame: Any) -> Any:
    """A pandas frame with lists and the like in its cells of its own; the rest is shared until one side changes."""
    own = frame.copy(deep=False)
    for place, of in enumerate(own.dtypes):
        if str(of) == "object" and not all(issubclass(kind, UNCHANGING) for kind in {*map(type, own.iloc[:, place])}):
            own.isetitem(place, own.iloc[:, place].map(copy.deepcopy))
    return own


def own_table(table: pa.Table) -> pa.Table:
    """The table in memory of its own."""
    columns = [pa.chunked_array(map(_own, column.chunks), column.type) for column in table.columns]
    return pa.table(columns, schema=table.schema) if columns else table


def _own(chunk: pa.Array) -> pa.Array:
    if chunk.get_total_buffer_size() > 2 * chunk.nbytes:  # a slice, of which no more than itself is copied
        chunk = pa.concat_arrays([chunk, chunk.slice(0, 0)])
    return chunk.copy_to(pa.default_cpu_memory_manager())


def table_of(frame: Any, *, owned: bool = False, zone: str = "UTC") -> pa.Table:
    """The Arrow table of a frame, its index left out, in memory of its own.

    Raises TypeError where it is no frame, ValueError where it is one that Arrow cannot hold, or has a column twice.

    String views and large strings become plain strings, in lists too; dictionaries become their values. owned: nobody
    else holds the frame, so it is not copied. zone: as which naive timestamps are to be read. A column of objects of which
    one says no zone has the type of those without, wherever it stands among the others.
    """
    try:
        table = _with_zones(_plain_table(frame), frame, zone)
    except (pa.ArrowException, OverflowError) as error:  # some of which are TypeErrors as well
        raise ValueError(_unheld(frame) or str(error)) from None
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise ValueError(f"it has a column '{twice[0]}' twice; rename or drop one of the two")
    _check_text(table)
    return table if owned else own_table(table)


def _unheld(frame: Any) -> str | None:
    """The column and row for which Arrow holds no frame; None where it is neither a column's length nor its values."""
    if is_pandas(frame):
        columns = [(name, frame.iloc[:, place]) for place, name in enumerate(frame.columns)]
    elif isinstance(frame, dict):
        columns = [(name, values if hasattr(values, "__len__") else list(values)) for name, values in frame.items()]
    else:
        return None
    for name, values in columns:
        first, others = len(columns[0][1]), len(values)
        if first != others:
            return f"column '{columns[0][0]}' has {first} {plural(first, 'row')}, and column '{name}' has {others}"
        try:
            pa.array(values)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            return _odd_value(name, list(values))
    return None


def _odd_value(name: object, values: list[Any]) -> str:
    """What to say of a column of which some value is none, or of another type than those before it."""
    least, most = 0, len(values)  # so many of them can be held, and so many cannot
    while most - least > 1:
        middle = (least + most) // 2
        try:
            pa.array(values[:middle])
            least = middle
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            most = middle
    value = values[least]
    try:
        pa.array([value])
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return f"column '{name}', row {least}: {shown(value)} is no value that a column holds; drop or convert it"
    before = next((other for other in reversed(values[:least]) if other is not None), None)
    other = "" if before is None else f", and before it {shown(before)}"
    return f"column '{name}' holds values of several types: in row {least} {shown(value)}{other}; make them one"


def _check_lists(columns: dict[Any, Any]) -> None:
    """Arrow would take a text for a list of its letters, and a set in any order."""
    for name, values in columns.items():
        if isinstance(values, NO_LISTS) or not isinstance(values, Iterable):
            what = type(values).__name__
            raise ValueError(f"column '{name}' is one {what}, and must be a list with a value for each row")


def _plain_table(frame: Any) -> pa.Table:
    polars = sys.modules.get("polars")
    if polars is not None and isinstance(frame, (polars.LazyFrame, polars.DataFrame)):
        frame = _collected(frame, polars)
    if isinstance(frame, dict):
        _check_lists(frame)
    if is_pandas(frame):
        table = pa.Table.from_pandas(_dense(frame), preserve_index=False)
    elif isinstance(frame, pa.Table):
        table = frame
    elif isinstance(frame, pa.RecordBatch):
        table = pa.Table.from_batches([frame])
    elif isinstance(frame, pa.RecordBatchReader):
        table = frame.read_all()
    elif isinstance(frame, dict):
        table = pa.table(frame)
    elif any(hasattr(frame, way) for way in PYCAPSULES) and not hasattr(frame, "to_frame"):
        table = _imported(frame)
    else:
        raise TypeError(f"{type(frame).__name__} is no frame; pandas, polars and Arrow are")
    return pa.table([_plain(column) for column in table.columns], names=table.column_names).replace_schema_metadata(
        None
    )


def _imported(frame: Any) -> pa.Table:
    """The table of an object that another library made; TypeError where it is one column."""
    try:
        return pa.table(frame)
    except pa.ArrowInvalid as error:
        if "non-struct" not in str(error):
            raise
        raise TypeError(f"{type(frame).__name__} is no frame, but one column; pandas, polars and Arrow are") from None


def _with_zones(table: pa.Table, frame: Any, zone: str) -> pa.Table:
    """The table with no zone for the instants of a column of objects where one of them says none: Arrow goes by the first,
    and reads the others as UTC. ValueError where others say one, and those without are to be read in another zone."""
    for place, (name, values) in enumerate(_objects(frame)):
        is_zoned = has_instants(table.schema.field(place).type, zoned=True)
        if not is_zoned and (zone == "UTC" or not has_instants(table.schema.field(place).type, zoned=False)):
            continue
        said = {*said_zones(values)}
        if len(said) > 1 and zone != "UTC":
            raise ValueError(
                f"column '{name}' mixes instants with a timezone and without; give those without theirs ({zone})"
            )
        if is_zoned and False in said:
            table = table.set_column(place, table.schema.names[place], without_zone(table.column(place)))
    return table


def _objects(frame: Any) -> Iterator[tuple[object, Iterable[Any]]]:
    """Each column, with its values where they are objects of Python's, and none where they are not."""
    if is_pandas(frame):
        for place, (name, of) in enumerate(frame.dtypes.items()):
            yield name, frame.iloc[:, place] if str(of) in {"object", "category"} else ()
    elif isinstance(frame, dict):
        for name, values in frame.items():
            yield name, () if hasattr(values, "type") or str(getattr(values, "dtype", "object")) != "object" else values


def _collected(frame: Any, polars: Any) -> Any:
    """A polars frame as one that Arrow holds; ValueError where it cannot be made, or holds what Arrow has no type for."""
    if isinstance(frame, polars.LazyFrame):
        try:
            frame = frame.collect()
        except (polars.exceptions.PolarsError, OSError) as error:
            raise ValueError(f"the lazy frame cannot be collected: {error}") from error
    for name, of in frame.schema.items():
        if "Object" in str(of):  # of which polars gives the addresses in memory
            raise ValueError(f"column '{name}' is {of}: Python's own objects are no values; cast or drop it")
        if of in (polars.Int128, polars.UInt128):
            narrow = frame[name].cast(polars.Int64, strict=False)
            beyond = (narrow.is_null() & frame[name].is_not_null()).arg_true()
            if len(beyond):
                row = beyond[0]
                raise ValueError(f"row {row}, column '{name}': {frame[name][row]} is beyond Int64; cast or drop it")
            frame = frame.with_columns(narrow)
        elif "Int128" in str(of):
            raise ValueError(f"column '{name}' is {of}, which Arrow has no type for; cast or drop it")
    return frame


def _check_text(table: pa.Table) -> None:
    """ValueError where text is no UTF-8: Arrow takes a producer's word for it, and nobody could read the value."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not _has_text(column.type):
            continue
        for chunk in column.chunks:
            try:
                chunk.validate(full=True)
            except pa.ArrowInvalid as error:
                raise ValueError(f"column '{name}' holds text that is not UTF-8: {error}") from None


def _has_text(of: pa.DataType) -> bool:
    return bool(pa.types.is_string(of)) or any(_has_text(of.field(place).type) for place in range(of.num_fields))


def _dense(frame: Any) -> Any:
    """A pandas frame whose sparse columns are written out; Arrow takes no others."""
    sparse = [place for place, of in enumerate(frame.dtypes) if str(of).startswith("Sparse[")]
    if sparse:
        frame = frame.copy(deep=False)
        for place in sparse:
            frame.isetitem(place, frame.iloc[:, place].sparse.to_dense())
    return frame


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    of = column.type
    if pa.types.is_dictionary(of):  # decoded over plain values: views cannot be taken by index
        chunks = [pa.DictionaryArray.from_arrays(c.indices, _plain(pa.chunked_array([c.dictionary])).combine_chunks())
                  for c in column.chunks]  # fmt: skip
        return pa.chunked_array([chunk.dictionary_decode() for chunk in chunks], _plain_type(of.value_type))
    plain = _plain_type(of)
    if plain == of:
        return column
    return pa.chunked_array([part.cast(plain) for chunk in column.chunks for part in _parts(chunk)], plain)


def _parts(chunk: pa.Array) -> list[pa.Array]:
    """A chunk in parts of which a plain column holds each: its offsets are of 32 bits, and a slice keeps those of the whole."""
    try:
        large = chunk.nbytes >= PLAIN_BYTES
    except pa.ArrowTypeError:  # before version 23 Arrow does not say it of views
        return _parts(chunk.cast(_without_views(chunk.type)))
    if not large or len(chunk) < 2:
        return [pa.concat_arrays([chunk, chunk.slice(0, 0)])] if chunk.offset else [chunk]
    half = len(chunk) // 2
    return _parts(chunk.slice(0, half)) + _parts(chunk.slice(half))


def _without_views(of: pa.DataType) -> pa.DataType:
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return pa.large_list(_without_views(of.value_type))
    if pa.types.is_string_view(of):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(of) else of


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
    """A digest of a table's columns, their types and values; nothing else is a part of it: neither metadata, nor what Arrow
    calls the elements of lists, nor what its memory holds below a null."""
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

    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"{name!r}: {_type_text(column.type)}\n".encode())
        for said in _said(column.combine_chunks()):
            with pa.ipc.new_stream(pa.PythonFile(Sink(), mode="w"), pa.schema([("", said.type)])) as writer:
                writer.write_table(pa.table([said], names=[""]))
    return digest.hexdigest()


def _type_text(of: pa.DataType) -> str:
    if not hasattr(of, "value_field"):
        return str(of)
    length = of.list_size if pa.types.is_fixed_size_list(of) else ""
    return f"{str(of).partition('<')[0]}<{_type_text(of.value_type)}>{length}"


def _said(array: Any) -> Iterator[Any]:
    """Arrays of which every byte is a part of the values, that together say all of one."""
    if isinstance(array, pa.ChunkedArray):  # of more text than one array holds
        for chunk in array.chunks:
            yield from _said(chunk)
        return
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary_decode()
    if array.null_count:
        yield array.is_valid().cast(pa.uint8())
        array = array.drop_null()
    if pa.types.is_boolean(array.type):
        yield array.cast(pa.uint8())
    elif pa.types.is_struct(array.type):
        for field in array.flatten():
            yield from _said(field)
    elif hasattr(array, "flatten"):  # lists of every kind
        yield pc.list_value_length(array)
        yield from _said(array.flatten())
    else:
        yield array

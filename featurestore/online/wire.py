"""How values of each type stand in keys and records: one by one, and a column at a time, to the same bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa, pc
from featurestore.semantics.values import scalars
from featurestore.types import FeatureType, date_of, days_of, micros_of, timestamp_of

Packer: TypeAlias = Callable[[FeatureType], Callable[[Any], bytes]]
"""For a type, how one value of it is packed."""


def wire_dtype(of: FeatureType) -> str:
    """The numpy dtype of a type's place in a slot's fixed part."""
    if of.wire is None:
        return "<u4"
    return {"?": "u1", "i": "<i4", "q": "<i8", "f": "<f4", "d": "<f8"}.get(of.wire, f"V{of.wire[:-1]}")


def fixed_column(of: FeatureType, column: pa.Array) -> npt.NDArray[Any]:
    """Fixed-width values as numpy holds them on the wire; zeros in the place of nulls."""
    if of.kind == "Embedding":
        values = np.zeros((len(column), of.length or 0), "<f4")
        present = pc.is_valid(column).to_numpy(zero_copy_only=False)
        values[present] = column.drop_null().flatten().to_numpy().reshape(-1, of.length or 0)
        return values.view(f"V{4 * (of.length or 0)}").ravel()
    if of.kind == "Decimal":
        filled = pc.fill_null(column, pa.scalar(Decimal(0), column.type))
        start = filled.offset * 16
        return np.frombuffer(filled.buffers()[1], "V16", count=len(filled), offset=start)
    if of.kind == "Date":
        column = column.cast(pa.int32())
    elif of.kind == "Timestamp":
        column = column.cast(pa.int64())
    elif of.kind == "Bool":
        column = column.cast(pa.uint8())
    filled = pc.fill_null(column, pa.scalar(0, column.type)) if column.null_count else column
    result: npt.NDArray[Any] = filled.to_numpy(zero_copy_only=False)
    return result


def tails_column(of: FeatureType, column: pa.Array) -> pa.Array:
    """The bytes behind the fixed part, as large binary, empty for null."""
    if of.kind != "Array":
        tails = column.cast(pa.large_binary())
        return pc.fill_null(tails, b"") if tails.null_count else tails
    assert of.element is not None
    packed = [b"" if value is None else pack_array(of.element, value) for value in scalars(column)]
    return pa.array(packed, pa.large_binary())


def as_binary(block: npt.NDArray[Any]) -> pa.Array:
    """The items of a numpy array as Arrow's large binary, without a copy of contiguous ones."""
    size, data = block.dtype.itemsize, pa.py_buffer(np.ascontiguousarray(block).view(np.uint8))
    offsets = pa.py_buffer(np.arange(0, size * len(block) + 1, size, dtype=np.int64))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(block), [None, offsets, data])


def cut(array: pa.Array) -> list[bytes]:
    """The values of a large binary array without nulls; several times as quick as its own `to_pylist`."""
    ends = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1].tolist()
    data = array.buffers()[2].to_pybytes() if array.buffers()[2] is not None else b""
    return [data[start:end] for start, end in pairwise(ends)]


def byte_order(array: pa.Array) -> npt.NDArray[np.int64]:
    """The places of the values of a large binary array without nulls, in the order of their bytes; equal ones in any order.

    Values that differ in their last eight bytes alone, as the keys of an entity with one number do, are ordered as numbers: a seventh of the
    time of Arrow's own order (fast-paths, "order of 20,000 keys").
    """
    ends = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    size = int(ends[1] - ends[0]) if len(array) else 0
    if size and (np.diff(ends) == size).all():
        block = np.frombuffer(array.buffers()[2], np.uint8)[ends[0] : ends[-1]].reshape(-1, size)
        if (block[:, :-8] == block[0, :-8]).all():
            last = np.zeros((len(block), 8), np.uint8)
            last[:, -size:] = block[:, -8:]
            return np.argsort(last.view(">u8").ravel().astype(np.uint64))
    order: npt.NDArray[np.int64] = pc.sort_indices(array).to_numpy().astype(np.int64)
    return order


def pack_array(of: FeatureType, values: list[Any]) -> bytes:
    """count (u32), a bit a null, then the elements as a key column has them (zeros for null)."""
    bits = sum(1 << i for i, value in enumerate(values) if value is None)
    zero = b"\0" * struct.calcsize("<" + (of.wire or "I"))
    pack = KEY_WIRE[of.kind](of)
    body = [zero if value is None else pack(value) for value in values]
    return struct.pack("<I", len(values)) + bits.to_bytes((len(values) + 7) // 8, "little") + b"".join(body)


def unpack_array(of: FeatureType, data: bytes) -> list[Any]:
    """The values that `pack_array` packed."""
    (count,) = struct.unpack_from("<I", data)
    start = 4 + (count + 7) // 8
    bits = int.from_bytes(data[4:start], "little")
    convert = FROM_WIRE[of.kind](of) if of.kind in FROM_WIRE else None
    result: list[Any] = []
    for i in range(count):
        if of.wire is None:
            (size,) = struct.unpack_from("<I", data, start)
            raw: Any = data[start + 4 : start + 4 + size]
            start += 4 + size
        else:
            (raw,) = struct.unpack_from("<" + of.wire, data, start)
            start += struct.calcsize("<" + of.wire)
        result.append(None if bits >> i & 1 else convert(raw) if convert else raw)
    return result


def unpack_key(types: Sequence[FeatureType], data: bytes, start: int) -> list[Any]:
    """The canonical scalars of a key, which begins at `start`."""
    result: list[Any] = []
    for of in types:
        if of.wire is None:
            size = int.from_bytes(data[start : start + 4], "little")
            raw: Any = data[start + 4 : start + 4 + size]
            start += 4 + size
        else:
            (raw,) = struct.unpack_from("<" + of.wire, data, start)
            start += struct.calcsize("<" + of.wire)
        result.append(FROM_WIRE[of.kind](of)(raw) if of.kind in FROM_WIRE else raw)
    return result


def key_pieces(of: FeatureType, column: pa.Array) -> list[pa.Array]:
    """One key column's bytes, row by row, in one or two pieces."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if of.wire is not None and of.kind != "Embedding":
        return [as_binary(fixed_column(of, column))]
    tails = tails_column(of, column)
    return [as_binary(pc.binary_length(tails).to_numpy().astype("<u4")), tails]


def _packer(code: str, plain: Callable[[Any], Any] | None = None) -> Packer:
    pack = struct.Struct(code).pack
    return lambda _: pack if plain is None else lambda value: pack(plain(value))


def _sized(of: FeatureType) -> Callable[[Any], bytes]:
    plain: Callable[[Any], bytes] = str.encode if of.kind == "String" else bytes
    if of.element is not None:
        plain = partial(pack_array, of.element)

    def pack(value: Any) -> bytes:
        data = plain(value)
        return len(data).to_bytes(4, "little") + data

    return pack


def _unscaled(of: FeatureType) -> Callable[[Decimal], bytes]:
    def pack(value: Decimal) -> bytes:
        sign, digits, _ = of.accept(value).as_tuple()  # its exponent is -scale; arithmetic would round to 28 digits
        unscaled = int("".join(map(str, digits)))
        return (-unscaled if sign else unscaled).to_bytes(16, "little", signed=True)

    return pack


def _embedding(of: FeatureType) -> Callable[[list[float]], bytes]:
    pack = struct.Struct(f"<{of.length}f").pack
    return lambda value: pack(*value)


KEY_WIRE: dict[str, Packer] = {
    "Bool": _packer("<?"),
    "Int32": _packer("<i"),
    "Int64": _packer("<q"),
    "Float32": _packer("<f"),
    "Float64": _packer("<d"),
    "Date": _packer("<i", days_of),
    "Timestamp": _packer("<q", micros_of),
    "Decimal": _unscaled,
    "String": _sized,
    "Bytes": _sized,
    "Array": _sized,
    "Embedding": _embedding,
}
"""How one value stands in a key or an array: fixed width, or behind its length."""


def _decimal(of: FeatureType) -> Callable[[bytes], Decimal]:
    def convert(data: bytes) -> Decimal:
        value = int.from_bytes(data, "little", signed=True)
        return Decimal((int(value < 0), tuple(map(int, str(abs(value)))), -of.scale))

    return convert


def _array(of: FeatureType) -> Callable[[bytes], list[Any]]:
    assert of.element is not None
    element = of.element
    return lambda data: unpack_array(element, data) if data else []


FROM_WIRE: dict[str, Callable[[FeatureType], Callable[[Any], Any]]] = {
    "String": lambda _: bytes.decode,
    "Date": lambda _: date_of,
    "Timestamp": lambda _: timestamp_of,
    "Decimal": _decimal,
    "Array": _array,
    "Embedding": lambda of: lambda data: list(struct.unpack(f"<{of.length}f", data)),
}
"""How the raw value that `struct` reads becomes the canonical scalar, where it is not one already."""

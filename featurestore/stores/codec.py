"""The bytes that an online store keeps: keys, watermarks and records, the same for every kind of view.

    key         project ":" view id (8 bytes) kind (1 byte) entity key
    entity key  each column in order: fixed-width values as they are, others behind their length (u32)
    watermark   format (u8), then the last two complete instants, newest first (i64 each)
    record      format (u8), then one or two slots, newest first
    slot        instant (i64), 1 if it has a row else 0 (u8); with a row: event_time (i64), until (i64, where the source
                has one), a bit a null (least significant first), every feature's fixed-width value or the length of its
                bytes (u32), then those bytes

Numbers are little-endian. The view id stands for the view's name and value fingerprint, so that the types of a record
are known from its key, and two versions of a view never share one. A slot is what the view answers from its instant
until the next slot's; without a row, the key had no row that counts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.clock import instant_of, to_datetime
from featurestore.compile.answer import EVENT_TIME, UNTIL
from featurestore.errors import OnlineStoreError
from featurestore.semantics.time import END
from featurestore.semantics.view import ResolvedView
from featurestore.types import FeatureType

__all__ = ["FORMAT", "Row", "Slot", "ViewCodec", "pack_watermark", "project_prefix", "unpack_watermark"]

FORMAT = 1
EPOCH_DAY = date(1970, 1, 1)
HEAD = struct.Struct("<qB")
_NOTHING = pa.scalar(b"", pa.large_binary())


def project_prefix(project: str) -> bytes:
    """What every key of a project begins with."""
    return project.encode() + b":"


def pack_watermark(instants: Sequence[int]) -> bytes:
    """The last complete instants, newest first, two at most."""
    return struct.pack(f"<B{len(instants[:2])}q", FORMAT, *instants[:2])


def unpack_watermark(data: bytes | None) -> tuple[int, ...]:
    """The complete instants, newest first; none where nothing was ever completed."""
    if data is None:
        return ()
    _check(data)
    return struct.unpack_from(f"<{(len(data) - 1) // 8}q", data, 1)


def _check(data: bytes) -> None:
    if not data or data[0] != FORMAT:
        raise OnlineStoreError(
            f"The online store holds format {data[0] if data else 'nothing'}, and this version reads {FORMAT}; "
            "run featurestore teardown and materialize again, or use the version that wrote it"
        )


class Row(NamedTuple):
    """The row that a slot holds: µs, µs (END where open), and each feature's canonical scalar."""

    event_time: int
    until: int
    values: tuple[Any, ...]


class Slot(NamedTuple):
    """What a key answers from `instant` (µs) on; `row` None where no row counts. `data` is its encoded form."""

    instant: int
    row: Row | None
    data: bytes


class ViewCodec:
    """Encodes and decodes one version of a view: keys and slots, a row at a time or column by column."""

    def __init__(self, project: str, view: ResolvedView) -> None:
        self.prefix = self.prefix_of(project, view.name, view.fingerprint)
        self.watermark_key = self.prefix + b"w"
        self.state_key = self.prefix + b"s"
        self.lease_key = self.prefix + b"l"
        self.record_prefix = self.prefix + b"r"
        self._keys = tuple(key.type for key in view.keys)
        self._types = tuple(feature.type for feature in view.features)
        self._has_until = view.source.until is not None
        self._nulls = (len(self._types) + 7) // 8
        codes = "".join(of.wire or "I" for of in self._types)
        self._row = struct.Struct(f"<q{'q' if self._has_until else ''}{self._nulls}s{codes}")
        self._first = struct.Struct(HEAD.format + self._row.format[1:])
        self._least = self._first.size
        self._no_nulls = b"\0" * self._nulls
        self._lead = 2 if self._has_until else 1
        self._long = tuple(i for i, of in enumerate(self._types) if of.wire is None)
        self._from_wire = tuple((i, FROM_WIRE[of.kind](of)) for i, of in enumerate(self._types) if of.kind in FROM_WIRE)

    @staticmethod
    def prefix_of(project: str, view: str, fingerprint: str) -> bytes:
        """What every key of a view version begins with."""
        return project_prefix(project) + hashlib.blake2b(f"{view}\0{fingerprint}".encode(), digest_size=8).digest()

    def key(self, values: Sequence[Any]) -> bytes:
        """The store's key for canonical key scalars, none of them null."""
        return self.record_prefix + b"".join(
            [KEY_WIRE[of.kind](of, value) for of, value in zip(self._keys, values, strict=True)]
        )

    def keys(self, columns: Sequence[pa.Array], rows: int) -> list[bytes]:
        """The store's key for each of `rows` rows of key columns without nulls."""
        pieces = [pa.repeat(pa.scalar(self.record_prefix, pa.large_binary()), rows)]
        for of, column in zip(self._keys, columns, strict=True):
            pieces += _key_pieces(of, column)
        return _cut(pc.binary_join_element_wise(*pieces, _NOTHING))

    def empty(self, instant: int) -> bytes:
        """A slot without a row."""
        return HEAD.pack(instant, 0)

    def records(self, instant: int, rows: pa.Table, features: Sequence[str]) -> list[bytes]:
        """A record of one slot for each of the rows `(e, until, feature…)`, all of which count at `instant`."""
        count = rows.num_rows
        fields: list[tuple[str, Any]] = [("format", "u1"), ("instant", "<i8"), ("row", "u1"), ("e", "<i8")]
        fields += [("until", "<i8")] if self._has_until else []
        fields += [("nulls", "u1", (self._nulls,))] if self._nulls else []  # type: ignore[list-item]
        fields += [(f"f{i}", WIRE_DTYPE(of)) for i, of in enumerate(self._types)]
        block = np.zeros(count, np.dtype(fields))
        block["format"], block["instant"], block["row"] = FORMAT, instant, 1
        block["e"] = rows[EVENT_TIME].to_numpy()
        if self._has_until:
            block["until"] = rows[UNTIL].to_numpy()
        tails: list[pa.Array] = []
        nulls = np.zeros((count, self._nulls * 8), np.uint8)
        for i, (name, of) in enumerate(zip(features, self._types, strict=True)):
            column = rows[name].combine_chunks() if isinstance(rows[name], pa.ChunkedArray) else rows[name]
            if column.null_count:
                nulls[:, i] = pc.is_null(column).to_numpy(zero_copy_only=False)
            if of.wire is None:
                tails.append(_tails(of, column))
                block[f"f{i}"] = pc.binary_length(tails[-1]).to_numpy()
            else:
                block[f"f{i}"] = _fixed(of, column)
        block["nulls"] = np.packbits(nulls, axis=1, bitorder="little")
        fixed = _as_binary(block)
        return _cut(pc.binary_join_element_wise(fixed, *tails, _NOTHING) if tails else fixed)

    def with_older(self, record: bytes, older: bytes) -> bytes:
        """A record of one slot, with an older slot behind it."""
        return record + older

    def record(self, slots: Sequence[bytes]) -> bytes:
        """A record of one or two slots, newest first."""
        return b"\x01" + b"".join(slots)

    def row(self, record: bytes, base: int) -> Row | None:
        """The row of the newest slot that is not after `base`, None where it has none: what a lookup asks for.

        Raises LookupError where the record has no such slot.
        """
        if len(record) > self._least and record[0] == FORMAT:  # the first slot has a row, and most often is the one
            instant, has_row, *_ = fixed = self._first.unpack_from(record, 1)
            if has_row and instant <= base:
                return self._decoded(fixed[2:], record, 1 + self._first.size)
        slot = self.slot(record, base)
        if slot is None:
            raise LookupError(base)
        return slot.row

    def slot(self, record: bytes, base: int) -> Slot | None:
        """The newest slot whose instant is not after `base`; None where the record has none."""
        _check(record)
        start = 1
        while start < len(record):
            instant, has_row = HEAD.unpack_from(record, start)
            end = start + HEAD.size
            fixed: tuple[Any, ...] = ()
            if has_row:
                fixed = self._row.unpack_from(record, end)
                end += self._row.size
                tail = end
                for i in self._long:
                    end += fixed[self._lead + 1 + i]
            if instant <= base:
                row = self._decoded(fixed, record, tail) if has_row else None
                return Slot(instant, row, record[start:end])
            start = end
        return None

    def _decoded(self, fixed: tuple[Any, ...], record: bytes, tail: int) -> Row:
        lead = self._lead
        values: Any = fixed[lead + 1 :]
        nulls = fixed[lead]
        if self._long or self._from_wire or nulls != self._no_nulls:
            values = list(values)
            for i in self._long:
                length = values[i]
                values[i] = record[tail : tail + length]
                tail += length
            for i, convert in self._from_wire:
                values[i] = convert(values[i])
            bits = int.from_bytes(nulls, "little")
            while bits:
                low = bits & -bits
                values[low.bit_length() - 1] = None
                bits ^= low
        return Row(fixed[0], fixed[1] if self._has_until else END, tuple(values))


def WIRE_DTYPE(of: FeatureType) -> str:  # noqa: N802 - a column of the table of types, beside the dictionaries below
    """The numpy dtype of a type's place in a slot's fixed part."""
    if of.wire is None:
        return "<u4"
    return {"?": "u1", "i": "<i4", "q": "<i8", "f": "<f4", "d": "<f8"}.get(of.wire, f"V{of.wire[:-1]}")


def _fixed(of: FeatureType, column: pa.Array) -> npt.NDArray[Any]:
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


def _tails(of: FeatureType, column: pa.Array) -> pa.Array:
    """The bytes behind the fixed part, as large binary, empty for null."""
    if of.kind != "Array":
        tails = column.cast(pa.large_binary())
        return pc.fill_null(tails, b"") if tails.null_count else tails
    assert of.element is not None
    packed = [b"" if value is None else pack_array(of.element, value) for value in column.to_pylist()]
    return pa.array(packed, pa.large_binary())


def _as_binary(block: npt.NDArray[Any]) -> pa.Array:
    """The items of a numpy array as Arrow's large binary, without a copy of contiguous ones."""
    size, data = block.dtype.itemsize, pa.py_buffer(np.ascontiguousarray(block).view(np.uint8))
    offsets = pa.py_buffer(np.arange(0, size * len(block) + 1, size, dtype=np.int64))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(block), [None, offsets, data])


def _cut(array: pa.Array) -> list[bytes]:
    """The values of a large binary array without nulls; several times as quick as its own `to_pylist`."""
    ends = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1].tolist()
    data = array.buffers()[2].to_pybytes() if array.buffers()[2] is not None else b""
    return [data[start:end] for start, end in pairwise(ends)]


def pack_array(of: FeatureType, values: list[Any]) -> bytes:
    """count (u32), a bit a null, then the elements as a key column has them (zeros for null)."""
    bits = sum(1 << i for i, value in enumerate(values) if value is None)
    zero = b"\0" * struct.calcsize("<" + (of.wire or "I"))
    body = [zero if value is None else KEY_WIRE[of.kind](of, value) for value in values]
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


def _key_pieces(of: FeatureType, column: pa.Array) -> list[pa.Array]:
    """One key column's bytes, row by row, in one or two pieces."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if of.wire is not None and of.kind != "Embedding":
        return [_as_binary(_fixed(of, column))]
    tails = _tails(of, column)
    return [_as_binary(pc.binary_length(tails).to_numpy().astype("<u4")), tails]


def _packer(code: str, plain: Callable[[Any], Any] = lambda value: value) -> Callable[[FeatureType, Any], bytes]:
    pack = struct.Struct(code).pack
    return lambda _, value: pack(plain(value))


def _sized(plain: Callable[[FeatureType, Any], bytes]) -> Callable[[FeatureType, Any], bytes]:
    def pack(of: FeatureType, value: Any) -> bytes:
        data = plain(of, value)
        return struct.pack("<I", len(data)) + data

    return pack


def _unscaled(of: FeatureType, value: Decimal) -> bytes:
    sign, digits, _ = of.accept(value).as_tuple()  # its exponent is -scale; arithmetic would round to 28 digits
    unscaled = int("".join(map(str, digits)))
    return (-unscaled if sign else unscaled).to_bytes(16, "little", signed=True)


def _nested(of: FeatureType, value: list[Any]) -> bytes:
    assert of.element is not None
    return pack_array(of.element, value)


KEY_WIRE: dict[str, Callable[[FeatureType, Any], bytes]] = {
    "Bool": _packer("<?"),
    "Int32": _packer("<i"),
    "Int64": _packer("<q"),
    "Float32": _packer("<f"),
    "Float64": _packer("<d"),
    "Date": _packer("<i", lambda value: (value - EPOCH_DAY).days),
    "Timestamp": _packer("<q", instant_of),
    "Decimal": _unscaled,
    "String": _sized(lambda _, value: value.encode()),
    "Bytes": _sized(lambda _, value: value),
    "Array": _sized(_nested),
    "Embedding": lambda of, value: struct.pack(f"<{of.length}f", *value),
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
    "String": lambda _: lambda data: data.decode(),
    "Date": lambda _: lambda days: EPOCH_DAY + timedelta(days=days),
    "Timestamp": lambda _: to_datetime,
    "Decimal": _decimal,
    "Array": _array,
    "Embedding": lambda of: lambda data: list(struct.unpack(f"<{of.length}f", data)),
}
"""How the raw value that `struct` reads becomes the canonical scalar, where it is not one already."""

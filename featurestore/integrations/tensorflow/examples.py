"""Rows as `tf.Example`s: the message in its bytes, and what of each value became something else by that.

A `tf.Example` is `features { feature { key: name  value { one of bytes_list, float_list, int64_list } } … }` (Protocol Buffers),
by name. Its floats are float32, its integers int64, and there is nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.errors import RequestError
from featurestore.integrations.tensorflow.training_rows import RowBatch
from featurestore.lazy import pa, pc
from featurestore.plurals import plural
from featurestore.types import FeatureType

LARGEST_EXAMPLE_BYTES = (1 << 31) - 1
"""What a message of Protocol Buffers holds."""

ListKind = Literal["bytes_list", "float_list", "int64_list"]
NUMBERS: dict[ListKind, int] = {"bytes_list": 1, "float_list": 2, "int64_list": 3}
"""The numbers of the fields of `Feature`."""


class ExampleForm(NamedTuple):
    """What a value of a kind of type is in a `tf.Example`."""

    kind: ListKind
    is_said_as: str


FORMS: dict[str, ExampleForm] = {
    "Bool": ExampleForm("int64_list", "0 or 1"),
    "Int32": ExampleForm("int64_list", "as it is"),
    "Int64": ExampleForm("int64_list", "as it is"),
    "Float32": ExampleForm("float_list", "as it is"),
    "Float64": ExampleForm("float_list", "rounded to float32"),
    "String": ExampleForm("bytes_list", "UTF-8"),
    "Bytes": ExampleForm("bytes_list", "as it is"),
    "Date": ExampleForm("int64_list", "days since 1970-01-01"),
    "Timestamp": ExampleForm("int64_list", "µs since 1970-01-01T00:00:00Z"),
    "Decimal": ExampleForm("bytes_list", "text with all its places, as 12.340"),
}
"""By kind of type; an array is a list of its elements."""


def form_of(of: FeatureType) -> ExampleForm:
    """The form of a type's values, or of its elements."""
    return FORMS[(of.element or of).kind]


@dataclass
class WrittenColumn:
    """What became of a column's values."""

    name: str
    type: str | None
    """None: it was null throughout, and had none; nothing is written of it."""
    kind: ListKind | None
    said_as: str
    values: int = 0
    """How many were written; elements count one by one."""
    nulls: int = 0
    """Rows without it: a null is a feature that is not there."""
    empty: int = 0
    """Rows with a list of no elements, which `tf.io.parse_example` reads as it reads a null."""
    rounded: int = 0
    """Doubles that float32 has not, and so became others, those that are counted below included."""
    largest_error: float = 0.0
    """The greatest difference that this made, of those that stayed finite."""
    largest_relative_error: float = 0.0
    """The same as a part of the value; 1 where it became zero."""
    to_infinity: int = 0
    """Finite doubles that became infinite."""
    to_zero: int = 0
    """Doubles that became zero."""
    beyond_float32: int = 0
    """Integers as they are, which a model that makes float32 of them has as others."""
    floored: int = 0
    """Timestamps that were finer than µs."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass
class Examples:
    """Makes examples of rows, and counts what became of the values. types: by name those of the columns."""

    types: Mapping[str, FeatureType | None]
    columns: list[WrittenColumn] = field(init=False)

    def __post_init__(self) -> None:
        self.columns = [_described(name, of) for name, of in self.types.items()]
        # In the order of the names, so that equal rows have equal bytes.
        self._ordered = sorted(self.columns, key=lambda column: column.name.encode())
        self._heads = {one.name: _Heads(one.name, one.kind) for one in self.columns if one.kind is not None}

    def of(self, batch: RowBatch) -> list[bytes]:
        """The example of each row. Raises RequestError for a list with a null element, and for an example that is too large."""
        if not self.columns:
            return []
        found = [self._entries(column, batch) for column in self._ordered]
        examples = [_field(1, b"".join(row)) for row in zip(*found, strict=True)]
        for row, example in enumerate(examples):
            if len(example) > LARGEST_EXAMPLE_BYTES:
                largest = max(self._ordered, key=lambda column: len(found[self._ordered.index(column)][row]))
                raise RequestError(
                    f"Row {batch.first + row} makes an example of {len(example)} {plural(len(example), 'byte')}, and Protocol Buffers hold "
                    f"{LARGEST_EXAMPLE_BYTES}; most of it is column '{largest.name}'"
                )
        return examples

    def _entries(self, column: WrittenColumn, batch: RowBatch) -> list[bytes]:
        """The column's entry in the map of features, for each row; empty where it is null."""
        of, array = self.types[column.name], batch.columns[column.name]
        column.nulls += array.null_count
        column.floored += batch.floored.get(column.name, 0)
        if of is None:
            return [b""] * len(array)
        there = array.is_valid().to_numpy(zero_copy_only=False)
        if of.element is None:
            elements, lengths = array.drop_null(), there.astype(np.int64)
        else:
            elements, lengths = (
                array.flatten(),
                pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64),
            )
            column.empty += int(np.count_nonzero(there & (lengths == 0)))
            if elements.null_count:
                _refuse_null(column.name, array, batch.first)
        column.values += len(elements)
        places = np.concatenate([[0], np.cumsum(lengths)])
        data, ends = self._encoded(column, elements, of.element or of)
        cuts = ends[places].tolist()
        heads = self._heads[column.name]
        return [
            heads[b - a] + data[a:b] if here else b""
            for (a, b), here in zip(pairwise(cuts), there.tolist(), strict=True)
        ]

    def _encoded(
        self, column: WrittenColumn, elements: pa.Array, of: FeatureType
    ) -> tuple[bytes, npt.NDArray[np.int64]]:
        """The elements' bytes one after the other, and where each begins, and the last ends."""
        if column.kind == "float_list":
            floats = elements.to_numpy(zero_copy_only=False)
            narrow = _narrowed(column, floats) if of.kind == "Float64" else floats
            return narrow.astype("<f4").tobytes(), np.arange(len(elements) + 1) * 4
        if column.kind == "int64_list":
            whole = (elements.cast(pa.int32()) if of.kind == "Date" else elements).cast(pa.int64()).to_numpy()
            if of.kind in {"Int32", "Int64"}:
                column.beyond_float32 += _beyond_float32(whole)
            return _varints(whole)
        texts = [format(value, "f") for value in elements.to_pylist()] if of.kind == "Decimal" else elements.to_pylist()
        pieces = [_field(1, text.encode() if isinstance(text, str) else text) for text in texts]
        return b"".join(pieces), np.concatenate([[0], np.cumsum([len(piece) for piece in pieces], dtype=np.int64)])


def _described(name: str, of: FeatureType | None) -> WrittenColumn:
    if of is None:
        return WrittenColumn(name, None, None, "not at all")
    form = form_of(of)
    words = form.is_said_as if of.element is None else f"a list of elements, each {form.is_said_as}"
    return WrittenColumn(name, str(of), form.kind, words)


def _refuse_null(name: str, array: pa.Array, first: int) -> None:
    row = next(row for row, value in enumerate(array.to_pylist()) if value is not None and None in value)
    raise RequestError(
        f"Row {first + row}, column '{name}': an element of the list is null, and tf.Example has no null among values; leave the "
        "column out by columns=[…], which lists the others, or let an on-demand feature say what stands for null"
    )


def _narrowed(column: WrittenColumn, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The nearest float32 of each, which is counted where it is another number."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
        back = narrow.astype(np.float64)
    changed = (back != values) & ~np.isnan(values)
    if not changed.any():
        return narrow
    values, back = values[changed], back[changed]
    column.rounded += len(values)
    infinite = np.isinf(back)
    column.to_infinity += int(np.count_nonzero(infinite))
    column.to_zero += int(np.count_nonzero(back == 0))
    if not infinite.all():
        error = np.abs(values - back)[~infinite]
        relative = error / np.abs(values[~infinite])
        column.largest_error = max(column.largest_error, float(error.max()))
        column.largest_relative_error = max(column.largest_relative_error, float(relative.max()))
    return narrow


def _beyond_float32(values: npt.NDArray[np.int64]) -> int:
    with np.errstate(invalid="ignore"):
        back = values.astype(np.float32).astype(np.float64)
        same = (back < 2.0**63) & (np.where(back < 2.0**63, back, 0).astype(np.int64) == values)
    return int(np.count_nonzero(~same))


def _varints(values: npt.NDArray[np.int64]) -> tuple[bytes, npt.NDArray[np.int64]]:
    """Integers as base-128 varints, of 1 to 10 bytes, one after the other, and where each begins, and the last ends."""
    left = values.view(np.uint64)
    groups = np.empty((len(values), 10), np.uint8)
    lengths = np.ones(len(values), np.int64)
    for place in range(10):
        groups[:, place] = (left & np.uint64(0x7F)).astype(np.uint8)
        left = left >> np.uint64(7)
        more = left > 0
        groups[more, place] |= 0x80
        lengths += more
    used = np.arange(10) < lengths[:, None]
    return groups[used].tobytes(), np.concatenate([[0], np.cumsum(lengths)])


def varint(number: int) -> bytes:
    """A number from 0 on in the bytes that Protocol Buffers have for it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, content: bytes) -> bytes:
    """A field that holds bytes: text or a message."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


class _Heads(dict[int, bytes]):
    """By the size of a list's values the bytes that come before them, from the entry of the map on."""

    def __init__(self, name: str, kind: ListKind) -> None:
        super().__init__()
        self._key = _field(1, name.encode())
        self._number, self._is_packed = NUMBERS[kind], kind != "bytes_list"

    def __missing__(self, size: int) -> bytes:
        head = b"\x0a" + varint(size) if self._is_packed and size else b""
        head = bytes([self._number << 3 | 2]) + varint(len(head) + size) + head
        head = self._key + b"\x12" + varint(len(head) + size) + head
        head = b"\x0a" + varint(len(head) + size) + head
        self[size] = head
        return head

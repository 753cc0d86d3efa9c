"""The rows that the tests of the push log keep: all types that a source's columns may have."""

from __future__ import annotations

import random
import struct
from datetime import date
from decimal import Decimal

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("who", pa.int64()),
        ("turn", pa.int64()),
        ("bool", pa.bool_()),
        ("int", pa.int32()),
        ("float", pa.float32()),
        ("double", pa.float64()),
        ("text", pa.string()),
        ("bytes", pa.binary()),
        ("date", pa.date32()),
        ("at", pa.timestamp("us", "UTC")),
        ("decimal", pa.decimal128(38, 9)),
        ("list", pa.list_(pa.float64())),
        ("embedding", pa.list_(pa.float32(), 3)),
        ("known_at", pa.int64()),
    ]
)
DOUBLES = [0.0, -0.0, float("inf"), float("-inf"), float("nan"), 5e-324, 1.7e308, 0.1]


def _double(chosen: random.Random) -> float:
    if chosen.random() < 0.5:
        return chosen.choice(DOUBLES)
    return struct.unpack("<d", chosen.randbytes(8))[0]


def _row(chosen: random.Random) -> dict[str, object]:
    single = [0.0, -0.0, float("nan"), float("inf"), 0.5]
    row: dict[str, object] = {
        "bool": chosen.random() < 0.5,
        "int": chosen.randrange(-(2**31), 2**31),
        "float": chosen.choice(single),
        "double": _double(chosen),
        "text": chosen.choice(["", "é\0x", "plain", "🙂" * chosen.randrange(9)]),
        "bytes": chosen.randbytes(chosen.randrange(9)),
        "date": date.fromordinal(chosen.randrange(1, 3_000_000)),
        "at": chosen.randrange(-(2**60), 2**60),
        "decimal": Decimal(chosen.randrange(-(10**38) + 1, 10**38)).scaleb(-9),
        "list": [chosen.choice([None, _double(chosen)]) for _ in range(chosen.randrange(4))],
        "embedding": [chosen.choice(single) for _ in range(3)],
    }
    return {name: None if chosen.random() < 0.2 else value for name, value in row.items()}


def batch(start: int, rows: int, *, who: int = 0, turn: int = 0, seed: int = 0) -> pa.RecordBatch:
    """Rows whose known_at are start, start + 1, …; the same for the same arguments."""
    chosen = random.Random(f"{who} {turn} {seed}")
    found = [_row(chosen) for _ in range(rows)]
    columns = [pa.array([row[f.name] for row in found], f.type) for f in list(SCHEMA)[2:-1]]
    numbers = [pa.array([who] * rows, pa.int64()), pa.array([turn] * rows, pa.int64())]
    return pa.RecordBatch.from_arrays(
        [*numbers, *columns, pa.array(range(start, start + rows), pa.int64())], schema=SCHEMA
    )


def bits(table: pa.Table) -> bytes:
    """What two tables share iff their values are equal to the bit: nulls, NaN payloads and signs of zero included."""
    sink = pa.BufferOutputStream()
    for column in table.combine_chunks().columns:
        for name, flat in _flat(column.chunk(0) if column.num_chunks else pa.array([], column.type)):
            sink.write(repr((name, str(flat.type), flat.to_pylist())).encode())
    return sink.getvalue().to_pybytes()


def _flat(array: pa.Array) -> list[tuple[str, pa.Array]]:
    """Validity, lengths and values, floats as the integers of their bits."""
    found = [("valid", array.is_valid())]
    of = array.type
    if pa.types.is_list(of):
        lengths = [None if item is None else len(item) for item in array.to_pylist()]
        return [*found, ("lengths", pa.array(lengths, pa.int64())), *_flat(array.flatten())]
    if pa.types.is_fixed_size_list(of):
        return [*found, *_flat(array.flatten())]
    if pa.types.is_floating(of):
        array = pa.concat_arrays([array]) if array.offset else array
        width = {32: pa.int32(), 64: pa.int64()}[of.bit_width]
        return [*found, ("bits", array.view(width))]
    return [*found, ("values", array.cast(pa.int64()) if pa.types.is_timestamp(of) else array)]

"""Two tables of values, compared to the bit."""

from typing import Any

import pyarrow as pa


def differing(ours: pa.Table, theirs: pa.Table) -> dict[str, int]:
    """How many values differ in each column that has such: nulls count, and so do the bits of a zero or a NaN."""
    if ours.schema.names != theirs.schema.names or ours.num_rows != theirs.num_rows:
        raise ValueError("The tables differ in their columns, or in the number of their rows.")
    counts = {}
    for name in ours.schema.names:
        pairs = zip(_bits(ours[name]), _bits(theirs[name]), strict=True)
        counts[name] = sum(one != other for one, other in pairs)
    return {name: count for name, count in counts.items() if count}


def _bits(column: pa.ChunkedArray) -> list[Any]:
    if not pa.types.is_floating(column.type):
        return column.to_pylist()
    nulls = column.is_null().to_numpy()
    values = column.fill_null(0).to_numpy()
    return [
        None if null else bits for null, bits in zip(nulls, values.view(f"u{values.itemsize}").tolist(), strict=True)
    ]

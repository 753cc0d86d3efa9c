"""What the engine takes of a frame's columns."""

from __future__ import annotations

import json

import pyarrow as pa

from featurestore.sources.schemas import taken_columns


def test_equal_arrow_types_are_read_by_what_their_fields_say() -> None:
    """Arrow calls two structs one type when only the fields' metadata tell them apart, which the engine reads."""
    says = {"type_name": "hugeint", "vendor_name": "DuckDB"}
    metadata = {"ARROW:extension:name": "arrow.opaque", "ARROW:extension:metadata": json.dumps(says)}
    bytes_ = pa.struct([pa.field("a", pa.binary(16))])
    number = pa.struct([pa.field("a", pa.binary(16), metadata=metadata)])
    assert bytes_ == number
    for order in ([bytes_, number], [number, bytes_]):
        frame = pa.table([pa.chunked_array([], of) for of in order], names=["x", "y"])
        found = {of: order[place] is number for place, (_, of) in taken_columns(frame).items()}
        assert found == {"STRUCT(a BLOB)": False, "STRUCT(a HUGEINT)": True}

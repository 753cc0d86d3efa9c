"""A table as bytes: what comes back is the table, and what others sent is checked."""

from __future__ import annotations

import pyarrow as pa
import pytest

from featurestore.arrow_ipc import ROW_BYTES, from_bytes, from_sent_bytes, to_bytes

TABLE = pa.table({"n": pa.array([1, None, 3]), "text": ["a", "ä", None]}).replace_schema_metadata({b"about": b"it"})


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize("table", [TABLE, TABLE.slice(1, 1), TABLE.slice(0, 0), TABLE.select([])])
def test_a_table_comes_back(table: pa.Table, compression: str | None) -> None:
    """With its values and its metadata, by either way."""
    data = to_bytes(table, compression=compression)
    for read in (from_bytes, from_sent_bytes):
        assert read(data).equals(table, check_metadata=True)


@pytest.mark.parametrize("read", [from_bytes, from_sent_bytes])
@pytest.mark.parametrize("data", [b"", b"no table", to_bytes(TABLE)[:-40], b"\xff" * 64])
def test_bytes_that_are_no_table_are_a_value_error(read: object, data: bytes) -> None:
    """Whatever the library calls it."""
    assert callable(read)
    with pytest.raises(ValueError, match=r"."):
        read(data)


def test_values_that_others_sent_are_checked() -> None:
    """Text that is no UTF-8 is no text, though its bytes are an array's."""
    offsets, text = pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")
    data = to_bytes(pa.table({"text": pa.StringArray.from_buffers(1, offsets, text)}))
    assert from_bytes(data).num_rows == 1
    with pytest.raises(ValueError, match="UTF8"):
        from_sent_bytes(data)


def test_what_others_sent_is_limited() -> None:
    """By its values and its rows together, of all its batches."""
    rows = pa.table({"n": pa.array(range(100), pa.int64())})
    size = 100 * (8 + ROW_BYTES)
    data = to_bytes(pa.concat_tables([rows, rows]))
    assert from_sent_bytes(data, 2 * size).num_rows == 200
    with pytest.raises(ValueError, match=f"more than {2 * size - 1} bytes"):
        from_sent_bytes(data, 2 * size - 1)

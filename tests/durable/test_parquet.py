"""Arrays of a fixed length, some null, through Parquet under any version of Arrow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.durable import parquet
from featurestore.durable.parquet import (
    filterable,
    filterable_schema,
    parquet_file,
    restored,
    storable,
    storable_schema,
)

VECTOR = pa.list_(pa.float32(), 2)
ROWS = pa.table(
    {
        "n": [1, 2, 3, 4],
        "vector": pa.array([[0.5, -0.0], None, [1.0, None], None], VECTOR),
        "words": [["a"], None, [], ["b", "c"]],
    }
).replace_schema_metadata({"of": "rows"})


@pytest.mark.parametrize("fixed", sorted({False, parquet.STORES_FIXED}))
def test_arrays_come_back_with_their_nulls(fixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were, whole and in slices; and a file of an older Arrow is read by a newer one."""
    monkeypatch.setattr(parquet, "STORES_FIXED", fixed)
    for number, rows in enumerate((ROWS, ROWS.slice(1), ROWS.slice(1, 1), ROWS.slice(0, 0), ROWS.select(["n"]))):
        stored = storable(rows)
        assert stored.schema.equals(storable_schema(rows.schema), check_metadata=True)
        pq.write_table(stored, tmp_path / f"{number}.parquet")
        monkeypatch.undo()
        read = restored(pq.read_table(tmp_path / f"{number}.parquet"))
        monkeypatch.setattr(parquet, "STORES_FIXED", fixed)
        assert read.schema == rows.schema
        assert read.schema.metadata == rows.schema.metadata
        assert not any(field.metadata for field in read.schema)
        assert read.to_pylist() == rows.to_pylist()


def test_what_is_stored_as_it_is_is_not_copied() -> None:
    """Where Arrow stores fixed lengths, or there are none."""
    plain = ROWS.select(["n", "words"])
    assert storable(plain) is plain
    assert restored(plain) is plain


@pytest.mark.skipif(not hasattr(pa, "string_view"), reason="an Arrow without views")
@pytest.mark.parametrize(
    ("of", "value"),
    [
        (lambda text: text, "a"),
        (pa.list_, ["a", None]),
        (lambda text: pa.struct([("n", pa.int64()), ("text", text)]), {"n": 1, "text": "a"}),
        (lambda text: pa.list_(pa.struct([("text", text)])), [{"text": "a"}]),
        (lambda text: pa.struct([("map", pa.map_(text, text))]), {"map": [("a", "b")]}),
    ],
)
def test_texts_are_filtered_wherever_they_lie(of: Callable[[pa.DataType], pa.DataType], value: object) -> None:
    """Views of them too, which Arrow filters none of: in lists, structs and maps."""
    viewed = pa.RecordBatch.from_arrays([pa.array([value, None, value], of(pa.string_view()))], names=["x"])
    batch = filterable(viewed)
    assert batch.schema == filterable_schema(viewed.schema) == pa.schema([("x", of(pa.string()))])
    assert batch.filter(pa.array([True, True, False]))["x"].to_pylist() == [value, None]


def test_what_was_read_is_let_go_of(tmp_path: Path) -> None:
    """Of a file in many row groups no more is held at the end than after the first, and not the bytes of all."""
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(1).normal(size=2_000_000)}), path, row_group_size=100_000)
    before = pa.total_allocated_bytes()
    with parquet_file(path) as opened:
        rows = sum(batch.num_rows for batch in opened.iter_batches(10_000))
        held = pa.total_allocated_bytes() - before
    assert rows == 2_000_000
    assert held < path.stat().st_size / 4

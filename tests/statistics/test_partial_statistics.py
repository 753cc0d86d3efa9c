"""Statistics of parts of the rows, put together: what all rows at once tell, whatever the parts are and in whichever order they come."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.statistics import held_rows, partial_statistics
from featurestore.statistics.column_statistics import ColumnStatistics
from featurestore.statistics.gathered_statistics import GatheredStatistics
from featurestore.statistics.partial_statistics import PartialStatistics
from featurestore.types import Array, Bool, FeatureType, Float64, Int64, String
from tests.draws import at_length, draws
from tests.platforms.shop import TYPES, value
from tests.statistics.test_gathered_statistics import same

FEW = 64
"""Values that are held: what is beyond is drawn."""


def part_of(types: dict[str, FeatureType], columns: dict[str, list[Any]], number: int = 0) -> PartialStatistics:
    gathering = GatheredStatistics(types, most_values=FEW, part=number)
    rows = len(next(iter(columns.values())))
    gathering.add({name: pa.array(values, types[name].arrow) for name, values in columns.items()}, rows)
    return gathering.partial()


def joined(types: dict[str, FeatureType], parts: list[PartialStatistics]) -> GatheredStatistics:
    gathering = GatheredStatistics(types, most_values=FEW)
    for part in parts:
        gathering.join(PartialStatistics.unpacked(part.packed()))
    return gathering


def without_sample(column: ColumnStatistics) -> ColumnStatistics:
    """What is told of all rows, whichever were drawn."""

    def of(numbers: Any) -> Any:
        return None if numbers is None else replace(numbers, quantiles=(), histogram=None, frequent=(), unique=0)

    texts = None if column.texts is None else replace(column.texts, unique=0, frequent=())
    return replace(column, numbers=of(column.numbers), norms=of(column.norms), texts=texts, sampled_rows=None)


@at_length
@pytest.mark.parametrize("name", TYPES)
def test_parts_of_every_type_tell_what_all_rows_do(name: str) -> None:
    """Of few rows everything, of many all that is no sample; through bytes, and with parts of no rows among them."""
    of, draw = TYPES[name], random.Random(name)
    for rows in (0, 5, *([120] * draws(3))):
        values = [value(draw, of) for _ in range(rows)]
        cuts = sorted(draw.randrange(rows + 1) for _ in range(3))
        pieces = [values[begin:end] for begin, end in itertools.pairwise([0, *cuts, rows])]
        found = joined({"x": of}, [part_of({"x": of}, {"x": piece}, n) for n, piece in enumerate(pieces)])
        whole = GatheredStatistics({"x": of}, most_values=FEW)
        whole.add({"x": pa.array(values, of.arrow)}, rows)
        (mine,), (other,) = found.found(), whole.found()
        assert found.rows == whole.rows == rows
        assert (mine.sampled_rows is None) == (other.sampled_rows is None)
        if mine.sampled_rows is None:
            same(mine, other)
        same(without_sample(mine), without_sample(other))


@settings(max_examples=draws(40), deadline=None)
@given(st.lists(st.integers(0, 150), min_size=2, max_size=4), st.integers())
def test_the_order_and_the_brackets_of_parts_do_not_matter(sizes: list[int], seed: int) -> None:
    """The same rows are drawn, so the same is told, but for the last digits of mean and deviation."""
    draw = random.Random(seed)
    types: dict[str, FeatureType] = {"n": Int64, "lists": Array(Float64), "word": String, "truth": Bool}
    parts = [
        part_of(types, {name: [value(draw, of) for _ in range(size)] for name, of in types.items()}, number)
        for number, size in enumerate(sizes)
    ]
    first = joined(types, parts).found()
    draw.shuffle(parts)
    middle = draw.randrange(len(parts) + 1)
    nested = [joined(types, side).partial() for side in (parts[:middle], parts[middle:])]
    for mine, other in zip(first, joined(types, nested).found(), strict=True):
        same(mine, other)


def test_samples_of_parts_are_of_the_right_size_and_even() -> None:
    """Of parts of very different sizes, rows are drawn in proportion."""
    sizes = (40, 3_000, 500)
    parts = []
    for number, size in enumerate(sizes):
        gathering = GatheredStatistics({"part": Int64}, most_values=1_000, part=number)
        gathering.add({"part": pa.array([number] * size)}, size)
        parts.append(gathering.partial())
    gathering = GatheredStatistics({"part": Int64}, most_values=1_000)
    for part in parts:
        gathering.join(part)
    (found,) = gathering.found()
    assert found.sampled_rows is not None
    assert 500 <= found.sampled_rows <= 1_000
    assert found.numbers is not None
    drawn = dict(found.numbers.frequent)
    for number, size in enumerate(sizes):
        share = size / sum(sizes) * found.sampled_rows
        assert abs(drawn.get(number, 0) - share) < 5 * share**0.5 + 1


def test_as_few_rows_are_left_out_as_the_most_values_allow() -> None:
    """A bit fewer, and there were too many."""
    gathering = GatheredStatistics({"n": Int64}, most_values=100)
    gathering.add({"n": pa.array(range(5_000))}, 5_000)
    held = gathering.partial().columns["n"].held
    every = held_rows.RowDraws(0, 5_000).all()
    assert np.count_nonzero(every < (1 << (64 - held.bits))) == len(held.rows) <= 100
    assert np.count_nonzero(every < (1 << (65 - held.bits))) > 100


def test_a_single_long_list_is_held() -> None:
    """Though it has more values than are to be held."""
    (found,) = joined({"x": Array(Int64)}, [part_of({"x": Array(Int64)}, {"x": [list(range(500))]})]).found()
    assert found.sampled_rows is None
    assert found.numbers is not None
    assert found.numbers.unique == 500


def test_parts_of_other_columns_are_refused() -> None:
    """By their names and by their types."""
    part = part_of({"x": Int64}, {"x": [1]})
    with pytest.raises(ValueError, match="they are of x, and not of y"):
        joined({"y": Int64}, [part])
    with pytest.raises(ValueError, match="column 'x' is int64, and not double"):
        joined({"x": Float64}, [part])


def test_what_is_no_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are none, and those of another version."""
    with pytest.raises(ValueError, match="Partial statistics cannot be read"):
        PartialStatistics.unpacked(b"nothing")
    monkeypatch.setattr(partial_statistics, "VERSION", 2)
    packed = part_of({"x": Int64}, {"x": [1]}).packed()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="they are of version 2, and not 1"):
        PartialStatistics.unpacked(packed)


def test_a_part_takes_few_bytes() -> None:
    """Columns whose rows were drawn alike have their draws once."""
    types: dict[str, FeatureType] = {f"x{n}": Float64 for n in range(9)}
    part = part_of(types, {name: [float(n) for n in range(5_000)] for name in types})
    with pa.ipc.open_stream(part.packed()) as reader:
        schema = reader.read_all().schema
    assert sum(name.startswith("draws") for name in schema.names) == 1
    assert orjson.loads(schema.metadata[partial_statistics.PARTIAL])["rows"] == 5_000

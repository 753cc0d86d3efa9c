"""What columns are like, gathered batch by batch: as it is told of whole columns, and as numpy and pandas say."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from decimal import Decimal as Number
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.statistics import gathered_statistics
from featurestore.statistics.column_counts import PIECE_VALUES
from featurestore.statistics.column_statistics import ColumnStatistics, NumberStatistics, statistics_of
from featurestore.statistics.gathered_statistics import GatheredStatistics
from featurestore.statistics.held_rows import EXACT_VALUES
from featurestore.statistics.moments import ExactMoments, QuickMoments
from featurestore.types import Array, Bytes, Date, Decimal, FeatureType, Float32, Float64, Int64, String, Timestamp
from tests.draws import at_length, draws
from tests.platforms.shop import TYPES, value


def gathered(
    of: FeatureType, values: list[Any], *, batch_rows: int = 1 << 20, most_values: int = EXACT_VALUES
) -> ColumnStatistics:
    gathering = GatheredStatistics({"x": of}, most_values=most_values)
    column = pa.array(values, of.arrow)
    for first in range(0, len(values), batch_rows):
        part = column.slice(first, batch_rows)
        gathering.add({"x": part}, len(part))
    (found,) = gathering.found()
    return found


def same_numbers(one: NumberStatistics | None, other: NumberStatistics | None) -> None:
    """All but the moments to the bit, and these to some 12 digits of the greatest value."""
    assert (one is None) == (other is None)
    if one is None or other is None:
        return
    assert replace(one, mean=None, deviation=None) == replace(other, mean=None, deviation=None)
    size = max(abs(one.least or 0), abs(one.greatest or 0)) or 1
    for mine, exact in ((one.mean, other.mean), (one.deviation, other.deviation)):
        assert (mine is None) == (exact is None)
        if mine is not None and exact is not None:
            assert mine / size == pytest.approx(exact / size, rel=1e-11, abs=1e-11)


def same(one: ColumnStatistics, other: ColumnStatistics) -> None:
    same_numbers(one.numbers, other.numbers)
    same_numbers(one.norms, other.norms)
    assert replace(one, numbers=None, norms=None) == replace(other, numbers=None, norms=None)


@at_length
@pytest.mark.parametrize("name", TYPES)
def test_every_type_as_of_whole_columns(name: str) -> None:
    """NaN, infinities, -0.0, nulls, empty columns and lists: in whichever batches they come."""
    of, draw = TYPES[name], random.Random(name)
    for size in (0, 1, 7, *([60] * draws(7))):
        values = [value(draw, of) for _ in range(size)]
        found = gathered(of, values, batch_rows=draw.randrange(1, 70))
        (exact,) = statistics_of(pa.table({"x": pa.array(values, of.arrow)}), {"x": of}).columns
        if exact.texts is not None:  # of whose most frequent ones it tells more
            frequent = exact.texts.frequent[: gathered_statistics.FREQUENT_TEXTS]
            exact = replace(exact, texts=replace(exact.texts, frequent=frequent))
        same(found, exact)
        assert found.sampled_rows is None


@pytest.mark.parametrize(
    ("of", "empty"), [(Float64, None), (String, None), (Array(Float64), None), (Array(Float32, 3), None)]
)
def test_what_is_null_throughout(of: FeatureType, empty: None) -> None:
    """Has counts of 0, and no least, mean or quantile."""
    found = gathered(of, [empty] * 5)
    assert (found.rows, found.missing) == (5, 5)
    told = found.numbers or found.norms
    if told is not None:
        assert (told.values, told.least, told.mean, told.deviation, told.quantiles) == (0, None, None, None, ())


def test_numbers_as_numpy_and_pandas_say() -> None:
    """Of a column with some of everything, in several batches."""
    draw = np.random.default_rng(7)
    numbers = draw.normal(5, 2, 4_000)
    numbers[::13], numbers[::17], numbers[::19], numbers[::23] = np.nan, np.inf, -np.inf, -0.0
    missing = draw.random(4_000) < 0.1
    values = [None if gone else float(item) for gone, item in zip(missing, numbers, strict=True)]
    told = gathered(Float64, values, batch_rows=333)
    finite = numbers[~missing & np.isfinite(numbers)]
    of = told.numbers
    assert of is not None
    assert told.missing == int(missing.sum())
    assert of.nan == int(np.isnan(numbers[~missing]).sum())
    assert (of.least, of.greatest) == (finite.min(), finite.max())
    assert of.mean == pytest.approx(finite.mean(), rel=1e-12)
    assert of.deviation == pytest.approx(finite.std(), rel=1e-12)
    assert of.unique == pd.Series(finite).nunique()
    assert of.zeros == int((finite == 0).sum())
    assert of.quantiles[1:] == tuple(np.quantile(finite, np.arange(1, 11) / 10, method="inverted_cdf"))
    counts = pd.Series(finite).value_counts()
    assert of.frequent[0] == (0.0, counts.max())


def test_texts_as_pandas_says() -> None:
    """How many different ones, and the most frequent, in the order of their bytes where they are as frequent."""
    draw = random.Random(3)
    words = [draw.choice(["ä", "b", "", "日本", *map(str, range(200))]) for _ in range(3_000)]
    told = gathered(String, words, batch_rows=500).texts
    counts = pd.Series(words).value_counts()
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0]).encode()))
    assert told is not None
    assert told.unique == len(counts)
    assert list(told.frequent) == ordered[:20]
    assert told.total_bytes == sum(len(word.encode()) for word in words)


def test_a_long_text_is_cut() -> None:
    """It is told that it is there, and what it begins with."""
    told = gathered(String, ["x" * 10_000, "<script>"]).texts
    assert told is not None
    assert told.frequent == (("<script>", 1), ("x" * 100 + "…", 1))
    assert told.most_bytes == 10_000


def test_beyond_what_is_held_rows_are_drawn() -> None:
    """Counts, extremes and moments stay those of all rows; quantiles and most frequent values are near them."""
    draw = np.random.default_rng(5)
    values = draw.normal(size=50_000)
    whole = values.tolist()
    found = gathered(Float64, whole, batch_rows=1_000, most_values=4_096)
    assert found.sampled_rows is not None
    assert 2_048 <= found.sampled_rows <= 4_096
    of = found.numbers
    assert of is not None
    assert (of.values, of.least, of.greatest) == (50_000, values.min(), values.max())
    assert of.mean == pytest.approx(values.mean(), rel=1e-9)
    assert of.deviation == pytest.approx(values.std(), rel=1e-12)
    for part, told in enumerate(of.quantiles[1:-1], 1):
        assert abs((values <= told).mean() - part / 10) < 0.05
    again = gathered(Float64, whole, batch_rows=777, most_values=4_096)
    assert again == replace(found, numbers=again.numbers)  # the same rows are drawn, however they come
    same_numbers(again.numbers, of)


def test_rows_that_repeat_in_a_period_are_drawn_evenly() -> None:
    """Every 64th row is of one kind: a sample of every 64th would be of nothing else."""
    of = gathered(Int64, [row % 64 for row in range(64 * 1_000)], most_values=4_096).numbers
    assert of is not None
    assert of.unique == 64
    assert all(count < 150 for _, count in of.frequent)


def test_long_lists_are_held_by_their_elements() -> None:
    """And lists of no elements take no room, but count."""
    found = gathered(Array(Int64), [list(range(50))] * 200 + [[]] * 10 + [None] * 5, most_values=1_000)
    assert found.sampled_rows is not None
    assert (found.rows, found.missing, found.lengths) == (215, 5, (0, 50, 10_000, 0))
    assert found.numbers is not None
    assert found.numbers.unique == 50
    assert found.numbers.values == 10_000


@pytest.mark.parametrize("most_values", [50, 1 << 14])
@pytest.mark.parametrize("of", [String, Bytes])
def test_texts_that_come_as_dictionaries(of: FeatureType, most_values: int) -> None:
    """Are told as others are: with nulls, words that no row has, and another dictionary in each batch."""
    draw = random.Random(7)
    words = [None if draw.random() < 0.2 else f"w{draw.randrange(40)}" for _ in range(700)]
    values = words if of == String else [word and word.encode() for word in words]
    plain = GatheredStatistics({"x": of}, most_values=most_values)
    coded = GatheredStatistics({"x": of}, most_values=most_values)
    for begin in range(0, 700, 150):
        batch = pa.array(values[begin : begin + 150], of.arrow)
        halves = pa.chunked_array([batch[:70].dictionary_encode(), batch[70:].dictionary_encode()])
        more = pa.concat_tables([pa.table({"x": halves}), pa.table({"x": batch[:0].dictionary_encode()})])
        plain.add({"x": batch}, len(batch))
        coded.add({"x": more["x"].filter(pa.array([True] * len(batch)))}, len(batch))
    assert coded.found() == plain.found()


def test_a_column_that_is_not_there_is_null() -> None:
    """As a feature that an older version of a service did not serve."""
    gathering = GatheredStatistics({"x": Int64, "y": String})
    gathering.add({"x": pa.array([1, 2])}, 2)
    x, y = gathering.found()
    assert (x.missing, y.missing) == (0, 2)


@pytest.mark.parametrize(
    "values",
    [
        [1.7e308, 1.7e308, -1.7e308], [1.7e308] * 3, [5e-324, -5e-324, 0.0, -0.0], [1e-300, 3e-300], [1e16, 1.0, -1e16],
        [1.0, math.nextafter(1.0, 2.0)], [0.0] * 4, [1e200, 1e-200], [-3.5],
    ],
)  # fmt: skip
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_quick_moments_are_near_exact_ones(values: list[float], batch: int) -> None:
    """To some 12 digits of the greatest value, whatever its size."""
    quick, exact, column = QuickMoments(), ExactMoments(), np.array(values)
    exact.add(column, np.ones(len(column), np.int64))
    for first in range(0, len(column), batch):
        part = column[first : first + batch]
        quick = quick.plus(QuickMoments.of(part, part.min(), part.max()))
    size = float(np.abs(column).max()) or 1.0
    for told, true in ((quick.mean(), exact.mean()), (quick.deviation(), exact.deviation())):
        assert told is not None
        assert true is not None
        assert told / size == pytest.approx(true / size, abs=1e-12)


@pytest.mark.parametrize("rows", [PIECE_VALUES - 1, PIECE_VALUES, PIECE_VALUES + 1, 2 * PIECE_VALUES + 3])
def test_pieces_of_a_batch_are_told_together(rows: int) -> None:
    """Whatever lies in which of them; one of nothing finite among them."""
    values = np.random.default_rng(rows).normal(3.0, 2.0, rows)
    values[: min(rows, PIECE_VALUES)] = np.nan
    values[-1], values[rows // 2 :: 7] = 50.0, 0.0
    values[rows // 3] = -np.inf
    numbers = gathered(Float64, values.tolist()).numbers
    finite = values[np.isfinite(values)]
    assert numbers is not None
    assert numbers.values == len(finite)
    assert numbers.nan == int(np.isnan(values).sum())
    assert numbers.minus_infinity == int(np.isneginf(values).sum())
    assert numbers.zeros == int((finite == 0).sum())
    assert (numbers.least, numbers.greatest) == (finite.min(), finite.max())
    assert numbers.mean == pytest.approx(finite.mean(), rel=1e-12)
    assert numbers.deviation == pytest.approx(finite.std(), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.integers(-3, 12), st.sampled_from([1 << 53, (1 << 63) - 1, -(1 << 63)])), min_size=1),
    st.booleans(),
)
def test_whole_numbers_are_counted_as_they_are_sorted(values: list[int], near: bool) -> None:
    """Near each other or far."""
    if near:
        values = [value for value in values if abs(value) < 20] or [0]
    numbers = gathered(Int64, values).numbers
    counts = Counter(values)
    assert numbers is not None
    assert numbers.unique == len(counts)
    assert list(numbers.frequent) == sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:20]
    assert (numbers.quantiles[0], numbers.quantiles[-1]) == (min(values), max(values))
    assert sum(bucket.values for bucket in numbers.histogram.buckets) == len(values)


def test_moments_of_nothing() -> None:
    """Are none."""
    quick = QuickMoments()
    assert (quick.values, quick.mean(), quick.deviation()) == (0, None, None)


def test_dates_times_and_decimals_are_numbers() -> None:
    """Days and µs since 1970, and the nearest doubles."""
    day = gathered(Date, [pd.Timestamp("1970-01-03").date()]).numbers
    moment = gathered(Timestamp, [pd.Timestamp("1970-01-01T00:00:01Z")]).numbers
    wide = gathered(Decimal(30, 2), [Number("1234567890123456789.05"), Number("-0.10")]).numbers
    assert wide is not None and (wide.least, wide.greatest) == (-0.1, 1234567890123456789.05)  # noqa: PT018
    price = gathered(Decimal(12, 3), [None, Number("1.250")])
    tiny = gathered(Decimal(20, 10), [Number("0E-10"), Number("1E-10")]).texts
    assert day is not None and day.least == 2  # noqa: PT018
    assert moment is not None and moment.least == 1_000_000  # noqa: PT018
    assert price.numbers is not None and price.numbers.least == 1.25  # noqa: PT018
    assert price.texts is not None and price.texts.frequent == (("1.250", 1),)  # noqa: PT018
    assert tiny is not None and tiny.frequent == (("0.0000000000", 1), ("0.0000000001", 1))  # noqa: PT018

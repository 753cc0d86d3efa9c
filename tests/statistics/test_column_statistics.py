"""What the values of columns are like, beside what a few lines of Python say of the same values."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.statistics.column_statistics import ColumnStatistics, statistics_of
from featurestore.statistics.distances import infinity_norm, jensen_shannon
from featurestore.statistics.histogram import Bucket
from featurestore.statistics.moments import ExactMoments
from featurestore.types import (
    Bool,
    Date,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)
from tests.draws import at_length, draws
from tests.platforms.shop import TYPES, value

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden_tfdv.json").read_text())
DATA = Path(__file__).with_name("golden_tfdv.parquet")
FAR = 1 << 62


def column(of: FeatureType, values: list[Any]) -> ColumnStatistics:
    (found,) = statistics_of(pa.table({"x": pa.array(values, of.arrow)}), {"x": of}).columns
    return found


def number(of: FeatureType, item: Any) -> Any:
    """What a value is as a number; None where it is none."""
    if of.kind == "Date":
        return (item - date(1970, 1, 1)).days
    if of.kind == "Timestamp":
        return (item - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime(1, 1, 1, 0, 0, 0, 1) - datetime(1, 1, 1))
    return None if of.kind in {"String", "Bytes"} else float(item) if of.kind == "Decimal" else item


def check_numbers(found: Any, values: list[Any]) -> None:
    """Against the same by fractions."""
    finite = sorted(item for item in values if not isinstance(item, float) or math.isfinite(item))
    infinite = [item for item in values if isinstance(item, float) and math.isinf(item)]
    assert found.values == len(finite)
    assert found.nan == sum(item != item for item in values)
    assert (found.minus_infinity, found.plus_infinity) == (infinite.count(-math.inf), infinite.count(math.inf))
    assert found.unique == len({*finite})
    assert found.zeros == finite.count(0)
    masses = [bucket for bucket in found.histogram.buckets if math.isfinite(bucket.low)]
    if not finite:
        assert (found.least, found.greatest, found.mean, found.deviation) == (None,) * 4
        assert (found.quantiles, masses) == ((), [])
        return
    assert (found.least, found.greatest) == (finite[0], finite[-1])
    mean = sum(map(Fraction, finite)) / len(finite)
    assert found.mean == float(mean)
    variance = sum((Fraction(item) - mean) ** 2 for item in finite) / len(finite)
    size = max(abs(finite[0]), abs(finite[-1])) or 1
    if size > 1e-300:
        assert found.deviation / size == pytest.approx(math.sqrt(variance / Fraction(size) ** 2), rel=1e-12)
    ranks = [max(1, math.ceil(Fraction(part * len(finite), 10))) for part in range(11)]
    assert found.quantiles == tuple(finite[rank - 1] for rank in ranks)
    assert (masses[0].low, masses[-1].high) == (float(finite[0]), float(finite[-1]))
    for place, bucket in enumerate(masses):
        assert bucket.low < bucket.high or len(masses) == 1
        within = [
            item
            for item in map(float, finite)
            if bucket.low < item <= bucket.high or (place == 0 and item == bucket.low)
        ]
        assert bucket.values == len(within)


@at_length
@pytest.mark.parametrize("name", TYPES)
def test_every_type_as_by_hand(name: str) -> None:
    """Random values with edges, of a table and of a stream, each in another order and cut elsewhere."""
    of, draw = TYPES[name], random.Random(name)
    for size in (0, 1, 7, *([60] * draws(7))):
        values = [value(draw, of) for _ in range(size)]
        table = pa.table({"x": pa.array(values, of.arrow), "X": pa.array(range(size), pa.int64())})
        found = statistics_of(table, {"X": Int64, "x": of})
        mixed = table.take(pa.array(draw.sample(range(size), size), pa.int64()))
        batches = mixed.to_batches(max_chunksize=draw.randrange(1, 9))
        streamed = statistics_of(pa.RecordBatchReader.from_batches(table.schema, batches), {"X": Int64, "x": of})
        assert streamed == found
        assert [one.name for one in found.columns] == ["X", "x"]
        assert found.rows == size
        one = found.column("x")
        assert (one.rows, one.missing, one.type) == (size, values.count(None), str(of))
        inner = of.element or of
        items = [item for item in values if item is not None]
        if of.element is not None:
            lengths = [len(item) for item in items]
            flat = [element for item in items for element in item]
            assert one.lengths == (min(lengths, default=0), max(lengths, default=0), len(flat), flat.count(None))
            items = [element for element in flat if element is not None]
        else:
            assert one.lengths is None
        if inner.is_float or inner.kind not in {"String", "Bytes"}:
            check_numbers(one.numbers, [number(inner, item) for item in items])
        else:
            assert one.numbers is None
        if inner.kind in {"String", "Bytes", "Bool", "Decimal"}:
            words = [
                str(item).lower() if inner.kind == "Bool" else format(item, "f") if inner.kind == "Decimal" else item
                for item in items
            ]
            ordered = Counter(words).most_common()
            ordered.sort(key=lambda pair: (-pair[1], pair[0] if isinstance(pair[0], bytes) else pair[0].encode()))
            assert one.texts is not None
            assert one.texts.frequent == tuple(ordered)
            sizes = [len(word if isinstance(word, bytes) else word.encode()) for word in words]
            assert (one.texts.values, one.texts.unique, one.texts.total_bytes) == (
                len(words),
                len({*words}),
                sum(sizes),
            )
            assert (one.texts.least_bytes, one.texts.most_bytes) == (min(sizes, default=None), max(sizes, default=None))
        else:
            assert one.texts is None
        json.dumps(found.to_dict(), allow_nan=False)
        assert "x" in str(found)


@pytest.mark.parametrize(
    ("of", "values"),
    [
        (Float64, [1.7e308, 1.7e308, -1.7e308]),
        (Float64, [1.7e308] * 3),
        (Float64, [1.0, math.nextafter(1.0, 2.0)]),
        (Float64, [5e-324, -5e-324, 0.0, -0.0]),
        (Float64, [math.nan, math.inf, -math.inf]),
        (Float64, [0.1] * 2_000 + [1e-300, 1e300]),
        (Float32, [float(np.float32(0.1)), 3.4028234663852886e38]),
        (Int64, [(1 << 63) - 1, -(1 << 63), 0]),
        (Int32, [(1 << 31) - 1, -(1 << 31)]),
        (Bool, [True, False, True]),
    ],
)
def test_numbers_at_their_edges(of: FeatureType, values: list[Any]) -> None:
    """Nothing overflows, and sums are exact."""
    check_numbers(column(of, values).numbers, values)


def test_counts_beyond_what_a_product_holds() -> None:
    """A number that is there 2^40 times is taken so many times."""
    moments = ExactMoments()
    moments.add(np.array([3, -(1 << 63)]), np.array([1 << 40, 1]))
    moments.add(np.array([0.5]), np.array([(1 << 40) + 1]))
    total = Fraction(3 << 40) - (1 << 63) + Fraction((1 << 40) + 1, 2)
    assert moments.mean() == float(total / ((1 << 41) + 2))


def test_names_and_texts_of_every_kind() -> None:
    """Names that differ in case or hold quotes, dots and lines; texts with a NUL, and long ones."""
    names = ["a", "A", 'a"b', "a.b", "a\nb", "", "n" * 70_000, "日本", "$x"]
    texts = ["\0", "a\0b", "", "é" * 100_000]
    table = pa.table([pa.array(texts)] * len(names), names=names)
    found = statistics_of(table, dict.fromkeys(names, String))
    assert [one.name for one in found.columns] == names
    for one in found.columns:
        assert one.texts is not None
        assert one.texts.frequent == tuple((text, 1) for text in sorted(texts, key=str.encode))
        assert one.texts.most_bytes == 200_000


def test_no_rows_and_no_columns() -> None:
    """A table without either has statistics."""
    assert statistics_of(pa.table({"x": pa.nulls(3)}), {}).rows == 3
    reader = pa.RecordBatchReader.from_batches(pa.schema([]), [])
    assert statistics_of(reader, {}).columns == ()
    for of in TYPES.values():
        one = column(of, [None] * 4)
        assert (one.rows, one.missing) == (4, 4)


def test_times_that_the_engine_has_no_words_for() -> None:
    """The least and the greatest Timestamp and Date are numbers like others."""
    times = pa.array([(1 << 63) - 1, -(1 << 63)], pa.int64()).cast(pa.timestamp("us", "UTC"))
    days = pa.array([(1 << 31) - 1, -(1 << 31)], pa.int32()).cast(pa.date32())
    found = statistics_of(pa.table({"t": times, "d": days}), {"t": Timestamp, "d": Date})
    assert [(one.numbers.least, one.numbers.greatest) for one in found.columns if one.numbers] == [
        (-(1 << 63), (1 << 63) - 1),
        (-(1 << 31), (1 << 31) - 1),
    ]


def test_more_values_than_are_told() -> None:
    """The thousand most frequent ones."""
    many = column(String, [f"{number:05}" for number in range(1500)] * 2 + ["00007"])
    assert many.texts is not None
    assert (many.texts.unique, len(many.texts.frequent)) == (1500, 1000)
    assert many.texts.frequent[:2] == (("00007", 3), ("00000", 2))


def test_the_golden_data() -> None:
    """Its texts are as far apart as TFDV says; its numbers nearly so, since TFDV's buckets come of sketches."""
    types = {"city": String, "amt": Float32, "cnt": Int64}
    rows = pq.read_table(DATA)
    train, serve = (
        statistics_of(rows.filter(pa.compute.equal(rows["side"], side)), types) for side in ("train", "serve")
    )
    texts, other = train.column("city").texts, serve.column("city").texts
    assert texts is not None
    assert other is not None
    apart = infinity_norm(dict(texts.frequent), dict(other.frequent))
    assert apart == pytest.approx(GOLDEN["city"]["value"], abs=1e-12)
    for name in ("amt", "cnt"):
        numbers, others = train.column(name).numbers, serve.column(name).numbers
        assert numbers is not None
        assert others is not None
        apart = jensen_shannon(numbers.histogram, others.histogram)
        assert apart == pytest.approx(GOLDEN[name]["value"], abs=2e-3)
        edges = [edge for edge, *_ in GOLDEN[name]["train_buckets"]]
        assert [bucket.low for bucket in numbers.histogram.buckets] == pytest.approx(edges, rel=1e-12)


def test_a_single_value_is_a_bucket_without_width() -> None:
    found = column(Float64, [2.5, 2.5, math.inf]).numbers
    assert found is not None
    assert found.histogram.buckets == (Bucket(2.5, 2.5, 2), Bucket(math.inf, math.inf, 1))

"""What DuckDB's own aggregates would answer, beside what a fold answers: each trap is shown to be one, and not to be ours.

A fold that was handed to the engine's aggregate again would fail the second half of its test.
"""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    CountDistinct,
    DataFrameSource,
    Entity,
    FeatureStore,
    FeatureView,
    LastN,
    Latest,
    Max,
    Mean,
    Min,
    StdDev,
    Sum,
)
from featurestore.types import Int64
from tests.fold_oracle import fold as by_hand

START = datetime(2024, 1, 1, tzinfo=UTC)
HUGE, TINY = 1e300, 1e-300


def rows_of(
    values: list[Any], of: pa.DataType, *, times: list[int] | None = None, known: list[int] | None = None
) -> pa.Table:
    """Rows of one key, a minute apart unless `times` says otherwise."""
    minutes = range(len(values)) if times is None else times
    learned = minutes if known is None else known
    return pa.table(
        {
            "thing": [1] * len(values),
            "happened": [START + timedelta(minutes=n) for n in minutes],
            "known": [START + timedelta(minutes=n) for n in learned],
            "x": pa.array(values, of, from_pandas=False),
        }
    )


def folded(rows: pa.Table, **features: Any) -> pa.Table:
    """The features an hour after the last row, as training says."""
    source = DataFrameSource("rows", rows, event_time="happened", known_at="known")
    thing = Entity("thing", key={"thing": Int64})
    view = FeatureView("v", entity=thing, source=source, features=features, refresh="continuous")
    spine = pa.table({"thing": [1], "event_timestamp": [START + timedelta(days=1)]})
    with FeatureStore.local() as store:
        return store.get_historical_features(spine, [view], with_status=True).to_arrow()


def of(table: pa.Table, name: str) -> Any:
    return table[f"v__{name}"][0].as_py()


def engine(sql: str, rows: pa.Table) -> Any:
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        return connection.sql(f"SELECT {sql} FROM rows").to_arrow_table().column(0)[0].as_py()


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


@pytest.mark.parametrize("fold", [Sum, Mean])
def test_sums_of_floats_are_true_sums(fold: Any) -> None:
    """DuckDB adds in the order of its threads and loses what is small beside what cancels out."""
    values = [HUGE, 1.0, TINY, -HUGE, 0.1, 0.2, 1e16, 1.0, -1e16] * 3
    rows = rows_of(values, pa.float64())
    exact, _ = by_hand(fold.__name__, "Float64", "Float64", list(enumerate(values)))
    assert bits(engine("sum(x)" if fold is Sum else "avg(x)", rows)) != bits(exact), "no trap any more"
    assert bits(of(folded(rows, f=fold("x", window="lifetime")), "f")) == bits(exact)


def test_spread_is_rounded_once() -> None:
    """DuckDB's stddev is a running approximation."""
    values = [1e9 + n * 0.1 for n in range(50)]
    rows = rows_of(values, pa.float64())
    exact, _ = by_hand("StdDev", "Float64", "Float64", list(enumerate(values)), ddof=1)
    assert bits(engine("stddev_samp(x)", rows)) != bits(exact), "no trap any more"
    assert bits(of(folded(rows, f=StdDev("x", window="lifetime")), "f")) == bits(exact)


def test_an_intermediate_sum_may_be_beyond_every_double() -> None:
    """1e308 + 1e308 - 1e308 is 1e308, not infinite."""
    rows = rows_of([1e308, 1e308, -1e308], pa.float64())
    assert engine("sum(x)", rows) == math.inf, "no trap any more"
    assert of(folded(rows, f=Sum("x", window="lifetime")), "f") == 1e308


def test_the_newest_null_is_the_latest_value() -> None:
    """arg_max passes nulls by."""
    rows = rows_of([1, 2, None], pa.int64())
    assert engine("arg_max(x, happened)", rows) == 2, "no trap any more"
    table = folded(rows, f=Latest("x", window="1d"), n=LastN("x", 2, window="2d"))
    assert (of(table, "f"), of(table, "f__status")) == (None, "PRESENT")
    assert of(table, "n") == [None, 2]


@pytest.mark.parametrize("order", [1, -1])
def test_ties_go_to_the_last_learned_and_not_to_the_order_of_rows(order: int) -> None:
    """An ASOF join breaks ties by where rows lie."""
    rows = rows_of([1, 2, 3], pa.int64(), times=[0, 0, 0], known=[5, 9, 7])
    rows = rows.take([0, 1, 2][::order])
    spine = pa.table({"t": [START + timedelta(days=1)]})
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        connection.register("spine", spine)
        joined = connection.sql("SELECT x FROM spine ASOF JOIN rows ON t >= happened").fetchall()[0][0]
    assert joined != 2, "no trap any more"
    assert of(folded(rows, f=Latest("x", window="2d")), "f") == 2


def test_sums_of_integers_keep_their_type_and_say_when_it_is_too_small(tmp_path: Path) -> None:
    """DuckDB's SUM of integers is a HUGEINT, which it writes to Parquet as a DOUBLE."""
    large = 2**53 + 1
    rows = rows_of([large, 2], pa.int64())
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        connection.sql("SELECT sum(x) AS s FROM rows").write_parquet(str(tmp_path / "sum.parquet"))
    assert pq.read_table(tmp_path / "sum.parquet")["s"][0].as_py() != large + 2 or (
        pq.read_schema(tmp_path / "sum.parquet").field("s").type != pa.int64()
    ), "no trap any more"
    table = folded(rows, f=Sum("x", window="lifetime"))
    assert table.schema.field("v__f").type == pa.int64()
    assert of(table, "f") == large + 2
    over = folded(rows_of([2**63 - 1, 1], pa.int64()), f=Sum("x", window="lifetime"))
    assert (of(over, "f"), of(over, "f__status")) == (None, "OVERFLOW")


def test_a_sum_of_decimals_may_pass_their_greatest_on_the_way() -> None:
    """DuckDB gives up in the middle, even where the total fits."""
    most = Decimal(10**38 - 1)
    rows = rows_of([most, most, Decimal(1 - 10**38)], pa.decimal128(38, 0))
    with pytest.raises(duckdb.Error):
        engine("sum(x)", rows)
    assert of(folded(rows, f=Sum("x", window="lifetime")), "f") == most


@pytest.mark.parametrize("values", [[0.0, -0.0], [-0.0, 0.0]])
def test_zeros_of_two_signs_are_two_values(values: list[float]) -> None:
    """DuckDB thinks them equal: which of them is the least depends on the order, and they are one distinct value."""
    rows = rows_of(values, pa.float64())
    assert engine("count(DISTINCT x)", rows) == 1, "no trap any more"
    table = folded(
        rows,
        least=Min("x", window="lifetime"),
        most=Max("x", window="lifetime"),
        n=CountDistinct("x", window="lifetime"),
    )
    assert (bits(of(table, "least")), bits(of(table, "most")), of(table, "n")) == (bits(-0.0), bits(0.0), 2)


def test_there_is_one_nan() -> None:
    """inf - inf is fff8… in DuckDB and 7ff8… in Python, and what a payload says survives Parquet."""
    others = [struct.unpack("<d", bytes.fromhex(text))[0] for text in ("000000000000f8ff", "010000000000f87f")]
    rows = rows_of([*others, math.nan], pa.float64())
    table = folded(
        rows, n=CountDistinct("x", window="lifetime"), count=Count("x", window="lifetime"), s=Sum("x", window="lifetime"),
        most=Max("x", window="lifetime"),
    )  # fmt: skip
    assert (of(table, "n"), of(table, "count")) == (1, 3)
    assert {bits(of(table, "s")), bits(of(table, "most"))} == {bytes.fromhex("000000000000f87f")}

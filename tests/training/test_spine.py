"""A spine of any kind asks the same questions, and comes back as it was."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureStore
from featurestore.errors import SpineError
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import Int64, String
from tests.small import NOON, TIME, bits, hours, opened, raised, spine, table, trained, view_of

PAIR = Entity("pair", key={"left": Int64, "right": String})
SEED = random.Random(7)
ROWS = 300


def source() -> pa.Table:
    """Rows of a few keys, with values that are easily lost: nulls, NaN, zeros of both signs, great integers."""
    count = 60
    when = [hours(SEED.randint(-40, 0)) for _ in range(count)]
    return table(
        left=[SEED.randint(1, 3) for _ in range(count)],
        right=[SEED.choice(["a", "b", ""]) for _ in range(count)],
        at=when,
        known=[moment + timedelta(minutes=SEED.choice([0, 90])) for moment in when],
        ratio=pa.array([SEED.choice([None, math.nan, 0.0, -0.0, math.inf, 0.1]) for _ in range(count)]),
        small=pa.array([SEED.choice([None, 0.1, -0.0]) for _ in range(count)], pa.float32()),
        whole=pa.array([SEED.choice([None, 2**53 + 1, -(2**63)]) for _ in range(count)]),
        text=pa.array([SEED.choice([None, "", "ß", "a\0b"]) for _ in range(count)]),
        money=pa.array([SEED.choice([None, Decimal("9" * 38), Decimal(0)]) for _ in range(count)], pa.decimal128(38)),
        many=pa.array([SEED.choice([None, [], [None, math.nan]]) for _ in range(count)], pa.list_(pa.float64())),
        place=pa.array([SEED.choice([None, [0.5, -0.0]]) for _ in range(count)], pa.list_(pa.float32(), 2)),
        moment=pa.array([SEED.choice([None, NOON, datetime(1, 1, 1, tzinfo=UTC)]) for _ in range(count)], TIME),
    )


VALUES = ["ratio", "small", "whole", "text", "money", "many", "place", "moment"]


def questions() -> pa.Table:
    """Unsorted rows, half of them twice, some keys null or unknown, with columns of their own around the keys."""
    rows = [
        (SEED.choice([1, 2, 3, 9, None]), SEED.choice(["a", "b", "", "zz", None]), hours(SEED.randint(-44, 4)))
        for _ in range(ROWS // 2)
    ]
    rows = [SEED.choice(rows) for _ in range(ROWS)]
    return table(
        label=pa.array([SEED.choice([None, 0.0, 1.0]) for _ in rows]),
        right=pa.array([right for _, right, _ in rows]),
        event_timestamp=[moment for *_, moment in rows],
        left=pa.array([left for left, *_ in rows], pa.int64()),
        note=pa.array([SEED.choice(["x", "y", None]) for _ in rows]),
    )


ASKED = questions()
INDEX = pd.MultiIndex.from_arrays([[n % 7 for n in range(ROWS)], [str(-n) for n in range(ROWS)]], names=["odd", None])


def numpy_backed(_: Path) -> pd.DataFrame:
    frame = ASKED.to_pandas()
    assert frame["left"].dtype == "float64"  # integers with a null
    return frame.set_index(INDEX)


def arrow_backed(_: Path) -> pd.DataFrame:
    frame = ASKED.to_pandas(types_mapper=pd.ArrowDtype)
    frame.index = pd.Index([3] * ROWS)
    return frame


def nullable_and_categorical(_: Path) -> pd.DataFrame:
    frame = ASKED.to_pandas().astype({"left": "Int64", "right": "category", "note": "category"})
    return frame.set_index(pd.Index(range(ROWS, 0, -1), name="countdown"))


def parquet(folder: Path) -> Path:
    pq.write_table(ASKED, folder / "spine.parquet", row_group_size=64)
    return folder / "spine.parquet"


def folder_of_parquet(folder: Path) -> str:
    for n in range(3):
        pq.write_table(ASKED.slice(n * 100, 100), folder / f"part-{n}.parquet")
    return str(folder)


OPEN: list[duckdb.DuckDBPyConnection] = []
"""Before version 2 of DuckDB a relation is gone with its connection."""


def relation(_: Path) -> duckdb.DuckDBPyRelation:
    connection = duckdb.connect()
    OPEN.append(connection)
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    connection.register("asked", ASKED)
    return connection.sql("SELECT * FROM asked")


KINDS: dict[str, Callable[[Path], Any]] = {
    "pandas, numpy-backed": numpy_backed,
    "pandas, Arrow-backed": arrow_backed,
    "pandas, nullable and categorical": nullable_and_categorical,
    "polars": lambda _: pl.DataFrame(ASKED),
    "polars, categorical": lambda _: pl.DataFrame(ASKED).with_columns(
        pl.col("right").cast(pl.Categorical), pl.col("note").cast(pl.Enum(["x", "y"]))
    ),
    "Arrow": lambda _: ASKED,
    "Arrow in chunks, dictionaries": lambda _: pa.concat_tables([ASKED.slice(0, 10), ASKED.slice(10)]).set_column(
        1, "right", pa.chunked_array([ASKED["right"].combine_chunks().dictionary_encode()])
    ),
    "Arrow batches": lambda _: ASKED.to_reader(max_chunksize=77),
    "Parquet path": parquet,
    "Parquet folder": folder_of_parquet,
    "DuckDB relation": relation,
}


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    """A view that counts by the hour, and one of each moment."""
    words: dict[str, Any] = {"entity": PAIR, "known_at": "known"}
    hourly = view_of(source(), VALUES, name="hourly", refresh="1h", ready_after="10m", ttl="3h", **words)
    with opened(hourly, view_of(source(), ["whole"], name="each", **words)) as (store, _):
        yield store


def ask(store: FeatureStore, asked: Any) -> TrainingFrame:
    return store.get_historical_features(asked, "service", with_status=True, with_event_time=True)


def features_of(frame: TrainingFrame) -> dict[str, Any]:
    """The columns that were added, comparable to the bit."""
    got = frame.to_arrow().drop_columns(ASKED.column_names)
    values = {name: got[name].to_pylist() for name in got.column_names}
    return {
        name: (got.schema.field(name).type, bits(frame.types[name], column) if name in frame.types else column)
        for name, column in values.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_spine_gives_one_frame(store: FeatureStore, tmp_path: Path, kind: str) -> None:
    """The same columns of the same types with the same bits, whatever the questions come in."""
    whole = features_of(ask(store, ASKED))
    statuses = {status for name, (_, values) in whole.items() if name.endswith("__status") for status in values}
    assert statuses == {"PRESENT", "EXPIRED", "MISSING"}
    assert features_of(ask(store, KINDS[kind](tmp_path))) == whole


@pytest.mark.parametrize("kind", KINDS)
def test_the_spines_own_columns_come_back(store: FeatureStore, tmp_path: Path, kind: str) -> None:
    """Every row once, in its place, duplicates too; the columns keep their order and their values."""
    back = ask(store, KINDS[kind](tmp_path)).to_arrow()
    assert back.column_names[:5] == ASKED.column_names
    own = back.select(ASKED.column_names).to_pylist()
    if kind == "pandas, numpy-backed":  # NaN is null there, integers beside it are floats
        assert own == [row | {"left": row["left"] and float(row["left"])} for row in ASKED.to_pylist()]
    else:
        assert own == ASKED.to_pylist()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.startswith("pandas")])
def test_a_pandas_spine_comes_back_with_its_index_and_dtypes(store: FeatureStore, tmp_path: Path, kind: str) -> None:
    """To the left of the features, and the frame that was handed in is not touched."""
    asked = KINDS[kind](tmp_path)
    before = asked.copy(deep=True)
    frame = ask(store, asked)
    pd.testing.assert_frame_equal(frame.to_pandas()[list(before.columns)], before)
    pd.testing.assert_index_equal(frame.features.index, before.index)
    pd.testing.assert_frame_equal(asked, before)


def test_a_naive_spine_time_is_utc_or_of_the_timezone_given() -> None:
    """The same clock reading means another instant in another zone; an aware one means itself."""
    rows = table(thing=[1, 1, 1], at=[hours(-9), NOON, hours(4)], x=[1, 2, 3])
    naive = pd.DataFrame({"thing": [1], "event_timestamp": [datetime(2024, 5, 1, 12)]})
    aware = naive.assign(event_timestamp=[NOON])
    with opened(view_of(rows, ["x"])) as (store, _):
        for asked in (naive, pa.Table.from_pandas(naive), pl.DataFrame(naive)):
            frame = store.get_historical_features(asked, "service")
            assert frame.to_arrow()["view__x"].to_pylist() == [2]
            assert [notice.partition(";")[0] for notice in frame.notices] == [
                "timestamps without a zone are read as UTC: 'event_timestamp'"
            ]
            for zone, value in {"America/New_York": 3, "Asia/Tokyo": 1, "UTC": 2}.items():
                frame = store.get_historical_features(asked, "service", timezone=zone)
                assert frame.to_arrow()["view__x"].to_pylist() == [value]
                assert frame.manifest["timezone"] == zone
                assert frame.notices == ()
        frame = store.get_historical_features(aware, "service", timezone="Asia/Tokyo")
        assert frame.to_arrow()["view__x"].to_pylist() == [2]
        assert store.get_historical_features(aware, "service").notices == ()


def test_the_time_column_may_have_any_name() -> None:
    """`timestamp` names it; a column of the usual name is then the spine's own."""
    asked = table(thing=[1], event_timestamp=["mine"], seen=[NOON])
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        frame = store.get_historical_features(asked, "service", timestamp="seen").to_arrow()
        assert frame.to_pylist() == [{"thing": 1, "event_timestamp": "mine", "seen": NOON, "view__x": 10}]


@pytest.mark.parametrize("kind", ["Arrow", "pandas", "polars", "Parquet", "relation"])
def test_a_null_time_is_an_error_that_names_the_row(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its number in the whole spine, in whichever chunk it lies; the first one, where there are several."""
    monkeypatch.setattr("featurestore.training.spine.CHUNK_ROWS", 4)
    asked = table(thing=[1] * 12, event_timestamp=[NOON] * 9 + [None, NOON, None])
    pq.write_table(asked, tmp_path / "spine.parquet")
    kinds = {
        "Arrow": asked, "pandas": asked.to_pandas(), "polars": pl.DataFrame(asked),
        "Parquet": tmp_path / "spine.parquet", "relation": duckdb.sql("SELECT * FROM asked"),
    }  # fmt: skip
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        text = raised(SpineError, lambda: store.get_historical_features(kinds[kind], "service").to_arrow())
    assert text == "Row 9 of the spine has no time in column 'event_timestamp'"


def test_a_null_key_is_missing() -> None:
    """Wherever it stands in a key, though rows of the source may have a null in the same place."""
    rows = table(left=[1, None, 1], right=pa.array(["a", "a", None]), at=[NOON] * 3, x=[1, 2, 3])
    with opened(view_of(rows, ["x"], entity=PAIR)) as (store, _):
        asked = {"left": pa.array([1, None, 1, None]), "right": pa.array(["a", "a", None, None], pa.string())}
        got = trained(store, NOON, **asked)
        assert got["view__x"].to_pylist() == [1, None, None, None]
        assert got["view__x__status"].to_pylist() == ["PRESENT", "MISSING", "MISSING", "MISSING"]
        nothing = trained(store, NOON, left=pa.nulls(2), right=pa.nulls(2))
        assert nothing["view__x__status"].to_pylist() == ["MISSING", "MISSING"]


@pytest.mark.parametrize("kind", ["Arrow", "pandas", "polars", "Parquet", "relation"])
def test_a_spine_without_rows_gives_a_frame_without_rows(tmp_path: Path, kind: str) -> None:
    """With all columns, of the types that they have anyway."""
    asked = spine(NOON, thing=[1])
    pq.write_table(asked.slice(1), tmp_path / "spine.parquet")
    empty = asked.slice(1)
    kinds = {
        "Arrow": empty, "pandas": asked.to_pandas().iloc[1:], "polars": pl.DataFrame(empty),
        "Parquet": tmp_path / "spine.parquet", "relation": duckdb.sql("SELECT * FROM empty"),
    }  # fmt: skip
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        full = ask(store, asked).to_arrow()
        frame = ask(store, kinds[kind])
        assert len(frame) == 0
        assert (
            frame.to_arrow().drop_columns(["event_timestamp"]).schema.remove_metadata()
            == full.drop_columns(["event_timestamp"]).schema.remove_metadata()
        )
        assert frame.manifest["rows"] == 0


@pytest.mark.parametrize("kind", ["Arrow", "pandas"])
def test_a_column_that_a_spine_has_twice_is_refused_by_name(kind: str) -> None:
    """Which of the two is meant is never guessed."""
    asked = spine(NOON, thing=[1])
    twice: Any = pa.table([*asked.columns, asked["thing"]], names=["thing", "event_timestamp", "thing"])
    if kind == "pandas":
        twice = pd.concat([asked.to_pandas(), asked.to_pandas()[["thing"]]], axis=1)
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        text = raised(SpineError, lambda: store.get_historical_features(twice, "service"))
    assert "'thing'" in text
    assert "twice" in text


def test_a_column_that_arrow_cannot_hold_is_named() -> None:
    """A frame with a column of mixed objects is a spine nobody can read, and says so."""
    asked = pd.DataFrame({"thing": [1, 1], "event_timestamp": [NOON] * 2, "mixed": [b"a", 1]})
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        text = raised(SpineError, lambda: store.get_historical_features(asked, "service"))
    assert text.startswith("The spine cannot be read")
    assert "mixed" in text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (7, "int is no spine"),
        ("no/such.parquet", "does not exist"),
        (table(thing=[1]), "no timestamp column 'event_timestamp'"),
        (table(things=[1], event_timestamp=[NOON]), "no input column 'thing'"),
        (table(thing=[1], event_timestamp=pa.array([1])), "must be a timestamp"),
        (table(thing=[1], event_timestamp=pa.array([NOON.date()])), "a day is no instant"),
    ],
)
def test_what_is_no_spine_is_refused(asked: Any, message: str) -> None:
    """The message says what is missing or wrong."""
    with opened(view_of(table(thing=[1], at=[NOON], x=[10]), ["x"])) as (store, _):
        assert message in raised(SpineError, lambda: store.get_historical_features(asked, "service").to_arrow())

"""Columns of text are converted at once to the values that each text stands for by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.input_columns import WrongValueError
from featurestore.sources.text.texts import column_of, value_of
from featurestore.types import (
    Array,
    Bool,
    Bytes,
    Date,
    Decimal,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)
from tests.platforms.shop import bits

TYPES = (Bool, Int32, Int64, Float32, Float64, String, Bytes, Date, Timestamp, Decimal(9, 2), Array(Int64))
WORDS = st.sampled_from(
    ["", "-", "0", "-0", "-0.0", "007", "+5", "1.", ".5", "1e5", "1E400", "nan", "NaN", "inf", "-Infinity", "true", "FALSE", "TrUe",
     "1.5", "1.005", "12345678901234567890", "9223372036854775807", "2147483648", "999999999", "1_000", " 1", "1 ", "٣",
     "2026-01-01", "2026-02-30", "0000-01-01", "9999-12-31", "2026-1-1", "+12013-12-01", "2026-01-01T00:00:00Z",
     "2026-01-01 00:00:00+05:30", "2026-01-01T24:00:00Z", "2026-01-01T23:59:60Z", "2026-01-01T00:00:00.123456Z",
     "2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00", "2026-01-01T00:00:00", "2026-W01-1", "20260101T000000Z",
     "2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00z", "2026-01-01T00:00:00+2359", "2026-01-01T00:00:00+24:00",
     "0001-01-01T00:00:00+01:00", "[1, 2]", "[]", "aGk=", "a b", "é"]
)  # fmt: skip
TEXTS = st.lists(
    st.one_of(
        st.none(), WORDS, st.integers(-(2**70), 2**70).map(str), st.floats().map(repr), st.floats(width=32).map(repr),
        st.datetimes().map(str), st.datetimes(timezones=st.just(UTC)).map(str), st.dates().map(str),
        st.decimals(allow_nan=False, allow_infinity=False, places=2).map(str), st.text(max_size=6),
    ),
    max_size=8,
)  # fmt: skip


def alone(text: str | None, of: FeatureType) -> Any:
    value = value_of(text, of)
    return pa.array([value], of.arrow).to_pylist()[0]


@settings(deadline=None)
@given(TEXTS, st.sampled_from(TYPES))
def test_a_column_is_what_its_texts_are_alone(texts: list[str | None], of: FeatureType) -> None:
    wrong, values = None, []
    for row, text in enumerate(texts):
        try:
            values.append(alone(text, of))
        except ValueError:
            wrong = row
            break
    column = pa.array(texts, pa.string())
    if wrong is None:
        found = column_of(column, of, zone=None)
        assert found.type == of.arrow
        assert bits(found.to_pylist()) == bits(values)
    else:
        with pytest.raises(WrongValueError) as caught:
            column_of(column, of, zone=None)
        assert caught.value.row == wrong


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.datetimes(datetime(1950, 1, 1), datetime(2040, 1, 1))), max_size=6))
def test_instants_without_an_offset_are_of_the_zone(times: list[datetime | None]) -> None:
    zone = ZoneInfo("Europe/Berlin")
    texts = pa.array([None if time is None else str(time) for time in times], pa.string())
    found = column_of(texts, Timestamp, zone="Europe/Berlin").to_pylist()
    for time, instant in zip(times, found, strict=True):
        if time is None:
            assert instant is None
            continue
        either = {time.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        assert instant in either
        assert len(either) == 1 or max(either) - min(either) <= timedelta(hours=2)


def test_both_kinds_of_instants_in_one_column() -> None:
    texts = pa.array(["2026-01-01T12:00:00+01:00", None, "2026-01-01 12:00:00", "2026-07-01"], pa.string())
    noon = datetime(2026, 1, 1, 11, tzinfo=UTC)
    assert column_of(texts, Timestamp, zone="Europe/Paris").to_pylist() == [
        noon, None, noon, datetime(2026, 6, 30, 22, tzinfo=UTC),
    ]  # fmt: skip

"""`to_numpy` of training frames and of lookups: the same matrix, of the columns that are wanted, arrays expanded by choice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView, LastN, Latest, ManualClock
from featurestore.errors import NotFoundError
from featurestore.types import Array, Float32, String

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = pa.table(
    {
        "user": ["a", "b"],
        "at": pa.array([NOW, NOW], pa.timestamp("us", "UTC")),
        "x": pa.array([1.5, None]),
        "place": pa.array([[0.1, -0.0, 2.0], None], pa.list_(pa.float32(), 3)),
        "name": ["one", "two"],
    }
)
VIEW = FeatureView(
    "facts", entity=Entity("user", key={"user": String}), source=DataFrameSource("rows", ROWS, event_time="at"), refresh="1h",
    features={"x": Latest("x"), "place": Latest("place", type=Array(Float32, 3)), "name": Latest("name"), "last": LastN("x", 2, window="1d")},
)  # fmt: skip
ASKED = [{"user": "a"}, {"user": "b"}, {"user": "c"}]


@pytest.fixture(scope="module")
def both() -> Iterator[list]:
    with FeatureStore.local(clock=ManualClock(NOW)) as store:
        store.apply([FeatureService("model", features=[VIEW])])
        store.materialize(progress=False)
        spine = pd.DataFrame(ASKED).assign(event_timestamp=NOW)
        yield [store.get_historical_features(spine, "model"), store.get_online_features(ASKED, "model")]


def test_columns_are_chosen_and_arrays_expanded(both: list) -> None:
    numbers = ["facts__place", "facts__x"]
    wide = np.array([[np.float32(0.1), -0.0, 2.0, 1.5], [np.nan] * 4, [np.nan] * 4])
    for frame in both:
        assert frame.to_numpy(columns=["facts__x"]).tobytes() == wide[:, 3:].tobytes()
        assert frame.to_numpy(columns=numbers, expand=True).tobytes() == wide.tobytes()
        assert frame.to_numpy(np.float32, columns=numbers, expand=True).tobytes() == wide.astype(np.float32).tobytes()
        assert frame.to_numpy(object, columns=["facts__name", "facts__place"]).tolist()[0] == [
            "one",
            [np.float32(0.1), -0.0, 2.0],
        ]
        assert frame.to_numpy(object, columns=numbers, expand=True).shape == (3, 4)


def test_what_is_no_number_is_told_with_the_way(both: list) -> None:
    for frame in both:
        for columns, says in (
            (["facts__place"], "expand=True makes 3 columns of it"),
            (
                ["facts__last"],
                "its length is not fixed, so it cannot be expanded; use dtype=object, or leave it out by columns=",
            ),
            (["facts__name"], "'facts__name' is String, which is no number"),
        ):
            with pytest.raises(ValueError, match=says):
                frame.to_numpy(columns=columns)
        for columns in (["facts__last"], ["facts__name"]):
            with pytest.raises(ValueError, match="no number"):
                frame.to_numpy(columns=columns, expand=True)
        with pytest.raises(NotFoundError, match="Did you mean 'facts__x'"):
            frame.to_numpy(columns=["facts__y"])


def test_null_becomes_no_number(both: list) -> None:
    """In a type that has no NaN."""
    for frame in both:
        for dtype in (np.int64, bool, "uint8"):
            with pytest.raises(ValueError, match="'facts__x' holds null or NaN, which .* cannot hold"):
                frame.to_numpy(dtype, columns=["facts__x"])
        with pytest.raises(ValueError, match="'facts__place' holds null or NaN"):
            frame.to_numpy(np.int32, columns=["facts__place", "facts__x"], expand=True)

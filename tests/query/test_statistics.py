"""Conditions over columns of whose statistics the engine would conclude too much."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore import Count
from tests.small import NOON, both, opened, table, view_of, write


@pytest.mark.parametrize("form", ["frame", "file"])
def test_nan_is_above_the_greatest_that_statistics_know_of(form: str, tmp_path: Path) -> None:
    """They leave NaN out: no number here meets the condition, and NaN does."""
    rows = table(thing=[1] * 3, at=[NOON] * 3, x=pa.array([1.0, 2.0, math.nan]))
    given = rows if form == "frame" else write(tmp_path / "rows.parquet", rows)
    with opened(view_of(given, {"above": Count(where="x > 2", window="lifetime")})) as (store, _):
        assert both(store, thing=[1])["view__above"] == [1]

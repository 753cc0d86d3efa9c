"""The same rows through every kind of source: the same values, bit for bit, with the same types and statuses."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import ARRIVAL, FeatureStore, ManualClock
from tests.sources.same_rows import KINDS, NOON, ROWS, WORDS, answers, parquet, views


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    return answers(parquet(tmp_path_factory.mktemp("parquet"), ROWS, **WORDS))


@pytest.mark.parametrize("kind", KINDS)
def test_values_types_and_statuses_are_those_of_parquet(
    kind: str, tmp_path: Path, expected: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    trained, served = answers(KINDS[kind](tmp_path, ROWS, **WORDS))
    assert trained["types"] == expected[0]["types"]
    assert trained["values"] == expected[0]["values"]
    assert served == expected[1]


@pytest.mark.parametrize("kind", ["csv files", "json lines"])
def test_rows_are_known_from_when_their_file_came(kind: str, tmp_path: Path) -> None:
    clock = ManualClock(NOON + timedelta(days=1))
    words = {**WORDS, "known_at": ARRIVAL}
    with FeatureStore.local(clock=clock) as store:
        source = KINDS[kind](tmp_path, ROWS[:20], **words)
        store.apply(views(source))
        store.materialize(progress=False)
        clock.set(NOON + timedelta(days=2))
        KINDS[kind](tmp_path, ROWS, **words)
        store.materialize(progress=False)
        spine = pa.table(
            {
                "user": ["u0"] * 2,
                "event_timestamp": [NOON + timedelta(days=1, hours=12), NOON + timedelta(days=2, hours=1)],
            }
        )
        found = store.get_historical_features(spine, ["folded"]).to_arrow()["folded__rows"].to_pylist()
    assert found[1] > (found[0] or 0)

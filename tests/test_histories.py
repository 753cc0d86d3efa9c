"""Random histories reach everything that they are there for, and their tables lose nothing."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.histories import VALUE_POOLS, History, answers_of, histories, seen, to_arrow, write_parquet
from tests.oracle import EXPIRED, MISSING, PRESENT, invalid_counts, sort_key


def test_histories_are_not_dull() -> None:
    """The strategy reaches every status, every reason, conflicts and each kind of invalid row."""
    reached: set[str] = set()

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(histories())
    def look(history: History) -> None:
        for answer in answers_of(history):
            reached.update((answer.status, *answer.reasons.values()))
            if answer.conflict:
                reached.add("conflict")
        counts = invalid_counts(history.source, history.view, history.rows, history.types)
        reached.update(f"invalid {word}" for word, count in counts.items() if count)

    look()
    assert reached == {
        MISSING, EXPIRED, PRESENT, "conflict",
        "not yet known", "superseded", "deleted", "expired", "too new", "invalid", "older", "ended", "chosen",
        "invalid known_at", "invalid identity", "invalid key", "invalid event_time",
    }  # fmt: skip


def test_tables_keep_every_edge_value(tmp_path: Path) -> None:
    """To Parquet and back: NaN stays NaN, null stays null, -0.0 keeps its sign, and even NaN keeps its bits."""
    for type_, pool in VALUE_POOLS.items():
        rows = [{"x": value} for value in pool]
        directory = tmp_path / type_.replace(" ", "")
        directory.mkdir()
        paths = write_parquet(to_arrow(rows, {"x": type_}), directory, files=1, seed=3)
        back = pq.read_table(paths[0])["x"].to_pylist()
        assert sorted(sort_key(type_, value) for value in back) == sorted(sort_key(type_, value) for value in pool)
        if type_ == "Float64":
            assert sorted(struct.pack(">d", value) for value in back if value is not None) == sorted(
                struct.pack(">d", value) for value in pool if value is not None
            )


def test_naive_and_aware_columns_have_their_own_arrow_types() -> None:
    rows = [
        {"a": None, "b": None, "c": None},
        {"a": datetime(1970, 1, 1, tzinfo=UTC), "b": datetime(1970, 1, 1), "c": None},
    ]
    table = to_arrow(rows, dict.fromkeys("abc", "Timestamp"))
    assert [str(field.type) for field in table.schema] == ["timestamp[us, tz=UTC]", "timestamp[us]", "timestamp[us, tz=UTC]"]  # fmt: skip
    assert table.to_pylist() == rows


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(history=histories(), files=st.integers(1, 4), seed=st.integers(0, 99))
def test_files_hold_every_row_once(
    history: History, files: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However they are shuffled and split; and the oracle says the same from what it reads back."""
    directory = tmp_path_factory.mktemp("split")
    paths = write_parquet(to_arrow(history.rows, history.types), directory, files=files, seed=seed)
    assert len(paths) == files
    back = [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]
    assert sorted(row["row"] for row in back) == list(range(len(history.rows)))
    assert seen(history, answers_of(history, back)) == seen(history, answers_of(history))

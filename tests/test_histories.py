"""Random histories reach everything that they are there for, and their tables lose nothing."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.histories import VALUE_POOLS, History, answers_of, histories, seen, to_arrow, write_parquet
from tests.oracle import EXPIRED, MISSING, PRESENT, event_time, invalid_counts, known_at, sort_key
from tests.test_online import stories as plain_stories
from tests.test_windows_online import stories as folded_stories


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
    rows: list[dict[str, Any]] = [
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


def computed(history: History, times: list[int]) -> list[tuple[int, int]]:
    """The instants of each run at these times of a clock that computes only what may have changed since the one before, beside that
    of the one before."""
    view = history.view
    assert view.refresh_us is not None
    grid, settle = view.refresh_us, view.settle_us + view.offset_us
    found = list(dict.fromkeys((at - settle) // grid * grid + view.offset_us for at in times))
    return list(pairwise(found))


def moved(history: History, before: int, after: int) -> Iterator[tuple[Any, Any]]:
    """When each row happened, and was learned, that a later version took from one key to another between two instants."""
    source, view = history.source, history.view
    named = [row for row in history.rows if source.identity and all(row[name] is not None for name in source.identity)]
    for old, new in product(named, named):
        same = all(old[name] == new[name] for name in source.identity)
        if not same or all(old[column] == new[column] for column in view.key.values()):
            continue
        first, then = known_at(source, old), known_at(source, new)
        if first is not None and then is not None and first <= before + view.settle_us < then <= after + view.settle_us:
            yield event_time(source, new), then


@pytest.mark.parametrize("stories", [plain_stories(), folded_stories()], ids=["plain", "folded"])
def test_an_identity_moves_between_two_runs_and_on_the_edge_of_one_in_many_stories(stories: Any) -> None:
    """Of those whose view is refreshed at least one in twenty: what is hardest for a run that computes only what may have changed."""
    count = Counter[str]()

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(stories)
    def look(story: Any) -> None:
        history, events = story[0], story[-1]
        view = history.view
        if view.refresh_us is None:
            return
        count["refreshed"] += 1
        met = set[bool]()
        for before, after in computed(history, [at for at, does, *_ in events if does in {"materialize", True}]):
            edges = {before, before + 1, after}
            if view.ttl_us is not None:
                edges |= {before - view.ttl_us, after - view.ttl_us}
            learned = {before + view.settle_us + 1, after + view.settle_us}
            met |= {at in edges or known in learned for at, known in moved(history, before, after)}
        count["on an edge"] += True in met

    look()
    assert count["on an edge"] * 20 >= count["refreshed"] > 0

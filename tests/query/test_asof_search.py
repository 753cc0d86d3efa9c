"""The search for each request's newest rows, beside loops over all rows; and what it hands back, answered by SQL."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featurestore import FeatureView
from featurestore.query import asof_search
from featurestore.query import row_choice as choice
from featurestore.query.asof_search import Found, Requests, RowSearch
from featurestore.semantics.rows import RowTimes
from featurestore.semantics.time import BEGINNING, END
from tests.small import NOON, hours, opened, spine, table, view_of

KEYS = 5


def random_case(chance: random.Random, *, ending: bool) -> tuple[RowTimes, Requests]:
    """Rows in any order, and requests, over few instants."""
    instants = chance.choice([[BEGINNING, -1, 0, 1, 2, 3, 4, 5, END - 1], list(range(-4, 5))])
    rows: list[Any] = []
    late = chance.choice([0.0, 0.5, 0.9])
    for _ in range(chance.randrange(60)):
        happened = chance.choice(instants)
        known = max(happened, chance.choice(instants[-4:] if chance.random() < late else instants))
        rows.append((chance.randrange(KEYS), happened, known, chance.choice([END, END, *instants])))
    key, e, v, g = (np.array(column, np.int64) for column in (zip(*rows, strict=True) if rows else [[]] * 4))
    asked = sorted((chance.randrange(KEYS), chance.choice(instants)) for _ in range(chance.randrange(30)))
    wanted, as_of = (np.array(column, np.int64) for column in (zip(*asked, strict=True) if asked else [[]] * 2))
    return RowTimes(key, e, v, g if ending else None), Requests(wanted, as_of)


def by_loops(rows: RowTimes, key: int, as_of: int) -> tuple[set[int], bool]:
    """The rows that happened last among those that count, of these the last learned; and whether one has ended that comes
    behind them."""
    begun = [i for i in range(len(rows.key)) if rows.key[i] == key and rows.counts_from[i] <= as_of]
    order = {i: (int(rows.event_us[i]), int(rows.counts_from[i])) for i in begun}
    counting = [i for i in begun if rows.counts_until is None or rows.counts_until[i] > as_of]
    last = {i for i in counting if order[i] == max(order[j] for j in counting)}
    return last, any(order[i] > max((order[j] for j in last), default=(BEGINNING - 1, 0)) for i in begun)


def searched(rows: RowTimes, requests: Requests, batch: int) -> Found:
    """What is found of rows that come so many at a time, each lying at its place in file 7."""
    search = RowSearch(requests, KEYS)
    for start in range(0, len(rows.key), batch):
        some = RowTimes(*(None if column is None else column[start : start + batch] for column in rows))
        places = np.arange(start, start + len(some.key))
        search.add(some, np.full(len(places), 7, np.uint64), places)
    return search.found()


@pytest.mark.parametrize("ending", [False, True])
@pytest.mark.parametrize("loose", [1, 1_000_000])
def test_the_search_finds_what_loops_find(ending: bool, loose: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request gets its one last row, or all that are last together, or is handed back when one behind them has ended."""
    monkeypatch.setattr(asof_search, "LOOSE_MIN_ROWS", loose)
    chance, seen = random.Random(7), dict.fromkeys(("one", "several", "left", "none"), 0)
    for _ in range(400):
        rows, requests = random_case(chance, ending=ending)
        found = searched(rows, requests, chance.choice([1, 7, 100]))
        assert set(found.rows.file.tolist()) <= {7}
        answers: dict[int, set[int]] = {}
        for request, row in (*zip(found.single, found.row, strict=True), *zip(found.several, found.among, strict=True)):
            answers.setdefault(int(request), set()).add(int(found.rows.row[row]))
        assert len({*found.single.tolist()}) == len(found.single)
        assert not {*found.single.tolist()} & {*found.several.tolist()}
        left = found.left.tolist()
        assert len({*left}) == len(left)
        for request, (key, as_of) in enumerate(zip(requests.key.tolist(), requests.as_of.tolist(), strict=True)):
            expected, ended = by_loops(rows, key, as_of)
            assert (request in left) == ended
            assert answers.get(request, set()) == (set() if ended else expected)
            seen["left" if ended else ("none", "one", "several")[min(2, len(expected))]] += 1
    assert min(seen[what] for what in seen if ending or what != "left") > 20, seen


def overtaken(folder: Path, **words: Any) -> FeatureView:
    """A view of three keys with twelve rows each, of which the newest are learned later and later; some rows tie."""
    at = [hours(-12 + n) for n in range(12)]
    known = [hours(-12 + n if n < 4 else 3 * n) for n in range(12)]
    rows = table(
        thing=[key for key in (1, 2, 3) for _ in range(14)],
        at=[*at, at[3], at[2]] * 3,
        known=[*known, known[3], known[2]] * 3,
        number=list(range(42)),
        x=[float(n) for n in [*range(12), 100, -100]] * 3,
    )
    return view_of(rows, ["x"], known_at="known", **words)


@pytest.mark.parametrize("identity", [{}, {"identity": ["number"]}])
def test_a_row_behind_many_that_are_not_known_yet_is_found(tmp_path: Path, identity: dict[str, list[str]]) -> None:
    """However many newer rows are still unknown, the newest known one is the answer, and ties behind them are decided."""
    with opened(overtaken(tmp_path, **identity)) as (store, _):
        asked = [hours(n) for n in (0, 11, 12, 15, 40)]
        frame = store.get_historical_features(
            spine(asked, thing=[2] * 5), "service", timestamp="event_timestamp"
        ).to_arrow()
        assert frame["view__x"].to_pylist() == [100.0, 100.0, 4.0, 5.0, 11.0]
        assert store.explain("view", {"thing": 2}, at=NOON).rows[0].values["x"] == 100.0


@pytest.mark.parametrize("identity", [{}, {"identity": ["number"]}])
def test_rows_are_searched_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: dict[str, list[str]]
) -> None:
    """However few rows are searched at once, every request gets the same answer."""
    keys, asked = [1, 2, 3, 4, None] * 6, [hours(2 * n) for n in range(-8, 22)]
    frames: list[pa.Table] = []
    with opened(overtaken(tmp_path, **identity)) as (store, _):
        for rows in (1_000_000, 1, 20):
            monkeypatch.setattr(choice, "SEARCH_BATCH_ROWS", rows)
            monkeypatch.setattr(asof_search, "LOOSE_MIN_ROWS", rows)
            given = spine(asked, thing=pa.array(keys, pa.int64()))
            frames.append(store.get_historical_features(given, "service", with_status=True).to_arrow())
    assert len(set(frames[0]["view__x"].to_pylist())) > 5
    assert all(frame.equals(frames[0]) for frame in frames)

"""The search for each request's newest rows, beside loops over all rows; and what it hands back, answered by SQL."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from featurestore import FeatureView
from featurestore.query import row_choice as choice
from featurestore.query.asof_search import TRIED_INSTANTS, Requests, newest
from featurestore.semantics.rows import RowTimes
from featurestore.semantics.time import BEGINNING, END
from tests.small import NOON, hours, opened, spine, table, view_of

KEYS = 5


def random_case(chance: random.Random, *, wide: bool, ending: bool) -> tuple[RowTimes, Requests]:
    """Rows and requests over few instants; `wide`: so far apart that a key and an instant are no one integer."""
    instants = [BEGINNING, -1, 0, 1, 2, 3, 4, 5, END - 1] if wide else list(range(-4, 5))
    rows, late = [], chance.choice([0.0, 0.5, 0.9])
    for _ in range(chance.randrange(60)):
        e = chance.choice(instants)
        v = max(e, chance.choice(instants[-4:] if chance.random() < late else instants))
        rows.append((chance.randrange(KEYS), e, v, chance.choice([END, END, *instants])))
    key, e, v, g = (np.array(column, np.int64) for column in (zip(*rows, strict=True) if rows else [[]] * 4))
    asked = [(chance.randrange(KEYS), chance.choice(instants)) for _ in range(chance.randrange(30))]
    wanted, as_of = (np.array(column, np.int64) for column in (zip(*asked, strict=True) if asked else [[]] * 2))
    return RowTimes(key, e, v, g if ending else None), Requests(wanted, as_of)


def by_loops(rows: RowTimes, key: int, as_of: int) -> tuple[set[int], int]:
    """The rows that happened last among those that count, of these the last learned; and how many instants were tried."""
    happened = {int(e) for k, e in zip(rows.key, rows.event_us, strict=True) if k == key and e <= as_of}
    for tried, instant in enumerate(sorted(happened, reverse=True), 1):
        here = [
            i
            for i in range(len(rows.event_us))
            if rows.key[i] == key and rows.event_us[i] == instant and rows.counts_from[i] <= as_of
        ]
        here = [i for i in here if rows.counts_until is None or rows.counts_until[i] > as_of]
        if here:
            last = max(rows.counts_from[i] for i in here)
            return {i for i in here if rows.counts_from[i] == last}, tried
    return set(), len(happened)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("ending", [False, True])
def test_the_search_finds_what_loops_find(wide: bool, ending: bool) -> None:
    """A request gets its one last row, or all that are last together, or is handed back when its newest few do not count."""
    chance, seen = random.Random(7), dict.fromkeys(("one", "several", "left", "none"), 0)
    for _ in range(400):
        rows, requests = random_case(chance, wide=wide, ending=ending)
        found = newest(rows, requests, KEYS)
        single = dict(zip(found.single.tolist(), found.row.tolist(), strict=True))
        assert len(single) == len(found.single)
        several: dict[int, set[int]] = {}
        for request, row in zip(found.several.tolist(), found.among.tolist(), strict=True):
            several.setdefault(request, set()).add(row)
        for request, (key, as_of) in enumerate(zip(requests.key.tolist(), requests.as_of.tolist(), strict=True)):
            expected, tried = by_loops(rows, key, as_of)
            if expected and tried <= TRIED_INSTANTS:
                assert ({single[request]} if len(expected) == 1 else several[request]) == expected
                seen["one" if len(expected) == 1 else "several"] += 1
            elif tried > TRIED_INSTANTS or (not expected and tried == TRIED_INSTANTS):
                assert request not in single
                assert request not in several
                assert request in found.left or not expected
                seen["left"] += request in found.left
            else:
                assert request not in {*single, *several, *found.left.tolist()}
                seen["none"] += 1
    assert min(seen.values()) > 20, seen


def overtaken(folder: Path, **words: object) -> FeatureView:
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


def test_rows_are_searched_some_keys_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few rows are searched at once, sorted by key before or not, every request gets the same answer."""
    keys, asked = [1, 2, 3, 4, None] * 6, [hours(2 * n) for n in range(-8, 22)]
    frames: list[pa.Table] = []
    with opened(overtaken(tmp_path)) as (store, _):
        for rows, unsorted in ((1_000_000, 16), (1, 16), (20, 16), (1, 1)):
            monkeypatch.setattr(choice, "SEARCH_BATCH_ROWS", rows)
            monkeypatch.setattr(choice, "UNSORTED_MAX_BATCHES", unsorted)
            given = spine(asked, thing=pa.array(keys, pa.int64()))
            frames.append(store.get_historical_features(given, "service", with_status=True).to_arrow())
    assert len(set(frames[0]["view__x"].to_pylist())) > 5
    assert all(frame.equals(frames[0]) for frame in frames)

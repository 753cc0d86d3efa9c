"""How far a stream was read moves with the rows that came from it, by those alone whose rows are where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.errors import DeposedError, LogError, PushError
from featurestore.push.push_batch import PushBatch
from featurestore.push.push_queue import Advance, PushAnswer
from featurestore.sources.log import FileLog
from tests.push.test_expected import HIGH, source_of, store_over
from tests.pushing import Killed
from tests.small import NOON, raised
from tests.test_push import logged, opened, row, view_over

LATE = NOON - timedelta(days=8)
AHEAD = NOON + timedelta(hours=1)


@pytest.fixture
def store() -> Iterator[FeatureStore]:
    with opened(view_over()) as (store, _):
        yield store


def together(store: FeatureStore, *asked: tuple[list[Any], Advance | None]) -> list[PushAnswer]:
    """What becomes of pushes that share one batch."""
    pusher = store._project.pushing._pusher("swipes")
    with pusher._batch_lock:
        return [pusher.submit(rows, advance=advance) for rows, advance in asked]


def keep(store: FeatureStore, rows: list[Any], since: str | None, upto: str) -> Any:
    """What becomes of rows of the partition `p`."""
    return store._project.pushing._pusher("swipes").submit(rows, advance=advance(p=(since, upto))).result()


def advance(**moves: tuple[str | None, str]) -> Advance:
    return Advance(
        {name: since for name, (since, _) in moves.items()}, {name: upto for name, (_, upto) in moves.items()}
    )


def positions(store: FeatureStore) -> Mapping[str, str]:
    """Those of streams."""
    return {name: at for name, at in store._project.pushing.positions("swipes").items() if len(name) == 1}


def ids(store: FeatureStore, part: str = "rows") -> list[int]:
    return [each["id"] for each in logged(store, part=part)]


def test_each_is_kept_where_its_partitions_are_still_where_they_were(store: FeatureStore) -> None:
    """Of two that read the same one is kept, of which all is kept; one that is refused holds nothing of another's."""
    keep(store, [row(1)], None, "1")
    answers = together(
        store,
        ([row(2)], advance(p=("1", "2"), q=(None, "1"))),
        ([row(3)], advance(p=("1", "3"))),
        ([row(4)], advance(r=("9", "1"), s=(None, "7"))),
        ([row(5)], advance(s=(None, "1"))),
        ([row(6)], None),
        ([row(7), row(8, at=AHEAD)], advance(t=(None, "1"))),
    )
    said = [raised(DeposedError, answers[which].result) for which in (1, 2)]
    assert ["reads p by now" in said[0], "reads r by now" in said[1]] == [True, True]
    assert [answers[which].result() for which in (0, 3, 4)] == [(1, 0, 0)] * 3
    assert "row 1" in raised(PushError, answers[5].result)
    assert ids(store) == [1, 2, 5, 6]
    assert positions(store) == {"p": "2", "q": "1", "s": "1"}


def test_a_partition_moves_also_where_no_row_is_new(store: FeatureStore) -> None:
    """Without rows, with rows that are there, and with late ones, which are kept aside once."""
    assert keep(store, [], None, "1") == (0, 0, 0)
    keep(store, [row(1)], "1", "2")
    assert keep(store, [row(1)], "2", "3") == (0, 1, 0)
    assert keep(store, [row(2, at=LATE)], "3", "4") == (0, 0, 1)
    assert keep(store, [row(3, at=LATE), row(4)], "4", "5") == (1, 0, 1)
    keep(store, [], "5", "6")
    assert (ids(store), ids(store, "late"), positions(store)) == ([1, 4], [2, 3], {"p": "6"})


def test_late_rows_are_kept_aside_by_who_comes_after_one_that_died(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, whether it died before they were there or after; and not where the append that they belong to never came."""
    keep_aside, append = PushBatch._keep_aside, FileLog.append
    since = None
    for number, after in enumerate([False, True]):

        def dying(batch: PushBatch, *args: Any, after: bool = after, **words: Any) -> None:
            if after:
                keep_aside(batch, *args, **words)
            raise Killed

        monkeypatch.setattr(PushBatch, "_keep_aside", dying)
        with pytest.raises(Killed):
            keep(store, [row(number, at=LATE), row(10 + number)], since, str(number))
        monkeypatch.setattr(PushBatch, "_keep_aside", keep_aside)
        since = str(number)
        with pytest.raises(DeposedError):
            keep(store, [], "somewhere else", "there")
        assert ids(store, "late") == list(range(number + 1))

    def failing(log: FileLog, batches: Any, *more: Any) -> None:
        if batches:
            raise LogError("The disk is full.")
        append(log, batches, *more)

    monkeypatch.setattr(FileLog, "append", failing)
    with pytest.raises(LogError):
        keep(store, [row(2, at=LATE), row(12)], since, "2")
    monkeypatch.setattr(FileLog, "append", append)
    with pytest.raises(DeposedError):
        keep(store, [], "somewhere else", "there")
    assert (ids(store), ids(store, "late"), positions(store)) == ([10, 11], [0, 1], {"p": "1"})


def test_rows_in_quarantine_are_kept_aside_by_who_comes_after_one_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where none came too late."""
    with store_over(HIGH) as (store, _):
        pusher, keep_aside = store._project.pushing._pusher("pushed"), PushBatch._keep_aside

        def dying(*_: Any, **__: Any) -> None:
            raise Killed

        monkeypatch.setattr(PushBatch, "_keep_aside", dying)
        with pytest.raises(Killed):
            pusher.submit([{"thing": 1, "id": 1, "at": NOON, "x": 500.0}], advance=advance(p=(None, "1"))).result()
        monkeypatch.setattr(PushBatch, "_keep_aside", keep_aside)
        pusher.submit([], advance=advance(p=("1", "2"))).result()
        assert [each["id"] for each in logged(store, source_of(HIGH), "quarantine")] == [1]

"""The queue of a push source: who is in the next batch, and who serves it."""

from __future__ import annotations

import pyarrow as pa
import pytest

from featurestore.push.push_queue import BATCH_ROWS, PushQueue
from featurestore.push.pushed import Pushed
from featurestore.push.rows import GivenRows


def rows(number: int) -> GivenRows:
    return GivenRows(pa.table({"n": pa.nulls(number, pa.int64())}), ())


@pytest.mark.parametrize(
    ("waiting", "batches"),
    [
        ([1, 2, 3], [[1, 2, 3]]),
        ([BATCH_ROWS - 1, 1, 1], [[BATCH_ROWS - 1, 1], [1]]),
        ([BATCH_ROWS, 1], [[BATCH_ROWS], [1]]),
        ([BATCH_ROWS + 1, 1], [[BATCH_ROWS + 1], [1]]),
        ([1, BATCH_ROWS, 2], [[1], [BATCH_ROWS], [2]]),
    ],
)
def test_a_batch_takes_as_many_as_it_has_room_for(waiting: list[int], batches: list[list[int]]) -> None:
    """In their order; one that is larger than a batch is one of its own."""
    queue = PushQueue()
    for number in waiting:
        queue.join(rows(number))
    for batch in [*batches, []]:
        assert [each.table.num_rows for each in queue.take()] == batch


def test_without_rows_there_is_nothing_to_wait_for() -> None:
    queue = PushQueue()
    assert queue.join(rows(0)).result(timeout=0) == Pushed(0, 0, 0)
    assert queue.take() == []


def test_who_gave_up_waiting_takes_no_room() -> None:
    """And stands in nobody's way."""
    queue = PushQueue()
    large, small = queue.join(rows(BATCH_ROWS)), queue.join(rows(7))
    queue.join(rows(BATCH_ROWS - 7))
    assert large.cancel()
    taken = queue.take()
    assert [each.table.num_rows for each in taken] == [7, BATCH_ROWS - 7]
    assert taken[0].answer is small
    assert not small.cancel()
    queue.join(rows(1)).cancel()
    assert queue.take() == []


def test_one_at_a_time_serves_the_queue_until_nobody_waits() -> None:
    queue = PushQueue()
    queue.join(rows(1))
    assert [queue.needs_service() for _ in range(3)] == [True, False, False]
    assert queue.goes_on()
    assert not queue.needs_service()
    queue.take()
    assert not queue.goes_on()
    assert queue.needs_service()

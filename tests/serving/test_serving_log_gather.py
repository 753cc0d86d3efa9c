"""Small requests are gathered on their way, and each is written once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from featurestore.serving.log.serving_log import GATHERED_REQUESTS, Losses, ServingLog, losses
from tests.serving.test_serving_log_disk import logged, served

THREADS, EACH = 8, 2_000


def test_small_requests_of_many_threads_are_each_written_once(tmp_path: Path) -> None:
    """While others gather, and the writer writes what it finds."""
    log = ServingLog(tmp_path, flush=0.002)

    def offer(thread: int) -> None:
        for n in range(thread * EACH, (thread + 1) * EACH):
            assert log.offer(served(n, size=None if n % 7 else 0))

    threads = [threading.Thread(target=offer, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted(logged(tmp_path)) == list(range(THREADS * EACH))
    assert losses(tmp_path) == Losses(THREADS * EACH, THREADS * EACH, 0, 0)
    assert log._rows == log._bytes == 0


def test_few_wait_one_by_one(tmp_path: Path) -> None:
    """As many as are gathered at once, however long the writer lets them wait; what they take is counted from then on."""
    log = ServingLog(tmp_path, flush=3600, memory=100_000)
    text = os.urandom(500).hex()
    taken = [log.offer(served(n, text=text, size=None)) for n in range(2 * GATHERED_REQUESTS)]
    assert taken == [True] * GATHERED_REQUESTS + [False] * GATHERED_REQUESTS
    assert len(log._small) == 0
    assert [one.requests for one in log._waiting] == [GATHERED_REQUESTS]
    log.close()
    assert logged(tmp_path) == list(range(GATHERED_REQUESTS))
    assert log.losses == Losses(2 * GATHERED_REQUESTS, GATHERED_REQUESTS, GATHERED_REQUESTS, 0)


@pytest.mark.parametrize("rows", [1, 3])
def test_what_waits_is_bounded_in_rows(tmp_path: Path, rows: int) -> None:
    """Gathered or not."""
    log = ServingLog(tmp_path, flush=3600, pending=1000)
    each = served(0, size=None if rows == 1 else 0)
    taken = [log.offer(each._replace(rows=rows)) for _ in range(2000)]
    assert sum(taken) == 1000 // rows

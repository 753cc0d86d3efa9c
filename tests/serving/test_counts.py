"""What became of requests, over processes that live, that ended and that an earlier version counted."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from featurestore.serving.log.process_counts import (
    COUNTERS,
    ENDED,
    ERROR,
    PROCESSES,
    SIZE,
    UNCHECKED,
    Losses,
    ProcessCounts,
    fold_ended,
    losses,
)


def counted(folder: Path, process: str, *numbers: int, error: tuple[str, int] | None = None) -> ProcessCounts:
    """A process that offered, wrote and dropped so many."""
    counts = ProcessCounts(folder, process)
    made = counts.map()
    assert made is not None
    counts.keep(made)
    counts.offered, counts.written, counts.dropped = numbers
    if error is not None:
        counts.failed(error[0], at=error[1])
    counts.save()
    return counts


def test_what_waits_in_a_living_process_is_not_lost_and_in_one_that_ended_it_is(tmp_path: Path) -> None:
    one, two = counted(tmp_path, "1", 10, 5, 2), counted(tmp_path, "2", 100, 60, 1)
    assert losses(tmp_path) == Losses(110, 65, 3, 0)
    one.ended()
    one.ended()
    assert losses(tmp_path) == Losses(110, 65, 3, 3)
    two.ended()
    assert losses(tmp_path) == Losses(110, 65, 3, 42)


def test_counts_are_in_memory_until_there_is_a_file(tmp_path: Path) -> None:
    """And then in it, with the error that came before."""
    counts = ProcessCounts(tmp_path, "1")
    counts.offered = counts.dropped = 1
    counts.failed("the disk is full", at=7)
    counts.save()
    assert (counts.is_kept, counts.losses()) == (False, Losses(1, 0, 1, 0, "the disk is full"))
    assert losses(tmp_path) == Losses(0, 0, 0, 0)
    made = counts.map()
    assert made is not None
    counts.keep(made)
    assert counts.is_kept
    assert counts.map() is None
    assert losses(tmp_path) == counts.losses()
    counts.ended()


def test_the_error_is_the_last_one(tmp_path: Path) -> None:
    """By its time, whichever process it cost; it is cut where the file ends."""
    alive = counted(tmp_path, "1", 1, 0, 1, error=("later", 9))
    counted(tmp_path, "2", 1, 0, 1, error=("sooner", 8)).ended()
    counted(tmp_path, "3", 1, 1, 0).ended()
    assert losses(tmp_path).last_error == "later"
    assert fold_ended(tmp_path) == 2
    assert losses(tmp_path) == Losses(3, 1, 2, 0, "later")
    alive.failed("x" * 500, at=10)
    assert losses(tmp_path).last_error == alive.losses().last_error == "x" * 199
    alive.ended()


def test_what_ended_is_put_together_once(tmp_path: Path) -> None:
    """Of which each process is counted once, however often that is done, and with its file still there."""
    alive = counted(tmp_path, "9", 1000, 0, 0)
    for process, numbers in (("1", (10, 5, 2)), ("2", (7, 7, 0))):
        counted(tmp_path, process, *numbers).ended()
    kept = (tmp_path / PROCESSES / "1").read_bytes()
    total = losses(tmp_path)
    assert total == Losses(1017, 12, 2, 3)
    assert [fold_ended(tmp_path), losses(tmp_path), fold_ended(tmp_path)] == [2, total, 0]
    assert sorted(path.name for path in (tmp_path / PROCESSES).iterdir()) == ["9", ENDED]
    (tmp_path / PROCESSES / "1").write_bytes(kept)
    assert losses(tmp_path) == total
    counted(tmp_path, "3", 1, 0, 0, error=("gone", 5)).ended()
    assert fold_ended(tmp_path) == 2
    assert losses(tmp_path) == Losses(1018, 12, 2, 4, "gone")
    alive.ended()


@pytest.mark.parametrize("byte", [0, 8, 23, UNCHECKED])
def test_counts_that_are_damaged_are_told_and_not_counted(tmp_path: Path, byte: int) -> None:
    """They stay where they are; a file that is just being made counts nothing."""
    counted(tmp_path, "1", 10, 5, 2, error=("full", 3)).ended()
    counted(tmp_path, "2", 1, 1, 0).ended()
    path = tmp_path / PROCESSES / "1"
    data = path.read_bytes()
    path.write_bytes(data[:byte] + bytes([data[byte] ^ 4]) + data[byte + 1 :])
    told = Losses(1, 1, 0, 0, f"the counts in {path} are damaged, and not among these")
    assert losses(tmp_path) == told
    assert fold_ended(tmp_path) == 1
    assert (losses(tmp_path), path.exists()) == (told, True)
    for nothing in (bytes(SIZE), data[: UNCHECKED - 1], b""):
        path.write_bytes(nothing)
        assert losses(tmp_path) == Losses(1, 1, 0, 0)


def test_where_the_sum_is_damaged_nothing_is_put_to_it(tmp_path: Path) -> None:
    counted(tmp_path, "1", 1, 1, 0).ended()
    fold_ended(tmp_path)
    path = tmp_path / PROCESSES / ENDED
    path.write_bytes(path.read_bytes().replace(b'"at"', b'"ta"'))
    counted(tmp_path, "2", 5, 5, 0).ended()
    assert fold_ended(tmp_path) == 0
    assert losses(tmp_path) == Losses(5, 5, 0, 0, f"the counts in {path} are damaged, and not among these")


def test_counts_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """Of a process, without a checksum, and of those that ended."""
    (tmp_path / PROCESSES).mkdir()
    (tmp_path / PROCESSES / "1").write_bytes(COUNTERS.pack(10, 5, 2) + ERROR.pack(7, b"old"))
    assert losses(tmp_path) == Losses(10, 5, 2, 3, "old")
    (tmp_path / PROCESSES / "ended").write_text("20 15 1 4\n9 older text\n2\n3")
    assert losses(tmp_path) == Losses(30, 20, 3, 7, "older text")
    assert fold_ended(tmp_path) == 1
    assert losses(tmp_path) == Losses(30, 20, 3, 7, "older text")
    assert [path.name for path in (tmp_path / PROCESSES).iterdir()] == [ENDED]


def test_counts_can_be_read_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        counted(tmp_path, "1", 1, 1, 0).ended()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / PROCESSES / "1").stat().st_mode) == 0o644

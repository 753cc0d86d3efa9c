"""How far streams were read: kept with the rows that come from them, wherever the log lies and whatever becomes of its segments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import LogDamagedError, LogError
from featurestore.sources.log import FileLog
from featurestore.sources.log.frame import MAGIC, NOTED_MAGIC, encode, scan
from featurestore.sources.log.positions import FILE, Moves, Positions
from tests.sources.conftest import Opened
from tests.sources.log_rows import SCHEMA, batch


def held(opened: Opened, **said: Any) -> dict[str, str]:
    """As another process sees them, with the lock and without."""
    with opened(**said) as log:
        found = log.positions()
        with log.lock():
            assert log.positions() == found
        return found


def test_they_are_kept_with_rows_and_without(opened: Opened) -> None:
    """The last text of each partition is what `positions` says, to every process, through segments that are full and sealed."""
    with opened(segment_bytes=3000) as log:
        assert log.positions() == {}
        with log.lock():
            log.append([batch(0, 3)], {"a": "1", "b": "1"})
            assert log.positions() == {"a": "1", "b": "1"}
            log.append([batch(10, 3)], {"a": "2"})
            log.append([batch(20, 3)])
            log.move({"b": "5", "c": "é"})
        for start in range(30, 130, 10):
            with log.lock():
                log.append([batch(start, 3)], {"a": str(start)})
        assert len(log.segments()) > 2
    assert held(opened) == {"a": "120", "b": "5", "c": "é"}
    with opened() as log:
        log.compact(everything=True)
        assert log.read()["known_at"][-1].as_py() == 122
    assert held(opened) == {"a": "120", "b": "5", "c": "é"}


def test_rows_that_are_taken_back_change_none(opened: Opened) -> None:
    """Whoever has the rows pushes them again; the stream is not read again."""
    with opened() as log, log.lock():
        log.append([batch(0, 3)], {"a": "1"})
        log.append([batch(10, 3)], {"a": "2"})
        log.take_back(5)
        assert log.last_known_at() == 2
        assert log.positions() == {"a": "2"}
        log.append([batch(6, 3)], {"a": "3"})
    assert held(opened) == {"a": "3"}


def test_an_append_that_is_refused_moves_nothing(opened: Opened) -> None:
    """Rows whose known_at is not greater than that of the last are not kept, nor is how far they are."""
    with opened() as log, log.lock():
        log.append([batch(10, 3)], {"a": "1"})
        with pytest.raises(ValueError, match="strictly"):
            log.append([batch(0, 3)], {"a": "2"})
        assert log.positions() == {"a": "1"}
        log.append([], {"a": "3"})
        assert log.positions() == {"a": "1"}


def test_an_append_that_was_cut_off_moves_nothing(tmp_path: Path) -> None:
    """A frame of which a byte is missing is neither rows nor a position."""
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log:
        with log.lock():
            log.append([batch(0, 3)], {"a": "1"})
        size = log.segments()[-1].size
        with log.lock():
            log.append([batch(10, 3)], {"a": "2"})
        path = log.folder / log.segments()[-1].file
    (tmp_path / "log" / "tip").unlink()
    os.truncate(path, path.stat().st_size - 8)
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log, log.lock():
        assert (log.positions(), log.last_known_at(), log.segments()[-1].size) == ({"a": "1"}, 2, size)


def test_a_copy_has_those_of_its_rows(tmp_path: Path) -> None:
    """Of a log that is copied, every position is in the copy, from frames and from the file beside them."""
    with FileLog(tmp_path / "log", lambda: SCHEMA, segment_bytes=3000) as log:
        for start in range(0, 60, 10):
            with log.lock():
                log.append([batch(start, 3)], {"a": str(start)})
        with log.lock():
            log.move({"b": "1"})
            log.append([batch(60, 3)], {"a": "60"})
        log.copy_to(tmp_path / "copy")
    with FileLog(tmp_path / "copy", lambda: SCHEMA) as copy:
        assert copy.positions() == {"a": "60", "b": "1"}


def test_damage_of_the_file_is_told(tmp_path: Path) -> None:
    """A byte of it that changed is an error that names the file, and nothing is read from the start again."""
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log, log.lock():
        log.move({"a": "17"})
    path = tmp_path / "log" / FILE
    path.write_bytes(path.read_bytes().replace(b"17", b"11"))
    with FileLog(tmp_path / "log", lambda: SCHEMA) as log, log.lock():
        with pytest.raises(LogDamagedError, match=FILE):
            log.positions()
        with pytest.raises(LogDamagedError, match=FILE):
            log.append([batch(0, 1)], {"a": "18"})
        assert log.last_known_at() is None


def test_a_note_of_any_length_comes_back_and_is_checked() -> None:
    """Beside the rows, which are the same with it and without; a byte of the header or the note that changed is no frame."""
    rows = batch(0, 2)
    plain = encode(rows, 1, 0, first=0, last=1)
    assert plain[:4] == MAGIC
    for length in range(1, 18):
        data = encode(rows, 1, 0, first=0, last=1, note=bytes(range(length)))
        assert (data[:4], len(data) % 8) == (NOTED_MAGIC, 0)
        (found,), end, after = scan(data, 1, 0)
        assert (found.note, found.rows, end, after) == (bytes(range(length)), 2, len(data), "")
        for at in [*range(40), *range(len(data) - length, len(data))]:
            changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            assert scan(changed, 1, 0).frames == [], at


def test_changes_are_taken_once_and_in_order() -> None:
    """A change that is in the positions already changes nothing, whichever way it is met again."""
    after = Positions().after(Moves({"a": "1"}, 1)).after(Moves({"a": "2", "b": "1"}, 2))
    assert after == (after.after(Moves({"a": "1"}, 1)))
    assert Positions({"a": "0"}, 1).with_later(after).held == {"a": "2", "b": "1"}
    assert after.with_later(Positions({"a": "0"}, 1)) == after
    assert Moves.decode(Moves({"a": "é"}, 7).encode()) == Moves({"a": "é"}, 7)


def test_without_the_lock_nothing_moves(opened: Opened) -> None:
    """As nothing is appended without it."""
    with opened() as log:
        with pytest.raises((RuntimeError, LogError)):
            log.move({"a": "1"})
        assert log.positions() == {}

"""Hours of the serving log become files of their own, old files go, and no reader ever sees a row twice or not at all."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.serving.log.segments import HOUR_US, ServedSegment
from featurestore.serving.log.serving_log import ServedRequests, ServingLog, losses, segments
from featurestore.serving.log.upkeep import Limits, Upkeep, keep_up
from tests.serving.requests import request_of

SCHEMA = pa.schema([("request", pa.string()), ("time", pa.timestamp("us", "UTC"))])
MINUTE = HOUR_US // 60
NOW = 4 * HOUR_US
"""When hours 0 to 2 are over, and 3 just is."""


def served(at: int, schema: pa.Schema = SCHEMA, fingerprint: str = "f") -> ServedRequests:
    """A request of two rows at an instant."""
    return request_of(schema, [[str(at)] * 2, [at] * 2], at, fingerprint=fingerprint)


def written(folder: Path, *processes: Sequence[int], schema: pa.Schema = SCHEMA) -> None:
    """A segment for each pair of instants of each process."""
    for times in processes:
        log = ServingLog(folder, flush=3600)
        for number, at in enumerate(times):
            log.offer(served(at, schema))
            if number % 2:
                log.flush()
        log.close()


def rows(folder: Path) -> list[int]:
    """The instants of all rows that count, file by file."""
    found = [pq.read_table(path)["time"] for files in segments(folder).values() for path in files]
    return [at for times in found for at in times.cast(pa.int64()).to_pylist()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("service/f/*"))


TIMES = [MINUTE * n for n in range(0, 240, 7)]
OTHERS = [MINUTE * n + 1 for n in range(3, 240, 11)]
ALL = sorted(at for at in (*TIMES, *OTHERS) for _ in range(2))


def test_past_hours_become_one_file_each(tmp_path: Path) -> None:
    """Of several processes' segments, by time, with all rows and the same metadata; the last hour is not settled yet."""
    schema = SCHEMA.with_metadata({b"featurestore": b"1"})
    written(tmp_path, TIMES, OTHERS, schema=schema)
    before = names(tmp_path)
    done = keep_up(tmp_path, Limits(), now=NOW, grace=0)
    files = segments(tmp_path)["service", "f"]
    merged = [ServedSegment.of(path) for path in files if ServedSegment.of(path).merged]
    assert [file.hour for file in merged] == [0, 1, 2]
    for file in merged:
        times = pq.read_table(file.path)["time"].cast(pa.int64()).to_pylist()
        assert times == sorted(times)
        assert (times[0], times[-1]) == (file.first, file.last)
        metadata = pq.read_schema(file.path).metadata
        assert metadata[b"featurestore"] == b"1"
    gone = [name for name in before if ServedSegment.of(Path(name)).hour < 3]
    assert done == Upkeep(merged=len(gone), into=3)
    assert sorted(rows(tmp_path)) == ALL
    done = keep_up(tmp_path, Limits(), now=NOW, grace=0)
    assert done is not None
    assert (done.removed, done.merged) == (len(gone), 0)
    assert not {*gone} & {*names(tmp_path)}
    assert sorted(rows(tmp_path)) == ALL
    assert keep_up(tmp_path, Limits(), now=NOW, grace=0) == Upkeep()
    assert losses(tmp_path).written == len(TIMES) + len(OTHERS)


def test_what_was_listed_before_can_still_be_read(tmp_path: Path) -> None:
    """For ten minutes the merged files' parts stay, and are not listed."""
    written(tmp_path, TIMES)
    listed = segments(tmp_path)["service", "f"]
    keep_up(tmp_path, Limits(), now=NOW)
    keep_up(tmp_path, Limits(), now=NOW)
    assert sum(pq.read_table(path).num_rows for path in listed) == 2 * len(TIMES)
    assert sorted(rows(tmp_path)) == sorted([*TIMES, *TIMES])
    assert len(segments(tmp_path)["service", "f"]) < len(listed)


def test_rows_that_come_late_join_their_hour(tmp_path: Path) -> None:
    """Once the parts of the merged file are gone; until then they are beside it."""
    written(tmp_path, TIMES)
    keep_up(tmp_path, Limits(), now=NOW)
    written(tmp_path, OTHERS)
    keep_up(tmp_path, Limits(), now=NOW)
    assert sorted(rows(tmp_path)) == ALL
    for _ in range(2):
        keep_up(tmp_path, Limits(), now=NOW, grace=0)
        assert sorted(rows(tmp_path)) == ALL
    assert [ServedSegment.of(path).hour for path in segments(tmp_path)["service", "f"]][:3] == [0, 1, 2]


def test_what_other_versions_wrote_stays_apart(tmp_path: Path) -> None:
    """A library that changed within the hour makes two files of it."""
    for number in (b"1", b"2"):
        written(tmp_path, TIMES, schema=SCHEMA.with_metadata({b"featurestore": number}))
    keep_up(tmp_path, Limits(), now=NOW, grace=0)
    found = [path for path in segments(tmp_path)["service", "f"] if ServedSegment.of(path).hour == 0]
    assert sorted(pq.read_schema(path).metadata[b"featurestore"] for path in found) == [b"1", b"2"]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from featurestore.serving.log.upkeep import Limits, keep_up
    steps = int(sys.argv[2])
    def hook(event, arguments):
        global steps
        if event in ("open", "os.rename", "os.remove") and "service/f/" in str(arguments[0]):
            steps -= 1
            if steps < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    keep_up(Path(sys.argv[1]), Limits(*map(eval, sys.argv[4:])), now=int(sys.argv[3]), grace=0)
"""


def killed(folder: Path, step: int, *limits: object) -> bool:
    """Look after the log in a process that is killed at a step: an open, a rename or a removal. False: it came to its end."""
    words = [str(folder), str(step), str(NOW), *map(str, limits)]
    return subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), *words], check=False).returncode != 0


def test_killed_at_any_step_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    """Before the merged file has its name, after it, and between the removals of what it replaces."""
    times, others = TIMES[:6], OTHERS[:4]
    written(tmp_path, times, others)
    everything = sorted([*times, *times, *others, *others])
    steps = 0
    seen = set()
    for _ in range(2):  # the first merges, the second removes
        step = 0
        while killed(tmp_path, step):
            assert sorted(rows(tmp_path)) == everything
            whole = [name for name in names(tmp_path) if name[0] != "."]
            seen.add((len(whole), len(segments(tmp_path)["service", "f"])))
            step, steps = step + 1, steps + 1
        assert sorted(rows(tmp_path)) == everything
    assert steps >= 4
    assert (6, 1) in seen  # the merged file beside all its parts
    assert len(segments(tmp_path)["service", "f"]) == 1


def test_old_files_are_deleted_by_their_newest_row(tmp_path: Path) -> None:
    """With what they replaced; a file with one row that is young enough stays whole."""
    written(tmp_path, TIMES)
    keep_up(tmp_path, Limits(), now=NOW)
    listed = segments(tmp_path)["service", "f"]
    cutoff = ServedSegment.of(listed[1]).last
    before = sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    done = keep_up(tmp_path, Limits(retention=NOW - cutoff), now=NOW)
    assert segments(tmp_path)["service", "f"] == listed[1:]
    assert min(rows(tmp_path)) == ServedSegment.of(listed[1]).first < cutoff
    assert done is not None
    assert done.deleted > 1
    assert done.freed == before - sum(path.stat().st_size for path in tmp_path.rglob("*.parquet")) > 0
    assert not [name for name in names(tmp_path) if ServedSegment.of(Path(name)).last < cutoff]


def test_the_oldest_files_go_where_there_are_too_many_bytes(tmp_path: Path) -> None:
    """First what was replaced, then by age, until the rest fits."""
    written(tmp_path, TIMES)
    keep_up(tmp_path, Limits(), now=NOW)
    listed = segments(tmp_path)["service", "f"]
    most = sum(path.stat().st_size for path in listed[2:])
    keep_up(tmp_path, Limits(max_bytes=most), now=NOW)
    assert segments(tmp_path)["service", "f"] == listed[2:]
    assert sum(path.stat().st_size for path in tmp_path.glob("service/f/*")) == most


def test_one_process_at_a_time_looks_after_the_log(tmp_path: Path) -> None:
    """The other does nothing, and says so."""
    written(tmp_path, TIMES)
    with (tmp_path / ".upkeep").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert keep_up(tmp_path, Limits(), now=NOW) is None
    assert keep_up(tmp_path, Limits(), now=NOW) != Upkeep()
    assert keep_up(tmp_path / "none", Limits(), now=NOW) == Upkeep()


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    """A file without its final name, when nobody can be writing it any more."""
    written(tmp_path, TIMES[:2])
    for name, age in ((".1-2-3-4-5.parquet", 7200), (".1-2-3-4-6.parquet", 60)):
        (tmp_path / "service/f" / name).write_text("half")
        os.utime(tmp_path / "service/f" / name, (time.time() - age,) * 2)
    keep_up(tmp_path, Limits(), now=NOW)
    assert [name for name in names(tmp_path) if name.startswith(".")] == [".1-2-3-4-6.parquet"]


def test_whoever_logs_looks_after_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its writer's thread, which goes on writing meanwhile."""
    monkeypatch.setattr("featurestore.serving.log.serving_log.UPKEEP_SECONDS", 0.0)
    written(tmp_path, TIMES)
    log = ServingLog(tmp_path, flush=0.01, upkeep=lambda between: keep_up(tmp_path, Limits(), now=NOW, between=between))
    log.offer(served(NOW))
    deadline = time.monotonic() + 600
    while not any(ServedSegment.of(path).merged for path in segments(tmp_path)["service", "f"]):
        assert time.monotonic() < deadline
        log.offer(served(NOW))
        time.sleep(0.01)
    log.close()
    assert log.losses.written == log.losses.offered
    assert sorted(at for at in rows(tmp_path) if at < NOW) == sorted([*TIMES, *TIMES])

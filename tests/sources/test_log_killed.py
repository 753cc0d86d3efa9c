"""Appenders and compactions that are killed anywhere, beside each other and beside readers, lose and double nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.sources.log import FileLog
from tests.draws import draws
from tests.sources.log_rows import SCHEMA, batch, bits
from tests.sources.log_workers import SEGMENT

ROOT = Path(__file__).parents[2]


class Workers:
    """The program that forks workers."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.sources.log_workers"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, orders: list[dict[str, Any]]) -> list[int]:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(json.dumps(orders) + "\n")
        self._program.stdin.flush()
        codes: list[int] = json.loads(self._program.stdout.readline())
        return codes

    def close(self) -> None:
        self._program.communicate("")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    program = Workers()
    yield program
    program.close()


class Watcher:
    """Reads a log again and again, as another process would; each reading continues the one before."""

    def __init__(self, log: FileLog) -> None:
        self._log = log
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.failure: BaseException | None = None
        self.readings = 0

    def _watch(self) -> None:
        before = self._log.read()
        try:
            while not self._stop.wait(0.001):
                now = self._log.read()
                assert now.slice(0, before.num_rows).column("known_at").equals(before.column("known_at"))
                if before.num_rows:
                    last = before.column("known_at")[-1].as_py()
                    tail = self._log.read(last)
                    assert tail.num_rows >= now.num_rows - before.num_rows
                    assert (self._log.last_known_at() or 0) >= last
                before = now
                self.readings += 1
        except BaseException as error:
            self.failure = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure


worker = st.fixed_dictionaries(
    {
        "turns": st.integers(1, 12),
        "seed": st.integers(0, 2**32),
        "crash": st.one_of(st.just(0), st.integers(1, 60)),
        "compacts": st.sampled_from([0.0, 0.2, 0.8]),
    }
)


def check(log: FileLog, folder: Path) -> None:
    """The log has every acknowledged append once and whole, others whole or not at all, in the order of known_at."""
    table = log.read()
    known = table.column("known_at").to_pylist()
    assert all(a < b for a, b in zip(known, known[1:], strict=False))
    found: dict[tuple[int, int], list[int]] = {}
    order: list[tuple[int, int]] = []
    for who, turn, at in zip(table["who"].to_pylist(), table["turn"].to_pylist(), known, strict=True):
        if not order or order[-1] != (who, turn):
            order.append((who, turn))
        found.setdefault((who, turn), []).append(at)
    assert len(order) == len(found)  # each append in one piece
    expected = [batch(found[key][0], 1 + key[1] % 4, who=key[0], turn=key[1]) for key in order]
    assert bits(table) == bits(pa.Table.from_batches(expected, SCHEMA))
    acknowledged = {
        (int(path.name), int(turn)) for path in Path(f"{folder}.acks").iterdir() for turn in path.read_text().split()
    }
    assert acknowledged <= set(found)


def check_sql(log: FileLog) -> None:
    """DuckDB sees the rows that `read` sees, and their pointers are in the order of known_at."""
    connection = duckdb.connect(config={"threads": 1})
    scan = log.scan(connection, "log")
    pointed = connection.sql(f"SELECT known_at FROM {scan.relation} ORDER BY {scan.file}, {scan.row}").fetchall()
    assert [at for (at,) in pointed] == log.read()["known_at"].to_pylist()


@settings(max_examples=draws(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.lists(worker, min_size=1, max_size=3), min_size=1, max_size=5))
def test_nothing_is_lost_or_doubled(rounds: list[list[dict[str, Any]]], tmp_path: Path, workers: Workers) -> None:
    """Rounds of processes that append and compact at once, each perhaps killed at a step of the file system:
    every acknowledged append is there once, to the bit; a reader that was there all along agrees with a new one."""
    folder = tmp_path / "log"
    for old in (folder, Path(f"{folder}.acks")):
        shutil.rmtree(old, ignore_errors=True)
    Path(f"{folder}.acks").mkdir()
    with FileLog(folder, lambda: SCHEMA, segment_bytes=SEGMENT) as watched:
        for number, round_ in enumerate(rounds):
            orders = [
                {**order, "folder": str(folder), "who": 10 * number + index, "first": 0}
                for index, order in enumerate(round_)
            ]
            with Watcher(watched):
                codes = workers.run(orders)
            for order, code in zip(orders, codes, strict=True):
                assert code == 0 or (order["crash"] and code == -signal.SIGKILL)
            with FileLog(folder, lambda: SCHEMA, segment_bytes=SEGMENT) as fresh:
                check(fresh, folder)
            check(watched, folder)
        with watched.lock():
            pass
        watched.compact(grace=0, everything=True)
        check(watched, folder)
        check_sql(watched)
        names = {path.name for path in folder.iterdir()} - {"manifest.json.partial"}
        assert names == {s.file for s in watched.segments()} | {"manifest.json", "tip", "confirmed"} | {
            lock + turn for lock in ("lock", "compaction") for turn in ("", ".turn")
        }


def test_every_step_of_a_compaction_may_be_the_last(tmp_path: Path, workers: Workers) -> None:
    """Killed at its 1st, 2nd, … step, a compaction leaves every row once, and the next one completes it."""
    steps, killed, full = 0, True, tmp_path / "full"
    Path(f"{full}.acks").mkdir()
    order = {"folder": str(full), "who": 0, "first": 0, "turns": 8, "seed": 1, "crash": 0, "compacts": 0.0}
    assert workers.run([order]) == [0]
    while killed:
        steps += 1
        folder = tmp_path / f"log{steps}"
        shutil.copytree(full, folder)
        shutil.copytree(f"{full}.acks", f"{folder}.acks")
        order["folder"] = str(folder)
        crash = {**order, "who": 1, "turns": 1, "crash": steps, "compacts": 1.0, "seed": steps}
        (code,) = workers.run([crash])
        killed = code == -signal.SIGKILL
        with FileLog(folder, lambda: SCHEMA, segment_bytes=SEGMENT) as log:
            check(log, folder)
            log.compact(grace=0)
            check(log, folder)
            check_sql(log)
            assert all(segment.sealed for segment in log.segments()[:-1])
    assert steps > 15


def test_several_processes_take_turns(tmp_path: Path, workers: Workers) -> None:
    """Four appending processes: each one's appends are in its order, and none of them waits for the others to finish."""
    folder = tmp_path / "log"
    Path(f"{folder}.acks").mkdir()
    turns = 60
    orders = [
        {"folder": str(folder), "who": who, "first": 0, "turns": turns, "seed": who, "crash": 0, "compacts": 0.0}
        for who in range(4)
    ]
    with FileLog(folder, lambda: SCHEMA, segment_bytes=SEGMENT) as log:
        assert workers.run(orders) == [0] * 4
        check(log, folder)
        whos = [
            who for who, turn in dict.fromkeys(zip(*(log.read()[c].to_pylist() for c in ("who", "turn")), strict=True))
        ]
    assert len(whos) == 4 * turns
    last = {who: len(whos) - whos[::-1].index(who) for who in range(4)}
    assert min(last.values()) > 2 * turns  # nobody was done before the others had begun in earnest

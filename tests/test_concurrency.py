"""A store that many ask at once, while it is filled, reloaded and rolled over: no answer is torn, mixed, early or lost."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, Latest, ManualClock, ParquetSource
from featurestore.catalog import Catalog
from featurestore.online import OnlineStore, Reading
from featurestore.serving.online_result import OnlineResult
from featurestore.serving.served_versions import Serving
from featurestore.types import Int64

ROOT = Path(__file__).parents[1]
START = datetime(2024, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PAUSE_S = 0.002
"""Between two turns of a thread; without, the threads that they are beside hardly get on."""
KEYS = 150
HOURS = 12
ROWS = [{"id": key} for key in range(KEYS)]


@pytest.fixture(params=["lmdb", "redis"])
def online(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"lmdb://{tmp_path}/online" if request.param == "lmdb" else request.getfixturevalue("redis_url")


def hourly(folder: Path, online: str) -> FeatureStore:
    """Two views whose values, for every key, are the hour of the as_of; not yet filled."""
    times = [START + HOUR * n for n in range(HOURS + 1) for _ in range(KEYS)]
    rows = pa.table(
        {
            "id": list(range(KEYS)) * (HOURS + 1),
            "at": pa.array(times, pa.timestamp("us", "UTC")),
            "x": [n for n in range(HOURS + 1) for _ in range(KEYS)],
        }
    )
    pq.write_table(rows, folder / "rows.parquet")
    (folder / "featurestore.toml").write_text(f'project = "{folder.name}"\nonline = "{online}"\ndefinitions = []\n')
    store = FeatureStore(folder, clock=ManualClock(START + timedelta(minutes=30)))
    source = ParquetSource("rows", "rows.parquet", event_time="at")
    thing = Entity("thing", key={"id": Int64})
    views = [
        FeatureView(name, entity=thing, source=source, features=["x"], refresh="1h", ready_after="10m")
        for name in ("one", "two")
    ]
    store.apply([FeatureService("service", features=views)])
    return store


def checked(store: FeatureStore, result: OnlineResult, before: dict[str, datetime]) -> None:
    """Every key answers for the as_of served, which never goes back and is never later than rule 0 gives."""
    for name, as_of in result.as_of.items():
        assert set(result.columns[f"{name}__x"]) == {(as_of - START) // HOUR}
        assert set(result.statuses[f"{name}__x"]) == {"PRESENT"}
        assert as_of + timedelta(minutes=10) <= store._project.clock()
        assert as_of >= before.get(name, as_of)
    before.update(result.as_of)


class Crowd:
    """Threads that each do one thing over and over until told to stop; what they raise is kept."""

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self.turns = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, act: Callable[[], Any]) -> None:
        self._threads.append(threading.Thread(target=self._repeat, args=(act,)))

    def _repeat(self, act: Callable[[], Any]) -> None:
        try:
            while not self._stop.wait(PAUSE_S):
                act()
                self.turns += 1
        except BaseException as error:
            self.raised.append(error)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def looker(store: FeatureStore) -> Callable[[], None]:
    before: dict[str, datetime] = {}
    return lambda: checked(store, store.get_online_features(ROWS, "service"), before)


def trainer(store: FeatureStore) -> Callable[[], None]:
    moment = START + 3 * HOUR + timedelta(minutes=9)
    spine = pa.table({"id": list(range(KEYS)), "event_timestamp": pa.array([moment] * KEYS, pa.timestamp("us", "UTC"))})

    def train() -> None:
        table = store.get_historical_features(spine, "service").to_arrow()
        assert set(table["one__x"].to_pylist()) == set(table["two__x"].to_pylist()) == {2}

    return train


def test_threads_share_a_store_while_it_is_filled_and_reloaded(tmp_path: Path, online: str) -> None:
    """Lookups and training frames of many threads stay true while others materialize, reload and set the clock on."""
    crowd = Crowd()
    with hourly(tmp_path, online) as store:
        store.materialize(progress=False)
        for _ in range(6):
            crowd.add(looker(store))
        crowd.add(trainer(store))
        crowd.add(lambda: (store.reload(), store.status()))
        with crowd:
            for n in range(1, 2 * HOURS):
                store._project.clock.set(START + timedelta(minutes=30) * (n + 1))  # type: ignore[attr-defined]  # the clock of these tests
                store.materialize(progress=False)
        assert crowd.raised == []
        assert crowd.turns > HOURS
        assert store.get_online_features(ROWS, "service").as_of["one"] == START + HOUR * (HOURS - 1)


def test_a_store_is_opened_once_by_whichever_thread_is_first(tmp_path: Path, online: str) -> None:
    """An LMDB folder can be open only once in a process; threads that come first at the same time share it."""
    with hourly(tmp_path, online) as filled:
        filled.materialize(progress=False)
    with FeatureStore(tmp_path, clock=ManualClock(START + timedelta(minutes=30))) as store:
        barrier = threading.Barrier(8)
        results, raised = [], []

        def first() -> None:
            barrier.wait()
            try:
                results.append(store.get_online_features(ROWS, "service").to_dict())
            except BaseException as error:
                raised.append(error)

        threads = [threading.Thread(target=first) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert raised == []
        assert results == [results[0]] * 8


def test_coroutines_share_round_trips_and_each_gets_its_own_answer(tmp_path: Path, online: str) -> None:
    """aget_online_features of many tasks at once, some cancelled, while another thread materializes and reloads."""
    with hourly(tmp_path, online) as store:
        store.materialize(progress=False)
        crowd = Crowd()
        moments = iter([START + timedelta(minutes=30) * (n + 1) for n in range(1, 2 * HOURS)])

        def onwards() -> None:
            store._project.clock.set(next(moments, START + HOUR * HOURS))  # type: ignore[attr-defined]  # the clock of these tests
            store.materialize(progress=False)
            store.reload()

        async def one(first: int, count: int) -> None:
            result = await store.aget_online_features(ROWS[first : first + count], "service")
            assert result.inputs["id"] == list(range(first, first + count))
            checked(store, result, {})

        async def many() -> int:
            cancelled = 0
            for _ in range(15):
                tasks = [asyncio.create_task(one(n, 1 + n % 5)) for n in range(100)]
                await asyncio.sleep(0)
                for task in tasks[::7]:
                    task.cancel()
                for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                    cancelled += isinstance(outcome, asyncio.CancelledError)
                    assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
            return cancelled

        crowd.add(onwards)
        with crowd:
            cancelled = asyncio.run(many())
        assert crowd.raised == []
        assert cancelled > 0 or not store.online.blocking


DEFINITIONS = """
from featurestore import Entity, FeatureService, FeatureView, Latest, ParquetSource
from featurestore.types import Int64

rows = ParquetSource("rows", "rows.parquet", event_time="at")
thing = Entity("thing", key={{"id": Int64}})
views = [
    FeatureView(name, entity=thing, source=rows, features={{"x": Latest(column)}}, refresh="1d")
    for name, column in (("one", "{one}"), ("two", "{two}"))
]
one, two = views
service = FeatureService("service", features=views)
"""


@pytest.fixture
def rolled(tmp_path: Path, online: str) -> Path:
    """A repository served in its old version, whose environment "next" has changed both views of the service."""
    from tests.rolling import KEYS as keys

    columns = {"one": 1, "two": 1, "one_new": 1_000_000, "two_new": 1_000_000}
    rows = {name: [key * factor + ("two" in name) for key in range(keys)] for name, factor in columns.items()}
    times = pa.array([START] * keys, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"id": list(range(keys)), "at": times, **rows}), tmp_path / "rows.parquet")
    (tmp_path / "old.py").write_text(DEFINITIONS.format(one="one", two="two"))
    (tmp_path / "new.py").write_text(DEFINITIONS.format(one="one_new", two="two_new"))
    (tmp_path / "featurestore.toml").write_text(
        f'project = "{tmp_path.name}"\nonline = "{online}"\ndefinitions = ["old.py"]\n'
        '[env.next]\ndefinitions = ["new.py"]\n'
    )
    with FeatureStore(tmp_path) as store:
        store.apply()
        store.materialize(progress=False)
    return tmp_path


def test_two_processes_roll_a_changed_service_over_at_once(rolled: Path) -> None:
    """Each answer of each process is the old version or the new one, whole; no key is lost and no lookup fails."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.rolling", str(rolled), env], cwd=ROOT, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for env in ("next", "next", "")
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "rolled\n"
        told = [json.loads(process.communicate(timeout=600)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
    for answer in told:
        assert answer["wrong"] == []
        assert answer["counts"]["new"] > 0
    assert any(answer["counts"].get("old") for answer in told)


class Meddled:
    """An online store to which something happens before a lookup reads it, which takes more than one key."""

    def __init__(self, store: OnlineStore) -> None:
        self._store, self.before = store, list[Callable[[], object]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, keys: Sequence[bytes]) -> Reading:
        if self.before and len(keys) > 1:
            self.before.pop(0)()
        return self._store.get(keys)


def test_a_lookup_is_answered_whose_version_goes_twice_before_it_reads(tmp_path: Path, online: str) -> None:
    """It reads a version that is freed by then, and then the next one, which is freed as well."""
    with hourly(tmp_path, online) as store:
        one = store.registry.current().catalog.views["one"]

        def roll(name: str) -> None:
            changed = one.model_copy(update={"features": {name: Latest("x")}})
            store.apply([FeatureService("service", features=[changed])])
            store.materialize(progress=False)

        roll("first")
        meddled = Meddled(store.online)
        serving = Serving(store.registry, meddled, tmp_path.name, Catalog)
        assert list(serving.get("service", None, ROWS).columns) == ["one__first"]
        meddled.before = [lambda: roll("second"), lambda: roll("third")]
        assert list(serving.get("service", None, ROWS).columns) == ["one__third"]
        assert not meddled.before


def test_event_loops_do_not_wait_for_each_other(tmp_path: Path, online: str) -> None:
    """Lookups in two loops of two threads are all answered, each by its own loop."""
    with hourly(tmp_path, online) as store:
        store.materialize(progress=False)
        answers: list[float] = []

        async def many() -> None:
            asked = [store.aget_online_features(ROWS[:5], "service") for _ in range(50)]
            answers.extend(len(result) for result in await asyncio.wait_for(asyncio.gather(*asked), 600))

        threads = [threading.Thread(target=lambda: asyncio.run(many())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(700)
        assert answers == [5] * 100

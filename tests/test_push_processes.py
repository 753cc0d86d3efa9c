"""Several processes push to one source, some are killed on the way, and lookups go on: nothing is untrue, lost or doubled."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.clock import instant_of
from featurestore.errors import FeatureStoreError
from featurestore.online.view_codec import ViewCodec, source_prefix
from tests.folding import FoldSpec
from tests.forks import forks
from tests.histories import History
from tests.oracle import SourceSpec, ViewSpec, sort_key
from tests.push_worker import rows_of, work
from tests.pushing import PushWorld, Row, configure, configure_machines, with_hop
from tests.servers import PATIENCE_SECONDS

SECOND = 1_000_000
SPECS = [
    FoldSpec("Count", None, window=2 * SECOND),
    FoldSpec("Count", None, window="lifetime"),
    FoldSpec("Sum", "value_0", window="lifetime"),
    FoldSpec("Latest", "value_0"),
    FoldSpec("LastN", "value_0", (("n", 3),)),
]
EXACT = SPECS[:3]
KEYS = [(1,), (2,)]
POINTS = ("reserve", "append", "apply", "answer")


def world_of(specs: list[FoldSpec]) -> PushWorld:
    types = {"row": "Int64", "event_time": "Timestamp", "key_0": "Int64", "value_0": "Float64", "id": "Int64",
             "known_at": "Timestamp", "value_d": "Int64"}  # fmt: skip
    source = SourceSpec(event_time="event_time", known_at="known_at")
    view = ViewSpec(key={"entity_0": "key_0"}, features={})
    week = 7 * 86_400 * SECOND
    return PushWorld(History(source, view, [], types, [], 0, 1), specs, ("id",), False, week, SECOND)


def clock() -> datetime:
    return datetime.now(UTC)


class Looker(threading.Thread):
    """Looks up without pause; what was answered, with its as_of (µs)."""

    def __init__(self, store: FeatureStore) -> None:
        super().__init__(daemon=True)
        self.store, self.stop = store, threading.Event()
        self.answers: list[tuple[int, dict[str, list[Any]], dict[str, list[str]]]] = []
        self.errors: list[FeatureStoreError] = []

    def run(self) -> None:
        while not self.stop.wait(0.002):
            self.look()

    def look(self) -> None:
        try:
            online = self.store.get_online_features([{"entity_0": key} for (key,) in KEYS], "view")
            self.answers.append((instant_of(online.as_of["view"]), online.to_dict(), online.statuses))
        except FeatureStoreError as error:
            self.errors.append(error)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Pusher:
    """A process that pushes, ready to begin; see `tests.push_worker.work`."""

    def __init__(
        self, folder: Path, who: int, pushes: int, *, skew: float = 0.0, injected: bool, kill: str = ""
    ) -> None:
        self._told, its = forks().Pipe()
        words = {"skew": skew, "injected": injected, "kill": kill}
        self._process = forks().Process(target=work, args=(its, str(folder), who, pushes), kwargs=words, daemon=True)
        self._process.start()
        its.close()
        assert (said := self._told.recv()) == "ready", said

    def begin(self) -> None:
        self._told.send("go")

    def end(self) -> str:
        """What it says at its end, or that it was killed."""
        with self._told:
            assert self._told.poll(600), "it hangs"
            try:
                said: str = self._told.recv()
            except EOFError:
                said = "killed"
        self._process.join()
        assert said == ("killed" if self._process.exitcode == -signal.SIGKILL else "done"), said
        return said


def together(processes: list[Pusher]) -> list[str]:
    """Let processes that are ready push at the same time; how each of them ended."""
    for process in processes:
        process.begin()
    return [process.end() for process in processes]


def check(world: PushWorld, store: FeatureStore, answers: list[Any]) -> list[Row]:
    """Every answer is what the rows of the log were worth at its as_of, which never went back; the log's rows."""
    service = store.lookup("view").service
    types = {feature.name: str(feature.type) for feature in service.parts[0].view.features}
    logged: list[Row] = store.offline.log(service.parts[0].view.source).read().to_pylist()  # type: ignore[arg-type]  # a push source, by its name
    instants = [as_of for as_of, _, _ in answers]
    assert instants == sorted(instants)
    distinct = {(as_of, repr(values)): (as_of, values, statuses) for as_of, values, statuses in answers}
    chosen = list(distinct.values())
    for as_of, values, statuses in chosen[:: max(1, len(chosen) // 150)] + chosen[-1:]:
        for i, spec in enumerate(world.specs):
            name, of = f"view__fold_{i}", types[f"fold_{i}"]
            for n, key in enumerate(KEYS):
                status, value = world.expected(logged, with_hop(spec), of, key=key, as_of=as_of)
                got = statuses[name][n], sort_key(of, values[name][n])
                assert got == (status, sort_key(of, value)), (key, as_of, spec)
    return logged


@pytest.mark.parametrize(("online", "exact"), [("lmdb", False), ("redis", True), ("machines", False)])
def test_pushers_in_many_processes_lose_and_double_nothing(
    online: str, exact: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Three push at once while four others are killed between two of their steps each; clocks differ by seconds.

    Redis has one clock, and what the processes think does not matter. Where clocks are injected, no pusher's is behind
    the one of lookups, which could have been given an answer already. Machines have a folder each, and share a log in PostgreSQL.
    """
    injected = online == "lmdb"
    folders: dict[int, Path] = {}
    if online == "machines":
        urls = {"online": request.getfixturevalue("redis_url"), "database": request.getfixturevalue("postgres").url}
        folders = {who: tmp_path / f"machine{who}" for who in (-1, *range(3), *range(10, 14), *range(20, 24))}
        configure_machines(list(folders.values()), **urls)
    else:
        configure(tmp_path, "lmdb://online" if injected else request.getfixturevalue("redis_url"))
    world = world_of(EXACT if exact else SPECS)
    with FeatureStore(folders.get(-1, tmp_path), clock=clock if injected else None) as store:
        store.apply(world.declare())
        store.materialize(progress=False)
        looker, between = Looker(store), Looker(store)
        looker.start()
        skews = (0.0, 0.5, 1.5) if injected else (0.0, -3.0, 7.0)
        running = [Pusher(folders.get(n, tmp_path), n, 6, skew=skew, injected=injected) for n, skew in enumerate(skews)]
        victims = [
            Pusher(folders.get(10 + n, tmp_path), 10 + n, 1 + n, injected=injected, kill=point)
            for n, point in enumerate(POINTS)
        ]
        ends = together([*running, *victims])
        assert ends == ["done"] * 3 + ["killed"] * 4
        alone = [
            Pusher(folders.get(20 + n, tmp_path), 20 + n, 1, injected=injected, kill=point)
            for n, point in enumerate(POINTS)
        ]
        for process in alone:  # one after the other: each finds what the one before has left
            assert together([process]) == ["killed"]
            between.look()
        lines = [line for path in sorted(tmp_path.rglob("sent.*")) for line in path.read_text().splitlines()]
        sent = [json.loads(line) for line in lines]
        for rows in sent:
            store.push("rows", rows, json=True)
        until(lambda: len(looker.answers) > 100 or bool(looker.errors))
        looker.stop.set()
        looker.join()
        looker.look()  # after the last of its thread
        assert looker.errors + between.errors == []
        check(world, store, between.answers)
        logged = check(world, store, looker.answers)
        assert sorted(row["row"] for row in logged) == sorted(row["row"] for rows in sent for row in rows)
        counts = store.get_online_features([{"entity_0": key} for (key,) in KEYS], "view").to_dict()
        assert sum(counts["view__fold_1"]) == len({row["id"] for row in logged})
        if folders:
            assert not [path for folder in folders.values() for path in folder.rglob("*.log")]
            store.close()
            for who in (-1, 0):  # from any machine
                with FeatureStore(folders[who]) as audited:
                    served = audited.offline.log(audited.lookup("view").service.parts[0].view.source)  # type: ignore[arg-type]  # a push source, by its name
                    assert served.read().to_pylist() == logged
                    if who == -1:
                        audit = audited.audit()
                        assert audit.compared > 100
                        assert (audit.skewed, sum(late.early for late in audit.lateness), audit.damaged) == (0, 0, {})
            return
        store.teardown()


def prefixes(store: FeatureStore, world: PushWorld) -> set[bytes]:
    """What the online keys of the project may begin with: those of its source and of the view versions that are applied."""
    view = store.lookup("view").service.parts[0].view
    project = store.config.project
    return {source_prefix(project, view.source.name), ViewCodec(project, view).prefix}  # type: ignore[arg-type]  # a push source, by its name


@pytest.mark.parametrize("online", ["lmdb", "redis"])
def test_fills_frees_and_compactions_go_on_beside_pushes_and_lookups(
    online: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Changed views are rolled out, old ones freed, logs sealed; every answer is true, and nothing freed comes back."""
    configure(tmp_path, "lmdb://online" if online == "lmdb" else request.getfixturevalue("redis_url"))
    world, stop, failed = world_of(SPECS), threading.Event(), []
    with FeatureStore(tmp_path) as store:
        store.apply(world.declare())
        store.materialize(progress=False)

        def push(who: int) -> None:
            chosen, number = random.Random(who), 0
            while not stop.wait(0.002):
                number += 1
                try:
                    store.push("rows", rows_of(who, number, datetime.now(UTC), chosen), json=True)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told below
                    failed.append(error)
                    return

        looker = Looker(store)
        threads = [looker, *(threading.Thread(target=push, args=(who,)) for who in range(3))]
        for thread in threads:
            thread.start()
        log = store.offline.log(store.lookup("view").service.parts[0].view.source)  # type: ignore[arg-type]  # a push source, by its name
        for n in range(1, 4):
            changed = replace(world, specs=[*SPECS, *(FoldSpec("First", "value_0", window=k) for k in range(1, n + 1))])
            store.apply(changed.declare())
            store.materialize(progress=False)
            store.reload()
            log.compact(everything=True, grace=0)
            store.materialize(full=True, progress=False)
        until(lambda: log.read().num_rows > 50 or bool(failed))
        stop.set()
        looker.stop.set()
        for thread in threads:
            thread.join()
        assert failed + looker.errors == []
        looker.look()
        check(world, store, sorted(looker.answers, key=lambda answer: answer[0]))
        keys = [key for batch in store.online.scan(store.config.project.encode() + b":") for key in batch]
        assert [key for key in keys if not key.startswith(tuple(prefixes(store, world)))] == []
        store.teardown()

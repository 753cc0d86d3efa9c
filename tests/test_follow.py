"""Following: what becomes due is materialized, by one of several processes, whatever fails or dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.errors import NotFoundError, OnlineUnavailableError
from featurestore.materialize import follow, kernel, lease_renewer
from featurestore.materialize.kernel import RecordWriting, SlotWriter
from featurestore.materialize.leader import Leader, leader_key
from featurestore.materialize.lease import LEASE_US, LeaseTakenError
from featurestore.online import Guard, Reading, open_online
from featurestore.types import Int64
from tests.test_killed import KEYS, NOON, write

DEADLINE_SECONDS = 600.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that follow each other quickly."""
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(follow, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(lease_renewer, "RENEW_SECONDS", 0.01)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[FeatureStore]:
    (tmp_path / "featurestore.toml").write_text('project = "followed"\ndefinitions = []\n')
    write(tmp_path / "a.parquet", NOON - timedelta(hours=2), 1)
    with FeatureStore(tmp_path, clock=clock) as opened:
        yield opened


def view(name: str, file: str = "a.parquet", refresh: str = "1h") -> FeatureView:
    source = ParquetSource(f"rows_of_{name}", file, event_time="at")
    return FeatureView(name, entity=Entity("thing", key={"id": Int64}), source=source, features=["x"], refresh=refresh)


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def following(store: FeatureStore, **words: Any) -> Iterator[threading.Event]:
    """A thread that follows, until the end or until its event is set."""
    stop, failed = threading.Event(), []

    def run() -> None:
        try:
            store.follow(stop, **words)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
    assert failed == []


def is_fresh(store: FeatureStore, name: str) -> bool:
    return any(one.view == name and one.state == "fresh" for one in store.status())


def test_what_becomes_due_is_materialized(store: FeatureStore, clock: ManualClock, tmp_path: Path) -> None:
    """What is applied when it begins and what is applied later, each instant, and what is due again since the online store
    was emptied; views without a schedule every now and then. When each last ran, and who follows, is told."""
    store.apply([FeatureService("service", features=[view("first")])])
    with following(store, every="1s"):
        until(lambda: is_fresh(store, "first"))
        assert store.leader() == f"process {os.getpid()} on {os.uname().nodename}"
        write(tmp_path / "b.parquet", NOON - timedelta(hours=2), 3)
        store.apply([view("second", "b.parquet"), view("third", refresh="continuous")])
        until(lambda: is_fresh(store, "second") and is_fresh(store, "third"))
        clock.advance(timedelta(hours=3))
        until(lambda: is_fresh(store, "first") and is_fresh(store, "second") and is_fresh(store, "third"))
        for keys in store.online.scan(b"followed:"):
            store.online.write(dict.fromkeys(key for key in keys if key != leader_key("followed")))
        until(lambda: is_fresh(store, "second"))
        until(lambda: all(one.last_run == round(clock().timestamp() * 1e6) for one in store.status()))
    assert store.leader() is None
    assert store.get_online_features([{"id": 7}], ["second:x"]).to_dict()["second__x"] == [3]


def test_only_the_views_that_are_named(store: FeatureStore) -> None:
    """Who follows some has a leader beside those that follow others; a name that nobody applied is an error at once."""
    store.apply([FeatureService("service", features=[view("first"), view("second")])])
    with following(store, views=["first"]), following(store, views=["second"]):
        until(lambda: is_fresh(store, "first") and is_fresh(store, "second"))
    with pytest.raises(NotFoundError, match="Did you mean 'second'"):
        store.follow(threading.Event(), views=["secnd"])


def test_a_view_that_fails_stops_no_other(
    store: FeatureStore, clock: ManualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again, after longer and longer pauses, and is well when its source is; that it failed is logged, and in the
    trail of activity. So is what no error of the product tells."""
    write(tmp_path / "b.parquet", NOON - timedelta(hours=2), 2)
    store.apply([FeatureService("service", features=[view("bad", "b.parquet"), view("good")])])
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(b"no Parquet")
    with following(store):
        until(lambda: is_fresh(store, "good"))
        until(lambda: len(store.activity(what="fail to materialize")) >= 3)
        assert not is_fresh(store, "bad")
        (tmp_path / "b.parquet").write_bytes(whole)
        until(lambda: is_fresh(store, "bad"))
    newest, *_ = failures = store.activity(what="fail to materialize")
    assert {one.subject for one in failures} == {"bad"}
    assert newest.detail["failures"] == len(failures)
    assert newest.detail["error"] == "SourceError"  # whatever the error quotes would be kept for ever
    told = [line for line in caplog.messages if "is tried again in" in line]
    assert [line.split(" is tried")[0] for line in told] == ["FeatureView 'bad'"] * len(failures)
    assert all("SourceError: " in line and "b.parquet" in line for line in told)
    assert [line.split()[6] for line in told[:3]] == ["0.01", "0.02", "0.04"]


def test_what_nobody_foresaw_stops_nothing(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.apply([FeatureService("service", features=[view("first"), view("second")])])
    real, met = RecordWriting.write, list[str]()

    def failing(context: Any, *args: Any, **words: Any) -> Any:
        if context.slots.view.name == "first" and not met:
            met.append(context.slots.view.name)
            raise ZeroDivisionError
        return real(context, *args, **words)

    monkeypatch.setattr(RecordWriting, "write", failing)
    with following(store):
        until(lambda: is_fresh(store, "first") and is_fresh(store, "second"))
    assert [one.detail["error"] for one in store.activity(what="fail to materialize")] == ["ZeroDivisionError"]


def test_it_stops_after_the_batch_that_runs(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the broken run is served, nobody waits for its lease, and the next one completes its work."""
    store.apply([FeatureService("service", features=[view("first")])])
    real, writes = SlotWriter.write, []

    def stopping(*args: Any) -> int:
        writes.append(args)
        if len(writes) == 20:
            stop.set()
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(kernel, "EMBEDDED_BATCH_KEYS", 10)
        patch.setattr(SlotWriter, "write", stopping)
        with following(store) as stop:
            until(stop.is_set)
    assert 20 <= len(writes) <= 22 < KEYS / 10
    assert store.status()[0].complete == ()
    assert store.activity(what="fail to materialize") == []
    assert [run.keys for run in store.materialize(progress=False)] == [KEYS]


def test_another_machine_takes_over_when_the_lease_has_run_out(store: FeatureStore, clock: ManualClock) -> None:
    """Not before; whether the leader on the other one lives is not known."""
    store.apply([FeatureService("service", features=[view("first")])])
    until_us = round(NOON.timestamp() * 1e6) + LEASE_US
    held = {"token": "t", "turn": "u", "host": "elsewhere", "pid": 1, "until": until_us}
    store.online.write({leader_key("followed"): orjson.dumps(held)})
    looks = []
    with pytest.MonkeyPatch.context() as patch, following(store):
        patch.setattr(follow.Follower, "_lead", lambda self, real=follow.Follower._lead: (looks.append(1), real(self)))
        until(lambda: len(looks) > 5)
        assert store.leader() == "process 1 on elsewhere"
        clock.advance(timedelta(microseconds=LEASE_US))
        until(lambda: is_fresh(store, "first"))


def test_a_container_of_the_same_name_is_another_machine(store: FeatureStore) -> None:
    """On the host's network two containers have one name, and each a process of this number: neither takes the other for dead."""
    ends = round(NOON.timestamp() * 1e6) + LEASE_US
    mine = {"token": "t", "turn": "u", "host": os.uname().nodename, "pid": os.getpid(), "until": ends}
    store.online.write({b"lead": orjson.dumps({**mine, "space": "pid:[1]"})})
    with pytest.raises(LeaseTakenError):
        Leader(store.online, b"lead")
    store.online.write(
        {b"lead": orjson.dumps(mine)}
    )  # of an earlier version, and of a run of this process that is over
    Leader(store.online, b"lead").leave()


def test_who_lost_the_lead_stops(store: FeatureStore, caplog: pytest.LogCaptureFixture) -> None:
    """A leader that stood still for longer than a lease finds that another leads; it waits for its turn, as all do."""
    caplog.set_level("INFO", "featurestore")  # before anything is said: each line is said once
    with following(store):
        until(store.leader)
        held = orjson.loads(store.online.get([leader_key("followed")]).values[0] or b"")
        mine = orjson.dumps({**held, "token": "t", "host": "elsewhere"})
        until(
            lambda: (
                store.online.write({leader_key("followed"): mine})
                and store.leader() == f"process {os.getpid()} on elsewhere"
            )
        )
        until(lambda: any("Waiting: process" in line for line in caplog.messages))
        assert any("Another process has taken over" in line for line in caplog.messages)
    assert store.leader() == f"process {os.getpid()} on elsewhere"


class Forgetful:
    """An online store whose answers to some writes are lost after they were applied."""

    blocking = False

    def __init__(self, url: str) -> None:
        self.store = open_online(url)
        self.lose = 0

    def get(self, keys: Any) -> Reading:
        return self.store.get(keys)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        done = self.store.write(puts, guard=guard)
        if self.lose:
            self.lose -= 1
            raise OnlineUnavailableError("The batch may or may not have been applied")
        return done


def test_a_renewal_whose_answer_was_lost_costs_no_lead(tmp_path: Path) -> None:
    """It is known again by its token; and what was given up with an error is nobody's, whatever the store still says."""
    store: Any = Forgetful(f"lmdb://{tmp_path}/online")
    leads = Leader(store, b"lead")
    with pytest.raises(LeaseTakenError):
        Leader(store, b"lead")
    store.lose = 3
    until(lambda: store.lose == 0)
    held = store.get([b"lead"]).values
    until(lambda: store.get([b"lead"]).values != held)
    assert not leads.is_lost
    store.lose = 10**9
    leads.leave()
    store.lose = 0
    Leader(store, b"lead").leave()
    store.store.close()


FOLLOW = [sys.executable, "-m", "featurestore", "materialize", "--follow"]


def follower(repo: Path) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([*FOLLOW, "--repo", str(repo)], stderr=subprocess.PIPE, text=True, env=environ)


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(lines)


def test_a_leader_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """kill -9 on real processes: the one that waited goes on with what is due; SIGTERM ends it with 0 and gives up the lead."""
    (tmp_path / "featurestore.toml").write_text('project = "followed"\ndefinitions = []\n')
    write(tmp_path / "a.parquet", NOON, 1)
    with FeatureStore(tmp_path) as store:
        store.apply([FeatureService("service", features=[view("first", refresh="1s")])])
        first = follower(tmp_path)
        try:
            read_until(first, "first as of")
            second = follower(tmp_path)
            read_until(second, f"Waiting: process {first.pid} on ")
            first.kill()
            first.wait()
            read_until(second, "This process materializes")
            read_until(second, "first as of")
            assert store.leader() == f"process {second.pid} on {os.uname().nodename}"
            assert store.get_online_features([{"id": 7}], "service").to_dict()["first__x"] == [1]
            second.send_signal(signal.SIGTERM)
            assert second.stderr is not None
            assert "Traceback" not in second.stderr.read()
            assert second.wait() == 0
        finally:
            for process in (first, second):
                process.kill()
                process.wait()
                assert process.stderr is not None
                process.stderr.close()
        assert store.leader() is None
        assert store.verify().ok


def test_it_logs_json_lines_where_the_settings_say_so(tmp_path: Path) -> None:
    """Each line of stderr is an object, of what is done and of what fails."""
    (tmp_path / "featurestore.toml").write_text(
        'project = "followed"\ndefinitions = []\n[server]\nlog_format = "json"\n'
    )
    write(tmp_path / "a.parquet", NOON, 1)
    write(tmp_path / "b.parquet", NOON, 1)
    with FeatureStore(tmp_path) as store:
        both = [view("first", refresh="1s"), view("second", refresh="1s", file="b.parquet")]
        store.apply([FeatureService("service", features=both)])
    (tmp_path / "b.parquet").unlink()
    process = follower(tmp_path)
    try:
        lines = [*read_until(process, "is tried again"), *read_until(process, "first as of")]
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        lines += process.stderr
        assert process.wait() == 0
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    told = [orjson.loads(line) for line in lines]
    assert {frozenset(one) - {"error"} for one in told} == {frozenset({"time", "level", "logger", "message"})}
    assert {(one["logger"], one["level"]) for one in told} >= {
        ("featurestore.follow", "info"),
        ("featurestore.follow", "warning"),
    }

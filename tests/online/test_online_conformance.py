"""What every online store promises, asked of each of them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import featurestore
from featurestore.clock import ManualClock, instant_of, wall_clock
from featurestore.errors import OnlineStoreError
from featurestore.online import Guard, OnlineStore, open_online
from featurestore.online.value_checksums import BLOCK_KEYS, READ_BACK_KEYS
from tests.online.conftest import opened
from tests.servers import patient

ROOT = Path(featurestore.__file__).parents[1]
WRITER = Path(__file__).with_name("online_writer.py")

AWKWARD = [b"", b"\x00", b"\xff", b"\xff\xff", b"*", b"?", b"[ab]", b"\\", b"\r\n", b"a" * 511, b"a" * 512, b"a" * 2000]
STEMS = st.sampled_from([b"", b"a", b"a" * 478, b"a" * 479, b"a" * 480, b"a" * 510, b"*", b"\xff" * 600])
KEYS = st.one_of(st.sampled_from(AWKWARD), st.builds(bytes.__add__, STEMS, st.binary(max_size=3)))
VALUES = st.one_of(st.binary(max_size=20), st.just(b"v" * 5000))
BATCHES = st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=8)
STEPS = st.lists(st.tuples(BATCHES, st.sampled_from(["free", "holds", "fails"]), KEYS), min_size=1, max_size=5)


def start_writer(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WRITER), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT), "PATH": ""})


def all_keys(store: OnlineStore, prefix: bytes) -> set[bytes]:
    return {key for batch in store.scan(prefix) for key in batch}


def empty(store: OnlineStore) -> None:
    for batch in list(store.scan(b"")):
        store.write(dict.fromkeys(batch))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, prefix=KEYS)
def test_a_store_is_a_dict(store: OnlineStore, steps: list[tuple[dict, str, bytes]], prefix: bytes) -> None:
    """After any guarded and free batches, get and scan say what a dict would."""
    empty(store)
    model: dict[bytes, bytes] = {}
    for batch, manner, guarded in steps:
        held = model.get(guarded)
        guard = {"free": None, "holds": Guard(guarded, held), "fails": Guard(guarded, (held or b"") + b"!")}[manner]
        assert store.write(batch, guard=guard) is (manner != "fails")
        if manner != "fails":
            model.update(batch)
            model = {key: value for key, value in model.items() if value is not None}
        asked = [*batch, guarded, *AWKWARD, guarded]
        assert store.get(asked).values == [model.get(key) for key in asked]
    for start in (prefix, b""):
        assert all_keys(store, start) == {key for key in model if key.startswith(start)}


def test_nothing_asked_nothing_answered(store: OnlineStore) -> None:
    """An empty get, an empty write and a scan of an empty store are fine."""
    assert store.get([]).values == []
    assert store.write({}) is True
    assert store.write({}, guard=Guard(b"k", None)) is True
    assert store.write({}, guard=Guard(b"k", b"")) is False
    assert list(store.scan(b"")) == []


def test_values_come_in_the_order_of_the_keys(store: OnlineStore) -> None:
    """A key asked twice is answered twice, absent keys are None, and an empty value is a value."""
    store.write({b"a": b"1", b"b": b"", b"c" * 900: b"3"})
    assert store.get([b"b", b"x", b"c" * 900, b"a", b"b", b"c" * 901]).values == [b"", None, b"3", b"1", b"", None]


def test_a_batch_that_is_read_back_is_told_as_it_is_stored(url: str) -> None:
    """Whole or in part, in any order, once or twice, with a guard or without; and what somebody wrote meanwhile is told, and not what this
    store wrote."""
    count = max(READ_BACK_KEYS, 2 * BLOCK_KEYS + 3)
    batch: dict[bytes, bytes | None] = {b"%05d" % number: b"value %d" % number for number in range(count)}
    keys = list(batch)
    with closing(opened(url)) as store, closing(opened(url)) as other:
        for asked in (keys, keys[7:20], keys[::-1], keys[1:], keys[:-1], [*keys[3:5], b"absent"], [b"absent"], []):
            for guard in (None, Guard(b"0", None), Guard(b"0", None)):
                assert store.write(batch if guard is None else {**batch, b"0": b"held"}, guard=guard)
                for _ in range(2):
                    assert store.get(asked).values == [batch.get(key) for key in asked]
                assert store.get([b"0"]).values == [None if guard is None else b"held"]
                store.write({b"0": None})
        for place, value in ((5, b"another's"), (BLOCK_KEYS + 8, None), (count - 1, b""), (BLOCK_KEYS, b"value 1")):
            store.write(batch)
            other.write({keys[place]: value})
            assert store.get(keys).values == [value if key == keys[place] else batch[key] for key in keys]


def test_long_keys_that_share_511_bytes_are_different_keys(store: OnlineStore) -> None:
    """A key of 2,000 bytes is told from its neighbours by its last byte."""
    keys = [b"k" * 1999 + bytes([last]) for last in range(20)]
    store.write({key: key[-1:] for key in keys})
    assert store.get(keys).values == [key[-1:] for key in keys]
    store.write({keys[3]: None})
    assert store.get(keys[2:5]).values == [b"\x02", None, b"\x04"]
    assert all_keys(store, keys[0][:1999]) == set(keys) - {keys[3]}


@pytest.mark.parametrize(
    ("held", "guard", "written"),
    [
        (None, Guard(b"g", None), True),
        (None, Guard(b"g", b""), False),
        (b"", Guard(b"g", None), False),
        (b"", Guard(b"g", b""), True),
        (b"1", Guard(b"g", b"1"), True),
        (b"1", Guard(b"g", b"2"), False),
        (b"1", Guard(b"g", None), False),
        (b"1", Guard(b"g" * 700, None), True),
    ],
)
def test_a_guard_decides_on_the_whole_batch(
    store: OnlineStore, held: bytes | None, guard: Guard, written: bool
) -> None:
    """Puts and deletes happen exactly where the guard holds, the guard key's own new value included."""
    store.write({b"g": held, b"old": b"there"})
    assert store.write({b"g": b"new", b"old": None, b"put": b"x"}, guard=guard) is written
    expected = [b"new", None, b"x"] if written else [held, b"there", None]
    assert store.get([b"g", b"old", b"put"]).values == expected


def test_scan_takes_a_prefix_literally(store: OnlineStore) -> None:
    """Characters that mean something in a pattern mean themselves in a prefix."""
    stems = [b"*", b"?", b"[a]", b"[^a]", b"\\", b"\\*", b"a", b"^", b"\xff", b"\xff\xff", b"\n", b"a]"]
    keys = {stem + end for stem in stems for end in (b"", b"x", b"*")}
    store.write(dict.fromkeys(keys, b"v"))
    for stem in stems:
        assert all_keys(store, stem) == {key for key in keys if key.startswith(stem)}, stem
    assert all_keys(store, b"absent") == set()


def test_ten_thousand_keys_in_one_batch(store: OnlineStore) -> None:
    """A big batch is put, read, scanned and deleted as a whole."""
    batch = {b"big:%05d" % index: b"%d" % index * 20 for index in range(10_000)}
    assert store.write(batch, guard=Guard(b"big", None)) is True
    assert store.get(list(batch)).values == list(batch.values())
    assert all_keys(store, b"big:") == set(batch)
    assert store.write(dict.fromkeys(batch)) is True
    assert all_keys(store, b"big:") == set()


def test_many_more_keys_than_one_command_takes(store: OnlineStore) -> None:
    """A batch beyond any chunk inside the store is still one batch."""
    batch: dict[bytes, bytes | None] = {b"%d" % index: b"" for index in range(120_000)}
    assert store.write(batch) is True
    assert store.get(list(batch)).values == [b""] * len(batch)
    assert len(all_keys(store, b"")) == len(batch)


def test_the_clock_is_the_stores_own(store: OnlineStore) -> None:
    """Without an injected clock, `now` is the time of day in microseconds."""
    assert abs(store.get([b"a"]).now - wall_clock()) < 60_000_000


def test_an_injected_clock_stands_for_the_stores(url: str) -> None:
    """`now` is the injected clock's instant, and moves with it."""
    clock = ManualClock(datetime(2001, 2, 3, tzinfo=UTC))
    store = open_online(patient(url), clock=clock)
    store.write({b"a": b"1"})
    assert store.get([b"a"]) == (instant_of(datetime(2001, 2, 3, tzinfo=UTC)), [b"1"])
    clock.advance(timedelta(seconds=5))
    assert store.get([]) == (instant_of(datetime(2001, 2, 3, 0, 0, 5, tzinfo=UTC)), [])
    store.close()


def test_a_closed_store_refuses(store: OnlineStore, another: Callable[[], OnlineStore]) -> None:
    """Closing twice is fine, using a closed store is an error, and other handles go on."""
    other = another()
    store.write({b"a": b"1"})
    store.close()
    store.close()
    for use in (lambda: store.get([b"a"]), lambda: store.write({}), lambda: list(store.scan(b""))):
        with pytest.raises(OnlineStoreError, match="was closed"):
            use()
    assert other.get([b"a"]).values == [b"1"]
    other.close()


def test_handles_see_each_others_writes(store: OnlineStore, another: Callable[[], OnlineStore]) -> None:
    """Two handles on one store in one process are the same store."""
    other = another()
    store.write({b"a": b"1"})
    assert other.get([b"a"]).values == [b"1"]
    assert other.write({b"a": b"2"}, guard=Guard(b"a", b"1"))
    assert store.get([b"a"]).values == [b"2"]


def test_readers_never_see_a_part_of_a_batch(store: OnlineStore) -> None:
    """While threads overwrite the same keys with stamps of their own, every read sees one stamp."""
    keys = [b"k%03d" % index for index in range(200)]
    stop = threading.Event()

    def write(writer: int) -> None:
        turn = 0
        while not stop.is_set():
            store.write(dict.fromkeys(keys, b"%d-%d" % (writer, turn)))
            turn += 1

    store.write(dict.fromkeys(keys, b"first"))
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write, writer) for writer in range(3)]
        try:
            seen = {frozenset(store.get(keys).values) for _ in range(150)}
        finally:
            stop.set()
        for done in writers:
            done.result()
    assert all(len(values) == 1 for values in seen)


def test_guarded_writers_lose_no_update(store: OnlineStore) -> None:
    """Threads that add 1 under a guard reach the sum of what they added."""
    store.write({b"counter": b"0"})

    def add() -> None:
        for _ in range(30):
            while True:
                held = store.get([b"counter"]).values[0]
                following = b"%d" % (int(held) + 1)
                if store.write({b"counter": following, b"copy": following}, guard=Guard(b"counter", held)):
                    break

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(add) for _ in range(4)]:
            done.result()
    assert store.get([b"counter", b"copy"]).values == [b"120", b"120"]


def test_processes_lose_no_update(store: OnlineStore, url: str, prefix_of_all: str) -> None:
    """The same between processes, while this one reads: counter and copy are always equal."""
    store.write({b"p:counter": b"0", b"p:copy": b"0"})
    processes = [start_writer("count", patient(url), f"{prefix_of_all}p:", 60) for _ in range(2)]
    while any(process.poll() is None for process in processes):
        counter, copy = store.get([b"p:counter", b"p:copy"]).values
        assert counter == copy
        time.sleep(0.001)
    for process in processes:
        assert process.communicate() == (b"", None)
        assert process.returncode == 0
    assert store.get([b"p:counter", b"p:copy"]).values == [b"120", b"120"]


def test_a_killed_writer_leaves_whole_batches(store: OnlineStore, url: str, prefix_of_all: str) -> None:
    """Whenever a writing process is killed, all keys bear one stamp, and others can write on."""
    keys = [b"s:%06d" % index for index in range(5000)]
    for turn, delay in enumerate((0.0, 0.013, 0.031)):
        process = start_writer("stamp", patient(url), f"{prefix_of_all}s:", len(keys), f"w{turn}")
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.kill()
        process.communicate()
        values = set(store.get(keys).values)
        assert len(values) == 1
        assert str(values).startswith(f"{{b'w{turn}-")
        assert store.write({keys[0]: b"after"}) is True

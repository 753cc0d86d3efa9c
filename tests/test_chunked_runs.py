"""A run in chunks of its keys leaves the bytes of a run in one, and goes on where one that was killed ended."""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, Latest, ParquetSource, Sum
from featurestore.clock import ManualClock, instant_of, to_datetime
from featurestore.errors import OnlineDamagedError
from featurestore.materialize import materialize
from featurestore.materialize.done_chunks import DoneChunks, noted
from featurestore.materialize.materialize import Run, ThisProcess, materialize_view
from featurestore.materialize.progress import Progress
from featurestore.online import Guard, OnlineStore, open_online, value_checksums
from featurestore.online.value_checksums import sealed
from featurestore.online.view_codec import ViewCodec, project_prefix
from featurestore.registry.kept_statistics import GatheredFeatures, Gathering
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.types import FeatureType, Int64
from tests.draws import draws
from tests.histories import History, clocks, histories, to_arrow, write_parquet
from tests.test_online import Dying, Killed
from tests.world import declare, resolved

QUIET = Progress(shown=False)
PROJECTS = (f"c{n}" for n in itertools.count())
MANY = 1 << 20


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    """Two keys a batch, so that a run can die between any two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurestore.materialize.kernel.BATCH_KEYS", 2)
        patch.setattr("featurestore.materialize.kernel.EMBEDDED_BATCH_KEYS", 2)
        yield


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def online_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The two stores; every example uses projects of its own in them."""
    if request.param == "redis":
        yield request.getfixturevalue("redis_url")
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"lmdb://{folder}/online"


class Event(NamedTuple):
    """What happens at an instant (µs): a run, full or not; before it others of the same kind, each of which dies before one of its
    writes."""

    at: int
    full: bool
    deaths: tuple[int, ...]


class Made(NamedTuple):
    """What a run says of itself, but how long it took, and what the values of its keys are like."""

    run: Run
    statistics: list[Any]


def gathering(features: Mapping[str, tuple[str, FeatureType]]) -> Gathering:
    """Gathers what values are like, and fails where that cannot be done."""

    def failed(error: Exception) -> None:
        raise AssertionError("nothing is gathered") from error

    return Gathering(features, failed)


def statistics(told: GatheredFeatures | None) -> list[Any]:
    """All of it but what doubles are summed to, which the order of the rows decides; as text, since NaN is no NaN's equal."""
    assert told is not None
    rows, features = told
    return [rows, *(re.sub("(mean|deviation)=[^,)]*", "", repr(feature)) for feature in features)]


class Online(NamedTuple):
    """A view in a project of its own in a store."""

    view: ResolvedView
    offline: Offline
    store: OnlineStore
    project: str

    def run(self, *, full: bool, chunk_keys: int, dies_before: int | None = None) -> list[Made]:
        """Materialize; where it dies, its lease is nobody's."""
        store: Any = self.store if dies_before is None else Dying(self.store, dies_before)
        here = ThisProcess(self.offline, store, QUIET, gather=gathering, chunk_keys=chunk_keys)
        try:
            due = materialize_view(
                self.view, self.offline, store, project=self.project, progress=QUIET, full=full, engine=here
            )
            runs = list(due)
        except Killed:
            self.store.write({ViewCodec(self.project, self.view).lease_key: None})  # its process is gone
            return []
        return [Made(replace(run, seconds=0.0), statistics(here.gathered[run.instant])) for run in runs]

    def bytes(self) -> dict[bytes, bytes | None]:
        """All that is online, without the project's name."""
        prefix = project_prefix(self.project)
        keys = {key for keys in self.store.scan(prefix) for key in keys}
        return dict(zip((key.removeprefix(prefix) for key in keys), self.store.get(list(keys)).values, strict=True))


@st.composite
def stories(draw: st.DrawFn) -> tuple[History, int, list[Event]]:
    """A history, in how many chunks runs are to be, and what happens."""
    history = draw(histories(max_questions=4, bare=draw(st.booleans())))
    deaths = st.lists(st.integers(0, 9), max_size=3).map(tuple)
    events = [Event(at, draw(st.booleans()), draw(deaths)) for at in draw(clocks(history, most=4))]
    return history, draw(st.sampled_from((1, 2, 7))), events


@settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(story=stories())
def test_chunks_and_deaths_leave_no_trace(online_url: str, story: tuple[History, int, list[Event]]) -> None:
    """Killed before any write and run again, in 1, 2 or 7 chunks: each byte online, and what each run says of itself, is that of runs
    that nobody kills, of one chunk."""
    history, chunks, events = story
    with tempfile.TemporaryDirectory() as folder:
        clock, offline = ManualClock(to_datetime(events[0].at)), Offline(Path(folder))
        store = open_online(online_url, clock=clock)
        try:
            view = (
                resolved(
                    declare(history, paths=write_parquet(to_arrow(history.rows, history.types), Path(folder))), offline
                )
                .parts[0]
                .view
            )
            plain, chunked = (Online(view, offline, store, next(PROJECTS)) for _ in range(2))
            for event in events:
                clock.set(to_datetime(event.at))
                expected = plain.run(full=event.full, chunk_keys=MANY)
                chunk_keys = max(1, -(-max((made.run.keys for made in expected), default=1) // chunks))
                # A full run over several instants, of which one is published, is begun anew where it is killed.
                is_one = (
                    not event.full
                    or len({made.run.again for made in expected}) == 1
                    and (len(expected) == 1 or expected[0].run.again)
                )
                found: list[Made] = []
                for writes in (*(event.deaths if is_one else ()), None):
                    found = chunked.run(full=event.full, chunk_keys=chunk_keys, dies_before=writes)
                    if found:
                        break
                assert chunked.bytes() == plain.bytes()
                assert found == expected[len(expected) - len(found) :]
                assert bool(found) == bool(expected)
        finally:
            store.close()
            offline.close()


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = 300
VICTIM = """
import os, signal, sys
from datetime import datetime
from featurestore import FeatureStore
from featurestore.errors import OnlineDamagedError
from featurestore.materialize import materialize
from featurestore.materialize.done_chunks import DoneChunks
packed, left = DoneChunks.packed, [int(sys.argv[3])]
def dying(note):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return packed(note)
DoneChunks.packed = dying
FeatureStore(sys.argv[1], clock=lambda: datetime.fromisoformat(sys.argv[2])).materialize(progress=False)
"""


class Shop:
    """A project over a folder of files, whose runs have three chunks, with a view of two files' rows that is filled as of noon."""

    def __init__(self, folder: Path, online: str) -> None:
        self.folder, self.clock = folder, ManualClock(NOON)
        (folder / "featurestore.toml").write_text(
            f'project = "{folder.name}"\nonline = "{online}"\ndefinitions = []\n[materialize]\nchunk_keys = {KEYS // 3}\n'
            "[serving_log]\nrate = 1\n"
        )
        (folder / "data").mkdir()
        self.write("a", NOON - timedelta(hours=2), 1)
        self.store = FeatureStore(folder, clock=self.clock)
        source = ParquetSource("rows", "data", event_time="at")
        thing = Entity("thing", key={"id": Int64})
        features = {"x": Latest("x"), "total": Sum("x", window="1d")}
        self.view = FeatureView("facts", entity=thing, source=source, features=features, refresh="1h")
        self.store.apply([FeatureService("service", features=[self.view])])

    def write(self, name: str, at: datetime, value: int, keys: int = KEYS) -> None:
        rows = {"id": range(keys), "at": pa.array([at] * keys, pa.timestamp("us", "UTC")), "x": [value] * keys}
        pq.write_table(pa.table(rows), self.folder / "data" / f"{name}.parquet")

    @property
    def codec(self) -> ViewCodec:
        return ViewCodec(self.store.config.project, self.store._project.view("facts"))

    def served(self) -> set[tuple[Any, Any]]:
        """The values that keys have, both features together."""
        found = self.store.get_online_features([{"id": number} for number in range(KEYS)], "service").to_dict()
        return set(zip(found["facts__x"], found["facts__total"], strict=True))

    def done(self) -> list[int]:
        """The numbers of the chunks that are noted as done."""
        note = noted(self.store.online.get([self.codec.chunks_key]).values[0])
        return [] if note is None else sorted(number for chunks in note.done.values() for number in chunks)

    def key_in_first_chunk(self, chunks: int = 3) -> bytes:
        """The store key of a record that is in chunk 0, of so many."""
        table = pa.table({"key": pa.array(map(self.codec.key, zip(range(KEYS))), pa.binary())})
        hashed = duckdb.from_arrow(table).project(f"key, hash(key) % {chunks} AS chunk")
        return next(key for key, chunk in hashed.fetchall() if chunk == 0)

    def fail_after(self, chunks: int, patch: pytest.MonkeyPatch) -> None:
        """Materialize; it fails when one chunk more is to be noted as done."""
        packed, notes = DoneChunks.packed, itertools.count()

        def failing(note: DoneChunks) -> bytes:
            if next(notes) > chunks:
                raise Killed
            return packed(note)

        patch.setattr(DoneChunks, "packed", failing)
        with pytest.raises(Killed):
            self.store.materialize(progress=False)

    def written(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Materialize; the keys whose records were written, in order."""
        keys: list[int] = []
        store = self.store.online
        with monkeypatch.context() as patch:
            write = store.write

            def watched(puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
                keys.extend(self.codec.values_of(key)[0] for key in puts if key.startswith(self.codec.record_prefix))
                return write(puts, guard=guard)

            patch.setattr(store, "write", watched)
            self.store.materialize(progress=False)
        return sorted(keys)


@pytest.fixture(params=["lmdb", "redis"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    url = "lmdb://online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    made = Shop(tmp_path, url)
    with made.store:
        yield made


def test_processes_that_are_killed_are_gone_on_with(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL after a chunk, and again after the next: each process does what is left, lookups see nothing of it, and the last one
    switches all keys at once. What is online then is what offline data say."""
    assert shop.written(monkeypatch) == list(range(KEYS))
    shop.write("b", NOON + timedelta(minutes=30), 2)
    shop.clock.advance(timedelta(hours=1))
    for notes, left in ((3, [0]), (2, [0, 1])):  # the first process notes that nothing is done
        said = subprocess.run(
            [sys.executable, "-c", VICTIM, str(shop.folder), shop.clock().isoformat(), str(notes)],
            capture_output=True,
            check=False,
        )
        assert said.returncode == -signal.SIGKILL, said
        assert shop.done() == left
        assert shop.served() == {(1, 1)}
    rest = shop.written(monkeypatch)
    assert KEYS // 6 < len(rest) < KEYS // 2
    assert (shop.served(), shop.done()) == ({(2, 3)}, [])
    assert shop.store.verify().ok
    (last, _) = shop.store.registry.runs()[:2]
    assert (last.keys, last.rows) == (KEYS, KEYS)
    told = shop.store.statistics(view="facts", limit=1).found[0]
    numbers = told.feature("facts:total").column.numbers
    assert numbers is not None
    assert (told.rows, numbers.values, numbers.least, numbers.greatest) == (KEYS, KEYS, 3, 3)


@pytest.mark.parametrize("shop", ["lmdb"], indirect=True)
@pytest.mark.parametrize(
    ("meanwhile", "is_first"),
    [
        ("nothing", True),
        ("nothing", False),
        ("a file is written anew", False),
        ("a file comes", True),
        ("a key is forgotten", True),
        ("a record is lost", True),
        ("a record is lost", False),
        ("time goes on", False),
    ],
)
def test_only_the_same_run_is_gone_on_with(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, meanwhile: str, is_first: bool
) -> None:
    """Where anything changed that the run is made of, or a record is not there any more, chunks that were done are written again."""
    if not is_first:
        shop.store.materialize(progress=False)
        shop.write("b", NOON + timedelta(minutes=30), 2)
        shop.clock.advance(timedelta(hours=1))
    with monkeypatch.context() as patch:
        shop.fail_after(1, patch)
    assert shop.done() == [0]
    keys = list(range(KEYS))
    at = shop.clock() - timedelta(minutes=20)
    if meanwhile == "a file is written anew":
        shop.write("b", at, 3)
    elif meanwhile == "a file comes":
        shop.write("c", at, 3)
    elif meanwhile == "a key is forgotten":
        shop.store.forget("thing", {"id": 7})
        keys.remove(7)
    elif meanwhile == "a record is lost":
        shop.store.online.write({shop.key_in_first_chunk(): None})
    elif meanwhile == "time goes on":
        shop.clock.advance(timedelta(hours=1))
    is_told = meanwhile == "a record is lost" and not is_first
    with pytest.warns(UserWarning, match="of the 300 records that were written") if is_told else nullcontext():
        rest = shop.written(monkeypatch)
    assert KEYS // 2 < len(rest) < KEYS - KEYS // 6 if meanwhile == "nothing" else rest == keys
    assert shop.store.verify().ok
    assert shop.done() == []


@pytest.mark.parametrize("shop", ["lmdb"], indirect=True)
def test_records_that_were_added_hide_none_that_are_lost(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that was written, and not noted, has more records than one that is done lost: that is noticed, and told."""
    monkeypatch.setattr("featurestore.materialize.kernel.EMBEDDED_BATCH_KEYS", 100)
    shop.store.materialize(progress=False)
    shop.write("b", NOON + timedelta(minutes=30), 2, keys=2 * KEYS)
    shop.clock.advance(timedelta(hours=1))
    with monkeypatch.context() as patch:
        shop.fail_after(1, patch)
    assert shop.done() == [0]
    shop.store.online.write({shop.key_in_first_chunk(chunks=6): None})
    with pytest.warns(UserWarning, match=r"has \d+ of the \d+ records that were written"):
        assert shop.written(monkeypatch) == list(range(2 * KEYS))
    assert shop.store.verify().ok


@pytest.mark.parametrize("shop", ["lmdb"], indirect=True)
def test_a_chunk_that_is_written_again_is_done_for_no_later_instant(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full run of two instants, of which a chunk was done for both, lost a record, and died once more before the chunk was done again: slots of
    the second instant were overwritten, and are made anew."""
    view = FeatureView(
        "facts", entity=shop.view.entity, source=shop.view.source, features={"x": Latest("x"), "total": Sum("x", window="1d")},
        refresh="1h", ready_after="30m",
    )  # fmt: skip
    shop.store.apply([FeatureService("service", features=[view])])
    shop.write("b", NOON - timedelta(minutes=30), 2)
    first, second = (run.instant for run in shop.store.materialize(progress=False))
    packed = DoneChunks.packed

    def run_until(dies: Callable[[DoneChunks], bool]) -> None:
        def dying(note: DoneChunks) -> bytes:
            if dies(note):
                raise Killed
            return packed(note)

        with monkeypatch.context() as patch:
            patch.setattr(DoneChunks, "packed", dying)
            with pytest.raises(Killed):
                shop.store.materialize(full=True, progress=False)

    run_until(lambda note: 1 in note.of(second))
    assert shop.done() == [0, 0, 1, 2]
    shop.store.online.write({shop.key_in_first_chunk(): None})
    run_until(lambda note: 0 in note.of(first))
    shop.store.materialize(full=True, progress=False)
    assert shop.store.verify().ok
    shop.clock.advance(timedelta(minutes=30))
    assert shop.served() == {(2, 3)}


@pytest.mark.parametrize("shop", ["lmdb"], indirect=True)
@pytest.mark.parametrize("meanwhile", ["a file comes", "a file is written anew", "a key is forgotten"])
def test_a_run_of_a_past_instant_is_gone_on_with(shop: Shop, monkeypatch: pytest.MonkeyPatch, meanwhile: str) -> None:
    """Where half of it is done and its files are as they were: the run of what is due, which reads those that came since, is over what
    may have changed after it. Else what is due is computed alone."""
    with monkeypatch.context() as patch:
        shop.fail_after(2, patch)
    shop.clock.advance(timedelta(hours=1))
    at, name = NOON + timedelta(minutes=30), "a" if meanwhile == "a file is written anew" else "b"
    few = {"id": [1, 2, 3], "at": pa.array([at] * 3, pa.timestamp("us", "UTC")), "x": [5] * 3}
    if meanwhile == "a key is forgotten":
        shop.store.forget("thing", {"id": 1})
    else:
        pq.write_table(pa.table(few), shop.folder / "data" / f"{name}.parquet")
    runs = shop.store.materialize(progress=False)
    told = [(run.instant - instant_of(NOON), run.keys, run.full) for run in runs]
    if meanwhile == "a file comes":
        assert told == [(0, KEYS, True), (3_600_000_000, 3, False)]
    else:
        keys = 3 if meanwhile == "a file is written anew" else KEYS - 1
        assert told == [(3_600_000_000, keys, True)]
    assert shop.store.verify().ok
    assert shop.done() == []


@pytest.mark.parametrize("shop", ["lmdb"], indirect=True)
def test_what_was_served_of_a_past_instant_is_told_from_files_that_came_late(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone on with from the files that it read, and served while what is due goes on, which is killed, too: it is in the journal, and a
    file that came late is late data to the audit, and no skew."""
    with monkeypatch.context() as patch:
        shop.fail_after(2, patch)
    shop.clock.advance(timedelta(hours=1))
    late = {
        "id": [1, 2, 3],
        "at": pa.array([NOON - timedelta(minutes=30)] * 3, pa.timestamp("us", "UTC")),
        "x": [5] * 3,
    }
    pq.write_table(pa.table(late), shop.folder / "data" / "b.parquet")
    run, begun = materialize._run, itertools.count()
    with monkeypatch.context() as patch:

        def second_fails(*args: Any, **options: Any) -> list[Run]:
            if next(begun):
                raise Killed
            return run(*args, **options)

        patch.setattr(materialize, "_run", second_fails)
        with pytest.raises(Killed):
            shop.store.materialize(progress=False)
    assert [(one.instant, one.started) for one in shop.store.registry.runs()] == [(instant_of(NOON),) * 2]
    assert shop.served() == {(1, 1)}
    shop.clock.advance(timedelta(minutes=1))
    (last,) = shop.store.materialize(progress=False)
    assert (last.instant, last.keys) == (instant_of(NOON + timedelta(hours=1)), 3)
    assert shop.served() == {(1, 1), (5, 6)}
    shop.store.close()
    with FeatureStore(shop.folder, clock=shop.clock) as store:
        audit = store.audit()
    assert (audit.compared, audit.skewed) == (4 * KEYS, 0), str(audit)
    assert set(audit.causes) == {"late data"}
    assert audit.rewritten == 6


@pytest.mark.parametrize("is_past", [False, True])
def test_a_damaged_note_says_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch, is_past: bool) -> None:
    """A bit of the note that changed: what is due is written whole, as if there were no note, and none is left."""
    with monkeypatch.context() as patch:
        shop.fail_after(2, patch)
    assert shop.done() == [0, 1]
    with monkeypatch.context() as patch:
        patch.setattr(
            value_checksums, "sealed", lambda key, value: sealed(key, value)[:-1] + bytes([sealed(key, value)[-1] ^ 1])
        )
        shop.store.online.write({shop.codec.chunks_key: b"{}"})
    with pytest.raises(OnlineDamagedError):
        shop.done()
    if is_past:
        shop.clock.advance(timedelta(hours=1))
    assert shop.written(monkeypatch) == list(range(KEYS))
    assert shop.done() == []
    assert shop.store.verify().ok

"""What is made of the current rows of a key is kept only where they are the current ones still, wherever the log lies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView, ManualClock, PushSource
from featurestore.errors import PushError, RowsChangedError
from featurestore.push.current_rows import CurrentRows, current_rows
from featurestore.sources.push_logs import LATE
from featurestore.types import Bool, Int64, String, Timestamp
from tests.small import NOON

SOURCE = PushSource(
    "rows",
    schema={"id": Int64, "card": String, "at": Timestamp, "x": Int64, "gone": Bool, "note": String},
    event_time="at", identity="id", deleted="gone", lateness="1d",
)  # fmt: skip
VIEW = FeatureView("view", entity=Entity("card", key={"card": String}), source=SOURCE, features=["x"])


def row(number: int, x: int | None, *, card: str = "a", minutes: int = 10, **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "card": card,
        "at": datetime.now(UTC) - timedelta(minutes=minutes),
        "x": x,
        "note": f"note {x}",
        **more,
    }


class Machines(NamedTuple):
    """Two that push to one source, and how one reads and overwrites."""

    one: FeatureStore
    other: FeatureStore

    def read(self, card: str = "a", *, by: FeatureStore | None = None) -> CurrentRows:
        store = by or self.one
        return current_rows(store.offline, store.lookup("view").service.parts[0].view, [card])

    def overwrite(self, rows: list[dict[str, Any]], read: CurrentRows | bool, *, by: FeatureStore | None = None) -> Any:
        return (by or self.one).submit_push("rows", rows, overwrite=read).result()

    def values(self, card: str = "a") -> list[Any]:
        return [each["x"] for each in self.read(card).rows]

    def logged(self) -> list[Any]:
        return [each["x"] for each in self.one.offline.log(SOURCE).read().to_pylist()]


@pytest.fixture(params=["file", "postgresql"])
def machines(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Iterator[Machines]:
    lines = [f'project = "current_{abs(hash(tmp_path)) % 10**9}"', f'online = "{redis_url}"', "definitions = []"]
    folders = [tmp_path, tmp_path]
    if request.param == "postgresql":
        folders = [tmp_path / "one", tmp_path / "other"]
        lines += [f'{name} = "{request.getfixturevalue("postgres").url}"' for name in ("registry", "push_log")]
    with ExitStack() as stack:
        stores = []
        for folder in folders:
            folder.mkdir(exist_ok=True)
            (folder / "featurestore.toml").write_text("\n".join(lines))
            stores.append(stack.enter_context(FeatureStore(folder)))
        stores[0].apply([FeatureService("service", features=[VIEW])])
        yield Machines(*stores)
        stores[0].teardown()


def test_the_current_rows_of_a_key(machines: Machines) -> None:
    """By their event times; those that were replaced, deleted or moved to another key are none, however old the others are, and
    whether they lie in a full segment or not."""
    assert machines.read() == machines.read()
    assert machines.values() == []
    rows = [row(1, 10, minutes=5), row(2, 20, minutes=9), row(3, 30), row(4, 40), row(5, 50, card="b")]
    machines.one.push("rows", [*rows, row(7, 70, minutes=20 * 60)])
    assert machines.values() == [70, 30, 40, 20, 10]
    machines.other.push("rows", [row(1, 11, minutes=5), {"id": 3, "gone": True}, row(4, 41, card="b")])
    for _ in range(2):
        assert machines.values() == [70, 20, 11]
        assert machines.values("b") == [50, 41]
        machines.one.offline.log(SOURCE).compact(everything=True)
    read = machines.read()
    assert [(each["id"], each["note"]) for each in read.rows] == [(7, "note 70"), (2, "note 20"), (1, "note 11")]
    assert [*read.known_at] == [each["known_at"] for each in sorted(logged(machines), key=lambda each: each["at"])]


def logged(machines: Machines) -> list[Any]:
    every = machines.one.offline.log(SOURCE).read().to_pylist()
    return [each for each in every if each["x"] in {70, 20, 11}]


CHANGES: dict[str, list[dict[str, Any]]] = {
    "another row of the key": [row(9, 90)],
    "an older row of the key": [row(9, 90, minutes=500)],
    "another version": [row(1, 11)],
    "a deletion that says no key": [{"id": 1, "gone": True}],
    "a row that went to another key": [row(1, 10, card="b")],
    "a row that came from another key": [row(3, 30, card="a")],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("together", [False, True])
def test_what_was_changed_since_is_not_overwritten(machines: Machines, change: str, together: bool) -> None:
    """Neither by what was pushed before, from another machine, nor by what stands before it in the same batch."""
    machines.one.push("rows", [row(1, 10), row(3, 30, card="b")])
    read = machines.read()
    if together:
        with holding(machines.one):
            first = machines.one.submit_push("rows", CHANGES[change])
            second = machines.one.submit_push("rows", [row(1, 12)], overwrite=read)
        assert first.result() == (1, 0, 0)
    else:
        machines.other.push("rows", CHANGES[change])
        second = machines.one.submit_push("rows", [row(1, 12)], overwrite=read)
    before = machines.logged()
    with pytest.raises(RowsChangedError, match="changed by others since they were read; nothing was kept") as caught:
        second.result()
    assert (caught.value.retry, caught.value.kept) == (True, "no")
    assert machines.logged() == before
    assert machines.overwrite([row(1, 12)], machines.read()) == (1, 0, 0)


def test_what_does_not_touch_the_key_is_in_nobody_s_way(machines: Machines) -> None:
    """Rows of other keys, retries, what was refused, and those who came too late in the same batch."""
    first = row(1, 10)
    machines.one.push("rows", [first, row(3, 30, card="b")])
    read, of_other = machines.read(), machines.read("b")
    machines.other.push("rows", [row(4, 40, card="b"), row(3, 31, card="b")])
    assert machines.other.push("rows", [first]) == (0, 1, 0)
    with pytest.raises(PushError):
        machines.other.push("rows", [row(1, 99, minutes=-60)])
    with holding(machines.one):
        outdated = machines.one.submit_push("rows", [row(5, 50)], overwrite=of_other)
        mine = machines.one.submit_push("rows", [row(1, 12)], overwrite=read)
        again = machines.one.submit_push("rows", [row(1, 13)], overwrite=read)
    assert mine.result() == (1, 0, 0)
    for each in (outdated, again):
        with pytest.raises(RowsChangedError):
            each.result()
    assert machines.values() == [12]


def test_an_overwriting_row_is_a_retry_of_the_last_version_alone(machines: Machines) -> None:
    """What a row was before, it can be again; a plain push of it is a retry still. Training sees each."""
    one, two = row(1, 1), row(1, 2)
    one["at"] = two["at"]
    for given, counted in ((one, (1, 0, 0)), (two, (1, 0, 0)), (one, (1, 0, 0)), (one, (0, 1, 0)), (two, (1, 0, 0))):
        assert machines.overwrite([given], True) == counted
    assert machines.overwrite([one], machines.read()) == (1, 0, 0)
    for given in (one, two):
        assert machines.other.push("rows", [given]) == (0, 1, 0)
    assert machines.values() == [1]
    assert machines.logged() == [1, 2, 1, 2, 1]
    online = machines.other.get_online_features({"card": "a"}, "view")
    assert online.to_dict()["view__x"] == [1]
    assert machines.overwrite([{"id": 1, "card": "a", "at": one["at"], "gone": True}], machines.read()) == (1, 0, 0)
    assert machines.values() == []
    assert machines.overwrite([one], True) == (1, 0, 0)
    assert machines.values() == [1]


def test_of_rows_that_come_too_late_nothing_is_kept_where_they_overwrite(machines: Machines) -> None:
    """Not even the others, nor aside: a record would be half of what it was to be."""
    rows = [row(1, 1), row(2, 2, minutes=2 * 24 * 60)]
    with pytest.raises(
        PushError, match="row 1 came too late, and would never be served nor trained on: .* than 1d ago"
    ):
        machines.overwrite(rows, True)
    assert machines.values() == []
    assert not machines.one.offline.logs.has("rows", LATE)
    assert machines.one.push("rows", rows) == (1, 0, 1)


def test_each_of_many_changes_is_seen_by_the_next(machines: Machines) -> None:
    """Threads of two machines count up the numbers of two keys: no count is lost, and none is counted twice."""
    machines.one.push("rows", [row(1, 0), row(2, 0, card="b")])
    meet = Barrier(8)

    def count(who: int) -> int:
        store, card, done, tries = machines[who % 2], "ab"[who // 2 % 2], 0, 0
        while done < 8:
            tries += 1
            read = machines.read(card, by=store)
            (held,) = read.rows
            if tries == 1:
                meet.wait(600)  # so that of those who count one key, one alone has read what is current
            try:
                machines.overwrite([{**held, "x": held["x"] + 1}], read, by=store)  # type: ignore[operator]  # a number
                done += 1
            except RowsChangedError:
                pass
        return tries

    with ThreadPoolExecutor(8) as together:
        tries = sum(together.map(count, range(8)))
    assert [machines.values(card) for card in "ab"] == [[32], [32]]
    assert tries >= 64 + 6


def test_what_is_forgotten_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    with _store(tmp_path) as store:
        store.push("rows", [row(1, 10)])
        read = current_rows(store.offline, store.lookup("view").service.parts[0].view, ["a"])
        store.forget("card", {"card": "a"})
        with pytest.raises(RowsChangedError):
            store.submit_push("rows", [row(1, 11)], overwrite=read).result()
        assert current_rows(store.offline, store.lookup("view").service.parts[0].view, ["a"]).rows == ()


def test_rows_that_were_taken_back_are_not_overwritten(tmp_path: Path) -> None:
    """Those of a clock that was ahead."""
    clock = ManualClock(NOON)
    with _store(tmp_path, clock=clock) as store:
        at = NOON - timedelta(minutes=1)
        store.push("rows", [{**row(1, 10), "at": at}])
        clock.advance(timedelta(hours=5))
        store.push("rows", [{**row(1, 11), "at": at}])
        read = current_rows(store.offline, store.lookup("view").service.parts[0].view, ["a"])
        clock.set(NOON + timedelta(seconds=1))
        assert store.take_back("rows").rows == 1
        with pytest.raises(RowsChangedError):
            store.submit_push("rows", [{**row(1, 12), "at": at}], overwrite=read).result()


def test_rows_of_the_history_are_among_them(tmp_path: Path) -> None:
    """Known when the history says; a row of a log replaces none of them."""
    at = pa.array([NOON - timedelta(hours=1)], pa.timestamp("us", "UTC"))
    before = pa.table({"id": [1], "card": ["a"], "at": at, "x": [1], "gone": [False], "note": [""]})
    history = DataFrameSource("before", before, event_time="at", known_after="1m")
    source = SOURCE.model_copy(update={"history": history, "cutover": NOON})
    view = VIEW.model_copy(update={"source": source})
    with _store(tmp_path, clock=ManualClock(NOON + timedelta(hours=1)), view=view) as store:
        store.materialize(progress=False)
        store.push("rows", [{**row(2, 2), "at": NOON}])
        read = current_rows(store.offline, store.lookup("view").service.parts[0].view, ["a"])
        assert [each["x"] for each in read.rows] == [1, 2]
        assert read.known_at[0] < source.cutover_instant < read.known_at[1]  # type: ignore[operator]  # both are known


@pytest.mark.parametrize("key", [{"card": String}, {}])
@pytest.mark.parametrize("identity", ["id", []])
def test_what_names_no_row_or_no_key_is_compared_all_the_same(
    tmp_path: Path, key: dict[str, Any], identity: Any
) -> None:
    """Without identities a row replaces none, and without a key every row is of the one there is."""
    source = PushSource("rows", schema=SOURCE.columns, event_time="at", identity=identity)
    view = FeatureView("view", entity=Entity("card", key=key), source=source, features=["x"])
    with _store(tmp_path, view=view) as store:
        values = ["a"] if key else []

        def read() -> CurrentRows:
            return current_rows(store.offline, store.lookup("view").service.parts[0].view, values)

        store.push("rows", [row(1, 10)])
        before = read()
        store.push("rows", [row(2, 20, card="b")])
        assert [each["x"] for each in read().rows] == ([10] if key else [10, 20])
        given = [row(1, 11)]
        if key:
            assert store.submit_push("rows", given, overwrite=before).result() == (1, 0, 0)
        with pytest.raises(RowsChangedError):
            store.submit_push("rows", given, overwrite=before).result()
        assert store.submit_push("rows", given, overwrite=read()).result() == (
            (0, 1, 0) if key and identity else (1, 0, 0)
        )


@pytest.mark.parametrize("wrong", [None, 1, "True", [], object()])
def test_what_is_to_be_overwritten_is_current_rows(tmp_path: Path, wrong: Any) -> None:
    with _store(tmp_path) as store, pytest.raises(Exception, match="overwrite"):
        store.submit_push("rows", [row(1, 1)], overwrite=wrong)


def _store(folder: Path, *, view: FeatureView = VIEW, **words: Any) -> FeatureStore:
    (folder / "featurestore.toml").write_text('project = "own"\nonline = "lmdb://online"\ndefinitions = []\n')
    store = FeatureStore(folder, **words)
    store.apply([FeatureService("service", features=[view])])
    return store


class holding:  # noqa: N801 - reads as what it does
    """Keeps a store's pushers waiting, so that who comes meanwhile stands in one batch."""

    def __init__(self, store: FeatureStore) -> None:
        self._pusher = store._project.pushing._pusher("rows")

    def __enter__(self) -> None:
        self._held, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)
        self._thread.start()
        self._held.wait()

    def _hold(self) -> None:
        with self._pusher._batch_lock:
            self._held.set()
            self._go.wait()

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join()

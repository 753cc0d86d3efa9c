"""Pages of a group's keys: each key on one page, with the source read once for many of them, whatever becomes of what is held."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from featurestore import DataFrameSource, Entity, FeatureStore, FeatureView
from featurestore.semantics.service import ResolvedService
from featurestore.server.compatible.sagemaker import listed_keys
from featurestore.server.compatible.sagemaker.listed_keys import HELD_SECONDS, LISTINGS, ListedKeys
from featurestore.server.problems import BadRequest
from featurestore.types import Int64, String

KEYS = [(f"k{n // 7}", n % 7 - 3) for n in range(300)]
PAGE = 7


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    at = pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * len(KEYS), pa.timestamp("us", "UTC"))
    rows = pa.table({"a": [a for a, _ in KEYS], "b": [b for _, b in KEYS], "at": at, "v": list(range(len(KEYS)))})
    source = DataFrameSource("rows", rows, event_time="at")
    pair = Entity("pair", key={"a": String, "b": Int64})
    views = [
        FeatureView(name, entity=pair, source=source, features=["v"], refresh="1d") for name in ("pairs", "others")
    ]
    with FeatureStore.local() as store:
        store.apply([pair, source, *views])
        yield store


class Read:
    """How often the source's key columns were read."""

    times = 0


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Fifty keys are read ahead; counted."""
    read, own = Read(), listed_keys.next_keys  # type: ignore[attr-defined]  # a name that the module imports, to be replaced

    def counted(*args: Any, **words: Any) -> pa.Table:
        read.times += 1
        return own(*args, **words)

    monkeypatch.setattr(listed_keys, "next_keys", counted)
    monkeypatch.setattr(listed_keys, "AHEAD_KEYS", 50)
    return read


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Listing:
    """A client's listing of a view, over some process's `ListedKeys`."""

    def __init__(self, store: FeatureStore, view: str = "pairs") -> None:
        self._service: ResolvedService = store.lookup(view).service
        self._offline = store.offline
        self.keys: list[tuple[Any, ...]] = []
        self.token: str | None = None

    def turn(self, listed: ListedKeys) -> bool:
        """Take the next page; whether there is another."""
        page = listed.page(self._service, self._offline, token=self.token, most=PAGE)
        assert len(page.keys) <= PAGE
        self.keys += page.keys
        self.token = page.next_token
        return self.token is not None


def test_the_source_is_read_once_for_many_pages(store: FeatureStore, read: Read) -> None:
    """The first page alone, then each time for as many keys as are read ahead."""
    listed, listing = ListedKeys(), Listing(store)
    while listing.turn(listed):
        pass
    assert listing.keys == sorted(KEYS)
    assert read.times == 1 + -(-(len(KEYS) - PAGE) // 50)
    assert not listed._held


def test_keys_of_many_bytes_are_held_in_part(store: FeatureStore, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one listing no more than is said, and none is left out for it."""
    monkeypatch.setattr(listed_keys, "AHEAD_BYTES", 200)
    listed, listing = ListedKeys(), Listing(store)
    while listing.turn(listed):
        assert all(ahead.keys.nbytes <= 200 for ahead in listed._held.values())
    assert listing.keys == sorted(KEYS)
    assert read.times > 7


def test_listings_beside_each_other_and_in_other_processes(store: FeatureStore, read: Read) -> None:
    """More than are held, taken in turn by two processes: each has every key once."""
    processes = ListedKeys(), ListedKeys()
    ahead = [Listing(store) for _ in range(LISTINGS + 3)]
    every = [*ahead]
    turn = 0
    while ahead:
        turn += 1
        ahead = [one for place, one in enumerate(ahead) if one.turn(processes[(turn + place) % 3 % 2])]
        assert all(len(process._held) <= LISTINGS for process in processes)
    assert [one.keys for one in every] == [sorted(KEYS)] * len(every)


def test_what_nobody_goes_on_with_is_let_go(store: FeatureStore, read: Read) -> None:
    """After a while, when another listing takes a page; who goes on after all reads anew."""
    clock = Clock()
    listed, left, other = ListedKeys(clock=clock), Listing(store), Listing(store)
    assert left.turn(listed)
    assert left.turn(listed)
    clock.now += HELD_SECONDS + 1
    for _ in range(2):
        assert other.turn(listed)
    assert len(listed._held) == 1
    while left.turn(listed):
        pass
    assert left.keys == sorted(KEYS)


def test_a_token_of_another_listing_or_group_takes_nothing_of_what_is_held(store: FeatureStore, read: Read) -> None:
    """Whatever is changed in it: the keys after the one that it names follow, or it is refused."""
    listed, listing, other = ListedKeys(), Listing(store), Listing(store, "others")
    for _ in range(2):
        assert listing.turn(listed)
    assert listing.token is not None
    key, name, place = json.loads(listing.token)
    follow = [each for each in sorted(KEYS) if each > tuple(key)][:PAGE]
    assert other.token is None
    for token in ([key, name, place], [key, name, place + 3], [key, name, -1], [key, name, 10**15], [key, "", 0]):
        for one in (Listing(store), other):
            one.token, one.keys = json.dumps(token), []
            assert one.turn(listed)
            assert one.keys == follow
    for bad in ([key, name], [key, name, True], [key, 1, 0], [[*key, 1], name, 0], [["k", None], name, 0], key, 7, {}):
        with pytest.raises(BadRequest, match="NextToken"):
            listed.page(listing._service, listing._offline, token=json.dumps(bad), most=PAGE)

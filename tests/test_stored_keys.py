"""Store keys that a view version has records for: counted, and found where nobody asks for them any more, by pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import duckdb
import pytest

from featurestore.errors import MaterializeError
from featurestore.materialize import stored_keys
from featurestore.materialize.stored_keys import StoredKeys, count_records, count_records_by_chunk
from featurestore.online import OnlineStore
from featurestore.online.view_codec import ViewCodec
from featurestore.sources.offline import Offline

KEYS = [b"%05d" % number for number in range(5_000)]


class Scanned:
    """What of a store is asked here: a scan that gives many keys twice. record_prefix: as of a codec."""

    record_prefix = b""

    def scan(self, prefix: bytes) -> list[list[bytes]]:
        return [KEYS[:700], KEYS[500:], KEYS[4_000:], []]


SCANNED: Any = Scanned()


@pytest.fixture(params=[100, 100_000], ids=["pieces", "at once"], autouse=True)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_keys, "HASHED_KEYS", request.param)


def test_keys_are_counted_once() -> None:
    """Also those that a scan gives twice, whatever is held at once; of chunks each key is in one."""
    offline = Offline(Path())
    store, codec = cast("OnlineStore", SCANNED), cast("ViewCodec", SCANNED)
    assert count_records(offline, store, codec) == len(KEYS)
    counts = count_records_by_chunk(offline, store, codec, chunks=7)
    assert sorted(counts) == list(range(7))
    assert sum(counts.values()) == len(KEYS)
    offline.close()


def test_what_is_not_met_has_vanished() -> None:
    """By chunk, in its order, each once, so many at a time."""
    with duckdb.connect() as connection:
        stored = StoredKeys(connection, SCANNED.scan(b""), chunks=3)
        asked = set(KEYS[::2]) | {b"another"}
        for first in range(0, len(KEYS), 300):
            stored.meet([key for key in KEYS[first : first + 300] if key in asked])
        found = [list(stored.vanished(chunk, 400)) for chunk in range(3)]
        assert all(0 < len(part) <= 2_048 for parts in found for part in parts)
        chunks = [[key for part in parts for key in part] for parts in found]
        assert all(keys == sorted(keys) for keys in chunks)
        assert sorted(key for keys in chunks for key in keys) == KEYS[1::2]
        assert {key for keys in chunks[1:2] for key in keys} <= set(stored.of(1)["key"].to_pylist())
        assert sum(stored.of(chunk).num_rows for chunk in range(3)) == len(KEYS)


def test_nothing_vanishes_where_nothing_is() -> None:
    with duckdb.connect() as connection:
        stored = StoredKeys(connection, [[]])
        stored.meet(KEYS)
        assert (list(stored.vanished(0, 10)), stored.counts()) == ([], {})


def test_keys_that_find_no_place_are_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine has no room for them."""
    offline = Offline(Path())

    def full(*_: object, **__: Any) -> StoredKeys:
        raise duckdb.IOException("No space left on device")

    monkeypatch.setattr(stored_keys, "StoredKeys", full)
    with pytest.raises(MaterializeError, match="cannot be counted: .*No space left"):
        count_records_by_chunk(offline, cast("OnlineStore", SCANNED), cast("ViewCodec", SCANNED), chunks=2)
    offline.close()

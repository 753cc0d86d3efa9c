"""No bit of an online store changes a value, or makes one appear or vanish, without a word."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import random
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lmdb
import pytest
import redis

from featurestore.errors import FeatureStoreError, OnlineDamagedError
from featurestore.online import Guard, OnlineStore, open_online
from featurestore.online.coalesce import CoalescingReader
from featurestore.online.value_checksums import MARK, opened, read_past_damage, sealed
from tests.damage import flipped, places
from tests.servers import RedisServer, patient

PREFIX = b"project:\1\2\3\4\5\6\7\0r"


def key(number: int) -> bytes:
    """Keys as records have them: an integer behind what they have in common."""
    return PREFIX + struct.pack("<q", number)


def held() -> dict[bytes, bytes]:
    """Values by key, small and large, and under a key that is long; between the keys some are absent."""
    chosen = random.Random(5)
    values = {key(2 * number): chosen.randbytes(chosen.randrange(90)) for number in range(400)}
    values |= {key(10_000 + number): chosen.randbytes(6_000) for number in range(4)}
    return values | {PREFIX + bytes([number]) * 600: b"long" for number in range(4)}


def states(url: str, values: dict[bytes, bytes]) -> str:
    """What a process that opens the store finds: the same, an error of ours, keys that vanished, or something else."""
    absent = [key(number) for number in range(1, 800, 2)] + [PREFIX + b"\xff" * 600]
    found = "same"
    try:
        with closing(open_online(url)) as store:
            for keys, right in (([*values], [*values.values()]), (absent, [None] * len(absent))):
                for start in range(0, len(keys), 50):
                    try:
                        read = store.get(keys[start : start + 50]).values
                        if any(
                            value not in {None, of} for value, of in zip(read, right[start : start + 50], strict=True)
                        ):
                            return "wrong"
                        if read != right[start : start + 50]:
                            found = "vanished"
                    except FeatureStoreError:
                        found = "error"
    except FeatureStoreError:
        return "error"
    return found


def in_a_process(of: Callable[[], str]) -> str:
    """What a call finds in a process of its own, which damage may bring down."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        faulthandler.disable()
        try:
            os.write(writing, of().encode())
        except BaseException as error:  # noqa: BLE001 - the child must never come back into the test
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    return found if os.waitpid(child, 0)[1] == 0 else "crash"


def test_a_flipped_bit_of_lmdb(tmp_path: Path) -> None:
    """Each key has its value, or is absent, as before; or there is an error. LMDB's own structure has no checksums: a bit of it
    may bring a process down."""
    url, values = f"lmdb://{tmp_path}/online", held()
    with closing(open_online(url)) as store:
        for start in range(0, len(values), 100):
            store.write(dict([*values.items()][start : start + 100]))
    file = tmp_path / "online" / "data.mdb"
    assert in_a_process(lambda: states(url, values)) == "same"
    pages = file.stat().st_size // 4096
    chosen = random.Random(7)
    heads = [8 * (4096 * chosen.randrange(pages) + chosen.randrange(48)) + chosen.randrange(8) for _ in range(60)]
    outcomes = []
    for bit in [*places(file.stat().st_size, 90, seed="lmdb"), *heads]:
        with flipped(file, bit):
            outcomes.append(in_a_process(lambda: states(url, values)))
    assert {*outcomes[:90]} == {"same", "error"}
    assert {*outcomes[90:]} <= {"same", "error", "crash"}
    assert len(outcomes) - outcomes.count("same") > 30


def test_a_key_that_changed_answers_for_no_other(tmp_path: Path) -> None:
    """A value under a key of which a bit has changed is neither that key's nor away: both keys are damaged, others are not."""
    url = f"lmdb://{tmp_path}/online"
    with closing(open_online(url)) as store:
        store.write({key(number): b"value %d" % number for number in (4, 12)})
    file = tmp_path / "online" / "data.mdb"
    place = file.read_bytes().rindex(key(4))
    with flipped(file, 8 * (place + len(PREFIX)) + 1), closing(open_online(url)) as store:
        for number in (4, 6):
            with pytest.raises(OnlineDamagedError) as raised:
                store.get([key(12), key(number)])
            assert raised.value.keys == (key(number),)
            assert str(tmp_path) in str(raised.value)
        assert store.get([key(12)]).values == [b"value 12"]


def test_damage_in_redis() -> None:
    """A value that changed is an error that names its key, in `get` and in a guard; others are read on."""
    with RedisServer() as server, closing(open_online(patient(server.url))) as store, server.client() as client:
        store.write({b"a": b"one", b"b": b"two", b"c": b""})
        stored = client.get(b"a")
        for bit in range(8 * len(stored)):
            changed = bytearray(stored)
            changed[bit // 8] ^= 1 << bit % 8
            client.set(b"a", bytes(changed))
            with pytest.raises(OnlineDamagedError, match=r"redis://.* under b'a' is not"):
                store.get([b"b", b"a", b"none"])
        with pytest.raises(OnlineDamagedError, match="b'a'"):
            store.write({b"b": b"three"}, guard=Guard(b"a", b"one"))
        assert store.get([b"b", b"c"]).values == [b"two", b""]
        assert read_past_damage(store, [b"a", b"b", b"none"]) == ([None, b"two", None], frozenset([b"a"]))
        client.rename(b"b", b"d")  # a value under another key is damaged as well
        with pytest.raises(OnlineDamagedError, match="b'd'"):
            store.get([b"d"])
        store.write({b"a": b"anew"})
        assert store.get([b"a"]).values == [b"anew"]


def test_who_shares_a_round_trip_with_damage_is_answered() -> None:
    """Of those who read together only the one who asked for the damaged key has the error."""
    with RedisServer() as server, closing(open_online(patient(server.url))) as store, server.client() as client:
        store.write({b"%d" % number: b"value" for number in range(20)})
        client.set(b"7", client.get(b"6"))

        async def read() -> list[object]:
            reader = CoalescingReader(store)
            asked = [reader.get([b"%d" % number], first=[b"mark"]) for number in range(20)]
            return await asyncio.gather(*asked, return_exceptions=True)

        found = asyncio.run(read())
        assert [number for number, each in enumerate(found) if isinstance(each, OnlineDamagedError)] == [7]
        assert all(each.values == [None, b"value"] for number, each in enumerate(found) if number != 7)  # type: ignore[attr-defined]  # what a read gives has values


def test_values_of_a_version_without_checksums(
    store: OnlineStore, url: str, redis_client: redis.Redis | None, prefix_of_all: str
) -> None:
    """They are read as they are, guards included, until they are written anew."""
    older = {b"record": b"\1" + bytes(20), b"lease": b'{"pid": 1}', b"state": struct.pack("<Bqq", 1, 5, -1)}
    if redis_client is not None:
        with redis_client:
            redis_client.mset({prefix_of_all.encode() + key: value for key, value in older.items()})
    else:
        store.close()
        with lmdb.open(url.removeprefix("lmdb://"), max_dbs=2) as env, env.begin(write=True) as transaction:
            values = env.open_db(b"keys.v1", transaction)
            for name, value in older.items():
                transaction.put(name, value, db=values)
        store = open_online(patient(url))
    assert store.get([*older, b"mine"]).values == [*older.values(), None]
    assert store.write({b"lease": b"renewed"}, guard=Guard(b"lease", older[b"lease"]))
    assert store.get([*older]).values == [older[b"record"], b"renewed", older[b"state"]]
    store.close()


def test_stored_bytes() -> None:
    """How a value lies in a store is part of the format: it changes with a version that still reads this."""
    assert sealed(b"key", b"value") == MARK + b"value" + bytes.fromhex("b8f0b57f")
    assert opened([b"key"], [sealed(b"key", b"value")], where="here") == [b"value"]

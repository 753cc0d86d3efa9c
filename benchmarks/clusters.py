"""A Redis Cluster of so many primaries beside one Redis, as jobs (see `pairs`): keys written and read, and what they take on the processors
of the servers and of the client; and how many bytes a key takes.

The records are those of a view of 18 features: 15 numbers and 3 texts of 8 letters. Views are as many as fill the primaries evenly, since
all keys of a view lie on one.
"""

import os
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Self

import redis
from redis.crc import key_slot

from benchmarks.latency import Figures
from benchmarks.servers import redis_cpu_s
from featurestore.online import open_online

VIEWS, KEYS = 48, 4_000
"""Views, and keys of each; one batch of a run of materialize into a server."""

RECORD_BYTES = 177
"""Of a record of one instant, as the codec makes it of such features."""

READ_KEYS = 100
"""Of a lookup of many keys."""


def view_prefixes(primaries: int) -> list[bytes]:
    """What the keys of the views begin with, each behind the hash tag of its view; as many views in the slots of each primary."""
    found: dict[int, list[bytes]] = {number: [] for number in range(primaries)}
    share, number = 16_384 / primaries, 0
    while any(len(views) < VIEWS // primaries for views in found.values()):
        number += 1
        prefix = b"benchmark:{%08x}" % number + number.to_bytes(8, "little") + b"r"
        views = found[min(primaries - 1, int(key_slot(prefix) / share))]
        if len(views) < VIEWS // primaries:
            views.append(prefix)
    return [prefix for views in found.values() for prefix in views]


def cluster(redis_url: str, ports: list[int], one_view: bool = False) -> Callable[[], Figures]:
    """Write all records, read them back as runs do, then look up 1 key and 100 keys. one_view: all of one view."""
    servers = [redis.Redis(port=port) for port in ports]
    for server in servers:
        server.flushall()
    store = open_online(redis_url)
    prefixes = view_prefixes(len(ports))
    prefixes = prefixes[:1] * len(prefixes) if one_view else prefixes
    record = os.urandom(RECORD_BYTES)
    batches = [
        {prefix + (number * KEYS + key).to_bytes(8, "little"): record for key in range(KEYS)}
        for number, prefix in enumerate(prefixes)
    ]  # fmt: skip

    def call() -> Figures:
        figures: Figures = {}
        total = len(batches) * KEYS
        with _Spent(servers) as written:
            for batch in batches:
                store.write(batch)
        figures |= written.per("write", total)
        with _Spent(servers) as read:
            for batch in batches:
                keys = list(batch)
                for start in range(0, KEYS, READ_KEYS):
                    store.get(keys[start : start + READ_KEYS])
        figures |= read.per("read", total)
        some = [key for batch in batches for key in list(batch)[:100]]
        with _Spent(servers) as single:
            for key in some:
                store.get([key[:-8] + b"w", key])  # a lookup of one key asks for its view's watermark too
        figures |= single.per("lookup", len(some))
        held = [int(server.dbsize()) for server in servers]
        return {**figures, "most_of_one": max(held) / sum(held)}

    return call


class _Spent:
    """What is spent within: on the processors of the servers and of this process, and by the clock."""

    def __init__(self, servers: list[redis.Redis]) -> None:
        self._servers = servers

    def _cpu_s(self) -> list[float]:
        return [redis_cpu_s(server) for server in self._servers]

    def __enter__(self) -> Self:
        self._before, self._own, self._began = self._cpu_s(), time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.client_s, self.wall_s = time.process_time() - self._own, time.perf_counter() - self._began
        self.servers_s = [after - before for after, before in zip(self._cpu_s(), self._before, strict=True)]

    def per(self, what: str, count: int) -> Figures:
        """µs a key of servers and of the client, and keys for each second of processors, of all of them together."""
        servers = sum(self.servers_s)
        return {
            f"{what}_server_us": servers / count * 1e6, f"{what}_client_us": self.client_s / count * 1e6,
            f"{what}_per_cpu_s": count / (servers + self.client_s), f"{what}_busiest": max(self.servers_s) / max(1e-9, servers),
        }  # fmt: skip


MEASURED = 100_000
"""Keys that bytes are measured with; enough that a table which doubles is not what is measured: 0.76 of its places are in use."""


def key_bytes(redis_url: str, form: str) -> Callable[[], Figures]:
    """What a key takes of a server's memory. form: "one instant", "two instants", or "hash", see `_hash`."""
    server = redis.Redis.from_url(redis_url)
    return partial(_key_bytes, server, redis_url, form)


def _key_bytes(server: redis.Redis, redis_url: str, form: str) -> Figures:
    server.flushall()
    before = int(server.info("memory")["used_memory"])
    stored = 0
    if form == "hash":
        for start in range(0, MEASURED, 1_000):
            pipe = server.pipeline(transaction=False)
            for number in range(start, start + 1_000):
                pipe.hset(_hash_key(number), mapping=_hash(number))
            pipe.execute()
        stored = len(_hash_key(0)) + sum(len(name) + len(value) for name, value in _hash(0).items())
    else:
        store = open_online(redis_url)
        slots = 1 + (form == "two instants")
        size = 1 + slots * (RECORD_BYTES - 1)
        for start in range(0, MEASURED, 4_000):
            store.write({_key(number): os.urandom(size) for number in range(start, min(MEASURED, start + 4_000))})
        (key,) = server.scan(count=1)[1][:1]
        stored = len(key) + int(server.strlen(key))
    used = int(server.info("memory")["used_memory"]) - before
    return {"bytes_a_key": used / int(server.dbsize()), "stored_bytes": stored}


def _key(number: int) -> bytes:
    return b"benchmark:" + b"viewbyid" + b"r" + number.to_bytes(8, "little")


def _hash_key(number: int) -> bytes:
    """Of an entity: a message with the name of its key, its type and its value, and the name of the project."""
    return b"\x02\x00\x00\x00customer\x04\x00\x00\x00\x08\x00\x00\x00" + number.to_bytes(8, "little") + b"benchmark"


def _hash(number: int) -> dict[bytes, bytes]:
    """One hash a key, as Feast's documentation lays it out: a field for each feature, named by 4 bytes of a hash of view and name, which holds
    the value as a tagged message; and a field of the view's name with the row's time."""
    values = {}
    for place in range(18):
        if place % 5 == 4:
            value = b"\x12\x08word-%03d" % (number % 200)
        elif place % 5 == 3:
            value = b"\x20" + _varint(number * 7_919 % 1_000_000)
        else:
            value = b"\x29" + struct.pack("<d", number / 7)
        values[struct.pack("<I", place * 2_654_435_761 % 2**32)] = value
    return {**values, b"_ts:served": b"\x08" + _varint(1_704_067_200 + number)}


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])

"""The online store on a Redis Cluster: each view, or push source with its views, lies in one slot, and so on one primary.

What is read is asked of all the primaries that have it, at once. What is written has one hash tag, and is one transaction of one primary.
So whatever a primary goes back to, when a replica that was behind takes its place, has watermarks and records of one moment.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterError, ReadOnlyError, TryAgainError

from featurestore.clock import Clock
from featurestore.errors import OnlineStoreError, OnlineUnavailableError
from featurestore.online.contract import Guard
from featurestore.online.redis import RedisStore, parsed
from featurestore.online.redis_server import SILENT, RedisServer, pack, reading, replies_of
from featurestore.online.redis_url import Address
from featurestore.online.timed_connection import Deadline

_SLOTS = pack(("CLUSTER", "SLOTS"))
_NODES = pack(("CLUSTER", "NODES"))
_MOVING = re.compile(rb"\[\d+-[<>]-")
"""What CLUSTER NODES says of a slot whose keys are on their way to another server."""

_ELSEWHERE = (AskError, ClusterError, TryAgainError, ReadOnlyError)
"""What a server says of keys that are another's, or will be: MOVED is an ASK to redis-py."""


class ClusterStore(RedisStore):
    """The online store on a cluster: `redis+cluster://[user][:password@]host[:port],…[?options]`, whose hosts are those that are asked
    first. Options: those of RedisStore; `pool_size` is for each primary."""

    tagged: ClassVar[bool] = True

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self._servers: dict[Address, RedisServer] = {}
        self._owners: list[Address] | None = None  # of each slot
        self._owners_scanned: list[Address] | None = None
        super().__init__(url, clock=clock)

    def _first_server(self) -> RedisServer:
        return self._server_at(self._place.addresses[0])

    def _server_at(self, address: Address) -> RedisServer:
        found = self._servers.get(address)
        if found is None:  # where two threads make one, both take the first
            host, port = address
            found = self._servers.setdefault(address, self._server_with(self._connection_class, host=host, port=port))
        return found

    def close(self) -> None:
        """See RedisStore."""
        self._closed = True
        for server in list(self._servers.values()):
            server.close()

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        """See the contract: keys of several tags are deleted tag by tag, and never written."""
        by_slot: dict[int, dict[bytes, bytes | None]] = {}
        for key, value in puts.items():
            by_slot.setdefault(key_slot(key), {})[key] = value
        if guard is not None:
            by_slot.setdefault(key_slot(guard.key), {})
        if len(by_slot) <= 1:
            return super().write(puts, guard=guard)
        if guard is not None or any(value is not None for value in puts.values()):
            raise OnlineStoreError(f"{self._where}: what is written at once must have one hash tag.")
        for part in by_slot.values():
            super().write(part)
        return True

    # --- where keys are ----------------------------------------------------------------------

    def _owned(self, deadline: Deadline) -> list[Address]:
        """The primary of each slot."""
        owners = self._owners
        if owners is None:
            owners = self._owners = self._asked_owners(deadline)
        return owners

    def _asked_owners(self, deadline: Deadline) -> list[Address]:
        """The same, by the first server that answers: each has a share of the time, so that one that is silent does not take all."""
        known = [address for address in self._servers if address not in self._place.addresses]
        known += self._place.addresses
        random.shuffle(known)  # so that not all processes ask the same one
        fault: Exception = redis.ConnectionError("no server of the cluster answers")
        for address in known:
            share = Deadline(min(self._connect_timeout, deadline.left() / 2), begun=deadline.begun)
            try:
                (slots,) = self._server_at(address).ask(_SLOTS, 1, share)
            except SILENT as error:
                fault = error
                continue
            return _owners(slots, address)
        raise fault

    def _primaries(self, deadline: Deadline) -> list[RedisServer]:
        return [self._server_at(address) for address in dict.fromkeys(self._owned(deadline))]

    def _server_of(self, key: bytes | None, deadline: Deadline) -> RedisServer:
        return self._server_at(self._owned(deadline)[0 if key is None else key_slot(key)])

    def _lost(self, error: Exception) -> None:
        if isinstance(error, (*SILENT, *_ELSEWHERE, OSError)):
            self._owners = None

    def _is_passing(self, error: Exception) -> bool:
        return isinstance(error, _ELSEWHERE) or super()._is_passing(error)

    def _error(self, error: Exception, text: str) -> OnlineStoreError:
        if isinstance(error, _ELSEWHERE):
            return OnlineUnavailableError(
                f"{self._where} cannot be reached just now: keys are on their way to another server, or a primary that is lost has "
                f"none in its place yet ({text})."
            )
        return super()._error(error, text)

    # --- what is asked of several ------------------------------------------------------------

    def _read(self, keys: Sequence[bytes], deadline: Deadline) -> tuple[int, list[bytes | None]]:
        clock = self._clock is None
        if not keys:
            server = self._server_of(None, deadline)
            server.check(deadline)
            return (
                parsed(server.ask(b"".join(reading((), clock=True)), 1, deadline), 0, clock=True) if clock else (0, [])
            )
        places: dict[int, list[int]] = {}  # of each slot, in their order
        for place, slot in enumerate(map(key_slot, keys)):
            places.setdefault(slot, []).append(place)
        owners, slots_of = self._owned(deadline), dict[Address, list[int]]()
        for slot in places:
            slots_of.setdefault(owners[slot], []).append(slot)
        asked = [
            (self._server_at(address), [[keys[place] for place in places[slot]] for slot in slots])
            for address, slots in slots_of.items()
        ]
        nows, found = [], iter(_asked_at_once(asked, deadline, clock=clock))
        values: list[bytes | None] = [None] * len(keys)
        for slots in slots_of.values():
            for slot in slots:
                now, stored = next(found)
                nows.append(now)
                for place, value in zip(places[slot], stored, strict=True):
                    values[place] = value
        return min(nows), values

    def _scanned(self, deadline: Deadline) -> list[RedisServer]:
        self._owners = None
        servers = self._primaries(deadline)
        for server in servers:
            server.check(deadline)
        self._owners_scanned = self._owners
        self._check_still(servers, deadline)
        return servers

    def _scan_ends(self, deadline: Deadline) -> bool:
        self._owners = None
        servers = self._primaries(deadline)
        self._check_still(servers, deadline)
        return self._owners == self._owners_scanned

    def _check_still(self, servers: Iterable[RedisServer], deadline: Deadline) -> None:
        """TryAgainError where keys are on their way between servers: a scan could pass them by."""
        if any(_MOVING.search(server.ask(_NODES, 1, deadline)[0]) for server in servers):
            raise TryAgainError("a slot is being moved")


def _owners(slots: Iterable[Any], asked: Address) -> list[Address]:
    """Of each slot the primary, as CLUSTER SLOTS tells; a server that does not know its own host is the one that was asked."""
    owners: dict[int, Address] = {}
    for first, last, (host, port, *_), *_ in slots:
        address = (host.decode() if host else asked[0], int(port))
        owners.update(dict.fromkeys(range(int(first), int(last) + 1), address))
    if len(owners) < REDIS_CLUSTER_HASH_SLOTS:
        raise ClusterError(f"{len(owners)} of {REDIS_CLUSTER_HASH_SLOTS} slots have a server")
    return [owners[slot] for slot in range(REDIS_CLUSTER_HASH_SLOTS)]


def _asked_at_once(
    asked: Sequence[tuple[RedisServer, Sequence[Sequence[bytes]]]], deadline: Deadline, *, clock: bool
) -> list[tuple[int, list[bytes | None]]]:
    """For each slot's keys the clock and the values. All servers are asked before the first is waited for."""
    taken: dict[RedisServer, Any] = {}  # the connection of each
    found: list[tuple[int, list[bytes | None]]] = []
    waiting: list[RedisServer] = []  # those that have not said all yet
    now_asked: RedisServer | None = None
    try:
        for server, groups in asked:
            now_asked = None
            server.check(deadline)
            server.admit(deadline)
            waiting.append(server)
            now_asked = server
            connection = taken[server] = server.taken(deadline)
            commands = [command for keys in groups for command in reading(keys, clock=clock)]
            connection.send_packed_command((b"".join(commands),))
        for server, groups in asked:
            now_asked = server
            for keys in groups:
                replies = replies_of(taken[server], len(reading(keys, clock=clock)))
                found.append(parsed(replies, len(keys), clock=clock))
            waiting.remove(server)
            server.judge(None, deadline)
    except BaseException as error:
        for server in waiting:
            server.judge(error if server is now_asked else None, deadline, heard=server is now_asked)
        for connection in taken.values():
            connection.disconnect()  # replies to this request may still come
        raise
    finally:
        for server, connection in taken.items():
            server.released(connection)
    return found

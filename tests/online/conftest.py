"""Every online store, each ready to be opened by its URL as often as a test likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from featurestore.online import Guard, OnlineStore, Reading, open_online
from tests.servers import RedisCluster, RedisSentinel, patient

TAG = b"{together}"


class Tagged:
    """A store that keeps all that it is given under one hash tag."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self.blocking, self.tagged = store.blocking, store.tagged

    def get(self, keys: Sequence[bytes]) -> Reading:
        return self._store.get([TAG + key for key in keys])

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        held = None if guard is None else Guard(TAG + guard.key, guard.value)
        return self._store.write({TAG + key: value for key, value in puts.items()}, guard=held)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        found = self._store.scan(TAG + prefix)
        return ([key.removeprefix(TAG) for key in keys] for keys in found)

    def close(self) -> None:
        self._store.close()


def opened(url: str) -> OnlineStore:
    """A store in which any keys may be written together."""
    store = open_online(patient(url))
    return Tagged(store) if store.tagged else store


@pytest.fixture(scope="session")
def redis_sentinel() -> Iterator[RedisSentinel]:
    with RedisSentinel() as running:
        yield running


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    with RedisCluster() as running:
        yield running


@pytest.fixture(params=["lmdb", "redis", "sentinel", "cluster"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "lmdb":
        return f"lmdb://{tmp_path}/online"
    if request.param == "redis":
        address: str = request.getfixturevalue("redis_url")
        ports = [redis.Redis.from_url(address).connection_pool.connection_kwargs["port"]]
    else:
        servers: RedisSentinel | RedisCluster = request.getfixturevalue(f"redis_{request.param}")
        address = servers.url
        of_cluster = isinstance(servers, RedisCluster)
        ports = [server.port for server in (servers.primaries if of_cluster else [servers.primary])]
    for port in ports:
        with redis.Redis(port=port) as client:
            client.flushall()
    return address


@pytest.fixture
def redis_client(request: pytest.FixtureRequest, url: str) -> redis.Redis | None:
    """A client of the server that has the keys of `store`; None where none is a Redis."""
    if url.startswith("lmdb"):
        return None
    if url.startswith("redis://"):
        return redis.Redis.from_url(url)
    servers: RedisSentinel | RedisCluster = request.getfixturevalue(
        "redis_cluster" if "cluster" in url else "redis_sentinel"
    )
    server = servers.primary_of(TAG) if isinstance(servers, RedisCluster) else servers.primary
    return redis.Redis(port=server.port)


@pytest.fixture
def prefix_of_all(url: str) -> str:
    """What the keys of another process begin with, for `store` to see them."""
    return TAG.decode() if "cluster" in url else ""


@pytest.fixture
def store(url: str) -> Iterator[OnlineStore]:
    with closing(opened(url)) as one:
        yield one


@pytest.fixture
def another(url: str) -> Iterator[Callable[[], OnlineStore]]:
    """Opens further handles on the same store."""
    with ExitStack() as handles:
        yield lambda: handles.enter_context(closing(opened(url)))

"""Every online store, each ready to be opened by its URL as often as a test likes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis

from featurestore.online import OnlineStore, open_online


@pytest.fixture(params=["lmdb", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    if request.param == "lmdb":
        return f"lmdb://{tmp_path}/online"
    address: str = request.getfixturevalue("redis_url")
    with redis.Redis.from_url(address) as client:
        client.flushall()
    return address


@pytest.fixture
def store(url: str) -> Iterator[OnlineStore]:
    with closing(open_online(url)) as opened:
        yield opened


@pytest.fixture
def another(url: str) -> Iterator[Callable[[], OnlineStore]]:
    """Opens further handles on the same store."""
    with ExitStack() as handles:
        yield lambda: handles.enter_context(closing(open_online(url)))

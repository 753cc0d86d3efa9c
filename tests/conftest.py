"""A real Redis server for whoever asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import RedisServer


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a server that lives as long as this test process; empty it, or use keys of your own."""
    with RedisServer() as server:
        yield server.url

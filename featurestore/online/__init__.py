"""Online stores: bytes by key, each value under a checksum, the codec of materialized records, and the state of push sources. `open_online` turns a URL into a store."""

from __future__ import annotations

from importlib import import_module

from featurestore.clock import Clock
from featurestore.errors import ConfigError, did_you_mean
from featurestore.online.contract import Guard, OnlineStore, Reading

__all__ = ["STORES", "Guard", "OnlineStore", "Reading", "open_online"]

STORES = {
    "lmdb": "featurestore.online.lmdb:LmdbStore",
    "redis": "featurestore.online.redis:RedisStore",
    "rediss": "featurestore.online.redis:RedisStore",
    "redis+sentinel": "featurestore.online.redis_sentinel:SentinelStore",
    "rediss+sentinel": "featurestore.online.redis_sentinel:SentinelStore",
    "redis+cluster": "featurestore.online.redis_cluster:ClusterStore",
    "rediss+cluster": "featurestore.online.redis_cluster:ClusterStore",
}
"""URL scheme: the class that serves it, called with the URL and `clock=`; imported when it is first used."""


def open_online(url: str, *, clock: Clock | None = None) -> OnlineStore:
    """The online store at `url`; `clock`, where given, stands for the store's own clock.

    Raises ConfigError for a scheme or an option that does not exist, and OnlineStoreError where an embedded
    store cannot be opened. A server is not contacted before the first call.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError("The URL of an online store begins with a scheme, such as lmdb:// or redis://.")
    if scheme not in STORES:
        raise ConfigError(f"No online store has the scheme '{scheme}'.{did_you_mean(scheme, STORES, noun='Schemes')}")
    module, _, name = STORES[scheme].partition(":")
    store: OnlineStore = getattr(import_module(module), name)(url, clock=clock)
    return store

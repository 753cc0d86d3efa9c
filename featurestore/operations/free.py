"""Free what the online store holds of a view version, or of a whole project."""

from __future__ import annotations

from featurestore.stores.online import OnlineStore

__all__ = ["free"]


def free(store: OnlineStore, prefix: bytes) -> int:
    """Delete every key that begins with `prefix`; how many there were."""
    deleted = 0
    for keys in store.scan(prefix):
        store.write(dict.fromkeys(keys))
        deleted += len(keys)
    return deleted

"""Freeing what is served no more, while somebody may still ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from featurestore.errors import NotMaterializedError
from featurestore.online import Guard, OnlineStore, Reading
from featurestore.registry.delete_online import free_project, free_view
from featurestore.serving.lookup import Lookup
from tests.small import NOON, opened, table, view_of


class Watched:
    """A store that scans key by key and lets somebody look after each write."""

    blocking = tagged = False

    def __init__(self, store: OnlineStore, look: Any) -> None:
        self._store, self._look = store, look

    def get(self, keys: Any) -> Reading:
        return self._store.get(keys)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        for keys in self._store.scan(prefix):
            yield from ([key] for key in sorted(keys))

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        written = self._store.write(puts, guard=guard)
        self._look()
        return written

    def close(self) -> None:
        self._store.close()


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_being_freed_is_never_missing(whole: bool) -> None:
    """From the first key that is deleted on, a lookup of that version is refused; none says MISSING of a key."""
    keys = list(range(5))
    with opened(view_of(table(thing=keys, at=[NOON] * 5, x=keys), ["x"])) as (store, _):
        store.materialize(progress=False)
        project = store.config.project
        loaded: Lookup = store.lookup("service")
        assert loaded.get([{"thing": key} for key in keys]).to_dict()["view__x"] == keys
        looks = []

        def look() -> None:
            with pytest.raises(NotMaterializedError):
                loaded.get([{"thing": key} for key in keys])
            looks.append(1)

        version = ("view", store.status()[0].fingerprint)
        watched: Any = Watched(store.online, look)
        if whole:
            freed = free_project(watched, store.registry, project, [version])
        else:
            freed = free_view(watched, store.registry, project, *version)
        assert freed == len(keys) + 2  # and the watermark, and the state of the last run
        assert len(looks) == freed
        assert [keys for keys in store.online.scan(b"") if keys] == []

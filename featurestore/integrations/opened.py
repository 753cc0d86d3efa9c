"""Projects that an integration opens by their path, each once in a process."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from featurestore.declare.problems import shown
from featurestore.errors import FeatureStoreError
from featurestore.store import FeatureStore

StorePath = str | Path
"""Where a project lies: what an object that goes to other processes keeps in place of a store."""


def opened(store: FeatureStore | StorePath, env: str | None = None) -> FeatureStore:
    """The store itself, or that of a path, which stays open as long as the process lives."""
    if isinstance(store, FeatureStore):
        return store
    if not isinstance(store, StorePath):
        raise FeatureStoreError(f"store is a FeatureStore, or the path of a project, and not {shown(store)}")
    return _of_path(str(Path(store).absolute()), env, os.getpid())


@cache
def _of_path(path: str, env: str | None, process: int) -> FeatureStore:  # noqa: ARG001  a fork opens its own
    return FeatureStore(path, env=env)


def path_of(store: FeatureStore | StorePath) -> str:
    """The path that another process opens in place of a store. Raises FeatureStoreError for a temporary one."""
    if not isinstance(store, FeatureStore):
        return str(Path(store).absolute())
    if not any(store.config.root.glob("*.toml")):
        raise FeatureStoreError(
            "A temporary store is of this process alone, so nothing that holds it goes to another one or into a file; several "
            "can open a project in a folder: FeatureStore(path)"
        )
    return str(store.config.root)

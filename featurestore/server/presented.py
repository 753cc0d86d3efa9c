"""The manifests that a server was started with: the versions that it serves to clients that name none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from featurestore.errors import FingerprintError, ManifestError, NotFoundError, OnlineUnavailableError
from featurestore.store import FeatureStore
from featurestore.training.manifest import Manifest


def presented(store: FeatureStore, manifests: Iterable[Any]) -> dict[str, Manifest]:
    """The manifests by service, each of which the store serves or will once it is materialized.

    manifests: what `store.load_manifest` takes. Raises ManifestError where one cannot be read or two are of one service,
    FingerprintError with the difference where a version is refused.
    """
    found: dict[str, Manifest] = {}
    for manifest in map(store.load_manifest, manifests):
        other = found.setdefault(manifest.service, manifest)
        if other.fingerprint != manifest.fingerprint:
            raise ManifestError(
                f"{other.origin} and {manifest.origin} are of two versions of service '{manifest.service}'; start a server "
                "with one, and let the other model name its fingerprint"
            )
    for manifest in found.values():
        with contextlib.suppress(OnlineUnavailableError):  # a server starts without its online store
            store.lookup(manifest)
    return found


def unready(store: FeatureStore, pinned: Mapping[str, Manifest]) -> str | None:
    """Why a server cannot answer in the versions of its manifests; None where it can. Raises OnlineStoreError."""
    for manifest in pinned.values():
        try:
            missing = store.unfilled(manifest)
        except (FingerprintError, NotFoundError) as error:
            return str(error)
        if missing:
            return f"Views of {manifest.service} ({manifest.fingerprint}) have no values online: {', '.join(missing)}"
    return None


def versions(store: FeatureStore, pinned: Mapping[str, Manifest]) -> list[dict[str, Any]]:
    """Each service with the fingerprint that is applied, those that are kept beside it, and that of its manifest."""
    state = store.registry.state()
    applied = {
        name: record["fingerprint"]
        for name, record in store.registry.version(state.generation).document["services"].items()
    }
    names = dict.fromkeys([*applied, *(kept.service for kept in state.kept)])
    return [
        {
            "name": name,
            "fingerprint": applied.get(name),
            "kept": [kept.fingerprint for kept in state.kept if kept.service == name],
            "manifest": pinned[name].fingerprint if name in pinned else None,
        }
        for name in names
    ]

"""Free what the online store holds of a view version, or of a whole project."""

from __future__ import annotations

from collections.abc import Iterable

from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import WATERMARK, key_prefix, project_prefix
from featurestore.registry.documents import pushed_source
from featurestore.registry.store import Registry


def free_view(store: OnlineStore, registry: Registry, project: str, view: str, fingerprint: str) -> int:
    """Delete every key of a view version; how many there were."""
    prefix = _prefix(store, registry, project, view, fingerprint)
    return _free(store, prefix, first=[prefix + WATERMARK])


def free_project(store: OnlineStore, registry: Registry, project: str, versions: Iterable[tuple[str, str]]) -> int:
    """Delete every key of a project; how many there were. versions: (view, fingerprint) that may be served now."""
    watermarks = [_prefix(store, registry, project, *version) + WATERMARK for version in versions]
    return _free(store, project_prefix(project), first=watermarks)


def _prefix(store: OnlineStore, registry: Registry, project: str, view: str, fingerprint: str) -> bytes:
    """What the keys of a version begin with that was applied at some time."""
    tagged, pushed = store.tagged, None
    if tagged:
        documents = (version.document for version in registry.history())
        found = (one for one in documents if one["views"].get(view, {}).get("fingerprint") == fingerprint)
        pushed = next((pushed_source(document, view) for document in found), None)
    return key_prefix(project, view, fingerprint, pushed=pushed, tagged=tagged)


def _free(store: OnlineStore, prefix: bytes, *, first: list[bytes]) -> int:
    """Watermarks go first: who still asks for what is freed learns that it is gone, and never that its keys are MISSING."""
    values, damaged = read_past_damage(store, first)
    deleted = len(damaged) + sum(value is not None for value in values)
    store.write(dict.fromkeys(first))
    for keys in store.scan(prefix):
        store.write(dict.fromkeys(keys))
        deleted += len(keys)
    return deleted

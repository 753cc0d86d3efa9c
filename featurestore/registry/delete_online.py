"""Free what the online store holds of a view version, or of a whole project."""

from __future__ import annotations

from collections.abc import Iterable

from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import WATERMARK, ViewCodec, project_prefix


def free_view(store: OnlineStore, project: str, view: str, fingerprint: str) -> int:
    """Delete every key of a view version; how many there were."""
    prefix = ViewCodec.prefix_of(project, view, fingerprint)
    return _free(store, prefix, first=[prefix + WATERMARK])


def free_project(store: OnlineStore, project: str, versions: Iterable[tuple[str, str]]) -> int:
    """Delete every key of a project; how many there were. versions: (view, fingerprint) that may be served now."""
    watermarks = [ViewCodec.prefix_of(project, *version) + WATERMARK for version in versions]
    return _free(store, project_prefix(project), first=watermarks)


def _free(store: OnlineStore, prefix: bytes, *, first: list[bytes]) -> int:
    """Watermarks go first: who still asks for what is freed learns that it is gone, and never that its keys are MISSING."""
    values, damaged = read_past_damage(store, first)
    deleted = len(damaged) + sum(value is not None for value in values)
    store.write(dict.fromkeys(first))
    for keys in store.scan(prefix):
        store.write(dict.fromkeys(keys))
        deleted += len(keys)
    return deleted

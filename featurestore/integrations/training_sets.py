"""What a framework is told of a training set that was written: the same everywhere, under the framework's own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featurestore.declare.frames import content_digest
from featurestore.lazy import pq
from featurestore.sources.object_stores import readable
from featurestore.training.manifest import load_manifest


def facts(path: str | Path) -> dict[str, Any]:
    """Of a file that `to_parquet` wrote: service, fingerprint, how many rows, and a digest of its content, which is equal for
    the same values, whenever they were written."""
    manifest = load_manifest(path)
    told = {"service": manifest.service, "fingerprint": manifest.fingerprint, "rows": manifest.raw["rows"]}
    return {**told, "content": content_digest(pq.read_table(readable(path)))}

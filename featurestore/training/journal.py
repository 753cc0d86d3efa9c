"""Which training frames were written, and where: entries in the registry, for lineage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featurestore.errors import RegistryError
from featurestore.registry.frames import WrittenFrame, feature_id, on_demand_id
from featurestore.registry.store import Registry
from featurestore.semantics.service import ResolvedService
from featurestore.training.training_frame import TrainingFrame, manifest_beside

__all__ = ["journalled"]


def journalled(
    frame: TrainingFrame, service: ResolvedService, registry: Registry, now: Callable[[], int]
) -> TrainingFrame:
    """The frame, which enters the registry when it is written; a registry that cannot be written to stops nobody.

    now: the clock (µs).
    """

    def enter(path: Path, manifest: dict[str, Any]) -> None:
        reads = [feature_id(part.view.name, feature.name) for part in service.parts for feature in part.features]
        reads += [on_demand_id(item.name) for item in service.on_demand]
        place = path.absolute()
        written = WrittenFrame(
            path=str(place), service=service.name, fingerprint=service.fingerprint, rows=manifest["rows"],
            written=now(), manifest=str(manifest_beside(place)), reads=tuple(reads),
        )  # fmt: skip
        with contextlib.suppress(RegistryError):
            registry.record_frame(written)

    frame.on_written = enter
    return frame

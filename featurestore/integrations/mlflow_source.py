"""What MLflow says of where a training set comes from. It is a module of its own, as `import mlflow` itself imports it."""

from __future__ import annotations

from typing import Any, Self

from mlflow.data.dataset_source import DatasetSource

from featurestore.declare.problems import shown
from featurestore.errors import ManifestError
from featurestore.lazy import pa, pq
from featurestore.sources.object_stores import readable
from featurestore.training.manifest import Manifest, load_manifest
from featurestore.training.training_frame import TrainingFrame

KIND = "featurestore"


class TrainingSetSource(DatasetSource):  # type: ignore[misc]  # the base class has no types
    """Where a training set comes from: the service, the fingerprint of all that can change a value, the files that were read, and
    the Parquet file that it was written to, if any."""

    def __init__(self, manifest: Manifest, path: str | None = None) -> None:
        self.manifest = manifest
        self.path = path

    @staticmethod
    def _get_source_type() -> str:
        return KIND

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, (TrainingFrame, Manifest))

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        return cls(load_manifest(raw_source))

    def load(self) -> pa.Table:
        """The training set that was written, as an Arrow table with its manifest. ManifestError where it was not, or is of other
        features by now."""
        if self.path is None:
            raise ManifestError(
                f"The training set of {self.manifest} was not written; frame.to_parquet(path) does it, and path= names it"
            )
        found = load_manifest(self.path)
        if found.fingerprint != self.manifest.fingerprint:
            raise ManifestError(f"{self.path} is of {found} by now, and the run was of {self.manifest}")
        return pq.read_table(readable(self.path))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        said = self.manifest
        sources = {name: [dict(file) for file in files] for name, files in said.sources.items()}
        return {
            "service": said.service,
            "fingerprint": said.fingerprint,
            "views": dict(said.views),
            "sources": sources,
            "path": self.path,
        }

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> Self:
        """The source that `to_dict` told."""
        if not isinstance(source_dict, dict):
            raise ManifestError(f"The source of a training set is an object, and not {shown(source_dict)}")
        said = dict(source_dict)
        path = said.pop("path", None)
        return cls(load_manifest(said), path)

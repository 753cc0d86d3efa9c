"""Training frames that lie in a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurestore.declare.sources import is_url
from featurestore.durable.disk import told
from featurestore.engines.asked_frame import AskedFrame
from featurestore.engines.ray.ray_rows import RayRun, result_of
from featurestore.engines.ray.ray_tasks import shown, write_part
from featurestore.errors import FeatureStoreError
from featurestore.sources.object_stores import check_writable, entries
from featurestore.training.kernel import Counts
from featurestore.training.training_frame import writable_folder


class RayFrame:
    """A training frame that lies in a Ray cluster; made by `RayEngine`. Its rows come in no order."""

    def __init__(self, run: RayRun, counts: Counts, asked: AskedFrame, spine: Sequence[str]) -> None:
        self._run, self._counts, self._asked = run, counts, asked
        self._columns = asked.columns(spine)
        self.manifest = asked.manifest
        """What the frame is made of. What is counted is in that which `to_parquet` returns."""

    def __repr__(self) -> str:
        return f"RayFrame of service '{self.manifest['service']}': {', '.join(self._columns)}"

    @property
    def dataset(self) -> Any:
        """The rows as a Ray dataset: the spine's columns, then the features. They are computed now, anew with each use, and lie in the
        cluster. ExpectationError where rows of files are not as a view expects them that refuses such."""
        import ray

        tables, counts = self._run.tables()
        show = ray.remote(shown)
        self._asked.counted(sum(result_of(counts), self._counts))
        return ray.data.from_arrow_refs([show.remote(table, self._columns) for table in tables])

    def to_parquet(self, folder: str | Path) -> dict[str, Any]:
        """Write the rows as a folder of Parquet files, by the workers; the manifest, what was counted in it, is returned and lies beside
        the folder.

        folder: of a disk that all nodes have, or the URL of one in an object store, as text. FeatureStoreError where it holds anything
        already. FilesChangedError where a file of a source was changed since it was listed: then what was written is not to be used.
        """
        import ray

        place = _empty_folder(folder)
        write = ray.remote(write_part)
        tables, counts = self._run.tables()
        written = [write.remote(table, self._columns, str(place), number) for number, table in enumerate(tables)]
        del tables  # so that what is written leaves the cluster's memory
        result_of(written)
        counted = sum(result_of(counts), self._counts)
        manifest = self._asked.counted(counted)
        self._asked.enter(place, manifest, counted)
        return manifest


def _empty_folder(folder: str | Path) -> Path | str:
    """A folder that holds nothing, which is made on a disk; or the URL of one."""
    try:
        if isinstance(folder, str) and is_url(folder):
            check_writable(f"{folder.rstrip('/')}/part")
            place: Path | str = folder.rstrip("/")
            held = [name for name, *_ in entries(folder)]
        else:
            place = writable_folder(folder).absolute()
            place.mkdir(exist_ok=True)
            held = [item.name for item in place.iterdir()]
    except OSError as error:
        raise FeatureStoreError(f"The training frame cannot be written to {folder}: {told(error)}") from error
    if held:
        raise FeatureStoreError(f"{place} holds {min(held)}: name a folder that is empty, or not there")
    return place

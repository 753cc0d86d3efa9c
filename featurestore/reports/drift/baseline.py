"""The frame that served values are compared with: a training frame, in memory or in a Parquet file, or any frame of the features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurestore.declare.frames import table_of
from featurestore.declare.problems import shown
from featurestore.declare.sources import is_url
from featurestore.durable.parquet import parquet_file, restored
from featurestore.errors import RequestError
from featurestore.lazy import pa
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.values import canonical_chunks
from featurestore.sources.object_stores import readable
from featurestore.sources.unreadable import no_parquet
from featurestore.training.manifest import Manifest, load_manifest, manifest_in
from featurestore.training.training_frame import TrainingFrame


@dataclass(frozen=True)
class Baseline:
    """A frame, and which version of which service it is of, where its manifest says that."""

    title: str
    """How messages call it."""
    service: str | None
    fingerprint: str | None
    read: Callable[[list[str]], pa.Table]
    """The columns of these names, as far as it has them."""

    @classmethod
    def of(cls, given: Any) -> Baseline:
        """A path of a Parquet file, or its URL in an object store, a TrainingFrame, or a frame of another kind. Raises RequestError and ManifestError."""
        if isinstance(given, (str, Path)):
            return _of_file(given if isinstance(given, str) and is_url(given) else Path(given))
        if isinstance(given, TrainingFrame):
            table = given.to_arrow()
            return _of_table(table, "the training frame", load_manifest(given))
        try:
            table = table_of(given, owned=True)
        except (TypeError, ValueError) as error:
            why = "" if isinstance(error, TypeError) else f": {error}"
            raise RequestError(
                f"baseline is a training frame, the Parquet file that it was written to, or a frame with the features' columns, "
                f"and {shown(given)} is none{why}"
            ) from None
        return _of_table(table, "the baseline", manifest_in(table))

    def columns(self, version: ResolvedService) -> pa.Table:
        """The service's columns that it has, in the forms of their types where they have these types. RequestError where it
        has none, or no rows."""
        names = [column.name for column in version.columns]
        table = self.read(names)
        own = {*table.column_names}
        there = [column for column in version.columns if column.name in own]
        if not there:
            raise RequestError(f"{self.title} has none of the columns of service '{version.name}': {', '.join(names)}")
        if not table.num_rows:
            raise RequestError(f"{self.title} has no rows, so that there is nothing to compare with")
        return pa.table(
            {
                column.name: canonical_chunks(table[column.name], column.type)
                if table[column.name].type == column.type.arrow
                else table[column.name]
                for column in there
            }
        )


def _of_table(table: pa.Table, title: str, manifest: Manifest | None) -> Baseline:
    def read(names: list[str]) -> pa.Table:
        own = {*table.column_names}
        return table.select([name for name in names if name in own])

    return _baseline(title, manifest, read)


def _of_file(place: Path | str) -> Baseline:
    def read(names: list[str]) -> pa.Table:
        try:
            with parquet_file(readable(place)) as file:
                there = file.schema_arrow.names
                return restored(file.read([name for name in names if name in there]))
        except (OSError, pa.ArrowException) as error:
            raise RequestError(no_parquet(str(place), error)) from None

    if isinstance(place, Path) and not place.is_file():
        raise RequestError(f"baseline: there is no file {place}")
    return _baseline(str(place), manifest_in(place), read)


def _baseline(title: str, manifest: Manifest | None, read: Callable[[list[str]], pa.Table]) -> Baseline:
    if manifest is None:
        return Baseline(title, None, None, read)
    return Baseline(title, manifest.service, manifest.fingerprint, read)

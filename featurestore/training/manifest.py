"""Manifests: what a training frame was made of, read back to be presented to a server, which serves that or refuses."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from featurestore.declare.problems import no_json, problems
from featurestore.declare.sources import is_url
from featurestore.durable.checksums import CHECK, unsigned
from featurestore.errors import ManifestError
from featurestore.lazy import pa, pq
from featurestore.semantics.view import fingerprint_of
from featurestore.sources.object_stores import ObjectStoreError, looked_at, readable
from featurestore.sources.unreadable import no_parquet
from featurestore.training.training_frame import MANIFEST_KEY, TrainingFrame, manifest_beside

LIBRARIES = ("featurestore", "duckdb", "numpy", "pandas", "pyarrow")
PARQUET = b"PAR1"
"""How a Parquet file begins."""


class Manifest(BaseModel):
    """What a training frame was made of. It cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)

    service: str = Field(min_length=1)
    """The name of the service that a model was trained on."""
    fingerprint: str = Field(pattern="^[0-9a-f]{32}$")
    """Which version of it: 32 hex digits."""
    definition: dict[str, Any] | None = Field(default=None, repr=False)
    """All that can change what that gives, as plain JSON. None: in manifests of old."""
    columns: dict[str, str] = Field(default_factory=dict, repr=False)
    """By name the type of each feature column, in order."""
    views: dict[str, str] = Field(default_factory=dict, repr=False)
    """By name in the service the value fingerprint of each view."""
    sources: dict[str, tuple[dict[str, Any], ...]] = Field(default_factory=dict, repr=False)
    """By name the files that were read, each with path, size (bytes), modified_ns and, of a Parquet file of this machine, a digest of its footer; of a Delta table its table_version, of an Iceberg table its snapshot and schema_id."""
    versions: dict[str, str] = Field(default_factory=dict, repr=False)
    """By name the version of each library that values pass through."""
    created: datetime | None = None
    """When the frame was made. None: in manifests of old."""
    raw: dict[str, Any] = Field(default_factory=dict, repr=False)
    """All that the manifest says, as plain JSON."""
    origin: str = ""
    """Where it was read from; empty where it was not read."""

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> Self:
        if self.definition is not None and fingerprint_of(self.definition) != self.fingerprint:
            raise ValueError(
                f"its definition has fingerprint {fingerprint_of(self.definition)} and not {self.fingerprint}, which it "
                "says; it was changed since it was written"
            )
        return self

    def __str__(self) -> str:
        return f"{self.service}@{self.fingerprint}"


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that values pass through, here."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def may_hold_manifest(given: Any) -> bool:
    """Whether `load_manifest` takes it for a manifest, or for what holds one, beside the text of a path."""
    if isinstance(given, (Manifest, Mapping, TrainingFrame, Path)):
        return True
    return "pyarrow" in sys.modules and isinstance(given, pa.Table)  # else nobody has made a table


def load_manifest(given: Any) -> Manifest:
    """The manifest of a training frame.

    given: a Parquet file that `to_parquet` wrote, whose manifest is read from it, or from beside it where it was written
    anew by another program; any other file that has one beside it, as TFRecords do; a JSON file; each also by its URL in an
    object store, as text; a TrainingFrame or its Arrow table; a manifest as a dict. Raises ManifestError.
    """
    if isinstance(given, Manifest):
        return given
    if isinstance(given, Mapping):
        return _manifest(given, "a dict")
    if isinstance(given, TrainingFrame):
        return _manifest(given.manifest, "a training frame")
    if isinstance(given, pa.Table):
        found = manifest_in(given)
        if found is None:
            raise ManifestError("The Arrow table has no manifest in its schema's metadata; was it made by to_arrow()?")
        return found
    if isinstance(given, (str, Path)):
        if not Path(given).name:
            raise ManifestError(f"{str(given)!r} is no file; give a Parquet or JSON file, a training frame or a dict")
        try:
            return _of_place(given if isinstance(given, str) and is_url(given) else Path(given))
        except ObjectStoreError as error:
            raise ManifestError(str(error)) from None
    raise ManifestError(
        f"{type(given).__name__} is no manifest; give a training frame as get_historical_features returned it, the Parquet or JSON file "
        "that it was written to, or a dict"
    )


def manifest_in(given: Path | str | pa.Table) -> Manifest | None:
    """The manifest of a Parquet file, in it or beside it, or of an Arrow table; None if it has none. given: a path, a URL in an
    object store as text, or a table. Raises ManifestError of what cannot be read."""
    if isinstance(given, pa.Table):
        return _stamped(given.schema, "an Arrow table")
    try:
        return _of_parquet(given)
    except ObjectStoreError as error:
        raise ManifestError(str(error)) from None


def _of_place(place: Path | str) -> Manifest:
    beside = manifest_beside(place)
    name = str(beside).rpartition("/")[2]
    if not _is_file(place):
        if _is_file(beside):
            return _of_json(beside)
        raise ManifestError(f"There is no file {place}, nor {name} beside it")
    with _opened(place) as file:
        if file.read(len(PARQUET)) != PARQUET:
            return _of_json(beside if _is_file(beside) else place)
    found = _of_parquet(place)
    if found is None:
        raise ManifestError(f"{place} has no manifest in its metadata, and there is no {name} beside it")
    return found


def _of_parquet(place: Path | str) -> Manifest | None:
    beside = manifest_beside(place)
    try:
        with _opened(place) as file:
            within = _stamped(pq.read_schema(file), str(place))
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(no_parquet(str(place), error)) from None
    written = _of_json(beside) if _is_file(beside) else None
    if within is not None and written is not None and within.fingerprint != written.fingerprint:
        name = str(beside).rpartition("/")[2]
        raise ManifestError(
            f"{place} says {within}, and {name} beside it says {written}; one of them is of another training frame"
        )
    return within or written


def _is_file(place: Path | str) -> bool:
    return place.is_file() if isinstance(place, Path) else looked_at([place])[0] is not None


def _opened(place: Path | str) -> Any:
    return place.open("rb") if isinstance(place, Path) else readable(place)


def _of_json(place: Path | str) -> Manifest:
    try:
        with _opened(place) as file:
            said = json.loads(file.read())
    except ObjectStoreError:
        raise
    except OSError as error:
        raise ManifestError(f"{place} cannot be read: {error.strerror or error}") from None
    except ValueError:  # of JSON, or of UTF-8
        raise ManifestError(f"{place} is neither a Parquet file nor JSON") from None
    return _manifest(said, str(place))


def _stamped(schema: pa.Schema, origin: str) -> Manifest | None:
    text = (schema.metadata or {}).get(MANIFEST_KEY)
    if text is None:
        return None
    try:
        return _manifest(json.loads(text), origin)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{origin}: the manifest in its metadata is no JSON: {no_json(error)}") from None


def _manifest(said: Any, origin: str) -> Manifest:
    if not isinstance(said, Mapping):
        raise ManifestError(f"{origin} is no manifest: it is {type(said).__name__} and no object")
    try:
        said = unsigned(said) if CHECK in said else said
    except ValueError as error:
        raise ManifestError(f"{origin} is damaged, or was changed by hand: {error}") from None
    try:
        return Manifest(**{**said, "raw": dict(said), "origin": origin})
    except ValidationError as error:
        raise ManifestError(f"{origin} is no manifest of a training frame: {problems(error)}") from None

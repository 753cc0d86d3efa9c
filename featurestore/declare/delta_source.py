"""A Delta Lake table as a source: which of its files count is told by its log."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Unpack

from pydantic import Field

from featurestore.declare.declaration import declares
from featurestore.declare.sources import FileSource, SourceOptions, said_paths
from featurestore.types import FeatureType


class DeltaSource(FileSource):
    """A Delta Lake table in a folder or an object store: `DeltaSource("orders", "lake/orders", event_time="at")`.

    Its rows are those of the table's newest version, or of the one that `table_version` names; rows that were deleted do not count.
    Columns that were added to it are null in rows from before. It takes the extra `delta`.
    """

    FORMAT: ClassVar[str] = "Delta"
    SUFFIXES: ClassVar[tuple[str, ...]] = ()
    REMOTE: ClassVar[bool] = True
    IMMUTABLE: ClassVar[bool] = True
    PINNED_AS: ClassVar[str] = "table_version"

    kind: Literal["delta"] = "delta"
    """Which of the sources it is."""
    table_version: Annotated[int, Field(ge=0)] | None = None
    """The version of the table. None: the newest."""

    def may_lack(self, column: str) -> bool:  # noqa: ARG002
        """A file may be without any column: it was written before the table had it."""
        return True

    @declares
    def __init__(
        self,
        name: str,
        path: str | Path,
        *,
        table_version: int | None = None,
        partitions: Mapping[str, FeatureType | str | None] | None = None,
        **options: Unpack[SourceOptions],
    ) -> None:
        self.fill(
            name=name,
            path=said_paths(_one(path), remote=True),
            table_version=table_version,
            partitions=partitions or {},
            **options,
        )


def _one(path: object) -> object:
    if isinstance(path, (list, tuple)):
        raise ValueError("path: a table lies in one folder; of several, declare several sources")
    return path

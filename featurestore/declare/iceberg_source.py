"""An Apache Iceberg table as a source: which of its files count is told by its metadata, and where that lies by a catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, Unpack

from pydantic import Field, PrivateAttr, model_validator

from featurestore.declare.declaration import declares
from featurestore.declare.sources import FileSource, Paths, SourceOptions, said_paths


class IcebergSource(FileSource):
    """An Apache Iceberg table: `IcebergSource("orders", catalog="lake", table="sales.orders", event_time="at")`.

    `lake` is a name of `[catalogs]` in featurestore.toml, which says what it is. Or `path` names the folder of a table on this
    machine, of which the newest metadata count, or a file of metadata. Its rows are those of the current snapshot, or of the one
    that `snapshot` or `ref` names; rows that were deleted do not count. It takes the extra `iceberg`.
    """

    FORMAT: ClassVar[str] = "Iceberg"
    SUFFIXES: ClassVar[tuple[str, ...]] = ()
    IMMUTABLE: ClassVar[bool] = True
    PINNED_AS: ClassVar[str] = "snapshot"

    _schema: int | None = PrivateAttr(default=None)

    kind: Literal["iceberg"] = "iceberg"
    """Which of the sources it is."""
    path: Annotated[Paths, Field(max_length=1)] = ()
    """The folder of the table, which holds `metadata/`, or a file `….metadata.json`. Empty: a catalog knows it."""
    catalog: str | None = None
    """The name that `[catalogs]` of featurestore.toml has for the catalog. None: the table is named by its path."""
    table: str | None = None
    """The table in the catalog, with its namespace: "sales.orders". None: the table is named by its path."""
    snapshot: Annotated[int, Field(ge=0)] | None = None
    """The id of the snapshot. None: the current one, or that of `ref`."""
    ref: str | None = None
    """The branch or tag whose snapshot it is. None: the main branch, or what `snapshot` says."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.path and (self.catalog or self.table):
            raise ValueError("path and catalog are two ways to say where the table lies; say one")
        if not self.path and not (self.catalog and self.table):
            raise ValueError("catalog and table must be said, or path: where the table lies")
        if self.snapshot is not None and self.ref is not None:
            raise ValueError("snapshot and ref are two ways to say which rows there are; say one")
        return self

    def may_lack(self, column: str) -> bool:  # noqa: ARG002
        """A file may be without any column: it was written before the table had it."""
        return True

    def pinned(self, state: int, schema: int | None = None) -> Self:
        """The same source, of whose table a snapshot is read, whichever branch it is of, with the columns of a schema: a table's columns
        are renamed, added and widened without a new snapshot. None: those of when the snapshot was made."""
        source = self.model_copy(update={"snapshot": state, "ref": None})
        source._schema = schema
        return source

    @property
    def columns_of(self) -> int | None:
        """The id of the table's schema whose columns are read; None: the snapshot's where one is named, else the current one."""
        return self._schema

    @declares
    def __init__(
        self,
        name: str,
        path: str | Path | None = None,
        *,
        catalog: str | None = None,
        table: str | None = None,
        snapshot: int | None = None,
        ref: str | None = None,
        **options: Unpack[SourceOptions],
    ) -> None:
        for word, said in (("catalog", catalog), ("table", table), ("ref", ref)):
            if said == "":
                raise ValueError(f"{word}: must not be empty")
        place = () if path is None else said_paths(path)
        self.fill(name=name, path=place, catalog=catalog, table=table, snapshot=snapshot, ref=ref, **options)

"""Sources of text: CSV files and JSON lines, whose columns' types are declared, since nothing in the files says them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, Unpack

from pydantic import BeforeValidator, Field, field_validator, model_validator

from featurestore.declare.declaration import StoredName, TypeField, declares
from featurestore.declare.problems import shown
from featurestore.declare.sources import FileSource, SourceOptions, said_paths
from featurestore.errors import did_you_mean
from featurestore.types import FeatureType


def _texts(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class TextSource(FileSource):
    """Rows in files of text; the schema says which columns are read, and as what. Others are passed over."""

    SAID_AS: ClassVar[Mapping[str, str]] = {"columns": "schema"}

    columns: Annotated[dict[StoredName, TypeField], Field(min_length=1, examples=["{'user': String}"])]
    """By name the type of each column that is read; it is given as `schema`."""

    @property
    def declared_types(self) -> dict[str, FeatureType]:
        """Those of its schema."""
        return dict(self.columns)

    @property
    def reading(self) -> dict[str, Any]:
        """All of how it is declared by which the same text is another value."""
        return self.model_dump(mode="json", include={"kind", "columns", "delimiter", "null", "timezone", "optional"})

    @model_validator(mode="after")
    def _named(self) -> Self:
        lower: dict[str, str] = {}
        for column in self.columns:
            other = lower.setdefault(column.lower(), column)
            if other != column:
                raise ValueError(
                    f"schema: columns '{other}' and '{column}' differ in case alone, which SQL cannot tell apart"
                )
        for column in (*self.option_columns, *self.optional):
            if column not in self.columns and column not in self.derived and column not in self.partitions:
                option = "optional" if column in self.optional else self.option_of(column)
                hint = did_you_mean(column, self.columns, noun="Its columns")
                raise ValueError(f"{option}: the schema has no column '{column}'.{hint}")
        return self


class CsvSource(TextSource):
    """CSV files: a file, a glob, a directory, or a list of them, plain or compressed with gzip (`.gz`).

    `CsvSource("landings", "landings.csv", schema={"carrier": String, "landed_at": Timestamp}, event_time="landed_at")`; the
    first line names the columns. Text is UTF-8, in double quotes where it holds the delimiter, a line's end or a quote.
    A Timestamp is ISO 8601; without an offset it is in the source's timezone.
    """

    FORMAT: ClassVar[str] = "CSV"
    SUFFIXES: ClassVar[tuple[str, ...]] = (".csv", ".csv.gz")

    kind: Literal["csv"] = "csv"
    """Which of the sources it is."""
    delimiter: str = ","
    """The sign between two values of a line."""
    null: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ("",)
    """The texts that stand for null where they are not in quotes."""

    @property
    def value_words(self) -> dict[str, Any]:
        """Which texts are null, where that is not only the empty one."""
        return {} if self.null == ("",) else {"null": list(self.null)}

    @field_validator("delimiter")
    @classmethod
    def _one_sign(cls, value: str) -> str:
        if len(value) != 1 or not value.isascii() or value in '"\r\n\0':
            raise ValueError(f"must be one ASCII sign such as ',' or ';', and is {shown(value)}")
        return value

    @declares
    def __init__(
        self,
        name: str,
        path: str | Path | list[str] | tuple[str, ...],
        *,
        schema: Mapping[str, FeatureType | str],
        delimiter: str = ",",
        null: str | list[str] | tuple[str, ...] = ("",),
        partitions: Mapping[str, FeatureType | str | None] | None = None,
        optional: str | list[str] | tuple[str, ...] = (),
        **options: Unpack[SourceOptions],
    ) -> None:
        self.fill(
            name=name, path=said_paths(path), columns=schema, delimiter=delimiter, null=null, partitions=partitions or {},
            optional=optional, **options,
        )  # fmt: skip


class JsonLinesSource(TextSource):
    """Files of one JSON object a line: a file, a glob, a directory, or a list of them, plain or compressed with gzip (`.gz`).

    `JsonLinesSource("swipes", "swipes.jsonl", schema={"card": String, "at": Timestamp}, event_time="at")`; values are in the
    JSON forms in which they are pushed, and a key that is left out is null. A Timestamp without an offset is in the source's
    timezone.
    """

    FORMAT: ClassVar[str] = "JSON lines"
    SUFFIXES: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")

    kind: Literal["jsonl"] = "jsonl"
    """Which of the sources it is."""

    @declares
    def __init__(
        self,
        name: str,
        path: str | Path | list[str] | tuple[str, ...],
        *,
        schema: Mapping[str, FeatureType | str],
        partitions: Mapping[str, FeatureType | str | None] | None = None,
        **options: Unpack[SourceOptions],
    ) -> None:
        self.fill(name=name, path=said_paths(path), columns=schema, partitions=partitions or {}, **options)

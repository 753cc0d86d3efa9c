"""Partitions: columns whose values stand in the names of the folders that files lie in, `name=value`.

A file's values are a function of its own name within its source, so they hang neither on where the project lies nor on what
other files there are. Names and values are written as Hive, Spark and Arrow write them: percent-encoded, and a null as
`__HIVE_DEFAULT_PARTITION__`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

from featurestore.clock import datetime_of
from featurestore.declare.sources import FileSource
from featurestore.errors import SourceError, did_you_mean
from featurestore.lazy import duckdb, pa
from featurestore.semantics.columns import ZONED, type_of_column
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.sql import literal, quote
from featurestore.sources.source_files import SourceFile, source_error
from featurestore.sources.text.texts import value_of
from featurestore.types import Date, FeatureType, Int64, String, Timestamp

WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)

FILE_NUMBER = "uint64"
"""As DuckDB numbers the files that it reads: a join of another type casts both sides for each row."""

NULL = "__HIVE_DEFAULT_PARTITION__"


def folder_values(source: FileSource, file: SourceFile) -> dict[str, str | None]:
    """What the folders' names say of a file, by column; without those that the source says are none."""
    said: dict[str, str | None] = {}
    for folder in file.name.split("/")[:-1]:
        name, separator, text = folder.partition("=")
        if not separator or not name:
            continue
        try:
            name, value = unquote(name, errors="strict"), unquote(text, errors="strict")
        except UnicodeDecodeError:
            raise source_error(
                source, f"folder '{folder}' of {file.path} is percent-encoded, and not as UTF-8"
            ) from None
        if source.partitions.get(name, String) is None:
            continue
        if name in said and said[name] != (None if value == NULL else value):
            raise source_error(source, f"the folders of {file.path} say two values of '{name}'")
        said[name] = None if value == NULL else value
    return said


def partition_columns(
    source: FileSource, files: Sequence[SourceFile]
) -> dict[str, tuple[FeatureType, list[str | None]]]:
    """The columns that the folders of these files make: by name the type, and what the folder of each file says."""
    said = [folder_values(source, file) for file in files]
    for file, values in zip(files, said, strict=True):
        if values.keys() != said[0].keys():
            shown = " and ".join(
                f"{of.path} has {', '.join(sorted(names)) or 'none'}"
                for of, names in ((files[0], said[0]), (file, values))
            )
            odd = min(values.keys() ^ said[0].keys())
            raise source_error(
                source,
                f"its files lie in folders of different partitions: {shown}; where such a folder is no column, say "
                f"partitions={{{odd!r}: None}}",
            )
    missing = [name for name, of in source.partitions.items() if of is not None and name not in said[0]]
    if missing:
        raise source_error(
            source,
            f"partitions names '{missing[0]}', and there is no folder '{missing[0]}=…' between the place that its path "
            f"names and {files[0].path}: name the folder above it, or a pattern for it"
            f"{did_you_mean(missing[0], said[0], noun='Its partitions')}",
        )
    return {name: (partition_type(source, name), [values[name] for values in said]) for name in said[0]}


def partition_type(source: FileSource, name: str) -> FeatureType:
    """As what a partition is read."""
    return source.partitions.get(name) or (Date if name in source.time_columns else String)


def guessed_types(source: FileSource, files: Sequence[SourceFile]) -> dict[str, FeatureType]:
    """As what undeclared partitions could be declared: Int64 or Date, where all the texts that are there would do."""
    guessed = {}
    for name, (of, texts) in partition_columns(source, files).items():
        said = [text for text in texts if text is not None]
        if of == String and name not in source.partitions and said:
            for pattern, type_ in ((WHOLE, Int64), (DAY, Date)):
                if all(pattern.fullmatch(text) for text in said):
                    guessed[name] = type_
    return guessed


def _has_zone(text: str) -> bool:
    try:
        return datetime_of(text).tzinfo is not None
    except ValueError:
        return True  # it is no timestamp at all, as is said where it is read


def values_table(
    source: FileSource, files: Sequence[SourceFile], columns: Mapping[str, tuple[FeatureType, list[str | None]]]
) -> pa.Table:
    """The values by number of a file: `number`, then `p0, p1, …`, the columns in order."""
    arrays: dict[str, pa.Array] = {"number": pa.array(range(len(files)), FILE_NUMBER)}
    for place, (name, (of, texts)) in enumerate(columns.items()):
        values = []
        for file, text in zip(files, texts, strict=True):
            try:
                if of == Timestamp and text is not None and source.timezone and not _has_zone(text):
                    raise ValueError(f"it has no offset from UTC, and the source's zone is {source.timezone}")
                values.append(value_of(text, of))
            except ValueError as error:
                raise source_error(
                    source,
                    f"partition '{name}' is {of}, and {file.path} says {text!r} of it: {error}. Say its type in "
                    f"partitions={{{name!r}: …}}",
                ) from None
        arrays[f"p{place}"] = pa.array(values, of.arrow)
    return pa.table(arrays)


def check_own_columns(
    connection: duckdb.DuckDBPyConnection, source: FileSource, files: Sequence[SourceFile],
    partitions: Mapping[str, tuple[FeatureType, list[str | None]]], stored: Mapping[str, str],
    agreed: set[tuple[str, SourceFile]], *, read: Callable[[Sequence[SourceFile]], Scan],
) -> None:  # fmt: skip
    """SourceError where files have a column of their own that says something else than the folder that they lie in.

    stored: the files' own columns with their DuckDB types. agreed: (partition, file) that were looked at before; it grows.
    read: how SQL reads some of the files.
    """
    lower = {name.lower(): name for name in stored}
    for name, (_, texts) in partitions.items():
        own = lower.get(name.lower())
        if own is None:
            continue
        if own != name:
            raise source_error(
                source,
                f"folder '{name}=…' and the files' own column '{own}' differ in case alone; say partitions={{{name!r}: None}} to read the "
                "files' column alone",
            )
        said = source.partitions.get(name)
        of = type_of_column(stored[name])
        if of is None or of.kind in {"Bytes", "Array", "Embedding"} or (said is not None and said != of):
            raise source_error(
                source,
                f"the files have a column '{name}' of their own, {stored[name]}, beside the folders '{name}=…'"
                f"{'' if said is None else f', which partitions says are {said}'}; say partitions={{{name!r}: None}} to read the files' column alone",
            )
        new = [(file, text) for file, text in zip(files, texts, strict=True) if (name, file) not in agreed]
        if new:
            _check_equal(connection, source, (name, stored[name], of), new, scan=read([file for file, _ in new]))
        agreed.update((name, file) for file, _ in new)


def _check_equal(
    connection: duckdb.DuckDBPyConnection, source: FileSource, column: tuple[str, str, FeatureType],
    files: Sequence[tuple[SourceFile, str | None]], *, scan: Scan,
) -> None:  # fmt: skip
    """SourceError where a row of some file says something else in a column (its name and types) than the folder's text."""
    name = column[0]
    compared, read = _compared(source, column, [text for _, text in files])
    values = []
    for file, text in files:
        try:
            values.append(value_of(text, compared))
        except ValueError:
            raise _differs(source, name, file, "other values", text) from None
    connection.register("folder_says", pa.table({"n": range(len(files)), "v": pa.array(values, compared.arrow)}))
    found = connection.execute(
        f"SELECT r.n, r.shown FROM (SELECT {scan.file} AS n, {read} AS v, "
        f"CAST({quote(name)} AS VARCHAR) AS shown FROM {scan.relation}) r JOIN folder_says s ON s.n = r.n "
        "WHERE r.v IS DISTINCT FROM s.v LIMIT 1"
    ).fetchall()
    connection.unregister("folder_says")
    if found:
        number, shown = found[0]
        raise _differs(source, name, files[number][0], repr(shown), files[number][1])


def _compared(
    source: FileSource, column: tuple[str, str, FeatureType], texts: Sequence[str | None]
) -> tuple[FeatureType, str]:
    """As what a column is compared with folders' texts, and the SQL that reads it so: instants with days by their day."""
    name, raw, of = column
    if of == Timestamp and all(text is None or DAY.fullmatch(text) for text in texts):
        local = f"timezone({literal(source.timezone or 'UTC')}, {quote(name)})" if raw in ZONED else quote(name)
        return Date, f"CAST({local} AS DATE)"
    return of, f"CAST({quote(name)} AS VARCHAR)" if of == String else quote(name)


def _differs(source: FileSource, name: str, file: SourceFile, said: str, text: str | None) -> SourceError:
    return source_error(
        source,
        f"{file.path} has a column '{name}' of its own, and it says {said} where the folder says {text!r}. What a file says "
        f"is never replaced: say partitions={{{name!r}: None}} to read the files' column alone, or correct the data",
    )

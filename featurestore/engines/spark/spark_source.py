"""Sources as Spark reads them: the files that were listed, each column in the type of its file."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from featurestore.declare.sources import FileSource, Source, is_url
from featurestore.engines.record_tasks import NEW_FILE
from featurestore.engines.steps import Route
from featurestore.engines.tasks import restored_rows
from featurestore.errors import SourceError
from featurestore.semantics.columns import NAIVE, type_of_column
from featurestore.semantics.source_columns import ARRIVED
from featurestore.sources.offline import Offline
from featurestore.sources.partitions import partition_columns, values_table
from featurestore.sources.source_files import SourceFile
from featurestore.types import FeatureType

SPARK_TYPES = {
    "Bool": "BOOLEAN", "Int32": "INT", "Int64": "BIGINT", "Float32": "FLOAT", "Float64": "DOUBLE", "String": "STRING",
    "Bytes": "BINARY", "Date": "DATE", "Timestamp": "TIMESTAMP",
}  # fmt: skip


class SourceReader:
    """Reads sources into DataFrames. files: tells the files of a source that are read; see `AskedFrame.files`."""

    def __init__(self, session: Any, offline: Offline, files: Callable[[Source], Sequence[SourceFile]]) -> None:
        self._spark, self._offline, self._files = session, offline, files

    def read(self, route: Route, *, new_files: Collection[int] | None = None) -> Any:
        """A source's rows: those of the files that were listed, and of no others. SourceError where Spark has no such rows. new_files: the
        numbers of the files of which `NEW_FILE`, a column more, is true; None: there is no such column."""
        source = route.source
        for column, _ in route.keys:
            if column in source.derived:
                raise SourceError(no_derived(source, column, "key"))
        assert isinstance(source, FileSource)
        files = self._files(source)
        groups = [self._read_alike(route, some, values) for some, values in self._alike(source, files, new_files)]
        while len(groups) > 1:  # a tree, since plans may not be too deep
            pairs = [groups[place : place + 2] for place in range(0, len(groups), 2)]
            groups = [pair[0].unionByName(pair[1]) if len(pair) > 1 else pair[0] for pair in pairs]
        restored_rows(route, groups[0].limit(0).toArrow())
        return groups[0]

    def _alike(
        self, source: FileSource, files: Sequence[SourceFile], new_files: Collection[int] | None
    ) -> Iterator[tuple[list[SourceFile], dict[str, Any]]]:
        """Files of equal columns whose rows have equal values of all that no row says: what folders' names say, and when a file
        came; and these values, with the columns that the files have."""
        with self._offline.session() as session:
            stored = self._offline.columns_of(session.connection, source, files)
        beside: dict[str, list[Any]] = {}
        partitions = partition_columns(source, files)
        if partitions:
            table = values_table(source, files, partitions)
            beside |= {name: table[f"p{place}"].to_pylist() for place, name in enumerate(partitions)}
        if source.arrives:
            beside[ARRIVED] = self._offline.instants(source, files)
        if new_files is not None:
            beside[NEW_FILE] = [number in new_files for number in range(len(files))]
        groups: dict[tuple[Any, ...], list[int]] = {}
        for number, columns in enumerate(stored):
            said = tuple(repr(values[number]) for values in beside.values())
            groups.setdefault((id(columns), *said), []).append(number)
        for numbers in groups.values():
            values = {name: of_files[numbers[0]] for name, of_files in beside.items()}
            columns = stored[numbers[0]]
            yield (
                [files[number] for number in numbers],
                {"stored": dict(zip(columns.names, columns.raws, strict=True)), "beside": values},
            )

    def _read_alike(self, route: Route, files: Sequence[SourceFile], said: Mapping[str, Any]) -> Any:
        from pyspark.sql import functions as f

        stored, beside = said["stored"], said["beside"]
        reader = self._spark.read.option("recursiveFileLookup", "true")
        reader = reader.option("datetimeRebaseMode", "CORRECTED").option("int96RebaseMode", "CORRECTED")
        try:
            rows = reader.parquet(*(_spark_path(file.parquet) for file in files))
            there = set(rows.columns)
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in {"pyspark", "py4j"}:
                raise
            told = str(error).strip().splitlines()[0]
            if "COLUMN_ALREADY_EXISTS" in told:
                told += ". Where two columns differ by capitals alone, set spark.sql.caseSensitive to true"
            raise SourceError(
                f"{route.source.title}: Spark cannot read its files: {told} ({route.source.origin})"
            ) from error
        selected = []
        for name, raw in route.columns.items():
            if name in stored and name in there:
                column = named(name)
                selected.append((column if stored[name] == raw else column.cast(_spark_raw(raw))).alias(name))
            else:  # what a folder's name says, or nothing
                selected.append(f.lit(beside.get(name)).cast(_spark_raw(raw)).alias(name))
        if route.source.arrives:
            selected.append(f.lit(beside[ARRIVED]).cast("bigint").alias(ARRIVED))
        if NEW_FILE in beside:
            selected.append(f.lit(beside[NEW_FILE]).alias(NEW_FILE))
        return rows.select(*selected)


def named(name: str) -> Any:
    """A column by exactly this name."""
    from pyspark.sql import functions as f

    return f.col("`" + name.replace("`", "``") + "`")


def spark_place(path: str | Path) -> str:
    """A path that a caller gives as Spark takes it: a Path lies on this machine, whatever Spark's own file system is."""
    return f"file://{path.absolute()}" if isinstance(path, Path) else path


def spark_type(of: FeatureType) -> str:
    """A feature type as Spark's SQL writes it."""
    if of.element is not None:
        return f"ARRAY<{spark_type(of.element)}>"
    return f"DECIMAL({of.precision},{of.scale})" if of.kind == "Decimal" else SPARK_TYPES[of.kind]


def _spark_raw(raw: str) -> str:
    """The type of Spark's that holds a DuckDB type."""
    of = type_of_column(raw)
    assert of is not None
    return "TIMESTAMP_NTZ" if raw in NAIVE else spark_type(of)


def _spark_path(path: str) -> str:
    """A path that Spark reads as it stands, and no pattern of."""
    place = path if is_url(path) else f"file://{Path(path).absolute()}"
    return re.sub(r"([\[\]{}*?\\])", r"\\\1", place.replace("s3://", "s3a://", 1))


def no_derived(source: Source, column: str, what: str) -> str:
    """That rows are not brought together by a derived column, as a message says it."""
    return (
        f"{source.title}: its {what} column '{column}' is derived, and Spark, which brings rows together by it, computes no value. Write the "
        f"column into the files ({source.origin})"
    )

"""A training set as rows of typed columns, batch by batch: a frame, the Parquet file that it was written to, or an Arrow table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.declare.frames import table_of
from featurestore.declare.problems import shown
from featurestore.durable.parquet import parquet_file, restored
from featurestore.errors import NotFoundError, RequestError, did_you_mean
from featurestore.lazy import pa, pc, pq
from featurestore.semantics.columns import type_that_holds
from featurestore.semantics.values import canonical, micros
from featurestore.sources.unreadable import no_parquet
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import FeatureType

BATCH_ROWS = 2048
"""Rows that are worked on at once; of texts of a megabyte they are as much as an Arrow array holds."""

Training = TrainingFrame | str | Path | Any
"""A training frame, the path of a Parquet file, or an Arrow table."""


@dataclass(frozen=True)
class RowBatch:
    """Some rows in order, the first of which has the number `first`: each column in the Arrow type of its own type."""

    first: int
    columns: dict[str, pa.Array]
    floored: dict[str, int]
    """Of columns of finer times how many were floored to µs."""

    @property
    def rows(self) -> int:
        """How many they are."""
        return len(next(iter(self.columns.values()), ()))


@dataclass(frozen=True)
class TypedRows:
    """The rows of a training set, which can be gone through once. A column that is null throughout may have no type: None."""

    types: dict[str, FeatureType | None]
    batches: Iterator[RowBatch]


class TrainingRows:
    """A training set that is read as often as it is asked. Raises RequestError for what is none, NotFoundError for a column that it
    has not. columns: these and no others, in this order."""

    def __init__(self, training: Training, columns: Sequence[str] | None = None) -> None:
        if not isinstance(training, (TrainingFrame, str, Path, pa.Table)):
            raise RequestError(
                f"{type(training).__name__} is no training set; give a training frame, the Parquet file that it was written to, or "
                "an Arrow table"
            )
        if columns is not None and (
            not isinstance(columns, (list, tuple)) or not columns or not all(isinstance(name, str) for name in columns)
        ):
            raise RequestError(f"columns is a list of names, and not {shown(columns)}")
        if isinstance(training, TrainingFrame) and training.once:
            len(training)  # which holds it: its spine is gone when it was read
        self.training = training
        self._columns = columns

    @property
    def title(self) -> str:
        """What it is called in a message."""
        return str(self.training) if isinstance(self.training, (str, Path)) else "The training set"

    def count(self) -> int | None:
        """How many rows there are; None where that is known only when they are answered."""
        if isinstance(self.training, TrainingFrame):
            return len(self.training) if self.training.is_answered else None
        if isinstance(self.training, (str, Path)):
            with self._file(Path(self.training)) as file:
                return int(file.metadata.num_rows)
        return int(self.training.num_rows)

    def opened(self, rows: int = BATCH_ROWS) -> TypedRows:
        """Its rows, so many at once; the last batch, and none before it, may have fewer."""
        schema, tables = self._tables(rows)
        plain = self._plain(schema.empty_table()).schema
        names = self._names(plain)
        types = {name: self._type(plain.field(name)) for name in names}
        return TypedRows(types, self._batches(tables, types, rows))

    def _tables(self, rows: int) -> tuple[pa.Schema, Iterator[pa.Table]]:
        if isinstance(self.training, (str, Path)):
            return self._parquet(Path(self.training), rows)
        reader = (
            self.training.to_reader() if isinstance(self.training, TrainingFrame) else self.training.to_reader(rows)
        )
        return reader.schema, (pa.Table.from_batches([batch]) for batch in reader)

    def _file(self, path: Path) -> pq.ParquetFile:
        if not path.is_file():
            raise RequestError(f"There is no file {path}")
        try:
            return parquet_file(path)
        except (pa.ArrowException, OSError) as error:
            raise RequestError(no_parquet(str(path), error)) from error

    def _parquet(self, path: Path, rows: int) -> tuple[pa.Schema, Iterator[pa.Table]]:
        opened = self._file(path)

        def tables() -> Iterator[pa.Table]:
            with opened:
                try:
                    for batch in opened.iter_batches(rows):
                        yield restored(pa.Table.from_batches([batch]))
                except (pa.ArrowException, OSError) as error:
                    raise RequestError(no_parquet(str(path), error)) from error

        return restored(opened.schema_arrow.empty_table()).schema, tables()

    def _plain(self, table: pa.Table) -> pa.Table:
        try:
            return table_of(table, owned=True)
        except ValueError as error:
            raise RequestError(f"{self.title} cannot be read: {error}") from None

    def _names(self, schema: pa.Schema) -> list[str]:
        for name in self._columns or ():
            if name not in schema.names:
                raise NotFoundError(f"{self.title} has no column '{name}'.{did_you_mean(name, schema.names)}")
        if twice := [name for name in self._columns or () if [*(self._columns or ())].count(name) > 1]:
            raise RequestError(f"columns names '{twice[0]}' twice")
        return [*(schema.names if self._columns is None else self._columns)]

    def _type(self, field: pa.Field) -> FeatureType | None:
        """RequestError where no type of ours holds what the column holds, or it holds lists of lists."""
        arrow = field.type
        if pa.types.is_null(arrow):
            return None
        of = type_that_holds(arrow)
        if of is None or (of.element is not None and of.element.element is not None):
            raise RequestError(
                f"{self.title}: column '{field.name}' is {arrow}, which has no form here; leave it out by columns=[…], which lists "
                "the others"
            )
        return of

    def _batches(
        self, tables: Iterator[pa.Table], types: dict[str, FeatureType | None], rows: int
    ) -> Iterator[RowBatch]:
        first = 0
        for table in _evenly(tables, rows):
            plain = self._plain(table)
            columns, floored = {}, {}
            for name, of in types.items():
                column = plain[name]
                columns[name] = self._column(name, column, of, first)
                if of is not None and of.kind == "Timestamp" and column.type.unit == "ns":
                    floored[name] = int(np.count_nonzero(pc.fill_null(column.cast(pa.int64()), 0).to_numpy() % 1000))
            yield RowBatch(first, columns, floored)
            first += table.num_rows

    def _column(self, name: str, column: pa.ChunkedArray, of: FeatureType | None, first: int) -> pa.Array:
        if of is None:
            return pa.nulls(len(column))
        if of.kind == "Timestamp":
            return micros(column)
        try:
            return canonical(column, of)
        except (ValueError, pa.ArrowException) as error:
            if pa.types.is_uint64(column.type):
                beyond = [(row, value) for row, value in enumerate(column.to_pylist()) if value and value >= 1 << 63]
                row, value = beyond[0]
                raise RequestError(
                    f"{self.title}: row {first + row}, column '{name}': {value} is beyond Int64; cast the column to text, or leave "
                    "it out"
                ) from None
            raise RequestError(f"{self.title}: column '{name}': {error}") from None


def _evenly(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of so many each."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        left = table
        while count + left.num_rows >= rows:
            taken = rows - count
            yield pa.concat_tables([*waiting, left.slice(0, taken)])
            left, waiting, count = left.slice(taken), [], 0
        if left.num_rows:
            waiting.append(left)
            count += left.num_rows
    if waiting:
        yield pa.concat_tables(waiting)

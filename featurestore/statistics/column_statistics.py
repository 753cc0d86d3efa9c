"""What the values of columns are like: how many are missing, the ranges and histograms of numbers, the most frequent texts.

The rows are read once. All that is told of them is exact, and the same whatever their order and however they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import FeatureStoreError
from featurestore.lazy import duckdb, pa, pc
from featurestore.plurals import plural
from featurestore.report import Report, Reported, ReportTable
from featurestore.semantics.engine import connect, settle_session, stream
from featurestore.statistics.frequent import FrequentNumbers
from featurestore.statistics.histogram import EqualWidth, Histogram, with_infinities
from featurestore.statistics.moments import ExactMoments
from featurestore.statistics.quantiles import Quantiles
from featurestore.types import Date, FeatureType, Float64, Timestamp

LISTED_VALUES = 1000
"""How many of the most frequent values are told: as many as TensorFlow Data Validation ranks."""

STREAMED_ROWS = 1 << 16


class Lengths(NamedTuple):
    """How long the lists of a column are: the shortest, the longest, all together, and how many elements are null."""

    least: int
    most: int
    total: int
    nulls: int


@dataclass(frozen=True)
class NumberStatistics:
    """Of numbers; a Date is one of days, a Timestamp one of µs, both since 1970, and a Bool is 0 or 1. All but `nan` and the infinities are of what is finite."""

    values: int
    """How many are finite."""
    unique: int
    """How many different ones there are of these."""
    zeros: int
    """How many of these are 0 or -0.0."""
    nan: int
    minus_infinity: int
    plus_infinity: int
    least: float | None
    greatest: float | None
    mean: float | None
    """Rounded once from the exact sum."""
    deviation: float | None
    """The standard deviation of these values."""
    quantiles: tuple[float, ...]
    """The least value, then those up to which a tenth, two tenths, … of them go, and the greatest."""
    histogram: Histogram
    """In buckets of equal width; with the infinities, and NaN, beside them."""
    frequent: tuple[tuple[float, int], ...] = ()
    """The most frequent values and how often each is there, the most frequent first; of equally frequent ones the least."""


@dataclass(frozen=True)
class TextStatistics:
    """Of texts and bytes; a Bool is "true" or "false", a Decimal is as it is written."""

    values: int
    unique: int
    least_bytes: int | None
    most_bytes: int | None
    total_bytes: int
    frequent: tuple[tuple[str | bytes, int], ...]
    """The most frequent values and how often each is there, the most frequent first; of equally frequent ones in the order
    of their bytes."""


@dataclass(frozen=True)
class ColumnStatistics(Reported):
    """Of one column."""

    name: str
    type: str
    rows: int
    missing: int
    """Rows in which it is null."""
    lengths: Lengths | None
    """None: it holds no lists. Of lists, what follows is of their elements."""
    numbers: NumberStatistics | None
    """None: its values are no numbers."""
    texts: TextStatistics | None
    """None: its values are neither texts nor bytes, nor of few kinds."""
    norms: NumberStatistics | None = None
    """Of the Euclidean lengths of embeddings. None: it holds none."""
    sampled_rows: int | None = None
    """Of how many rows, drawn by chance, `unique`, `quantiles`, `histogram` and `frequent` are. None: of all."""

    def report(self) -> Report:
        """What is shown of it."""
        return _report(f"Column {self.name}", [self])


@dataclass(frozen=True)
class TableStatistics(Reported):
    """Of all columns of a table."""

    rows: int
    columns: tuple[ColumnStatistics, ...]

    def column(self, name: str) -> ColumnStatistics:
        """Those of one column; KeyError where there is none of the name."""
        return {column.name: column for column in self.columns}[name]

    def report(self) -> Report:
        """A line for each column."""
        return _report(f"{self.rows} {plural(self.rows, 'row')}", self.columns)


class _Form(NamedTuple):
    """How the values `v` of a type are numbers in SQL, and how texts; None where they are none."""

    number: str | None
    text: str | None = None


FORMS = {
    "Bool": _Form("CAST(v AS INTEGER)", "CAST(v AS VARCHAR)"),
    "Int32": _Form("v"),
    "Int64": _Form("v"),
    "Float32": _Form("CAST(v AS DOUBLE)"),
    "Float64": _Form("v"),
    "String": _Form(None, "v"),
    "Bytes": _Form(None, "v"),
    "Date": _Form("v"),
    "Timestamp": _Form("v"),
    "Decimal": _Form("CAST(v AS DOUBLE)", "CAST(v AS VARCHAR)"),
}
"""By kind of type. Dates and times are counts when the engine gets them, since it has no words for some of them."""

COUNTS = {Date: "int32", Timestamp: "int64"}


def statistics_of(rows: pa.Table | Iterable[pa.RecordBatch], types: Mapping[str, FeatureType]) -> TableStatistics:
    """The statistics of columns, in the order of `types`, which says of each its type; it is in the type's own Arrow type.

    rows: a table, or batches, which are gone through once; what does not fit into memory lies on the disk meanwhile.
    Raises FeatureStoreError where there is no room for that.
    """
    if not types:
        return TableStatistics(rows.num_rows if isinstance(rows, pa.Table) else sum(len(batch) for batch in rows), ())
    spill = TemporaryFolder()
    try:
        with connect(config={"temp_directory": str(spill.path)}) as connection:
            settle_session(connection)
            return _statistics(connection, rows, types)
    except duckdb.Error as error:
        raise FeatureStoreError(f"The statistics cannot be computed: {error}") from error
    finally:
        spill.remove()


def _statistics(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table | Iterable[pa.RecordBatch], types: Mapping[str, FeatureType]
) -> TableStatistics:
    # The engine tells no case apart in names.
    schema = pa.schema([pa.field(f"c{place}", _count_type(of)) for place, of in enumerate(types.values())])
    if isinstance(rows, pa.Table):
        connection.register("given", _counted(rows, types, schema))
    else:
        connection.register("nothing", schema.empty_table())
        connection.execute("CREATE TEMP TABLE given AS SELECT * FROM nothing")
        for batch in rows:
            connection.register("next_rows", _counted(pa.Table.from_batches([batch]), types, schema))
            connection.execute("INSERT INTO given SELECT * FROM next_rows")
            connection.unregister("next_rows")
    table = _Queried(connection, "given")
    total = table.one("SELECT count(*)")[0]
    return TableStatistics(
        total, tuple(table.column(name, place, of, total) for place, (name, of) in enumerate(types.items()))
    )


def _counted(rows: pa.Table, types: Iterable[str], schema: pa.Schema) -> pa.Table:
    """The columns of these names under those of the schema, and dates and times in them as counts."""
    return pa.table([rows[name].cast(field.type) for name, field in zip(types, schema, strict=True)], schema=schema)


def _count_type(of: FeatureType) -> pa.DataType:
    if of.element is not None:
        return pa.list_(_count_type(of.element))
    return pa.type_for_alias(COUNTS[of]) if of in COUNTS else of.arrow


class _Queried:
    """A relation of the engine's that is asked for the statistics of its columns."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, relation: str) -> None:
        self._connection = connection
        self._relation = relation

    def one(self, select: str, relation: str | None = None) -> Any:
        return self._connection.execute(f"{select} FROM {relation or self._relation}").fetchall()[0]

    def column(self, name: str, place: int, of: FeatureType, rows: int) -> ColumnStatistics:
        column, inner, lengths = f"c{place}", of.element or of, None
        (there,) = self.one(f"SELECT count({column})")
        values = f"(SELECT {column} AS v FROM {self._relation} WHERE {column} IS NOT NULL)"
        if of.element is not None:
            elements = f"(SELECT unnest({column}) AS v FROM {self._relation})"
            least, most, total = self.one(f"SELECT min(len({column})), max(len({column})), sum(len({column}))")
            (nulls,) = self.one("SELECT count(*)", f"{elements} WHERE v IS NULL")
            lengths = Lengths(least or 0, most or 0, int(total or 0), nulls)
            values = f"(SELECT v FROM {elements} WHERE v IS NOT NULL)"
        form = FORMS[inner.kind]
        numbers = None if form.number is None else self._numbers(f"(SELECT {form.number} AS v FROM {values})", inner)
        texts = None if form.text is None else self._texts(f"(SELECT {form.text} AS v FROM {values})")
        norms = self._norms(column, of) if of.kind == "Embedding" else None
        return ColumnStatistics(name, str(of), rows, rows - there, lengths, numbers, texts, norms)

    def _norms(self, column: str, of: FeatureType) -> NumberStatistics:
        vectors = self._connection.sql(f"SELECT {column} FROM {self._relation} WHERE {column} IS NOT NULL")
        self._connection.register("norms", pa.table({"v": norms_of(vectors.to_arrow_table()[column], of)}))
        try:
            return self._numbers("(SELECT v FROM norms)", Float64)
        finally:
            self._connection.unregister("norms")

    def _numbers(self, values: str, of: FeatureType) -> NumberStatistics:
        is_float = of.is_float or of.kind == "Decimal"
        finite = f"{values} WHERE isfinite(v)" if is_float else values
        least, greatest, count = self.one("SELECT min(v), max(v), count(*)", finite)
        moments, unique, zeros = ExactMoments(), 0, 0
        quantiles, frequent = Quantiles(count), FrequentNumbers()
        beside = {"nan": 0, "minus_infinity": 0, "plus_infinity": 0}
        width = EqualWidth(least, greatest) if count else None
        ordered = f"SELECT v, count(*) AS n FROM {values} GROUP BY v ORDER BY v"
        for batch in stream(self._connection, ordered, STREAMED_ROWS):
            found = batch.column(0).to_numpy(zero_copy_only=False)
            counts = batch.column(1).to_numpy(zero_copy_only=False).astype(np.int64)
            if is_float:
                for word, odd in _odd(found).items():
                    beside[word] += int(counts[odd].sum())
                found, counts = found[np.isfinite(found)] + 0.0, counts[np.isfinite(found)]
            if not len(found):
                continue
            assert width is not None
            width.add(found, counts)
            moments.add(found if is_float else found.astype(np.int64), counts)
            quantiles.add(found, counts)
            frequent.add(found, counts)
            unique += len(found)
            zeros += int(counts[found == 0].sum())
        buckets = with_infinities(width.buckets() if width else (), beside["minus_infinity"], beside["plus_infinity"])
        return NumberStatistics(
            values=count, unique=unique, zeros=zeros, least=_plain(least), greatest=_plain(greatest), mean=moments.mean(),
            deviation=moments.deviation(), quantiles=quantiles.found(), histogram=Histogram(buckets, beside["nan"]),
            frequent=frequent.found(), **beside,
        )  # fmt: skip

    def _texts(self, values: str) -> TextStatistics:
        self._connection.execute(f"CREATE TEMP TABLE texts AS SELECT v, count(*) AS n FROM {values} GROUP BY v")
        try:
            size = f"{'strlen' if self._is_text('texts') else 'octet_length'}(v)"
            unique, count, least, most, total = self.one(
                f"SELECT count(*), sum(n), min({size}), max({size}), sum({size} * n)", "texts"
            )
            frequent = self._connection.execute(f"SELECT v, n FROM texts ORDER BY n DESC, v LIMIT {LISTED_VALUES}")
            listed = tuple((value, number) for value, number in frequent.fetchall())
        finally:
            self._connection.execute("DROP TABLE texts")
        return TextStatistics(int(count or 0), unique, least, most, int(total or 0), listed)

    def _is_text(self, relation: str) -> bool:
        ((_, of, *_),) = self._connection.execute(f"DESCRIBE SELECT v FROM {relation}").fetchall()
        return bool(of == "VARCHAR")


def norms_of(vectors: pa.ChunkedArray | pa.Array, of: FeatureType) -> npt.NDArray[np.float64]:
    """The Euclidean length of each vector of a column of embeddings without nulls."""
    values = (
        pc.list_flatten(vectors).to_numpy(zero_copy_only=False)
        if isinstance(vectors, pa.Array)
        else pc.list_flatten(vectors).to_numpy()
    )
    found: npt.NDArray[np.float64] = np.sqrt(
        np.square(values.astype(np.float64).reshape(-1, of.length or 1)).sum(axis=1)
    )
    return found


def _plain(value: float | None) -> float | None:
    """The value without the sign of a zero: of two zeros either may be the least."""
    return abs(value) if value == 0 else value


def _odd(values: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which values are no finite numbers."""
    return {"nan": np.isnan(values), "minus_infinity": np.isneginf(values), "plus_infinity": np.isposinf(values)}


def _report(title: str, columns: Any) -> Report:
    rows = [
        (
            column.name, column.type, column.missing, *_of_numbers(column.numbers),
            None if column.texts is None else column.texts.unique,
            None if column.texts is None or not column.texts.frequent else column.texts.frequent[0][0],
        )
        for column in columns
    ]  # fmt: skip
    header = ("column", "type", "missing", "least", "mean", "greatest", "NaN", "unique", "most frequent")
    return Report(title, [ReportTable(header, rows)])


def _of_numbers(found: NumberStatistics | None) -> tuple[object, ...]:
    return (None,) * 4 if found is None else (found.least, found.mean, found.greatest, found.nan)

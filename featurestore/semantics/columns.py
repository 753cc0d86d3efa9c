"""How a source's columns are read: types, instants, and rule 2's order of values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from featurestore.declare.sources import Source
from featurestore.lazy import pa
from featurestore.semantics.sql import literal
from featurestore.types import (
    Array,
    Bool,
    Bytes,
    Date,
    Decimal,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)

SIMPLE = {
    "BOOLEAN": Bool, "TINYINT": Int32, "SMALLINT": Int32, "INTEGER": Int32, "UTINYINT": Int32, "USMALLINT": Int32,
    "BIGINT": Int64, "UINTEGER": Int64, "FLOAT": Float32, "DOUBLE": Float64, "VARCHAR": String, "UUID": String,
    "BLOB": Bytes, "DATE": Date, "JSON": String,
}  # fmt: skip
NAIVE = {"TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}
NANOSECONDS = {
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMPTZ_NS": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP_NS WITH TIME ZONE": "TIMESTAMP WITH TIME ZONE",
}
"""Types of more digits than µs, and what their values are read as before anything else looks at them."""
ZONED = {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ", "TIMESTAMPTZ_NS", "TIMESTAMP_NS WITH TIME ZONE"}


class Mixed(NamedTuple):
    """A column that is stored in several types, and read as the one that holds them all.

    types: the DuckDB type of each with its feature type. first: the one by which the column goes in the identity of a view, so
    that files of another type change nothing. shown: which file has which.
    """

    types: dict[str, FeatureType]
    first: str
    shown: str


class RawColumns(dict[str, str]):
    """The columns of a source by name, with their DuckDB types.

    faults: of those that cannot be read, why: words that follow the column's name. mixed: those of several types.
    missing: those that not every file has, with the file that has none.
    """

    def __init__(
        self, types: Mapping[str, str], *, faults: Mapping[str, str] | None = None,
        mixed: Mapping[str, Mixed] | None = None, missing: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(types)
        self.faults, self.mixed, self.missing = dict(faults or {}), dict(mixed or {}), dict(missing or {})

    def with_types(self, types: Mapping[str, str]) -> RawColumns:
        """These columns, and others beside them."""
        return RawColumns({**self, **types}, faults=self.faults, mixed=self.mixed, missing=self.missing)

    @staticmethod
    def named_as(raw: dict[str, str], applied: Mapping[str, str]) -> dict[str, str]:
        """The columns, of which those of several types go by the one that they had when a view was applied."""
        if not isinstance(raw, RawColumns) or not raw.mixed:
            return raw
        mixed = {
            name: mix._replace(first=applied[name]) if applied.get(name) in mix.types else mix
            for name, mix in raw.mixed.items()
        }
        return RawColumns(raw, faults=raw.faults, mixed=mixed, missing=raw.missing)

    @staticmethod
    def fault(raw: Mapping[str, str], name: str) -> str | None:
        """Why a column cannot be read; None where it can, or where no such column is known."""
        return raw.faults.get(name) if isinstance(raw, RawColumns) else None

    @staticmethod
    def mix(raw: Mapping[str, str], name: str) -> Mixed | None:
        """The several types that a column is stored in; None where it is one."""
        return raw.mixed.get(name) if isinstance(raw, RawColumns) else None


def said_type(raw: str | None) -> str:
    """A column's type for a message: the feature type that holds it, and the engine's name for it."""
    own = None if raw is None else type_of_column(raw)
    return str(raw) if own is None else f"{own} ({raw})"


def type_of_column(raw: str) -> FeatureType | None:
    """The type whose values a DuckDB column of type `raw` holds exactly; None if no type does."""
    if raw in SIMPLE:
        return SIMPLE[raw]
    if raw in NAIVE or raw in ZONED:
        return Timestamp
    if raw.startswith("ENUM("):
        return String
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", raw):
        return Decimal(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"(.+)\[(\d*)\]", raw):
        element = type_of_column(found[1])
        if element is None or (found[2] and element != Float32):
            return None if element is None else Array(element)
        return Array(element, int(found[2]) if found[2] else None)
    return None


def type_of_arrow(arrow: pa.DataType) -> FeatureType | None:
    """The type whose values an Arrow column holds exactly; None if no type does."""
    if pa.types.is_timestamp(arrow):
        return Timestamp
    if pa.types.is_decimal128(arrow):
        return Decimal(arrow.precision, arrow.scale) if 0 <= arrow.scale <= arrow.precision else None
    if pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow):
        element = type_of_arrow(arrow.value_type)
        if element is None:
            return None
        fixed = pa.types.is_fixed_size_list(arrow) and element == Float32
        return Array(element, arrow.list_size) if fixed else Array(element)
    return ARROW.get(str(arrow))


def type_that_holds(arrow: pa.DataType) -> FeatureType | None:
    """The type whose values those of an Arrow column become, each exactly or refused by `canonical`; None where there is none.

    Of a spine's own columns, which come as they are: beside what `type_of_arrow` says, halves are Float32, uint64 is Int64 (beyond it a
    value is refused), and decimals of any width are those of their digits, up to 38.
    """
    if pa.types.is_uint64(arrow):
        return Int64
    if pa.types.is_float16(arrow):
        return Float32
    if pa.types.is_decimal(arrow) and arrow.precision <= 38 and 0 <= arrow.scale <= arrow.precision:
        return Decimal(arrow.precision, arrow.scale)
    return type_of_arrow(arrow)


ARROW = {
    "bool": Bool, "int8": Int32, "int16": Int32, "int32": Int32, "uint8": Int32, "uint16": Int32, "int64": Int64,
    "uint32": Int64, "float": Float32, "double": Float64, "string": String, "large_string": String, "binary": Bytes,
    "large_binary": Bytes, "date32[day]": Date,
}  # fmt: skip


def widens(source: FeatureType, target: FeatureType) -> bool:
    """Whether every value of `source` is exactly one value of `target` (an embedding's length is checked by value)."""
    if source == target:
        return True
    if source.kind in {"Int32", "Int64"} and target.kind == "Decimal":
        return target.precision - target.scale >= (10 if source.kind == "Int32" else 19)
    if source.kind == target.kind == "Decimal":
        whole = target.precision - target.scale >= source.precision - source.scale
        return whole and target.scale >= source.scale
    if source.element is not None and target.element is not None:
        return widens(source.element, target.element) and (source.length is None or target.length is None)
    return (source.kind, target.kind) in {("Int32", "Int64"), ("Int32", "Float64"), ("Float32", "Float64")}


def identity_of(of: FeatureType, raw: str) -> str:
    """A column as a view's identity names it: its feature type, and whether its timestamps are naive.

    How a file stores values of one type is no part of it: widths, units, dictionaries. An instant is floored to µs from any
    unit; a naive one is read in the source's timezone, so it is another instant than an aware one.
    """
    return f"naive {of}" if raw.partition("[")[0] in NAIVE else str(of)


def finer_than_micros(raw: str) -> bool:
    """Whether a DuckDB type holds timestamps of more digits than µs, alone or in lists."""
    return raw.partition("[")[0] in NANOSECONDS


def floored_sql(column: str, raw: str) -> str:
    """A column with its timestamps floored to µs, as TIMESTAMP with or without a zone; any other column as it is.

    What reads a column of type `raw` reads the floored one alike, to the same instant.
    """
    if not finer_than_micros(raw):
        return column
    if raw.endswith("]"):
        return f"list_transform({column}, lambda x: {floored_sql('x', raw[: raw.rindex('[')])})"
    micros = f"make_timestamp({_micros(column, raw, 'UTC')})"
    return micros if raw in NAIVE else f"timezone('UTC', {micros})"


def floored_type(raw: str) -> str:
    """The DuckDB type of `floored_sql` of a column of type `raw`."""
    base, bracket, lists = raw.partition("[")
    return NANOSECONDS.get(base, base) + bracket + lists


def _micros(column: str, raw: str, zone: str) -> str:
    """BIGINT µs since the epoch of a timestamp column; finer ones floor, an ambiguous local time is the later one."""
    if raw in {"TIMESTAMPTZ_NS", "TIMESTAMP_NS WITH TIME ZONE"}:
        return _micros_of_nanos(column)
    if raw in ZONED:
        return f"epoch_us({column})"
    if raw == "TIMESTAMP_NS":
        micros = _micros_of_nanos(column)
        return micros if zone == "UTC" else f"epoch_us(timezone({literal(zone)}, make_timestamp({micros})))"
    plain = column if raw == "TIMESTAMP" else f"CAST({column} AS TIMESTAMP)"
    return f"epoch_us({plain})" if zone == "UTC" else f"epoch_us(timezone({literal(zone)}, {plain}))"


def _micros_of_nanos(column: str) -> str:
    """BIGINT µs of a column of ns, floored.

    The greatest and the least number are instants of the years 2262 and 1677 to other libraries that write ns (pandas has them as
    `Timestamp.max` and `min`); the engine takes them for infinities, which have no µs.
    """
    furthest = (1 << 63) // 1000
    infinite = f"CASE WHEN {column} = 'infinity' THEN {furthest} WHEN {column} = '-infinity' THEN {-furthest - 1} END"
    nanos = f"epoch_ns({column})"
    floored = f"{nanos} // 1000 - CASE WHEN {nanos} % 1000 < 0 THEN 1 ELSE 0 END"  # no sum that leaves 64 bits
    return f"coalesce({floored}, {infinite})"


def instant_expression(column: str, raw: str, zone: str) -> str:
    """BIGINT µs of a timestamp column read in `zone`; ValueError where it is none (a Date is a day, no instant)."""
    if raw not in NAIVE and raw not in ZONED:
        raise ValueError(f"it is {raw}, and must be a TIMESTAMP")
    return _micros(column, raw, zone)


def instant_sql(source: Source, column: str, raw: str, *, happened: bool = False) -> str:
    """BIGINT µs of a time word's column; `happened`: of event_time, to which the source's period is added.

    A Date is the next midnight in the source's timezone, or its own with date="start"; a period is for timestamps.
    Raises ValueError where the column holds no time.
    """
    zone = source.timezone or "UTC"
    if raw == "DATE":
        day = f"CASE WHEN {column} < DATE '290000-01-01' THEN {column} + 1 END" if source.date == "end" else column
        return _micros(f"TRY_CAST({day} AS TIMESTAMP)", "TIMESTAMP", zone)  # null beyond the instants that there are
    if raw not in NAIVE and raw not in ZONED:
        raise ValueError(f"it is {raw}, and a time is a DATE or a TIMESTAMP")
    micros = _micros(column, raw, zone)
    return f"{micros} + {source.period}" if happened and source.period else micros


def read_sql(column: str, raw: str, target: FeatureType, zone: str) -> str:
    """An expression of `target`'s DuckDB type for a column of type `raw`; exact where the types widen."""
    if target == Timestamp:
        if raw in {"TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ"}:
            return column
        moment = f"CAST(make_timestamp({_micros(column, raw, zone)}) AS TIMESTAMP WITH TIME ZONE)"
        if raw in NANOSECONDS:
            return moment
        return f"coalesce({moment}, timezone('UTC', CAST({column} AS TIMESTAMP)))"  # an infinity has no µs
    if target.element is not None and target.element == Timestamp:
        return f"list_transform({column}, lambda x: {read_sql('x', raw.removesuffix('[]'), Timestamp, zone)})"
    if target.length is not None:  # read as a list, whose length is checked value by value
        return column if raw in {"FLOAT[]", target.duckdb} else f"CAST({column} AS FLOAT[])"
    return column if raw == target.duckdb else f"CAST({column} AS {target.duckdb})"

"""What the engine makes of the types of files, frames and tables: which it reads exactly, and as what columns are given.

The engine reads some types as others without a word: decimals of more than 38 digits as DOUBLE, a duration in a Parquet
file as BIGINT. What it would change is no column that can be used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from featurestore.lazy import pa
from featurestore.semantics.columns import NAIVE, ZONED, finer_than_micros, floored_sql, type_of_column, widens
from featurestore.semantics.engine import connect
from featurestore.semantics.sql import literal
from featurestore.types import Decimal, FeatureType

NOTHING = '"NULL"'
"""The type of a column that holds nothing but nulls."""

WIDER = {"UBIGINT": "BIGINT", "HUGEINT": "BIGINT", "UHUGEINT": "BIGINT"}
"""Integers of which some lie beyond every feature type, and as what the others are given."""


class Tree(NamedTuple):
    """A type of the engine's; `str()` is its name, with all its parts."""

    id: str
    """The engine's own word for its kind."""

    children: tuple[tuple[str, Any], ...]
    """Its parts, each a type, a number or a list of texts, by what the engine calls it."""

    name: str

    def __str__(self) -> str:
        return self.name


def _is_text(of: pa.DataType) -> bool:
    return bool(pa.types.is_string(of) or pa.types.is_large_string(of) or pa.types.is_string_view(of))


def _is_bytes(of: pa.DataType) -> bool:
    binary = pa.types.is_binary(of) or pa.types.is_large_binary(of) or pa.types.is_binary_view(of)
    return bool(binary or pa.types.is_fixed_size_binary(of))


def _is_list(of: pa.DataType) -> bool:
    plain = pa.types.is_list(of) or pa.types.is_large_list(of) or pa.types.is_fixed_size_list(of)
    return bool(plain or pa.types.is_list_view(of) or pa.types.is_large_list_view(of))


def _is_timestamp(of: pa.DataType, *, zoned: bool) -> bool:
    return bool(pa.types.is_timestamp(of) and (of.tz is not None) == zoned)


def _is_zoned(of: pa.DataType) -> bool:
    return _is_timestamp(of, zoned=True)


def _is_naive(of: pa.DataType) -> bool:
    return _is_timestamp(of, zoned=False)


def _is(arrow: str) -> Callable[[pa.DataType], bool]:
    """Whether a type is what Arrow calls so."""
    return lambda of: bool(getattr(pa.types, f"is_{arrow}")(of))


EXACT: dict[str, Callable[[pa.DataType], bool]] = {
    "boolean": _is("boolean"), "tinyint": _is("int8"), "smallint": _is("int16"), "integer": _is("int32"),
    "bigint": _is("int64"), "utinyint": _is("uint8"), "usmallint": _is("uint16"), "uinteger": _is("uint32"),
    "ubigint": _is("uint64"), "double": _is("float64"),
    "float": lambda of: pa.types.is_float32(of) or pa.types.is_float16(of), "varchar": _is_text, "blob": _is_bytes,
    "date": _is("date"), "time": lambda of: pa.types.is_time(of) and of.unit != "ns", "time_ns": _is("time"),
    "timestamp": _is_naive, "timestamp_s": _is_naive, "timestamp_ms": _is_naive, "timestamp_ns": _is_naive,
    "timestamp with time zone": _is_zoned, "timestamptz_ns": _is_zoned, "null": _is("null"),
    "interval": lambda of: pa.types.is_duration(of) and of.unit != "ns",
}  # fmt: skip
"""The engine's types by its own names for them, and whether it holds the values of an Arrow type exactly as they are."""

NESTED = {"list", "array", "struct", "map", "union", "decimal", "enum"}
"""The kinds of which the engine has parts to tell."""

EXTENSIONS = {"arrow.uuid": "uuid", "arrow.json": "varchar", "arrow.bool8": "boolean"}


class EngineChange(NamedTuple):
    """A part of a type that the engine would change: where in the type it lies, what it is, and as what it is read, None
    where the engine does not take it. `str()` is what follows the name of the column."""

    path: str
    own: str
    read: str | None

    def __str__(self) -> str:
        read = "does not take" if self.read is None else f"reads as {self.read}"
        return f"is {self.own}{f' at {self.path!r}' if self.path else ''}, which the engine {read}"


@functools.lru_cache(maxsize=4096)
def type_tree(raw: str) -> Tree:
    """The engine's type of this name, with nothing of the engine in it, which must not outlive the interpreter."""
    with connect(":memory:", config={"threads": 1}) as connection:
        return _tree(connection.type(raw))


def _tree(of: Any) -> Tree:
    children = of.children if of.id in NESTED else ()
    return Tree(
        of.id,
        tuple((name, part if isinstance(part, int | list) else _tree(part)) for name, part in children),
        str(of),
    )


def change_in(own: pa.DataType, read: Tree, path: str = "") -> EngineChange | None:
    """The first part of an Arrow type that the engine changes; None where it reads all values exactly."""
    own = _values(own)
    if isinstance(own, pa.BaseExtensionType):
        if EXTENSIONS.get(own.extension_name) == read.id:
            return None
        if own.extension_name in EXTENSIONS:
            return EngineChange(path, str(own), str(read))
        own = own.storage_type
    parts = list(_parts(own, read, path))
    if parts:
        return next((change for part in parts if (change := change_in(*part)) is not None), None)
    if read.id == "decimal" and pa.types.is_decimal(own):
        exact = (("precision", own.precision), ("scale", own.scale)) == read.children
    else:
        exact = read.id in EXACT and EXACT[read.id](own)
    return None if exact else EngineChange(path, str(own), str(read))


def _values(own: pa.DataType) -> pa.DataType:
    """The type of what is stored once, and referred to by number or by length."""
    while pa.types.is_dictionary(own) or pa.types.is_run_end_encoded(own):
        own = own.value_type
    return own


def _parts(own: pa.DataType, read: Tree, path: str) -> Iterator[tuple[pa.DataType, Tree, str]]:
    """The parts of nested types that stand at the same place."""
    if read.id in {"list", "array"} and _is_list(own):
        yield own.value_type, read.children[0][1], f"{path}[]"
    elif read.id == "struct" and pa.types.is_struct(own) and own.num_fields == len(read.children):
        for place, (name, of) in enumerate(read.children):
            yield own.field(place).type, of, f"{path}.{name}"
    elif read.id == "map" and pa.types.is_map(own):
        yield own.key_type, read.children[0][1], f"{path}.key"
        yield own.item_type, read.children[1][1], f"{path}.value"


def given_type(raw: str) -> str:
    """As what a column of a DuckDB type is given to its readers: text for an Enum, whose order is its own, and BIGINT
    for wider integers, of which one that does not fit is an error."""
    if raw.startswith("ENUM("):
        return "VARCHAR" + raw[raw.rindex(")") + 1 :]
    base, bracket, lists = raw.partition("[")
    return WIDER.get(base, base) + bracket + lists


def common_type(raws: Sequence[str]) -> str | None:
    """The DuckDB type that holds the values of all of these types exactly; None where there is none. What is null
    everywhere is of any type."""
    found = list(dict.fromkeys(given_type(raw) for raw in raws if raw != NOTHING))
    if len(found) < 2:
        return found[0] if found else NOTHING
    for alike, of in ((NAIVE, "TIMESTAMP"), (ZONED, "TIMESTAMP WITH TIME ZONE")):
        if alike.issuperset(found):
            return of
    types_ = [type_of_column(raw) for raw in found]
    held = [of for of in types_ if of is not None and "Timestamp" not in str(of)]
    if len(held) < len(found):
        return None
    wanted = [*held, *_joined(held)]
    return next((of.duckdb for of in wanted if all(widens(one, of) for one in held)), None)


def _joined(held: Iterable[FeatureType]) -> Iterator[FeatureType]:
    """The decimal type of as many digits, before and behind the point, as any of these has."""
    decimals = [of for of in held if of.kind == "Decimal"]
    if decimals:
        scale = max(of.scale for of in decimals)
        precision = max(of.precision - of.scale for of in decimals) + scale
        if precision <= 38:
            yield Decimal(precision, scale)


def converted_sql(column: str, raw: str, wanted: str, *, title: str) -> str:
    """A column of type `raw` as `wanted`, which `common_type` found; a value that does not fit is an error about `title`."""
    if raw == wanted:
        return column
    if raw in WIDER and wanted == "BIGINT":
        said = literal(f"{title} holds ")
        beyond = f"error({said} || {column}::VARCHAR || ', which is beyond Int64; cast the column in the data')"
        fits = f"{column} BETWEEN {-(1 << 63) if raw == 'HUGEINT' else 0} AND {(1 << 63) - 1}"
        return f"CASE WHEN {column} IS NULL OR ({fits}) THEN CAST({column} AS BIGINT) ELSE CAST({beyond} AS BIGINT) END"
    return f"CAST({floored_sql(column, raw) if finer_than_micros(raw) else column} AS {wanted})"

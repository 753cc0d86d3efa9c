"""The types that keys, features and request values have: one closed table.

| type                | scalar in Python      | Arrow                 | DuckDB        | wire        | JSON                        |
| ------------------- | --------------------- | --------------------- | ------------- | ----------- | --------------------------- |
| `Bool`              | bool                  | bool                  | BOOLEAN       | 1 byte      | boolean                     |
| `Int32`, `Int64`    | int                   | int32, int64          | INTEGER, BIGINT | 4, 8 bytes | number                      |
| `Float32`, `Float64`| float                 | float, double         | FLOAT, DOUBLE | 4, 8 bytes  | number, "NaN", "±Infinity"  |
| `String`            | str                   | string                | VARCHAR       | UTF-8       | string                      |
| `Bytes`             | bytes                 | binary                | BLOB          | as it is    | base64                      |
| `Date`              | datetime.date         | date32                | DATE          | 4 bytes     | "2013-12-01"                |
| `Timestamp`         | aware datetime, UTC   | timestamp[us, UTC]    | TIMESTAMPTZ   | 8 bytes, µs | RFC 3339, UTC, µs           |
| `Decimal(p, s)`     | decimal.Decimal       | decimal128(p, s)      | DECIMAL(p, s) | 16 bytes    | string                      |
| `Array(T)`          | list                  | list<T>               | T[]           | count, nulls, elements | array            |
| `Array(Float32, n)` | list of n floats      | fixed_size_list       | FLOAT[n]      | 4·n bytes   | array                       |

Every type has null beside its values. NaN is a value of the float types and has one bit pattern, 0x7ff8000000000000;
-0.0 and 0.0 are different values. Numbers on the wire are little-endian. What Python's dates and times cannot hold, before the
year 1 and after 9999, is a FarDate or a FarTimestamp in Python and ISO 8601's signed year in JSON: "+12013-12-01".
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as _Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from featurestore.clock import datetime_of
from featurestore.elsewhere import missing
from featurestore.lazy import pa
from featurestore.number_texts import decimal_of
from featurestore.plurals import plural

JsonValue = Any
PLAIN = (int, str, float, bytes, list)
"""What most values are already; numpy's own kinds of float, str and bytes are converted by their type."""

EPOCH, EPOCH_DAY = datetime(1970, 1, 1, tzinfo=UTC), date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)
DAY = 86_400_000_000
FLOATS = {float, type(None)}
MICROS = {"us": 1, "ms": 1000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
DAYS = {"D": 1, "W": 7}
"""How long one of numpy's units is."""
ERA = 146_097
"""Days of 400 years."""
FAR = re.compile(r"([+-]\d{4,7})-(\d\d-\d\d)(?:T(\d\d:\d\d:\d\d(?:\.\d{1,6})?)Z)?", re.ASCII)
FIRST_DAY, LAST_DAY = (date.min - EPOCH_DAY).days, (date.max - EPOCH_DAY).days
FIRST_MICRO, LAST_MICRO = FIRST_DAY * DAY, (LAST_DAY + 1) * DAY - 1


class FarTimestamp(int):
    """A Timestamp before the year 1 or after 9999, which Python's datetime cannot hold: µs since the epoch.

    DuckDB's infinity is 2^63 - 1, and -infinity that number negated; there is none in ns.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"FarTimestamp({int(self)})"

    __str__ = __repr__


class FarDate(int):
    """A Date before the year 1 or after 9999, which Python's date cannot hold: days since the epoch.

    DuckDB's infinity is 2^31 - 1, and -infinity that number negated.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"FarDate({int(self)})"

    __str__ = __repr__


def timestamp_of(micros: int) -> datetime | FarTimestamp:
    """The canonical scalar of a Timestamp."""
    return EPOCH + timedelta(microseconds=micros) if FIRST_MICRO <= micros <= LAST_MICRO else FarTimestamp(micros)


def micros_of(value: datetime | FarTimestamp) -> int:
    """µs since the epoch of a canonical scalar."""
    return int(value) if isinstance(value, FarTimestamp) else (value - EPOCH) // MICROSECOND


def date_of(days: int) -> date | FarDate:
    """The canonical scalar of a Date."""
    return EPOCH_DAY + timedelta(days=days) if FIRST_DAY <= days <= LAST_DAY else FarDate(days)


def days_of(value: date | FarDate) -> int:
    """Days since the epoch of a canonical scalar."""
    return int(value) if isinstance(value, FarDate) else (value - EPOCH_DAY).days


Scalar = Any  # None, or a Python object of the kind that the table's second column names


@dataclass(frozen=True, slots=True)
class FeatureType:
    """One type of the table; `str()` gives the form in which it is stored and printed, `parse_type` reads it."""

    kind: str
    """Its name in the table of types."""
    precision: int = 0
    """Of a Decimal, how many digits it has; else 0."""
    scale: int = 0
    """Of a Decimal, how many of them stand after the point; else 0."""
    element: FeatureType | None = None
    """Of an Array, the type of its values. None: it is no array."""
    length: int | None = None
    """Of an embedding (`Array(Float32, n)`), how many values each has. None: as many as there are."""

    def __str__(self) -> str:
        if self.kind == "Decimal":
            return f"Decimal({self.precision}, {self.scale})"
        if self.kind == "Array":
            return f"Array({self.element})"
        if self.kind == "Embedding":
            return f"Array(Float32, {self.length})"
        return self.kind

    __repr__ = __str__

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type of a column of this type."""
        return TABLE[self.kind].arrow(self)

    @property
    def duckdb(self) -> str:
        """The DuckDB type of a column of this type."""
        return TABLE[self.kind].duckdb(self)

    @property
    def numpy(self) -> str:
        """The numpy dtype of a column of this type: the same whether or not the column holds nulls."""
        return TABLE[self.kind].numpy

    @property
    def wire(self) -> str | None:
        """The `struct` code of one value, or None for types whose values differ in length."""
        return f"{4 * (self.length or 0)}s" if self.kind == "Embedding" else TABLE[self.kind].wire

    @property
    def is_float(self) -> bool:
        """Whether values may be NaN."""
        return self.kind in {"Float32", "Float64"}

    def accept(self, value: Scalar) -> Scalar:
        """The canonical Python scalar that `value` is, exactly; ValueError says why it is none of this type."""
        if value is None:
            return None
        if not isinstance(value, PLAIN):
            value = plain(value)
        return None if value is None else TABLE[self.kind].accept(self, value)


def plain(value: Any) -> Any:
    """A scalar of numpy, Arrow or pandas as Python's own; their NaT and NA are null, a UUID is its text, and finer instants
    floor to µs."""
    if hasattr(value, "as_py"):
        value = value.as_py()
    if type(value).__name__ == "UUID":
        return str(value)
    if type(value).__name__ in {"NaTType", "NAType"}:
        return None
    if not hasattr(value, "item") or getattr(value, "ndim", 0) != 0:
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "M":
        return _of_datetime64(value)
    return value if kind == "m" else value.item()


def _of_datetime64(value: Any) -> Any:
    """A date or datetime, or what stands for one that Python cannot hold."""
    item = value.item()
    if item is None or isinstance(item, date):
        return item
    unit, count = _unit(value.dtype)
    number = value.astype("int64").item() * count
    if unit in MICROS:  # not by numpy, whose own conversion goes round beyond 2^63 without a word
        return timestamp_of(number * MICROS[unit])
    if unit in DAYS:
        return date_of(number * DAYS[unit])
    if unit in {"M", "Y"}:
        days = value.astype("datetime64[D]")
        if days.astype(value.dtype) != value:
            raise ValueError(f"{value!r} is beyond every date")
        return date_of(days.astype("int64").item())
    return timestamp_of(value.astype("datetime64[us]").astype("int64").item())


def _unit(dtype: Any) -> tuple[str, int]:
    """The unit of a dtype such as datetime64[s] or datetime64[25s], and how many of it are one."""
    count, unit = re.fullmatch(r"datetime64\[(\d*)([a-zA-Z]+)\]", str(dtype)).groups()  # type: ignore[union-attr]  # every dtype of times is written so
    return unit, int(count or 1)


def _within(of: FeatureType, value: int, bits: int) -> int:
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise ValueError(f"{value!r} does not fit {of}")
    return int(value)


def _float32(value: float) -> float:
    try:
        narrowed: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        narrowed = math.copysign(math.inf, value)
    return narrowed


def _of_nan(value: Any) -> str:
    """What to write where a NaN stands for a null, as pandas and numpy have it, in a type that has none."""
    return "; where it stands for null, give None" if isinstance(value, float) and math.isnan(value) else ""


def _accept_bool(_: FeatureType, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is no boolean")


def _accept_int(bits: int) -> Callable[[FeatureType, Any], int]:
    beyond = 1 << (bits - 1)

    def accept(of: FeatureType, value: Any) -> int:
        if type(value) is not int:
            raise ValueError(f"{value!r} is no integer{_of_nan(value)}")
        if not -beyond <= value < beyond:
            raise ValueError(f"{value!r} does not fit {of}")
        return value

    return accept


def _accept_float(of: FeatureType, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is no number")
    try:
        result = float(value)
    except OverflowError:
        raise ValueError(f"{value!r} does not fit {of}") from None
    if math.isnan(result):
        return math.nan
    if (isinstance(value, int) and int(result) != value) or (of.kind == "Float32" and _float32(result) != result):
        raise ValueError(f"{value!r} is not exactly a {of}; declare a wider type")
    return result


def _accept_string(_: FeatureType, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no string{_of_nan(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} is no valid Unicode text") from None
    return str(value)


def _accept_bytes(_: FeatureType, value: Any) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise ValueError(f"{value!r} is not bytes")
    return bytes(value)


def _accept_date(of: FeatureType, value: Any) -> date | FarDate:
    if isinstance(value, FarDate):
        return date_of(_within(of, value, 32))
    if isinstance(value, datetime) or not isinstance(value, date):
        raise ValueError(f"{value!r} is no date")
    return value


def _accept_timestamp(of: FeatureType, value: Any) -> datetime | FarTimestamp:
    if isinstance(value, FarTimestamp):
        return timestamp_of(_within(of, value, 64))
    if not isinstance(value, datetime):
        hint = ", but text; give a datetime, as datetime.fromisoformat(…) makes of it" if isinstance(value, str) else ""
        raise ValueError(f"{value!r} is no timestamp{hint}")
    plain = datetime(*value.timetuple()[:6], value.microsecond, tzinfo=value.tzinfo or UTC, fold=value.fold)
    try:
        return plain.astimezone(UTC)
    except OverflowError:  # in its own zone it is within Python's years
        offset = plain.utcoffset() or timedelta()
        return timestamp_of((plain.replace(tzinfo=UTC) - EPOCH - offset) // MICROSECOND)


def _accept_decimal(of: FeatureType, value: Any) -> _Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, _Decimal)):
        raise ValueError(f"{value!r} is no decimal")
    number = _Decimal(value)
    if not number.is_finite():
        raise ValueError(f"{value!r} is no finite decimal")
    sign, digits, exponent = number.as_tuple()
    written = "".join(map(str, digits))
    kept = written.rstrip("0")  # by its digits: a power of ten may be more than any memory holds
    if not kept:
        return _Decimal((0, (0,), -of.scale))
    shift = int(exponent) + len(written) - len(kept) + of.scale
    if shift < 0:
        raise ValueError(f"{value!r} has more than {of.scale} decimal {plural(of.scale, 'place')}")
    if len(kept) + shift > of.precision:
        raise ValueError(f"{value!r} does not fit {of}")
    return _Decimal((sign, tuple(map(int, kept + "0" * shift)), -of.scale))


def _accept_array(of: FeatureType, value: Any) -> list[Scalar]:
    if hasattr(value, "tolist"):  # numpy makes numbers of its finer times
        value = list(value) if getattr(getattr(value, "dtype", None), "kind", "") == "M" else value.tolist()
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{value!r} is no list")
    assert of.element is not None
    items = [of.element.accept(item) for item in value]
    if of.length is not None:
        if len(items) != of.length:
            raise ValueError(
                f"{len(items)} {plural(len(items), 'element is', 'elements are')} given, {of} has {of.length}"
            )
        if None in items:
            raise ValueError(f"{of} has no null elements")
    return items


def _json_float(_: FeatureType, value: float) -> JsonValue:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _json_timestamp(_: FeatureType, value: datetime | FarTimestamp) -> str:
    if isinstance(value, FarTimestamp):
        days, micros = divmod(int(value), DAY)
        seconds, micros = divmod(micros, 1_000_000)
        time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micros:06}"
        return f"{_far_day(days)}T{time}Z"
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def _json_date(_: FeatureType, value: date | FarDate) -> str:
    return _far_day(int(value)) if isinstance(value, FarDate) else value.isoformat()


def _far_day(days: int) -> str:
    """A day of any year as ISO 8601 writes it: the year with a sign, year 0 being 1 BC. The calendar repeats every 400 years."""
    eras, rest = divmod(days - FIRST_DAY, ERA)
    near = date.min + timedelta(days=rest)
    year = near.year + 400 * eras
    return f"{'-' if year < 0 else '+'}{abs(year):04}-{near.month:02}-{near.day:02}"


def _read_far(of: FeatureType, text: str) -> FarDate | FarTimestamp:
    """The far time that `to_json` wrote; ValueError where it is none."""
    found = FAR.fullmatch(text)
    if found is None or (found[3] is None) != (of.kind == "Date"):
        raise ValueError(text)
    eras, year = divmod(int(found[1]) - 1, 400)
    days = (date.fromisoformat(f"{year + 1:04}-{found[2]}") - EPOCH_DAY).days + eras * ERA
    if of.kind == "Date":
        return FarDate(days)
    moment = datetime.fromisoformat(f"1970-01-01T{found[3]}+00:00")
    return FarTimestamp(days * DAY + (moment - EPOCH) // MICROSECOND)


def _json_array(of: FeatureType, value: list[Scalar]) -> list[JsonValue]:
    assert of.element is not None
    return [to_json(of.element, item) for item in value]


def _read_as_it_is(of: FeatureType, value: JsonValue) -> Scalar:
    return TABLE[of.kind].accept(of, value)


def _read_float(of: FeatureType, value: JsonValue) -> float:
    if isinstance(value, str):
        if value not in {"NaN", "Infinity", "-Infinity"}:
            raise ValueError(f"{value!r} is no number")
        return float(value.replace("Infinity", "inf"))
    return _accept_float(of, value)


def _read_bytes(_: FeatureType, value: JsonValue) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError(f"{value!r} is not base64") from None


def _read_date(of: FeatureType, value: JsonValue) -> date | FarDate:
    try:
        return _accept_date(of, _read_far(of, value) if value[:1] in {"+", "-"} else date.fromisoformat(value))
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no date such as '2013-12-01'") from None


def _read_timestamp(of: FeatureType, value: JsonValue) -> datetime | FarTimestamp:
    try:
        read = _read_far(of, value) if value[:1] in {"+", "-"} else datetime_of(value)
        return _accept_timestamp(of, read)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is no timestamp such as '2013-12-01T06:30:00Z'") from None


def _read_decimal(of: FeatureType, value: JsonValue) -> _Decimal:
    return _accept_decimal(of, decimal_of(value) if isinstance(value, str) else value)


def _read_array(of: FeatureType, value: JsonValue) -> list[Scalar]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is no list")
    assert of.element is not None
    return _accept_array(of, [from_json(of.element, item) for item in value])


def _same(_: FeatureType, value: Scalar) -> JsonValue:
    return value


def _never(_: Sequence[Any]) -> bool:
    return False


def _are_finite_floats(values: Sequence[Any]) -> bool:
    return {*map(type, values)} <= FLOATS and math.isfinite(sum(filter(None, values)))  # NaN is kept, and so told


def _are_bools(values: Sequence[Any]) -> bool:
    return {*map(type, values)} == {bool}


def _are_ints(bits: int) -> Callable[[Sequence[Any]], bool]:
    beyond = 1 << (bits - 1)
    return lambda values: {*map(type, values)} == {int} and -beyond <= min(values) and max(values) < beyond


def _are_ascii(values: Sequence[Any]) -> bool:
    return {*map(type, values)} == {str} and "".join(values).isascii()


class TypeForms(NamedTuple):
    """A row of the table: what one kind of type is in each place where its values appear."""

    arrow: Callable[[FeatureType], pa.DataType]
    duckdb: Callable[[FeatureType], str]
    numpy: str
    wire: str | None
    accept: Callable[[FeatureType, Any], Scalar]
    to_json: Callable[[FeatureType, Scalar], JsonValue] = _same
    from_json: Callable[[FeatureType, JsonValue], Scalar] = _read_as_it_is
    are_plain: Callable[[Sequence[Any]], bool] = _never
    """Whether all values, also as JSON has them, are canonical as they are; False also where that is not seen at once."""


def _arrow_decimal(of: FeatureType) -> pa.DataType:
    return pa.decimal128(of.precision, of.scale)


def _arrow_list(of: FeatureType) -> pa.DataType:
    assert of.element is not None
    return pa.list_(of.element.arrow, of.length if of.length is not None else -1)


def _named(name: str) -> Callable[[FeatureType], str]:
    return lambda _: name


def _duckdb_list(of: FeatureType) -> str:
    assert of.element is not None
    return f"{of.element.duckdb}[{'' if of.length is None else of.length}]"


TABLE: dict[str, TypeForms] = {
    "Bool": TypeForms(lambda _: pa.bool_(), _named("BOOLEAN"), "float64", "?", _accept_bool, are_plain=_are_bools),
    "Int32": TypeForms(lambda _: pa.int32(), _named("INTEGER"), "float64", "i", _accept_int(32), are_plain=_are_ints(32)),
    "Int64": TypeForms(lambda _: pa.int64(), _named("BIGINT"), "float64", "q", _accept_int(64), are_plain=_are_ints(64)),
    "Float32": TypeForms(lambda _: pa.float32(), _named("FLOAT"), "float32", "f", _accept_float, _json_float, _read_float),
    "Float64": TypeForms(
        lambda _: pa.float64(), _named("DOUBLE"), "float64", "d", _accept_float, _json_float, _read_float, _are_finite_floats,
    ),
    "String": TypeForms(lambda _: pa.string(), _named("VARCHAR"), "object", None, _accept_string, are_plain=_are_ascii),
    "Bytes": TypeForms(
        lambda _: pa.binary(), _named("BLOB"), "object", None, _accept_bytes,
        lambda _, value: base64.b64encode(value).decode(), _read_bytes,
    ),
    "Date": TypeForms(
        lambda _: pa.date32(), _named("DATE"), "datetime64[us]", "i", _accept_date,
        _json_date, _read_date,
    ),
    "Timestamp": TypeForms(
        lambda _: pa.timestamp("us", "UTC"), _named("TIMESTAMP WITH TIME ZONE"), "datetime64[us]", "q",
        _accept_timestamp, _json_timestamp, _read_timestamp,
    ),
    "Decimal": TypeForms(
        _arrow_decimal, lambda of: f"DECIMAL({of.precision},{of.scale})", "object", "16s", _accept_decimal,
        lambda _, value: format(value, "f"), _read_decimal,
    ),
    "Array": TypeForms(_arrow_list, _duckdb_list, "object", None, _accept_array, _json_array, _read_array),
    "Embedding": TypeForms(_arrow_list, _duckdb_list, "object", None, _accept_array, _json_array, _read_array),
}  # fmt: skip

_SIMPLE = {kind: FeatureType(kind) for kind in TABLE if kind not in {"Decimal", "Array", "Embedding"}}
Bool, Int32, Int64, Float32, Float64, String, Bytes, Date, Timestamp = _SIMPLE.values()


def Decimal(precision: int, scale: int) -> FeatureType:  # noqa: N802 - a type's name
    """Exact decimal numbers with up to 38 digits in all, `scale` of them behind the point."""
    if not (1 <= precision <= 38 and 0 <= scale <= precision):
        raise ValueError(f"Decimal({precision}, {scale}): precision is 1 to 38, scale is 0 to precision")
    return FeatureType("Decimal", precision=precision, scale=scale)


def Array(element: FeatureType, length: int | None = None) -> FeatureType:  # noqa: N802 - a type's name
    """Lists of any length, null elements included; `Array(Float32, n)` is an embedding: n floats, none of them null."""
    if not isinstance(element, FeatureType):
        raise ValueError(f"Array({element!r}): the element is no type; see featurestore.types")
    if length is None:
        return FeatureType("Array", element=element)
    if element != Float32 or length < 1:
        raise ValueError(f"Array({element}, {length}): only Array(Float32, n) with n ≥ 1 has a fixed length")
    return FeatureType("Embedding", element=element, length=length)


_DECIMAL = re.compile(r"Decimal\((\d+),\s*(\d+)\)")
_ARRAY = re.compile(r"Array\((.+?)(?:,\s*(\d+))?\)")


def parse_type(text: str) -> FeatureType:
    """The type that `str(type)` wrote."""
    if text in _SIMPLE:
        return _SIMPLE[text]
    if found := _DECIMAL.fullmatch(text):
        return Decimal(int(found[1]), int(found[2]))
    if text.startswith("Array(Decimal"):
        return Array(parse_type(text[6:-1]))
    if found := _ARRAY.fullmatch(text):
        return Array(parse_type(found[1]), int(found[2]) if found[2] else None)
    raise ValueError(f"{text!r} is no type")


def to_json(of: FeatureType, value: Scalar) -> JsonValue:
    """The JSON form of a canonical scalar."""
    return None if value is None else TABLE[of.kind].to_json(of, value)


def from_json(of: FeatureType, value: JsonValue) -> Scalar:
    """The canonical scalar of a JSON form; ValueError says why it is none of this type."""
    return None if value is None else TABLE[of.kind].from_json(of, value)


def column_of(of: FeatureType, values: list[Any], *, json: bool) -> list[Scalar]:
    """The canonical scalars of several values; `json`: of their JSON forms. ValueError and TypeError where one is none."""
    if values and TABLE[of.kind].are_plain(values):
        return values
    return [from_json(of, value) for value in values] if json else list(map(of.accept, values))


if not TYPE_CHECKING:  # or every name would be one

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)

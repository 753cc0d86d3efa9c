"""The meaning of plain columns (`Latest`), written down naively so that everything else can be judged by it.

    A feature value is a function of a key and an instant. It is computed from the rows known at that
    instant, and from nothing else.

Nothing here comes from the product, and nothing here is quick: nested loops over Python rows, one short
function for each rule. Instants are int microseconds since 1970-01-01T00:00:00Z. A row is a dict of column
name to Python value, None being null; `types` names the type of each column, as `"Int64"`, `"Decimal(10,2)"`
or `"Array(Float64)"`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

__all__ = [
    "ALWAYS",
    "EXPIRED",
    "MISSING",
    "PRESENT",
    "Answer",
    "SourceSpec",
    "ViewSpec",
    "as_of",
    "columns_read",
    "event_time",
    "identical",
    "instant",
    "invalid_counts",
    "known_at",
    "sort_key",
    "training",
    "value_at",
]

Row = dict[str, Any]
Types = dict[str, str]
Instant = int | float
"""Int microseconds; the one float is ALWAYS."""

ALWAYS = -math.inf
"""The event_time and known_at of the rows of a table without time."""

MISSING, EXPIRED, PRESENT = "MISSING", "EXPIRED", "PRESENT"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class SourceSpec:
    """What a source says. Names are column names; durations and instants are microseconds."""

    event_time: str | None = None
    known_at: str | None = None
    known_after_us: int = 0
    history_until: int | None = None
    identity: tuple[str, ...] = ()
    version: str | None = None
    tiebreak: tuple[str, ...] = ()
    deleted: str | None = None
    until: str | None = None
    valid_from: str | None = None
    timezone: str = "UTC"
    date: str = "end"
    period_us: int | None = None

    def __post_init__(self) -> None:
        if self.date not in ("end", "start"):
            raise ValueError("date is 'end' or 'start'")
        if self.deleted is not None and not self.identity:
            raise ValueError("deleted needs identity")
        if self.identity and self.known_at is None and self.version is None:
            raise ValueError("identity needs known_at or version")
        if self.version is not None and not self.identity:
            raise ValueError("version orders the versions of one identity, so it needs identity")
        if self.valid_from is not None and self.event_time is not None:
            raise ValueError("valid_from is for tables without time")
        if self.event_time is None and (self.known_at is not None or self.known_after_us or self.period_us):
            raise ValueError("a table without time is known as soon as it is valid")


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """What a view says. `key` maps entity keys to source columns, in the entity's order."""

    key: dict[str, str]
    features: dict[str, str]
    refresh_us: int | None = None  # None: continuous
    offset_us: int = 0
    settle_us: int = 0
    ready_after_us: int | None = None  # None: as soon as it has settled
    ttl_us: int | None = None
    defaults: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(length is not None and length <= 0 for length in (self.refresh_us, self.ttl_us)):
            raise ValueError("refresh and ttl are positive")
        if self.refresh_us is not None and self.ready_after_us is not None:
            if not self.settle_us <= self.ready_after_us <= self.settle_us + self.refresh_us:
                raise ValueError("ready_after is at least settle, and at most one refresh more")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The value of every feature of a view for one key at one instant, and how it came about."""

    status: str
    values: dict[str, Any]
    event_time: Instant | None = None  # of the row that Latest chose, even when that row has ended
    row_index: int | None = None  # the row that Latest chose, even when it has ended
    conflict: bool = False
    reasons: dict[int, str] = field(default_factory=dict)  # for each row of the key: "chosen", or why not


# --- Time -----------------------------------------------------------------------------------------------------------


def instant(value: date | datetime | None, source: SourceSpec) -> int | None:
    """The instant that a time word means: a Date is the next midnight, or its own midnight with date="start"."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return instant_of_timestamp(value, source.timezone)
    day = value if source.date == "start" else value + DAY
    return instant_of_timestamp(datetime.combine(day, time.min), source.timezone)


def instant_of_timestamp(value: datetime, timezone: str) -> int:
    """Microseconds since the epoch; a naive timestamp is local to `timezone`.

    An ambiguous local time is the later instant. One that clocks skipped is read with the offset from before
    the gap. In both cases this is the later one of zoneinfo's two readings.
    """
    if value.tzinfo is not None:
        return (value - EPOCH) // MICROSECOND
    earlier_or_later = [value.replace(tzinfo=ZoneInfo(timezone), fold=fold) for fold in (0, 1)]
    return max((reading - EPOCH) // MICROSECOND for reading in earlier_or_later)


def event_time(source: SourceSpec, row: Row) -> Instant | None:
    """When the row happened, at the end of its period; for a table without time its valid_from, or always."""
    if source.event_time is None:
        return ALWAYS if source.valid_from is None else instant(row[source.valid_from], source)
    value = row[source.event_time]
    happened = instant(value, source)  # a Date is a period already: its day
    if happened is not None and source.period_us is not None and isinstance(value, datetime):
        happened += source.period_us
    return happened


def known_at(source: SourceSpec, row: Row) -> Instant | None:
    """When we learned of the row. This one orders; history_until does not touch it."""
    if source.known_at is not None:
        return instant(row[source.known_at], source)
    happened = event_time(source, row)
    return None if happened is None else happened + source.known_after_us


def counts_from(source: SourceSpec, row: Row) -> Instant | None:
    """From when on the row passes the test `known`: earlier than known_at for rows loaded in bulk."""
    learned, happened = known_at(source, row), event_time(source, row)
    loaded_in_bulk = source.history_until is not None and happened is not None and happened <= source.history_until
    if learned is not None and loaded_in_bulk:
        return min(learned, happened + source.known_after_us)
    return learned


# --- Rule 0: when ---------------------------------------------------------------------------------------------------


def as_of(view: ViewSpec, t: int) -> tuple[int, int]:
    """(as_of, known_by) of a question asked at t. Python's // floors, before 1970 too."""
    if view.refresh_us is None:
        return t, t
    ready_after = view.settle_us if view.ready_after_us is None else view.ready_after_us
    newest = (t - ready_after - view.offset_us) // view.refresh_us * view.refresh_us + view.offset_us
    return newest, newest + view.settle_us


# --- Rule 2: in which order -----------------------------------------------------------------------------------------


def sort_key(type_: str, value: Any, timezone: str = "UTC") -> tuple[Any, ...]:
    """A total order of the values of one type by canonical bytes. Equal keys are identical values, and only they.

    Null is least. Arrays compare element by element, then the shorter is less.
    """
    if value is None:
        return (0,)
    if type_.startswith("Array("):
        return (1, tuple(sort_key(element_type(type_), element, timezone) for element in value))
    return (1, canonical_bytes(type_, value, timezone))


def canonical_bytes(type_: str, value: Any, timezone: str) -> bytes:
    """Big-endian bytes that compare as their values do."""
    if type_ == "Bool":
        return bytes([value])
    if type_ == "Int32":
        return signed_bytes(value, 4)
    if type_ == "Int64":
        return signed_bytes(value, 8)
    if type_ == "Float32":
        return float_bytes(struct.pack(">f", math.nan if math.isnan(value) else value))
    if type_ == "Float64":
        return float_bytes(struct.pack(">d", math.nan if math.isnan(value) else value))
    if type_ == "String":
        return value.encode("utf-8")
    if type_ == "Bytes":
        return value
    if type_ == "Date":
        return signed_bytes((value - EPOCH.date()).days, 4)
    if type_ == "Timestamp":
        return signed_bytes(instant_of_timestamp(value, timezone), 8)
    if type_.startswith("Decimal("):
        scaled = Fraction(value) * 10 ** decimal_scale(type_)
        assert scaled.denominator == 1, f"{value} does not fit {type_}"
        return signed_bytes(scaled.numerator, 16)
    raise TypeError(f"no such type: {type_}")


def signed_bytes(value: int, size: int) -> bytes:
    """Two's complement with the sign bit flipped, so that negative numbers come first."""
    return (value + (1 << (8 * size - 1))).to_bytes(size, "big")


def float_bytes(ieee: bytes) -> bytes:
    """IEEE total order: -inf < … < -0.0 < 0.0 < … < inf < NaN. Negative numbers have all their bits flipped."""
    if ieee[0] & 0x80:
        return bytes(byte ^ 0xFF for byte in ieee)
    return bytes([ieee[0] | 0x80]) + ieee[1:]


def element_type(type_: str) -> str:
    """`Float64` of `Array(Float64)`, `Float32` of `Array(Float32, 2)`."""
    inner = type_.removeprefix("Array(").removesuffix(")")
    head, _, length = inner.rpartition(",")
    return head if length.strip().isdigit() else inner


def decimal_scale(type_: str) -> int:
    """2 of `Decimal(10,2)`."""
    return int(type_.removesuffix(")").split(",")[1])


def identical(type_: str, a: Any, b: Any) -> bool:
    """Same bits: NaN is NaN, null is not NaN, -0.0 is not 0.0."""
    return sort_key(type_, a) == sort_key(type_, b)


def columns_read(source: SourceSpec, view: ViewSpec) -> list[str]:
    """All columns that the view reads, by name: keys, features, and whatever the source's words name."""
    words = [source.event_time, source.known_at, source.version, source.deleted, source.until, source.valid_from]
    named = [*view.key.values(), *view.features.values(), *source.identity, *source.tiebreak, *words]
    return sorted({column for column in named if column is not None})


def in_order(source: SourceSpec, row: Row, types: Types, columns: list[str] | tuple[str, ...]) -> tuple[Any, ...]:
    """The sort keys of some columns of a row, one after the other."""
    return tuple(sort_key(types[column], row[column], source.timezone) for column in columns)


def null_least(moment: Instant | None) -> tuple[Any, ...]:
    return (0,) if moment is None else (1, moment)


def latest_order(source: SourceSpec, view: ViewSpec, row: Row, types: Types) -> tuple[Any, ...]:
    """Rows of one key: event_time, known_at, tiebreak, bytes. The greatest is the latest."""
    return (
        null_least(event_time(source, row)),
        null_least(known_at(source, row)),
        in_order(source, row, types, source.tiebreak),
        in_order(source, row, types, columns_read(source, view)),
    )


def learned_order(source: SourceSpec, view: ViewSpec, row: Row, types: Types) -> tuple[Any, ...]:
    """Versions of one identity: version, known_at, event_time, tiebreak, bytes. The greatest was learned last."""
    return (
        in_order(source, row, types, () if source.version is None else (source.version,)),
        null_least(known_at(source, row)),
        null_least(event_time(source, row)),
        in_order(source, row, types, source.tiebreak),
        in_order(source, row, types, columns_read(source, view)),
    )


# --- Rule 1: which rows ---------------------------------------------------------------------------------------------


def current_rows(
    source: SourceSpec, view: ViewSpec, rows: list[Row], types: Types, known_by: Instant
) -> tuple[list[int], dict[int, str]]:
    """The rows of every key that are current at known_by, and why each other row is not."""
    reasons: dict[int, str] = {}

    known = []
    for i, row in enumerate(rows):
        if known_at(source, row) is None or any(row[column] is None for column in source.identity):
            reasons[i] = "invalid"
        elif counts_from(source, row) > known_by:
            reasons[i] = "not yet known"
        else:
            known.append(i)

    last_learned = known
    if source.identity:
        identity = {i: in_order(source, rows[i], types, source.identity) for i in known}
        learned = {i: learned_order(source, view, rows[i], types) for i in known}
        last_learned = []
        for i in known:
            versions = [j for j in known if identity[j] == identity[i]]
            if i == max(versions, key=learned.__getitem__):
                last_learned.append(i)
            else:
                reasons[i] = "superseded"

    current = []
    for i in last_learned:
        row = rows[i]
        if source.deleted is not None and row[source.deleted] is True:
            reasons[i] = "deleted"
        elif event_time(source, row) is None or any(row[column] is None for column in view.key.values()):
            reasons[i] = "invalid"
        else:
            current.append(i)
    return current, reasons


def invalid_counts(
    source: SourceSpec, view: ViewSpec, rows: list[Row], types: Types, known_by: Instant = math.inf
) -> dict[str, int]:
    """How many rows are dropped for a null, each counted once under the first of these words that is null.

    known_at and identity count for every row, known or not: they are dropped first. key and event_time count
    for rows that are current at known_by. Without a known_at column, a row without event_time has no known_at
    either; it is dropped first, and counted under event_time.
    """
    counts = {"known_at": 0, "identity": 0, "key": 0, "event_time": 0}
    _, reasons = current_rows(source, view, rows, types, known_by)
    for i, reason in reasons.items():
        row = rows[i]
        if reason != "invalid":
            continue
        if source.known_at is not None and row[source.known_at] is None:
            counts["known_at"] += 1
        elif any(row[column] is None for column in source.identity):
            counts["identity"] += 1
        elif known_at(source, row) is not None and any(row[column] is None for column in view.key.values()):
            counts["key"] += 1
        else:
            counts["event_time"] += 1
    return counts


# --- Rules 3 and 4: what, and its status ----------------------------------------------------------------------------


def value_at(
    source: SourceSpec,
    view: ViewSpec,
    rows: list[Row],
    types: Types,
    key: tuple[Any, ...],
    as_of: int,
    known_by: int,
) -> Answer:
    """The features of `key` at `as_of`, from the rows known by `known_by`."""
    key_columns = tuple(view.key.values())
    assert len(key) == len(key_columns), "one value for each entity key"
    without_value = {name: view.defaults.get(name) for name in view.features}

    if any(part is None for part in key):
        return Answer(status=MISSING, values=without_value)

    asked = tuple(sort_key(types[column], part, source.timezone) for column, part in zip(key_columns, key, strict=True))
    of_key = [i for i, row in enumerate(rows) if in_order(source, row, types, key_columns) == asked]

    current, reasons = current_rows(source, view, rows, types, known_by)
    reasons = {i: reasons[i] for i in of_key if i in reasons}

    visible = []
    key_is_known = False
    for i in of_key:
        if i not in current:
            continue
        happened = event_time(source, rows[i])
        if happened > as_of:
            reasons[i] = "too new"
            continue
        key_is_known = True
        if view.ttl_us is not None and happened < as_of - view.ttl_us:
            reasons[i] = "expired"
            continue
        visible.append(i)

    if not key_is_known:
        return Answer(status=MISSING, values=without_value, reasons=reasons)
    if not visible:
        return Answer(status=EXPIRED, values=without_value, reasons=reasons)

    order = {i: latest_order(source, view, rows[i], types) for i in visible}
    chosen = max(visible, key=order.__getitem__)
    for i in visible:
        reasons[i] = "older"
    reasons[chosen] = "chosen"

    # Equal up to the bytes, which come last: a conflict.
    conflict = any(order[i][:-1] == order[chosen][:-1] and order[i] != order[chosen] for i in visible)

    status = PRESENT
    values = {
        name: result(types[column], rows[chosen][column], source.timezone) for name, column in view.features.items()
    }
    if source.until is not None:
        end = instant(rows[chosen][source.until], source)
        if end is not None and end <= as_of:
            status, values, reasons[chosen] = EXPIRED, without_value, "ended"

    return Answer(
        status=status,
        values=values,
        event_time=event_time(source, rows[chosen]),
        row_index=chosen,
        conflict=conflict,
        reasons=reasons,
    )


def result(type_: str, value: Any, timezone: str) -> Any:
    """The value as it is handed out: one NaN, and timestamps as instants (aware, UTC)."""
    if value is None:
        return None
    if type_.startswith("Array("):
        return [result(element_type(type_), element, timezone) for element in value]
    if type_ in ("Float32", "Float64") and math.isnan(value):
        return math.nan
    if type_ == "Timestamp":
        return EPOCH + instant_of_timestamp(value, timezone) * MICROSECOND
    return value


def training(
    source: SourceSpec, view: ViewSpec, rows: list[Row], types: Types, spine: list[tuple[tuple[Any, ...], int]]
) -> list[Answer]:
    """One answer for each row of the spine, in its order: rule 0, then the value."""
    answers = []
    for number, (key, t) in enumerate(spine):
        if t is None:
            raise ValueError(f"row {number} of the spine has no time")
        instant_served, known_by = as_of(view, t)
        answers.append(value_at(source, view, rows, types, key, instant_served, known_by))
    return answers

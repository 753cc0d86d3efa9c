"""Random histories for property tests: what a source and a view say, the rows, and the questions to ask.

Domains are small on purpose, so that ties, corrections, deletions and rows exactly on an edge are frequent.
Times lie on a coarse grid around an origin or, half of them, on an edge: where a row begins or ceases to count, where a
view computes and serves an instant. Both are nudged by one microsecond now and then. Values come from pools of edge cases.
Every row also has an Int64 column `row` with its own number, which no view reads.
"""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from featurestore.durable.parquet import storable
from tests.oracle import (
    Answer,
    SourceSpec,
    ViewSpec,
    counts_from,
    element_type,
    event_time,
    instant,
    sort_key,
    training,
)

__all__ = [
    "KEY_POOLS",
    "NAN_WITH_PAYLOAD",
    "NAN_WITH_SIGN",
    "VALUE_POOLS",
    "History",
    "answers_of",
    "arrow_type",
    "clocks",
    "edges",
    "histories",
    "instants_on_edges",
    "keys_of",
    "seen",
    "to_arrow",
    "write_parquet",
]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR = 3_600_000_000
DAY = 24 * HOUR
NAN_WITH_SIGN = struct.unpack(">d", bytes.fromhex("fff8000000000000"))[0]  # what inf - inf gives in DuckDB
NAN_WITH_PAYLOAD = struct.unpack(">d", bytes.fromhex("7ff8000000000001"))[0]

# Origin, step of the grid, timezone of naive timestamps.
GRIDS = (
    (0, 1, "UTC"),  # microseconds on both sides of the epoch
    (0, HOUR, "UTC"),
    (-3 * DAY, DAY, "UTC"),  # floor division before 1970
    (1_357_000_000_000_000, 1_000_000, "UTC"),
    (1_362_898_800_000_000, HOUR // 2, "America/New_York"),  # 2013-03-10 02:00 there: clocks go forward
    (1_383_458_400_000_000, HOUR // 2, "America/New_York"),  # 2013-11-03 01:00 there, the second time: clocks went back
    (1_382_238_000_000_000, HOUR, "America/Sao_Paulo"),  # 2013-10-20 has no midnight there
    (1_382_238_000_000_000, DAY, "America/Sao_Paulo"),
    (1_362_891_600_000_000, DAY, "America/New_York"),  # midnights around a day of 23 hours
)

VALUE_POOLS: dict[str, tuple[Any, ...]] = {
    "Bool": (None, False, True),
    "Int32": (None, 0, -1, 2**31 - 1, -(2**31)),
    "Int64": (None, 0, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)),
    "Float32": (None, 0.0, -0.0, math.nan, math.inf, -math.inf, 0.10000000149011612, 2.0**-149),
    "Float64": (None, 0.0, -0.0, math.nan, NAN_WITH_SIGN, NAN_WITH_PAYLOAD, math.inf, -math.inf, 0.1, 5e-324, -1e308),
    "String": (None, "", "a", "A", "a\x00b", "é", "\uffff", "\U0001f6eb", " "),
    "Bytes": (None, b"", b"\x00", b"\x00\x00", b"a", b"\xff"),
    "Date": (None, date(1970, 1, 1), date(1969, 12, 31), date(2013, 3, 10), date(1900, 2, 28)),
    "Timestamp": (None, EPOCH, EPOCH - MICROSECOND, EPOCH + MICROSECOND, datetime(2013, 3, 10, 7, 30, tzinfo=UTC)),
    "Decimal(10,2)": (None, Decimal("0.00"), Decimal("-0.01"), Decimal("99999999.99"), Decimal("1.10")),
    "Decimal(38,0)": (None, Decimal(0), Decimal(10**38 - 1), Decimal(-(10**38) + 1)),
    "Array(Int64)": (None, [], [None], [1], [1, None], [1, 2], [-1, 5]),
    "Array(Float64)": (None, [], [None], [math.nan], [0.0], [-0.0], [0.0, None], [1.5, math.inf]),
    "Array(Float32, 2)": (None, [0.0, 1.0], [-0.0, 1.0], [math.nan, 0.5]),
}

KEY_POOLS: dict[str, tuple[Any, ...]] = {
    "Bool": (False, True),
    "Int64": (1, 12, 2**53, 2**53 + 1),
    "String": ("", "1", "23", "3"),
    "Bytes": (b"", b"1", b"\x00"),
    "Date": (date(1969, 12, 31), date(2013, 3, 10)),
}

KEY_SHAPES = (("Int64",), ("String",), ("Int64", "String"), ("Int64", "String"), (), ("Bytes",), ("Date", "Bool"))
ORDER_POOLS: dict[str, tuple[Any, ...]] = {  # for version and tiebreak
    "Int64": (None, 1, 2),
    "String": (None, "", "é"),
    "Float64": (None, -0.0, 0.0, math.nan),
}
FORMS = ("aware", "naive")
FORMS_OF_DAYS = ("aware", "naive", "Date", "Date")
NUDGE = st.sampled_from((0, 0, 0, -1, 1))


@dataclass(frozen=True)
class History:
    """One random world. `spine` asks for (key, instant); `step` is the grain of its times; many of them lie on `stops`, which
    are instants of the view."""

    source: SourceSpec
    view: ViewSpec
    rows: list[dict[str, Any]]
    types: dict[str, str]
    spine: list[tuple[tuple[Any, ...], int]]
    origin: int
    step: int
    stops: tuple[int, ...] = ()

    @property
    def instants(self) -> list[int]:
        """The spine's instants, each once, in order."""
        return sorted({t for _, t in self.spine})


def rarely(draw: st.DrawFn, one_in: int = 8) -> bool:
    return draw(st.integers(0, one_in - 1)) == one_in - 1


def pick(draw: st.DrawFn, *choices: Any) -> Any:
    return draw(st.sampled_from(choices))


def bare_words(draw: st.DrawFn, *, step: int, timezone: str) -> SourceSpec:
    """A source whose rows have versions that are learned at some time, and little else."""
    return SourceSpec(
        event_time="event_time",
        known_at="known_at",
        known_after_us=pick(draw, 0, step),
        identity=("id",),
        deleted="deleted" if rarely(draw, 3) else None,
        until="until" if rarely(draw, 3) else None,
        timezone=timezone,
    )


def time_words(draw: st.DrawFn, *, step: int, origin: int, timezone: str, timeless: bool) -> SourceSpec:
    """A random source: which words it says, with the columns that they name."""
    known_at = None if timeless or rarely(draw, 3) else "known_at"
    identity = pick(draw, (), ("id",), ("id", "id_part"))
    version = "version" if identity and (known_at is None or rarely(draw, 3)) else None
    return SourceSpec(
        event_time=None if timeless else "event_time",
        known_at=known_at,
        known_after_us=0 if timeless else pick(draw, 0, 0, 1, step, 2 * step),
        history_until=None if timeless or not rarely(draw, 3) else origin + step * draw(st.integers(-2, 3)),
        identity=identity,
        version=version,
        tiebreak=pick(draw, (), ("tie_a",), ("tie_b", "tie_a")),
        deleted="deleted" if identity and draw(st.booleans()) else None,
        until="until" if rarely(draw, 4) else None,
        valid_from="valid_from" if timeless and draw(st.booleans()) else None,
        timezone=timezone,
        date="start" if rarely(draw, 4) else "end",
        period_us=step if not timeless and rarely(draw, 5) else None,
    )


def schedule(draw: st.DrawFn, *, step: int, ttl_allowed: bool) -> dict[str, int | None]:
    """How a random view moves in time."""
    ttl = pick(draw, None, None, 1, step, 2 * step, 3 * step + 1) if ttl_allowed else None
    if rarely(draw, 4):
        return {"ttl_us": ttl}
    refresh = step * draw(st.integers(1, 3))
    settle = pick(draw, 0, 0, 1, step)
    return {
        "refresh_us": refresh,
        "offset_us": pick(draw, 0, 0, (refresh - 1) // 2, refresh - 1),
        "settle_us": settle,
        "ready_after_us": pick(draw, None, settle, settle + 1, settle + refresh),
        "ttl_us": ttl,
    }


def in_form(moment: int, form: str, timezone: str) -> date | datetime:
    """The instant as a column of this form holds it. The second reading of an ambiguous local time is lost."""
    aware = EPOCH + moment * MICROSECOND
    if form == "aware":
        return aware
    local = aware.astimezone(ZoneInfo(timezone)).replace(tzinfo=None, fold=0)
    return local if form == "naive" else local.date()


@dataclass(frozen=True)
class Columns:
    """Of each column of a table: its type, and what its values are drawn from: a pool, or a form of time."""

    types: dict[str, str]
    pools: dict[str, tuple[Any, ...]]
    forms: dict[str, str]


def columns_of(
    draw: st.DrawFn, source: SourceSpec, key_types: tuple[str, ...], value_types: list[str], step: int, *, bare: bool
) -> Columns:
    """The columns that the source's words name, the keys and the values."""
    types, pools = {"row": "Int64"}, {}
    few_values = not bare and draw(st.booleans())  # so few that rows are often equal in every byte
    for n, type_ in enumerate(value_types):
        types[f"value_{n}"], pools[f"value_{n}"] = type_, VALUE_POOLS[type_][: 2 if few_values else None]
    for n, type_ in enumerate(key_types):
        types[f"key_{n}"], pools[f"key_{n}"] = type_, KEY_POOLS[type_][: None if bare else pick(draw, 1, 2, 2)]
    for column in source.identity:
        types[column], pools[column] = "Int64", (1, 2)
    for column in (*source.tiebreak, *([] if source.version is None else [source.version])):
        types[column] = pick(draw, *ORDER_POOLS)
        pools[column] = ORDER_POOLS[types[column]]
    if source.deleted is not None:
        types[source.deleted], pools[source.deleted] = "Bool", (None, False, False, True)

    forms = {}
    for column in (source.event_time, source.known_at, source.until, source.valid_from):
        if column is not None:
            forms[column] = pick(draw, *(FORMS_OF_DAYS if step == DAY and not bare else FORMS))
            types[column] = "Date" if forms[column] == "Date" else "Timestamp"
    return Columns(types, pools, forms)


def instant_after(view: ViewSpec, moment: int) -> int:
    """The first instant of a view that is not before a moment."""
    if view.refresh_us is None:
        return moment
    return -(-(moment - view.offset_us) // view.refresh_us) * view.refresh_us + view.offset_us


@dataclass(frozen=True)
class Grid:
    """Where the times of rows lie: whole steps from an origin, and on some instants of the view, at which clocks stop too."""

    origin: int
    step: int
    view: ViewSpec
    stops: tuple[int, ...] = ()

    def whole(self) -> st.SearchStrategy[int]:
        """A whole step of the grid, often nudged across an edge by a microsecond."""
        return st.builds(lambda n, by: self.origin + n * self.step + by, st.integers(-4, 4), NUDGE)

    def moments(self) -> st.SearchStrategy[int]:
        """When rows happened: on the grid, or where they just count for one of the instants, or lie within the ttl of it."""
        back = st.sampled_from((0, 0, self.view.ttl_us or 0))
        return self.whole() | st.builds(lambda at, less, by: at - less + by, st.sampled_from(self.stops), back, NUDGE)

    def later(self, moment: int, *, settle: int, steps: tuple[int, ...]) -> st.SearchStrategy[int]:
        """A time so many steps after a moment, or the last that counts for one of the instants from then on."""
        on_grid = st.builds(lambda n, by: moment + n * self.step + by, st.sampled_from(steps), NUDGE)
        stops = [at + settle for at in self.stops if at + settle >= moment]
        return on_grid | st.builds(lambda at, by: at + by, st.sampled_from(stops), NUDGE) if stops else on_grid


def a_row(
    draw: st.DrawFn, source: SourceSpec, columns: Columns, happened: int, grid: Grid, may_be_null: list[str] | None
) -> dict[str, Any]:
    """A row that happened then: learned of and ending at other times, now and then with a null, unless none may be null."""
    row = {column: draw(st.sampled_from(pool)) for column, pool in columns.pools.items()}
    for column, form in columns.forms.items():
        settle = grid.view.settle_us if column == source.known_at else 0
        delayed = grid.later(happened, settle=settle, steps=(0, 0, 0, 0, 1, 2, -1))
        at = happened if column == source.event_time else draw(delayed)
        unknown = may_be_null is not None and rarely(draw, 20)
        row[column] = None if unknown else in_form(at, form, source.timezone)
    if may_be_null is None:
        return row
    for column in (*may_be_null, *source.identity):
        if rarely(draw, 24):
            row[column] = None
    if source.deleted is not None and row[source.deleted] and draw(st.booleans()):
        for column in (*may_be_null, source.event_time):  # a tombstone may leave them out
            if column is not None:
                row[column] = None
    return row


def a_version(
    draw: st.DrawFn, source: SourceSpec, columns: Columns, before: dict[str, Any], grid: Grid
) -> dict[str, Any]:
    """A later version of a row: learned after it, half of the time of another key, else of another value.

    Where the source says nothing of when a row was learned, it also happened later.
    """
    row = dict(before)
    keys = [column for column in columns.pools if column.startswith("key_")]
    values = [column for column in columns.pools if column.startswith("value_")]
    if keys and draw(st.booleans()):  # type: ignore[arg-type]  # each draw is of its own type
        column = draw(st.sampled_from(keys))
        others = [value for value in columns.pools[column] if value != row[column]]
        row[column] = draw(st.sampled_from(others or columns.pools[column]))
    else:
        row |= {column: draw(st.sampled_from(columns.pools[column])) for column in values}
    if source.version is not None:
        row[source.version] = draw(st.sampled_from(columns.pools[source.version]))
    when = source.event_time if source.known_at is None else source.known_at
    before_that = None if when is None else instant(before[when], source)
    if when is not None and before_that is not None:
        at = draw(grid.later(before_that, settle=grid.view.settle_us, steps=(1, 1, 2, 3, 0)))
        row[when] = in_form(max(before_that, at), columns.forms[when], source.timezone)
    return row


Window = tuple[int | None, int, int]
"""How far back a window sees, its offset and its hop; µs."""


def edges(
    source: SourceSpec, view: ViewSpec, rows: list[dict[str, Any]], windows: Collection[Window] = ()
) -> list[int]:
    """The instants of a clock at which an answer may change: of a row of the view, those at which it is known, has happened,
    lies within its ttl for the last time, ends, and comes into a window and leaves it; of a refreshed view, those from which
    the first instant that sees the change can be computed, and is served."""
    settle, ttl = view.settle_us, view.ttl_us
    ready_after = settle if view.ready_after_us is None else view.ready_after_us
    learned = {counts_from(source, row) for row in rows}
    times = {event_time(source, row) for row in rows}
    ends = {instant(row[source.until], source) for row in rows} if source.until else set()
    whole = [at for at in times if isinstance(at, int)]
    passed: set[Any] = {*whole, *ends, *(() if ttl is None else (at + ttl for at in whole))}
    for length, offset, hop in windows:
        for back in (offset, *(() if length is None else (offset + length,))):
            passed |= {-(-at // hop) * hop + back if hop else at + back for at in whole}
    if view.refresh_us is None:
        return sorted(at for at in passed | learned if isinstance(at, int))
    seen = {instant_after(view, at) for at in passed if isinstance(at, int)}
    seen |= {instant_after(view, at - settle) for at in learned if isinstance(at, int)}
    return sorted({at + after for at in seen for after in (settle, ready_after)})


def instants_on_edges(history: History, windows: Collection[Window] = ()) -> st.SearchStrategy[int]:
    """Instants of a clock: half of them on an edge or a µs beside it, the others anywhere on the grid."""
    on_grid = st.builds(lambda n, by: history.origin + n * history.step // 2 + by, st.integers(-6, 12), NUDGE)
    found = edges(history.source, history.view, history.rows, windows)
    return st.builds(lambda at, by: at + by, st.sampled_from(found), NUDGE) | on_grid if found else on_grid


@st.composite
def clocks(draw: st.DrawFn, history: History, windows: Collection[Window] = (), *, most: int) -> list[int]:
    """Instants of a clock that goes on: half of the time it stops where the instants that rows lie on are due or served."""
    if not history.stops or draw(st.booleans()):
        return sorted(draw(st.lists(instants_on_edges(history, windows), min_size=2, max_size=most)))
    view = history.view
    ready_after = view.settle_us if view.ready_after_us is None else view.ready_after_us
    after = st.sampled_from((view.settle_us, ready_after))
    stops = st.builds(lambda at, wait, by: at + wait + by, st.sampled_from(history.stops), after, NUDGE)
    return sorted([*(draw(after) + at for at in history.stops), *draw(st.lists(stops, max_size=most - 4))])


def questions(
    source: SourceSpec, view: ViewSpec, rows: list[dict[str, Any]], types: dict[str, str], **grid: int
) -> st.SearchStrategy[tuple[tuple[Any, ...], int]]:
    """(key, instant): mostly keys that were written, at edges of the grid and of the rows."""
    written = [tuple(row[column] for column in view.key.values()) for row in rows]
    possible = list(product(*(KEY_POOLS[types[column]] for column in view.key.values())))
    null_last = [(*key[:-1], None) for key in possible[:1] if key]
    keys = st.sampled_from([key for key in written if None not in key] * 3 + possible[:4] + null_last)

    ready_after = view.settle_us if view.ready_after_us is None else view.ready_after_us
    lags = st.sampled_from((0, 0, view.offset_us, view.offset_us + ready_after, ready_after, view.ttl_us or 0))
    at = st.builds(lambda n, lag: grid["origin"] + n * grid["step"] + lag, st.integers(-2, 9), lags)
    found = edges(source, view, rows)
    at = st.sampled_from(found) | at if found else at
    return st.tuples(keys, st.builds(lambda at, by: at + by, at, NUDGE))


@st.composite
def histories(
    draw: st.DrawFn, *, max_rows: int = 10, max_questions: int = 6, timeless: bool | None = None, bare: bool = False
) -> History:
    """Random worlds. `timeless` asks for tables with time (False), without (True), or both (None).

    A `bare` one has no nulls in its words and one column of keys, and two thirds of its rows are later versions of others: so
    little is drawn that what happens to them combines often.
    """
    origin, step, timezone = pick(draw, *GRIDS)
    if timeless is None:
        timeless = not bare and rarely(draw, 6)
    if bare:
        source = bare_words(draw, step=step, timezone=timezone)
    else:
        source = time_words(draw, step=step, origin=origin, timezone=timezone, timeless=timeless)

    key_types = pick(draw, ("Int64",), ("String",)) if bare else pick(draw, *KEY_SHAPES)
    value_types = draw(st.lists(st.sampled_from(sorted(VALUE_POOLS)), min_size=1, max_size=3))
    columns = columns_of(draw, source, key_types, value_types, step, bare=bare)
    keys = {f"entity_{n}": f"key_{n}" for n in range(len(key_types))}
    features = {f"feature_{n}": f"value_{n}" for n in range(len(value_types))}
    defaults = {
        name: draw(st.sampled_from(VALUE_POOLS[columns.types[column]][1:]))
        for name, column in features.items()
        if rarely(draw, 3)
    }
    if source.event_time is not None and rarely(draw, 6):
        features["when"] = source.event_time  # a column may be a time word and a feature at once
    if key_types and rarely(draw, 6):
        features["its_key"] = "key_0"
    ttl_allowed = not timeless or source.valid_from is not None
    view = ViewSpec(
        key=keys, features=features, defaults=defaults, **schedule(draw, step=step, ttl_allowed=ttl_allowed)
    )

    rows: list[dict[str, Any]] = []
    grid = Grid(origin, step, view)
    stops = draw(st.lists(grid.whole(), min_size=2, max_size=4))
    grid = replace(grid, stops=tuple(sorted({instant_after(view, at) for at in stops})))
    times = draw(st.lists(grid.moments(), min_size=1, max_size=6))
    for number in range(max_rows - draw(st.integers(0, max_rows if rarely(draw, 4) else max_rows // 2))):
        again = rows and pick(draw, None, "version" if source.identity else None, "version" if bare else "column")
        if again == "version":
            row = a_version(draw, source, columns, draw(st.sampled_from(rows)), grid)
        else:
            happened = draw(st.sampled_from(times))
            row = a_row(draw, source, columns, happened, grid, None if bare else list(keys.values()))
        if again == "column":  # the same row again, but for one column
            changed = draw(st.sampled_from(sorted(row)))
            row = draw(st.sampled_from(rows)) | {changed: row[changed]}
        rows.append({"row": number} | {column: value for column, value in row.items() if column != "row"})

    asked = questions(source, view, rows, columns.types, origin=origin, step=step)
    spine = draw(st.lists(asked, min_size=1, max_size=max_questions))
    return History(source, view, rows, columns.types, spine, origin, step, grid.stops)


def keys_of(history: History) -> list[tuple[Any, ...]]:
    """Every key that is asked for or was written, once each; without nulls but for those that are asked for."""
    written = [tuple(row[column] for column in history.view.key.values()) for row in history.rows]
    return list(dict.fromkeys([*(key for key, _ in history.spine), *(key for key in written if None not in key)]))


def answers_of(history: History, rows: list[dict[str, Any]] | None = None) -> list[Answer]:
    """What the oracle says about the spine; from other rows where they are given."""
    rows = history.rows if rows is None else rows
    return training(history.source, history.view, rows, history.types, history.spine)


def seen(history: History, answers: list[Answer]) -> list[tuple[Any, ...]]:
    """What a user sees of the answers, comparable to the bit."""
    value_types = {name: history.types[column] for name, column in history.view.features.items()}
    return [
        (
            answer.status,
            {name: sort_key(value_types[name], value) for name, value in answer.values.items()},
            answer.event_time,
            answer.conflict,
        )
        for answer in answers
    ]


# --- Tables ---------------------------------------------------------------------------------------------------------

ARROW_TYPES = {
    "Bool": pa.bool_(),
    "Int32": pa.int32(),
    "Int64": pa.int64(),
    "Float32": pa.float32(),
    "Float64": pa.float64(),
    "String": pa.string(),
    "Bytes": pa.binary(),
    "Date": pa.date32(),
    "Timestamp": pa.timestamp("us", tz="UTC"),
}


def arrow_type(type_: str) -> pa.DataType:
    """The Arrow type of a type name. Timestamps are aware."""
    if type_ in ARROW_TYPES:
        return ARROW_TYPES[type_]
    words = type_.replace("(", ",").replace(")", "").replace(" ", "").split(",")
    if words[0] == "Decimal":
        return pa.decimal128(int(words[1]), int(words[2]))
    if words[0] == "Array":
        length = int(words[-1]) if words[-1].isdigit() and words[1] != "Decimal" else -1
        return pa.list_(arrow_type(element_type(type_)), length)
    raise TypeError(f"no such type: {type_}")


def to_arrow(rows: list[dict[str, Any]], types: dict[str, str]) -> pa.Table:
    """The rows as a table, columns in the order of `types`; null and NaN kept apart, bits kept.

    A Timestamp column whose values are naive gets a type without timezone.
    """
    columns = {}
    for column, type_ in types.items():
        values = [row[column] for row in rows]
        arrow = arrow_type(type_)
        present = [value for value in values if value is not None]
        if type_ == "Timestamp" and present and present[0].tzinfo is None:
            assert all(value.tzinfo is None for value in present), f"{column} mixes naive and aware timestamps"
            arrow = pa.timestamp("us")
        columns[column] = pa.array(values, type=arrow, from_pandas=False)
    return pa.table(columns)


def write_parquet(table: pa.Table, directory: Path, *, files: int = 3, seed: int = 0) -> list[Path]:
    """The table as Parquet files: rows shuffled, then dealt out unevenly. A file may be empty; none is missing."""
    shuffle = random.Random(seed)
    order = list(range(table.num_rows))
    shuffle.shuffle(order)
    cuts = sorted(shuffle.randint(0, len(order)) for _ in range(files - 1))
    paths = []
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(order)], strict=True)):
        path = directory / f"part-{number}.parquet"
        pq.write_table(storable(table.take(pa.array(order[start:end], type=pa.int64()))), path)
        paths.append(path)
    return paths

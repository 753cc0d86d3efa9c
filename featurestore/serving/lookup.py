"""Lookup: the function of key and instant, asked for now, in one round trip.

Everything is resolved once, when the service is loaded. A lookup then encodes keys, reads watermarks and records
(watermarks first), chooses each view's base, decodes, and applies rules 0, 4 and 5. No SQL, no registry. Where rows share a
key, its record is read and worked out once, and each of them is given what it says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from time import monotonic, perf_counter
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from featurestore.bound import BoundToProcess
from featurestore.clock import to_datetime
from featurestore.declare.frames import is_pandas, table_of
from featurestore.declare.on_demand import OnDemand
from featurestore.errors import OnlineStoreError, RequestError, did_you_mean
from featurestore.lazy import pa
from featurestore.online import OnlineStore, Reading
from featurestore.online.coalesce import CoalescingReader
from featurestore.semantics.evaluate import evaluate, evaluate_rows, input_names
from featurestore.semantics.input_columns import INTEGERS, WrongValueError, whole_decimal, whole_numbers
from featurestore.semantics.service import REQUEST_TIME, ResolvedService
from featurestore.semantics.status import Status
from featurestore.semantics.values import own_lists, scalars
from featurestore.serving.online_result import Judged, OnlineResult, PartAnswer
from featurestore.serving.repeated_keys import Repeats, repeats_of
from featurestore.serving.view_readers import Vouched, reader_of
from featurestore.tracing import span
from featurestore.types import FeatureType, Timestamp, column_of, from_json

MAX_READINGS = 20
"""Round trips that a lookup makes at most, when records are rewritten under its hands."""

ONE_TYPE = {int}, {str}
"""The types of values of which two that are equal are the same, where they are all of one; a bool is equal to an int."""

EQUAL_IS_SAME = {"Bool", "Int32", "Int64", "String", "Bytes", "Date", "Timestamp"}
"""Types of which two values that are equal are the same; 0.0 equals -0.0, a function may tell them apart, and lists have no hash."""

PLACES_HELD = 1_000
"""Ways in which the columns of a service share their statuses that are remembered."""

RequestRows = Sequence[Mapping[str, Any]]


class _EncodedRequest(NamedTuple):
    """A request, encoded."""

    keys: list[bytes]
    """The keys to read, watermarks first, each once."""
    records: list[Sequence[int]]
    """Of each part the places of its records' keys among `keys`, one for each distinct one of its rows; -1: a null key."""
    repeats: dict[tuple[str, ...], Repeats | None]
    """By the inputs of a part, which rows are alike in them; None: no two are."""
    inputs: dict[str, list[Any]]
    """The request's canonical values, by input."""
    rows: int


class BegunLookup(NamedTuple):
    """A lookup of which all is done that comes before the reading. reading: that, or what will have it, or its error."""

    lookup: Lookup
    asked: _EncodedRequest
    reading: Reading | asyncio.Future[Reading]

    def result(self, reading: Reading) -> OnlineResult | None:
        """What the reading answers; None where a record was rewritten under its hands. Raises NotMaterializedError, OnDemandError."""
        return self.lookup._answer(self.asked, reading)


class Lookup(BoundToProcess):
    """A service, loaded: safe to use from several threads and coroutines.

    is_applied: whether it was applied as it is, so that what is served of it can be audited; a list of features was not.
    """

    def __init__(
        self, service: ResolvedService, store: OnlineStore, *, project: str, vouched: Vouched | None = None,
        is_applied: bool = True,
    ) -> None:  # fmt: skip
        self.service = service
        self.is_applied = is_applied
        self._store = store
        self._parts = [reader_of(part, project, tagged=store.tagged, vouched=vouched) for part in service.parts]
        self._marks = list(dict.fromkeys(key for loaded in self._parts for key in loaded.marks))
        self._marks_of = [[self._marks.index(key) for key in loaded.marks] for loaded in self._parts]
        self._part_names = [column for loaded in self._parts for column in loaded.places]
        self._part_of = {column: loaded.part for loaded in self._parts for column in loaded.places}
        self._inputs = service.inputs
        self._on_demand = service.on_demand
        self._names = [column.name for column in service.columns]
        self._hidden = [column.name for column in service.hidden]
        self._shown = [self._part_names.index(name) for name in self._names if name in self._part_names]
        self._is_one_view = len(self._parts) == 1 and not self._on_demand and self._names == self._part_names
        """Whether its columns are those of one view, as they come."""
        self._places_of: dict[tuple[tuple[int, ...], ...], tuple[int, ...]] = {}
        features = {part.column(feature.name): feature.type for part in service.parts for feature in part.features}
        self._input_types = {**self._inputs, **features, REQUEST_TIME: Timestamp}
        self._readers: WeakKeyDictionary[asyncio.AbstractEventLoop, CoalescingReader] = WeakKeyDictionary()

    def get(self, rows: Any, *, json: bool = False) -> OnlineResult:
        """The features of each row of keys and request values; `json`: they are in their JSON forms.

        Raises RequestError for a missing or wrongly typed value, NotMaterializedError, OnDemandError.
        """
        asked = self._encode(rows_of(rows, self._inputs), json=json)
        for _ in range(MAX_READINGS):
            with span("online read", keys=len(asked.keys)):
                reading = self._store.get(asked.keys)
            result = self._answer(asked, reading)
            if result is not None:
                return result
        raise self._torn()

    async def aget(self, rows: Any, *, json: bool = False, due: float = inf) -> OnlineResult:
        """`get` for coroutines: round trips are shared with those that wait at the same time. TimeoutError where the online
        store has not answered by an instant of the monotonic clock."""
        asked = self._encode(rows_of(rows, self._inputs), json=json)
        for _ in range(MAX_READINGS):
            with span("online read", keys=len(asked.keys)):
                reading = self._read(asked, due)
                if not isinstance(reading, Reading):
                    reading = await reading
            result = self._answer(asked, reading)
            if result is not None:
                return result
        raise self._torn()

    def begin(self, rows: Any, *, json: bool = False, due: float = inf) -> BegunLookup:
        """`aget` for who is no coroutine, on an event loop; of a record that is rewritten meanwhile there is no second reading."""
        asked = self._encode(rows_of(rows, self._inputs), json=json)
        return BegunLookup(self, asked, self._read(asked, due))

    def _read(self, asked: _EncodedRequest, due: float) -> Reading | asyncio.Future[Reading]:
        if not self._store.blocking:
            return self._store.get(asked.keys)
        count, left = len(self._marks), max(0.0, due - monotonic())
        return self._reader().ask(asked.keys[count:], first=asked.keys[:count], within_seconds=left)

    def unavailable(self, rows: Any, *, now: int, json: bool = False) -> OnlineResult:
        """What is answered where the online store cannot be reached: each view's defaults, and null for what is computed from
        them, all UNAVAILABLE. now: when (µs). Raises RequestError as `get` does."""
        asked = self._encode(rows_of(rows, self._inputs), json=json)
        parts: dict[str, PartAnswer] = {}
        columns: dict[str, Sequence[Any]] = {}
        all_alike = [[Status.UNAVAILABLE] * asked.rows]
        for loaded in self._parts:
            names, features = list(loaded.places), loaded.part.view.features
            parts[loaded.part.name] = PartAnswer(names, Judged(all_alike, (0,) * len(names)), None, stale=True)
            columns.update((column, [features[place].default] * asked.rows) for column, place in loaded.places.items())
        judged = Judged(all_alike, (0,) * len(self._names))
        if parts:
            columns.update((item.name, [None] * asked.rows) for item in self._on_demand)
        else:  # which reads nothing of the store
            self._evaluate(columns, asked, now)
            judged = self._judged([], asked.rows)
        shown = {name: columns[name] for name in self._names}
        hidden = {name: columns[name] for name in self._hidden}
        return OnlineResult(self.service, shown, asked.inputs, parts, now, hidden, judged)

    def _reader(self) -> CoalescingReader:
        """The reader of the running event loop; each loop has its own."""
        loop = asyncio.get_running_loop()
        reader = self._readers.get(loop)
        if reader is None:
            reader = self._readers[loop] = CoalescingReader(self._store)
        return reader

    def _torn(self) -> OnlineStoreError:
        return OnlineStoreError(
            f"Service '{self.service.name}': records have no slot for the watermark after {MAX_READINGS} readings; the store "
            "holds records of another history. Run featurestore materialize --full"
        )

    def _encode(self, rows: RequestRows, *, json: bool) -> _EncodedRequest:
        inputs = {name: _column(rows, name, of, json=json) for name, of in self._inputs.items()}
        keys = list(self._marks)
        records: list[Sequence[int]] = []
        repeats: dict[tuple[str, ...], Repeats | None] = {}
        for loaded in self._parts:
            names, count = loaded.part.inputs, len(rows)
            columns = [inputs[name] for name in names]
            if names not in repeats:  # of keys, which are the same bytes where they are equal
                repeats[names] = repeats_of(columns, count) if count > 1 else None
            alike = repeats[names]
            if alike is not None:
                columns, count = [alike.distinct(column) for column in columns], len(alike.firsts)
            null: set[int] = set()
            places: Sequence[int] = range(len(keys), len(keys) + count)
            if None in columns[0] if len(columns) == 1 else any(None in column for column in columns):
                null = {row for column in columns for row in range(count) if column[row] is None}
                places = range(len(keys), len(keys) + count - len(null))
                number = iter(places)
                places = [-1 if row in null else next(number) for row in range(count)]
                columns = [[value for row, value in enumerate(column) if row not in null] for column in columns]
            keys += loaded.codec.keys_of(columns, count - len(null))
            records.append(places)
        return _EncodedRequest(keys, records, repeats, inputs, len(rows))

    def _answer(self, asked: _EncodedRequest, reading: Reading) -> OnlineResult | None:
        began, values = perf_counter(), reading.values
        parts: dict[str, PartAnswer] = {}
        columns: list[Sequence[Any]] = []
        for loaded, marks, places in zip(self._parts, self._marks_of, asked.records, strict=True):
            if isinstance(places, range):
                records = values[places.start : places.stop]
            else:
                records = [values[place] if place >= 0 else None for place in places]
            answer = loaded.answer(reading.now, [values[mark] for mark in marks], records)
            if answer is None:
                return None
            of_part, of_view = answer
            of_columns = map(of_view.__getitem__, loaded.places.values())
            alike = asked.repeats[loaded.part.inputs]
            if alike is not None:
                of_part, of_columns = of_part.spread(alike), map(alike.spread, of_columns)
            parts[loaded.part.name] = of_part
            columns.extend(of_columns)
        hidden: dict[str, Sequence[Any]] = {}
        if self._on_demand:
            named = dict(zip(self._part_names, columns, strict=True))
            self._evaluate(named, asked, reading.now)
            shown = {name: named[name] for name in self._names}
            hidden = {name: named[name] for name in self._hidden}
        else:
            shown = dict(zip(self._names, map(columns.__getitem__, self._shown), strict=True))
        judged = self._judged(list(parts.values()), asked.rows)
        result = OnlineResult(self.service, shown, asked.inputs, parts, reading.now, hidden, judged)
        result.work_seconds = perf_counter() - began
        return result

    def _judged(self, parts: Sequence[PartAnswer], rows: int) -> Judged:
        """The statuses of the service's columns, of those of its parts."""
        if self._is_one_view:
            return parts[0].judged
        lists = [statuses for part in parts for statuses in part.judged.lists]
        if self._on_demand:
            lists.append([Status.PRESENT] * rows)
        of_parts = tuple([part.judged.places for part in parts])
        places = self._places_of.get(of_parts)
        if places is None:
            if len(self._places_of) >= PLACES_HELD:
                self._places_of.clear()
            places = self._places_of[of_parts] = self._places(parts)
        return Judged(lists, places)

    def _places(self, parts: Sequence[PartAnswer]) -> tuple[int, ...]:
        """For each of the service's columns, which of its parts' lists of statuses it has; on-demand features the one after."""
        of_column: dict[str, int] = {}
        count = 0
        for part in parts:
            of_column.update(zip(part.names, [count + place for place in part.judged.places], strict=True))
            count += len(part.judged.lists)
        return tuple([of_column.get(name, count) for name in self._names])

    def _evaluate(self, columns: dict[str, Sequence[Any]], asked: _EncodedRequest, now: int) -> None:
        available = {**asked.inputs, **columns, REQUEST_TIME: [to_datetime(now)] * asked.rows}
        for item in self._on_demand:
            arguments = {name: available[name] for name in input_names(item)}
            alike = self._alike(arguments, asked) if item.mode == "row" and asked.rows > 1 else None
            with span("on-demand feature", on_demand=item.name, rows=asked.rows):
                columns[item.name] = _evaluated(item, arguments, asked, types=self._input_types, alike=alike)

    def _alike(self, arguments: Mapping[str, Sequence[Any]], asked: _EncodedRequest) -> Repeats | None:
        """Which rows give a function the same arguments, bit for bit, as far as that is seen without a look at the features."""
        read = {self._part_of[name].inputs for name in arguments if name in self._part_of}
        columns: list[Sequence[Any]] = []
        for repeats in map(asked.repeats.__getitem__, read):
            if repeats is None:
                return None
            if len(repeats.firsts) > 1:
                columns.append(repeats.spread(repeats.firsts))
        for name, column in arguments.items():
            if name in asked.inputs and name not in self._part_of:
                of = self._inputs[name]
                if of.element is not None or len({*column}) == asked.rows:
                    return None
                columns.append(column if of.kind in EQUAL_IS_SAME else list(map(repr, column)))
        return repeats_of(columns, asked.rows)


def _evaluated(
    item: OnDemand, arguments: dict[str, Sequence[Any]], asked: _EncodedRequest, *, types: Mapping[str, FeatureType],
    alike: Repeats | None,
) -> Sequence[Any]:  # fmt: skip
    def row_name(row: int) -> str:
        return ", ".join(f"{name}={column[row]!r}" for name, column in asked.inputs.items()) or f"row {row}"

    if item.mode == "row":
        firsts = range(asked.rows) if alike is None else alike.firsts
        taken = arguments if alike is None else {name: alike.distinct(column) for name, column in arguments.items()}
        own = [own_lists(column, types[name]) for name, column in taken.items()]  # a function may sort what it gets
        # The first row of all that fails is unlike those before it, so that it is the one that is named.
        values = evaluate_rows(item, own, len(firsts), lambda number: row_name(firsts[number]))
        return values if alike is None else alike.spread(values)
    arrays = {name: pa.array(column, types[name].arrow) for name, column in arguments.items()}
    return scalars(evaluate(item, arrays, row_name))


def rows_of(rows: Any, inputs: Mapping[str, FeatureType]) -> RequestRows:
    """Rows of a request: a list of mappings as it is, one mapping as one row, any frame row by row."""
    if type(rows) is list:
        return rows
    if isinstance(rows, Mapping) and not any(isinstance(value, (list, tuple)) for value in rows.values()):
        return [rows]
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
        return rows
    try:
        table = table_of(rows, owned=True)  # of which Python's own scalars are made
    except TypeError:
        raise RequestError(
            f"{type(rows).__name__} is neither rows nor a frame; pass a list of dicts, or a frame"
        ) from None
    except ValueError as error:
        raise RequestError(f"The frame cannot be read: {error}") from None
    wanted = [name for name in inputs if name in table.column_names]
    if table.num_rows and len(wanted) < len(inputs):
        raise no_input("The frame", next(name for name in inputs if name not in wanted), table.column_names)
    columns = [_scalars(table[name], name, inputs[name], from_pandas=is_pandas(rows)) for name in wanted]
    plain = [dict(zip(wanted, values, strict=True)) for values in zip(*columns, strict=True)]
    return plain if wanted else [{} for _ in range(table.num_rows)]


def no_input(what: str, name: str, columns: Iterable[Any]) -> RequestError:
    """The error for rows that lack a key or a request value. what: the rows, as a message calls them."""
    return RequestError(
        f"{what} has no input column '{name}'.{did_you_mean(name, map(str, columns), noun='Its columns')}"
    )


def _scalars(column: pa.ChunkedArray, name: str, of: FeatureType, *, from_pandas: bool) -> list[Any]:
    """A frame's column as Python's scalars, its whole numbers as integers where they are to be some."""
    if of.kind in INTEGERS and pa.types.is_decimal(column.type):  # DuckDB's HUGEINT
        return list(map(whole_decimal, scalars(column)))
    if of.kind in INTEGERS and from_pandas and pa.types.is_floating(column.type):
        try:
            return scalars(whole_numbers(column))
        except WrongValueError as error:
            raise RequestError(f"Row {error.row}: '{name}' must be {of}: {error}") from None
    return scalars(column)


def _column(rows: RequestRows, name: str, of: FeatureType, *, json: bool) -> list[Any]:
    """One input's canonical scalars."""
    try:
        values = [row[name] for row in rows]
        if len(values) > 1 and _is_shared(values) and {*map(type, values)} in ONE_TYPE:
            value = from_json(of, values[0]) if json else of.accept(values[0])
            return [value] * len(values)  # which is no list, since it came of none
        return column_of(of, values, json=json)
    except (KeyError, TypeError, ValueError):
        raise _input_error(rows, name, of, json=json) from None


def _is_shared(values: Sequence[Any]) -> bool:
    """Whether several rows have one value between them, an integer or a text; where the last has another than the first, that
    is seen at once."""
    first = values[0]
    return type(first) in (int, str) and bool(first == values[-1]) and values.count(first) == len(values)


def _input_error(rows: Sequence[Any], name: str, of: FeatureType, *, json: bool) -> RequestError:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            return RequestError(f"Row {number} is {type(row).__name__}, and must map names to values")
        if name not in row:
            brought = ", ".join(map(str, row)) or "nothing"
            return RequestError(f"Row {number} has no '{name}' ({of}); it brings {brought}")
        try:
            from_json(of, row[name]) if json else of.accept(row[name])
        except (TypeError, ValueError) as error:
            return RequestError(f"Row {number}: '{name}' must be {of}: {error}")
    return RequestError(f"'{name}' must be {of}")

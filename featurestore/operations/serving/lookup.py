"""Lookup: the function of key and instant, asked for now, in one round trip.

Everything is resolved once, when the service is loaded. A lookup then encodes keys, reads watermarks and records
(watermarks first), chooses each view's base, decodes, and applies rules 0, 4 and 5. No SQL, no registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa

from featurestore.clock import to_datetime
from featurestore.declare.frames import is_pandas, table_of
from featurestore.declare.on_demand import OnDemand
from featurestore.errors import OnlineStoreError, RequestError
from featurestore.operations.on_demand import evaluate, evaluate_rows, input_names
from featurestore.operations.serving.online_result import OnlineResult, PartAnswer
from featurestore.operations.serving.parts import Vouched, load_part
from featurestore.semantics.service import REQUEST_TIME, ResolvedService
from featurestore.semantics.values import EXACT_IN_FLOAT64, own_lists, scalars
from featurestore.stores.online import OnlineStore, Reading
from featurestore.stores.online.coalesce import CoalescingReader
from featurestore.types import FeatureType, Timestamp, from_json

__all__ = ["Lookup", "rows_of"]

ATTEMPTS = 20
"""Round trips that a lookup makes at most, when records are rewritten under its hands."""

INTEGERS = {"Int32": 31, "Int64": 63}
"""Bits of the value of each integer type."""

Rows = Sequence[Mapping[str, Any]]
Columns = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, encoded: the keys to read (watermarks first), each part's record keys, and the canonical inputs."""

    keys: list[bytes]
    records: list[Sequence[int]]
    inputs: dict[str, list[Any]]
    rows: int


class Lookup:
    """A service, loaded: safe to use from several threads and coroutines."""

    def __init__(
        self, service: ResolvedService, store: OnlineStore, *, project: str, vouched: Vouched | None = None
    ) -> None:
        self.service = service
        self._store = store
        self._parts = [load_part(part, project, vouched=vouched) for part in service.parts]
        self._marks = [key for loaded in self._parts for key in loaded.marks]
        self._inputs = service.inputs
        self._names = [column.name for column in service.columns]
        self._hidden = [column.name for column in service.hidden]
        features = {part.column(feature.name): feature.type for part in service.parts for feature in part.features}
        self._input_types = {**self._inputs, **features, REQUEST_TIME: Timestamp}
        self._readers: WeakKeyDictionary[asyncio.AbstractEventLoop, CoalescingReader] = WeakKeyDictionary()

    def get(self, rows: Any, *, json: bool = False) -> OnlineResult:
        """The features of each row of keys and request values; `json`: they are in their JSON forms.

        Raises RequestError for a missing or wrongly typed value, NotMaterializedError, OnDemandError.
        """
        asked = self._encode(rows_of(rows, self._inputs), json=json)
        for _ in range(ATTEMPTS):
            result = self._answer(asked, self._store.get(asked.keys))
            if result is not None:
                return result
        raise self._torn()

    async def aget(self, rows: Any, *, json: bool = False) -> OnlineResult:
        """`get` for coroutines: round trips are shared with those that wait at the same time."""
        asked = self._encode(rows_of(rows, self._inputs), json=json)
        count, reader = len(self._marks), self._reader()
        for _ in range(ATTEMPTS):
            result = self._answer(asked, await reader.get(asked.keys[count:], first=asked.keys[:count]))
            if result is not None:
                return result
        raise self._torn()

    def _reader(self) -> CoalescingReader:
        """The reader of the running event loop; each loop has its own."""
        loop = asyncio.get_running_loop()
        reader = self._readers.get(loop)
        if reader is None:
            reader = self._readers[loop] = CoalescingReader(self._store)
        return reader

    def _torn(self) -> OnlineStoreError:
        return OnlineStoreError(
            f"Service '{self.service.name}': records have no slot for the watermark after {ATTEMPTS} readings; the store "
            "holds records of another history. Run featurestore materialize --full"
        )

    def _encode(self, rows: Rows, *, json: bool) -> _Asked:
        inputs = {name: _column(rows, name, of, json=json) for name, of in self._inputs.items()}
        keys = list(self._marks)
        records: list[Sequence[int]] = []
        for loaded in self._parts:
            columns = [inputs[name] for name in loaded.part.inputs]
            null = {row for column in columns if None in column for row in range(len(rows)) if column[row] is None}
            places: Sequence[int] = range(len(keys), len(keys) + len(rows))
            if null:
                number = iter(places)
                places = [-1 if row in null else next(number) for row in range(len(rows))]
                columns = [[value for row, value in enumerate(column) if row not in null] for column in columns]
            keys += loaded.codec.keys_of(columns, len(rows) - len(null))
            records.append(places)
        return _Asked(keys, records, inputs, len(rows))

    def _answer(self, asked: _Asked, reading: Reading) -> OnlineResult | None:
        values = reading.values
        parts: dict[str, PartAnswer] = {}
        columns: dict[str, Sequence[Any]] = {}
        mark = 0
        for loaded, places in zip(self._parts, asked.records, strict=True):
            records = [values[place] if place >= 0 else None for place in places]
            last, mark = mark, mark + len(loaded.marks)
            answer = loaded.answer(reading.now, values[last:mark], records)
            if answer is None:
                return None
            parts[loaded.part.name], of_view = answer
            columns.update(zip(loaded.places, map(of_view.__getitem__, loaded.places.values()), strict=True))
        if self.service.declared.on_demand:
            self._evaluate(columns, asked, reading.now)
        shown = columns if list(columns) == self._names else {name: columns[name] for name in self._names}
        result = OnlineResult(self.service, shown, asked.inputs, parts, reading.now)
        if self._hidden:
            result.hidden = {name: columns[name] for name in self._hidden}
        return result

    def _evaluate(self, columns: dict[str, Sequence[Any]], asked: _Asked, now: int) -> None:
        available = {**asked.inputs, **columns, REQUEST_TIME: [to_datetime(now)] * asked.rows}
        for item in self.service.declared.on_demand:
            arguments = {name: available[name] for name in input_names(item)}
            columns[item.name] = _evaluated(item, arguments, asked, self._input_types)


def _evaluated(
    item: OnDemand, arguments: dict[str, Sequence[Any]], asked: _Asked, types: Mapping[str, FeatureType]
) -> Sequence[Any]:
    def row_name(row: int) -> str:
        return ", ".join(f"{name}={column[row]!r}" for name, column in asked.inputs.items()) or f"row {row}"

    if item.mode == "row":
        own = [own_lists(column, types[name]) for name, column in arguments.items()]  # a function may sort what it gets
        return evaluate_rows(item, own, asked.rows, row_name)
    arrays = {name: pa.array(column, types[name].arrow) for name, column in arguments.items()}
    return scalars(evaluate(item, arrays, row_name))


def rows_of(rows: Any, inputs: Mapping[str, FeatureType]) -> Rows:
    """Rows of a request: a list of mappings as it is, one mapping as one row, any frame row by row."""
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
    columns = [scalars(table[name]) for name in wanted]
    plain = [dict(zip(wanted, values, strict=True)) for values in zip(*columns, strict=True)]
    if not wanted:
        return [{} for _ in range(table.num_rows)]
    for name in wanted:
        numbers = table[name].type
        floats = is_pandas(rows) and pa.types.is_floating(numbers)  # a numpy-backed integer column with nulls
        if inputs[name].kind in INTEGERS and (floats or pa.types.is_decimal(numbers)):  # or DuckDB's HUGEINT
            for row in plain:
                row[name] = _whole(row[name])
    return plain


def _whole(value: float | Decimal | None) -> float | Decimal | int | None:
    """The integer that a number surely is; else the number."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else value
    return int(value) if value is not None and value.is_integer() and abs(value) <= EXACT_IN_FLOAT64 else value


def _column(rows: Rows, name: str, of: FeatureType, *, json: bool) -> list[Any]:
    """One input's canonical scalars."""
    try:
        if json:
            return [from_json(of, row[name]) for row in rows]
        values = [row[name] for row in rows]
        bits = INTEGERS.get(of.kind)
        if bits and {*map(type, values)} == {int} and -1 << bits <= min(values) and max(values) < 1 << bits:
            return values  # which `accept` would give back, each as it is
        return list(map(of.accept, values))
    except (KeyError, TypeError, ValueError):
        raise _input_error(rows, name, of, json=json) from None


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

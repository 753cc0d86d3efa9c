"""Lookup: the function of key and instant, asked for now, in one round trip.

Everything is resolved once, when the service is loaded. A lookup then encodes keys, reads watermarks and records
(watermarks first), chooses each view's base, decodes, and applies rules 0, 4 and 5. No SQL, no registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from featurestore.clock import to_datetime
from featurestore.declare.frames import is_pandas, table_of
from featurestore.declare.on_demand import OnDemand
from featurestore.errors import NotMaterializedError, OnlineStoreError, RequestError
from featurestore.operations.on_demand import REQUEST_TIME, evaluate, evaluate_rows, input_names
from featurestore.operations.online_result import OnlineResult, PartAnswer
from featurestore.semantics.service import Part, ResolvedService
from featurestore.semantics.status import Status, expired
from featurestore.semantics.values import scalars
from featurestore.stores.codec import ViewCodec, unpack_watermark
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


class _LoadedPart:
    """One part of a service, ready to be looked up."""

    def __init__(self, part: Part, project: str) -> None:
        self.part = part
        self.view = part.view
        self.codec = ViewCodec(project, part.view)
        names = [feature.name for feature in part.view.features]
        self.places = {part.column(feature.name): names.index(feature.name) for feature in part.features}
        self.absent = tuple(feature.default for feature in part.view.features)

    def answer(
        self, reading: Reading, watermark: bytes | None, records: list[bytes | None]
    ) -> tuple[PartAnswer, Columns] | None:
        """The part's statuses and the view's columns; None where a record was rewritten between the two reads."""
        timing = self.view.timing
        wanted = timing.as_of(reading.now)
        base = next((instant for instant in unpack_watermark(watermark) if instant <= wanted), None)
        if base is None:
            raise NotMaterializedError(
                f"View '{self.view.name}' has no values online at {to_datetime(reading.now).isoformat()}; run "
                "featurestore materialize. Its definition is "
                f"{self.view.fingerprint[:12]}, its first values are served {_first(self.view, watermark)}"
            )
        stale = base < wanted
        withheld = stale and self.view.declared.stale == "withhold"
        try:
            statuses, columns = self._judged(records, base)
        except LookupError:
            return None
        if withheld:
            statuses, columns = [Status.WITHHELD] * len(records), [[None] * len(records)] * len(columns)
        return PartAnswer(statuses, base, stale), columns

    def _judged(self, records: list[bytes | None], base: int) -> tuple[list[Status], Columns]:
        """Rule 4: each record's status, and the columns with their defaults filled in."""
        held = [record for record in records if record is not None]
        event_times, untils, columns = self.codec.rows(held, base)
        times = [time for time in event_times if time is not None]
        if times and len(times) == len(held) and not expired(min(times), min(untils), base, self.view.ttl):
            judged = [Status.PRESENT] * len(held)  # where the earliest times have not expired, none has
        else:
            judged = [self._status(*row, base) for row in zip(event_times, untils, strict=True)]
        if judged.count(Status.PRESENT) == len(records):
            return judged, columns
        number = iter(range(len(held)))
        places = [-1 if record is None else next(number) for record in records]
        statuses = [Status.MISSING if place < 0 else judged[place] for place in places]
        filled = [
            [
                column[place] if status is Status.PRESENT else default
                for place, status in zip(places, statuses, strict=True)
            ]
            for column, default in zip(columns, self.absent, strict=True)
        ]
        return statuses, filled

    def _status(self, event_time: int | None, until: int, base: int) -> Status:
        if event_time is None:
            return Status.MISSING
        return Status.EXPIRED if expired(event_time, until, base, self.view.ttl) else Status.PRESENT


def _first(view: Any, watermark: bytes | None) -> str:
    instants = unpack_watermark(watermark)
    if not instants:
        return "after the first run"
    return f"from {to_datetime(min(instants) + view.timing.ready_after).isoformat()} on"


class Lookup:
    """A service, loaded: safe to use from several threads and coroutines."""

    def __init__(self, service: ResolvedService, store: OnlineStore, *, project: str) -> None:
        self.service = service
        self._store = store
        self._parts = [_LoadedPart(part, project) for part in service.parts]
        self._watermarks = [loaded.codec.watermark_key for loaded in self._parts]
        self._inputs = service.inputs
        self._names = [column.name for column in service.columns]
        features = {part.column(feature.name): feature.type for part in service.parts for feature in part.features}
        self._input_types = {**self._inputs, **features, REQUEST_TIME: Timestamp}
        self._reader = CoalescingReader(store)

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
        count = len(self._watermarks)
        for _ in range(ATTEMPTS):
            result = self._answer(asked, await self._reader.get(asked.keys[count:], first=asked.keys[:count]))
            if result is not None:
                return result
        raise self._torn()

    def _torn(self) -> OnlineStoreError:
        return OnlineStoreError(
            f"Service '{self.service.name}': records have no slot for the watermark after {ATTEMPTS} readings; the store "
            "holds records of another history. Run featurestore materialize --full"
        )

    def _encode(self, rows: Rows, *, json: bool) -> _Asked:
        inputs = {name: _column(rows, name, of, json=json) for name, of in self._inputs.items()}
        keys = list(self._watermarks)
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
        for number, loaded in enumerate(self._parts):
            records = [values[place] if place >= 0 else None for place in asked.records[number]]
            answer = loaded.answer(reading, values[number], records)
            if answer is None:
                return None
            parts[loaded.part.name], of_view = answer
            for name, place in loaded.places.items():
                columns[name] = of_view[place]
        if self.service.declared.on_demand:
            self._evaluate(columns, asked, reading.now)
        if list(columns) != self._names:
            columns = {name: columns[name] for name in self._names}
        return OnlineResult(self.service, columns, asked.inputs, parts, reading.now)

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
        return evaluate_rows(item, list(arguments.values()), asked.rows, row_name)
    arrays = {name: pa.array(column, types[name].arrow) for name, column in arguments.items()}
    return scalars(evaluate(item, arrays, row_name))


def rows_of(rows: Any, inputs: Mapping[str, FeatureType]) -> Rows:
    """Rows of a request: a list of mappings as it is, one mapping as one row, any frame row by row."""
    if isinstance(rows, Mapping) and not any(isinstance(value, (list, tuple)) for value in rows.values()):
        return [rows]
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
        return rows
    try:
        table = table_of(rows)
    except TypeError:
        raise RequestError(
            f"{type(rows).__name__} is neither rows nor a frame; pass a list of dicts, or a frame"
        ) from None
    wanted = [name for name in inputs if name in table.column_names]
    plain: list[dict[str, Any]] = table.select(wanted).to_pylist()
    if is_pandas(rows):  # a numpy-backed integer column with nulls has become float64
        whole = [
            name for name in wanted if inputs[name].kind.startswith("Int") and pa.types.is_floating(table[name].type)
        ]
        for row in plain:
            for name in whole:
                if row[name] is not None and row[name].is_integer():
                    row[name] = int(row[name])
    return plain


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

"""What is logged of a lookup: the columns of the serving log, and how results become rows of it.

request                  the request's id; row: the row's number in it; time: when it was answered (UTC, µs)
input:<name>             every key and request value
<feature column>         what was served
status:<view>            the status of the view's plain features; status:<feature column> of each folded one
as_of:<view>             the instant that the view's values were true for
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from featurestore.operations.online_result import OnlineResult
from featurestore.operations.store_version import METADATA, StoreVersion
from featurestore.semantics.service import Part, ResolvedService
from featurestore.semantics.status import Status
from featurestore.stores.serving_log import Served, segments

__all__ = [
    "Logged",
    "LoggedRequest",
    "ServedRows",
    "as_of_column",
    "find_request",
    "input_column",
    "schema_of",
    "status_columns",
    "store_version",
]

TIME = pa.timestamp("us", "UTC")
ATTEMPTS = 3
"""Times that a listing of segments is read, where one of them is deleted in between."""

VALUE, COLUMN = 48, 96
"""Bytes that a value, and a column of a request, take in memory beside a text's own, about."""


def input_column(name: str) -> str:
    """The log's column of a key or a request value."""
    return f"input:{name}"


def as_of_column(part: Part) -> str:
    """The log's column of the instants that a view's values were true for."""
    return f"as_of:{part.name}"


def status_columns(part: Part) -> dict[str, list[str]]:
    """The log's status columns of a view, each with the feature columns that it speaks of."""
    columns: dict[str, list[str]] = {}
    for feature in part.features:
        column = part.column(feature.name)
        columns.setdefault(f"status:{part.name}" if feature.plain else f"status:{column}", []).append(column)
    return columns


def schema_of(service: ResolvedService) -> pa.Schema:
    """The columns of a service version's log."""
    fields = [("request", pa.string()), ("row", pa.int32()), ("time", TIME)]
    fields += [(input_column(name), of.arrow) for name, of in service.inputs.items()]
    fields += [(column.name, column.type.arrow) for column in service.columns]
    for part in service.parts:
        fields += [(name, pa.string()) for name in status_columns(part)]
        fields.append((as_of_column(part), TIME))
    return pa.schema(fields)


class Logged(NamedTuple):
    """A result that is to be logged, under an id; rows: which of its rows are, None: all."""

    result: OnlineResult
    request: str
    rows: list[int] | None


class ServedRows:
    """Makes results of one service version into rows of the log. A lookup only hands its result over, as it is."""

    def __init__(self, service: ResolvedService, version: StoreVersion) -> None:
        self.service = service
        self.schema = schema_of(service).with_metadata({METADATA: version.packed()})
        self._per_request = 512 + COLUMN * len(self.schema)
        self._per_row = VALUE * len(self.schema)
        types = {**service.inputs, **{column.name: column.type for column in service.columns}}
        self._long = [name for name, of in types.items() if of.kind in {"String", "Bytes", "Array", "Embedding"}]

    def served(self, logged: Logged) -> Served:
        """The result as the log takes it."""
        result = logged.result
        rows = len(result) if logged.rows is None else len(logged.rows)
        service = self.service
        return Served(
            service.name, service.fingerprint, self.schema, logged, rows, result.now, self._size(result), self.table
        )

    def _size(self, result: OnlineResult) -> int:
        size = self._per_request + len(result) * self._per_row
        for name in self._long:
            values = result.inputs[name] if name in result.inputs else result.columns[name]
            size += sum([len(value) for value in values if value is not None])
        return size

    def table(self, requests: Sequence[Served]) -> pa.Table:
        """The rows of several results, in their order."""
        logged: list[Logged] = [request.columns for request in requests]
        counts = np.array([request.rows for request in requests], np.int64)
        names = pa.array([one.request for one in logged], pa.string())
        arrays = [names.take(pa.array(np.repeat(np.arange(len(logged)), counts)))]
        arrays += [pa.array(_numbers(logged, counts)), _instants([request.time for request in requests], counts)]
        for name, of in self.service.inputs.items():
            arrays.append(pa.array(_values(logged, [one.result.inputs[name] for one in logged]), of.arrow))
        for column in self.service.columns:
            values = _values(logged, [one.result.columns[column.name] for one in logged])
            arrays.append(pa.array(values, column.type.arrow))
        for part in self.service.parts:
            answers = [one.result.parts[part.name] for one in logged]
            for columns in status_columns(part).values():
                statuses = bytes(_values(logged, [answer.statuses[columns[0]] for answer in answers]))
                arrays.append(STATUSES.take(pa.array(np.frombuffer(statuses, np.uint8))))
            arrays.append(_instants([answer.as_of for answer in answers], counts))
        return pa.Table.from_arrays(arrays, schema=self.schema)


STATUSES = pa.array([status.name for status in Status], pa.string())


def _values(logged: Sequence[Logged], columns: Sequence[Sequence[Any]]) -> list[Any]:
    """The values of one column of all results, without the rows that are not logged."""
    if all(one.rows is None for one in logged):
        return list(chain.from_iterable(columns))
    return [
        column[row]
        for one, column in zip(logged, columns, strict=True)
        for row in (range(len(column)) if one.rows is None else one.rows)
    ]


def _numbers(logged: Sequence[Logged], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Each row's number in its request."""
    numbers = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    start = 0
    for one, count in zip(logged, counts.tolist(), strict=True):
        if one.rows is not None:
            numbers[start : start + count] = one.rows
        start += count
    return numbers.astype(np.int32)


def _instants(instants: Sequence[int], counts: npt.NDArray[np.int64]) -> pa.Array:
    """A column of µs, one a request."""
    return pa.array(np.repeat(np.array(instants, np.int64), counts)).cast(TIME)


def store_version(segment: Path) -> StoreVersion | None:
    """What wrote a segment; None where it does not say. Raises OSError and pyarrow's errors."""
    metadata = pq.read_schema(segment).metadata or {}
    return StoreVersion.unpacked(metadata[METADATA]) if METADATA in metadata else None


class LoggedRequest(NamedTuple):
    """A request as it was logged: the service version that answered it, and its rows (columns: see the module)."""

    service: str
    fingerprint: str
    rows: pa.Table


def find_request(folder: Path, request: str) -> LoggedRequest | None:
    """The rows that were logged under a request's id, by time and row; None where there are none.

    Segments whose statistics rule the id out are not read. An id that clients used more than once finds every use of it
    by the service version that used it last.
    """
    for attempt in range(ATTEMPTS):
        try:
            return _find(folder, request)
        except FileNotFoundError:  # its time had come
            if attempt == ATTEMPTS - 1:
                raise
    return None


def _find(folder: Path, request: str) -> LoggedRequest | None:
    found = []
    for (service, fingerprint), files in segments(folder).items():
        dataset = ds.dataset([str(path) for path in files], format="parquet")
        rows = dataset.to_table(filter=pc.field("request") == request)
        if rows.num_rows:
            found.append(
                LoggedRequest(service, fingerprint, rows.sort_by([("time", "ascending"), ("row", "ascending")]))
            )
    return max(found, key=lambda logged: logged.rows["time"][-1].as_py(), default=None)

"""What is logged of a lookup: the columns of the serving log, and how results become rows of it.

request                  the request's id; row: the row's number in it; time: when it was answered (UTC, µs)
input:<name>             every key and request value
<feature column>         what was served
status:<view>            the status of the view's plain features; status:<feature column> of each folded one
as_of:<view>             the instant that the view's values were true for
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from featurestore.operations.serving.online_result import OnlineResult
from featurestore.operations.serving.store_version import METADATA, StoreVersion
from featurestore.semantics.service import Part, ResolvedService
from featurestore.semantics.status import Status
from featurestore.stores.serving_log import Served, segments

__all__ = [
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

REQUEST, VALUE, ITEM = 1024, 48, 10
"""Bytes that a request, a value of a single row, and one in an array take in memory, beside a text's own: about."""


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
    fields += [(column.name, column.type.arrow) for column in (*service.columns, *service.hidden)]
    for part in service.parts:
        fields += [(name, pa.string()) for name in status_columns(part)]
        fields.append((as_of_column(part), TIME))
    return pa.schema(fields)


class ServedRows:
    """Makes results of one service version into rows of the log.

    A lookup packs its result, so that nothing that it made outlives it but the values of single rows: what lived on would
    be looked through by the garbage collector, and take the place in the processor's cache that the next lookup uses again,
    at a greater cost than all else here. A tuple has

        of one row         the id, the time (µs), the row's number, the inputs, the features, the statuses, the as_ofs (µs)
        of several rows    the id, the time, the rows' numbers, for each type an array of its columns one after the other,
                           the statuses likewise as bytes, and a tuple of the as_ofs
    """

    def __init__(self, service: ResolvedService, version: StoreVersion) -> None:
        self._version = service.name, service.fingerprint
        self.schema = schema_of(service).with_metadata({METADATA: version.packed()})
        columns = (*service.columns, *service.hidden)
        types = [*service.inputs.values(), *(column.type for column in columns)]
        names = [*map(input_column, service.inputs), *(column.name for column in columns)]
        self._values = list(zip(names, (of.arrow for of in types), strict=True))
        self._judged = [(part.name, of[0]) for part in service.parts for of in status_columns(part).values()]
        self._status_names = [name for part in service.parts for name in status_columns(part)]
        self._as_of_names = [as_of_column(part) for part in service.parts]
        groups: dict[pa.DataType, list[int]] = {}
        for place, (_, of) in enumerate(self._values):
            groups.setdefault(of, []).append(place)
        self._groups = list(groups.items())
        self._long = [FIXED + place for place, of in enumerate(types) if of.kind in LONG]
        self._long_groups = [FIXED + n for n, group in enumerate(self._groups) if FIXED + group[1][0] in self._long]
        self._encode = self.table  # one object, and not one a request

    def served(self, result: OnlineResult, request: str, rows: Sequence[int] | None = None) -> Served:
        """The result as the log takes it, under an id; rows: only these."""
        kept = range(len(result)) if rows is None else rows
        count = len(kept)
        if count == 1:
            packed = self._one(result, request, kept[0])
            size = sum([len(packed[place]) for place in self._long if packed[place] is not None])
        else:
            packed = self._several(result, request, kept)
            size = sum([packed[place].nbytes for place in self._long_groups])
        size += REQUEST + (VALUE if count == 1 else ITEM) * count * len(self.schema)
        return Served(*self._version, self.schema, packed, count, result.now, self._encode, size)

    def _one(self, result: OnlineResult, request: str, row: int) -> tuple[Any, ...]:
        columns = [*result.inputs.values(), *result.columns.values(), *result.hidden.values()]
        parts = result.parts
        columns += [parts[part].statuses[name] for part, name in self._judged]
        about = (request, result.now, row)
        return (*about, *[column[row] for column in columns], *[part.as_of for part in parts.values()])

    def _several(self, result: OnlineResult, request: str, rows: Sequence[int]) -> tuple[Any, ...]:
        columns = [*result.inputs.values(), *result.columns.values(), *result.hidden.values()]
        judged = [result.parts[part].statuses[name] for part, name in self._judged]
        if len(rows) < len(result):
            columns = [[column[row] for row in rows] for column in columns]
            judged = [[column[row] for row in rows] for column in judged]
        packed: list[Any] = [request, result.now, rows]
        for of, places in self._groups:
            values: list[Any] = []
            for place in places:
                values += columns[place]
            packed.append(pa.array(values, of))
        packed.append(b"".join(map(bytes, judged)))
        packed.append(tuple([answer.as_of for answer in result.parts.values()]))
        return tuple(packed)

    def table(self, requests: Sequence[Served]) -> pa.Table:
        """The rows of several results: first those of one row, then the others."""
        ones = [request.packed for request in requests if request.rows == 1]
        several = [request.packed for request in requests if request.rows > 1]
        tables = [self._of_ones(ones)] if ones else []
        return pa.concat_tables([*tables, self._of_several(several)] if several else tables)

    def _of_ones(self, packed: Sequence[tuple[Any, ...]]) -> pa.Table:
        columns = iter(zip(*packed, strict=True))
        arrays = {"request": pa.array(next(columns), pa.string()), "time": _instants(next(columns))}
        arrays["row"] = pa.array(next(columns), pa.int32())
        arrays |= {name: pa.array(next(columns), of) for name, of in self._values}
        arrays |= {name: STATUSES.take(pa.array(next(columns), pa.uint8())) for name in self._status_names}
        arrays |= {name: _instants(next(columns)) for name in self._as_of_names}
        return pa.Table.from_arrays([arrays[name] for name in self.schema.names], schema=self.schema)

    def _of_several(self, packed: Sequence[tuple[Any, ...]]) -> pa.Table:
        counts = np.array([len(one[2]) for one in packed], np.int64)
        requests = np.repeat(np.arange(len(packed)), counts)
        names = pa.array([one[0] for one in packed], pa.string())
        arrays = {"request": names.take(pa.array(requests)), "time": _instants([one[1] for one in packed], requests)}
        arrays["row"] = pa.array(np.fromiter(chain.from_iterable([one[2] for one in packed]), np.int32, len(requests)))
        for number, (_, columns) in enumerate(self._groups):
            pieces = [(one[FIXED + number], len(one[2])) for one in packed]
            for n, column in enumerate(columns):
                arrays[self._values[column][0]] = pa.concat_arrays(
                    [piece.slice(n * rows, rows) for piece, rows in pieces]
                )
        judged = [(one[-2], len(one[2])) for one in packed]
        for n, name in enumerate(self._status_names):
            statuses = b"".join([piece[n * rows : (n + 1) * rows] for piece, rows in judged])
            arrays[name] = STATUSES.take(pa.array(np.frombuffer(statuses, np.uint8)))
        for n, name in enumerate(self._as_of_names):
            arrays[name] = _instants([one[-1][n] for one in packed], requests)
        return pa.Table.from_arrays([arrays[name] for name in self.schema.names], schema=self.schema)


FIXED = 3
"""What a packed result has before its values."""

STATUSES = pa.array([status.name for status in Status], pa.string())
LONG = {"String", "Bytes", "Array", "Embedding"}
"""Types whose values are as long as they like."""


def _instants(instants: Sequence[int], places: npt.NDArray[np.int64] | None = None) -> pa.Array:
    """A column of instants (µs); places: which of them each row has."""
    values = np.array(instants, np.int64)
    return pa.array(values if places is None else values[places]).cast(TIME)


def store_version(metadata: Mapping[bytes, bytes] | None) -> StoreVersion | None:
    """What wrote a segment, by its metadata; None where they do not say."""
    metadata = metadata or {}
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

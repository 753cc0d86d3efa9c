"""What is logged of a lookup: the columns of the serving log, and how results become rows of it.

request                  the request's id; row: the row's number in it; time: when it was answered (UTC, µs)
input:<name>             every key and request value
<feature column>         what was served; feature:<name> of an on-demand feature that is called request, row or time
status:<view>            the status of the view's plain features; status:<feature column> of each folded one
as_of:<view>             the instant that the view's values were true for; null where they were UNAVAILABLE
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.durable.parquet import restored
from featurestore.lazy import pa, pads, pc
from featurestore.semantics.service import ResolvedService, ServiceView
from featurestore.semantics.status import Status
from featurestore.serving.log.serving_log import SegmentForm, ServedRequests, is_sound, segments
from featurestore.serving.online_result import OnlineResult
from featurestore.serving.store_version import METADATA, StoreVersion
from featurestore.types import Int32, String, Timestamp

OWN = {"request": String, "row": Int32, "time": Timestamp}
"""The log's own columns; the others have a colon in their names, which no feature has."""

MAX_READINGS = 3
"""Times that a listing of segments is read, where one of them is deleted in between."""

SIZE, ROW = 1024, 24
"""Bytes that a request of several rows, and one of its rows, take in memory beside the values: about."""


AS_OF = "as_of:"
"""What the columns of instants begin with."""


def input_column(name: str) -> str:
    """The log's column of a key or a request value."""
    return f"input:{name}"


def feature_column(name: str) -> str:
    """The log's column of a feature column's values. Those of views have `__` in their names, on-demand features may have
    any name."""
    return f"feature:{name}" if name in OWN else name


def as_of_column(part: ServiceView) -> str:
    """The log's column of the instants that a view's values were true for."""
    return AS_OF + part.name


def status_columns(part: ServiceView) -> dict[str, list[str]]:
    """The log's status columns of a view, each with the feature columns that it speaks of."""
    columns: dict[str, list[str]] = {}
    for feature in part.features:
        column = part.column(feature.name)
        columns.setdefault(f"status:{part.name}" if feature.plain else f"status:{column}", []).append(column)
    return columns


def schema_of(service: ResolvedService) -> pa.Schema:
    """The columns of a service version's log."""
    fields: list[Any] = [(name, of.arrow) for name, of in OWN.items()]
    fields += [(input_column(name), of.arrow) for name, of in service.inputs.items()]
    fields += [(feature_column(column.name), column.type.arrow) for column in (*service.columns, *service.hidden)]
    for part in service.parts:
        fields += [(name, pa.string()) for name in status_columns(part)]
        fields.append((as_of_column(part), Timestamp.arrow))
    return pa.schema(fields)


class ServedRows:
    """Makes results of one service version into rows of the log.

    A lookup packs its result, so that nothing that it made outlives it but the values of single rows: what lived on would
    be looked through by the garbage collector, and take the place in the processor's cache that the next lookup uses again,
    at a greater cost than all else here. A tuple has

        of one row         the id, the row's number, the time (µs), the inputs, the features, the statuses, the as_ofs (µs)
        of several rows    the id, the rows' numbers, the time, for each type an array of its columns one after the other,
                           the statuses likewise as bytes, and a tuple of the as_ofs

    Single rows become columns many at a time: what the processor does for the first, it has at hand for the others.
    """

    def __init__(self, service: ResolvedService, version: StoreVersion) -> None:
        self.schema = schema_of(service).with_metadata({METADATA: version.packed()})
        self._form = SegmentForm(service.name, service.fingerprint, self._of_ones, self._batches)
        columns = (*service.columns, *service.hidden)
        self._values = [of.arrow for of in (*service.inputs.values(), *(column.type for column in columns))]
        self._judged = [(part.name, [of[0] for of in status_columns(part).values()]) for part in service.parts]
        groups: dict[pa.DataType, list[int]] = {}
        for place, of in enumerate(self._values):
            groups.setdefault(of, []).append(place)
        self._groups = list(groups.items())

    def served(self, result: OnlineResult, request: str, rows: Sequence[int]) -> ServedRequests:
        """These rows of the result as the log takes them, under an id."""
        columns = [*result.inputs.values(), *result.columns.values(), *result.hidden.values()]
        parts, now = result.parts, result.now
        judged = [parts[part].statuses[name] for part, names in self._judged for name in names]
        as_ofs = [part.as_of for part in parts.values()]
        if len(rows) == 1:
            (row,) = rows
            fields = (request, row, now, *[column[row] for column in columns], *[of[row] for of in judged], *as_ofs)
            return ServedRequests(self._form, fields, 1, now, now, None)
        if len(rows) < len(result):
            columns = [[column[row] for row in rows] for column in columns]
            judged = [[column[row] for row in rows] for column in judged]
        groups = [pa.array(list(chain.from_iterable([columns[i] for i in places])), of) for of, places in self._groups]
        packed = (request, rows, now, *groups, b"".join(map(bytes, judged)), as_ofs)
        buffers = [buffer.size for group in groups for buffer in group.buffers() if buffer is not None]
        size = SIZE + ROW * len(rows) + sum(buffers)
        return ServedRequests(self._form, packed, len(rows), now, now, size)

    def _of_ones(self, packed: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
        columns = iter(zip(*packed, strict=True))
        arrays = [pa.array(next(columns), pa.string()), pa.array(next(columns), pa.int32()), _instants(next(columns))]
        arrays += [pa.array(next(columns), of) for of in self._values]
        statuses = [[_statuses().take(pa.array(next(columns), pa.uint8())) for _ in names] for _, names in self._judged]
        for of_part, as_ofs in zip(statuses, columns, strict=True):
            arrays += [*of_part, _instants(as_ofs)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _batches(self, packed: Sequence[tuple[Any, ...] | pa.RecordBatch]) -> list[pa.RecordBatch]:
        """Rows of several results: those of single rows, which are batches by now, before the others."""
        several = [fields for fields in packed if isinstance(fields, tuple)]
        batches = [batch for batch in packed if not isinstance(batch, tuple)]
        return [*batches, self._of_several(several)] if several else batches

    def _of_several(self, packed: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
        counts = np.array([len(one[1]) for one in packed], np.int64)
        requests = np.repeat(np.arange(len(packed)), counts)
        every = counts[requests]
        places = np.arange(len(requests)) - np.repeat(np.cumsum(counts) - counts, counts)

        def columns(joined: pa.Array, many: int) -> Iterator[pa.Array]:
            """The columns of which each request has one after the other."""
            starts = np.repeat((np.cumsum(counts) - counts) * many, counts) + places
            for n in range(many):
                yield joined.take(pa.array(starts + n * every))

        names = pa.array([one[0] for one in packed], pa.string())
        rows = np.fromiter(chain.from_iterable([one[1] for one in packed]), np.int32, len(requests))
        arrays = [names.take(pa.array(requests)), pa.array(rows), _instants([one[2] for one in packed], requests)]
        values: list[Any] = [None] * len(self._values)
        for number, (_, of_type) in enumerate(self._groups, FIXED):
            joined = pa.concat_arrays([one[number] for one in packed])
            for place, column in zip(of_type, columns(joined, len(of_type)), strict=True):
                values[place] = column
        judged = pa.array(np.frombuffer(b"".join([one[-2] for one in packed]), np.uint8))
        statuses = columns(judged, sum(len(names) for _, names in self._judged))
        arrays += values
        for part, (_, of_part) in enumerate(self._judged):
            arrays += [_statuses().take(status) for status in islice(statuses, len(of_part))]
            arrays.append(_instants([one[-1][part] for one in packed], requests))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


FILE = "__filename"
"""What Arrow calls the column of the file that a row lies in, where it is asked for by name; no column of the log begins so."""

FIXED = 3
"""What a packed result has before its values."""


@cache
def _statuses() -> pa.Array:
    """The names of statuses, by number; not made when this is imported, since Arrow imports pandas to make arrays."""
    return pa.array([status.name for status in Status], pa.string())


def _instants(instants: Sequence[int | None], places: npt.NDArray[np.int64] | None = None) -> pa.Array:
    """A column of instants (µs); places: which of them each row has."""
    if None in instants:
        some = pa.array(instants, pa.int64()).cast(Timestamp.arrow)
        return some if places is None else some.take(pa.array(places))
    values = np.array(instants, np.int64)
    return pa.array(values if places is None else values[places]).cast(Timestamp.arrow)


def store_version(metadata: Mapping[bytes, bytes] | None) -> StoreVersion | None:
    """What wrote a segment, by its metadata; None where they do not say."""
    metadata = metadata or {}
    return StoreVersion.unpacked(metadata[METADATA]) if METADATA in metadata else None


Listed = Callable[[], Mapping[tuple[str, str], Sequence[Path]]]
"""Gives the segments of each service version, by (service, fingerprint)."""


class LoggedRequest(NamedTuple):
    """A request as it was logged: the service version that answered it, and its rows (columns: see the module)."""

    service: str
    fingerprint: str
    rows: pa.Table


def find_request(folder: Path, request: str, *, listed: Listed | None = None) -> LoggedRequest | None:
    """The rows that were logged under a request's id, by time and row; None where there are none. listed: gives the segments, in place of
    those in the folder.

    Segments whose statistics rule the id out are not read. An id that clients used more than once finds every use of it
    by the service version that used it last.
    """
    for attempt in range(MAX_READINGS):
        try:
            return _find(segments(folder) if listed is None else listed(), request)
        except FileNotFoundError:  # its time had come
            if attempt == MAX_READINGS - 1:
                raise
    return None


def _find(listed: Mapping[tuple[str, str], Sequence[Path]], request: str) -> LoggedRequest | None:
    found = []
    for (service, fingerprint), files in listed.items():
        rows = _rows_of(files, request)
        if rows.num_rows:
            found.append(
                LoggedRequest(service, fingerprint, rows.sort_by([("time", "ascending"), ("row", "ascending")]))
            )
    return max(found, key=lambda logged: logged.rows["time"][-1].as_py(), default=None)


def _rows_of(files: Sequence[Path], request: str) -> pa.Table:
    """The rows under an id. Only what may have some is read; where that is damaged, the files that are not."""
    try:
        dataset = pads.dataset([str(path) for path in files], format="parquet")
        rows = dataset.to_table(columns=[*dataset.schema.names, FILE], filter=pc.field("request") == request)
        if all(is_sound(Path(path)) for path in pc.unique(rows[FILE]).to_pylist()):
            return restored(rows.drop_columns([FILE]))
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException):
        pass
    sound = [str(path) for path in files if is_sound(path)]
    if not sound:
        return pa.table({})
    return restored(pads.dataset(sound, format="parquet").to_table(filter=pc.field("request") == request))

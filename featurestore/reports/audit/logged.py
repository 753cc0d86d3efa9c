"""Logged rows of one service version, as the audit compares them: inputs, times, and what was served."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path

import numpy as np

from featurestore.durable.parquet import parquet_file, restored
from featurestore.errors import SpineError
from featurestore.lazy import pa, pads, pc
from featurestore.reports.audit.recompute import Ints, Recomputed
from featurestore.semantics.service import REQUEST_TIME, ResolvedService, ServiceColumn, ServiceView
from featurestore.semantics.values import canonical
from featurestore.serving.log.segments import ServedSegment, is_sound
from featurestore.serving.served_rows import (
    AS_OF,
    as_of_column,
    feature_column,
    input_column,
    status_columns,
    store_version,
)
from featurestore.types import FeatureType, Timestamp

NAMING = ("request", "row")
"""The columns of a spine that name logged rows."""

CHUNK_ROWS = 200_000
"""Logged rows that are compared at once."""


@dataclass(frozen=True)
class Logged:
    """Rows of the serving log, all answered by one service version."""

    version: ResolvedService
    """What they are compared with."""
    served: ResolvedService | None
    """The version that answered, where it is another one."""
    rows: pa.Table
    asked: pa.Table | None = None
    """The inputs that training is asked for, laid out as `brought`, where a spine gives others."""
    libraries: Mapping[str, set[str]] = field(default_factory=dict)
    """Library → the versions of it with which they were served."""

    @cached_property
    def times(self) -> Ints:
        """When each was answered, µs."""
        return _instants(self.rows["time"])

    @cached_property
    def brought(self) -> pa.Table:
        """The keys and request values that the requests brought, and their instants, which are always there."""
        brought = {name: self.rows[input_column(name)].combine_chunks() for name in self.version.inputs}
        return pa.table({**brought, REQUEST_TIME: self.rows["time"].combine_chunks()})

    @property
    def brought_types(self) -> dict[str, FeatureType]:
        """The types of what the requests brought."""
        return {**self.version.inputs, REQUEST_TIME: Timestamp}

    @property
    def inputs(self) -> pa.Table:
        """What training is asked for: what the requests brought, or what a spine gives."""
        return self.brought if self.asked is None else self.asked

    @property
    def lacking(self) -> list[str]:
        """The inputs of the version compared with that the version served did not take."""
        return [name for name in self.version.inputs if input_column(name) not in self.rows.column_names]

    @property
    def fingerprint(self) -> str:
        """Of the version that was served."""
        return (self.served or self.version).fingerprint

    def as_of(self, part: ServiceView) -> Ints | None:
        """The as_of that a view's values were served for, µs; None where the log has no such view."""
        name = as_of_column(part)
        return None if self.rows.schema.get_field_index(name) < 0 else _instants(self.rows[name])

    def column(self, name: str, of: FeatureType) -> pa.Array | None:
        """What was served of a column; None where it is of another type, or was not served."""
        logged = feature_column(name)
        if self.rows.schema.get_field_index(logged) < 0 or self.rows[logged].type != of.arrow:
            return None
        return canonical(self.rows[logged], of)

    def of_part(self, part: ServiceView) -> tuple[list[ServiceColumn], Recomputed]:
        """The service's columns of a part that were served, those that only functions read among them, and what was."""
        status_of = {name: own for own, names in status_columns(part).items() for name in names}
        names = set(self.rows.column_names)
        own = [c for c in (*self.version.columns, *self.version.hidden) if c.part == part.name]
        columns = [column for column in own if {column.name, status_of[column.name]} <= names]
        values, statuses = {}, {}
        for column in columns:
            found = self.column(column.name, column.type)
            values[column.name] = pa.nulls(self.rows.num_rows, pa.null()) if found is None else found
            statuses[column.name] = np.asarray(self.rows[status_of[column.name]].to_pylist())
        return columns, Recomputed(values, statuses)


Libraries = dict[str, set[str]]
"""Library → the versions of it that wrote some segments."""


def chunks(
    files: Sequence[Path],
    since: int | None,
    until: int | None,
    *,
    damaged: Callable[[Path], object],
    columns: Container[str] | None = None,
    dictionaries: Container[str] = (),
) -> Iterator[tuple[pa.Table, Libraries]]:
    """The rows that were answered from `since` to before `until` (µs), some at a time, with what served them.

    damaged: told of each file that is not what was written, which is left out. columns: those to read, beside times and the instants
    that were served; None: all. dictionaries: those of texts, or bytes, that are read as dictionaries.
    """
    waiting: list[pa.Table] = []
    libraries: Libraries = {}
    for path in files:
        try:
            if not is_sound(path):
                raise OSError
            found = restored(_read(path, since, until, columns, dictionaries))
            wrote = store_version(found.schema.metadata)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException, ValueError):  # one without a checksum shows its damage when it is read
            damaged(path)
            continue
        waiting.append(found)
        for name, of in (wrote.libraries if wrote is not None else {}).items():
            libraries.setdefault(name, set()).add(of)
        if sum(table.num_rows for table in waiting) >= CHUNK_ROWS:
            yield from _cut(waiting, libraries)
            waiting, libraries = [], {}
    yield from _cut(waiting, libraries)


def _read(
    path: Path, since: int | None, until: int | None, columns: Container[str] | None, dictionaries: Container[str]
) -> pa.Table:
    """The rows of a file that were answered from `since` to before `until`."""
    of, named, condition = pa.timestamp("us", "UTC"), ServedSegment.of(path), pc.scalar(True)
    if (since is None or since <= named.first) and (
        until is None or named.last < until
    ):  # 0.7 of the time of a condition
        with parquet_file(path, dictionaries=dictionaries) as file:
            schema = file.schema_arrow
            rows = file.read([name for name in schema.names if columns is None or _is_wanted(name, columns)])
            return rows.replace_schema_metadata(schema.metadata)
    if since is not None:
        condition &= pc.field("time") >= pa.scalar(since).cast(of)
    if until is not None:
        condition &= pc.field("time") < pa.scalar(until).cast(of)
    dataset = pads.dataset(str(path), format="parquet")
    wanted = [name for name in dataset.schema.names if columns is None or _is_wanted(name, columns)]
    rows = dataset.to_table(columns=wanted, filter=condition)
    for place, name in enumerate(rows.column_names):
        if name in dictionaries:
            rows = rows.set_column(place, name, rows[name].dictionary_encode())
    return rows


def _is_wanted(name: str, columns: Container[str]) -> bool:
    return name == "time" or name.startswith(AS_OF) or name in columns


def _cut(tables: Sequence[pa.Table], libraries: Libraries) -> Iterator[tuple[pa.Table, Libraries]]:
    if tables:
        plain = [table.replace_schema_metadata() for table in tables]
        table = pa.concat_tables(plain, promote_options="default")
        yield from ((table.slice(first, CHUNK_ROWS), libraries) for first in range(0, table.num_rows, CHUNK_ROWS))


def answered(rows: pa.Table) -> pa.Table:
    """Without the rows of requests that came while the online store could not be reached: what is UNAVAILABLE says nothing of any instant,
    and so there is nothing to compare it with."""
    instants = [rows[name] for name in rows.column_names if name.startswith(AS_OF)]
    if not any(column.null_count for column in instants):
        return rows
    return rows.filter(reduce(pc.and_, map(pc.is_valid, instants)))


class SpineOfRequests:
    """The rows that training was asked for, each naming the logged row that it stands for.

    table: columns `request` and, where requests had several rows, `row`, beside inputs whose values may be others than
    the request brought; an input that is itself called request or row is there as `input:request`. not_served: its rows that were not logged; not_trained: logged rows that it has not; both so far.
    Raises SpineError where it has no such column, or names a row twice.
    """

    def __init__(self, table: pa.Table) -> None:
        if "request" not in table.column_names:
            raise SpineError("The spine has no column 'request' with the ids under which its rows were logged")
        requests = table["request"].to_pylist()
        numbers = table["row"].to_pylist() if "row" in table.column_names else [0] * len(requests)
        self.table = table
        self._places = {pair: place for place, pair in enumerate(zip(requests, numbers, strict=True))}
        if len(self._places) < len(requests):
            raise SpineError("The spine names a logged row twice; `request` and `row` together name one")
        self._left = set(self._places.values())
        self.not_trained = 0

    @property
    def not_served(self) -> int:
        """Its rows that no log has shown yet."""
        return len(self._left)

    @property
    def matched(self) -> list[int]:
        """The numbers of its rows that the log has shown."""
        return sorted(set(self._places.values()) - self._left)

    def add(self, matched: Sequence[int], not_trained: int) -> None:
        """Count what others found of it in other rows of the log: see `matched` and `not_trained`."""
        self._left.difference_update(matched)
        self.not_trained += not_trained

    def match(self, rows: pa.Table, version: ResolvedService) -> tuple[pa.Table, pa.Table]:
        """The logged rows that it has, and the inputs that training was asked for, row by row. Raises SpineError where a column of it
        is of no type that an input takes."""
        pairs = list(zip(rows["request"].to_pylist(), rows["row"].to_pylist(), strict=True))
        kept = [n for n, pair in enumerate(pairs) if pair in self._places]
        self.not_trained += len(pairs) - len(kept)
        numbers = [self._places[pairs[n]] for n in kept]
        self._left.difference_update(numbers)
        places = pa.array(numbers, pa.int64())
        matched = rows.take(pa.array(kept, pa.int64()))
        asked = {REQUEST_TIME: matched["time"].combine_chunks()}
        for name, of in version.inputs.items():
            there = [own for own in (input_column(name), name) if own in self.table.column_names and own not in NAMING]
            own = self.table[there[0]].take(places) if there else matched[input_column(name)]
            try:
                asked[name] = own.cast(of.arrow).combine_chunks()
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise SpineError(f"The spine's column '{there[0]}' is no {of}: {error}") from None
        return matched, pa.table(asked)


def _instants(column: pa.ChunkedArray) -> Ints:
    values: Ints = column.cast(pa.int64()).to_numpy()
    return values

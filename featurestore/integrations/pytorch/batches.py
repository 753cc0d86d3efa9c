"""The rows of a training set that lies in a Parquet file, as batches of tensors: for ranks and workers, never all in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from featurestore.clock import to_datetime
from featurestore.declare.durations import asked_duration, asked_moment, show_duration
from featurestore.durable.parquet import local, parquet_file, restored
from featurestore.errors import FilesChangedError, ManifestError, RequestError, SourceError
from featurestore.integrations.pytorch.tensors import Features, FeatureTensors
from featurestore.lazy import pa, pq
from featurestore.plurals import plural
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.values import micros
from featurestore.sources.unreadable import no_parquet
from featurestore.training.manifest import Manifest, load_manifest
from featurestore.types import LAST_MICRO

GROUP_ROWS = 32_768
"""Rows of a row group: what is read at once."""

Interval = tuple[int, int]
"""Instants (µs), the first within and the last not."""


@dataclass(frozen=True)
class TimeSplit:
    """A split of rows by time: those before `validate_from` train, those from there on validate, those from `test_from` on test.

    The rows of the first `gap` behind each of the two are in no part, so that what a label of the part before looks ahead to is not
    in the next one. Instants are aware datetimes, or ISO text; naive ones mean UTC.
    """

    validate_from: str | datetime | None = None
    """None: nothing validates."""
    test_from: str | datetime | None = None
    """None: nothing tests."""
    gap: Any = "0s"
    """A duration, as "1d"."""

    def __post_init__(self) -> None:
        self.parts()

    def parts(self) -> dict[str, Interval]:
        """By name the instants of each part that there is. Raises RequestError where one would be empty whatever the rows are."""
        gap = asked_duration(self.gap, "gap")
        found, first, name = {}, BEGINNING, "train"
        for word, then in (("validate_from", "validate"), ("test_from", "test")):
            given = getattr(self, word)
            if given is None:
                continue
            at = asked_moment(given, word)
            if at <= first:
                raise RequestError(
                    f"{word} is {given}, and part '{name}' begins at {to_datetime(first).isoformat()}, its gap being over; it comes later"
                )
            found[name] = (first, at)
            first, name = at + gap, then
            if first > LAST_MICRO:
                raise RequestError(
                    f"gap is {show_duration(gap)}, so that part '{name}' would begin after the year 9999, and no row is in it"
                )
        return {**found, name: (first, END + 1)}

    def said(self) -> dict[str, str]:
        """The split as plain JSON."""
        cuts = {name: to_datetime(first).isoformat() for name, (first, _) in self.parts().items() if name != "train"}
        return {**cuts, "gap": show_duration(asked_duration(self.gap, "gap"))}


@dataclass(frozen=True)
class TrainingFile:
    """A training set in a Parquet file, as it was when it was opened; a later reader reads that or is refused."""

    path: Path
    timestamp: str
    """The column of instants."""
    manifest: Manifest
    stamp: tuple[int, int, int]
    """Size, time of modification (ns) and inode."""
    schema: pa.Schema
    nulls: dict[str, int]
    """By column how many nulls it has, where the file says it; lists are left out."""

    @classmethod
    def open(cls, path: Path, timestamp: str) -> Self:
        """The file of a path. Raises ManifestError where it is no training set, SourceError where it cannot be read."""
        stamp, manifest = _stamp(path), load_manifest(path)
        with _reading(path), parquet_file(path) as file:
            schema = restored(file.schema_arrow.empty_table()).schema
            made = cls(path, timestamp, manifest, stamp, schema, _nulls(file.metadata))
        made.check()
        return made

    @staticmethod
    def manifest_within(path: Path) -> Manifest:
        """The manifest in a file, whatever lies beside it. Raises ManifestError where there is none, so that the file is none of ours."""
        try:
            with _reading(path):
                return load_manifest(pq.read_schema(local(path)).empty_table())
        except (ManifestError, SourceError) as error:
            raise ManifestError(f"{path} is there, and no training set, so it is not written over: {error}") from None

    def counts(self, parts: Sequence[Interval]) -> npt.NDArray[np.int64]:
        """How many rows of each row group lie in each part: shape (row groups, parts). Reads the column of instants alone."""
        found = []
        with self.reader() as file:
            for group in range(file.num_row_groups):
                times = _instants(self.read(file, group, [self.timestamp]), self.timestamp)
                found.append([int(((times >= first) & (times < last)).sum()) for first, last in parts])
        return np.array(found, np.int64).reshape(-1, len(parts))

    def reader(self) -> pq.ParquetFile:
        """The file, opened by each process that reads it: a worker has its own."""
        with _reading(self.path):
            file = parquet_file(self.path)
        self.check()
        return file

    def read(self, file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        """Columns of a row group. Raises FilesChangedError where the file is another one by then."""
        with _reading(self.path):
            table = file.read_row_group(group, columns, use_threads=get_worker_info() is None)
        self.check()
        return restored(table.select(columns))  # by name: a path of Parquet, a.b, may be another's

    def check(self) -> None:
        """FilesChangedError where the file is another one by now."""
        if _stamp(self.path) != self.stamp:
            raise FilesChangedError(
                f"{self.path} was written anew, or removed, while it was trained on, so that the rows to come are those of another training set. "
                "Fit again; training sets that are prepared beside each other have a path each"
            )


@dataclass(frozen=True)
class Part:
    """One part of a training set."""

    file: TrainingFile
    name: str
    within: Interval
    counts: npt.NDArray[np.int64]
    """By row group how many of its rows are of this part."""


@dataclass(frozen=True)
class Shard:
    """Which of the rows are one rank's: of `world_size` ranks, that with this number."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True)
class Shuffle:
    """How rows are shuffled, in each epoch in another way: the row groups among each other, and so many rows at a time."""

    seed: int
    rows: int


class TrainingBatches(IterableDataset):  # type: ignore[misc]  # the base class has no types
    """One part of a training set as batches: (features, label), or features alone where there is no label.

    Each row comes once, whatever the ranks and workers. Every rank has equally many batches, of sizes that differ by one row at most
    within a rank, and none is larger than `batch_size`. RequestError where rows are too few for that.

    A worker reads the row groups that its rows lie in, one after the other, and holds one of them; shuffled, the rows that are
    shuffled at a time beside it. The order depends on seed, epoch, ranks and workers alone.
    """

    def __init__(
        self, part: Part, *, tensors: FeatureTensors, label: str | Sequence[str] | None, batch_size: int, shard: Shard,
        shuffle: Shuffle | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._part, self._tensors, self._label, self._shard, self._shuffle = part, tensors, label, shard, shuffle
        self._features = list(part.file.manifest.columns)
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # which workers that stay see too
        rows, ranks = int(part.counts.sum()), shard.world_size
        self._batches = -(-rows // (batch_size * ranks))
        if rows // ranks < self._batches:
            raise RequestError(
                f"part '{part.name}' has {rows} {plural(rows, 'row')}, of which {ranks} {plural(ranks, 'rank')} cannot make equally many batches of {batch_size} at most; "
                + ("take fewer ranks" if rows < ranks else "take a batch_size of 2 or more")
            )

    @property
    def epoch(self) -> int:
        """Which epoch it is, from 0."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Which epoch begins, as of a `DistributedSampler`. Where a Trainer fits, it is told."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        """The batches of this rank."""
        return self._batches

    def __iter__(self) -> Iterator[tuple[Features, Any] | Features]:
        worker = get_worker_info()
        place, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rows, rank, ranks = int(self._part.counts.sum()), self._shard.rank, self._shard.world_size
        first, last = rows * rank // ranks, rows * (rank + 1) // ranks
        begins = first + np.arange(self._batches + 1) * (last - first) // max(1, self._batches)
        own = begins[self._batches * place // workers : self._batches * (place + 1) // workers + 1]
        if len(own) < 2:
            return
        tables = self._tables(int(own[0]), int(own[-1]), (rank, place))
        left = next(tables)
        for size in np.diff(own).tolist():
            while left.num_rows < size:
                left = pa.concat_tables([left, next(tables)])
            yield self._batch(left.slice(0, size))
            left = left.slice(size)

    def _tables(self, first: int, last: int, place: tuple[int, int]) -> Iterator[pa.Table]:
        """The rows with these numbers, in the order of this epoch."""
        groups = np.arange(len(self._part.counts))
        if self._shuffle is None:
            yield from self._slices(first, last, groups)
            return
        seeds = [self._shuffle.seed, self.epoch]
        groups, draw = np.random.default_rng(seeds).permutation(groups), np.random.default_rng([*seeds, *place])
        held: list[pa.Table] = []
        for table in self._slices(first, last, groups):
            held.append(table)
            del table  # what a generator names, it holds
            if sum(map(len, held)) >= self._shuffle.rows:
                yield _mixed(held, draw)
        if held:
            yield _mixed(held, draw)

    def _slices(self, first: int, last: int, groups: npt.NDArray[np.int64]) -> Iterator[pa.Table]:
        """The rows with these numbers, where the rows of the part are numbered along the row groups in this order."""
        ends = np.cumsum(self._part.counts[groups])
        with self._part.file.reader() as reader:
            for group, end in zip(groups.tolist(), ends.tolist(), strict=True):
                begin = end - int(self._part.counts[group])
                start, stop = max(first, begin), min(last, end)
                if start < stop:
                    yield self._of_group(reader, group).slice(start - begin, stop - start)

    def _of_group(self, reader: pq.ParquetFile, group: int) -> pa.Table:
        """The rows of the part in a row group."""
        file, (since, until) = self._part.file, self._part.within
        labels = [self._label] if isinstance(self._label, str) else list(self._label or ())
        table = file.read(reader, group, list(dict.fromkeys([*self._features, *labels, file.timestamp])))
        times = _instants(table, file.timestamp)
        within = (times >= since) & (times < until)
        return table if within.all() else table.filter(pa.array(within))

    def _batch(self, table: pa.Table) -> tuple[Features, Any] | Features:
        features = self._tensors(table.select(self._features))
        if self._label is None:
            return features
        if isinstance(self._label, str):
            return features, self._tensors.label(self._label, table[self._label])
        return features, {name: self._tensors.label(name, table[name]) for name in self._label}


def _mixed(held: list[pa.Table], draw: np.random.Generator) -> pa.Table:
    """The rows of all tables, which are let go."""
    table = pa.concat_tables(held)
    held.clear()
    return table.take(pa.array(draw.permutation(table.num_rows)))


def _instants(table: pa.Table, timestamp: str) -> npt.NDArray[np.int64]:
    """µs; naive ones are UTC, as where the training set was made."""
    numbers: npt.NDArray[np.int64] = micros(table[timestamp]).cast(pa.int64()).to_numpy()
    return numbers


def _stamp(path: Path) -> tuple[int, int, int]:
    """Size, time of modification and inode of a file; zeros where there is none."""
    try:
        there = path.stat()
    except OSError:
        return 0, 0, 0
    return there.st_size, there.st_mtime_ns, there.st_ino


def _nulls(metadata: pq.FileMetaData) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in range(metadata.num_row_groups):
        for place in range(metadata.num_columns):
            column = metadata.row_group(group).column(place)
            if column.statistics is not None and column.statistics.has_null_count:
                found[column.path_in_schema] = found.get(column.path_in_schema, 0) + column.statistics.null_count
    return found


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """SourceError where the file cannot be read."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"The training set cannot be read: {no_parquet(str(path), error)}") from error

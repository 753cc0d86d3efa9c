"""A scale model of a job: some rows of each source and of the spine, in memory, that meet as all of them would.

Rows that lie beside each other in a file are of many keys, so a few of them have fewer rows a key than all have. So keys are folded: each
is taken for one of so few that a key has as many rows as it has in the whole, and the spine asks for the same part of them. A key
that has many rows has many here too. Values and times are those of the data.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featurestore.declare.push import PushSource
from featurestore.declare.sources import Source
from featurestore.lazy import pa, pc
from featurestore.reports.estimate.source_size import PIECES, SourceSize, spread
from featurestore.semantics.engine import connect
from featurestore.semantics.source_columns import read_columns
from featurestore.semantics.sql import quote
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import RowRange, Session
from featurestore.sources.source_files import SourceFile

SAMPLE_ROWS = 400_000
"""Rows of all sources together that are looked at, and as many of a spine at most: a second or two on a processor."""


@dataclass(frozen=True)
class SampledSource:
    """Some rows of a source."""

    rows: pa.Table
    share: float
    """Of all of its rows."""

    times_s: float
    """On the processors, for each row whose keys and times are read."""

    values_s: float
    """For each of which the rest is read, beside that."""


def sampled(
    offline: Offline, source: Source, views: Sequence[ResolvedView], files: Sequence[SourceFile], size: SourceSize, rows: int
) -> SampledSource:  # fmt: skip
    """So many rows of a source, as another session can be given for its files. Raises SourceError."""
    columns = list(read_columns(source, views, offline.raw_types(source)))
    taken = min(rows, size.rows)
    if isinstance(source, PushSource):
        ranges, listing = None, offline.listing(source, tuple(files))
    else:
        ranges = spread(size.files, taken, PIECES)
        numbers = sorted({one.file for one in ranges}) or [0]
        ranges = [RowRange(numbers.index(one.file), one.first, one.rows) for one in ranges]
        listing = offline.listing(source, tuple(files[number] for number in numbers))
    with offline.session(files=listing) as session, session.reading():
        if not size.rows or ranges is None:
            found = session.rows(source, columns).slice(0, taken)
        else:
            found = session.rows(source, columns, ranges=ranges)
    times = [name for name in columns if name not in _gathered(views)]
    share = found.num_rows / max(1, size.rows)
    if ranges is None or not size.middle.rows:
        return SampledSource(found.combine_chunks(), share, 0.0, 0.0)
    with offline.session(files=offline.listing(source, (files[size.middle.file],))) as session, session.reading():
        middle = [size.middle._replace(file=0)]
        times_s = _read_s(session, source, times, middle)
        whole_s = _read_s(session, source, columns, middle)
    return SampledSource(found.combine_chunks(), share, times_s / size.middle.rows, max(0.0, whole_s - times_s) / size.middle.rows)  # fmt: skip


def _gathered(views: Sequence[ResolvedView]) -> set[str]:
    """The columns that are read of the rows alone that were chosen: those of plain features, where nothing else needs them."""
    plain = {feature.fold.column for view in views for feature in view.features if feature.plain}
    others = {feature.fold.column for view in views for feature in view.features if not feature.plain}
    source = views[0].source
    named = {source.event_time, source.known_at, source.valid_from, source.until, *source.identity, *source.tiebreak}
    named |= {key.column for view in views for key in view.keys}
    return set() if source.derived else {name for name in plain - others - named if name is not None}


def _read_s(session: Session, source: Source, columns: Sequence[str], ranges: Sequence[RowRange]) -> float:
    """What the second reading of some rows takes on the processors."""
    session.rows(source, columns, ranges=ranges)
    began = time.process_time()
    session.rows(source, columns, ranges=ranges)
    return time.process_time() - began


@dataclass(frozen=True)
class FoldedKeys:
    """The keys that stand for all: values of the key's columns, by place."""

    columns: tuple[pa.Array, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.columns[0])

    @classmethod
    def of(cls, rows: pa.Table, names: Sequence[str], most: int) -> FoldedKeys:
        """So many at most of those that rows have in some columns, of which none is null."""
        for name in names:
            rows = rows.filter(pc.is_valid(rows[name]))
        _, first = np.unique(key_hashes(rows, names), return_index=True)
        chosen = pa.array(np.sort(first)[: max(1, most)])
        return cls(tuple(rows[name].combine_chunks().take(chosen) for name in names))

    def put(self, rows: pa.Table, names: Sequence[str], among: int) -> pa.Table:
        """Rows whose keys are the first so many of these, each key taken for the same one wherever it stands; null ones stay."""
        if not rows.num_rows or not self.count:
            return rows
        place = key_hashes(rows, names) % np.uint64(max(1, min(among, self.count)))
        for number, name in enumerate(names):
            field = rows.schema.field(name)
            folded = self.columns[number].take(pa.array(place.astype(np.int64))).cast(field.type)
            folded = pc.if_else(pc.is_valid(rows[name]), folded, pa.scalar(None, field.type))
            rows = rows.set_column(rows.column_names.index(name), field, folded)
        return rows


def key_hashes(rows: pa.Table, names: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A number for each row, equal for equal values of some columns as text, whatever their types."""
    with connect() as connection:
        given = pa.table([rows[name] for name in names] + [pa.array(np.arange(rows.num_rows))],
                         names=[f"c{place}" for place in range(len(names) + 1)])  # fmt: skip
        connection.register("given", given)
        listed = ", ".join(f"CAST({quote(f'c{place}')} AS VARCHAR)" for place in range(len(names)))
        found = connection.sql(f"SELECT hash({listed}) AS h FROM given ORDER BY c{len(names)}").to_arrow_table()
    hashes: npt.NDArray[np.uint64] = found["h"].to_numpy()
    return hashes


@dataclass(frozen=True)
class KeyGroup:
    """Sources whose keys are asked for by the same columns of the spine."""

    asked: tuple[str, ...]
    """These columns, in the order of the key; of a run of materialize there are none."""

    keys: FoldedKeys
    columns: Mapping[str, tuple[str, ...]]
    """By source the columns of its key, in the same order."""

    folded: Mapping[str, int]
    """By source how many of the keys its sample has."""

    asked_share: float = 1.0
    """The part of all keys that the spine asks for."""

    @classmethod
    def of(
        cls, asked: Sequence[str], columns: Mapping[str, tuple[str, ...]], counts: Mapping[str, int],
        samples: Mapping[str, SampledSource], asked_share: float = 1.0,
    ) -> KeyGroup:  # fmt: skip
        """counts: by source how many keys all of its rows have."""
        folded = {name: max(1, round(counts[name] * samples[name].share)) for name in columns}
        widest = max(columns, key=lambda name: folded[name])
        keys = FoldedKeys.of(samples[widest].rows, columns[widest], folded[widest])
        return cls(tuple(asked), keys, columns, folded, asked_share)

    def rows(self, name: str, rows: pa.Table, part: float) -> pa.Table:
        """Some of a source's rows, that are a part of its sample, among as many keys as that part has."""
        return self.keys.put(rows, self.columns[name], round(self.folded[name] * part))

    def spine(self, spine: pa.Table, part: float) -> pa.Table:
        """Rows of a spine that ask for the keys which that part of the samples has."""
        return self.keys.put(spine, self.asked, round(max(self.folded.values()) * part * self.asked_share))


def part_of(rows: pa.Table, part: float) -> pa.Table:
    """Every so manieth of some rows."""
    count = max(min(1, rows.num_rows), int(rows.num_rows * part))
    return rows.take(pa.array(np.linspace(0, rows.num_rows - 1, count).astype(np.int64))) if count else rows

"""How large a source is, from what its files say of themselves: footers of Parquet files, a table's count, a log's segments.

Rows are exact. Keys are counted about, by a sketch over the key's columns, or, of very many rows, from some of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from featurestore.clock import instant_of
from featurestore.declare.push import PushSource
from featurestore.declare.sources import FileSource, Source
from featurestore.durable.parquet import parquet_file
from featurestore.lazy import pa
from featurestore.semantics.rows import words_sql
from featurestore.semantics.source_columns import has_key, key_list, read_columns
from featurestore.semantics.view import ResolvedView
from featurestore.sources.object_stores import readable
from featurestore.sources.offline import Offline
from featurestore.sources.session import RowRange, Session
from featurestore.sources.source_files import SourceFile, source_error
from featurestore.sources.unreadable import no_parquet

COUNTED_ROWS = 20_000_000
"""Rows up to which keys are counted in all of them: 0.1 s on a processor for 10 M rows of one integer key. Of more, in so many."""


PIECES = 8
"""Stretches of a source that are looked at, where it is not looked at as a whole."""


READ_ROWS = 200_000
"""Rows of what has no row groups that are read to tell how fast that is."""


EXACT_ROWS = 1_000_000
"""Rows up to which keys are counted one by one."""


class FileSize(NamedTuple):
    """A Parquet file as its footer tells it."""

    rows: int
    stored_bytes: int
    """Of the columns that views read, compressed as they are."""

    group_bytes: int
    """Of these columns in the largest row group, as they are when they are read."""

    middle: tuple[int, int]
    """The first row of the row group in the middle, and how many it has."""


class SourceSize(NamedTuple):
    """A source as it is now."""

    rows: int
    stored_bytes: int | None
    """Of the columns that views read, on the disk; None where nothing tells it."""

    group_bytes: int
    files: tuple[int, ...]
    """Of each file its rows; of what lies in no files one entry."""

    middle: RowRange
    """Rows that are read together: a row group, where there are such."""


class KeyCount(NamedTuple):
    """How many keys a view has: about so many, and surely no fewer and no more than these."""

    about: int
    least: int
    most: int


def size_of(source: Source, views: Iterable[ResolvedView], offline: Offline, files: Sequence[SourceFile]) -> SourceSize:
    """The size of a source that has these files. Raises SourceError."""
    if isinstance(source, FileSource):
        columns = read_columns(source, views, offline.raw_types(source))
        found = [_footer(source, file, columns) for file in files]
        return SourceSize(
            sum(one.rows for one in found), sum(one.stored_bytes for one in found),
            max((one.group_bytes for one in found), default=0), tuple(one.rows for one in found), _middle(found),
        )  # fmt: skip
    with offline.session(files=offline.listing(source, tuple(files))) as session:
        rows = _counted(session, f"SELECT count(*) FROM {session.own(source).scan.relation}")
    logged = offline.log(source).segments() if isinstance(source, PushSource) else ()
    return SourceSize(
        rows,
        sum(segment.size or 0 for segment in logged) if logged else None,
        0,
        (rows,),
        RowRange(0, 0, min(rows, READ_ROWS)),
    )


def _middle(files: Sequence[FileSize]) -> RowRange:
    """The row group in the middle of the file with most rows."""
    number = max(range(len(files)), key=lambda place: files[place].rows, default=0)
    return RowRange(number, *files[number].middle) if files else RowRange(0, 0, 0)


def _counted(session: Session, sql: str) -> int:
    return int(session.connection.execute(sql).fetchall()[0][0])


def _footer(source: Source, file: SourceFile, columns: Iterable[str]) -> FileSize:
    metadata = _metadata(source, file)
    stored = largest = begin = 0
    middle = 0, 0
    for number in range(metadata.num_row_groups):
        group, plain = metadata.row_group(number), 0
        if number == metadata.num_row_groups // 2:
            middle = begin, group.num_rows
        begin += group.num_rows
        for place in range(group.num_columns):
            chunk = group.column(place)
            if _is_of(chunk.path_in_schema, columns):
                stored += chunk.total_compressed_size
                plain += chunk.total_uncompressed_size
        largest = max(largest, plain)
    return FileSize(metadata.num_rows, stored, largest, middle)


def _metadata(source: Source, file: SourceFile) -> Any:
    try:
        with parquet_file(readable(file.parquet)) as opened:
            return opened.metadata
    except (pa.ArrowException, OSError) as error:
        raise source_error(source, no_parquet(file.path, error)) from error


def _is_of(path: str, columns: Iterable[str]) -> bool:
    """Whether a column of a file, lists in lists included, is one of these."""
    return any(path == name or path.startswith(f"{name}.") for name in columns)


class RowsBetween(NamedTuple):
    """How many rows have times within some spans."""

    about: float
    most: int


def rows_between(
    source: FileSource, files: Sequence[SourceFile], columns: Iterable[str], spans: Sequence[tuple[int, int]], *, slack: int
) -> RowsBetween:  # fmt: skip
    """The rows with a time in one of these columns within one of the spans, (µs, µs], or so much beside it, as the row groups' statistics
    bound them; a group without any counts whole."""
    about, most = 0.0, 0
    for file in files:
        metadata = _metadata(source, file)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            chunks = [group.column(place) for place in range(group.num_columns)]
            ranges = [_range(chunk) for chunk in chunks if chunk.path_in_schema in columns]
            if not ranges or None in ranges:
                about, most = about + group.num_rows, most + group.num_rows
                continue
            shares = [_share(one, spans) for one in ranges if one is not None]
            about += group.num_rows * max(shares)
            wide = [(first - slack, last + slack) for first, last in spans]
            if any(one[0] <= last and one[1] > first for one in ranges if one is not None for first, last in wide):
                most += group.num_rows
    return RowsBetween(about, most)


def _share(times: tuple[int, int], spans: Sequence[tuple[int, int]]) -> float:
    """The part of times that lies within spans, if they lie evenly."""
    length = max(1, times[1] - times[0])
    return min(1.0, sum(max(0, min(last, times[1]) - max(first, times[0] - 1)) for first, last in spans) / length)


def _range(chunk: Any) -> tuple[int, int] | None:
    """The least and the greatest instant (µs) of a column of times; None where that is not told."""
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return None
    try:
        return instant_of(statistics.min), instant_of(statistics.max)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def spread(files: Sequence[int], rows: int, pieces: int) -> list[RowRange]:
    """So many rows of files of so many each, in pieces that lie equally far apart; all where there are no more."""
    total = sum(files)
    if rows >= total:
        return [RowRange(number, 0, count) for number, count in enumerate(files) if count]
    each = max(1, rows // pieces)
    found: list[RowRange] = []
    for piece in range(min(pieces, rows)):
        begin = (total - each) * piece // max(1, min(pieces, rows) - 1) if min(pieces, rows) > 1 else 0
        left = each
        for number, count in enumerate(files):
            if begin < count and left > 0:
                taken = min(left, count - begin)
                found.append(RowRange(number, begin, taken))
                begin, left = begin + taken, left - taken
            begin = max(0, begin - count)
    return found


def keys_of(view: ResolvedView, offline: Offline, files: Sequence[SourceFile], size: SourceSize) -> KeyCount:
    """How many keys a view's source has. Raises SourceError."""
    source = view.source
    if not view.keys:
        return KeyCount(min(1, size.rows), min(1, size.rows), 1)
    if not size.rows:
        return KeyCount(0, 0, 0)
    with offline.session(files=offline.listing(source, tuple(files))) as session:
        scan = session.scan(source)
        every = f"SELECT {key_list(view)} FROM ({words_sql(view, scan)}) WHERE {has_key(view)}"
        if size.rows <= COUNTED_ROWS:
            return _sketched(session, view, every, size.rows)
        some = " OR ".join(
            f"(file = {one.file} AND row >= {one.first} AND row < {one.first + one.rows})"
            for one in spread(size.files, COUNTED_ROWS, PIECES)
        )
        found = _sketched(session, view, f"SELECT * FROM ({every} AND ({some}))", COUNTED_ROWS).about
    return KeyCount(drawn_from(found, COUNTED_ROWS, size.rows), found, size.rows)


SKETCH_ERROR = 0.15
"""By how much a sketch of the engine may be wrong."""


def _sketched(session: Session, view: ResolvedView, keys: str, rows: int) -> KeyCount:
    told = f"(SELECT row({key_list(view)}) AS k FROM ({keys}))"
    if rows <= EXACT_ROWS:
        count = _counted(session, f"SELECT count(DISTINCT k) FROM {told}")
        return KeyCount(count, count, count)
    about = min(rows, _counted(session, f"SELECT approx_count_distinct(k) FROM {told}"))
    most = min(rows, math.ceil(about * (1 + SKETCH_ERROR)))
    return KeyCount(about, math.floor(about * (1 - SKETCH_ERROR)), most)


def drawn_from(found: int, rows: int, most: int) -> int:
    """Among how many keys so many rows are drawn, if evenly, where they have so many different ones."""
    low, high = found, max(found, most)
    while high - low > max(1, low // 1000):
        keys = (low + high) // 2
        if keys * -math.expm1(-rows / keys) < found:
            low = keys
        else:
            high = keys
    return high

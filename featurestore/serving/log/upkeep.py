"""What is done to the serving log's files when they are written: hours are merged, and what is too old or too much deleted.

The files of a service version that begin in one hour, a while after its end, become one file, sorted by time; those that
different versions of libraries wrote stay apart. The merged file names those that it replaces, and a process that lists the
files leaves them out from the moment it appears, by one rename. They are removed later, so that a reader that listed them
before can still read them, and before the hour is merged again: a process that is killed in between doubles and loses
nothing. One process at a time does this.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from featurestore.clock import instant_of
from featurestore.durable.lock import alone
from featurestore.lazy import pa, pc, pq
from featurestore.serving.log.process_counts import fold_ended
from featurestore.serving.log.segments import (
    HOUR_US,
    REPLACES,
    ServedSegment,
    appearing,
    is_sound,
    listed,
    merged_name,
    replaced,
    replaced_by,
)

SETTLED_US = 300_000_000
"""µs after its end when an hour is merged: what was served in it is written by then."""

GRACE_SECONDS = 600.0
"""Seconds for which replaced files stay, for those that are reading them."""

ABANDONED_SECONDS = 3600.0
"""Seconds after which a file without its final name is one that nobody will finish."""

ROW_GROUP_ROWS = 1 << 17
"""Rows of a row group of a merged file at least, but for the last."""

TIME = "time"

UPKEEP = ".upkeep"
"""The file in the log's folder whose lock is held by the process that merges and deletes."""

Between = Callable[[], None]


class Limits(NamedTuple):
    """What is kept: files whose newest row is at most so old (µs), and so many bytes in all; None: no limit."""

    retention: int | None = None
    max_bytes: int | None = None


class Upkeep(NamedTuple):
    """What was done: so many files were merged into so many, replaced ones removed, and others deleted as they were too old
    or too many; how many bytes that freed; and so many files were shipped to an object store."""

    merged: int = 0
    into: int = 0
    removed: int = 0
    deleted: int = 0
    freed: int = 0
    shipped: int = 0

    def __add__(self, other: object) -> Upkeep:
        assert isinstance(other, Upkeep)
        return Upkeep(*(a + b for a, b in zip(self, other, strict=True)))


def keep_up(
    folder: Path, limits: Limits, *, now: int, between: Between = lambda: None, grace: float = GRACE_SECONDS
) -> Upkeep | None:
    """Look after the log in a folder; None where another process is at it. now: µs, by the clock of the rows' times.

    between: called on the way, every now and then; what it raises ends the work where it can be ended. Raises OSError.
    """
    if not folder.is_dir():
        return Upkeep()
    with alone(folder / UPKEEP) as is_alone:
        if not is_alone:
            return None
        done = Upkeep()
        for version in sorted(path for path in folder.glob("*/*/") if path.is_dir()):
            done += _clean(version, grace)
            if limits.retention is not None:
                old = [file for file in listed(version) if file.last < now - limits.retention]
                done += Upkeep(deleted=len(old), freed=delete(old))
            for hour in _past_hours(version, now):
                done += _merge_hour(hour, between)
        if limits.max_bytes is not None:
            done += _fit(folder, limits.max_bytes)
        fold_ended(folder)
        return done


def _clean(version: Path, grace: float) -> Upkeep:
    """Remove what a merged file has replaced for long enough, and what nobody will finish."""
    for path in version.glob(".[0-9]*.parquet"):
        if _age(path) > ABANDONED_SECONDS:
            path.unlink(missing_ok=True)
    gone = _replaced_in(version, lambda file: _age(file.path) >= grace)
    return Upkeep(removed=len(gone), freed=_unlink(gone))


def _replaced_in(version: Path, of: Callable[[ServedSegment], bool] = lambda _: True) -> list[Path]:
    """The files of a service version that its merged ones, such as `of` says, have replaced."""
    files = listed(version)
    names = replaced(files, of)
    return [file.path for file in files if file.path.name in names]


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _past_hours(version: Path, now: int) -> list[list[ServedSegment]]:
    """The files of each hour that is over, where it has several, and none that was replaced is still there."""
    hours: dict[int, list[ServedSegment]] = {}
    for file in listed(version):
        if (file.hour + 1) * HOUR_US + SETTLED_US <= now:
            hours.setdefault(file.hour, []).append(file)
    return [
        files for files in hours.values()
        if len(files) > 1 and replaced(files).isdisjoint(file.path.name for file in files)
    ]  # fmt: skip


def _merge_hour(files: Sequence[ServedSegment], between: Between) -> Upkeep:
    """Merge the files of an hour that were written alike."""
    groups: dict[tuple[str, bytes], tuple[pa.Schema, list[ServedSegment]]] = {}
    for file in files:
        if not is_sound(file.path):  # it stays as it is, for the audit to name
            continue
        schema = pq.read_schema(file.path)
        metadata = {name: value for name, value in (schema.metadata or {}).items() if name != REPLACES}
        schema = schema.with_metadata(metadata)
        groups.setdefault((str(schema), b"".join(metadata.values())), (schema, []))[1].append(file)
        between()
    done = Upkeep()
    for schema, group in groups.values():
        if len(group) > 1:
            _merge(schema, group, between)
            done += Upkeep(merged=len(group), into=1)
    return done


def _merge(schema: pa.Schema, files: Sequence[ServedSegment], between: Between) -> None:
    """Write one file of the rows of several, by time."""
    names = json.dumps([file.path.name for file in files]).encode()
    schema = schema.with_metadata({**(schema.metadata or {}), REPLACES: names})
    first, last = min(file.first for file in files), max(file.last for file in files)
    path = files[0].path.with_name(merged_name(first, last, secrets.token_hex(4)))
    with appearing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _by_time(files, between):
            writer.write_table(rows.replace_schema_metadata(schema.metadata), row_group_size=2 * ROW_GROUP_ROWS)


def _by_time(files: Sequence[ServedSegment], between: Between) -> Iterator[pa.Table]:
    """The rows of several files by time, many at once; no more than those that overlap in time are in memory."""
    groups = sorted((group for file in files for group in _row_groups(file)), key=lambda group: group[:3])
    held: pa.Table | None = None
    ready: list[pa.Table] = []
    for number, (_, path, place) in enumerate(groups):
        with pq.ParquetFile(path) as file:
            rows = file.read_row_group(place, use_threads=False)
        held = rows if held is None else pa.concat_tables([held, rows])
        if number + 1 < len(groups):
            boundary = pa.scalar(groups[number + 1][0], pa.int64()).cast(held.schema.field(TIME).type)
            settled = pc.less(held[TIME], boundary)
            ready.append(held.filter(settled).sort_by(TIME))
            held = held.filter(pc.invert(settled))
        else:
            ready.append(held.sort_by(TIME))
        if number + 1 == len(groups) or sum(part.num_rows for part in ready) >= ROW_GROUP_ROWS:
            yield pa.concat_tables(ready).combine_chunks()
            ready = []
        between()


def _row_groups(file: ServedSegment) -> Iterator[tuple[int, Path, int]]:
    """The first time (µs) of each row group of a file, and where it is."""
    metadata = pq.read_metadata(file.path)
    column = metadata.schema.names.index(TIME)
    for place in range(metadata.num_row_groups):
        least = metadata.row_group(place).column(column).statistics.min
        yield least if isinstance(least, int) else instant_of(least), file.path, place


def delete(files: Sequence[ServedSegment]) -> int:
    """Delete files for good, with those that they replace before them, which would count again; the bytes freed."""
    freed = 0
    for file in files:
        names = sorted(replaced_by(file)) if file.merged else ()
        freed += _unlink([*(file.path.with_name(name) for name in names), file.path])
    return freed


def _unlink(paths: Iterable[Path]) -> int:
    freed = 0
    for path in paths:
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


def _fit(folder: Path, most: int) -> Upkeep:
    """Delete what was replaced, and then the oldest files, until all take at most so many bytes."""
    files = [file for version in folder.glob("*/*/") for file in listed(version)]
    sizes = {file.path: file.path.stat().st_size for file in files}
    over = sum(sizes.values()) - most
    if over <= 0:
        return Upkeep()
    gone = {path for version in folder.glob("*/*/") for path in _replaced_in(version)}
    freed = _unlink(gone)
    done = Upkeep(removed=len(gone), freed=freed)
    over -= freed
    for file in sorted((file for file in files if file.path not in gone), key=lambda file: file.last):
        if over <= 0:
            break
        freed = delete([file])
        over -= freed
        done += Upkeep(deleted=1, freed=freed)
    return done

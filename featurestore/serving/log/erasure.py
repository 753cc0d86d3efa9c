"""Lookups of a forgotten key leave the serving log: each file that has such rows is written anew without them.

The new file says which it replaces, as a merged one does (see `serving.log.upkeep`), and the old one is deleted at once; so a process that
is killed in between leaves no row twice, and who lists the files in between counts each row once. Nobody merges meanwhile.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurestore.errors import LogBusyError
from featurestore.lazy import pa, pc, pq
from featurestore.serving.log.process_counts import living
from featurestore.serving.log.segments import (
    MERGED,
    REPLACES,
    ServedSegment,
    appearing,
    is_sound,
    listed,
    live,
    merged_name,
    replaced_by,
)
from featurestore.serving.log.upkeep import alone

LOOK_SECONDS = 0.05

Wanted = Sequence[Mapping[str, Any]]
"""Arrow scalars of columns, by name: a row is meant that has all of those of one of them."""


def count_served(folder: Path, wanted: Callable[[str, str], Wanted]) -> int:
    """How many rows `erase_served` would take."""
    return sum(
        _found(file.path, columns).true_count
        for version, columns in _versions(folder, wanted)
        for file in live(version)
    )


def erase_served(folder: Path, wanted: Callable[[str, str], Wanted], *, wait_seconds: float) -> int:
    """Take rows out of a serving log; how many there were. wanted: by service and fingerprint. wait_seconds: for which whoever
    merges is waited for; LogBusyError. Damaged files are left as they are. Raises OSError."""
    if not folder.is_dir():
        return 0
    erased = 0
    with _alone(folder, wait_seconds):
        for version, columns in _versions(folder, wanted):
            for file in live(version):
                found = _found(file.path, columns)
                if found.true_count:
                    erased += found.true_count
                    _rewrite(file, found)
            counting = {file.path for file in live(version)}
            for file in listed(version):
                if file.path not in counting:  # what stands for it has its rows
                    file.path.unlink(missing_ok=True)
            writers = [*living(folder)]
            for left in version.glob(".[0-9]*.parquet"):  # of one that is dead, or of a merge: nobody else merges now
                if f"-{MERGED}-" in left.name or not any(f"-{name}-" in left.name for name in writers):
                    left.unlink(missing_ok=True)
    return erased


@contextmanager
def _alone(folder: Path, wait_seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_seconds
    while True:
        with alone(folder) as is_alone:
            if is_alone:
                yield
                return
        if time.monotonic() > deadline:
            raise LogBusyError(
                f"The serving log in {folder} has been looked after for more than {wait_seconds:g} s; try again"
            )
        time.sleep(LOOK_SECONDS)


def _versions(folder: Path, wanted: Callable[[str, str], Wanted]) -> Iterator[tuple[Path, Wanted]]:
    """The folders of the service versions that may have such rows."""
    for version in sorted(path for path in folder.glob("*/*/") if path.is_dir()):
        if columns := wanted(version.parent.name, version.name):
            yield version, columns


def _found(path: Path, wanted: Wanted) -> pa.BooleanArray:
    """Of each row of a file whether it is meant; none of one that is gone, or damaged."""
    none = pa.array([], pa.bool_())
    try:
        if not is_sound(path):
            return none
        names = list(dict.fromkeys(name for values in wanted for name in values))
        there = pq.read_schema(path).names
        rows = pq.read_table(path, columns=[name for name in names if name in there], partitioning=None)
    except FileNotFoundError:
        return none
    found = pa.array([False] * rows.num_rows, pa.bool_())
    for values in wanted:
        if all(name in rows.column_names for name in values):
            same = pa.array([True] * rows.num_rows, pa.bool_())
            for name, value in values.items():
                same = pc.and_(
                    same, pc.fill_null(pc.equal(rows[name], value.cast(rows[name].type)), False).combine_chunks()
                )
            found = pc.or_(found, same)
    return found


def _rewrite(file: ServedSegment, found: pa.BooleanArray) -> None:
    """Write a file anew without some of its rows, and delete it, and before it those that it replaced, which would count again."""
    kept, older = pq.read_table(file.path, partitioning=None).filter(pc.invert(found)), sorted(replaced_by(file))
    if kept.num_rows:
        names = json.dumps([file.path.name, *older]).encode()
        kept = kept.replace_schema_metadata({**(kept.schema.metadata or {}), REPLACES: names})
        with appearing(file.path.with_name(merged_name(file.first, file.last, secrets.token_hex(4)))) as made:
            pq.write_table(kept, made, compression="zstd")
    for name in (*older, file.path.name):
        file.path.with_name(name).unlink(missing_ok=True)

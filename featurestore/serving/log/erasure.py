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
from typing import Any, NamedTuple

from featurestore.durable.lock import alone
from featurestore.durable.own_folder import own_folder
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
from featurestore.serving.log.shipping import SHIPPING, ShippedLog, Version, local_versions
from featurestore.serving.log.upkeep import UPKEEP

LOOK_SECONDS = 0.05

Wanted = Sequence[Mapping[str, Any]]
"""Arrow scalars of columns, by name: a row is meant that has all of those of one of them."""


def count_served(folder: Path, wanted: Callable[[str, str], Wanted], *, there: ShippedLog | None = None) -> int:
    """How many rows `erase_served` would take."""
    return sum(
        _found(file.path, columns).true_count
        for version, columns, names in _versions(folder, wanted, there)
        for file in _VersionLog(folder.joinpath(*version), version, names, there).live()
    )


def erase_served(
    folder: Path, wanted: Callable[[str, str], Wanted], *, wait_seconds: float, there: ShippedLog | None = None
) -> int:
    """Take rows out of a serving log; how many there were. wanted: by service and fingerprint. wait_seconds: for which a process that
    merges or ships is waited for; LogBusyError. there: its files in an object store. Damaged files are left as they are. Raises OSError."""
    if not folder.is_dir():
        if there is None:
            return 0
        own_folder(folder)
    erased = 0
    with _alone(folder, UPKEEP, wait_seconds), _alone(folder, SHIPPING, wait_seconds):
        for version, columns, names in _versions(folder, wanted, there):
            log = _VersionLog(folder.joinpath(*version), version, names, there)
            for file in log.live():
                found = _found(file.path, columns)
                if found.true_count:
                    erased += found.true_count
                    log.rewrite(file, found)
            log.remove_replaced()
            writers = [*living(folder)]
            for left in log.here.glob(".[0-9]*.parquet"):  # of one that is dead, or of a merge: nobody else merges now
                if f"-{MERGED}-" in left.name or not any(f"-{name}-" in left.name for name in writers):
                    left.unlink(missing_ok=True)
    return erased


@contextmanager
def _alone(folder: Path, lock: str, wait_seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_seconds
    while True:
        with alone(folder / lock) as is_alone:
            if is_alone:
                yield
                return
        if time.monotonic() > deadline:
            raise LogBusyError(
                f"The serving log in {folder} has been looked after for more than {wait_seconds:g} s; try again"
            )
        time.sleep(LOOK_SECONDS)


def _versions(
    folder: Path, wanted: Callable[[str, str], Wanted], there: ShippedLog | None
) -> Iterator[tuple[Version, Wanted, dict[str, int]]]:
    """The service versions that may have such rows, and their files in the store."""
    known = {} if there is None else there.listing()
    for version in sorted(local_versions(folder) | known.keys()):
        if columns := wanted(*version):
            yield version, columns, known.get(version, {})


class _VersionLog(NamedTuple):
    """The files of one service version, here and in the store. names: those there, with their bytes, as they become fewer and others."""

    here: Path
    version: Version
    names: dict[str, int]
    there: ShippedLog | None

    def live(self) -> list[ServedSegment]:
        """Those that count; of those in the store alone, copies."""
        return (
            live(self.here)
            if self.there is None
            else self.there.live(self.here.parent.parent, self.version, self.names)
        )

    def rewrite(self, file: ServedSegment, found: pa.BooleanArray) -> None:
        """Write a file anew without some of its rows, and delete it, and before it those that it replaced, which would count again.

        Of a shipped one there is a new file without any row too: another machine may have the old one, which is to be replaced there.
        """
        kept, older = pq.read_table(file.path, partitioning=None).filter(pc.invert(found)), sorted(replaced_by(file))
        if kept.num_rows or self.there is not None:
            names = json.dumps([file.path.name, *older]).encode()
            kept = kept.replace_schema_metadata({**(kept.schema.metadata or {}), REPLACES: names})
            mark = secrets.token_hex(4)
            with appearing(self.here / merged_name(file.first, file.last, mark)) as made:
                pq.write_table(kept, made, compression="zstd")
            if self.there is not None and file.path.name in self.names:
                (new,) = self.here.glob(f"*-{mark}.*.parquet")
                self.there.put(new)
                self.names[new.name] = new.stat().st_size
        for name in (*older, file.path.name):
            self._remove(name)

    def remove_replaced(self) -> None:
        """Remove the files that do not count: what stands for them has their rows."""
        counting = {file.path.name for file in self.live()}
        for name in {file.path.name for file in listed(self.here)} | self.names.keys():
            if name not in counting:
                self._remove(name)

    def _remove(self, name: str) -> None:
        (self.here / name).unlink(missing_ok=True)
        if self.there is not None:
            self.there.forget(self.version, name)
            if name in self.names:
                self.there.remove(self.here / name)
                del self.names[name]


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

"""Sorted copies: the rows of a source's files once more, by bucket of their key and then by time, so that few keys are read alone.

    folder/<source>/<what>/<part>/   a part: the rows of some files, a Parquet file for each bucket; see `durable.part_folder`

`what` names the key, the columns with their types, and the engine, whose hash says which bucket a key is in. A part names the
files that its rows are of, and is used where these are as they were, to the size, the time of modification and the copy that
stands for them; the rows of all other files are read where they lie. So nothing of it has to be right for a value to be: what
is missing, damaged or of other files is not read.

Parts grow as files come: each run copies the files that are new, together with the parts that are not much larger.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featurestore.declare.sources import FileSource, Source, is_url
from featurestore.durable.lock import attempt
from featurestore.durable.parquet import storable, storable_schema
from featurestore.durable.part_folder import PART, KeptPart, PartFolder
from featurestore.errors import SourceError
from featurestore.lazy import duckdb, pa, pq
from featurestore.semantics.columns import RawColumns, read_sql
from featurestore.semantics.engine import hash_terms, stream
from featurestore.semantics.rows import keys_stay
from featurestore.semantics.sql import file_list, quote
from featurestore.semantics.view import ResolvedView
from featurestore.sources.source_files import SourceFile

FORMAT = 1
"""Of a part's words and files; of another version nothing is read, and all is made anew."""

BUCKET_ROWS = 10_000
"""Rows of a bucket, about, as long as there are few enough buckets; for few keys that is what is read for each. Measured with 2 × 5 M and 2.5 M rows and
100 keys of each: 1.16 s on the processors with 100,000 rows a bucket, 0.53 with 10,000, 1.13 without copies."""

MAX_BUCKETS = 4096
"""Of a part; each is a file."""

LOCK = ".lock"

DAMAGED = "damaged"
"""Beside the files of a part: one of them was found to be not what was written."""

REMOVED_TIMES = 3
"""How often copies are removed whose files vanish meanwhile."""

GROUP_ROWS = 10_240
"""Rows of a row group, of which the engine reads those whose keys can be meant."""

READ_ROWS = 100_000
"""Rows that are written at once."""

GREATEST_SHARE = 0.5
"""The part of the rows from which on all are read as they lie."""

JOINED_BELOW = 2
"""A part is copied together with new files where it has fewer than so many times their rows: then there are as many parts as
the rows double, and each row is copied so often."""

KEPT_SECONDS = 86_400
"""For how long a part is kept after its last use whose files another one has too: a query that began before may still read it."""

UNUSED_SECONDS = 7 * 86_400
"""For how long a part of files that are as they were is kept after its last use. A process that copies cannot know who else reads such parts: another
environment may have the source at another place, by another key, or with other columns."""


class SortedKey(NamedTuple):
    """The key by which rows lie together."""

    columns: tuple[str, ...]
    sql: tuple[str, ...]
    """Each as views over the source read it."""

    @classmethod
    def of(cls, view: ResolvedView) -> SortedKey:
        """That of a view."""
        zone = view.source.timezone or "UTC"
        read = [read_sql(quote(key.column), view.raw[key.column], key.type, zone) for key in view.keys]
        typed = [f"CAST({sql} AS {key.type.duckdb})" for sql, key in zip(read, view.keys, strict=True)]
        return cls(tuple(key.column for key in view.keys), tuple(typed))

    @staticmethod
    def asked(view: ResolvedView) -> list[str]:
        """The same key in a table of requests `(k…)`."""
        return [f"CAST(k{place} AS {key.type.duckdb})" for place, key in enumerate(view.keys)]


@dataclass(frozen=True, eq=False)
class SortedPart:
    """The rows of some files, sorted."""

    part: KeptPart
    files: tuple[tuple[Any, ...], ...]
    """See `identity`."""

    rows: int
    buckets: int
    held: dict[int, int]
    """By bucket how many rows it has; those without any have no file."""

    @property
    def bytes(self) -> int:
        """On the disk."""
        return sum(path.stat().st_size for path in self.part.paths if path.exists())

    def use(self) -> None:
        """Note that somebody uses it, where that may be written."""
        with suppress(OSError):
            os.utime(self.part.folder / PART)

    def last_used(self) -> float:
        """When somebody did (s since the epoch), as the clock of the one that used it said. Raises OSError."""
        return (self.part.folder / PART).stat().st_mtime

    def paths(self, buckets: Iterable[int]) -> list[str] | None:
        """The files of some buckets; None where one of them is not what was written."""
        number = {bucket: place for place, bucket in enumerate(self.held)}
        wanted = [number[bucket] for bucket in buckets if bucket in number]
        if all(map(self.part.is_sound_file, wanted)):
            return [str(self.part.paths[place]) for place in wanted]
        with suppress(OSError):  # one who may not write finds it out again
            (self.part.folder / DAMAGED).touch()
        return None


def identity(file: SourceFile) -> tuple[Any, ...]:
    """What changes when the rows of a file do, what the names of its folders say included."""
    return (file.path, file.size, file.modified, file.name, Path(file.copy).name)


def can_be_sorted(source: Any) -> bool:
    """Whether rows of a source can be read from a copy: those that count from their file's arrival are known by the file."""
    return isinstance(source, FileSource) and not source.arrives


def may_leave_out(view: ResolvedView) -> bool:
    """Whether rows of other keys can be left out for a view. They cannot where one of another key may replace a row: unless the
    key is a part of the identity. Nor where its key is no column of the source's own."""
    source = view.source
    if not can_be_sorted(source) or not view.keys:
        return False
    return not {key.column for key in view.keys} & {*source.derived} and keys_stay_of(view)


def keys_stay_of(view: ResolvedView) -> bool:
    """Whether no row of another key replaces one of a view's."""
    return keys_stay(view.source, {key.column for key in view.keys})


class ChosenRows(NamedTuple):
    """What is read in place of a source's files: parts of copies, and the files of which there is none."""

    paths: tuple[str, ...]
    rest: tuple[SourceFile, ...]


class SortedCopies:
    """The copies of one source by one key, below the folder of all. columns: the source's own, with their DuckDB types."""

    def __init__(self, folder: Path, source: FileSource, key: SortedKey, columns: RawColumns) -> None:
        what = [FORMAT, duckdb.__version__, key, [*columns.items()], source.event_time, source.timezone]
        self._kept = PartFolder(folder_of(folder, source.name) / _digest(what))
        self.key, self.source, self._columns = key, source, columns

    @property
    def lock(self) -> Path:
        """Held by the one that writes."""
        return self._kept.path / LOCK

    def parts(self, files: Sequence[SourceFile]) -> list[SortedPart]:
        """The parts of files that are all among these as they were, each file in one of them, the largest first."""
        there = {identity(file) for file in files}
        chosen: list[SortedPart] = []
        taken: set[tuple[Any, ...]] = set()
        sound = [part for part in self._kept.parts() if not (part.folder / DAMAGED).exists()]
        for part in sorted(map(_sorted_part, sound), key=lambda part: -part.rows):
            if taken.isdisjoint(part.files) and there.issuperset(part.files):
                chosen.append(part)
                taken.update(part.files)
        return chosen

    def bucket_sql(self, keys: Sequence[str], buckets: int) -> str:
        """The bucket of a key whose columns these expressions give."""
        return f"CAST(hash({', '.join(keys)}) % {buckets} AS INTEGER)"

    def chosen(
        self, connection: duckdb.DuckDBPyConnection, files: Sequence[SourceFile], keys: Sequence[str], requests: str
    ) -> ChosenRows | None:
        """What is to be read of files for the keys in a table of requests; None where all rows are as good. keys: see `asked`."""
        parts = self.parts(files)
        asked: dict[int, list[int]] = {}
        for buckets in {part.buckets for part in parts}:
            found = connection.execute(f"SELECT DISTINCT {self.bucket_sql(keys, buckets)} FROM {requests}").fetchall()
            asked[buckets] = sorted(bucket for (bucket,) in found)
        meant = sum(part.held.get(bucket, 0) for part in parts for bucket in asked[part.buckets])
        if not parts or meant > GREATEST_SHARE * sum(part.rows for part in parts):
            return None
        for part in parts:
            part.use()
        read = {part: part.paths(asked[part.buckets]) for part in parts}
        sound = {of for part, paths in read.items() if paths is not None for of in part.files}
        rest = tuple(file for file in files if identity(file) not in sound)
        paths = [path for of in read.values() for path in of or ()]
        if not paths and not rest:  # nobody has these keys, and of something no row is to be read
            paths = next((of for part in parts if part.held and (of := part.paths([next(iter(part.held))]))), [])
        return ChosenRows(tuple(paths), rest) if paths or (rest and sound) else None

    def tidy(self, files: Sequence[SourceFile]) -> None:
        """Remove the parts that nobody can use: see `_tidy`. Those of these files are in use."""
        _tidy(self._kept, self.source, files, self.parts(files))

    def add(
        self, connection: duckdb.DuckDBPyConnection, files: Sequence[SourceFile], relation: str, *, rows: int,
        check: Callable[[], None],
    ) -> SortedPart:  # fmt: skip
        """Copy the rows of these files, which a relation reads. check: raises where these are not as they were any more. Raises OSError,
        duckdb.Error, and SourceError where the copy would say something else than the files."""
        buckets = min(MAX_BUCKETS, 1 << max(0, (rows // BUCKET_ROWS).bit_length()))
        identities = sorted(identity(file) for file in files)

        def write(folder: Path) -> tuple[list[str], dict[str, Any]]:
            held = self._write(connection, folder, relation, buckets)
            self._check(connection, relation, [folder / f"{bucket}.parquet" for bucket in held])
            check()
            words = {"files": identities, "rows": sum(held.values()), "buckets": buckets, "held": [*held.items()]}
            return [f"{bucket}.parquet" for bucket in held], words

        return _sorted_part(self._kept.add(["sorted", *identities], write))

    def _write(self, connection: Any, folder: Path, relation: str, buckets: int) -> dict[int, int]:
        """A file for each bucket that has rows, and how many it has."""
        columns, bucket = ", ".join(map(quote, self._columns)), self.bucket_sql(self.key.sql, buckets)
        at = self.source.event_time
        times = (
            [quote(at)] if at is not None and at in self._columns else []
        )  # none, or a derived column, which the files have not
        order = ", ".join(["__bucket", *self.key.sql, *times])
        sql = f"SELECT {columns}, {bucket} AS __bucket FROM {relation} ORDER BY {order}"
        held: dict[int, int] = {}
        writer: pq.ParquetWriter | None = None
        try:
            for batch in stream(connection, sql, READ_ROWS):
                of = batch.column(batch.num_columns - 1).to_numpy()
                edges = [0, *(np.flatnonzero(np.diff(of)) + 1).tolist(), len(of)]
                rows = pa.Table.from_batches([batch]).select(range(batch.num_columns - 1))
                for begin, end in itertools.pairwise(edges):
                    if begin == end:
                        continue
                    now = int(of[begin])
                    if now not in held:
                        if writer is not None:
                            writer.close()
                        schema = storable_schema(rows.schema)
                        writer = pq.ParquetWriter(folder / f"{now}.parquet", schema, compression="zstd")
                    assert writer is not None, "there is a row"
                    held[now] = held.get(now, 0) + end - begin
                    writer.write_table(storable(rows.slice(begin, end - begin)), row_group_size=GROUP_ROWS)
        finally:
            if writer is not None:
                writer.close()
        return held

    def _check(self, connection: Any, relation: str, paths: Sequence[Path]) -> None:
        """SourceError where the copy has not the rows of the relation, as far as the engine's hash of whole rows tells."""
        if not paths:
            return
        names = ", ".join(map(quote, self._columns))
        copy = f"read_parquet({file_list(map(str, paths))}, hive_partitioning = false)"
        types = {name: of for name, of, *_ in connection.execute(f"DESCRIBE SELECT {names} FROM {copy}").fetchall()}
        odd = next((name for name in self._columns if types.get(name) != self._columns[name]), None)
        if odd is not None:
            raise SourceError(
                f"{self.source.title} can have no sorted copy: its column '{odd}' is {self._columns[odd]}, and Parquet would keep it "
                f"as {types.get(odd)} ({self.source.origin})"
            )
        told = (hash_terms(quote(name)) if "DECIMAL" in of else quote(name) for name, of in self._columns.items())
        values = ", ".join(told)
        sums = [
            connection.execute(f"SELECT count(*), sum(hash({values})::HUGEINT) FROM {of}").fetchall()[0]
            for of in (relation, copy)
        ]
        if sums[0] != sums[1]:
            raise SourceError(f"{self.source.title}: its sorted copy has not the same rows; it is not kept")


def remove_copies(folder: Path, source: str) -> int:
    """Remove the sorted copies of a source; how many bytes they had. Raises OSError where some of them stay."""
    place = folder_of(folder, source)
    size = sum(path.stat().st_size for path in place.rglob("*.parquet"))
    for _ in range(REMOVED_TIMES):
        try:
            shutil.rmtree(place)
        except FileNotFoundError:  # another process removes them too
            if not place.exists():
                break
        else:
            break
    return size


def tidy_other_states(folder: Path, source: Source, files: Sequence[SourceFile], kept: Iterable[SortedCopies]) -> None:
    """Remove parts that nobody can use, of copies of a source by other keys or with other columns than those that are kept. Who is
    adding to some is left alone."""
    used = {copies.lock.parent for copies in kept}
    place = folder_of(folder, source.name)
    for other in place.iterdir() if place.exists() else ():
        if other in used or not other.is_dir():
            continue
        with attempt(other / LOCK, doing=f"tidying the sorted copies of {source.title}") as alone:
            if alone:
                _tidy(PartFolder(other), source, files, ())


def _tidy(kept: PartFolder, source: Source, files: Sequence[SourceFile], used: Sequence[SortedPart]) -> None:
    """Remove parts that are damaged, of files that are not as they were, or that nobody has used for long enough; and what a killed
    process left. files: of the source, as they are here; another environment may have others."""
    kept.clear()
    for part in used:
        part.use()
    names, taken = {part.part.name for part in used}, {of for part in used for of in part.files}
    there, now = {identity(file) for file in files}, time.time()
    for part in map(_sorted_part, kept.parts()):
        if part.part.name in names:
            continue
        long = KEPT_SECONDS if taken.issuperset(part.files) else UNUSED_SECONDS
        with suppress(OSError):  # another process has removed it
            outlived = part.last_used() < now - long
            damaged = (part.part.folder / DAMAGED).exists()
            if damaged or outlived or any(_has_changed(source, of, there) for of in part.files):
                kept.remove(part.part.name)


def _has_changed(source: Source, of: tuple[Any, ...], there: Collection[tuple[Any, ...]]) -> bool:
    """Whether a file that a part names is not as it was: by what a source's files are here, or by what lies at its path. Of one in an
    object store that no source has here nothing is known."""
    path, size, modified, *_ = of
    if of in there:
        return False
    if any(path == other[0] for other in there):
        return True
    if is_url(path):
        return False
    try:
        now = Path(path).stat()
    except OSError:
        return True
    immutable = isinstance(source, FileSource) and source.IMMUTABLE
    return (now.st_size, now.st_mtime_ns) != (size, now.st_mtime_ns if immutable else modified)


def has_copies(folder: Path, source: str) -> bool:
    """Whether there may be sorted copies of a source, which this user may read."""
    return os.access(folder_of(folder, source), os.R_OK | os.X_OK)


def folder_of(folder: Path, source: str) -> Path:
    """Where the sorted copies of a source lie, below the folder of all copies."""
    return folder / "sorted" / _digest(source)


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, default=list).encode(), digest_size=12).hexdigest()


def _sorted_part(part: KeptPart) -> SortedPart:
    words = part.words
    files = tuple(tuple(file) for file in words["files"])
    return SortedPart(part, files, words["rows"], words["buckets"], dict(words["held"]))

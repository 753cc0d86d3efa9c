"""What tables of versions have in common: the files of a state, and when their rows came.

Which rows a file has is told by the table; when a row came is told by the commit that added it, and not by one that wrote it anew.
A compaction says of itself that it changed no row, so what it replaced is read on in its place, with the times that it had. So is what
a commit replaced that says which rows it deleted and added: without those, and with these beside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import numpy as np

from featurestore.durable.parquet import filterable, filterable_schema
from featurestore.lazy import duckdb, pa, pc
from featurestore.semantics.engine import connect, hash_terms
from featurestore.sources.copies import Batches
from featurestore.sources.source_files import SourceFile


class TableFile(NamedTuple):
    """A data file of a table, and how its rows are read."""

    file: SourceFile
    state: Any
    """All that its rows hang on beside the table, as plain JSON."""
    rows: Callable[[], Batches]
    """Reads them; of one that was made by `without`, those of before."""
    as_is: bool
    """Whether it can be read itself, since its rows are what the table says."""
    before: TableFile | None = None
    """The same file before rows of it were deleted, which its own state does not say."""
    deleted: tuple[TableFile, ...] = ()
    """Files of rows: each row of it that is equal to one of these is not among its rows."""
    num_rows: int | None = None
    """Rows that the file has, as its table says; None where it does not."""
    partition: str = ""
    """That of the table which it is in; empty where that is not told."""

    def without(self, deleted: Sequence[TableFile]) -> TableFile:
        """The file without rows that were deleted since; itself where there is none."""
        if not deleted:
            return self
        all_of_it = [self.state.get("without"), [one.state["path"] for one in deleted]]
        digest = blake2b(json.dumps(all_of_it).encode(), digest_size=12).hexdigest()
        state = {**self.state, "without": digest}
        return self._replace(state=state, as_is=False, before=self, deleted=tuple(deleted))


class Arrival(NamedTuple):
    """When the rows of a file came."""

    at: int
    """µs; where some of them came before, when the last did, as far as that is known."""
    unknown: str = ""
    """Why it is not known when each came: what wrote them anew, for messages, up to the name of the file; empty where it is known."""


class Commit(NamedTuple):
    """What one version changed of the files of a table, by path."""

    number: int
    at: int
    """µs."""
    title: str
    """It, for messages: "version 3 (OPTIMIZE)"."""
    adds: frozenset[str]
    removes: frozenset[str]
    changes: bool
    """Whether it changed any row: a compaction does not."""
    replaces: bool
    """Whether what it added is new, though it removed something: an overwritten table, or partition of one."""
    inserted: tuple[TableFile, ...] = ()
    """Files of the rows that it added, where it says which these are."""
    deleted: tuple[TableFile, ...] = ()
    """Files of the rows that it deleted, likewise."""
    partitions: Mapping[str, str] = {}
    """Of files that it added the partition of the table, where that is told."""

    @property
    def replaced(self) -> frozenset[str]:
        """The files that are not there any more."""
        return self.removes - self.adds

    @property
    def says_rows(self) -> bool:
        """Whether it is known which rows it changed of those in the files that it replaced: none, or those that it says."""
        return not self.changes or bool(self.inserted or self.deleted)


class TableCopies(Protocol):
    """What is kept here of the rows of tables, each of which an id names."""

    def has_copy(self, table: str, of: TableFile) -> bool:
        """Whether there is a copy of a file."""

    def are_same(
        self,
        table: str,
        replaced: Sequence[TableFile],
        written: Sequence[TableFile],
        exists: Callable[[TableFile], bool],
    ) -> bool:
        """Whether files have the rows, in each partition, of those that they took the place of. It is found out once, while all are
        there; False where one of them is not."""


class ReadInstead(NamedTuple):
    """Files that are read in place of some of a table."""

    pieces: tuple[TableFile, ...]
    """Them, by path."""
    outputs: tuple[TableFile, ...]
    """Those of the table that have the same rows, by path."""
    title: str
    """The last commit that wrote those, for messages."""
    says_rows: bool
    """Whether it was said which rows of them were changed; else that none was."""

    @property
    def state(self) -> Any:
        """All that the rows of both hang on beside the table, as plain JSON."""
        return {
            kind: [[one.state, one.file.size] for one in of]
            for kind, of in (("read", self.pieces), ("instead of", self.outputs))
        }


class TableState(NamedTuple):
    """The files of a table in one state."""

    table: str
    """The table's own id, which another of its name does not have."""
    number: int | None
    """The version or snapshot; None where there is none yet."""
    files: list[TableFile]
    came: Mapping[str, Arrival]
    """By path, of files whose rows are known from when they came."""
    schema: int | None = None
    """The id of the schema whose columns they have, where the number does not say that."""
    stand_ins: tuple[ReadInstead, ...] = ()
    """What of the files is read in place of others."""


def arrivals(commits: Sequence[Commit], paths: Iterable[str]) -> dict[str, Arrival]:
    """When the rows of these files came. commits: those that are known, the oldest first; what none of them added had come by
    then. None of them is taken to be earlier than one before it that changed rows, though its writer's clock may say so: a process that sees
    it sees the rows of those, too."""
    oldest = commits[0].at
    earlier = Arrival(
        oldest, f"{commits[0].title} is the oldest of its table that is known any more, and an earlier one wrote"
    )
    came: dict[str, Arrival] = {}
    latest = 0
    for commit in commits:
        at = max(commit.at, latest)
        latest = at if commit.changes else latest
        came |= {one.file.path: Arrival(at) for one in commit.inserted}
        for path in commit.adds - came.keys():
            if not commit.changes and commit.replaced:
                last = max(came[one].at if one in came else oldest for one in commit.replaced)
                came[path] = Arrival(last, f"{commit.title} of its table wrote rows anew, into")
            elif commit.replaced and not commit.replaces:
                came[path] = Arrival(at, f"{commit.title} of its table wrote rows anew, into")
            else:
                came[path] = Arrival(at)
    return {path: came.get(path, earlier) for path in paths}


@dataclass(frozen=True, eq=False)
class _RewrittenFiles:
    """Files of the table that have together the rows of others, in whichever way these are spread over them."""

    outputs: frozenset[str]
    pieces: dict[str, TableFile]
    """By path the others, which were in the table before."""
    title: str
    says_rows: bool
    """Whether it was said which rows of them were changed since; else that none was."""


class Originals:
    """What was in a table before its rows were written anew, commit by commit.

    before: the files that a commit replaced, as they were before it. copied: whether there is a copy of a file. exists: whether it is
    there itself.
    """

    def __init__(
        self, before: Callable[[Commit], Mapping[str, TableFile]], copied: Callable[[TableFile], bool],
        exists: Callable[[TableFile], bool],
    ) -> None:  # fmt: skip
        self._before, self._copied, self._exists = before, copied, exists
        self._groups: dict[str, _RewrittenFiles] = {}  # by path of each output
        self._gone: set[str] = set()  # the paths of pieces that cannot be read
        self._looked_at: dict[str, bool] = {}  # by path whether a file is there itself

    def read_instead(
        self, commits: Sequence[Commit], files: Mapping[str, TableFile]
    ) -> tuple[dict[str, TableFile], list[ReadInstead]]:
        """The files of a table after these commits, the oldest first; in place of those that a commit wrote of which it is known which rows
        it changed, what it replaced, as long as all of that is there and nothing else was deleted since; and what stands for what."""
        wanted = _wanted(commits, files)
        while True:
            self._groups, there = {}, set[str]()
            made: dict[frozenset[str], _RewrittenFiles] = {}
            for commit in commits:
                if (
                    commit.replaced
                    and commit.says_rows
                    and (commit.number in wanted or commit.replaced & self._groups.keys())
                ):
                    self._join(commit)
                else:
                    self._leave(commit.removes)
                    for group in made.values():  # a version was restored
                        if commit.adds & group.outputs and group.outputs <= (there - commit.removes) | commit.adds:
                            self._groups |= dict.fromkeys(group.outputs, group)
                there = (there - commit.removes) | commit.adds
                made |= {group.outputs: group for group in self._groups.values()}
            groups = [one for one in dict.fromkeys(self._groups.values()) if one.outputs <= files.keys()]
            groups = [group for group in groups if self._stands(group, files)]
            gone = {path for group in groups for path, piece in group.pieces.items() if not self._is_there(piece)}
            if not gone:
                break
            self._gone |= gone  # what was made of it then stands for itself, if it is there
        found, stand_ins = dict(files), []
        for group in groups:
            found = {path: file for path, file in found.items() if path not in group.outputs} | group.pieces
            pieces = tuple(group.pieces[path] for path in sorted(group.pieces))
            outputs = tuple(files[path] for path in sorted(group.outputs))
            stand_ins.append(ReadInstead(pieces, outputs, group.title, group.says_rows))
        return dict(sorted(found.items())), stand_ins

    def _join(self, commit: Commit) -> None:
        """Let what a commit wrote stand for what it replaced, in each partition by itself: no row that it kept left its own."""
        earlier, written = self._before(commit), commit.adds - commit.removes
        groups = {path: self._groups[path] for path in commit.replaced if path in self._groups}
        self._leave(commit.removes)
        if not commit.replaced <= earlier.keys():
            return
        changed = (*commit.inserted, *commit.deleted)
        folders = [commit.partitions.get(path, "") for path in written]
        for folder in dict.fromkeys([*folders, *(one.partition for one in (*earlier.values(), *changed))]):
            replaced = {path: earlier[path] for path in commit.replaced if earlier[path].partition == folder}
            outputs = {path for path in written if commit.partitions.get(path, "") == folder}
            pieces = dict[str, TableFile]()
            single, says_rows = set(replaced), bool(changed)
            for group in {groups[path] for path in replaced if path in groups}:
                if self._stands(group, replaced):
                    pieces |= group.pieces
                    says_rows |= group.says_rows
                    outputs |= group.outputs - commit.replaced
                    single -= group.outputs
            pieces |= {path: replaced[path] for path in single}
            deleted = [one for one in commit.deleted if one.partition == folder]
            pieces = {path: piece.without(deleted) for path, piece in pieces.items()}
            pieces |= {one.file.path: one for one in commit.inserted if one.partition == folder}
            group = _RewrittenFiles(frozenset(outputs), pieces, commit.title, says_rows)
            self._groups |= dict.fromkeys(group.outputs, group)

    def _leave(self, paths: Iterable[str]) -> None:
        """Files of the table, or rows of them, are deleted, and nobody says which of those these are that they stand for."""
        for group in {self._groups[path] for path in paths if path in self._groups}:
            for output in group.outputs:
                del self._groups[output]

    def _stands(self, group: _RewrittenFiles, files: Mapping[str, TableFile]) -> bool:
        """Whether its files are read in place of those of the table, of which these are at hand: nothing was deleted from these."""
        whole = not any(files[path].state.get("left") for path in group.outputs & files.keys())
        return whole and not group.pieces.keys() & self._gone

    def _is_there(self, file: TableFile) -> bool:
        """Whether the rows of a file can be read: from a copy, from one of before rows of it were deleted, or from itself."""
        while not self._copied(file):
            if file.before is None:
                return self._is_itself_there(file)
            if not all(map(self._is_itself_there, file.deleted)):
                return False
            file = file.before
        return True

    def _is_itself_there(self, file: TableFile) -> bool:
        path = file.state["path"]
        if path not in self._looked_at:
            self._looked_at[path] = self._exists(file)
        return self._looked_at[path]


def rows_without(rows: Batches, deleted: Sequence[Batches]) -> Batches:
    """Rows in their order, without those that are equal in all columns to one that was deleted; of a column that one of both lacks, the
    other is null."""
    schema, batches = rows
    schema = filterable_schema(schema)
    gone = pa.concat_tables(
        [pa.Table.from_batches(of, columns) for columns, of in deleted], promote_options="permissive"
    )
    names = gone.column_names
    gone = gone.rename_columns([f"c{place}" for place in range(len(names))])
    equal = " AND ".join(
        f"{f'b.c{place}' if name in schema.names else 'NULL'} IS NOT DISTINCT FROM g.c{place}"
        for place, name in enumerate(names)
    )

    def left() -> Iterator[pa.RecordBatch]:
        with connect(":memory:", config={"threads": 1}) as connection:
            connection.register("gone", gone)
            for batch in map(filterable, batches):
                there = {f"c{place}": batch[name] for place, name in enumerate(names) if name in schema.names}
                connection.register("batch", pa.table({**there, "number": np.arange(batch.num_rows)}))
                found = connection.execute(f"SELECT number FROM batch b SEMI JOIN gone g ON {equal}").fetchnumpy()
                kept = np.ones(batch.num_rows, bool)
                kept[found["number"]] = False
                yield batch.filter(pa.array(kept))

    return schema, left()


def without_unchanging(
    commits: Sequence[Commit], files: Iterable[str], is_unchanged: Callable[[Commit], bool]
) -> list[Commit]:
    """Commits, the oldest first; of those that wrote anew what these files have, and do not say which rows they changed, each that
    changed none says that."""
    needed, unchanging = set(files), set[int]()
    for commit in reversed(commits):
        if commit.replaced and commit.adds & needed:
            is_silent = not (commit.says_rows or commit.replaces or commit.adds & commit.removes)
            if is_silent and is_unchanged(commit):
                unchanging.add(commit.number)
            if commit.says_rows or commit.number in unchanging:
                needed |= commit.adds | commit.removes
    return [commit._replace(changes=False) if commit.number in unchanging else commit for commit in commits]


def same_rows(replaced: Sequence[TableFile], written: Sequence[TableFile]) -> bool:
    """Whether files have the rows of others in each partition. Raises what reading them raises."""
    counts = [[None if one.state.get("left") else one.num_rows for one in of] for of in (replaced, written)]
    if None not in counts[0] + counts[1] and len({sum(one or 0 for one in of) for of in counts}) == 2:
        return False
    types, digests = dict[str, pa.DataType](), list[dict[str, RowsDigest]]()
    try:
        for of in (written, replaced):
            digests.append({})
            for one in of:
                digests[-1].setdefault(one.partition, RowsDigest(types)).add(one.rows())
    except (pa.ArrowException, duckdb.Error):  # a column of one type and of another, neither of which holds the other
        return False
    said = [{folder: (one.count, one.sum) for folder, one in of.items() if one.count} for of in digests]
    return said[0] == said[1]


class RowsDigest:
    """Rows as a multiset: in whichever order and however spread over files, those of two are the same where counts and sums are equal.

    Rows are equal where all columns are, floats by their bits; a column that a file lacks is null. The sum is of a hash of 64 bits of
    each row, whose width does not grow with the rows.
    """

    def __init__(self, types: dict[str, pa.DataType]) -> None:
        """types: those that columns are compared as; a column that is not there yet is added with the type of the first file that has
        it, so what a table says comes before what is read in its place."""
        self.count, self.sum = 0, 0
        self._types = types

    def add(self, rows: Batches) -> None:
        """Raises what Arrow and DuckDB raise where a column cannot be compared as another type."""
        schema, batches = rows
        for field in filterable_schema(schema):
            self._types.setdefault(field.name, field.type)
        names = schema.names
        hashes = [_column_hash(f"c{place}", self._types[name]) for place, name in enumerate(names)]
        sql = f"SELECT sum(hash({' + '.join(['0::HUGEINT', *hashes])})) FROM batch"
        with connect(":memory:", config={"threads": 1}) as connection:
            for batch in map(filterable, batches):
                columns = {f"c{place}": _as_bits(batch[name], self._types[name]) for place, name in enumerate(names)}
                # A column of its own: a table without any has no rows.
                connection.register("batch", pa.table({**columns, "row": np.zeros(batch.num_rows, np.int8)}))
                ((found,),) = connection.execute(sql, names).fetchall()
                self.count += batch.num_rows
                self.sum += found or 0  # none where there are no rows


def _column_hash(column: str, of: pa.DataType) -> str:
    """SQL: a hash of a column's name, which is a parameter, and its value; 0 of null, so that it is the same where there is no such column."""
    values = hash_terms(column) if pa.types.is_nested(of) or pa.types.is_decimal(of) else column
    return f"CASE WHEN {column} IS NULL THEN 0::HUGEINT ELSE hash(?::VARCHAR, {values})::HUGEINT END"


def _as_bits(values: pa.Array, of: pa.DataType) -> pa.Array:
    """Values as a type; floats as the whole numbers that their bits are."""
    if values.type != of:  # Spark writes instants as ns, of which it has whole µs
        values = pc.cast(values, options=pc.CastOptions(of, allow_time_truncate=True))
    return values.cast(pa.float64()).view(pa.int64()) if pa.types.is_floating(of) else values


def _wanted(commits: Sequence[Commit], files: Iterable[str]) -> set[int]:
    """The commits that say which rows they changed and wrote what is in these files, or in what others of them replaced."""
    needed, numbers = set(files), set()
    for commit in reversed(commits):
        if commit.replaced and commit.says_rows and commit.adds & needed:
            needed |= commit.adds | commit.removes
            numbers.add(commit.number)
    return numbers

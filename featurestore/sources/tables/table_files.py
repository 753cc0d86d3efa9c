"""What tables of versions have in common: the files of a state, and when their rows came.

Which rows a file has is told by the table; when a row came is told by the commit that added it, and not by one that wrote it anew.
A compaction says of itself that it changed no row, so what it replaced is read on in its place, with the times that it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from featurestore.sources.copies import Batches
from featurestore.sources.source_files import SourceFile


class TableFile(NamedTuple):
    """A data file of a table, and how its rows are read."""

    file: SourceFile
    state: Any
    """All that its rows hang on beside the table, as plain JSON."""
    rows: Callable[[], Batches]
    """Reads them."""
    as_is: bool
    """Whether it can be read itself, since its rows are what the table says."""


class Arrival(NamedTuple):
    """When the rows of a file came."""

    at: int
    """µs; where some of them came before, when the last did, as far as that is known."""
    anew: str = ""
    """What wrote them anew, which does not say when each came; empty where they came with it."""


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


def arrivals(commits: Sequence[Commit], paths: Iterable[str]) -> dict[str, Arrival]:
    """When the rows of these files came. commits: those that are known, the oldest first; what was there before them had come by
    then."""
    oldest = commits[0].at
    came: dict[str, Arrival] = {}
    for commit in commits:
        removed = commit.removes - commit.adds
        for path in commit.adds - came.keys():
            if not commit.changes and removed:
                last = max(came[one].at if one in came else oldest for one in removed)
                came[path] = Arrival(last, commit.title)
            elif removed and not commit.replaces:
                came[path] = Arrival(commit.at, commit.title)
            else:
                came[path] = Arrival(commit.at)
    return {path: came.get(path, Arrival(oldest)) for path in paths}


def originals(
    commits: Sequence[Commit], files: Mapping[str, TableFile], *, before: Callable[[Commit], Mapping[str, TableFile]],
    there: Callable[[TableFile], bool],
) -> dict[str, TableFile]:  # fmt: skip
    """Files of a table, in place of those that a compaction wrote what it replaced, as long as that is there and nothing was deleted
    since. before: the files that there were before a commit."""
    compacted = {path: one for one in commits if not one.changes and one.removes - one.adds for path in one.adds}
    known: dict[int, dict[str, TableFile] | None] = {}

    def replaced_by(commit: Commit) -> dict[str, TableFile] | None:
        """What a compaction replaced, and so on; None where something of it is gone."""
        if commit.number not in known:
            known[commit.number] = None
            earlier, removed = before(commit), commit.removes - commit.adds
            if removed <= earlier.keys():
                found = standing({path: earlier[path] for path in removed})
                gone = any(path in removed and not there(file) for path, file in found.items())
                known[commit.number] = None if gone else found
        return known[commit.number]

    def standing(found: dict[str, TableFile]) -> dict[str, TableFile]:
        for commit in {compacted[path] for path in found if path in compacted}:
            if all(path in found and not found[path].state.get("left") for path in commit.adds):
                instead = replaced_by(commit)
                if instead is not None:
                    found = {path: file for path, file in found.items() if path not in commit.adds} | instead
        return found

    return dict(sorted(standing(dict(files)).items()))

"""The journal of arrivals: when the store first saw each file of a source whose rows are known from then on.

It is an SQLite file of its own beside the registry, or lies in the same PostgreSQL. Several threads and processes may use it
at once. Reading creates nothing, and needs no right to write; where there is one, it heals what a dead writer left.

Files of other sources are journalled too, when rows of theirs are materialized: an audit asks which files there were when
something was served. What is not there any more stays in the journal, with when it was first missed.

A file is what its name within the source, its size and its time of modification say: where one of them differs, it is
another file. A run of materialize says up to when it counts what is there. Whatever is seen after that is journalled as
later, however slow the clock of the process that sees it, so that an instant once served keeps its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.clock import wall_clock
from featurestore.durable.database import Transaction, copy_rows, is_not_writable, opened, row_check
from featurestore.errors import RegistryError
from featurestore.semantics.time import BEGINNING

SCHEMA = 4
"""The version of the tables below; it is counted up when they change, and an older program then refuses the file."""

APPLICATION = 0x46534152
"""SQLite's mark of what a file is: "FSAR"."""

TABLES = (
    """CREATE TABLE IF NOT EXISTS arrivals (
        source TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL,  -- bytes, ns
        seen INTEGER NOT NULL,  -- µs since the epoch
        PRIMARY KEY (source, name, size, modified)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS gone (
        source TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL,  -- bytes, ns
        missed INTEGER NOT NULL,  -- µs since the epoch
        PRIMARY KEY (source, name, size, modified)
    ) WITHOUT ROWID""",
    # Up to when (µs) a run of materialize counted what was there.
    "CREATE TABLE IF NOT EXISTS counted (source TEXT PRIMARY KEY, upto INTEGER NOT NULL)",
    # The checksum of all rows of a source.
    "CREATE TABLE IF NOT EXISTS checks (source TEXT PRIMARY KEY, of_rows INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS owner (project TEXT NOT NULL)",  # one row: whose it is; none while nobody said
)


def beside(registry: Path | str) -> Path | str:
    """Where the journal is that goes with a registry."""
    return registry.with_suffix(".arrivals.db") if isinstance(registry, Path) else registry


class Sighting(NamedTuple):
    """A file as a source names it: its path below the place that is declared, its size in bytes, its mtime in ns."""

    name: str
    size: int
    modified: int


class Stay(NamedTuple):
    """A file as it was from when it was first seen until it was first missed (µs), None where it still lies there."""

    file: Sighting
    seen: int
    missed: int | None


Came = Callable[[Sequence[Sighting], Mapping[Sighting, int]], Mapping[Sighting, int]]
"""What says of files when they came (µs), as far as it knows; told them, and which files are journalled. What a run counted without
them counts them later, whatever it says."""


class _Journal(NamedTuple):
    """What is journalled of a source: when each file was first seen, when first missed, and up to when all was counted."""

    seen: dict[Sighting, int]
    missed: dict[Sighting, int]
    counted: int


class Arrivals:
    """The journal at `place`, a file's path or a postgresql:// URL; `now` reads the store's clock in µs, `timeout` in s waits for a lock.

    project: whose it is; another's is refused.
    """

    def __init__(
        self, place: Path | str, *, project: str | None = None, now: Callable[[], int] = wall_clock, timeout: float = 30
    ) -> None:
        self.place = place
        self._project = project
        self._now = now
        self._database = opened(
            place, "journal of arrivals", application=APPLICATION, schema=SCHEMA, timeout=timeout, project=project
        )

    def see(
        self,
        source: str,
        look: Callable[[], Sequence[Sighting]],
        *,
        now: int | None = None,
        known_by: int | None = None,
        must: bool = True,
        came: Came | None = None,
    ) -> None:
        """Journal what `look` finds and was not seen before, as seen at `now` (µs, the clock's by default), or when it `came`.

        known_by: what is seen after this call is journalled as later than that. must: False for a reader, who may be
        unable to write; nothing is journalled then. Raises RegistryError.
        """
        known = self._read(source)
        if not any(_news(known, look())) and (known_by is None or known_by <= known.counted):
            return
        try:
            with self._write() as connection:
                known, found = self._known(connection, source), look()
                seen = self._now() if now is None else now
                at = max(seen, known.counted + 1)
                new, missed, back = _news(known, found)
                told = {} if came is None else came(new, known.seen)
                connection.executemany(
                    "INSERT INTO arrivals VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    [(source, *file, max(min(told.get(file, seen), seen), known.counted + 1)) for file in new],
                )
                connection.executemany(
                    "INSERT INTO gone VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (source, name, size, modified) DO UPDATE SET missed = excluded.missed",
                    [(source, *file, at) for file in missed],
                )
                connection.executemany(
                    "DELETE FROM gone WHERE (source, name, size, modified) = (?, ?, ?, ?)",
                    [(source, *file) for file in back],
                )
                if known_by is not None:
                    row = (source, max(known_by, known.counted))
                    connection.execute(
                        "INSERT INTO counted VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET upto = excluded.upto", row
                    )
                _take_check(connection, source)
        except RegistryError as error:
            if must or not is_not_writable(error):
                raise

    def seen(self, source: str, sightings: Sequence[Sighting]) -> list[int | None]:
        """When (µs) each was first seen, None where nobody has journalled it. Raises RegistryError."""
        known = self._read(source)
        return [known.seen.get(sighting) for sighting in sightings]

    def instants(self, source: str, sightings: Sequence[Sighting], *, came: Came | None = None) -> list[int]:
        """From when (µs) the rows of each are known: since it was first seen, else since it `came`, else from now on. Raises
        RegistryError."""
        known, now = self._read(source), self._now()
        told = {} if came is None else came([one for one in sightings if one not in known.seen], known.seen)
        at = [max(min(told.get(sighting, now), now), known.counted + 1) for sighting in sightings]
        return [known.seen.get(sighting, instant) for sighting, instant in zip(sightings, at, strict=True)]

    def stays(self, source: str) -> list[Stay]:
        """Every file of a source that was ever journalled, in order of name and arrival. Raises RegistryError."""
        known = self._read(source)
        stays = [Stay(file, seen, known.missed.get(file)) for file, seen in known.seen.items()]
        return sorted(stays, key=lambda stay: (stay.file.name, stay.seen))

    def take_over(self, source: Arrivals) -> None:
        """Put in all that another journal has, or see that it is here already. RegistryError where something else is."""
        with source._database.reading() as read:
            if read is None:
                return
            known = {name: source._known(read, name) for name in _sources(read)}
            with self._write() as write:
                there = {name: self._known(write, name) for name in _sources(write)}
                if there == known:
                    return
                if there:
                    raise RegistryError(f"The journal of arrivals {self._database.name} is not empty")
                for table in sorted({"arrivals", "gone", "counted"} & read.tables()):
                    copy_rows(read, write, table)
                for name in known:
                    _take_check(write, name)

    def close(self) -> None:
        """Let go of connections that are kept; it may be used afterwards."""
        self._database.close()

    # --- the file ---------------------------------------------------------------------------

    def _read(self, source: str) -> _Journal:
        with self._database.reading() as connection:
            if connection is None:
                return _Journal({}, {}, BEGINNING)
            return self._known(connection, source)

    def _known(self, connection: Transaction, source: str) -> _Journal:
        """What is journalled of a source. RegistryError where that is not what was written."""
        tables = connection.tables()
        seen, missed, counted = rows = _rows(connection, source, tables)
        if "checks" in tables:  # an earlier version had none
            kept = connection.execute("SELECT of_rows FROM checks WHERE source = ?", (source,)).fetchone()
            if any(rows) if kept is None else kept[0] != row_check(rows):
                raise RegistryError(
                    f"The journal of arrivals {self._database.name} is damaged: what it says of source '{source}' is not what was "
                    "written. Rows would count from other instants; restore it from a copy"
                )
        return _Journal(
            {Sighting(*row[:3]): int(row[3]) for row in seen}, {Sighting(*row[:3]): int(row[3]) for row in missed},
            int(counted[0][0]) if counted else BEGINNING,
        )  # fmt: skip

    @contextmanager
    def _write(self) -> Iterator[Transaction]:
        """One transaction that excludes every other writer from its beginning."""
        with self._database.writing() as (connection, is_set_up):
            if not is_set_up or connection.schema() < SCHEMA:
                for sql in TABLES:
                    connection.execute(sql)
                for source in _sources(connection):
                    _take_check(connection, source)
                self._database.mark(connection)
            if self._project is not None:
                sql = "INSERT INTO owner SELECT ? WHERE NOT EXISTS (SELECT 1 FROM owner)"
                connection.execute(sql, (self._project,))
            yield connection


def _sources(connection: Transaction) -> list[str]:
    """The names of the sources of which something is journalled."""
    found = connection.execute("SELECT source FROM arrivals UNION SELECT source FROM counted ORDER BY 1")
    return [name for (name,) in found.fetchall()]


def _rows(connection: Transaction, source: str, tables: set[str]) -> tuple[list[Any], list[Any], list[Any]]:
    """All that is journalled of a source: when files were seen, when missed, and up to when all was counted."""

    def told(sql: str) -> list[Any]:
        return connection.execute(sql, (source,)).fetchall()

    seen = told("SELECT name, size, modified, seen FROM arrivals WHERE source = ? ORDER BY 1, 2, 3")
    missed = []
    if "gone" in tables:  # an earlier version had none
        missed = told("SELECT name, size, modified, missed FROM gone WHERE source = ? ORDER BY 1, 2, 3")
    return seen, missed, told("SELECT upto FROM counted WHERE source = ?")


def _take_check(connection: Transaction, source: str) -> None:
    """Keep the checksum of a source's rows as they are in this transaction."""
    check = row_check(_rows(connection, source, connection.tables()))
    connection.execute(
        "INSERT INTO checks VALUES (?, ?) ON CONFLICT (source) DO UPDATE SET of_rows = excluded.of_rows",
        (source, check),
    )


def _news(known: _Journal, found: Sequence[Sighting]) -> tuple[list[Sighting], list[Sighting], list[Sighting]]:
    """Files that were never seen, those that are missed for the first time, and those that are back."""
    there = set(found)
    new = [file for file in found if file not in known.seen]
    missed = [file for file in known.seen if file not in there and file not in known.missed]
    return new, missed, [file for file in known.missed if file in there]

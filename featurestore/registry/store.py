"""The registry: every version of what was applied, a journal of runs, API keys, forgotten keys and the trail of activity, in one SQLite
file or in PostgreSQL.

Several threads and processes may use it at once, of several machines where it is in PostgreSQL. A fork is harmless. Readers and
the writer do not wait for each other (the file is written ahead, WAL). Reading creates nothing: where there is no file, nothing
has been applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import orjson

from featurestore.bound import BoundToProcess
from featurestore.clock import wall_clock
from featurestore.durable.database import Transaction, copy_rows, opened, row_check
from featurestore.errors import NotFoundError, PlanOutdatedError, RegistryError
from featurestore.registry.activity import ACTIVITY, STAYS, Activity, activity_in, add_activity
from featurestore.registry.documents import Document, digest_of, empty_document, service_views, view_fingerprints
from featurestore.registry.forgotten import (
    FORGET_SECRET,
    FORGOTTEN,
    Forgetting,
    forgettings_in,
    forgotten_in,
    made_secret,
    put_forgetting,
)
from featurestore.registry.frames import FRAMES, WrittenFrame, add_frame, frames_in, make_frames
from featurestore.registry.keys import API_KEYS, ApiKey, keys_in, note_used, put_keys
from featurestore.registry.records import Freed, KeptVersion, RegistryState, RunRecord, ServiceVersion, Version
from featurestore.registry.statistics_table import (
    STATISTICS,
    Described,
    add_statistics,
    drop_statistics,
    hours_in,
    make_statistics,
    statistics_in,
)
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.statistics.feature_statistics import KeptStatistics, Kind

__all__ = ["Freed", "KeptVersion", "Registry", "RegistryState", "RunRecord", "ServiceVersion", "Version"]

SCHEMA = 7
"""The version of the tables below; it is counted up when they change, and an older program then refuses the file. There is no 3:
a bit of 4 that changes makes no version that was ever written."""

APPLICATION = 0x46535247
"""SQLite's mark of what a file is: "FSRG"."""

# Service versions that are served on although another took their place; `version`: the last one that held them.
KEPT = """TABLE kept (
        service TEXT NOT NULL, fingerprint TEXT NOT NULL, version INTEGER NOT NULL,
        since INTEGER NOT NULL,         -- µs since the epoch
        PRIMARY KEY (service, fingerprint)
    ) WITHOUT ROWID"""

TABLES = (
    """CREATE TABLE versions (
        number INTEGER PRIMARY KEY,     -- 1, 2, 3, …
        applied_at INTEGER NOT NULL,    -- µs since the epoch
        document BLOB NOT NULL,         -- JSON
        digest TEXT NOT NULL,
        note TEXT NOT NULL,
        of_row INTEGER                  -- a checksum of the others, the document by its digest; null before schema 4
    )""",
    """CREATE TABLE services (
        name TEXT NOT NULL, fingerprint TEXT NOT NULL, version INTEGER NOT NULL REFERENCES versions (number),
        PRIMARY KEY (name, fingerprint, version)
    ) WITHOUT ROWID""",
    # View versions that are served no more and whose online keys have not been freed yet.
    "CREATE TABLE leftovers (view TEXT NOT NULL, fingerprint TEXT NOT NULL, PRIMARY KEY (view, fingerprint))",
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        view TEXT NOT NULL, fingerprint TEXT NOT NULL,
        instant INTEGER NOT NULL, started INTEGER NOT NULL, finished INTEGER NOT NULL,  -- µs since the epoch
        rows INTEGER NOT NULL, keys INTEGER NOT NULL,
        status TEXT NOT NULL, detail TEXT NOT NULL,
        of_row INTEGER                  -- a checksum of the others but for id; null before schema 4
    )""",
    "CREATE INDEX runs_of_view ON runs (view, id)",
    "CREATE TABLE IF NOT EXISTS owner (project TEXT)",  # one row: whose registry this is, null where nobody said
    f"CREATE {KEPT}",
    f"CREATE {API_KEYS}",
    f"CREATE {ACTIVITY}",
    *STAYS,
    f"CREATE {FORGOTTEN}",
    f"CREATE {FORGET_SECRET}",
)

COPIED = tuple(found[1] for sql in TABLES if (found := re.match(r"CREATE TABLE (\w+) \(", sql)))
"""The tables in which something is kept, each after those that it refers to; whose it is is said by the code that makes them."""

UPGRADES: dict[int, tuple[str, ...]] = {
    1: (f"CREATE {KEPT}",),
    2: ("ALTER TABLE versions ADD COLUMN of_row INTEGER", "ALTER TABLE runs ADD COLUMN of_row INTEGER"),
    3: (),
    4: (f"CREATE {API_KEYS}",),
    5: (f"CREATE {ACTIVITY}", *STAYS),
    6: (f"CREATE {FORGOTTEN}", f"CREATE {FORGET_SECRET}"),
}
"""What makes of each older schema the one after it; a file is upgraded when it is next written."""

READ_AS = {
    1: (f"CREATE TEMP {KEPT}",),
    2: tuple(f"CREATE TEMP VIEW {of} AS SELECT *, NULL AS of_row FROM main.{of}" for of in ("versions", "runs")),
    3: (),
    4: (f"CREATE TEMP {API_KEYS}",),
    5: (f"CREATE TEMP {ACTIVITY}",),
    6: (f"CREATE TEMP {FORGOTTEN}", f"CREATE TEMP {FORGET_SECRET}"),
}
"""The same for a reader, for as long as it reads."""

Found = TypeVar("Found")

VERSIONS_HELD = 32
"""Versions that are kept in memory once they were read: the newest."""

MOST_TOGETHER = 100
"""Of so many views the last runs are asked for in one statement; SQLite takes 500 parts of one."""

RUN = "view, fingerprint, instant, started, finished, rows, keys, status, detail"


class Registry(BoundToProcess):
    """What has been applied. `place`: the path of an SQLite file, or a postgresql:// URL; `now` reads a clock in µs; `timeout` in s
    waits for a lock.

    project: whose registry it is; one that another project began is refused, since each would remove what the other has.
    """

    def __init__(
        self, place: Path | str, *, project: str | None = None, now: Callable[[], int] = wall_clock, timeout: float = 30
    ) -> None:
        self.place = place
        self._project = project
        self._now = now
        self._database = opened(
            place, "registry", application=APPLICATION, schema=SCHEMA, timeout=timeout, ahead=True, project=project
        )
        self._held: dict[tuple[Any, ...], Version] = {}  # versions that were read, by their rows without the document

    def __repr__(self) -> str:
        return f"Registry({self._database.name!r})"

    def now(self) -> int:
        """What its clock reads (µs)."""
        return self._now()

    # --- versions ---------------------------------------------------------------------------

    def current(self) -> Version:
        """The newest version; number 0 with an empty document where nothing has been applied."""
        with self._reading() as connection:
            if connection is None:
                return _nothing()
            found = self._versions(connection, "ORDER BY number DESC LIMIT 1")
            current = found[0] if found else _nothing()
            if connection.execute("SELECT 1 FROM services WHERE version > ?", (current.number,)).fetchone():
                raise self._damaged(f"a version after {current.number} is gone")
            return current

    def version(self, number: int) -> Version:
        """One version; NotFoundError where there is none of that number."""
        if number == 0:
            return _nothing()
        with self._reading() as connection:
            found = self._versions(connection, "WHERE number = ?", number)
        if not found:
            raise NotFoundError(f"{self._database.name} has no version {number}; it has 0 to {self.generation()}")
        return found[0]

    def history(self) -> tuple[Version, ...]:
        """Every version, newest first."""
        with self._reading() as connection:
            return tuple(self._versions(connection, "ORDER BY number DESC"))

    def generation(self) -> int:
        """The number of the newest version, cheaply: it has changed exactly when something was applied."""
        rows = self._read("SELECT coalesce(max(number), 0) FROM versions")
        return int(rows[0][0]) if rows else 0

    def state(self) -> RegistryState:
        """The newest version's number, the leftovers to free and the kept services, in one cheap reading."""
        rows = self._read(
            "SELECT 0, '', '', coalesce(max(number), 0), 0 FROM versions UNION ALL "
            "SELECT 1, view, fingerprint, 0, 0 FROM leftovers UNION ALL "
            "SELECT 2, service, fingerprint, version, since FROM kept ORDER BY 1, 2, 3"
        )
        if not rows:
            return RegistryState(0, ())
        left = tuple(Freed(row[1], row[2]) for row in rows if row[0] == 1)
        return RegistryState(int(rows[0][3]), left, tuple(KeptVersion(*row[1:]) for row in rows if row[0] == 2))

    def commit(
        self, document: Document, *, expected: int, note: str = "", keep: Sequence[ServiceVersion] = (),
        retire: Sequence[ServiceVersion] = (),
    ) -> int:  # fmt: skip
        """Make `document` the current version and return its number, all at once or not at all.

        keep: service versions of the current document that are served on; they are kept until `retire` names them, or
        they are current again. View versions that neither the document nor a kept service version holds any more join
        `leftovers`. Raises PlanOutdatedError where the current version is not number `expected` any more.
        """
        with self._write() as connection:
            number, old = 0, empty_document()
            for found, text in connection.execute("SELECT number, document FROM versions ORDER BY number DESC LIMIT 1"):
                number, old = found, orjson.loads(text)
            if number != expected:
                raise PlanOutdatedError(
                    f"The plan was made against version {expected} of {self._database.name}, which has come to version {number} "
                    "since; plan again"
                )
            held = {*view_fingerprints(old).items(), *_held(connection)}
            now = self._now()
            digest = digest_of(document)
            row = (number + 1, now, orjson.dumps(document), digest, note, row_check((number + 1, now, digest, note)))
            connection.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?)", row)
            services = [(name, item["fingerprint"], number + 1) for name, item in document["services"].items()]
            connection.executemany("INSERT INTO services VALUES (?, ?, ?)", services)
            kept = [(*version, number, now) for version in keep]
            connection.executemany("INSERT INTO kept VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", kept)
            over = [*retire, *(service[:2] for service in services)]
            connection.executemany("DELETE FROM kept WHERE service = ? AND fingerprint = ?", over)
            live = {*view_fingerprints(document).items(), *_held(connection)}
            connection.executemany("INSERT INTO leftovers VALUES (?, ?) ON CONFLICT DO NOTHING", held - live)
            connection.executemany("DELETE FROM leftovers WHERE view = ? AND fingerprint = ?", live)
            what = "teardown" if document == empty_document() else "apply"
            done = [Activity(what, f"version {number + 1}", {"note": note, "digest": digest})]
            done += [
                Activity(how, str(one)) for how, versions in (("keep", keep), ("retire", retire)) for one in versions
            ]
            add_activity(connection, done)
        return number + 1

    def kept(self) -> tuple[KeptVersion, ...]:
        """The service versions that are served on although another took their place, by name and age."""
        sql = "SELECT service, fingerprint, version, since FROM kept ORDER BY service, since, fingerprint"
        return tuple(KeptVersion(*row) for row in self._read(sql))

    def find_service(self, name: str, fingerprint: str) -> Version | None:
        """The newest version in which the service had this fingerprint; None if no version did."""
        sql = "SELECT max(version) FROM services WHERE name = ? AND fingerprint = ?"
        rows = self._read(sql, name, fingerprint)
        if not rows or rows[0][0] is None:
            return None
        found = self.version(rows[0][0])
        if found.document["services"].get(name, {}).get("fingerprint") != fingerprint:
            raise self._damaged(f"version {found.number} has no service '{name}' {fingerprint}, as another place says")
        return found

    def services(self, name: str) -> tuple[str, ...]:
        """The distinct fingerprints that a service has had, the one applied last first."""
        sql = "SELECT fingerprint FROM services WHERE name = ? GROUP BY fingerprint ORDER BY max(version) DESC"
        return tuple(row[0] for row in self._read(sql, name))

    # --- what is left to be freed -------------------------------------------------------------

    def leftovers(self) -> tuple[Freed, ...]:
        """View versions that neither the current document nor a kept service holds, whose online keys were not freed yet."""
        return tuple(Freed(*row) for row in self._read("SELECT view, fingerprint FROM leftovers ORDER BY 1, 2"))

    def freed(self, view: str, fingerprint: str) -> None:
        """Strike a view version from the leftovers: its online keys are gone."""
        with self._write() as connection:
            connection.execute("DELETE FROM leftovers WHERE view = ? AND fingerprint = ?", (view, fingerprint))

    # --- runs -------------------------------------------------------------------------------

    def record_run(self, run: RunRecord, described: Described | None = None) -> int:
        """Append a run to the journal, with the statistics of its values, which bear its id; the id."""
        row = (run.view, run.fingerprint, run.instant, run.started, run.finished, run.rows, run.keys, run.status)
        words = (*row, orjson.dumps(run.detail).decode())
        done = {"fingerprint": run.fingerprint, "rows": run.rows, "keys": run.keys, "status": run.status}
        with self._write() as connection:
            connection.execute(
                f"INSERT INTO runs ({RUN}, of_row) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*words, row_check(words))
            )
            number = connection.last_number("runs")
            add_activity(connection, [Activity("materialize", run.view, {"run": number, **done})])
            if described is not None:
                add_statistics(connection, replace(described.kept, run=number), most=described.most)
            return number

    def last_runs(self, versions: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """When (µs) the last run of each of these views and fingerprints ended, where there was one."""
        found = self._last("view = ? AND fingerprint = ?", list(dict.fromkeys(versions)))
        return {(run.view, run.fingerprint): run.finished for run in found}

    def last_runs_of(self, views: Iterable[str]) -> dict[str, RunRecord]:
        """The last run of each of these views, whatever its fingerprint, where there was one."""
        return {run.view: run for run in self._last("view = ?", [(view,) for view in dict.fromkeys(views)])}

    def runs(self, view: str | None = None, *, limit: int = 100) -> tuple[RunRecord, ...]:
        """The last runs, of one view or of all, newest first."""
        where = "" if view is None else "WHERE view = ?"
        values = (limit,) if view is None else (view, limit)
        rows = self._runs(f"{where} ORDER BY id DESC LIMIT ?", *values)
        return tuple(map(_run, rows))

    def _last(self, condition: str, each: Sequence[tuple[str, ...]]) -> list[RunRecord]:
        """The last run that meets a condition for each of some values, all of them asked for together."""
        found: list[RunRecord] = []
        for start in range(0, len(each), MOST_TOGETHER):
            asked = each[start : start + MOST_TOGETHER]
            last = f"SELECT id FROM (SELECT id FROM runs WHERE {condition} ORDER BY id DESC LIMIT 1) AS last"
            rest = f"WHERE id IN ({' UNION ALL '.join([last] * len(asked))})"
            found += map(_run, self._runs(rest, *(value for values in asked for value in values)))
        return found

    def completions(self, view: str, fingerprint: str) -> list[tuple[int, int, int]]:
        """(instant, started, finished), µs, of every complete run of a view version, in the order of instants."""
        runs = self._runs("WHERE view = ? ORDER BY instant, id", view)  # a condition would pass over what has changed
        return [
            (int(instant), int(started), int(finished))
            for _, _, of, instant, started, finished, _, _, status, _ in runs
            if of == fingerprint and status == "complete"
        ]

    def _runs(self, rest: str, *values: Any) -> list[tuple[Any, ...]]:
        """The id and the columns of runs, each of which is what was written."""
        found = []
        for check, number, *row in self._read(f"SELECT of_row, id, {RUN} FROM runs {rest}", *values):
            if check is not None and check != row_check(row):
                raise self._damaged(f"run {number} is not what was written")
            found.append((number, *row))
        return found

    # --- training frames --------------------------------------------------------------------

    def record_frame(self, frame: WrittenFrame, described: Described | None = None) -> None:
        """Journal a training frame that was written, with the statistics of its values, in place of what was written to its path before."""
        with self._write() as connection:
            add_frame(connection, frame)
            if described is not None:
                add_statistics(connection, described.kept, most=described.most)

    def frames(self) -> tuple[WrittenFrame, ...]:
        """The training frames that were written, the last one first."""
        with self._reading() as connection:
            return () if connection is None else frames_in(connection)

    # --- statistics -------------------------------------------------------------------------

    def keep_statistics(self, kept: KeptStatistics, *, most: int) -> None:
        """Keep statistics; of their subject and kind so many at most, the newest."""
        with self._write() as connection:
            add_statistics(connection, kept, most=most)

    def statistics(
        self, *, kind: Kind | None = None, subject: str | None = None, place: str | None = None,
        since: int | None = None, until: int | None = None, limit: int = 100,
    ) -> list[KeptStatistics]:  # fmt: skip
        """Kept statistics, the newest first. since, until: from this instant on and before that (µs); place: the path of a frame,
        the number of a run."""
        with self._reading() as connection:
            if connection is None:
                return []
            wanted = {"kind": kind, "subject": subject, "place": place, "since": since, "until": until, "limit": limit}
            return self._sound(lambda read: statistics_in(read, **wanted), connection)

    def drop_statistics(self, subjects: Iterable[str]) -> None:
        """Remove what is kept of these views and services."""
        if self.statistics(limit=1):
            with self._write() as connection:
                drop_statistics(connection, subjects)

    def described_hours(self) -> set[tuple[str, str, int]]:
        """Service, fingerprint and beginning (µs) of each hour of serving that statistics are kept of."""
        with self._reading() as connection:
            return set() if connection is None else hours_in(connection)

    # --- API keys ---------------------------------------------------------------------------

    def api_keys(self) -> list[ApiKey]:
        """All keys, the oldest first, those that are revoked or expired too."""
        with self._reading() as connection:
            return [] if connection is None else self._keys(connection)

    def change_keys(self, what: str, change: Callable[[list[ApiKey]], Sequence[ApiKey]]) -> None:
        """Write the keys that `change` makes of those that are there, with nobody in between. what: it is in the trail so."""
        with self._write() as connection:
            changed = change(self._keys(connection))
            put_keys(connection, changed)
            add_activity(connection, [Activity(what, key.name, key.told()) for key in changed])

    def note_used(self, used_at: Mapping[str, int]) -> None:
        """Say when keys, by their ids, were last used (µs)."""
        with self._write(since=5) as connection:
            note_used(connection, used_at)

    def _keys(self, connection: Transaction) -> list[ApiKey]:
        return self._sound(keys_in, connection)

    def _sound(self, read: Callable[[Transaction], Found], connection: Transaction) -> Found:
        """What is read; RegistryError where it is not what was written."""
        try:
            return read(connection)
        except ValueError as error:
            raise self._damaged(str(error)) from None

    # --- forgotten keys ---------------------------------------------------------------------

    def forgotten_keys(self) -> ForgottenKeys | None:
        """The keys whose rows do not count; None where there are none."""
        with self._reading() as connection:
            return None if connection is None else self._sound(forgotten_in, connection)

    def forget_secret(self) -> str:
        """The secret under which digests of forgotten keys are made, made where there is none yet."""
        with self._write() as connection:
            return made_secret(connection)

    def forgettings(self) -> list[Forgetting]:
        """Each forgotten key, and how far it is erased."""
        with self._reading() as connection:
            return [] if connection is None else self._sound(forgettings_in, connection)

    def put_forgetting(self, one: Forgetting, done: Iterable[Activity] = ()) -> None:
        """Write what is known of a forgotten key, and what was done to the trail."""
        with self._write() as connection:
            put_forgetting(connection, one)
            add_activity(connection, done)

    # --- the trail of activity --------------------------------------------------------------

    def add_activity(self, done: Iterable[Activity]) -> None:
        """Add to the trail."""
        with self._write(since=6) as connection:
            add_activity(connection, done)

    def activity(self, *, since: int | None = None, what: str | None = None, limit: int = 100) -> list[Activity]:
        """The trail, the newest first. since: of an instant (µs) and later; what: this alone; limit: so many at most."""
        conditions = {"at >= ?": since, "what = ?": what}
        given = {sql: value for sql, value in conditions.items() if value is not None}
        where = f"WHERE {' AND '.join(given)}" if given else ""
        with self._reading() as connection:
            if connection is None:
                return []
            try:
                return activity_in(connection, f"{where} ORDER BY id DESC LIMIT ?", *given.values(), limit)
            except ValueError as error:
                raise self._damaged(str(error)) from None

    def take_over(self, source: Registry) -> None:
        """Put in all that another registry has. RegistryError, with nothing done, where there is something here already, or the
        other is not what was written."""
        found = source._everything()
        with source._reading() as read, self._write() as write:
            if read is None:
                raise RegistryError(f"There is no registry in {source._database.name}")
            if any(write.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in COPIED):
                raise RegistryError(f"The registry {self._database.name} is not empty")
            for table in COPIED:
                copy_rows(read, write, table)
            if FRAMES in read.tables():
                make_frames(write)
                copy_rows(read, write, FRAMES)
            if STATISTICS in read.tables():
                make_statistics(write)
                copy_rows(read, write, STATISTICS)
        if self._everything() != found:
            raise self._damaged("it is not what was copied into it")

    def _everything(self) -> tuple[Any, ...]:
        """All that it tells."""
        every = 1 << 62
        return (
            self.history(), self.state(), self.runs(limit=every), self.frames(), self.api_keys(), self.activity(limit=every),
            self.forgettings(), self.forgotten_keys(), self.statistics(limit=every),
        )  # fmt: skip

    def close(self) -> None:
        """Let go of connections that are kept; it may be used afterwards."""
        self._database.close()

    # --- the file ---------------------------------------------------------------------------

    def _damaged(self, how: str) -> RegistryError:
        return RegistryError(f"The registry {self._database.name} is damaged: {how}; restore it from a copy")

    def _versions(self, connection: Transaction | None, rest: str, *values: Any) -> list[Version]:
        """Versions; the document of one that was read before is not read again, as no version ever changes."""
        if connection is None:
            return []
        found = []
        sql = f"SELECT number, applied_at, digest, note, of_row FROM versions {rest}"
        for row in connection.execute(sql, values).fetchall():
            version = self._held.get(row)
            if version is None:
                sql = "SELECT document FROM versions WHERE number = ?"
                version = self._checked(row, connection.execute(sql, row[:1]).fetchone()[0])
                held = {**self._held, row: version}  # no thread sees one that is being changed
                self._held = {one: held[one] for one in sorted(held)[-VERSIONS_HELD:]}
            found.append(version)
        return found

    def _checked(self, row: tuple[Any, ...], text: bytes) -> Version:
        """The version of a row and its document; RegistryError where it is not what was written."""
        number, applied_at, digest, note, check = row
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError:
            document = None
        if document is None or digest_of(document) != digest:
            raise self._damaged(f"version {number} is damaged, its digest is not {digest}")
        if check is not None and check != row_check((number, applied_at, digest, note)):
            raise self._damaged(f"version {number} is damaged, it is not what was written")
        return Version(number, applied_at, document, digest, note)

    def _read(self, sql: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        with self._reading() as connection:
            return [] if connection is None else connection.execute(sql, values).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[Transaction | None]:
        with self._database.reading() as connection:
            if connection is not None:  # what an older version wrote is not changed by reading it
                for schema in range(connection.schema(), SCHEMA):
                    for made in READ_AS[schema]:
                        connection.execute(made)
            yield connection

    @contextmanager
    def _write(self, *, since: int | None = None) -> Iterator[Transaction]:
        """One transaction that excludes every other writer from its beginning. since: the schema from which on there is what it
        needs; tables from then on are left as they are, for servers of an earlier version that have yet to be restarted."""
        with self._database.writing() as (connection, is_set_up):
            if not is_set_up:
                self._set_up(connection)
            if connection.schema() < (SCHEMA if since is None else since):
                self._upgrade(connection)
            yield connection

    def _set_up(self, connection: Transaction) -> None:
        for sql in TABLES:
            connection.execute(sql)
        connection.execute("INSERT INTO owner SELECT ? WHERE NOT EXISTS (SELECT 1 FROM owner)", (self._project,))
        self._database.mark(connection)

    def _upgrade(self, connection: Transaction) -> None:
        """Bring the tables of an older version to this one's, within the transaction of the writer."""
        older = range(connection.schema(), SCHEMA)
        for schema in older:
            for sql in UPGRADES[schema]:
                connection.execute(sql)
        if older:
            self._database.mark(connection)


def _run(row: tuple[Any, ...]) -> RunRecord:
    """A run of its id and its columns."""
    number, *words, detail = row
    return RunRecord(*(*words[:8], orjson.loads(detail), number))


def _held(connection: Transaction) -> set[tuple[str, str]]:
    """The view versions (name, fingerprint) that the kept service versions read."""
    rows = connection.execute("SELECT service, document FROM kept JOIN versions ON version = number")
    return {view for service, text in rows for view in service_views(orjson.loads(text), service).items()}


def _nothing() -> Version:
    document = empty_document()
    return Version(0, 0, document, digest_of(document))

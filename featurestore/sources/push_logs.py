"""The logs of a project's push sources, in one folder or in PostgreSQL: of each the rows that count, and those that are kept aside."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.durable.forks import mutex
from featurestore.durable.lock import LOCK_WAIT_SECONDS
from featurestore.durable.owner import OwnedFolder
from featurestore.errors import ConfigError
from featurestore.lazy import pa
from featurestore.sources.log import FileLog, Log
from featurestore.types import FeatureType

if TYPE_CHECKING:
    from featurestore.durable.postgresql import PostgreSQL

ROWS, LATE, QUARANTINE = "rows", "late", "quarantine"
ASIDE = (LATE, QUARANTINE)
"""The logs of rows that are kept aside: those that came too late, and those that do not meet what is expected."""
MANIFEST = "manifest.json"


class PushLogs:
    """Opens logs below a folder and keeps them; safe to use from several threads.

    project: whose they are; a log of another's is refused, with ConfigError. wait_seconds: seconds for which their locks are
    waited for. shared: the postgresql:// URL of where the logs lie, for pushers on several machines; the folder then has what stays
    on this machine: copies of sealed segments, and rows that were taken back.
    """

    def __init__(
        self,
        folder: Path,
        project: str | None = None,
        *,
        wait_seconds: float = LOCK_WAIT_SECONDS,
        shared: str | None = None,
    ) -> None:
        self.folder = folder
        self._shared = shared
        self._found: set[Path] = set()  # of logs that are shared, those that are known to be there
        self.wait_seconds = wait_seconds
        self._project = project
        self._logs: dict[Path, Log] = {}
        self._columns: dict[Path, Mapping[str, FeatureType]] = {}  # as they were last declared
        self._opening = mutex()

    def close(self) -> None:
        """Close the logs that were opened; idempotent."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()
        if "_database" in vars(self):
            self._database.close()

    @property
    def are_shared(self) -> bool:
        """Whether pushers on several machines share them."""
        return self._shared is not None

    @cached_property
    def _database(self) -> PostgreSQL:
        from featurestore.sources.log.postgresql_log import push_log_database

        assert self._shared is not None
        return push_log_database(self._shared, self._project, wait_seconds=self.wait_seconds)

    def log(self, source: PushSource, which: str = ROWS) -> Log:
        """The log of a push source; which: of the rows that count, or one of those that are kept aside."""
        folder = self.folder_of(source.name, which)
        with self._opening:
            self._columns[folder] = source.columns
            if folder not in self._logs and self.are_shared:
                self._logs[folder] = self._opened_shared(source.name, which)
            elif folder not in self._logs:
                owner = OwnedFolder(folder.parent, self._project, what=f"push log of '{source.name}'", key="logs")
                owner.check()
                self._check_place(source.name)
                self._logs[folder] = FileLog(
                    folder, lambda: _schema(self._columns[folder]), claim=owner.claim, wait_seconds=self.wait_seconds
                )
            return self._logs[folder]

    def _opened_shared(self, name: str, which: str) -> Log:
        from featurestore.sources.log.postgresql_log import PostgreSQLLog

        folder = self.folder_of(name, which)
        if (folder / MANIFEST).exists() and not self.has(name, which):
            raise ConfigError(
                f"PushSource '{name}': the push log of project '{self._project}' lies in {self._database.name} now (featurestore.toml, "
                f"push_log) and is empty, while rows that were pushed before lie in {folder}. Take push_log away to go on with "
                "these, or move the folder away to begin without them"
            )
        return PostgreSQLLog(
            self._database,
            f"{name}/{which}",
            folder,
            lambda: _schema(self._columns[folder]),
            wait_seconds=self.wait_seconds,
        )

    def _check_place(self, name: str) -> None:
        """ConfigError where a project would begin an empty log, while its rows may lie where it once shared one with others."""
        if self._project is None or self.folder.exists() or self.folder.parent.name != self._project:
            return
        shared = self.folder.parents[1] / self.folder.name
        if OwnedFolder(shared / name, self._project, what="push log", key="logs").is_mixed:
            raise ConfigError(
                f"PushSource '{name}': project '{self._project}' keeps its logs in {self.folder} now, and what it pushed "
                f'before may lie in {shared}, among what other projects pushed. Write logs = "{shared}" into its '
                f"[env.…] in featurestore.toml to go on with all of that, or make the folder {self.folder} to begin without it"
            )

    def folder_of(self, name: str, which: str = ROWS) -> Path:
        """Where the log of a push source lies, or is to lie; by its name."""
        return self.folder / name / which

    def opened(self, name: str) -> list[Log]:
        """The logs of a push source that were opened here, those of rows that are kept aside among them; by its name."""
        folders = [self.folder_of(name, which) for which in (ROWS, *ASIDE)]
        return [self._logs[folder] for folder in folders if folder in self._logs]

    def has(self, name: str, which: str = ROWS) -> bool:
        """Whether a push source has a log, of rows that count or of those kept aside; by its name."""
        folder = self.folder_of(name, which)
        if not self.are_shared:
            return folder.exists()
        if folder not in self._found:
            from featurestore.sources.log.postgresql_log import find_log

            if find_log(self._database, f"{name}/{which}") is None:
                return False
            self._found.add(folder)
        return True

    def is_at_hand(self, name: str) -> bool:
        """Whether the rows of a push source that count can be read here, without a log being made; by its name."""
        return self.has(name) if self.are_shared else (self.folder_of(name) / MANIFEST).exists()


def _schema(columns: Mapping[str, FeatureType]) -> pa.Schema:
    fields = [pa.field(name, of.arrow) for name, of in columns.items()]
    return pa.schema([*fields, pa.field(KNOWN_AT, pa.int64(), nullable=False), pa.field(REPLACES, pa.int64())])

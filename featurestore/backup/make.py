"""Making a backup while everything runs.

What refers to something else is copied before it, so that nothing in the copy refers to what is missing: first the serving log,
which says what was served of rows and versions, then the logs of pushed rows, then the journal of arrivals, and the
registry last. Each is copied as of one moment, and nobody waits for it. It is written beside its place, and gets its name when
it is whole and on the disk.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from featurestore.backup.archive import (
    ARRIVALS,
    LOGS,
    MANIFEST,
    REGISTRY,
    SERVED,
    SETTINGS,
    TAR,
    BackupManifest,
    marks_of,
    write_tar,
)
from featurestore.clock import wall_clock
from featurestore.config import FILE, Config
from featurestore.durable.disk import sync_folder, told
from featurestore.durable.owner import FILE as OWNER
from featurestore.durable.owner import OwnedFolder
from featurestore.durable.sqlite_file import SQLiteFile
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import BackupError, ConfigError, RegistryError
from featurestore.lazy import pa
from featurestore.registry import store as registries
from featurestore.registry.activity import Activity
from featurestore.registry.store import Registry
from featurestore.serving.log.copying import copy_serving_log
from featurestore.sources import arrivals
from featurestore.sources.log import FileLog
from featurestore.sources.push_logs import ASIDE, ROWS
from featurestore.streams import poison

LOGGER = logging.getLogger("featurestore")

WAIT_SECONDS = 30.0
"""Seconds for which others are waited for that write a database."""


def make_backup(config: Config, to: Path) -> BackupManifest:
    """Back a project up into a folder, or a file whose name ends in .tar, that is not there yet.

    All that was acknowledged before it began is in it, but for what lies in PostgreSQL, which is to be dumped after it. Raises BackupError, LogError and RegistryError; nothing is left then, nor
    where it is killed.
    """
    config.check_restored()
    to = Path(os.path.abspath(to))  # noqa: PTH100 - Path.resolve would follow links
    if "\0" in str(to):
        raise BackupError(f"{str(to)!r} is no path: it holds a NUL")
    if os.path.lexists(to):
        raise BackupError(f"{to} is there already; a backup overwrites nothing. Give it a name of its own")
    created, registry = wall_clock(), Registry(config.registry, project=config.project)
    try:
        beside = TemporaryFolder(to.parent)
        try:
            place = beside.path / to.name
            place.mkdir(mode=0o700)
            _copy(config, place)
            is_file = isinstance(config.registry, Path)
            manifest = BackupManifest(config.project, created, version("featurestore"), is_file, marks_of(place))
            if is_file and not manifest.files.keys() - {SETTINGS}:
                raise BackupError(
                    f"There is nothing to back up of project '{config.project}': no registry {config.registry}, and no logs"
                )
            _write_manifest(place / MANIFEST, manifest)
            _put(place, manifest, to)
        finally:
            beside.remove()
    except OSError as error:
        raise BackupError(f"The backup {to} cannot be written: {told(error)}") from error
    try:
        if registry.generation():
            registry.add_activity([Activity("back up", to.name, {"files": len(manifest.files)})])
    except RegistryError as error:  # it is made all the same: of a project on a disk that is read-only, say
        LOGGER.warning("The backup is made, and not in the trail of activity: %s", error)
    return manifest


def _copy(config: Config, place: Path) -> None:
    if config.serving_log.folder.is_dir():
        owned = OwnedFolder(config.serving_log.folder, config.project, what="serving log", key="serving_log.folder")
        owned.check()
        copy_serving_log(owned.path, place / SERVED)
    for folder in _log_folders(config):
        _copy_logs(folder, place / LOGS / folder.name)
    kept_aside = poison.place_in(config.logs)  # after the logs, which say which messages were read
    if kept_aside.exists():
        (place / LOGS).mkdir(exist_ok=True)
        mark = poison.APPLICATION, poison.SCHEMA
        SQLiteFile(kept_aside, poison.WHAT, *mark, WAIT_SECONDS, project=config.project).copy_to(
            poison.place_in(place / LOGS)
        )
    if isinstance(config.registry, Path):
        journal = config.registry.with_suffix(".arrivals.db")
        mark = arrivals.APPLICATION, arrivals.SCHEMA
        SQLiteFile(journal, "journal of arrivals", *mark, WAIT_SECONDS, project=config.project).copy_to(
            place / ARRIVALS
        )
        mark = registries.APPLICATION, registries.SCHEMA
        SQLiteFile(config.registry, "registry", *mark, WAIT_SECONDS, project=config.project).copy_to(place / REGISTRY)
    if (config.root / FILE).is_file():
        shutil.copyfile(config.root / FILE, place / SETTINGS)


def _log_folders(config: Config) -> Iterator[Path]:
    """The folder of each push source, but for those of other projects, with which an earlier version shared them."""
    for folder in sorted(config.logs.iterdir()) if config.logs.is_dir() else ():
        if any((folder / which / MANIFEST).exists() for which in (ROWS, *ASIDE)):
            with suppress(ConfigError):
                OwnedFolder(folder, config.project, what=f"push log of '{folder.name}'", key="logs").check()
                yield folder


def _copy_logs(folder: Path, place: Path) -> None:
    """The logs of one push source, and what was taken back out of them."""
    for which in (ROWS, *ASIDE):
        if (folder / which / MANIFEST).exists():
            with FileLog(folder / which, _no_columns) as log:
                log.copy_to(place / which)
    for file in folder.glob("taken-back-*.parquet"):
        shutil.copyfile(file, place / file.name)
    if (folder / OWNER).exists():
        shutil.copyfile(folder / OWNER, place / OWNER)


def _no_columns() -> pa.Schema:
    raise BackupError("A log that was there a moment ago is gone")  # only one that is made is asked for its columns


def _write_manifest(path: Path, manifest: BackupManifest) -> None:
    path.write_bytes(manifest.encode())
    marks_of(path.parent)


def _put(place: Path, manifest: BackupManifest, to: Path) -> None:
    """Give the backup its name, where there is none of that name."""
    if to.suffix == TAR:
        file = place.with_name(f"{to.name}.whole")
        write_tar(place, [MANIFEST, *manifest.files], file)
        try:
            os.link(file, to)  # which, unlike a rename, takes the place of nothing
        except FileExistsError:
            raise BackupError(f"{to} is there already; a backup overwrites nothing") from None
        except OSError:  # a file system without links
            file.rename(to)
    else:
        place.rename(to)
    sync_folder(to.parent)

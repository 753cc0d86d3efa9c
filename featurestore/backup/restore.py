"""Restoring a backup into a project that has nothing yet.

All is looked at before anything is written, and written beside its places. Then a file says that a restore is under way, the
parts get their names, the registry last, and the file goes. Where that is killed, no process opens the project, and
the next restore begins anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from featurestore.backup.archive import ARRIVALS, LOGS, REGISTRY, SERVED, SETTINGS, Archive, BackupManifest
from featurestore.clock import to_datetime
from featurestore.config import FILE, Config, load_config
from featurestore.durable.disk import replace, sync_folder, told
from featurestore.durable.secret_file import secret_file
from featurestore.durable.sqlite_file import BESIDE
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import BackupError
from featurestore.online import open_online
from featurestore.online.view_codec import project_prefix
from featurestore.registry.activity import Activity
from featurestore.registry.delete_online import free_project
from featurestore.registry.store import Registry


@dataclass(frozen=True)
class Restored:
    """manifest: what was restored. settings: whether featurestore.toml was, too. emptied: how many keys were deleted online."""

    manifest: BackupManifest
    settings: bool
    emptied: int


def restore_backup(path: Path, repo: Path, *, env: str | None = None, empty_online: bool = False) -> Restored:
    """Put a backup into the places that the repository's featurestore.toml names, or the backup's own where it has none.

    None of them may hold anything, and the online store no key of the project: with `empty_online` these are deleted. Raises
    BackupError, which names what is damaged or in the way, ConfigError and OnlineStoreError.
    """
    try:
        archive = Archive(path)
        archive.check()
        with _settings_put(archive, repo) as settings:
            config = load_config(repo, env)
            _check_fits(archive, config)
            _clear_unfinished(config)
            places = _places(config)
            _check_empty(places)
            _check_online(config, may_hold=empty_online)
            emptied = _put_in_place(archive, config, places, empty_online=empty_online)
    except OSError as error:
        raise BackupError(f"{path} cannot be restored: {told(error)}") from error
    return Restored(archive.manifest, settings, emptied)


@contextmanager
def _settings_put(archive: Archive, repo: Path) -> Iterator[bool]:
    """The backup's featurestore.toml, where there is none: whether it is. It goes again where the restore is refused."""
    file = repo if repo.suffix == ".toml" else repo / FILE
    if file.exists() or SETTINGS not in archive.manifest.files:
        yield False
        return
    made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    with secret_file(file) as write:
        write(archive.read(SETTINGS).decode())
    try:
        yield True
    except BaseException:
        file.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            for folder in made:
                folder.rmdir()
        raise


def _check_fits(archive: Archive, config: Config) -> None:
    """BackupError where the backup is of another project, or of one that keeps its registry elsewhere."""
    path, manifest, file = archive.path, archive.manifest, config.root / FILE
    if config.project != manifest.project:
        raise BackupError(f"{path} is of project '{manifest.project}', and {file} is of '{config.project}'")
    if manifest.has_registry != isinstance(config.registry, Path):
        of = "has its registry in a file" if manifest.has_registry else "had its registry in PostgreSQL"
        raise BackupError(
            f"{path} {of}, and {file} says registry = {config.shown('registry')}: let it name one of that kind; featurestore "
            "registry copy moves it afterwards"
        )


def _places(config: Config) -> dict[str, Path]:
    """Where each part of a backup belongs; in this order they get their names."""
    places = {LOGS: config.logs, SERVED: config.serving_log.folder}
    if isinstance(config.registry, Path):
        places |= {ARRIVALS: config.registry.with_suffix(".arrivals.db"), REGISTRY: config.registry}
    return places


def _check_empty(places: dict[str, Path]) -> None:
    for place in places.values():
        if place.is_dir() and not any(place.iterdir()):
            continue
        for path in (
            place,
            *(Path(f"{place}{end}") for end in BESIDE),
        ):  # SQLite takes what lies beside a file for a part of it
            if os.path.lexists(path):
                raise BackupError(
                    f"{path} is there already; a backup is restored where there is nothing yet. Move it away, or restore "
                    "into another folder: featurestore --repo FOLDER restore"
                )


def _check_online(config: Config, *, may_hold: bool) -> None:
    """BackupError where the online store holds keys of the project, and may not."""
    with closing(open_online(config.online)) as store:
        if any(store.scan(project_prefix(config.project))) and not may_hold:
            raise BackupError(
                f"The online store {config.shown('online')} holds keys of project '{config.project}'. Where the project that "
                "this is a backup of still runs, they are its own, and would be written over: give this one another online "
                "store in featurestore.toml. Where this one takes its place, end all processes of the other, and restore "
                "with --empty-online, which deletes these keys; featurestore materialize makes them anew"
            )


def _emptied(config: Config) -> int:
    """Delete all keys of the project online; how many there were."""
    with closing(open_online(config.online)) as store:
        return free_project(store, Registry(config.registry), config.project, [])


def _put_in_place(archive: Archive, config: Config, places: dict[str, Path], *, empty_online: bool) -> int:
    """Unpack all beside its places, and then give it their names; how many keys were deleted online."""
    with ExitStack() as stack:
        staged = {}
        for part, place in places.items():
            beside = TemporaryFolder(place.parent)
            stack.callback(beside.remove)
            staged[part] = beside.path / part
        names = [name for name in archive.manifest.files if name.partition("/")[0] in staged]
        archive.unpack({name: staged[name.partition("/")[0]].parent / name for name in names})
        if REGISTRY in staged and staged[REGISTRY].exists():
            said = {
                "made": f"{to_datetime(archive.manifest.created):%Y-%m-%dT%H:%M:%SZ}",
                "release": archive.manifest.release,
            }
            Registry(staged[REGISTRY], project=config.project).add_activity(
                [Activity("restore", archive.path.name, said)]
            )
        there = {part: path for part, path in staged.items() if path.exists()}
        for path in there.values():
            for folder in [path, *path.rglob("*")]:
                if folder.is_dir():
                    folder.chmod(0o700)
                    sync_folder(folder)
        emptied = _emptied(config) if empty_online else 0
        replace(config.restoring, orjson.dumps({"places": [str(places[part]) for part in there]}))
        for part, path in there.items():
            path.rename(places[part])
            sync_folder(places[part].parent)
        config.restoring.unlink()
        sync_folder(config.restoring.parent)
        return emptied


def _clear_unfinished(config: Config) -> None:
    """Take away what a restore put in place that was killed."""
    if not config.restoring.exists():
        return
    for place in orjson.loads(config.restoring.read_bytes())["places"]:
        path = Path(place)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    config.restoring.unlink()

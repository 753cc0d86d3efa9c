"""Moves a repository of Feast's: reads it, writes one of ours beside it, and compares the training frames of both."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from featurestore.errors import ConfigError
from featurestore.hidden import hidden
from featurestore.migrate.feast_objects import FeastObjects, feast_objects
from featurestore.migrate.feast_python import ask_feast, feast_folder, feast_python
from featurestore.migrate.frame_differences import FrameDifferences
from featurestore.migrate.import_report import ImportReport
from featurestore.migrate.move_repository import MoveOptions, move
from featurestore.migrate.move_result import MoveResult
from featurestore.migrate.proof import ProofOptions, prove
from featurestore.migrate.repository_files import files_of, online_store, online_url, project_name
from featurestore.migrate.services_in_code import declaring_notebooks

KEPT_ONLINE = {"sqlite", "redis", ""}
"""Online stores of Feast's that are taken over: Redis, and SQLite as LMDB."""


@dataclass(frozen=True)
class ImportOptions:
    """What the user says. repo: a folder with feature_store.yaml, or above one. out: the folder that is written; it must not be
    there. python: Feast's. registry: a registry file to read in place of the Python files. refresh: µs. prove: None, where there
    are rows to compare."""

    repo: Path
    out: Path
    python: Path | None = None
    registry: Path | None = None
    refresh: int | None = None
    cutover: datetime | None = None
    prove: bool | None = None


def import_feast(options: ImportOptions) -> ImportReport:
    """Read, write and prove; nothing is left where it fails. Raises ConfigError."""
    out = Path(options.out).absolute()
    if out.exists():
        raise ConfigError(f"{options.out} exists already; import-feast writes a folder of its own")
    if not out.parent.is_dir():
        raise ConfigError(f"There is no folder {out.parent} to write {out.name} into")
    root, registry = options.repo.absolute(), None if options.registry is None else options.registry.absolute()
    repo, python = feast_folder(root), feast_python(options.python)
    objects = _objects(python, repo, root, registry)
    if registry is None and not _declares(objects):
        registry = _registry_file(repo, objects)
        objects = objects if registry is None else _objects(python, repo, root, registry)
    if not _declares(objects):
        raise ConfigError(_nothing(repo, root, objects))
    moved = move(objects, MoveOptions(repo, root, out, options.refresh, options.cutover))
    if not moved.views and not moved.functions:
        raise ConfigError(_nothing_moved(repo, moved))
    _tell_store(objects, moved)
    beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))  # as deep, for relative paths
    try:
        files = files_of(objects, moved)
        for name, text in files.items():
            (beside / name).write_text(text, encoding="utf-8")
        compared = _compared(options, python, repo, root, registry, moved, beside)
        report = _reported(objects, moved, options, compared, [*files, "README.md"])
        (beside / "README.md").write_text(report.markdown(), encoding="utf-8")
        beside.chmod(0o755)
        beside.rename(out)
    except BaseException:
        shutil.rmtree(beside)
        raise
    return report


def _objects(python: Path, repo: Path, root: Path, registry: Path | None) -> FeastObjects:
    request = {"repo": str(repo), "root": str(root), "registry": None if registry is None else str(registry)}
    return feast_objects(ask_feast(python, request))


def _declares(objects: FeastObjects) -> bool:
    return bool(objects.views or objects.on_demand or objects.services or objects.entities)


def _registry_file(repo: Path, objects: FeastObjects) -> Path | None:
    """The registry that feature_store.yaml names, where it is a file that is there."""
    said = objects.settings.get("registry")
    path = said.get("path") if isinstance(said, dict) else said
    file = repo / str(path) if path and "://" not in str(path) else None
    return file if file is not None and file.is_file() else None


def _nothing(repo: Path, root: Path, objects: FeastObjects) -> str:
    """Why a repository declares nothing, and where it may."""
    failed = [f"{file.path}: {file.error}" for file in objects.files if file.error is not None]
    notebooks = [str(path.relative_to(root)) for path in declaring_notebooks(root)]
    parts = [f"{repo} declares nothing of Feast's that can be read"]
    if failed:
        parts.append(f"Files that do not load: {'; '.join(failed)}")
    if notebooks:
        parts.append(f"Notebooks declare, and are not run: {', '.join(notebooks[:SHOWN])}; run them with Feast first")
    parts.append(_registry_elsewhere(objects.settings.get("registry")))
    return ". ".join(parts)


def _registry_elsewhere(said: Any) -> str:
    """What is told of a registry that is no file here."""
    kind = str(said.get("registry_type") or said.get("registry_store_type") or "") if isinstance(said, dict) else ""
    place = str((said.get("path") or kind) if isinstance(said, dict) else said or "")
    if not place:
        return "It names no registry in feature_store.yaml"
    if "://" not in place and kind in {"", "file"}:
        return f"Its registry '{place}' is not there: run feast apply, or name one that is: --registry FILE"
    return (
        f"Its registry '{hidden(place)}'{f' ({kind})' if kind else ''} is no file. With Feast, and where it can be reached, this writes it into one: python -c "
        f'"{DUMP}"; then name that: --registry registry.db'
    )


DUMP = "from feast import FeatureStore; open('registry.db', 'wb').write(FeatureStore('.').registry.proto().SerializeToString())"
"""Python of Feast's that writes any registry, also one in a database or a bucket, into a file."""


SHOWN = 5
"""Reasons that an error tells."""


def _nothing_moved(repo: Path, moved: MoveResult) -> str:
    """Why there is nothing to write, by name."""
    reasons = [f"{one.kind} {one.name}: {'; '.join(filter(None, (one.why, one.instead)))}" for one in moved.refused]
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return f"Nothing of {repo} can be taken over. {'; '.join(reasons[:SHOWN])}{more}"


def _compared(
    options: ImportOptions, python: Path, repo: Path, root: Path, registry: Path | None, moved: MoveResult, out: Path
) -> list[FrameDifferences] | None:
    there = any(view.has_data for view in moved.views.values())
    if options.prove is False or (options.prove is None and not there):
        return None
    if not there:
        raise ConfigError("--prove: none of the views that are taken over has rows at hand to compare")
    return prove(out, moved, ProofOptions(python, repo, root, registry))


def _tell_store(objects: FeastObjects, moved: MoveResult) -> None:
    """What becomes of the online store."""
    if project_name(objects) != (objects.project or "project"):
        moved.differs(
            "featurestore.toml",
            "name",
            str(objects.project),
            project_name(objects),
            "a name is letters, digits and underscores",
        )
    kind = str(online_store(objects.settings).get("type") or "")
    if kind not in KEPT_ONLINE:
        moved.refuse(
            "online store", kind, "there is none such", "LMDB takes its place, or Redis: docs/online-stores.md"
        )
    elif kind == "redis":
        url = online_url(objects.settings) or ""
        moved.differs(
            "featurestore.toml",
            "online store",
            "Redis, by a connection string",
            url,
            "values online have another form: materialize fills them anew",
        )
    else:
        moved.differs(
            "featurestore.toml",
            "online store",
            "SQLite",
            "LMDB, in .featurestore",
            "it needs no server; values are filled anew by materialize",
        )


def _reported(
    objects: FeastObjects,
    moved: MoveResult,
    options: ImportOptions,
    compared: list[FrameDifferences] | None,
    files: Sequence[str],
) -> ImportReport:
    sections = {
        "entities": "entities",
        "sources": "sources",
        "views": "views",
        "on-demand": "on-demand features",
        "services": "services",
    }
    written = {title: sum(one.section == section for one in moved.statements) for section, title in sections.items()}
    declared = {
        "entities": len(objects.entities), "views": len(objects.views), "on-demand views": len(objects.on_demand),
        "services": len(objects.services),
    }  # fmt: skip
    return ImportReport(
        project_name(objects), objects.feast, objects.read_from, str(options.out), written, declared, moved.differences,
        moved.refused, moved.exports, list(objects.absent), compared, list(files),
    )  # fmt: skip

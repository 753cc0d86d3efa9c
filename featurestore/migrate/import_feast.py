"""Moves a repository of Feast's: reads it, writes one of ours beside it, and compares the training frames of both."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from featurestore.errors import ConfigError
from featurestore.migrate.compared import CAUSES, UNEXPLAINED, ComparedFrames, DifferingCell
from featurestore.migrate.export_recipes import Export
from featurestore.migrate.feast_objects import FeastObjects, feast_objects
from featurestore.migrate.feast_python import ask_feast, feast_folder, feast_python
from featurestore.migrate.found import Differs, Moved, Refused
from featurestore.migrate.move import MoveOptions, move
from featurestore.migrate.prove import ProofOptions, prove
from featurestore.migrate.write_repository import files_of, online_store, online_url, project_name
from featurestore.report import Report, Reported, ReportTable

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


@dataclass(frozen=True)
class Imported(Reported):
    """What became of a repository of Feast's: what was written, what differs, what is refused, and the proof."""

    project: str
    """The project's name here."""
    feast: str
    """The version of Feast that read it."""
    read_from: str
    """ "files" or "registry"."""
    out: str
    written: dict[str, int]
    """How many definitions were written, by kind."""
    declared: dict[str, int]
    """How many Feast declares, by kind."""
    differences: list[Differs]
    refused: list[Refused]
    exports: list[Export]
    absent: list[str]
    """Libraries that its files import and that are not installed beside Feast: stand-ins took their place."""
    compared: list[ComparedFrames] | None
    """The proof, view by view; None where none was made."""
    files: list[str] = field(default_factory=list)

    @property
    def unexplained(self) -> int:
        """Values that differ for no known cause."""
        return sum(one.causes.get(UNEXPLAINED, 0) for one in self.compared or ())

    def report(self) -> Report:
        """What is shown of it on a terminal."""
        parts: list[str | ReportTable | Report] = [_summary(self)]
        rows = [[one.about, one.matter, one.there, one.here, one.why] for one in self.differences]
        if rows:
            parts.append(
                Report("What means another thing here", (ReportTable(("of", "what", "Feast", "here", "why"), rows),))
            )
        if self.refused:
            refused = [[one.kind, one.name, one.why, one.instead] for one in self.refused]
            parts.append(Report("Refused", (ReportTable(("kind", "name", "why", "instead"), refused),)))
        if self.exports:
            parts.append(
                Report(
                    "To be exported first",
                    tuple(f"{one.source} ({one.system}): {one.commands}" for one in self.exports),
                )
            )
        parts += [Report("Proof", tuple(_proof_parts(self)))]
        return Report(f"Feast's project {self.project}", tuple(parts))

    def markdown(self) -> str:
        """The README of what is written."""
        return "\n".join(_markdown(self)) + "\n"


def import_feast(options: ImportOptions) -> Imported:
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
        raise ConfigError(_nothing(repo, objects))
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
        found = _imported(objects, moved, options, compared, [*files, "README.md"])
        (beside / "README.md").write_text(found.markdown(), encoding="utf-8")
        beside.chmod(0o755)
        beside.rename(out)
    except BaseException:
        shutil.rmtree(beside)
        raise
    return found


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


def _nothing(repo: Path, objects: FeastObjects) -> str:
    failed = [f"{file.path}: {file.error}" for file in objects.files if file.error is not None]
    why = f" Files that do not load: {'; '.join(failed)}" if failed else ""
    return f"{repo} declares nothing of Feast's, and feature_store.yaml names no registry file that is there.{why}"


SHOWN = 5
"""Reasons that an error tells."""


def _nothing_moved(repo: Path, moved: Moved) -> str:
    """Why there is nothing to write, by name."""
    reasons = [f"{one.kind} {one.name}: {one.why}" for one in moved.refused]
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    return f"Nothing of {repo} can be taken over. {'; '.join(reasons[:SHOWN])}{more}"


def _compared(
    options: ImportOptions, python: Path, repo: Path, root: Path, registry: Path | None, moved: Moved, out: Path
) -> list[ComparedFrames] | None:
    there = any(view.has_data for view in moved.views.values())
    if options.prove is False or (options.prove is None and not there):
        return None
    if not there:
        raise ConfigError("--prove: none of the views that are taken over has rows at hand to compare")
    return prove(out, moved, ProofOptions(python, repo, root, registry))


def _tell_store(objects: FeastObjects, moved: Moved) -> None:
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


def _imported(
    objects: FeastObjects,
    moved: Moved,
    options: ImportOptions,
    compared: list[ComparedFrames] | None,
    files: Sequence[str],
) -> Imported:
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
    return Imported(
        project_name(objects), objects.feast, objects.read_from, str(options.out), written, declared, moved.differences,
        moved.refused, moved.exports, list(objects.absent), compared, list(files),
    )  # fmt: skip


# --- what is shown ------------------------------------------------------------------------------


def _summary(found: Imported) -> str:
    written = ", ".join(f"{count} {kind}" for kind, count in found.written.items())
    declared = ", ".join(f"{count} {kind}" for kind, count in found.declared.items())
    return (
        f"Feast {found.feast} declares {declared}. Written into {found.out}: {written}. Refused: {len(found.refused)}."
    )


def _proof_parts(found: Imported) -> Iterator[str | ReportTable]:
    if found.compared is None:
        yield "No frames were compared: no rows are at hand, or --no-prove said so."
        return
    cells, equal = sum(one.cells for one in found.compared), sum(one.equal for one in found.compared)
    yield f"Training frames of both stores over sample spines: {equal:,} of {cells:,} values are equal."
    rows = [[one.name, one.rows, one.cells, one.equal, _causes(one), one.problem or ""] for one in found.compared]
    yield ReportTable(("view", "rows", "values", "equal", "differ, by cause", "not compared"), rows)


def _causes(one: ComparedFrames) -> str:
    return ", ".join(f"{cause} {count:,}" for cause, count in sorted(one.causes.items()))


def _markdown(found: Imported) -> Iterator[str]:
    yield from (f"# {found.project}", "", f"Written by `featurestore import-feast`. {_summary(found)}", "")
    yield from _next_steps()
    if found.exports:
        yield from (
            "## To be exported first",
            "",
            "Only files are read here. Run these, and put what they write into the folders below this one.",
            "",
        )
        for one in found.exports:
            yield from (f"### {one.source}: {one.system}, into `{one.folder}/`", "", "```text", one.commands, "```", "")
    yield from (
        "## What means another thing here",
        "",
        "| of | what | Feast | here | why |",
        "| --- | --- | --- | --- | --- |",
    )
    yield from (_row(one.about, one.matter, one.there, one.here, one.why) for one in found.differences)
    yield ""
    yield from ("## Refused", "")
    if found.refused:
        yield from ("| kind | name | why | instead |", "| --- | --- | --- | --- |")
        yield from (_row(one.kind, one.name, one.why, one.instead) for one in found.refused)
    else:
        yield "Nothing."
    if found.absent:
        yield from (
            "",
            f"Not installed beside Feast, and imported by its files, so that stand-ins took their place: {', '.join(found.absent)}.",
        )
    yield from ("", *_markdown_proof(found))


def _next_steps() -> Iterator[str]:
    yield from ("## Next", "", "```text")
    yield from (
        "featurestore plan          # what apply would do, and what the rules cost",
        "featurestore apply",
        "featurestore materialize",
    )
    yield from ("```", "")


def _markdown_proof(found: Imported) -> Iterator[str]:
    yield from ("## Proof", "")
    if found.compared is None:
        yield "No frames were compared: no rows are at hand, or `--no-prove` said so."
        return
    cells, equal = sum(one.cells for one in found.compared), sum(one.equal for one in found.compared)
    yield from (f"Training frames of both stores over sample spines: {equal:,} of {cells:,} values are equal.", "")
    yield from (
        "| view | rows | values | equal | differ, by cause | not compared |",
        "| --- | --- | --- | --- | --- | --- |",
    )
    yield from (
        _row(one.name, one.rows, one.cells, one.equal, _causes(one), one.problem or "") for one in found.compared
    )
    causes = sorted({cause for one in found.compared for cause in one.causes})
    if causes:
        yield from ("", "| cause | what it is |", "| --- | --- |")
        yield from (_row(cause, CAUSES[cause]) for cause in causes)
        yield from (
            "",
            "The first value of each feature that differs, by cause:",
            "",
            "| of | key | at | Feast | here | cause |",
            "| --- | --- | --- | --- | --- | --- |",
        )
        first: dict[tuple[str, str], DifferingCell] = {}
        for one in found.compared:
            for cell in one.examples:
                first.setdefault((cell.of, cell.cause), cell)
        yield from (
            _row(cell.of, cell.key, cell.at, repr(cell.feast), repr(cell.here), cell.cause) for cell in first.values()
        )


def _row(*cells: object) -> str:
    return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"

"""Which files of a repository declare features: what featurestore.toml lists, or definitions.py, or the package features/."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from featurestore.config import FILE, Config
from featurestore.errors import ConfigError, DeclarationError

MODULE = "definitions.py"
PACKAGE = "features"

NO_MODULE = r"\.|test_|(conftest|__main__)\.py$"
"""Begins the name of a file of a package that declares nothing."""

LOOKED_AT = 1000
"""Entries of a folder that are looked at to see whether it declares features: a folder of data may hold any number."""

DECLARES = re.compile(
    rb"^\s*import\s+featurestore\b|\b(?:Entity|FeatureView|FeatureService|ParquetSource|CsvSource|JsonLinesSource|DeltaSource|IcebergSource|DatabaseSource|TableSource"
    rb"|DataFrameSource|PushSource|on_demand)\b",
    re.MULTILINE,
)
MENTIONS = re.compile(rb"^\s*(?:from|import)\s+featurestore\b", re.MULTILINE)


class DefinitionFiles(NamedTuple):
    """loaded: the files that are run. unloaded: those of the repository that are not, though an earlier version, which ran
    each Python file beside featurestore.toml, would have; none where featurestore.toml says which are."""

    loaded: tuple[Path, ...]
    unloaded: tuple[Path, ...] = ()
    passed_over: tuple[tuple[Path, str], ...] = ()
    """Folders of a package that look as if they declared features and are not run, each with why."""


def definition_files(config: Config) -> DefinitionFiles:
    """The files of definitions as they are now, sorted, each once.

    Raises ConfigError for a listed file that is not there, DeclarationError where it is not clear which files are meant.
    """
    root, listed = config.root, config.definitions
    if listed is not None:
        folders = [config.root / pattern for pattern in listed if pattern.endswith("/")]
        passed_over = tuple(found for folder in folders for found in _passed_over(folder))
        return DefinitionFiles(_listed(config, listed), passed_over=passed_over)
    module, package = root / MODULE, _package(root / PACKAGE)
    if module.is_file() and package:
        raise DeclarationError(
            f"{root} has both {MODULE} and the package {PACKAGE}/. Say in {FILE} which of them declare features: "
            f'definitions = ["{MODULE}"] where it imports what it needs of {PACKAGE}/, or definitions = ["{MODULE}", '
            f'"{PACKAGE}/"]'
        )
    loaded = (module,) if module.is_file() else package
    unloaded = tuple(sorted(path for path in root.glob("*.py") if path.is_file() and path not in loaded))
    declaring = [] if loaded else [path for path in unloaded if _may_declare(path)]
    if declaring:
        raise DeclarationError(
            f"{root} has neither {MODULE} nor a package {PACKAGE}/, which alone are loaded. Earlier versions ran every Python "
            f"file beside {FILE}. To load those that declare something, add to it: {line_of(declaring, root)}. Where features "
            "are declared in calls such as store.apply([…]) alone: definitions = []"
        )
    passed_over = _passed_over(root / PACKAGE) if loaded is package else ()
    return DefinitionFiles(loaded, unloaded, passed_over)


def _listed(config: Config, patterns: Sequence[str]) -> tuple[Path, ...]:
    found: set[Path] = set()
    for number, pattern in enumerate(patterns):
        if pattern.endswith("/"):
            matched = {*_package(config.root / pattern)}
        else:
            matched = {path for path in config.root.glob(pattern) if path.is_file()}
        if not matched and not re.search(r"[*?\[]", pattern):
            shown = config.model_dump(include={"definitions"})["definitions"][number]  # without what variables hold
            raise ConfigError(
                f"{config.root / FILE}: definitions[{number}]: there is no {'module in' if shown.endswith('/') else 'file'} '{shown}'"
            )
        found |= matched
    return tuple(sorted(found))


def _package(folder: Path) -> tuple[Path, ...]:
    """The modules of a package without its tests, and without what editors keep in hidden folders. Only folders with the
    name of a module are looked into, so that a folder of data is none, however much it holds. Links to folders are followed,
    to each folder once."""
    modules = [path for inner in _folders(folder) for path in _files(inner)]
    return tuple(sorted(path for path in modules if path.suffix == ".py" and not re.match(NO_MODULE, path.name)))


def _folders(folder: Path) -> list[Path]:
    """The folder and those below it that have the names of modules, each once: links after all that are none."""
    found: dict[Path, Path] = {}
    ahead, links = [folder] if folder.is_dir() else [], list[Path]()
    while ahead or links:
        inner = ahead.pop() if ahead else links.pop(0)
        if inner.resolve() in found:
            continue
        found[inner.resolve()] = inner
        with os.scandir(inner) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.isidentifier() and entry.name not in {"tests", "__pycache__"} and entry.is_dir():
                    (links if entry.is_symlink() else ahead).append(inner / entry.name)
    return list(found.values())


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        yield from (folder / entry.name for entry in entries if entry.name.endswith(".py") and entry.is_file())


def _passed_over(folder: Path) -> tuple[tuple[Path, str], ...]:
    """The folders of a package that have no name of a module, though one of their first entries seems to declare features."""
    found = []
    for inner in _folders(folder):
        with os.scandir(inner) as entries:
            odd = [entry.name for entry in entries if entry.is_dir() and not entry.name.isidentifier()]
        for name in sorted(name for name in odd if not name.startswith(".")):
            with os.scandir(inner / name) as entries:
                first = [entry.name for entry in itertools.islice(entries, LOOKED_AT)]
            if any(one.endswith(".py") and _may_declare(inner / name / one) for one in first):
                module = re.sub(r"\W|^(?=\d)", "_", name)
                found.append(
                    (inner / name, f"'{name}' is no name of a module; call the folder '{module}', or list its files")
                )
    return tuple(found)


def _may_declare(path: Path) -> bool:
    """Whether a file that is not run looks as if it declared features: it is read, and no more."""
    text = _text(path)
    return MENTIONS.search(text) is not None and DECLARES.search(text) is not None


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # nobody can have run it
        return b""


def line_of(files: Iterable[Path], root: Path) -> str:
    """The line of featurestore.toml that names these files."""
    named = ", ".join(f'"{path.relative_to(root).as_posix()}"' for path in files)
    return f"definitions = [{named}]"


def where_to_declare(config: Config) -> str:
    """What to say of a repository that declares nothing."""
    files = definition_files(config).loaded
    if files:
        named = ", ".join(path.relative_to(config.root).as_posix() for path in files)
        return f"Nothing is declared: no name in {named} holds a definition"
    if config.definitions is not None:
        return f"Nothing is declared: `definitions` in {FILE} names no file that is there"
    return f"Nothing is declared: {config.root} has no {MODULE} and no package {PACKAGE}/; featurestore init DIR writes an example"


def refuse_unloaded(files: DefinitionFiles, root: Path, removed: Mapping[str, Iterable[str]]) -> None:
    """DeclarationError where a plan would remove what a file declares that earlier versions ran.

    removed: the names, by kind, that are applied and not at hand.
    """
    declaring = [path for path in files.unloaded if _may_declare(path)]
    for name in sorted({name for names in removed.values() for name in names}):
        said = re.compile(rf"""["']{name}["']|\bdef\s+{name}\b""".encode())
        for path in declaring:
            if said.search(_text(path)):
                raise DeclarationError(
                    f"'{name}' is applied, and would be removed: {path.name} seems to declare it, and is not loaded. Earlier versions "
                    f"ran every Python file beside {FILE}. To load it, add to {FILE}: {line_of([*files.loaded, path], root)}. To "
                    f"remove '{name}': {line_of(files.loaded, root)}"
                )

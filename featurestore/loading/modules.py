"""The modules of a repository: found in its folder while it is loaded, run from their source, and forgotten afterwards.

What was imported before under the same name, by another repository or by the program itself, is put aside for that time and
stands again after it. So no repository sees another's modules, and each time that one is opened its files count as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import keyword
import linecache
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from pathlib import Path
from types import ModuleType
from typing import Any

from featurestore.declare.libraries import is_library

KEPT = sys.stdlib_module_names | {
    "__main__", "duckdb", "fastapi", "featurestore", "hiredis", "httptools", "lmdb", "numpy", "orjson", "pandas", "polars",
    "pyarrow", "pydantic", "redis", "rich", "typer", "uvicorn", "uvloop",
}  # fmt: skip
"""Names that no file of a repository takes: those of the standard library, of this product, and of what it is made of."""

PRIVATE = "_definitions_"
"""Begins the name of a module whose file cannot be imported by one of its own."""


class _FromSource(SourceFileLoader):
    """Runs what the file says now. Compiled files are told from newer ones by the second and the size alone."""

    def path_stats(self, path: Any) -> Any:
        """There is none, so that no compiled file is read or written."""
        raise OSError(f"{path} is compiled each time")

    def get_data(self, path: str) -> bytes:
        """The file's text; Python does not say in which file the NULs are that it refuses."""
        linecache.cache.pop(path, None)  # from which the code of functions is read, whose fingerprint is of what runs
        data = super().get_data(path)
        if b"\0" in data:
            line = data[: data.index(b"\0")].count(b"\n") + 1
            raise SyntaxError("there is a NUL in this line", (path, line, None, None))
        return data


class RepositoryModules(MetaPathFinder):
    """Finds modules in the folder of a repository, for the thread that loads it. files: those of its definitions."""

    def __init__(self, root: Path, files: Sequence[Path]) -> None:
        self.root = root
        self._thread = threading.get_ident()
        self._declaring = {path.relative_to(root).parts[0].removesuffix(".py") for path in files}
        self._found: set[str] = set()  # top-level names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module in the folder, or in a package that was found there."""
        del target
        top = fullname.partition(".")[0]
        if threading.get_ident() != self._thread or top in KEPT or (path is not None and top not in self._found):
            return None
        for folder in [str(self.root)] if path is None else path:
            loaders = (ExtensionFileLoader, EXTENSION_SUFFIXES), (_FromSource, SOURCE_SUFFIXES)
            spec = FileFinder(folder, *loaders).find_spec(fullname)
            if spec is None or (spec.loader is None and self._is_elsewhere(fullname, path)):
                continue
            self._found.add(top)
            return spec
        return None

    def _is_elsewhere(self, name: str, path: Sequence[str] | None) -> bool:
        """Whether a module goes before a mere folder of its name, which counts where it holds modules."""
        if name in self._declaring or path is not None:
            return False
        if not _has_modules(self.root / name):
            return True
        spec = PathFinder.find_spec(name, path)
        return spec is not None and spec.loader is not None and spec.origin is not None

    def run(self, path: Path) -> ModuleType:
        """The module of a file of definitions, by the name under which others import it where it has one."""
        name = self._name(path)
        if name is not None:
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin == str(path):
                return importlib.import_module(name)
        private = f"{PRIVATE}.{'.'.join(path.relative_to(self.root).with_suffix('').parts)}"
        spec = importlib.util.spec_from_file_location(private, path, loader=_FromSource(private, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[private] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def _name(self, path: Path) -> str | None:
        parts = list(path.relative_to(self.root).with_suffix("").parts)
        if len(parts) > 1 and parts[-1] == "__init__":
            parts.pop()
        plain = all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)
        return ".".join(parts) if plain and path.suffix == ".py" and parts[0] not in {*KEPT, "__init__"} else None

    def put_aside(self) -> dict[str, ModuleType]:
        """Take out of sys.modules what bears the name of a module of the folder; what an installed library bears stays,
        unless a file of definitions is meant by it."""
        there = {path.name.removesuffix(".py"): path for path in self.root.iterdir()}
        loaded = {name.partition(".")[0] for name in list(sys.modules)} & there.keys()
        aside = {
            name for name in loaded - self._declaring - KEPT if not _is_installed(name) and _has_modules(there[name])
        }
        return _take_out(aside | (loaded & self._declaring) - KEPT)

    def forget(self) -> None:
        """Take the folder's modules out of sys.modules."""
        _take_out(self._found | {PRIVATE})


def in_place_of_library(error: BaseException) -> tuple[str, Path] | None:
    """The name of a library and the user's file that is run in its place, where one is; None where none is.

    Python looks for modules beside the script, or in the working directory, before it looks among those that are installed.
    """
    ran = [Path(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__)]
    loaded = [getattr(sys.modules.get(name), "__file__", None) for name in sorted(KEPT - {"__main__", "featurestore"})]
    for file in [*map(Path, filter(None, loaded)), *ran]:
        name = file.parent.name if file.stem == "__init__" else file.stem
        beside = str(file.parents[1] if file.stem == "__init__" else file.parent)
        if name in KEPT - {"__main__"} and beside in map(os.path.abspath, sys.path) and not is_library(name, str(file)):
            return name, file
    return None


def in_place_error(error: BaseException, name: str) -> ImportError | None:
    """What to raise instead, where a name cannot be imported because a user's file is run in a library's place."""
    found = in_place_of_library(error)
    if found is None:
        return None
    return ImportError(
        f"{name} cannot be imported: {found[1]} is run in the place of the installed module {found[0]}, since Python looks beside "
        f"the script first. Give the file another name ({type(error).__name__}: {error})"
    )


def _has_modules(path: Path) -> bool:
    """Whether it is a module, or a folder that holds some."""
    return path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))


def _is_installed(name: str) -> bool:
    module = sys.modules.get(name)
    return module is not None and is_library(module.__name__, getattr(module, "__file__", None))


def _take_out(tops: set[str]) -> dict[str, ModuleType]:
    names = [name for name in list(sys.modules) if name.partition(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in names}


@contextmanager
def repository_modules(root: Path, files: Sequence[Path]) -> Iterator[RepositoryModules]:
    """Let imports find the modules of a repository's folder, before those of all other places."""
    finder = RepositoryModules(root, files)
    aside = finder.put_aside()
    sys.meta_path.insert(0, finder)
    try:
        yield finder
    finally:
        sys.meta_path.remove(finder)
        finder.forget()
        sys.modules.update(aside)

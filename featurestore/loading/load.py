"""A repository's definitions, by running the files that declare them."""

from __future__ import annotations

import linecache
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, cast

from featurestore.catalog import Catalog
from featurestore.config import FILE
from featurestore.declare.declaration import caller
from featurestore.declare.entity import Entity
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView
from featurestore.durable.forks import mutex
from featurestore.errors import DeclarationError
from featurestore.loading.files import DefinitionFiles
from featurestore.loading.modules import KEPT, RepositoryModules, repository_modules

DEFINITIONS = (Entity, Source, FeatureView, OnDemand, FeatureService)

_LOGGER = logging.getLogger("featurestore")

WAITS_SECONDS = 60.0
"""How long one waits for another thread of the process that loads a repository."""

_RUNNING: ContextVar[Path | None] = ContextVar("running", default=None)  # the file of definitions that is being run
_TURN = mutex()


def load(files: DefinitionFiles, root: Path) -> Catalog:
    """The catalog of a repository: every definition that a module-level name of its files of definitions holds, by itself
    or in a list, a tuple or a dict.

    root: its folder, whose modules they may import. What they print goes to stderr, what other threads print where it went
    before. Raises DeclarationError, which names
    the file and line, where one fails, and where one opens a store.
    """
    running, here = _RUNNING.get(), caller()
    if running is not None:
        raise DeclarationError(
            f"{here} opens a repository while {_shown(running)} is being loaded, which only declares features. Move it to "
            f"a file that is not loaded: definitions.py, the package features/, or what `definitions` in {FILE} lists are"
        )
    found: list[Any] = []
    for folder, why in files.passed_over:
        _LOGGER.warning("%s is not loaded: %s", _shown(folder), why)
    if not files.loaded:
        return Catalog()
    with _turn(here), repository_modules(root, files.loaded) as modules, redirect_stdout(_apart()):
        for path in files.loaded:
            found += _declared(vars(_run(path, modules)).values())
    return Catalog.of(found)


class _OwnOutput:
    """Standard output where one thread's goes to stderr."""

    def __init__(self, before: TextIO) -> None:
        self._before, self._thread = before, threading.current_thread()

    def __getattr__(self, name: str) -> Any:
        own = threading.current_thread() is self._thread
        return getattr(sys.stderr if own and sys.stderr is not None else self._before, name)


def _apart() -> TextIO:
    """Standard output for as long as this thread loads; whatever keeps it writes on as it does now."""
    before: TextIO | None = sys.stdout  # none where the process has no output at all
    return sys.stderr if before is None else cast("TextIO", _OwnOutput(before))


def _declared(values: Iterable[Any]) -> Iterator[Any]:
    """The definitions among a module's values, and in the lists, tuples and dicts that are among them."""
    for value in values:
        held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
        yield from (item for item in held if isinstance(item, DEFINITIONS))


@contextmanager
def _turn(here: str) -> Iterator[None]:
    """One thread at a time, as what loading changes belongs to the process. here: the user's line that waits."""
    if not _TURN.acquire(timeout=WAITS_SECONDS):
        raise DeclarationError(
            f"{here}: another thread has been loading definitions for {WAITS_SECONDS:.0f} s. Does it wait for this one?"
        )
    try:
        yield
    finally:
        _TURN.release()


def _run(path: Path, modules: RepositoryModules) -> ModuleType:
    before = _RUNNING.set(path)
    try:
        return modules.run(path)
    except DeclarationError:
        raise
    except (Exception, SystemExit) as error:  # a script that reads its arguments ends with the latter
        raise DeclarationError(_failure(error, path, modules.root)) from error
    finally:
        _RUNNING.reset(before)


def _failure(error: BaseException, path: Path, root: Path) -> str:
    """What to say of a file of definitions that failed: the last line of the repository's own that was running."""
    file, line = path, None
    for frame, number in traceback.walk_tb(error.__traceback__):
        ran = Path(frame.f_code.co_filename)
        if ran.is_relative_to(root) and "site-packages" not in ran.parts:
            file, line = ran, number
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename is not None and Path(error.filename).is_relative_to(root):
        file, line, text = Path(error.filename), error.lineno, error.msg
    place = _shown(file) if line is None else f"{_shown(file)}:{line}"
    by_way = "" if file == path else f" (loaded by {_shown(path)})"
    return f"{place} cannot be loaded{by_way}: {type(error).__name__}: {text}{_hint(error, root, linecache.getline(str(file), line or 0))}"


def _hint(error: BaseException, root: Path, line: str) -> str:
    """What helps where the name of a file is that of a library, which is used in its place. line: the text that failed."""
    if isinstance(error, ImportError) and "no known parent package" in str(error):
        return f". A file beside {FILE} is in no package: write import name, or from name import …, without the dot"
    used = re.findall(r"\w+", line)
    if isinstance(error, ImportError) and error.name:
        used = [error.name.partition(".")[0]]
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        used = [error.obj.__name__.partition(".")[0]]
    for top in used:
        own = [name for name in (f"{top}.py", f"{top}/__init__.py") if (root / name).exists()]
        if top in KEPT and own:
            return f". That is not {own[0]} beside {FILE}: the name is that of an installed module, so give the file another"
    return ""


def _shown(path: Path) -> str:
    """A path as messages show where something was declared."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

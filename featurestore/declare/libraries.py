"""Libraries as an on-demand function sees them: which code is a library's, its dotted names, and which are impure."""

from __future__ import annotations

import builtins
import functools
import sys
import sysconfig
from enum import EnumMeta
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TypeGuard

CLOCK = "which reads a clock. Take RequestTime() as an input instead"
CHANCE = "which is random. Compute the value outside and take it as an input"
OUTSIDE = "which reaches outside the function. Read what it needs beforehand and take it as an input"
SPEAKS = "which writes outside the function. Return a value or raise an error instead"
HIDDEN = "which hides what the function depends on. Write the code out"
PROCESS = "which differs between processes. Use hashlib or a value of your own"
MACHINE = "which depends on the machine it runs on. Take what it tells as an input"
MEMORY = "which returns whatever lay in memory. Use numpy.zeros or numpy.full"

IMPURE = {
    name: why
    for why, names in {
        CLOCK: "time datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today datetime.date.today"
        " pandas.Timestamp.now pandas.Timestamp.utcnow pandas.Timestamp.today",
        CHANCE: "random numpy.random uuid secrets",
        OUTSIDE: "os posix nt posixpath ntpath pathlib.Path io shutil tempfile glob fileinput builtins.open builtins.input"
        " builtins.breakpoint requests urllib.request urllib3 http.client httpx aiohttp socket ssl"
        " subprocess multiprocessing threading asyncio sqlite3 redis numpy.load numpy.fromfile"
        " numpy.loadtxt numpy.genfromtxt sys.argv sys.stdin",
        SPEAKS: "builtins.print logging warnings.warn sys.stdout sys.stderr IPython.display",
        HIDDEN: "builtins.eval builtins.exec builtins.compile builtins.__import__ builtins.globals builtins.locals"
        " builtins.vars builtins.setattr builtins.delattr importlib inspect gc ctypes sys.modules sys._getframe",
        PROCESS: "builtins.hash builtins.id",
        MACHINE: "sys.platform sys.version sys.version_info platform locale getpass datetime.date.fromtimestamp",
        MEMORY: "numpy.empty numpy.empty_like",
    }.items()
    for name in names.split()
}
"""Dotted names that a pure function never mentions, each with everything below it, and why."""

READ_NOW = frozenset({"numpy.datetime64", "pandas.Timestamp", "pandas.to_datetime"})
"""Given the text "now" or "today", these read the clock."""


def impurity(dotted: str) -> str | None:
    """Why a pure function may not mention a library's name and what to do instead; None where it may."""
    parts = dotted.split(".")
    paths = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return next((IMPURE[path] for path in paths if path in IMPURE), None)


def is_library(module: str | None, file: str | None) -> bool:
    """Whether code is installed, so that its version stands for it; else it is the user's, and its source counts."""
    top = (module or "").partition(".")[0]
    if top == "featurestore":  # this product's own, from a checkout too
        return True
    if file is None or file.startswith("<frozen"):
        return top in sys.stdlib_module_names
    return _is_installed(file)


def is_users(value: object) -> TypeGuard[FunctionType]:
    """Whether a value is a function of the user's own repository or notebook."""
    return isinstance(value, FunctionType) and not is_library(value.__module__, value.__code__.co_filename)


@functools.lru_cache(maxsize=1024)
def _is_installed(file: str) -> bool:
    homes = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    for path in (Path(file), Path(file).resolve()):
        if {"site-packages", "dist-packages"} & set(path.parts):
            return True
        if any(path.is_relative_to(home) or path.is_relative_to(home.resolve()) for home in homes):
            return True
    return False


def is_opened(value: object, attribute: str) -> bool:
    """Whether a dotted name is looked up further: in the user's own modules, and for the members of their enums."""
    if isinstance(value, ModuleType):
        return not is_library(value.__name__, getattr(value, "__file__", None))
    return isinstance(value, EnumMeta) and attribute in value.__members__ and library_name(value) is None


def library_name(value: object) -> str | None:
    """The shortest dotted name under which a library offers a module, class or function; None if none does.

    The shortest, because libraries move their inner modules about between versions.
    """
    if isinstance(value, ModuleType):
        return value.__name__ if is_library(value.__name__, getattr(value, "__file__", None)) else None
    name, owner = getattr(value, "__name__", None), getattr(value, "__self__", None)
    if not isinstance(name, str):
        return None
    if vars(builtins).get(name) is value:
        return f"builtins.{name}"
    if isinstance(owner, type):  # a class method, such as datetime.now
        prefix = library_name(owner)
        return prefix and f"{prefix}.{name}"
    for home in (getattr(value, "__module__", None), type(value).__module__, type(owner).__module__):
        parts = home.split(".") if isinstance(home, str) else []
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            module = sys.modules.get(path)
            offered = vars(module).get(name) if isinstance(module, ModuleType) else None
            if offered is value and library_name(module):
                return f"{path}.{name}"
    return None

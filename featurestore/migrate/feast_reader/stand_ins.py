"""Stand-ins for what is not installed beside Feast, so that definitions which only mention it can be read."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import types
from pathlib import Path
from typing import Any


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for libraries that are not installed beside Feast, so that definitions which only mention them can be read."""

    asked: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """A module of which every name is a stand-in; none while Feast itself looks for what is installed."""
        del path, target
        if not _for_definitions():
            return None
        top = fullname.partition(".")[0]
        if top in {"feast", *sys.builtin_module_names} or top.startswith("_") or (Path.cwd() / top).exists():
            return None
        if fullname == top and top not in self.asked:
            self.asked.append(top)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        """A stand-in."""
        return StandInModule(spec.name)

    def exec_module(self, module: Any) -> None:
        """There is nothing to run."""


def _for_definitions() -> bool:
    """Whether an import is one of a file of the repository's, or one that Feast does when such a file imports from it."""
    own, feasts = str(Path.cwd()) + os.sep, f"{os.sep}feast{os.sep}"
    frame: Any = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith("<frozen") and f"{os.sep}importlib{os.sep}" not in file:
            if file.startswith(own) and "site-packages" not in file:
                return True
            if feasts not in file:
                return False
        frame = frame.f_back
    return False


class StandInModule(types.ModuleType):
    """A module that is not installed."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (StandIn,), {"__module__": self.__name__})


class _StandInKind(type):
    """What a name of such a module is: a class, so that it can be derived from and annotate; it cannot be worked with."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (StandIn,), {"__module__": cls.__module__})

    def __or__(cls, other: Any) -> Any:
        return Any

    __ror__ = __or__


class StandIn(metaclass=_StandInKind):
    """A stand-in, and what calling one gives."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __class_getitem__(cls, _: Any) -> Any:
        return cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn()

    def __call__(self, *args: Any, **_: Any) -> Any:
        """As a decorator it gives the function back."""
        return args[0] if len(args) == 1 and isinstance(args[0], types.FunctionType) else StandIn()

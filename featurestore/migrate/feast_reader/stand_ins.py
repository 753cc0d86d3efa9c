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
    """Stands for libraries that are not installed beside Feast, so that definitions which only mention them can be read. project:
    the folder of what is read, whose modules may import one another and such libraries."""

    asked: list[str] = []

    def __init__(self, project: Path) -> None:
        self._project = project.resolve()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """A module of which every name is a stand-in; none while Feast itself looks for what is installed."""
        del path, target
        if not self._for_definitions(directly=fullname.startswith("feast.")):
            return None
        top = fullname.partition(".")[0]
        if fullname == "feast" or top in sys.builtin_module_names or top.startswith("_"):
            return None
        if top != "feast" and any((folder / top).exists() for folder in (Path.cwd(), self._project)):
            return None
        if top in {fullname, "feast"}:
            self.asked.append(fullname)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def _for_definitions(self, *, directly: bool) -> bool:
        """Whether an import is one of a file of the project's, or, if not directly, one that Feast does when such a file imports
        from it."""
        own, feasts = str(self._project) + os.sep, f"{os.sep}feast{os.sep}"
        frame: Any = sys._getframe(2)
        while frame is not None:
            file = frame.f_code.co_filename
            if not file.startswith("<frozen") and f"{os.sep}importlib{os.sep}" not in file:
                if file.startswith(own) and "site-packages" not in file:
                    return True
                if directly or feasts not in file:
                    return False
            frame = frame.f_back
        return False

    def create_module(self, spec: Any) -> Any:
        """A stand-in."""
        return StandInModule(spec.name)

    def exec_module(self, module: Any) -> None:
        """There is nothing to run."""


class StandInModule(types.ModuleType):
    """A module that is not installed."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return stand_in(name, self.__name__)


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


def stand_in(name: str, module: str) -> Any:
    """What a name of a module is that is not there: a class, and one of sources where it is called so."""
    if name.endswith("Source"):
        return _source_kind(name, module)
    return type(name, (StandIn,), {"__module__": module})


def _source_kind(name: str, module: str) -> Any:
    """A kind of source, so that views may be over it; what it is given are its attributes."""
    from feast.data_source import DataSource

    def made(self: Any, *_: Any, **said: Any) -> None:
        named = said.get("name") or said.get("table") or said.get("table_ref") or said.get("topic") or name
        time = said.get("timestamp_field") or said.get("event_timestamp_column") or ""
        more = ("created_timestamp_column", "field_mapping", "description", "tags", "owner")
        given = {word: said[word] for word in more if said.get(word)}
        DataSource.__init__(self, name=str(named), timestamp_field=time, **given)
        for word, value in said.items():
            if isinstance(value, str) and not hasattr(self, word):
                setattr(self, word, value)

    kind: Any = type(name, (DataSource,), {"__module__": module, "__init__": made})
    kind.__abstractmethods__ = frozenset()
    return kind

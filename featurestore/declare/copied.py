"""Copies of functions that keep what these were when they were read: their code, and what each name in it stood for."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CellType, CodeType, FunctionType, NoneType, SimpleNamespace
from typing import Any

from featurestore.declare.literals import canonical

Read = tuple[FunctionType, CodeType, Mapping[str, object]]
"""A function, its code, and by each name that the code reads of outside, dots included, what that stands for."""


def copies(functions: Sequence[Read]) -> tuple[FunctionType, ...]:
    """A copy of each function: the globals of a copy are what its function reads and nothing else, with the copies in place
    of the functions, and its defaults and closure are its own."""
    made = {function: _copy(function, code, read) for function, code, read in functions}
    for function, _, read in functions:
        names = made[function].__globals__
        for path, value in read.items():
            *modules, name = path.split(".")
            home = names
            for module in modules:
                home = vars(home.setdefault(module, SimpleNamespace()))
            home[name] = made.get(value, value) if isinstance(value, FunctionType) else value
    return tuple(made.values())


def _copy(function: FunctionType, code: CodeType, read: Mapping[str, object]) -> FunctionType:
    names: dict[str, Any] = {"__builtins__": builtins, "__name__": function.__module__}
    closure = tuple(CellType(read[name]) if name in read else CellType() for name in code.co_freevars)
    copy = FunctionType(code, names, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = dict(function.__kwdefaults__ or {}) or None
    copy.__qualname__, copy.__doc__ = function.__qualname__, function.__doc__
    return copy


def is_compiled_as_written(function: FunctionType) -> bool:
    """Whether Python itself compiled the file, and not something that rewrites it, as pytest does with assert. A cell of a
    notebook is no file, and never changes under its name."""
    loader = type(function.__globals__.get("__loader__"))
    if loader is NoneType:
        return Path(function.__code__.co_filename).is_file()
    return getattr(loader, "source_to_code", None) is SourceFileLoader.source_to_code


def is_same_code(one: CodeType, other: CodeType) -> bool:
    """Whether two pieces of code, compiled by one Python, do the same; where they stand does not matter."""
    return _parts(one) == _parts(other)


def _parts(code: CodeType) -> tuple[object, ...]:
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
    return code.co_code, code.co_exceptiontable, names, counts, tuple(map(_constant, code.co_consts))


def _constant(value: object) -> object:
    if isinstance(value, CodeType):
        return _parts(value)
    token = canonical(value)
    return repr(value) if token is None else token

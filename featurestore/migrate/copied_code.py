"""The code of a user's functions, copied with what it needs of its module: imports, constants, helpers. Nothing is run."""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KNOWN = {
    "pd": "import pandas as pd",
    "np": "import numpy as np",
    "pandas": "import pandas",
    "numpy": "import numpy",
    "math": "import math",
    "json": "import json",
    "datetime": "from datetime import datetime",
    "timedelta": "from datetime import timedelta",
    "timezone": "from datetime import timezone",
    "Any": "from typing import Any",
    "Dict": "from typing import Dict",
    "List": "from typing import List",
    "Optional": "from typing import Optional",
    "Union": "from typing import Union",
}
"""What names mean in code of which the imports are not known, as in a registry."""


class UncopiedError(ValueError):
    """A function cannot be copied; the message says why."""


@dataclass
class CopiedModule:
    """The copied parts of one of the user's modules, each once, in their order there.

    name: of the module that is written. source: what the user's is called. path: where it lies, None where nothing says it.
    """

    name: str
    source: str
    tree: ast.Module
    imports: dict[str, None] = field(default_factory=dict)
    parts: dict[int, str] = field(default_factory=dict)
    path: Path | None = None

    def take_over(self, other: CopiedModule) -> None:
        """Have what was copied of the same module for another function, too."""
        self.parts.update(other.parts)
        self.imports.update(other.imports)

    def text(self) -> str:
        """The module."""
        future = [one for one in self.imports if one.startswith("from __future__")]
        plain = sorted(one for one in self.imports if one.startswith("import "))
        named: dict[str, list[str]] = {}
        for one in sorted(self.imports):
            if one.startswith("from ") and one not in future:
                module, _, name = one.removeprefix("from ").partition(" import ")
                named.setdefault(module, []).append(name)
        lines = [*plain, *(f"from {module} import {', '.join(names)}" for module, names in named.items())]
        blocks = [
            f'"""Functions of {self.source}, as they are there."""',
            *future,
            *(["\n".join(lines)] if lines else []),
        ]
        text, before = "\n\n".join(blocks), ""
        for _, part in sorted(self.parts.items()):
            wide = part.startswith(WIDE) or before.startswith(WIDE)
            text += ("\n\n\n" if wide else "\n" if before else "\n\n") + part
            before = part
        return text + "\n"


FindModule = Callable[[CopiedModule, str, int], tuple[CopiedModule, str] | None]
"""The user's module that a module of theirs imports from, by its name and the number of dots before it, as copied so far, and its text;
None where it is none of theirs."""


WIDE = ("def ", "async ", "class ", "@")
"""Begins a part of a module with two empty lines before and after it."""


def parsed(path: Path) -> tuple[str, ast.Module]:
    """A module's text and tree; UncopiedError where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return text, ast.parse(text)
    except (OSError, ValueError, SyntaxError) as error:
        raise UncopiedError(f"{path.name} cannot be read: {error}") from None


def copy_function(
    module: CopiedModule, text: str, name: str, line: int | None, *, find: FindModule | None = None
) -> None:
    """Copy a function that is at the top of a module, with all that it needs of it, and of other modules of the user's. text: the
    user's module."""
    found = next(
        (
            node
            for node in module.tree.body
            if isinstance(node, ast.FunctionDef)
            and node.name == name
            and line in {None, node.lineno, *(one.lineno for one in node.decorator_list)}
        ),
        None,
    )
    if found is None:
        raise UncopiedError(f"'{name}' is not a function at the top of its module, whose code alone can be copied")
    _Copier(module, text, find).take(found)


class _Copier:
    def __init__(self, module: CopiedModule, text: str, find: FindModule | None = None) -> None:
        self._module, self._lines, self._find = module, text.splitlines(), find
        self._bound: dict[str, list[ast.stmt]] = {}
        for node in _statements(module.tree.body):
            for name in _binds(node):
                self._bound.setdefault(name, []).append(node)

    def take(self, node: ast.stmt) -> None:
        """Copy a statement and what it needs."""
        if node.lineno in self._module.parts:
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            raise AssertionError("imports are taken by name")
        self._module.parts[node.lineno] = self._text(node)
        for name in sorted(_free_names(node)):
            self._need(name)

    def _need(self, name: str) -> None:
        if name not in self._bound:
            return  # of the language, or what fails there too
        for node in self._bound[name]:
            if isinstance(node, ast.Import):
                self._import(node, name)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node, name)
            else:
                self.take(node)

    def _import(self, node: ast.Import, name: str) -> None:
        for alias in node.names:
            if (alias.asname or alias.name.partition(".")[0]) == name:
                _refuse_feast(alias.name, name)
                self._module.imports[f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")] = None

    def _import_from(self, node: ast.ImportFrom, name: str) -> None:
        module = "." * node.level + (node.module or "")
        _refuse_feast(module, name)
        other = None if self._find is None else self._find(self._module, node.module or "", node.level)
        if node.level and other is None:
            raise UncopiedError(
                f"it uses '{name}', which another module of the repository declares ({module}); move it beside the function"
            )
        where = module if other is None else other[0].name
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                line = f"from {where} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
                is_new = line not in self._module.imports
                self._module.imports[line] = None
                if other is not None and is_new:
                    _Copier(*other, self._find).take_named(alias.name)

    def take_named(self, name: str) -> None:
        """Copy what a name of the module stands for."""
        if name not in self._bound:
            raise UncopiedError(
                f"it uses '{name}', which stands at the top of {self._module.source} under no such name"
            )
        self._need(name)

    def _text(self, node: ast.stmt) -> str:
        """A statement as it is written there; a function without the decorators of Feast's, and with its imports at the top."""
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            kept = [one for one in node.decorator_list if not _is_feasts(one)]
            if any(isinstance(one, (ast.Import, ast.ImportFrom)) for one in ast.walk(node)):
                return self._without_imports(node, kept)
            decorators = [f"@{ast.unparse(one)}" for one in kept]
            return "\n".join([*decorators, self._lines_of(node)])
        return self._lines_of(node)

    def _lines_of(self, node: ast.stmt) -> str:
        return textwrap.dedent("\n".join(self._lines[node.lineno - 1 : node.end_lineno]))

    def _without_imports(self, node: ast.FunctionDef | ast.AsyncFunctionDef, kept: list[ast.expr]) -> str:
        """A function whose imports stand at the top of the module, which loses its comments."""
        changed = _Hoisted(self._module.imports).visit(ast.parse(ast.unparse(node)).body[0])
        changed.decorator_list = kept
        return ast.unparse(ast.fix_missing_locations(changed))


class _Hoisted(ast.NodeTransformer):
    """Takes imports out of a function."""

    def __init__(self, imports: dict[str, None]) -> None:
        self._imports = imports

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Whatever has a body keeps one."""
        had = bool(getattr(node, "body", None))
        changed = super().generic_visit(node)
        if had and not getattr(changed, "body", None):
            vars(changed)["body"] = [ast.Pass()]
        return changed

    def visit_Import(self, node: ast.Import) -> None:
        """Goes to the top."""
        for alias in node.names:
            _refuse_feast(alias.name, alias.name)
            self._imports[f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")] = None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Goes to the top."""
        module = "." * node.level + (node.module or "")
        _refuse_feast(module, module)
        if node.level:
            raise UncopiedError(
                f"it imports from another module of the repository ({module}); move what it needs beside it"
            )
        for alias in node.names:
            self._imports[f"from {module} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")] = None


def _refuse_feast(module: str, name: str) -> None:
    if module.partition(".")[0] == "feast":
        raise UncopiedError(f"it uses '{name}' of Feast")


def _is_feasts(decorator: ast.expr) -> bool:
    """Whether a decorator makes a view of Feast's."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
    return name.endswith("feature_view") or name == "transformation"


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements at the top of a module, those within `if` and `try` among them."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements(
                [*node.body, *(one for handler in node.handlers for one in handler.body), *node.orelse]
            )
        else:
            yield node


def _binds(node: ast.stmt) -> Iterator[str]:
    """The names that a statement gives to something."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Import):
        yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))


def _free_names(node: ast.stmt) -> set[str]:
    """The names that a statement takes from around it, and more: those of its own that are also there do no harm."""
    decorators = getattr(node, "decorator_list", [])
    left_out = {id(inner) for one in decorators if _is_feasts(one) for inner in ast.walk(one)}
    found = {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and id(one) not in left_out}
    return found - _locals(node)


def _locals(node: ast.stmt) -> set[str]:
    """The parameters of a function, and what it assigns."""
    if not isinstance(node, ast.FunctionDef):
        return set()
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    stored = {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return {one.arg for one in named if one is not None} | stored


def copy_text(module: CopiedModule, text: str) -> str:
    """Copy a function of which the text alone is known; its name."""
    try:
        tree = ast.parse(textwrap.dedent(text))
    except SyntaxError as error:
        raise UncopiedError(f"its text cannot be parsed: {error.msg}") from None
    found = next((node for node in tree.body if isinstance(node, ast.FunctionDef)), None)
    if found is None:
        raise UncopiedError("its text is no function")
    own = CopiedModule(module.name, module.source, tree)
    _Copier(own, textwrap.dedent(text)).take(found)
    module.imports.update(own.imports)
    module.parts[len(module.parts) + 1] = own.parts[found.lineno]
    imported = {name.rpartition(" ")[2].partition(".")[0] for name in own.imports}
    missing = _free_names(found) - set(dir(builtins)) - imported - {found.name}
    unknown = sorted(name for name in missing if name not in KNOWN)
    if unknown:
        raise UncopiedError(f"nothing says what {', '.join(unknown)} is: a registry holds the function's text alone")
    module.imports.update(dict.fromkeys(KNOWN[name] for name in sorted(missing)))
    return found.name


def mentioned(module: CopiedModule, name: str) -> tuple[set[str], bool]:
    """The words that a copied function may read columns by, and whether it reads its parameter in no other way."""
    words: set[str] = set()
    only = True
    for part in module.parts.values():
        tree = ast.parse(part)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            elif isinstance(node, ast.Attribute):
                words.add(node.attr)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == name and node.args.args:
                only = _is_read_by_name(node, node.args.args[0].arg)
    return words, only


def _is_read_by_name(function: ast.FunctionDef, parameter: str) -> bool:
    """Whether a function reads its parameter by names of columns that stand in its text."""
    inside: set[int] = set()
    for node in ast.walk(function):
        if (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and _is_text(node.slice)) or (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.attr in {"get", "index"}
        ):
            inside.add(id(node.value))
    uses = [node for node in ast.walk(function) if isinstance(node, ast.Name) and node.id == parameter]
    return all(id(node) in inside for node in uses)


def _is_text(node: ast.expr) -> bool:
    items = node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]
    return all(isinstance(item, ast.Constant) and isinstance(item.value, str) for item in items)

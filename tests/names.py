"""What the product itself calls a column, read from its code, so that a name that is new there is tried as well."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import featurestore

__all__ = ["own_names"]

SQL = re.compile(r"\b(SELECT|FROM|JOIN|WHERE|ORDER BY|GROUP BY|AS)\b")
WORD = re.compile(r"(?<![\w'])[a-z_]\w*")
NAME = re.compile(r"[A-Za-z_][\w ]{0,19}")
MAKERS = {"table", "field", "append_column", "schema", "from_arrays"}
"""Functions of Arrow that are given names of columns."""


@cache
def own_names() -> list[str]:
    """Every word that stands in SQL, or names a column of Arrow: more than there are columns, and none too few."""
    found: set[str] = set()
    for path in Path(featurestore.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found.update(_names(node))
    return sorted(found)


def _names(node: ast.AST) -> Iterator[str]:
    text = _text(node)
    if text is not None and SQL.search(text):
        yield from WORD.findall(text)
    if isinstance(node, ast.Subscript):
        yield from _named(node.slice)
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in MAKERS:
        for argument in node.args:
            for inner in ast.walk(argument):
                yield from _named(inner)
    elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") != "__all__":
        for value in [node.value, *getattr(node.value, "elts", ())]:
            yield from _named(value)
    elif isinstance(node, ast.JoinedStr):
        yield from _named(node)


def _named(node: ast.AST) -> Iterator[str]:
    text = _text(node)
    if text is not None and NAME.fullmatch(text):
        yield text


def _text(node: ast.AST) -> str | None:
    """A text as it is written, with 0 where it is put together: `f"k{i}"` is k0."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

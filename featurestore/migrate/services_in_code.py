"""Lists of features that programs ask for by their names, `["view:feature", …]`, found in a repository's code."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ASKING = {"get_online_features", "get_online_features_async", "get_historical_features"}
OPTIONS = {"features", "feature_refs"}
APART = {"site-packages", "node_modules", "__pycache__"}
LONGEST_BYTES = 20_000_000
"""Of a notebook or a module that is looked at."""


@dataclass(frozen=True)
class AskedList:
    """A list of features as a program asks for it. references: None where the program makes it while it runs."""

    file: str
    line: int
    references: tuple[str, ...] | None


def asked_lists(root: Path) -> list[AskedList]:
    """The lists in all modules and notebooks below a folder, in the order of files and lines."""
    found: list[AskedList] = []
    for path in _programs(root):
        below = path.relative_to(root)
        for text, first in _texts(path):
            try:
                tree = ast.parse(text)
            except (SyntaxError, ValueError):
                continue
            found += [AskedList(str(below), first + one.line, one.references) for one in _of_tree(tree)]
    return found


def declaring_notebooks(root: Path) -> list[Path]:
    """The notebooks below a folder in whose text views are declared."""
    notebooks = [path for path in _programs(root) if path.suffix == ".ipynb"]
    return [path for path in notebooks if any("FeatureView(" in text for text, _ in _texts(path))]


def _programs(root: Path) -> Iterator[Path]:
    """Modules and notebooks below a folder."""
    for path in sorted(root.rglob("*")):
        if any(part in APART or part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if path.suffix in {".py", ".ipynb"} and path.is_file() and path.stat().st_size <= LONGEST_BYTES:
            yield path


def _texts(path: Path) -> Iterator[tuple[str, int]]:
    """The code of a file, with the number that its lines count from; of a notebook each cell's."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return
    if path.suffix == ".py":
        yield text, 0
        return
    try:
        cells = json.loads(text).get("cells", [])
    except (ValueError, AttributeError):
        return
    lines: list[str] = []
    for cell in cells:
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", "")
            code = "".join(source) if isinstance(source, list) else str(source)
            lines += [f"# {line}" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines()]
    whole = "\n".join(lines)
    try:
        ast.parse(whole)
    except SyntaxError:  # a cell that is no Python leaves out itself alone
        for cell in cells:
            source = cell.get("source", "") if isinstance(cell, dict) else ""
            yield "".join(source) if isinstance(source, list) else str(source), 0
        return
    yield whole, 0


def _of_tree(tree: ast.Module) -> Iterator[AskedList]:
    lists = _named_lists(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called not in ASKING:
            continue
        given = next((word.value for word in node.keywords if word.arg in OPTIONS), None)
        if given is None and called.startswith("get_online") and node.args:
            given = node.args[0]
        elif given is None and len(node.args) > 1:
            given = node.args[1]
        if given is None:
            continue
        references = _references(given, lists)
        if references is None and _is_service(given):
            continue
        yield AskedList("", node.lineno, references)


def _named_lists(tree: ast.Module) -> dict[str, ast.expr]:
    """Lists that have a name, of which there is one."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found.setdefault(node.target.id, []).append(node.value)
    return {name: values[0] for name, values in found.items() if len({ast.dump(value) for value in values}) == 1}


def _references(node: ast.expr, lists: dict[str, ast.expr], depth: int = 0) -> tuple[str, ...] | None:
    """The references of a list that stands in the text; None where it is made of anything else."""
    if depth > 5:
        return None
    if isinstance(node, ast.Name) and node.id in lists:
        return _references(lists[node.id], lists, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _references(node.left, lists, depth + 1), _references(node.right, lists, depth + 1)
        return None if left is None or right is None else (*left, *right)
    if not isinstance(node, (ast.List, ast.Tuple)):
        return None
    texts = [item.value for item in node.elts if isinstance(item, ast.Constant) and isinstance(item.value, str)]
    return tuple(dict.fromkeys(texts)) if texts and len(texts) == len(node.elts) else None


def _is_service(node: ast.expr) -> bool:
    """Whether what is asked for looks like a service, and no list."""
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return called in {"get_feature_service", "FeatureService"}
    return isinstance(node, ast.Name) and "service" in node.id.lower()

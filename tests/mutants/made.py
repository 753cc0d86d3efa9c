"""The mutants of a module."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

from tests.mutants.operators import operators

__all__ = ["Mutant", "mutants_of"]


@dataclass(frozen=True)
class Mutant:
    """A module with one small fault: in which function it lies (empty: in none), and the line as it was and as it is."""

    function: str
    number: int
    was: str
    now: str
    code: str

    def diff(self, module: str) -> str:
        """What a reader needs to see of it."""
        return f"{module}:{self.number} {self.function}\n    - {self.was}\n    + {self.now}"


def mutants_of(path: Path) -> list[Mutant]:
    """Every mutant of a file that Python can read, each once, from the first line on."""
    source = path.read_text()
    tree = get_ast(source)
    nodes = list(ast_nodes(tree))
    made: dict[str, Mutant] = {}
    for operator in operators():
        wanted = [_counts(node) for node in nodes for _ in operator.mutation_positions(node)]
        for occurrence in (number for number, counts in enumerate(wanted) if counts):
            code = mutate_code(source, operator, occurrence)
            if code is not None and code not in made and _compiles(code):
                made[code] = _mutant(source, code)
    return sorted(made.values(), key=lambda mutant: (mutant.number, mutant.now))


def _counts(node: Any) -> bool:
    """Whether a node says what is computed: no annotation, no decorator, no assert, which is written for the type checker,
    and no `strict=True`, which only says of a zip that what it is given is of one length."""
    child, parent = node, node.parent
    while parent is not None:
        if child.type in {"assert_stmt", "decorator"}:
            return False
        if parent.type == "argument" and parent.children[0].get_code().strip() == "strict":
            return False
        if parent.type == "annassign" and child is parent.children[1]:
            return False
        if parent.type == "param" and child is parent.annotation or parent.type == "tfpdef":
            return False
        if parent.type == "funcdef" and child is parent.annotation:
            return False
        child, parent = parent, parent.parent
    return True


def _compiles(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def _mutant(source: str, code: str) -> Mutant:
    before, after = source.splitlines(), code.splitlines()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    _, low, high, other, end = next(block for block in matcher.get_opcodes() if block[0] != "equal")
    was = " ".join(line.strip() for line in before[low:high])
    now = " ".join(line.strip() for line in after[other:end])
    return Mutant(_function(source, low + 1), low + 1, was, now, code)


def _function(source: str, number: int) -> str:
    """The dotted name of the innermost class or function that a line lies in."""
    return ".".join(_around(ast.parse(source), number))


def _around(node: ast.AST, number: int) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if child.lineno <= number <= (child.end_lineno or 0):
                yield child.name
                yield from _around(child, number)

"""What `make test-long` does at greater length than `make test` is marked, so that it runs there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
SCALED = {"draws", "PERCENT"}


def scaled(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """The tests whose own lines ask how much they are to do."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            inside = (each for line in node.body for each in ast.walk(line))
            if SCALED & {each.id for each in inside if isinstance(each, ast.Name)}:
                yield node


def test_a_test_that_does_more_by_itself_is_marked() -> None:
    """Of those that Hypothesis draws it is seen as they are collected; no other is known by anything but its mark."""
    texts = {path: path.read_text() for path in HERE.rglob("test_*.py") if not path.is_relative_to(HERE / "platforms")}
    found = {
        f"{path.relative_to(HERE)}: {test.name}": [ast.unparse(each) for each in test.decorator_list]
        for path, text in texts.items() if "tests.draws" in text for test in scaled(ast.parse(text))
    }  # fmt: skip
    assert len(found) > 3
    assert [name for name, marks in found.items() if "at_length" not in marks] == []

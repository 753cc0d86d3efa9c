"""Tests wait for what they wait for, however busy the machine is."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
BY_HTTP = {"get", "head", "post", "put", "patch", "delete", "options", "request", "stream", "Client", "AsyncClient"}


def test_a_request_of_a_test_says_how_long_it_waits() -> None:
    """Else httpx gives it five seconds, which a machine that does a dozen other things may take."""
    hasty = [
        f"{path.relative_to(TESTS)}:{call.lineno}"
        for path in TESTS.rglob("*.py")
        if "golden" not in path.parts
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and (call.func.value.id, call.func.attr in BY_HTTP) == ("httpx", True)
        and not {"timeout", "transport", None} & {word.arg for word in call.keywords}
    ]
    assert hasty == []

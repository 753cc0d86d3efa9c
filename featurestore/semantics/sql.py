"""Names and literals in SQL text, and integer division that floors."""

from __future__ import annotations

__all__ = ["floor_div", "literal", "quote"]


def quote(name: str) -> str:
    """An identifier, safe whatever characters it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def floor_div(expression: str, divisor: int) -> str:
    """⌊expression / divisor⌋ of integers; DuckDB's own `//` truncates, which is wrong before 1970."""
    return f"(({expression}) - ((({expression}) % {divisor}) + {divisor}) % {divisor}) // {divisor}"

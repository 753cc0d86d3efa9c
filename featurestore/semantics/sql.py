"""Names, literals and relations in SQL text, and integer division that floors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_LITERAL = {ord(sign): f"[{sign}]" for sign in "*?["}
"""What a reader of files takes for a pattern, written so that it matches only itself."""


def quote(name: str) -> str:
    """An identifier, safe whatever characters it holds."""
    return '"' + name.replace('"', '""') + '"'


def folded(name: str) -> str:
    """A name as the engine compares it with others: it tells no case of ASCII letters apart."""
    return "".join(chr(ord(sign) | 0x20) if "A" <= sign <= "Z" else sign for sign in name)


def literal(text: str) -> str:
    """A string literal."""
    return "'" + text.replace("'", "''") + "'"


def file_list(paths: Iterable[str | Path]) -> str:
    """A list of files for DuckDB's readers, each by its very name: they take every string for a pattern."""
    return "[" + ", ".join(literal(str(path).translate(_LITERAL)) for path in paths) + "]"


def numbered_columns(relation: str, count: int) -> str:
    """A relation whose columns, so many, are named `c0, c1, …`, so that they hide nothing that the engine adds."""
    return f"{relation} p({', '.join(f'c{place}' for place in range(count))})" if count else f"{relation} p"


def floor_div(expression: str, divisor: int) -> str:
    """⌊expression / divisor⌋ of integers; DuckDB's own `//` truncates, which is wrong before 1970."""
    return f"(({expression}) - ((({expression}) % {divisor}) + {divisor}) % {divisor}) // {divisor}"

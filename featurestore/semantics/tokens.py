"""Splits SQL into tokens, so that spacing and case do not change a fingerprint.

It does not come from the engine, whose own way of printing SQL changes between its versions; a fingerprint must not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

TOKEN = re.compile(
    r"""
    (?P<blank>\s+|--[^\n]*)
  | (?P<comment>/\*)
  | (?P<text>[eExXbB]?'(?:[^']|'')*'(?!'))
  | (?P<dollar>\$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$)
  | (?P<quoted>"(?:[^"]|"")*")
  | (?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<word>[^\W\d]\w*\$?)
  | (?P<sign>->>|!~~\*|~~~|~~\*|!~~|::|:=|->|=>|<=>|<->|<=|>=|<>|!=|==|\|\||\*\*|//(?!\*)|<<|>>|~~|!~|\^@|&&|@>|<@|[^\s])
    """,
    re.VERBOSE | re.DOTALL,
)
ESCAPED = re.compile(r"[eE]'(?:[^'\\]|\\.|'')*'", re.DOTALL)


def normalised(expression: str) -> str:
    """The expression's tokens, one blank between two: comments and line breaks are gone, and what is neither text nor a
    quoted name is in lower case. It means what the expression means. ValueError where a comment or text has no end.
    """
    found: list[str] = []
    for token, kind in _tokens(expression):
        if kind in {"text", "dollar", "quoted"} or ESCAPED.fullmatch(token):
            found.append(token[0].lower() + token[1:] if token[0] in "eExXbB" else token)
        else:
            found.append(token.lower())
    return " ".join(found)


def _tokens(expression: str) -> Iterator[tuple[str, str | None]]:
    """The tokens and what each is; without blanks and comments."""
    at = 0
    while at < len(expression):
        match = ESCAPED.match(expression, at) or TOKEN.match(expression, at)
        assert match is not None
        token, at = match[0], match.end()
        kind = match.lastgroup
        if kind == "comment":
            at = _comment_end(expression, at)
        elif kind != "blank":
            if token in {"'", '"'}:
                raise ValueError(f"the text that begins with {expression[at - 1 : at + 20]!r} has no end")
            yield token, kind


def quoted_names(expression: str) -> frozenset[str]:
    """The names that an expression writes in quotes; ValueError as of `normalised`."""
    return frozenset(token[1:-1].replace('""', '"') for token, kind in _tokens(expression) if kind == "quoted")


def names_in(expression: str, columns: Iterable[str]) -> list[str]:
    """Those of the columns whose names are among the words of an expression: all that it reads, and perhaps one that is named
    like something else in it."""
    words = {token.lower() for token, kind in _tokens(expression) if kind == "word"}
    words |= {name.lower() for name in quoted_names(expression)}
    return [name for name in columns if name.lower() in words]


def qualified_calls(expression: str) -> frozenset[str]:
    """The names of functions, in lower case, that an expression calls with something before them: `f` of `a.f(x)`."""
    tokens = [token for token, _ in _tokens(expression)]
    return frozenset(
        name.strip('"').lower()
        for point, name, opens in zip(tokens, tokens[1:], tokens[2:], strict=False)
        if (point, opens) == (".", "(")
    )


def _comment_end(expression: str, at: int) -> int:
    """Comments nest."""
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(expression, at):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    raise ValueError(f"the comment that begins with {expression[at - 2 : at + 20]!r} has no end")

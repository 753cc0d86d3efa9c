"""JSON as it is taken: no value nested deeper than any type is, no name twice in an object, and no number beyond a double.

The JSON library reads a text in one call, during which no other thread runs. So the rows of a large body are read some at a
time: the body is cut at the ends of rows. Each piece, and what is left of the body without them, is JSON by itself exactly where the
whole is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import orjson

from featurestore.declare.problems import name_twice, no_json
from featurestore.plurals import plural
from featurestore.server.problems import BadRequest, LimitError

DEPTH = 32
"""How deep a value may be nested."""

CONTAINERS, AT_ONCE = 200_000, 20_000
"""Objects and lists of a large body, and of what is read of one at once: each takes 50 times the memory of its two bytes."""

PIECE_BYTES = 32 << 10
"""Bytes of rows that are read at once, but for the last row of them."""

TOKENS = re.compile(
    rb'\{(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+\}'  # an object in which there is no other
    rb'|"(?:[^"\\]++|\\.)*+"|["{}\[\]]',  # a quote alone: of a text that has no end, or has it farther on
    re.DOTALL,
)
QUOTE, OBJECT, LIST = b'"{['
SPACE = b" \t\r\n"


def read_json(text: bytes) -> Any:
    """The value of a text; BadRequest where it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is no JSON: {no_json(error)}") from None
    opened = text.count(b"[") + text.count(b"{")
    if opened > DEPTH and opened - _plain_rows(value) > DEPTH:
        _check_depth(value)
    twice = name_twice(text, value)
    if twice is not None:
        raise BadRequest(f"The body has the name '{twice[:100]}' twice in one object")
    return value


def _plain_rows(value: Any) -> int:
    """The objects among the rows of a body, of which what is nested deepest can be in one only."""
    rows = value.get("rows") if isinstance(value, dict) else None
    return max(0, len([1 for row in rows if type(row) is dict]) - 1) if isinstance(rows, list) else 0


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> BadRequest:
    return BadRequest(f"The body is nested deeper than {DEPTH} levels")


def read_whole(body: bytes) -> Any:
    """The value of a body that is not cut, since it is no list of rows."""
    _cut(body, row_bytes=len(body), check_rows=lambda _: None, most=AT_ONCE)
    return read_json(body)


class _Cut(NamedTuple):
    """A body whose rows lie between begin and end; ends: where a piece of them ends, the last but for what is after it."""

    begin: int
    end: int
    ends: list[int]


def read_body(body: bytes, *, row_bytes: int, check_rows: Callable[[int], None]) -> Any:
    """The value of a large body, whose `rows` are read some at a time.

    row_bytes: how large a row may be, and what is beside the rows. check_rows: raises where there are so many rows; it is
    asked before they are read.
    """
    cut = _cut(body, row_bytes=row_bytes, check_rows=check_rows)
    rest = body if cut is None else body[: cut.begin] + body[cut.end :]
    if len(rest) > row_bytes:
        raise LimitError(
            "row_bytes", f"Beside its rows, the body is larger than {row_bytes} {plural(row_bytes, 'byte')}", status=413
        )
    value = read_json(rest)
    if cut is not None:
        value["rows"] = _rows(body, cut)
    return value


def _rows(body: bytes, cut: _Cut) -> list[Any]:
    rows: list[Any] = []
    begin = cut.begin
    for end in (*cut.ends, cut.end):
        piece = body[begin:end]
        if begin > cut.begin:  # a comma stands between two pieces, and something comes after it
            piece = piece.lstrip(SPACE)
            if piece[:1] != b"," or not piece[1:].strip(SPACE):
                if end == cut.end and not piece:
                    break
                raise BadRequest(f"The body is no JSON: unexpected character after a row, at byte {begin}")
            piece = piece[1:]
        try:
            rows += read_json(b"[" + piece + b"]")
        except BadRequest as error:
            raise BadRequest(f"{error}, of the rows that begin at byte {begin}") from None
        begin = end
    return rows


def _cut(body: bytes, *, row_bytes: int, check_rows: Callable[[int], None], most: int = CONTAINERS) -> _Cut | None:
    """Where to cut a body; None where it has no list of rows. BadRequest beyond the depth, or so many objects and lists."""
    depth = containers = rows = begin = end = last = before = 0
    ends: list[int] = []
    name = b""
    for start, stop in _tokens(body, row_bytes):
        first = body[start]
        if first == QUOTE:
            name = body[start:stop] if depth == 1 else name
            continue
        if first in (OBJECT, LIST):
            depth += 1
            containers += 1
            _check_shape(depth, containers, most)
            if depth == 2 and first == LIST and name == b'"rows"' and not begin:
                begin = last = before = stop
            if stop == start + 1:
                continue
        depth -= 1
        if not begin or end or depth > 2:
            continue
        if stop - before > row_bytes:
            raise LimitError(
                "row_bytes", f"Row {rows} is larger than {row_bytes} {plural(row_bytes, 'byte')}", status=413
            )
        if depth == 1:
            end = start
            continue
        before, rows = stop, rows + 1
        check_rows(rows)
        if stop - last >= PIECE_BYTES:
            ends.append(stop)
            last = stop
    return _Cut(begin, end, ends) if end else None


def _tokens(body: bytes, most: int) -> Iterator[tuple[int, int]]:
    """Where texts, brackets and flat objects begin and end; LimitError where a text has more than `most` bytes.

    It looks at some bytes at a time, since a search keeps all other threads waiting, too.
    """
    at, size = 0, PIECE_BYTES
    while at < len(body):
        end = at + size
        for token in TOKENS.finditer(body, at, end):
            start, stop = token.span()
            if body[start] == QUOTE and stop == start + 1 and end < len(body):
                if start == at and size > most:
                    raise LimitError("row_bytes", f"A text is longer than {most} {plural(most, 'byte')}", status=413)
                size = size * 2 if start == at else PIECE_BYTES
                at = start
                break
            yield start, stop
        else:
            at, size = end, PIECE_BYTES


def _check_shape(depth: int, containers: int, most: int) -> None:
    if depth > DEPTH:
        raise _too_deep()
    if containers > most:
        raise BadRequest(f"The body has more than {most} objects and lists; send fewer at a time", 413)

"""A large body that is read in pieces is exactly the value of its text, or refused where that is no JSON."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from featurestore.server import strict_json
from featurestore.server.problems import BadRequest, LimitError
from featurestore.server.strict_json import CONTAINERS, DEPTH, read_body, read_json, read_whole

BITS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"1",
    b'"a"',
    b'"rows"',
    b"\\",
    b" ",
    b'{"a":1}',
    b'{"a":1},',
    b'{"rows":[',
    b"null",
]
ROWS = [b'{"a":1}', b'{"a":"}{"}', b"{ }", b'{"a":[1,{"b":[]}]}', b"7", b' {"q":"\\""} ', b'{"\\u0022":"\\\\u0022"}']


def whole(text: bytes) -> Any:
    """What the text is; None where it is refused."""
    try:
        return read_json(text)
    except BadRequest:
        return None


def in_pieces(text: bytes) -> Any:
    try:
        return read_body(text, row_bytes=1 << 20, check_rows=lambda _: None)
    except BadRequest:
        return None


def test_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts that are nearly JSON, cut wherever they can be: the same value, and the same ones refused."""
    choice = random.Random(7)
    accepted = 0
    for _ in range(30_000):
        monkeypatch.setattr(strict_json, "PIECE_BYTES", choice.choice([1, 3, 10]))
        if choice.random() < 0.3:
            text = b"".join(choice.choices(BITS, k=choice.randrange(1, 12)))
        else:
            rows = b",".join(choice.choices(ROWS, k=choice.randrange(6)))
            made = bytearray(b'{"s":"x[","rows":[' + rows + b'],"t":[{"z":[]}]}')
            for _ in range(choice.randrange(3)):
                at = choice.randrange(len(made))
                if choice.random() < 0.5:
                    del made[at]
                else:
                    made[at:at] = choice.choice(BITS)
            text = bytes(made)
        value = whole(text)
        assert in_pieces(text) == value, text
        accepted += value is not None
    assert 3_000 < accepted < 27_000


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}', b'[{"b":{"a":"\\"","a":2}}]', b'{"a":1,"\\u0061":1}', b'{"\\u0022":1,"\\"":2}', b'{"a\\\\u0022":1,"a":2,"a":3}',
        b"NaN", b"[Infinity]", b"1e400", b"1" * 400, b'"\xff"', b'"\\ud800"', b"{", b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1),
        b'{"rows":[' + b"{}," * 50 + b'{"a":' + b"[" * (DEPTH - 2) + b"]" * (DEPTH - 2) + b"}]}", b"[" * 1000 + b"]" * 1000, b"[" * 5000 + b"]" * 5000, b'{"a":' * (DEPTH + 1) + b"1" + b"}" * (DEPTH + 1),
    ],
)  # fmt: skip
def test_what_is_not_taken(text: bytes) -> None:
    """Names that come twice, however they are written; numbers beyond a double; texts that are none; and what is nested too deeply."""
    for read in (read_json, read_whole):
        with pytest.raises(BadRequest) as refused:
            read(text)
        assert refused.value.status == 400
    with pytest.raises(BadRequest):
        read_body(b'{"rows":[' + text + b"]}", row_bytes=1 << 20, check_rows=lambda _: None)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a\\\\u0022":"\\u0022"}',
        b"[" * DEPTH + b"]" * DEPTH,
        b'[{"a":1},{"a":1}]',
        b'{"\\"a":1,"a":2}',
        b'{"rows":[' + b"{}," * 50 + b'{"a":' + b"[" * (DEPTH - 3) + b"]" * (DEPTH - 3) + b"}]}",
    ],
)
def test_what_only_looks_so_is_taken(text: bytes) -> None:
    """Quotes and backslashes within names, and what is as deep as it may be."""
    assert read_json(text) == read_whole(text) == orjson.loads(text)


def refused(text: bytes, **words: Any) -> LimitError | BadRequest:
    with pytest.raises(BadRequest) as found:
        read_body(text, **{"row_bytes": 1000, "check_rows": lambda _: None, **words})
    return found.value


def test_what_is_too_large_is_refused_before_it_becomes_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row, what is beside or between rows, one text, and more objects than memory is given to."""
    monkeypatch.setattr(strict_json, "read_json", lambda _: pytest.fail("it was read"))
    long = b'"' + b"x" * 100_000 + b'"'
    for text in (
        b'{"rows":[{"a":' + long + b"}]}",
        b'{"rows":[' + b"1," * 600 + b"{}]}",
        b'{"rows":[{}' + b",1" * 600 + b"]}",
    ):
        error = refused(text)
        assert (error.status, error.setting) == (413, "row_bytes")  # type: ignore[attr-defined]  # a LimitError has one
    assert refused(b'{"service":' + long + b',"rows":[{}]}').status == 413
    assert refused(b'{"rows":[' + b"{}," * CONTAINERS + b"{}]}").status == 413
    assert refused(b'{"rows":[{"a":[' + b"[]," * CONTAINERS + b"[]]}]}", row_bytes=1 << 30).status == 413

    def check_rows(rows: int) -> None:
        if rows > 10:
            raise LimitError("lookup_rows", "too many")

    assert refused(b'{"rows":[' + b"{}," * 10 + b"{}]}", check_rows=check_rows).status == 422

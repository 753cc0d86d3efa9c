"""The text of an expression that is the same however it is written."""

from __future__ import annotations

import json
import random

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.semantics.tokens import normalised, quoted_names

PIECES = [
    "a", "B1", '"Two ""Words"""', "'It''s -- no /* comment */'", "E'a\\'b'", "X'0aFF'", "$$do l'lar$$", "1", "1.50", "1E5", ".5",
    "CASE WHEN a THEN b END", "list_TRANSFORM(l, LAMBDA x: x + 1)", "CAST(a AS Decimal(10, 2))", "a::INT[]", "s.f", "l[1:2]",
    "-1", "a->>'$.x'", "NOT a", "INTERVAL 1 DAY", "a IS NOT NULL", "date '2020-01-01'", "{'k': 1}", "[1, 2]", "b'01'", "'é🙂'",
]  # fmt: skip
OPERATORS = [
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "=",
    "<>",
    "!=",
    "<",
    "<=",
    ">=",
    "||",
    "AND",
    "or",
    "LIKE",
    "<<",
    "**",
    "IS DISTINCT FROM",
]
BLANKS = [" ", "\n", "\t ", "/* a /* nested */ 'comment' */", " -- to the end\n"]
expressions = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: st.tuples(inner, st.sampled_from(OPERATORS), inner).map(lambda t: f"(({t[0]}) {t[1]} ({t[2]}))"),
    max_leaves=5,
)


def tree(expression: str) -> object:
    """DuckDB's reading of an expression, without places and with names and types in lower case."""
    with duckdb.connect() as connection:
        read = json.loads(connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {expression}"]).fetchall()[0][0])
    assert not read["error"], (expression, read)
    named = {"column_names", "type_name", "path"}

    def plain(value: object, key: str = "") -> object:
        if isinstance(value, dict):
            return {k: plain(v, k) for k, v in value.items() if k not in {"query_location", "query_location_length"}}
        if isinstance(value, list):
            return [plain(item, key) for item in value]
        return value.lower() if isinstance(value, str) and key in named else value

    return plain(read["statements"][0]["node"]["select_list"])


def rewritten(tokens: list[str], chosen: random.Random) -> str:
    """The tokens with other blanks between them, and the case of their letters changed where that means nothing."""
    parts = []
    for token in tokens:
        free = token[0].isalpha() and "'" not in token
        parts.append(chosen.choice([token.upper(), token.title(), token]) if free else token)
        parts.append("".join(chosen.choices(BLANKS, k=chosen.randrange(1, 3))))
    return "".join(parts)


@settings(deadline=None)
@given(expressions, st.randoms(use_true_random=False))
def test_means_the_same_however_written(expression: str, chosen: random.Random) -> None:
    """The normalised text is read by DuckDB as the expression is; writing it differently does not change it."""
    text = normalised(expression)
    assert normalised(text) == text
    lowered = tree(text)
    assert json.dumps(lowered).lower() == json.dumps(tree(expression)).lower()
    tokens = [normalised(piece) for piece in text.split(" ")] if not {"'", '"', "$"} & set(text) else [text]
    assert normalised(rewritten(tokens, chosen)) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a+1", "A /* one more */ +\n1"),
        ("a<-1", "a < - 1"),
        ("LOWER(a)='X'", "lower( a ) = 'X'"),
        ("x'0a'", "X'0a'"),
        ("a -- the end", "a"),
        ("a //* one more */ b", "a / b"),
    ],
)
def test_written_differently(one: str, other: str) -> None:
    """Comments, blanks and the case of keywords, functions and columns mean nothing."""
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("'a'", "'A'"),
        ('"a"', '"A"'),
        ("a + 1", "a + 11"),
        ("'a  b'", "'a b'"),
        ("'/**/'", "''"),
        ("1.5", "1.50"),
        ("x'0a'", "x '0a'"),
    ],
)
def test_meaning_something_else(one: str, other: str) -> None:
    """Text and quoted names stay as they are, letter by letter."""
    assert normalised(one) != normalised(other)


@pytest.mark.parametrize("expression", ["'abc", 'a + "b', "a /* b", "/* /* */"])
def test_without_an_end(expression: str) -> None:
    """Text, names and comments that do not end are errors, not silently the rest."""
    with pytest.raises(ValueError, match="has no end"):
        normalised(expression)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_where_a_text_begins_that_has_no_end(quote: str) -> None:
    """The error shows it with its first twenty letters."""
    with pytest.raises(ValueError) as refused:
        normalised(f"abcdefghij + {quote}so on, to where nobody sees it")
    assert repr(f"{quote}so on, to where nobo") in str(refused.value)


def test_a_sign_of_several_letters_stays_whole() -> None:
    """However close to others it is written."""
    signs = "->> !~~* ~~~ ~~* !~~ :: := -> => <=> <-> <= >= <> != == || ** // << >> ~~ !~ ^@ && @> <@".split()
    for sign in signs:
        assert normalised(f"a{sign}b") == f"a {sign} b"
    assert normalised("(a)->(b)[1]|c") == "( a ) -> ( b ) [ 1 ] | c"


def test_quoted_names_are_those_in_quotes_and_in_no_text() -> None:
    assert quoted_names("""lower("A b") || '"c"' || "d ""e" -- "f\"""") == {"A b", 'd "e'}

"""Which small faults are made: Cosmic Ray's, as far as they say something of their own, and those that its do not reach.

Half of the rules here are written in SQL, inside strings that no general tool looks into; `Sql` makes faults of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator, operator_names

__all__ = ["operators"]

CHOSEN = re.compile(
    r"core/(AddNot|NumberReplacer|ZeroIterationForLoop|Replace(True|False|And|Or|Break|Continue)With\w+"
    r"|ReplaceUnaryOperator_Delete_\w+"
    r"|ReplaceComparisonOperator_(Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Lt_GtE|LtE_Gt|Gt_LtE|GtE_Lt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is)"
    r"|ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_FloorDiv|FloorDiv_Mul|Div_Mul|Mod_FloorDiv|BitOr_BitAnd|BitAnd_BitOr|BitXor_BitOr"
    r"|RShift_LShift|LShift_RShift))$"
)
"""Of the others of a comparison or a calculation nearly all are noticed by whatever runs the line."""

OPPOSITE = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}

SQL = [
    (r"<=", "<"),
    (r"(?<![<>=])<(?![=>])", "<="),
    (r">=", ">"),
    (r"(?<![<>=-])>(?![=>])", ">="),
    (r"(?<= )=(?= )", "<>"),
    (r"<>", "="),
    (r" AND\b", " OR"),
    (r" OR\b", " AND"),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r"\bgreatest\(", "least("),
    (r"\bleast\(", "greatest("),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bIS NOT ", "IS "),
    (r"\bIS (?!NOT )", "IS NOT "),
    (r"\bNOT (?=IN\b|\()", ""),
    (r"\b(?<!NOT )IN\b", "NOT IN"),
    (r"\bASC\b", "DESC"),
    (r"\bDESC\b", "ASC"),
    (r"\bNULLS FIRST\b", "NULLS LAST"),
    (r"\bNULLS LAST\b", "NULLS FIRST"),
    (r"\bDISTINCT ", ""),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bUNION ALL\b", "UNION"),
    (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"),
    (r"\b0\b", "1"),
    (r"\b1\b", "2"),
]


class Sql(Operator):  # type: ignore[misc]  # the base class is told its words by the caller
    """One word of a string is another; texts of errors are left alone."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """One position for each word of a string that has another."""
        if node.type in {"string", "fstring_string"} and not _is_text(node):
            for _ in _words(node.value):
                yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The string with that word replaced."""
        start, end, other = list(_words(node.value))[index]
        node.value = node.value[:start] + other + node.value[end:]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """See Operator."""
        return (Example("x = 'a <= b'", "x = 'a < b'"),)


class Name(Operator):  # type: ignore[misc]  # the base class is told its words by the caller
    """The least for the greatest, any for all; what is in for what is not."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """One position for a name that has an opposite."""
        calls = node.type == "name" and node.value in OPPOSITE and node.get_next_leaf().value == "("
        if calls or (node.type == "comparison" and _membership(node)):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """The opposite."""
        assert index == 0
        if node.type == "name":
            node.value = OPPOSITE[node.value]
        else:
            node.children[1] = parso.parse(f" {_membership(node)}")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """See Operator."""
        return Example("x = min(a)", "x = max(a)"), Example("x = a in b", "x = a not in b")


def operators() -> list[Any]:
    """One of each kind, in an order that does not change."""
    core = [get_operator(name)() for name in sorted(operator_names()) if CHOSEN.match(name)]
    return [*core, Name(), Sql()]


def _words(text: str) -> Iterator[tuple[int, int, str]]:
    for pattern, other in SQL:
        for found in re.finditer(pattern, text):
            yield found.start(), found.end(), other


def _membership(node: Any) -> str | None:
    """The opposite of a test of membership; None where a comparison is another."""
    return {"in": "not in", "not in": "in"}.get(" ".join(node.children[1].get_code().split()))


def _is_text(node: Any) -> bool:
    """Whether a string is written for a reader: a docstring, a row of a table of the docs, or an argument of an error."""
    whole = node.parent if node.type == "fstring_string" else node
    if node.value.startswith('"| '):
        return True
    if whole.type == "string" and whole.parent.type == "simple_stmt":
        return True
    while whole is not None:
        if whole.type == "raise_stmt" or (
            whole.type == "power" and whole.children[0].get_code().strip().endswith("Error")
        ):
            return True
        whole = whole.parent
    return False

"""The rules of what a value means, each with the one module in which it may be written: a copy elsewhere fails here.

A rule is told by what it looks like in Python and in SQL. Comments and docstrings may speak of it anywhere.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import featurestore

ROOT = Path(featurestore.__file__).parent


class Home(NamedTuple):
    """Where a rule is written. also: modules that look like it and do something else, and what."""

    rule: str
    looks_like: str
    modules: tuple[str, ...]
    copies: tuple[str, ...]
    """Lines that would be a copy."""

    also: dict[str, str]


HOMES = [
    Home(
        "0: instants are steps of a refresh or a hop",
        r"//\s*((\w+\.)*(step|refresh|hop|width))\s*\*\s*\1\b|floor_div\(.*\)\}? \* \{",
        ("semantics.time",),
        ("at = (t - offset) // view.timing.refresh * view.timing.refresh", 'sql = f"{floor_div(at, hop)} * {hop}"'),
        {},
    ),
    Home(
        "0: known_by is as_of + settle; 1: counts_from and counts_until are that much earlier",
        r"\bsettle\}?\s*[-+]|[-+]\s*\{?(\w+\.)*settle\b",
        ("semantics.time", "semantics.rows"),
        ("upto = at + view.timing.settle", 'f"superseded - {settle} AS g"', 'f"known <= i + {timing.settle}"'),
        {
            "declare.views": "whether a view's words fit one another",
            "reports.simulation.schedule": "when the first run of a simulated time starts",
        },
    ),
    Home(
        "0: an instant is asked for from its ready_after on; 5: whether an answer is late",
        r"[-+]\s*\{?(\w+\.)*ready_after\b|\bas_of(\(now\))?\s*-\s*(\w+\.)*_?lag\b",
        ("semantics.time",),
        ("start = instant + view.timing.ready_after", 'f"{first} + {timing.ready_after}"', "stale = base < timing.as_of(now) - lag"),
        {
            "reports.availability.measuring": "instants whose ready_after has passed",
        },
    ),
    Home(
        "an error is told again in other words with all else that it tells, whatever its class is made of",
        r"\btype\(\w+\)\(f?\"|\btype\((error|failure|again|problem|caught)\)\(|_again\(type\(",
        ("errors",),
        ('raise type(error)(f"{what}: {error}")', 'raise type(failure)(told(failure))', "found = type(error)(message)"),
        {},
    ),
    Home(
        "a table as bytes is an Arrow IPC stream; one that others sent is checked and limited",
        r"\bipc\.(new|open)_(stream|file)\(|\bRecordBatch(Stream|File)(Writer|Reader)\b",
        ("arrow_ipc",),
        ("stream = pa.ipc.new_stream(sink, rows.schema)", "return pa.ipc.open_stream(body).read_all()", "pa.RecordBatchStreamReader(body)"),
        {"declare.frames": "a digest of the bytes of columns, which nothing reads"},
    ),
    Home(
        "a connection to the engine raises KeyboardInterrupt where a query is interrupted",
        r"\bduckdb\.connect\((?!…)|\bQuery interrupted\b",
        ("semantics.engine",),
        ('connection = duckdb.connect(":memory:")', 'said = "Query interrupted"'),
        {},
    ),
    Home(
        "1: a condition holds where it is true, and not null",
        r"\bIS TRUE\b",
        ("semantics.rows",),
        ('f"({text}) IS TRUE"',),
        {},
    ),
    Home(
        "1a: history that was loaded in bulk is known when it would have been",
        r"least\(\s*(learned_us|o)\b|minimum\(learned",
        ("semantics.rows",),
        ('sql = "least(learned_us, event_us + 5)"',),
        {},
    ),
    Home(
        "1: a row counts from when it has happened and is known",
        r"greatest\(\s*event_us\b|maximum\(event_us\b|known\s*<=|\bmax\((known|happened), (known|happened)\)",
        ("semantics.rows",),
        ('sql = "greatest(event_us, known) <= 5"', "np.maximum(event_us, known)", "return max(known, happened)", 'f"known <= {by}"'),
        {"reports.simulation.landing": "when the rows of a simulated source land"},
    ),
    Home(
        "1: a row counts while counts_from <= as_of < counts_until",
        r"counts_(from|at)(\[\w+\])?\s*<=|>=\s*(\w+\.)*counts_from|counts_(until|at)(\[\w+\])?\s*>|<\s*(\w+\.)*counts_until",
        ("semantics.rows",),
        ('sql = "r.counts_from <= q.as_of"', 'sql = "q.as_of >= r.counts_from"', "alive = rows.counts_from[row] <= as_of", "as_of < rows.counts_until[row]"),
        {
            "reports.audit.recompute": "the instants around one at which rows began to count",
            "tiles.file_tile_query": "what is asked of all the rows of a tile at once",
        },
    ),
    Home(
        "1b: a version is current until a later one is known",
        r"AS superseded\b|\bsuperseded\s*[-<>]",
        ("semantics.rows",),
        ('sql = "min(known) AS superseded"', 'sql = "superseded > known"'),
        {},
    ),
    Home(
        "1: a row without known_at, identity, key or event_time is none, nor is a deletion",
        r"\bknown IS (NOT )?NULL|\bevent_us IS NULL|IS NOT TRUE\"",
        ("semantics.rows",),
        ('sql = "known IS NOT NULL"', 'f"{cell(deleted)} IS NOT TRUE"'),
        {
            "sources.history": "rows of a history, which has no identity",
            "reports.simulation.landing": "rows that never become known are there from the start",
            "registry.warnings": "rows whose age can be measured",
            "query.row_verdicts": "a term of the rule that does not hold",
        },
    ),
    Home(
        "1c: the ttl is inclusive",
        r"[-+]\s*\{?(\w+\.)*ttl\b|\bttl\}?\s*[-+]",
        ("semantics.rows",),
        ("earliest = as_of - self.view.ttl", "Span(view.ttl + 1)", 'f"event_us >= {at} - {view.ttl}"'),
        {
            "registry.warnings": "how long a row is not seen between refreshes",
            "migrate.sample_spine": "instants at the edge of it, where two stores may differ",
            "migrate.move_changes": "views of which it is a microsecond shorter or longer",
            "server.compatible.sagemaker.records": "when a record expires, as its client is told",
        },
    ),
    Home(
        "2: rows are ordered by times, then by the canonical bytes of columns",
        r"\bsignbit\(| ASC NULLS FIRST|\+ SIGN\b|END \* 2",
        ("semantics.order",),
        ('terms = [f"{column} ASC NULLS FIRST"]', 'return (event_time + END * 2).to_bytes(8, "big")'),
        {
            "semantics.source_columns": "which columns are ordered by; zeros of two signs are two identities",
            "query.asof": "the terms, turned round",
            "query.windows.fold_input": "a hash of the terms",
        },
    ),
    Home(
        "4: a validity ends at its until",
        r"\buntil(s?\b|_sql\([^)]*\)\}?)\s*<=",
        ("semantics.judge",),
        ("ended = rows.until <= self.as_of", 'f"won AND {until_sql(view)} <= {as_of}"'),
        {},
    ),
    Home(
        "4: which status a value has",
        r"\bStatus\.(MISSING|EXPIRED|OVERFLOW)\b",
        ("semantics.judge",),
        ("status[known & ~within] = Status.EXPIRED", "return Status.MISSING"),
        {
            "semantics.folds.sums": "section 4's limits, of one state",
            "semantics.folds.distinct": "the same",
            "query.windows.window_folds": "the folds of many states that overflowed",
            "server.compatible.sagemaker.records": "records of which no value counts",
            "reports.audit.search": "values of which one side says EXPIRED",
        },
    ),
]  # fmt: skip


def code_of(text: str) -> str:
    """The text without comments and docstrings, its lines in their places."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for line in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[line] = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return "\n".join(lines)


@cache
def whole_code() -> dict[str, str]:
    """Of every module; it takes seconds, which no process is to spend that runs other tests."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): code_of(path.read_text())
        for path in sorted(ROOT.rglob("*.py"))
    }


def written_in(home: Home, code: dict[str, str]) -> dict[str, list[str]]:
    """The lines of each module in which a rule is written."""
    pattern, found = re.compile(home.looks_like), dict[str, list[str]]()
    for module, text in code.items():
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.setdefault(module, []).append(f"{module}:{number}: {line.strip()}")
    return found


@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.rule)
def test_a_rule_is_written_in_its_home_alone(home: Home) -> None:
    """And there it is: a home that was moved or renamed is named here anew."""
    found = written_in(home, whole_code())
    copies = [line for module, lines in found.items() if module not in {*home.modules, *home.also} for line in lines]
    assert not copies, f"rule {home.rule}, whose home is {' and '.join(home.modules)}: {copies}"
    assert set(home.modules) <= set(found), home.rule
    assert set(home.also) <= set(found), f"what no longer looks like rule {home.rule} need not be named"


@pytest.mark.parametrize(
    ("home", "copy"),
    [(home, copy) for home in HOMES for copy in home.copies],
    ids=[copy for home in HOMES for copy in home.copies],
)
def test_a_copy_elsewhere_is_found(home: Home, copy: str) -> None:
    """Planted in a module that has none, with its comments and docstrings as they are."""
    planted = 'def planted():\n    """Nothing here is ttl + 1."""  # nor as_of - ttl\n    ' + copy
    assert written_in(home, {"planted": code_of(planted)}) == {"planted": [f"planted:3: {copy}"]}

"""What `make mutants` needs to be told is true of the tree as it is, and its own faults are the ones that it says."""

from __future__ import annotations

from pathlib import Path

from tests.mutants.made import mutants_of
from tests.mutants.table import ROOT, equivalents, held_by, modules

SOURCE = '''
"""Docs: a <= b."""

def rule(row: int | None = 3) -> bool | None:
    """More docs: 1 + 1."""
    assert row is not None
    if row in {7}:
        raise ValueError(f"{row} <= 7")
    list(zip(row, row, strict=True))
    return f"v <= {row + 1}"

DOCS = ("| `Rule(c)` | a column | 0 |",)
'''


def test_the_table_names_what_there_is() -> None:
    named = {path.partition("::")[0] for module in modules() for path in held_by(module)}
    assert [path for path in sorted(named) if not path.startswith("-k ") and not (ROOT / path).exists()] == []
    assert {entry.module for entry in equivalents()} <= {*modules()}


def test_modules_are_chosen_by_how_their_paths_begin() -> None:
    assert modules(["semantics/time.py"]) == ["semantics/time.py"]
    assert {name.partition("/")[0] for name in modules(["semantics/"])} == {"semantics"}
    assert modules(["nothing/"]) == []


def test_faults_are_made_of_code_and_of_sql_and_not_of_what_is_only_read(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(SOURCE)
    assert [(each.function, each.number, "".join(each.now.split())) for each in mutants_of(module)] == [
        ("rule", 4, "defrule(row:int|None=2)->bool|None:"),
        ("rule", 4, "defrule(row:int|None=4)->bool|None:"),
        ("rule", 7, "ifnotrowin{7}:"),
        ("rule", 7, "ifrowin{6}:"),
        ("rule", 7, "ifrowin{8}:"),
        ("rule", 7, "ifrownotin{7}:"),
        ("rule", 10, 'returnf"v<{row+1}"'),
        ("rule", 10, 'returnf"v<={row+0}"'),
        ("rule", 10, 'returnf"v<={row+2}"'),
        ("rule", 10, 'returnf"v<={row-1}"'),
    ]

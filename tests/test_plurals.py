"""What is said of one thing is said of one: each number that a message, a report or a page puts before a word goes by `plural`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import featurestore
from featurestore.console.rendering import environment
from featurestore.plurals import plural

ROOT = Path(featurestore.__file__).parent

COUNTED = (
    "batches bytes characters chunks columns connections digits elements entries examples features files folds hours instants keys limits "
    "loads lookups members messages microseconds minutes objects offsets ones outputs pages parts places ranks records requests rows "
    "runs segments services sources things times values versions views windows workers"
).split()
"""Words that are counted."""

ALWAYS_SEVERAL = {
    ("engines/asked_frame.py", "copies[0]"),  # a text
    ("engines/spark/engine.py", "versions"),
    ("explain/explanation.py", "of"),
    ("registry/plan.py", "len(wrong)"),
    ("registry/rollout.py", "len(fits)"),
    ("integrations/sagemaker.py", "wrong.iloc[0]"),
    ("push/pushed.py", "self.quarantined"),
    ("registry/steps.py", "count"),
    ("reports/explain/explanation.py", "of"),
    ("reports/explain/request_explanation.py", "compared"),
    ("number_texts.py", "len(text)"),
    ("server/run.py", "hard"),
    ("semantics/values.py", "', '.join(map(str, sorted(lengths)))"),
    ("server/compatible/databricks.py", "' and '.join(map(str, sorted(lengths)))"),
    ("server/compatible/feast.py", "' and '.join(map(str, lengths))"),
    ("server/strict_json.py", "most"),
}
"""Where a number before such a word is two at least, or no number."""

WORD = re.compile(rf" (?:[a-z-]+ )?({'|'.join(COUNTED)})\b(?! ?/)")


def test_the_word_for_a_number() -> None:
    assert [plural(count, "row") for count in (0, 1, 2)] == ["rows", "row", "rows"]
    assert [plural(count, "entry", "entries") for count in (0, 1, 2)] == ["entries", "entry", "entries"]


def said_with_numbers(path: Path) -> Iterator[tuple[str, str]]:
    """What a module's texts say right behind a value, and the value."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    yield str(text.value), ast.unparse(value.value)


@pytest.mark.parametrize("folder", sorted(path.name for path in ROOT.iterdir() if path.is_dir()) + [""])
def test_no_message_says_one_rows(folder: str) -> None:
    """Constants are several; what joins numbers is none."""
    wrong = []
    for path in (ROOT / folder).rglob("*.py") if folder else ROOT.glob("*.py"):
        name = str(path.relative_to(ROOT))
        for text, value in said_with_numbers(path):
            found = WORD.match(text)
            if found and not re.fullmatch(r"[A-Z_.]+", value) and (name, value) not in ALWAYS_SEVERAL:
                before = text[: found.start(1)].split()
                if not {
                    "and",
                    "as",
                    "for",
                    "from",
                    "has",
                    "holds",
                    "in",
                    "no",
                    "of",
                    "takes",
                    "the",
                    "to",
                    "with",
                } & set(before):
                    wrong.append(f"{name}: {{{value}}}{text[:40]}")
    assert wrong == []


def test_no_page_says_one_rows() -> None:
    templates = environment().loader
    assert templates is not None
    for name in templates.list_templates():
        text = (ROOT / "console" / "templates" / name).read_text()
        assert not re.search(rf"\}}\}}(?: [a-z-]+)? ({'|'.join(COUNTED)})\b", text), name


PEOPLE_READ = ("console", "reports")
"""The folders whose texts tell people of numbers that may be large."""


def counted_before_words(path: Path) -> Iterator[tuple[str, bool]]:
    """The numbers of a module's texts whose word stands in the same text, and whether they have separators of thousands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            values = [value for value in node.values if isinstance(value, ast.FormattedValue)]
            counts = {
                ast.unparse(value.value.args[0])
                for value in values
                if isinstance(value.value, ast.Call) and ast.unparse(value.value.func) == "plural"
            }
            for value in values:
                if ast.unparse(value.value) in counts:
                    yield ast.unparse(value), value.format_spec is not None


@pytest.mark.parametrize("folder", PEOPLE_READ)
def test_numbers_that_are_counted_have_separators_of_thousands(folder: str) -> None:
    found = [(path.name, *counted) for path in (ROOT / folder).rglob("*.py") for counted in counted_before_words(path)]
    assert len(found) > 5
    assert [(name, value) for name, value, is_separated in found if not is_separated] == []


def test_numbers_that_pages_count_have_separators_of_thousands() -> None:
    """What stands right before a word that goes by `plural`, or before "more"."""
    found = 0
    for path in (ROOT / "console" / "templates").glob("*.html"):
        text = path.read_text()
        before = re.findall(r"\{\{ ([^{}]*) \}\} (?:[a-z]+ )?\{\{ plural\(", text) + re.findall(
            r"\{\{ ([^{}]*) \}\} more\b", text
        )
        assert [value for value in before if not value.endswith("|thousands")] == [], path.name
        found += len(before)
    assert found > 5

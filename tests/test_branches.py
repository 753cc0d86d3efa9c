"""The floors of branch coverage: what falls below one is named, and what is measured is what there is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.branches import ROOT, SETTINGS, judged, measured, reached

SAID = tomllib.loads(SETTINGS.read_text())
FILES = {
    "featurestore/query/asof.py": {"summary": {"covered_branches": 2, "num_branches": 3}},
    "featurestore/query/windows/spans.py": {"summary": {"covered_branches": 4, "num_branches": 6}},
    "featurestore/semantics/rows.py": {"summary": {"covered_branches": 0, "num_branches": 2}},
}


def test_a_folder_is_counted_with_all_below_it_and_rounded_down() -> None:
    """Rounded to the nearest, a floor could be above what was reached."""
    assert reached(FILES, "query") == 66.66
    assert reached(FILES, "semantics") == 0.0


def test_a_folder_that_is_called_something_else_by_now_is_an_error() -> None:
    with pytest.raises(SystemExit, match="featurestore/compile has no branches"):
        reached(FILES, "compile")


def test_only_what_fell_is_wrong() -> None:
    (said,) = judged({"query": 66.66, "push": 90.0}, {"query": 66.67, "push": 90.0})
    assert said.startswith("query: 66.66 % of its branches are taken, and it was 66.67 %")


def test_folders_and_tests_are_there() -> None:
    """Each has a floor above nothing."""
    for folder, floor in SAID["floors"].items():
        assert (ROOT / "featurestore" / folder).is_dir()
        assert floor > 50
    for path in SAID["tests"]["paths"]:
        assert Path(ROOT, path).exists(), path


RAN = (
    "tests/query/test_ranges.py::test_the_greatest_instants_of_a_second_key_are_ranked",
    "tests/query/test_ties.py::test_picked_are_the_outermost_rows_of_all_parts[newest]",  # draws
    "tests/online/test_judged_slots.py",  # is none of those that count
)


def test_plain_tests_that_count_are_measured_and_no_others(tmp_path: Path) -> None:
    """In one run of all of them; what modules do as they are imported is measured anyhow."""
    files = measured(["-n", "0", "-q", "-p", "no:cacheprovider", *RAN], tmp_path)

    def lines(path: str, function: str) -> int:
        return len(files[f"featurestore/{path}"]["functions"][function]["executed_lines"])

    assert lines("query/windows/ranges.py", "_least_from_here") > 0
    assert lines("query/windows/filtered_rows.py", "picked_places") == 0
    assert lines("semantics/view.py", "resolve") == 0
    assert all(lines(path.removeprefix("featurestore/"), "") > 0 for path in files if not path.endswith("__init__.py"))

"""A report has one layout for a terminal, one for a notebook and one for JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from featurestore.report import Figure, Report, Reported, ReportTable, cell, instant_json

INSTANT = datetime(2013, 1, 1, 12, tzinfo=UTC)


class Pair(NamedTuple):
    """A record of another kind."""

    left: int
    right: float


@dataclass(frozen=True)
class Found(Reported):
    """What a verb found."""

    name: str
    at: datetime
    pairs: tuple[Pair, ...]
    hidden: object = field(default=None, repr=False)

    def report(self) -> Report:
        """A table among notes, and a report of a part."""
        part = Report("part", ("said <b>", ReportTable((), [("  one = 1",), ("  two = 2",)])))
        rows = [("日本", None), ("two\nlines", [1.0, True])]
        return Report(self.name, ("first", ReportTable(("who", "what"), rows), Figure("plot", "<svg/>"), "last", part))


FOUND = Found("found", INSTANT, (Pair(1, float("nan")),), object())


def test_text_has_columns_as_wide_as_they_must_be() -> None:
    """Two spaces between columns, a blank line around a table and before a part, whose lines are indented."""
    assert str(FOUND).splitlines() == [
        "found",
        "first",
        "",
        "who    what",
        "日本   null",
        "two    [1.0, true]",
        "lines",
        "",
        "last",
        "",
        "part",
        "  said <b>",
        "    one = 1",
        "    two = 2",
    ]


def test_a_narrow_terminal_folds_cells_and_loses_none_of_them() -> None:
    """Every character of a wide cell is there, on several lines, none of them wider than the terminal."""
    lines = Report("", (ReportTable(("word",), [("abcdefghij" * 3,)]),)).text(12).splitlines()
    assert max(map(len, lines)) <= 12
    assert "".join(lines[1:]) == "abcdefghij" * 3


def test_html_escapes_what_is_shown() -> None:
    """Text as text, plots as they are; whoever shows it twice sees it twice."""
    page = FOUND._repr_html_()
    assert page == FOUND._repr_html_()
    assert "said &lt;b&gt;" in page
    assert "<svg/>" in page
    assert page.count("<table>") == 2


def test_json_is_of_the_fields() -> None:
    """Instants in one form, what JSON has no number for as text, and no field that is hidden from repr."""
    told = json.loads(json.dumps(FOUND.to_dict(), allow_nan=False))
    at = "2013-01-01T12:00:00.000000Z"
    assert told == {"name": "found", "at": at, "pairs": [{"left": 1, "right": "NaN"}]}
    assert instant_json(1_357_041_600_000_000) == at
    assert instant_json(None) is None


def test_cells_show_values_as_they_are() -> None:
    """Each kind of value has one form in a table."""
    values = [None, False, 0.1, Decimal("1E+2"), b"\x00", INSTANT, "text", [None, 1]]
    shown = ["null", "false", "0.1", "100", "AA==", "2013-01-01 12:00:00Z", "text", "[null, 1]"]
    assert list(map(cell, values)) == shown

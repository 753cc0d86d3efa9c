"""What a comparison of two stores' frames comes to: values, and the causes of those that differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 3
"""Cells that are kept of each feature and cause."""

UNEXPLAINED, TIE, NULL_ROW, DROPPED, MERGED, TYPE, FAILS = (
    "unexplained", "tie", "null row", "dropped row", "merged rows", "type", "on-demand error",
)  # fmt: skip
REFRESH, LATE, HISTORY, TTL_EDGE, TTL, FINER = (
    "refresh", "late row", "history", "ttl edge", "ttl", "finer time",
)  # fmt: skip

CAUSES = {
    REFRESH: "here values change at the multiples of refresh, as serving does, and a ttl is judged there",
    LATE: "the row was created after the request: here it is known from then on",
    HISTORY: "a row of a push source's history counts a second after it happened, and up to the cutover",
    FINER: "the row happened within the microsecond of the request: times are whole microseconds here",
    TTL_EDGE: "the row is exactly as old as the ttl: one store counts it, the other does not",
    TTL: "one store judges the ttl, the other does not",
    TIE: "several rows of one key and time: each store took another",
    NULL_ROW: "the newest row holds null: here that is the value",
    DROPPED: "Feast's file store leaves a row of the spine out where nothing lies within the ttl",
    MERGED: "Feast's file store keeps one row of several that have one instant and one key of a view that it joins",
    TYPE: "one value in two types",
    FAILS: "the function fails where an input is null",
    UNEXPLAINED: "nothing that the move changed gives Feast's value",
}
"""Every cause of a difference, and what it is."""


@dataclass(frozen=True)
class DifferingCell:
    """A value that differs. of: "view:feature", or the feature of a function; key, at: the row of the spine; feast, here: the
    two values."""

    of: str
    key: dict[str, Any]
    at: str
    feast: Any
    here: Any
    cause: str


@dataclass
class FrameDifferences:
    """How the values of a view, or of an on-demand view, compare in the frames of both stores.

    cells: values that were compared. causes: how many differ, by cause. problem: why nothing, or not all, could be compared.
    """

    name: str
    rows: int = 0
    cells: int = 0
    equal: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    examples: list[DifferingCell] = field(default_factory=list)
    problem: str | None = None

    def note(self, cell: DifferingCell) -> None:
        """Count a cell that differs, and keep it where it is among the first of its kind."""
        self.causes[cell.cause] = self.causes.get(cell.cause, 0) + 1
        if sum((one.of, one.cause) == (cell.of, cell.cause) for one in self.examples) < EXAMPLES:
            self.examples.append(cell)

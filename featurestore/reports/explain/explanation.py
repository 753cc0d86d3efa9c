"""Explanations: the value of one key at an instant, the rows that made it, and the rows left out and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from featurestore.plurals import plural
from featurestore.report import Report, Reported, ReportTable, shown_instant, typed_cell
from featurestore.semantics.view import ResolvedView


@dataclass(frozen=True)
class ExplainedRow:
    """A row of the source and what became of it."""

    verdict: str
    reason: str
    values: dict[str, Any]
    """Every column that the view reads."""
    event_time: datetime | None
    """None where the row has none, or its table has no time; so is known_at."""
    known_at: datetime | None
    file: str | None
    """Its path, seen from the repository; None for a frame in memory."""
    row: int
    """Its number there, from 0."""
    counts_for: tuple[str, ...] = ()
    """The folded features whose window it lies in and whose condition it meets (a null in it may still be nothing to the fold)."""

    @property
    def place(self) -> str:
        """Where it lies: "data/landings.parquet row 17"."""
        return f"{self.file or 'frame'} row {self.row}"


@dataclass(frozen=True)
class Explanation(Reported):
    """The value of one key of a view as a lookup or a spine row at `at` is answered, and how it came about."""

    view: str
    key: dict[str, Any]
    at: datetime | None
    """The instant of asking; None where an as_of was asked for itself."""
    as_of: datetime
    """The instant whose value is asked for, by the view's refresh."""
    known_by: datetime
    """Until when a row may have been learned and still count."""
    status: str
    """Of the plain columns, which are the newest row's; of a view without any, whether the key is known."""
    statuses: dict[str, str]
    """Of each feature."""
    values: dict[str, Any]
    """By feature, defaults filled in."""
    event_time: datetime | None
    """Of the row that was chosen, even when its validity has ended."""
    conflict: bool
    """Rows were tied in everything but their bytes, which decided."""
    conflicts: tuple[str, ...]
    """The folded features for which that holds of a row that they picked."""
    rows: tuple[ExplainedRow, ...]
    """Nearest to the answer first."""
    counts: dict[str, int]
    """Verdict → number of rows, those that are not shown included."""
    counted: dict[str, int]
    """Folded feature → number of rows that count for it."""
    aside: dict[str, int]
    """Of a push source "late" and "quarantine" → number of rows of the key that are kept aside there now; no other row is."""
    resolved: ResolvedView = field(repr=False, compare=False)

    def of(self, features: Sequence[str]) -> Self:
        """The same of some of the view's features alone; its rows are those of the view."""
        kept = [name for name in self.values if name in features]
        rows = [replace(row, counts_for=tuple(name for name in row.counts_for if name in kept)) for row in self.rows]
        return replace(
            self, statuses={name: self.statuses[name] for name in kept}, values={name: self.values[name] for name in kept},
            conflicts=tuple(name for name in self.conflicts if name in kept), rows=tuple(rows),
            counted={name: count for name, count in self.counted.items() if name in kept},
        )  # fmt: skip

    @property
    def hidden(self) -> int:
        """How many rows are not shown."""
        return sum(self.counts.values()) - len(self.rows)

    @property
    def chosen(self) -> ExplainedRow | None:
        """The row that holds the values (or held them, until it ended); None where there is none."""
        return next((row for row in self.rows if row.verdict in {"chosen", "ended"}), None)

    @property
    def summary(self) -> str:
        """One sentence: how the status came about."""
        if self.status == "PRESENT":
            ties = f"; among rows that tied, bytes decided for {', '.join(self.conflicts)}" if self.conflicts else ""
            if not self.resolved.plain:
                return f"PRESENT: the key is known, and each value is the fold of the rows that count for it{ties}"
            tie = "; it tied with others, and the bytes of its columns decided" if self.conflict else ""
            folds = "; folds are of the rows that count for each" if self.resolved.folded else ""
            return f"PRESENT: the values of the newest row that counts{tie}{folds}{ties}"
        if any(value is None for value in self.key.values()):
            return "MISSING: a key with a null in it has no values"
        if self.status == "MISSING":
            return "MISSING: no row of this key had happened, was known and was still current"
        if self.counts.get("ended"):
            return "EXPIRED: the validity of the newest row had ended, and no older row is tried"
        return "EXPIRED: the key is known, but every row of it is older than the ttl"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: instants as RFC 3339, NaN and infinities as strings, bytes as base64."""
        return {**super().to_dict(), "hidden": self.hidden}

    def report(self) -> Report:
        """The values, and a table of the rows."""
        types = {feature.name: feature.type for feature in self.resolved.features}
        values = [
            (f"  {name} = {typed_cell(value, types[name])}{self._beside(name)}",) for name, value in self.values.items()
        ]
        rows = [ReportTable(self._header, list(self._cells()))] if self.rows else []
        return Report(
            self._title, (self._times, self.summary, ReportTable((), values), *rows, *self._hidden_rows, *self._aside)
        )

    def _beside(self, name: str) -> str:
        """What is worth saying of a feature beside its value: its status where it differs, and its number of rows."""
        own, count = self.statuses[name], self.counted.get(name)
        status = "" if own == self.status else f", {own}"
        return status if count is None else f"{status}, of {count:,} {plural(count, 'row')}"

    @property
    def _title(self) -> str:
        types = {key.name: key.type for key in self.resolved.keys}
        key = ", ".join(f"{name}={typed_cell(value, types[name])}" for name, value in self.key.items())
        some = len(self.values) < len(self.resolved.features)
        title = ", ".join(f"{self.view}:{name}" for name in self.values) if some else self.view
        return f"{title} of {key}" if key else title

    @property
    def _times(self) -> str:
        asked = "" if self.at is None else f"asked at {shown_instant(self.at)}, answered "
        times = f"{asked}as of {shown_instant(self.as_of)}"
        return (
            times if self.known_by == self.as_of else f"{times} with what was known by {shown_instant(self.known_by)}"
        )

    @property
    def _hidden_rows(self) -> list[str]:
        counts = ", ".join(f"{count:,} {verdict}" for verdict, count in self.counts.items())
        return (
            [f"{self.hidden:,} more {plural(self.hidden, 'row is', 'rows are')} not shown; in all: {counts}"]
            if self.hidden
            else []
        )

    @property
    def _aside(self) -> list[str]:
        said = {
            "late": "came too late",
            "quarantine": f"in quarantine: featurestore quarantine show {self.resolved.source.name}",
        }
        return [
            f"Kept aside, and counted nowhere: {count:,} pushed {plural(count, 'row')} of this key, {said[which]}"
            for which, count in self.aside.items()
        ]

    @property
    def _columns(self) -> list[str]:
        """The source's columns to print: a time word's own column is left out where it says the same again."""
        source = self.resolved.source
        said = [(source.event_time, "event_time"), (source.known_column, "known_at")]
        again = {
            name
            for name, word in said
            if name is not None and all(row.values[name] == getattr(row, word) for row in self.rows)
        }
        return [name for name in self.resolved.columns if name not in again]

    @property
    def _header(self) -> tuple[str, ...]:
        counts = ("counts for",) if self.counted else ()
        return ("verdict", "reason", *counts, "event_time", "known_at", *self._columns, "where")

    def _cells(self) -> Iterator[tuple[str, ...]]:
        columns = [(name, self.resolved.columns[name]) for name in self._columns]
        for row in self.rows:
            values = [typed_cell(row.values[name], of) for name, of in columns]
            counts = (_listed(row.counts_for, len(self.counted)),) if self.counted else ()
            times = (shown_instant(row.event_time), shown_instant(row.known_at))
            yield (row.verdict, row.reason, *counts, *times, *values, row.place)


def _listed(names: Sequence[str], of: int) -> str:
    """The features that a row counts for, in few words where it is all of them or none."""
    if not names:
        return "-"
    return f"all {of} folds" if len(names) == of > 1 else ", ".join(names)

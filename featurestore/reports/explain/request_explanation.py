"""Explanations of requests: what one row of a request was served, and what the definitions give for it now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from featurestore.plurals import plural
from featurestore.report import Report, Reported, ReportTable, plain, plain_fields, shown_instant, typed_cell
from featurestore.reports.explain.explanation import Explanation
from featurestore.semantics.status import Status
from featurestore.types import FeatureType

HEADER = ("feature", "served", "status", "now", "status now", "same bits")


@dataclass(frozen=True)
class ServedFeature:
    """One feature of a view: its value and status as served, and as they are now for the same as_of."""

    column: str
    type: FeatureType
    served: Any
    status: str
    now: Any
    status_now: str
    agrees: bool | None
    """Whether both have the same bits and status; None where there is nothing to compare, of what was withheld."""


@dataclass(frozen=True)
class ServedView:
    """One view of a service, under the name that the service has for it."""

    name: str
    as_of: datetime
    """The instant that was served."""
    due: datetime
    """The instant that rule 0 gives for the request, later where the values were late."""
    features: tuple[ServedFeature, ...]
    explanation: Explanation
    lag: timedelta = timedelta(0)
    """By how much less than that the view is not called stale."""

    @property
    def is_stale(self) -> bool:
        """Whether the values were older than the view's refresh asks for."""
        return self.as_of < self.due - self.lag


@dataclass(frozen=True)
class ServedFunction:
    """One on-demand feature: what the function was given, its value as served, and the one that it gives now."""

    column: str
    type: FeatureType
    inputs: dict[str, Any]
    """As served, by the name that each has in the service."""
    input_types: dict[str, FeatureType]
    served: Any
    now: Any
    error: str | None
    """Why the function gives no value now; None where it does."""
    agrees: bool


@dataclass(frozen=True)
class RequestExplanation(Reported):
    """How one row of a logged request came about: see `explain_request`."""

    request: str
    row: int
    """Its number, from 0."""
    rows: int
    """How many rows of the request are logged."""
    service: str
    fingerprint: str
    time: datetime
    """When it was answered."""
    inputs: dict[str, Any]
    """The keys and request values that it brought."""
    input_types: dict[str, FeatureType] = field(repr=False)
    views: tuple[ServedView, ...]
    functions: tuple[ServedFunction, ...]

    @property
    def differing(self) -> tuple[str, ...]:
        """The columns whose bits or status are not those that were served."""
        return tuple(column for column, agrees in self._judged() if agrees is False)

    @property
    def agrees(self) -> bool:
        """Whether all that can be compared is what was served, to the bit."""
        return not self.differing

    @property
    def summary(self) -> str:
        """One sentence: how many values were compared, and which differ."""
        compared = sum(agrees is not None for _, agrees in self._judged())
        if self.agrees:
            whole = plural(compared, "the one value compared is", f"all {compared} values compared are")
            return f"{whole} what was served, to the bit"
        wrong = len(self.differing)
        return f"{wrong:,} of {compared:,} {plural(compared, 'value')} compared {plural(wrong, 'is', 'are')} not what was served: {', '.join(self.differing)}"

    def _judged(self) -> Iterator[tuple[str, bool | None]]:
        for view in self.views:
            yield from ((feature.column, feature.agrees) for feature in view.features)
        yield from ((function.column, function.agrees) for function in self.functions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: instants as RFC 3339, NaN and infinities as strings, bytes as base64."""
        return {
            **plain_fields(
                self, "request", "row", "rows", "service", "fingerprint", "time", "inputs", "agrees", "differing"
            ),
            "views": [_view_json(view) for view in self.views],
            "functions": [
                plain_fields(function, "inputs", "served", "now", "error", "agrees", feature="column")
                for function in self.functions
            ],
        }

    def report(self) -> Report:
        """All values in a table, then each function and each view with what makes its values."""
        title, *notes = self._top
        cells = list(self._cells())
        functions = [
            Report(
                f"{function.column}, a function of", (ReportTable((), list(_input_cells(function))), _verdict(function))
            )
            for function in self.functions
        ]
        explained = [(_view_title(view), view.explanation.report()) for view in self.views]
        views = [Report(f"{head}:", (shown.title, *shown.parts)) for head, shown in explained]
        return Report(title, (*notes, *([ReportTable(HEADER, cells)] if cells else []), *functions, *views))

    @property
    def _top(self) -> list[str]:
        of = f" (of {self.rows:,} logged)" if self.rows > 1 else ""
        brought = ", ".join(
            f"{name}={typed_cell(value, self.input_types[name])}" for name, value in self.inputs.items()
        )
        return [
            f"request {self.request}, row {self.row}{of}, answered at {shown_instant(self.time)}",
            f"service {self.service}, fingerprint {self.fingerprint}",
            f"it brought {brought or 'nothing'}",
            self.summary,
        ]

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for view in self.views:
            for feature in view.features:
                served = typed_cell(feature.served, feature.type)
                now = typed_cell(feature.now, feature.type)
                yield (feature.column, served, feature.status, now, feature.status_now, _word(feature.agrees))
        for function in self.functions:
            served = typed_cell(function.served, function.type)
            now = "error" if function.error else typed_cell(function.now, function.type)
            status = "-" if function.error else "PRESENT"
            yield (function.column, served, "PRESENT", now, status, _word(function.agrees))


def _word(agrees: bool | None) -> str:
    return "-" if agrees is None else "yes" if agrees else "NO"


def _view_title(view: ServedView) -> str:
    own = "" if view.name == view.explanation.view else f", which is view {view.explanation.view}"
    late = f"; it was late: {shown_instant(view.due)} was due" if view.is_stale else ""
    early = f"; that is later than {shown_instant(view.due)}, which was due" if view.as_of > view.due else ""
    withheld = any(feature.status == Status.WITHHELD.name for feature in view.features)
    return (
        f"{view.name}{own}, served as of {shown_instant(view.as_of)}{late}{early}{', and withheld' if withheld else ''}"
    )


def _input_cells(function: ServedFunction) -> Iterator[tuple[str, str]]:
    for name, value in function.inputs.items():
        yield name, typed_cell(value, function.input_types[name])


def _verdict(function: ServedFunction) -> str:
    served = f"served {typed_cell(function.served, function.type)}"
    if function.error is not None:
        return f"{served}; now it fails: {function.error}"
    if function.agrees:
        return f"{served}, as it gives now"
    return f"{served}; now it gives {typed_cell(function.now, function.type)}"


def _view_json(view: ServedView) -> dict[str, Any]:
    own = ("served", "status", "now", "status_now", "agrees")
    return {
        **plain_fields(view, "name", "as_of", "due", stale="is_stale"),
        "features": [plain_fields(feature, *own, feature="column") for feature in view.features],
        "explanation": plain(view.explanation),
    }

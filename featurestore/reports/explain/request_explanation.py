"""Explanations of requests: what one row of a request was served, and what the definitions give for it now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape
from typing import Any

from featurestore import html
from featurestore.reports.explain.explanation import Explanation
from featurestore.reports.text import aligned, shown_cell, shown_instant
from featurestore.semantics.status import Status
from featurestore.types import FeatureType, Timestamp, to_json

__all__ = ["RequestExplanation", "ServedFeature", "ServedFunction", "ServedView"]

HEADER = ("feature", "served", "status", "now", "status now", "same bits")


@dataclass(frozen=True)
class ServedFeature:
    """One feature of a view: its value and status as served, and as they are for the as_of that was served.

    agrees: whether both have the same bits and status; None where there is nothing to compare, of what was withheld.
    """

    column: str
    type: FeatureType
    served: Any
    status: str
    now: Any
    status_now: str
    agrees: bool | None


@dataclass(frozen=True)
class ServedView:
    """One view of a service, under the name that the service has for it.

    as_of: as served; due: what rule 0 gives for the instant of the request, later where the values were late. lag: by how
    much less that is not told.
    """

    name: str
    as_of: datetime
    due: datetime
    features: tuple[ServedFeature, ...]
    explanation: Explanation
    lag: timedelta = timedelta(0)

    @property
    def is_stale(self) -> bool:
        """Whether the values were older than the view's refresh asks for."""
        return self.as_of < self.due - self.lag


@dataclass(frozen=True)
class ServedFunction:
    """One on-demand feature: what the function was given, its value as served, and the one that it gives now.

    inputs: as served, by the name that each has in the service, with its type. error: why the function gives no value now,
    None where it does.
    """

    column: str
    type: FeatureType
    inputs: dict[str, Any]
    input_types: dict[str, FeatureType]
    served: Any
    now: Any
    error: str | None
    agrees: bool


@dataclass(frozen=True)
class RequestExplanation:
    """How one row of a logged request came about: see `explain_request`.

    row: its number, from 0; rows: how many of the request are logged. time: when it was answered. inputs: the keys and
    request values that it brought.
    """

    request: str
    row: int
    rows: int
    service: str
    fingerprint: str
    time: datetime
    inputs: dict[str, Any]
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
            return f"all {compared} values compared are what was served, to the bit"
        return (
            f"{len(self.differing)} of {compared} values compared are not what was served: {', '.join(self.differing)}"
        )

    def _judged(self) -> Iterator[tuple[str, bool | None]]:
        for view in self.views:
            yield from ((feature.column, feature.agrees) for feature in view.features)
        yield from ((function.column, function.agrees) for function in self.functions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: instants as RFC 3339, NaN and infinities as strings, bytes as base64."""
        return {
            "request": self.request,
            "row": self.row,
            "rows": self.rows,
            "service": self.service,
            "fingerprint": self.fingerprint,
            "time": to_json(Timestamp, self.time),
            "inputs": _json(self.inputs, self.input_types),
            "agrees": self.agrees,
            "differing": list(self.differing),
            "views": [_view_json(view) for view in self.views],
            "functions": [_function_json(function) for function in self.functions],
        }

    def __str__(self) -> str:
        lines = [*self._top, ""]
        if cells := list(self._cells()):
            lines += aligned([HEADER, *cells])
        for function in self.functions:
            lines += ["", *_function_lines(function)]
        for view in self.views:
            lines += [
                "",
                f"{_view_title(view)}:",
                *(f"  {line}".rstrip() for line in str(view.explanation).splitlines()),
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        title, *rest = self._top
        parts = [html.table(title, HEADER, self._cells(), note=" · ".join(rest))]
        parts += [
            html.table(function.column, ("input", "value"), _input_cells(function), note=_verdict(function))
            for function in self.functions
        ]
        for view in self.views:
            parts.append(f"<p>{escape(_view_title(view))}</p>{view.explanation._repr_html_()}")
        return f"<div>{''.join(parts)}</div>"

    @property
    def _top(self) -> list[str]:
        of = f" (of {self.rows} logged)" if self.rows > 1 else ""
        brought = ", ".join(
            f"{name}={shown_cell(value, self.input_types[name])}" for name, value in self.inputs.items()
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
                served = shown_cell(feature.served, feature.type)
                now = shown_cell(feature.now, feature.type)
                yield (feature.column, served, feature.status, now, feature.status_now, _word(feature.agrees))
        for function in self.functions:
            served = shown_cell(function.served, function.type)
            now = "error" if function.error else shown_cell(function.now, function.type)
            yield (
                function.column,
                served,
                "PRESENT",
                now,
                "-" if function.error else "PRESENT",
                _word(function.agrees),
            )


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
        yield name, shown_cell(value, function.input_types[name])


def _function_lines(function: ServedFunction) -> list[str]:
    cells = [f"  {line}" for line in aligned(list(_input_cells(function)))] if function.inputs else []
    return [f"{function.column}, a function of", *cells, f"  {_verdict(function)}"]


def _verdict(function: ServedFunction) -> str:
    served = f"served {shown_cell(function.served, function.type)}"
    if function.error is not None:
        return f"{served}; now it fails: {function.error}"
    return (
        f"{served}; now it gives {shown_cell(function.now, function.type)}"
        if not function.agrees
        else (f"{served}, as it gives now")
    )


def _json(values: Mapping[str, Any], types: Mapping[str, FeatureType]) -> dict[str, Any]:
    return {name: to_json(types[name], value) for name, value in values.items()}


def _view_json(view: ServedView) -> dict[str, Any]:
    return {
        "name": view.name,
        "as_of": to_json(Timestamp, view.as_of),
        "due": to_json(Timestamp, view.due),
        "stale": view.is_stale,
        "features": [
            {
                "feature": feature.column,
                "served": to_json(feature.type, feature.served),
                "status": feature.status,
                "now": to_json(feature.type, feature.now),
                "status_now": feature.status_now,
                "agrees": feature.agrees,
            }
            for feature in view.features
        ],
        "explanation": view.explanation.to_dict(),
    }


def _function_json(function: ServedFunction) -> dict[str, Any]:
    return {
        "feature": function.column,
        "inputs": _json(function.inputs, function.input_types),
        "served": to_json(function.type, function.served),
        "now": to_json(function.type, function.now),
        "error": function.error,
        "agrees": function.agrees,
    }

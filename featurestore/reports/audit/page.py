"""An audit as one HTML page, complete in itself: the template beside this file, with plots drawn as SVG.

It needs matplotlib and Jinja2, the extra `featurestore[report]`.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.declare.durations import show_duration
from featurestore.errors import MissingPackageError
from featurestore.reports.audit.causes import CAUSES, REWRITTEN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["page"]

COLORS = {"exact": "#4c9f70", "rewritten": "#e0a030", "skewed": "#c8402f"}
"""One for each way in which a value comes out; the same in plots and tables."""


def page(audit: Any) -> str:
    """The page of an Audit, which is the one that calls this and so cannot be imported here. Raises MissingPackageError where the packages that draw it are not installed."""
    try:
        from jinja2 import Environment
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(f"The HTML report needs {error.name}: pip install 'featurestore[report]'") from error
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["duration"] = lambda micros: show_duration(int(micros)) if micros else "0s"
    environment.filters["share"] = _share
    text = resources.files("featurestore.reports.audit").joinpath("page.html").read_text(encoding="utf-8")
    plots = [_by_hour(Figure, audit), _by_cause(Figure, audit), _by_lateness(Figure, audit)]
    return environment.from_string(text).render(
        audit=audit, causes=CAUSES, colors=COLORS, plots=[plot for plot in plots if plot is not None]
    )


def _share(part: int, whole: int) -> str:
    """Never rounded to 0 % or 100 % where it is neither."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return "> 99.99 %" if 99.99 < percent < 100 else f"{percent:.2f} %"


def _svg(figure: Figure, title: str) -> dict[str, str]:
    """The figure as an SVG element, which an HTML page can hold as it is."""
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Title": title})
    text = file.getvalue()
    return {"title": title, "svg": text[text.index("<svg") :]}


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _by_hour(figure_of: type[Figure], audit: Any) -> dict[str, str] | None:
    """Values compared in each hour, and those that differ, on an axis of their own."""
    counts: dict[datetime, dict[str, int]] = defaultdict(lambda: dict.fromkeys(("compared", *COLORS), 0))
    for feature in audit.features:
        for hour in feature.hours:
            for name in counts[hour.hour]:
                counts[hour.hour][name] += getattr(hour, name)
    if not counts:
        return None
    hours = sorted(counts)
    figure = figure_of(figsize=(9, 4))
    above, below = figure.subplots(2, 1, sharex=True)
    width = 0.8 / 24  # of a day
    above.bar(hours, [counts[hour]["compared"] for hour in hours], width, color="#8aa0b8", align="edge")
    above.set_ylabel("compared")
    bottom = np.zeros(len(hours))
    for name in ("rewritten", "skewed"):
        heights = np.array([counts[hour][name] for hour in hours])
        below.bar(hours, heights, width, bottom=bottom, color=COLORS[name], label=name, align="edge")
        bottom += heights
    below.set_ylabel("differ")
    below.set_ylim(0, max(1, bottom.max()) * 1.1)
    below.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    for axes in (above, below):
        axes.yaxis.get_major_locator().set_params(integer=True)
    figure.autofmt_xdate()
    _plain(above)
    _plain(below)
    return _svg(figure, "Values by the hour in which they were served (UTC)")


def _bars(figure_of: type[Figure], names: Sequence[str], height: float) -> tuple[Figure, Any]:
    figure = figure_of(figsize=(9, 0.9 + height * len(names)))
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    _plain(axes)
    return figure, axes


def _by_cause(figure_of: type[Figure], audit: Any) -> dict[str, str] | None:
    if not audit.causes:
        return None
    figure, axes = _bars(figure_of, list(audit.causes), 0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    colors = [COLORS["rewritten" if cause in REWRITTEN else "skewed"] for cause in audit.causes]
    bars = axes.barh(range(len(audit.causes)), list(audit.causes.values()), 0.6, color=colors)
    axes.bar_label(bars, [f" {count:,}" for count in audit.causes.values()])
    return _svg(figure, "Values that differ, by cause")


def _by_lateness(figure_of: type[Figure], audit: Any) -> dict[str, str] | None:
    late = [view for view in audit.lateness if view.stale]
    if not late:
        return None
    figure, axes = _bars(figure_of, [f"{view.service}: {view.view}" for view in late], 0.5)
    for name, shift, color in (("p50", -0.2, "#b9c7d6"), ("p99", 0.0, "#8aa0b8"), ("greatest", 0.2, "#4f6784")):
        places = [place + shift for place in range(len(late))]
        axes.barh(places, [getattr(view, name) / 6e7 for view in late], 0.2, color=color, label=name)
    axes.set_xlabel("minutes behind what the view's refresh asks for, of the rows that were stale")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure, "How late stale values were")

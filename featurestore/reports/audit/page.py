"""An audit as one HTML page, complete in itself: its report, with plots drawn as SVG by matplotlib (`featurestore[report]`)."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.errors import MissingPackageError
from featurestore.report import Figure, Report, ReportTable, shown_instant
from featurestore.reports.audit.causes import CAUSES, REWRITTEN

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

COLORS = {"rewritten": "#e0a030", "skewed": "#c8402f"}
"""One for each way in which a value differs."""

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.5rem; }
th { border-bottom: 1px solid #9fb0c0; }
td, th { padding: .2rem .7rem .2rem 0; vertical-align: top; white-space: nowrap; }
tbody tr:nth-child(even) { background: #f5f8fa; }
figure svg { max-width: 100%; height: auto; }
</style></head><body>
"""


def plotting() -> type[Plot]:
    """What draws; MissingPackageError where it is not installed, for who asks before the work is done."""
    try:
        from matplotlib.figure import Figure as Plot
    except ImportError as error:
        raise MissingPackageError(f"The HTML report needs {error.name}: pip install 'featurestore[report]'") from error
    return Plot


def page(audit: Any) -> str:
    """The page of an Audit, which is the one that calls this and so cannot be imported here. Raises MissingPackageError
    where matplotlib is not installed."""
    Plot = plotting()  # noqa: N806 - a class
    plots = [plot for plot in (_by_hour(Plot, audit), _by_cause(Plot, audit), _by_lateness(Plot, audit)) if plot]
    causes = [(cause, count, CAUSES[cause]) for cause, count in audit.causes.items()]
    tables = [ReportTable(("cause", "values", "how it is told"), causes)] if causes else []
    examples = [_example(name, example) for name, example in audit.examples()]
    title = f"Audit of {audit.project}: what was served, against training"
    parts = (audit.about, *plots, *tables, *audit.tables(), *audit.remarks(), *examples)
    head = HEAD.replace("{title}", escape(f"{title}, {shown_instant(audit.audited_at.replace(microsecond=0))}"))
    return f"{head}<h1>{escape(title)}</h1>{Report('', parts).html()}</body></html>\n"


def _example(feature: str, example: Any) -> str | Report:
    """One value that differs, with the rows that make training's, where they are known."""
    told: str = example.told(feature)
    if example.explanation is None:
        return told
    rows = example.explanation.report()
    return Report(told, (Report(f"The rows that make training's value: {rows.title}", rows.parts),))


def _svg(figure: Plot, title: str) -> Figure:
    """The plot as an SVG element, which an HTML page can hold as it is."""
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Title": title})
    text = file.getvalue()
    return Figure(title, text[text.index("<svg") :])


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _by_hour(figure_of: type[Plot], audit: Any) -> Figure | None:
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


def _bars(figure_of: type[Plot], names: Sequence[str], height: float) -> tuple[Plot, Any]:
    figure = figure_of(figsize=(9, 0.9 + height * len(names)))
    axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    _plain(axes)
    return figure, axes


def _by_cause(figure_of: type[Plot], audit: Any) -> Figure | None:
    if not audit.causes:
        return None
    figure, axes = _bars(figure_of, list(audit.causes), 0.3)
    axes.xaxis.get_major_locator().set_params(integer=True)
    colors = [COLORS["rewritten" if cause in REWRITTEN else "skewed"] for cause in audit.causes]
    bars = axes.barh(range(len(audit.causes)), list(audit.causes.values()), 0.6, color=colors)
    axes.bar_label(bars, [f" {count:,}" for count in audit.causes.values()])
    return _svg(figure, "Values that differ, by cause")


def _by_lateness(figure_of: type[Plot], audit: Any) -> Figure | None:
    late = [view for view in audit.lateness if view.stale]
    if not late:
        return None
    figure, axes = _bars(figure_of, [f"{audit.title(view)}: {view.view}" for view in late], 0.5)
    for name, shift, color in (("p50", -0.2, "#b9c7d6"), ("p99", 0.0, "#8aa0b8"), ("greatest", 0.2, "#4f6784")):
        places = [place + shift for place in range(len(late))]
        axes.barh(places, [getattr(view, name) / 6e7 for view in late], 0.2, color=color, label=name)
    axes.set_xlabel("minutes behind what the view's refresh asks for, of the rows that were stale")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure, "How late stale values were")

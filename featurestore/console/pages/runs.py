"""Runs of materialize: when each began, how long it took, what it read and wrote, and which failed."""

from __future__ import annotations

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable, instant
from featurestore.console.readable_store import ReadableStore
from featurestore.console.run_lanes import COMPLETE, run_lanes, why
from featurestore.declare.durations import rough_duration
from featurestore.errors import NotFoundError, did_you_mean
from featurestore.plurals import plural
from featurestore.registry.activity import Activity
from featurestore.registry.records import RunRecord

RUNS, MOST_RUNS = 200, 2_000
FAILURES = 200
FAILED = "fail to materialize"


def runs(store: ReadableStore, asked: PageRequest) -> PageModel:
    """The journal of runs, of one view or of all, and the failures that the trail of activity has from then on."""
    view = asked.word("view")
    known = sorted(store.applied("views"))
    if view is not None and view not in known:
        raise NotFoundError(f"No view '{view[:100]}' is applied.{did_you_mean(view, known)}")
    limit = asked.number("limit", RUNS, most=MOST_RUNS)
    found = store.runs(view, limit=limit)
    failures = [one for one in store.failures(what=FAILED, limit=FAILURES) if view in {None, one.subject}]
    tables = (
        PageTable(
            "runs", f"The last {len(found):,} {plural(len(found), 'run')}" if len(found) == limit else "Runs",
            ("run", "view", "as of", "began", "took", "rows read", "keys written", "outcome"),
            [_row(run) for run in found], "Nothing was materialized yet: featurestore materialize",
        ),
        PageTable(
            "failures", "Runs that failed", ("at", "view", "why"), [_failure(one) for one in failures], "None is known.",
        ),
    )  # fmt: skip
    took = sorted(run.finished - run.started for run in found)
    values = {
        "views": known, "view": view or "",
        "counted": [
            ("runs shown", f"{len(found):,}"), ("not complete", f"{sum(run.status != COMPLETE for run in found):,}"),
            ("failures", f"{len(failures):,}"),
            *([("took the median run", rough_duration(took[len(took) // 2])), ("took the longest", rough_duration(took[-1]))] if took else []),
        ],
    }  # fmt: skip
    return PageModel("runs.html", "Runs", values, tables, drawings={"lanes": run_lanes(found, failures)})


def _row(run: RunRecord) -> tuple[object, ...]:
    outcome = PageState(run.status, "good" if run.status == COMPLETE else "warn")
    took = rough_duration(run.finished - run.started)
    view = PageLink(run.view, "view", run.view)
    return run.id, view, instant(run.instant), instant(run.started), took, run.rows, run.keys, outcome


def _failure(one: Activity) -> tuple[object, ...]:
    return instant(one.at), PageLink(one.subject, "view", one.subject), why(one)


PAGE = PageKind("runs", "Runs", runs, group="How it is")

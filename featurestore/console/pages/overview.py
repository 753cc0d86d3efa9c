"""The first page: is everything fresh and right, what ran last, and what needs attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from featurestore.console.page import (
    PageKind,
    PageLink,
    PageModel,
    PageRequest,
    PageState,
    PageTable,
    about,
    instant,
    moment,
)
from featurestore.console.readable_store import ReadableStore
from featurestore.declare.durations import show_duration
from featurestore.errors import FeatureStoreError
from featurestore.plurals import plural
from featurestore.registry.records import RunRecord
from featurestore.reports.audit.last_audit import AuditedService
from featurestore.reports.drift.last_drift import DriftedService
from featurestore.reports.status import PushStatus, ViewStatus

RUNS = 10
"""Runs of materialize that are listed."""

LEVELS = {"fresh": "good", "stale": "warn", "not materialized": "warn", "unknown": "bad"}

Need = tuple[PageState, object, str]
"""Something that needs attention: its state, where it is seen, and what is wrong."""


def state_of(view: ViewStatus) -> PageState:
    """How a view is, as a mark."""
    return PageState(view.state, LEVELS[view.state])


def overview(store: ReadableStore, _: PageRequest) -> PageModel:
    """What `featurestore status` tells, the last audits and comparisons, and the last runs."""
    problems: list[Need] = []
    views = _tried(store.status, [], problems, "The views cannot be told")
    audits: dict[str, AuditedService] = {}
    drifts: dict[str, DriftedService] = {}
    audits = _tried(store.last_audits, audits, problems, "The last audits cannot be read")
    drifts = _tried(store.last_drifts, drifts, problems, "The last comparisons cannot be read")
    runs = _tried(lambda: store.runs(limit=RUNS), (), problems, "The journal of runs cannot be read")
    budgets = store.skew_budgets()
    pushes = list({view.pushes.source: view.pushes for view in views if view.pushes is not None}.values())
    needs = [
        *problems,
        *_views_that_need(views),
        *_logs_that_need(pushes),
        *_rows_not_as_expected(store, views, problems),
        *_skew(audits, budgets),
        *_drift(drifts, budgets),
        *_store_that_needs(store),
    ]
    tables = (
        PageTable("needs", "What needs attention", ("state", "where", "what is wrong"), needs, "Nothing needs attention."),
        PageTable(
            "views", "How fresh each view is", ("view", "state", "served as of", "due as of", "last run", "kept for"),
            [_view_row(view) for view in views], "Nothing is applied yet: featurestore apply",
        ),
        PageTable("skew", "Skew of each service, by its last audit", ("service", "budget", "skew", "values compared", "audited at"),
                  [_skew_row(name, audits.get(name), budgets[name]) for name in budgets], "No service is applied yet: featurestore apply"),
        PageTable("runs", "The last runs of materialize", ("view", "for the instant", "ended", "took", "rows read", "keys written", "outcome"),
                  [_run_row(run) for run in runs], "Nothing was materialized yet: featurestore materialize"),
    )  # fmt: skip
    counted = [
        (plural(len(views), "view"), len(views)), ("fresh", sum(view.state == "fresh" for view in views)),
        (plural(len(budgets), "service"), len(budgets)), (plural(len(needs), "needs attention", "need attention"), len(needs)),
    ]  # fmt: skip
    return PageModel("overview.html", "Overview", {"counted": counted}, tables)


def _tried(read: Callable[[], Any], otherwise: Any, problems: list[Need], what: str) -> Any:
    """What is read; where it cannot be, that needs attention, and the rest of the page is shown."""
    try:
        return read()
    except (FeatureStoreError, OSError) as error:
        problems.append((PageState("cannot be read", "bad"), "-", f"{what}: {error}"))
        return otherwise


def _views_that_need(views: Sequence[ViewStatus]) -> Iterator[Need]:
    unread = next((view.unavailable for view in views if view.unavailable is not None), None)
    if unread is not None:
        yield PageState("unavailable", "bad"), "-", f"The online store cannot be read: {unread}"
    for view in views:
        where = PageLink(view.view, "view", view.view)
        if view.state == "not materialized":
            yield state_of(view), where, f"No values are online: featurestore materialize {view.view}"
        elif view.state == "stale" and view.served is not None:
            behind = about(view.wanted - view.served)
            yield state_of(view), where, f"What is served is {behind} older than it should be"
        if view.overdue:
            age, allowed = about(view.age or 0), show_duration(view.freshness or 0)
            yield (
                PageState("overdue", "warn"),
                where,
                f"The newest row of its source is {age} old; {allowed} is allowed",
            )


def _logs_that_need(pushes: Sequence[PushStatus]) -> Iterator[Need]:
    for log in pushes:
        where = PageLink(log.source, "pushes", "", {"source": log.source})
        if log.poison:
            yield (
                PageState("kept aside", "bad"),
                where,
                f"{log.poison:,} {plural(log.poison, 'message')} of its stream could not be taken",
            )
        if log.late:
            yield (
                PageState("late", "warn"),
                where,
                f"{log.late:,} {plural(log.late, 'row came too late to count, and is', 'rows came too late to count, and are')} kept aside",
            )
        if log.quarantined:
            rows = PageLink(f"rows of {log.source}", "quarantine", "", {"of": log.source})
            told = f"{log.quarantined:,} pushed {plural(log.quarantined, 'row does', 'rows do')}"
            yield PageState("in quarantine", "warn"), rows, f"{told} not meet what is expected: replay or discard"
        lost = sum(one.lost for one in log.partitions)
        if lost:
            yield (
                PageState("lost", "bad"),
                where,
                f"{lost:,} {plural(lost, 'message of its stream was', 'messages of its stream were')} gone before being read",
            )


def _rows_not_as_expected(store: ReadableStore, views: Sequence[ViewStatus], problems: list[Need]) -> Iterator[Need]:
    """Of views over files, what the last run found."""
    names = dict.fromkeys(view.view for view in views if view.pushes is None)
    for run in _tried(lambda: store.last_runs_of(names), (), problems, "The last run of each view cannot be read"):
        for expectation, rows in run.detail.get("unmet", {}).items():
            where = PageLink(f"rows of {run.view}", "quarantine", "", {"of": run.view})
            told = f"{rows:,} {plural(rows, 'row')}"
            what = f"{told} did not meet {expectation} when it was last filled"
            yield PageState("not as expected", "warn"), where, what


def _skew(audits: dict[str, AuditedService], budgets: dict[str, float]) -> Iterator[Need]:
    for name, found in audits.items():
        if name in budgets and found.skew > budgets[name]:
            told = f"{found.skew:.4%} of its values were not what training says; {budgets[name]:.4%} is allowed"
            yield PageState("skewed", "bad"), PageLink(name, "audit", "", {"service": name, "since": "1d"}), told


def _drift(drifts: dict[str, DriftedService], services: dict[str, float]) -> Iterator[Need]:
    for name, found in drifts.items():
        for feature, limits in found.limits.items() if name in services else ():
            for measure, limit in limits.items():
                distance = found.distances.get(feature, {}).get(measure)
                if distance is not None and distance > limit:
                    told = f"{feature}: {measure} is {distance:.4g}, and {limit:.4g} is allowed"
                    yield PageState("drifted", "warn"), PageLink(name, "drift", "", {"service": name}), told


def _store_that_needs(store: ReadableStore) -> Iterator[Need]:
    try:
        for service in store.behind():
            where = PageLink(service.service, "service", service.service)
            yield PageState("other code", "bad"), where, f"Applied as {service.applied}: {service.why}"
    except FeatureStoreError as error:
        yield PageState("cannot be read", "bad"), "-", f"Which versions are served cannot be told: {error}"
    losses = store.losses()
    if losses is not None and (losses.lost or losses.dropped):
        told = f"Of {losses.offered:,} {plural(losses.offered, 'request')} {losses.dropped:,} were dropped and {losses.lost:,} lost"
        yield PageState("not logged", "warn"), "serving log", told
    differs = store.differences()
    if differs:
        yield (
            PageState("not applied", "plain"),
            "definitions",
            differs.told("those that are applied are served", "there is nothing to serve"),
        )


def _view_row(view: ViewStatus) -> tuple[object, ...]:
    instants = map(moment, (view.served, view.wanted, view.last_run))
    return PageLink(view.view, "view", view.view), state_of(view), *instants, ", ".join(view.kept_for) or "applied"


def _skew_row(name: str, found: AuditedService | None, budget: float) -> tuple[object, ...]:
    where = PageLink(name, "service", name)
    if found is None:
        return where, f"{budget:.4%}", PageState("never audited", "warn"), "-", "-"
    level = "bad" if found.skew > budget else "good"
    return where, f"{budget:.4%}", PageState(f"{found.skew:.4%}", level), found.counts["compared"], moment(found.at)


def _run_row(run: RunRecord) -> tuple[object, ...]:
    outcome = PageState(run.status, "good" if run.status == "complete" else "warn")
    took = about(run.finished - run.started)
    return (
        PageLink(run.view, "view", run.view),
        instant(run.instant),
        moment(run.finished),
        took,
        run.rows,
        run.keys,
        outcome,
    )


PAGE = PageKind("", "Overview", overview, group="How it is")

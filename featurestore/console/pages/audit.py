"""Was what was served what training says? A map of features and hours, the causes, and examples down to their rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from featurestore.clock import to_datetime
from featurestore.console.asked import instant_asked, since_asked
from featurestore.console.heat_map import heat_map
from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable
from featurestore.console.readable_store import ReadableStore
from featurestore.report import cell, within
from featurestore.reports.audit.causes import CAUSES, REWRITTEN
from featurestore.reports.audit.report import Audit, Difference, FeatureAudit, lateness_table

SINCE = "1d"
TITLE = "Audit"


def audit(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What the last audits found; where `run` is asked for, what `featurestore audit` finds now, which is not
    kept: alerts go by what somebody who may change something asked."""
    applied = store.applied("services")
    form = {
        "since": asked.word("since") or SINCE, "until": asked.word("until") or "", "service": asked.word("service") or "",
        "services": sorted(applied), "feature": asked.word("feature") or "", "cause": asked.word("cause") or "",
        "is_asked": any(asked.word(word) is not None for word in ("since", "until", "feature", "cause")), "is_run": False, "facts": [], "notes": [], "problems": [],
    }  # fmt: skip
    if not asked.is_run:
        return PageModel("audit.html", TITLE, form, (_last(store),))
    found = store.audit(
        since=since_asked(asked, SINCE), until=instant_asked(asked, "until"), service=asked.word("service")
    )
    reasons = found.reasons_to_stop(minimum_compared=0)
    if not found.compared:
        reasons = ["Nothing was compared: no value that was served and logged then could be.", *reasons]
    best = "plain" if reasons else "good"  # what looked at nothing, or not at all, is not green
    skewed = PageState(f"{found.skewed:,}", "bad" if found.over_budget else "warn" if found.skewed else best)
    facts: list[tuple[str, object]] = [
        ("values compared", f"{found.compared:,}"), ("exact", f"{found.exact:,}"), ("skewed: defects", skewed),
        ("rewritten: history has changed since", f"{found.rewritten:,}"),
    ]  # fmt: skip
    notes = [note for note in store.audit_remarks(found) if note not in reasons]
    if not found.compared:
        reasons, notes = [*reasons, *notes], []  # which say why
    root = store.root
    values = {
        **form, "is_run": True, "about": found.about, "facts": facts, "notes": [within(note, root) for note in notes],
        "problems": [within(reason, root) for reason in reasons],
    }  # fmt: skip
    tables = (_causes(found, asked), _examples(found, asked), _features(found, asked), _lateness(found))
    return PageModel("audit.html", TITLE, values, tables, drawings={"map": heat_map(found)})


def _last(store: ReadableStore) -> PageTable:
    rows = [
        (
            PageLink(name, "service", name), to_datetime(one.at), one.counts["compared"], one.counts["exact"], one.counts["rewritten"],
            PageState(f"{one.counts['skewed'] + one.early:,}", "bad" if one.counts["skewed"] + one.early else "good"),
        )
        for name, one in sorted(store.last_audits().items())
    ]  # fmt: skip
    header = ("service", "audited at", "compared", "exact", "rewritten", "skewed")
    return PageTable(
        "last",
        "What the last audits found",
        header,
        rows,
        "No service was audited yet: choose one above, or run featurestore audit",
    )


def _causes(found: Audit, asked: PageRequest) -> PageTable:
    rows = [
        (PageLink(cause, "audit", "", asked.question(cause=cause)), count, _kind(cause), CAUSES[cause])
        for cause, count in found.causes.items()
    ]
    return PageTable(
        "causes", "Why values differ", ("cause", "values", "counts as", "how it is told"), rows, "No value differs."
    )


def _kind(cause: str) -> PageState:
    return PageState("rewritten", "warn") if cause in REWRITTEN else PageState("skewed", "bad")


def _examples(found: Audit, asked: PageRequest) -> PageTable:
    """Values that differ, of the feature, hour and cause that are asked for; each leads to its request, and so to its rows."""
    header = (
        "feature",
        "request",
        "served at",
        "key",
        "served",
        "its status",
        "training says",
        "its status there",
        "cause",
        "what is known of it",
    )
    start, end = instant_asked(asked, "from"), instant_asked(asked, "to")
    rows = [
        _example(feature, one)
        for feature in found.features
        for one in feature.examples
        if asked.word("feature") in {None, feature.feature}
        and asked.word("cause") in {None, one.cause}
        and _within(one.time, start, end)
    ]
    return PageTable("examples", "Examples of values that differ", header, rows, "There is none of what is asked for.")


def _within(time: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or time >= start) and (end is None or time < end)


def _example(feature: FeatureAudit, one: Difference) -> tuple[object, ...]:
    link = PageLink(one.request, "request", "", {"id": one.request, "row": str(one.row)})
    key = ", ".join(f"{name}={cell(value)}" for name, value in one.key.items())
    return (
        feature.feature, link, one.time, key, cell(one.served), one.statuses[0], cell(one.trained), one.statuses[1],
        PageState(one.cause, _kind(one.cause).level), one.detail,
    )  # fmt: skip


def _features(found: Audit, asked: PageRequest) -> PageTable:
    header = (
        "service",
        "feature",
        "compared",
        "exact",
        "rewritten",
        "skewed",
        "missing when served",
        "missing in training",
        "causes",
    )
    return PageTable(
        "features", "Values compared, by feature", header, list(_feature_rows(found, asked)), "Nothing was compared."
    )


def _feature_rows(found: Audit, asked: PageRequest) -> Iterator[tuple[object, ...]]:
    for one in found.features:
        causes = [
            PageLink(f"{count:,} {cause}", "audit", "", asked.question(feature=one.feature, cause=cause))
            for cause, count in one.causes.items()
        ]
        counts = (one.compared, one.exact, one.rewritten, one.skewed, one.missing_when_served, one.missing_in_training)
        yield PageLink(found.title(one), "service", one.service), one.feature, *counts, causes


def _lateness(found: Audit) -> PageTable:
    table = lateness_table(found)
    return PageTable("lateness", "How late what was served was", table.header, table.rows, "Nothing was served.")


PAGE = PageKind("audit", TITLE, audit, takes_long=True, group="How it is")

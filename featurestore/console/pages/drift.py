"""Have the values changed since training? Distributions of both drawn over each other, and how far they are apart."""

from __future__ import annotations

from collections.abc import Mapping

from featurestore.clock import to_datetime
from featurestore.console.asked import duration_asked, frame_asked, instant_asked, since_asked
from featurestore.console.overlaid import overlaid
from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageState, PageTable
from featurestore.console.readable_store import ReadableStore
from featurestore.plurals import plural
from featurestore.report import within
from featurestore.reports.drift.report import SHOWN, Drift, FeatureDrift

SINCE, BEFORE = "1d", "7d"
TITLE = "Drift"


def drift(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What the last comparisons found; where `run` is asked for, what `featurestore drift` finds now, which is not kept."""
    service, root = asked.word("service"), store.root
    said = asked.word("baseline")
    frames = [frame for frame in store.frames() if service in {None, frame.service}]
    baselines = [
        (path := within(frame.path, root), f"{path}, {frame.rows:,} {plural(frame.rows, 'row')}") for frame in frames
    ]
    form = {
        "services": sorted(store.applied("services")), "service": service or "",
        "baselines": baselines, "baseline": within(said or "", root),
        "since": asked.word("since") or SINCE, "before": asked.word("before") or BEFORE, "every": asked.word("every") or "",
        "until": asked.word("until") or "", "is_asked": asked.word("since") is not None and service is not None, "is_run": False, "facts": [], "notes": [],
    }  # fmt: skip
    if service is None or not asked.is_run:
        return PageModel("drift.html", TITLE, form, (_last(store),))
    found = store.drift(
        service, baseline=None if said is None else frame_asked(said, frames, root).path, before=duration_asked(asked, "before", BEFORE),
        since=since_asked(asked, SINCE), until=instant_asked(asked, "until"), every=duration_asked(asked, "every", None),
    )  # fmt: skip
    facts: list[tuple[str, object]] = [
        ("service", PageLink(found.service, "service", found.service)), ("fingerprint", found.fingerprint), ("against", within(found.baseline, root)),
        ("requests from", found.since.replace(microsecond=0)), ("to", found.until.replace(microsecond=0)), ("features compared", f"{len(found.features):,}"), ("distances", _judged(found)),
    ]  # fmt: skip
    notes = [f"{name} was not compared: {why}" for name, why in found.not_compared.items()]
    notes += [f"{within(path, root)} is damaged: {why}" for path, why in found.damaged.items()]
    notes += [f"{of.feature}: its limit of {of.measure} was not checked: {of.why}" for of in found.unchecked]
    shown = overlaid(found)
    values = {**form, "is_run": True, "facts": facts, "notes": notes, "not_drawn": len(found.features) - len(shown)}
    return PageModel("drift.html", TITLE, values, (_exceeded(found), _features(found)), drawings={"features": shown})


def _judged(found: Drift) -> PageState:
    """Whether all that has a limit is within it; nothing is good where nothing has one."""
    if not found.unchecked and not any(feature.limits for feature in found.features):
        return PageState("no feature has a limit")
    unchecked = f", {len(found.unchecked):,} not checked" if found.unchecked else ""
    is_bad = found.exceeded or found.unchecked
    return PageState(f"{len(found.exceeded):,} beyond their limits{unchecked}", "bad" if is_bad else "good")


def _last(store: ReadableStore) -> PageTable:
    rows = [
        (PageLink(name, "service", name), to_datetime(one.at), feature, measure.replace("_", " "), distance, one.limits.get(feature, {}).get(measure, "-"),
         _state(distance, one.limits.get(feature, {}).get(measure)))
        for name, one in sorted(store.last_drifts().items())
        for feature, distances in one.distances.items()
        for measure, distance in distances.items()
        if measure in one.limits.get(feature, {})
    ]  # fmt: skip
    header = ("service", "compared at", "feature", "measure", "distance", "limit", "how it is")
    return PageTable(
        "last",
        "What the last comparisons found of what has a limit",
        header,
        rows,
        "Nothing with a limit was compared yet.",
    )


def _state(distance: float, limit: float | None) -> PageState:
    if limit is None:
        return PageState("no limit")
    return PageState("beyond", "bad") if distance > limit else PageState("within", "good")


def _exceeded(found: Drift) -> PageTable:
    rows = [(of.feature, of.measure.replace("_", " "), of.value, of.limit) for of in found.exceeded]
    return PageTable(
        "exceeded", "Features beyond their limits", ("feature", "measure", "distance", "limit"), rows, "None is."
    )


def _features(found: Drift) -> PageTable:
    shown = [name for name in SHOWN if any(name in feature.distances for feature in found.features)]
    header = (
        "feature",
        "type",
        "rows of the baseline",
        "rows served",
        "missing in the baseline",
        "missing when served",
        *(name.replace("_", " ") for name in shown),
    )
    rows = [
        (one.feature, one.type, one.baseline_rows, one.served_rows, _share(one.baseline_missing), _share(one.served_missing),
         *(_distance(one, one.distances, name) for name in shown))
        for one in found.features
    ]  # fmt: skip
    return PageTable("features", "How far each feature is from the baseline", header, rows, "Nothing was compared.")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _distance(feature: FeatureDrift, distances: Mapping[str, float | None], measure: str) -> object:
    value = distances.get(measure)
    if value is None:
        return "-" if measure in distances else ""
    is_beyond = any(of.measure == measure for of in feature.exceeded)
    return PageState(f"{value:.4g}", "bad") if is_beyond else float(f"{value:.4g}")


PAGE = PageKind("drift", TITLE, drift, takes_long=True, group="How it is")

"""What is to be said about a simulation: what could not be replayed as it is, and one sentence for each finding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from featurestore.declare.durations import show_duration
from featurestore.declare.push import PushSource
from featurestore.declare.sources import Source
from featurestore.plurals import plural
from featurestore.reports.audit import Audit, FeatureAudit, Lateness
from featurestore.reports.simulation.faults import Faults, Stretch
from featurestore.reports.simulation.feeds import Feeds
from featurestore.reports.simulation.landing import LandingSource
from featurestore.reports.simulation.pushes import PushFeed
from featurestore.reports.simulation.report import ViewRuns
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.view import ResolvedView

SECOND_US = 1_000_000


def notes_on(feeds: Feeds, span: Stretch, faults: Faults) -> Iterator[str]:
    """What could not be replayed as it is."""
    landings, pushes = feeds.landings.values(), feeds.pushes.values()
    timeless = [landing.source.name for landing in landings if landing.timeless]
    if timeless:
        yield f"Tables without time have all of their rows from the start: {', '.join(timeless)}"
    came: list[Source] = [landing.source for landing in landings if landing.done.rows]
    came += [feed.source for feed in pushes if feed.done.rows]
    nameless = [source.name for source in came if not source.identity]
    if faults.duplicates and nameless:
        yield f"Rows come twice only where an identity makes that one row; none is declared by: {', '.join(nameless)}"
    for feed in pushes:
        if feed.cutover_moves(span):
            yield (
                f"The cutover of {feed.source.title} was moved to the start, so that its history is pushed from then on; views "
                "over it have another fingerprint here"
            )
        if not feed.done.rows:
            yield f"Nothing was pushed to {feed.source.title}: nothing of this stretch is in its log; rows may be given"


def advice_on(
    audit: Audit, services: Sequence[ResolvedService], feeds: Feeds, *, runs: Mapping[str, ViewRuns],
    refused: Mapping[str, tuple[int, str]],
) -> Iterator[str]:  # fmt: skip
    """One sentence for each finding, what is worst first."""
    read = {(s.name, c.name): _sources_of(s, c.name) for s in services for c in s.columns}
    late = {name for name, landing in feeds.landings.items() if landing.done.late}
    differing: dict[str, list[FeatureAudit]] = defaultdict(list)
    for feature in audit.features:
        if feature.exact < feature.compared:
            blamed = sorted(read[feature.service, feature.feature] & late)
            differing[blamed[0] if blamed else ""].append(feature)
    yield from (_defect(feature) for feature in differing.pop("", []))
    for view in audit.lateness:
        if view.early:
            yield f"{view.view} ({view.service}) was served {view.early:,} {plural(view.early, 'time')} for an instant whose time had not come: a defect"
    yield from (_broken_promise(feeds.landings[name], features) for name, features in differing.items())
    yield from (_kept_aside(feed) for feed in feeds.pushes.values() if feed.done.kept_aside)
    yield from _old(audit, services, runs)
    for what, (count, message) in refused.items():
        yield f"{what}, {count:,} {plural(count, 'time')}, first: {message}"
    if audit.losses.dropped or audit.losses.lost:
        yield f"{audit.losses.dropped + audit.losses.lost:,} {plural(audit.losses.dropped + audit.losses.lost, 'request was', 'requests were')} not logged, and so not compared"


def _defect(feature: FeatureAudit) -> str:
    causes = ", ".join(f"{count:,} {cause}" for cause, count in feature.causes.items())
    return (
        f"{feature.compared - feature.exact:,} of {feature.compared:,} {plural(feature.compared, 'value')} of {feature.feature} ({feature.service}) {plural(feature.compared - feature.exact, 'is', 'are')} not "
        f"training's ({causes}), and nothing that was injected explains it: a defect; look at the examples"
    )


def _kept_aside(feed: PushFeed) -> str:
    return (
        f"{feed.done.kept_aside:,} of {feed.done.rows:,} {plural(feed.done.rows, 'row')} pushed to {feed.source.title} came more than its lateness of "
        f"{show_duration(feed.source.lateness)} after they happened: they are kept aside and count nowhere; a longer "
        "lateness would take them"
    )


def _old(audit: Audit, services: Sequence[ResolvedService], runs: Mapping[str, ViewRuns]) -> Iterator[str]:
    """A sentence for each view that was stale, under whichever names."""
    parts = {(service.name, part.name): part.view for service in services for part in service.parts}
    told: dict[str, list[Lateness]] = defaultdict(list)
    for found in audit.lateness:
        if found.stale:
            told[parts[found.service, found.view].name].append(found)
    views = {view.name: view for view in parts.values()}
    for name in sorted(told):
        yield _stale(views[name], told[name], runs[name])


def _sources_of(service: ResolvedService, column: str) -> set[str]:
    """The sources that a column is made of."""
    parts = {part.name: part.view.source.name for part in service.parts}
    found = next(item for item in service.columns if item.name == column)
    if found.on_demand is not None:
        return {selection.view.source.name for selection in found.on_demand.selections}
    assert found.part is not None
    return {parts[found.part]}


def _broken_promise(landing: LandingSource, features: Sequence[FeatureAudit]) -> str:
    source, done = landing.source, landing.done
    values, compared = sum(f.compared - f.exact for f in features), sum(f.compared for f in features)
    by = show_duration(-(-done.late_by // SECOND_US) * SECOND_US)
    if source.known_at is not None:
        promise, instead = (
            f"known_at ('{source.known_at}') of {source.title}",
            "Let known_at say when a row can be read",
        )
    else:
        longer = show_duration(source.known_after + -(-done.late_by // SECOND_US) * SECOND_US)
        promise = f"known_after={show_duration(source.known_after)} of {source.title}"
        instead = f"known_after='{longer}' would have held"
    return (
        f"{promise} is broken by late rows: {done.late:,} of {done.rows:,} came later than it says, by up to {by}, and {values:,} of "
        f"{compared:,} {plural(compared, 'value')} of {len(features):,} {plural(len(features), 'feature was', 'features were')} served without rows that training counts. {instead}; with "
        "known_at=ARRIVAL rows of files count from when their file was first seen"
    )


def _stale(view: ResolvedView, told: Sequence[Lateness], runs: ViewRuns) -> str:
    rows, asked = sum(found.stale for found in told), sum(found.requests for found in told)
    most = show_duration(max(found.greatest for found in told) // SECOND_US * SECOND_US)
    said = f"{view.declared.title} was stale in {rows:,} of {asked:,} {plural(asked, 'row')}, by up to {most}"
    if view.is_pushed:
        return f"{said}: until a push that died was repaired"
    if view.timing.refresh is None:
        return f"{said}: it is continuous over a batch source, and so as old as its last run, here every hour"
    missed = [
        f"{count:,} {what}"
        for what, count in (
            ("skipped", runs.skipped), ("died", runs.failed), ("fell into the pause", runs.paused),
            ("found the lease of a dead run", runs.refused),
        )
        if count
    ]  # fmt: skip
    over = " (its source is pushed)" if isinstance(view.source, PushSource) else ""
    return (
        f"{said}{over}: of its runs {', '.join(missed) or 'none was missed'}, and the next one made up for it; a scheduler "
        "that tries again within ready_after would hide this"
    )

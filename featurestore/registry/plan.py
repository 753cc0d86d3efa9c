"""plan: what `apply` would change, from the definitions, the registry and the sources' real columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from featurestore.catalog import Catalog
from featurestore.declare.push import PushSource
from featurestore.declare.sources import DataFrameSource, FileSource, Source
from featurestore.errors import DeclarationError, SourceError
from featurestore.plurals import plural
from featurestore.registry.diff import changes
from featurestore.registry.documents import PLACES, Document, Record, document_of, merged
from featurestore.registry.function_notices import function_notices
from featurestore.registry.rollout import Rollout, versions_between
from featurestore.registry.steps import Notice, Plan, Refill, steps_between
from featurestore.registry.store import Registry
from featurestore.registry.type_changes import type_change
from featurestore.registry.warnings import column_notices, data_notices, rule_notices
from featurestore.semantics.columns import RawColumns
from featurestore.semantics.service import resolve_service
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.sources.offline import Offline


def make_plan(
    catalog: Catalog,
    registry: Registry,
    *,
    offline: Offline,
    remove_missing: bool = True,
    accept_types: bool = False,
    rollout: Rollout | None = None,
) -> Plan:
    """The plan from what was applied to `catalog`; nothing is written.

    remove_missing: what was applied and is not in the catalog is removed; otherwise it stays as it is, unless it stands
    on something that changes. accept_types: a column whose type changed under an unchanged definition changes its views
    instead of being an error. rollout: which versions of services to keep and to retire; by default those that are
    replaced are retired, and those that are kept stay so.

    Raises NotFoundError where `rollout` retires what is not kept, SourceError where a source cannot be read or a column's type changed, DeclarationError where a definition does
    not fit its source; each names the view, the feature, the column and the file.
    """
    current = registry.current()
    views = resolve_views(catalog, offline, current.document)
    services = {name: resolve_service(service, views) for name, service in catalog.services.items()}
    document = document_of(catalog, views, services)
    if not remove_missing:
        sources = {**current.catalog.sources, **catalog.sources}
        document = merged(current.document, document, raw_of=lambda name: offline.raw_types(sources[name]))
    _keep_listings(document, current.document)
    if not accept_types:
        for view in views.values():
            if view.name in current.document["views"]:
                _check_types(view, current.document["views"][view.name], offline)
    versions = versions_between(registry, current.document, document, rollout or Rollout())
    steps = steps_between(
        current.document, document, leftovers=registry.leftovers(), versions=versions.steps, kept_before=versions.kept_before,
        kept_after=versions.kept_after,
    )  # fmt: skip
    notices = [*rule_notices(views.values()), *column_notices(views.values(), offline)]
    notices += function_notices(catalog.on_demand.values(), views)
    notices += _moved(current.document, document)
    refilled = [views[step.view] for step in steps if isinstance(step, Refill) and step.view in views]
    notices += _fills(refilled, offline)
    notices += data_notices(views.values(), offline, now=registry.now())
    sorted_notices = tuple(sorted(notices, key=lambda notice: (notice.kind, notice.name, not notice.act)))
    return Plan(current.number, document, steps, sorted_notices, versions.kept)


def resolve_views(catalog: Catalog, offline: Offline, applied: Document) -> dict[str, ResolvedView]:
    """Every view of the catalog, by name, over its source's real columns; errors name the file too. Where there are several, one tells them
    all, and which views are as they should be."""
    resolved, wrong = {}, dict[str, DeclarationError | SourceError]()
    for name, view in catalog.views.items():
        before = applied["views"].get(name)
        try:
            raw = RawColumns.named_as(offline.raw_types(view.source), {} if before is None else before["raw"])
        except (DeclarationError, SourceError) as error:
            wrong.setdefault(str(error), error)
            continue
        try:
            resolved[name] = resolve(view, raw)
        except (DeclarationError, SourceError) as error:
            told = f"{error} [{_read_from(view.source, offline)}]"
            wrong.setdefault(told, error.saying(told))
    if wrong:
        raise _all_that_is_wrong(wrong, resolved) from None
    return resolved


def _all_that_is_wrong(
    wrong: Mapping[str, DeclarationError | SourceError], right: Collection[str]
) -> DeclarationError | SourceError:
    """One error that tells several, by their texts; the first of them where there is only one. right: the views of which none is."""
    first, *others = wrong.values()
    if not others:
        return first
    beside = f"\nNothing is wrong with {', '.join(sorted(right))}" if right else ""
    listed = "\n".join(f"- {text}" for text in wrong)
    return first.saying(f"{len(wrong)} things are wrong with sources or views:\n{listed}{beside}")


def _read_from(source: Source, offline: Offline) -> str:
    if isinstance(source, DataFrameSource):
        return "read from a frame in memory"
    if isinstance(source, PushSource):
        return f"read from the push log of '{source.name}'"
    first, *others = offline.paths(source)
    read = f"read from {first}" + (f" and {len(others)} {plural(len(others), 'file')} more" if others else "")
    types = offline.guessed_partitions(source) if isinstance(source, FileSource) else {}
    said = ", ".join(f'"{name}": {of}' for name, of in types.items())
    hint = f"; what the names of folders say is text unless the source says, such as partitions={{{said}}}"
    return read + hint if said else read


def _fills(views: Iterable[ResolvedView], offline: Offline) -> Iterator[Notice]:
    """What filling views over pushed rows will take."""
    for view in views:
        source = view.source
        if not isinstance(source, PushSource) or not view.is_pushed:
            continue
        rows = sum(segment.rows or 0 for segment in offline.log(source).segments())
        of = f"the log of push source '{source.name}', {rows:,} {plural(rows, 'row')}"
        if source.cutover is not None and source.history is not None:
            of += f", and its history '{source.history.name}'; not before the cutover, {source.cutover.isoformat()}"
        yield Notice(
            "views",
            view.name,
            f"materialize fills it in one step from {of}. Pushes wait meanwhile, and lookups answer as before",
        )


def _check_types(view: ResolvedView, applied: Record, offline: Offline) -> None:
    """SourceError where the definition is as it was applied, and yet the types of its columns are not."""
    try:
        before = resolve(view.declared, applied["raw"])
    except DeclarationError:  # it reads other columns than before
        return
    if before.fingerprint != applied["fingerprint"] or view.fingerprint == before.fingerprint:
        return
    raise type_change(before, view, read_from=f" [{_read_from(view.source, offline)}]")


def _keep_listings(document: Document, current: Document) -> None:
    """The listing of equal code may differ between Python versions; the one that was applied stays."""
    for name, record in document["on_demand"].items():
        before = current["on_demand"].get(name)
        if before is not None and before["definition"]["code"] == record["definition"]["code"]:
            record["declared"]["source"] = before["declared"]["source"]


def _moved(before: Document, after: Document) -> Iterator[Notice]:
    """Sources whose rows are read from elsewhere than before."""
    for name, record in after["sources"].items():
        if name not in before["sources"]:
            continue
        old, new = (
            {word: value for word, value in item["declared"].items() if word in PLACES}
            for item in (before["sources"][name], record)
        )
        if old != new:
            what = "; ".join(map(str, changes(old, new)))
            yield Notice(
                "sources",
                name,
                f"it is read from elsewhere ({what}), and nothing is refilled for that; where its rows differ, materialize --full",
                act=True,
            )

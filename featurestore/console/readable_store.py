"""A store as pages ask it: the operations of the command line, of which whoever has a limited key is told what he may read.

Pages have this, and not the store: what an operation says of anything else is cut here, once, whatever page asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from featurestore.access.principal import Principal
from featurestore.console.readable import LEFT_OUT
from featurestore.console.readable_definitions import NotReadableError, ReadableDefinitions, only
from featurestore.errors import (
    AccessError,
    FeatureStoreError,
    ForbiddenError,
    LogError,
    NotFoundError,
    OnlineStoreError,
    OnlineUnavailableError,
    RegistryError,
    RegistryUnavailableError,
    RequestError,
)
from featurestore.push.quarantine import QuarantinedRow
from featurestore.registry.activity import Activity
from featurestore.registry.differences import Differences
from featurestore.registry.frames import WrittenFrame
from featurestore.registry.keys import ApiKey
from featurestore.registry.records import RunRecord
from featurestore.reports.audit.last_audit import AuditedService, last_audits
from featurestore.reports.audit.report import Audit
from featurestore.reports.availability.report import Availability
from featurestore.reports.drift.last_drift import DriftedService, last_drifts
from featurestore.reports.drift.report import Drift
from featurestore.reports.explain.explanation import Explanation
from featurestore.reports.explain.request_explanation import RequestExplanation
from featurestore.reports.quarantine import UnmetExpectation
from featurestore.reports.status import ViewStatus
from featurestore.serving.log.serving_log import Losses
from featurestore.serving.lookup import Lookup
from featurestore.serving.served_versions import ServiceBehind
from featurestore.statistics.feature_statistics import KeptStatistics
from featurestore.streams.poison import PoisonMessage

T = TypeVar("T")

KINDS_TOLD = (RegistryError, OnlineStoreError, LogError, OSError)
"""Errors of whose kind everybody is told, since it says whether to come back."""


class ReadableStore(ReadableDefinitions):
    """What whoever looks may ask a store. Safe to use from several threads."""

    def told(self, error: Exception) -> str:
        """What may be said of an error: all of it, or what names nothing that may not be read."""
        return str(self.refusal(error))

    def refusal(self, error: Exception) -> Exception:
        """The error that is told instead of another one: itself, or, to whoever may not read everything, one that says as much of what
        went wrong as is sure to be his own."""
        own = (NotReadableError, AccessError, OnlineUnavailableError, RegistryUnavailableError, RequestError)
        if not self.is_limited or isinstance(error, own):
            return error
        if isinstance(error, NotFoundError):
            return NotReadableError("There is no such thing, or this key may not read it")
        kind = next((one for one in KINDS_TOLD if isinstance(error, one)), FeatureStoreError)
        return kind(f"It cannot be read ({type(error).__name__}); why is told to a key for the whole project")

    # --- how it is --------------------------------------------------------------------------

    def status(self) -> list[ViewStatus]:
        """How far each view has come online."""
        found, may = self._store.status(), self.readable
        if may is None:
            return found
        applied = {name: record["fingerprint"] for name, record in self.applied("views").items()}
        seen = []
        for one in found:
            kept = tuple(said for said in one.kept_for if said.partition("@")[0].partition(" ")[0] in may.services)
            if one.view in may.views and (kept or not one.kept_for or one.fingerprint == applied.get(one.view)):
                pushes = one.pushes
                if pushes is not None and pushes.source not in may.whole_sources:
                    pushes = replace(pushes, quarantined=0)  # of what they do not meet, not all may be read
                seen.append(replace(one, kept_for=kept, pushes=pushes))
        return seen

    def runs(self, view: str | None = None, *, limit: int) -> list[RunRecord]:
        """The last runs of materialize, of one view or of all, the newest first."""
        if self.readable is None or view is not None:
            self.check("views", view)
            return [self._run(run) for run in self._store.registry.runs(view, limit=limit)]
        every = [run for name in self.readable.views for run in self._store.registry.runs(name, limit=limit)]
        return [self._run(run) for run in sorted(every, key=lambda run: run.id or 0, reverse=True)[:limit]]

    def last_runs_of(self, views: Iterable[str]) -> list[RunRecord]:
        """The last run of each of these views that has had one."""
        seen = [view for view in views if self.readable is None or view in self.readable.views]
        return [self._run(run) for run in self._store.registry.last_runs_of(seen).values()]

    def _run(self, run: RunRecord) -> RunRecord:
        """A run without the expectations that may not be read."""
        unmet = run.detail.get("unmet")
        if self.readable is None or not unmet:
            return run
        titles = self.titles(run.view)
        return replace(
            run, detail={**run.detail, "unmet": {title: rows for title, rows in unmet.items() if title in titles}}
        )

    def failures(self, *, what: str, limit: int) -> list[Activity]:
        """What the trail of activity says of runs that failed; why, to whoever may read everything."""
        found, may = self._store.activity(what=what, limit=limit), self.readable
        if may is None:
            return found
        return [replace(one, who="", detail={"why": LEFT_OUT}) for one in found if one.subject in may.views]

    def last_audits(self) -> dict[str, AuditedService]:
        """What the last audit found of each service."""
        return self._of_services(last_audits(self._store.config.serving_log.folder))

    def last_drifts(self) -> dict[str, DriftedService]:
        """What the last comparison found of each service."""
        return self._of_services(last_drifts(self._store.config.serving_log.folder))

    def behind(self) -> list[ServiceBehind]:
        """The services that are served in an older version than the applied one."""
        found, may = self._store.behind(), self.readable
        return found if may is None else [one._replace(why=LEFT_OUT) for one in found if one.service in may.services]

    def losses(self) -> Losses | None:
        """What the serving log lacks; None where that is told of the whole project alone."""
        return None if self.is_limited else self._store.serving_log_losses()

    def differences(self) -> Differences | None:
        """What is at hand and not applied; None as of losses."""
        return None if self.is_limited else self._store.differences()

    def audit(self, *, since: Any, until: datetime | None, service: str | None) -> Audit:
        """What was served, compared with what training says, which is not kept. Whoever may not read everything names the service, where he may
        read several."""
        may = self.readable
        if may is not None and service is None:
            if len(may.services) != 1:
                raise RequestError("Choose one of the services that this key is for")
            (service,) = may.services
        self.check("services", service)
        return self._store.audit(since=since, until=until, service=service, keep=False)

    def audit_remarks(self, found: Audit) -> list[str]:
        """What an audit left out and why, and sums; of the whole log to whoever may read everything."""
        if not self.is_limited:
            return found.remarks()
        return [f"{what} was not audited: {why}" for what, why in found.not_audited.items()]

    def drift(self, service: str, **words: Any) -> Drift:
        """How far what was served is from a baseline, which is not kept."""
        self.check("services", service)
        return self._store.drift(service, keep=False, **words)

    def statistics(
        self, feature: str | None, *, view: str | None, service: str | None, limit: int
    ) -> list[KeptStatistics]:
        """What values were like, the newest first."""
        may = self.readable
        if may is None:
            return list(self._store.statistics(feature, view=view, service=service, limit=limit).found)
        self.check("views", view)
        self.check("services", service)
        if feature is not None and not may.has_feature(feature):
            raise self.refused("feature", feature)
        asked: list[dict[str, Any]] = (
            [{"view": view}] if view is not None else [{"service": service}] if service is not None else []
        )
        if view is not None and service is not None:
            asked = [{"view": view, "service": service}]  # which exclude each other, and the operation says so
        asked = asked or [*({"view": name} for name in may.views), *({"service": name} for name in may.services)]
        found = [one for words in asked for one in self._store.statistics(feature, limit=limit, **words).found]
        cut = [
            replace(one, features=tuple(of for of in one.features if may.has_feature(of.feature)))
            if one.kind == "run"
            else one
            for one in found
        ]
        return sorted(cut, key=lambda one: one.at, reverse=True)[:limit]

    def availability(self, view: str | None, *, since: Any) -> Availability:
        """How late rows became known and servable."""
        if self.readable is None or view is not None:
            self.check("views", view)
            return self._store.availability(None if view is None else [view], since=since)
        return self._store.availability(sorted(self.applied("views")), since=since)

    # --- asked ------------------------------------------------------------------------------

    def lookup(self, service: str) -> Lookup:
        """What answers lookups of a service."""
        self.check("services", service)
        return self._store.lookup(service)

    def explain(self, asked: str, key: Mapping[str, Any], *, at: datetime | None, limit: int) -> Explanation:
        """Why a view, or some features of it, has these values for a key."""
        may, view = self.readable, asked.partition(":")[0]
        if may is None:
            return self._store.explain(asked, key, at=at, limit=limit)
        self.check("views", view)
        if ":" in asked and not may.has_feature(asked):
            raise self.refused("feature", asked)
        return may.cut(self._store.explain(asked, key, at=at, limit=limit))

    def explain_request(self, request: str, row: int, *, limit: int) -> RequestExplanation:
        """What one row of a logged request was served, and what training says. Of a request to another service nothing tells that there was
        one: it is refused in the same words as one that was never made."""
        may = self.readable
        if may is None:
            return self._store.explain_request(request, row, limit=limit)
        refused = NotReadableError(
            f"There is no row {row} of a request '{request[:100]}' that can be explained, or this key may not read it"
        )
        try:
            found = self._store.explain_request(request, row, limit=limit)
        except (OnlineUnavailableError, RegistryUnavailableError):
            raise
        except FeatureStoreError:
            raise refused from None
        if found.service not in may.services:
            raise refused
        views = tuple(
            replace(view, explanation=may.cut(view.explanation.of([feature.column.removeprefix(f"{view.name}__") for feature in view.features])))
            for view in found.views
        )  # fmt: skip
        return replace(found, views=views)

    # --- training sets, pushes and rows aside -----------------------------------------------

    def frames(self) -> list[WrittenFrame]:
        """The training frames that were written, the last one first."""
        found, may = self._store.registry.frames(), self.readable
        return [one for one in found if may is None or one.service in may.services]

    def manifest(self, path: str) -> dict[str, Any]:
        """The manifest of a training frame."""
        self._must_be_whole("What a manifest holds")
        return self._store.load_manifest(path).raw

    def manifest_check(self, path: str) -> str:
        """How a training frame compares with what is applied and served."""
        self._must_be_whole("What a manifest holds")
        return self._store.check_manifest(path).report().text()

    def poison(self, source: str, *, most: int) -> list[PoisonMessage]:
        """Messages of a source's stream that were kept aside; where not all of its columns may be read, without what stands in them."""
        self.check("sources", source)
        found = self._store.poison(source, most=most)
        if self.readable is None or source in self.readable.whole_sources:
            return found
        return [one._replace(reason=LEFT_OUT, message=one.message._replace(value=None)) for one in found]

    def quarantine(self) -> list[UnmetExpectation]:
        """What is expected of rows, and how many do not meet it."""
        found, may = self._store.quarantine().unmet, self.readable
        if may is None:
            return list(found)
        seen = []
        for one in found:
            if one.of in may.sources:  # rows that are kept aside of a push source, whatever they do not meet
                seen += [one] if one.of in may.whole_sources else []
            elif one.of in may.views and one.expectation in self.titles(one.of):
                seen.append(one)
        return seen

    def quarantined_rows(self, name: str, *, most: int) -> list[QuarantinedRow]:
        """The rows that do not meet what is expected; without columns, and without rows that fail for those alone, that may not be read."""
        may = self.readable
        if may is None:
            return self._store.quarantined_rows(name, most=most)
        view = self._store.catalog.views.get(name) if name in may.views else None
        if view is None and name not in may.sources:
            raise self.refused("feature view or push source", name)
        source = name if view is None else view.source.name
        found = self.named(lambda name: self._store.quarantined_rows(name, most=most), name)
        if source in may.whole_sources:
            return list(found)
        titles = self.titles(name)
        seen = []
        for row in found:
            unmet = tuple(title for title in row.unmet if title in titles)
            if unmet:
                values = {column: value for column, value in row.values.items() if may.has_column(source, column)}
                seen.append(row._replace(values=values, unmet=unmet))
        return seen

    # --- for administrators -----------------------------------------------------------------

    def api_keys(self) -> list[ApiKey]:
        """All keys."""
        self._must_be_whole("Who has a key")
        return self._store.registry.api_keys()

    def activity(self, **words: Any) -> list[Activity]:
        """Who did what."""
        self._must_be_whole("Who did what")
        return self._store.activity(**words)

    # --- what may not be read ---------------------------------------------------------------

    # --- what may not be read ---------------------------------------------------------------

    def _of_services(self, found: dict[str, T]) -> dict[str, T]:
        return found if self.readable is None else only(found, self.readable.services)

    def _must_be_whole(self, what: str) -> None:
        if self.is_limited:
            raise ForbiddenError(
                f"{what} is shown to a key for the whole project; {self._principal.name} is limited to a part of it",
                scope="read",
            )


def left_out(principal: Principal) -> str:
    """What whoever has a limited key is told on each page; "" for everybody else."""
    if principal.only_on is None:
        return ""
    names = ", ".join(
        f"{kind} '{name}'" for kind, _, name in sorted(limit.partition(":") for limit in principal.only_on)
    )
    return (
        f"{principal.name} is limited to {names or 'nothing'}: you see that, and what it is made of. Other definitions and their values, runs and "
        "requests are left out, and so are columns that your features are not made of, texts that may tell of others, and what is told of the whole project."
    )

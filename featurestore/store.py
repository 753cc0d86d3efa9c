"""The feature store: the verbs, each of which is one operation."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from math import inf
from pathlib import Path
from threading import Event
from typing import Any, Literal, Self

from featurestore.backup.make import make_backup
from featurestore.bound import BoundToProcess
from featurestore.catalog import Catalog
from featurestore.clock import Clock, wall_clock
from featurestore.config import Config, load_config
from featurestore.declare.arguments import checked, named
from featurestore.declare.durations import asked_duration, began
from featurestore.declare.problems import shown
from featurestore.durable.temporary import TemporaryFolder
from featurestore.elsewhere import counterparts
from featurestore.errors import (
    ManifestError,
    PushError,
    RequestError,
    did_you_mean,
)
from featurestore.forget.forget import forget
from featurestore.forget.forgotten import Forgotten
from featurestore.frames import Frames
from featurestore.loading.files import definition_files
from featurestore.loading.load import load
from featurestore.materialize.leader import leader_key
from featurestore.materialize.lease import alive_holder
from featurestore.materialize.materialize import Run
from featurestore.online import OnlineStore
from featurestore.planning import Planning
from featurestore.project import Project
from featurestore.push.current_rows import CurrentRows
from featurestore.push.push_queue import PushAnswer
from featurestore.push.pushed import Pushed
from featurestore.push.pusher import TakenBack
from featurestore.push.quarantine import QuarantinedRow
from featurestore.push.told_pushes import ToldPushes
from featurestore.registry.activity import ACTIONS, Activity
from featurestore.registry.apply import AppliedVersion
from featurestore.registry.differences import Differences
from featurestore.registry.steps import Plan
from featurestore.registry.store import Registry, Version
from featurestore.reports.audit import Audit, Audited, AuditEngine, audit
from featurestore.reports.audit.last_audit import keep_audit
from featurestore.reports.availability import Availability, availability
from featurestore.reports.description import Description, describe, describe_all
from featurestore.reports.drift import Baseline, Drift, DriftAsked, drift
from featurestore.reports.drift.last_drift import keep_drift
from featurestore.reports.estimate import (
    Estimate,
    estimate_refills,
    estimate_runs,
)
from featurestore.reports.explain.explain import explain
from featurestore.reports.explain.explanation import Explanation
from featurestore.reports.explain.request import explain_request
from featurestore.reports.explain.request_explanation import RequestExplanation
from featurestore.reports.lineage.lineage import Direction, Lineage, lineage_of
from featurestore.reports.manifest_check import ManifestCheck, check_manifest
from featurestore.reports.quarantine import (
    Quarantine,
    discard_quarantined,
    quarantine,
    quarantined_rows,
    replay_quarantined,
)
from featurestore.reports.simulation import Faults, Real, Simulated, Simulation, simulate
from featurestore.reports.statistics import StatisticsAsked, describe_served_hours, statistics
from featurestore.reports.status import ViewStatus, status_of
from featurestore.reports.verify import Verification, verify
from featurestore.runs import Runs
from featurestore.said_once import SaidOnce
from featurestore.serving.feature_list import FeatureList, is_features
from featurestore.serving.log.serving_log import Losses
from featurestore.serving.log.upkeep import Upkeep
from featurestore.serving.lookup import BegunLookup, Lookup
from featurestore.serving.online_result import OnlineResult
from featurestore.serving.served_versions import Patience, ServiceBehind
from featurestore.sources.log import Compaction
from featurestore.sources.offline import Offline
from featurestore.sources.sorted.optimize import Optimized, optimize, over_sources, sorted_states
from featurestore.sources.sorted.optimize import remove as remove_copies
from featurestore.statistics.feature_statistics import Statistics
from featurestore.streams.consume import StreamProject, consume, streamed
from featurestore.streams.consumer import Consumed, ConsumeOptions
from featurestore.streams.kept_aside import KeptAside
from featurestore.streams.poison import PoisonMessage
from featurestore.training.kernel import Options
from featurestore.training.manifest import Manifest, load_manifest, may_hold_manifest
from featurestore.training.parts import PART_ROWS, WrittenParts
from featurestore.training.snapshot import TIMESTAMP
from featurestore.training.training_frame import TrainingFrame

OPENED = "training uses those at hand, materialize and lookups those that are applied", "training uses what is declared"


@counterparts
class FeatureStore(BoundToProcess):
    """A project: its definitions, what of them is applied, its offline data and its online store.

    path: a folder with a featurestore.toml and the definitions beside it, or the file itself. env: the `[env.NAME]`
    of the file to use. clock: a callable that returns an aware datetime; it stands for every clock, the online store's
    included. Safe to use from several threads. Raises ConfigError and DeclarationError.
    """

    @named
    def __init__(self, path: str | Path, *, env: str | None = None, clock: Clock | None = None) -> None:
        config = load_config(path, env if env is not None else os.environ.get("FEATURESTORE_ENV") or None)
        self._open(Project(config, load(definition_files(config), config.root), clock))
        if hasattr(sys, "ps1"):  # somebody sits at it: a notebook or Python's prompt
            self._said.say(self.differences().told(*OPENED))

    def _open(self, project: Project) -> None:
        self._project = project
        self._said = SaidOnce()
        self._planning = Planning(project)
        self._frames, self._runs = Frames(project, self._said), Runs(project, self._said)
        self._pushes = ToldPushes(lambda: project.pushing, project.push_trail)
        project.serving_log.described = partial(describe_served_hours, project)
        self._remove: Callable[[], object] | None = None

    @classmethod
    def local(cls, *, clock: Clock | None = None) -> Self:
        """A store for a notebook: temporary, embedded, no files to write; it vanishes with the process or `close`."""
        store = cls.__new__(cls)
        folder = TemporaryFolder()
        store._open(Project(Config.local(folder.path), Catalog(), clock))
        store._remove = folder.remove
        return store

    def __repr__(self) -> str:
        return f"FeatureStore(project={self.config.project!r}, environment={self.config.environment!r})"

    def _instead(self) -> str:
        if self._remove is not None:
            return "This one is temporary, and of this process alone; several can open a project in a folder: FeatureStore(path)"
        env = "" if self.config.environment is None else f", env={self.config.environment!r}"
        return f"Send its path, and open it there, once in each process: FeatureStore({str(self.config.root)!r}{env})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the online store, DuckDB's spill folder and, for a local store, its files; idempotent."""
        self._project.close()
        if self._remove is not None:
            self._remove()

    @property
    def config(self) -> Config:
        """What featurestore.toml says."""
        return self._project.config

    @property
    def registry(self) -> Registry:
        """What has been applied."""
        return self._project.registry

    @property
    def offline(self) -> Offline:
        """The sources and push logs."""
        return self._project.offline

    @property
    def online(self) -> OnlineStore:
        """The online store, opened when it is first needed."""
        return self._project.online

    @property
    def catalog(self) -> Catalog:
        """The definitions at hand over those that were applied."""
        return self._project.definitions

    # --- definitions ------------------------------------------------------------------------

    @checked
    def plan(
        self, definitions: Iterable[Any] | None = None, *, accept_types: bool = False, keep: bool = False,
        retire: str | Sequence[str] = (),
    ) -> Plan:  # fmt: skip
        """The steps that `apply` would take, with warnings about what the declared options cost; nothing is written.

        definitions: only these (with what they refer to), removing nothing; by default all of the repository.
        accept_types: take a source column's changed type as a change instead of an error. keep: the service versions that
        it replaces are served on to clients that name their fingerprint. retire: kept versions that are not any more, as
        "service@fingerprint" (or the beginning of one that fits one), or "all".
        """
        return self._planning.plan(definitions, accept_types=accept_types, keep=keep, retire=retire)

    @checked
    def apply(
        self, definitions: Iterable[Any] | Plan | None = None, *, note: str = "", accept_types: bool = False,
        keep: bool = False, retire: str | Sequence[str] = (),
    ) -> AppliedVersion:  # fmt: skip
        """Carry out a plan: the one given, or that of the definitions given, or that of the repository.

        accept_types, keep, retire: as for `plan`, which says them of a plan that is given. Raises PlanOutdatedError where
        the plan given is no longer what would be done.
        """
        return self._planning.apply(definitions, note=note, accept_types=accept_types, keep=keep, retire=retire)

    @checked
    def estimate_plan(self, plan: Plan) -> Estimate:
        """What the first runs of `materialize` take that a plan's refills ask for: rows, bytes, time and memory. Nothing is done but to
        measure how fast this machine is, for a second or two of each view, with some rows of its source. Raises SourceError."""
        if not isinstance(plan, Plan):
            raise RequestError(f"plan is what FeatureStore.plan gives, and not {shown(plan)}")
        return estimate_refills(self._project, plan)

    @checked
    def optimize(self, sources: Sequence[str] | None = None, *, remove: bool = False) -> list[Optimized]:
        """Copy the rows of sources once more, by the keys of the views over them and then by time, so that a frame or an audit of few
        keys reads little; run again, what has come since. Values are the same with a copy and without.

        sources: only these; by default those of all views. remove: delete the copies instead. Raises SourceError; what was copied before stays
        then.
        """
        views = [self._project.view(view) for view in self._project.definitions.views.values()]
        chosen = over_sources(views, sources)
        return remove_copies(chosen, self.offline) if remove else optimize(chosen, self.offline)

    def sorted_copies(self) -> list[Optimized]:
        """The copies that `optimize` made of sources of applied views, compared with the files that are there now. A source without
        copies is not in the list."""
        applied = self.registry.current()
        return sorted_states(map(applied.view, applied.document["views"]), self.offline)

    def differences(self) -> Differences:
        """The definitions at hand that differ from the applied ones in anything that can change a value."""
        return self._project.differences()

    @checked
    def describe(self, name: str | None = None) -> tuple[Description, ...]:
        """The whole meaning of the definition or feature ("view:feature") of a name; without a name, of all definitions.

        A definition at hand goes before an applied one of its name. Raises NotFoundError with the nearest name.
        """
        return describe_all(self._project) if name is None else describe(self._project, name)

    def history(self) -> tuple[Version, ...]:
        """Every applied version, newest first."""
        return self.registry.history()

    def teardown(self) -> int:
        """Free everything of the project online and remove all definitions from the registry; how many keys there were."""
        return self._planning.teardown()

    # --- training ---------------------------------------------------------------------------

    @checked
    def get_historical_features(  # noqa: PLR0913 - each is a word of its own
        self,
        spine: Any,
        features: Any,
        *,
        timestamp: str = TIMESTAMP,
        timezone: str | None = None,
        with_status: bool = False,
        with_event_time: bool = False,
        from_log: timedelta | str | None = None,
        sources_as_in: Any = None,
    ) -> TrainingFrame:
        """The training frame of a spine: every row with the values that a lookup at its instant would have been served.

        spine: pandas, polars or Arrow, a Parquet path or a DuckDB relation, with the entities' key columns, the request
        values of on-demand features and a `timestamp` column. features: a service, a view, a selection or an on-demand
        feature, itself or by its name, "view:feature", or a list of these; never applied ones too; or a manifest of another
        frame, whose definitions are taken, or FingerprintError says what differs. timezone: of naive timestamps,
        which are UTC where it is not said; `notices` of the frame then say so.
        with_status: a column `<feature>__status` for each feature of a view. with_event_time: a column
        `<view>__event_time` with the time of the row that was chosen, null where nothing lies within the ttl. from_log: what
        was served and logged in place of that, where the service (for a list of features: one that gives them all) was asked for the row's
        keys and request values at its instant, or up to so long before ("0s": at the very instant); a column `values_from` says "log" or "query".
        sources_as_in: the manifest of another frame (or what `load_manifest` takes), whose files are read, and of tables the versions
        that it names, in place of those of now; SourceError where these are gone. With the same manifest as features, the same frame is
        made again. Raises SpineError, SourceError, OnDemandError, FingerprintError, ManifestError.
        """
        options = Options(timestamp, timezone, with_status, with_event_time)
        return self._frames.of_spine(spine, features, options, from_log=from_log, sources_as_in=sources_as_in)

    @checked
    def snapshot(
        self, features: Any, *, at: datetime | Sequence[datetime], with_status: bool = False, sources_as_in: Any = None
    ) -> TrainingFrame:
        """The values of every key as a lookup at `at` would have been served, without a spine; of several instants, all in
        one query, the keys of the first, then those of the next. sources_as_in: as for `get_historical_features`."""
        return self._frames.of_instants(features, at, Options(with_status=with_status), sources_as_in=sources_as_in)

    @checked
    def historical_parts(  # noqa: PLR0913 - each is a word of its own
        self, folder: str | Path, spine: str | Path, features: Any, *, timestamp: str = TIMESTAMP,
        timezone: str | None = None, with_status: bool = False, with_event_time: bool = False,
        part_rows: int = PART_ROWS, from_log: timedelta | str | None = None, sources_as_in: Any = None,
    ) -> WrittenParts:  # fmt: skip
        """Write a training frame that is too large to be made at once: a folder of Parquet files, each of so many spine rows.

        spine: a Parquet file or folder, or the URL of one. What was killed goes on when it is asked for again with the same words,
        and several processes can work at once. The files of sources are those that were there when the folder was begun. The others: as for
        `get_historical_features`. Raises what that raises, and FeatureStoreError where the folder holds another frame.
        """
        options = Options(timestamp, timezone, with_status, with_event_time)
        return self._frames.parts_of_spine(
            folder, spine, features, options, part_rows=part_rows, from_log=from_log, sources_as_in=sources_as_in
        )

    @checked
    def snapshot_parts(
        self, folder: str | Path, features: Any, *, at: datetime | Sequence[datetime], with_status: bool = False,
        part_rows: int = PART_ROWS, sources_as_in: Any = None,
    ) -> WrittenParts:  # fmt: skip
        """Write a snapshot that is too large to be made at once, as `historical_parts` does: several instants a file where there are few
        keys, else a range of keys at one instant."""
        options = Options(with_status=with_status)
        return self._frames.parts_of_instants(
            folder, features, at, options, part_rows=part_rows, sources_as_in=sources_as_in
        )

    @checked
    def estimate_historical_features(
        self, spine: Any, features: Any, *, timestamp: str = TIMESTAMP, timezone: str | None = None, with_status: bool = False,
        with_event_time: bool = False, part_rows: int | None = None,
    ) -> Estimate:  # fmt: skip
        """What the training frame of a spine will take, written to a Parquet file: rows, bytes, time and memory, before anything is made.

        Rows are counted, from the footers of files. How fast this machine is, is measured: for a second or two, with some rows of the sources
        and of the spine. part_rows: of `historical_parts`. The others: as for `get_historical_features`; a spine of which nobody knows the
        length is SpineError.
        """
        options = Options(timestamp, timezone, with_status, with_event_time)
        return self._frames.estimate_of_spine(spine, features, options, part_rows=part_rows)

    @checked
    def estimate_snapshot(
        self, features: Any, *, at: datetime | Sequence[datetime], with_status: bool = False, part_rows: int | None = None
    ) -> Estimate:  # fmt: skip
        """The same of a snapshot, whose keys are counted about. part_rows: of `snapshot_parts`."""
        return self._frames.estimate_of_instants(features, at, Options(with_status=with_status), part_rows=part_rows)

    @checked
    def explain(
        self, view: Any, key: Mapping[str, Any], *, at: datetime | None = None, limit: int = 100
    ) -> Explanation:
        """The value of one key at an instant (default now), the rows that made it, and those left out and why.

        view: a view, itself or by its name, or some of its features: "view:feature", `view["x"]`.
        """
        asked = self._project.selection(view)
        resolved = self._project.view(asked.view)
        instant = self._project.now() if at is None else self._said.instant(at, "at")
        return explain(resolved, self.offline, key, at=instant, limit=limit).of(asked.features)

    @checked
    def explain_request(self, request: str, row: int = 0, *, limit: int = 100) -> RequestExplanation:
        """What one row of a logged request was served, and for each value the computation that gives it again.

        request: the id that the answer bore; row: of its rows, from 0. Raises NotFoundError where it is not in the
        serving log, RequestError where it has no such row, FingerprintError where what was served is not at hand.
        """
        log = self._project.serving_log
        log.flush()
        return explain_request(request, log, self.offline, self._project.served_service, row=row, limit=limit)

    @checked
    def lineage(self, of: Any, *, direction: Direction = "both") -> Lineage:
        """What something is made of, from source columns on, and where it goes, up to training frames and serving.

        of: "view:feature", "view__feature", "source.column", the name of a view, an on-demand feature, a service or a
        source, or a definition. direction: "upstream" or "downstream" alone. Raises NotFoundError with the nearest name.
        """
        return lineage_of(self._project, of, direction=direction)

    # --- serving ----------------------------------------------------------------------------

    @checked
    def materialize(
        self,
        views: Sequence[str] | None = None,
        *,
        full: bool = False,
        progress: bool = True,
        stop: Event | None = None,
    ) -> list[Run]:
        """Compute and publish the values of applied views that are due by now; until they are published, the earlier ones are served.

        views: only these. full: compute every key, not only those that may have changed, the instant that is served
        now included, and switch once. progress: a bar on a terminal, lines elsewhere. stop: once it is set, MaterializeError after the batch that is being written. Raises SourceError, MaterializeError and OnlineStoreError; the next run completes the work.
        """
        return self._runs.materialize(views, full=full, progress=progress, stop=stop)

    @checked
    def estimate_materialize(self, views: Sequence[str] | None = None, *, full: bool = False) -> Estimate:
        """What `materialize` would take now, of the applied views (only these): rows, keys, bytes, time and memory. Nothing is written; of
        the online store is read how far each view has come. full: as for `materialize`. Raises SourceError and OnlineStoreError."""
        return estimate_runs(self._project, views, full=full)

    @checked
    def follow(self, stop: Event, *, views: Sequence[str] | None = None, every: str = "1m") -> None:
        """Materialize each view when it becomes due, until `stop` is set; a batch that runs then is completed.

        views: only these. every: how often to materialize continuous views, which have no schedule. Of all
        processes that follow the same views one works, and another takes its place when it ends or dies. What is applied
        meanwhile is taken up. Where a view fails, the others go on, and it is tried again, after ever longer pauses: that is
        logged, and in the trail of activity. Raises NotFoundError, at once, where one of `views` was never applied.
        """
        self._runs.follow(stop, views, every_seconds=asked_duration(every, "every") / 1e6)

    @checked
    def verify(self, views: Sequence[str] | None = None, *, repair: bool = False) -> Verification:
        """Compare the online store with the offline data: every key, byte by byte, of each view with values online.

        views: only these. repair: write all of a view again where it is not so. Raises SourceError, MaterializeError,
        LogError and OnlineStoreError.
        """
        return verify(self._project, views, repair=repair)

    @checked
    def push(
        self, source: str, rows: Any, *, json: bool = False, who: str | None = None, request_id: str | None = None,
        within_seconds: float | None = None,
    ) -> Pushed:  # fmt: skip
        """Keep rows of a push source: on the disk and seen by the next lookup when it returns.

        rows: a list of dicts (or one), or a frame, with the source's columns. json: their values are in their JSON forms.
        The answer counts what was accepted, what was pushed before and changes nothing, and what came too late and is
        kept aside; its `without_key` counts accepted rows that no view can count, and its `notices` say what is to be known.
        who, request_id: what the trail of activity says of it, by default the user who runs this process. within_seconds: how long it may
        take; OnlineUnavailableError then, which says what became of the rows. Raises PushError, with
        nothing kept, NotFoundError, LogError and OnlineStoreError.
        """
        return self._pushes.push(
            source, rows, json=json, who=who, request_id=request_id, within_seconds=_seconds(within_seconds)
        )

    @checked
    def consume(
        self, stop: Event | None = None, *, sources: Sequence[str] | None = None, until_end: bool = False, skip_lost: bool = False,
        begin_again: bool = False,
    ) -> dict[str, Consumed]:  # fmt: skip
        """Push what the streams of push sources have, exactly once, until `stop` is set; what was done, by source.

        sources: only these; by default all that are applied with a stream. until_end: return when each partition was at its end
        once. skip_lost: go on where messages were deleted before they were read, and count them. begin_again: where a stream
        was deleted and made again, read the new one from its first message. Of several processes each reads its share of the
        partitions. Messages that cannot be taken are kept aside; see `poison`. Raises NotFoundError, ConfigError, PushError,
        BrokerError where a stream lost messages or is another one, and LogError.
        """
        project = self._stream_project()
        found = streamed(project.pushing, sources)
        options = ConsumeOptions(until_end, skip_lost, begin_again)
        return consume(project, found, stop=stop or Event(), options=options)

    def _stream_project(self) -> StreamProject:
        project = self._project
        config = project.config
        told = partial(self._pushes.told, who="featurestore consume")
        return StreamProject(config.project, project.pushing, project.online, project.poison, config.brokers, told)

    @checked
    def poison(self, source: str, *, after: int = 0, most: int = 1_000) -> list[PoisonMessage]:
        """The messages of a source's stream that could not be taken, and why, in the order in which they were kept aside.

        after: those after the one of this id. most: so many at most.
        """
        return KeptAside(self._stream_project(), source).messages(after=after, most=most)

    @checked
    def replay_poison(self, source: str, ids: Sequence[int] | None = None) -> dict[int, Pushed | PushError]:
        """Push messages that were kept aside again, after what was wrong was put right; what became of each, by its id.

        ids: only these; by default all. One that is taken is kept aside no more. Raises NotFoundError, PushError, LogError and OnlineStoreError.
        """
        return KeptAside(self._stream_project(), source).replay(ids)

    @checked
    def discard_poison(self, source: str, ids: Sequence[int] | None = None) -> int:
        """Forget messages that were kept aside, without pushing them; how many. ids: only these; by default all."""
        return KeptAside(self._stream_project(), source).discard(ids)

    def quarantine(self) -> Quarantine:
        """The expectations of every applied view and push source, and how many rows fail them now.

        Raises SourceError and LogError.
        """
        return quarantine(self._project)

    @checked
    def quarantined_rows(self, name: str, *, most: int = 1_000) -> list[QuarantinedRow]:
        """The rows of a view's files that fail its expectations, or the rows of a push source that are kept aside.

        most: so many at most. Raises NotFoundError, SourceError and LogError.
        """
        return quarantined_rows(self._project, name, most=most)

    @checked
    def replay_quarantined(self, source: str, ids: Sequence[int] | None = None) -> dict[int, Pushed | PushError]:
        """Push rows again that are kept aside and pass the expectations by now; returns the answer for each, by its id.

        ids: only these; by default all. One that is taken is kept aside no more. Raises NotFoundError, PushError, LogError and OnlineStoreError.
        """
        return replay_quarantined(self._project, source, ids, self._pushes.told)

    @checked
    def discard_quarantined(self, source: str, ids: Sequence[int] | None = None) -> int:
        """Erase rows that are kept aside, without pushing them; how many. ids: only these; by default all."""
        return discard_quarantined(self._project, source, ids)

    @checked
    def submit_push(
        self, source: str, rows: Any, *, json: bool = False, who: str | None = None, request_id: str | None = None,
        overwrite: bool | CurrentRows = False,
    ) -> PushAnswer:  # fmt: skip
        """`push` that does not wait: a future of what became of the rows. Raises PushError for rows that cannot be read, and
        NotFoundError; all else is raised by the future.

        overwrite: the rows say what they are from now on: one that is equal to an earlier version, and not to the last one, is
        no retry, and one that comes too late to count refuses all. Where the current rows of a key are given that they were
        made from (`push.current_rows`), they are kept only where these are the current ones still; RowsChangedError, and
        nothing is kept, where they are not.
        """
        return self._pushes.submit(source, rows, json=json, who=who, request_id=request_id, overwrite=overwrite)

    @checked
    def key_columns(self, source: str) -> frozenset[str]:
        """The columns of a push source that name things online: its identity, and the keys of the views over it."""
        return self._project.pushing.key_columns(source)

    @checked
    async def apush(
        self, source: str, rows: Any, *, json: bool = False, who: str | None = None, request_id: str | None = None,
        within_seconds: float | None = None,
    ) -> Pushed:  # fmt: skip
        """`push` for coroutines."""
        return await self._pushes.apush(
            source, rows, json=json, who=who, request_id=request_id, within_seconds=_seconds(within_seconds)
        )

    @checked
    def activity(
        self, *, since: datetime | str | None = None, what: str | None = None, limit: int = 100
    ) -> list[Activity]:
        """Who applied, retired, materialized, pushed, forgot and changed keys, the newest first.

        since: an aware datetime, or how long ago, "1d". what: only this, one of `ACTIONS`. limit: so many at most.
        """
        if what is not None and what not in ACTIONS:
            raise RequestError(f"There is no '{what}' in the trail.{did_you_mean(what, ACTIONS, noun='Actions')}")
        self._project.push_trail.flush()
        return self.registry.activity(since=began(since, wall_clock()), what=what, limit=limit)

    def repair(self) -> None:
        """Bring online what a process that died while it pushed left in a log; a server does it when it starts.

        The next push to the source and `materialize` do it too; until then lookups answer for the instant before.
        """
        self._project.pushing.repair()

    @checked
    def take_back(self, source: str) -> TakenBack:
        """Take rows out of a push log that are known further ahead of the store's clock than a push waits for, 10 s.

        They were pushed by a clock that was ahead, and nothing can be pushed until the store's has come there. They are put
        into a file, to be pushed again. All that is online of the source is given up, until `materialize` fills it again.
        """
        taken = self._project.pushing.take_back(source)
        self.registry.add_activity([Activity("take back", source, {"rows": taken.rows})])
        return taken

    @checked
    def forget(self, entity: Any, key: Mapping[str, Any], *, dry_run: bool = False) -> Forgotten:
        """Erase a key everywhere, and for good: online, in push logs, in the serving log; rows of it in sources do not count.

        entity: an entity, itself or by its name. key: a value for each of its key columns; with some of them, every key that has
        these is meant. Rows that are learned afterwards count again. What the user keeps, files and tables and training frames,
        he erases himself. Safe beside pushes, lookups and runs; where it fails or is killed, the same call completes it.
        dry_run: only say what would go. Raises NotFoundError, RequestError, LogError, MaterializeError, OnlineStoreError and
        RegistryError.
        """
        return forget(self._project, entity, key, dry_run=dry_run)

    def confirm_pushes(self) -> None:
        """Go on saying online that all of the logs at hand is there, a few times a second, as a server does.

        Those who look up on machines without the logs are then answered for now, and not for the last push.
        """
        self._project.pushing.serve()

    @checked
    def compact(self, sources: Sequence[str] | None = None) -> dict[str, Compaction]:
        """Seal the full segments of push logs into Parquet, beside readers and writers; by source.

        Identities of rows older than the source's lateness are forgotten online.
        """
        return self._project.pushing.compact(self.catalog, sources)

    def compact_serving_log(self) -> Upkeep | None:
        """Merge the serving log's past hours, ship them where that is said, and delete what is too old or too much, beside readers
        and writers.

        Returns what was done, or None while another process does it. Processes that log do so themselves every few minutes. Raises LogError where
        files cannot be shipped.
        """
        return self._project.serving_log.keep_up()

    @checked
    def backup(self, to: str | Path) -> Path:
        """Copy all of the project that cannot be computed again (registry, logs, journals) into a new folder, or a new file
        whose name ends in .tar, while everything runs; returns its path. The command `featurestore restore` puts it back. Raises BackupError, LogError and
        RegistryError.
        """
        if not isinstance(to, (str, Path)) or not str(to):
            raise RequestError(f"to is the path of a folder or a file, and not {shown(to)}")
        self._project.push_trail.flush()
        self._project.serving_log.flush()
        make_backup(self.config, Path(to))
        return Path(to)

    def load_manifest(self, given: Any) -> Manifest:
        """The manifest of a training frame, from its Parquet file, a JSON file, the frame itself or a dict; ManifestError.

        It stands for a service and its fingerprint wherever these are asked for.
        """
        return load_manifest(given)

    def check_manifest(self, given: Any) -> ManifestCheck:
        """Compare a manifest (or anything that `load_manifest` takes) with the definitions applied, at hand and served."""
        return check_manifest(load_manifest(given), self._project)

    def unfilled(self, features: Any, fingerprint: str | None = None) -> list[str]:
        """The views of a service version that have no values online yet; errors as of `lookup`."""
        return self._project.serving.unfilled(self.lookup(features, fingerprint).service)

    def lookup(self, features: Any, fingerprint: str | None = None) -> Lookup:
        """The loaded service that lookups use; for a server that keeps it at hand. features: see get_online_features."""
        return self._project.serving.lookup(*self._asked(features, fingerprint))

    def _asked(
        self, features: Any, fingerprint: str | None, rows: Any = None, *, json: bool = True
    ) -> tuple[str | FeatureList, str | None]:
        """What is looked up. rows: those of the request, which may have changed places with the features. json: where it came
        as JSON, in which nothing is a path."""
        if not isinstance(fingerprint, str | None):
            raise RequestError(f"fingerprint is text, or None, and not {shown(fingerprint)}")
        if isinstance(features, str):
            if not json and features.endswith((".parquet", ".json")):
                raise RequestError(
                    f"features: '{features}' is the name of a file; a manifest is given as "
                    f"store.load_manifest({features!r}), or as Path({features!r})"
                )
            return features, fingerprint
        if is_features(features):
            return FeatureList.of(features), fingerprint
        if is_features(rows):
            raise RequestError("The rows come first, and then the features: get_online_features(rows, features)")
        if not may_hold_manifest(features):
            return FeatureList.of(self.catalog.service_of(features)), fingerprint  # which says what is wrong with it
        manifest = load_manifest(features)
        if fingerprint not in {None, manifest.fingerprint}:
            raise ManifestError(
                f"The manifest is of {manifest.fingerprint}, and the fingerprint given is {fingerprint}"
            )
        return self._project.serving.present(manifest)

    @checked
    def get_online_features(
        self, rows: Any, features: Any, *, fingerprint: str | None = None, json: bool = False,
        request_id: str | None = None, within_seconds: float | None = None,
        when_unavailable: Literal["raise", "defaults"] = "raise",
    ) -> OnlineResult:  # fmt: skip
        """The features of each row now: a list of dicts (or one), or a frame, of keys and request values.

        features: as for `get_historical_features`, with the fingerprint that the model was trained on; or its manifest,
        which says both. Exactly those definitions are served, or FingerprintError says what differs. Views have to be
        applied; what is asked of a list, and of a service that was never applied, is not logged. json: the rows' values are
        in their JSON forms, as over HTTP. request_id: what it is logged under, 1 to 128 printable ASCII characters; by default an id of the store's.
        within_seconds: how long the online store may take at most, retries included. when_unavailable: "defaults" answers with those of the
        features, UNAVAILABLE and without an as_of, where the store cannot be reached and the features were looked up before.
        Raises RequestError, NotMaterializedError, NotFoundError, OnDemandError, OnlineStoreError.
        """
        asked = self._asked(features, fingerprint, rows, json=json)
        return self._project.serving.get(
            *asked, rows, json=json, request_id=request_id, patience=_patience(within_seconds, when_unavailable)
        )

    @checked
    async def aget_online_features(
        self, rows: Any, features: Any, *, fingerprint: str | None = None, json: bool = False,
        request_id: str | None = None, within_seconds: float | None = None,
        when_unavailable: Literal["raise", "defaults"] = "raise",
    ) -> OnlineResult:  # fmt: skip
        """`get_online_features` for coroutines: those that wait at the same time share a round trip."""
        asked = self._asked(features, fingerprint, rows, json=json)
        return await self._project.serving.aget(
            *asked, rows, json=json, request_id=request_id, patience=_patience(within_seconds, when_unavailable)
        )

    def _begin_lookup(
        self, rows: Any, features: Any, *, fingerprint: str | None = None, within_seconds: float = inf
    ) -> BegunLookup | None:
        """`aget_online_features` of rows in their JSON forms, for a server that answers without a coroutine; None where the service must
        be loaded first. What it answers is to be given to `_recorded_lookup`."""
        name, version = self._asked(features, fingerprint)
        return self._project.serving.begin(name, version, rows, json=True, within_seconds=within_seconds)

    def _recorded_lookup(self, begun: BegunLookup, result: OnlineResult) -> OnlineResult:
        """The result of a lookup that was begun, with the id under which it is logged, where it is."""
        return self._project.serving.recorded(begun.lookup, result, None)

    @checked
    def audit(
        self, *, since: datetime | str | None = None, until: datetime | None = None, service: str | None = None,
        against: Mapping[str, str] | Manifest | None = None, spine: Any = None, keep: bool = True,
    ) -> Audit:  # fmt: skip
        """What was served and logged, compared with what training says, bit by bit; see `reports.audit`.

        since: an aware datetime, or how long ago, "1d"; all that was logged by default. until: an aware datetime.
        service: only this one. against: what a model was trained on, where that may not be what it was served: a manifest,
        or service → fingerprint. spine: the rows that training was asked for, by the ids under which they were logged.
        keep: whether what it found of each service is kept beside the log, where that can be written, for metrics and alerts;
        without it nothing is changed. What is served while it runs may be missing from it.
        """
        return self._audit(since, until, service, against, spine=spine, keep=keep)

    def _audit(
        self, since: datetime | str | None, until: datetime | None, service: str | None,
        against: Mapping[str, str] | Manifest | None, *, spine: Any = None, keep: bool, engine: AuditEngine | None = None,
    ) -> Audit:  # fmt: skip
        """`audit`. engine: compares what it can; None: this process compares everything."""
        self._project.serving_log.flush()
        ended = None if until is None else self._said.instant(until, "until")
        self._said.naive(since, "since")
        if not isinstance(against, Manifest | Mapping | None):
            raise RequestError(f"against is a manifest, or a dict of service and fingerprint, and not {shown(against)}")
        trained = {against.service: against.fingerprint} if isinstance(against, Manifest) else against or {}
        asked = Audited(began(since, self._project.now()), ended, service, trained, spine)
        found = audit(self._project, asked, engine)
        if keep:
            keep_audit(self._project.serving_log.folder, found)
        return found

    @checked
    def drift(
        self, service: str, *, baseline: Any = None, before: timedelta | str = "7d", since: datetime | str = "1d",
        until: datetime | None = None, every: timedelta | str | None = None, keep: bool = True,
    ) -> Drift:  # fmt: skip
        """How far what was served and logged is from a baseline, by feature; drift is no skew, of which `audit` tells.

        baseline: a training frame, the Parquet file that it was written to, or a frame with the features' columns; by default
        what was served within `before` ahead of `since`. since, until: as for `audit`. every: compare each period of that length
        too, as "1h". The service version is that of the baseline's manifest, else the one that is applied. keep: as for `audit`.
        Raises NotFoundError, and RequestError where one of the sides has no rows.
        """
        self._project.serving_log.flush()
        now = self._project.now()
        ended = now + 1 if until is None else self._said.instant(until, "until")  # what was served just now is over
        self._said.naive(since, "since")
        asked = DriftAsked(
            service, began(since, now) or 0, ended, None if baseline is None else Baseline.of(baseline),
            asked_duration(before, "before"), None if every is None else asked_duration(every, "every"),
        )  # fmt: skip
        found = drift(self._project, asked)
        if keep:
            keep_drift(self._project.serving_log.folder, found)
        return found

    @checked
    def statistics(
        self, feature: str | None = None, *, view: str | None = None, service: str | None = None, run: int | None = None,
        training_set: str | Path | None = None, since: datetime | str | None = None, limit: int = 20,
    ) -> Statistics:  # fmt: skip
        """What values were like, the newest first: of training frames that were written, of runs of materialize, and of what was
        served in each hour, as it was kept then.

        feature: only this one, "view:feature" or an on-demand feature's name. view: of its runs. service: of its frames and hours. run: of
        the run of this number. training_set: of the frame that was written to this path or URL. since: as for `audit`. limit: so many at
        most. Raises NotFoundError and RequestError.
        """
        self._said.naive(since, "since")
        began_at = began(since, self._project.now())
        return statistics(self._project, StatisticsAsked(feature, view, service, run, training_set, began_at, limit))

    def when_statistics_fail(self, told: Callable[[], object]) -> None:
        """Call `told` each time that statistics cannot be gathered or kept; what they are of goes on."""
        if not callable(told):
            raise RequestError(f"told is a function, and not {shown(told)}")
        self._project.statistics.when_failed.append(told)

    def serving_log_losses(self) -> Losses:
        """How many requests were offered to the serving log, written, dropped and lost, over all processes, and the last
        error that cost some. What waits to be written is neither."""
        return self._project.serving_log.losses()

    @checked
    def availability(self, views: Sequence[str] | None = None, *, since: datetime | str | None = None) -> Availability:
        """How late rows became known and servable, measured from the journals, and which words promise more than that.

        views: only these. since: of rows that happened since then, an aware datetime, or how long ago, "7d"; all by default.
        """
        self._said.naive(since, "since")
        return availability(self._project, views, since=since)

    @checked
    def simulate(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        services: Sequence[str] | None = None,
        faults: Faults | None = None,
        seed: int = 0,
        lookups: float = 30,
        rows: Mapping[str, Any] | None = None,
    ) -> Simulation:
        """Replay a stretch of history through push, materialize and lookup, with faults, and audit it.

        It works in a temporary folder and writes nothing of this project. start, end: aware datetimes, by default the last
        day of the data. services: names, all by default. faults: what goes wrong, `Faults()` by default. lookups: requests
        of each service an hour. rows: frames to be pushed, by push source, in place of what its log has. The same seed
        gives the same report. Raises NotFoundError, RequestError, SourceError and PushError.
        """
        real = Real(self.config, self.catalog, self.offline, self._project.now())
        asked = Simulated(
            None if start is None else self._said.instant(start, "start"),
            None if end is None else self._said.instant(end, "end"), services,
            Faults() if faults is None else faults, seed, lookups, {} if rows is None else rows,
        )  # fmt: skip
        return simulate(real, asked, self._beside)

    @classmethod
    def _beside(
        cls, config: Config, catalog: Catalog, clock: Clock, before: Callable[[OnlineStore], OnlineStore]
    ) -> Self:
        """A store over definitions at hand, with something before its online store."""
        store = cls.__new__(cls)
        store._open(Project(config, catalog, clock, before=before))
        return store

    def reload(self) -> None:
        """Notice a newly applied or published version now, and not within seconds."""
        self._project.serving.reload()

    def behind(self) -> list[ServiceBehind]:
        """The applied services that this process serves in an older version, or in none, for want of their functions' code."""
        return self._project.serving.behind()

    def without_registry(self) -> list[str] | None:
        """While the registry does not answer, and lookups go on with the loaded services: the views of these without values online.
        None while it answers, or while nothing is loaded."""
        return self._project.serving.without_registry()

    def status(self) -> list[ViewStatus]:
        """How far online each applied view is, and each view that a kept service reads; and the state of their push logs.

        While the online store cannot be read, the state of each view is "unknown", and `unavailable` says why."""
        return status_of(self._project)

    def leader(self) -> str | None:
        """The process that follows all views, as "process 17 on jobs-1"; None if no process does."""
        now, (held,) = self.online.get([leader_key(self.config.project)])
        leads = alive_holder(held, now)
        return None if leads is None else str(leads)


def _seconds(within_seconds: float | None) -> float:
    if within_seconds is not None and not within_seconds > 0:
        raise RequestError(f"within_seconds is a number of seconds above 0, and not {shown(within_seconds)}")
    return inf if within_seconds is None else within_seconds


def _patience(within_seconds: float | None, when_unavailable: str) -> Patience:
    return Patience(_seconds(within_seconds), when_unavailable == "defaults")

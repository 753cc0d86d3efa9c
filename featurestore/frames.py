"""Training frames as a store makes them: of the definitions at hand, over its sources, entered in its registry when they are written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from featurestore.declare.durations import asked_duration
from featurestore.declare.problems import shown
from featurestore.errors import SpineError
from featurestore.project import Project
from featurestore.registry.function_notices import told_of_change
from featurestore.reports.estimate import Estimate, estimate_snapshot, estimate_spine
from featurestore.reports.logged_frame import FromLog
from featurestore.said_once import SaidOnce
from featurestore.semantics.service import ResolvedService
from featurestore.serving.feature_list import is_features
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from featurestore.training.manifest import Manifest
from featurestore.training.parts import WrittenParts, entered, historical_parts, snapshot_parts
from featurestore.training.pinned import asked_listing
from featurestore.training.snapshot import AskedInstants, snapshot
from featurestore.training.training_frame import TrainingFrame, journalled, writable_folder

AT_HAND = "those at hand are used", "the definitions at hand are used"

Instants = datetime | Sequence[datetime]


class Frames:
    """Makes training frames, snapshots, and both in parts; see the methods of FeatureStore, whose words these are."""

    def __init__(self, project: Project, said: SaidOnce) -> None:
        self._project, self._said = project, said

    def service(self, features: Any) -> ResolvedService:
        """What is asked for, as it is at hand; where that is not as it is applied, or its code was replaced, it is said. Of a
        manifest, what it names."""
        if isinstance(features, Manifest):
            return self._project.manifest_service(features)
        service = self._project.service(features)
        for item in service.on_demand:
            if changed := told_of_change(item):
                self._said.say(f"On-demand feature '{item.name}': {changed}")
        self._said.say(self._project.differences_of(features).told(*AT_HAND))
        return service

    def of_spine(
        self, spine: Any, features: Any, options: Options, *, from_log: timedelta | str | None, sources_as_in: Any
    ) -> TrainingFrame:
        """The frame of a spine."""
        is_path = isinstance(features, (str, Path)) and str(features).endswith(".parquet")
        if is_path or (is_features(spine) and not is_features(features)):
            raise SpineError("The spine comes first, and then the features: get_historical_features(spine, features)")
        service, offline = self.service(features), self._project.offline
        listing = asked_listing(service, offline, sources_as_in)
        frame = get_historical_features(
            spine, service, offline, now=self._project.now(), options=options, listing=listing
        )
        logged = self._from_log(from_log, service, options)
        return self._journalled(frame if logged is None else logged.frame(frame), service)

    def of_instants(self, features: Any, at: Instants, options: Options, *, sources_as_in: Any) -> TrainingFrame:
        """The snapshot of one instant or several."""
        service, offline = self.service(features), self._project.offline
        asked, listing = AskedInstants.of(at), asked_listing(service, offline, sources_as_in)
        frame = snapshot(service, offline, at=asked.at, now=self._project.now(), options=options, listing=listing)
        frame.manifest["notices"] += asked.notices
        return self._journalled(frame, service)

    def parts_of_spine(
        self, folder: str | Path, spine: str | Path, features: Any, options: Options, *, part_rows: int,
        from_log: timedelta | str | None, sources_as_in: Any,
    ) -> WrittenParts:  # fmt: skip
        """The frame of a spine, written in parts."""
        if not isinstance(spine, (str, Path)):
            raise SpineError(f"The spine of parts is a Parquet file or folder, and not {shown(spine)}")
        service, now = self.service(features), self._project.now()
        place = writable_folder(folder)
        logged = self._from_log(from_log, service, options)
        written = historical_parts(
            place, spine, service, self._project.offline, now=now, options=options, part_rows=part_rows, instead=logged,
            sources_as_in=sources_as_in,
        )  # fmt: skip
        return self._entered(written, service)

    def parts_of_instants(
        self, folder: str | Path, features: Any, at: Instants, options: Options, *, part_rows: int, sources_as_in: Any
    ) -> WrittenParts:
        """The snapshot, written in parts."""
        service, instants, now = self.service(features), AskedInstants.of(at).at, self._project.now()
        written = snapshot_parts(
            writable_folder(folder), service, self._project.offline, at=instants, now=now, options=options,
            part_rows=part_rows, sources_as_in=sources_as_in,
        )  # fmt: skip
        return self._entered(written, service)

    def estimate_of_spine(self, spine: Any, features: Any, options: Options, *, part_rows: int | None) -> Estimate:
        """What the frame of a spine will take."""
        service, now = self.service(features), self._project.now()
        return estimate_spine(spine, service, self._project.offline, now=now, options=options, part_rows=part_rows)

    def estimate_of_instants(self, features: Any, at: Instants, options: Options, *, part_rows: int | None) -> Estimate:
        """What the snapshot will take."""
        service, instants, now = self.service(features), AskedInstants.of(at).at, self._project.now()
        return estimate_snapshot(
            service, self._project.offline, at=instants, now=now, options=options, part_rows=part_rows
        )

    def _from_log(self, from_log: timedelta | str | None, service: ResolvedService, options: Options) -> FromLog | None:
        """What puts logged values in place of the query's; None where the caller does not ask for it."""
        if from_log is None:
            return None
        return FromLog(self._project, service, options, asked_duration(from_log, "from_log"))

    def _journalled(self, frame: TrainingFrame, service: ResolvedService) -> TrainingFrame:
        project = self._project
        return journalled(frame, service, project.registry, project.now, project.statistics)

    def _entered(self, written: WrittenParts, service: ResolvedService) -> WrittenParts:
        project = self._project
        return entered(written, service, project.registry, project.statistics, now=project.now())

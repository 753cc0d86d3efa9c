"""Fills or frees one view version online."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

from featurestore.config import Config
from featurestore.declare.push import PushSource
from featurestore.durable.owner import OwnedFolder
from featurestore.errors import MaterializeError
from featurestore.materialize.materialize import (
    Run,
    RunEngine,
    ThisProcess,
    forget_records,
    materialize_view,
    run_record,
)
from featurestore.materialize.progress import Progress
from featurestore.materialize.worker_processes import Workers
from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec
from featurestore.registry.delete_online import free_view
from featurestore.registry.documents import view_fingerprints
from featurestore.registry.kept_statistics import GatheredFeatures, StatisticsKeeper
from featurestore.registry.rollout import held_views
from featurestore.registry.store import Registry
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.tiles.file_tile_choice import free_tiles, has_tiles


class PushedRecords(Protocol):
    """What fills views over pushed rows."""

    def fill(self, view: ResolvedView, *, full: bool) -> list[Run]:
        """Make a view complete online."""

    def alone(self, view: str, fingerprint: str) -> AbstractContextManager[None]:
        """Keep pushes away from a view version."""


class Materializer:
    """Fills and frees the view versions of one project; safe to use from several threads.

    tiles: the folder of the tiles of files; None: there are none.
    """

    def __init__(
        self, registry: Registry, offline: Offline, store: OnlineStore, pushed: PushedRecords, *, config: Config,
        tiles: OwnedFolder | None, statistics: StatisticsKeeper,
    ) -> None:  # fmt: skip
        self._registry, self._offline, self._store, self._pushed = registry, offline, store, pushed
        self._project, self._tiles = config.project, tiles
        self._statistics, self._chunk_keys = statistics, config.materialize.chunk_keys
        self._workers = Workers(config.materialize.processes, config.project, config.online, config.offline)

    def materialize(
        self, view: ResolvedView, *, full: bool, progress: Progress, engine: RunEngine | None = None
    ) -> list[Run]:
        """Make one view complete online, up to now; nothing of a version that was retired meanwhile is left there. engine: where the
        records of a view that is not kept by pushes are written; None: in this process."""
        if not self._stays(view):
            return []
        gather = self._statistics.gather
        here = ThisProcess(self._offline, self._store, progress, self._tiles, gather, self._chunk_keys, self._workers)
        runs = []
        try:
            writer = engine or here
            for run in self._fill(view, full=full, progress=progress, engine=writer):
                self._record(
                    run, writer.gathered.pop(run.instant, None)
                )  # at once: the next one may take hours, and be killed
                runs.append(run)
        except MaterializeError:  # whose lease was freed with all else of the version
            if self._stays(view):
                raise
        if not self._stays(view):  # the process that retired it has freed it, perhaps before the last write
            self.free(view.name, view.fingerprint)
        return runs

    def _record(self, run: Run, gathered: GatheredFeatures | None) -> None:
        """Note a run that is published in the registry, with what its values are like."""
        record = run_record(run, self._store.get([]).now)
        described = self._statistics.described("run", run.view, run.fingerprint, at=run.instant, gathered=gathered)
        self._statistics.beside(partial(self._registry.record_run, record), described)

    def _stays(self, view: ResolvedView) -> bool:
        """Whether a view version is applied, held by a kept service, or still to be freed."""
        version, state = (view.name, view.fingerprint), self._registry.state()
        current = view_fingerprints(self._registry.version(state.generation).document)
        held = ((one.view.name, one.view.fingerprint) for one in held_views(self._registry, state))
        return version in current.items() or version in state.leftovers or version in held

    def _fill(self, view: ResolvedView, *, full: bool, progress: Progress, engine: RunEngine) -> Iterable[Run]:
        if view.is_pushed:
            assert isinstance(view.source, PushSource)
            if not view.source.is_open(self._store.get([]).now):  # what its history will know is not known yet
                return []
            return self._pushed.fill(view, full=full)
        return materialize_view(
            view, self._offline, self._store, project=self._project, progress=progress, full=full, engine=engine
        )

    def forget(self, view: ResolvedView, keys: Sequence[bytes]) -> int:
        """Delete the records of forgotten keys, and the view version's tiles of files; how many records there were.
        MaterializeError while a run goes on."""
        codec, tiles = ViewCodec(self._project, view, tagged=self._store.tagged), self._tiles
        (lease, *records), damaged = read_past_damage(self._store, [codec.lease_key, *keys])
        tiled = tiles is not None and has_tiles(tiles, view.name, view.fingerprint)
        if lease is None and not damaged and not tiled and records.count(None) == len(records):
            return 0
        return forget_records(
            view, self._store, project=self._project, keys=keys,
            beside=lambda: None if tiles is None else free_tiles(tiles, view.name, view.fingerprint),
        )  # fmt: skip

    def free(self, view: str, fingerprint: str) -> int:
        """Free what a view version has online; how many keys there were."""
        if self._tiles is not None:
            free_tiles(self._tiles, view, fingerprint)
        with self._pushed.alone(view, fingerprint):
            return free_view(self._store, self._registry, self._project, view, fingerprint)

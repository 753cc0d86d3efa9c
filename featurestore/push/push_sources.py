"""All pushers of one project, and the background threads that they need."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from featurestore.catalog import Catalog
from featurestore.clock import Clock, to_datetime
from featurestore.declare.push import PushSource
from featurestore.declare.sources import Source
from featurestore.durable.forks import mutex
from featurestore.errors import (
    NotFoundError,
    OnlineUnavailableError,
    PushError,
    SourceError,
    apply_first,
    did_you_mean,
)
from featurestore.lazy import duckdb
from featurestore.materialize.materialize import Run
from featurestore.online import OnlineStore
from featurestore.online.source_state import LAG_US, Witness
from featurestore.online.view_codec import WATERMARK, ViewCodec, key_prefix, pack_watermark
from featurestore.push.compactor import Compactor
from featurestore.push.current_rows import CurrentRows
from featurestore.push.heartbeat import Heartbeat
from featurestore.push.locked_state import AppliedSource
from featurestore.push.push_queue import Advance, PushAnswer
from featurestore.push.pushed import Pushed
from featurestore.push.pusher import Pusher, TakenBack
from featurestore.push.quarantine_counts import QuarantineCounts
from featurestore.push.witness import LOOK_EVERY_US, LogWitness
from featurestore.registry.documents import pushed_source
from featurestore.registry.rollout import held_views
from featurestore.registry.store import Registry, RegistryState, Version
from featurestore.semantics.view import ResolvedView
from featurestore.sources.expected import UnmetRows, check_rows, row_expectations, unmet_rows
from featurestore.sources.log import Compaction
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import ASIDE
from featurestore.sources.source_files import again
from featurestore.sources.unreadable import engine_words

LOGGER = logging.getLogger("featurestore")

CLOCK_WAIT_SECONDS = 10.0
"""Seconds for which a push waits for the online store's clock, which may stand still, or have been set back."""


INLINE_ROWS = 50
"""Rows that are read as quickly as a thread is found to read them. Measured: 48 µs to read 50 rows of three columns, 46 µs to find a
thread."""


class _AppliedSources(NamedTuple):
    """The registry's state, the sources that are applied or of services that are kept, and by source every view version that
    takes pushes, beside whether it is left to be freed, and those that are served and refreshed."""

    state: RegistryState | None
    sources: Mapping[str, Source]
    versions: Mapping[str, list[tuple[ResolvedView, bool]]]
    refreshed: Mapping[str, list[ResolvedView]]


class Pushing:
    """The pushers of a project, one a source, made when they are first needed; safe to use from several threads.

    compact_after: how many full segments of a log are sealed in the background; 0: none.
    """

    def __init__(
        self, registry: Registry, offline: Offline, store: OnlineStore, *, project: str, clock: Clock | None,
        compact_after: int = 0, declared: Callable[[], Container[str]] = tuple,
    ) -> None:  # fmt: skip
        self._declared = declared
        self._registry, self._offline, self._store, self._project = registry, offline, store, project
        own = getattr(clock, "wait_until", None)
        self._wait: Callable[[int], None] = own or self._wait_for_the_clock
        self._stands = own is not None  # a clock that moves only when it is told to
        self._witnesses: dict[str, LogWitness] = {}
        self._heartbeat = Heartbeat(self._pushers_here)
        self._serves = False
        self._pushers: dict[str, Pusher] = {}
        self._compactor = Compactor(compact_after)
        self.quarantine_counts = QuarantineCounts()
        self._lock = mutex()
        self._known = _AppliedSources(None, {}, {}, {})

    def push(self, name: str, rows: Any) -> Pushed:
        """Keep rows and apply them. Raises NotFoundError, PushError, LogError and OnlineStoreError; see Pusher."""
        return self.submit(name, rows).result()

    def close(self) -> None:
        """End what goes on in the background."""
        self._heartbeat.close()
        self._compactor.close()

    def witness(self, source: PushSource) -> Witness:
        """Who vouches for what is read of a source online, where its log is at hand."""
        with self._lock:
            if source.name not in self._witnesses:
                every = 0 if self._stands else LOOK_EVERY_US
                self._witnesses[source.name] = LogWitness(source, self._offline, every=every)
            return self._witnesses[source.name]

    @property
    def lag(self) -> int:
        """µs that an answer over pushed rows may be behind the clock without being stale."""
        return 0 if self._stands else LAG_US

    def serve(self) -> None:
        """Confirm online what every log at hand holds, from now on, for servers that have none."""
        self._serves = True
        self._beat()

    def _beat(self) -> None:
        if not self._stands:  # there is no time between two instants of a clock that does
            self._heartbeat.start()

    def _pushers_here(self) -> list[Pusher]:
        """The pushers to confirm: those that were used here; of a server, of every source whose log is here."""
        if self._serves:
            for name, source in self._read().sources.items():
                if isinstance(source, PushSource) and self._offline.logs.has(name):
                    self._pusher(name)
        return list(self._pushers.values())

    def notice(self, name: str) -> None:
        """Something was pushed: a log that has grown enough is compacted in the background."""
        for log in self._offline.logs.opened(name):
            self._compactor.notice(log)

    def submit(
        self,
        name: str,
        rows: Any,
        *,
        json: bool = False,
        overwrite: bool | CurrentRows = False,
        advance: Advance | None = None,
    ) -> PushAnswer:
        """`push` that does not wait: what will become of the rows. overwrite, advance: see Pusher."""
        pusher = self._pusher(name)
        self._beat()
        return pusher.submit(rows, json=json, overwrite=overwrite, advance=advance)

    def positions(self, name: str) -> dict[str, str]:
        """How far streams were read that feed a source; see Pusher."""
        return self._pusher(name).positions()

    def is_open(self, name: str) -> bool:
        """Whether a source takes rows by now: its history, if it has one, is over."""
        return self._applied(name).source.is_open(self._store.get([]).now)

    def sources(self) -> list[PushSource]:
        """The push sources that are applied, or of services that are kept."""
        return [source for source in self._read().sources.values() if isinstance(source, PushSource)]

    def key_columns(self, name: str) -> frozenset[str]:
        """The columns of a source that are part of a key online: its identity, and the keys of the views over it."""
        applied = self._applied(name)
        of_views = (key.column for view in (*applied.views, *applied.left) for key in view.keys)
        return frozenset((*applied.source.identity, *of_views))

    async def asubmit(self, name: str, rows: Any, *, json: bool) -> PushAnswer:
        """`submit` for coroutines."""
        loop = asyncio.get_running_loop()
        pusher = self._pushers.get(name)
        if pusher is None:
            pusher = await loop.run_in_executor(None, self._pusher, name)
        self._beat()
        submit = partial(pusher.submit, rows, json=json)
        few = isinstance(rows, list) and len(rows) <= INLINE_ROWS
        return submit() if few else await loop.run_in_executor(None, submit)

    def fill(self, view: ResolvedView, *, full: bool) -> list[Run]:
        """Make a view over pushed rows complete online: all of it where it never was, else what a dead pusher left. full: all of it, whatever
        is damaged there."""
        assert isinstance(view.source, PushSource)
        pusher, codec = self._pusher(view.source.name), ViewCodec(self._project, view, tagged=self._store.tagged)
        reading = self._store.get([] if full else [codec.watermark_key])
        self._offline.note(view.source, now=reading.now)
        if not full and reading.values[0] is not None:
            pusher.repair()
            return []
        began, instant = time.perf_counter(), reading.now
        unmet = again(lambda: self._expected(view))

        def publish(upto: int) -> dict[bytes, bytes | None]:
            nonlocal instant
            instant = upto
            return {codec.watermark_key: pack_watermark([upto])}

        keys = again(lambda: pusher.fill(view, publish, past_damage=full))
        seconds = time.perf_counter() - began
        return [
            Run(
                view.name,
                view.fingerprint,
                instant,
                reading.now,
                keys,
                keys,
                full=True,
                seconds=seconds,
                files=(),
                unmet=unmet,
            )
        ]

    def _expected(self, view: ResolvedView) -> UnmetRows:
        """How many rows of the source's history do not meet what is expected, which is logged; ExpectationError where one refuses."""
        if not row_expectations(view):
            return {}
        with self._offline.session() as session, session.reading():
            try:
                unmet = unmet_rows(session, view)
            except duckdb.Error as error:
                title = f"{view.declared.title} over {view.source.title}"
                raise SourceError(f"{title}: {engine_words(error)} ({view.source.origin})") from error
        for said in check_rows(view, unmet):
            LOGGER.warning(said)
        return unmet

    def repair(self) -> None:
        """Apply what dead pushers left in the logs of all sources. Raises LogError and OnlineStoreError."""
        for name, source in self._read().sources.items():
            if isinstance(source, PushSource) and self._offline.logs.has(name):
                self._pusher(name).repair()
                for which in ASIDE:
                    if self._offline.logs.has(source.name, which):
                        self._offline.log(source, which)
                self.notice(name)

    def take_back(self, name: str) -> TakenBack:
        """Take rows out of a log that are further ahead of the clock than a push waits for; see Pusher."""
        pusher = self._pusher(name)
        folder = self._offline.logs.folder_of(name).parent

        def place(now: int) -> Path:
            return folder / f"taken-back-{to_datetime(now):%Y%m%dT%H%M%S%f}Z.parquet"

        return pusher.take_back(place, ahead=round(CLOCK_WAIT_SECONDS * 1e6))

    def forget(self, name: str) -> int:
        """Forget the identities of a source's rows that are older than its lateness; how many."""
        return self._pusher(name).forget()

    def pusher_of(self, name: str) -> Pusher | None:
        """The pusher of a source; None where it takes no pushes any more."""
        try:
            return self._pusher(name)
        except (NotFoundError, PushError):
            return None

    def compact(self, catalog: Catalog, names: Sequence[str] | None) -> dict[str, Compaction]:
        """Seal the full segments of push logs (only of those named), those of late rows too, then forget the identities that
        are older than the lateness; what was done, by source. NotFoundError, LogError."""
        known = {name: source for name, source in catalog.sources.items() if isinstance(source, PushSource)}
        for name in names or ():
            if name not in known:
                raise NotFoundError(f"No push source '{name}' was applied.{did_you_mean(name, known)}")
        done = {}
        for name in names or known:
            done[name] = self._offline.log(known[name]).compact()
            for which in ASIDE:
                if self._offline.logs.has(name, which):
                    done[name] = done[name].beside(self._offline.log(known[name], which).compact())
            self.forget(name)
        return done

    @contextmanager
    def alone(self, view: str, fingerprint: str) -> Iterator[None]:
        """Keep pushes away from a view version, where it takes any, while its records are freed."""
        source = next(
            (name for name, versions in self._read().versions.items()
             if any((v.name, v.fingerprint) == (view, fingerprint) for v, _ in versions)), None,
        )  # fmt: skip
        pusher = None if source is None else self.pusher_of(source)
        with pusher.alone(f"freeing view '{view}'") if pusher is not None else nullcontext():
            yield

    def _pusher(self, name: str) -> Pusher:
        with self._lock:
            if name not in self._pushers:
                self._pushers[name] = Pusher(
                    self._source(self._read().sources, name), self._offline, self._store, project=self._project,
                    applied=lambda: self._applied(name), wait=self._wait,
                )  # fmt: skip
            return self._pushers[name]

    def _applied(self, name: str) -> AppliedSource:
        """The source and the view versions that may be online over it: those applied, and those that are to be freed."""
        known = self._read()
        versions, refreshed = known.versions.get(name, []), known.refreshed.get(name, [])
        there = [*(view for view, _ in versions), *refreshed]
        return AppliedSource(
            self._source(known.sources, name),
            [view for view, left in versions if not left],
            [view for view, left in versions if left],
            refreshed,
            lambda: self._gone(name, {(view.name, view.fingerprint) for view in there}),
        )

    def _source(self, sources: Mapping[str, Source], name: str) -> PushSource:
        if name not in sources:
            pushed = [known for known, source in sources.items() if isinstance(source, PushSource)]
            hint = apply_first(name, self._declared()) + did_you_mean(name, pushed, noun="Push sources")
            raise NotFoundError(f"No push source '{name}' was applied.{hint}")
        source = sources[name]
        if not isinstance(source, PushSource):
            raise PushError(f"{source.title} is read from files; only a PushSource takes rows")
        return source

    def _gone(self, source: str, there: set[tuple[str, str]]) -> list[bytes]:
        """The watermark keys of versions that were ever applied over a source, but for those that are."""
        found = {
            (view, record["fingerprint"])
            for version in self._registry.history()
            for view, record in version.document["views"].items()
            if pushed_source(version.document, view) == source
        }
        tagged = self._store.tagged
        prefixes = [
            key_prefix(self._project, *version, pushed=source, tagged=tagged) for version in sorted(found - there)
        ]
        return [prefix + WATERMARK for prefix in prefixes]

    def _read(self) -> _AppliedSources:
        """What is applied and still to be freed; the definitions are read again only where that has changed."""
        state = self._registry.state()
        if self._known.state != state:
            current = self._registry.version(state.generation)
            known: dict[str, Source] = {}
            for kept in state.kept:
                known |= self._registry.version(kept.version).catalog.sources
            known |= current.catalog.sources
            held = [held.view for held in held_views(self._registry, state)]
            by_source: dict[str, list[tuple[ResolvedView, bool]]] = {}
            refreshed: dict[str, list[ResolvedView]] = {}
            for view, left in [*self._versions(current, set(state.leftovers)), *((view, False) for view in held)]:
                if view.is_pushed:
                    by_source.setdefault(view.source.name, []).append((view, left))
                elif not left:
                    refreshed.setdefault(view.source.name, []).append(view)
            self._known = _AppliedSources(state, known, by_source, refreshed)
        return self._known

    def _versions(self, current: Version, left: set[tuple[str, str]]) -> list[tuple[ResolvedView, bool]]:
        found = {(view, record["fingerprint"]): (current, False) for view, record in current.document["views"].items()}
        for version in self._registry.history() if left else ():
            for view, record in version.document["views"].items():
                if (view, record["fingerprint"]) in left:
                    found.setdefault((view, record["fingerprint"]), (version, True))
        return [
            (of.view(view), old)
            for (view, _), (of, old) in found.items()
            if pushed_source(of.document, view) is not None
        ]

    def _wait_for_the_clock(self, instant: int) -> None:
        """Return when the online store's clock has come to an instant."""
        deadline = time.monotonic() + CLOCK_WAIT_SECONDS
        while True:
            now = self._store.get([]).now
            if now >= instant:
                return
            if time.monotonic() > deadline or instant - now > CLOCK_WAIT_SECONDS * 1e6:
                raise OnlineUnavailableError(
                    f"The online store's clock stands at {to_datetime(now).isoformat()}, and rows of the log are known from "
                    f"{to_datetime(instant).isoformat()} on, by a clock that was ahead of it."
                )
            time.sleep(min((instant - now) / 1e6, 0.01))

"""Following: what is due is materialized when it becomes due, by one leader among several processes.

Once a second the follower reads the watermarks, from which it is known what is due, and the registry's state, from which it is
known what is applied. So whatever is applied, emptied, restored or missed meanwhile is taken up by itself. Views are materialized one after
the other; one that fails is left alone for a while, ever longer, and the others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from featurestore.errors import FeatureStoreError, OnlineStoreError, RegistryError
from featurestore.materialize.leader import Leader, leader_key
from featurestore.materialize.lease import LeaseLostError, LeaseTakenError
from featurestore.materialize.materializer import Materializer
from featurestore.materialize.progress import Progress, StoppedError
from featurestore.online import OnlineStore
from featurestore.online.view_codec import ViewCodec, unpack_watermark
from featurestore.registry.activity import Activity
from featurestore.registry.rollout import held_views
from featurestore.registry.store import Registry, RegistryState
from featurestore.semantics.view import ResolvedView

LOGGER = logging.getLogger("featurestore.follow")

LOOK_SECONDS = 1.0
"""Seconds between two looks at what is due, and, of a process that does not lead, at who does."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 300.0
"""Seconds after which a view that failed is tried again: at first, and, doubled each time, at most."""

Version = tuple[str, str]
"""A view and its fingerprint."""


@dataclass(frozen=True)
class FollowedProject:
    """What a follower works on. rebound: an applied view over its source as it is now. free: frees what was replaced."""

    registry: Registry
    store: OnlineStore
    materializer: Materializer
    name: str
    rebound: Callable[[ResolvedView], ResolvedView]
    free: Callable[[], None]


@dataclass
class _Pause:
    """Until when a view is left alone (s, monotonic), and how often it has failed since it last did not."""

    until: float = 0.0
    failures: int = 0


class Follower:
    """Materializes what is due of a project. views: only these; every_seconds: between two looks at views that no schedule tells
    of, continuous ones."""

    def __init__(self, project: FollowedProject, *, views: Sequence[str] | None, every_seconds: float) -> None:
        self._project, self._names, self._every = project, views, every_seconds
        self._state: RegistryState | None = None
        self._views: list[ResolvedView] = []
        self._pauses: dict[Version, _Pause] = {}
        self._stop = threading.Event()
        self._leader: Leader | None = None

    def follow(self, stop: threading.Event) -> None:
        """Go on until `stop` is set."""
        self._stop = stop
        waits = trouble = ""
        try:
            while not stop.is_set():
                try:
                    self._lead()
                    self._look()
                    waits = trouble = ""
                except LeaseTakenError as error:
                    waits = _told_once(logging.INFO, f"Waiting: {error.holder} materializes what is due.", waits)
                except (LeaseLostError, OnlineStoreError, RegistryError) as error:
                    trouble = _told_once(logging.WARNING, f"{type(error).__name__}: {error}", trouble)
                stop.wait(LOOK_SECONDS)
        finally:
            self._leave()

    def _lead(self) -> None:
        if self._leader is not None and self._leader.is_lost:
            LOGGER.warning("Another process has taken over, since this one stood still for too long.")
            self._leave()
        if self._leader is None:
            self._leader = Leader(self._project.store, leader_key(self._project.name, self._names))
            LOGGER.info("This process materializes what is due.")

    def _leave(self) -> None:
        leader, self._leader = self._leader, None
        if leader is not None:
            leader.leave()

    def _is_over(self) -> bool:
        """Whether this process is not to go on with what it does."""
        return self._stop.is_set() or self._leader is None or self._leader.is_lost

    def _look(self) -> None:
        """Materialize what is due by now."""
        state = self._read_applied()
        project = self._project
        tagged = project.store.tagged
        now, marks = project.store.get(
            [ViewCodec(project.name, view, tagged=tagged).watermark_key for view in self._views]
        )
        for view, mark in zip(self._views, marks, strict=True):
            if self._is_over():
                return
            if self._is_due(view, mark, now):
                self._materialize(view)
        if state.leftovers:
            project.free()

    def _read_applied(self) -> RegistryState:
        state = self._project.registry.state()
        if state != self._state:
            current = self._project.registry.version(state.generation)
            held = [held.view for held in held_views(self._project.registry, state)]
            views = [*map(current.view, current.document["views"]), *held]
            self._views = [view for view in views if not self._names or view.name in self._names]
            self._state, self._pauses = state, {}
        return state

    def _is_due(self, view: ResolvedView, mark: bytes | None, now: int) -> bool:
        pause = self._pauses.get((view.name, view.fingerprint))
        if pause is not None and time.monotonic() < pause.until:
            return False
        complete = unpack_watermark(mark)
        return bool(view.timing.due(now, complete[0] if complete else None))

    def _materialize(self, view: ResolvedView) -> None:
        pause = self._pauses.setdefault((view.name, view.fingerprint), _Pause())
        try:
            progress = Progress(shown=False, stop=self._is_over)
            runs = self._project.materializer.materialize(self._project.rebound(view), full=False, progress=progress)
        except StoppedError:
            return
        except LeaseTakenError as error:  # by somebody who materializes by hand
            LOGGER.info("%s", error)
            pause.until = time.monotonic() + FIRST_PAUSE_SECONDS
        except Exception as error:  # noqa: BLE001 - whatever one view meets, the others go on
            self._failed(view, pause, error)
        else:
            has_schedule = view.timing.refresh is not None and runs
            pause.until, pause.failures = 0.0 if has_schedule else time.monotonic() + self._every, 0
            for run in runs:
                LOGGER.info("%s", run)

    def _failed(self, view: ResolvedView, pause: _Pause, error: Exception) -> None:
        """Tell of it, and try again later."""
        pause.failures += 1
        seconds = min(FIRST_PAUSE_SECONDS * 2 ** min(pause.failures - 1, 30), LONGEST_PAUSE_SECONDS)
        pause.until = time.monotonic() + seconds
        kind = type(error).__name__
        unexpected = None if isinstance(error, (FeatureStoreError, OSError)) else error
        LOGGER.warning(
            "%s is tried again in %g s. %s: %s", view.declared.title, seconds, kind, error, exc_info=unexpected
        )
        # The trail is kept for ever, and what an error says may quote a key, which may be forgotten.
        detail = {"fingerprint": view.fingerprint, "failures": pause.failures, "error": kind}
        with suppress(FeatureStoreError):  # the line above has told it
            self._project.registry.add_activity([Activity("fail to materialize", view.name, detail)])


def _told_once(level: int, text: str, before: str) -> str:
    """Log a text where it is not the one before; returns it."""
    if text != before:
        LOGGER.log(level, "%s", text)
    return text

"""Proves from the local log that the online store has every row up to an instant.

Under the log's lock nobody is on the way between a reservation and the log. A reading whose state says that nothing is
reserved, and that its last row is the log's last, holds every row there is; and every later row will be known after
what was vouched for, which is remembered beside the log. That costs no trip to the online store, and is remembered for as
long as the state keeps its bytes: with the same state a store holds the same rows.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from featurestore.declare.push import PushSource
from featurestore.durable.forks import mutex, renewed_in_child
from featurestore.errors import FeatureStoreError
from featurestore.online.source_state import NEVER, SourceState
from featurestore.sources.log import Log
from featurestore.sources.offline import Offline

LOOK_EVERY_US = 100_000
"""µs between two looks at a log, by a clock that runs."""

PATIENCE_SECONDS = 0.25
"""Seconds for which a lookup waits for a look at a log on another machine: a quarter of what an answer may be behind."""


class LogWitness:
    """Vouches for readings of one push source; where its log is not at hand, for none. Safe to use from several threads.

    every: µs that pass between two looks; 0 where the clock stands still, which then never finds an answer behind it.
    """

    def __init__(self, source: PushSource, offline: Offline, *, every: int) -> None:
        self._source, self._offline, self._every = source, offline, every
        self._log: Log | None = None
        self._gate = mutex()
        self._vouched: tuple[bytes | None, int] = (None, NEVER)
        self._looked = NEVER
        self.renew()
        renewed_in_child(self)

    def renew(self) -> None:
        """Begin with nobody looking: as it is made, and in a child, which has none of its parent's threads."""
        self._thread = ThreadPoolExecutor(1, f"look {self._source.name}")

    def __call__(self, held: bytes | None, now: int) -> int:
        """See `source_state.Witness`."""
        state, instant = self._vouched
        known = instant if state == held else NEVER
        if known >= now or 0 <= now - self._looked < self._every or not self._gate.acquire(blocking=False):
            return known
        self._looked = now
        if self._offline.logs.are_shared:
            looking = self._thread.submit(self._look, held, now, known)
            looking.add_done_callback(lambda _: self._gate.release())
            try:
                return looking.result(PATIENCE_SECONDS)
            except TimeoutError:
                return known
        try:
            return self._look(held, now, known)
        finally:
            self._gate.release()

    def _look(self, held: bytes | None, now: int, known: int) -> int:
        """Vouch for a reading where that can be done now."""
        try:
            if self._log is None:
                if not self._offline.logs.is_at_hand(self._source.name):  # then what is written online has to do
                    return known
                self._log = self._offline.log(self._source)
            with self._log.attempt("looking whether all of it is online") as alone:
                if alone and _has_all(SourceState.unpack(held), self._log):
                    self._log.confirm(served=now)
                    self._vouched, known = (held, now), now
        except (FeatureStoreError, OSError):  # a push or a training is told
            return known
        return known


def _has_all(state: SourceState, log: Log) -> bool:
    """Whether records with this state hold all rows of a log that is locked, and none of another log.

    A store that may have come back older is repaired by its next writer, before anything is vouched for.
    """
    if state.reserved is not None or state.is_old or state.complete < log.confirmed().written:
        return False
    return state.last == log.last_known_at()

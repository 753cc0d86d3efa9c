"""The serving log of a project: its folder, which is this project's or nobody's, what writes to it here, and its upkeep."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from featurestore.declare.durations import parse_duration
from featurestore.durable.owner import OwnedFolder
from featurestore.serving.log.erasure import Wanted, count_served, erase_served
from featurestore.serving.log.process_counts import living
from featurestore.serving.log.serving_log import FLUSH_SECONDS, Losses, ServingLog, losses
from featurestore.serving.log.upkeep import Limits, Upkeep, keep_up
from featurestore.settings import ServingLogConfig


def _nothing(_: Callable[[], None]) -> None:
    return None


class ProjectLog:
    """What featurestore.toml says of the serving log (`said`), as this process has it; now: the clock (µs)."""

    def __init__(self, said: ServingLogConfig, project: str, *, now: Callable[[], int]) -> None:
        self.said = said
        self._now = now
        self._owned = OwnedFolder(said.folder, project, what="serving log", key="serving_log.folder")
        self._writer: ServingLog | None = None
        self.described: Callable[[Callable[[], None]], object] = _nothing
        """Tells of what hours held, after they were merged; called with what `keep_up` is."""

    @property
    def folder(self) -> Path:
        """Where it lies; ConfigError where it is another project's."""
        self._owned.check()
        return self._owned.path

    def open(self) -> ServingLog | None:
        """What the lookups of this process are offered to; None where nothing is logged."""
        if self._writer is None and (self.said.rate or any(self.said.rates.values())):
            self._writer = ServingLog(self.folder, upkeep=self.keep_up, claim=self._owned.claim)
        return self._writer

    def flush(self) -> None:
        """Write what this process has served by now."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write the rest and stop; idempotent."""
        if self._writer is not None:
            self._writer.close()

    def keep_up(self, between: Callable[[], None] = lambda: None) -> Upkeep | None:
        """Merge past hours and delete what is too old or too much; None where another process is at it."""
        if self.folder.is_dir():
            self._owned.claim()
        limits = Limits(
            None if self.said.retention is None else parse_duration(self.said.retention), self.said.max_bytes
        )
        done = keep_up(self.said.folder, limits, now=self._now(), between=between)
        if done is not None:
            self.described(between)
        return done

    def count(self, wanted: Callable[[str, str], Wanted]) -> int:
        """How many rows `erase` would take."""
        return count_served(self.folder, wanted)

    def erase(self, wanted: Callable[[str, str], Wanted], *, wait_seconds: float) -> int:
        """Take rows out of it, see `erase_served`."""
        self.flush()
        if self.folder.is_dir():
            self._owned.claim()
        return erase_served(self.folder, wanted, wait_seconds=wait_seconds)

    def settle(self) -> None:
        """Return when other processes that serve have had the time to write what they served before."""
        own = None if self._writer is None else self._writer.process
        if any(name != own for name in living(self.folder)):
            time.sleep(2 * FLUSH_SECONDS)

    def losses(self) -> Losses:
        """What became of the requests that were to be logged."""
        return losses(self.folder) if self._writer is None else self._writer.all_losses()

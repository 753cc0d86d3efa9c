"""The serving log of a project: its folder, which is this project's or nobody's, what writes to it here, and its upkeep."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from featurestore.declare.durations import parse_duration
from featurestore.durable.owner import OwnedFolder
from featurestore.errors import LogError
from featurestore.serving.log.erasure import Wanted, count_served, erase_served
from featurestore.serving.log.process_counts import living
from featurestore.serving.log.serving_log import FLUSH_SECONDS, Losses, ServingLog, losses, segments
from featurestore.serving.log.shipping import Shipped, ShippedLog, ship
from featurestore.serving.log.shipping_thread import ShippingThread
from featurestore.serving.log.upkeep import Limits, Upkeep, keep_up
from featurestore.settings import ServingLogConfig
from featurestore.sources.object_stores import ObjectStoreError


def _nothing(_: Callable[[], None]) -> None:
    return None


class ProjectLog:
    """What featurestore.toml says of the serving log (`said`), as this process has it; now: the clock (µs)."""

    def __init__(self, said: ServingLogConfig, project: str, *, now: Callable[[], int]) -> None:
        self.said = said
        self._now = now
        self._owned = OwnedFolder(said.folder, project, what="serving log", key="serving_log.folder")
        self._writer: ServingLog | None = None
        self.there = None if said.ship_to is None else ShippedLog(said.ship_to, project)
        """Its files in an object store; None where none are shipped."""
        self._shipping: ShippingThread | None = None
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
            self._writer = ServingLog(self.folder, upkeep=self._keep_up_here, claim=self._owned.claim)
            if self.there is not None:
                self._shipping = ShippingThread(self.ship, self._writer.failed)
        return self._writer

    def flush(self) -> None:
        """Write what this process has served by now."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Write the rest and stop; idempotent. What is not shipped by then is shipped by the next upkeep of the log."""
        if self._writer is not None:
            self._writer.close()
        if self._shipping is not None:
            self._shipping.close()
        if self.there is not None:
            self.there.close()

    def keep_up(self, between: Callable[[], None] = lambda: None) -> Upkeep | None:
        """Merge past hours, ship them where that is said, and delete what is too old or too much; None where another process is at
        it. Raises LogError, OSError."""
        done = self._merge(between)
        shipped = None if done is None or self.there is None else self.ship(between)
        if done is None or shipped is None:
            return done
        return done._replace(
            shipped=shipped.shipped, deleted=done.deleted + shipped.deleted, freed=done.freed + shipped.freed
        )

    def _keep_up_here(self, between: Callable[[], None]) -> None:
        """What the thread that writes does: never waits for a store."""
        self._merge(between)
        if self._shipping is not None:
            self._shipping.wake()

    def _merge(self, between: Callable[[], None]) -> Upkeep | None:
        if self.folder.is_dir():
            self._owned.claim()
        limits = self._limits() if self.there is None else Limits()
        done = keep_up(self.said.folder, limits, now=self._now(), between=between)
        if done is not None:
            self.described(between)
        return done

    def _limits(self) -> Limits:
        return Limits(None if self.said.retention is None else parse_duration(self.said.retention), self.said.max_bytes)

    def ship(self, between: Callable[[], None] = lambda: None) -> Shipped | None:
        """Ship the files of past hours, and delete those here that lie in the store and are too old or too much; None where another
        process is at it. Raises LogError, OSError."""
        assert self.there is not None
        with _told(self.there):
            return ship(self.folder, self.there, self._limits(), now=self._now(), between=between)

    def segments(
        self, *, service: str | None = None, since: int | None = None, until: int | None = None
    ) -> dict[tuple[str, str], list[Path]]:
        """The segments of each service version, by (service, fingerprint), oldest first, every row in one of them; those that lie in the
        store alone are fetched. since, until: µs. Raises LogError where that cannot be reached."""
        if self.there is None:
            return segments(self.folder, service=service, since=since, until=until)
        with _told(self.there):
            return self.there.segments(self.folder, service=service, since=since, until=until)

    def versions(self) -> set[tuple[str, str]]:
        """The service versions, as (service, fingerprint), of which something is logged. Raises LogError as `segments` does."""
        found = set(segments(self.folder))
        if self.there is not None:
            with _told(self.there):
                found |= self.there.listing().keys()
        return found

    def count(self, wanted: Callable[[str, str], Wanted]) -> int:
        """How many rows `erase` would take."""
        with _told(self.there):
            return count_served(self.folder, wanted, there=self.there)

    def erase(self, wanted: Callable[[str, str], Wanted], *, wait_seconds: float) -> int:
        """Take rows out of it, see `erase_served`."""
        self.flush()
        if self.folder.is_dir():
            self._owned.claim()
        with _told(self.there):
            return erase_served(self.folder, wanted, wait_seconds=wait_seconds, there=self.there)

    def settle(self) -> None:
        """Return when other processes that serve have had the time to write what they served before."""
        own = None if self._writer is None else self._writer.process
        if any(name != own for name in living(self.folder)):
            time.sleep(2 * FLUSH_SECONDS)

    def losses(self) -> Losses:
        """What became of the requests that were to be logged."""
        return losses(self.folder) if self._writer is None else self._writer.all_losses()


@contextmanager
def _told(there: ShippedLog | None) -> Iterator[None]:
    """LogError where the object store fails."""
    try:
        yield
    except ObjectStoreError as error:
        raise LogError(f"The serving log's files in {there and there.url} are not to be had: {error}") from error

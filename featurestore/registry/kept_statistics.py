"""Statistics that are kept: a journal in the registry, and what writes to it beside the operations that it tells of.

Nothing here may make an operation fail: what goes wrong is logged as a warning and counted, and the operation goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from featurestore.clock import to_datetime
from featurestore.errors import RegistryUnavailableError
from featurestore.lazy import pa
from featurestore.registry.statistics_table import Described
from featurestore.registry.store import Registry
from featurestore.settings import StatisticsConfig
from featurestore.statistics.feature_statistics import FeatureStatistics, KeptStatistics, Kind
from featurestore.types import FeatureType

LOGGER = logging.getLogger("featurestore")

T = TypeVar("T")


class StatisticsKeeper:
    """Gathers and keeps statistics as featurestore.toml says. failures: how often something went wrong in this process."""

    def __init__(self, registry: Registry, said: StatisticsConfig) -> None:
        self._registry, self._said = registry, said
        self.failures = 0
        self.when_failed: list[Callable[[], object]] = []
        """What is called each time."""

    @property
    def is_on(self) -> bool:
        """Whether statistics are kept."""
        return self._said.enabled

    def gather(self, features: Mapping[str, tuple[str, FeatureType]]) -> Gathering | None:
        """What to tell of columns as they are made; None where nothing is kept. features: by column the feature's name and its type."""
        return Gathering(features, self.failed) if self.is_on else None

    def described(
        self,
        kind: Kind,
        subject: str,
        fingerprint: str,
        *,
        at: int,
        gathered: GatheredFeatures | None,
        training_set: str | None = None,
    ) -> Described | None:
        """What to keep of what was gathered; None, where that failed. at: see KeptStatistics (µs)."""
        if gathered is None:
            return None
        rows, features = gathered
        try:
            most = self._said.keep_hours if kind == "hour" else self._said.keep
            kept = KeptStatistics(kind, subject, fingerprint, to_datetime(at), rows, training_set, None, features)
        except Exception as error:  # noqa: BLE001 - whatever it is, what is told of is more important
            self.failed(error)
            return None
        return Described(kept, most)

    def keep(self, described: Described | None) -> None:
        """Keep statistics by themselves."""
        if described is None:
            return
        try:
            self._registry.keep_statistics(described.kept, most=described.most)
        except Exception as error:  # noqa: BLE001 - as above
            self.failed(error)

    def beside(self, write: Callable[[Described | None], T], described: Described | None) -> T:
        """Write an entry of the registry and the statistics of what it tells of in one transaction, which costs half of two; without
        them, where that fails. Raises what writing the entry raises."""
        if described is not None:
            try:
                return write(described)
            except Exception as error:  # as above
                self.failed(error)
                if isinstance(
                    error, RegistryUnavailableError
                ):  # which was waited for, and is no more there for the entry alone
                    raise
        return write(None)

    def failed(self, error: Exception) -> None:
        """Something went wrong: it is told, and counted."""
        self.failures += 1
        for told in self.when_failed:
            told()
        LOGGER.warning("Statistics are not kept: %s: %s", type(error).__name__, error)


GatheredFeatures = tuple[int, tuple[FeatureStatistics, ...]]
"""Rows, and what their features are like."""


class Gathering:
    """Statistics of one operation while it goes on. failed: told of an error, after which nothing is gathered any more. words: see
    `GatheredStatistics`."""

    def __init__(
        self, features: Mapping[str, tuple[str, FeatureType]], failed: Callable[[Exception], None], **words: int
    ) -> None:
        from featurestore.statistics.gathered_statistics import GatheredStatistics

        self._names = {column: name for column, (name, _) in features.items()}
        self._failed = failed
        self._gathered: GatheredStatistics | None = GatheredStatistics(
            {column: of for column, (_, of) in features.items()}, **words
        )

    def add(
        self, columns: Mapping[str, pa.Array | pa.ChunkedArray] | Callable[[], Mapping[str, pa.Array]], rows: int
    ) -> None:
        """Take the next rows: columns by name, or what makes them."""
        if self._gathered is None:
            return
        try:
            self._gathered.add(columns() if callable(columns) else columns, rows)
        except Exception as error:  # noqa: BLE001 - as above; memory that is short among them
            self._gathered = None
            self._failed(error)

    def add_all(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Take all rows of batches, which are read here."""
        try:
            for batch in batches:
                self.add(dict(zip(batch.schema.names, batch.columns, strict=True)), len(batch))
        except Exception as error:  # noqa: BLE001 - as above
            self._gathered = None
            self._failed(error)

    def gathered(self) -> GatheredFeatures | None:
        """What was gathered; None where that failed."""
        if self._gathered is None:
            return None
        try:
            found = self._gathered.found()
        except Exception as error:  # noqa: BLE001 - as above
            self._gathered = None
            self._failed(error)
            return None
        return self._gathered.rows, tuple(FeatureStatistics(self._names[column.name], column) for column in found)

    def packed(self) -> bytes | None:
        """What was gathered, for somebody who joins it; None where that failed."""
        if self._gathered is None:
            return None
        try:
            return self._gathered.partial().packed()
        except Exception as error:  # noqa: BLE001 - as above
            self._gathered = None
            self._failed(error)
            return None

"""Statistics of what tasks of an engine make: each gathers those of its rows, and the process that asked puts them together.

What a task gathered is text, base64 of `PartialStatistics`, or the error that kept it from that. It comes with what the task counted.
"""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from featurestore.lazy import pa
from featurestore.plurals import plural
from featurestore.registry.kept_statistics import GatheredFeatures, Gathering, StatisticsKeeper
from featurestore.statistics.feature_statistics import FeatureStatistics
from featurestore.statistics.gathered_statistics import GatheredStatistics
from featurestore.statistics.held_rows import EXACT_VALUES
from featurestore.statistics.partial_statistics import PartialStatistics
from featurestore.types import FeatureType

FEWEST_VALUES = 256
"""Values of a column that a task may always send."""

SAMPLES = 4
"""How many times as many values all tasks may send as are held in the end, so that enough are left where partitions are of different sizes."""

MOST_BYTES = 4_000_000
"""Bytes of what a task gathered, beyond which it is not sent: texts of kilobytes."""

ERROR = "error: "
"""What a text begins with that is no base64."""

Features = Mapping[str, tuple[str, FeatureType]]
"""By column the name of its feature and its type."""


@dataclass(frozen=True)
class TaskStatistics:
    """What tasks gather. features: of these columns. most_values: of a column."""

    features: Features
    most_values: int

    @classmethod
    def of(cls, features: Features, keeper: StatisticsKeeper, partitions: int) -> TaskStatistics | None:
        """What each of so many tasks gathers; None where nothing is kept."""
        if not keeper.is_on:
            return None
        return cls(features, max(FEWEST_VALUES, min(EXACT_VALUES, SAMPLES * EXACT_VALUES // max(1, partitions))))

    def begun(self, failures: list[Exception]) -> Gathering:
        """Begins to gather; what goes wrong is put into a list. Tasks draw their rows by numbers that no other has, but by chance."""
        part = random.getrandbits(23)
        return Gathering(self.features, failures.append, most_values=self.most_values, part=part)

    def gathered(self, rows: pa.Table) -> tuple[str, ...]:
        """The statistics of rows that have some of the columns, an instant of which may be in another zone, as an engine's session has it;
        none where they have none of them."""
        own = {name: said for name, said in self.features.items() if name in rows.column_names}
        if not own:
            return ()
        failures: list[Exception] = []
        gathering = TaskStatistics(own, self.most_values).begun(failures)
        gathering.add(lambda: {name: rows[name].cast(of.arrow) for name, (_, of) in own.items()}, rows.num_rows)
        return (sent(gathering, failures),)


def sent(gathering: Gathering, failures: list[Exception]) -> str:
    """What was gathered as text."""
    packed = gathering.packed()
    if packed is not None and len(packed) > MOST_BYTES:
        return (
            f"{ERROR}what a task gathered takes {len(packed):,} {plural(len(packed), 'byte')}, more than {MOST_BYTES:,}"
        )
    if packed is None:
        return f"{ERROR}{', '.join(f'{type(error).__name__}: {error}' for error in failures)}"
    return b64encode(packed).decode()


def gathered_of(
    texts: Iterable[str], features: Features, keeper: StatisticsKeeper, *, rows: int
) -> GatheredFeatures | None:
    """What tasks gathered, put together. rows: that they were given altogether. None where nothing is kept, or that fails."""
    if not keeper.is_on:
        return None
    try:
        return _merged(texts, features, rows)
    except Exception as error:  # noqa: BLE001 - whatever it is, what is told of is more important
        keeper.failed(error)
        return None


def _merged(texts: Iterable[str], features: Features, rows: int) -> GatheredFeatures:
    parts: dict[tuple[str, ...], GatheredStatistics] = {}
    for text in texts:
        if text.startswith(ERROR):
            raise ValueError(text.removeprefix(ERROR))
        partial = PartialStatistics.unpacked(b64decode(text))
        names = tuple(partial.columns)
        if names not in parts:
            parts[names] = GatheredStatistics({name: features[name][1] for name in names})
        parts[names].join(partial)
    if not rows:
        parts = {tuple(features): GatheredStatistics({name: of for name, (_, of) in features.items()})}
    for names, gathered in parts.items():
        if gathered.rows != rows:
            raise ValueError(
                f"tasks told of {gathered.rows} {plural(gathered.rows, 'row')} of {', '.join(names)}, and counted {rows}"
            )
    found = {column.name: column for gathered in parts.values() for column in gathered.found()}
    return rows, tuple(FeatureStatistics(name, found[column]) for column, (name, _) in features.items())

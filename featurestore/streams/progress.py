"""How far the streams were read that feed a source, for reports: what its log says, and what its consumers have told last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from featurestore.declare.push import PushSource
from featurestore.report import plain
from featurestore.streams.consumer import Position, partition_name
from featurestore.streams.membership import signed_up


@dataclass(frozen=True)
class PartitionProgress:
    """One partition of a source's stream."""

    partition: int
    place: str | None
    """Up to where it was read: of Kafka the offset of the next message, of Redis the id of the last entry."""
    taken: int
    """Messages of it that were read."""
    lost: int
    """Messages that were gone before they were read, and were passed over."""
    consumer: str | None
    """The process that reads it, as "process 17 on jobs-1"; None where none does."""
    lag: int | None
    """Messages behind its end when that was last known; None where it never was."""
    at_least: bool
    """Whether the lag may be more."""
    behind: int | None
    """For how long (µs) it has not been at its end; None where nobody reads it, or that is not known."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found: dict[str, Any] = plain(self)
        behind = found.pop("behind")
        return {**found, "behind_seconds": None if behind is None else behind / 1e6}


def progress_of(
    source: PushSource, positions: Mapping[str, str], held: bytes | None, now: int
) -> tuple[PartitionProgress, ...]:
    """Each partition of a source's stream that was ever read. held: what is online of its consumers; now: µs, by that store's clock."""
    if source.stream is None:
        return ()
    prefix = partition_name(f"{source.stream.kind} {source.stream.called}", 0)[:-1]
    found = []
    reports: dict[int, tuple[str | None, Any]] = {}
    for one in signed_up(held, now):
        for number, report in one.partitions.items():
            if one.alive or number not in reports:
                reports[number] = (str(one.holder) if one.alive else None), report
    for name, text in positions.items():
        digits = name.removeprefix(prefix)
        if not name.startswith(prefix) or not digits.isdigit():
            continue
        position, number = Position.of(text), int(digits)
        consumer, report = reports.get(number, (None, None))
        lag = None if report is None else report.lag
        at_end = lag == 0 and consumer is not None
        behind = None if report is None else 0 if at_end else max(0, now - report.caught_up)
        found.append(
            PartitionProgress(
                number, position.place, position.taken, position.lost, consumer, lag,
                report is not None and report.is_least, behind,
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda one: one.partition))

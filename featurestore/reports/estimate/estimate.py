"""An estimate: what a piece of work reads, writes and takes, as it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.plurals import plural
from featurestore.report import Report, Reported, ReportTable, plain_fields

MB = 1_000_000


@dataclass(frozen=True)
class EstimatedWork:
    """A frame, or the runs of one view."""

    name: str
    """The service or view."""

    rows_read: int
    """Rows of its sources, counted; of a source that several views read once for each of them."""

    bytes_read: int | None
    """Of the columns that are read, as they are stored, as often as they are read; None where no file tells it."""

    rows_written: int
    """Rows of the frame, or records; of keys, which are counted about, this too is about."""

    rows_written_least: int
    """No fewer than these; of a spine's rows, which are counted, as many as `rows_written`."""

    rows_written_most: int
    """No more than these."""

    bytes_written: int | None = None
    """About, as the file or the online store has them; None where the speed was not measured."""

    cpu_seconds: float | None = None
    """On the processors, all threads together."""

    seconds: float | None = None
    """By the clock, on a machine that is as busy as it was when the speed was measured."""

    peak_bytes: int | None = None
    """The greatest memory of the process, what it has now included, and of those that it starts; None where the system does not tell memory."""

    chunks: int | None = None
    """In about how many chunks of keys the largest run of a view is made; None of a frame, and where there is no run."""

    notes: tuple[str, ...] = ()
    """What is to be known of it."""


@dataclass(frozen=True)
class Estimate(Reported):
    """What work reads, writes and takes, before any of it is done. Rows are counted; time and memory are those of a model of it."""

    work: tuple[EstimatedWork, ...]
    """One after the other."""

    measured_rows: int = 0
    """Rows of the sources that the speed was measured with, on this machine."""

    measured_asked: int = 0
    """Rows of the spine, or keys, that it was measured with."""

    measured_seconds: float = 0.0
    """How long it took to measure that."""

    @property
    def cpu_seconds(self) -> float | None:
        """Of all work; None where one is not told."""
        return _sum([one.cpu_seconds for one in self.work])

    @property
    def seconds(self) -> float | None:
        """Of all work, one after the other; None where one is not told."""
        return _sum([one.seconds for one in self.work])

    @property
    def peak_bytes(self) -> int | None:
        """Of the work that takes most; None where one is not told."""
        peaks = [one.peak_bytes for one in self.work if one.peak_bytes is not None]
        return max(peaks) if len(peaks) == len(self.work) and peaks else None

    def report(self) -> Report:
        """A line for each frame or view, and how the speed was measured."""
        header = ("of", "rows read", "read", "rows written", "written", "on the processors", "by the clock", "memory")
        rows = [(
            one.name, f"{one.rows_read:,}", _bytes(one.bytes_read), _written(one), _bytes(one.bytes_written),
            _seconds(one.cpu_seconds), _seconds(one.seconds), _bytes(one.peak_bytes),
        ) for one in self.work]  # fmt: skip
        notes = list(dict.fromkeys(f"{one.name}: {note}" for one in self.work for note in one.notes))
        if not rows:
            return Report("Nothing would be done.")
        return Report("Estimate: nothing was done yet", (ReportTable(header, rows), *notes, *self._how()))

    def _how(self) -> Iterator[str]:
        if len(self.work) > 1 and self.cpu_seconds is not None:
            yield f"All together {_seconds(self.cpu_seconds)} on the processors, {_seconds(self.seconds)} by the clock."
        if self.measured_rows:
            yield (
                f"Rows are counted. Time and memory follow from runs over {self.measured_rows:,} {plural(self.measured_rows, 'row')} of the sources and "
                f"{self.measured_asked:,} asked {plural(self.measured_asked, 'one')}, which took {_seconds(self.measured_seconds)} just now on this machine; "
                "a busier machine takes longer by the clock."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return plain_fields(
            self, "work", "cpu_seconds", "seconds", "peak_bytes", "measured_rows", "measured_asked", "measured_seconds"
        )


def _sum(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) if len(told) == len(values) else None


def _written(work: EstimatedWork) -> str:
    about = "" if work.rows_written_least == work.rows_written_most else "about "
    return f"{about}{work.rows_written:,}"


def _bytes(count: int | None) -> str:
    if count is None:
        return "-"
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / MB:,.1f} MB"


def _seconds(taken: float | None) -> str:
    if taken is None:
        return "-"
    return (
        f"{taken / 3600:,.1f} h" if taken >= 3600 else f"{taken / 60:,.1f} min" if taken >= 120 else f"{taken:,.1f} s"
    )

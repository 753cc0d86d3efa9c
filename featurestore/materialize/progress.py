"""Progress of a run: a bar on a terminal, plain lines where there is none, or nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from featurestore.clock import to_datetime

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress", "progress_for"]


class Progress(Protocol):
    """What a run tells while it works."""

    def start(self, view: str, instant: int, keys: int) -> None:
        """A run of `keys` keys begins, for an instant in µs."""

    def advance(self, keys: int) -> None:
        """So many more keys are written and read back."""

    def done(self, run: object) -> None:
        """The run is published."""


class Silent:
    """Tells nothing."""

    def start(self, view: str, instant: int, keys: int) -> None:
        """Nothing."""

    def advance(self, keys: int) -> None:
        """Nothing."""

    def done(self, run: object) -> None:
        """Nothing."""


class Lines(Silent):
    """A line on stderr when a run is published."""

    def done(self, run: object) -> None:
        """One line."""
        print(run, file=sys.stderr, flush=True)  # noqa: T201 - this is the output


class Terminal:
    """A bar on stderr with keys, rate and time left, and a line when a run is published."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def start(self, view: str, instant: int, keys: int) -> None:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), transient=True,
            console=Console(stderr=True),  # standard output is for results
        )  # fmt: skip
        self._task = self._bar.add_task(f"{view} as of {to_datetime(instant):%Y-%m-%d %H:%M}Z", total=keys, rate="")
        self._bar.start()

    def advance(self, keys: int) -> None:
        """Move the bar."""
        assert self._bar is not None
        assert self._task is not None
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, advance=keys, rate=f"{speed:,.0f} keys/s" if speed else "")

    def done(self, run: object) -> None:
        """Take the bar away and leave a line."""
        assert self._bar is not None
        self._bar.stop()
        self._bar.console.print(str(run), highlight=False)


def progress_for(*, shown: bool) -> Progress:
    """A bar on a terminal, lines elsewhere; nothing where it is not to be shown."""
    if not shown:
        return Silent()
    return Terminal() if sys.stderr.isatty() else Lines()

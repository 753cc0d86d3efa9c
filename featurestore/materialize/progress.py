"""Progress of a long task: a bar on a terminal, plain lines where there is none, or nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["Progress", "progress_for"]


class Progress(Protocol):
    """What a task tells while it works: a run of materialize, of its keys, or a simulation, of what happens in it."""

    def start(self, task: str, total: int) -> None:
        """A task of so many items begins."""

    def advance(self, items: int) -> None:
        """So many more of them are done."""

    def done(self, task: object) -> None:
        """The task is done; what is left to read of it is its text."""


class Silent:
    """Tells nothing."""

    def start(self, task: str, total: int) -> None:
        """Nothing."""

    def advance(self, items: int) -> None:
        """Nothing."""

    def done(self, task: object) -> None:
        """Nothing."""


class Lines(Silent):
    """A line on stderr when a task is done."""

    def done(self, task: object) -> None:
        """One line."""
        print(task, file=sys.stderr, flush=True)  # noqa: T201 - this is the output


class Terminal:
    """A bar on stderr with items, rate and time left, and a line when a task is done."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def start(self, task: str, total: int) -> None:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), transient=True,
            console=Console(stderr=True),  # standard output is for results
        )  # fmt: skip
        self._task = self._bar.add_task(task, total=total, rate="")
        self._bar.start()

    def advance(self, items: int) -> None:
        """Move the bar."""
        assert self._bar is not None
        assert self._task is not None
        speed = self._bar.tasks[0].speed
        self._bar.update(self._task, advance=items, rate=f"{speed:,.0f}/s" if speed else "")

    def done(self, task: object) -> None:
        """Take the bar away and leave a line."""
        assert self._bar is not None
        self._bar.stop()
        self._bar.console.print(str(task), highlight=False)


def progress_for(*, shown: bool) -> Progress:
    """A bar on a terminal, lines elsewhere; nothing where it is not to be shown."""
    if not shown:
        return Silent()
    return Terminal() if sys.stderr.isatty() else Lines()

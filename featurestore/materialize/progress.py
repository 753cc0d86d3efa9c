"""Progress of a task: a bar on a terminal, a line where there is none, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from featurestore.errors import MaterializeError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class StoppedError(MaterializeError):
    """A task was told to stop, and left what it had done whole."""


class Progress:
    """What a task tells while it works: a run of materialize, of its keys, or a simulation, of what happens in it.

    shown: whether it is to be shown at all; on stderr, since standard output is for results. stop: asked after each batch
    whether the task is to end there, by StoppedError.
    """

    def __init__(self, *, shown: bool, stop: Callable[[], bool] = bool) -> None:
        self._shown = shown
        self._stop = stop
        self._bar: Bar | None = None

    def start(self, task: str, total: int) -> None:
        """A task of so many items begins: on a terminal a bar with items, rate and time left."""
        if not self._shown or not sys.stderr.isatty():
            return
        from rich import progress
        from rich.console import Console

        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"), progress.TimeRemainingColumn(), transient=True,
            console=Console(stderr=True),
        )  # fmt: skip
        self._bar.add_task(task, total=total, rate="")
        self._bar.start()

    def advance(self, items: int) -> None:
        """So many more of them are done."""
        if self._bar is not None:
            task = self._bar.tasks[0]
            self._bar.update(task.id, advance=items, rate=f"{task.speed:,.0f}/s" if task.speed else "")
        if self._stop():
            raise StoppedError("The run was told to stop; the next one completes its work")

    def stop(self) -> None:
        """The task is given up: the terminal gets its cursor back."""
        if self._bar is not None:
            self._bar.stop()

    def done(self, task: object) -> None:
        """The task is done; what is left to read of it is its text, in a line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar.console.print(str(task), highlight=False)
        elif self._shown:
            print(task, file=sys.stderr, flush=True)  # noqa: T201 - this is the output

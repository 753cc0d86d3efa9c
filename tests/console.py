"""Runs what a page shows: commands with what they print, and Python with what it prints.

A `console` block has commands behind `$ ` and below each what it prints. A `python` block is code; an `output` block behind
it is what that printed. In what is printed, `…` stands for the rest of a line, and alone on a line for any lines.
`featurestore` runs in this process, other commands in a shell, `pip` not at all; `cd` holds for all that follows. A command that
ends in `&` goes on until `kill %1` or the end of the page. The port of the documentation is any free one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from featurestore.cli import main
from tests.ports import free_port
from tests.servers import PATIENCE_SECONDS

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(python|console|output)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ANY_LINES = "(?:[^\n]*\n)*?"
PORT = "6570"


class Block(NamedTuple):
    """A block of a page: its language, the line before it, and its text."""

    language: str
    line: int
    text: str


def blocks(page: Path) -> list[Block]:
    """What of a page runs, in order."""
    text = page.read_text()
    return [Block(found[1], text.count("\n", 0, found.start(2)), found[2]) for found in FENCE.finditer(text)]


def is_like(shown: str, printed: str) -> bool:
    """Whether a program printed what a page shows."""
    lines = [line.rstrip() for line in shown.strip("\n").splitlines()]
    parts = [ANY_LINES if line == "…" else re.escape(line).replace("…", "[^\n]*") + "\n" for line in lines]
    told = "".join(f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines())
    return re.fullmatch("".join(parts), told) is not None


class Page:
    """A page that is run, in the working directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Path.cwd()
        self.namespace: dict[str, object] = {"__name__": "__page__"}
        self.printed = ""
        self.started: list[subprocess.Popen[bytes]] = []
        self.port = str(free_port())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        """End what was started, as a person would."""
        for process in self.started:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
        self.started = []

    def run(self) -> None:
        """Run its blocks, one after the other."""
        for block in blocks(self.path):
            getattr(self, f"_{block.language}")(block._replace(text=block.text.replace(PORT, self.port)))

    def _python(self, block: Block) -> None:
        # A file, because on-demand functions are read from one; the leading newlines keep the page's line numbers.
        file = self.folder / f"{self.path.stem}_{block.line}.py"
        file.write_text("\n" * block.line + block.text)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(file.read_text(), str(file), "exec"), self.namespace)
        self.printed = out.getvalue()

    def _output(self, block: Block) -> None:
        assert is_like(block.text, self.printed), f"{self.path.name}:{block.line} printed\n{self.printed}"

    def _console(self, block: Block) -> None:
        for command, shown in _commands(block.text):
            printed = self._command(command)
            assert is_like(shown, printed), f"{self.path.name}:{block.line} {command} printed\n{printed}"

    def _command(self, command: str) -> str:
        words = shlex.split(command, comments=True)
        if words[0] == "cd":
            os.chdir(words[1])
            return ""
        if words[0] == "pip":  # what is documented is installed
            return ""
        if words == ["kill", "%1"]:
            self.stop()
            return ""
        if words[-1] == "&":
            self._start(words[1:-1])
            return ""
        if words[0] == "featurestore":
            return featurestore(*words[1:])
        done = subprocess.run(
            command, shell=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _start(self, words: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen([sys.executable, "-m", "featurestore", *words], env=environment)
        self.started.append(process)
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(self.port))):
                return
            time.sleep(0.05)
        raise AssertionError(f"{words} answers nobody")


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a block, each with what is shown below it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        while command.endswith("\\"):
            more, _, shown = shown.partition("\n")
            command = command[:-1] + more.strip()
        yield command, shown


def featurestore(*words: str) -> str:
    """What a command line prints, run in this process; AssertionError where it fails."""
    out, told = io.StringIO(), io.StringIO()
    given, refused = sys.argv, None
    sys.argv = ["featurestore", *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
            main()
    except SystemExit as end:
        refused = end.code
    finally:
        sys.argv = given
    assert not refused, f"{words}: {out.getvalue()}{told.getvalue()}"
    return out.getvalue()

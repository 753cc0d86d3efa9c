"""What ends a command from outside, without a word: output that nobody reads any more, and an interruption (Ctrl-C)."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

BROKEN_PIPE = 141
"""The exit code of a command whose output nobody reads, as a shell tells it: 128 + SIGPIPE."""

INTERRUPTED = 130
"""That of a command that was interrupted: 128 + SIGINT."""

GRACE_SECONDS = 5.0
"""How long an interrupted command has to put things in order."""

SHOW_CURSOR = b"\x1b[?25h"
"""What a terminal is told whose cursor a bar has hidden."""

_INTERRUPTION = threading.Event()
"""Set when SIGINT came, since what it breaks off may raise errors of other kinds than KeyboardInterrupt."""


def _interrupt(_: int, frame: FrameType | None) -> None:
    if _imports(frame):  # some libraries abort the process where their import is broken off
        _leave()
    _INTERRUPTION.set()
    raise KeyboardInterrupt


@contextlib.contextmanager
def interruptions_noticed() -> Iterator[None]:
    """End by SystemExit where the process is interrupted, or, where it goes on with what it does, without waiting for it:
    all that is on the disk and online is as whole as a process leaves it that was killed. For the first thread."""
    _INTERRUPTION.clear()
    read, told = os.pipe()
    os.set_blocking(told, False)
    threading.Thread(target=_end_late, args=(read,), daemon=True).start()
    before, woken = signal.signal(signal.SIGINT, _interrupt), signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGINT, before)
        if not was_interrupted():  # else what Python waits for at its end may take long, too
            os.close(told)


def _end_late(read: int) -> None:
    """Told of signals when they come, while the first thread may be within the engine, which asks for none for long."""
    while numbers := os.read(read, 64):
        if signal.SIGINT in numbers and signal.getsignal(signal.SIGINT) is _interrupt:  # and not a server's own
            _INTERRUPTION.set()
            time.sleep(GRACE_SECONDS)
            _leave()
    os.close(read)


def _leave() -> None:
    if os.isatty(2):
        os.write(2, SHOW_CURSOR)
    os._exit(INTERRUPTED)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported there."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def was_interrupted() -> bool:
    """Whether the process was, so that whatever error it met is none to tell of."""
    return _INTERRUPTION.is_set()


class _Output(io.TextIOWrapper):
    """Standard output that ends the process where nobody reads it any more."""

    def write(self, text: str, /) -> int:
        with _ending():
            return super().write(text)

    def flush(self) -> None:
        with _ending():
            super().flush()


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        end_quietly()


def end_quietly() -> None:
    """Leave, and let what is still to be written vanish: SystemExit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    raise SystemExit(BROKEN_PIPE)


def hold_streams() -> None:
    """Open each standard stream that the parent process has closed, so that no other file gets its number: input that
    is at its end, output that nobody reads, errors that vanish. Output that nobody reads ends the process when it is written."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            _open_as(descriptor)
            _put(name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", closefd=False))
    out = sys.stdout
    if out is sys.__stdout__ and isinstance(out, io.TextIOWrapper):
        encoding, errors, line_buffering = out.encoding, out.errors, out.line_buffering
        _put("stdout", _Output(out.detach(), encoding, errors, line_buffering=line_buffering))


def _put(name: str, stream: TextIO) -> None:
    for also in (name, f"__{name}__"):  # which is where Python keeps the one that it began with
        setattr(sys, also, stream)


def outlive_output() -> None:
    """For a process that serves: output that nobody reads is no reason to end, and vanishes where that is so by now."""
    poll = select.poll()
    poll.register(1, 0)
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    out = sys.stdout
    if isinstance(out, _Output):
        encoding, errors, line_buffering = out.encoding, out.errors, out.line_buffering
        _put("stdout", io.TextIOWrapper(out.detach(), encoding, errors, line_buffering=line_buffering))


def log_to_stderr(level: int, *, as_json: bool) -> None:
    """For a process that goes on for long: what it does is logged, a line each with its time (UTC), from this level on, unless
    somebody has set up Python's logging otherwise. as_json: each line is an object."""
    logger = logging.getLogger("featurestore")
    logger.setLevel(level)
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        text = logging.Formatter("%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        text.converter = time.gmtime
        handler.setFormatter(text)
        logger.addHandler(handler)
        if as_json:
            from featurestore.log_lines import JsonLines

            handler.setFormatter(JsonLines())
            logging.captureWarnings(True)
            logging.getLogger("py.warnings").addHandler(handler)


def _open_as(descriptor: int) -> None:
    if descriptor == 1:
        read, opened = os.pipe()
        os.close(read)
    else:
        opened = os.open(os.devnull, os.O_RDWR)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)

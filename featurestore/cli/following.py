"""Commands that work until they are told to stop."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import typer

from featurestore.cli.application import place_of
from featurestore.cli.streams import log_to_stderr, outlive_output


@contextmanager
def until_terminated(context: typer.Context, *, quiet: bool) -> Iterator[Event]:
    """An event that is set by SIGTERM, what goes on being logged on stderr meanwhile; a second SIGTERM ends the process at once."""
    from featurestore.config import load_config

    stop = Event()

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop.set()

    place = place_of(context)
    before = signal.signal(signal.SIGTERM, end)
    as_json = load_config(place.repo, place.env).server.log_format == "json"
    log_to_stderr(logging.WARNING if quiet else logging.INFO, as_json=as_json)
    outlive_output()
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)

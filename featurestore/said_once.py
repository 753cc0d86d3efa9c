"""What a store says in its log to who calls it, each line once."""

from __future__ import annotations

import logging
from typing import Any

from featurestore.declare.durations import asked_instant
from featurestore.declare.zones import naive_notices

_LOGGER = logging.getLogger("featurestore")


class SaidOnce:
    """Lines of Python's logging, which prints them where nobody set up anything else; each is said once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, line: str) -> None:
        """One line; an empty one is none."""
        if line and line not in self._said:
            self._said.add(line)
            _LOGGER.warning("%s", line)

    def naive(self, value: Any, option: str) -> None:
        """Say of an instant, or of the text of one, that it has no zone, where that is so."""
        for notice in naive_notices([value], option):
            self.say(notice)

    def instant(self, value: Any, option: str) -> int:
        """The instant (µs) that a caller gives; where it has no zone, that is said."""
        instant = asked_instant(value, option)
        self.naive(value, option)
        return instant

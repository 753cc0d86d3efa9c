"""How far the streams were read that feed a source: by partition a text that only the reader of the stream understands.

A position is kept in the same append as the rows up to it, so that either both are there or neither. What an append's note says is
carried on, where its segment is full or is cut, in a file beside the log:

    positions   JSON with a checksum: number, and by partition its text

Each change has a number, one more than the last; the file has all changes up to its own number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import orjson

from featurestore.durable.checksums import encoded, unsigned
from featurestore.durable.disk import replace
from featurestore.errors import LogDamagedError

FILE = "positions"
VERSION = 1


class Moves(NamedTuple):
    """A change: the partitions that go on, each with its new position. number: that of the change; 0 before it is made."""

    held: Mapping[str, str]
    number: int = 0

    def encode(self) -> bytes:
        """As an append's note has it."""
        return orjson.dumps({"number": self.number, "held": dict(self.held)})

    @classmethod
    def decode(cls, note: bytes) -> Moves:
        """What `encode` wrote."""
        said = orjson.loads(note)
        return cls(said["held"], said["number"])


class Positions(NamedTuple):
    """Where each partition is, after the change of that number."""

    held: Mapping[str, str] = {}
    number: int = 0

    def after(self, moves: Moves) -> Positions:
        """Where they are after a change more; one that is in it already changes nothing."""
        if moves.number <= self.number:
            return self
        return Positions({**self.held, **moves.held}, moves.number)

    def with_later(self, others: Positions) -> Positions:
        """Those, and what others say that have later changes."""
        return self.after(Moves(others.held, others.number))


class PositionsFile:
    """The file beside a log."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def content(self) -> bytes | None:
        """Its bytes; None where there is none."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def read(self) -> Positions:
        """What it says; nothing where there is none. LogDamagedError where that cannot be read."""
        data = self.content()
        if data is None:
            return Positions()
        try:
            said = unsigned(orjson.loads(data))
            return Positions(dict(said["positions"]), int(said["number"]))
        except (KeyError, TypeError, ValueError) as error:
            raise LogDamagedError(
                f"The push log is damaged in {self.path}, which says how far streams were read: {error}. Restore the file from a copy."
            ) from error

    def write(self, positions: Positions) -> None:
        """Put these in the place of those before, durably and at once."""
        said = {"version": VERSION, "number": positions.number, "positions": dict(positions.held)}
        replace(self.path, encoded(said, indent=True))

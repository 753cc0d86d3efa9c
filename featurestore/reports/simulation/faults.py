"""What goes wrong in a simulation, and the chances that decide it."""

from __future__ import annotations

import random
import zlib
from typing import Annotated, Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
from pydantic import Field

from featurestore.declare.declaration import Declaration, declares
from featurestore.declare.durations import Duration, parse_duration

Share = Annotated[float, Field(ge=0, le=1)]
PAUSE_US = parse_duration("2h")


class FaultWords(TypedDict, total=False):
    """What may go wrong; see Faults."""

    late: float
    late_by: Any
    disorder: bool
    duplicates: float
    fail: float
    skip: float
    restarts: int
    pause: Any


class Faults(Declaration):
    """What goes wrong in a simulation. All but `late` are such as must change no value."""

    late: Share = 0.0
    """The share of rows, 0 to 1, that come later than their source says; only this changes values."""
    late_by: Duration = 0
    """By how much each of these is late at most (µs; "2h" when given)."""
    disorder: bool = True
    """Whether rows come in another order than they were learned in: those of one step over several files, pushed ones
    up to ten minutes later than others."""
    duplicates: Share = 0.01
    """The share of rows, 0 to 1, that come twice, where their source has an identity."""
    fail: Share = 0.02
    """The share of materialize runs, 0 to 1, that die in the middle."""
    skip: Share = 0.05
    """The share of materialize runs, 0 to 1, that do not take place."""
    restarts: Annotated[int, Field(ge=0)] = 2
    """How often the serving process ends and begins anew, every other time with a push that dies on its way."""
    pause: Duration = PAUSE_US
    """For how long (µs), but for half of the stretch at most, nothing is pushed and no run takes place."""

    @declares
    def __init__(self, /, **words: Unpack[FaultWords]) -> None:
        self.fill(**words)
        if bool(self.late) != bool(self.late_by):
            raise ValueError("late and late_by go together: which share of the rows, and by how much at most")

    def delays(self, drawn: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """By how much (µs) each of so many rows is late; 0 of those that are not."""
        if not self.late:
            return np.zeros(count, np.int64)
        return np.where(drawn.random(count) < self.late, drawn.integers(1, self.late_by + 1, count), 0)

    @classmethod
    def none(cls) -> Faults:
        """Nothing goes wrong."""
        return cls(disorder=False, duplicates=0.0, fail=0.0, skip=0.0, restarts=0, pause="0s")


class Stretch(tuple[int, int]):
    """From after the first instant up to the second, µs."""

    __slots__ = ()

    @property
    def start(self) -> int:
        """Rows known up to it were there before."""
        return self[0]

    @property
    def end(self) -> int:
        """The last instant."""
        return self[1]

    @property
    def length(self) -> int:
        """µs."""
        return self[1] - self[0]


def chance(seed: int, purpose: str) -> random.Random:
    """A stream of chances of its own for each purpose, so that one more draw for the one changes nothing for another."""
    return random.Random(f"{seed} {purpose}")  # noqa: S311 - no secret


def chances(seed: int, purpose: str) -> np.random.Generator:
    """`chance` for whole columns."""
    return np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(purpose.encode())])

"""How much tests of chance draw, and which tests are long: `make test` is to stay short, and `make test-long` takes all."""

from __future__ import annotations

import os

import pytest

PERCENT = int(os.environ.get("DRAWS_PERCENT", "15"))

TAKES_ALL = PERCENT >= 100
"""Whether this run is that of `make test-long`."""

long = pytest.mark.long
"""A test that costs seconds of processor time, and whose rule shorter ones look at too: for `make test-long` alone."""

at_length = pytest.mark.at_length
"""A test that does more in `make test-long` than in `make test`; those whose examples Hypothesis draws are found by themselves
(tests/conftest.py)."""


def draws(usual: int) -> int:
    """How many random examples, or rounds of kills, this run takes, where `usual` are plenty."""
    return max(1, usual * PERCENT // 100)

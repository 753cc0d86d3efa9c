"""How often tests of chance draw: a third of what they say in `make test`, which is to stay short, and somewhat more than all of it in `make test-long`."""

from __future__ import annotations

import os

PERCENT = int(os.environ.get("DRAWS_PERCENT", "30"))


def draws(usual: int) -> int:
    """How many random examples, or rounds of kills, this run takes, where `usual` are plenty."""
    return max(1, usual * PERCENT // 100)

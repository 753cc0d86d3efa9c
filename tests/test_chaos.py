"""Rounds of kill -9 on everything at once: nothing acknowledged is lost or doubled, and what is served is what is trained."""

from __future__ import annotations

import pytest

from tests.chaos.storm import Chaos, Kind


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_nothing_is_lost_whatever_is_killed(kind: Kind) -> None:
    """Pushers, materialize, compaction, lookups, the server and the store itself die in twenty rounds; the next of each
    succeeds, no older value wins, and the audit finds no skew."""
    with Chaos(kind, seed=7) as chaos:
        for _ in range(20):
            chaos.round()
        chaos.end()

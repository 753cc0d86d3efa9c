"""Rounds of kill -9 on everything at once; a file for each store, so that both run at the same time."""

from __future__ import annotations

from tests.chaos.storm import Chaos
from tests.draws import at_length, draws


@at_length
def test_nothing_is_lost_whatever_is_killed() -> None:
    """Pushers, materialize, compaction, lookups, the server and the store itself die in each round; the next of each
    succeeds, no older value wins, and the audit finds no skew."""
    with Chaos("redis", seed=7) as chaos:
        for _ in range(draws(24)):
            chaos.round()
        chaos.end()

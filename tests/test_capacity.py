"""The simulation of docs/capacity.md agrees with what is known of queues, and loses no request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from redis.crc import key_slot

from benchmarks.capacity import ServiceTimes, simulate, waiting_us
from benchmarks.clusters import VIEWS, view_prefixes

EVEN = ServiceTimes(np.full(10, 100.0), 5.0)
UNEVEN = ServiceTimes(np.array([50.0] * 9 + [550.0]), 5.0)


@pytest.mark.parametrize("times", [EVEN, UNEVEN], ids=["even", "uneven"])
@pytest.mark.parametrize("use", [0.3, 0.6])
def test_one_server_waits_as_the_formula_says(times: ServiceTimes, use: float) -> None:
    """Of Pollaczek and Khinchine; the servers are in use as long as they were to be."""
    found = simulate(times, servers=1, primaries=10**6, per_s=use * 1e4, requests=200_000, seed=1, lost=False)
    wait = float(found.latency.mean() - times.redis_us - times.server.mean())
    assert wait == pytest.approx(waiting_us(times.server, use), rel=0.06)
    assert found.server_use == pytest.approx(use, rel=0.02)
    assert found.again == 0


def test_the_lesser_of_two_waits_less_than_one() -> None:
    """Which is why requests are sent so; and an even load is shared evenly."""
    told: dict[str, Any] = {"primaries": 10**6, "requests": 100_000, "seed": 2, "lost": False}
    alone = simulate(UNEVEN, servers=1, per_s=7_000, **told)
    many = simulate(UNEVEN, servers=10, per_s=70_000, **told)
    assert np.percentile(many.latency, 99) < np.percentile(alone.latency, 99)
    assert many.server_use == pytest.approx(0.7, rel=0.03)


def test_a_server_is_lost_and_no_request_is() -> None:
    """Each is answered after it came, those that are asked again too; the others have more to do."""
    told: dict[str, Any] = {"servers": 4, "primaries": 4, "per_s": 24_000, "requests": 100_000, "seed": 3}
    kept, lost = (simulate(UNEVEN, **told, lost=lost) for lost in (False, True))
    assert lost.again > 0
    assert len(lost.latency) == 100_000
    assert lost.latency.min() > 54.99
    assert lost.latency[60_000:].mean() > kept.latency[60_000:].mean()
    np.testing.assert_array_equal(lost.latency[:40_000], kept.latency[:40_000])


def test_primaries_wait_too() -> None:
    """Where one has to do with all keys."""
    told: dict[str, Any] = {"servers": 50, "per_s": 150_000, "requests": 50_000, "seed": 4, "lost": False}
    one, three = (simulate(EVEN, primaries=primaries, **told) for primaries in (1, 3))
    assert one.primary_use == pytest.approx(0.75, rel=0.03)
    assert three.primary_use == pytest.approx(0.25, rel=0.03)
    assert one.latency.mean() > three.latency.mean()


@pytest.mark.parametrize("primaries", [1, 3, 6])
def test_views_are_spread_over_primaries_evenly(primaries: int) -> None:
    found = view_prefixes(primaries)
    places = [min(primaries - 1, int(key_slot(prefix) * primaries / 16_384)) for prefix in found]
    assert np.bincount(places).tolist() == [VIEWS // primaries] * primaries
    assert len({*found}) == VIEWS

"""Distributions over each other: bars are as high as the shares, and what drifted most comes first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from featurestore.console.overlaid import HEIGHT, MOST_FEATURES, MOST_STRIPS, WIDTH, drawn, overlaid
from featurestore.reports.drift.report import Drift, FeatureDrift, PeriodDrift
from featurestore.statistics.shapes import Shape
from tests.small import NOON, hours


def feature(name: str, psi: float | None = 0.1, **words: Any) -> FeatureDrift:
    plain = {
        "feature": name, "type": "Float64", "baseline_rows": 10, "served_rows": 10, "baseline_missing": 0.0, "served_missing": 0.0,
        "distances": {"psi": psi}, "limits": {}, "shape": Shape(("a", "b"), (0.25, 0.75), (0.5, 0.5)),
    }  # fmt: skip
    return FeatureDrift(**{**plain, **words})


def test_bars_are_as_high_as_the_shares() -> None:
    """The fullest part of either side is as high as the drawing, and the outline goes over the baseline."""
    one = drawn(feature("x"))
    assert [(bar.x, bar.width) for bar in one.bars] == [(0, WIDTH / 2), (WIDTH / 2, WIDTH / 2)]
    assert [bar.served_height for bar in one.bars] == pytest.approx([HEIGHT * 2 / 3] * 2)
    assert all(bar.served_y + bar.served_height == pytest.approx(HEIGHT) for bar in one.bars)
    assert one.outline == f"0,{HEIGHT:g} 0,80 180,80 180,0 360,0 360,{HEIGHT:g}"
    assert one.bars[0].told == "a: 25.0% of the baseline, 50.0% of what was served"


def test_periods_lie_below_the_latest_last() -> None:
    """Each filled by its own shares; one beyond a limit is marked."""
    periods = tuple(
        PeriodDrift(hours(n), 5, 0.2, {"psi": n / 10, "missing": None}, (n / 100, 1 - n / 100))
        for n in range(MOST_STRIPS + 2)
    )
    one = drawn(feature("x", limits={"psi": 4.0}, periods=periods))
    assert len(one.strips) == MOST_STRIPS
    assert one.strips[0].told == "from 2024-05-01 14:00:00Z: 5 rows, 20.0% missing; psi 0.2"
    assert [strip.is_beyond for strip in one.strips] == [n / 10 > 4 for n in range(2, MOST_STRIPS + 2)]
    assert max(cell[2] for cell in one.strips[5].cells) == 1
    assert one.strips[-1].y < one.height


def test_what_drifted_most_comes_first() -> None:
    """What is beyond a limit before all others."""
    features = [feature(f"f{n}", n / 1000) for n in range(60)] + [
        feature("none", None),
        feature("limited", 0.0005, limits={"psi": 0.0001}),
    ]
    drift = Drift(
        "p", "s", "f" * 32, "training", NOON, NOON + timedelta(hours=1), tuple(features), (), {}, {}, NOON
    )  # fmt: skip
    names = [one.drift.feature for one in overlaid(drift)]
    assert len(names) == MOST_FEATURES
    assert names[:3] == ["limited", "f59", "f58"]


def test_a_feature_without_values_is_drawn() -> None:
    one = drawn(feature("x", shape=Shape((), (), ())))
    assert (one.bars, one.outline) == ((), f"0,{HEIGHT:g} {WIDTH:g},{HEIGHT:g}")

"""Promises beside what was measured: a broken one is told, and lies where it is on the scale."""

from __future__ import annotations

from typing import Any

import pytest

from featurestore.console.promises import MEANINGS, WIDTH, promises_of
from featurestore.reports.availability.report import Advice, Lag, Settling, Switches, ViewAvailability

MINUTE = 60_000_000


def found(**words: Any) -> ViewAvailability:
    plain = {
        "view": "v", "fingerprint": "f" * 32, "source": "s", "how": "sighting", "late": 0, "late_lag": Lag(), "switches": None,
        "refresh": 60 * MINUTE, "known_after": None, "settle": None, "ready_after": 10 * MINUTE, "lateness": None,
    }  # fmt: skip
    return ViewAvailability(**{**plain, **words})  # type: ignore[arg-type]  # words of several types


def test_a_broken_promise_is_told_beside_what_was_measured() -> None:
    lag = Lag(200, MINUTE, 8 * MINUTE, 12 * MINUTE, 20 * MINUTE)
    advice = Advice(
        "known_after", 5 * MINUTE, 12 * MINUTE, 0.1, True, "known_after is 5m, and 1 % of rows came after 12m"
    )
    (one,) = promises_of(found(known=lag, known_after=5 * MINUTE, beyond=20, beyond_at_most=30, advice=(advice,)))
    assert (one.word, one.state, one.beyond) == ("known_after", "broken", "20 to 30 of 200 rows")
    assert one.told == "known_after of v: declared 5m, measured p50 1m, p95 8m, p99 12m, longest 20m"
    places = [one.x(us) for us in (0, MINUTE, 5 * MINUTE, 12 * MINUTE, 20 * MINUTE)]
    assert places == sorted(places)
    assert (places[0], places[-1] < WIDTH) == (0, True)
    assert places[2] == pytest.approx(places[-1] / 4, abs=0.1)


def test_every_word_that_there_is_something_to_say_of() -> None:
    """What was not declared, and is needlessly long, is told as that."""
    advice = Advice("settle", 60 * MINUTE, MINUTE, 0, False, "settle is 1h, and never more than 1m was needed")
    switches = Switches(10, 2, 1, Lag(10, MINUTE, 2 * MINUTE, 3 * MINUTE, 4 * MINUTE))
    words = promises_of(
        found(known=Lag(100, 0, 0, 0, 0), settle=60 * MINUTE, settling=Settling(3, 0, MINUTE, MINUTE, MINUTE), switches=switches,
              lateness=7 * 24 * 60 * MINUTE, servable=Lag(90, 1, 2, 3, 4), waiting=10, advice=(advice,))
    )  # fmt: skip
    assert [(one.word, one.state) for one in words] == [
        ("known_after", "no promise"), ("settle", "needlessly long"), ("ready_after", "kept"), ("lateness", "kept"), ("servable", "no promise")
    ]  # fmt: skip
    assert {one.word for one in words} == set(MEANINGS)
    assert words[2].beyond == "2 of 10 instants, 1 without a run"
    assert words[0].x(0) == 0  # all that was measured is 0


def test_a_view_of_which_nothing_is_known_has_no_promises() -> None:
    assert promises_of(found(how="nothing")) == []
    (one,) = promises_of(found(known_after=MINUTE))
    assert (one.state, one.p99_text, one.declared_text) == ("not measured", "-", "1m")

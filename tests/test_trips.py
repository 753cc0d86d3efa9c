"""How many files of the package a row or a key crosses: who follows one through the code opens no more than these."""

from __future__ import annotations

from benchmarks.trips import count_trips

FILES = {
    "spine row, plain column": 50,
    "spine row, with a mean": 62,
    "pushed row, whole batch": 50,
    "key, materialized view": 16,
    "key, pushed view": 21,
    "materialize": 79,
}
"""What each trip may cross."""


def test_a_trip_crosses_few_files() -> None:
    """A trip that grew passes through something thin: `python -m benchmarks.trips --files` says what. Where it does new work in a
    file of its own, the number grows with it."""
    crossed = {name: len(trip.files) for name, trip in count_trips().items()}
    assert crossed.keys() == FILES.keys()
    assert {name: files for name, files in crossed.items() if files > FILES[name]} == {}

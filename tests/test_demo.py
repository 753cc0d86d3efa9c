"""The demonstration, shortened: what is served has training's bits, and a person sees the comparison."""

import io
import json
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from rich.console import Console

from feature_repo.comparison import differing
from feature_repo.demo import (
    INPUTS,
    SERVICE,
    START,
    between,
    demonstrate,
    flights_of,
    how_to_look,
    repository,
    served,
    show,
)
from feature_repo.prepare import prepare
from featurestore import FeatureStore, ManualClock
from featurestore.console import Console as Pages


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("flights"))


def test_a_shortened_replay_serves_the_bits_of_training(data, tmp_path):
    """Twelve hours, night to noon: every flight is looked up, nothing differs, and the table is printed. What was served stays, and
    the console shows it."""
    text = io.StringIO()
    console = Console(file=text, width=140)
    kept = tmp_path / "kept place"
    (kept / "older").mkdir(parents=True)
    outcome = demonstrate(console, data=data, train_from=START - timedelta(days=7), hours=12, kept=kept)
    assert not (kept / "older").exists()
    _look_at(kept, START + timedelta(hours=12) - timedelta(minutes=1))
    show(console, outcome)
    assert outcome.flights > 300
    assert outcome.values == outcome.flights * 23
    assert outcome.differing == {}
    assert outcome.store.promised == outcome.store.achieved
    assert outcome.pushes.landings > 150
    assert outcome.pushes.values > 200 * 24
    assert outcome.pushes.differing == {}
    refreshed, running = outcome.audits
    assert (refreshed.compared, refreshed.exact, refreshed.skewed) == (outcome.values, outcome.values, 0)
    assert (running.compared, running.exact, running.skewed) == (outcome.pushes.values, outcome.pushes.values, 0)
    assert refreshed.losses.offered == refreshed.losses.written
    printed = text.getvalue()
    total = f"{outcome.values + outcome.pushes.values:,}"
    pushed = f"{outcome.pushes.landings:,} landings pushed between lookups"
    for expected in ("pandas shortcut", "AUC promised", pushed, f"All {total} served values have training's bits"):
        assert expected in printed


def _look_at(kept, at):
    """As the line says that tells how: every view of the model is fresh, nothing is skewed, and the training set is there."""
    words = shlex.split(how_to_look(kept, at).removeprefix("Look at it: "))
    assert [words[0], *words[1:4]] == [sys.executable, "-m", "featurestore", "--repo"]
    assert (words[5:7], words[8]) == (["ui", "--at"], "--open")
    assert Path(words[4]).resolve() == kept.resolve()
    clock = ManualClock(datetime.fromisoformat(words[7]))
    with FeatureStore(words[4], clock=clock) as store:
        shown = json.loads(Pages(store).answer("", {"format": "json"}).body)["tables"]
        model = {item.view.name for item in store.catalog.service_of(SERVICE).selections()}
        assert {one["view"] for one in shown["views"] if one["state"] == "fresh"} >= model
        assert {one["skew"] for one in shown["skew"] if one["service"] == SERVICE} == {"0.0000%"}
        assert len(json.loads(Pages(store).answer("training", {"format": "json"}).body)["tables"]["frames"]) == 1


def test_the_audit_of_a_hundred_thousand_values_finds_no_skew(data):
    """Half a day of flights, each hour the next 500 of the schedule looked up over HTTP: every value is exact."""
    clock = ManualClock(START)
    flights = between(flights_of(data), START, START + timedelta(days=3))
    rows = flights[INPUTS].astype(object).where(flights[INPUTS].notna(), None).to_dict("records")
    with repository(data, clock) as store:
        store.apply()
        fingerprint = store._project.service(SERVICE).fingerprint
        views = [item.view.name for item in store.catalog.service_of(SERVICE).selections()]
        with served(store, fingerprint) as ask:
            for hour in range(10):
                clock.set(START + timedelta(hours=hour, minutes=hour))
                store.materialize(views, progress=False)
                ask(rows[hour * 100 : hour * 100 + 500])  # type: ignore[arg-type]  # pandas' names are of any type
        audit = store.audit()
    assert audit.compared >= 100_000
    assert (audit.exact, audit.skewed, audit.causes) == (audit.compared, 0, {})
    assert {told.feature for told in audit.features} == set(store.catalog.service_of(SERVICE).columns)


@pytest.mark.parametrize(
    ("ours", "theirs", "count"),
    [
        ([0.0], [-0.0], 1),
        ([None], [0.0], 1),
        ([1.0], [1.0], 0),
        ([float("nan")], [float("nan")], 0),
        ([None], [None], 0),
    ],
)
def test_bits_are_compared(ours, theirs, count):
    """A zero's sign and a null are differences; a NaN is equal to itself."""
    tables = [pa.table({"x": pa.array(values, pa.float64())}) for values in (ours, theirs)]
    assert differing(*tables) == ({"x": count} if count else {})


def test_the_replay_starts_at_midnight_in_new_york():
    """1 December 2013, 05:00 in UTC: the hour at which the daily jobs start."""
    assert datetime(2013, 12, 1, 5, tzinfo=UTC) == START

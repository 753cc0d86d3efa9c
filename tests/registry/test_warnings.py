"""What a plan says beside its steps: what the rules cost, and what in the data may surprise."""

from __future__ import annotations

import datetime as dt
import re

import numpy as np
import pyarrow as pa
import pytest

from featurestore.declare.durations import rough_duration
from featurestore.registry import warnings as notices_module
from featurestore.types import Float64
from tests.registry.small_repository import START, Repository, landings, naive, utc


@pytest.fixture
def repo(tmp_path):
    repository = Repository(tmp_path)
    yield repository
    repository.offline.close()


def texts(plan, name):
    return [notice.text for notice in plan.notices if notice.name == name]


def about(repo, name, words, **columns):
    if columns:
        repo.write("landings.parquet", landings(**columns))
    return " | ".join(texts(repo.plan(repo.definitions(**words)), name))


TIMES = [START + dt.timedelta(minutes=10 * i) for i in range(100)]
LOADED = [START + dt.timedelta(days=30, seconds=i % 50) for i in range(60)] + TIMES[60:]

SAID = [
    # timestamps without a zone
    ("landings", {}, {"landed_at": naive(TIMES)}, "read as UTC: 'landed_at'; say timezone="),
    ("landings", {"source": {"timezone": "America/New_York"}}, {"landed_at": naive(TIMES)}, ""),
    ("landings", {}, {}, ""),
    # ready_after that leaves the job no time
    ("delays", {"ready_after": None}, {}, r"ready_after is settle \(0s\): .* leaves the job no time"),
    ("delays", {"ready_after": "5m", "settle": "5m"}, {}, r"5m after each refresh, which leaves the job no time"),
    ("delays", {"ready_after": "6m", "settle": "5m"}, {}, "^(?!.*no time)"),
    # ttl against refresh
    ("delays", {"ttl": "59m"}, {}, "ttl 59m is shorter than refresh 1h: .* in the first 1m after an instant are never served"),
    ("delays", {"ttl": "1h"}, {}, "^(?!.*shorter than refresh)"),
    ("delays", {"ttl": "0s"}, {}, "^ttl 0s: a row counts at its own instant alone(?!.*shorter)"),
    # keys that have expired by now
    ("delays", {"ttl": "2d"}, {}, "100% of its keys would be EXPIRED now: they have no row within ttl 2d; the newest row is of 2013-01-01 16:30 UTC"),
    ("delays", {"ttl": None}, {}, "^(?!.*EXPIRED)"),
    ("delays", {"ttl": "36500d"}, {}, "^(?!.*EXPIRED)"),
    # one load
    (
        "landings",
        {"source": {"known_at": "known", "known_after": "0s"}},
        {"known": utc([START + dt.timedelta(days=30)] * 60 + TIMES[60:])},
        r"60% of 'known' lies in the minute 2013-01-31 00:00 UTC.*say history_until=",
    ),
    ("landings", {"source": {"known_at": "known", "known_after": "0s"}}, {"known": utc(LOADED)}, "60% of 'known'"),
    ("landings", {"source": {"known_at": "known", "known_after": "0s"}}, {"known": utc([TIMES[50]] * 50 + TIMES[50:])}, "51%"),
    ("landings", {"source": {"known_at": "known", "known_after": "0s"}}, {"known": utc([TIMES[50]] * 50 + TIMES[51:] + [START])}, ""),
    ("landings", {"source": {"known_at": "known", "known_after": "0s"}}, {"known": utc(TIMES)}, ""),
    (
        "landings",
        {"source": {"known_at": "known", "known_after": "1m", "history_until": START + dt.timedelta(days=9)}},
        {"known": utc([START + dt.timedelta(days=30)] * 100)},
        "",
    ),
    ("landings", {"source": {"known_at": "landed_at", "known_after": "0s"}}, {"landed_at": utc([START] * 100)}, ""),
    # tables without time
    ("carriers", {}, {}, "its history is not point-in-time, training sees the table as it is now"),
    # continuous over a batch source
    (
        "delays",
        {"refresh": "continuous", "ready_after": None},
        {},
        r"continuous over a batch source: .*Say refresh='1h'.* \| a row can be used 2m after it happened, 95 % of them within 2m",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words", "columns", "message"), SAID)
def test_what_is_said_and_what_is_not(repo, name, words, columns, message):
    """Each warning where it holds, and silence where it does not."""
    text = about(repo, name, words, **columns)
    assert re.search(message, text) if message else text == ""


def test_the_share_of_expired_keys_is_of_those_known_now(repo):
    """For keys that are known at the instant of now, and as a lookup would answer them then."""
    from featurestore.registry.store import Registry

    ages = {"old": 50, "older": 60, "edge": 48, "young": 1, "later": -2}
    at = [START - dt.timedelta(hours=hours) for hours in ages.values()]
    facts = {"arr_delay": [1.0] * 5, "gate": pa.array([1] * 5, pa.int32()), "carrier_code": list(ages)}
    repo.write("landings.parquet", pa.table({"landed_at": utc(at), **facts}))
    now = int((START + dt.timedelta(minutes=10)).timestamp() * 1_000_000)
    repo.registry = Registry(repo.root / "other.db", now=lambda: now)
    assert "50% of its keys would be EXPIRED now: they have no row within ttl 2d" in texts(
        repo.plan(repo.definitions()), "delays"
    )
    assert not any("EXPIRED" in text for text in texts(repo.plan(repo.definitions(ttl="61h")), "delays"))


def test_functions_are_called_once_with_nulls(repo):
    """What comes of it is told, and to act where it fails."""
    from featurestore.declare.on_demand import RequestTime, on_demand

    repo.definitions()

    @on_demand(inputs=[repo.delays["delay"], RequestTime()], output=Float64)
    def fails(delay, now):
        return delay + now.hour

    @on_demand(inputs=[repo.delays["delay"]], output=Float64, mode="columns")
    def doubled(delay):
        return delay.fillna(3.0) * 2

    plan = repo.plan([fails, doubled, repo.share])
    told = {notice.name: (notice.act, notice.text) for notice in plan.notices if notice.kind == "on_demand"}
    assert told["share"] == (False, "of a key that is not known it makes null")
    assert told["doubled"] == (False, "of a key that is not known it makes 6.0")
    assert told["fails"][0]
    assert "makes it fail, and the whole request: TypeError: unsupported operand" in told["fails"][1]


def test_a_table_with_valid_from_is_told_apart(repo):
    """Its rows count from an instant on; what they held before is not known."""
    from featurestore.declare.sources import ParquetSource
    from featurestore.declare.views import FeatureView

    repo.definitions()
    source = ParquetSource(
        "facts", "landings.parquet", event_time=None, valid_from="landed_at", refresh="1d", ready_after="1h"
    )
    view = FeatureView("v", entity=repo.carrier, source=source, key={"carrier": "carrier_code"}, features=["gate"])
    assert "counts from 'landed_at' on" in texts(repo.plan([view]), "facts")[0]
    assert texts(repo.plan([view]), "v") == []


def _first_served(event, known, *, refresh, offset, settle, ready):
    """When a row is first served, by trying every instant: the first I with event ≤ I and known ≤ I + settle."""
    instant = (event - offset) // refresh * refresh + offset
    while not (event <= instant and known <= instant + settle):
        instant += refresh
    return instant + ready


AGES = [
    (3_600, 0, 0, 600),
    (3_600, 0, 300, 600),
    (86_400, 18_000, 0, 3_600),
    (3_600, 900, 300, 3_900),
]


@pytest.mark.parametrize(("refresh", "offset", "settle", "ready"), AGES)
def test_ages_are_those_of_an_independent_count(repo, refresh, offset, settle, ready):
    """The median and the 95th percentile of how long after it happened a row is first served, before 1970 too."""
    random = np.random.default_rng(7)
    event = np.sort(random.integers(-5 * 86_400, 5 * 86_400, 400)) * 1_000_000
    known = event + random.integers(0, 3 * 3_600, 400) * 1_000_000
    table = pa.table(
        {
            "landed_at": pa.array(event, pa.timestamp("us", "UTC")),
            "known": pa.array(known, pa.timestamp("us", "UTC")),
            "carrier_code": ["UA"] * 400,
            "arr_delay": [1.0] * 400,
            "gate": pa.array([1] * 400, pa.int32()),
        }
    )
    repo.write("landings.parquet", table)
    words = {"refresh": refresh, "refresh_offset": offset, "settle": settle, "ready_after": ready}
    said = {word: dt.timedelta(seconds=seconds) for word, seconds in words.items()}
    (text,) = (t for t in texts(repo.plan(repo.definitions(source={"known_at": "known", "known_after": "0s"}, **said)), "delays")
               if "first served" in t)  # fmt: skip
    micros = {"refresh": refresh, "offset": offset, "settle": settle, "ready": ready}
    micros = {word: seconds * 1_000_000 for word, seconds in micros.items()}
    ages = sorted(_first_served(e, k, **micros) - e for e, k in zip(event.tolist(), known.tolist(), strict=True))
    half, most = (rough_duration(ages[int(np.ceil(q * 400)) - 1]) for q in (0.5, 0.95))
    lag = rough_duration(sorted((known - event).tolist())[199])
    bounds = f"{rough_duration(micros['ready'])} to {rough_duration(micros['ready'] + micros['refresh'])} old"
    assert f"first served {half} after it happened, 95 % of them within {most}: known after {lag} " in text
    assert "(medians of 400 rows)" in text
    assert text.endswith(bounds)


def test_many_rows_are_measured_on_a_sample_and_it_says_so(repo, monkeypatch):
    """The same rows each time, and about as many as the limit."""
    monkeypatch.setattr(notices_module, "SAMPLE_ROWS", 1_000)
    count = 20_000
    table = pa.table(
        {
            "landed_at": utc([START + dt.timedelta(seconds=i) for i in range(count)]),
            "carrier_code": ["UA"] * count,
            "arr_delay": [1.0] * count,
            "gate": pa.array([1] * count, pa.int32()),
        }
    )
    repo.write("landings.parquet", table)
    first, second = (repo.plan(repo.definitions()) for _ in range(2))
    text = next(t for t in texts(first, "delays") if "first served" in t)
    kept = int(re.search(r"medians of ([\d,]+) of 20,000 rows, a sample", text)[1].replace(",", ""))
    assert 700 < kept < 1_300
    assert first.notices == second.notices


def test_notices_change_no_digest(repo):
    """A plan stays current while rows arrive."""
    first = repo.plan(repo.definitions())
    repo.write("landings.parquet", landings().slice(0, 10))
    second = repo.plan(repo.definitions())
    assert first.notices != second.notices
    assert first.digest == second.digest


def test_a_moved_source_is_told(repo):
    """Its values are not refilled, because where data lies is no part of a definition."""
    from featurestore.registry.apply import apply_plan

    apply_plan(repo.plan(repo.definitions()), repo.registry, free=lambda *_: 0)
    repo.write("moved.parquet", landings())
    plan = repo.plan(repo.definitions(path="moved.parquet"))
    assert "read from elsewhere (~ path: [landings.parquet] → [moved.parquet])" in texts(plan, "landings")[0]


DURATIONS = [
    (0, "0s"),
    (1, "1us"),
    (999, "999us"),
    (61_000_000, "1m1s"),
    (3_600_000_001, "1h"),
    (3_661_000_000, "1h1m"),
    (86_400_000_000 * 3 + 3_661_000_000, "3d1h"),
]


@pytest.mark.parametrize(("micros", "shown"), DURATIONS)
def test_durations_are_shown_roughly(micros, shown):
    """Two units say enough of what was measured."""
    assert rough_duration(micros) == shown

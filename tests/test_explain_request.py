"""What a request was served, explained from its id."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    Mean,
    ParquetSource,
    PushSource,
    Request,
    RequestTime,
    on_demand,
)
from featurestore.errors import FingerprintError, NotFoundError, RequestError
from featurestore.types import Float64, Int64, String, Timestamp
from tests.cli.test_commands import run

START = datetime(2024, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
AIRPORTS = ("JFK", "LGA")


def flights(extra: float = 0.0) -> pa.Table:
    times = [START + HOUR * n + timedelta(minutes=i) for n in range(12) for i, _ in enumerate(AIRPORTS)]
    return pa.table(
        {"airport": list(AIRPORTS) * 12, "at": times, "delay": [n / 3 + extra for n in range(12 * len(AIRPORTS))]}
    )


def definitions() -> list[Any]:
    airport = Entity("airport", key={"airport": String})
    source = ParquetSource("flights", "flights.parquet", event_time="at", known_after="1m")
    delays = FeatureView(
        "delays", entity=airport, source=source, refresh="1h", ready_after="10m", ttl="5h", stale="withhold",
        features={"delay": Latest("delay", default=-1.0), "mean": Mean("delay", window="6h")},
    )  # fmt: skip
    pushed = PushSource("seen", schema={"airport": String, "at": Timestamp}, event_time="at")
    recent = FeatureView("recent", entity=airport, source=pushed, features={"n": Count(window="1h")})

    @on_demand(
        inputs=[delays.alias("dest", key={"airport": "dest"})["mean"], Request("scale", Float64)], output=Float64
    )
    def scaled(mean, scale):
        return None if mean is None else mean * scale

    @on_demand(inputs=[RequestTime()], output=Int64)
    def hour(now):
        return now.hour

    origin, dest = (delays.alias(name, key={"airport": name}) for name in ("origin", "dest"))
    return [FeatureService("trip", features=[origin, dest["delay"], recent, scaled, hour])]


class Trips:
    """A repository whose service is asked once an hour for two trips."""

    def __init__(self, folder: Path, *, rate: float = 1.0) -> None:
        self.folder = folder
        pq.write_table(flights(), folder / "flights.parquet")
        (folder / "featurestore.toml").write_text(
            f'project = "trips"\ndefinitions = []\n[serving_log]\nrate = {rate}\n'
        )
        self.clock = ManualClock(START + HOUR * 8)
        self.store = FeatureStore(folder, clock=self.clock)
        self.store.apply(definitions())

    def serve(self, **row: Any) -> str:
        self.store.push("seen", [{"airport": "JFK", "at": self.clock()}])
        self.clock.advance(timedelta(seconds=1))
        trip = {"origin": "JFK", "dest": "LGA", "airport": "JFK", "scale": 1.5}
        found = self.store.get_online_features([trip, {**trip, **row}], "trip").request
        assert found is not None
        return found


@pytest.fixture
def trips(tmp_path: Path) -> Iterator[Trips]:
    made = Trips(tmp_path)
    with made.store:
        yield made


def test_a_request_is_explained_view_by_view_and_function_by_function(trips: Trips) -> None:
    """Every value has the bits that were served, and beside it the rows and inputs that make it, at the as_of served."""
    trips.store.materialize(progress=False)
    request = trips.serve(origin="LGA", dest="nowhere", scale=-0.0)
    trips.clock.advance(HOUR * 3)
    first, second = (trips.store.explain_request(request, row) for row in (0, 1))
    for explained in (first, second):
        assert explained.agrees
        assert explained.differing == ()
        assert explained.summary == "all 7 values compared are what was served, to the bit"
        assert [view.name for view in explained.views] == ["origin", "dest", "recent"]
        assert [view.as_of for view in explained.views] == [
            START + HOUR * 7,
            START + HOUR * 7,
            explained.time,
        ]
        assert not any(view.is_stale for view in explained.views)
        assert explained.rows == 2
    origin, dest, recent = first.views
    assert origin.explanation.key == {"airport": "JFK"}
    assert {f.column: f.now for f in origin.features} == {
        "origin__delay": 4.0,
        "origin__mean": origin.explanation.values["mean"],
    }
    assert dest.explanation.key == {"airport": "LGA"}
    assert recent.explanation.counted == {"n": 1}
    read = next(feature for feature in dest.features if feature.column == "dest__mean")
    assert "dest__mean" not in first.to_dict()["inputs"]
    assert (read.served, read.agrees) == (read.now, True), "what only a function reads is logged too"
    scaled, hour = first.functions
    assert scaled.inputs == {"dest__mean": read.served, "scale": 1.5}
    assert scaled.now == read.served * 1.5
    assert (hour.inputs, hour.served) == ({"request time": first.time}, 8)
    assert second.views[1].explanation.status == "MISSING"
    assert [f.served for f in second.views[1].features] == [-1.0, None]


def test_a_null_key_and_a_late_view_are_explained_as_they_were_served(trips: Trips) -> None:
    """A null key is MISSING now as it was then; what was withheld is shown beside the value, and not held against it."""
    trips.store.materialize(progress=False)
    trips.clock.advance(HOUR * 2)
    explained = trips.store.explain_request(trips.serve(origin=None), 1)
    origin, dest, _ = explained.views
    assert origin.explanation.key == {"airport": None}
    assert [(f.status, f.status_now, f.agrees) for f in origin.features] == [("WITHHELD", "MISSING", None)] * 2
    assert [(f.served, f.status, f.agrees) for f in dest.features] == [(None, "WITHHELD", None)] * 2
    assert dest.explanation.values["delay"] == 5.0
    assert dest.is_stale
    assert dest.due == START + HOUR * 9
    assert explained.functions[0].inputs["dest__mean"] is None
    assert explained.agrees
    text = str(explained)
    assert (
        "dest, which is view delays, served as of 2024-05-01 08:00:00Z; it was late: 2024-05-01 09:00:00Z was due, and withheld:"
        in text
    )
    trips.store.materialize(progress=False)
    fresh = trips.store.explain_request(trips.serve(origin=None), 1)
    assert [(f.served, f.status, f.status_now, f.agrees) for f in fresh.views[0].features] == [
        (-1.0, "MISSING", "MISSING", True), (None, "MISSING", "MISSING", True),
    ]  # fmt: skip


def test_what_differs_is_named(trips: Trips) -> None:
    """A value that the source gives no more is said to differ, in every form, and so is what a function makes of it."""
    trips.store.materialize(progress=False)
    request = trips.serve()
    pq.write_table(flights(extra=0.5), trips.folder / "flights.parquet")
    explained = trips.store.explain_request(request)
    assert explained.differing == ("origin__delay", "origin__mean", "dest__delay", "dest__mean")
    assert not explained.agrees
    told = explained.to_dict()
    assert told["differing"] == list(explained.differing)
    assert [f["agrees"] for f in told["views"][0]["features"]] == [False, False]
    assert told["views"][0]["explanation"]["values"]["delay"] == 4.5
    json.dumps(told, allow_nan=False)
    text = str(explained)
    assert (
        "4 of 7 values compared are not what was served: origin__delay, origin__mean, dest__delay, dest__mean" in text
    )
    assert f"dest__mean  {explained.functions[0].inputs['dest__mean']}" in text
    page = explained._repr_html_()
    assert "4 of 7 values compared" in page
    assert "which is view delays" in page


def test_a_request_that_cannot_be_explained_says_why(trips: Trips) -> None:
    """Unknown ids, rows that are not there, and versions whose definitions are gone are errors that say what to do."""
    trips.store.materialize(progress=False)
    request = trips.serve()
    with pytest.raises(NotFoundError, match="no request 'nothing'.*within about a second"):
        trips.store.explain_request("nothing")
    with pytest.raises(RequestError, match="has no row 2 in the log; it has 0, 1"):
        trips.store.explain_request(request, 2)
    with pytest.raises(RequestError, match="has no row -1"):
        trips.store.explain_request(request, -1)
    trips.store.config.registry.rename(trips.folder / "elsewhere.db")
    with pytest.raises(
        FingerprintError, match=f"'{request}' was answered by service 'trip' with fingerprint .* not at hand"
    ):
        trips.store.explain_request(request)


def test_an_id_that_was_used_again_is_explained_by_its_last_answer(trips: Trips) -> None:
    """An id that a client used twice has the rows of its last answer, and not those of both."""
    trips.store.materialize(progress=False)
    request = trips.serve()
    first = trips.store.explain_request(request)
    (segment,) = trips.store.config.serving_log.folder.glob("trip/*/[0-9]*.parquet")
    table = pq.read_table(segment)
    later = pa.array([first.time + HOUR] * len(table), table.schema.field("time").type)
    again = table.set_column(table.column_names.index("time"), table.schema.field("time"), later)
    pq.write_table(again, segment.with_name(f"9{segment.name.split('.')[0]}.parquet"))
    last = trips.store.explain_request(request)
    assert (last.time, last.rows) == (first.time + HOUR, 2)
    assert first.rows == 2
    assert (first.differing, last.differing) == ((), ("hour",))  # which was copied, and is of the earlier time


def test_a_log_that_is_off_or_sampled_says_so(tmp_path: Path) -> None:
    """Where an id is unknown since nothing, or not all, is logged, the error names the setting."""
    for rate, says in ((0.0, "It is off: .*serving_log. rate"), (0.5, "Only a part of the requests is logged")):
        folder = tmp_path / str(rate)
        folder.mkdir()
        with Trips(folder, rate=rate).store as store, pytest.raises(NotFoundError, match=says):
            store.explain_request("1-2-3")


def test_the_command_explains_a_request(tmp_path: Path) -> None:
    """`explain --request ID --row N` prints what the store says, and refuses a view beside it."""
    run(tmp_path, "init", "shop")
    shop = tmp_path / "shop"
    run(shop, "apply")
    run(shop, "materialize", "--quiet")
    with FeatureStore(shop) as store:
        request = store.get_online_features([{"customer": "ann", "amount": 3.0}] * 2, "order_model").request
    assert request is not None
    told = json.loads(run(shop, "explain", "--request", request, "--row", "1", "--json").stdout)
    assert (told["row"], told["agrees"], told["service"]) == (1, True, "order_model")
    assert f"request {request}, row 0 (of 2 logged)" in run(shop, "explain", "--request", request).stdout
    assert "say a view and a key" in run(shop, "explain", "customer_orders", "--request", request, code=2).stderr

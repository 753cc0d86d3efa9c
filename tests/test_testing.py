"""A user's own feature tests get the values that training gets, from rows as they are written down."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from featurestore.declare.entity import Entity
from featurestore.declare.folds import Latest
from featurestore.declare.on_demand import Request, RequestTime, on_demand
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import DataFrameSource, ParquetSource
from featurestore.declare.stored import read_source
from featurestore.declare.views import FeatureView
from featurestore.errors import NotFoundError, RequestError, SourceError
from featurestore.semantics.view import resolve
from featurestore.sources.offline import Offline
from featurestore.testing import FeatureTest
from featurestore.types import Array, Bool, Bytes, Date, Float32, Float64, Int64, String, Timestamp
from featurestore.types import Decimal as DecimalType
from tests.draws import draws
from tests.histories import History, answers_of, histories
from tests.world import bits, declare

carrier = Entity("carrier", key={"carrier": String})
landings = ParquetSource("landings", "data/landings.parquet", event_time="landed_at", known_after="2m")
delays = FeatureView(
    "delays", entity=carrier, source=landings, key={"carrier": "carrier_code"}, features=["arr_delay"],
    refresh="1h", settle="5m", ready_after="10m", ttl="2d",
)  # fmt: skip
airport = Entity("airport", key={"airport": String})
facts = DataFrameSource("facts", pa.table({"airport": ["JFK"], "altitude": [13]}), event_time=None, refresh="1d")
airports = FeatureView("airports", entity=airport, source=facts, features={"altitude": Latest("altitude", default=-1)})

FACTS = {"airport": String, "altitude": Int64}

ROWS: list[dict[str, Any]] = [
    {"carrier_code": "UA", "landed_at": "2013-01-01T10:00Z", "arr_delay": 12.0},
    {"carrier_code": "UA", "landed_at": "2013-01-01T11:30Z", "arr_delay": 30},
    {"carrier_code": "AA", "landed_at": "2013-01-01T06:30-05:00", "arr_delay": None},
]


@on_demand(inputs=[delays["arr_delay"], Request("scheduled", Int64)], output=Float64)
def relative(arr_delay: float | None, scheduled: int) -> float | None:
    return None if arr_delay is None else arr_delay / scheduled


@on_demand(inputs=[RequestTime()], output=Int64)
def hour(now: datetime) -> int:
    return now.hour


def test_the_value_at_an_instant() -> None:
    """The clock decides as for any lookup: a refreshed value is served from ready_after on."""
    test = FeatureTest(delays).rows("landings", ROWS)
    assert test.value_at("2013-01-01T12:09:59Z", carrier="UA") == {"delays__arr_delay": 12.0}
    assert test.value_at("2013-01-01T12:10Z", carrier="UA") == {"delays__arr_delay": 30.0}
    assert test.value_at(datetime(2013, 1, 1, 12, 10, tzinfo=UTC), carrier="AA") == {"delays__arr_delay": None}
    assert test.status_at("2013-01-01T12:10", carrier="AA") == {"delays__arr_delay": "PRESENT"}
    assert test.status_at("2013-01-01T12:10Z", carrier="XX") == {"delays__arr_delay": "MISSING"}
    assert test.status_at("2013-01-09T12:10Z", carrier="UA") == {"delays__arr_delay": "EXPIRED"}
    assert test.status_at("2013-01-01T12:10Z", carrier=None) == {"delays__arr_delay": "MISSING"}
    explanation = test.explain_at("2013-01-01T12:09:59Z", carrier="UA")
    assert [row.verdict for row in explanation.rows] == ["chosen", "not yet known"]


def test_what_is_served_at_an_instant() -> None:
    """The same rows through materialize and lookup: switched by the clock, judged by the ttl, defaults and all."""
    test = FeatureTest([delays, relative, hour, airports]).rows("landings", ROWS).rows("facts", [], schema=FACTS)
    inputs: dict[str, Any] = {"carrier": "UA", "scheduled": 60, "airport": "JFK"}
    for at, delay in [("12:09:59", 12.0), ("12:10", 30.0), ("12:09:59", 12.0), ("11:10", 12.0), ("10:09:59", None)]:
        assert test.served_at(f"2013-01-01T{at}Z", **inputs) == {
            "delays__arr_delay": delay,
            "relative": None if delay is None else delay / 60,
            "hour": int(at[:2]),
            "airports__altitude": -1,
        }
    assert test.served_at("2013-01-09T12:10Z", **inputs)["delays__arr_delay"] is None
    other = test.rows("landings", ROWS[2:], schema={"arr_delay": Float64})
    assert other.served_at("2013-01-01T12:10Z", **inputs)["delays__arr_delay"] is None


def test_a_difference_between_the_two_paths_fails_the_test() -> None:
    """Whoever breaks the equality hears of it from served_at, with both answers."""
    test = FeatureTest(delays).rows("landings", ROWS)
    stale = FeatureTest(delays).rows("landings", ROWS[:1])
    stale.served_at("2013-01-01T12:10Z", carrier="UA")
    test._online = stale._online  # holds what other rows made, as a store that lost a row would
    with pytest.raises(AssertionError, match=r"served as \(12.0, 'PRESENT'\), and trained as \(30.0, 'PRESENT'\)"):
        test.served_at("2013-01-01T12:10Z", carrier="UA")


def test_rows_replace_what_was_there() -> None:
    """The last rows given are all the rows."""
    test = FeatureTest(delays).rows("landings", ROWS)
    assert test.status_at("2013-01-01T12:10Z", carrier="UA") == {"delays__arr_delay": "PRESENT"}
    test.rows("landings", ROWS[2:], schema={"arr_delay": Float64})
    assert test.status_at("2013-01-01T12:10Z", carrier="UA") == {"delays__arr_delay": "MISSING"}


def test_services_with_aliases_and_on_demand_features() -> None:
    """Everything that a model eats, in its order, from the rows of several sources."""
    service = FeatureService(
        "model", features=[relative, delays, hour, airports.alias("origin", key={"airport": "origin"}), airports]
    )
    test = FeatureTest(service).rows("landings", ROWS).rows("facts", [{"airport": "LGA", "altitude": 22}])
    inputs: dict[str, Any] = {"carrier": "UA", "scheduled": 60, "origin": "LGA", "airport": "JFK"}
    assert test.value_at("2013-01-01T12:10Z", **inputs) == {
        "relative": 0.5, "delays__arr_delay": 30.0, "hour": 12, "origin__altitude": 22, "airports__altitude": -1,
    }  # fmt: skip
    assert list(test.value_at("2013-01-01T12:10Z", **inputs)) == list(service.columns)
    assert test.status_at("2013-01-01T12:10Z", **inputs) == {
        "delays__arr_delay": "PRESENT", "origin__altitude": "PRESENT", "airports__altitude": "MISSING",
    }  # fmt: skip
    assert test.explain_at("2013-01-01T12:10Z", "origin", origin="LGA").values == {"altitude": 22}
    with pytest.raises(RequestError, match="say which one to explain: delays, origin, airports"):
        test.explain_at("2013-01-01T12:10Z", carrier="UA")
    with pytest.raises(NotFoundError, match="Did you mean 'origin'"):
        test.explain_at("2013-01-01T12:10Z", "orgin", carrier="UA")


def test_an_on_demand_feature_alone_and_a_list() -> None:
    """Whatever can be asked for can be tested."""
    assert FeatureTest(hour).value_at("2013-01-01T12:10Z") == {"hour": 12}
    test = FeatureTest([delays["arr_delay"], relative]).rows("landings", ROWS)
    assert test.value_at("2013-01-01T12:10Z", carrier="UA", scheduled=10) == {
        "delays__arr_delay": 30.0,
        "relative": 3.0,
    }


@settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories())
def test_a_feature_test_is_the_oracle(history: History) -> None:
    """Rows of dicts, typed by the source that is there, answer to the bit as the naive reading of the rules does."""
    test = FeatureTest(declare(history)).rows("view_rows", history.rows)
    for (key, t), answer in zip(history.spine, answers_of(history), strict=True):
        asked = datetime.fromtimestamp(0, UTC) + pd.Timedelta(t, "us").to_pytimedelta()
        inputs = dict(zip(history.view.key, key, strict=True))
        found = test.value_at(asked, **inputs)
        assert {name: bits(history, name, found[f"view__{name}"]) for name in answer.values} == {
            name: bits(history, name, value) for name, value in answer.values.items()
        }
        assert set(test.status_at(asked, **inputs).values()) == {answer.status}
        assert repr(test.served_at(asked, **inputs)) == repr(found)


# --- Types ----------------------------------------------------------------------------------------------------------


def test_the_files_own_types_win(tmp_path: Path) -> None:
    """Where the source's files are, rows have their types, so the view in the test is the view itself."""
    schema = pa.schema(
        {"carrier_code": pa.string(), "landed_at": pa.timestamp("ns"), "arr_delay": pa.float32(), "gate": pa.int16()}
    )
    (tmp_path / "data").mkdir()
    pq.write_table(schema.empty_table(), tmp_path / "data" / "landings.parquet")
    test = FeatureTest(delays, root=tmp_path).rows("landings", ROWS)
    assert test.value_at("2013-01-01T12:10Z", carrier="UA") == {"delays__arr_delay": 30.0}
    offline = Offline(tmp_path)
    assert test._service().parts[0].view.fingerprint == resolve(delays, offline.raw_types(landings)).fingerprint
    assert test._service().parts[0].view.features[0].type == Float32
    offline.close()
    with pytest.raises(SourceError, match="has no column 'arr_delai'. Did you mean 'arr_delay'"):
        test.rows("landings", [{"carrier_code": "UA", "arr_delai": 1.0}])
    empty = FeatureTest(delays, root=tmp_path)
    assert empty.status_at("2013-01-01T12:10Z", carrier="UA") == {"delays__arr_delay": "MISSING"}


def test_every_type_is_read_from_plain_values() -> None:
    """Columns of any type, stated by schema, take Python values, and text for what has no literal."""
    types = {
        "flag": Bool, "count": Int64, "small": Float32, "text": String, "raw": Bytes, "day": Date, "moment": Timestamp,
        "price": DecimalType(10, 2), "list": Array(Int64), "vector": Array(Float32, 2),
    }  # fmt: skip
    values: dict[str, Any] = {
        "flag": True, "count": 2**53 + 1, "small": 0.5, "text": "2013-01-01", "raw": b"\xff", "day": "2013-01-01",
        "moment": "2013-01-01T00:00Z", "price": "1.10", "list": [1, None], "vector": [1.0, 2.0],
    }  # fmt: skip
    source = read_source(
        {"kind": "frame", "name": "rows", "event_time": "at", "content": ""}
    )  # whose rows are elsewhere
    thing = Entity("thing", key={"day": Date})
    view = FeatureView("view", entity=thing, source=source, features=list(types), refresh="continuous")
    test = FeatureTest(view).rows("rows", [{"at": "2013-01-01T00:00Z", **values}], schema=types)
    found = test.value_at("2013-01-01T00:00Z", day="2013-01-01")
    assert list(found.values()) == [
        True, 2**53 + 1, 0.5, "2013-01-01", b"\xff", date(2013, 1, 1), datetime(2013, 1, 1, tzinfo=UTC), Decimal("1.10"),
        [1, None], [1.0, 2.0],
    ]  # fmt: skip


def test_dates_and_local_times_keep_their_meaning() -> None:
    """A day ends at midnight in the source's timezone; a time without a zone is local there."""
    for value in ("2013-01-01", date(2013, 1, 1)):
        source = ParquetSource("days", "nowhere.parquet", event_time="day", timezone="America/New_York")
        view = FeatureView("view", entity=carrier, source=source, features=["x"], refresh="continuous")
        test = FeatureTest(view).rows("days", [{"carrier": "UA", "day": value, "x": 1}])
        assert test.status_at("2013-01-02T04:59:59Z", carrier="UA") == {"view__x": "MISSING"}
        assert test.status_at("2013-01-02T05:00Z", carrier="UA") == {"view__x": "PRESENT"}
    source = ParquetSource("days", "nowhere.parquet", event_time="day", timezone="America/New_York")
    view = FeatureView("view", entity=carrier, source=source, features=["x"], refresh="continuous")
    test = FeatureTest(view).rows("days", [{"carrier": "UA", "day": "2013-11-03T01:30", "x": 1}])  # twice that night
    assert test.status_at("2013-11-03T06:29:59Z", carrier="UA") == {"view__x": "MISSING"}
    assert test.status_at("2013-11-03T06:30Z", carrier="UA") == {"view__x": "PRESENT"}
    aware = pa.table({"carrier": ["UA"], "day": pa.array([datetime(2013, 1, 1, tzinfo=UTC)]), "x": [1]})
    zoned = DataFrameSource("days", aware, event_time="day", timezone="America/New_York")
    view = FeatureView("view", entity=carrier, source=zoned, features=["x"], refresh="continuous")
    test = FeatureTest(view).rows("days", [{"carrier": "UA", "day": "2013-11-03T01:30", "x": 1}])
    assert test.status_at("2013-11-03T06:29:59Z", carrier="UA") == {"view__x": "MISSING"}
    assert test.status_at("2013-11-03T06:30Z", carrier="UA") == {"view__x": "PRESENT"}


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.Table.from_pylist])
def test_rows_may_be_a_frame(make: Any) -> None:
    """A frame is taken as it is, with its own types."""
    rows = [{"carrier_code": "UA", "landed_at": datetime(2013, 1, 1, 10, tzinfo=UTC), "arr_delay": 12.0}]
    test = FeatureTest(delays).rows("landings", make(rows))
    assert test.value_at("2013-01-01T12:10Z", carrier="UA") == {"delays__arr_delay": 12.0}
    with pytest.raises(SourceError, match="a frame has types of its own"):
        test.rows("landings", make(rows), schema={"arr_delay": Float64})


def test_stated_types_and_keys_need_no_values() -> None:
    """What the definitions state is known without a row."""
    source = ParquetSource(
        "rows", "nowhere.parquet", event_time="at", known_at="known", identity="carrier", deleted="gone", until="until"
    )
    view = FeatureView(
        "view", entity=carrier, source=source, features={"x": Latest("x", type=Float64)}, refresh="continuous"
    )
    assert FeatureTest(view).value_at("2013-01-01T00:00Z", carrier="UA") == {"view__x": None}
    rows = [
        {
            "carrier": "UA",
            "at": "2013-01-01T00:00Z",
            "known": "2013-01-01T00:00Z",
            "gone": None,
            "until": None,
            "x": None,
        }
    ]
    assert FeatureTest(view).rows("rows", rows).status_at("2013-01-01T00:00Z", carrier="UA") == {"view__x": "PRESENT"}


# --- Mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"carrier_code": "UA", "landed_at": "noon", "arr_delay": 1.0}], "landed_at='noon' is no time such as"),
        ([{"carrier_code": "UA", "landed_at": 12, "arr_delay": 1.0}], "landed_at=12 is no time; pass a datetime"),
        ([{"carrier_code": 1, "landed_at": "2013-01-01T00:00Z", "arr_delay": 1.0}], "row 0 has carrier_code=1, and the column is string"),
        ([{"carrier_code": "UA", "landed_at": "2013-01-01T00:00Z", "arr_delai": 1.0}], "no row has a column 'arr_delay', which the features read. Did you mean 'arr_delai'?"),
        ([{"carrier_code": "UA", "landed_at": "2013-01-01T00:00Z", "arr_delay": None}], "nothing tells the type of column 'arr_delay'"),
        ([{**ROWS[0]}, {**ROWS[1], "arr_delay": "late"}], "the values of column 'arr_delay' have no type in common"),
        ([{**ROWS[0]}, {**ROWS[1], "landed_at": "2013-01-01T00:00"}], "mixes instants and times without a zone"),
        (["UA"], "row 0 is str, and must be a dict"),
        (7, "int is neither a list of dicts nor a frame"),
        ([], "nothing tells the type of column 'arr_delay'"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused(rows: Any, message: str) -> None:
    """The message says which row and column, and what would be right."""
    with pytest.raises(SourceError) as error:
        FeatureTest(delays).rows("landings", rows)
    assert message in str(error.value)
    assert "'landings'" in str(error.value)


def test_what_is_asked_wrongly_is_refused() -> None:
    """Unknown sources, unknown or missing inputs, values of another type, and what is no instant."""
    test = FeatureTest([delays, relative]).rows("landings", ROWS)
    with pytest.raises(NotFoundError, match="no source 'landing'. Did you mean 'landings'"):
        test.rows("landing", ROWS)
    with pytest.raises(RequestError, match="take no 'carier'. Did you mean 'carrier'"):
        test.value_at("2013-01-01T12:10Z", carier="UA", scheduled=1)
    with pytest.raises(RequestError, match=r"'scheduled' \(Int64\) is missing; pass scheduled=…"):
        test.value_at("2013-01-01T12:10Z", carrier="UA")
    with pytest.raises(RequestError, match="'scheduled' is Int64: '1' is no integer"):
        test.status_at("2013-01-01T12:10Z", carrier="UA", scheduled="1")
    for at in ("noon", 12, date(2013, 1, 1)):
        with pytest.raises(RequestError, match="is no instant"):
            test.value_at(at, carrier="UA", scheduled=1)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(SourceError, match="nothing tells the type"):
        FeatureTest(delays).value_at("2013-01-01T12:10Z", carrier="UA")


def test_definitions_stay_as_they_are() -> None:
    """A test changes nothing for anybody else, and messages still name where the source was declared."""
    before = delays.model_dump()
    test = FeatureTest(delays).rows("landings", ROWS)
    test.value_at("2013-01-01T12:10Z", carrier="UA")
    assert delays.model_dump() == before
    assert delays.source is landings
    assert test._service().parts[0].view.source.origin == landings.origin

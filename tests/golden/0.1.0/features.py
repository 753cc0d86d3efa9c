"""Views over files, over files that count from when they arrive, and over pushes; functions; two services."""

from featurestore import (
    ApproxCountDistinct, ApproxQuantile, ARRIVAL, Count, CountDistinct, Entity, FeatureService, FeatureView, LastN, Latest, Max,
    Mean, Min, ParquetSource, PushSource, Request, StdDev, Sum, on_demand,
)
from featurestore.types import Array, Bool, Bytes, Date, Decimal, Float32, Float64, Int32, Int64, String, Timestamp

city = Entity("city", key={"city": String})

rides = ParquetSource("rides", "rides.parquet", event_time="at", known_at="known", tiebreak=["ride"])
fares = ParquetSource("fares", "fares", event_time="at", known_at=ARRIVAL)
calls = PushSource(
    "calls",
    schema={"call": String, "city": String, "at": Timestamp, "price": Float64, "note": String},
    event_time="at",
    identity="call",
    lateness="1d",
)

last_ride = FeatureView(
    "last_ride",
    entity=city,
    source=rides,
    refresh="1h",
    ready_after="10m",
    ttl="2d",
    features=["ride", "seats", "price", "exact", "shared", "day", "raw", "tags"],
)
ride_windows = FeatureView(
    "ride_windows",
    entity=city,
    source=rides,
    refresh="1h",
    features={
        "rides": Count(windows=["1h", "1d"]),
        "price_sum": Sum("price", window="1d"),
        "price_mean": Mean("price", window="1d"),
        "price_spread": StdDev("price", window="1d"),
        "least": Min("price", window="1d"),
        "most": Max("price", window="1d"),
        "kinds": CountDistinct("seats", window="1d"),
        "about": ApproxCountDistinct("ride", window="1d"),
        "median": ApproxQuantile("price", window="1d", q=0.5),
        "last_two": LastN("ride", n=2, window="1d"),
    },
)
fare = FeatureView("fare", entity=city, source=fares, refresh="1h", features=["fare"])
call_windows = FeatureView(
    "call_windows",
    entity=city,
    source=calls,
    features={
        "calls": Count(window="1h", hop="5m"),
        "price": Sum("price", window="1d", hop="1h"),
        "note": Latest("note"),
        "dearest": Max("price", window="1d", hop="1h"),
    },
)


@on_demand(inputs=[last_ride["price"], Request("fee", Float64)], output=Float64)
def with_fee(price, fee):
    """The last price and a fee."""
    return None if price is None else price + fee


ride_model = FeatureService("ride_model", features=[last_ride, ride_windows, fare, call_windows, with_fee])
fare_model = FeatureService("fare_model", features=[fare])

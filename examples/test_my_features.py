"""Tests of one's own features: rows in, a value at an instant out, as training has it and as a lookup is served it."""

from featurestore import Entity, FeatureView, ParquetSource
from featurestore.testing import FeatureTest
from featurestore.types import Float64, String

carrier = Entity("carrier", key={"carrier": String})
landings = ParquetSource("landings", "data/landings.parquet", event_time="landed_at", known_after="2m")
delays = FeatureView("delays", entity=carrier, source=landings, refresh="1h", ttl="2d", features=["delay"])

ROWS = [{"carrier": "UA", "landed_at": "2026-03-01T09:30Z", "delay": 12.0}]


def test_a_landing_counts_from_the_next_hour_on():
    test = FeatureTest(delays).rows("landings", ROWS, schema={"delay": Float64})
    assert test.value_at("2026-03-01T09:59Z", carrier="UA") == {"delays__delay": None}
    assert test.value_at("2026-03-01T10:00Z", carrier="UA") == {"delays__delay": 12.0}


def test_a_landing_expires():
    test = FeatureTest(delays).rows("landings", ROWS)
    assert test.status_at("2026-03-03T10:00Z", carrier="UA") == {"delays__delay": "EXPIRED"}


def test_what_is_served_is_what_a_model_was_trained_on():
    test = FeatureTest(delays).rows("landings", ROWS)
    assert test.served_at("2026-03-01T09:59Z", carrier="UA") == {"delays__delay": None}
    assert test.served_at("2026-03-01T10:00Z", carrier="UA") == {"delays__delay": 12.0}
    assert test.served_at("2026-03-03T10:00Z", carrier="UA") == {"delays__delay": None}

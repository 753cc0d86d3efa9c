"""Tests of one's own features: rows in, the values at an instant out, as training and as serving have them.

    test = FeatureTest(carrier_delays)
    test.rows("landings", [{"carrier_code": "UA", "landed_at": "2013-01-01T10:00Z", "arr_delay": 12.0}])
    assert test.value_at("2013-01-01T12:10Z", carrier="UA") == {"carrier_delays__arr_delay": 12.0}
    assert test.served_at("2013-01-01T12:10Z", carrier="UA") == {"carrier_delays__arr_delay": 12.0}

The definitions are the real ones; only the data of their sources is replaced, so a value in a test is what training and
serving make of such rows. A test sees no rows but those it was given.
"""

from featurestore.testing.feature_test import FeatureTest

__all__ = ["FeatureTest"]

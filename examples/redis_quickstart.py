"""The quickstart on Redis: `python redis_quickstart.py redis://localhost:6379/0`, or the URL in ONLINE_URL."""

import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView, ManualClock
from featurestore.types import String

url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ONLINE_URL", "redis://localhost:6379/0")

landings = pd.DataFrame(
    {"carrier": ["UA", "AA"], "at": pd.to_datetime(["2026-03-01T09:00Z", "2026-03-01T09:30Z"]), "delay": [31.0, -4.0]}
)
source = DataFrameSource("landings", landings, event_time="at")
carrier = Entity("carrier", key={"carrier": String})
delays = FeatureView("delays", entity=carrier, source=source, refresh="1h", features=["delay"])
model = FeatureService("model", features=[delays])

with tempfile.TemporaryDirectory() as folder:
    Path(folder, "featurestore.toml").write_text(f'project = "redis_quickstart"\nonline = "{url}"\n')
    clock = ManualClock(datetime(2026, 3, 1, 10, tzinfo=UTC))
    with FeatureStore(folder, clock=clock) as store:
        store.apply([model])
        store.materialize()
        online = store.get_online_features([{"carrier": "UA"}, {"carrier": "AA"}], "model")
        print(online.to_dict())
        spine = pd.DataFrame({"carrier": ["UA", "AA"], "event_timestamp": [clock()] * 2})
        training = store.get_historical_features(spine, "model")
        print("equal to the training frame:", training.features.equals(online.features))
        store.teardown()

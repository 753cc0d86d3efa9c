"""A scikit-learn model behind FastAPI, fed with numpy: `uvicorn --factory model_behind_fastapi:create_app`."""

from datetime import UTC, datetime

import pandas as pd
from fastapi import FastAPI
from sklearn.linear_model import LogisticRegression

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView, ManualClock
from featurestore.types import String

landings = pd.DataFrame(
    {"carrier": ["UA", "AA"], "at": pd.to_datetime(["2026-03-01T09:00Z", "2026-03-01T09:30Z"]), "delay": [31.0, -4.0]}
)
source = DataFrameSource("landings", landings, event_time="at")
carrier = Entity("carrier", key={"carrier": String})
delays = FeatureView("delays", entity=carrier, source=source, refresh="1h", features=["delay"])
service = FeatureService("late_model", features=[delays])


def create_app() -> FastAPI:
    """Train, materialize, and serve scores of the features as they are now."""
    clock = ManualClock(datetime(2026, 3, 1, 10, tzinfo=UTC))  # leave it out to live by the real clock
    store = FeatureStore.local(clock=clock)
    store.apply([service])
    store.materialize()

    spine = pd.DataFrame({"carrier": ["UA", "AA"], "event_timestamp": [clock()] * 2})
    training = store.get_historical_features(spine, "late_model")
    model = LogisticRegression().fit(training.to_numpy(), [1, 0])
    trained_on = training.manifest["fingerprint"]

    app = FastAPI()

    @app.post("/score")
    def score(rows: list[dict[str, str]]) -> dict[str, list[float]]:
        features = store.get_online_features(rows, "late_model", fingerprint=trained_on)
        return {"late": model.predict_proba(features.to_numpy())[:, 1].tolist()}

    return app

"""The audit, as a job (see `pairs`): a serving log of a million values, served over ten hours, compared with training."""

import random
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from benchmarks.data import END, opened
from benchmarks.latency import Figures
from benchmarks.product import SERVICE, declare
from featurestore import FeatureService, FeatureStore, ManualClock
from featurestore.clock import to_datetime

VALUES = 1_000_000
HOURS = 10
KEYS = 100
"""Of one request."""


def audit(root: str) -> Callable[[], Figures]:
    """Audit what was served of the view that is looked up: plain features, 18 of them, from an embedded store."""
    data = opened(root)
    folder = tempfile.TemporaryDirectory(prefix="benchmark-")
    text = 'project = "benchmark"\ndefinitions = []\n[serving_log]\nrate = 1.0\n[offline]\nthreads = 2\n'
    Path(folder.name, "featurestore.toml").write_text(text)
    clock = ManualClock(to_datetime(END) - timedelta(hours=HOURS))
    store = FeatureStore(folder.name, clock=clock)
    view = declare(data, data.served, refresh="1h", ttl_days=None)
    store.apply([view, FeatureService(SERVICE, features=[view])])
    choice = random.Random(3)
    requests = -(-VALUES // (HOURS * KEYS * len(view.features)))
    for _ in range(HOURS):
        store.materialize(progress=False)
        for _ in range(requests):
            rows = [{data.served.key: key} for key in choice.sample(range(data.served.keys), KEYS)]
            store.get_online_features(rows, SERVICE)
        clock.advance(timedelta(hours=1))
    store.audit(until=to_datetime(END) - timedelta(days=365))  # writes out what waits in memory

    def call(_: object = folder) -> Figures:
        found = store.audit()
        assert found.compared >= VALUES
        assert found.skewed == 0
        return {"values": float(found.compared)}

    return call

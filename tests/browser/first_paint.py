"""How long until pages are painted, in a browser, of a project with 1,000 features and a million logged values.

    .venv-browser/bin/python -m tests.browser.first_paint

It prints, and judges nothing: a machine that does something else is slow.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.types import Int64
from tests.browser.chromium import DESKTOP, Visitor, chromium
from tests.server.test_http import serving
from tests.small import NOON, hours, write

VIEWS, FEATURES, KEYS, REQUESTS = 10, 100, 100, 10
TIMES = 5

PAINTED = """() => Object.fromEntries(performance.getEntriesByType("paint").map((one) => [one.name, one.startTime]))"""
ANSWERED = """() => { const one = performance.getEntriesByType("navigation")[0]; return [one.responseStart, one.responseEnd, one.transferSize]; }"""


@contextmanager
def large(folder: Path) -> Iterator[FeatureStore]:
    """VIEWS views of FEATURES features each, and as many logged values as rows were asked for by REQUESTS requests of KEYS keys."""
    (folder / "featurestore.toml").write_text('project = "large"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    thing, random = Entity("thing", key={"thing": Int64}), np.random.default_rng(0)
    views = []
    for number in range(VIEWS):
        columns = {f"f{n:03}": pa.array(random.normal(size=KEYS)) for n in range(FEATURES)}
        table = pa.table(
            {"thing": pa.array(range(KEYS)), "at": pa.array([hours(-1)] * KEYS, pa.timestamp("us", "UTC")), **columns}
        )
        source = ParquetSource(f"rows{number}", write(folder / f"rows{number}.parquet", table), event_time="at")
        views.append(
            FeatureView(f"view{number}", entity=thing, source=source, refresh="1h", ttl="2d", features=list(columns))
        )
    clock = ManualClock(NOON)
    with FeatureStore(folder, clock=clock) as store:
        store.apply([FeatureService("model", features=views)])
        store.materialize(progress=False)
        for _ in range(REQUESTS):
            store.get_online_features([{"thing": key} for key in range(KEYS)], "model")
            clock.advance(timedelta(minutes=5))
        yield store


def main() -> None:
    """Print, for each page, the median of some visits, with an empty cache each time."""
    explained = urlencode({"view": "view0", "key.thing": "1", "at": "2024-05-01T12:00:00Z"})
    pages = (
        "",
        "catalog",
        "catalog?q=f0",
        "view/view0",
        "service/model",
        "runs",
        f"explain?{explained}",
        "explain",
        "request",
        "audit",
        "audit?since=1d",
        "drift",
        "availability",
    )
    with (
        tempfile.TemporaryDirectory() as name,
        large(Path(name)) as store,
        serving(store) as client,
        chromium() as browser,
    ):
        print(
            f"{'page':60} {'answered':>9} {'painted':>9} {'kB':>6}   ms, medians of {TIMES}; CPU seconds are of server and test"
        )
        for page in pages:
            answered, painted, sizes = [], [], []
            began = time.process_time()
            for _ in range(TIMES):
                visitor = Visitor(browser, str(client.base_url).rstrip("/"), DESKTOP)
                visitor.page.goto(f"/ui/{page}" if page else "/ui", wait_until="load")
                visitor.page.wait_for_function(
                    "() => performance.getEntriesByName('first-contentful-paint').length > 0"
                )
                painted.append(visitor.page.evaluate(PAINTED)["first-contentful-paint"])
                _, end, size = visitor.page.evaluate(ANSWERED)
                answered.append(end)
                sizes.append(size)
                visitor.close()
            took = (time.process_time() - began) / TIMES
            print(
                f"/ui/{page[:55]:56} {median(answered):9.0f} {median(painted):9.0f} {median(sizes) / 1000:6.0f}   {took:.2f} s CPU a visit",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""A project in which all that a person wrote is hostile, for the tests of the console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    PushSource,
    Request,
    on_demand,
)
from featurestore.types import Float64, Int64, String, Timestamp
from tests.console_pages.pages import HOSTILE
from tests.small import NOON, hours, table, write

LABELS: dict[str, Any] = {"description": HOSTILE, "owner": HOSTILE, "tags": {HOSTILE: HOSTILE}}
LONG = "x" * 10_000


def definitions(folder: Path) -> list[FeatureService]:
    thing = Entity("thing", key={"thing": Int64}, **LABELS)
    rows = write(
        folder / "rows.parquet", table(thing=[1, 2, 2], at=[hours(-3), hours(-2), hours(-1)], x=[1.0, 2.0, 3.0])
    )
    files = ParquetSource("files", rows, event_time="at", **LABELS)
    clicks = PushSource(
        "clicks", schema={"id": String, "thing": Int64, "at": Timestamp}, event_time="at", identity="id", **LABELS
    )
    things = FeatureView("things", entity=thing, source=files, refresh="1h", ttl="2d", features=["x"], **LABELS)
    counts = FeatureView("counts", entity=thing, source=clicks, features={"n": Count(window="1h")}, **LABELS)

    @on_demand(output=Float64, inputs=[things["x"], Request("fee", Float64)], **LABELS)  # type: ignore[untyped-decorator]  # labels of several types
    def with_fee(x: float | None, fee: float) -> float | None:
        known = "<script>alert(1)</script>"
        return None if x is None or not known else x + fee

    return [
        FeatureService("model", features=[things, with_fee], skew_budget=0.25, description=LONG, owner=HOSTILE),
        FeatureService("clicked", features=[counts], **LABELS),
    ]


@contextmanager
def project(folder: Path) -> Iterator[FeatureStore]:
    """Applied, materialized, and pushed to."""
    (folder / "featurestore.toml").write_text('project = "console"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply(definitions(folder), note=HOSTILE)
        store.materialize(progress=False)
        store.push("clicks", [{"id": HOSTILE, "thing": 1, "at": NOON}])
        yield store

"""A project that served hostile keys and values, and whose rows were written anew afterwards, for the tests of the pages that tell why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    Request,
    on_demand,
)
from featurestore.types import Float64, String
from tests.console_pages.pages import HOSTILE
from tests.small import NOON, hours, table, write

LONG = "y" * 10_000
WORDS = [HOSTILE, LONG, HOSTILE, "plain"]


def rows(*, extra: int = 0) -> pa.Table:
    """Of two keys, one of which is hostile; extra: how many more rows of it there are that were known all along."""
    more = [hours(-1.5)] * extra
    return table(
        name=[HOSTILE, HOSTILE, HOSTILE, "ann", *[HOSTILE] * extra], at=[hours(-30), hours(-3), hours(-1), hours(-2), *more],
        word=[*WORDS, *[LONG] * extra], known=[hours(-30), hours(-3), hours(4), hours(-2), *more],
    )  # fmt: skip


@dataclass(frozen=True)
class Told:
    """A store that served three rows at noon."""

    store: FeatureStore
    request: str
    frame: Path


@contextmanager
def told(folder: Path) -> Iterator[Told]:
    path = write(folder / "rows.parquet", rows())
    (folder / "featurestore.toml").write_text('project = "told"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    source = ParquetSource("rows", path, event_time="at", known_at="known")
    view = FeatureView(
        "said", entity=Entity("person", key={"name": String}), source=source, refresh="1h", ttl="1d",
        features={"word": Latest("word"), "n": Count(window="1d")},
    )  # fmt: skip

    @on_demand(output=Float64, inputs=[view["n"], Request("scale", Float64)])
    def scaled(n: int | None, scale: float) -> float | None:
        return None if n is None else n * scale

    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("model", features=[view, scaled])])
        store.materialize(progress=False)
        asked = [{"name": name, "scale": 2.0} for name in (HOSTILE, "ann", "nobody")]
        request = store.get_online_features(asked, "model").request
        assert request is not None
        frame = folder / f"{HOSTILE.replace('/', '')}.parquet"
        spine = table(name=[HOSTILE, "ann"], event_timestamp=[NOON, NOON], scale=[2.0, 2.0])
        store.get_historical_features(spine, "model").to_parquet(frame)
        write(path, rows(extra=1))
        yield Told(store, request, frame)

"""Every type is logged as it was served, in requests of one row and of several, of two views."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from featurestore import FeatureService, FeatureStore, ManualClock
from featurestore.serving.log.serving_log import segments
from tests.small import NOON, table, view_of
from tests.test_values import EDGES, TYPES, arrow

ROWS = 1 + max(len(EDGES[of]) for of in TYPES)
ASKED = [[0, 1, 2], [3], [4, 999, 5, 6], list(range(ROWS)), [7], [998]]


def test_every_type_is_logged_as_it_was_served(tmp_path: Path) -> None:
    """With nulls and keys that are not there, whatever else is in the segment."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    columns = {}
    for number, of in enumerate(TYPES):
        values = [*EDGES[of], None]
        columns[f"c{number}"] = arrow(of, (values * ROWS)[:ROWS])
    rows, names, half = table(thing=list(range(ROWS)), at=[NOON] * ROWS, **columns), list(columns), len(TYPES) // 2
    views = [view_of(rows, names[:half], name="a"), view_of(rows, names[half:], name="b", refresh="1h")]
    with FeatureStore(tmp_path, clock=ManualClock(NOON + timedelta(hours=3))) as store:
        store.apply([*views, FeatureService("service", features=views)])
        store.materialize(progress=False)
        served = [store.get_online_features([{"thing": thing} for thing in things], "service") for things in ASKED]
        assert store._project.serving_log is not None
        store._project.serving_log.flush()
        (files,) = segments(store.config.serving_log.folder).values()
    logged = ds.dataset(files).to_table().sort_by([("request", "ascending"), ("row", "ascending")])
    for result, things in zip(served, ASKED, strict=True):
        own = logged.filter(pa.compute.field("request") == result.request)
        assert own["row"].to_pylist() == list(range(len(things)))
        assert own["input:thing"].to_pylist() == things
        for column in result.service.columns:
            values = pa.array(result.columns[column.name], column.type.arrow).to_pylist()
            assert repr(own[column.name].to_pylist()) == repr(values)
            assert own[f"status:{column.part}"].to_pylist() == result.statuses[column.name]
        for view, instant in result.as_of.items():
            assert own[f"as_of:{view}"].to_pylist() == [instant] * len(things)

"""What records of a view say together is what each says alone, whatever lies beside it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pyarrow as pa
import pytest

from featurestore import DataFrameSource, FeatureView, LastN, Latest, Sum
from featurestore.clock import instant_of
from featurestore.online.judged_slots import JudgedSlots
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.status import Status
from featurestore.semantics.time import END
from featurestore.semantics.view import EVENT_TIME, UNTIL, resolve, status_column
from tests.small import NOON, THING

BASE, HOUR = instant_of(NOON), 3_600_000_000
RAW = {"thing": "BIGINT", "at": "TIMESTAMP", "ends": "TIMESTAMP", "x": "DOUBLE", "n": "BIGINT"}
PLAIN = {"x": Latest("x", default=-1.0), "n": Latest("n")}
FOLDED = {"last": LastN("x", 2), "x": Latest("x", default=-1.0), "sum": Sum("n", window="1h", default=0)}
SOURCE = DataFrameSource("rows", pa.table({}), event_time="at", until="ends")
PRESENT, EXPIRED, MISSING, OVERFLOW = Status.PRESENT, Status.EXPIRED, Status.MISSING, Status.OVERFLOW

Said = dict[str, tuple[Status, Any]]

ROWS: dict[str, tuple[int, int, Status, Status]] = {
    "newest": (BASE, END, PRESENT, PRESENT),
    "at the ttl's edge": (BASE - HOUR, BASE + 1, PRESENT, PRESENT),
    "before the ttl": (BASE - HOUR - 1, END, PRESENT, PRESENT),
    "ended": (BASE, BASE, PRESENT, PRESENT),
    "nothing within its ttl": (BASE, END, EXPIRED, PRESENT),
    "too large, and nothing": (BASE, END, EXPIRED, OVERFLOW),
}
"""By name: when the row happened, until when it holds, and what its two folded features are."""


def said_of(name: str) -> Said:
    """What a record of each kind says, feature by feature."""
    if name not in ROWS:
        return {"x": (MISSING, -1.0), "n": (MISSING, None), "last": (MISSING, None), "sum": (MISSING, 0)}
    over = name in {"before the ttl", "ended"}
    x, n = ((EXPIRED, -1.0), (EXPIRED, None)) if over else ((PRESENT, 5.0), (PRESENT, 7))
    *_, last, total = ROWS[name]
    return {
        "x": x, "n": n,
        "last": (last, [5.0, 4.0] if last is PRESENT else None), "sum": (total, 7 if total is PRESENT else None),
    }  # fmt: skip


def record_of(codec: ViewCodec, name: str, features: Sequence[str]) -> bytes | None:
    if name == "unknown":
        return None
    if name == "without a row":
        return codec.record([codec.empty(BASE)])
    event_us, until, last, total = ROWS[name]
    columns: dict[str, Any] = {
        EVENT_TIME: [event_us], UNTIL: [until], "x": [5.0], "n": [7],
        "last": pa.array([[5.0, 4.0] if last is PRESENT else None], pa.list_(pa.float64())),
        "sum": pa.array([7 if total is PRESENT else None], pa.int64()),
        status_column("last"): [int(last)], status_column("sum"): [int(total)],
    }  # fmt: skip
    (record,) = codec.records(BASE, pa.table(columns), features)
    return record


@pytest.mark.parametrize("features", [PLAIN, FOLDED], ids=["plain", "folded"])
def test_records_say_together_what_each_says_alone(features: dict[str, Any]) -> None:
    """Of plain features there is one list of statuses for all, where they may be shared."""
    view = resolve(FeatureView("view", entity=THING, source=SOURCE, refresh="1h", ttl="1h", features=features), RAW)
    names = [feature.name for feature in view.features]
    codec = ViewCodec("project", view)
    slots = JudgedSlots(view, codec)
    assert slots.shares_statuses is (features is PLAIN)
    kinds = [*ROWS, "without a row", "unknown"]
    records = {kind: record_of(codec, kind, names) for kind in kinds}
    for count in range(4):
        for asked in product(kinds, repeat=count):
            statuses, columns = slots.judged([records[kind] for kind in asked], BASE, 0)
            told = statuses * len(names) if slots.shares_statuses and len(statuses) == 1 else statuses
            meant = [said_of(kind) for kind in asked]
            assert told == [[said[name][0] for said in meant] for name in names], asked
            assert [list(column) for column in columns] == [[said[name][1] for said in meant] for name in names], asked

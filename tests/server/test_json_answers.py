"""The JSON of an answer says what the result says, however its columns share their statuses and in how many pieces it is written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest

from featurestore import Count, FeatureService, FeatureStore, Latest, Request, on_demand
from featurestore.server import json_answers
from featurestore.server.json_answers import json_body
from featurestore.server.problems import LimitError
from featurestore.serving.online_result import OnlineResult
from featurestore.types import Float64, Timestamp, to_json
from tests.small import NOON, hours, opened, raised, table, view_of

KEYS = [1, 2, None, 7, 3, 1]
PLAIN = view_of(
    table(
        thing=[1, 2, 3], at=[hours(-1), hours(-3), hours(-1)], x=[0.0, 1.5, math.nan], y=["a", None, '"ä"\\'],
        z=pa.array([Decimal("1.50"), None, Decimal("0.00")], pa.decimal128(9, 2)),
    ),
    ["x", "y", "z"], ttl="2h", name="plain",
)  # fmt: skip
FOLDED = view_of(
    table(thing=[1, 3], at=[NOON] * 2, x=[math.inf, -0.0]),
    {"n": Count(window="1h"), "x": Latest("x")},
    name="folded",
)


@on_demand(inputs=[PLAIN["x"], Request("more", Float64)], output=Float64)
def sum_of(x: float | None, more: float) -> float:
    return more + (x or 0)


SERVICES = [
    FeatureService("all", features=[FOLDED["n"], PLAIN, sum_of, FOLDED["x"]]),
    FeatureService("plain", features=[PLAIN]),
    FeatureService("some", features=[PLAIN["y"], PLAIN["x"]]),
]


@pytest.fixture(scope="module")
def store() -> Iterator[FeatureStore]:
    with opened(PLAIN, FOLDED, *SERVICES) as (store, _):
        store.materialize(progress=False)
        yield store


def said(result: OnlineResult) -> dict[str, Any]:
    """What the JSON must say, made value by value."""
    columns = [
        [to_json(column.type, value) for value in result.columns[column.name]] for column in result.service.columns
    ]
    return {
        "service": result.service.name,
        "fingerprint": result.service.fingerprint,
        "columns": list(result.columns),
        "types": {
            **{name: str(of) for name, of in result.service.inputs.items()},
            **{column.name: str(column.type) for column in result.service.columns},
        },
        "rows": [list(row) for row in zip(*columns, strict=True)],
        "statuses": [list(row) for row in zip(*result.statuses.values(), strict=True)],
        "as_of": {name: to_json(Timestamp, at) for name, at in result.as_of.items()},
        "stale": result.stale,
    }


@pytest.mark.parametrize("service", [service.name for service in SERVICES])
@pytest.mark.parametrize("piece_values", [1, 7, 20_000])
def test_an_answer_is_what_the_result_says(
    store: FeatureStore, service: str, piece_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_answers, "PIECE_VALUES", piece_values)
    statuses = set()
    for keys in ([1], [2], [None], [7], [3], [1, 3], [1, 1], KEYS):
        rows = [{"thing": key, "more": 1.0} for key in keys]
        result = store.get_online_features(rows, service)
        body = b"".join(json_body(result))
        assert body == orjson.dumps(said(result))
        assert result.status_counts() == [
            sum(names.count(name) for names in result.statuses.values())
            for name in json_answers.NAMES  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
        ]
        statuses |= {name for names in result.statuses.values() for name in names}
    assert statuses >= {"PRESENT", "MISSING", "EXPIRED"}


def test_what_was_written_before_is_not_written_of_another_instant(store: FeatureStore) -> None:
    """Also where other services were answered in between, and more of them than are remembered."""
    view = view_of(table(thing=[1], at=[hours(-5)], x=[1.0]), ["x"], refresh="1h")
    with opened(view) as (own, clock):
        seen = []
        for _ in range(3):
            own.materialize(progress=False)
            result = own.get_online_features({"thing": 1}, "service")
            assert b"".join(json_body(result)) == orjson.dumps(said(result))
            seen.append(result.as_of["view"])
            json_body(store.get_online_features({"thing": 1, "more": 0.0}, "plain"))
            clock.advance(timedelta(hours=1))
        assert len({*seen}) == 3
        late = own.get_online_features({"thing": 1}, "service")
        assert orjson.loads(b"".join(json_body(late)))["stale"] == {"view": True}


def test_an_answer_that_is_too_large_is_refused(store: FeatureStore) -> None:
    result = store.get_online_features([{"thing": key} for key in range(100)], "plain")
    size = len(b"".join(json_body(result)))
    assert b"".join(json_body(result, size)) == b"".join(json_body(result))
    assert str(size - 1) in raised(LimitError, lambda: json_body(result, size - 1))

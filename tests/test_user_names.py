"""A name that a user chooses never meets one of the product's own: it trains, serves, explains and audits as any other."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    PushSource,
    Request,
    RequestTime,
    Sum,
    on_demand,
)
from featurestore.declare.sources import Source
from featurestore.errors import DeclarationError, SpineError
from featurestore.semantics.sql import quote
from featurestore.types import Float64, Int64, String, Timestamp
from tests.names import own_names
from tests.small import NOON, TIME, hours, opened, raised, spine, table, trained, view_of

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
KEYS = 4
PUSHED = timedelta(hours=2)


def test_the_names_that_are_tried_are_those_of_the_code() -> None:
    assert {
        "n",
        "t",
        "k0",
        "c0",
        "i0",
        "event_us",
        "learned_us",
        "counts_from",
        "known",
        "request",
        "row",
        "time",
        "known_at",
        "__replaces",
    } <= {*own_names()}
    assert {"spine", "asof_rows", "file", "event time", "request time", "asked at", "__log_row", "f0", "w0"} <= {
        *own_names()
    }


@dataclass
class Names:
    """Draws names, each once: no two are alike, not even in another case, as columns of one source must be."""

    seed: int
    drawn: random.Random = field(init=False)
    taken: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.drawn = random.Random(self.seed)

    def any(self) -> str:
        """A name of a column of the data, or of the spine."""
        return self._one(own_names())

    def declared(self) -> str:
        """A name that a definition may have; `known_at` is what a push source says itself."""
        return self._one([name for name in own_names() if NAME.fullmatch(name) and name != "known_at"])

    def _one(self, names: Iterable[str]) -> str:
        name = self.drawn.choice([name for name in names if name.lower() not in self.taken])
        self.taken.add(name.lower())
        return self.drawn.choice([name, name.upper(), name.title(), name.lower()])


@dataclass
class Columns:
    """The columns of a source by what they hold."""

    left: str
    right: str
    at: str
    value: str
    other: str
    flag: str
    unread: list[str]

    @classmethod
    def of(cls, names: Names, *, pushed: bool) -> Columns:
        draw = names.declared if pushed else names.any
        return cls(*(draw() for _ in range(6)), [draw() for _ in range(12)])  # type: ignore[arg-type, call-arg]  # of so many, of such kinds

    def rows(self, at: datetime) -> list[dict[str, Any]]:
        """Three rows a key, of which the second does not hold for the condition; what nothing reads is always one value."""
        return [
            {self.left: key, self.right: f"r{key}", self.at: at + timedelta(minutes=number), self.value: 10 * key + number,
             self.other: key / 8, self.flag: number, **dict.fromkeys(self.unread, 7)}
            for key in range(KEYS)
            for number in range(3)
        ]  # fmt: skip

    def types(self) -> dict[str, Any]:
        read = {self.left: Int64, self.right: String, self.at: Timestamp, self.value: Int64, self.other: Float64}
        return {**read, self.flag: Int64, **dict.fromkeys(self.unread, Int64)}

    def table(self, at: datetime) -> pa.Table:
        schema = pa.schema([(name, of.arrow) for name, of in self.types().items()])
        return pa.Table.from_pylist(self.rows(at), schema)


def source_of(kind: str, columns: Columns, folder: Path, derived: dict[str, str]) -> Source:
    """The source and its rows; a pushed one gets them later."""
    if kind == "push":
        return PushSource("rows", schema=columns.types(), event_time=columns.at, derived=derived)
    words: dict[str, Any] = {"event_time": columns.at, "tiebreak": [columns.flag], "derived": derived}
    if kind == "frame":
        return DataFrameSource("rows", columns.table(hours(-1)), **words)
    pq.write_table(columns.table(hours(-1)), folder / "rows.parquet")
    return ParquetSource("rows", "rows.parquet", **words)


@pytest.mark.parametrize("kind", ["frame", "parquet", "push"])
@pytest.mark.parametrize("seed", range(2))
def test_names_of_the_code_are_names_like_any_other(kind: str, seed: int, tmp_path: Path) -> None:
    """Every name that a user chooses is drawn; training, lookup, explain and audit give what was put in."""
    names = Names(100 * seed + len(kind))
    columns = Columns.of(names, pushed=kind == "push")
    doubled = names.declared()
    condition = f"{quote(columns.flag)} <> 1"
    source = source_of(kind, columns, tmp_path, {doubled: f"2 * {quote(columns.value)}"})
    names.taken.clear()  # the rest stands in other tables
    left, right, ratio, asked = (names.declared() for _ in range(4))
    features = [names.declared() for _ in range(4)]
    view = FeatureView(
        "view", entity=Entity("pair", key={left: Int64, right: String}), source=source, refresh="continuous",
        key={left: columns.left, right: columns.right},
        features={
            features[0]: Latest(columns.value), features[1]: Latest(columns.other),
            features[2]: Sum(doubled, window="1d"), features[3]: Count(window="1d", where=condition),
        },
    )  # fmt: skip

    @on_demand(name=ratio, inputs=[view[features[0]], Request(asked, Float64), RequestTime()], output=Float64)
    def scaled(value, scale, now):
        return None if value is None else value * scale + now.minute

    again = {left: names.any(), right: names.any()}
    service = FeatureService("service", features=[view, view.alias("again", key=again), scaled])
    text = 'project = "names"\ndefinitions = []\n[serving_log]\nrate = 1.0\n'
    (tmp_path / "featurestore.toml").write_text(text)
    clock = ManualClock(hours(-1) - timedelta(minutes=1))
    with FeatureStore(tmp_path, clock=clock) as store:
        store.apply([service])
        if kind == "push":
            clock.set(hours(-1) + timedelta(minutes=5))
            store.push("rows", columns.rows(hours(-1)))
        clock.set(NOON + timedelta(minutes=3))
        store.materialize(progress=False)
        keys = list(range(KEYS)) + [9]
        other = keys[::-1]
        asks = {
            left: keys, right: [f"r{key}" for key in keys], again[left]: other, again[right]: [f"r{key}" for key in other],
            asked: [0.5] * len(keys),
        }  # fmt: skip
        online = store.get_online_features(
            [dict(zip(asks, row, strict=True)) for row in zip(*asks.values(), strict=True)], "service"
        )
        timestamp = names.any()
        beside = {names.any(): [key] * len(keys) for key in range(20)}
        times = pa.array([store._project.clock()] * len(keys), TIME)
        frame = store.get_historical_features(
            pa.table({**beside, **asks, timestamp: times}), "service", timestamp=timestamp, with_status=True
        )
        answer = frame.to_arrow()
        for name, values in beside.items():
            assert answer[name].to_pylist() == values
        expected = _expected(keys, features, "view") | _expected(other, features, "again")
        expected[ratio] = [None if key == 9 else (10 * key + 2) * 0.5 + 3 for key in keys]
        for name, values in expected.items():
            assert online.to_dict()[name] == answer[name].to_pylist() == values, name
        statuses = ["PRESENT"] * KEYS + ["MISSING"]
        assert online.statuses[f"view__{features[0]}"] == answer[f"view__{features[0]}__status"].to_pylist() == statuses
        explained = store.explain("view", {left: 2, right: "r2"})
        assert [explained.values[name] for name in features] == [22, 0.25, 126, 2]
        audit = store.audit()
        assert {one.compared for one in audit.features} == {len(keys)}
        assert len(audit.features) == 9
        assert all(one.exact == one.compared for one in audit.features), audit
        request = store.explain_request(online.request, 1)
        assert all(value.agrees for view in request.views for value in view.features)
        if kind != "push":
            assert len(store.snapshot([view], at=NOON)) == KEYS


def _expected(keys: list[int], features: list[str], view: str) -> dict[str, list[Any]]:
    there = [key < KEYS for key in keys]

    def column(of: Any, otherwise: Any) -> list[Any]:
        return [of(key) if known else otherwise for key, known in zip(keys, there, strict=True)]

    values = [
        column(lambda key: 10 * key + 2, None), column(lambda key: key / 8, None),
        column(lambda key: 2 * (30 * key + 3), None), column(lambda _: 2, None),
    ]  # fmt: skip
    return {f"{view}__{name}": of for name, of in zip(features, values, strict=True)}


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_keys_of_all_names_ask_for_what_they_ask_for(case: Any) -> None:
    """Each name that the code knows is a key of an alias and a column of the spine, many of them side by side."""
    parts, wide = 10, 20
    own = [f"key{place}" for place in range(wide)]
    entity = Entity("wide", key=dict.fromkeys(own, Int64))
    rows = table(
        at=[hours(-1)] * 4,
        x=[0, 11, 22, 33],
        **{name: [100 * row + place for row in range(4)] for place, name in enumerate(own)},
    )
    view = view_of(rows, {"x": Latest("x")}, entity=entity)
    names = [name for name in dict.fromkeys(map(case, own_names())) if name != "request time"]
    asked = [3, 2, 1, 0, None]
    with opened(view) as (store, _):
        store.materialize(progress=False)
        for first in range(0, len(names), parts * wide):
            some = names[first : first + parts * wide]
            some += [f"more {number}" for number in range(parts * wide - len(some))]
            keys = {
                name: [row if row is None else 100 * row + place % wide for row in asked]
                for place, name in enumerate(some)
            }
            aliases = [dict(zip(own, some[part * wide : (part + 1) * wide], strict=True)) for part in range(parts)]
            service = FeatureService(
                "many", features=[view.alias(f"a{part}", key=key) for part, key in enumerate(aliases)]
            )
            at = case(names[(first + 1) % len(names)]) + " at"
            frame = store.get_historical_features(
                pa.table({**keys, at: pa.array([NOON] * len(asked), TIME)}), service, timestamp=at
            ).to_arrow()
            store.apply([service])
            online = store.get_online_features(
                [{name: keys[name][row] for name in some} for row in range(len(asked))], "many"
            )
            for part in range(parts):
                answers = [frame[f"a{part}__x"].to_pylist(), online.to_dict()[f"a{part}__x"]]
                assert answers == [[33, 22, 11, 0, None]] * 2, aliases[part]


@pytest.mark.parametrize("name", ["n", "t", "N", "T", "__n", "k0", "a", "i0", "c0", "spine", "rowid"])
def test_names_of_the_query_are_keys_request_values_and_instants(name: str) -> None:
    rows = table(thing=[0, 1, 2, 3], at=[hours(-1)] * 4, x=[0, 11, 22, 33])
    view = view_of(rows, {"x": Latest("x")})
    request = name.strip("_")

    @on_demand(inputs=[view["x"], Request(request, Int64)], output=Int64)
    def total(x, more):
        return x + more

    aliased = FeatureService("aliased", features=[view.alias("own", key={"thing": name})])
    with opened(view, FeatureService("service", features=[view, total]), aliased) as (store, _):
        asked = trained(store, NOON, thing=[3, 2, 1, 0], **{request: [1, 2, 3, 4]})
        assert asked["total"].to_pylist() == [34, 24, 14, 4]
        assert asked["view__x__status"].to_pylist() == ["PRESENT"] * 4
        assert trained(store, NOON, "aliased", **{name: [3, 2, 1, 0]})["own__x"].to_pylist() == [33, 22, 11, 0]
        times = spine(NOON, thing=[3, 2, 1, 0]).rename_columns(["thing", name])
        own = store.get_historical_features(times, [view], timestamp=name)
        assert own.to_arrow()["view__x"].to_pylist() == [33, 22, 11, 0]


def logging_store(folder: Path) -> FeatureStore:
    """A store that logs what it serves."""
    (folder / "featurestore.toml").write_text('project = "log"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    return FeatureStore(folder, clock=ManualClock(NOON))


def test_on_demand_features_have_the_names_of_columns_of_the_serving_log(tmp_path: Path) -> None:
    view = view_of(table(thing=[1, 2], at=[hours(-1)] * 2, x=[10, 20]), {"x": Latest("x")})

    def doubled(x):
        return None if x is None else 2 * x

    names = ["request", "row", "time", "Time"]
    functions = [on_demand(doubled, name=name, inputs=[view["x"]], output=Int64) for name in names]
    with logging_store(tmp_path) as store:
        store.apply([FeatureService("service", features=[*functions, view])])
        store.materialize(progress=False)
        online = store.get_online_features([{"thing": 1}, {"thing": 2}], "service", request_id="a")
        assert [online.to_dict()[name] for name in names] == [[20, 40]] * 4
        audit = store.audit()
        assert [(one.compared, one.exact) for one in audit.features] == [(2, 2)] * 5
        functions_of_row = store.explain_request("a", 1).functions
        assert [(one.served, one.agrees) for one in functions_of_row] == [(40, True)] * 4


def test_a_spine_that_names_logged_rows_gives_keys_of_these_names_as_the_log_does(tmp_path: Path) -> None:
    entity = Entity("pair", key={"request": Int64, "row": Int64})
    view = view_of(table(request=[1], row=[2], at=[hours(-1)], y=[5]), {"y": Latest("y")}, entity=entity)
    with logging_store(tmp_path) as store:
        store.apply([FeatureService("service", features=[view])])
        store.materialize(progress=False)
        store.get_online_features([{"request": 1, "row": 2}, {"request": 1, "row": 3}], "service", request_id="a")
        named = {"request": ["a", "a"], "row": [0, 1]}
        (same,) = store.audit(spine=pa.table(named)).features
        assert (same.compared, same.exact) == (2, 2)
        (other,) = store.audit(spine=pa.table({**named, "input:request": [1, 1], "input:row": [2, 2]})).features
        assert (other.compared, other.exact) == (2, 1)
        assert [example.cause for example in other.examples] == ["request value differed"]


def test_one_name_is_one_thing_among_what_functions_are_given() -> None:
    """A feature that only a function reads is none of the result, and yet nothing else has its name."""
    view = view_of(table(thing=[1], at=[hours(-1)], x=[10]), {"x": Latest("x")})
    entity = Entity("other", key={"view__x": Int64})
    other = view_of(table(view__x=[1], at=[hours(-1)], y=[5]), {"y": Latest("y")}, entity=entity, name="other")

    @on_demand(inputs=[view["x"]], output=Int64)
    def same(x):
        return x

    @on_demand(name="view__x", inputs=[view["x"]], output=Int64)
    def hides(x):
        return x + 1

    @on_demand(inputs=[view["x"], RequestTime()], output=Int64)
    def timed(x, now):
        return x

    with opened(view) as (store, _):
        for features, message in (
            ([same, other], "'view__x' is both an input column and a feature; rename one"),
            ([hides], "'view__x' is both an on-demand feature and a feature of a view; rename one"),
            ([timed, view.alias("own", key={"thing": "request time"})], "no input column can be called 'request time'"),
        ):
            service = FeatureService("clash", features=features)  # type: ignore[arg-type]  # of so many, of such kinds
            asked = spine(NOON, thing=[1]).append_column("view__x", pa.array([1]))
            assert message in raised(DeclarationError, lambda: store.get_historical_features(asked, service))  # noqa: B023
            assert message in raised(DeclarationError, lambda: store.apply([service]))  # noqa: B023


def test_columns_that_are_asked_for_beside_features_are_no_features() -> None:
    rows = table(thing=[1], at=[hours(-1)], x=[10], x__status=[11])
    view = view_of(rows, {"x": Latest("x"), "event_time": Latest("at"), "x__status": Latest("x__status")})
    with opened(view) as (store, _):
        asked = spine(NOON, thing=[1])
        plain = store.get_historical_features(asked, "service").to_arrow()
        assert plain["view__event_time"].to_pylist() == [hours(-1)]
        for words, name in (
            ({"with_status": True}, "view__x__status"),
            ({"with_event_time": True}, "view__event_time"),
        ):
            (word,) = words
            message = raised(SpineError, lambda: store.get_historical_features(asked, "service", **words))  # type: ignore[arg-type]  # of so many, of such kinds  # noqa: B023
            assert (
                message == f"{word} adds a column '{name}', which is a feature too; rename the feature, or leave it out"
            )


def test_a_snapshot_of_keys_that_differ_in_case_alone() -> None:
    pair = Entity("pair", key={"k": Int64, "K": Int64})
    view = view_of(
        table(a=[1, 2], b=[3, 4], at=[hours(-1)] * 2, x=[10, 20]), ["x"], entity=pair, key={"k": "a", "K": "b"}
    )
    with opened(view) as (store, _):
        answer = store.snapshot("service", at=NOON).to_arrow()
        assert [answer[name].to_pylist() for name in ("k", "K", "view__x")] == [[1, 2], [3, 4], [10, 20]]
        assert trained(store, NOON, k=[1, 3], K=[3, 1])["view__x"].to_pylist() == [10, None]


def test_a_snapshot_says_that_its_own_column_has_the_name_of_a_key() -> None:
    entity = Entity("thing", key={"event_timestamp": Int64})
    view = view_of(table(thing=[1], at=[hours(-1)], x=[10]), ["x"], entity=entity, key={"event_timestamp": "thing"})
    with opened(view) as (store, _):
        assert "has a column 'event_timestamp' of its own" in raised(
            SpineError, lambda: store.snapshot([view], at=NOON)
        )
        own = view.alias("own", key={"event_timestamp": "thing"})
        assert store.snapshot([own], at=NOON).to_arrow()["own__x"].to_pylist() == [10]

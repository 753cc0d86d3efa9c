"""What a user writes is checked once, when it is written; the message says where, and what would be right."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pydantic
import pytest

from featurestore import (
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ParquetSource,
    Request,
    RequestTime,
    TableSource,
    on_demand,
)
from featurestore.errors import DeclarationError
from featurestore.types import Float64, Int64, String

carrier = Entity("carrier", key={"carrier": String})
landings = ParquetSource("landings", "landings.parquet", event_time="landed_at", refresh="1h")
days = ParquetSource("days", "days.parquet", event_time=None)
delays = FeatureView("delays", entity=carrier, source=landings, features=["arr_delay", "dep_delay"])


def twice(x: float) -> float:
    return x * 2


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: Entity("carrier", keys={"carrier": String}), "Entity 'carrier' has no argument 'keys'. Did you mean 'key'?"),  # type: ignore[call-arg]  # the mistake
    (lambda: Entity("carrier", key={"c": Float64}), "Entity 'carrier': "),
    (lambda: Entity("a b", key={}), "Entity 'a b': name: 'a b' is no name: letters, digits and underscores"),
    (lambda: Entity("a__b", key={}), "'__' separates a view from its feature"),
    (lambda: Entity("carrier", key={"c": "Strin"}), "'Strin'"),  # type: ignore[dict-item]  # the mistake
    (lambda: ParquetSource("s", "x.parquet"), "ParquetSource 's': event_time: must be given"),  # type: ignore[call-arg]  # the mistake
    (lambda: ParquetSource("s", "x.parquet", event_tim="t"), "has no argument 'event_tim'. Did you mean 'event_time'?"),  # type: ignore[call-arg]  # the mistake
    (lambda: ParquetSource("s", "x", event_time="t", known_after="2 parsecs"), "known_after: "),
    (lambda: ParquetSource("s", "x", event_time="t", known_after=5), "known_after: "),
    (lambda: ParquetSource("s", "x", event_time="t", timezone="America/New_Yrok"), "America/New_York"),
    (lambda: ParquetSource("s", "x", event_time="t", deleted="gone"), "deleted needs identity"),
    (lambda: ParquetSource("s", "x", event_time="t", identity="id"), "identity needs known_at or version"),
    (lambda: ParquetSource("s", "x", event_time="t", version="v"), "version needs identity"),
    (lambda: ParquetSource("s", "x", event_time=None, known_at="k"), "known_at needs event_time"),
    (lambda: ParquetSource("s", "x", event_time="t", valid_from="f"), "valid_from is for a table without time"),
    (lambda: TableSource("s", "x.duckdb", event_time="t"), "TableSource 's': table=… must be given"),  # type: ignore[call-arg]  # the mistake
    (lambda: DataFrameSource("s", 3, event_time="t"), "DataFrameSource 's': "),
    (lambda: view(features=[]), "features: "),
    (lambda: view(feature=["x"]), "has no argument 'feature'. Did you mean 'features'?"),
    (lambda: view(features={"x": "x"}), "features"),
    (lambda: view(key={"carier": "c"}), "entity 'carrier' has no key 'carier'. Did you mean 'carrier'?"),
    (lambda: view(refresh="continuous", settle="5m"), "settle is for refreshed views"),
    (lambda: view(settle="10m", ready_after="5m"), "ready_after is 5m, and must be at least settle, which is 10m"),
    (lambda: view(ready_after="2h"), "ready_after is 2h, and must be at most refresh + settle, which is 1h"),
    (lambda: view(refresh_offset="1h"), "refresh_offset is 1h, and must be shorter than refresh, which is 1h"),
    (lambda: view(source=days), "refresh must be said"),
    (lambda: view(source=days, refresh="1d", ttl="1d"), "ttl needs event_time"),
    (lambda: view(stale="hide"), "stale: "),
    (lambda: delays["arr_delai"], "FeatureView 'delays': no feature 'arr_delai'. Did you mean 'arr_delay'?"),
    (lambda: delays.alias("other", key={"carier": "c"}), "no key 'carier'. Did you mean 'carrier'?"),
    (lambda: FeatureService("model", features=3), "features: must be a list of views"),  # type: ignore[arg-type]  # the mistake
    (lambda: FeatureService("model", features=["delays"]), "'delays' is no view, view['x'], alias or on-demand feature"),  # type: ignore[list-item]  # the mistake
    (lambda: on_demand(twice, inputs=[Request("x", Float64)], output="Flot64"), "OnDemand 'twice': output: "),  # type: ignore[call-overload]  # the mistake
    (lambda: on_demand(twice, inputs=[Request("x", Float64)], output=Float64, mode="column"), "OnDemand 'twice': mode: "),
    (lambda: on_demand(twice, inputs=["x"], output=Float64), "OnDemand 'twice': "),
    (lambda: on_demand(twice, inputs=[RequestTime(), Request("x", Float64)], output=Float64), "OnDemand 'twice': inputs lists 2, and its function takes 1: x"),
]  # fmt: skip


def view(*, name: str = "view", **words: Any) -> FeatureView:
    return FeatureView(name, **{"entity": carrier, "source": landings, "features": ["x"], **words})


@pytest.mark.parametrize(("declare", "says"), MISTAKES, ids=[says for _, says in MISTAKES])
def test_a_mistake_says_where_it_is_and_what_would_be_right(declare: Callable[[], Any], says: str) -> None:
    """Kind and name, what is wrong, and the file and line of the user's own code."""
    with pytest.raises(DeclarationError) as caught:
        declare()
    message = str(caught.value)
    assert says in message
    assert "tests/declare/test_declarations.py:" in message


def test_a_message_names_the_line_of_the_declaration() -> None:
    """Also where the mistake is found later than it was made."""
    frame = inspect.currentframe()
    assert frame is not None
    made = frame.f_lineno + 1
    late = FeatureView("late", entity=carrier, source=landings, features=["x"])
    assert late.origin == f"tests/declare/test_declarations.py:{made}"
    with pytest.raises(DeclarationError, match=rf"test_declarations\.py:{made}\)"):
        late["y"]


@pytest.mark.parametrize(
    "made", [carrier, landings, delays, delays["arr_delay"], FeatureService("m", features=[delays])]
)
def test_definitions_are_frozen_and_equal_by_what_they_say(made: Any) -> None:
    """Nothing can be set; a copy with another word is another definition."""
    with pytest.raises(pydantic.ValidationError):
        made.name = "other"
    assert made == made.model_copy()
    assert made != made.model_copy(update={"name": "other"})


def test_frames_are_equal_by_content() -> None:
    """What a notebook declares again over the same rows is the same source."""
    rows = {"id": [1], "at": [1]}
    one, two = (DataFrameSource("s", pa.table(rows), event_time="at") for _ in range(2))
    assert one == two
    assert one != DataFrameSource("s", pa.table({**rows, "at": [2]}), event_time="at")


def test_a_list_of_columns_is_short_for_latest_of_each() -> None:
    """And an entity may have no key at all, or several."""
    assert view(features=["a", "b"]) == view(features={"a": Latest("a"), "b": Latest("b")})
    assert Entity("world", key={}).key == {}
    assert list(Entity("leg", key={"from": String, "to": String, "n": Int64}).key) == ["from", "to", "n"]


def test_a_column_listed_twice_is_refused_by_name() -> None:
    """When the service is planned; the message says what would be right."""
    rows = DataFrameSource("rows", pa.table({"carrier": ["UA"], "at": [1], "x": [1]}), event_time=None, refresh="1h")
    twice_over = FeatureView("v", entity=carrier, source=rows, features=["x"])
    with FeatureStore.local() as store:
        with pytest.raises(
            DeclarationError, match="column 'v__x' is listed twice; list it once, or give one of the views an alias"
        ):
            store.plan([FeatureService("model", features=[twice_over, twice_over["x"]])])

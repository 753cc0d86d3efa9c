"""A declaration takes the words of its own table and no other, and says what another word would be there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import featurestore
from featurestore import (
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureView,
    Latest,
    ParquetSource,
    PushSource,
    Request,
    RequestTime,
    Sum,
    TableSource,
    on_demand,
)
from featurestore.declare import folds
from featurestore.declare.declaration import Declaration, options_of
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.sources import Source
from featurestore.elsewhere import ELSEWHERE
from featurestore.errors import DeclarationError
from featurestore.types import Float64, Int64, Timestamp

THING = Entity("thing", key={"thing": Int64})
FRAME = pa.table({"thing": [1], "at": pa.array([0], pa.timestamp("us")), "x": [1.0]})
ROWS = ParquetSource("rows", "rows.parquet", event_time="at", refresh="1h")
VIEW = FeatureView("view", entity=THING, source=ROWS, features=["x"])


def twice(x: float) -> float:
    return x * 2


def pushed(**words: Any) -> Any:
    said = {"schema": {"thing": Int64, "at": Timestamp, "x": Float64}, "event_time": "at", **words}
    return PushSource("rows", **said)


DECLARED: dict[str, Callable[..., Any]] = {
    "ParquetSource": lambda **words: ParquetSource("rows", "rows.parquet", event_time="at", **words),
    "TableSource": lambda **words: TableSource("rows", "rows.duckdb", table="rows", event_time="at", **words),
    "DataFrameSource": lambda **words: DataFrameSource("rows", FRAME, event_time="at", **words),
    "PushSource": pushed,
    "Entity": lambda **words: Entity("thing", key={"thing": Int64}, **words),
    "FeatureView": lambda **words: FeatureView("view", entity=THING, source=ROWS, features=["x"], **words),
    "FeatureService": lambda **words: FeatureService("service", features=[VIEW], **words),
    "OnDemand": lambda **words: on_demand(twice, inputs=[VIEW["x"]], output=Float64, **words),
    "Request": lambda **words: Request("x", Int64, **words),
    "RequestTime": RequestTime,
    "Latest": lambda **words: Latest("x", **words),
    "Sum": lambda **words: Sum("x", window="1d", **words),
    "alias": lambda **words: VIEW.alias("other", **words),
}
OTHERS = sorted(
    {"kind", "content", "frame", "inputs", "function", "colour"}
    | {field for made in (ROWS, VIEW, THING, Latest("x")) for field in type(made).model_fields}
    | {word for table in ELSEWHERE.values() for word in table}
)


@pytest.mark.parametrize("kind", DECLARED)
def test_every_word_outside_its_own_table_is_refused(kind: str) -> None:
    """Words of any other declaration, of the fields below it and of other stores."""
    own = table_of(kind)
    for word in OTHERS:
        if word not in own:
            with pytest.raises(DeclarationError) as caught:
                DECLARED[kind](**{word: "1d"})
            assert f"has no argument '{word}'" in str(caught.value)
            assert "tests/declare/test_elsewhere.py:" in str(caught.value)


def table_of(kind: str) -> set[str]:
    """The keywords that a declaration shows to who reads it, whatever it does with them."""
    cls: Any = OnDemand if kind == "OnDemand" else getattr(featurestore, kind, None)
    function = VIEW.alias.__wrapped__ if cls is None else cls.__init__.__wrapped__  # type: ignore[attr-defined]  # a method that is wrapped has one
    shown = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    return {*shown, *options_of(function)}


@pytest.mark.parametrize(
    ("kind", "word", "says"),
    [
        ("PushSource", "period", "the end of it as event_time"),
        ("PushSource", "known_at", "the store says when it learned of a row"),
        ("PushSource", "known_after", "the store says when it learned of a row"),
        ("PushSource", "history_until", "history=…, cutover=…"),
        ("PushSource", "version", "the one that was pushed last replaces the others"),
        ("PushSource", "columns", "the columns of its rows are schema={column: type}"),
        ("PushSource", "timezone", "read as UTC"),
        ("PushSource", "valid_from", "it is for tables without time"),
        ("PushSource", "latenes", "Did you mean 'lateness'?"),
        ("ParquetSource", "schema", "Latest('x', type=Float64)"),
        ("ParquetSource", "perod", "Did you mean 'period'?"),
        ("DataFrameSource", "content", "it is worked out from the frame"),
        ("FeatureView", "event_time", "its source says it: event_time=…"),
        ("FeatureView", "refersh", "Did you mean 'refresh'?"),
        ("Entity", "join_keys", "key={column: type}"),
        ("FeatureService", "views", "features=[…]"),
        ("OnDemand", "code", "it is read from the function"),
        ("OnDemand", "outputs", "It takes: description, function, inputs, mode, name, output, owner, tags."),
        ("Request", "dtype", "the second argument is its type"),
        ("Sum", "dtype", "type=…"),
        ("Latest", "windw", "Did you mean 'window'?"),
        ("alias", "join_key_map", "key={entity key: column of the spine}"),
        ("alias", "keys", "Did you mean 'key'?"),
    ],
)
def test_a_word_of_elsewhere_says_what_it_would_be_here(kind: str, word: str, says: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        DECLARED[kind](**{word: "1d"})
    assert says in str(caught.value)


def test_every_fold_and_source_has_a_table_that_is_read() -> None:
    for cls in [*vars(folds).values(), *Source.__subclasses__()]:
        if isinstance(cls, type) and issubclass(cls, Declaration) and "__init__" in vars(cls):
            if cls is not Declaration and cls.__module__.startswith("featurestore.declare"):
                init: Any = cls.__init__
                assert options_of(init.__wrapped__), cls


def test_no_advice_is_about_a_word_that_is_taken() -> None:
    """Else it could never be read."""
    for kind, words in ELSEWHERE.items():
        if kind in DECLARED:
            assert not table_of(kind) & words.keys(), kind


def test_no_source_without_its_data() -> None:
    frame: Any = None
    with pytest.raises(DeclarationError, match="NoneType is no frame"):
        DataFrameSource("rows", frame, event_time=None)
    with pytest.raises(DeclarationError, match="path"):
        ParquetSource("rows", [], event_time=None)

"""What is wrong with a declaration is said in the words of its writer, never in those of the library that checks it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import featurestore
from featurestore import (
    ApproxQuantile,
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureView,
    LastN,
    Latest,
    Mean,
    ParquetSource,
    PushSource,
    Request,
    Sum,
    TableSource,
    on_demand,
)
from featurestore.declare.declaration import options_of
from featurestore.declare.on_demand import OnDemand
from featurestore.declare.problems import no_json
from featurestore.errors import DeclarationError
from featurestore.server.problems import BadRequest
from featurestore.server.strict_json import read_json
from featurestore.types import Float64, Int64, Timestamp

THING = Entity("thing", key={"thing": Int64})
ROWS = ParquetSource("rows", "rows.parquet", event_time="at", refresh="1h")
VIEW = FeatureView("view", entity=THING, source=ROWS, features=["x"])
FRAME = pa.table({"thing": [1], "at": pa.array([0], pa.timestamp("us"))})


def twice(x: float) -> float:
    return x * 2


WHOLE: dict[Callable[..., Any], dict[str, Any]] = {
    Entity: {"name": "thing", "key": {"thing": Int64}},
    ParquetSource: {"name": "rows", "path": "rows.parquet", "event_time": "at"},
    TableSource: {"name": "rows", "path": "rows.duckdb", "table": "rows", "event_time": "at"},
    DataFrameSource: {"name": "rows", "frame": FRAME, "event_time": "at"},
    PushSource: {"name": "rows", "schema": {"thing": Int64, "at": Timestamp}, "event_time": "at"},
    FeatureView: {"name": "view", "entity": THING, "source": ROWS, "features": ["x"]},
    FeatureService: {"name": "service", "features": [VIEW]},
    OnDemand: {"function": twice, "inputs": [VIEW["x"]], "output": Float64},
    Request: {"name": "x", "type": Int64},
    Latest: {"column": "x"},
    Sum: {"column": "x", "window": "7d"},
    LastN: {"column": "x", "n": 3, "window": "7d"},
    ApproxQuantile: {"column": "x", "q": 0.5, "window": "7d"},
}
ODD = [
    3,
    -1,
    2.5,
    True,
    "?",
    "",
    None,
    ["x"],
    [3],
    {"x": 3},
    {3: "x"},
    {},
    [],
    ("a", "b"),
    object(),
    int,
    FRAME,
    THING,
    VIEW,
]
FOREIGN = re.compile(
    r"Input should|Value error|valid (dict|string|tuple|number)|literal\[|function-|pydantic|positional|dictionary update"
)


def build(kind: Callable[..., Any], words: dict[str, Any]) -> Any:
    """The declaration of these words, those without which it is written in place in their places."""
    said = dict(words)
    places = [p for p in inspect.signature(kind).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return kind(*[said.pop(p.name) for p in places if p.name in said], **said)


def refusal(kind: Callable[..., Any], words: dict[str, Any]) -> str | None:
    try:
        build(kind, words)
    except DeclarationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", WHOLE)
def test_a_value_of_another_kind_is_told_in_plain_words(kind: Any) -> None:
    assert build(kind, WHOLE[kind]) is not None
    known = [name for name, p in inspect.signature(kind).parameters.items() if p.kind is not p.VAR_KEYWORD]
    refused = 0
    for word in {*known, *options_of(kind.__init__)} - {"function", "default"}:
        for value in ODD:
            told = refusal(kind, {**WHOLE[kind], word: value})
            if told is not None:
                assert not FOREIGN.search(told), f"{word}={value!r}: {told}"
                assert "test_problems.py:" in told
                refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("declare", "says"),
    [
        (lambda: Entity("thing", key=["k"]), "key: must be a dict, such as {'user': String}, and is ['k']"),  # type: ignore[arg-type]  # the mistake
        (lambda: Entity("thing", key={"k": "INT64"}), "'INT64' is no type. Did you mean Int64?"),  # type: ignore[dict-item]  # the mistake
        (lambda: Entity("thing"), "key=… must be given"),  # type: ignore[call-arg]  # the mistake
        (lambda: Sum("x", window="7 days"), "Sum 'x': window: Duration '7 days' cannot be read."),
        (lambda: Sum("x", window="7 days"), "Or it is 'lifetime'"),
        (lambda: FeatureService("s", [VIEW]), "all but name is said by name: features=…"),  # type: ignore[misc]  # the mistake
        (lambda: FeatureView("v", entity=THING, source=ROWS, features={"x": "x"}), "newest value is Latest('x')"),  # type: ignore[dict-item]  # the mistake
        (lambda: FeatureView("v", entity=THING, source=ROWS, features=[Sum("x", window="1d")]), "a name of its own"),  # type: ignore[list-item]  # the mistake
        (lambda: FeatureView("v", entity="thing", source=ROWS, features=["x"]), "must be an Entity, and is 'thing'"),  # type: ignore[arg-type]  # the mistake
        (lambda: PushSource("s", schema={"a": int}, event_time="at"), "schema.a: <class 'int'> is no type"),  # type: ignore[dict-item]  # the mistake
        (lambda: on_demand(twice, inputs=["view:x"], output=Float64), "inputs: each is view['name']"),  # type: ignore[call-overload]  # the mistake
    ],
)  # fmt: skip
def test_the_message_says_what_would_be_right(declare: Callable[[], object], says: str) -> None:
    with pytest.raises(DeclarationError, match=re.escape(says)):
        declare()


def test_a_fold_that_is_written_in_a_view_names_it_and_its_feature() -> None:
    """It fails before there is a view: what it is written in says the names."""
    entity = Entity("thing", key={"thing": Int64})
    source = PushSource("rows", schema={"thing": Int64, "at": Timestamp, "x": Int64}, event_time="at")

    def told(declare: Callable[[], Any]) -> str:
        with pytest.raises(DeclarationError) as caught:
            declare()
        return str(caught.value)

    whole = told(
        lambda: FeatureView(
            "spending", entity=entity, source=source,
            features={
                "count": Count(window="1d"),
                "total": Sum(
                    "x", window="7"
                ),
            },
        )
    )  # fmt: skip
    assert whole.startswith("FeatureView 'spending', feature 'total': Sum 'x': window: Duration '7' cannot be read.")
    assert re.search(r"\(tests/declare/test_problems\.py:\d+\)$", whole)
    named = told(
        lambda: featurestore.FeatureView(
            entity=entity, name="named", source=source, features={"n": Count(window="1d"), "m": Mean("x")}
        )
    )
    assert named.startswith("FeatureView 'named', feature 'm': Mean 'x': window must be said")
    typo = told(lambda: FeatureView("v", entity=entity, source=source, features={"t": Sum("x", windw="7d")}))  # type: ignore[call-arg]  # the mistake
    assert typo.startswith("FeatureView 'v', feature 't': Sum 'x' has no argument 'windw'")
    assert told(lambda: Sum("x", window="7")).startswith("Sum 'x': window: Duration '7'")  # in no view


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "it is empty"),
        (b'{"a": 1,', "it ends at line 1, column 9, and is not whole"),
        (b"[1 2]", "it cannot be read from line 1, column 4 on, where it says '2]'"),
        (b'{"a":\n  nan}', "it cannot be read from line 2, column 3 on, where it says 'nan}'"),
        (b'"\xff"', "it is not UTF-8"),
    ],
)
def test_what_is_no_json_is_told_in_our_words_with_its_place(text: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=f"^{re.escape(f'The body is no JSON: {says}')}$"):
        read_json(text)


def test_a_reader_of_the_standard_library_is_told_alike() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads('{"a": [1 2]}')
    assert no_json(caught.value) == "it cannot be read from line 1, column 10 on, where it says '2]}'"

"""Every option of every declaration with a wrong value, a wrong unit and a typo: what is wrong, where, and what would be right.

The options are those of the signatures. One without a case here fails the test, and so does a case without an option.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, NamedTuple

import pandas as pd
import pytest

import featurestore
from featurestore import (
    ApproxCountDistinct,
    ApproxQuantile,
    CountDistinct,
    CsvSource,
    DatabaseSource,
    DataFrameSource,
    DeltaSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Freshness,
    IcebergSource,
    InRange,
    InSet,
    JsonLinesSource,
    KafkaStream,
    LastDistinctN,
    LastN,
    Latest,
    Matches,
    NotNull,
    ParquetSource,
    PushSource,
    RedisStream,
    Request,
    RequestTime,
    RowCount,
    StdDev,
    Sum,
    TableSource,
    Unique,
    Var,
    on_demand,
)
from featurestore.declare.declaration import Declaration, options_of
from featurestore.declare.folds import Fold
from featurestore.declare.on_demand import OnDemand
from featurestore.errors import DeclarationError
from featurestore.types import Array, Bytes, Float64, Int64, Timestamp

THING = Entity("thing", key={"thing": Int64})
ROWS = ParquetSource("rows", "rows.parquet", event_time="at", refresh="1h")
VIEW = FeatureView("view", entity=THING, source=ROWS, features=["x", "y"])
FRAME = pd.DataFrame({"thing": [1], "at": [0], "x": [1.0]})
SCHEMA = {"thing": Int64, "at": Timestamp, "x": Float64}


def twice(x: float) -> float:
    return x * 2


class Alias:
    """`view.alias(…)` as if it were a class."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return VIEW.alias(*args, **kwargs)


TEXT_SCHEMA = {"at": Timestamp, "x": Int64}
WHOLE: dict[type, dict[str, Any]] = {
    Entity: {"name": "thing", "key": {"thing": Int64}},
    ParquetSource: {"name": "rows", "path": "rows.parquet", "event_time": "at"},
    DatabaseSource: {"name": "rows", "database": "shop", "table": "rows", "cursor": "n", "event_time": "at"},
    DeltaSource: {"name": "rows", "path": "rows", "event_time": "at"},
    IcebergSource: {"name": "rows", "catalog": "lake", "table": "sales.rows", "event_time": "at"},
    CsvSource: {"name": "rows", "path": "rows.csv", "schema": TEXT_SCHEMA, "event_time": "at"},
    JsonLinesSource: {"name": "rows", "path": "rows.jsonl", "schema": TEXT_SCHEMA, "event_time": "at"},
    TableSource: {"name": "rows", "path": "rows.duckdb", "table": "rows", "event_time": "at"},
    DataFrameSource: {"name": "rows", "frame": FRAME, "event_time": "at"},
    PushSource: {"name": "rows", "schema": SCHEMA, "event_time": "at"},
    KafkaStream: {"topic": "rows", "broker": "events"},
    RedisStream: {"key": "rows", "broker": "cache"},
    FeatureView: {"name": "view", "entity": THING, "source": ROWS, "features": ["x"]},
    FeatureService: {"name": "service", "features": [VIEW]},
    OnDemand: {"function": twice, "inputs": [VIEW["x"]], "output": Float64},
    Request: {"name": "x", "type": Int64},
    RequestTime: {},
    NotNull: {"column": "x"},
    InRange: {"column": "x", "at_least": 0},
    InSet: {"column": "x", "values": [1]},
    Matches: {"column": "x", "pattern": "a"},
    Unique: {"columns": "x"},
    Freshness: {"within": "1d"},
    RowCount: {"at_least": 0.5},
    **{
        getattr(featurestore, name): {"column": "x", "window": "7d"}
        for name in featurestore.__all__
        if inspect.isclass(getattr(featurestore, name)) and issubclass(getattr(featurestore, name), Fold)
    },
    LastN: {"column": "x", "n": 3},
    LastDistinctN: {"column": "x", "n": 3},
    ApproxQuantile: {"column": "x", "q": 0.5, "window": "7d"},
}
"""Each declaration, with what it cannot do without."""


class Wrong(NamedTuple):
    """A value that an option may not have, what the message says is wrong, with the option's name, and what else is said."""

    value: Any
    says: str
    beside: dict[str, Any] = {}  # noqa: RUF012 - nothing writes to it


TEXT = (Wrong(3, "must be text, and is 3"), Wrong(["x"], "must be text, and is ['x']"))
NAMES = (
    *TEXT,
    Wrong("a b", "'a b' is no name: letters, digits and underscores, beginning with a letter"),
    Wrong("a__b", "'__' separates a view from its feature in column names"),
    Wrong("", "'' is no name"),
)
COLUMN_NAMES = (*TEXT, Wrong("a-b", "'a-b' is no name: letters, digits and underscores, beginning with a letter"))
UNITS = "units: w, d (24 hours), h, m (minutes), s, ms, us"
DURATION = (
    Wrong("6 hours", "'6 hours' cannot be read. Write whole numbers with units, greatest first, such as '7d'"),
    Wrong("1.5h", UNITS),
    Wrong("1y", UNITS),
    Wrong("1m1h", "greatest first"),
    Wrong(24, "is a bare number, so its unit is unclear"),
    Wrong(-1.5, "is a bare number, so its unit is unclear"),
    Wrong(["1h"], "['1h'] is a list"),
    Wrong("-1h", "cannot be read"),
    Wrong(pd.Timedelta(-1, "s"), "is negative"),
    Wrong(pd.Timedelta(1, "ns"), "no whole number of microseconds"),
    Wrong("9999999999999w", "is too long"),
)
LONGER = (*DURATION, Wrong("0s", "is zero, and here it must be longer, such as '1m' or '1h'"))
OPTIONAL_NAME = TEXT
COLUMNS = (Wrong(3, "must be a list, and is 3"), Wrong(["at", 3], "must be text, and is 3"))
LABELS = {
    "owner": TEXT,
    "description": TEXT,
    "tags": (Wrong("team", "must be a dict, and is 'team'"), Wrong({"team": 3}, "must be text, and is 3")),
}
REFRESH = {
    "refresh": (
        *LONGER,
        Wrong("continuos", "'continuos' cannot be read"),
        Wrong("6 hours", "Or it is 'continuous'"),
    ),
    "refresh_offset": DURATION,
    "settle": DURATION,
    "ready_after": DURATION,
    "ttl": DURATION,
    "freshness": LONGER,
}
SQL = {
    "derived": (
        Wrong("x > 1", "must be a dict, and is 'x > 1'"),
        Wrong({"late": 3}, "must be text, and is 3"),
        Wrong({"late x": "x > 1"}, "'late x' is no name"),
    )
}
EXPECTED = {
    "expectations": (
        Wrong("x > 1", "must be a list of expectations, such as [NotNull('amount')], and is 'x > 1'"),
        Wrong(["x > 1"], "'x > 1' is no expectation, such as NotNull('amount')"),
        Wrong([Sum("x", window="1d")], "a Sum is no expectation"),
    )
}
OTHERWISE = (
    Wrong("drop", "must be 'refuse', 'quarantine' or 'warn', and is 'drop'"),
    Wrong(3, "must be 'refuse', 'quarantine' or 'warn'"),
)
LIMIT = (
    Wrong([1], "must be a number, text, a boolean, a date or a datetime, and is [1]"),
    Wrong(float("nan"), "must be finite, and is nan"),
    Wrong(pd.Timestamp("2026-03-01"), "an instant must have a zone: datetime(…, tzinfo=UTC)"),
    Wrong(None, "say at_least or at_most, or both", {"at_least": None, "at_most": None}),
)
SHARE = (
    Wrong(-1, "must be at least 0"),
    Wrong("half", "must be a number"),
    Wrong(None, "say at_least or at_most, or both", {"at_least": None, "at_most": None}),
)
INSTANT = (
    Wrong(
        "yesterday", "must be an instant, such as '2026-03-01T00:00:00Z' or a datetime with a zone, and is 'yesterday'"
    ),
    Wrong("2026-03-01T00:00:00", "it must be an aware datetime: say its timezone"),
    Wrong(["x"], "must be an instant"),
)
SOURCE: dict[str, tuple[Wrong, ...]] = {
    "name": NAMES,
    "event_time": TEXT,
    "known_at": (*TEXT,),
    "known_after": DURATION,
    "history_until": INSTANT,
    "identity": (*COLUMNS, Wrong("thing", "identity needs known_at or version")),
    "version": (*TEXT, Wrong("v", "version needs identity")),
    "tiebreak": COLUMNS,
    "deleted": (*TEXT, Wrong("gone", "deleted needs identity")),
    "until": TEXT,
    "valid_from": (*TEXT, Wrong("since", "valid_from is for a table without time; event_time is given")),
    "timezone": (
        Wrong(3, "must be text, and is 3"),
        Wrong("here", "'here' is no IANA name such as 'America/New_York'"),
        Wrong("America/New_Yrok", "Did you mean 'America/New_York'?"),
    ),
    "date": (Wrong("ends", "must be 'end' or 'start', and is 'ends'"), Wrong(3, "must be 'end' or 'start', and is 3")),
    "period": LONGER,
    **EXPECTED,
    **SQL,
    **REFRESH,
    **LABELS,
}
PATHS = (
    Wrong(3, "must be text, a Path or a list of them, and is 3"),
    Wrong("a\0b", "'a\\x00b' is no path: it holds a NUL"),
    Wrong("", "must not be empty"),
    Wrong("hdfs://bucket/x.parquet", "'hdfs://bucket/x.parquet' lies in no folder of this machine"),
)
TYPES = (
    Wrong(int, "<class 'int'> is no type; types are Bool, Int32, Int64, Float32"),
    Wrong("INT64", "'INT64' is no type. Did you mean Int64?"),
    Wrong("Foat64", "'Foat64' is no type. Did you mean Float64?"),
    Wrong(3, "3 is no type; types are"),
)
WINDOW = (*LONGER, Wrong("lifetme", "Or it is 'lifetime'"))
FOLD: dict[str, tuple[Wrong, ...]] = {
    "column": TEXT,
    "window": WINDOW,
    "windows": (
        Wrong("1h", "must be a list, and is '1h'", {"window": None}),
        Wrong(["1h", "6 hours"], "'6 hours' cannot be read", {"window": None}),
        Wrong(["1h", 24], "is a bare number", {"window": None}),
        Wrong(["1h", "1h"], "'1h' is listed twice", {"window": None}),
        Wrong(["1h"], "window and windows are both given", {"window": "1h"}),
    ),
    "offset": (
        *DURATION,
        Wrong("7d", "offset is for windows of a duration, not for 'lifetime'", {"window": "lifetime"}),
    ),
    "hop": LONGER,
    "where": (
        Wrong(3, "must be text, such as \"status = 'failed'\", and is 3"),
        Wrong(lambda row: True, "must be text, such as \"status = 'failed'\", and is a function"),
        Wrong(" ", "a condition is SQL such as \"status = 'failed'\""),
    ),
    "type": TYPES,
}
SELECTED = (
    Wrong(3, "must be a list of views, view['x'], aliases and on-demand features, and is 3"),
    Wrong("view", "must be a list of views, view['x'], aliases and on-demand features, and is 'view'"),
    Wrong(["view"], "'view' is no view, view['x'], alias or on-demand feature"),
    Wrong([Sum("x", window="1d")], "a Sum is no view, view['x'], alias or on-demand feature"),
    Wrong([], "must not be empty"),
)


def number(text: str, *values: Any, more: tuple[Wrong, ...] = ()) -> tuple[Wrong, ...]:
    return (*(Wrong(value, text) for value in values), Wrong(["x"], "must be a"), *more)


FILES: dict[str, tuple[Wrong, ...]] = {
    "path": (*PATHS, Wrong([3], "must be text or a Path, and is 3"), Wrong([], "must not be empty")),
    "partitions": (
        Wrong("day", "must be a dict, and is 'day'"),
        Wrong({"day": int}, "<class 'int'> is no type"),
        Wrong({"day": Bytes}, "the name of a folder holds no Bytes"),
    ),
}
OPTIONAL = (*COLUMNS, Wrong("y", "the schema has no column 'y'"))
TEXT_SOURCE: dict[str, tuple[Wrong, ...]] = {
    **SOURCE,
    **FILES,
    "schema": (
        Wrong(["at"], "must be a dict, such as {'user': String}, and is ['at']"),
        Wrong({"at": "timestamp"}, "'timestamp' is no type. Did you mean Timestamp?"),
        Wrong({"at": Timestamp, "AT": Int64}, "differ in case alone"),
        Wrong({"x": Int64}, "the schema has no column 'at'"),
        Wrong({}, "must not be empty"),
    ),
}
STREAM_NAMES = (*TEXT, Wrong("", "must not be empty"))
STREAM: dict[str, tuple[Wrong, ...]] = {
    "broker": (*TEXT, Wrong("", "must not be empty")),
    "format": (
        Wrong("protobuf", "must be 'json', 'avro' or 'arrow', and is 'protobuf'"),
        Wrong(3, "must be 'json', 'avro' or 'arrow'"),
    ),
    "fields": (
        Wrong(["x"], "must be a dict"),
        Wrong({"x": 3}, "must be text, and is 3"),
        Wrong({"x": "a..b"}, "'a..b' names no field of a message"),
        Wrong({"x": "$ofset"}, "'$ofset' is nothing of a message"),
        Wrong({"a b": "x"}, "'a b' is no name"),
    ),
    "ignore": (Wrong(3, "must be a list"), Wrong([3], "must be text, and is 3")),
    "start": (Wrong("end", "must be 'first' or 'last', and is 'end'"),),
}

CASES: dict[type, dict[str, tuple[Wrong, ...]]] = {
    Entity: {
        "name": NAMES,
        "key": (
            Wrong(["a", "b"], "must be a dict, such as {'user': String}, and is ['a', 'b']"),
            Wrong("user", "must be a dict, such as {'user': String}, and is 'user'"),
            Wrong({"a": "INT64"}, "'INT64' is no type. Did you mean Int64?"),
            Wrong({"a": int}, "<class 'int'> is no type"),
            Wrong({"a": Float64}, "a key is made of whole, comparable values, so no floats, no arrays"),
            Wrong({"a": Array(Int64)}, "no floats, no arrays"),
            Wrong({"a b": Int64}, "'a b' is no name"),
        ),
        **LABELS,
    },
    ParquetSource: {
        **SOURCE,
        **FILES,
        "optional": COLUMNS,
    },
    DatabaseSource: {
        **SOURCE,
        "database": (*TEXT, Wrong("", "must not be empty")),
        "table": (*TEXT[:1], Wrong("", "table or query must be said")),
        "query": (*TEXT[:1], Wrong("SELECT 1", "table and query are two ways")),
        "cursor": (*TEXT[:1], Wrong("", "")),
        "overlap": DURATION,
    },
    DeltaSource: {
        **SOURCE,
        "path": (*PATHS, Wrong(["a", "b"], "a table lies in one folder")),
        "partitions": FILES["partitions"],
        "table_version": number("must be at least 0", -1),
    },
    IcebergSource: {
        **SOURCE,
        "path": (*PATHS, Wrong("rows", "path and catalog are two ways"), Wrong(["a", "b"], "path")),
        "catalog": (*TEXT, Wrong("", "must not be empty"), Wrong(None, "catalog and table must be said, or path")),
        "table": (*TEXT, Wrong("", "must not be empty")),
        "snapshot": number("must be at least 0", -1),
        "ref": (*TEXT, Wrong("", "must not be empty"), Wrong("main", "two ways to say which rows", {"snapshot": 1})),
    },
    CsvSource: {
        **TEXT_SOURCE,
        "delimiter": (
            Wrong(3, "must be text, and is 3"),
            Wrong(";;", "must be one ASCII sign such as ',' or ';', and is ';;'"),
            Wrong("", "must be one ASCII sign"),
            Wrong('"', "must be one ASCII sign"),
        ),
        "null": (Wrong(3, "must be"), Wrong([3], "must be text, and is 3")),
        "optional": OPTIONAL,
    },
    JsonLinesSource: TEXT_SOURCE,
    TableSource: {**SOURCE, "path": (Wrong(3, "must be text or a Path, and is 3"), *PATHS[1:]), "table": (*TEXT, Wrong("", "must not be empty"))},
    DataFrameSource: {
        **SOURCE,
        "frame": (
            Wrong(3, "int is no frame; pandas, polars and Arrow are"),
            Wrong("rows.parquet", "str is no frame; pandas, polars and Arrow are"),
            Wrong({"at": 3}, "column 'at' is one int, and must be a list with a value for each row"),
            Wrong({"at": [1, "a"]}, "column 'at' holds values of several types: in row 1 'a', and before it 1; make them one"),
            Wrong({"at": [1], "x": [1, 2]}, "column 'at' has 1 row, and column 'x' has 2"),
            Wrong(pd.DataFrame({"x": [object()]}), "column 'x', row 0: an object is no value that a column holds"),
        ),
    },
    PushSource: {
        **{name: SOURCE[name] for name in ("name", "until", "tiebreak", *EXPECTED, *SQL, *REFRESH, *LABELS)},
        "schema": (
            Wrong(["at"], "must be a dict, such as {'user': String}, and is ['at']"),
            Wrong({"at": "timestamp"}, "'timestamp' is no type. Did you mean Timestamp?"),
            Wrong({"at": int}, "<class 'int'> is no type"),
            Wrong({"known_at": Timestamp}, "a pushed row has no column 'known_at'"),
            Wrong({}, "must not be empty"),
        ),
        "event_time": (*TEXT, Wrong("att", "the schema has no column 'att'. Did you mean 'at'?"), Wrong("x", "'x' is Float64, and must be Timestamp")),
        "identity": (*COLUMNS, Wrong("thin", "the schema has no column 'thin'. Did you mean 'thing'?")),
        "deleted": TEXT,
        "lateness": LONGER,
        "tolerance": LONGER,
        "history": (
            Wrong("rows", "must be a Source, and is 'rows'"),
            Wrong(ROWS, "history and cutover go together"),
            Wrong(ROWS, "its history must say known_at, or known_after", {"cutover": pd.Timestamp("2026-03-01", tz="UTC")}),
        ),
        "cutover": (*INSTANT, Wrong(pd.Timestamp("2026-03-01", tz="UTC"), "history and cutover go together")),
        "stream": (
            Wrong("rows", "must be a Stream, and is 'rows'"),
            Wrong(KafkaStream("rows", broker="events", fields={"z": "z"}), "the schema has no column 'z'"),
        ),
    },
    KafkaStream: {"topic": STREAM_NAMES, **STREAM},
    RedisStream: {"key": STREAM_NAMES, "field": TEXT, **STREAM},
    FeatureView: {
        "name": NAMES,
        "entity": (Wrong("thing", "must be an Entity, and is 'thing'"), Wrong([THING], "must be an Entity")),
        "source": (Wrong("rows", "must be a Source, and is 'rows'"), Wrong(FRAME, "must be a Source, and is a DataFrame")),
        "features": (
            Wrong(3, "must be a dict of folds, or a list of columns, and is 3"),
            Wrong({"x": "x"}, "'x' is 'x', which is no fold; a column's newest value is Latest('x')"),
            Wrong({"x": 3}, "must be a Fold, and is 3"),
            Wrong({"x y": Latest("x")}, "'x y' is no name"),
            Wrong(["x", 3], "3 is no name of a column"),
            Wrong(["x", "x"], "'x' is listed twice"),
            Wrong(["x", Sum("x", window="1d")], "a fold has a name of its own: features={'total': Sum('x', window='7d')}"),
            Wrong([], "must not be empty"),
            Wrong({"x": Sum("x", windows=["1d"]), "x_1d": Latest("x")}, "feature 'x_1d' is declared twice"),
        ),
        "key": (
            Wrong("thing", "must be a dict, and is 'thing'"),
            Wrong({"thing": 3}, "must be text, and is 3"),
            Wrong({"thin": "id"}, "entity 'thing' has no key 'thin'. Did you mean 'thing'?"),
        ),
        "where": FOLD["where"],
        **EXPECTED,
        "stale": (Wrong("witheld", "must be 'serve' or 'withhold', and is 'witheld'"), Wrong(True, "must be 'serve' or 'withhold'")),
        **REFRESH,
        "refresh_offset": (*DURATION, Wrong("1h", "refresh_offset is 1h, and must be shorter than refresh, which is 1h")),
        "ready_after": (
            *DURATION,
            Wrong("3h", "ready_after is 3h, and must be at most refresh + settle, which is 1h10m", {"settle": "10m"}),
            Wrong("5m", "ready_after is 5m, and must be at least settle, which is 10m", {"settle": "10m"}),
            Wrong("5m", "ready_after is for refreshed views", {"refresh": "continuous"}),
        ),
        **LABELS,
    },
    Alias: {
        "name": NAMES,
        "key": (
            Wrong("thing", "must be a dict, and is 'thing'"),
            Wrong({"thing": 3}, "must be text, and is 3"),
            Wrong({"thin": "id"}, "key: entity 'thing' has no key 'thin'. Did you mean 'thing'?"),
        ),
    },
    FeatureService: {
        "name": NAMES,
        "features": SELECTED,
        "skew_budget": number("must be at most 1", 2, 5.0, more=(Wrong("1%", "must be a number"), Wrong(-1, "must be at least 0"))),
        "drift_limits": (
            Wrong(3, "must be a dict of measures, or of columns, and is 3"),
            Wrong({"missin": 0.1}, "there is no measure 'missin' (of every feature). Did you mean 'missing'?"),
            Wrong({"psi": -0.1}, "psi must be a finite number, 0 or more, and is -0.1"),
            Wrong({"psi": "a"}, "psi must be a finite number, 0 or more, and is 'a'"),
            Wrong({"view__x": {"psi": float("nan")}}, "view__x.psi must be a finite number"),
            Wrong({"view__nope": {"psi": 0.1}}, "drift_limits: there is no column 'view__nope'"),
            Wrong({"view__x": {"missin": 0.1}}, "Did you mean 'missing'?"),
        ),
        **LABELS,
    },
    OnDemand: {
        "function": (
            Wrong(3, "must be a function, and is 3"),
            Wrong(print, "not a Python function"),
            Wrong(lambda: 1, "inputs lists 1, and its function takes 0: none"),
        ),
        "name": (*COLUMN_NAMES,),
        "inputs": (
            Wrong(VIEW["x"], "must be a list of features and request values, and is a Selection"),
            Wrong("view:x", "must be a list of features and request values, and is 'view:x'"),
            Wrong(["view:x"], "each is view['name'], Request('x', type) or RequestTime(), and not 'view:x'"),
            Wrong([VIEW], "each is view['name'], Request('x', type) or RequestTime(), and not a FeatureView"),
            Wrong([VIEW[["x", "y"]]], "each is one feature, view['name'], and not several of 'view'"),
            Wrong([], "inputs lists 0, and its function takes 1: x"),
        ),
        "output": TYPES,
        "mode": (Wrong("rows", "must be 'row' or 'columns', and is 'rows'"), Wrong(3, "must be 'row' or 'columns', and is 3")),
        **LABELS,
    },
    Request: {"name": COLUMN_NAMES, "type": TYPES},
    NotNull: {"column": TEXT, "otherwise": OTHERWISE},
    InRange: {"column": TEXT, "at_least": LIMIT, "at_most": LIMIT, "otherwise": OTHERWISE},
    InSet: {
        "column": TEXT,
        "values": (
            Wrong("abc", "must be a list of values, and is 'abc'"),
            Wrong(3, "must be a list of values, and is 3"),
            Wrong([], "must not be empty"),
            Wrong([None], "must be a number, text, a boolean, a date or a datetime"),
            Wrong(["a\0"], "text must not hold a NUL"),
        ),
        "otherwise": OTHERWISE,
    },
    Matches: {"column": TEXT, "pattern": (*TEXT, Wrong("", "must not be empty"), Wrong("a\0", "text must not hold a NUL")), "otherwise": OTHERWISE},
    Unique: {"columns": (*COLUMNS, Wrong([], "must not be empty")), "otherwise": (*OTHERWISE, Wrong("quarantine", "there is none to quarantine; say 'refuse' or 'warn'"))},
    Freshness: {"within": LONGER, "otherwise": OTHERWISE},
    RowCount: {"at_least": SHARE, "at_most": SHARE, "otherwise": OTHERWISE},
    RequestTime: {},
    **{kind: FOLD for kind in WHOLE if issubclass(kind, Fold)},
    **{kind: {**FOLD, "ddof": (Wrong(2, "must be 0 or 1, and is 2"), Wrong("1", "must be 0 or 1"))} for kind in (Var, StdDev)},
    **{
        kind: {**FOLD, "n": number("must be at least 1", 0, -3, more=(Wrong(2000, "at most 1000"), Wrong("x", "a whole number"), Wrong(1.5, "a whole number")))}
        for kind in (LastN, LastDistinctN)
    },
    CountDistinct: {**FOLD, "bound": number("must be at least 1", 0, more=(Wrong(10**6, "at most 100000"), Wrong("x", "a whole number")))},
    ApproxCountDistinct: {**FOLD, "precision": number("must be at least 4", 0, more=(Wrong(17, "at most 16"), Wrong("x", "a whole number")))},
    ApproxQuantile: {
        **FOLD,
        "q": number("must be at most 1", 50, more=(Wrong(-0.1, "at least 0"), Wrong("p50", "a number"))),
        "accuracy": number("must be less than 1", 1, 5, more=(Wrong(0, "more than 0"), Wrong("1%", "a number"))),
    },
}  # fmt: skip
ANYTHING = {(kind, "default") for kind in WHOLE}
"""Options that take any value, which is judged where the types of columns are known."""

FOREIGN = re.compile(
    r"Input should|Value error|valid (dict|string|tuple|number)|literal\[|function-|pydantic|pyarrow|positional|"
    r"dictionary update|numpy|Could not convert|Conversion failed|Traceback|__init__|NoneType"
)
DECLARE = "featurestore.declare."
WHOLE[Alias] = {"name": "other"}


def options(kind: type) -> list[str]:
    """What a declaration takes, by its signature and the table of options that is unpacked there."""
    return [*places(kind, all_of_them=True), *options_of(inspect.unwrap(called(kind)))]


def called(kind: type) -> Any:
    return FeatureView.alias if kind is Alias else kind.__init__


def places(kind: type, *, all_of_them: bool = False) -> list[str]:
    """The parameters that have a place, or all that are not gathered."""
    every = list(inspect.signature(inspect.unwrap(called(kind))).parameters.values())[1:]
    return [p.name for p in every if p.kind is not p.VAR_KEYWORD and (all_of_them or p.kind is not p.KEYWORD_ONLY)]


def declare(kind: type, said: dict[str, Any]) -> Any:
    """The declaration of these options, those that have a place in their places."""
    said = dict(said)
    return kind(*[said.pop(name) for name in places(kind) if name in said], **said)


def refused(kind: type, said: dict[str, Any]) -> str:
    """The message of a declaration that must not be taken."""
    with pytest.raises(DeclarationError) as caught:
        declare(kind, said)
    return str(caught.value)


def test_every_option_of_every_declaration_has_its_cases() -> None:
    """Those of the package, and of what its definitions make."""
    public = {cls for name in featurestore.__all__ if inspect.isclass(cls := getattr(featurestore, name))}
    declarations = {cls for cls in public if issubclass(cls, Declaration) and cls.__module__.startswith(DECLARE)}
    assert declarations <= CASES.keys() == WHOLE.keys()
    for kind, cases in CASES.items():
        wanted = {option for option in options(kind) if (kind, option) not in ANYTHING}
        assert cases.keys() == wanted, kind.__name__


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_a_wrong_value_says_what_is_wrong_where_and_what_would_be_right(kind: type) -> None:
    """Of the declaration and its name, the option, and the line of the user's that declared it."""
    assert declare(kind, WHOLE[kind]) is not None
    for option, wrongs in CASES[kind].items():
        for wrong in wrongs:
            said = {**WHOLE[kind], **wrong.beside, option: wrong.value}
            told = refused(kind, said)
            assert wrong.says in told, f"{option}={wrong.value!r}: {told}"
            assert told.startswith(f"{named(kind, said)}: "), told
            assert option in told, told
            assert told.count("test_every_option.py:") == 1 + told.count("the view is declared at "), told
            assert not FOREIGN.search(told), told


def named(kind: type, said: dict[str, Any]) -> str:
    """How a message begins: with the kind and, where it has one that is a text, the name."""
    if kind is Alias:
        return "FeatureView 'view'"
    first = next(iter(said.values()), None) if places(kind) else None
    name = said.get("name", getattr(first, "__name__", first))
    return kind.__name__ if not isinstance(name, str) else f"{kind.__name__} '{name}'"


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_a_typo_in_an_option_says_which_one_is_meant(kind: type) -> None:
    for option in options(kind):
        if len(option) < 3:
            continue
        typo = option[:2] + option[1:]
        told = refused(kind, {**WHOLE[kind], typo: None})
        assert f"has no argument '{typo}'" in told
        assert f"Did you mean '{option}'?" in told, told
        assert "tests/declare/test_every_option.py:" in told


def test_a_feature_that_is_not_there_is_told_where_it_is_asked_for() -> None:
    """Which may be far from the view; its own line is told beside it."""
    with pytest.raises(DeclarationError) as caught:
        on_demand(twice, inputs=[VIEW["z"]], output=Float64)
    line = caught.traceback[0].lineno + 1
    said = re.escape(
        f"FeatureView 'view': no feature 'z'. Features: x, y. (tests/declare/test_every_option.py:{line}; "
    )
    assert re.fullmatch(said + r"the view is declared at tests/declare/test_every_option.py:\d+\)", str(caught.value))


def test_a_column_that_is_not_there_names_the_option_that_names_it() -> None:
    """An option of the source's, though it is the view that reads it."""
    source = DataFrameSource("rows", FRAME, event_time="att")
    view = FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h")
    with FeatureStore.local() as store, pytest.raises(DeclarationError) as caught:
        store.plan([view])
    assert "source 'rows' has no column 'att' for its event_time. Did you mean 'at'?" in str(caught.value)

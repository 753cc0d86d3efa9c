"""Hints for options that are given to the wrong kind of definition."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import get_args, get_type_hints

_OF_VIEWS = "a FeatureView says it"
_TYPES_OF_FILES = (
    "types are read from the data, and a feature states its own: features={'x': Latest('x', type=Float64)}"
)
_SERVED = "each view is materialized and served once a service that is applied lists it"

ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "Source": {
        "schema": _TYPES_OF_FILES,
        "columns": _TYPES_OF_FILES,
        "timestamp_field": "event_time names the column",
        "event_timestamp": "event_time names the column",
        "timestamp": "event_time names the column",
        "created_timestamp_column": "known_at names the column of when a row was learned",
        "field_mapping": "a view names its columns: key={'user': 'user_id'}, features={'x': Latest('column')}",
        "entity": f"{_OF_VIEWS}: entity=…",
        "key": f"{_OF_VIEWS}: key={{entity key: column}}",
        "features": f"{_OF_VIEWS}: features=…",
        "where": f"{_OF_VIEWS}, or one fold: where=…",
        "window": "a fold says it: Sum('x', window='7d')",
        "stale": f"{_OF_VIEWS}: stale='withhold'",
        "lateness": "it is for pushed rows; batch rows count from known_at on, however late",
        "tolerance": "it is for pushed rows",
        "history": "it is for pushed rows; several files are one ParquetSource",
        "cutover": "it is for pushed rows",
    },
    "ParquetSource": {"table": "a table of a DuckDB file is a TableSource"},
    "TableSource": {"query": "make it a view in the DuckDB file, and name that as table=…"},
    "DataFrameSource": {
        "path": "a frame lies in memory; files are a ParquetSource",
        "content": "it is worked out from the frame",
    },
    "PushSource": {
        "columns": "the columns of its rows are schema={column: type}",
        "period": "each row brings its instant; what happened over a period is pushed with the end of it as event_time",
        "date": "its event_time is a Timestamp; push the instant at which the day ended",
        "known_at": "the store says when it learned of a row, on the online store's clock",
        "known_after": "the store says when it learned of a row, on the online store's clock; its history= says known_after",
        "history_until": "rows from before rows were pushed are a source of their own: history=…, cutover=…",
        "batch_source": "rows from before rows were pushed are a source of their own: history=…, cutover=…",
        "version": "of pushed rows with equal identity the one that was pushed last replaces the others",
        "valid_from": "it is for tables without time; a pushed row has an event_time",
        "timezone": "instants without a zone are read as UTC; give a row's instant its zone before it is pushed",
        "path": "its rows are in the store's own log",
        "table": "its rows are in the store's own log",
    },
    "Entity": {
        "join_keys": "key={column: type} names the columns and their types",
        "join_key": "key={column: type} names the columns and their types",
        "value_type": "key={column: type} names the columns and their types",
        "type": "key={column: type} names the columns and their types",
        "ttl": f"{_OF_VIEWS}: ttl=…",
    },
    "FeatureView": {
        "entities": "a view has one entity, whose key may have several columns: entity=…",
        "schema": "features={'x': Latest('x', type=Float64)} names the features and their types",
        "columns": "features=['x', …] names the columns",
        "batch_source": "source=… names it",
        "join_keys": "key={entity key: column} names the columns",
        "online": _SERVED,
        "offline": _SERVED,
        "window": "a fold says it: features={'total': Sum('x', window='7d')}",
        **{
            option: f"its source says it: {option}=…"
            for option in (
                "event_time", "known_at", "known_after", "history_until", "identity", "version", "tiebreak", "deleted",
                "until", "valid_from", "timezone", "date", "period", "derived", "lateness", "tolerance",
            )
        },
    },
    "alias": {
        "join_key_map": "key={entity key: column of the spine} names the columns",
        "features": "choose them of the alias: view.alias('origin')[['x', 'y']]",
    },
    "FeatureService": {
        "views": "features=[…] lists views, view['x'], aliases and on-demand features",
        "feature_views": "features=[…] lists views, view['x'], aliases and on-demand features",
        "entities": "its views say what they are about",
        "version": "the fingerprint of what it lists is its version",
        "on_demand": "features=[…] lists on-demand features too",
    },
    "OnDemand": {
        "sources": "inputs=[…] lists features, Request values and RequestTime()",
        "features": "inputs=[…] lists features, Request values and RequestTime()",
        "schema": "output=… is the type of its one value",
        "type": "output=… is the type of its one value",
        "dtype": "output=… is the type of its one value",
        "default": "its function gives it: None comes in where a value is null",
        "code": "it is read from the function",
        "source": "it is read from the function",
        "libraries": "they are read from the function",
    },
    "Request": {
        "dtype": "the second argument is its type",
        "default": "a request brings every value; None is one",
    },
    "Fold": {
        "dtype": "type=… states the feature's type",
        "filter": "where=… is its condition",
        "fill": "default=… replaces the null of MISSING and EXPIRED",
        "period": "window=… says how far back rows count",
        "time_window": "window=… says how far back rows count",
        "ttl": f"{_OF_VIEWS}: ttl=…; of one fold, window=…",
        "refresh": f"{_OF_VIEWS}: refresh=…",
        "key": f"{_OF_VIEWS}: key=…",
    },
}  # fmt: skip
"""Declaration (or a class above it) → option → what to write instead."""


def elsewhere(kind: type | str, option: str) -> str | None:
    """What an option that a declaration does not have would be there; None where nothing is known of it."""
    names = [kind] if isinstance(kind, str) else [cls.__name__ for cls in kind.__mro__]
    return next((ELSEWHERE[name][option] for name in names if option in ELSEWHERE.get(name, ())), None)


@functools.cache
def options_of(function: Callable[..., object]) -> tuple[str, ...]:
    """The keywords that `**options: Unpack[…]` of a function stands for; none where it has no such."""
    hints = get_type_hints(function)
    tables = [table for hint in hints.values() for table in get_args(hint) if hasattr(table, "__total__")]
    return tuple(option for table in tables for option in table.__annotations__)

"""A feature store in which the value a model is served has the bits that training says it has.

A feature value is a function of a key and an instant. It is computed from the rows known at that instant, and from
nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.clock import ManualClock
    from featurestore.declare.database_source import DatabaseSource
    from featurestore.declare.delta_source import DeltaSource
    from featurestore.declare.entity import Entity
    from featurestore.declare.expectations import Freshness, InRange, InSet, Matches, NotNull, RowCount, Unique
    from featurestore.declare.folds import (
        ApproxCountDistinct,
        ApproxQuantile,
        Count,
        CountDistinct,
        First,
        LastDistinctN,
        LastN,
        Latest,
        Max,
        Mean,
        Min,
        StdDev,
        Sum,
        Var,
    )
    from featurestore.declare.iceberg_source import IcebergSource
    from featurestore.declare.on_demand import Request, RequestTime, on_demand
    from featurestore.declare.push import PushSource
    from featurestore.declare.services import FeatureService
    from featurestore.declare.sources import ARRIVAL, DataFrameSource, ParquetSource, TableSource
    from featurestore.declare.streams import KafkaStream, RedisStream
    from featurestore.declare.text_sources import CsvSource, JsonLinesSource
    from featurestore.declare.views import FeatureView
    from featurestore.errors import FeatureStoreError
    from featurestore.reports.simulation.faults import Faults
    from featurestore.store import FeatureStore

__all__ = [
    "ARRIVAL",
    "ApproxCountDistinct",
    "ApproxQuantile",
    "Count",
    "CountDistinct",
    "CsvSource",
    "DataFrameSource",
    "DatabaseSource",
    "DeltaSource",
    "Entity",
    "Faults",
    "FeatureService",
    "FeatureStore",
    "FeatureStoreError",
    "FeatureView",
    "First",
    "Freshness",
    "IcebergSource",
    "InRange",
    "InSet",
    "JsonLinesSource",
    "KafkaStream",
    "LastDistinctN",
    "LastN",
    "Latest",
    "ManualClock",
    "Matches",
    "Max",
    "Mean",
    "Min",
    "NotNull",
    "ParquetSource",
    "PushSource",
    "RedisStream",
    "Request",
    "RequestTime",
    "RowCount",
    "StdDev",
    "Sum",
    "TableSource",
    "Unique",
    "Var",
    "on_demand",
]

_HOMES = {
    "ARRIVAL": "declare.sources",
    "ApproxCountDistinct": "declare.folds",
    "ApproxQuantile": "declare.folds",
    "Count": "declare.folds",
    "CountDistinct": "declare.folds",
    "CsvSource": "declare.text_sources",
    "DataFrameSource": "declare.sources",
    "DatabaseSource": "declare.database_source",
    "DeltaSource": "declare.delta_source",
    "Entity": "declare.entity",
    "Faults": "reports.simulation.faults",
    "FeatureService": "declare.services",
    "FeatureStore": "store",
    "FeatureStoreError": "errors",
    "FeatureView": "declare.views",
    "First": "declare.folds",
    "Freshness": "declare.expectations",
    "IcebergSource": "declare.iceberg_source",
    "InRange": "declare.expectations",
    "InSet": "declare.expectations",
    "JsonLinesSource": "declare.text_sources",
    "KafkaStream": "declare.streams",
    "LastDistinctN": "declare.folds",
    "LastN": "declare.folds",
    "Latest": "declare.folds",
    "ManualClock": "clock",
    "Matches": "declare.expectations",
    "Max": "declare.folds",
    "Mean": "declare.folds",
    "Min": "declare.folds",
    "NotNull": "declare.expectations",
    "ParquetSource": "declare.sources",
    "PushSource": "declare.push",
    "RedisStream": "declare.streams",
    "Request": "declare.on_demand",
    "RequestTime": "declare.on_demand",
    "RowCount": "declare.expectations",
    "StdDev": "declare.folds",
    "Sum": "declare.folds",
    "TableSource": "declare.sources",
    "Unique": "declare.expectations",
    "Var": "declare.folds",
    "on_demand": "declare.on_demand",
}
"""Where each public name lives; imported when it is first used, so that importing the package stays quick."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise importlib.import_module("featurestore.elsewhere").missing("featurestore", name)
    try:
        value = getattr(importlib.import_module(f"featurestore.{_HOMES[name]}"), name)
    except Exception as error:  # Python would say no more of an AttributeError than that there is no such name
        instead = importlib.import_module("featurestore.loading.modules").in_place_error(error, name)
        if instead is None:
            raise
        raise instead from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""A feature store in which the value a model is served has the bits that training says it has.

A feature value is a function of a key and an instant. It is computed from the rows known at that instant, and from
nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.clock import ManualClock
    from featurestore.declare.entity import Entity
    from featurestore.declare.folds import Latest
    from featurestore.declare.on_demand import Request, RequestTime, on_demand
    from featurestore.declare.services import FeatureService
    from featurestore.declare.sources import DataFrameSource, ParquetSource, TableSource
    from featurestore.declare.views import FeatureView
    from featurestore.errors import FeatureStoreError
    from featurestore.store import FeatureStore

__all__ = [
    "DataFrameSource",
    "Entity",
    "FeatureService",
    "FeatureStore",
    "FeatureStoreError",
    "FeatureView",
    "Latest",
    "ManualClock",
    "ParquetSource",
    "Request",
    "RequestTime",
    "TableSource",
    "on_demand",
]

_HOMES = {
    "DataFrameSource": "declare.sources",
    "Entity": "declare.entity",
    "FeatureService": "declare.services",
    "FeatureStore": "store",
    "FeatureStoreError": "errors",
    "FeatureView": "declare.views",
    "Latest": "declare.folds",
    "ManualClock": "clock",
    "ParquetSource": "declare.sources",
    "Request": "declare.on_demand",
    "RequestTime": "declare.on_demand",
    "TableSource": "declare.sources",
    "on_demand": "declare.on_demand",
}
"""Where each public name lives; imported when it is first used, so that importing the package stays quick."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'featurestore' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"featurestore.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

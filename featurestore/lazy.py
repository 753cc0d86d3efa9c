"""The libraries of frames and of SQL, imported when something of them is first used.

A process that only looks up uses none of them, and is half the size without. `from featurestore.lazy import pa` stands where
`import pyarrow as pa` would; no module imports them itself.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["duckdb", "pa", "pa_csv", "pads", "pafs", "pc", "pd", "pq"]


class _Lazy(ModuleType):
    """A module that is imported when a name of it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        try:
            value = getattr(importlib.import_module(self.__name__), name)
        except Exception as error:
            instead = importlib.import_module("featurestore.loading.modules").in_place_error(error, name)
            if instead is None:
                raise
            raise instead from error
        setattr(self, name, value)
        return value


if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
    import pyarrow.dataset as pads
    import pyarrow.fs as pafs
    import pyarrow.parquet as pq
else:
    duckdb, pd, pa = _Lazy("duckdb"), _Lazy("pandas"), _Lazy("pyarrow")
    pc, pads, pq = _Lazy("pyarrow.compute"), _Lazy("pyarrow.dataset"), _Lazy("pyarrow.parquet")
    pa_csv, pafs = _Lazy("pyarrow.csv"), _Lazy("pyarrow.fs")

"""The folds: each stored feature is a fold of the visible rows, and each fold is one file here, which adds its row to `FOLDS`.

What a fold is stands in its algebra (lift, merge, finish), which knows neither SQL nor a store, and serves both. A fold that
*picks* returns what one row or several hold, the greatest by rule 2 for `Latest`, the least for `First`.
"""

from __future__ import annotations

import importlib
import pkgutil

from featurestore.semantics.folds.algebra import (
    Algebra,
    CertainAlgebra,
    FoldColumn,
    PartialSums,
    Place,
    State,
    SumField,
)
from featurestore.semantics.folds.table import FOLDS, FoldKind, add_fold

__all__ = [
    "FOLDS",
    "Algebra",
    "CertainAlgebra",
    "FoldColumn",
    "FoldKind",
    "PartialSums",
    "Place",
    "State",
    "SumField",
    "add_fold",
]  # fmt: skip

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")

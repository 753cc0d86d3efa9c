"""The folds: each stored feature is a fold of the visible rows, and each fold is one row of this table.

A fold that *picks* returns what one row holds: the greatest by rule 2 for `Latest`, the least for `First`. The as-of
query then carries only a pointer to the row, and the row's columns are gathered once for all features of the view.

What a fold is stands in its algebra (lift, merge, finish), which knows neither SQL nor a store, and serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from featurestore.semantics.folds.algebra import Additive, Algebra, Certain, Consecutive, Group, Place, State
from featurestore.semantics.folds.counts import count, count_result
from featurestore.semantics.folds.distinct import count_distinct, distinct_result
from featurestore.semantics.folds.extremes import extreme_result, maximum, minimum
from featurestore.semantics.folds.hyperloglog import approx_count_distinct, approx_count_result
from featurestore.semantics.folds.moments import spread_result, stddev, var
from featurestore.semantics.folds.picked import first, last_distinct_n, last_n, latest, one_result, rows_result
from featurestore.semantics.folds.quantiles import approx_quantile, quantile_result
from featurestore.semantics.folds.sums import mean, mean_result, sum_result, total
from featurestore.types import FeatureType

__all__ = ["FOLDS", "Additive", "Algebra", "Certain", "Consecutive", "Group", "Meaning", "Place", "State"]


class Meaning(NamedTuple):
    """What one fold is. `column` is None where it reads none; parameters are those that the fold declares."""

    picks: bool
    """Whether the value is a column of the one row that rule 2 puts last (`Latest`) or first (`First`)."""

    result: Callable[..., FeatureType]
    """`result(column, **parameters)`: the value's type, from the column's. ValueError says which types the fold takes."""

    algebra: Callable[..., Algebra]
    """`algebra(column, result, **parameters)`; a stated result may widen. ValueError where it cannot be the result's."""

    ordered: bool = False
    """Whether it asks which of two rows rule 2 puts first."""

    large: bool = False
    """Whether its states are sets or sketches, of which a continuous view keeps few in one window."""


FOLDS: dict[str, Meaning] = {
    "Latest": Meaning(True, one_result, latest, ordered=True),
    "First": Meaning(True, one_result, first, ordered=True),
    "Count": Meaning(False, count_result, count),
    "Sum": Meaning(False, sum_result, total),
    "Mean": Meaning(False, mean_result, mean),
    "Var": Meaning(False, spread_result, var),
    "StdDev": Meaning(False, spread_result, stddev),
    "Min": Meaning(False, extreme_result, minimum),
    "Max": Meaning(False, extreme_result, maximum),
    "LastN": Meaning(False, rows_result, last_n, ordered=True),
    "LastDistinctN": Meaning(False, rows_result, last_distinct_n, ordered=True),
    "CountDistinct": Meaning(False, distinct_result, count_distinct, large=True),
    "ApproxCountDistinct": Meaning(False, approx_count_result, approx_count_distinct, large=True),
    "ApproxQuantile": Meaning(False, quantile_result, approx_quantile, large=True),
}

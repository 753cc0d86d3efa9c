"""How far served values may be from a baseline: limits by measure, for every feature of a service or for one of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import PlainValidator

from featurestore.declare.problems import shown
from featurestore.errors import did_you_mean

MEASURES: Mapping[str, str] = {
    "missing": "the difference between the shares of nulls, 0 to 1",
    "l_infinity": "of texts, bytes and booleans: the greatest difference between the shares of a value, 0 to 1",
    "jensen_shannon": "the Jensen-Shannon divergence to base 2, 0 to 1; of numbers in ten buckets of equal width",
    "psi": "the population stability index; of numbers over the tenths of the baseline",
    "kolmogorov_smirnov": "of numbers: the greatest difference between the shares of values up to any number, 0 to 1",
    "wasserstein": "of numbers: how far a value has to be moved in the mean, in the unit of the column",
    "length": "of lists: Kolmogorov-Smirnov of how long they are",
    "norm": "of embeddings: Kolmogorov-Smirnov of their Euclidean lengths",
}
"""Every measure, and what it says. Of lists and embeddings, those of numbers and texts are of their elements."""


def _limits(given: Any) -> dict[str, float | dict[str, float]]:
    if not isinstance(given, Mapping):
        raise ValueError(f"must be a dict of measures, or of columns, and is {shown(given)}")
    return {
        name: {of: _limit(limit, f"{name}.{of}") for of, limit in said.items()}
        if isinstance(said, Mapping)
        else _limit(said, str(name))
        for name, said in given.items()
    }


def _limit(given: Any, where: str) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not math.isfinite(given) or given < 0:
        raise ValueError(f"{where} must be a finite number, 0 or more, and is {shown(given)}")
    return float(given)


DriftLimits = Annotated[dict[str, float | dict[str, float]], PlainValidator(_limits)]
"""Measure → limit of every feature; column → measure → limit of that one."""


def check_columns(limits: DriftLimits, columns: Collection[str]) -> None:
    """ValueError where a name is neither a measure nor one of the columns."""
    for name, said in limits.items():
        if not isinstance(said, dict):
            _check_measure(name, "of every feature")
            continue
        if name not in columns:
            raise ValueError(f"drift_limits: there is no column '{name}'.{did_you_mean(name, columns, noun='Columns')}")
        for measure in said:
            _check_measure(measure, f"of column '{name}'")


def _check_measure(name: str, where: str) -> None:
    if name not in MEASURES:
        hint = did_you_mean(name, MEASURES, noun="Measures")
        raise ValueError(f"drift_limits: there is no measure '{name}' ({where}).{hint}")

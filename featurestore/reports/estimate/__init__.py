"""Estimate: how many rows and bytes a frame or a run of materialize will read and write, and what time and memory it will take."""

from featurestore.reports.estimate.estimate import Estimate, EstimatedWork
from featurestore.reports.estimate.frames import estimate_snapshot, estimate_spine
from featurestore.reports.estimate.runs import estimate_refills, estimate_runs

__all__ = [
    "Estimate",
    "EstimatedWork",
    "estimate_refills",
    "estimate_runs",
    "estimate_snapshot",
    "estimate_spine",
]

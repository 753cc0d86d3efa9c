"""Drift: how far the values that were served are from those that a model was trained on, or from those served before."""

from featurestore.reports.drift.baseline import Baseline
from featurestore.reports.drift.drift import DriftAsked, drift
from featurestore.reports.drift.report import Drift, FeatureDrift, PeriodDrift

__all__ = ["Baseline", "Drift", "DriftAsked", "FeatureDrift", "PeriodDrift", "drift"]

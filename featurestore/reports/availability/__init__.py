"""Availability: how late rows really became known and servable, and which declared words promise more than that."""

from featurestore.reports.availability.availability import availability
from featurestore.reports.availability.report import (
    TOLERATED,
    Advice,
    Availability,
    Lag,
    Settling,
    Switches,
    ViewAvailability,
)

__all__ = [
    "TOLERATED", "Advice", "Availability", "Lag", "Settling", "Switches", "ViewAvailability", "availability",
]  # fmt: skip

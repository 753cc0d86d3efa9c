"""simulate: a stretch of history replayed on a settable clock through push, materialize and lookup, with faults; then
the audit of it."""

from featurestore.reports.simulation.faults import Faults
from featurestore.reports.simulation.report import Simulation
from featurestore.reports.simulation.simulate import Asked, Real, simulate

__all__ = ["Asked", "Faults", "Real", "Simulation", "simulate"]

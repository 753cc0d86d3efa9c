"""simulate: a stretch of history replayed on a settable clock through push, materialize and lookup, with faults; then
the audit of it."""

from featurestore.reports.simulation.faults import Faults
from featurestore.reports.simulation.report import Simulation
from featurestore.reports.simulation.simulate import Real, Simulated, simulate

__all__ = ["Faults", "Real", "Simulated", "Simulation", "simulate"]

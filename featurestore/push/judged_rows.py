"""The rows of a batch of pushes, held against what their source expects of each."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featurestore.declare.push import PushSource
from featurestore.errors import PushError, RowRefusedError
from featurestore.lazy import pa
from featurestore.plurals import plural
from featurestore.push.pushed import Pushed
from featurestore.semantics.expectations import Flags, SettledExpectation, pushed_expectations, unmet
from featurestore.semantics.values import scalars

LOGGER = logging.getLogger("featurestore")

_told: set[tuple[str, str]] = set()
"""Sources and expectations of which this process has logged that rows do not meet them."""


@dataclass(frozen=True)
class JudgedRows:
    """What is to become of the rows of a batch, which are numbered through its requests."""

    refused: Mapping[int, PushError]
    """By number the requests that have a row that is refused."""

    quarantined: frozenset[int]
    """The rows that are to be kept aside."""

    warned: Sequence[tuple[str, Flags]]
    """Each expectation that only warns, and the rows that do not meet it."""

    bounds: Sequence[int]
    """Where each request begins, and the last one ends."""

    @classmethod
    def of(
        cls, source: PushSource, tables: Sequence[pa.Table], whole: pa.Table, *, overwriting: Container[int]
    ) -> JudgedRows:
        """overwriting: requests whose rows are what there is from now on; what others quarantine refuses these."""
        bounds = [0, *np.cumsum([table.num_rows for table in tables]).tolist()]
        expectations = pushed_expectations(source)
        if not expectations:
            return cls({}, frozenset(), (), bounds)
        found = unmet(source, expectations, whole)
        for one, flags in zip(expectations, found, strict=True):
            if flags.any() and (source.name, one.said.title) not in _told and one.said.otherwise != "refuse":
                _told.add((source.name, one.said.title))
                LOGGER.warning("%s: pushed rows do not meet %s; this is logged once", source.title, one.said.title)
        refused: dict[int, PushError] = {}
        for number, (first, end) in enumerate(itertools.pairwise(bounds)):
            reasons = _reasons(
                expectations, [flags[first:end] for flags in found], tables[number], all_of_them=number in overwriting
            )
            for row, why in reasons.items():
                refused.setdefault(number, RowRefusedError(f"{source.title}: row {row}, {why}", reasons))
        aside = [flags for one, flags in zip(expectations, found, strict=True) if one.said.otherwise == "quarantine"]
        quarantined = frozenset(np.flatnonzero(np.logical_or.reduce(aside)).tolist()) if aside else frozenset()
        warned = [(one.said.title, flags) for one, flags in zip(expectations, found, strict=True) if not one.removes]
        return cls(refused, quarantined, warned, bounds)

    def telling(self, outcomes: Sequence[Pushed | PushError]) -> list[Pushed | PushError]:
        """The outcomes of requests, with how many of the rows of each do not meet what only warns."""
        told: list[Pushed | PushError] = []
        for outcome, first, end in zip(outcomes, self.bounds, self.bounds[1:], strict=False):
            counts = [(title, int(flags[first:end].sum())) for title, flags in self.warned]
            said = tuple(
                f"{count} {plural(count, 'row does', 'rows do')} not meet {title}, and count all the same"
                for title, count in counts
                if count
            )
            told.append(outcome.telling(unmet=said) if said and isinstance(outcome, Pushed) else outcome)
        return told


def _reasons(
    expectations: Sequence[SettledExpectation], found: Sequence[Flags], rows: pa.Table, *, all_of_them: bool
) -> dict[int, str]:
    """Why rows of a request are refused, by number, in their order. all_of_them: as those are that would be quarantined."""
    reasons: dict[int, str] = {}
    for one, flags in zip(expectations, found, strict=True):
        if one.said.otherwise == "refuse" or (all_of_them and one.removes):
            for row in np.flatnonzero(flags).tolist():
                value = scalars(rows[one.said.column].combine_chunks().slice(row, 1))[0]
                reasons.setdefault(row, f"column '{one.said.column}': {_shown(value)} does not meet {one.said.title}")
    return dict(sorted(reasons.items()))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"

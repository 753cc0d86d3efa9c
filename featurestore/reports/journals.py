"""What the journals say: when each file of a source came, and when each instant of a view was complete.

A file is seen when somebody looks, so it came after the last look at which it was not there, and at the latest at the
look that saw it. What lay there at the first look is history: when it came, nobody knows. A file that is seen when others
are missed, or that has the name of an earlier one, may hold rows that lay there before; only of those that happened after
the files that it may have replaced were seen, it is known when they came.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from featurestore.declare.push import PushSource
from featurestore.declare.sources import DataFrameSource, Source
from featurestore.project import Project
from featurestore.semantics.time import BEGINNING, END, Timing
from featurestore.semantics.view import ResolvedView
from featurestore.sources.arrivals import Stay
from featurestore.sources.source_files import SourceFile


class Landing(NamedTuple):
    """What is known of when the rows of a file came, in µs."""

    came: int
    """They were there at the latest then."""
    after: int
    """They were not there yet then."""
    since: int
    """Of rows that happened after it this is known; END where it is not of any."""
    replaced: int
    """Rows up to then may have lain in another file before."""
    instant: int
    """The first complete instant whose run found the file; END where there is none."""
    served: int
    """Since when lookups answered with it; END where there is none."""


class Completions:
    """The complete instants of a view version, in order, in µs.

    finishes: when the run of this instant or of a later one was first done. served: since when lookups have answered with
    this instant or a later one: from then on, but not before its ready_after.
    """

    def __init__(self, runs: Iterable[tuple[int, int, int]], timing: Timing) -> None:
        self._runs: dict[int, list[tuple[int, int]]] = {}  # a store that was emptied has the same instant again
        for instant, started, finished in runs:
            self._runs.setdefault(instant, []).append((started, finished))
        first = {instant: (min(one[0] for one in of), min(one[1] for one in of)) for instant, of in self._runs.items()}
        self.instants = sorted(first)
        self.starts = sorted(started for started, _ in first.values())
        self.finishes = _least_from(first[instant][1] for instant in self.instants)
        served = (max(timing.served_from(instant), first[instant][1]) for instant in self.instants)
        self.served = _least_from(served)
        by_start = sorted((started, instant) for instant, (started, _) in first.items())
        self._found = _least_from(instant for _, instant in by_start)
        self._by_start = [started for started, _ in by_start]

    def began(self, instant: int, served: int) -> int:
        """When the run began whose values of an instant were served at `served`: the last that was finished before. Where
        none was, the first one, which was served before it was journalled; without any, `served` itself."""
        runs = self._runs.get(instant)
        if runs is None:
            return served
        return max((started for started, finished in runs if finished < served), default=runs[0][0])

    def found(self, seen: int) -> tuple[int, int]:
        """The first instant whose run began at `seen` or later, and since when it has been served; END where none is."""
        place = bisect_left(self._by_start, seen)
        if place == len(self._found):
            return END, END
        instant = self._found[place]
        return instant, self.served[bisect_left(self.instants, instant)]


def _least_from(values: Iterable[int]) -> list[int]:
    """Each value, or a lower one that comes later."""
    result: list[int] = []
    for value in reversed(list(values)):
        result.append(min(value, result[-1]) if result else value)
    return result[::-1]


def completions_of(project: Project, view: ResolvedView) -> Completions:
    """The runs of the view version that is applied. Raises RegistryError."""
    return Completions(project.registry.completions(view.name, view.fingerprint), view.timing)


def looks_at(project: Project, source: Source) -> list[int]:
    """When the files of a source were looked at, as far as is journalled (µs, in order): at every run of a view over it,
    and whenever something new was found. Raises RegistryError."""
    current = project.registry.current()
    looks = {stay.seen for stay in project.offline.arrivals.stays(source.name)}
    looks |= {stay.missed for stay in project.offline.arrivals.stays(source.name) if stay.missed is not None}
    for name in current.document["views"]:
        view = current.view(name)
        read = view.source.history if isinstance(view.source, PushSource) else view.source
        if read is not None and read.name == source.name:
            looks.update(completions_of(project, view).starts)
    return sorted(looks)


def landings(
    project: Project, source: Source, files: Sequence[SourceFile], completions: Completions
) -> list[Landing] | None:
    """Of each of the files of a source; None where its rows lie in none, or nobody ever looked. Raises RegistryError."""
    if isinstance(source, (PushSource, DataFrameSource)):
        return None
    stays = project.offline.arrivals.stays(source.name)
    if not stays:
        return None
    return _landings(stays, looks_at(project, source), files, completions)


def _landings(
    stays: Sequence[Stay], looks: Sequence[int], files: Sequence[SourceFile], completions: Completions
) -> list[Landing]:
    first = min(stay.seen for stay in stays)
    seen = {stay.file: stay.seen for stay in stays}
    gone: dict[int, int] = {}  # when files were missed → when the last of them was seen
    named: dict[str, list[int]] = {}
    for stay in stays:
        named.setdefault(stay.file.name, []).append(stay.seen)
        if stay.missed is not None:
            gone[stay.missed] = max(stay.seen, gone.get(stay.missed, BEGINNING))
    result = []
    for file in files:
        came = seen.get(file.sighting)
        if came is None:  # nobody has seen it yet, and no run has read it
            result.append(Landing(END, END, END, BEGINNING, END, END))
        elif came == first:
            result.append(Landing(came, came, END, BEGINNING, BEGINNING, BEGINNING))
        else:
            before = [at for at in (*named[file.name], gone.get(came, came)) if at < came]
            replaced = max(before, default=BEGINNING)
            after = looks[bisect_left(looks, came) - 1]
            result.append(Landing(came, after, max(first, replaced), replaced, *completions.found(came)))
    return result

"""Where the rows of a simulation come from: one feed for each source that the services read, directly or as a history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from featurestore.catalog import Catalog
from featurestore.declare.durations import parse_duration
from featurestore.declare.push import PushSource
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import Source
from featurestore.errors import NotFoundError, PushError, did_you_mean
from featurestore.reports.simulation.faults import Faults, Stretch
from featurestore.reports.simulation.landing import LandingSource
from featurestore.reports.simulation.pushes import PushFeed
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session

ENDED_US = parse_duration("7d")
"""A source whose last row was known so long before another's takes no part any more."""


class Feeds:
    """The sources of some services. offline, session: of the real project. folder: where files come to lie, by source.

    rows: frames in place of the logs of push sources, by name. Raises NotFoundError, SourceError and PushError.
    """

    def __init__(
        self,
        services: Sequence[FeatureService],
        offline: Offline,
        session: Session,
        *,
        folder: Path,
        rows: Mapping[str, Any],
    ) -> None:
        catalog = Catalog.of(services)
        read, views = catalog.sources, catalog.views.values()
        for name in rows:
            if name not in read:
                raise NotFoundError(f"The services read no source '{name}'.{did_you_mean(name, read, noun='Sources')}")
            if not isinstance(read[name], PushSource):
                raise PushError(f"{read[name].title} is read from files; rows are given for push sources")
        pushed = {name: source for name, source in read.items() if isinstance(source, PushSource)}
        self._direct = {name for name in read if name not in pushed}
        histories = {source.history.name: source.history for source in pushed.values() if source.history is not None}
        batch = {**histories, **{name: read[name] for name in self._direct}}
        self.landings = {
            name: LandingSource(
                source,
                offline,
                session,
                folder / name,
                number=number,
                views=[view for view in views if view.source.name == name],
            )
            for number, (name, source) in enumerate(sorted(batch.items()))
        }
        self.pushes = {
            name: PushFeed(source, offline, session, rows.get(name)) for name, source in sorted(pushed.items())
        }

    def newest(self, upto: int) -> int | None:
        """Where (µs, up to `upto`) the data ends: where its first source does, those left aside that ended long before."""
        found = [feed.newest(upto) for feed in self.landings.values()]
        found += [feed.newest(upto) for feed in self.pushes.values()]
        ends = [instant for instant in found if instant is not None]
        return min((end for end in ends if end > max(ends) - ENDED_US), default=None)

    def sources(self, span: Stretch) -> dict[str, Source]:
        """The sources that views read, as they are declared but for where their rows lie."""
        moved: dict[str, Source] = {name: feed.moved() for name, feed in self.landings.items()}
        read = {name: moved[name] for name in self._direct}
        for name, feed in self.pushes.items():
            history = feed.source.history
            read[name] = feed.moved(span, None if history is None else moved[history.name])
        return read

    def begin(self, span: Stretch, faults: Faults, seed: int) -> dict[str, list[tuple[Path, int]]]:
        """Lay down what batch sources had at the start: by source the files, each with when it was first seen (µs)."""
        return {
            name: feed.begin(span, faults, seed, lands=name in self._direct) for name, feed in self.landings.items()
        }

    def land(self, now: int, sources: Iterable[str] | None = None) -> None:
        """Let rows land that do so up to `now` (µs), of these sources or of all."""
        for name in self.landings if sources is None else sources:
            if name in self.landings:
                self.landings[name].land(now)

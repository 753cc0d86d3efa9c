"""compact: seal the full segments of push logs into Parquet, those of late rows too."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from featurestore.catalog import Catalog
from featurestore.declare.push import PushSource
from featurestore.errors import NotFoundError, did_you_mean
from featurestore.sources.log import Compaction
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import LATE

__all__ = ["compact"]


def compact(
    catalog: Catalog, offline: Offline, *, names: Sequence[str] | None, forget: Callable[[str], object]
) -> dict[str, Compaction]:
    """What was sealed and deleted of each push source's logs (only of those named), by source; NotFoundError, LogError.

    forget: then drops the identities of a source that are older than its lateness.
    """
    known = {name: source for name, source in catalog.sources.items() if isinstance(source, PushSource)}
    for name in names or ():
        if name not in known:
            raise NotFoundError(f"No push source '{name}' was applied.{did_you_mean(name, known)}")
    done = {}
    for name in names or known:
        source = known[name]
        done[name] = offline.log(source).compact()
        if offline.logs.has(source.name, LATE):
            done[name] = done[name].beside(offline.log(source, LATE).compact())
        forget(name)
    return done

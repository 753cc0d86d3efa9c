"""Status: what is applied, and how far the online store has come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from featurestore.clock import to_datetime
from featurestore.semantics.view import ResolvedView
from featurestore.stores.codec import ViewCodec, unpack_watermark
from featurestore.stores.online import OnlineStore

__all__ = ["ViewStatus", "status_of"]


@dataclass(frozen=True)
class ViewStatus:
    """One view online: the complete instants (µs), the one that lookups are served, and the one they ask for."""

    view: str
    fingerprint: str
    complete: tuple[int, ...]
    served: int | None
    wanted: int

    @property
    def state(self) -> str:
        """ "not materialized", "stale" or "fresh"."""
        if self.served is None:
            return "not materialized"
        return "fresh" if self.served == self.wanted else "stale"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, instants as ISO text."""
        return {
            "view": self.view,
            "fingerprint": self.fingerprint,
            "state": self.state,
            "as_of": None if self.served is None else to_datetime(self.served).isoformat(),
            "wanted": to_datetime(self.wanted).isoformat(),
            "computed": [to_datetime(instant).isoformat() for instant in self.complete],
        }


def status_of(views: Iterable[ResolvedView], store: OnlineStore, project: str) -> list[ViewStatus]:
    """The status of each view, all read at once."""
    listed = list(views)
    reading = store.get([ViewCodec(project, view).watermark_key for view in listed])
    result = []
    for view, data in zip(listed, reading.values, strict=True):
        complete, wanted = unpack_watermark(data), view.timing.as_of(reading.now)
        served = next((instant for instant in complete if instant <= wanted), None)
        result.append(ViewStatus(view.name, view.fingerprint, complete, served, wanted))
    return result

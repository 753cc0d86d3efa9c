"""What a push is answered: what became of its rows, and what their sender should know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.declare.durations import show_duration
from featurestore.declare.push import PushSource
from featurestore.declare.zones import read_as_utc
from featurestore.lazy import pa, pc
from featurestore.plurals import plural
from featurestore.semantics.view import ResolvedView


class RowCounts(NamedTuple):
    """What became of the rows of one push."""

    accepted: int
    """How many rows are new, and kept."""
    unchanged: int
    """How many were there before, to the bit."""
    late: int
    """How many happened longer ago than the lateness, and are kept aside."""


class Pushed(RowCounts):
    """What became of the rows of one push: three counts as a tuple, and what is to be known of them."""

    without_key: int = 0
    """How many of the accepted rows count for no view over the source, since their key is null; deletions, which need
    none, are not among them."""
    quarantined: int = 0
    """How many rows do not meet what is expected of them, and are kept aside until they are pushed again or discarded."""
    unmet: tuple[str, ...] = ()
    """Of each expectation that rows do not meet and are kept all the same, how many these are, in words."""
    naive: tuple[str, ...] = ()
    """The columns that had timestamps without a zone, which were read as UTC."""
    lateness: int = 0
    """That of the source (µs), where rows came too late; 0 where none did."""

    def telling(
        self, *, without_key: int | None = None, naive: tuple[str, ...] | None = None, lateness: int | None = None,
        quarantined: int | None = None, unmet: tuple[str, ...] | None = None,
    ) -> Pushed:  # fmt: skip
        """The same counts, and this to be known."""
        told = Pushed(*self)
        told.quarantined = self.quarantined if quarantined is None else quarantined
        told.unmet = self.unmet if unmet is None else unmet
        told.without_key = self.without_key if without_key is None else without_key
        told.naive = self.naive if naive is None else naive
        told.lateness = self.lateness if lateness is None else lateness
        return told

    @property
    def notices(self) -> tuple[str, ...]:
        """What is to be known, in words."""
        said = []
        if self.late:
            every = not self.accepted and not self.unchanged
            which = "every row" if every else f"{self.late} {plural(self.late, 'row')}"
            said.append(
                f"{which} came too late, and is never served nor trained on: it happened more than {show_duration(self.lateness)} "
                "ago, the lateness of the source, and is kept aside"
            )
        if self.quarantined:
            several = f"{self.quarantined} rows do not meet what the source expects, and count nowhere: they are"
            one = "1 row does not meet what the source expects, and counts nowhere: it is"
            said.append(f"{plural(self.quarantined, one, several)} kept aside, in quarantine")
        said += self.unmet
        if self.without_key:
            several = "have no key: they are kept in the log, and count"
            one = "has no key: it is kept in the log, and counts"
            said.append(
                f"{self.without_key} of the accepted rows {plural(self.without_key, one, several)} for no view over the source"
            )
        if self.naive:
            said.append(read_as_utc(self.naive, "send them with one where they are local"))
        return tuple(said)

    def __repr__(self) -> str:
        more = "".join(
            f", {name}={getattr(self, name)!r}"
            for name in ("quarantined", "without_key", "naive")
            if getattr(self, name)
        )
        return f"Pushed(accepted={self.accepted}, unchanged={self.unchanged}, late={self.late}{more})"

    def to_dict(self) -> dict[str, Any]:
        """The counts and the notices, as plain JSON."""
        return {
            **self._asdict(), "quarantined": self.quarantined, "without_key": self.without_key, "notices": list(self.notices),
        }  # fmt: skip


def rows_without_key(source: PushSource, views: Sequence[ResolvedView], rows: pa.Table) -> npt.NDArray[np.bool_] | None:
    """Of each row whether every view over the source lacks its key, and it deletes nothing; None where no row is so.

    A key that is a derived column is taken to be there.
    """
    lacking: Any = None
    for view in views:
        own = [rows[key.column] for key in view.keys if key.column in rows.column_names]
        null = [pc.is_null(column).to_numpy() for column in own if column.null_count]
        if not null:
            return None
        of_view = np.logical_or.reduce(null)
        lacking = of_view if lacking is None else lacking & of_view
    if lacking is not None and source.deleted is not None:
        lacking = lacking & ~pc.fill_null(rows[source.deleted], False).to_numpy().astype(bool)
    return lacking if lacking is not None and lacking.any() else None

"""What records of a materialized view say at an instant: rule 4 of their slots, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featurestore.online.view_codec import Rows, ViewCodec
from featurestore.semantics.judge import expired, filled, non_present, row_status, spread, status_of
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedView

Columns = Sequence[Sequence[Any]]


class JudgedSlots:
    """Reads records of one version of a view. shares_statuses: whether its features have one status between them, as plain ones do."""

    def __init__(self, view: ResolvedView, codec: ViewCodec) -> None:
        self._view, self._codec = view, codec
        self._defaults = tuple(feature.default for feature in view.features)
        self._folded = tuple(i for i, feature in enumerate(view.features) if not feature.plain)
        self.shares_statuses = not self._folded

    def judged(self, records: Sequence[bytes | None], base: int, edition: int) -> tuple[list[list[Status]], Columns]:
        """Each feature's status for each record, or one for all, and the columns with their defaults filled in. base: the instant, µs.

        Raises LookupError where a record has no slot for it in the edition.
        """
        held: Sequence[Any] = records
        if None in records:
            held = [record for record in records if record is not None]
        rows = self._codec.rows(held, base, edition=edition)
        times: Sequence[Any] = rows.event_times
        ttl = self._view.ttl
        if held and None not in times and not expired(min(times), min(rows.untils), base, ttl):
            judged = [Status.PRESENT] * len(held)  # where the earliest times have not expired, none has
            if self.shares_statuses and len(held) == len(records):
                return [judged], rows.columns
        else:
            judged = [row_status(*row, base, ttl) for row in zip(rows.event_times, rows.untils, strict=True)]
        statuses = [judged] * len(self._defaults)
        if self._folded:
            statuses = self._with_folded(judged, rows)
        columns = filled(statuses, rows.columns, self._defaults)
        if len(held) == len(records):
            return statuses, columns
        number = iter(range(len(held)))
        places = [None if record is None else next(number) for record in records]
        return spread(places, statuses, columns, self._defaults)

    def _with_folded(self, judged: list[Status], rows: Rows) -> list[list[Status]]:
        """The statuses with those of the folded features, which were settled when they were materialized."""
        known = [status_of(time is not None) for time in rows.event_times]
        statuses = [known if i in self._folded else judged for i in range(len(self._defaults))]
        for row, i in rows.odd:
            if statuses[i] is known:
                statuses[i] = list(known)
            statuses[i][row] = non_present(self._view.features[i])
        return statuses

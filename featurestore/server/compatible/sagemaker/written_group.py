"""A feature group that is written to: a record of it as a row of the view's push source."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import orjson

from featurestore.clock import instant_of, to_datetime
from featurestore.plurals import plural
from featurestore.push.current_rows import CurrentRows
from featurestore.semantics.judge import row_status
from featurestore.semantics.status import Status
from featurestore.semantics.time import END
from featurestore.server.compatible.sagemaker.feature_values import json_form
from featurestore.server.compatible.sagemaker.identifiers import parts_of
from featurestore.server.compatible.values import member
from featurestore.server.compatible.written_views import WrittenView
from featurestore.server.problems import BadRequest
from featurestore.types import FarTimestamp, Scalar, Timestamp, from_json, micros_of, to_json

UNITS = {"Seconds": 1, "Minutes": 60, "Hours": 3_600, "Days": 86_400, "Weeks": 604_800}


Row = Mapping[str, Any]
"""A row of a push source, in JSON forms."""


class WrittenGroup(WrittenView):
    """A view that records are written to."""

    def row(self, record: Any) -> dict[str, Any]:
        """The row of a record; BadRequest."""
        if not isinstance(record, list) or not all(
            isinstance(each, dict) and isinstance(each.get("FeatureName"), str) for each in record
        ):
            raise BadRequest("Record must be a list of FeatureName with ValueAsString or ValueAsStringList")
        row: dict[str, Any] = {}
        for each in record:
            name = each["FeatureName"]
            column = self.columns.get(name)
            if column is None:
                raise BadRequest(
                    f"Feature group '{self.view.name}' has no feature '{name}' that can be written; it has {', '.join(self.columns)}"
                )
            if column in row:
                raise BadRequest(f"Feature '{name}' is given twice")
            row[column] = json_form(self.source.columns[column], name, each)
        return row

    def check(self, row: Row) -> None:
        """BadRequest where a row has no key or no time."""
        for column in (*(key.column for key in self.view.keys), self.source.event_time):
            if row.get(column) is None:
                raise BadRequest(f"The record has no '{column}', which is its identifier or its event time")

    def ends(self, row: dict[str, Any], duration: Any) -> None:
        """Note in a row until when it is valid, as its TtlDuration says."""
        if duration is None:
            return
        given = duration if isinstance(duration, dict) else {}
        unit, count = member(given, "Unit", str), member(given, "Value", int)
        if unit not in UNITS or count is None or count < 1:
            raise BadRequest(f"TtlDuration must have a Unit of {', '.join(UNITS)}, and a Value of 1 at least")
        if self.source.until is None:
            raise BadRequest(
                f"{self.source.title} has no column until=…, in which the end of a record's time to live is kept"
            )
        row[self.source.until] = _later(row[self.source.event_time], count * UNITS[unit])

    def key(self, identifier: Any) -> dict[str, Any]:
        """The key columns of a record's row; BadRequest."""
        parts = parts_of(identifier, [key.name for key in self.view.keys])
        if len(parts) != len(self.view.keys):
            raise BadRequest(f"The identifier must have {len(self.view.keys)} {plural(len(self.view.keys), 'part')}")
        texts = [part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts]
        return {
            key.column: json_form(self.source.columns[key.column], key.name, {"ValueAsString": text})
            for key, text in zip(self.view.keys, texts, strict=True)
        }

    def newest(self, read: CurrentRows) -> Row | None:
        """The newest of the rows that are there."""
        return self._forms(read.rows[-1]) if read.rows else None

    def _forms(self, row: Mapping[str, Scalar]) -> Row:
        return {name: to_json(self.source.columns[name], value) for name, value in row.items()}

    def time(self, row: Row) -> int:
        """When a row happened (µs)."""
        return _micros(row[self.source.event_time])

    def is_record(self, row: Row, now: int) -> bool:
        """Whether the newest row of a key is a record: it was not deleted softly, nor has it expired at an instant (µs)."""
        until, ttl = row.get(self.source.until or ""), self.view.ttl
        names = {self.source.event_time, self.source.until, *(key.column for key in self.view.keys)}
        if all(value is None for name, value in row.items() if name not in names):
            return False
        if self.view.folded:
            return True
        status = row_status(self.time(row), END if until is None else _micros(until), now, ttl)
        return status is Status.PRESENT

    def ended_row(self, key: Row, happened: str) -> Row:
        """The row that deletes a record softly; BadRequest where it would count as any other."""
        if self.view.folded:
            raise BadRequest(
                f"View '{self.view.name}' folds several rows ({self.view.folded[0].name}), and a soft deletion would be one of "
                "them; use HardDelete"
            )
        return {**key, self.source.event_time: happened, **({self.source.until: happened} if self.source.until else {})}

    def deletions(self, key: Row, read: CurrentRows, happened: str) -> list[Row]:
        """The rows that delete those that are there; BadRequest where one cannot be, or the record is newer than its deletion."""
        time, deleted, newest = self.source.event_time, self.source.deleted, self.newest(read)
        if deleted is None:
            raise BadRequest(f"{self.source.title} has no column deleted=…, so that its rows cannot be deleted")
        if self.source.cutover_instant is not None and min(read.known_at, default=END) <= self.source.cutover_instant:
            raise BadRequest(
                f"{self.source.title}: the record has rows in the history, in which nothing can be deleted"
            )
        if newest is not None and self.time(newest) > _micros(happened):
            raise BadRequest(f"The record is of {newest[time]}, and is not deleted by what happened before")
        names = dict.fromkeys([*self.source.identity, time, *key])
        return [{**self._forms({name: row[name] for name in names}), deleted: True} for row in read.rows]


def _micros(instant: str) -> int:
    return micros_of(cast("datetime | FarTimestamp", from_json(Timestamp, instant)))


def _later(instant: str, seconds: int) -> Any:
    moment = from_json(Timestamp, instant)
    try:
        return to_json(Timestamp, to_datetime(instant_of(moment) + seconds * 1_000_000))
    except (OverflowError, TypeError, AttributeError):
        raise BadRequest("TtlDuration ends beyond any time") from None

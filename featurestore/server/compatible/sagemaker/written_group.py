"""A feature group that is written to: a record of it as a row of the view's push source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from featurestore.clock import instant_of, to_datetime
from featurestore.declare.push import PushSource
from featurestore.semantics.view import ResolvedView
from featurestore.server.compatible.sagemaker.feature_values import json_form
from featurestore.server.compatible.sagemaker.identifiers import parts_of
from featurestore.server.compatible.values import member
from featurestore.server.problems import BadRequest
from featurestore.types import Timestamp, from_json, to_json

UNITS = {"Seconds": 1, "Minutes": 60, "Hours": 3_600, "Days": 86_400, "Weeks": 604_800}


class WrittenGroup(NamedTuple):
    """Its view, the push source, and by feature the column of the source. Rows are in JSON forms."""

    view: ResolvedView
    source: PushSource
    columns: Mapping[str, str]

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

    def check(self, row: Mapping[str, Any]) -> None:
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
            raise BadRequest(f"The identifier must have {len(self.view.keys)} parts")
        texts = [part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts]
        return {
            key.column: json_form(self.source.columns[key.column], key.name, {"ValueAsString": text})
            for key, text in zip(self.view.keys, texts, strict=True)
        }

    def is_ended(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is a soft deletion."""
        until, time = self.source.until, self.source.event_time
        others = [
            value for name, value in row.items() if name not in {until, time, *(key.column for key in self.view.keys)}
        ]
        return all(value is None for value in others)


def _later(instant: str, seconds: int) -> Any:
    moment = from_json(Timestamp, instant)
    try:
        return to_json(Timestamp, to_datetime(instant_of(moment) + seconds * 1_000_000))
    except (OverflowError, TypeError, AttributeError):
        raise BadRequest("TtlDuration ends beyond any time") from None

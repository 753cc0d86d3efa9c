"""Records: what a lookup found of each key, under the names of the group's features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from featurestore.clock import instant_of, to_datetime
from featurestore.semantics.status import Status
from featurestore.server.compatible.sagemaker.feature_values import feature_value
from featurestore.server.compatible.values import column_types, shown_names
from featurestore.server.problems import BadRequest
from featurestore.serving.online_result import OnlineResult
from featurestore.types import Timestamp, to_json

GONE = {Status.MISSING, Status.EXPIRED}


def records_of(
    result: OnlineResult, name: str, ids: Sequence[str], names: Sequence[str] | None, *, expires: bool
) -> Iterator[dict[str, Any] | None]:
    """The record of each row, None where there is none: no feature has a row that counts, or all are null."""
    features, types = shown_names(result, name), column_types(result)
    columns = {
        **dict(
            zip(result.inputs, zip(result.inputs.values(), result.service.inputs.values(), strict=True), strict=True)
        )
    }
    columns |= {
        shown: (result.columns[column], of) for shown, (column, of) in zip(features, types.items(), strict=True)
    }
    if names is not None:
        if unknown := [each for each in names if each not in columns]:
            raise BadRequest(f"Feature group '{name}' has no feature '{unknown[0]}'; it has {', '.join(columns)}")
        columns = {each: columns[each] for each in columns if each in names}
    times = _times(result)
    shown_columns = [
        (result.columns[column.name], statuses)
        for column, statuses in zip(result.service.columns, result.judged.columns(), strict=True)
        if column.on_demand is None and column.feature not in times
    ]
    for place, each in enumerate(ids):
        if shown_columns and all(
            statuses[place] in GONE or values[place] is None for values, statuses in shown_columns
        ):
            yield None
            continue
        record = [
            feature_value(feature, of, values[place])
            for feature, (values, of) in columns.items()
            if values[place] is not None
        ]
        ends = _ends(result, times, place) if expires else None
        yield {"RecordIdentifierValueAsString": each, "Record": record} | ({} if ends is None else {"ExpiresAt": ends})


def _times(result: OnlineResult) -> dict[str | None, str]:
    """Of one view, the features that are columns of its source that say when a row happened, and until when it is valid."""
    if len(result.service.parts) != 1:
        return {}
    view = result.service.parts[0].view
    said = {view.source.event_time: "event_time", view.source.until: "until"}
    return {feature.name: said[feature.fold.column] for feature in view.plain if feature.fold.column in said}


def _ends(result: OnlineResult, times: Mapping[str | None, str], place: int) -> str | None:
    """When a record expires, as far as its features tell: by its own end, or by the view's ttl."""
    view = result.service.parts[0].view
    found = {
        times[column.feature]: result.columns[column.name][place]
        for column in result.service.columns
        if column.feature in times
    }
    ends = [] if found.get("until") is None else [instant_of(found["until"])]
    if view.ttl is not None and found.get("event_time") is not None:
        ends.append(instant_of(found["event_time"]) + view.ttl)
    return to_json(Timestamp, to_datetime(min(ends))) if ends else None

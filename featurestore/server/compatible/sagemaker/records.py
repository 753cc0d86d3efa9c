"""Records: what a lookup found of each key, under the names of the group's features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from featurestore.clock import instant_of, to_datetime
from featurestore.errors import OnlineUnavailableError
from featurestore.semantics.status import Status
from featurestore.server.compatible.sagemaker.feature_values import feature_value
from featurestore.server.compatible.values import column_types, shown_names
from featurestore.server.problems import BadRequest
from featurestore.serving.online_result import OnlineResult
from featurestore.types import Timestamp, to_json


class FoundRecord(NamedTuple):
    """What was found of an identifier. record: its features, and when it expires; None where there is none. is_known: whether any
    row of the key counts, or did until it ended."""

    identifier: str
    record: dict[str, Any] | None
    is_known: bool


GONE = {Status.MISSING, Status.EXPIRED}


def records_of(
    result: OnlineResult, name: str, ids: Sequence[str], names: Sequence[str] | None, *, expires: bool
) -> Iterator[FoundRecord]:
    """What each row is: no record where no feature has a row that counts, or all are null."""
    if result.is_unavailable:  # whose defaults would say that there is no record
        raise OnlineUnavailableError("The online store could not be reached")
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
    judged = [
        (column.feature, result.columns[column.name], statuses)
        for column, statuses in zip(result.service.columns, result.judged.columns(), strict=True)
        if column.on_demand is None
    ]
    telling = [each for each in judged if each[0] not in times] or judged
    for place, each in enumerate(ids):
        is_known = not all(statuses[place] is Status.MISSING for _, _, statuses in judged)
        if judged and all(statuses[place] in GONE or values[place] is None for _, values, statuses in telling):
            yield FoundRecord(each, None, is_known)
            continue
        record = [
            feature_value(feature, of, values[place])
            for feature, (values, of) in columns.items()
            if values[place] is not None
        ]
        ends = _ends(result, times, place) if expires else None
        yield FoundRecord(each, {"Record": record, **({} if ends is None else {"ExpiresAt": ends})}, is_known)


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

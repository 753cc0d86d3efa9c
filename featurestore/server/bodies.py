"""Request and response bodies of a lookup: read and written without a model per row, because this is the hot path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa
from pydantic import BaseModel, Field

from featurestore.clock import to_datetime
from featurestore.errors import did_you_mean
from featurestore.operations.online_result import OnlineResult
from featurestore.server.problems import BadRequest
from featurestore.types import FeatureType, Timestamp, to_json

__all__ = [
    "ARROW",
    "FINGERPRINT",
    "REQUEST",
    "RESPONSE",
    "LookupRequest",
    "LookupResponse",
    "arrow_body",
    "json_body",
    "read_request",
]

ARROW = "application/vnd.apache.arrow.stream"
AS_THEY_ARE = {"Bool", "Int32", "Int64", "String"}


class LookupRequest(BaseModel):
    """The features of each row of keys and request values, in their JSON forms."""

    service: str = Field(examples=["delay_model"])
    fingerprint: str | None = Field(None, description="What the model was trained on; refused where it is not served")
    rows: list[dict[str, Any]] = Field(examples=[[{"carrier": "UA", "sched_minutes": 180}]])


class LookupResponse(BaseModel):
    """Rows of values in the order of `columns`, and a status for each of them."""

    service: str
    fingerprint: str
    columns: list[str] = Field(examples=[["carrier_delays__arr_delay"]])
    rows: list[list[Any]] = Field(examples=[[[12.0]]])
    statuses: list[list[str]] = Field(examples=[[["PRESENT"]]])
    as_of: dict[str, str] = Field(examples=[{"carrier_delays": "2013-12-01T11:00:00.000000Z"}])
    stale: dict[str, bool] = Field(examples=[{"carrier_delays": False}])


FINGERPRINT = "9d1c0b6f3a5e4c7f8a2b1d0e6f5c4b3a"
REQUEST = {
    "service": "delay_model",
    "fingerprint": FINGERPRINT,
    "rows": [{"carrier": "UA", "sched_minutes": 180}, {"carrier": "ZZ", "sched_minutes": 95}],
}
RESPONSE = {
    "service": "delay_model",
    "fingerprint": FINGERPRINT,
    "columns": ["carrier_delays__arr_delay", "relative_delay"],
    "rows": [[12.0, 0.06666666666666667], [None, None]],
    "statuses": [["PRESENT", "PRESENT"], ["MISSING", "PRESENT"]],
    "as_of": {"carrier_delays": "2013-12-01T11:00:00.000000Z"},
    "stale": {"carrier_delays": False},
}
"""The examples that the API's description shows."""

FIELDS = tuple(LookupRequest.model_fields)


def read_request(body: bytes) -> tuple[str, str | None, list[Any]]:
    """The service, the fingerprint and the rows of a request; BadRequest where it is none."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is no JSON: {error}") from None
    if not isinstance(asked, dict):
        raise BadRequest("The body must be an object with service and rows")
    for name in asked:
        if name not in FIELDS:
            raise BadRequest(f"The body has no field '{name}'.{did_you_mean(name, FIELDS, noun='Fields')}")
    service, fingerprint, rows = asked.get("service"), asked.get("fingerprint"), asked.get("rows")
    if not isinstance(service, str):
        raise BadRequest("service must be the name of a feature service")
    if fingerprint is not None and not isinstance(fingerprint, str):
        raise BadRequest("fingerprint must be text")
    if not isinstance(rows, list) or not rows:
        raise BadRequest("rows must be a list of at least one object")
    return service, fingerprint, rows


def json_body(result: OnlineResult) -> bytes:
    """The response as JSON."""
    columns = [_json(column.type, result.columns[column.name]) for column in result.service.columns]
    statuses = result.statuses
    return orjson.dumps(
        {
            "service": result.service.name,
            "fingerprint": result.service.fingerprint,
            "columns": list(result.columns),
            "rows": list(zip(*columns, strict=True)),
            "statuses": list(zip(*statuses.values(), strict=True)),
            "as_of": _as_of(result),
            "stale": result.stale,
        }
    )


def _json(of: FeatureType, values: Sequence[Any]) -> Sequence[Any]:
    if of.kind in AS_THEY_ARE:
        return values
    if of.is_float and all(value is None or math.isfinite(value) for value in values):
        return values
    return [to_json(of, value) for value in values]


def _as_of(result: OnlineResult) -> dict[str, str]:
    return {name: to_json(Timestamp, to_datetime(answer.as_of)) for name, answer in result.parts.items()}


def arrow_body(result: OnlineResult) -> bytes:
    """The response as an Arrow IPC stream of the features; what JSON has beside them is in the schema's metadata."""
    about = {
        "service": result.service.name,
        "fingerprint": result.service.fingerprint,
        "statuses": result.statuses,
        "as_of": _as_of(result),
        "stale": result.stale,
    }
    table = result.to_arrow().replace_schema_metadata({b"featurestore.lookup": orjson.dumps(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())

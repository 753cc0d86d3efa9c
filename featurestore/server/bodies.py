"""Request and response bodies of lookups and pushes: read and written without a model per row, as they are the hot paths.

The models describe them to OpenAPI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from featurestore import arrow_ipc
from featurestore.errors import RequestError, did_you_mean
from featurestore.number_texts import float_of
from featurestore.plurals import plural
from featurestore.server.json_answers import instant, types_of, within
from featurestore.server.limits import SMALL_BYTES
from featurestore.server.problems import BadRequest, LimitError
from featurestore.server.request_ids import REQUEST_ID
from featurestore.server.strict_json import read_body, read_json, read_whole
from featurestore.serving.online_result import OnlineResult
from featurestore.serving.request_id import checked_id
from featurestore.settings import ServerConfig

TIMEOUT = "X-Request-Timeout"
ARROW = "application/vnd.apache.arrow.stream"


ONE_OF_THEM: list[JsonValue] = [
    {"required": ["service"], "properties": {"service": {"type": "string"}, "features": {"type": "null"}}},
    {
        "required": ["features"],
        "properties": {
            "service": {"type": "null"},
            "features": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1}]},
        },
    },
]
"""What a lookup is of, as a schema: a service or features, and not both."""


class LookupRequest(BaseModel):
    """The features of each row of keys and request values, in their JSON forms."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"oneOf": ONE_OF_THEM})

    service: str | None = Field(None, description="A service, by its name", examples=["delay_model"])
    features: str | list[str] | None = Field(
        None,
        description='Instead of a service: the names of services, views and on-demand features, and "view:feature"',
        examples=[["carrier_delays:arr_delay"]],
    )
    fingerprint: str | None = Field(None, description="What the model was trained on; refused where it is not served")
    rows: list[dict[str, Any]] = Field(min_length=1, examples=[[{"carrier": "UA", "sched_minutes": 180}]])


class MaterializeRequest(BaseModel):
    """What is to be filled of the applied views."""

    model_config = ConfigDict(extra="forbid")

    views: list[str] | None = Field(None, min_length=1, description="Only these views", examples=[["carrier_delays"]])
    full: bool = Field(False, description="Every key, not only those that may have changed; what is served again")


class LookupResponse(BaseModel):
    """Rows of values in the order of `columns`, and a status for each of them."""

    service: str
    fingerprint: str
    columns: list[str] = Field(examples=[["carrier_delays__arr_delay"]])
    types: dict[str, str] = Field(
        description="Of what the request brings, and of each column",
        examples=[{"carrier": "String", "carrier_delays__arr_delay": "Float64"}],
    )
    rows: list[list[Any]] = Field(examples=[[[12.0]]])
    statuses: list[list[str]] = Field(examples=[[["PRESENT"]]])
    as_of: dict[str, str] = Field(
        description="View → the instant its values are true for; none for a view that is UNAVAILABLE",
        examples=[{"carrier_delays": "2013-12-01T11:00:00.000000Z"}],
    )
    stale: dict[str, bool] = Field(examples=[{"carrier_delays": False}])


class PushRequest(BaseModel):
    """Rows of a push source, by column, in their JSON forms; a column that is left out is null."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(examples=["swipes"])
    rows: list[dict[str, Any]] = Field(min_length=1, examples=[[{"card": "4711", "amount": 12.5}]])


class PushResponse(BaseModel):
    """What became of the rows; when it is sent, they are on the disk and the next lookup sees them."""

    accepted: int = Field(description="Kept, and counted from now on", examples=[1])
    unchanged: int = Field(description="Pushed before: nothing changes", examples=[0])
    late: int = Field(description="Older than the source's lateness: kept aside, never counted", examples=[0])
    without_key: int = Field(
        description="Of the accepted, those that count for no view: their key is null", examples=[0]
    )
    quarantined: int = Field(
        default=0, description="Not what the source expects: kept aside, and counted nowhere", examples=[0]
    )
    notices: list[str] = Field(description="What is to be known of the rows, in words", examples=[[]])


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
    "types": {
        "carrier": "String",
        "sched_minutes": "Int64",
        "carrier_delays__arr_delay": "Float64",
        "relative_delay": "Float64",
    },
    "rows": [[12.0, 0.06666666666666667], [None, None]],
    "statuses": [["PRESENT", "PRESENT"], ["MISSING", "PRESENT"]],
    "as_of": {"carrier_delays": "2013-12-01T11:00:00.000000Z"},
    "stale": {"carrier_delays": False},
}
"""The examples that the API's description shows."""

PUSH = {
    "source": "swipes",
    "rows": [{"swipe": "s-17", "card": "4711", "at": "2013-12-01T11:00:00.250000Z", "amount": 12.5}],
}
PUSHED = {"accepted": 1, "unchanged": 0, "late": 0, "quarantined": 0, "without_key": 0, "notices": []}

LOOKUP_FIELDS, PUSH_FIELDS = tuple(LookupRequest.model_fields), tuple(PushRequest.model_fields)
DEFAULTS = ServerConfig()


class AskedLookup(NamedTuple):
    """What a lookup asks for: a service or features, in which version, and of which rows.

    is_service: whether `features` is to be a service's name.
    """

    features: str | list[str]
    fingerprint: str | None
    rows: list[Any]
    is_service: bool

    def checked(self, result: OnlineResult) -> OnlineResult:
        """The answer; BadRequest where another word for features was called a service."""
        if self.is_service and result.service.name != self.features:
            raise BadRequest(f"'{self.features}' is no feature service; say features in place of service")
        return result


def read_request(body: bytes, config: ServerConfig = DEFAULTS) -> AskedLookup:
    """A lookup; BadRequest where it is none, or is beyond a limit."""
    asked = _read(body, LOOKUP_FIELDS, "service", limit=("lookup_rows", config.lookup_rows), row_bytes=config.row_bytes)
    features, fingerprint = asked.get("service"), asked.get("fingerprint")
    if not isinstance(features, str):
        features = _features(asked, features)
    elif asked.get("features") is not None:
        raise BadRequest("service and features are both given; say one")
    if len(features) > config.features and isinstance(features, list):
        raise LimitError(
            "features",
            f"{len(features)} {plural(len(features), 'feature is', 'features are')} asked for; at most {config.features} are, at a time",
        )
    if fingerprint is not None and not isinstance(fingerprint, str):
        raise BadRequest("fingerprint must be text")
    return AskedLookup(features, fingerprint, asked["rows"], asked.get("service") is not None)


def _features(asked: dict[str, Any], service: Any) -> str | list[str]:
    """What is asked for by other words than a service's name."""
    features = asked.get("features")
    if service is not None or features is None:
        raise BadRequest(
            'service must be the name of a feature service; features takes a list such as ["view", "view:feature"]'
        )
    if isinstance(features, str):
        return features
    if not isinstance(features, list) or not features or not all(isinstance(name, str) for name in features):
        raise BadRequest(
            'features must be a name, or a list of names: "view", "view:feature", a service or an on-demand feature'
        )
    return features


def request_id(given: bytes | None) -> str | None:
    """What the client calls its request, None where it does not; BadRequest where that is no id."""
    try:
        return None if given is None else checked_id(given.decode("latin-1"))
    except RequestError as error:
        raise BadRequest(f"{REQUEST_ID}: {error}") from None


def patience_seconds(given: bytes | None, most: float) -> float:
    """For how many seconds a client waits, and so many at most; BadRequest where that is no number above 0."""
    if given is None:
        return most
    try:
        seconds = float_of(given.decode("latin-1"))
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise BadRequest(f"{TIMEOUT} is a number of seconds above 0, such as 0.25")
    return min(seconds, most)


def read_push(body: bytes, config: ServerConfig = DEFAULTS) -> tuple[str, list[Any]]:
    """The source and the rows of a push; BadRequest where it is none, or is beyond a limit."""
    asked = _read(body, PUSH_FIELDS, "source", limit=("push_rows", config.push_rows), row_bytes=config.row_bytes)
    source = asked.get("source")
    if not isinstance(source, str):
        raise BadRequest("source must be the name of a push source")
    return source, asked["rows"]


def read_manifest(body: bytes, config: ServerConfig = DEFAULTS) -> dict[str, Any]:
    """The object that a manifest is, never anything else that a library might take for a path; BadRequest."""
    if len(body) > config.manifest_bytes:
        detail = f"The body is larger than the {config.manifest_bytes} {plural(config.manifest_bytes, 'byte')} that a manifest may have"
        raise LimitError("manifest_bytes", detail, status=413)
    return _object(read_whole(body), "{} is no manifest, which is an object")


def read_materialize(body: bytes) -> tuple[list[str] | None, bool]:
    """The names of views, None for all, and whether all of their keys are meant; BadRequest."""
    asked = _object(read_json(body) if body else {}, "The body must be an object, and is {}")
    fields = tuple(MaterializeRequest.model_fields)
    for name in asked:
        if name not in fields:
            raise BadRequest(f"The body has no field '{name}'.{did_you_mean(name, fields, noun='Fields')}")
    views, full = asked.get("views"), asked.get("full", False)
    if views is not None and not (isinstance(views, list) and views and all(isinstance(one, str) for one in views)):
        raise BadRequest("views must be a list of names of views, one at least; left out, all are meant")
    if not isinstance(full, bool):
        raise BadRequest("full must be true or false")
    return views, full


def _object(value: Any, refusal: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(refusal.format(type(value).__name__))
    return value


def _read(body: bytes, fields: Sequence[str], of: str, *, limit: tuple[str, int], row_bytes: int) -> dict[str, Any]:
    """The object of a body with its rows, at least one and not more than the limit: a setting and its value."""

    def check_rows(count: int) -> None:
        if count > limit[1]:
            raise LimitError(
                limit[0], f"The body has more than {limit[1]} {plural(limit[1], 'row')}; send fewer at a time"
            )

    is_small = len(body) <= SMALL_BYTES
    value = read_json(body) if is_small else read_body(body, row_bytes=row_bytes, check_rows=check_rows)
    asked = _object(value, f"The body must be an object with {of} and rows")
    for name in asked:
        if name not in fields:
            raise BadRequest(f"The body has no field '{name}'.{did_you_mean(name, fields, noun='Fields')}")
    rows = asked.get("rows")
    if not isinstance(rows, list) or not rows:
        raise BadRequest("rows must be a list of at least one object")
    check_rows(len(rows))
    return asked


def may_have_long_texts(body: bytes, most: int) -> bool:
    """Whether there may be a text of more than so many bytes; without a backslash, a text is what stands between two quotes."""
    return len(body) > most and (b"\\" in body or any(_unquoted(body, at) > most for at in range(0, len(body), most)))


def _unquoted(body: bytes, at: int) -> int:
    """How many bytes without a quote there are around a place. Of so many that are longer than a step, each step meets one."""
    end = body.find(b'"', at)
    return (len(body) if end < 0 else end) - body.rfind(b'"', 0, at + 1) - 1


def long_texts(rows: Sequence[Any], most: int) -> dict[str, tuple[int, int]]:
    """By column the first row whose text has more than so many bytes, and how many it has."""
    found: dict[str, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        for name, value in row.items() if isinstance(row, dict) else ():
            if isinstance(value, str) and len(value) * 4 > most and (size := len(value.encode())) > most:
                found.setdefault(name, (number, size))
    return found


def arrow_body(result: OnlineResult, most: int = DEFAULTS.answer_bytes) -> list[bytes]:
    """The response as an Arrow IPC stream of the features; what JSON has beside them is in the schema's metadata."""
    about = {
        "service": result.service.name,
        "fingerprint": result.service.fingerprint,
        "types": types_of(result.service),
        "statuses": result.statuses,
        "as_of": {name: instant(answer.as_of) for name, answer in result.parts.items() if answer.as_of is not None},
        "stale": result.stale,
    }
    table = result.to_arrow().replace_schema_metadata({b"featurestore.lookup": orjson.dumps(about)})
    return within([arrow_ipc.to_bytes(table)], most)

"""What is sent to the HTTP service, and what its answers say; the same for every way to send it."""

from __future__ import annotations

import base64
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar, cast
from urllib.parse import quote, urlsplit

import orjson

import featurestore.errors
from featurestore import arrow_ipc
from featurestore.client.retries import AGAIN
from featurestore.clock import wall_clock
from featurestore.declare.frames import table_of
from featurestore.declare.problems import shown
from featurestore.errors import (
    FeatureStoreError,
    FingerprintError,
    ForbiddenError,
    PushError,
    RequestError,
    ServerError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from featurestore.lazy import pa
from featurestore.push.pushed import Pushed
from featurestore.semantics.service import ServiceColumn
from featurestore.semantics.status import Status
from featurestore.semantics.values import EXACT_IN_FLOAT64, scalars
from featurestore.serving.online_result import Judged, OnlineResult, PartAnswer, PlainService
from featurestore.serving.request_id import checked_id
from featurestore.types import (
    Date,
    FarDate,
    FarTimestamp,
    Float64,
    Timestamp,
    column_of,
    from_json,
    micros_of,
    parse_type,
    plain,
    to_json,
)

if TYPE_CHECKING:
    from featurestore.semantics.service import ResolvedService

Format = Literal["json", "arrow"]
R = TypeVar("R")

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
ABOUT = b"featurestore.lookup"
"""The metadata of an Arrow answer in which what JSON has beside the values is."""

AS_THEY_ARE = {str, int, bool, type(None)}
"""Kinds of values that are their own JSON forms."""

REFUSED_LATER = {408, 429, 503, 507}
"""Statuses of requests that are right, and may be answered at another time."""


class Address(NamedTuple):
    """Where a service is, and what each request to it brings."""

    url: str
    path: str
    headers: Mapping[str, str]


def address_of(url: str, key: str | None) -> Address:
    """Of http:// or https:// with a host, a port and a path before the service's own. key: an API key or a token."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except (ValueError, TypeError, AttributeError):
        raise RequestError(f"url: {shown(url)} is no address such as 'https://features.example:6570'") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise RequestError(f"url: {url!r} is no address such as 'https://features.example:6570'")
    if parts.username is not None:
        raise RequestError("url: it holds a name or a password; give the key of the service as key=")
    if key is not None and (not key.isascii() or not key.isprintable() or " " in key or not key):
        hint = (
            "; what was read from a file has the end of a line, which .strip() takes off"
            if key.rstrip("\r\n") != key
            else ""
        )
        raise RequestError(
            f"key: it is no API key or token, which are printable ASCII characters without a space{hint}"
        )
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return Address(f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/"), headers)


class Call(NamedTuple, Generic[R]):
    """A request. body: None for a GET. read: its result, of an answer's body. refused: the error of what it asks wrongly."""

    path: str
    body: bytes | None
    headers: Mapping[str, str]
    read: Callable[[bytes, Mapping[str, str]], R]
    refused: type[FeatureStoreError] = RequestError

    def result(self, status: int, headers: Mapping[str, str], body: bytes) -> R:
        """Of an answer; raises the error that the service told of, as the store would have raised it."""
        if status in {200, 202}:
            try:
                return self.read(body, headers)
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                OverflowError,
                RecursionError,
                pa.ArrowException,
            ) as error:
                raise ServerError(f"{self.path} was answered by what is no answer of this service: {error}") from error
        raise error_of(status, headers, body, self)

    def may_repeat(self, status: int, body: bytes) -> bool:
        """Whether the same request may be sent again: not one whose rows are kept, or may be, since they would count twice where
        their source has no identity."""
        return status in AGAIN and _kept(body) in {None, "no"}


def _kept(body: bytes) -> Any:
    """What a problem says of rows: whether they were kept; None where it does not, or is no problem."""
    try:
        return orjson.loads(body).get("kept")
    except (ValueError, AttributeError):
        return None


def lookup_of(
    rows: Any, features: Any, *, fingerprint: str | None, request_id: str | None, form: Format
) -> Call[OnlineResult]:
    """The features of each row."""
    asked: dict[str, Any] = {}
    if isinstance(features, str):
        asked["service"] = features
    elif isinstance(features, Sequence) and features and all(isinstance(name, str) for name in features):
        asked["features"] = list(features)
    elif (manifest := _manifest(features)) is not None:
        asked["service"], known = manifest
        if fingerprint not in {None, known}:
            raise RequestError(f"The manifest is of {known}, and the fingerprint given is {fingerprint}")
        fingerprint = known
    else:
        raise RequestError(
            f"features is the name of a service, a list of names, or a manifest, and not {shown(features)}"
        )
    if fingerprint is not None:
        asked["fingerprint"] = fingerprint
    sent = json_rows(rows, RequestError)
    headers = {"Content-Type": JSON, "Accept": ARROW if form == "arrow" else JSON}
    if request_id is not None:
        headers["X-Request-ID"] = checked_id(request_id)
    read = functools.partial(_arrow_result if form == "arrow" else _json_result, sent)
    return Call("/v1/online-features", _body({**asked, "rows": sent}, RequestError), headers, read)


def _manifest(features: Any) -> tuple[str, str] | None:
    """The service and the fingerprint that a manifest names; None where it is none."""
    said = features if isinstance(features, Mapping) else vars(features) if hasattr(features, "__dict__") else {}
    service, fingerprint = said.get("service"), said.get("fingerprint")
    return (service, fingerprint) if isinstance(service, str) and isinstance(fingerprint, str) else None


def push_of(source: str, rows: Any) -> Call[Pushed]:
    """Rows of a push source."""
    if not isinstance(source, str):
        raise PushError(f"source is the name of a push source, and not {shown(source)}")
    body = _body({"source": source, "rows": json_rows(rows, PushError)}, PushError)
    return Call("/v1/push", body, {"Content-Type": JSON}, _pushed, PushError)


def materialize_of(views: Sequence[str] | None, full: bool) -> Call[list[str]]:
    """Filling what is due; the names of the views."""
    asked: dict[str, Any] = {"full": full} if views is None else {"views": list(views), "full": full}
    return Call(
        "/v1/materialize",
        _body(asked, RequestError),
        {"Content-Type": JSON},
        lambda body, _: list(orjson.loads(body)["views"]),
    )


def status_call() -> Call[list[dict[str, Any]]]:
    """How far each view has come."""
    return Call("/v1/status", None, {}, lambda body, _: list(orjson.loads(body)["views"]))


def listing_of(kind: Literal["services", "views"], name: str | None = None) -> Call[Any]:
    """What is applied; of one name its definition."""
    path = f"/v1/{kind}" if name is None else f"/v1/{kind}/{quote(name, safe='')}"
    return Call(path, None, {}, lambda body, _: orjson.loads(body) if name else orjson.loads(body)[kind])


def json_rows(rows: Any, refused: type[FeatureStoreError]) -> list[dict[str, Any]]:
    """Rows (a list of dicts, one dict, or a frame) with values in their JSON forms."""
    if isinstance(rows, Mapping) and not any(isinstance(value, (list, tuple)) for value in rows.values()):
        rows = [rows]
    elif not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)):
        rows = _frame_rows(rows, refused)
    sent = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise refused(f"Row {number} is {shown(row)} and no dict of names and values")
        try:
            sent.append({name: value if type(value) in AS_THEY_ARE else _json(value) for name, value in row.items()})
        except ValueError as error:
            raise refused(f"Row {number}: {error}") from None
    if not sent:
        raise refused("There are no rows; give one at least")
    return sent


def _frame_rows(frame: Any, refused: type[FeatureStoreError]) -> list[dict[str, Any]]:
    try:
        table = table_of(frame, owned=True)
    except TypeError:
        raise refused(f"{type(frame).__name__} is neither rows nor a frame; pass a list of dicts, or a frame") from None
    except ValueError as error:
        raise refused(f"The frame cannot be read: {error}") from None
    columns = [_whole(scalars(column)) if _is_float(column) else scalars(column) for column in table.columns]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _is_float(column: Any) -> bool:
    return bool(pa.types.is_floating(column.type))


def _whole(values: list[float | None]) -> list[Any]:
    """Whole numbers as integers, where all are: pandas makes floats of integers beside a null. The same number for a float."""
    for value in values:
        if value is not None and (
            not value.is_integer() or abs(value) > EXACT_IN_FLOAT64 or (not value and math.copysign(1, value) < 0)
        ):
            return values
    return [None if value is None else int(value) for value in values]


def _json(value: Any) -> Any:
    """A value's JSON form; ValueError where it has none."""
    if type(value) in AS_THEY_ARE:
        return value
    if isinstance(value, float):
        return to_json(Float64, float(value))
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, (datetime, FarTimestamp)) and (instant := Timestamp.accept(value)) is not None:
        return to_json(Timestamp, instant)
    if isinstance(value, (date, FarDate)):
        return None if value != value else to_json(Date, value)  # noqa: PLR0124 - NaT
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (str, int)):
        return str(value) if isinstance(value, str) else int(value)
    if hasattr(value, "tolist") and getattr(value, "ndim", None):
        return [_json(item) for item in (value if value.dtype.kind == "M" else value.tolist())]
    own = plain(value)
    if own is value:
        raise ValueError(f"{shown(value)} is no value of a feature store's types")
    return _json(own)


def _body(asked: dict[str, Any], refused: type[FeatureStoreError]) -> bytes:
    try:
        return orjson.dumps(asked)
    except TypeError as error:  # a number beyond 64 bits, a name that is no text, text that is no Unicode
        raise refused(f"The rows cannot be sent: {error}") from None


def _json_result(sent: list[dict[str, Any]], body: bytes, headers: Mapping[str, str]) -> OnlineResult:
    told = orjson.loads(body)
    service = _service_of(told, told["columns"])
    values = map(list, zip(*told["rows"], strict=True))
    columns: dict[str, Sequence[Any]] = {
        column.name: column_of(column.type, of_rows, json=True)
        for column, of_rows in zip(service.columns, values, strict=True)
    }
    return _result(told, service, columns, _judged_rows(told["statuses"]), sent, headers)


def _arrow_result(sent: list[dict[str, Any]], body: bytes, headers: Mapping[str, str]) -> OnlineResult:
    table = arrow_ipc.from_sent_bytes(body)
    told = orjson.loads(table.schema.metadata[ABOUT])
    columns: dict[str, Sequence[Any]] = {name: scalars(table[name]) for name in table.column_names}
    statuses = [told["statuses"][name] for name in columns]
    return _result(told, _service_of(told, columns), columns, _judged(statuses), sent, headers)


def _service_of(told: Mapping[str, Any], columns: Iterable[str]) -> PlainService:
    return _service(told["service"], told["fingerprint"], tuple(columns), tuple(told["types"].items()))


@functools.lru_cache(maxsize=256)
def _service(name: str, fingerprint: str, columns: tuple[str, ...], types: tuple[tuple[str, str], ...]) -> PlainService:
    """What answers say of a service, the same in most of them. types: of the inputs, and of the columns."""
    of = {name: parse_type(text) for name, text in types}
    of_columns = tuple(ServiceColumn(column, of.pop(column), None, None, None) for column in columns)
    return PlainService(name, fingerprint, of_columns, of)


def _result(
    told: Mapping[str, Any], service: PlainService, columns: dict[str, Sequence[Any]], judged: Judged,
    sent: list[dict[str, Any]], headers: Mapping[str, str],
) -> OnlineResult:  # fmt: skip
    inputs = {name: column_of(of, [row.get(name) for row in sent], json=True) for name, of in service.inputs.items()}
    parts = {  # which view a column is of is not told
        view: PartAnswer((), Judged((), ()), micros_of(from_json(Timestamp, instant)), stale=told["stale"][view])
        for view, instant in told["as_of"].items()
    }
    return OnlineResult(
        cast("ResolvedService", service), columns, inputs, parts, wall_clock(), {}, judged,
        headers.get("X-Request-ID"),
    )  # fmt: skip


def _judged_rows(rows: list[list[str]]) -> Judged:
    """The statuses by the texts of each row, which mostly are the same in all of them."""
    first = rows[0]
    if rows.count(first) < len(rows):
        return _judged(zip(*rows, strict=True))
    lists, places = _judged([text] for text in first)
    return Judged([one * len(rows) for one in lists], places)


def _judged(statuses: Iterable[Sequence[str]]) -> Judged:
    """The statuses by the texts of each column."""
    distinct: dict[tuple[str, ...], int] = {}
    places = [distinct.setdefault(tuple(texts), len(distinct)) for texts in statuses]
    return Judged([[STATUSES[text] for text in texts] for texts in distinct], tuple(places))


STATUSES = dict(Status.__members__)


class PushedThere(Pushed):
    """What a service says of rows that it was sent."""

    told: tuple[str, ...] = ()

    @property
    def notices(self) -> tuple[str, ...]:
        """What is to be known, in words."""
        return self.told


def _pushed(body: bytes, _: Mapping[str, str]) -> Pushed:
    told = orjson.loads(body)
    pushed = PushedThere(told["accepted"], told["unchanged"], told["late"])
    pushed.without_key, pushed.told = told["without_key"], tuple(told["notices"])
    pushed.quarantined = told.get("quarantined", 0)  # which a server of an older version does not say
    return pushed


def error_of(status: int, headers: Mapping[str, str], body: bytes, call: Call[Any]) -> FeatureStoreError:
    """The error that an answer tells of: the one that the store raised there, where it did."""
    try:
        told = orjson.loads(body)
        kind, detail = told["type"].removeprefix("urn:featurestore:"), told["detail"]
        changes = [(one["field"], one["before"], one["after"]) for one in told.get("changes", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        text = body[:200].decode("utf-8", "replace")
        kind, detail, changes = "", f"{call.path} was answered with status {status}: {text}", []
    if kind == "Fingerprint":
        return FingerprintError(detail, changes=changes)
    if kind == "Unauthenticated":
        return UnauthenticatedError(detail, challenge=headers.get("WWW-Authenticate", ""))
    if kind == "Forbidden":
        return ForbiddenError(detail, scope=headers.get("WWW-Authenticate", "").rpartition('scope="')[2].rstrip('"'))
    own = getattr(featurestore.errors, f"{kind}Error", None) if kind.isidentifier() else None
    if isinstance(own, type) and issubclass(own, FeatureStoreError):
        error = own.__new__(own, detail)  # what its class makes a message of, the service has made one of
        error.kept = _kept(body)
        return error
    if status in REFUSED_LATER:
        return ServerUnavailableError(detail)
    return call.refused(detail) if kind in {"limit", "bad-request"} else ServerError(detail)


UNTRUSTED = re.compile("self.signed certificate|unable to get (local )?issuer certificate")
"""What OpenSSL says of a certificate whose authority nobody named."""


def unreached(where: str, error: Exception) -> ServerUnavailableError:
    """The error of a service that no connection was made to, or whose connection broke."""
    own = (
        ". Where its authority is your own, name its file: authorities='ca.pem'" if UNTRUSTED.search(str(error)) else ""
    )
    return ServerUnavailableError(f"{where} cannot be reached: {error}{own}")

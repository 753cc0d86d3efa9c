"""Amazon SageMaker Feature Store: records of feature groups, as boto3 reads and writes them.

A feature group is a view, or a service; a record's identifier is its key, several columns of which are one JSON array. A record that is
written is a row of the view's push source.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs
from weakref import WeakValueDictionary

import orjson

from featurestore.access.authentication import Headers
from featurestore.clock import instant_of, to_datetime
from featurestore.declare.push import PushSource
from featurestore.errors import FeatureStoreError, NotFoundError
from featurestore.lazy import pa, pc
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.status import Status
from featurestore.semantics.values import canonical, scalars
from featurestore.semantics.view import ResolvedView
from featurestore.server.bodies import AskedLookup
from featurestore.server.compatible.routes import CompatibleRoute, Platform
from featurestore.server.compatible.values import (
    column_types,
    from_text,
    key_rows,
    member,
    read_object,
    shown_names,
    text_of,
    texts,
)
from featurestore.server.compatible.written_views import check_late, may_read, readable, resource_of, written_view
from featurestore.server.hot_routes import JSON, HotCall, HotRoutes, LookupForm
from featurestore.server.json_answers import within
from featurestore.server.problems import BadRequest, HttpAnswer, problem_of
from featurestore.serving.online_result import OnlineResult
from featurestore.store import FeatureStore
from featurestore.types import FeatureType, Scalar, Timestamp, from_json, to_json

CONTROL = "application/x-amz-json-1.1"
GROUP = "feature-group/"
ARN = "arn:aws:sagemaker:local:000000000000:" + GROUP
IDS, GROUPS, ENTRIES, PAGE = 100, 100, 25, 100
"""What a request may have at most, as the platform has it: identifiers of a group, groups of a batch, records of a batch that is
written, and identifiers of a page."""

UNITS = {"Seconds": 1, "Minutes": 60, "Hours": 3_600, "Days": 86_400, "Weeks": 604_800}
NAMES = {403: "AccessForbidden", 404: "ResourceNotFound", 409: "ConflictException", 503: "ServiceUnavailable"}
STATUSES = {401: 403, 421: 403, 429: 503, 507: 503}
"""By the status of a problem the one that the platform has for it; of others below 500 it is 400, above 500."""

TOKEN = re.compile(r"[0-9]{1,18}")
"""A NextToken: how many came before."""

GONE = {Status.MISSING, Status.EXPIRED}


class ConflictError(BadRequest):
    """A record that is older than the one it would change."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, 409)


def routes(hot: HotRoutes) -> list[CompatibleRoute]:
    """What is answered to the platform's clients."""
    platform = Platform(_problem, _credentials, frozenset({CONTROL.encode()}))
    records, of_group = _Records(hot), "/FeatureGroup/{name:path}"
    told = [
        ("POST", "/BatchGetRecord", "read", records.batch_get),
        ("POST", "/BatchWriteRecord", "push", records.batch_write),
        ("POST", of_group + "/ListRecords", "read", records.listed),
        ("POST", of_group + "/Record", "push", records.update),
        ("GET", of_group, "read", records.get),
        ("PUT", of_group, "push", records.put),
        ("DELETE", of_group, "push", records.delete),
        ("POST", "/", "read", records.control),
    ]
    return [
        CompatibleRoute(platform, method, path, needs, partial(hot.take, answers))
        for method, path, needs, answers in told
    ]


def _credentials(headers: Headers) -> Headers:
    """A key of ours is the session token, which is sent as it is; the signature says nothing to us."""
    found: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name == b"x-amz-security-token":
            found.append((b"x-api-key", value))
        elif name != b"authorization" or not value.startswith(b"AWS4-"):
            found.append((name, value))
    return found


def _problem(answer: HttpAnswer, _: Exception) -> HttpAnswer:
    name, status = _named(answer.status)
    refusal = _refusal(name, orjson.loads(answer.pieces[0])["detail"], status)
    return refusal._replace(headers={**answer.headers, **refusal.headers})


def _refusal(name: str, detail: str, status: int) -> HttpAnswer:
    body = {"Message": detail[:2048], "__type": name}
    return HttpAnswer(status, JSON, [orjson.dumps(body)], {"x-amzn-ErrorType": name})


def _named(status: int) -> tuple[str, int]:
    """The platform's name and status of a problem of ours."""
    status = STATUSES.get(status, status if status in NAMES else 500 if status >= 500 else 400)
    return NAMES.get(status, "InternalFailure" if status >= 500 else "ValidationError"), status


class _Group(NamedTuple):
    """A feature group that is written to: its view, the push source, and by feature the column of the source."""

    view: ResolvedView
    source: PushSource
    columns: Mapping[str, str]

    def row(self, record: Any) -> dict[str, Any]:
        """The row of a record, in JSON forms; BadRequest."""
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
            row[column] = _json_form(self.source.columns[column], name, each)
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


def _later(instant: str, seconds: int) -> Any:
    moment = from_json(Timestamp, instant)
    try:
        return to_json(Timestamp, to_datetime(instant_of(moment) + seconds * 1_000_000))
    except (OverflowError, TypeError, AttributeError):
        raise BadRequest("TtlDuration ends beyond any time") from None


def _json_form(of: FeatureType, name: str, given: Mapping[str, Any]) -> Any:
    several, text = given.get("ValueAsStringList"), given.get("ValueAsString")
    try:
        if several is not None:
            if of.element is None or not isinstance(several, list):
                raise ValueError("it is no list")
            form: Any = [from_text(of.element, each) for each in several]
        else:
            form = None if text is None else from_text(of, text)
        from_json(of, form)  # which says what is wrong with it
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise BadRequest(f"'{name}' must be {of}: {error}") from None
    return form


class _Records:
    """The operations on records, over the lookups and pushes of a server."""

    def __init__(self, hot: HotRoutes) -> None:
        self._hot = hot
        self._store: FeatureStore = hot.store
        self._turns: WeakValueDictionary[tuple[Any, ...], asyncio.Lock] = WeakValueDictionary()

    # --- reading ------------------------------------------------------------------------------

    async def get(self, call: HotCall, _: bytes) -> HttpAnswer:
        """GetRecord."""
        asked = _query(call)
        names, expires = asked.get("FeatureName"), asked.get("ExpirationTimeResponse") == ["Enabled"]
        found = await self._found(call, _group_name(call), _identifiers(asked), names, expires=expires)
        record = found[0]
        told = (
            {}
            if record is None
            else {key: value for key, value in record.items() if key != "RecordIdentifierValueAsString"}
        )
        return _answer(told)

    async def batch_get(self, call: HotCall, body: bytes) -> HttpAnswer:
        """BatchGetRecord: what one group cannot be asked for is an error of that group's identifiers."""
        asked = read_object(body)
        groups = _bounded(asked.get("Identifiers"), "Identifiers", GROUPS)
        expires = asked.get("ExpirationTimeResponse") == "Enabled"
        records: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for group in groups:
            given = group.get("FeatureGroupName")
            ids = _bounded(group.get("RecordIdentifiersValueAsString"), "RecordIdentifiersValueAsString", IDS, of=str)
            if not isinstance(given, str):
                raise BadRequest("An identifier must have a FeatureGroupName")
            try:
                names = texts(group, "FeatureNames")
                found = await self._found(call, _short(given), ids, names, expires=expires)
            except (BadRequest, FeatureStoreError) as error:
                code, detail = _told(error)
                errors += [
                    {
                        "FeatureGroupName": given,
                        "RecordIdentifierValueAsString": each,
                        "ErrorCode": code,
                        "ErrorMessage": detail,
                    }
                    for each in ids
                ]
                continue
            records += [{"FeatureGroupName": given, **record} for record in found if record is not None]
        told = {"Records": records, "Errors": errors, "UnprocessedIdentifiers": []}
        return _answer(told, self._hot.config.answer_bytes)

    async def _found(
        self, call: HotCall, name: str, ids: Sequence[str], names: Sequence[str] | None, *, expires: bool
    ) -> list[dict[str, Any] | None]:
        """The record of each identifier, None where there is none."""
        service = await call.room.beside(partial(readable, self._store, name, call.principal))
        rows = key_rows(service.inputs, [_parts_of(each, service) for each in ids], self._hot.config)
        asked = AskedLookup(name, None, rows, is_service=False)
        found: list[dict[str, Any] | None] = []

        def write(result: OnlineResult, _: int) -> list[bytes]:
            found.extend(_records(result, name, ids, names, expires=expires))
            return []

        await self._hot.looked_up(LookupForm(lambda *_: asked, write, JSON), call, b"")
        return found

    async def listed(self, call: HotCall, body: bytes) -> HttpAnswer:
        """ListRecords: a page of the identifiers that have a record, in the order of their keys."""
        asked, name = read_object(body or b"{}"), _group_name(call)
        start, count = _page(asked)
        every = await call.room.beside(partial(self._keys, call, name))
        ids = every[start : start + count]
        found = await self._found(call, name, ids, None, expires=False) if ids else []
        is_shown = [record is not None or bool(asked.get("IncludeSoftDeletedRecords")) for record in found]
        told: dict[str, Any] = {"RecordIdentifiers": [each for each, shown in zip(ids, is_shown, strict=True) if shown]}
        if start + count < len(every):
            told["NextToken"] = str(start + count)
        return _answer(told)

    def _keys(self, call: HotCall, name: str) -> list[str]:
        """Every identifier that any row ever had."""
        service = readable(self._store, name, call.principal)
        now = to_datetime(self._store.online.get([]).now)
        table = self._store.snapshot(name, at=now).to_arrow()
        columns = [scalars(canonical(table[key], of)) for key, of in service.key_inputs.items()]
        types = list(service.key_inputs.values())
        return [_identifier(types, key) for key in zip(*columns, strict=True)]

    # --- writing ------------------------------------------------------------------------------

    async def put(self, call: HotCall, body: bytes) -> HttpAnswer:
        """PutRecord."""
        asked = read_object(body)
        await self._put(call, _group_name(call), asked, asked.get("TtlDuration"))
        return _answer(None)

    async def batch_write(self, call: HotCall, body: bytes) -> HttpAnswer:
        """BatchWriteRecord: each entry is written or refused by itself, in their order."""
        asked = read_object(body)
        errors = []
        for entry in _bounded(asked.get("Entries"), "Entries", ENTRIES):
            try:
                name = entry.get("FeatureGroupName")
                if not isinstance(name, str):
                    raise BadRequest("An entry must have a FeatureGroupName")
                await self._put(call, _short(name), entry, entry.get("TtlDuration") or asked.get("TtlDuration"))
            except (BadRequest, FeatureStoreError) as error:
                code, detail = _told(error)
                errors.append({"Entry": entry, "ErrorCode": code, "ErrorMessage": detail})
        return _answer({"Errors": errors, "UnprocessedEntries": []})

    async def _put(self, call: HotCall, name: str, asked: Mapping[str, Any], duration: Any) -> None:
        group = await self._group(call, name, texts(asked, "TargetStores"))
        row = group.row(asked.get("Record"))
        group.check(row)
        group.ends(row, duration)
        async with self._turn(group, row):
            await self._push(call, group, [row])

    async def update(self, call: HotCall, body: bytes) -> HttpAnswer:
        """UpdateRecord: the features that are given, the others as the record has them."""
        asked = read_object(body)
        group = await self._group(call, _group_name(call), texts(asked, "TargetStores"))
        given = group.row(asked.get("Features"))
        key = _key_of(group, asked.get("RecordIdentifierValueAsString"))
        async with self._turn(group, key):
            await self._update(call, group, key, given, asked.get("TtlDuration"))
        return _answer(None)

    async def _update(
        self, call: HotCall, group: _Group, key: Mapping[str, Any], given: dict[str, Any], duration: Any
    ) -> None:
        rows = await call.room.beside(partial(self._rows, group, key))
        if not rows or _is_ended(group, rows[-1]):
            raise NotFoundError(f"Feature group '{group.view.name}' has no such record")
        last, time = rows[-1], group.source.event_time
        if from_json(Timestamp, given.get(time) or last[time]) < from_json(Timestamp, last[time]):
            raise ConflictError(f"The record is of {last[time]}, and is not changed by what happened before")
        row = {**last, **given}
        if any(given.get(column, part) != part for column, part in key.items()):
            raise BadRequest("An update cannot change the record's identifier; put another record")
        group.check(row)
        group.ends(row, duration)
        await self._push(call, group, [row])

    def _turn(self, group: _Group, row: Mapping[str, Any]) -> asyncio.Lock:
        """Held by whoever reads a record and writes it, and by whoever writes it: else what was written in between would be lost."""
        columns, source = [key.column for key in group.view.keys], group.source
        turn = (source.name, *(from_json(source.columns[column], row[column]) for column in columns))
        return self._turns.setdefault(turn, asyncio.Lock())

    async def delete(self, call: HotCall, _: bytes) -> HttpAnswer:
        """DeleteRecord: a soft one is a row that has ended; a hard one takes every row up to its time out of the record."""
        asked = _query(call)
        group = await self._group(call, _group_name(call), asked.get("TargetStores"))
        key = _key_of(group, _identifiers(asked)[0])
        happened = _json_form(Timestamp, "EventTime", {"ValueAsString": asked.get("EventTime", [None])[0]})
        if happened is None:
            raise BadRequest("A deletion must have an EventTime")
        mode = asked.get("DeletionMode", ["SoftDelete"])[0]
        time, until = group.source.event_time, group.source.until
        if mode == "SoftDelete":
            if group.view.folded:
                raise BadRequest(
                    f"View '{group.view.name}' folds several rows ({group.view.folded[0].name}), and a soft deletion would be one of "
                    "them; use HardDelete"
                )
            async with self._turn(group, key):
                await self._push(
                    call, group, [{**key, time: happened, **({until: happened} if until is not None else {})}]
                )
            return _answer(None)
        if mode != "HardDelete":
            raise BadRequest("DeletionMode must be SoftDelete or HardDelete")
        deleted = group.source.deleted
        if deleted is None:
            raise BadRequest(f"{group.source.title} has no column deleted=…, so that its rows cannot be deleted")
        before = from_json(Timestamp, happened)
        async with self._turn(group, key):
            rows = await call.room.beside(partial(self._rows, group, key))
            gone = [
                {**{column: row[column] for column in (*group.source.identity, time, *key)}, deleted: True}
                for row in rows if from_json(Timestamp, row[time]) <= before
            ]  # fmt: skip
            if gone:
                await self._push(call, group, gone)
        return _answer(None)

    async def _push(self, call: HotCall, group: _Group, rows: list[Any]) -> None:
        body = orjson.dumps(rows)  # whose size says how it is taken
        pushed = await self._hot.pushed(lambda *_: (group.source.name, rows), call, body)
        check_late(pushed)

    async def _group(self, call: HotCall, name: str, stores: Sequence[str] | None) -> _Group:
        """The group that is written to; BadRequest where it cannot be. Who may not write to it is told nothing else of it."""
        if stores is not None and "OnlineStore" not in stores:
            raise BadRequest("TargetStores must have OnlineStore: what is kept in the history is served, too")
        return await call.room.beside(partial(self._writable, call, name))

    def _writable(self, call: HotCall, name: str) -> _Group:
        view, source, columns = written_view(self._store, name, call.principal)
        keys = [key.column for key in view.keys]
        if not source.identity or {*source.identity} <= {*keys}:
            raise BadRequest(
                f"{source.title} must have identity={[*keys, source.event_time]!r}, so that a record written again changes nothing, "
                "and an older one only the history"
            )
        return _Group(view, source, {name: column for name, column in columns.items() if column != source.deleted})

    def _rows(self, group: _Group, key: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a key as their last versions are, in JSON forms, in the order of their event times."""
        source, log = group.source, self._store.offline.log(group.source)
        wanted = {
            column: pa.scalar(from_json(source.columns[column], value), source.columns[column].arrow)
            for column, value in key.items()
        }
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for segment in log.segments():
            if not segment.rows or segment.first is None:
                continue
            rows = log.read(segment.first - 1, segment.last)
            for column, value in wanted.items():
                rows = rows.filter(pc.equal(rows[column], value))
            columns = {
                name: [to_json(of, value) for value in scalars(canonical(rows[name], of))]
                for name, of in source.columns.items()
            }
            for row in (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)):
                found[tuple(row[column] for column in source.identity)] = row  # in the order in which they were learned
        live = [
            row
            for row in found.values()
            if row[source.event_time] is not None and not (source.deleted and row[source.deleted])
        ]
        return sorted(live, key=lambda row: instant_of(from_json(Timestamp, row[source.event_time])))

    # --- groups -------------------------------------------------------------------------------

    async def control(self, call: HotCall, body: bytes) -> HttpAnswer:
        """CreateFeatureGroup, DescribeFeatureGroup and ListFeatureGroups, of what is applied."""
        operation = call.headers.get(b"x-amz-target", b"").decode("latin-1").rpartition(".")[2]
        answers: dict[str, Callable[[HotCall, dict[str, Any]], dict[str, Any]]] = {
            "CreateFeatureGroup": self._created, "DescribeFeatureGroup": self._described, "ListFeatureGroups": self._groups,
        }  # fmt: skip
        if operation not in answers:
            raise BadRequest(f"There is no operation '{operation}' here; there are {', '.join(answers)}")
        try:
            told = await call.room.beside(lambda: answers[operation](call, read_object(body)))
        except ConflictError as error:
            return _refusal("ResourceInUse", str(error), 400)
        return _answer(told)._replace(media_type=CONTROL)

    def _created(self, call: HotCall, asked: dict[str, Any]) -> dict[str, Any]:
        name = _short(member(asked, "FeatureGroupName", str) or "")
        may_read(self._store, name, call.principal)
        if name in self._applied():
            raise ConflictError(f"'{name}' is applied already; a group is changed where it is declared, and applied")
        raise BadRequest(f"A group is a view: declare '{name}' in definitions.py, and run featurestore apply")

    def _described(self, call: HotCall, asked: dict[str, Any]) -> dict[str, Any]:
        name = _short(member(asked, "FeatureGroupName", str) or "")
        may_read(self._store, name, call.principal)
        if name not in self._applied():
            raise NotFoundError(f"No feature view or service '{name}' was applied.")
        service = self._store.lookup(name).service
        is_view = service.name != name
        source = service.parts[0].view.source if is_view else None
        types = {
            **service.inputs,
            **{(column.feature or column.name) if is_view else column.name: column.type for column in service.columns},
        }
        if isinstance(source, PushSource) and source.event_time not in types:
            types[source.event_time] = Timestamp
        ttl = service.parts[0].view.ttl if is_view else None
        return {
            **self._summary(name),
            "RecordIdentifierFeatureName": ",".join(service.key_inputs),
            "EventTimeFeatureName": (source.event_time if source is not None else None) or "event_time",
            "FeatureDefinitions": [_definition(each, of) for each, of in types.items()],
            "OnlineStoreConfig": {
                "EnableOnlineStore": True,
                **({"TtlDuration": {"Unit": "Seconds", "Value": ttl // 1_000_000}} if ttl else {}),
            },
            "NextToken": "",
        }

    def _groups(self, call: HotCall, asked: dict[str, Any]) -> dict[str, Any]:
        named, (start, count) = member(asked, "NameContains", str) or "", _page(asked)
        names = [
            name
            for name in self._applied()
            if named in name and call.principal.may("read", resource_of(self._store, name))
        ]
        told: dict[str, Any] = {"FeatureGroupSummaries": [self._summary(name) for name in names[start : start + count]]}
        return told | ({"NextToken": str(start + count)} if start + count < len(names) else {})

    def _applied(self) -> list[str]:
        return sorted({*self._document("views"), *self._document("services")})

    def _document(self, kind: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._store.registry.current().document[kind]
        return found

    def _summary(self, name: str) -> dict[str, Any]:
        applied = self._store.registry.current().applied_at
        return {
            "FeatureGroupName": name, "FeatureGroupArn": ARN + name, "FeatureGroupStatus": "Created",
            "CreationTime": applied / 1e6,
        }  # fmt: skip


def _records(
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
            _value(feature, of, values[place]) for feature, (values, of) in columns.items() if values[place] is not None
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


def _value(name: str, of: FeatureType, value: Scalar) -> dict[str, Any]:
    if of.element is not None and isinstance(value, list) and None not in value:
        return {"FeatureName": name, "ValueAsStringList": [text_of(of.element, item) for item in value]}
    return {"FeatureName": name, "ValueAsString": text_of(of, value)}


def _definition(name: str, of: FeatureType) -> dict[str, Any]:
    inner = of.element or of
    kind = "Integral" if inner.kind in {"Int32", "Int64"} else "Fractional" if inner.is_float else "String"
    return {"FeatureName": name, "FeatureType": kind, **({"CollectionType": "List"} if of.element is not None else {})}


def _group_name(call: HotCall) -> str:
    return _short(call.scope["path_params"]["name"])


def _short(name: str) -> str:
    """The name of a group, of its name or its ARN."""
    return name.partition(GROUP)[2] if name.startswith("arn:") else name


def _query(call: HotCall) -> dict[str, list[str]]:
    return parse_qs(call.scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _identifiers(asked: Mapping[str, list[str]]) -> list[str]:
    given = asked.get("RecordIdentifierValueAsString", [])
    if len(given) != 1:
        raise BadRequest("There must be one RecordIdentifierValueAsString")
    return given


def _parts_of(identifier: str, service: ResolvedService) -> list[Any]:
    """The parts of an identifier: itself, or those of a JSON array."""
    return _split(identifier, list(service.inputs))


def _split(identifier: Any, columns: Sequence[str]) -> list[Any]:
    if not isinstance(identifier, str):
        raise BadRequest("There must be a RecordIdentifierValueAsString")
    if len(columns) == 1:
        return [identifier]
    try:
        parts = orjson.loads(identifier)
    except orjson.JSONDecodeError:
        parts = None
    if not isinstance(parts, list):
        raise BadRequest(
            f'An identifier of {len(columns)} columns ({", ".join(columns)}) is a JSON array, such as ["UA", 17]'
        )
    return parts


def _identifier(types: Sequence[FeatureType], key: Sequence[Scalar]) -> str:
    if len(types) == 1:
        return text_of(types[0], key[0])
    return orjson.dumps([to_json(of, part) for of, part in zip(types, key, strict=True)]).decode()


def _key_of(group: _Group, identifier: Any) -> dict[str, Any]:
    """The key columns of a row, in JSON forms."""
    parts = _split(identifier, [key.name for key in group.view.keys])
    if len(parts) != len(group.view.keys):
        raise BadRequest(f"The identifier must have {len(group.view.keys)} parts")
    texts = [part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts]
    return {
        key.column: _json_form(group.source.columns[key.column], key.name, {"ValueAsString": text})
        for key, text in zip(group.view.keys, texts, strict=True)
    }


def _is_ended(group: _Group, row: Mapping[str, Any]) -> bool:
    """Whether a row is a soft deletion."""
    until, time = group.source.until, group.source.event_time
    others = [
        value for name, value in row.items() if name not in {until, time, *(key.column for key in group.view.keys)}
    ]
    return all(value is None for value in others)


def _bounded(given: Any, name: str, most: int, *, of: type = dict) -> list[Any]:
    if not isinstance(given, list) or not given or not all(isinstance(each, of) for each in given):
        raise BadRequest(f"{name} must be a list of one at least")
    if len(given) > most:
        raise BadRequest(f"{name} has {len(given)} members; at most {most} are taken")
    return given


def _page(asked: Mapping[str, Any]) -> tuple[int, int]:
    """Where a page begins, as the NextToken of the one before it says, and how many it has at most."""
    count, token = member(asked, "MaxResults", int) or PAGE, member(asked, "NextToken", str) or "0"
    if not 1 <= count <= PAGE:
        raise BadRequest(f"MaxResults must be 1 to {PAGE}")
    if not TOKEN.fullmatch(token):
        raise BadRequest("NextToken is none that was given")
    return int(token), count


def _told(error: Exception) -> tuple[str, str]:
    """The platform's name of an error, and our words."""
    answer = problem_of(error, "")
    return _named(answer.status)[0], orjson.loads(answer.pieces[0])["detail"]


def _answer(told: Any, most: int = 1 << 30) -> HttpAnswer:
    return HttpAnswer(200, JSON, within([b"" if told is None else orjson.dumps(told)], most))

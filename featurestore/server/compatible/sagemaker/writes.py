"""The operations that write records, as rows of push sources."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import orjson

from featurestore.clock import instant_of
from featurestore.errors import FeatureStoreError, NotFoundError
from featurestore.lazy import pa, pc
from featurestore.semantics.values import canonical, scalars
from featurestore.server.compatible.sagemaker.answers import ConflictError, answer, named_error
from featurestore.server.compatible.sagemaker.feature_groups import short_name
from featurestore.server.compatible.sagemaker.feature_values import json_form
from featurestore.server.compatible.sagemaker.identifiers import asked_identifier
from featurestore.server.compatible.sagemaker.limits import ENTRIES, bounded
from featurestore.server.compatible.sagemaker.requests import asked_group, query_of
from featurestore.server.compatible.sagemaker.written_group import WrittenGroup
from featurestore.server.compatible.values import read_object, texts
from featurestore.server.compatible.written_views import check_late, written_view
from featurestore.server.hot_routes import HotCall, HotRoutes
from featurestore.server.problems import BadRequest, HttpAnswer
from featurestore.store import FeatureStore
from featurestore.types import Timestamp, from_json, to_json


class RecordWrites:
    """PutRecord, BatchWriteRecord, UpdateRecord and DeleteRecord."""

    def __init__(self, hot: HotRoutes) -> None:
        self._hot = hot
        self._store: FeatureStore = hot.store
        self._turns: WeakValueDictionary[tuple[Any, ...], asyncio.Lock] = WeakValueDictionary()

    async def put(self, call: HotCall, body: bytes) -> HttpAnswer:
        """PutRecord."""
        asked = read_object(body)
        await self._put(call, asked_group(call), asked, asked.get("TtlDuration"))
        return answer(None)

    async def batch_write(self, call: HotCall, body: bytes) -> HttpAnswer:
        """BatchWriteRecord: each entry is written or refused by itself, in their order."""
        asked = read_object(body)
        errors = []
        for entry in bounded(asked.get("Entries"), "Entries", ENTRIES):
            try:
                name = entry.get("FeatureGroupName")
                if not isinstance(name, str):
                    raise BadRequest("An entry must have a FeatureGroupName")
                await self._put(call, short_name(name), entry, entry.get("TtlDuration") or asked.get("TtlDuration"))
            except (BadRequest, FeatureStoreError) as error:
                code, detail = named_error(error)
                errors.append({"Entry": entry, "ErrorCode": code, "ErrorMessage": detail})
        return answer({"Errors": errors, "UnprocessedEntries": []})

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
        group = await self._group(call, asked_group(call), texts(asked, "TargetStores"))
        given = group.row(asked.get("Features"))
        key = group.key(asked.get("RecordIdentifierValueAsString"))
        async with self._turn(group, key):
            await self._update(call, group, key, given, asked.get("TtlDuration"))
        return answer(None)

    async def _update(
        self, call: HotCall, group: WrittenGroup, key: Mapping[str, Any], given: dict[str, Any], duration: Any
    ) -> None:
        rows = await call.room.beside(partial(self._rows, group, key))
        if not rows or group.is_ended(rows[-1]):
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

    def _turn(self, group: WrittenGroup, row: Mapping[str, Any]) -> asyncio.Lock:
        """Held by whoever reads a record and writes it, and by whoever writes it: else what was written in between would be lost."""
        columns, source = [key.column for key in group.view.keys], group.source
        turn = (source.name, *(from_json(source.columns[column], row[column]) for column in columns))
        return self._turns.setdefault(turn, asyncio.Lock())

    async def delete(self, call: HotCall, _: bytes) -> HttpAnswer:
        """DeleteRecord: a soft one is a row that has ended; a hard one takes every row up to its time out of the record."""
        asked = query_of(call)
        group = await self._group(call, asked_group(call), asked.get("TargetStores"))
        key = group.key(asked_identifier(asked))
        happened = json_form(Timestamp, "EventTime", {"ValueAsString": asked.get("EventTime", [None])[0]})
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
            return answer(None)
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
        return answer(None)

    async def _push(self, call: HotCall, group: WrittenGroup, rows: list[Any]) -> None:
        body = orjson.dumps(rows)  # whose size says how it is taken
        pushed = await self._hot.pushed(lambda *_: (group.source.name, rows), call, body)
        check_late(pushed)

    async def _group(self, call: HotCall, name: str, stores: Sequence[str] | None) -> WrittenGroup:
        """The group that is written to; BadRequest where it cannot be. Who may not write to it is told nothing else of it."""
        if stores is not None and "OnlineStore" not in stores:
            raise BadRequest("TargetStores must have OnlineStore: what is kept in the history is served, too")
        return await call.room.beside(partial(self._writable, call, name))

    def _writable(self, call: HotCall, name: str) -> WrittenGroup:
        view, source, columns = written_view(self._store, name, call.principal)
        keys = [key.column for key in view.keys]
        if not source.identity or {*source.identity} <= {*keys}:
            raise BadRequest(
                f"{source.title} must have identity={[*keys, source.event_time]!r}, so that a record written again changes nothing, "
                "and an older one only the history"
            )
        return WrittenGroup(
            view, source, {name: column for name, column in columns.items() if column != source.deleted}
        )

    def _rows(self, group: WrittenGroup, key: Mapping[str, Any]) -> list[dict[str, Any]]:
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

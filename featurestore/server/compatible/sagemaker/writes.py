"""The operations that write records, as rows of push sources.

A row of ours says what its record is from now on. What is made of rows that are there is pushed in their place: kept only where
they are the current ones still, whatever other processes do meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from featurestore.errors import FeatureStoreError, NotFoundError, RowsChangedError
from featurestore.push.current_rows import CurrentRows, current_rows
from featurestore.registry.rebind import rebind
from featurestore.server.compatible.sagemaker.answers import ConflictError, answer, named_error
from featurestore.server.compatible.sagemaker.feature_groups import short_name
from featurestore.server.compatible.sagemaker.feature_values import json_form
from featurestore.server.compatible.sagemaker.identifiers import asked_identifier
from featurestore.server.compatible.sagemaker.limits import ENTRIES, bounded
from featurestore.server.compatible.sagemaker.requests import asked_group, query_of
from featurestore.server.compatible.sagemaker.written_group import Row, WrittenGroup
from featurestore.server.compatible.values import read_object, texts
from featurestore.server.compatible.written_views import written_view
from featurestore.server.hot_routes import HotCall, HotRoutes
from featurestore.server.problems import BadRequest, HttpAnswer
from featurestore.store import FeatureStore
from featurestore.types import Scalar, Timestamp, from_json


class RecordWrites:
    """PutRecord, BatchWriteRecord, UpdateRecord and DeleteRecord."""

    def __init__(self, hot: HotRoutes) -> None:
        self._hot = hot
        self._store: FeatureStore = hot.store
        self._turns: WeakValueDictionary[tuple[Any, ...], asyncio.Lock] = WeakValueDictionary()

    async def put(self, call: HotCall, body: bytes) -> HttpAnswer:
        """PutRecord."""

        def read() -> tuple[WrittenGroup, Row]:
            asked = read_object(body)
            return self._record(call, asked_group(call), asked, asked.get("TtlDuration"))

        group, row = await call.room.beside(read)
        await self._push(call, group, [row], overwrite=True)
        return answer(None)

    async def batch_write(self, call: HotCall, body: bytes) -> HttpAnswer:
        """BatchWriteRecord: each entry is written or refused by itself, in their order."""
        asked = await call.room.beside(partial(read_object, body))
        errors = []
        for entry in bounded(asked.get("Entries"), "Entries", ENTRIES):
            try:
                name, duration = entry.get("FeatureGroupName"), entry.get("TtlDuration", asked.get("TtlDuration"))
                if not isinstance(name, str):
                    raise BadRequest("An entry must have a FeatureGroupName")
                group, row = await call.room.beside(partial(self._record, call, short_name(name), entry, duration))
                await self._push(call, group, [row], overwrite=True)
            except (BadRequest, FeatureStoreError) as error:
                code, detail = named_error(error)
                errors.append({"Entry": entry, "ErrorCode": code, "ErrorMessage": detail})
        return await call.room.beside(partial(answer, {"Errors": errors, "UnprocessedEntries": []}))

    def _record(self, call: HotCall, name: str, asked: Mapping[str, Any], duration: Any) -> tuple[WrittenGroup, Row]:
        group = self._group(call, name, texts(asked, "TargetStores"))
        row = group.row(asked.get("Record"))
        group.check(row)
        group.ends(row, duration)
        return group, row

    async def update(self, call: HotCall, body: bytes) -> HttpAnswer:
        """UpdateRecord: the features that are given, the others as the record has them."""

        def read() -> tuple[WrittenGroup, Row, Row, Any]:
            asked = read_object(body)
            group = self._group(call, asked_group(call), texts(asked, "TargetStores"))
            given, duration = group.row(asked.get("Features")), asked.get("TtlDuration")
            key = group.key(asked.get("RecordIdentifierValueAsString"))
            if any(given.get(column, part) != part for column, part in key.items()):
                raise BadRequest("An update cannot change the record's identifier; put another record")
            if duration is not None and given.get(group.source.event_time) is None:
                name = group.source.event_time
                raise BadRequest(f"TtlDuration counts from '{name}', which must be among the Features then")
            return group, key, given, duration

        def changed(current: CurrentRows) -> list[Row]:
            last = group.newest(current)
            if last is None or not group.is_record(last, self._store.online.get([]).now):
                raise NotFoundError(f"Feature group '{group.view.name}' has no such record")
            row = {**last, **given}
            group.check(row)
            if group.time(row) < group.time(last):
                of = last[group.source.event_time]
                raise ConflictError(f"The record is of {of}, and is not changed by what happened before")
            group.ends(row, duration)
            return [row]

        group, key, given, duration = await call.room.beside(read)
        await self._change(call, group, key, changed)
        return answer(None)

    async def delete(self, call: HotCall, _: bytes) -> HttpAnswer:
        """DeleteRecord: a soft one is a row that has ended; a hard one deletes every row of the record."""
        asked = query_of(call)
        group = await call.room.beside(partial(self._group, call, asked_group(call), asked.get("TargetStores")))
        key = group.key(asked_identifier(asked))
        happened = json_form(Timestamp, "EventTime", {"ValueAsString": asked.get("EventTime", [None])[0]})
        if happened is None:
            raise BadRequest("A deletion must have an EventTime")
        mode = asked.get("DeletionMode", ["SoftDelete"])[0]
        if mode == "SoftDelete":
            await self._push(call, group, [group.ended_row(key, happened)], overwrite=True)
        elif mode == "HardDelete":
            await self._change(call, group, key, lambda current: group.deletions(key, current, happened))
        else:
            raise BadRequest("DeletionMode must be SoftDelete or HardDelete")
        return answer(None)

    async def _change(
        self, call: HotCall, group: WrittenGroup, key: Row, change: Callable[[CurrentRows], list[Row]]
    ) -> None:
        """Push what is made of the current rows of a key; where others changed these meanwhile, what is made of those, for as long
        as the request has time."""
        values = [from_json(group.source.columns[of.column], key[of.column]) for of in group.view.keys]

        def made() -> tuple[CurrentRows, list[Row]]:
            view = rebind(group.view, self._store.catalog, self._store.offline)
            current = current_rows(self._store.offline, view, values)
            return current, change(current)

        async with self._turn(group, values):
            while True:
                current, rows = await call.room.beside(made)
                with suppress(RowsChangedError):
                    if rows:
                        await self._push(call, group, rows, overwrite=current)
                    return

    def _turn(self, group: WrittenGroup, values: Sequence[Scalar]) -> asyncio.Lock:
        """Held by the request that changes a record: those of one process do not let each other begin anew."""
        return self._turns.setdefault((group.source.name, *values), asyncio.Lock())

    async def _push(
        self, call: HotCall, group: WrittenGroup, rows: list[Row], *, overwrite: bool | CurrentRows
    ) -> None:
        await self._hot.pushed(lambda *_: (group.source.name, rows), call, b"", overwrite=overwrite)

    def _group(self, call: HotCall, name: str, stores: Sequence[str] | None) -> WrittenGroup:
        """The group that is written to; BadRequest where it cannot be. Who may not write to it is told nothing else of it."""
        if stores is not None and "OnlineStore" not in stores:
            raise BadRequest("TargetStores must have OnlineStore: what is kept in the history is served, too")
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

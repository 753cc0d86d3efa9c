"""The operations that read records, over the lookups of a server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from featurestore.clock import to_datetime
from featurestore.errors import FeatureStoreError
from featurestore.semantics.values import canonical, scalars
from featurestore.server.bodies import AskedLookup
from featurestore.server.compatible.sagemaker.answers import answer, named_error
from featurestore.server.compatible.sagemaker.feature_groups import asked_group, short_name
from featurestore.server.compatible.sagemaker.identifiers import asked_identifier, identifier_of, parts_of
from featurestore.server.compatible.sagemaker.limits import GROUPS, IDENTIFIERS, bounded, page
from featurestore.server.compatible.sagemaker.records import records_of
from featurestore.server.compatible.values import key_rows, read_object, texts
from featurestore.server.compatible.written_views import readable
from featurestore.server.hot_routes import JSON, HotCall, HotRoutes, LookupForm
from featurestore.server.problems import BadRequest, HttpAnswer
from featurestore.serving.online_result import OnlineResult
from featurestore.store import FeatureStore


class RecordReads:
    """GetRecord, BatchGetRecord and ListRecords."""

    def __init__(self, hot: HotRoutes) -> None:
        self._hot = hot
        self._store: FeatureStore = hot.store

    async def get(self, call: HotCall, _: bytes) -> HttpAnswer:
        """GetRecord."""
        asked = parse_qs(call.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        names, expires = asked.get("FeatureName"), asked.get("ExpirationTimeResponse") == ["Enabled"]
        found = await self._found(call, asked_group(call), [asked_identifier(asked)], names, expires=expires)
        record = found[0]
        told = (
            {}
            if record is None
            else {key: value for key, value in record.items() if key != "RecordIdentifierValueAsString"}
        )
        return answer(told)

    async def batch_get(self, call: HotCall, body: bytes) -> HttpAnswer:
        """BatchGetRecord: what one group cannot be asked for is an error of that group's identifiers."""
        asked = read_object(body)
        groups = bounded(asked.get("Identifiers"), "Identifiers", GROUPS)
        expires = asked.get("ExpirationTimeResponse") == "Enabled"
        records: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for group in groups:
            given = group.get("FeatureGroupName")
            ids = bounded(
                group.get("RecordIdentifiersValueAsString"), "RecordIdentifiersValueAsString", IDENTIFIERS, of=str
            )
            if not isinstance(given, str):
                raise BadRequest("An identifier must have a FeatureGroupName")
            try:
                names = texts(group, "FeatureNames")
                found = await self._found(call, short_name(given), ids, names, expires=expires)
            except (BadRequest, FeatureStoreError) as error:
                code, detail = named_error(error)
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
        return answer(told, self._hot.config.answer_bytes)

    async def _found(
        self, call: HotCall, name: str, ids: Sequence[str], names: Sequence[str] | None, *, expires: bool
    ) -> list[dict[str, Any] | None]:
        """The record of each identifier, None where there is none."""
        service = await call.room.beside(partial(readable, self._store, name, call.principal))
        rows = key_rows(service.inputs, [parts_of(each, list(service.inputs)) for each in ids], self._hot.config)
        asked = AskedLookup(name, None, rows, is_service=False)
        found: list[dict[str, Any] | None] = []

        def write(result: OnlineResult, _: int) -> list[bytes]:
            found.extend(records_of(result, name, ids, names, expires=expires))
            return []

        await self._hot.looked_up(LookupForm(lambda *_: asked, write, JSON), call, b"")
        return found

    async def listed(self, call: HotCall, body: bytes) -> HttpAnswer:
        """ListRecords: a page of the identifiers that have a record, in the order of their keys."""
        asked, name = read_object(body or b"{}"), asked_group(call)
        start, count = page(asked)
        every = await call.room.beside(partial(self._keys, call, name))
        ids = every[start : start + count]
        found = await self._found(call, name, ids, None, expires=False) if ids else []
        is_shown = [record is not None or bool(asked.get("IncludeSoftDeletedRecords")) for record in found]
        told: dict[str, Any] = {"RecordIdentifiers": [each for each, shown in zip(ids, is_shown, strict=True) if shown]}
        if start + count < len(every):
            told["NextToken"] = str(start + count)
        return answer(told)

    def _keys(self, call: HotCall, name: str) -> list[str]:
        """Every identifier that any row ever had."""
        service = readable(self._store, name, call.principal)
        now = to_datetime(self._store.online.get([]).now)
        table = self._store.snapshot(name, at=now).to_arrow()
        columns = [scalars(canonical(table[key], of)) for key, of in service.key_inputs.items()]
        types = list(service.key_inputs.values())
        return [identifier_of(types, key) for key in zip(*columns, strict=True)]

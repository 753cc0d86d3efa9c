"""The operations that read records, over the lookups of a server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from featurestore.errors import FeatureStoreError, SpineError
from featurestore.registry.rebind import rebind
from featurestore.semantics.service import resolve_service
from featurestore.server.bodies import AskedLookup
from featurestore.server.compatible.sagemaker.answers import answer, named_error
from featurestore.server.compatible.sagemaker.feature_groups import short_name
from featurestore.server.compatible.sagemaker.identifiers import (
    asked_identifier,
    identifier_of,
    parts_of,
)
from featurestore.server.compatible.sagemaker.limits import GROUPS, IDENTIFIERS, bounded, page_size
from featurestore.server.compatible.sagemaker.listed_keys import KeyPage, ListedKeys
from featurestore.server.compatible.sagemaker.records import FoundRecord, records_of
from featurestore.server.compatible.sagemaker.requests import asked_group, query_of
from featurestore.server.compatible.values import key_rows, member, read_object, texts
from featurestore.server.compatible.written_views import readable
from featurestore.server.hot_routes import JSON, HotCall, HotRoutes, LookupForm
from featurestore.server.problems import BadRequest, HttpAnswer
from featurestore.serving.online_result import OnlineResult
from featurestore.store import FeatureStore
from featurestore.types import FeatureType


class RecordReads:
    """GetRecord, BatchGetRecord and ListRecords."""

    def __init__(self, hot: HotRoutes) -> None:
        self._hot = hot
        self._store: FeatureStore = hot.store
        self._listed = ListedKeys()

    async def get(self, call: HotCall, _: bytes) -> HttpAnswer:
        """GetRecord."""
        asked = query_of(call)
        names, expires = asked.get("FeatureName"), asked.get("ExpirationTimeResponse") == ["Enabled"]
        found = await self._found(call, asked_group(call), [asked_identifier(asked)], names, expires=expires)
        return answer(found[0].record or {})

    async def batch_get(self, call: HotCall, body: bytes) -> HttpAnswer:
        """BatchGetRecord: what one group cannot be asked for is an error of that group's identifiers, or of one of them."""
        asked = await call.room.beside(partial(read_object, body))
        groups = bounded(asked.get("Identifiers"), "Identifiers", GROUPS)
        expires = asked.get("ExpirationTimeResponse") == "Enabled"
        records: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for group in groups:
            name, most = "RecordIdentifiersValueAsString", IDENTIFIERS
            given, ids = group.get("FeatureGroupName"), bounded(group.get(name), name, most, of=str)
            if not isinstance(given, str):
                raise BadRequest("An identifier must have a FeatureGroupName")
            wrong: dict[str, Exception] = {}
            try:
                names = texts(group, "FeatureNames")
                found = await self._found(call, short_name(given), ids, names, expires=expires, wrong=wrong)
            except (BadRequest, FeatureStoreError) as error:
                wrong, found = dict.fromkeys(ids, error), []
            records += [
                {"FeatureGroupName": given, "RecordIdentifierValueAsString": each.identifier, **each.record}
                for each in found if each.record is not None
            ]  # fmt: skip
            for each, why in wrong.items():
                code, detail = named_error(why)
                errors.append({
                    "FeatureGroupName": given, "RecordIdentifierValueAsString": each,
                    "ErrorCode": code, "ErrorMessage": detail,
                })  # fmt: skip
        told = {"Records": records, "Errors": errors, "UnprocessedIdentifiers": []}
        return await call.room.beside(partial(answer, told, self._hot.config.answer_bytes))

    async def _found(
        self, call: HotCall, name: str, ids: Sequence[str], names: Sequence[str] | None, *, expires: bool,
        wrong: dict[str, Exception] | None = None,
    ) -> list[FoundRecord]:  # fmt: skip
        """What is found of each identifier. wrong: where those go that are none of the group, and why; None: the first is raised."""
        rows = await call.room.beside(partial(self._rows, call, name, ids, wrong))
        found: list[FoundRecord] = []
        if not rows:
            return found
        asked = AskedLookup(name, None, list(rows.values()), is_service=False)

        def write(result: OnlineResult, _: int) -> list[bytes]:
            found.extend(records_of(result, name, list(rows), names, expires=expires))
            return []

        await self._hot.looked_up(LookupForm(lambda *_: asked, write, JSON), call, b"")
        return found

    def _rows(
        self, call: HotCall, name: str, ids: Sequence[str], wrong: dict[str, Exception] | None
    ) -> dict[str, dict[str, Any]]:
        """The row of a lookup for each identifier."""
        service = readable(self._store, name, call.principal)
        rows: dict[str, dict[str, Any]] = {}
        for each in dict.fromkeys(ids):
            try:
                (rows[each],) = key_rows(service.inputs, [parts_of(each, list(service.inputs))], self._hot.config)
            except BadRequest as error:
                if wrong is None:
                    raise
                wrong[each] = error
        return rows

    async def listed(self, call: HotCall, body: bytes) -> HttpAnswer:
        """ListRecords: of the next keys that any row ever had, the identifiers of those that have a record."""
        asked, name = read_object(body or b"{}"), asked_group(call)
        count, token = page_size(asked), member(asked, "NextToken", str)
        ended = member(asked, "IncludeSoftDeletedRecords", bool) or False
        types, page = await call.room.beside(partial(self._page, call, name, token, count))
        ids = [identifier_of(types, key) for key in page.keys]
        found = await self._found(
            call, name, ids, None, expires=False, wrong={}
        )  # what GetRecord refuses is not told of
        shown = [each.identifier for each in found if each.record is not None or (ended and each.is_known)]
        told: dict[str, Any] = {"RecordIdentifiers": shown}
        if page.next_token is not None:
            told["NextToken"] = page.next_token
        return answer(told)

    def _page(self, call: HotCall, name: str, token: str | None, most: int) -> tuple[list[FeatureType], KeyPage]:
        """The types of a key, and the keys after a token."""
        service, store = readable(self._store, name, call.principal), self._store
        if service.request_inputs:
            names = ", ".join(service.request_inputs)
            raise BadRequest(
                f"The identifiers of '{name}' have request values ({names}), which are not kept; list those of a view"
            )
        types = list(service.key_inputs.values())
        views = {part.view.name: rebind(part.view, store.catalog, store.offline) for part in service.parts}
        try:
            present = resolve_service(service.declared, views)
            return types, self._listed.page(present, store.offline, token=token, most=most)
        except SpineError as error:
            raise BadRequest(str(error)) from None

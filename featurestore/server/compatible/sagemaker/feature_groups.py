"""Feature groups: what is applied, as the platform's control plane tells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from featurestore.declare.push import PushSource
from featurestore.errors import NotFoundError
from featurestore.server.compatible.sagemaker.answers import CONTROL, ConflictError, answer, refusal
from featurestore.server.compatible.sagemaker.limits import page_size
from featurestore.server.compatible.values import member, read_object
from featurestore.server.compatible.written_views import may_read, resource_of
from featurestore.server.hot_routes import HotCall, HotRoutes
from featurestore.server.problems import BadRequest, HttpAnswer
from featurestore.store import FeatureStore
from featurestore.types import FeatureType, Timestamp

GROUP = "feature-group/"
ARN = "arn:aws:sagemaker:local:000000000000:" + GROUP


def short_name(name: str) -> str:
    """The name of a group, of its name or its ARN."""
    return name.partition(GROUP)[2] if name.startswith("arn:") else name


class FeatureGroups:
    """The operations on feature groups. They are declared, and applied; here they are told of."""

    def __init__(self, hot: HotRoutes) -> None:
        self._store: FeatureStore = hot.store

    async def control(self, call: HotCall, body: bytes) -> HttpAnswer:
        """CreateFeatureGroup, DescribeFeatureGroup and ListFeatureGroups, of what is applied."""
        operation = call.headers.get(b"x-amz-target", b"").decode("latin-1").rpartition(".")[2]
        answers: dict[str, Callable[[HotCall, dict[str, Any]], dict[str, Any]]] = {
            "CreateFeatureGroup": self._created, "DescribeFeatureGroup": self._described, "ListFeatureGroups": self._listed,
        }  # fmt: skip
        if operation not in answers:
            raise BadRequest(f"There is no operation '{operation}' here; there are {', '.join(answers)}")
        try:
            told = await call.room.beside(lambda: answers[operation](call, read_object(body)))
        except ConflictError as error:
            return refusal("ResourceInUse", str(error), 400)
        return answer(told)._replace(media_type=CONTROL)

    def _created(self, call: HotCall, asked: dict[str, Any]) -> dict[str, Any]:
        name = short_name(member(asked, "FeatureGroupName", str) or "")
        may_read(self._store, name, call.principal)
        if name in self._applied():
            raise ConflictError(f"'{name}' is applied already; a group is changed where it is declared, and applied")
        raise BadRequest(f"A group is a view: declare '{name}' in definitions.py, and run featurestore apply")

    def _described(self, call: HotCall, asked: dict[str, Any]) -> dict[str, Any]:
        name = short_name(member(asked, "FeatureGroupName", str) or "")
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

    def _listed(self, call: HotCall, asked: dict[str, Any]) -> dict[str, Any]:
        named, after = member(asked, "NameContains", str) or "", member(asked, "NextToken", str) or ""
        count = page_size(asked)
        names = [
            name
            for name in self._applied()
            if named in name and name > after and call.principal.may("read", resource_of(self._store, name))
        ]
        told: dict[str, Any] = {"FeatureGroupSummaries": [self._summary(name) for name in names[:count]]}
        return told | ({"NextToken": names[count - 1]} if len(names) > count else {})

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


def _definition(name: str, of: FeatureType) -> dict[str, Any]:
    inner = of.element or of
    kind = "Integral" if inner.kind in {"Int32", "Int64"} else "Fractional" if inner.is_float else "String"
    return {"FeatureName": name, "FeatureType": kind, **({"CollectionType": "List"} if of.element is not None else {})}

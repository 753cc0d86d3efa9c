"""A small repository of definitions, and the document that it makes."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace

import pytest

from featurestore.catalog import Catalog
from featurestore.declare.entity import Entity
from featurestore.declare.folds import Latest
from featurestore.declare.on_demand import Request, RequestTime, on_demand
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import ParquetSource
from featurestore.declare.views import FeatureView
from featurestore.registry.documents import document_of
from featurestore.semantics.service import resolve_service
from featurestore.semantics.view import resolve
from featurestore.types import Float64, Int64, String

RAW = {
    "at": "TIMESTAMP WITH TIME ZONE", "seen": "TIMESTAMP WITH TIME ZONE", "carrier": "VARCHAR", "airport": "VARCHAR",
    "id": "BIGINT", "delay": "DOUBLE", "count": "INTEGER", "gone": "BOOLEAN", "rev": "BIGINT", "ends": "DATE",
}  # fmt: skip


def document(definitions, raw=RAW):
    catalog = Catalog.of(definitions)
    views = {name: resolve(view, raw) for name, view in catalog.views.items()}
    services = {name: resolve_service(service, views) for name, service in catalog.services.items()}
    return document_of(catalog, views, services)


def repository(**words):
    """Definitions of every kind; each word changes one thing."""
    carrier = Entity("carrier", key={"carrier": String}, tags=words.get("entity_tags", {}))
    route = Entity("route", key={"origin": String, "number": Int64})
    landings = ParquetSource(
        "landings", words.get("path", "landings.parquet"), event_time="at", known_at="seen",
        history_until=dt.datetime(2013, 1, 1, tzinfo=dt.UTC), identity=["id"], version="rev", deleted="gone", until="ends",
        tiebreak="id", settle="5m", known_after=words.get("known_after", "2m"), period="1h",
    )  # fmt: skip
    delays = FeatureView(
        "delays", entity=carrier, source=landings, refresh="1h", ready_after="10m", ttl=words.get("ttl", "2d"),
        description=words.get("description", ""), owner="ops@example.com", stale="withhold",
        features=words.get("features") or {"delay": Latest("delay", default=-0.0), "count": Latest("count", type=Int64)},
    )  # fmt: skip
    routes = FeatureView(
        "routes", entity=route, source=landings, key={"origin": "airport", "number": "id"}, refresh="1d",
        refresh_offset="5h", features=["delay"],
    )  # fmt: skip

    def relative(delay, minutes, now):
        return None if delay is None else delay / minutes

    def doubled(delay, minutes, now):
        return None if delay is None else 2 * delay / minutes

    function = doubled if words.get("doubled") else relative
    inputs = [delays["delay"], Request("minutes", Int64), RequestTime()]
    ratio = on_demand(function, name="ratio", inputs=inputs, output=Float64, description="Per minute.")
    listed = [delays["count"], ratio, routes, delays.alias("back", key={"carrier": "return_carrier"})]
    model = FeatureService("model", features=words.get("listed", listed), tags={"team": "ops"})
    return SimpleNamespace(
        carrier=carrier, route=route, landings=landings, delays=delays, routes=routes, ratio=ratio, model=model,
        all=[carrier, route, landings, delays, routes, ratio, model],
    )  # fmt: skip


@pytest.fixture
def repo():
    return repository


@pytest.fixture
def make_document():
    return document


@pytest.fixture
def raw():
    return RAW

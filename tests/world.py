"""A random history as the product's own definitions: what ties `tests.histories` to featurestore."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore.declare.entity import Entity
from featurestore.declare.folds import Latest
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import DataFrameSource, ParquetSource, Source
from featurestore.declare.views import FeatureView
from featurestore.semantics.service import ResolvedService, resolve_service
from featurestore.semantics.view import resolve
from featurestore.sources.offline import Offline
from featurestore.types import parse_type
from tests.histories import History, to_arrow
from tests.oracle import sort_key

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def us(duration: int | None) -> str | None:
    """A duration as the product reads it."""
    return None if duration is None else f"{duration}us"


def source_words(history: History) -> dict[str, Any]:
    """What the history's source says, in the product's words."""
    said = history.source
    until = said.history_until
    words = {
        "event_time": said.event_time,
        "known_at": said.known_at,
        "known_after": us(said.known_after_us),
        "history_until": None if until is None else EPOCH + timedelta(microseconds=until),
        "identity": said.identity,
        "version": said.version,
        "tiebreak": said.tiebreak,
        "deleted": said.deleted,
        "until": said.until,
        "valid_from": said.valid_from,
        "timezone": said.timezone,
        "date": said.date,
        "period": us(said.period_us),
    }
    return {word: value for word, value in words.items() if value is not None} | {"event_time": said.event_time}


def declare(history: History, *, paths: list[Path] | None = None, name: str = "view") -> FeatureView:
    """The history's view over a frame, or over Parquet files."""
    words = source_words(history)
    source: Source
    if paths is None:
        source = DataFrameSource(f"{name}_rows", to_arrow(history.rows, history.types), **words)
    else:
        source = ParquetSource(f"{name}_rows", [str(path) for path in paths], **words)
    said = history.view
    entity = Entity(f"{name}_entity", key={key: parse_type(history.types[column]) for key, column in said.key.items()})
    timing: dict[str, Any] = {"refresh": "continuous"}
    if said.refresh_us is not None:
        timing = {
            "refresh": us(said.refresh_us),
            "refresh_offset": us(said.offset_us),
            "settle": us(said.settle_us),
        }
        if said.ready_after_us is not None:
            timing["ready_after"] = us(said.ready_after_us)
    return FeatureView(
        name,
        entity=entity,
        source=source,
        key=said.key,
        features={
            feature: Latest(column, default=said.defaults.get(feature)) for feature, column in said.features.items()
        },
        ttl=us(said.ttl_us),
        **timing,
    )


def resolved(view: FeatureView, offline: Offline) -> ResolvedService:
    """A service of this one view, its types settled."""
    return resolve_service(
        FeatureService("service", features=[view]), {view.name: resolve(view, offline.raw_types(view.source))}
    )


def spine_of(history: History) -> pa.Table:
    """The history's questions as an Arrow spine."""
    columns: dict[str, Any] = {}
    for n, (key, column) in enumerate(history.view.key.items()):
        columns[key] = pa.array([k[n] for k, _ in history.spine], parse_type(history.types[column]).arrow)
    columns["event_timestamp"] = pa.array([t for _, t in history.spine], pa.int64()).cast(pa.timestamp("us", "UTC"))
    return pa.table(columns)


def bits(history: History, feature: str, value: Any) -> tuple[int, bytes] | Any:
    """A value of a feature, comparable to the bit."""
    return sort_key(history.types[history.view.features[feature]], value)

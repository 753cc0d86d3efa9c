"""A store of a few rows, asked along both paths: what the tests of single behaviours share."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.semantics.values import scalars
from featurestore.types import FeatureType, Int64

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
THING = Entity("thing", key={"thing": Int64})


def hours(count: float) -> datetime:
    """An instant so many hours after noon."""
    return NOON + timedelta(hours=count)


def table(**columns: Sequence[Any] | pa.Array) -> pa.Table:
    """An Arrow table; lists of datetimes become µs timestamps in UTC."""
    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: Any) -> Any:
    if isinstance(values, list) and any(isinstance(value, datetime) for value in values):
        return pa.array(values, TIME)
    return values


def write(path: Path, rows: pa.Table) -> Path:
    """A Parquet file."""
    pq.write_table(rows, path)
    return path


def view_of(rows: Any, features: Any, *, entity: Entity = THING, name: str = "view", **words: Any) -> FeatureView:
    """A continuous view over a frame, or over Parquet files where `rows` is a path."""
    said = {"event_time": "at", **{word: words.pop(word) for word in list(words) if word in SOURCE_WORDS}}
    source = (
        ParquetSource(f"{name}_rows", rows, **said)
        if isinstance(rows, (str, Path, list))
        else DataFrameSource(f"{name}_rows", rows, **said)
    )
    return FeatureView(name, entity=entity, source=source, features=features, **{"refresh": "continuous", **words})


SOURCE_WORDS = {
    "event_time", "known_at", "known_after", "history_until", "identity", "version", "tiebreak", "deleted", "until",
    "valid_from", "timezone", "date", "period", "derived",
}  # fmt: skip


@contextmanager
def opened(*definitions: Any, at: datetime = NOON) -> Iterator[tuple[FeatureStore, ManualClock]]:
    """An embedded store with the definitions applied, and its clock; a view alone is served as service "service"."""
    clock = ManualClock(at)
    with FeatureStore.local(clock=clock) as store:
        apply(store, *definitions)
        yield store, clock


def apply(store: FeatureStore, *definitions: Any) -> None:
    """Apply the definitions, with a service of the views where there is none."""
    views = [item for item in definitions if isinstance(item, FeatureView)]
    services = [item for item in definitions if isinstance(item, FeatureService)]
    store.apply([*definitions] if services or not views else [*definitions, FeatureService("service", features=views)])


def spine(at: datetime | Sequence[datetime], **keys: Any) -> pa.Table:
    """A spine of keys, all at one instant or each at its own."""
    rows = len(next(iter(keys.values())))
    return table(**keys, event_timestamp=[at] * rows if isinstance(at, datetime) else list(at))


def trained(store: FeatureStore, at: datetime | Sequence[datetime], features: Any = "service", **keys: Any) -> pa.Table:
    """Training's answer, statuses beside the values."""
    return store.get_historical_features(spine(at, **keys), features, with_status=True).to_arrow()


def both(store: FeatureStore, features: str = "service", **keys: Any) -> dict[str, list[Any]]:
    """Columns of values (and of statuses, as `<feature>__status`), materialized and looked up now.

    Asserts that training at this instant answers with the same bits.
    """
    store.materialize(progress=False)
    rows = [dict(zip(keys, values, strict=True)) for values in zip(*keys.values(), strict=True)]
    online = store.get_online_features(rows, features)
    inputs = {name: pa.array(keys[name], of.arrow) for name, of in online.service.inputs.items()}
    frame = store.get_historical_features(spine(store._project.clock(), **inputs), features, with_status=True)
    offline, served = frame.to_arrow(), online.to_arrow()
    result: dict[str, list[Any]] = {}
    for column in online.service.columns:
        left, right = offline[column.name].combine_chunks(), served[column.name].combine_chunks()
        assert left.type == right.type == column.type.arrow
        assert bits(column.type, scalars(left)) == bits(column.type, scalars(right)), column.name
        result[column.name] = online.to_dict()[column.name]
        if column.part is not None:
            statuses = online.statuses[column.name]
            assert offline[f"{column.name}__status"].to_pylist() == statuses
            result[f"{column.name}__status"] = statuses
    return result


def bits(of: FeatureType, values: Sequence[Any]) -> list[Any]:
    """Values that are equal exactly where they are one to the bit; NaN by its own bits."""
    return [_bits(of, value) for value in values]


def _bits(of: FeatureType, value: Any) -> Any:
    if value is None:
        return None
    if of.element is not None:
        return bits(of.element, value)
    if of.is_float:
        return struct.pack("<d", value) if not math.isnan(value) else "NaN"
    return str(value) if of.kind == "Decimal" else value


def raised(error: type[Exception], call: Callable[[], Any]) -> str:
    """The message of the error that a call raises."""
    try:
        call()
    except error as caught:
        return str(caught)
    raise AssertionError(f"no {error.__name__} was raised")

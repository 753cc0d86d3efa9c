"""Values in the online store that no run of materialize wrote there: skew that is planted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pyarrow as pa

from featurestore import FeatureStore
from featurestore.clock import instant_of
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.status import Status
from featurestore.semantics.time import END
from featurestore.semantics.view import EVENT_TIME, UNTIL, status_column


def tamper(store: FeatureStore, view: str, key: list[Any], values: dict[str, Any], *, event_time: datetime) -> None:
    """Overwrite a key's record with other values of its newest instant; those that are not named stay."""
    (resolved,) = store._project.applied([view])
    codec = ViewCodec(store.config.project, resolved)
    held = store.online.get([codec.key(key)]).values[0]
    assert held is not None
    slot = codec.slot(held, END)
    assert slot is not None
    assert slot.row is not None
    own = dict(zip((feature.name for feature in resolved.features), slot.row.values, strict=True)) | values
    columns = {feature.name: pa.array([own[feature.name]], feature.type.arrow) for feature in resolved.features}
    columns |= {status_column(feature.name): [int(Status.PRESENT)] for feature in resolved.folded}
    table = pa.table({EVENT_TIME: [instant_of(event_time)], UNTIL: [END], **columns})
    (record,) = codec.records(slot.instant, table, list(own))
    store.online.write({codec.key(key): record})

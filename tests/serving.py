"""Requests for the serving log itself, whose rows are plain columns of values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from featurestore.stores.serving_log import Served


def request_of(
    schema: pa.Schema, columns: Sequence[Sequence[Any]], at: int, *, fingerprint: str = "f", size: int = 0
) -> Served:
    """A request of service "service" at an instant (µs); columns: values, as many each as it has rows."""
    return Served("service", fingerprint, schema, columns, len(columns[0]), at, _encoded, size)


def _encoded(requests: Sequence[Served]) -> pa.Table:
    schema = requests[0].schema
    columns = [[value for request in requests for value in request.packed[i]] for i in range(len(schema))]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )

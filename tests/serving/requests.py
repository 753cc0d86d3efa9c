"""Requests for the serving log itself, whose rows are plain columns of values."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pyarrow as pa

from featurestore.serving.log.serving_log import SegmentForm, ServedRequests


def request_of(
    schema: pa.Schema, columns: Sequence[Sequence[Any]], at: int, *, fingerprint: str = "f", size: int | None = 0
) -> ServedRequests:
    """A request of service "service" at an instant (µs); columns: values, as many each as it has rows.

    size: None for one that is gathered with others.
    """
    form = form_of(schema.serialize().to_pybytes(), fingerprint)  # older versions of Arrow cannot hash a schema
    return ServedRequests(form, columns, len(columns[0]), at, at, size)


@cache
def form_of(serialized: bytes, fingerprint: str) -> SegmentForm:
    schema = pa.ipc.read_schema(pa.py_buffer(serialized))

    def gather(requests: Sequence[Sequence[Sequence[Any]]]) -> pa.RecordBatch:
        columns = [[value for values in column for value in values] for column in zip(*requests, strict=True)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
        return pa.record_batch(arrays, schema=schema)

    def batches(requests: Sequence[Any]) -> list[pa.RecordBatch]:
        return [request if isinstance(request, pa.RecordBatch) else gather([request]) for request in requests]

    return SegmentForm("service", fingerprint, gather, batches)

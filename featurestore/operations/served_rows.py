"""What is logged of a lookup: the columns of the serving log, and how a result becomes rows of it.

request                  the request's id; row: the row's number in it; time: when it was answered (UTC, µs)
input:<name>             every key and request value
<feature column>         what was served
status:<view>            the status of the view's plain features; status:<feature column> of each folded one
as_of:<view>             the instant that the view's values were true for
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from featurestore.clock import to_datetime
from featurestore.operations.online_result import OnlineResult
from featurestore.semantics.service import Part, ResolvedService
from featurestore.stores.serving_log import Served, ServingLog, segments

__all__ = ["LoggedRequest", "Recorder", "as_of_column", "find_request", "input_column", "schema_of", "status_columns"]

TIME = pa.timestamp("us", "UTC")


def input_column(name: str) -> str:
    """The log's column of a key or a request value."""
    return f"input:{name}"


def as_of_column(part: Part) -> str:
    """The log's column of the instants that a view's values were true for."""
    return f"as_of:{part.name}"


def status_columns(part: Part) -> dict[str, list[str]]:
    """The log's status columns of a view, each with the feature columns that it speaks of."""
    columns: dict[str, list[str]] = {}
    for feature in part.features:
        column = part.column(feature.name)
        columns.setdefault(f"status:{part.name}" if feature.plain else f"status:{column}", []).append(column)
    return columns


def schema_of(service: ResolvedService) -> pa.Schema:
    """The columns of a service version's log."""
    fields = [("request", pa.string()), ("row", pa.int32()), ("time", TIME)]
    fields += [(input_column(name), of.arrow) for name, of in service.inputs.items()]
    fields += [(column.name, column.type.arrow) for column in service.columns]
    for part in service.parts:
        fields += [(name, pa.string()) for name in status_columns(part)]
        fields.append((as_of_column(part), TIME))
    return pa.schema(fields)


class Recorder:
    """Offers what is served to the log. rates: service → how many of its requests are logged, 0 to 1; `rate` of others."""

    def __init__(self, log: ServingLog, *, rate: float, rates: Mapping[str, float]) -> None:
        self.log = log
        self._rate, self._rates = rate, dict(rates)
        self._schemas: dict[str, pa.Schema] = {}

    def record(self, result: OnlineResult) -> str | None:
        """The id under which a request is logged, None where it is not: whole requests are, or are not."""
        service = result.service
        rate = self._rates.get(service.name, self._rate)
        if rate <= 0 or (rate < 1 and random.random() >= rate) or not len(result):  # noqa: S311 - no secret
            return None
        schema = self._schemas.get(service.fingerprint)
        if schema is None:
            schema = self._schemas[service.fingerprint] = schema_of(service)
        name = self.log.next_request()
        columns = _columns(result, name)
        taken = self.log.offer(Served(service.name, service.fingerprint, schema, columns, len(result), result.now))
        return name if taken else None


def _columns(result: OnlineResult, name: str) -> list[Sequence[Any]]:
    rows = len(result)
    columns: list[Sequence[Any]] = [[name] * rows, range(rows), [to_datetime(result.now)] * rows]
    columns += result.inputs.values()
    columns += result.columns.values()
    for part in result.service.parts:
        answer = result.parts[part.name]
        columns += [[status.name for status in answer.statuses[of[0]]] for of in status_columns(part).values()]
        columns.append([to_datetime(answer.as_of)] * rows)
    return columns


class LoggedRequest(NamedTuple):
    """A request as it was logged: the service version that answered it, and its rows (columns: see the module)."""

    service: str
    fingerprint: str
    rows: pa.Table


def find_request(folder: Path, request: str) -> LoggedRequest | None:
    """The rows that were logged under a request's id, by time and row; None where there are none.

    Segments whose statistics rule the id out are not read. An id that clients used more than once finds every use of it
    by the service version that used it last.
    """
    found = []
    for (service, fingerprint), files in segments(folder).items():
        dataset = ds.dataset([str(path) for path in files], format="parquet")
        rows = dataset.to_table(filter=pc.field("request") == request)
        if rows.num_rows:
            found.append(
                LoggedRequest(service, fingerprint, rows.sort_by([("time", "ascending"), ("row", "ascending")]))
            )
    return max(found, key=lambda logged: logged.rows["time"][-1].as_py(), default=None)

"""Snapshot: the values of every key at one instant or several, without a spine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featurestore.errors import SpineError
from featurestore.lazy import pa
from featurestore.query.changed_keys import all_keys_sql
from featurestore.semantics.service import ResolvedService
from featurestore.sources.offline import Offline
from featurestore.sources.source_files import again
from featurestore.training.historical import Options, get_historical_features, listing_of
from featurestore.training.training_frame import TrainingFrame

TIMESTAMP = "event_timestamp"


def snapshot(
    service: ResolvedService, offline: Offline, *, at: Sequence[int], now: int, options: Options
) -> TrainingFrame:
    """A frame with a row for every key that any row ever had at each of `at` (µs), as a spine of these would answer.

    The rows of one instant follow each other, in the order of their keys; all are answered together.
    Raises SpineError where the service's views have different keys, or it needs request values.
    """
    keys = list(service.key_inputs)
    for part in service.parts:
        if set(part.inputs) != set(keys):
            raise SpineError(
                f"A snapshot needs views of one key, and service '{service.name}' reads '{part.name}' by "
                f"{', '.join(part.inputs) or 'no key'} among {', '.join(keys)}; take a snapshot of each view"
            )
    if service.request_inputs:
        names = ", ".join(service.request_inputs)
        raise SpineError(f"Service '{service.name}' needs request values ({names}), which a snapshot has not")
    if TIMESTAMP in keys:
        raise SpineError(
            f"A snapshot has a column '{TIMESTAMP}' of its own, and service '{service.name}' reads a key of this name; take the "
            "snapshot of view.alias(…, key={…}), which gives the key another name"
        )
    return again(lambda: _snapshot(service, offline, keys, at=at, now=now, options=options))


def _snapshot(
    service: ResolvedService, offline: Offline, keys: Sequence[str], *, at: Sequence[int], now: int, options: Options
) -> TrainingFrame:
    """The keys and their values, of the same files."""
    listing = listing_of(service, offline)
    with offline.session(files=listing) as session, session.reading():
        per_part = []
        for part in service.parts:
            places = [part.inputs.index(name) for name in keys] or [0]
            selected = ", ".join(f"k{i} AS c{column}" for column, i in enumerate(places))
            per_part.append(f"SELECT {selected} FROM ({all_keys_sql(part.view, session.scan(part.view.source))})")
        sql = f"SELECT * FROM ({' UNION '.join(per_part)}) ORDER BY ALL"
        every: pa.Table = session.connection.sql(sql).to_arrow_table()
    spine = every.take(pa.array(np.tile(np.arange(every.num_rows), len(at))))
    spine = spine.rename_columns(keys) if keys else spine.select([])
    instants = pa.array(np.repeat(np.asarray(at, np.int64), every.num_rows)).cast(pa.timestamp("us", "UTC"))
    return get_historical_features(
        spine.append_column(TIMESTAMP, instants), service, offline, now=now, options=options, listing=listing
    )

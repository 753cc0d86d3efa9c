"""Snapshot: the values of every key at one instant or several, without a spine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featurestore.declare.durations import asked_instant
from featurestore.declare.zones import naive_notices
from featurestore.errors import SpineError
from featurestore.lazy import pa, pq
from featurestore.query.changed_keys import all_keys_sql
from featurestore.semantics.engine import batches_of
from featurestore.semantics.service import ResolvedService, ServiceView
from featurestore.semantics.values import canonical, scalars
from featurestore.sources.copies import write_parquet
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import again
from featurestore.training.historical import Listing, get_historical_features, listing_of
from featurestore.training.kernel import Options
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import Scalar

TIMESTAMP = "event_timestamp"

KEYS_AT_ONCE = 1 << 17
"""Keys that are written to a file at once, a row group of it."""


class AskedInstants(NamedTuple):
    """The instants (µs) of a snapshot, and what the caller is told of them."""

    at: tuple[int, ...]
    notices: list[str]

    @classmethod
    def of(cls, at: datetime | Sequence[datetime]) -> AskedInstants:
        """Those that a caller gives: one, or several. RequestError where one is none."""
        every: Iterable[Any] = [at] if isinstance(at, (datetime, str)) or not isinstance(at, Iterable) else at
        given = list(every)
        return cls(tuple(asked_instant(one, "at") for one in given), naive_notices(given, "at"))


def snapshot(
    service: ResolvedService, offline: Offline, *, at: Sequence[int], now: int, options: Options,
    listing: Listing | None = None,
) -> TrainingFrame:  # fmt: skip
    """A frame with a row for every key that any row ever had at each of `at` (µs), as a spine of these would answer.

    The rows of one instant follow each other, in the order of their keys; all are answered together. listing: the files to read, and
    no others; else those that are there now. Raises SpineError where the service's views have different keys, or it needs request values.
    """
    keys = check_snapshot(service)
    return again(lambda: _snapshot(service, offline, keys, at=at, now=now, options=options, listing=listing))


def check_snapshot(service: ResolvedService) -> list[str]:
    """The columns of the key of a snapshot. Raises SpineError as `snapshot` does."""
    keys = _one_key(service)
    if service.request_inputs:
        names = ", ".join(service.request_inputs)
        raise SpineError(f"Service '{service.name}' needs request values ({names}), which a snapshot has not")
    if TIMESTAMP in keys:
        raise SpineError(
            f"A snapshot has a column '{TIMESTAMP}' of its own, and service '{service.name}' reads a key of this name; take the "
            "snapshot of view.alias(…, key={…}), which gives the key another name"
        )
    return keys


def write_keys(service: ResolvedService, offline: Offline, listing: Listing, path: Path) -> int:
    """Write every key that any row of these files ever had to a Parquet file, in their order, which is on the disk then; how many
    there are."""
    keys = _one_key(service)
    with offline.session(files=listing) as session, session.reading():
        every = session.connection.sql(f"{snapshot_keys_sql(service.parts, session, keys)} ORDER BY ALL")
        reader = batches_of(every, KEYS_AT_ONCE)
        write_parquet(path, reader.schema, iter(reader))
    return int(pq.read_metadata(path).num_rows)


def keys_at(service: ResolvedService, keys: pa.Table, at: Sequence[int]) -> pa.Table:
    """The spine of a snapshot: some of the keys, as `snapshot_keys_sql` gives them, at each of `at` (µs), one instant after the other."""
    names = _one_key(service)
    spine = keys.take(pa.array(np.tile(np.arange(keys.num_rows), len(at))))
    spine = spine.rename_columns(names) if names else spine.select([])
    instants = pa.array(np.repeat(np.asarray(at, np.int64), keys.num_rows)).cast(pa.timestamp("us", "UTC"))
    return spine.append_column(TIMESTAMP, instants)


def next_keys(service: ResolvedService, offline: Offline, *, after: Sequence[Scalar] | None, most: int) -> pa.Table:
    """The keys that any row ever had, in their order: so many at most that follow one of them, or the first ones. `keys_in` says
    what they are.

    Nothing of them is computed; of the sources, the columns are read that make a key. Raises SpineError as `snapshot` does.
    """
    keys = _one_key(service)

    def read() -> pa.Table:
        with offline.session(files=listing_of(service, offline)) as session, session.reading():
            sql = snapshot_keys_sql(service.parts, session, keys)
            if after is not None and not keys:
                sql = f"{sql} LIMIT 0"  # there is one key, without a column
            elif after is not None:
                given = {
                    name: pa.array([value], service.key_inputs[name].arrow)
                    for name, value in zip(keys, after, strict=True)
                }
                session.connection.register("given", pa.table(list(given.values()), names=key_names(keys)))
                columns = ", ".join(key_names(keys))
                sql = f"SELECT * FROM ({sql}) WHERE ({columns}) > (SELECT ({columns}) FROM given)"
            return session.connection.sql(f"SELECT * FROM ({sql}) ORDER BY ALL LIMIT {most}").to_arrow_table()

    return again(read)


def keys_in(service: ResolvedService, found: pa.Table) -> list[tuple[Scalar, ...]]:
    """The keys of some rows of a table of `next_keys`."""
    columns = [scalars(canonical(found[place], of)) for place, of in enumerate(service.key_inputs.values())]
    return list(zip(*columns, strict=True)) if columns else [()] * found.num_rows


def _one_key(service: ResolvedService) -> list[str]:
    """The columns of the key; SpineError where the service's views have different ones."""
    keys = list(service.key_inputs)
    for part in service.parts:
        if set(part.inputs) != set(keys):
            raise SpineError(
                f"A snapshot needs views of one key, and service '{service.name}' reads '{part.name}' by "
                f"{', '.join(part.inputs) or 'no key'} among {', '.join(keys)}; take a snapshot of each view"
            )
    return keys


def key_names(keys: Sequence[str]) -> list[str]:
    """What the columns of a key are called in SQL; one is constant for an entity without keys."""
    return [f"c{place}" for place in range(max(1, len(keys)))]


def snapshot_keys_sql(parts: Sequence[ServiceView], session: Session, keys: Sequence[str]) -> str:
    """Every key that any row of the parts of a service ever had, once, as columns of `key_names`."""
    per_part = []
    for part in parts:
        places = [part.inputs.index(name) for name in keys] or [0]
        selected = ", ".join(f"k{i} AS {column}" for i, column in zip(places, key_names(keys), strict=True))
        per_part.append(f"SELECT {selected} FROM ({all_keys_sql(part.view, session.scan(part.view.source))})")
    return f"SELECT * FROM ({' UNION '.join(per_part)})"


def _snapshot(
    service: ResolvedService, offline: Offline, keys: Sequence[str], *, at: Sequence[int], now: int, options: Options,
    listing: Listing | None,
) -> TrainingFrame:  # fmt: skip
    """The keys and their values, of the same files."""
    listing = listing or listing_of(service, offline)
    with offline.session(files=listing) as session, session.reading():
        every: pa.Table = session.connection.sql(
            f"{snapshot_keys_sql(service.parts, session, keys)} ORDER BY ALL"
        ).to_arrow_table()
    spine = keys_at(service, every, at)
    return get_historical_features(spine, service, offline, now=now, options=options, listing=listing)

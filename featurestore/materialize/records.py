"""What the records of a view have to be: the as-of query, asked for many keys at one instant, encoded.

Materialize writes these, and verify compares them with what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa
from featurestore.online import OnlineStore
from featurestore.online.view_codec import ViewCodec
from featurestore.online.wire import byte_order, cut
from featurestore.query.answer import Answer, ask
from featurestore.query.windows.tile_protocol import Tiling
from featurestore.semantics.judge import are_expired
from featurestore.semantics.source_columns import key_list
from featurestore.semantics.status import Status
from featurestore.semantics.values import take
from featurestore.semantics.view import ResolvedView
from featurestore.sources.session import Session

PASS_KEYS = 1_000_000
"""Keys that are asked for at once: what bounds the memory of a run."""


class ValueTaker(Protocol):
    """What is told of all values that are written, as a `Gathering` is."""

    def add(
        self, columns: Mapping[str, pa.Array | pa.ChunkedArray] | Callable[[], Mapping[str, pa.Array]], rows: int
    ) -> None:
        """Take the values of the next rows: columns by name, or what makes them."""


class RecordBatch(NamedTuple):
    """Store keys, the record of each, None where it has no row, and for how many of them no feature has a value any more."""

    keys: list[bytes]
    records: list[bytes | None]
    expired: int


def existing(store: OnlineStore, codec: ViewCodec) -> set[bytes]:
    """The keys under which a view version has records."""
    return {key for keys in store.scan(codec.record_prefix) for key in keys}


def collect(session: Session, sql: str) -> int:
    """Fill the temporary table `asked (request_no, k…)` of a session with the keys that a query gives, and what it gives beside them; how
    many there are."""
    connection = session.connection
    connection.execute(f"CREATE TEMP TABLE asked AS SELECT row_number() OVER () - 1 AS request_no, * FROM ({sql})")
    return int(connection.execute("SELECT count(*) FROM asked").fetchall()[0][0])


def asked_keys(
    session: Session, view: ResolvedView, codec: ViewCodec, first: int = 0, end: int | None = None
) -> pa.Array:  # fmt: skip
    """The store keys of the keys that were collected in a session, in no order; of those that are numbered from first to before end."""
    numbered = f"request_no >= {first}" + ("" if end is None else f" AND request_no < {end}")
    table: pa.Table = session.connection.sql(f"SELECT {key_list(view)} FROM asked WHERE {numbered}").to_arrow_table()
    return codec.key_array(key_columns(view, table), table.num_rows)


def key_columns(view: ResolvedView, table: pa.Table) -> list[pa.Array]:
    """The key columns of keys that were collected."""
    return [table[f"k{i}"].combine_chunks() for i in range(len(view.keys))]


@dataclass(frozen=True)
class RecordQuery:
    """The keys that were collected in a session. blocking: as the online store says it; tiling: see `ask`; gathering: told of all values."""

    session: Session
    view: ResolvedView
    codec: ViewCodec
    blocking: bool
    tiling: Tiling | None = None
    gathering: ValueTaker | None = None

    def records(
        self, keys: int, instant: int, edition: int, *, size: int, first: int = 0, pass_keys: int = PASS_KEYS
    ) -> Iterator[RecordBatch]:  # fmt: skip
        """The record of each of so many of the collected keys, from the first on, with one slot, None where it has no row; `size` keys
        at a time, of which `pass_keys` are asked for at once."""
        for start in range(first, first + keys, pass_keys):
            yield from self._pass(start, min(pass_keys, first + keys - start), (instant, edition), size)

    def _pass(self, first: int, count: int, mark: tuple[int, int], size: int) -> Iterator[RecordBatch]:
        """The batches of the asked keys from `first` on: for an embedded store in the order of their store keys, whose
        neighbours share pages; for another, which has none, as the query gave their rows, which are then read in order."""
        view, codec, connection = self.view, self.codec, self.session.connection
        instant, edition = mark
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE requests AS SELECT * REPLACE (request_no - {first} AS request_no), "
            f"CAST({instant} AS BIGINT) AS as_of FROM asked WHERE request_no >= {first} AND request_no < {first + count}"
        )
        answer = ask(
            connection, view, self.session.scan(view.source), requests="requests",
            as_of=np.full(count, instant, np.int64), tiling=self.tiling,
        )  # fmt: skip
        table: pa.Table = connection.sql(f"SELECT request_no, {key_list(view)} FROM requests").to_arrow_table()
        keys = codec.key_array(key_columns(view, table), count)
        requests = table["request_no"].to_numpy()
        statuses = answer.statuses_of(answer.view.features)
        index, expired = answer.index[requests], are_expired(statuses.values())[requests]
        are_present = all((status == Status.PRESENT).all() for status in statuses.values())
        if self.gathering is not None and not are_present:
            self.gathering.add(lambda: _values(answer, statuses), count)
        order = np.argsort(index) if self.blocking else byte_order(keys)
        index, expired, names = index[order], expired[order], [feature.name for feature in view.features]
        for start in range(0, count, size):
            batch = cut(keys.take(pa.array(order[start : start + size])))
            places = index[start : start + size]
            found = np.flatnonzero(places >= 0)
            rows = _rows(answer.rows, places[found])
            if self.gathering is not None and are_present:
                self.gathering.add({name: rows[name] for name in names}, rows.num_rows)
            encoded = codec.records(instant, rows, names, edition=edition)
            records: list[bytes | None] = encoded  # type: ignore[assignment]  # a list of bytes is one of bytes or None that is read only
            if len(found) < len(batch):
                records = [None] * len(batch)
                for place, record in zip(found.tolist(), encoded, strict=True):
                    records[place] = record
            yield RecordBatch(batch, records, int(np.count_nonzero(expired[start : start + size])))


def _values(answer: Answer, statuses: Mapping[str, npt.NDArray[np.uint8]]) -> dict[str, pa.Array]:
    """What lookups of the keys that were asked for answer."""
    features = answer.view.features
    columns = answer.columns(features, statuses)
    return dict(zip((feature.name for feature in features), columns, strict=True))


def _rows(rows: pa.Table, places: npt.NDArray[np.int64]) -> pa.Table:
    """The rows at the places, without a copy where they follow each other."""
    if len(places) and (np.diff(places) == 1).all():
        return rows.slice(int(places[0]), len(places))
    return pa.table({name: take(rows[name], places) for name in rows.column_names})

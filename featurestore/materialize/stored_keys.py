"""The store keys under which a view version has records, in a table of a session, which spills: they may be more than memory holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from featurestore.errors import MaterializeError
from featurestore.lazy import duckdb, pa
from featurestore.online import OnlineStore
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.engine import stream
from featurestore.sources.offline import Offline
from featurestore.sources.unreadable import engine_words

HASHED_KEYS = 100_000
"""Keys that are hashed at once, and that are held in memory."""


def chunk_sql(chunks: int) -> str:
    """The number of the chunk, of so many, that a store key is in. The same version of the engine says the same whenever it is asked."""
    return f"hash(key) % {chunks}"


class StoredKeys:
    """The keys that a scan gives, some perhaps more than once, each in one of so many chunks. Raises duckdb.Error."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, scan: Iterable[Sequence[bytes]], *, chunks: int = 1
    ) -> None:
        self._connection, self._chunks = connection, chunks
        self._met: list[bytes] = []
        connection.execute("CREATE OR REPLACE TEMP TABLE stored_keys (key BLOB, chunk BIGINT)")
        connection.execute("CREATE OR REPLACE TEMP TABLE met_keys (key BLOB)")
        held: list[bytes] = []
        for keys in itertools.chain(scan, [[]]):
            held += keys
            if held and (not keys or len(held) >= HASHED_KEYS):
                self._insert("stored_keys", f"key, {chunk_sql(chunks)}", held)
                held = []
        (self._is_empty,) = connection.execute("SELECT count(*) = 0 FROM stored_keys").fetchall()[0]

    def _insert(self, table: str, columns: str, keys: Sequence[bytes]) -> None:
        self._connection.register("some_keys", pa.table({"key": pa.array(keys, pa.large_binary())}))
        self._connection.execute(f"INSERT INTO {table} SELECT {columns} FROM some_keys")
        self._connection.unregister("some_keys")

    def counts(self) -> dict[int, int]:
        """How many keys there are, by chunk; nothing of those that have none."""
        sql = "SELECT chunk, count(DISTINCT key) FROM stored_keys GROUP BY chunk"
        return dict(self._connection.execute(sql).fetchall())

    def of(self, chunk: int) -> pa.Table:
        """The keys of a chunk, as the column `key`."""
        sql = f"SELECT DISTINCT key FROM stored_keys WHERE chunk = {chunk}"
        found: pa.Table = self._connection.sql(sql).to_arrow_table()
        return found

    def meet(self, keys: Sequence[bytes]) -> None:
        """These keys are asked for."""
        if not self._is_empty:
            self._met += keys
            if len(self._met) >= HASHED_KEYS:
                self._keep_met()

    def _keep_met(self) -> None:
        self._insert("met_keys", "key", self._met)
        self._met = []

    def vanished(self, chunk: int, size: int) -> Iterator[list[bytes]]:
        """Those keys of a chunk, of which all that are asked for were met, that are not: in their order, so many at a time."""
        if self._is_empty:
            return
        if self._met:
            self._keep_met()
        sql = f"SELECT DISTINCT key FROM stored_keys ANTI JOIN met_keys USING (key) WHERE chunk = {chunk} ORDER BY key"
        for batch in stream(self._connection, sql, size):
            if batch.num_rows:
                yield batch["key"].to_pylist()


def count_records(offline: Offline, store: OnlineStore, codec: ViewCodec) -> int:
    """How many records a view version has."""
    scan, held = store.scan(codec.record_prefix), set[bytes]()
    for keys in scan:
        held.update(keys)
        if len(held) > HASHED_KEYS:
            return sum(_counted(offline, itertools.chain([list(held)], scan), 1).values())
    return len(held)


def count_records_by_chunk(offline: Offline, store: OnlineStore, codec: ViewCodec, *, chunks: int) -> dict[int, int]:
    """How many records a view version has whose keys are in each of so many chunks; nothing of those that have none."""
    return _counted(offline, store.scan(codec.record_prefix), chunks)


def _counted(offline: Offline, scan: Iterable[Sequence[bytes]], chunks: int) -> dict[int, int]:
    with offline.session() as session:
        try:
            return StoredKeys(session.connection, scan, chunks=chunks).counts()
        except duckdb.Error as error:
            raise MaterializeError(f"The records online cannot be counted: {engine_words(error)}") from error

"""The keys of a run in chunks, by the hash of what each is called in the online store: as many as are asked for and written at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from featurestore.lazy import pa
from featurestore.materialize.records import key_columns
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.source_columns import key_list
from featurestore.semantics.view import ResolvedView
from featurestore.sources.session import Session

HASHED_KEYS = 100_000
"""Keys whose hashes are computed at once."""


class KeyChunk(NamedTuple):
    """Consecutive keys of those that were collected in a session, by number."""

    number: int
    first: int
    keys: int


class KeyChunks:
    """The keys that were collected in a session, in chunks of about `most`; one chunk where they are no more.

    The same keys are in the same chunks whenever the same version of the engine hashes them.
    """

    def __init__(self, session: Session, view: ResolvedView, codec: ViewCodec, keys: int, *, most: int) -> None:
        self._connection, self._codec = session.connection, codec
        self._count = max(1, -(-keys // most))
        sizes = [keys] if self._count == 1 else self._split(view, keys)
        starts = itertools.accumulate(sizes, initial=0)
        self.all = [
            KeyChunk(number, first, size) for number, (first, size) in enumerate(zip(starts, sizes, strict=False))
        ]

    def _split(self, view: ResolvedView, keys: int) -> list[int]:
        """Number the keys anew, chunk by chunk; how many each has."""
        connection, names = self._connection, key_list(view)
        connection.execute("CREATE TEMP TABLE chunk_of (request_no BIGINT, chunk BIGINT)")
        for first in range(0, keys, HASHED_KEYS):
            asked = connection.sql(
                f"SELECT request_no, {names} FROM asked WHERE request_no >= {first} AND request_no < {first + HASHED_KEYS}"
            ).to_arrow_table()
            stored = self._codec.key_array(key_columns(view, asked), asked.num_rows)
            self._insert("chunk_of", "request_no", pa.table({"request_no": asked["request_no"], "key": stored}))
        connection.execute(
            "CREATE TEMP TABLE chunked AS SELECT row_number() OVER (ORDER BY chunk) - 1 AS request_no, asked.* EXCLUDE (request_no) "
            "FROM asked JOIN chunk_of USING (request_no)"
        )
        sizes = dict(connection.execute("SELECT chunk, count(*) FROM chunk_of GROUP BY chunk").fetchall())
        for statement in ("DROP TABLE asked", "DROP TABLE chunk_of", "ALTER TABLE chunked RENAME TO asked"):
            connection.execute(statement)
        return [sizes.get(number, 0) for number in range(self._count)]

    def _insert(self, table: str, column: str, rows: pa.Table) -> None:
        """Insert a column of rows into a table, each with the chunk that its key is in."""
        self._connection.register("hashed", rows)
        self._connection.execute(f"INSERT INTO {table} SELECT {column}, hash(key) % {self._count} FROM hashed")
        self._connection.unregister("hashed")

    def take_stored(self, scan: Iterable[list[bytes]]) -> dict[int, int]:
        """Take the store keys of records, some perhaps more than once; how many records each chunk has."""
        self._connection.execute("CREATE OR REPLACE TEMP TABLE stored_keys (key BLOB, chunk BIGINT)")
        held: list[bytes] = []
        for keys in itertools.chain(scan, [[]]):
            held += keys
            if held and (not keys or len(held) >= HASHED_KEYS):
                self._insert("stored_keys", "key", pa.table({"key": pa.array(held, pa.large_binary())}))
                held = []
        counts = "SELECT chunk, count(DISTINCT key) FROM stored_keys GROUP BY chunk"
        return dict(self._connection.execute(counts).fetchall())

    def stored(self, chunk: KeyChunk) -> set[bytes]:
        """Those store keys, of all that were taken, that are in a chunk."""
        sql = f"SELECT DISTINCT key FROM stored_keys WHERE chunk = {chunk.number}"
        return set(self._connection.sql(sql).to_arrow_table()["key"].to_pylist())

"""The keys of a run in chunks, by the hash of what each is called in the online store: as many as are asked for and written at once."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from featurestore.lazy import pa
from featurestore.materialize.records import key_columns
from featurestore.materialize.stored_keys import HASHED_KEYS, chunk_sql
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.source_columns import key_list
from featurestore.semantics.view import ResolvedView
from featurestore.sources.session import Session


class KeyChunk(NamedTuple):
    """Consecutive keys of those that were collected in a session, by number."""

    number: int
    first: int
    keys: int


class KeyChunks:
    """The keys that were collected in a session, in chunks of about `most`; one chunk where they are no more."""

    def __init__(self, session: Session, view: ResolvedView, codec: ViewCodec, keys: int, *, most: int) -> None:
        self._connection, self._codec = session.connection, codec
        self._count = max(1, -(-keys // most))
        sizes = [keys] if self._count == 1 else self._split(view, keys)
        starts = itertools.accumulate(sizes, initial=0)
        self.all = [
            KeyChunk(number, first, size) for number, (first, size) in enumerate(zip(starts, sizes, strict=False))
        ]

    def asked(self, chunk: KeyChunk) -> pa.Table:
        """The keys of a chunk, as `asked` has them, numbered from 0."""
        sql = f"SELECT * REPLACE (request_no - {chunk.first} AS request_no) FROM asked WHERE request_no >= {chunk.first} AND request_no < {chunk.first + chunk.keys}"
        found: pa.Table = self._connection.sql(sql).to_arrow_table()
        return found

    def _split(self, view: ResolvedView, keys: int) -> list[int]:
        """Number the keys anew, chunk by chunk; how many each has."""
        connection, names = self._connection, key_list(view)
        connection.execute("CREATE TEMP TABLE chunk_of (request_no BIGINT, chunk BIGINT)")
        for first in range(0, keys, HASHED_KEYS):
            asked = connection.sql(
                f"SELECT request_no, {names} FROM asked WHERE request_no >= {first} AND request_no < {first + HASHED_KEYS}"
            ).to_arrow_table()
            stored = self._codec.key_array(key_columns(view, asked), asked.num_rows)
            connection.register("hashed", pa.table({"request_no": asked["request_no"], "key": stored}))
            connection.execute(f"INSERT INTO chunk_of SELECT request_no, {chunk_sql(self._count)} FROM hashed")
            connection.unregister("hashed")
        connection.execute(
            "CREATE TEMP TABLE chunked AS SELECT row_number() OVER (ORDER BY chunk) - 1 AS request_no, asked.* EXCLUDE (request_no) "
            "FROM asked JOIN chunk_of USING (request_no)"
        )
        sizes = dict(connection.execute("SELECT chunk, count(*) FROM chunk_of GROUP BY chunk").fetchall())
        for statement in ("DROP TABLE asked", "DROP TABLE chunk_of", "ALTER TABLE chunked RENAME TO asked"):
            connection.execute(statement)
        return [sizes.get(number, 0) for number in range(self._count)]

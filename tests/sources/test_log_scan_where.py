"""The rows of a few keys are found among all, sealed and not, beside those that replace them."""

from __future__ import annotations

import random

import duckdb
import pyarrow as pa
import pytest

from featurestore.sources.log import ROW, SEGMENT, FileLog, Log
from tests.sources.conftest import Opened

SCHEMA = pa.schema(
    [("card", pa.string()), ("n", pa.int64()), ("known_at", pa.int64()), ("replaces", pa.int64()),
     ("embedding", pa.list_(pa.float32(), 2))]
)  # fmt: skip
CARDS = ["a", "b", "é", "", None]


def appended(log: Log, chosen: random.Random) -> None:
    """A few rows more, some of which replace earlier ones, under another key too."""
    with log.lock():
        first = (log.last_known_at() or 0) + 1
        known = list(range(first, first + chosen.randint(1, 4)))
        columns = {
            "card": [chosen.choice(CARDS) for _ in known],
            "n": [chosen.randrange(3) for _ in known],
            "known_at": known,
            "replaces": [chosen.randrange(1, first) if first > 1 and chosen.random() < 0.3 else None for _ in known],
            "embedding": [[0.5, float(n)] for n in known],
        }
        log.append(pa.table(columns, SCHEMA).to_batches())


def torn(log: Log, chosen: random.Random) -> None:
    """What an appender leaves that is killed in a write; the next one to lock the log cuts it off. In PostgreSQL nothing is left."""
    if not isinstance(log, FileLog):
        return
    with (log.folder / log.segments()[-1].file).open("ab") as file:
        file.write(b"FSL1" + chosen.randbytes(20))
    with log.lock():
        pass


def expected(log: Log, cards: list[str], numbers: list[int]) -> list[dict[str, object]]:
    rows = log.read().to_pylist()
    mine = [row for row in rows if row["card"] in cards and row["n"] in numbers]
    known = {row["known_at"] for row in mine}
    return [row for row in rows if row["known_at"] in known or row["replaces"] in known]


@pytest.mark.parametrize("seed", range(3))
def test_the_rows_of_keys_and_what_replaces_them(opened: Opened, seed: int) -> None:
    """Each once, where it lies, at each moment of a log that is appended to, sealed and cut by others meanwhile."""
    chosen = random.Random(seed)
    with (
        opened(lambda: SCHEMA, segment_bytes=3_000) as log,
        opened(lambda: SCHEMA, segment_bytes=3_000) as other,
    ):
        for _ in range(40):
            action = chosen.random()
            if action < 0.1:
                other.compact(everything=chosen.random() < 0.5, grace=0)
            elif action < 0.2:
                torn(other, chosen)
            else:
                appended(chosen.choice([log, other]), chosen)
            cards = chosen.sample(["a", "b", "é", "", "nobody"], 2)
            numbers = chosen.sample(range(4), 2)
            with duckdb.connect(":memory:") as connection, log.lock():
                wanted = {"card": pa.array(cards), "n": pa.array(numbers)}
                scan = log.scan_where(connection, "some", wanted, replaces="replaces")
                found = connection.sql(f"SELECT * FROM {scan.relation} ORDER BY known_at").to_arrow_table()
                every = log.scan(connection, "every")
                placed = connection.sql(
                    f"SELECT count(*) FROM {scan.relation} s JOIN {every.relation} e ON s.{SEGMENT} = e.{SEGMENT} "
                    f"AND s.{ROW} = e.{ROW} AND s.known_at = e.known_at"
                ).fetchall()
            assert found.drop_columns([SEGMENT, ROW]).to_pylist() == expected(log, cards, numbers)
            assert placed == [(found.num_rows,)]

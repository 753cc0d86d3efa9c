"""The rows that online records lack, in pieces between which the log stood still."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.push.apply_log import missing_rows
from featurestore.sources.log import FileLog

SCHEMA = pa.schema([("at", pa.timestamp("us", "UTC")), ("n", pa.int64()), ("known_at", pa.int64())])
Row = tuple[int | None, int, int]


def logged(log: FileLog, appends: list[list[Row]]) -> None:
    """Rows (at, n, known_at), in so many appends, each a segment of its own."""
    for rows in appends:
        columns = [pa.array([row[n] for row in rows], field.type) for n, field in enumerate(SCHEMA)]
        with log.lock():
            log.append([pa.RecordBatch.from_arrays(columns, schema=SCHEMA)])


def pieces(log: FileLog, after: int | None, least: int) -> list[list[int]]:
    """The numbers of the rows, piece by piece."""
    return [table["n"].to_pylist() for table in missing_rows(log, after, event_time="at", least=least)]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(1, 3), st.one_of(st.none(), st.integers(-3, 4))), min_size=1, max_size=12),
    size=st.integers(1, 4), after=st.one_of(st.none(), st.integers(-1, 20)), least=st.integers(1, 4), sealed=st.booleans(),
)  # fmt: skip
def test_pieces_are_cut_where_all_before_had_happened(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[int, int | None]],
    size: int,
    after: int | None,
    least: int,
    *,
    sealed: bool,
) -> None:
    """At each such place at which there are enough, and nowhere else; every row that is known after, once and in order."""
    known = 0
    rows: list[Row] = []
    for number, (step, ahead) in enumerate(steps):
        known += step
        rows.append((None if ahead is None else known + ahead, number, known))
    appends = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
    with FileLog(tmp_path_factory.mktemp("log"), lambda: SCHEMA, segment_bytes=1) as log:
        logged(log, appends)
        if sealed:
            log.compact(everything=True)
        found = pieces(log, after, least)
    wanted: list[list[int]] = [[]]
    left = [row for row in rows if after is None or row[2] > after]
    for place, row in enumerate(left):
        still = all(before[2] < row[2] and (before[0] is None or before[0] < row[2]) for before in left[:place])
        if still and len(wanted[-1]) >= least:
            wanted.append([])
        wanted[-1].append(row[1])
    assert found == [piece for piece in wanted if piece]

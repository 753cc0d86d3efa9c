"""What a full run keeps of a source in one pass answers as the source does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featurestore import Entity
from featurestore.query import newest_rows
from featurestore.query.answer import ask
from featurestore.query.asof import newest_table
from featurestore.query.changed_keys import all_keys_sql
from featurestore.query.newest_rows import collected_keys_sql
from featurestore.semantics.source_columns import key_list
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.types import FeatureType, Int32, Int64, String
from tests.histories import EPOCH, MICROSECOND
from tests.small import TIME, table, view_of
from tests.world import resolved

INSTANTS = [3, 7, -50]
NO_ROWS_YET = [-50]
SETTLE = 2
WIDE = [-(1 << 63), -7, 0, 1 << 40, (1 << 63) - 1]
NARROW = [-2, -1, 0, 1, 2, 3]


def answers(view: ResolvedView, session: Session, sql: str, at: int) -> list[Any]:
    """By key, what the as-of query says at an instant of the keys that a query gives."""
    connection = session.connection
    asked = f"SELECT row_number() OVER () - 1 AS request_no, *, CAST({at} AS BIGINT) AS as_of FROM ({sql})"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE requests AS {asked}")
    keys = connection.sql(f"SELECT {key_list(view)} FROM requests ORDER BY request_no").fetchall()
    answer = ask(connection, view, session.scan(view.source), requests="requests", as_of=np.full(len(keys), at))
    values = answer.columns(view.features, answer.statuses_of(view.features))[0].to_pylist()
    told = zip(keys, answer.event_times().to_pylist(), values, answer.conflicted.tolist(), strict=True)
    return sorted(told, key=lambda one: one[0])


def tables(session: Session) -> set[str]:
    return {name for (name,) in session.connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()}


def drawn(keys: Sequence[Sequence[int]], types: Sequence[FeatureType], rows: int) -> pa.Table:
    """Rows with many of one event_time, some not known for long or at all, some without a key or an event_time."""
    random = np.random.default_rng(rows)
    happened = random.integers(0, 9, rows)
    known = happened + random.integers(0, 9, rows) - 2

    def times(micros: Any, none: Any) -> pa.Array:
        instants = [EPOCH + int(one) * MICROSECOND for one in micros]
        return pa.array([None if no else one for one, no in zip(instants, none, strict=True)], TIME)

    columns = {}
    for place, (among, of) in enumerate(zip(keys, types, strict=True)):
        chosen = [None if random.random() < 0.05 else among[i] for i in random.integers(0, len(among), rows)]
        columns[f"key{place}"] = pa.array(chosen, of.arrow)
    nulls = random.random((2, rows)) < 0.1
    return table(
        **columns,
        at=times(happened, nulls[0]),
        known=times(known, nulls[1]),
        x=random.integers(0, 3, rows).astype(float),
    )


@pytest.mark.parametrize(
    ("keys", "types"),
    [
        ([NARROW], [Int64]),
        ([WIDE], [Int64]),
        ([NARROW, WIDE], [Int32, Int64]),
        ([], []),
    ],
)
@pytest.mark.parametrize(("met", "kept"), [(newest_rows.MET_ROWS, newest_rows.KEPT_ROWS), (8, 4), (1, 0)])
def test_what_is_kept_answers_as_the_source_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: list[list[int]],
    types: list[FeatureType],
    met: int,
    kept: int,
) -> None:
    """However far apart keys are and however many, for several instants, whether all rows meet at once or few at a time."""
    for name, value in (("MET_ROWS", met), ("KEPT_ROWS", kept), ("READ_ROWS", 5)):
        monkeypatch.setattr(newest_rows, name, value)
    entity = Entity("thing", key={f"key{place}": of for place, of in enumerate(types)})
    offline = Offline(tmp_path)
    with offline.session() as session:
        rows = drawn(keys, types, 60)
        view = view_of(rows, ["x"], entity=entity, known_at="known", refresh="1us", settle=f"{SETTLE}us")
        of = resolved(view, offline).parts[0].view
        scan, connection = session.scan(of.source), session.connection
        plain = all_keys_sql(of, scan)
        wanted = {at: answers(of, session, plain, at) for at in INSTANTS}
        connection.execute("DROP TABLE IF EXISTS asof_rows")
        for instants in (NO_ROWS_YET, INSTANTS):  # of the first all keys are found, and nothing beside
            found = collected_keys_sql(connection, of, scan, instants=instants)
            for at in instants:
                assert answers(of, session, found, at) == wanted[at]
        assert "asof_rows" not in tables(session)
        assert connection.sql(found).types[: len(types)] == connection.sql(plain).types[: len(types)]
        (there,) = connection.execute(f"SELECT count(*) FROM {newest_table(of)}").fetchall()[0]
        assert there < rows.num_rows or kept < 5


def test_of_keys_that_are_no_whole_numbers_nothing_is_kept(tmp_path: Path) -> None:
    """Nor where the source has no row, or nobody says when they will be asked for."""
    words: dict[str, Any] = {"entity": Entity("thing", key={"thing": String})}
    offline = Offline(tmp_path)
    with offline.session() as session:
        rows = table(thing=["a", "b", "a"], at=[EPOCH, EPOCH, EPOCH + MICROSECOND], x=[1.0, 2.0, 3.0])
        of = resolved(view_of(rows, ["x"], **words), offline).parts[0].view
        scan = session.scan(of.source)
        sql = collected_keys_sql(session.connection, of, scan, instants=[1])
        assert [value for _, _, value, _ in answers(of, session, sql, 1)] == [3.0, 2.0]
        assert newest_table(of) not in tables(session)
    with offline.session() as session:
        empty = table(thing=pa.array([], pa.int64()), at=pa.array([], TIME), x=pa.array([], pa.float64()))
        of = resolved(view_of(empty, ["x"]), offline).parts[0].view
        scan = session.scan(of.source)
        assert answers(of, session, collected_keys_sql(session.connection, of, scan, instants=[1]), 1) == []
        assert collected_keys_sql(session.connection, of, scan, instants=[]) == all_keys_sql(of, scan)


@pytest.mark.parametrize(
    ("instants", "rows"), [([3], [1, 2]), ([0], [0]), ([0, 3], [0, 1, 2]), ([-1], [0]), ([9], [3])]
)
@pytest.mark.parametrize("read", [newest_rows.READ_ROWS, 1])
def test_only_the_newest_rows_of_a_key_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instants: list[int], rows: list[int], read: int
) -> None:
    """All that happened last, at each of the instants, and nothing beside; one row where none counts yet. A key far away has one."""
    monkeypatch.setattr(newest_rows, "READ_ROWS", read)
    offline = Offline(tmp_path)
    with offline.session() as session:
        at = [EPOCH + micros * MICROSECOND for micros in (0, 2, 2, 9)]
        given = table(thing=[1] * 4 + [1 << 60], at=[*at, at[0]], known=[*at, at[0]], x=[1.0, 2.0, 3.0, 4.0, 5.0])
        view = view_of(given, ["x"], known_at="known", refresh="1us", settle="1us")
        of = resolved(view, offline).parts[0].view
        collected_keys_sql(session.connection, of, session.scan(of.source), instants=instants)
        kept = session.connection.execute(f"SELECT row, event_us, counts_from FROM {newest_table(of)} ORDER BY row")
        assert kept.fetchall() == [(row, (0, 2, 2, 9, 0)[row], (0, 2, 2, 9, 0)[row]) for row in [*rows, 4]]

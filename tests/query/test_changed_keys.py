"""Rule 6: the keys that a run computes again are exactly those that the rule names, to the µs on each side of each edge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import Count, Latest, Sum
from featurestore.query.answer import ask
from featurestore.query.asof import newest_column
from featurestore.query.changed_keys import all_keys_sql, changed_keys_sql, has_newest
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from tests.draws import draws
from tests.histories import EPOCH, MICROSECOND
from tests.small import TIME, table, view_of
from tests.world import resolved

AFTER, UPTO = 10, 20
REFRESHED = {"refresh": "10us", "settle": "2us"}


def at(times: Sequence[int | None]) -> list[Any]:
    return [None if each is None else EPOCH + each * MICROSECOND for each in times]


def changed(
    tmp_path: Path,
    rows: Any,
    features: Any,
    *,
    new_files: Sequence[int] = (),
    new_rows_from: int | None = None,
    **words: Any,
) -> list[int]:
    """The keys of rows that changed, in order; every row has a key of its own, its number, where the rows say no other."""
    view = view_of(rows, features, **{**REFRESHED, **words})
    offline = Offline(tmp_path)
    with offline.session() as session:
        of = resolved(view, offline).parts[0].view
        scan, upto = session.scan(of.source), {"after": AFTER, "upto": UPTO}
        sql = changed_keys_sql(of, scan, **upto, new_files=new_files, new_rows_from=new_rows_from)
        found = [key for (key,) in session.connection.sql(sql).fetchall()]
        assert len(found) == len(set(found))
        return sorted(found)


def rows_at(times: Sequence[int], **columns: Any) -> Any:
    return table(thing=list(times), at=at(times), x=[1.0] * len(times), **columns)


def test_of_a_row_that_was_learned_in_between(tmp_path: Path) -> None:
    """An instant knows what was known by then and by as long after as it settles."""
    known = [9, 10, 12, 13, 22, 23]
    rows = table(thing=known, at=at([0] * 6), known=at(known), x=[1.0] * 6)
    assert changed(tmp_path, rows, ["x"], known_at="known") == [13, 22]


def test_of_a_row_that_happened_in_between(tmp_path: Path) -> None:
    times = [9, 10, 11, 20, 21]
    assert changed(tmp_path, rows_at(times, known=at([0] * 5)), ["x"], known_at="known") == [11, 20]


@pytest.mark.parametrize(
    ("fold", "keys"),
    [
        (Sum("x", window="5us"), range(6, 21)),  # into sight at (10, 20], out of it at (5, 15]
        (Sum("x", window="2us"), range(9, 21)),  # (8, 18]
        (Sum("x", window="30us"), [*range(-19, -9), *range(11, 21)]),
        (Sum("x", window="3us", offset="4us"), range(4, 21)),  # (6, 16] and (3, 13]
        (Count("x", window="lifetime"), range(11, 21)),
    ],
)
def test_of_a_row_that_an_edge_of_a_window_passed(tmp_path: Path, fold: Any, keys: Sequence[int]) -> None:
    rows = rows_at(range(-30, 30), known=at([0] * 60))
    assert changed(tmp_path, rows, {"fold": fold}, known_at="known") == list(keys)


@pytest.mark.parametrize(
    ("features", "expired"),
    [
        ({"x": Latest("x", where="x > 0")}, range(-2, 8)),  # from the ttl before the one to the ttl before the other
        ({"x": Latest("x")}, []),  # which is judged at lookup
        ({"x": Sum("x", window="lifetime")}, []),
    ],
)
def test_of_a_folded_row_that_the_ttl_ended(tmp_path: Path, features: Any, expired: Sequence[int]) -> None:
    rows = rows_at(range(-10, 30), known=at([0] * 40))
    assert changed(tmp_path, rows, features, known_at="known", ttl="12us") == [*expired, *range(11, 21)]


@pytest.mark.parametrize(
    ("features", "keys"),
    [
        ({"x": Latest("x", where="x > 0")}, [11, 20]),
        ({"x": Latest("x")}, []),
        ({"x": Sum("x", window="lifetime")}, []),
    ],
)
def test_of_a_folded_row_whose_validity_ended(tmp_path: Path, features: Any, keys: list[int]) -> None:
    ends = [9, 10, 11, 20, 21]
    rows = table(thing=ends, at=at([0] * 5), until=at(ends), x=[1.0] * 5)
    assert changed(tmp_path, rows, features, until="until") == keys


def test_of_every_version_of_a_row_that_was_learned_of(tmp_path: Path) -> None:
    """A row that moves to another key is taken from the one that it had; a row without a key is nobody's."""
    rows = table(thing=[1, 2, 3, None, 4], at=at([0] * 5), known=at([1, 15, 2, 16, 3]), id=[7, 7, 8, 8, 9], x=[1.0] * 5)
    assert changed(tmp_path, rows, ["x"], known_at="known", identity="id") == [1, 2, 3]


def test_of_every_row_of_a_file_that_came(tmp_path: Path) -> None:
    """Beside those that changed in the others; and of what its rows replace."""
    for name, keys, known in [("a", [1, 2], [0, 15]), ("b", [3, 4], [0, 0])]:
        rows = table(thing=keys, at=at([0, 0]), known=at(known), id=[keys[0], 9], x=[1.0, 1.0])
        pq.write_table(rows, tmp_path / f"{name}.parquet")
    files = [str(tmp_path / f"{name}.parquet") for name in "ab"]
    words: dict[str, Any] = {"known_at": "known"}
    assert changed(tmp_path, files, ["x"], **words) == [2]
    assert changed(tmp_path, files, ["x"], new_files=[1], **words) == [2, 3, 4]
    assert changed(tmp_path, files, ["x"], new_files=[0], identity="id", **words) == [1, 2, 4]


def test_of_every_row_from_a_number_on(tmp_path: Path) -> None:
    """Where rows lie in no file; beside those that changed, and of what its rows replace. Each key once."""
    known = at([0, 15, 0, 0, 0])
    rows = table(thing=[1, 2, 3, 4, 4], at=at([0] * 5), known=known, id=[7, 8, 9, 7, 7], x=[1.0] * 5)
    words: dict[str, Any] = {"known_at": "known"}
    assert changed(tmp_path, rows, ["x"], **words) == [2]
    assert changed(tmp_path, rows, ["x"], new_rows_from=2, **words) == [2, 3, 4]
    assert changed(tmp_path, rows, ["x"], new_rows_from=3, **words) == [2, 4]
    assert changed(tmp_path, rows, ["x"], new_rows_from=5, **words) == [2]
    assert changed(tmp_path, rows, ["x"], new_rows_from=3, identity="id", **words) == [1, 2, 4]


def test_all_keys_are_those_of_every_version_once_each(tmp_path: Path) -> None:
    """However far ahead, whatever replaced them."""
    rows = table(thing=[2, 1, None, 2], at=at([0, 99, 1, 3]), known=at([1, 99, 2, 3]), id=[7, 7, 8, 9], x=[1.0] * 4)
    offline = Offline(tmp_path)
    with offline.session() as session:
        of = resolved(view_of(rows, ["x"], known_at="known", identity="id"), offline).parts[0].view
        found = session.connection.sql(all_keys_sql(of, session.scan(of.source))).fetchall()
    assert sorted(found) == [(1,), (2,)]


FEW_TIMES = st.lists(st.tuples(st.integers(0, 3), st.integers(-2, 3), st.integers(0, 4), st.booleans()), max_size=12)


def asked_of(of: ResolvedView, session: Session, sql: str, at: int) -> list[Any]:
    """By key, what the as-of query says at an instant of the keys that a query gives: event_time, value, and whether the canonical
    bytes decided."""
    connection = session.connection
    requests = f"SELECT row_number() OVER () - 1 AS request_no, *, CAST({at} AS BIGINT) AS as_of FROM ({sql})"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE requests AS {requests}")
    keys = connection.sql("SELECT k0 FROM requests ORDER BY request_no").fetchall()
    as_of = np.full(len(keys), at, np.int64)
    answer = ask(connection, of, session.scan(of.source), requests="requests", as_of=as_of)
    statuses = answer.statuses_of(answer.view.features)
    values = answer.columns(answer.view.features, statuses)[0].to_pylist()
    told = zip(keys, answer.event_times().to_pylist(), values, answer.conflicted.tolist(), strict=True)
    return sorted(told, key=lambda one: one[0])


@settings(max_examples=draws(120), deadline=None)
@given(
    drawn=FEW_TIMES,
    ats=st.lists(st.integers(-3, 5), min_size=1, max_size=2, unique=True),
    settle=st.sampled_from([0, 2]),
)
def test_what_the_newest_rows_are_told_to_be_changes_no_answer(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, int, int, bool]], ats: list[int], *, settle: int
) -> None:
    """Ties, rows that count later, keys without a row that counts, rows without a key, several instants."""
    known = [None if lag == 4 else time + lag for _, time, lag, _ in drawn]
    rows = table(
        thing=pa.array([key or None for key, _, _, _ in drawn], pa.int64()),
        at=pa.array(at([time for _, time, _, _ in drawn]), TIME),
        known=pa.array(at(known), TIME),
        x=pa.array([float(one) for _, _, _, one in drawn], pa.float64()),
    )
    offline = Offline(tmp_path_factory.mktemp("newest"))
    with offline.session() as session:
        view = view_of(rows, ["x"], known_at="known", refresh="1us", settle=f"{settle}us")
        of = resolved(view, offline).parts[0].view
        scan = session.scan(of.source)
        plain, told = all_keys_sql(of, scan), all_keys_sql(of, scan, newest_at=ats)
        columns = session.connection.sql(told).columns
        assert columns == ["k0", *map(newest_column, ats)]
        for instant in ats:
            assert asked_of(of, session, told, instant) == asked_of(of, session, plain, instant)


def test_the_newest_rows_are_told_only_where_no_row_replaces_another(tmp_path: Path) -> None:
    """And only where a value is that of a newest row."""
    rows = table(thing=[1], at=at([0]), known=at([0]), id=[1], x=[1.0])
    offline = Offline(tmp_path)
    with offline.session() as session:
        cases: list[tuple[Any, dict[str, Any]]] = [(["x"], {"identity": "id"}), ({"n": Count(window="1us")}, {})]
        for features, words in cases:
            of = resolved(view_of(rows, features, known_at="known", **words), offline).parts[0].view
            sql = all_keys_sql(of, session.scan(of.source), newest_at=[0])
            assert session.connection.sql(sql).columns == ["k0"]
        some = view_of(rows, {"x": Latest("x"), "n": Count(window="1us")}, known_at="known")
        assert has_newest(resolved(some, offline).parts[0].view)


def test_no_table_of_all_rows_is_made_where_the_newest_are_told(tmp_path: Path) -> None:
    """Nor is what was told of one instant taken for another, for which the table is made."""
    rows = table(thing=[1, 1, 2], at=at([0, 2, 0]), x=[1.0, 2.0, 3.0])
    offline = Offline(tmp_path)
    with offline.session() as session:
        of = resolved(view_of(rows, ["x"]), offline).parts[0].view
        sql = all_keys_sql(of, session.scan(of.source), newest_at=[1])
        for instant, values, has_table in [(1, [1.0, 3.0], False), (2, [2.0, 3.0], True)]:
            assert [value for _, _, value, _ in asked_of(of, session, sql, instant)] == values
            tables = {name for (name,) in session.connection.sql("SELECT table_name FROM duckdb_tables()").fetchall()}
            assert ("asof_rows" in tables) == has_table

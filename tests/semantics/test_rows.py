"""Rule 1's predicates: each SQL form says what its Python form says; together they are the interval in which a row counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import FeatureView, LastN, Latest, Mean, ParquetSource
from featurestore.query.windows.ranges import monotone_runs, range_of
from featurestore.semantics import rows as rule
from featurestore.semantics.judge import ended, ended_sql, expired
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.time import END
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.semantics.windows import Span
from tests.small import THING

SETTLE, TTL, KNOWN_AFTER, HISTORY, AS_OF = 5, 20, 3, 40, 60
EDGES = [
    edge + step for edge in (HISTORY, HISTORY + KNOWN_AFTER, AS_OF, AS_OF + SETTLE, AS_OF - TTL) for step in (-1, 0, 1)
]
"""Instants on which a predicate turns, and those beside them."""

INSTANT = st.one_of(st.sampled_from(EDGES), st.integers(0, 100))
ASKED = st.one_of(st.just(AS_OF), INSTANT)
"""Mostly the instant by which the edges were chosen."""

RAW = {"thing": "BIGINT", "id": "BIGINT", "at": "TIMESTAMP", "learned": "TIMESTAMP", "gone": "BOOLEAN", "x": "DOUBLE"}


def resolved(*, identity: bool, history: bool = True) -> ResolvedView:
    """A view with every word that rule 1 knows."""
    words: dict[str, Any] = {"identity": ["id"], "deleted": "gone"} if identity else {}
    if history:
        words["history_until"] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=HISTORY)
        words["known_after"] = f"{KNOWN_AFTER}us"
    source = ParquetSource("rows", "rows.parquet", event_time="at", known_at="learned", **words)
    view = FeatureView(
        "view", entity=THING, source=source, refresh="1h", settle=f"{SETTLE}us", ready_after="1m", ttl=f"{TTL}us",
        features={"x": Latest("x"), "mean": Mean("x", window="30us"), "last": LastN("x", n=2)},
    )  # fmt: skip
    return resolve(view, RAW)


VIEW, PLAIN = resolved(identity=True), resolved(identity=False)
LAST, MEAN = VIEW.folded
"""One that the ttl bounds, and one with a window."""


class Drawn(NamedTuple):
    """A source's row: µs, or null."""

    thing: int | None
    id: int | None
    at: int | None
    learned: int | None
    gone: bool | None


MAYBE = st.one_of(INSTANT, INSTANT, INSTANT, st.none())
ROWS = st.lists(
    st.builds(Drawn, st.sampled_from([1, 1, 1, 2, None]), st.sampled_from([1, 1, 1, 2, None]), MAYBE, MAYBE,
              st.sampled_from([None, False, False, True])),
    min_size=1, max_size=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """One for all examples, whose tables each of them names anew."""
    with duckdb.connect() as connection:
        yield connection


def asked(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    """The rows that a query gives."""
    return connection.execute(sql).fetchall()


@settings(max_examples=100, deadline=None)
@given(times=st.lists(st.tuples(INSTANT, INSTANT, INSTANT), min_size=1, max_size=20), as_of=ASKED)
def test_each_predicate_is_the_same_in_sql_and_in_python(
    connection: duckdb.DuckDBPyConnection, times: list[tuple[int, int, int]], as_of: int
) -> None:
    """Of rows that have all their words; the ones of one row and the ones of arrays alike."""
    event, learned, superseded = (np.array(column, np.int64) for column in zip(*times, strict=True))
    connection.register("given", pa.table({"event_us": event, "learned_us": learned, "superseded": superseded}))
    for view in (PLAIN, resolved(identity=False, history=False)):
        until = HISTORY if view.source.history_until else None
        known = rule.known(learned, event, history_until=until, known_after=KNOWN_AFTER)
        inner = f"SELECT *, {rule.known_sql(view.source)} AS known FROM given"
        found = connection.sql(
            f"SELECT known, {rule.counts_from_sql(SETTLE)} AS counts_from, {rule.counts_until_sql(SETTLE)} AS counts_until, "
            f"{rule.before_ttl_sql(as_of, TTL)} AS before, {ended_sql('superseded', as_of)} AS over, "
            f"{rule.within_sql(rule.visible_span(view, MEAN), as_of)} AS within, "
            f"{rule.within_sql(rule.visible_span(view, LAST), as_of)} AS in_ttl FROM ({inner})"
        ).fetchnumpy()
        begun, gone = rule.counts_from(event, known, SETTLE), rule.counts_until(superseded, SETTLE)
        window = Span(30)
        assert found["known"].tolist() == known.tolist()
        assert found["counts_from"].tolist() == begun.tolist()
        assert found["counts_until"].tolist() == gone.tolist()
        assert found["before"].tolist() == rule.before_ttl(event, as_of, TTL).tolist()
        assert found["over"].tolist() == ended(superseded, as_of).tolist()
        within = (event > window.start(as_of)) & (event <= window.end(as_of))
        assert found["within"].tolist() == within.tolist()
        in_ttl = (event <= as_of) & ~rule.before_ttl(event, as_of, TTL)
        assert found["in_ttl"].tolist() == in_ttl.tolist()
        for counted in (PLAIN, VIEW):
            sql = rule.counts_at_sql(counted, as_of)
            connection.register("interval", pa.table({"counts_from": begun, "counts_until": gone}))
            python = rule.counts_at(begun, gone if counted.source.identity else None, as_of)
            assert [row for (row,) in asked(connection, f"SELECT {sql} FROM interval")] == python.tolist()
        one = [bool(expired(*row, as_of, TTL)) for row in zip(event.tolist(), superseded.tolist(), strict=True)]
        assert one == expired(event, superseded, as_of, TTL).tolist()


def counts(row: Drawn, as_of: int) -> bool:
    """Whether a row without other versions counts, in so many words."""
    if row.thing is None or row.id is None or row.at is None or row.learned is None or row.gone:
        return False
    known = min(row.learned, row.at + KNOWN_AFTER) if row.at <= HISTORY else row.learned
    return row.at <= as_of and known <= as_of + SETTLE


@settings(max_examples=100, deadline=None)
@given(drawn=ROWS, as_of=ASKED)
def test_the_terms_one_by_one_are_the_interval(
    connection: duckdb.DuckDBPyConnection, drawn: list[Drawn], as_of: int
) -> None:
    """A row of which every term of (a), (b) and (c) holds is one that counts at the instant, and no other is."""
    columns: dict[str, Any] = {
        name: pa.array([getattr(row, name) for row in drawn], pa.bool_() if name == "gone" else pa.int64())
        for name in Drawn._fields
    }
    for name in ("at", "learned"):
        columns[name] = columns[name].cast(pa.timestamp("us"))
    table = pa.table({**columns, "x": pa.array([1.0] * len(drawn)), "n": pa.array(range(len(drawn)))})
    connection.register("source_rows", table)
    scan = Scan("source_rows", "0", "n")
    for view in (VIEW, PLAIN):
        counting = f"SELECT row FROM ({rule.rows_sql(view, scan)}) WHERE {rule.counts_at_sql(view, as_of)}"
        terms = [term for term, _ in rule.current_terms(view, as_of)] + [rule.happened_sql(as_of)]
        holds = " AND ".join(f"({term}) IS TRUE" for term in terms)
        versions = rule.versions_sql(view, rule.words_sql(view, scan), ties=["row"])
        assert asked(connection, f"SELECT count(*) FROM ({counting})") == asked(
            connection, f"SELECT count(*) FROM ({versions}) WHERE {holds}"
        )
        if view is VIEW and len({row.id for row in drawn}) == len(drawn):  # no row has another version
            assert asked(connection, f"SELECT count(*) FROM ({counting})") == [
                (sum(counts(row, as_of) for row in drawn),)
            ]


@settings(max_examples=100, deadline=None)
@given(
    times=st.lists(st.tuples(st.integers(0, 1), INSTANT, INSTANT, st.one_of(INSTANT, st.just(END))), min_size=1, max_size=20),
    requests=st.lists(st.tuples(st.integers(0, 1), INSTANT), min_size=1, max_size=5),
    length=st.one_of(st.none(), st.sampled_from([TTL, 30])),
    offset=st.sampled_from([0, 7]),
)  # fmt: skip
def test_a_search_along_runs_finds_the_rows_that_count(
    times: list[tuple[int, int, int, int]], requests: list[tuple[int, int]], length: int | None, offset: int
) -> None:
    """Ranges of monotone runs are the rows whose interval holds the instant and which lie within the window."""
    key, event, known, until = (np.array(column, np.int64) for column in zip(*sorted(times), strict=True))
    begun, span = rule.counts_from(event, known), Span(length, offset)
    wanted, as_of = (np.array(column, np.int64) for column in zip(*requests, strict=True))
    runs = list(monotone_runs(rule.RowTimes(key, event, begun, until), 2))
    for number in range(len(wanted)):
        found: list[int] = []
        for run in runs:
            low, high = (int(edge[number]) for edge in range_of(run, span, wanted, as_of))
            found += run.places[low:high].tolist()
        at = as_of[number]
        counts = rule.counts_at(begun, until, at) & (key == wanted[number])
        counts &= (event > span.start(at)) & (event <= span.end(at))
        assert sorted(found) == np.flatnonzero(counts).tolist()

"""Rule 1's predicates: each SQL form says what its Python form says; together they are the interval in which a row counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import Entity, FeatureView, InRange, LastN, Latest, Mean, ParquetSource, PushSource
from featurestore.declare.push import KNOWN_AT, REPLACES
from featurestore.query.windows.ranges import monotone_runs, range_of
from featurestore.semantics import rows as rule
from featurestore.semantics.forgotten import ForgottenKey, ForgottenKeys, digest_sql
from featurestore.semantics.judge import ended, ended_sql, expired
from featurestore.semantics.source_columns import Scan, cell
from featurestore.semantics.time import END
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.semantics.windows import Span
from featurestore.types import Bool, Float64, Int64, Timestamp
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


def resolved(*, identity: bool, history: bool = True, expectations: Sequence[Any] = ()) -> ResolvedView:
    """A view with every word that rule 1 knows."""
    words: dict[str, Any] = {"identity": ["id"], "deleted": "gone"} if identity else {}
    if history:
        words["history_until"] = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=HISTORY)
        words["known_after"] = f"{KNOWN_AFTER}us"
    source = ParquetSource(
        "rows", "rows.parquet", event_time="at", known_at="learned", expectations=expectations, **words
    )
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
            f"{rule.counts_from_sql()} AS unsettled, "
            f"{rule.before_ttl_sql(as_of, TTL)} AS before, {ended_sql('superseded', as_of)} AS over, "
            f"{rule.within_sql(rule.visible_span(view, MEAN), as_of)} AS within, "
            f"{rule.within_sql(rule.visible_span(view, LAST), as_of)} AS in_ttl FROM ({inner})"
        ).fetchnumpy()
        begun, gone = rule.counts_from(event, known, SETTLE), rule.counts_until(superseded, SETTLE)
        window = Span(30)
        assert found["known"].tolist() == known.tolist()
        assert found["counts_from"].tolist() == begun.tolist()
        assert found["counts_until"].tolist() == gone.tolist()
        assert found["unsettled"].tolist() == rule.counts_from(event, known).tolist()
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


@pytest.mark.parametrize(
    ("identity", "columns", "stays"),
    [
        ([], [], True),
        ([], ["thing"], True),  # no row replaces another
        (["id"], [], True),  # an entity without keys has one
        (["id"], ["id"], True),
        (["id", "thing"], ["id"], True),
        (["id"], ["thing"], False),
        (["id"], ["id", "thing"], False),
    ],
)
def test_all_versions_of_a_row_have_one_key_where_its_identity_names_it(
    identity: list[str], columns: list[str], stays: bool
) -> None:
    source = ParquetSource("rows", "rows.parquet", event_time="at", known_at="learned", identity=identity)
    assert rule.keys_stay(source, columns) is stays


NO = None
FORGOTTEN_THING, FORGOTTEN_AT = 9, 50
BEYOND = InRange("x", at_most=1000, otherwise="refuse")
QUARANTINED, WARNED = InRange("x", at_least=0, otherwise="quarantine"), InRange("x", at_most=100, otherwise="warn")
EXPECTED = [  # thing, id, at, learned, gone, x
    (1, 1, 1, 2, NO, 5.0),
    (1, 1, 1, 3, NO, -1.0),  # in quarantine
    (1, 2, 1, 4, True, -1.0),  # a deletion, of which nothing is expected
    (2, 3, 1, 8, False, 500.0),  # warned of
    (1, 4, 1, NO, NO, 5.0),  # never known
    (NO, 5, 1, 3, NO, 5.0),
    (1, 6, NO, 3, NO, 5.0),
    (1, NO, 1, 3, NO, 5.0),
    (NO, 8, NO, 3, True, 5.0),  # a deletion needs neither key nor time
    (FORGOTTEN_THING, 9, 1, FORGOTTEN_AT, NO, 500.0),
    (FORGOTTEN_THING, 10, 1, NO, NO, 5.0),
    (FORGOTTEN_THING, 11, 1, FORGOTTEN_AT + 1, NO, 500.0),  # learned after that
    (2, 12, 1, 99, NO, -7.0),  # in quarantine
]


def scanned(connection: duckdb.DuckDBPyConnection, rows: Sequence[tuple[Any, ...]]) -> Scan:
    """A scan of rows as `EXPECTED` has them, numbered from 0 on, where a key is forgotten."""
    types = {
        name: {"BIGINT": pa.int64(), "TIMESTAMP": pa.timestamp("us"), "BOOLEAN": pa.bool_()}.get(of, pa.float64())
        for name, of in RAW.items()
    }
    columns = dict(zip(types, zip(*rows, strict=True), strict=True))
    columns = {
        name: pa.array([*values], of) for (name, of), values in zip(types.items(), columns.values(), strict=True)
    }
    connection.register("expected_rows", pa.table({**columns, "n": pa.array(range(len(rows)))}))
    ((digest,),) = asked(connection, f"SELECT {digest_sql('00', 'thing', [('thing', Int64, str(FORGOTTEN_THING))])}")
    forgotten = ForgottenKeys("00", (ForgottenKey("thing", ("thing",), digest, FORGOTTEN_AT),))
    return Scan("expected_rows", "3", "n", forgotten)


def test_rows_that_do_not_meet_what_is_expected_of_them(connection: duckdb.DuckDBPyConnection) -> None:
    """They are counted and found, those of forgotten keys left out; in quarantine they are never known."""
    view, scan = resolved(identity=True, expectations=[QUARANTINED, WARNED]), scanned(connection, EXPECTED)
    sql = rule.words_sql(view, scan)
    assert asked(connection, f"SELECT row, known FROM ({sql}) WHERE quarantined ORDER BY row") == [
        (1, None),
        (12, None),
    ]
    assert asked(connection, f"SELECT row, superseded FROM ({rule.versions_sql(view, sql)}) WHERE row < 2 ORDER BY row") == [
        (0, END), (1, END),
    ]  # fmt: skip
    assert asked(connection, rule.unmet_counts_sql(view, scan)) == [(2, 2)]
    everything = asked(connection, rule.unmet_counts_sql(view, scan._replace(forgotten=None)))
    assert everything == [(2, 3)]
    flagged = [(3, n, n in {1, 12}, n in {3, 9, 11}, EXPECTED[n][1], EXPECTED[n][5]) for n in (1, 3, 9, 11, 12)]
    for most, forgotten, found in [
        (9, None, flagged),
        (3, None, flagged[:3]),
        (9, scan.forgotten, flagged[:2] + flagged[3:]),
    ]:
        rows = rule.unmet_rows_sql(view, scan._replace(forgotten=forgotten), most=most)
        places = [sorted(view.columns).index(name) for name in ("id", "x")]
        values = ", ".join(f"v{place}" for place in places)
        assert asked(connection, f"SELECT file, row, u0, u1, {values} FROM ({rows}) ORDER BY row") == found
    two = rule.words_sql(resolved(identity=True, expectations=[BEYOND, QUARANTINED]), scan)
    assert asked(connection, f"SELECT row FROM ({two}) WHERE quarantined ORDER BY row") == [(1,), (12,)]
    warned = resolved(identity=True, expectations=[WARNED])
    assert asked(connection, f"SELECT count(*) FROM ({rule.words_sql(warned, scan)}) WHERE quarantined") == [(0,)]


def test_rows_that_lack_what_a_row_needs_are_counted(connection: duckdb.DuckDBPyConnection) -> None:
    """Those that are never known or have no identity, and of the others those without a key or a time, which deletions need not have. Not
    those in quarantine, and of forgotten keys."""
    view, scan = resolved(identity=True, expectations=[QUARANTINED, WARNED]), scanned(connection, EXPECTED)
    assert asked(connection, rule.invalid_sql(view, scan)) == [(2, 2)]
    assert asked(connection, rule.invalid_sql(view, scan._replace(forgotten=None))) == [(3, 2)]
    assert asked(connection, rule.invalid_sql(resolved(identity=True), scan)) == [(2, 2)]
    assert asked(connection, rule.invalid_sql(PLAIN, scan)) == [(1, 3)]  # without identities, and deletions
    for number in range(9):
        (told,) = asked(connection, rule.whole_sql(VIEW, scanned(connection, [EXPECTED[0], EXPECTED[number]])))
        assert told == (number < 4,)


@pytest.mark.parametrize(
    ("now", "newest"), [(1, None), (2, 2), (7, 4), (8, 8), (98, FORGOTTEN_AT + 1), (99, FORGOTTEN_AT + 1)]
)
def test_the_newest_row_is_one_that_is_known(
    connection: duckdb.DuckDBPyConnection, now: int, newest: int | None
) -> None:
    """By now, and not one in quarantine."""
    view = resolved(identity=True, history=False, expectations=[QUARANTINED, WARNED])
    assert asked(connection, rule.newest_known_sql(view, scanned(connection, EXPECTED), now)) == [(newest,)]


def test_of_what_is_left_of_a_forgotten_row_of_a_log_nothing_is_lacking(connection: duckdb.DuckDBPyConnection) -> None:
    """A deletion has no time either, and is no such row: its identity is missed."""
    view = pushed_view()
    rows = [  # as in `EXPECTED`; one without a time that is no deletion is what is left
        (1, 1, 1, NO, NO, NO), (NO, NO, NO, NO, NO, NO), (NO, NO, NO, NO, True, NO), (NO, 3, NO, NO, True, NO), (NO, 4, 1, NO, NO, NO),
    ]  # fmt: skip
    own = f"SELECT * EXCLUDE (learned), n AS {KNOWN_AT}, NULL::BIGINT AS {REPLACES}"
    scan = scanned(connection, rows)
    scan = scan._replace(relation=f"({own} FROM {scan.relation})")
    assert asked(connection, rule.invalid_sql(view, scan)) == [(1, 1)]


def pushed_view() -> ResolvedView:
    source = PushSource(
        "rows", schema={"thing": Int64, "id": Int64, "at": Timestamp, "gone": Bool, "x": Float64}, event_time="at",
        identity="id", deleted="gone",
    )  # fmt: skip
    raw = {**RAW, KNOWN_AT: "BIGINT", REPLACES: "BIGINT"}
    return resolve(FeatureView("view", entity=THING, source=source, features=["x"]), raw)


def test_a_version_counts_until_the_next_one_is_known(connection: duckdb.DuckDBPyConnection) -> None:
    """Whichever is known first of those that were learned later; a version that is not known yet ends none."""
    learned = [70, 42, 90, 50, NO]  # where history was loaded in bulk, what was learned last may be known first
    rows = [(1, 1, happened, when, NO, 1.0) for happened, when in zip([50, 40, 50, 50, 50], learned, strict=True)]
    view = resolved(identity=True)
    found = f"SELECT learned_us, superseded FROM ({rule.versions_sql(view, rule.words_sql(view, scanned(connection, rows)))}) ORDER BY learned_us"
    assert asked(connection, f"{found} NULLS LAST") == [(42, 50), (50, 70), (70, 90), (90, END), (NO, 42)]
    plain = rule.versions_sql(PLAIN, rule.words_sql(PLAIN, scanned(connection, rows)))
    assert asked(connection, f"SELECT DISTINCT superseded FROM ({plain})") == [(END,)]


def test_a_pushed_version_counts_until_what_names_it_is_known(connection: duckdb.DuckDBPyConnection) -> None:
    """No other of its identity ends it."""
    rows, view = [(1, 1, 1, NO, NO, 1.0)] * 4, pushed_view()
    scan = scanned(connection, rows)
    replaces = "CASE n WHEN 1 THEN 0 WHEN 3 THEN 1 END"
    scan = scan._replace(
        relation=f"(SELECT * EXCLUDE (learned), n AS {KNOWN_AT}, {replaces} AS {REPLACES} FROM {scan.relation})"
    )
    sql = rule.versions_sql(view, rule.words_sql(view, scan))
    assert asked(connection, f"SELECT row, superseded FROM ({sql}) ORDER BY row") == [
        (0, 1),
        (1, 3),
        (2, END),
        (3, END),
    ]


@pytest.mark.parametrize(
    ("row", "at", "told"),
    [
        ({}, 60, []),
        ({"known": 65}, 60, []),
        ({"known": 66}, 60, ["not yet known"]),
        ({"superseded": 66}, 60, []),
        ({"superseded": 65}, 60, ["superseded"]),
        ({"deleted": True}, 60, ["deleted"]),
        ({"event_us": 60}, 60, []),
        ({"event_us": 61}, 60, ["too new"]),
        ({"event_us": 40}, 60, []),
        ({"event_us": 39}, 60, ["expired"]),
        ({"event_us": NO}, 60, ["invalid", "too new", "expired"]),
        ({"k0": NO}, 60, ["invalid"]),
        ({"id": NO}, 60, ["invalid"]),
    ],
)
def test_a_row_is_told_what_it_is_not(
    connection: duckdb.DuckDBPyConnection, row: dict[str, Any], at: int, told: list[str]
) -> None:
    """At the µs: known and superseded by when the lookups of an instant know, within the ttl by when it happened."""
    words = {"event_us": 50, "known": 50, "superseded": END, "k0": 1, "id": 1, "deleted": NO, **row}
    given = ", ".join(
        f"CAST({'NULL' if value is NO else value} AS {'BOOLEAN' if name == 'deleted' else 'BIGINT'}) AS "
        + {"id": cell("id"), "deleted": cell("gone")}.get(name, name)
        for name, value in words.items()
    )
    terms = [*rule.current_terms(VIEW, at), *rule.visible_terms(VIEW, at)]
    answers = asked(connection, f"SELECT {', '.join(f'({term}) IS TRUE' for term, _ in terms)} FROM (SELECT {given})")[
        0
    ]
    assert [name for (_, name), holds in zip(terms, answers, strict=True) if not holds] == told
    endless = resolve(VIEW.declared.model_copy(update={"ttl": None}), RAW)
    assert [name for _, name in rule.visible_terms(endless, at)] == ["too new"]


def test_a_condition_holds_where_it_is_true(connection: duckdb.DuckDBPyConnection) -> None:
    """And not where it is null; of an entity without keys all rows are of one, which is 0."""
    said = ", ".join(rule.holds_sql(text) for text in ("1 = 1", "1 = 2", "NULL"))
    assert asked(connection, f"SELECT {said}") == [(True, False, False)]
    view = resolve(VIEW.declared.model_copy(update={"entity": Entity("all", key={}), "key": {}}), RAW)
    words = rule.words_sql(view, scanned(connection, EXPECTED[:3]), conditions=["x > 0"])
    assert asked(connection, f"SELECT k0, w0 FROM ({words}) ORDER BY row") == [(0, True), (0, False), (0, False)]


def test_a_key_without_a_zone_is_read_in_that_of_its_source(connection: duckdb.DuckDBPyConnection) -> None:
    """In UTC where the source says none."""
    for zone, hour in ((None, 1), ("Europe/Berlin", 0)):
        source = ParquetSource("rows", "rows.parquet", event_time="learned", timezone=zone)
        view = FeatureView(
            "view", entity=Entity("when", key={"when": Timestamp}), key={"when": "at"}, source=source, features=["x"],
            refresh="1h",
        )  # fmt: skip
        words = rule.words_sql(resolve(view, RAW), scanned(connection, [(1, 1, 3_600_000_000, 1, NO, 1.0)]))
        assert asked(connection, f"SELECT epoch_us(k0) FROM ({words})") == [(hour * 3_600_000_000,)]


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

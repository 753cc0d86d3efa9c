"""Row conditions and derived columns: what is refused when planned, and one value in batch and in push."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.durable.parquet import storable
from featurestore.semantics.expressions import check, columns_named, evaluate, guarded, normalised
from tests.draws import draws
from tests.sources.log_rows import SCHEMA, batch, bits

ENGINE = tuple(int(part) for part in duckdb.__version__.split(".")[:2])

COLUMNS = {
    "a": "BIGINT", "b": "VARCHAR", "x": "DOUBLE", "xs": "DOUBLE[]", "ns": "BIGINT[]", "ds": "DECIMAL(10,2)[]", "emb": "FLOAT[3]",
    "at_": "TIMESTAMP WITH TIME ZONE", "s": "STRUCT(f BIGINT)", "j": "JSON", "Two Words": "BOOLEAN",
}  # fmt: skip

ALLOWED = [
    ("a + 1", "BIGINT"),
    ("A + 1", "BIGINT"),
    ("b = 'failed'", "BOOLEAN"),
    ('"Two Words" AND x > 5', "BOOLEAN"),
    ("list_transform(xs, lambda y: y + 1)", "DOUBLE[]"),
    ("list_reduce(xs, lambda y, z: y + z)", "DOUBLE"),
    ("[y * 2 for y in xs if y > 1]", "DOUBLE[]"),
    ("list_sum(ns)", "HUGEINT"),
    ("list_sum(ds)", "DECIMAL(38,2)"),
    ("list_sum(list_transform(ns, lambda y: y * 2))", "HUGEINT"),
    ("list_avg(ns)", "DOUBLE"),
    ("list_max(xs)", "DOUBLE"),
    ("list_aggregate(xs, 'count')", "BIGINT"),
    ("list_sort(list_distinct(ns))", "BIGINT[]"),
    ("array_to_string(ns, ',')", "VARCHAR"),
    ("array_cosine_similarity(emb, emb)", "FLOAT"),
    ("split_part(b, ' ', 1)", "VARCHAR"),
    ("if(a > 1, 1, 2)", "INTEGER"),
    ("nullif(a, 1)", "BIGINT"),
    ("coalesce(a, 1) BETWEEN 1 AND 2", "BOOLEAN"),
    ("CASE WHEN a > 1 THEN 2 END", "INTEGER"),
    ("try_cast(b AS INTEGER)", "INTEGER"),
    ("s.f", "BIGINT"),
    ("j -> 'a'", "JSON"),
    ("j ->> 'a'", "VARCHAR"),
    ("age(at_, at_)", "INTERVAL"),
    ("extract(hour FROM at_)", "BIGINT"),
    ("date_trunc('hour', at_ - INTERVAL 1 DAY)", "TIMESTAMP WITH TIME ZONE"),
    ("b IN ('x', 'y') OR b LIKE 'z%'", "BOOLEAN"),
    ("a -- the end", "BIGINT"),
]

REFUSED = [
    ("aa", "no column 'aa'. Did you mean 'a'"),
    ("nosuch.a", "no column 'nosuch'"),
    ("unnamed_subquery.a", "no column"),
    ("rowid", "no column 'rowid'"),
    ("list_transform(xs, lambda y: z)", "no column 'z'"),
    ("list_transform(xs, lambda y: y) || y", "no column 'y'"),
    ("lowr(b)", "no function 'lowr'. Did you mean 'lower'"),
    ("main.abs(a)", "unclear"),
    ("a +", "cannot be read"),
    ("", "cannot be read"),
    ("'abc", "has no end"),
    ("all a", "cannot be read"),
    ("1) + (2", "cannot be read"),
    ("a;", "cannot be read"),
    ("a, a", "not one expression"),
    ("a; SELECT 1", "not one expression"),
    ("a AS b", "not one expression"),
    ("a b", "not one expression"),
    ("a FROM t", "not one expression"),
    ("1 WHERE true", "not one expression"),
    ("1 LIMIT 1", "not one expression"),
    ("1 UNION SELECT 2", "not one expression"),
    ("DISTINCT a", "not one expression"),
    ("b + 1", "does not fit its columns"),
    ("list_sum(b)", "list is VARCHAR"),
    ("list_sum(b + 1)", "does not fit its columns"),
    ("(SELECT 1)", "a subquery"),
    ("a IN (SELECT 1)", "a subquery"),
    ("EXISTS (SELECT 1)", "a subquery"),
    ("sum(a)", "aggregate over rows"),
    ("1 + count(*)", "aggregate over rows"),
    ("sum(DISTINCT a)", "aggregate over rows"),
    ("list(a ORDER BY a)", "aggregate over rows"),
    ("weighted_avg(a, a)", "aggregate over rows"),
    ("json_group_array(a)", "aggregate over rows"),
    ("sum(a) OVER ()", "a window function"),
    ("row_number() OVER ()", "a window function"),
    ("now()", "reads the clock"),
    ("NOW()", "reads the clock"),
    ("today()", "reads the clock"),
    ("current_date", "reads the clock"),
    ("current_timestamp", "reads the clock"),
    ("localtimestamp", "reads the clock"),
    ("current_localtimestamp()", "reads the clock"),
    ("age(at_)", "reads the clock"),
    ("ago(INTERVAL 1 DAY)", "reads the clock" if ENGINE >= (1, 5) else "no function 'ago'"),
    ("pg_postmaster_start_time()", "reads the clock"),
    ("CASE WHEN a > 1 THEN [now()] END", "reads the clock"),
    ("list_transform(xs, lambda y: y + random())", "is random"),
    ("uuid()", "is random"),
    ("gen_random_uuid()", "is random"),
    ("nextval('s')", "not deterministic"),
    ("getvariable('a')", "depends on the session"),
    ("current_setting('TimeZone')", "depends on the session"),
    ("current_user", "depends on the session"),
    ("current_schema()", "depends on the session"),
    ("version()", "engine's version"),
    ("hash(a)", "engine's version"),
    ("alias(a)", "how the expression is written"),
    ("error('x')", "not deterministic"),
    ("read_csv('x')", "makes a table"),
    ("unnest(xs)", "several rows"),
    ("?", "a parameter"),
    ("$1 + 1", "a parameter" if ENGINE >= (2,) else "cannot be read"),  # of the tokens, between which are blanks
    ("$name", "a parameter"),
    ("*", "name the columns"),
    ("columns('a')", "name the columns"),
    ("#1", "by its position"),
    ("list_distinct(ns)", "order that nobody gave; sort it"),
    ("list_sort([x, 0.0])", "over DOUBLE[]: it puts 0.0 and -0.0 in any order"),
    ("list_reverse_sort(emb)", "over FLOAT[3]: it puts 0.0 and -0.0 in any order"),
    ("list_transform([xs], lambda l: list_sort(l))", "parameter of a lambda, which may be a list of floats"),
    ("list_distinct(ns)[1]", "order that nobody gave"),
    ("array_intersect(ns, ns)", "order that nobody gave"),
    ("list_grade_up(ns)", "order that nobody gave"),
    ("list_sum(xs)", "list is DOUBLE[]"),
    ("list_avg(xs)", "list is DOUBLE[]"),
    ("list_avg(ds)", "for integers only"),
    ("list_sum(emb)", "list is FLOAT[3]"),
    ("list_aggregate(xs, 'sum')", "list is DOUBLE[]"),
    ("list_aggr(xs, 'fsum')", "may depend on how the engine adds up"),
    ("list_stddev_pop(ns)", "may depend on how the engine adds up"),
    ("list_mode(ns)", "may depend on how the engine adds up"),
    ("list_aggregate(xs, b)", "name the aggregate"),
    ("list_transform([xs], lambda y: list_sum(y))", "parameter of a lambda"),
]


@pytest.mark.parametrize(("expression", "of"), ALLOWED)
def test_allowed(expression: str, of: str) -> None:
    """An expression over one row gives its DuckDB type."""
    with duckdb.connect() as connection:
        assert check(connection, expression, COLUMNS) == of


@pytest.mark.parametrize(("expression", "told"), REFUSED)
def test_refused(expression: str, told: str) -> None:
    """What is no expression over one row, or could give another value for the same row, is refused with the reason."""
    with duckdb.connect() as connection, pytest.raises(ValueError) as refused:
        check(connection, expression, COLUMNS)
    assert told in str(refused.value)


def test_a_column_that_is_a_word_of_sql_says_how_it_is_written() -> None:
    """`at` is what a column of instants is often called."""
    with duckdb.connect() as connection:
        with pytest.raises(ValueError, match="""where 'at' is the column, write "at": it is a word of SQL"""):
            check(connection, "a > 1 AND at > a", {"a": "BIGINT", "at": "BIGINT"})
        assert check(connection, 'a > 1 AND "at" > a', {"a": "BIGINT", "at": "BIGINT"}) == "BOOLEAN"
        with pytest.raises(ValueError, match="is not one expression"):
            check(connection, "a > 1; DROP TABLE t", COLUMNS)


EXPRESSIONS = {
    "high": "double > 5",
    "odd": "isnan(double)",
    "odd list": "list_max(list) > 2",
    "low": '"float" <= 0 OR "float" > 1e30',
    "not low": 'NOT ("float" <= 0)',
    "sum": 'double + "float" * 2 - "int"',
    "root": "CASE WHEN double > 0 AND NOT isinf(double) THEN exp(-1 / sqrt(double)) + ln(double) * sin(1e-3) END",
    "negative": "-double",
    "greatest": 'greatest(double, "float", 0.0)',
    "division": '"int" // 7 + "int" % 7',
    "quotient": "double / (turn - 1)",
    "decimals": "\"decimal\" > 1000",
    "rounded": 'round("decimal", 3)',
    "text": "upper(coalesce(\"text\", 'none')) || length(\"text\")",
    "like": "\"text\" LIKE 'pl%' AND \"bool\"",
    "bytes": "hex(\"bytes\")",
    "hour": "date_trunc('hour', \"at_\") + INTERVAL 1 MONTH",
    "clock": 'extract(hour FROM "at_") * 60 + extract(minute FROM "at_")',
    "day": '"date" + 1',
    "as text": 'CAST("at_" AS VARCHAR) || CAST(double AS VARCHAR)',
    "list": "list_transform(list, lambda y: y * 2)",
    "reduced": "list_reduce(list, lambda y, z: y + z, 0::DOUBLE)",
    "sorted": "list_sort(string_split(CAST(\"at_\" AS VARCHAR), ':'))",
    "first": "embedding[1] + embedding[3]",
    "in": "turn IN (1, 2) AND double IS NOT NULL",
    "distinct": "double IS DISTINCT FROM \"float\"",
}  # fmt: skip
CONDITIONS = ["high", "odd", "odd list", "low", "not low", "decimals", "like", "in", "distinct"]


def table(seeds: list[int], rows: int) -> pa.Table:
    parts = [batch(rows * turn, rows, turn=turn, seed=seed) for turn, seed in enumerate(seeds)]
    found = pa.Table.from_batches(parts, SCHEMA)
    near = pa.array([None if at is None else at % 2**50 for at in found["at"].cast(pa.int64()).to_pylist()], pa.int64())
    found = found.append_column("at_", near.cast(pa.timestamp("us", "UTC")))
    near = pa.array(
        [None if day is None else day % 40_000 for day in found["date"].cast(pa.int32()).to_pylist()], pa.int32()
    )
    return found.drop_columns(["at", "date"]).append_column("date", near.cast(pa.date32()))


@settings(max_examples=draws(25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=6), rows=st.integers(1, 40), group=st.integers(1, 50))
def test_batch_and_push_agree(seeds: list[int], rows: int, group: int, tmp_path: Path) -> None:
    """Over Parquet, on two threads, and over Arrow, for a whole table, for slices and for single rows: the same bits."""
    given = table(seeds, rows)
    path = tmp_path / "rows.parquet"
    pq.write_table(storable(given), path, row_group_size=group)
    whole = evaluate(given, EXPRESSIONS)
    half = given.num_rows // 2
    halves = pa.concat_tables([evaluate(given.slice(0, half), EXPRESSIONS), evaluate(given.slice(half), EXPRESSIONS)])
    assert bits(halves) == bits(whole)
    for row in {0, half, given.num_rows - 1}:
        assert bits(evaluate(given.slice(row, 1), EXPRESSIONS)) == bits(whole.slice(row, 1))
    with duckdb.connect(config={"threads": 2, "preserve_insertion_order": False}) as connection:
        connection.sql("SET TimeZone = 'UTC'")
        file = f"read_parquet('{path}')"
        columns = {name: of for name, of, *_ in connection.sql(f"DESCRIBE FROM {file}").fetchall()}
        source = f"(SELECT {guarded(columns)}, file_row_number AS nth FROM {file})"
        selected = ", ".join(f'({normalised(sql)}) AS "{name}"' for name, sql in EXPRESSIONS.items())
        batched = connection.sql(f"SELECT {selected} FROM {source} ORDER BY nth").to_arrow_table()
        assert batched.schema == whole.schema
        assert bits(batched) == bits(whole)
        for name in CONDITIONS:
            chosen = f"SELECT nth FROM {source} WHERE {normalised(EXPRESSIONS[name])} ORDER BY nth"
            kept = [nth for (nth,) in connection.sql(chosen).fetchall()]
            assert kept == [nth for nth, is_true in enumerate(whole[name].to_pylist()) if is_true]


def test_statistics_of_arrow_leave_nan_out(tmp_path: Path) -> None:
    """Why columns are guarded: Arrow's statistics say that 2 is the greatest here, and DuckDB concludes from it, since version
    2 also that there is no NaN."""
    path = tmp_path / "nan.parquet"
    pq.write_table(pa.table({"x": [1.0, float("nan"), 2.0]}), path)
    with duckdb.connect() as connection:
        plain = connection.execute(f"SELECT isnan(x), x > 5 FROM '{path}'").fetchall()
        assert plain == [(False, False), (ENGINE < (2,), False), (False, False)]
        guard = guarded({"x": "DOUBLE"})
        held = connection.execute(f"SELECT isnan(x), x > 5 FROM (SELECT {guard} FROM '{path}')").fetchall()
        assert held == [(False, False), (True, True), (False, False)]
        assert connection.execute(f"SELECT x FROM (SELECT {guard} FROM '{path}') WHERE x > 5").fetchall() != []


def test_evaluate_names_the_column_that_fails() -> None:
    """A row for which an expression has no value is an error that names the column, and the next call works."""
    given = pa.table({"b": ["1", "x"]})
    with pytest.raises(ValueError, match="column 'n' cannot be computed: .*'x'"):
        evaluate(given, {"fine": "b || 'y'", "n": "CAST(b AS INTEGER)"})
    assert evaluate(given, {"n": "TRY_CAST(b AS INTEGER)"})["n"].to_pylist() == [1, None]


def test_evaluate_keeps_rows_and_order() -> None:
    """The columns come in the order asked for, with the table's rows in theirs, without rows and without expressions."""
    given = pa.table({"a": pa.array(range(10_000), pa.int64())})
    found = evaluate(given, {"z": "a * 2", "b": "a"})
    assert found.column_names == ["z", "b"]
    assert found["b"].to_pylist() == list(range(10_000))
    assert evaluate(given.slice(0, 0), {"z": "a * 2"}).schema == pa.schema([("z", pa.int64())])
    assert evaluate(given, {}).num_columns == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_forks_while_threads_have_evaluated() -> None:
    """Each thread has a connection of its own, which a forked child has to leave alone, and it evaluates by another."""
    rows = pa.table({"x": [1.0, 2.0]})
    evaluated, goes_on = threading.Barrier(4), threading.Event()

    def work() -> None:
        evaluate(rows, {"y": "x + 1"})
        evaluated.wait(600)
        goes_on.wait(600)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    evaluated.wait(600)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if evaluate(rows, {"y": "x + 1"})["y"].to_pylist() == [2.0, 3.0] else 1)
    goes_on.set()
    for thread in threads:
        thread.join()
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ('a + B + "C" + a', ("a", "b", "C")),
        ("list_transform(l, lambda x: x + a)", ("l", "a")),
        ("list_transform(l, lambda X, i: x + I + c)", ("l", "c")),
        ("list_transform(l, lambda x: list_sum(list_transform(m, lambda y: x + y)))[x]", ("l", "m", "x")),
        ("s.f + 1", ("s",)),
    ],
)
def test_the_columns_that_an_expression_names(expression: str, named: tuple[str, ...]) -> None:
    """In lower case where they have no quotes, each once; a lambda's parameters are none within it."""
    assert columns_named(expression) == named

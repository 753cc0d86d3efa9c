"""Pushed rows as a table: in any form the same, and refused with their place where they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import PushSource
from featurestore.errors import PushError
from featurestore.push.rows import table_of_rows, write_rows
from featurestore.types import Array, Bool, Float64, Int64, String, Timestamp

SCHEMA = {"thing": Int64, "at": Timestamp, "x": Float64, "tags": Array(String), "gone": Bool}
SOURCE = PushSource("rows", schema=SCHEMA, event_time="at", identity=["thing"], deleted="gone")
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
TOKYO = timezone(timedelta(hours=9))


def row(**words: Any) -> dict[str, Any]:
    return {"thing": 1, "at": NOON, **words}


ROWS = [row(x=0.5, tags=["a", None], gone=False), row(thing=-(2**63), x=None), row(thing=2**63 - 1, tags=[], gone=True)]
FULL = [{name: each.get(name) for name in SCHEMA} for each in ROWS]


@pytest.mark.parametrize("make", [
    lambda: ROWS,
    lambda: tuple(ROWS),
    lambda: {name: [each[name] for each in FULL] for name in SCHEMA},
    lambda: [{**ROWS[0], "at": NOON.astimezone(TOKYO)}, *ROWS[1:]],
        lambda: [{**ROWS[0], "at": NOON.replace(tzinfo=None)}, *ROWS[1:]],
    lambda: pa.Table.from_pylist(FULL, pa.schema([(name, of.arrow) for name, of in SCHEMA.items()])),
    lambda: pa.Table.from_pylist(FULL, pa.schema([(name, of.arrow) for name, of in reversed(SCHEMA.items())])),
])  # fmt: skip
def test_rows_in_any_form_are_the_same_table(make: Callable[[], Any]) -> None:
    """The source's columns, in its order; a column that is left out is null."""
    found = table_of_rows(SOURCE, make())
    assert found.schema == pa.schema([(name, of.arrow) for name, of in SCHEMA.items()])
    assert found.to_pylist() == FULL


def test_a_mapping_is_one_row_where_none_of_its_values_is_a_column() -> None:
    """A list is the one value of a column of lists."""
    for one in (row(x=1.5), row(tags=["a"])):
        assert table_of_rows(SOURCE, one).to_pylist() == [{**dict.fromkeys(SCHEMA), **one}]
    assert table_of_rows(SOURCE, []).num_rows == 0
    assert table_of_rows(SOURCE, pd.DataFrame({"thing": [1], "at": [NOON]})).to_pylist() == [
        {**dict.fromkeys(SCHEMA), **row()}
    ]


def test_values_in_their_json_forms_are_read_as_such() -> None:
    given = {"thing": 2**53 + 1, "at": "2024-01-01T12:00:00Z", "x": "NaN"}
    (found,) = table_of_rows(SOURCE, [given], json=True).to_pylist()
    assert (found["thing"], found["at"], str(found["x"])) == (2**53 + 1, NOON, "nan")


@pytest.mark.parametrize(("rows", "told"), [
    ([row(), 7], "row 1 is int, and must map columns to values"),
    ([row(), row(y=1)], "row 1 has a column 'y' that the source has not"),
    (pa.table({"thing": [1], "why": [1]}), "has no column 'why'"),
    ([row(), row(thing=2**63)], "row 1, column 'thing' must be Int64"),
    ([row(thing=-(2**63) - 1)], "row 0, column 'thing' must be Int64"),
    ([row(thing=True)], "row 0, column 'thing' must be Int64"),
    ([row(), row(x="1")], "row 1, column 'x' must be Float64"),
    ([row(at="noon")], "row 0, column 'at' must be Timestamp"),
    ([row(at="2024-01-01T12:00:00Z")], "or push(…, json=True), which takes all values in their JSON forms"),
    ([row(ghost=1)], "that the source has not: drop it, or name it in schema=. Its columns: "),
    (pa.table({"thing": [1], "ghost": [1]}), "has no column 'ghost': drop it, or name it in schema=. Its columns: "),
    ([row(), row(thing=None)], "row 1 has no 'thing', which is its identity"),
    ([row(gone=True), row(at=None), row(at=None)], "row 1 has no 'at', which is its event_time"),
    (pa.table({"thing": [1], "at": ["noon"]}), "column 'at' "),
    ("rows", "str is neither rows nor a frame"),
    (7, "int is neither rows nor a frame"),
])  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(rows: Any, told: str) -> None:
    with pytest.raises(PushError) as refused:
        table_of_rows(SOURCE, rows)
    assert told in str(refused.value)


def test_only_a_deletion_needs_no_event_time() -> None:
    rows = [{"thing": 1, "gone": True}, row(gone=None), row(gone=False)]
    assert table_of_rows(SOURCE, rows)["at"].to_pylist() == [None, NOON, NOON]
    for gone in (None, False):
        with pytest.raises(PushError, match="row 1 has no 'at'"):
            table_of_rows(SOURCE, [*rows[:1], {"thing": 1, "gone": gone}])


def test_rows_in_a_file_are_the_rows(tmp_path: Path) -> None:
    table = table_of_rows(SOURCE, ROWS)
    write_rows(table, tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").equals(table)


PLAIN = PushSource(
    "plain", schema={name: SCHEMA[name] for name in ("thing", "at", "x")}, event_time="at", identity=["thing"]
)
"""Whose rows are taken as they are where all values are canonical."""


@pytest.mark.parametrize("values", [
    {"thing": [1, -(2**63), 2**63 - 1]},
    {"at": [NOON, NOON.astimezone(TOKYO), NOON.replace(tzinfo=None)]},
    {"x": [0.5, None, -0.0]},
    {"x": [1, None, 2.5]},
    {"x": [None, None]},
    {"x": [0.5, 2.5], "at": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]},
])  # fmt: skip
def test_rows_that_are_taken_as_they_are_are_those_that_were_looked_at(values: dict[str, list[Any]]) -> None:
    """One by one, as those of a source with other columns."""
    rows = [row(**dict(zip(values, each, strict=True))) for each in zip(*values.values(), strict=True)]
    found = table_of_rows(PLAIN, rows)
    assert found.equals(table_of_rows(SOURCE, rows).select(found.column_names))
    wanted = [{"x": None, **each, "at": each["at"].replace(tzinfo=each["at"].tzinfo or UTC)} for each in rows]
    assert [dict(each) for each in found.to_pylist()] == wanted


@pytest.mark.parametrize("words", [
    {"thing": 2**63}, {"thing": -(2**63) - 1}, {"thing": True}, {"thing": 1.5}, {"x": "1"}, {"x": 2**53 + 1}, {"at": 7}, {"x": NOON}, {"thing": NOON},
])  # fmt: skip
def test_rows_that_cannot_be_taken_as_they_are_are_refused(words: dict[str, Any]) -> None:
    """Beside others that can, and alone."""
    (name,) = words
    for before, after in ((1, 0), (1, 1), (0, 0)):
        with pytest.raises(PushError, match=f"row {before}, column '{name}' must be "):
            table_of_rows(PLAIN, [row()] * before + [row(**words)] + [row()] * after)
    for unknown in ({"y": 1}, {"x": 0.5, "y": 1}):
        with pytest.raises(PushError, match="row 1 has a column 'y' that the source has not"):
            table_of_rows(PLAIN, [row(), row(**unknown)])


@pytest.mark.parametrize(("column", "value"), [("x", 2**53 + 1), ("thing", 1.5), ("thing", NOON)])
def test_a_column_beside_no_others_that_is_of_another_type_is_refused(column: str, value: Any) -> None:
    """Where a source has none of the type that the value would be of."""
    source = PushSource("narrow", schema={"at": Timestamp, column: SCHEMA[column]}, event_time="at")
    with pytest.raises(PushError, match=f"row 0, column '{column}' must be "):
        table_of_rows(source, [{"at": NOON, column: value}])

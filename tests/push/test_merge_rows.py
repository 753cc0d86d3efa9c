"""The rows of a log, as the tiles of views read them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from featurestore import Count, FeatureView, Latest, PushSource, Sum
from featurestore.clock import instant_of
from featurestore.declare.push import KNOWN_AT, REPLACES
from featurestore.push.merge_rows import PushedView, read_rows
from featurestore.semantics.order import pushed_place
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.view import resolve
from featurestore.tiles.series import UNTIL
from featurestore.types import Bool, Float64, Int64, String, Timestamp
from tests.small import NOON, THING, TIME, hours

RAW = {
    "thing": "BIGINT", "id": "BIGINT", "at": "TIMESTAMP WITH TIME ZONE", "until": "TIMESTAMP WITH TIME ZONE", "x": "DOUBLE",
    "word": "VARCHAR", "gone": "BOOLEAN", KNOWN_AT: "BIGINT", REPLACES: "BIGINT",
}  # fmt: skip
SCHEMA = {"thing": Int64, "id": Int64, "at": Timestamp, "until": Timestamp, "x": Float64, "word": String, "gone": Bool}
EARLY, LATE = -(1 << 62), (1 << 62)  # µs beyond what any clock says


def pushed(features: Any, derived: dict[str, str] | None = None, **words: Any) -> PushedView:
    source = PushSource("rows", schema=SCHEMA, event_time="at", identity="id", derived=derived or {}, **words)
    view = FeatureView("view", entity=THING, source=source, features=features)
    raw = {**RAW, **dict.fromkeys(derived or {}, "DOUBLE")}
    return PushedView("project", resolve(view, raw), tagged=False)


def logged(**columns: list[Any]) -> pa.Table:
    """Rows of a log, of which nothing is said but this."""
    rows = len(next(iter(columns.values())))
    types = {**{name: of.arrow for name, of in SCHEMA.items()}, KNOWN_AT: pa.int64(), REPLACES: pa.int64()}
    told = {"at": [NOON] * rows, "thing": [1] * rows, KNOWN_AT: list(range(1, rows + 1)), **columns}
    return pa.table({name: pa.array(told.get(name, [None] * rows), of) for name, of in types.items()})


def test_a_row_is_read_with_what_its_views_need_of_it() -> None:
    """The columns of all of them, whether the conditions of all of them hold, when it was known and what it replaces."""
    views = [
        pushed({"total": Sum("x", window="1h", where="x > 1"), "n": Count(window="1h")}),
        pushed({"word": Latest("word", where="word <> ''"), "less": Sum("x", window="1d", where="x <= 1")}),
    ]
    rows = read_rows(
        views, logged(x=[0.5, 2.0, None], word=["", "b", "c"], thing=[7, 8, None], **{REPLACES: [None, 1, None]})
    )
    texts = [text for view in views for text in view.tiles.conditions]
    assert len(texts) == 3
    assert [[row.row.holds[text] for text in texts] for row in rows] == [
        [False, True, False], [True, False, True], [False, False, True],
    ]  # fmt: skip
    assert [row.row.values for row in rows] == [
        {"thing": thing, "x": x, "word": word, UNTIL: END}
        for thing, x, word in [(7, 0.5, ""), (8, 2.0, "b"), (None, None, "c")]
    ]
    at = instant_of(NOON)
    assert [(row.row.event_time, row.row.known_at, row.row.place) for row in rows] == [
        (at, n, pushed_place(at, n)) for n in (1, 2, 3)
    ]
    assert [(row.replaces, row.deletes) for row in rows] == [(None, False), (1, False), (None, False)]
    assert [views[0].key_of(row.row) for row in rows] == [(7,), (8,), None]


def test_a_row_without_conditions_or_derived_columns_is_read() -> None:
    (row,) = read_rows([pushed({"n": Count(window="1h")})], logged(x=[1.0]))
    assert (row.row.values, row.row.holds, row.deletes) == ({"thing": 1, UNTIL: END}, {}, False)


def test_derived_columns_are_computed_for_the_views_that_read_them() -> None:
    """Also where a condition alone reads one; of one that nothing reads no failure matters."""
    derived = {"twice": "x * 2", "more": "x + 10", "number": "CAST(word AS DOUBLE)"}
    views = [
        pushed({"total": Sum("twice", window="1h"), "n": Count(window="1h", where="more > 11")}, derived),
        pushed({"n": Count("x", window="1h")}, derived),
    ]
    rows = read_rows(views, logged(x=[1.0, 3.0], word=["none", "none"]))
    assert [row.row.values["twice"] for row in rows] == [2.0, 6.0]
    assert [[*row.row.holds.values()] for row in rows] == [[False], [True]]
    assert "number" not in rows[0].row.values
    with pytest.raises(ValueError, match="none"):
        read_rows([pushed({"n": Sum("number", window="1h")}, derived)], logged(x=[1.0], word=["none"]))


def test_a_row_that_deletes_or_was_forgotten_deletes() -> None:
    """A null says nothing; without a time it happens at the end, after every row."""
    view = pushed({"n": Count(window="1h")}, deleted="gone")
    rows = read_rows([view], logged(gone=[True, False, None, True, None], at=[NOON, NOON, NOON, None, None]))
    assert [row.deletes for row in rows] == [True, False, False, True, True]
    assert [row.row.event_time for row in rows] == [instant_of(NOON)] * 3 + [END] * 2
    kept = read_rows([pushed({"n": Count(window="1h")})], logged(gone=[True, None], at=[NOON, None]))
    assert [row.deletes for row in kept] == [False, True]


def test_the_end_of_a_validity_is_within_all_time() -> None:
    """Open where there is none."""
    ends = pa.array([None, instant_of(hours(1)), EARLY, LATE], pa.int64()).cast(TIME)
    table = logged(x=[1.0] * 4)
    table = table.set_column(table.schema.get_field_index("until"), "until", ends)
    rows = read_rows([pushed({"x": Latest("x")}, until="until")], table)
    assert [row.row.values[UNTIL] for row in rows] == [END, instant_of(hours(1)), BEGINNING, END]


def test_views_that_read_rows_alike_can_share_it() -> None:
    """And those that do not, cannot: whatever else they say, another time, end, deletion or derived column is another reading."""
    alike = [pushed({"n": Count(window="1h")}), pushed({"x": Latest("x")})]
    assert alike[0].reading == alike[1].reading
    others: list[dict[str, Any]] = [{"until": "until"}, {"deleted": "gone"}, {"derived": {"twice": "x * 2"}}]
    readings = {view.reading for view in [alike[0], *(pushed({"n": Count(window="1h")}, **words) for words in others)]}
    assert len(readings) == 4


def test_a_row_can_be_taken_out_where_every_fold_adds_up() -> None:
    assert pushed({"n": Count(window="1h"), "total": Sum("x", window="1h")}).exact
    assert not pushed({"n": Count(window="1h"), "x": Latest("x")}).exact


def test_the_columns_of_a_view_are_its_key_and_what_it_folds() -> None:
    view = pushed(
        {"n": Count(window="1h"), "twice": Sum("twice", window="1h"), "x": Latest("x")},
        {"twice": "x * 2"},
        until="until",
    )
    assert view.columns == {"thing": Int64, "twice": Float64, "x": Float64}

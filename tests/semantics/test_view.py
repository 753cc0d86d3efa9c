"""What of a view is settled: its times, types, windows and conditions, and all that goes into its identity."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from featurestore import (
    Count,
    CountDistinct,
    Entity,
    FeatureView,
    First,
    LastDistinctN,
    LastN,
    Latest,
    Mean,
    ParquetSource,
    PushSource,
    Sum,
)
from featurestore.declare.sources import Source
from featurestore.errors import DeclarationError, SourceError
from featurestore.semantics.columns import Mixed, RawColumns
from featurestore.semantics.time import Timing
from featurestore.semantics.view import ResolvedView, fingerprint_of, resolve
from featurestore.semantics.windows import Span
from featurestore.types import Bool, Float32, Float64, Int32, Int64, String, Timestamp

RAW = {"thing": "BIGINT", "at": "TIMESTAMP", "n": "BIGINT", "x": "DOUBLE", "s": "VARCHAR", "ok": "BOOLEAN", "late": "BOOLEAN"}  # fmt: skip
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
THING = Entity("thing", key={"thing": Int64})
ROWS = ParquetSource("rows", "rows.parquet", event_time="at")
TIMELESS = ParquetSource("rows", "rows.parquet", event_time=None)
PUSHED = PushSource("rows", schema={"thing": Int64, "at": Timestamp, "n": Int64, "late": Bool}, event_time="at")
SAID: dict[str, Any] = {
    "name": "rows", "event_time": "at", "known_at": None, "known_after": "0s", "history_until": None, "identity": [], "version": None,
    "tiebreak": [], "deleted": None, "until": None, "valid_from": None, "date": "end", "period": None, "timezone": "UTC",
}  # fmt: skip
"""What a source with nothing but an event time says of itself."""


def view_of(features: Any, source: Source = ROWS, *, refresh: str = "continuous", **words: Any) -> FeatureView:
    return FeatureView("view", entity=THING, source=source, features=features, refresh=refresh, **words)


def settled(features: Any, source: Source = ROWS, *, raw: dict[str, str] = RAW, **words: Any) -> ResolvedView:
    return resolve(view_of(features, source, **words), raw)


def mixed(first: str = "INTEGER", wide: str = "BIGINT", **types: Any) -> RawColumns:
    """RAW, where some files hold `n` as a narrower type than others."""
    types = types or {"INTEGER": Int32, "BIGINT": Int64}
    return RawColumns({**RAW, "n": wide}, mixed={"n": Mixed(types, first, "a.parquet has INTEGER")})


# --- identity -----------------------------------------------------------------------------------------------------


def test_all_that_a_batch_view_says_is_its_identity() -> None:
    """And nothing else: a derived column that it does not read, and a label, are no part of it."""
    source = ParquetSource(
        "rows", "rows.parquet", event_time="at", timezone="Europe/Paris", derived={"late": "n  >  5", "ok": "n < 3"},
        description="words",
    )  # fmt: skip
    view = settled(
        {"mean": Mean("n", window="7d", offset="1d", default=1, type=Float32, where="late"), "last": Latest("s")},
        source, refresh="1h", refresh_offset="5m", settle="10m", ready_after="20m", ttl="2d", where="x > 1.5", stale="withhold",
        owner="somebody", key={"thing": "n"},
    )  # fmt: skip
    assert view.definition == {
        "view": "view",
        "source": {**SAID, "timezone": "Europe/Paris"},
        "columns": {"at": "naive Timestamp", "late": "Bool", "n": "Int64", "s": "String", "x": "Float64"},
        "derived": {"late": "n > 5"},
        "keys": [["thing", "Int64", "n"]],
        "refresh": "1h",
        "refresh_offset": "5m",
        "settle": "10m",
        "ready_after": "20m",
        "ttl": "2d",
        "stale": "withhold",
        "features": {
            "last": {"kind": "Latest", "column": "s", "type": "String", "default": None, "where": "(x > 1.5)"},
            "mean": {
                "kind": "Mean", "column": "n", "window": "7d", "offset": "1d", "type": "Float32", "default": 1.0,
                "where": "(x > 1.5) AND (late)",
            },
        },
    }  # fmt: skip
    labels = replace(view, declared=view.declared.model_copy(update={"owner": "another"}))
    assert labels.fingerprint == view.fingerprint == fingerprint_of(view.definition)


def test_a_continuous_view_names_its_hops_and_no_other_times() -> None:
    view = settled({"count": Count(window="1d"), "three": LastN("n", n=3)})
    assert view.definition == {
        "view": "view",
        "source": SAID,
        "columns": {"at": "naive Timestamp", "n": "Int64", "thing": "Int64"},
        "keys": [["thing", "Int64", "thing"]],
        "refresh": None,
        "refresh_offset": "0s",
        "settle": "0s",
        "ready_after": "0s",
        "ttl": None,
        "stale": "serve",
        "features": {
            "count": {"kind": "Count", "column": None, "window": "1d", "type": "Int64", "default": None, "hop": "1h"},
            "three": {"kind": "LastN", "column": "n", "n": 3, "type": "Array(Int64)", "default": None},
        },
    }


def test_what_came_before_a_cutover_is_part_of_the_identity() -> None:
    """With the derived columns that the schema has; where it lies is none."""
    derived = {"late": "n  >  5", "unread": "n < 3"}
    history = ParquetSource("old", "old.parquet", event_time="at", known_after="1m", derived=derived)
    cutover = datetime(2024, 5, 1, tzinfo=UTC)
    source = PUSHED.model_copy(update={"history": history, "cutover": cutover})
    said = settled({"n": Latest("n")}, source).definition["source"]
    before = {**SAID, "name": "old", "known_after": "1m", "derived": {"late": "n > 5"}}
    assert said == {**SAID, "cutover": "2024-05-01T00:00:00+00:00", "history": before}
    plain = history.model_copy(update={"derived": {}})
    source = PUSHED.model_copy(update={"history": plain, "cutover": cutover})
    assert "derived" not in settled({"n": Latest("n")}, source).definition["source"]["history"]
    assert settled({"n": Latest("n")}, PUSHED).definition["source"] == SAID


def test_a_fingerprint_is_32_digits_whatever_the_order() -> None:
    text = b'{"a":1,"b":[null,0.5]}'
    assert fingerprint_of({"b": [None, 0.5], "a": 1}) == hashlib.blake2b(text, digest_size=16).hexdigest()


def test_a_ttl_of_rows_is_said_where_nulls_keep_a_value_alive() -> None:
    """A distinct value is none of a null's; the last rows take it. Under a window the ttl says nothing."""
    features = {"seen": LastDistinctN("n", n=2), "last": LastN("n", n=2), "week": LastDistinctN("n", n=2, window="7d")}
    assert [feature.ttl_counts_nulls for feature in settled(features).features] == [False, True, False]
    said = settled(features, ttl="2d").definition["features"]
    assert {name: words.get("ttl") for name, words in said.items()} == {"last": None, "seen": "of rows", "week": None}
    without = settled(features).definition["features"]
    assert all("ttl" not in words for words in without.values())


# --- columns of several types -------------------------------------------------------------------------------------


def test_files_of_a_wider_type_change_no_identity_where_no_state_is_kept() -> None:
    """A plain column goes by the type that it first had; a fold's column by what it is read as."""
    plain = settled({"n": Latest("n", type=Int64)}, raw=mixed())
    assert plain.first == {"n": "INTEGER"}
    assert plain.columns["n"] == Int64
    assert plain.identity_columns["n"] == "Int32"
    assert plain.named_raw == {"at": "TIMESTAMP", "thing": "BIGINT", "n": "INTEGER"}
    summed = settled({"n": Sum("n", window="1d")}, raw=mixed())
    assert (summed.first, summed.identity_columns["n"]) == ({}, "Int64")
    unread = settled({"x": Latest("x")}, raw=mixed())
    assert unread.first == {}


def test_a_type_that_hangs_on_the_files_must_be_stated() -> None:
    """Where the fold's own would be another with other files; a sum is Int64 of either."""
    with pytest.raises(DeclarationError, match=r"several types: a.parquet has INTEGER.*First\('n', type=Int64, …\)"):
        settled({"n": First("n", window="1d")}, raw=mixed())
    assert settled({"n": First("n", window="1d", type=Int64)}, raw=mixed()).features[0].type == Int64
    assert settled({"n": Sum("n", window="1d")}, raw=mixed()).features[0].type == Int64
    with pytest.raises(DeclarationError, match="it takes integers"):
        settled({"n": Sum("n", window="1d")}, raw=mixed(wide="VARCHAR", VARCHAR=String, INTEGER=Int32))


# --- when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "timing"),
    [
        ({}, Timing(None, 0, 0, 0)),
        ({"refresh": "1h"}, Timing(HOUR, 0, 0, 0)),
        ({"refresh": "1h", "settle": "5m"}, Timing(HOUR, 0, 5 * MINUTE, 5 * MINUTE)),
        ({"refresh": "1h", "ready_after": "7m"}, Timing(HOUR, 0, 0, 7 * MINUTE)),
        ({"refresh": "1h", "settle": "5m", "ready_after": "7m", "refresh_offset": "2m"}, Timing(HOUR, 2 * MINUTE, 5 * MINUTE, 7 * MINUTE)),
    ],
)  # fmt: skip
def test_when_values_change_and_are_served(words: dict[str, Any], timing: Timing) -> None:
    assert settled({"n": Latest("n")}, **words).timing == timing


def test_records_are_pushed_to_a_continuous_view_over_pushed_rows_alone() -> None:
    found = [
        settled({"n": Latest("n")}, source, refresh=refresh).is_pushed
        for source in (ROWS, PUSHED) for refresh in ("continuous", "1h")
    ]  # fmt: skip
    assert found == [False, False, True, False]


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fold", "refresh", "span"),
    [
        (Latest("n"), "continuous", None),
        (Count(window="1d"), "continuous", Span(DAY, 0, HOUR)),
        (Count(window="1d", offset="2d", hop="5m"), "continuous", Span(DAY, 2 * DAY, 5 * MINUTE)),
        (Count(window="lifetime"), "continuous", Span(None)),
        (Count(window="lifetime", hop="5m"), "continuous", Span(None)),
        (CountDistinct("n", window="1h", bound=3), "continuous", Span(HOUR, 0, 5 * MINUTE)),
        (Count(window="1d", offset="2d"), "1h", Span(DAY, 2 * DAY)),
        (Count(window="lifetime"), "1h", Span(None)),
    ],
)  # fmt: skip
def test_the_window_of_a_fold(fold: Any, refresh: str, span: Span | None) -> None:
    assert settled({"f": fold}, refresh=refresh).features[0].span == span


def test_windows_that_a_view_cannot_have() -> None:
    """A hop where instants are far apart already; a length of time where rows have no time."""
    with pytest.raises(DeclarationError, match="hop is for continuous views"):
        settled({"f": Count(window="1d", hop="1h")}, refresh="1h")
    with pytest.raises(DeclarationError, match="needs event_time"):
        settled({"f": Count(window="1d")}, TIMELESS)
    assert settled({"f": Count(window="lifetime")}, TIMELESS).features[0].span == Span(None)


def test_what_is_a_column_of_the_newest_row_and_what_is_a_fold() -> None:
    """Latest, where neither a window nor a condition bounds its rows."""
    features = {
        "a": Latest("n"), "b": Latest("n", window="1d"), "c": Latest("n", where="ok"), "d": First("n", window="1d"),
        "e": LastN("n", n=1),
    }  # fmt: skip
    view = settled(features)
    assert [feature.name for feature in view.plain] == ["a"]
    assert [feature.name for feature in view.folded] == ["b", "c", "d", "e"]


# --- types --------------------------------------------------------------------------------------------------------


def test_types_are_those_of_columns_or_stated() -> None:
    """A stated type may be one that its column does not widen to, where the fold allows it."""
    features = {
        "count": Count(window="1d"), "last": Latest("n"), "mean": Mean("n", window="1d", type=Float32), "wide": Latest("s"),
    }  # fmt: skip
    view = settled(features)
    assert [str(feature.type) for feature in view.features] == ["Int64", "Int64", "Float32", "String"]
    assert [feature.reads for feature in view.features] == [None, Int64, Int64, String]
    assert view.columns == {"thing": Int64, "n": Int64, "s": String, "at": Timestamp}
    assert view.raw == {"thing": "BIGINT", "n": "BIGINT", "s": "VARCHAR", "at": "TIMESTAMP"}
    assert settled({"n": Latest("n", type=Float64)}, raw={**RAW, "n": "INTEGER"}).features[0].type == Float64


@pytest.mark.parametrize(
    ("features", "raw", "said"),
    [
        ({"f": Latest("n", type=Int32)}, {}, "feature 'f'.*Int64.*does not fit.*without loss"),
        ({"f": Latest("x")}, {"thing": "VARCHAR"}, r"key 'thing' is Int64, but column 'thing' of source 'rows' is String \(VARCHAR\)"),
        ({"f": Sum("s", window="1d")}, {}, r"feature 'f' is Sum\('s', window='1d'\) of column 's' of source 'rows': it takes"),
        ({"f": Latest("nn")}, {}, "has no column 'nn' for its feature 'f'. Did you mean 'n'"),
        ({"f": Latest("n", where="nn")}, {}, "feature 'f': where 'nn'"),
        ({"f": Latest("n", where="n + 1")}, {}, "it is BIGINT, and a condition must be BOOLEAN"),
        ({"f": Latest("n")}, {"at": "VARCHAR"}, "column 'at' cannot be a time"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit(features: Any, raw: dict[str, str], said: str) -> None:
    with pytest.raises(DeclarationError, match=said):
        settled(features, raw={**RAW, **raw})


def test_columns_that_no_type_holds_or_that_cannot_be_read() -> None:
    with pytest.raises(
        SourceError, match="feature 'f': column 'x' of source 'rows' is HUGEINT, which no feature type holds"
    ):
        settled({"f": Latest("x")}, raw={**RAW, "x": "HUGEINT"})
    with pytest.raises(SourceError, match="column 'x' of source 'rows' is broken"):
        settled({"f": Latest("x")}, raw=RawColumns(RAW, faults={"x": "is broken"}))
    assert settled({"f": Latest("n")}, raw=RawColumns(RAW, faults={"x": "is broken"})).columns["n"] == Int64


def test_columns_that_the_source_names_are_read() -> None:
    """Those of its times, and those that name, order and delete rows."""
    source = ParquetSource(
        "rows", "rows.parquet", event_time="at", identity="n", tiebreak="s", version="x", deleted="ok"
    )
    assert list(settled({"f": Count(window="1d")}, source).columns) == ["thing", "at", "n", "x", "s", "ok"]
    with pytest.raises(DeclarationError, match="deleted column 'ok' is BIGINT, and must be BOOLEAN"):
        settled({"f": Count(window="1d")}, source, raw={**RAW, "ok": "BIGINT"})


# --- conditions ---------------------------------------------------------------------------------------------------


def test_the_condition_of_a_fold_is_the_views_and_its_own() -> None:
    features = {"both": Count(window="1d", where="x  >  1"), "none": Count(window="1d")}
    view = settled(features, where="ok OR late")
    assert [feature.where for feature in view.features] == ["(ok or late) AND (x > 1)", "(ok or late)"]
    assert view.columns == {"thing": Int64, "ok": Bool, "late": Bool, "x": Float64, "at": Timestamp}
    assert [feature.where for feature in settled(features).features] == ["(x > 1)", None]


def test_conditions_that_were_checked_are_taken_as_they_are() -> None:
    """As they were applied: the same view, and no engine is asked what a condition is."""
    view = view_of({"f": Count(window="1d", where="x > 1"), "g": Count(window="1d", where="n + 1")}, where="ok")
    again = resolve(view, RAW, checked=True)
    assert [feature.where for feature in again.features] == ["(ok) AND (x > 1)", "(ok) AND (n + 1)"]
    assert again.columns == {"thing": Int64, "ok": Bool, "x": Float64, "n": Int64, "at": Timestamp}
    with pytest.raises(DeclarationError, match="must be BOOLEAN"):
        resolve(view, RAW)

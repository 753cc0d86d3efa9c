"""An explanation is the answer, and a verdict for every row that could have been."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.declare.entity import Entity
from featurestore.declare.sources import DataFrameSource, ParquetSource
from featurestore.declare.views import FeatureView
from featurestore.errors import RequestError, SourceError
from featurestore.query.row_verdicts import VERDICTS
from featurestore.reports.explain import explain as explain_module
from featurestore.reports.explain.explain import explain, explain_as_of
from featurestore.reports.explain.explanation import ExplainedRow, Explanation
from featurestore.semantics.view import ResolvedView, resolve
from featurestore.sources.offline import Offline
from featurestore.types import Bytes, Date, FarTimestamp, Int64, String
from tests.draws import draws
from tests.histories import History, answers_of, histories, to_arrow, write_parquet
from tests.oracle import Answer, columns_read, event_time, known_at, sort_key
from tests.world import bits, declare, resolved

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline(Path())


def explained(history: History, offline: Offline, paths: list[Path] | None = None) -> list[Explanation]:
    (part,) = resolved(declare(history, paths=paths), offline).parts
    names = list(history.view.key)
    return [explain(part.view, offline, dict(zip(names, key, strict=True)), at=t) for key, t in history.spine]


def seen_row(history: History, values: dict[str, Any]) -> tuple[Any, ...]:
    """The columns that the view reads: rows that are equal in them are interchangeable."""
    zone = history.source.timezone
    read = columns_read(history.source, history.view)
    return tuple(sort_key(history.types[column], values[column], zone) for column in read)


def of_key(history: History, key: tuple[Any, ...], row: ExplainedRow) -> bool:
    columns = history.view.key.values()
    return all(
        sort_key(history.types[column], row.values[column]) == sort_key(history.types[column], value)
        for column, value in zip(columns, key, strict=True)
    )


def moment(instant: float | None) -> datetime | None:
    return EPOCH + timedelta(microseconds=instant) if isinstance(instant, int) else None


def agrees(history: History, key: tuple[Any, ...], explanation: Explanation, answer: Answer) -> None:
    assert explanation.status == answer.status
    assert {name: bits(history, name, value) for name, value in explanation.values.items()} == {
        name: bits(history, name, value) for name, value in answer.values.items()
    }
    assert explanation.conflict == answer.conflict
    assert explanation.event_time == moment(answer.event_time)
    mine = [row for row in explanation.rows if of_key(history, key, row)]
    assert Counter((seen_row(history, row.values), row.verdict) for row in mine) == Counter(
        (seen_row(history, history.rows[i]), verdict) for i, verdict in answer.reasons.items()
    )
    if answer.row_index is not None:
        row = history.rows[answer.row_index]
        assert explanation.rows[0] is explanation.chosen
        assert seen_row(history, explanation.chosen.values) == seen_row(history, row)
        assert explanation.chosen.event_time == moment(event_time(history.source, row))
        assert explanation.chosen.known_at == moment(known_at(history.source, row))
    else:
        assert explanation.chosen is None
    others = {"not yet known", "superseded", "deleted", "invalid", "other key"}
    assert all(row.verdict in others for row in explanation.rows if row not in mine)


def contradicts_nothing(explanation: Explanation) -> None:
    """One row is chosen where there is a value; one has ended, or all are too old, where it has expired; else none."""
    counts = explanation.counts
    assert set(counts) <= set(VERDICTS)
    assert counts == dict(Counter(row.verdict for row in explanation.rows))
    assert counts.get("chosen", 0) == (explanation.status == "PRESENT")
    if explanation.status == "EXPIRED":
        assert counts.get("ended") == 1 or ("expired" in counts and "older" not in counts)
    else:
        assert "ended" not in counts
    if explanation.status == "MISSING":
        assert not {"older", "expired"} & set(counts)
    for form in (str(explanation), explanation._repr_html_()):
        assert explanation.status in form
    json.dumps(explanation.to_dict(), allow_nan=False)


@settings(max_examples=draws(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories())
def test_an_explanation_is_the_oracles(offline: Offline, history: History) -> None:
    """Status, values, chosen row and the verdict of each row are what the naive reading of the rules gives."""
    explanations = explained(history, offline)
    for (key, _), explanation, answer in zip(history.spine, explanations, answers_of(history), strict=True):
        agrees(history, key, explanation, answer)
        contradicts_nothing(explanation)


@settings(max_examples=draws(30), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories())
def test_rows_that_are_read_again_give_what_copied_ones_do(offline: Offline, history: History) -> None:
    """Whether a key's rows are copied first or read for each question is a matter of speed alone.

    Of rows that are equal in every byte, any may be the one that is chosen.
    """

    def told(explanation: Explanation) -> str:
        form = explanation.to_dict()
        return repr({**form, "rows": sorted(repr({**row, "row": None}) for row in form["rows"])})

    copied = explained(history, offline)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featurestore.reports.explain.explain.COPIED_MAX_CELLS", -1)
        read = explained(history, offline)
    assert list(map(told, read)) == list(map(told, copied))


@settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), files=st.integers(1, 4), seed=st.integers(0, 99))
def test_each_row_is_found_where_it_says(offline: Offline, history: History, files: int, seed: int) -> None:
    """A row's file and number lead to it, and files explain as a frame does."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_parquet(to_arrow(history.rows, history.types), Path(folder), files=files, seed=seed)
        tables = {str(path): pq.read_table(path).to_pylist() for path in paths}
        explanations = explained(history, offline, paths)
    for (key, _), explanation, answer in zip(history.spine, explanations, answers_of(history), strict=True):
        agrees(history, key, explanation, answer)
        assert len({row.place for row in explanation.rows}) == len(explanation.rows)
        for row in explanation.rows:
            assert seen_row(history, tables[row.file][row.row]) == seen_row(history, row.values)


# --- Cases ----------------------------------------------------------------------------------------------------------

carrier = Entity("carrier", key={"carrier": String})


def at(hour: int, minute: int = 0) -> datetime:
    return NOON.replace(hour=hour, minute=minute)


def landings(**columns: list[Any]) -> pa.Table:
    rows = len(columns["landed_at"])
    given = {"carrier": ["UA"] * rows, **columns}
    times = {"landed_at", "known_at", "valid_until"}
    return pa.table(
        {
            name: pa.array(values, pa.timestamp("us", "UTC")) if name in times else pa.array(values)
            for name, values in given.items()
        }
    )


def view_of(table: pa.Table, offline: Offline, *, timing: dict[str, Any] | None = None, **words: Any) -> ResolvedView:
    source = DataFrameSource("landings", table, event_time="landed_at", **words)
    timing = timing or {"refresh": "continuous"}
    view = FeatureView("delays", entity=carrier, source=source, features=["delay"], **timing)
    return resolve(view, offline.raw_types(source))


def verdicts(explanation: Explanation) -> list[tuple[float | None, str]]:
    return [(row.values["delay"], row.verdict) for row in explanation.rows]


def test_a_report_says_when_it_answers_for(offline: Offline) -> None:
    """`at` is the instant of asking; the as_of and known_by that follow by rule 0 are part of the explanation."""
    table = landings(
        landed_at=[at(10), at(11, 30), at(12, 3)], known_at=[at(10, 2), at(12, 6), at(12, 4)], delay=[1.0, 2.0, 3.0]
    )
    timing = {"refresh": "1h", "settle": "5m", "ready_after": "10m", "ttl": "2d"}
    view = view_of(table, offline, timing=timing, known_at="known_at")
    explanation = explain(view, offline, {"carrier": "UA"}, at=micros(at(12, 10)))
    assert (explanation.at, explanation.as_of, explanation.known_by) == (at(12, 10), at(12), at(12, 5))
    assert explanation.values == {"delay": 1.0}
    assert explanation.event_time == at(10)
    assert sorted(verdicts(explanation)) == [(1.0, "chosen"), (2.0, "not yet known"), (3.0, "too new")]
    text = str(explanation)
    assert "delays of carrier='UA'" in text
    assert "asked at 2013-01-01 12:10:00Z, answered as of 2013-01-01 12:00:00Z with what was known by" in text
    assert "known at 2013-01-01 12:06:00Z, after 2013-01-01 12:05:00Z" in text
    assert "happened at 2013-01-01 12:03:00Z, after 2013-01-01 12:00:00Z" in text
    earlier = explain(view, offline, {"carrier": "UA"}, at=micros(at(12, 9)))
    assert earlier.as_of == at(11)


def test_an_as_of_is_explained_as_whoever_was_served_it_is_answered(offline: Offline) -> None:
    """Asked by an as_of, the same rows count as for every instant of asking that rule 0 answers with it."""
    table = landings(landed_at=[at(10), at(11, 30)], known_at=[at(10, 2), at(12, 4)], delay=[1.0, 2.0])
    timing = {"refresh": "1h", "settle": "5m", "ready_after": "10m"}
    view = view_of(table, offline, timing=timing, known_at="known_at")
    served = explain_as_of(view, offline, {"carrier": "UA"}, as_of=micros(at(12)))
    assert (served.at, served.as_of, served.known_by) == (None, at(12), at(12, 5))
    assert served.values == {"delay": 2.0}
    assert "as of 2013-01-01 12:00:00Z with what was known by 2013-01-01 12:05:00Z" in str(served)
    assert "asked at" not in str(served)
    for asked in (at(12, 10), at(13, 9)):
        by_instant = explain(view, offline, {"carrier": "UA"}, at=micros(asked)).to_dict()
        assert by_instant == {**served.to_dict(), "at": by_instant["at"]}
    assert served.to_dict()["at"] is None
    before = explain_as_of(view, offline, {"carrier": "UA"}, as_of=micros(at(11)), limit=0)
    assert (before.values, before.rows) == ({"delay": 1.0}, ())


def test_a_correction_names_what_replaced_it(offline: Offline) -> None:
    """A superseded row says which version took its place; one that moved to another key is shown with its old key."""
    table = landings(
        carrier=["UA", "UA", "UA", "AA"],
        landed_at=[at(9), at(9), at(10), at(10)],
        known_at=[at(9), at(11), at(10), at(11)],
        flight=[1, 1, 2, 2],
        delay=[1.0, 2.0, 3.0, 4.0],
    )
    view = view_of(table, offline, known_at="known_at", identity="flight")
    explanation = explain(view, offline, {"carrier": "UA"}, at=micros(NOON))
    assert explanation.values == {"delay": 2.0}
    assert sorted(verdicts(explanation)) == [
        (1.0, "superseded"), (2.0, "chosen"), (3.0, "superseded"), (4.0, "other key"),
    ]  # fmt: skip
    replaced = next(row for row in explanation.rows if row.values["delay"] == 3.0)
    assert replaced.reason == "replaced by the version known at 2013-01-01 11:00:00Z, frame row 3"
    assert explain(view, offline, {"carrier": "AA"}, at=micros(at(10, 30))).status == "MISSING"


def test_more_rows_than_are_shown_are_counted(offline: Offline) -> None:
    """Rows nearest to the answer are shown, and the rest are counted by verdict."""
    times = [at(0) + timedelta(minutes=n) for n in range(1000)]
    view = view_of(landings(landed_at=times, delay=[float(n) for n in range(1000)]), offline)
    explanation = explain(view, offline, {"carrier": "UA"}, at=micros(times[600]), limit=5)
    assert [row.values["delay"] for row in explanation.rows] == [600.0, 601.0, 599.0, 602.0, 598.0]
    assert explanation.counts == {"chosen": 1, "older": 600, "not yet known": 399}
    assert explanation.hidden == 995
    assert str(explanation).endswith("995 more rows are not shown; in all: 1 chosen, 600 older, 399 not yet known")
    assert "995 more rows" in explanation._repr_html_()
    none = explain(view, offline, {"carrier": "UA"}, at=micros(times[600]), limit=0)
    assert (none.rows, none.hidden, none.values) == ((), 1000, {"delay": 600.0})


def test_older_rows_say_what_they_lost_by(offline: Offline) -> None:
    """By event_time, by known_at, or by the tiebreak and the bytes that come last."""
    table = landings(
        landed_at=[at(9), at(10), at(10), at(10)], known_at=[at(11), at(10), at(11), at(11)], delay=[9.0, 8.0, 1.0, 2.0]
    )
    view = view_of(table, offline, known_at="known_at")
    explanation = explain(view, offline, {"carrier": "UA"}, at=micros(NOON))
    assert explanation.conflict
    assert "tied" in explanation.summary
    assert {row.values["delay"]: row.reason for row in explanation.rows} == {
        2.0: "the newest row that counts",
        1.0: "ties with the chosen row in event_time and known_at; tiebreak, then bytes decided",
        8.0: "happened when the chosen row did, and was known earlier",
        9.0: "happened before the chosen row",
    }


def test_an_expired_value_says_why(offline: Offline) -> None:
    """The ttl has passed, or the newest row's validity has ended and no older one is tried."""
    table = landings(landed_at=[at(9), at(10)], valid_until=[None, at(11)], delay=[1.0, 2.0])
    old = explain(view_of(table, offline, ttl="1h"), offline, {"carrier": "UA"}, at=micros(NOON))
    assert (old.status, set(verdicts(old))) == ("EXPIRED", {(1.0, "expired"), (2.0, "expired")})
    assert "older than the ttl" in old.summary
    assert old.rows[0].reason == "happened more than 1h before 2013-01-01 12:00:00Z, which is beyond the ttl"
    ended = explain(view_of(table, offline, until="valid_until"), offline, {"carrier": "UA"}, at=micros(NOON))
    assert (ended.status, verdicts(ended)) == ("EXPIRED", [(2.0, "ended"), (1.0, "older")])
    assert "validity ended at 2013-01-01 11:00:00Z" in ended.rows[0].reason
    assert ended.event_time == at(10)


def test_invalid_rows_name_the_column_that_is_null(offline: Offline) -> None:
    """A row without event_time is left out, and says so."""
    view = view_of(
        landings(landed_at=[None, at(9)], known_at=[at(9), None], delay=[1.0, 2.0]), offline, known_at="known_at"
    )
    explanation = explain(view, offline, {"carrier": "UA"}, at=micros(NOON))
    assert {row.reason for row in explanation.rows} == {
        "column 'landed_at' (event_time) is null", "column 'known_at' (known_at) is null",
    }  # fmt: skip
    assert explanation.status == "MISSING"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ({"carier": "UA"}, "View 'delays' has no key column 'carier'. Did you mean 'carrier'? Its keys: carrier."),
        ({}, "Key column 'carrier' of view 'delays' is missing. Its keys: carrier (String)."),
        ({"carrier": 1}, "Key column 'carrier' of view 'delays' is String: 1 is no string."),
        ({"carrier": "UA", "flight": 1}, "View 'delays' has no key column 'flight'."),
    ],
)
def test_a_key_that_does_not_fit_is_refused(offline: Offline, key: dict[str, Any], message: str) -> None:
    """Unknown, missing and wrongly typed key columns are errors with a hint."""
    view = view_of(landings(landed_at=[at(9)], delay=[1.0]), offline)
    with pytest.raises(RequestError) as error:
        explain(view, offline, key, at=0)
    assert str(error.value).startswith(message)
    with pytest.raises(RequestError, match="limit is -1"):
        explain(view, offline, {"carrier": "UA"}, at=0, limit=-1)


def test_an_unknown_and_a_null_key_are_missing(offline: Offline) -> None:
    """Neither is an error: a lookup of them is answered too."""
    view = view_of(landings(landed_at=[at(9)], delay=[1.0]), offline)
    for key in ("XX", None):
        explanation = explain(view, offline, {"carrier": key}, at=micros(NOON))
        assert (explanation.status, explanation.values, explanation.rows) == ("MISSING", {"delay": None}, ())
        assert explanation.summary.startswith("MISSING: ")


def test_columns_may_bear_any_name(offline: Offline) -> None:
    """Source columns named as the query's own words stay apart from them."""
    names = ["file", "row", "e", "o", "k0", "v0", "known", "until", "verdict", "mine", "won", "n", "a", "last_file"]
    table = pa.table(
        {"when": pa.array([at(9)], pa.timestamp("us", "UTC")), **{name: pa.array([i]) for i, name in enumerate(names)}}
    )
    source = DataFrameSource("words", table, event_time="when", tiebreak=["row", "e"])
    entity = Entity("thing", key={"file": Int64})
    view = FeatureView("words", entity=entity, source=source, features=names, refresh="continuous")
    explanation = explain(resolve(view, offline.raw_types(source)), offline, {"file": 0}, at=micros(NOON))
    assert explanation.values == {name: i for i, name in enumerate(names)}
    assert explanation.rows[0].values == {name: i for i, name in enumerate(names)} | {"when": at(9)}


def test_json_and_html_hold_any_value(offline: Offline) -> None:
    """Bytes, NaN, dates and text full of markup come out as plain JSON and escaped HTML."""
    table = pa.table(
        {
            "day": pa.array([NOON.date()]), "code": pa.array([b"\xff"]), "x": pa.array([float("nan")]),
            "note": pa.array(["<b>" + "a" * 100]), "when": pa.array([at(9)], pa.timestamp("us", "UTC")),
        }
    )  # fmt: skip
    source = DataFrameSource("any", table, event_time="when")
    entity = Entity("thing", key={"day": Date, "code": Bytes})
    view = FeatureView("any", entity=entity, source=source, features=["x", "note"], refresh="continuous")
    key = {"code": b"\xff", "day": NOON.date()}
    explanation = explain(resolve(view, offline.raw_types(source)), offline, key, at=micros(NOON))
    found = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert found["key"] == {"day": "2013-01-01", "code": "/w=="}
    assert found["values"] == {"x": "NaN", "note": "<b>" + "a" * 100}
    assert found["rows"][0]["values"]["code"] == "/w=="
    assert found["rows"][0]["event_time"] == "2013-01-01T09:00:00.000000Z"
    assert (found["hidden"], found["counts"]) == (0, {"chosen": 1})
    assert "&lt;b&gt;" in explanation._repr_html_()
    assert "<b>" not in explanation._repr_html_()
    assert "a" * 50 not in str(explanation)


def test_times_beyond_pythons_years_are_shown_as_they_are(offline: Offline) -> None:
    """A source may say that a row holds until the year 20000; the report goes on."""
    far = pa.array([1 << 59], pa.int64()).cast(pa.timestamp("us", "UTC"))
    table = landings(landed_at=[at(9)], delay=[1.0]).append_column("valid_until", far)
    explanation = explain(view_of(table, offline, until="valid_until"), offline, {"carrier": "UA"}, at=micros(NOON))
    assert explanation.values == {"delay": 1.0}
    assert explanation.rows[0].values["valid_until"] == FarTimestamp(1 << 59)
    assert "+20237-04-25T10:45:03" in str(explanation)


def test_files_that_change_while_they_are_read_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The questions of one explanation are of the same rows, or it is not given."""
    path = tmp_path / "rows.parquet"
    table = landings(landed_at=[at(10), at(11)], delay=[1.0, 2.0])
    pq.write_table(table, path)
    own = Offline(tmp_path)
    source = ParquetSource("landings", str(path), event_time="landed_at")
    carrier = Entity("carrier", key={"carrier": String})
    view = resolve(
        FeatureView("delays", entity=carrier, source=source, features=["delay"], refresh="continuous"),
        own.raw_types(source),
    )
    real = explain_module.counts_sql  # type: ignore[attr-defined]  # a name that the module imports, to be replaced

    def swapped(of: ResolvedView) -> str:
        pq.write_table(table.slice(0, 1), path)
        return real(of)

    monkeypatch.setattr(explain_module, "counts_sql", swapped)
    with pytest.raises(SourceError, match="changed while they were read; ask again"):
        explain(view, own, {"carrier": "UA"}, at=micros(NOON))


def test_a_missing_file_is_an_error_that_names_it(offline: Offline, tmp_path: Path) -> None:
    """What DuckDB says of a file that cannot be read is told with the view and its source."""
    path = tmp_path / "landings.parquet"
    pq.write_table(landings(landed_at=[at(9)], delay=[1.0]), path)
    source = ParquetSource("landings", path, event_time="landed_at")
    view = FeatureView("delays", entity=carrier, source=source, features=["delay"], refresh="continuous")
    known = resolve(view, offline.raw_types(source))
    path.unlink()
    with pytest.raises(SourceError, match=r"ParquetSource 'landings': there is no file .*landings\.parquet"):
        explain(known, offline, {"carrier": "UA"}, at=0)

"""A push source's batch history ends at its cutover, and training and serving agree on both sides of it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import (
    Count,
    DataFrameSource,
    FeatureView,
    Latest,
    ManualClock,
    Max,
    ParquetSource,
    PushSource,
    Sum,
    TableSource,
)
from featurestore.clock import instant_of
from featurestore.declare.sources import Source
from featurestore.errors import DeclarationError, NotMaterializedError, PushError
from featurestore.semantics.view import resolve
from featurestore.types import Bool, Float64, Int64, String, Timestamp
from tests.draws import draws
from tests.small import NOON, THING, both, hours, opened, raised, spine, table, trained, write

SCHEMA = {"thing": Int64, "swipe": String, "at": Timestamp, "amount": Float64}
FEATURES = {
    "n_3h": Count(window="3h", hop="1h"), "total": Sum("amount", window="lifetime"), "last": Latest("amount"),
    "big_3h": Count(window="3h", hop="1h", where="amount > 2"),
}  # fmt: skip


def rows(*given: tuple[int, str, float, float, float]) -> pa.Table:
    """(thing, swipe, hours after noon when it happened, when it was known, amount) as a table."""
    columns = list(zip(*given, strict=True))
    return table(
        thing=pa.array(columns[0], pa.int32()), swipe=pa.array(columns[1]), at=[hours(h) for h in columns[2]],
        loaded=[hours(h) for h in columns[3]], amount=pa.array(columns[4], pa.float32()),
    )  # fmt: skip


BATCH = rows(
    (1, "a", -5, -4, 1.0), (1, "b", -2, -1, 2.0), (1, "late", -1, 0.5, 100.0), (2, "c", -1, 0, 4.0),
    (1, "early", 1, -3, 1000.0),
)  # fmt: skip


def pushes(history: Source, **words: Any) -> PushSource:
    said = {"event_time": "at", "identity": "swipe", "cutover": NOON, "history": history, **words}
    return PushSource("swipes", schema=said.pop("schema", SCHEMA), **said)


def view_of(history: Source, features: Any = None, **words: Any) -> FeatureView:
    return FeatureView("swiped", entity=THING, source=pushes(history, **words), features=features or FEATURES)


def framed(batch: pa.Table = BATCH, **words: Any) -> DataFrameSource:
    return DataFrameSource("old_swipes", batch, **{"event_time": "at", "known_at": "loaded", **words})


def swipe(thing: int, name: str, at: float, amount: float) -> dict[str, Any]:
    return {"thing": thing, "swipe": name, "at": hours(at), "amount": amount}


def as_frame(_: Path) -> Source:
    return framed()


def as_files(folder: Path) -> Source:
    paths = [write(folder / f"{n}.parquet", BATCH.slice(n, 1)) for n in range(BATCH.num_rows)]
    return ParquetSource("old_swipes", [str(path) for path in paths], event_time="at", known_at="loaded")


def as_table(folder: Path) -> Source:
    with duckdb.connect(str(folder / "old.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("batch", BATCH)
        connection.execute("CREATE TABLE old AS SELECT * FROM batch")
    return TableSource("old_swipes", folder / "old.duckdb", table="old", event_time="at", known_at="loaded")


@pytest.mark.parametrize("kind", [as_frame, as_files, as_table])
def test_training_and_serving_agree_across_the_cutover(tmp_path: Path, kind: Any) -> None:
    """What was known by the cutover counts, what came later does not; then pushed rows follow."""
    view = view_of(kind(tmp_path))
    with opened(view) as (store, clock):
        first = both(store, thing=[1, 2, 3])
        assert first["swiped__total"] == [3.0, 4.0, None]
        assert first["swiped__n_3h"] == [1, 1, None]
        assert first["swiped__last"] == [2.0, 4.0, None]
        store.push("swipes", [swipe(1, "d", 0, 8.0), swipe(3, "e", 0, 16.0)])
        assert both(store, thing=[1, 2, 3])["swiped__total"] == [11.0, 4.0, 16.0]
        clock.set(hours(0.5))
        store.push("swipes", [swipe(1, "d", 0, 9.0)])  # replaces what was pushed
        store.offline.log(view.source).compact(everything=True)  # type: ignore[arg-type]  # a push source, by its name
        after = both(store, thing=[1, 2, 3])
        assert after["swiped__total"] == [12.0, 4.0, 16.0]
        assert after["swiped__big_3h"] == [1, 1, 1]
        store.materialize(full=True, progress=False)
        assert both(store, thing=[1, 2, 3]) == after
        told = store.explain("swiped", {"thing": 1}, at=clock())
        assert told.values["total"] == 12.0
        places = {row.values["swipe"]: row.place for row in told.rows if "total" in row.counts_for}
        assert set(places) == {"a", "b", "d"}
        assert "segment" in places["d"]
        assert places["b"].endswith(
            {as_frame: "frame row 1", as_files: "1.parquet row 0"}.get(kind, "old.duckdb row 1")
        )


def test_a_push_replaces_no_row_of_the_history() -> None:
    """A pushed row with the identity of one in the history counts beside it, and a deletion deletes nothing there; on both
    paths, after a fill too."""
    schema = {**SCHEMA, "void": Bool}
    batch = BATCH.append_column("void", pa.array([False] * BATCH.num_rows))
    view = view_of(
        framed(batch), schema=schema, deleted="void", features={**FEATURES, "most": Max("amount", window="1d")}
    )
    with opened(view) as (store, clock):
        assert both(store, thing=[1])["swiped__total"] == [3.0]
        assert store.push("swipes", {**swipe(1, "b", -2, 8.0), "void": False}) == (1, 0, 0)  # "b" is 2.0 in the history
        assert both(store, thing=[1])["swiped__total"] == [11.0]
        assert store.push("swipes", {**swipe(1, "b", -2, 4.0), "void": False}) == (1, 0, 0)  # replaces what was pushed
        assert both(store, thing=[1])["swiped__total"] == [7.0]
        assert store.push("swipes", {**swipe(1, "b", -2, 4.0), "void": True}) == (1, 0, 0)
        assert store.push("swipes", {**swipe(1, "a", -5, 1.0), "void": True}) == (1, 0, 0)
        deleted = both(store, thing=[1])
        assert (deleted["swiped__total"], deleted["swiped__most"]) == ([3.0], [2.0])
        store.materialize(full=True, progress=False)
        assert both(store, thing=[1]) == deleted
        assert trained(store, clock(), thing=[1])["swiped__total"].to_pylist() == [3.0]


def test_a_corrected_history_counts_when_the_view_is_filled_again(tmp_path: Path) -> None:
    """Its file is replaced: training has it at once, serving after a full run."""
    with opened(view_of(as_files(tmp_path))) as (store, clock):
        assert both(store, thing=[1])["swiped__total"] == [3.0]
        write(tmp_path / "1.parquet", rows((1, "b", -2, -1, 8.0)))
        store.materialize(progress=False)
        assert store.get_online_features({"thing": 1}, "service").to_dict()["swiped__total"] == [3.0]
        assert trained(store, clock(), thing=[1])["swiped__total"].to_pylist() == [9.0]
        store.materialize(full=True, progress=False)
        assert both(store, thing=[1])["swiped__total"] == [9.0]


@pytest.mark.parametrize("known", [-0.5, 0])
@pytest.mark.parametrize("turned", [False, True])
def test_rows_of_the_history_that_tie_are_told_apart_by_their_values(known: float, turned: bool) -> None:
    """Rows of a history share a known_at, as those of a log never do: those that were known at the cutover itself too. The
    columns are compared in the order of their names, so that every feature is of one row."""
    tied = [(1, "b", -1.0, known, 2.0), (1, "a", -1.0, known, 3.0)]
    features = {"last": Latest("amount"), "name": Latest("swipe"), "most": Max("amount", window="1d")}
    with opened(view_of(framed(rows(*(tied[::-1] if turned else tied))), features=features)) as (store, _):
        filled = both(store, thing=[1])
        assert (filled["swiped__last"], filled["swiped__name"]) == ([3.0], ["a"])
        store.push("swipes", swipe(1, "c", -1, 1.0))
        assert both(store, thing=[1])["swiped__name"] == ["c"]
        store.push("swipes", swipe(1, "c", -2, 1.0))  # replaced, so that the record is made anew
        replaced = both(store, thing=[1])
        assert (replaced["swiped__last"], replaced["swiped__name"]) == ([3.0], ["a"])


def test_before_the_cutover_the_history_counts_from_when_it_was_known() -> None:
    """In training; nothing is served then, and rows that are pushed are refused."""
    view = view_of(framed())
    with opened(view, at=hours(-0.5)) as (store, clock):
        instants = [hours(-4) - timedelta(microseconds=1), hours(-4), hours(-1), NOON]
        frame = trained(store, instants, thing=[1, 1, 1, 2])
        assert frame["swiped__total"].to_pylist() == [None, 1.0, 3.0, 4.0]
        assert "from its cutover on" in raised(PushError, lambda: store.push("swipes", swipe(1, "x", -0.6, 1.0)))
        assert store.offline.log(view.source).read().num_rows == 0  # type: ignore[arg-type]  # a push source, by its name
        assert store.materialize(progress=False) == []
        with pytest.raises(NotMaterializedError):
            store.get_online_features({"thing": 1}, "service")
        clock.set(NOON)
        store.materialize(progress=False)
        assert store.push("swipes", swipe(1, "x", -0.6, 1.0)).accepted == 1
        assert both(store, thing=[1])["swiped__total"] == [4.0]


def test_an_event_is_never_part_of_its_own_features() -> None:
    """A row of a spine at its event's own time does not see the event: not in the history, not when it is pushed."""
    history = framed(BATCH.drop_columns(["loaded"]), known_at=None, known_after="1us")
    with opened(view_of(history)) as (store, _):
        both(store, thing=[1])
        at = [hours(-5), hours(-2), hours(-1), hours(-1)]
        frame = trained(store, at, thing=[1, 1, 1, 2])
        assert frame["swiped__total"].to_pylist() == [None, 1.0, 3.0, None]
        store.push("swipes", swipe(1, "d", 0, 8.0))
        assert trained(store, NOON, thing=[1])["swiped__total"].to_pylist() == [103.0]


@settings(max_examples=draws(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    batch=st.lists(st.tuples(st.integers(1, 2), st.integers(-6, 1), st.integers(0, 4), st.integers(-9, 9)), max_size=8),
    later=st.lists(st.tuples(st.integers(1, 2), st.integers(0, 3), st.integers(0, 2), st.integers(-9, 9)), max_size=6),
)
def test_any_history_is_trained_on_as_it_is_served(batch: list[Any], later: list[Any]) -> None:
    """At every instant after the cutover, looked up by every key, to the bit; and the sum is that of what counts."""
    old = [(thing, f"h{n}", at / 2, at / 2 + by / 2, v / 8) for n, (thing, at, by, v) in enumerate(batch)]
    old.append((3, "other", -1, -1, 1.0))
    with opened(view_of(framed(rows(*old)))) as (store, clock):
        store.materialize(progress=False)
        pushed: list[tuple[int, float]] = []
        for n, (thing, forwards, back, v) in enumerate(later):
            clock.advance(timedelta(minutes=forwards * 20))
            store.push(
                "swipes", {"thing": thing, "swipe": f"p{n}", "at": clock() - timedelta(minutes=back), "amount": v / 8}
            )
            pushed.append((thing, v / 8))
            served = both(store, thing=[1, 2, 3])
            counted = [(thing, v) for thing, _, at, known, v in old if at <= 0 and known <= 0] + pushed
            sums = [[v for thing, v in counted if thing == wanted] for wanted in (1, 2, 3)]
            assert served["swiped__total"] == [sum(values) if values else None for values in sums]


def test_the_words_of_the_history_hold_for_it() -> None:
    """Its timezone, its history_until, its derived columns, and conditions over rows of both."""
    batch = pa.table(
        {
            "thing": pa.array([1, 1]), "swipe": ["a", "b"], "loaded": pa.array([NOON.replace(tzinfo=None)] * 2),
            "at": pa.array([hours(-3).replace(tzinfo=None), hours(-1).replace(tzinfo=None)]), "cents": [150, 250],
        }
    )  # fmt: skip
    history = framed(
        batch, timezone="Etc/GMT+1", derived={"amount": "cents / 100.0"}, history_until=hours(-1), known_after="10m"
    )  # local times are an hour behind: the rows happened an hour later, the first of them known ten minutes after
    with opened(view_of(history, derived={"double": "amount * 2"}, cutover=hours(1))) as (store, clock):
        frame = trained(store, [hours(-2), hours(-1.75), hours(1)], thing=[1, 1, 1])
        assert frame["swiped__total"].to_pylist() == [None, 1.5, 4.0]
        clock.set(hours(1))
        assert both(store, thing=[1])["swiped__big_3h"] == [1]


def test_where_a_history_lies_is_no_part_of_a_definition_and_its_words_are() -> None:
    """Fingerprints differ by cutover and by the history's words about time, not by its rows."""
    fingerprints = [
        resolve(view, {**{name: of.duckdb for name, of in SCHEMA.items()}}).fingerprint
        for view in (
            view_of(framed()), view_of(framed(BATCH.slice(0, 1))), view_of(framed(known_after="1s", history_until=NOON)),
            view_of(framed(), cutover=hours(1)),
        )
    ]  # fmt: skip
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: view_of(framed(BATCH.drop_columns(["swipe"]))), "has no column 'swipe', which the schema names"),
        (lambda: view_of(framed(), schema={**SCHEMA, "thing": String}), "column 'thing' of its history"),
        (lambda: view_of(framed(), schema={**SCHEMA, "amount": Int64}), "is FLOAT, which does not fit Int64"),
    ],
)
def test_columns_that_do_not_fit_are_refused_when_planned(make: Any, says: str) -> None:
    """Each names the column and the history."""

    def plan() -> None:
        with opened() as (store, _):
            store.plan([make()])

    told = raised(DeclarationError, plan)
    assert says in told
    assert "DataFrameSource 'old_swipes'" in told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"known_at": None}, "known_after longer than 0"),
        ({"identity": "swipe"}, "one row for each event"),
        ({"event_time": "loaded", "known_at": "at"}, "must have the event_time 'at' too"),
        ({"period": "1h"}, "no period"),
    ],
)
def test_a_history_that_cannot_stand_beside_pushed_rows_is_refused(words: dict[str, Any], says: str) -> None:
    """When it is declared."""
    assert says in raised(DeclarationError, lambda: pushes(framed(**words)))


def test_a_history_survives_the_registry(tmp_path: Path) -> None:
    """Another process that has only the registry and the data trains and serves alike."""
    from featurestore import FeatureService, FeatureStore

    (tmp_path / "featurestore.toml").write_text('project = "history"\ndefinitions = []\n')
    view = view_of(as_files(tmp_path))
    clock = ManualClock(NOON)
    with FeatureStore(tmp_path, clock=clock) as store:
        store.apply([FeatureService("service", features=[view])])
        assert store.plan([view]).steps == ()
    with FeatureStore(tmp_path, clock=clock) as store:
        assert both(store, thing=[1])["swiped__total"] == [3.0]
        store.push("swipes", swipe(1, "d", 0, 8.0))
        frame = store.get_historical_features(spine(clock(), thing=[1]), "service").to_arrow()
        assert frame["swiped__total"].to_pylist() == [11.0]
        assert instant_of(clock()) > instant_of(NOON)

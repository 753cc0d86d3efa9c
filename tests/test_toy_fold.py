"""A fold that is one file and one call is trained, materialized, pushed, looked up and explained, each as the rows say."""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore import FeatureView, PushSource
from featurestore.declare import folds as declared
from featurestore.declare.stored import dump, read_fold
from featurestore.semantics.folds import FOLDS, CertainAlgebra, FoldKind, add_fold, table
from featurestore.semantics.status import Status
from featurestore.types import Bool, Int64, String, Timestamp
from tests import toy_fold
from tests.draws import draws
from tests.small import NOON, THING, both, hours, opened, trained, view_of
from tests.small import table as rows_of
from tests.test_tiled_materialize import World
from tests.toy_fold import Ends, Range

Row = tuple[datetime, int, int | None]  # event_time, thing, x
WINDOWS: dict[str, dict[str, Any]] = {
    "hour": {"window": "1h"},
    "before": {"window": "2h", "offset": "1h"},
    "ever": {"window": "lifetime"},
    "even": {"window": "5h", "where": "x % 2 = 0"},
}
VALUES = [None, None, 0, 3, 8, -5, (1 << 63) - 1, -(1 << 63)]


def by_merging(column: Any, result: Any) -> Ends:
    """The algebra without its columnar form."""
    toy_fold.range_of(column, result)
    return Ends(sum_fields=None)


@pytest.fixture(params=["columnar", "merged"])
def added(request: pytest.FixtureRequest) -> Iterator[FoldKind]:
    """The fold, added in one call, with and without a columnar form."""
    row = toy_fold.ROW if request.param == "columnar" else toy_fold.ROW._replace(algebra=by_merging)
    add_fold(row)
    yield row
    del table._FOLDS["Range"]


def expected(rows: list[Row], thing: int, at: datetime, name: str) -> tuple[int | None, str]:
    """What the rows say, all read at once; `at` is on a hop."""
    mine = [row for row in rows if row[1] == thing and row[0] <= at]
    if not mine:
        return None, "MISSING"
    end = at - timedelta(hours=name == "before")
    length = {"hour": 1, "before": 2, "ever": 10_000, "even": 5}[name]
    values = [x for t, _, x in mine if end - timedelta(hours=length) < t <= end and x is not None]
    values = [x for x in values if name != "even" or x % 2 == 0]
    if not values:
        return None, "PRESENT"
    found = max(values) - min(values)
    return (found, "PRESENT") if found < 1 << 63 else (None, "OVERFLOW")


def some_rows(seed: int) -> list[Row]:
    choice = random.Random(seed)
    return [(hours(-choice.randrange(1, 480) / 60), choice.randrange(3), choice.choice(VALUES)) for _ in range(80)]


FEATURES = {name: Range("x", **words) for name, words in WINDOWS.items()}


def check(found: dict[str, list[Any]], rows: list[Row], at: datetime, things: list[int]) -> None:
    for name in WINDOWS:
        values = list(zip(found[f"view__{name}"], found[f"view__{name}__status"], strict=True))
        assert values == [expected(rows, thing, at, name) for thing in things], (name, at)


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("refresh", ["continuous", "1h"])
def test_it_is_trained_materialized_and_looked_up(refresh: str) -> None:
    """As the rows say at every instant of a spine, and now from the online store."""
    rows, things = some_rows(1), [0, 1, 2, 9]
    frame = rows_of(at=[t for t, _, _ in rows], thing=[n for _, n, _ in rows], x=[x for _, _, x in rows])
    view = view_of(frame, FEATURES, refresh=refresh)
    with opened(view) as (store, _):
        for ago in range(9):
            at = hours(-ago)
            check(trained(store, at, thing=things).to_pydict(), rows, at, things)
        check(both(store, thing=things), rows, NOON, things)
        told = store.explain("view", {"thing": 1}, at=NOON)
        assert {name: (told.values[name], told.statuses[name]) for name in WINDOWS} == {
            name: expected(rows, 1, NOON, name) for name in WINDOWS
        }
        met = [t for t, n, x in rows if n == 1 and x is not None and NOON - timedelta(hours=1) < t <= NOON]
        assert told.counted["hour"] >= len(met)


@pytest.mark.usefixtures("added")
def test_it_is_pushed() -> None:
    """Rows of every portion are merged into tiles, a row that is replaced or deleted is gone, and training says the same."""
    source = PushSource(
        "rows", schema={"id": String, "thing": Int64, "at": Timestamp, "x": Int64, "gone": Bool}, event_time="at",
        identity="id", deleted="gone",
    )  # fmt: skip
    view = FeatureView("view", entity=THING, source=source, features=FEATURES)
    choice, kept, things = random.Random(2), dict[str, Row](), [0, 1, 2, 9]
    with opened(view, at=hours(-9)) as (store, clock):
        for _ in range(9):
            clock.advance(timedelta(hours=1))
            sent = {f"{choice.randrange(60)}": (clock() - timedelta(minutes=choice.randrange(90)), choice.randrange(3),
                                                choice.choice(VALUES)) for _ in range(9)}  # fmt: skip
            sent = {name: row if name not in kept else (row[0], kept[name][1], row[2]) for name, row in sent.items()}
            gone = {name for name in sent if choice.random() < 0.1}
            store.push("rows", [{"id": name, "thing": thing, "at": at, "x": x, "gone": name in gone}
                                for name, (at, thing, x) in sent.items()])  # fmt: skip
            kept = {name: row for name, row in {**kept, **sent}.items() if name not in gone}
            check(both(store, thing=things), list(kept.values()), clock(), things)


@pytest.mark.usefixtures("added")
def test_it_has_tiles_of_files_where_it_has_a_columnar_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, added: FoldKind
) -> None:
    """Runs that use them write what training says; without such a form every row is read."""
    features = {"range": Range("points", window="1d"), "ever": Range("points", window="lifetime", where="amount > 1")}
    world = World(tmp_path, monkeypatch, features=features)
    runs = [world.run() for _ in range(4)]
    assert any(used for _, used in runs) == (added is toy_fold.ROW)
    world.store.close()


@pytest.mark.usefixtures("added")
def test_a_definition_of_it_is_read_back() -> None:
    """From the registry, as every fold is."""
    fold = Range("x", window="1h")
    assert read_fold(dump(fold)) == fold


@settings(max_examples=draws(50), deadline=None)
@given(values=st.lists(st.lists(st.sampled_from(VALUES[2:]), max_size=4), max_size=5))
def test_packed_states_are_merged_as_states_are(values: list[list[int]]) -> None:
    """What Algebra says of many states at once, where a fold says nothing itself."""
    algebra = Ends()
    states = []
    for some in values:
        state = algebra.zero
        for value in some:
            state = algebra.merge(state, algebra.lift(value, 0))
        states.append(state)
    whole = algebra.zero
    for state in states:
        whole = algebra.merge(whole, state)
    assert algebra.merge_packed([algebra.pack(state) for state in states]) == whole
    finished = [algebra.finish(state) for state in states]
    assert algebra.finish_many(states) == ([v for v, _ in finished], [s for _, s in finished])
    assert algebra.finish(algebra.zero) == (None, Status.PRESENT)


def test_a_kind_is_added_once() -> None:
    """A second fold of a kind would change what the first one means."""
    with pytest.raises(ValueError, match="'Sum'"):
        add_fold(FOLDS["Sum"])
    assert "Range" not in FOLDS


def test_the_worked_example_is_this_fold() -> None:
    """CONTRIBUTING.md shows all that lies in another file: the class that users write."""
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
    shown = "\n".join(f"+{line}".rstrip() for line in inspect.getsource(Range).rstrip().split("\n"))
    assert shown in page


# --- docs/folds.md ----------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[1] / "docs" / "folds.md"


def test_the_docs_have_the_rows_of_every_fold_and_no_others() -> None:
    """Each fold's `docs`, as they are written in the table."""
    lines = PAGE.read_text().split("\n")
    first = lines.index("| fold | takes | result | of nothing | beyond its limits |") + 2
    found = lines[first : lines.index("", first)]
    declared = {doc for row in FOLDS.values() for doc in row.docs}
    assert sorted(found) == sorted(declared)


@pytest.mark.parametrize("kind", sorted(FOLDS))
def test_the_docs_say_what_a_fold_of_nothing_is(kind: str) -> None:
    """A row names the fold, and its value where no row counts."""
    of_folds: dict[str, dict[str, Any]] = {
        "LastN": {"n": 1},
        "LastDistinctN": {"n": 1},
        "CountDistinct": {"bound": 1},
        "ApproxQuantile": {"q": 0.5},
    }
    parameters = of_folds.get(kind, {})
    row = FOLDS[kind]
    algebra = row.algebra(Int64, row.result(Int64, **parameters), **parameters)
    value, _ = algebra.finish(algebra.zero)
    for doc in row.docs:
        _, call, _, _, of_nothing, _, _ = doc.split("|")
        assert f"`{kind}(" in call
        assert of_nothing.split(",")[0].strip(" `") == ("null" if value is None else str(value))


DECLARED = [
    each for each in vars(declared).values() if inspect.isclass(each) and getattr(each, "__name__", "") in FOLDS
]


@pytest.mark.parametrize("fold", DECLARED, ids=lambda fold: fold.__name__)
def test_a_fold_that_needs_no_window_never_overflows(fold: type[declared.Fold]) -> None:
    """A slot tells only that a value is not PRESENT: of such a fold that is EXPIRED, of any other OVERFLOW."""
    if not fold.needs_window:
        parameters = {"n": 2} if "n" in fold.model_fields else {}
        row = FOLDS[fold.__name__]
        assert isinstance(row.algebra(Int64, row.result(Int64, **parameters), **parameters), CertainAlgebra)


def test_every_fold_is_declared() -> None:
    """By a class of its kind's name."""
    assert {fold.__name__ for fold in DECLARED} == set(FOLDS)

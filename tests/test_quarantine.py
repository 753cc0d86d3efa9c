"""Quarantine: rows that do not meet what is expected are listed, pushed again after a correction, erased, backed up and forgotten."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from featurestore import (
    Count,
    FeatureService,
    FeatureStore,
    FeatureView,
    InRange,
    Latest,
    ManualClock,
    NotNull,
    ParquetSource,
    PushSource,
    Sum,
)
from featurestore.backup.restore import restore_backup
from featurestore.cli import app
from featurestore.errors import NotFoundError, PushError, RequestError
from featurestore.push import quarantine
from featurestore.push.push_sources import Pushing
from featurestore.types import Bool, FeatureType, Float64, Int64, Timestamp
from tests.small import NOON, THING, apply, both, hours, opened, table, write

FEATURES = {"x": Latest("x"), "sum": Sum("x", window="1d"), "rows": Count(window="lifetime")}


def limit(most: float) -> InRange:
    """An expectation that quarantines."""
    return InRange("x", at_least=0, at_most=most, otherwise="quarantine")


def pushed_view(most: float) -> FeatureView:
    """A continuous view over a push source."""
    schema = {"thing": Int64, "id": Int64, "at": Timestamp, "x": Float64, "gone": Bool}
    source = PushSource(
        "pushed", schema=schema, event_time="at", identity="id", deleted="gone", expectations=[limit(most)]
    )
    return FeatureView("view", entity=THING, source=source, features=FEATURES)


def row(number: int, x: float | None, thing: int = 1) -> dict[str, Any]:
    """A pushed row."""
    return {"thing": thing, "id": number, "at": NOON, "x": x}


def test_rows_of_files_are_counted_and_shown_where_they_lie(tmp_path: Path) -> None:
    """Each with what it does not meet, those that only warn among them; of another name it says what there is."""
    write(tmp_path / "a.parquet", table(thing=[1, 1], at=[hours(-1)] * 2, x=pa.array([1.0, 500.0])))
    write(tmp_path / "b.parquet", table(thing=[2, 2], at=[hours(-1)] * 2, x=pa.array([None, -1.0])))
    source = ParquetSource(
        "rows", str(tmp_path), event_time="at", expectations=[limit(100), NotNull("x", otherwise="warn")]
    )
    view = FeatureView("view", entity=THING, source=source, refresh="1h", features=FEATURES)
    with opened(view) as (store, _):
        found = store.quarantine()
        assert [(one.of, one.otherwise, one.rows) for one in found.unmet] == [
            ("view", "quarantine", 2),
            ("view", "warn", 1),
        ]
        assert found.to_dict()["unmet"][0]["expectation"] == limit(100).title
        shown = store.quarantined_rows("view")
        assert [(Path(one.place).name, one.id, one.values["x"], one.unmet) for one in shown] == [
            ("a.parquet row 1", None, 500.0, (limit(100).title,)),
            ("b.parquet row 0", None, None, ("NotNull('x')",)),
            ("b.parquet row 1", None, -1.0, (limit(100).title,)),
        ]
        assert len(store.quarantined_rows("view", most=2)) == 2
        with pytest.raises(
            NotFoundError, match="No feature view or push source 'vie' was applied. Did you mean 'view'"
        ):
            store.quarantined_rows("vie")
        with pytest.raises(
            NotFoundError, match="'rows' is no push source: ask by view for the rows of its files: view"
        ):
            store.quarantined_rows("rows")
        with pytest.raises(NotFoundError, match="No push source 'view' was applied"):
            store.replay_quarantined("view")


def test_nothing_is_in_quarantine_where_nothing_is_expected(tmp_path: Path) -> None:
    """And it says so."""
    path = write(tmp_path / "a.parquet", table(thing=[1], at=[hours(-1)], x=pa.array([1.0])))
    view = FeatureView(
        "view", entity=THING, source=ParquetSource("rows", str(path), event_time="at"), refresh="1h", features=FEATURES
    )
    with opened(view) as (store, _):
        assert str(store.quarantine()) == "Nothing is expected of any row."
        assert store.quarantined_rows("view") == []


def test_pushed_rows_are_replayed_once_less_is_expected() -> None:
    """Those that meet it by now: known from then on, and kept aside no more."""
    with opened(pushed_view(100)) as (store, clock):
        store.push("pushed", [row(1, 1.0), row(2, 150.0), row(3, 5000.0), row(4, 160.0)])
        first, second, third = store.quarantined_rows("pushed")
        assert [one.values["id"] for one in (first, second, third)] == [2, 3, 4]
        assert store.quarantined_rows("view") == [first, second, third]
        assert {one.of: one.rows for one in store.quarantine().unmet} == {"pushed": 3}
        (status,) = store.status()
        assert status.pushes is not None
        assert status.pushes.quarantined == 3
        done = store.replay_quarantined("pushed")
        assert all(isinstance(one, PushError) for one in done.values())
        assert str(done[first.id or 0]) == f"PushSource 'pushed': it does not meet {limit(100).title}"
        before = both(store, thing=[1])
        assert before["view__sum"] == [1.0]

        apply(store, pushed_view(1000))
        clock.set(hours(1))
        assert [one.unmet for one in store.quarantined_rows("pushed")] == [(), (limit(1000).title,), ()]
        done = store.replay_quarantined("pushed", [first.id or 0])
        assert done == {first.id: (1, 0, 0)}
        assert [one.values["id"] for one in store.quarantined_rows("pushed")] == [3, 4]
        done = store.replay_quarantined("pushed")
        assert [isinstance(done[one.id or 0], PushError) for one in (second, third)] == [True, False]
        assert both(store, thing=[1])["view__sum"] == [311.0]
        assert store.verify().ok
        assert store.replay_quarantined("pushed", [second.id or 0]).keys() == {second.id}
        frame = store.get_historical_features(table(thing=[1], event_timestamp=[hours(0.5)]), "service").to_arrow()
        assert frame["view__sum"].to_pylist() == [1.0]  # nobody knew of them by then


def test_more_rows_than_are_erased_at_once_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay that is killed in the midst of them takes none twice, though the source's rows have no identity."""
    monkeypatch.setattr(quarantine, "ERASED_AT_ONCE", 3)
    schema = {"thing": Int64, "at": Timestamp, "x": Float64}

    def view(most: float) -> FeatureView:
        source = PushSource("pushed", schema=schema, event_time="at", expectations=[limit(most)])
        return FeatureView("view", entity=THING, source=source, features=FEATURES)

    with opened(view(100)) as (store, _):
        store.push("pushed", [{"thing": 1, "at": NOON, "x": 150.0} for _ in range(8)])
        apply(store, view(1000))
        erase, calls = quarantine.PushedQuarantine._erase, []

        def second_time(self: Any, ids: Any) -> int:
            calls.append(len(ids))
            return erase(self, ids) if len(calls) == 1 else _killed()

        with monkeypatch.context() as patched:
            patched.setattr(quarantine.PushedQuarantine, "_erase", second_time)
            with pytest.raises(KeyboardInterrupt):
                store.replay_quarantined("pushed")
        assert calls == [3, 3]
        assert len(store.quarantined_rows("pushed")) == 5
        assert len(store.replay_quarantined("pushed")) == 2
        assert store.quarantined_rows("pushed") == []
        assert both(store, thing=[1])["view__rows"] == [8]


def test_a_row_that_was_corrected_is_discarded() -> None:
    """By its id; another id is told, and what is no list of ids."""
    with opened(pushed_view(100)) as (store, _):
        store.push("pushed", [row(1, 150.0), row(2, 160.0)])
        store.push("pushed", [row(1, 15.0)])
        first, second = store.quarantined_rows("pushed")
        with pytest.raises(NotFoundError, match="No row 3 of PushSource 'pushed' is in quarantine"):
            store.discard_quarantined("pushed", [3])
        with pytest.raises(RequestError, match="ids is a list of numbers"):
            store.discard_quarantined("pushed", ["a"])  # type: ignore[list-item]  # the mistake
        assert store.discard_quarantined("pushed", [first.id or 0]) == 1
        assert store.quarantined_rows("pushed") == [second]
        assert store.discard_quarantined("pushed") == 1
        assert store.discard_quarantined("pushed") == 0
        assert both(store, thing=[1])["view__sum"] == [15.0]


def test_a_row_whose_replay_was_killed_before_it_was_erased_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log knows which was the last."""
    with opened(pushed_view(100)) as (store, _):
        store.push("pushed", [row(1, 150.0)])
        apply(store, pushed_view(1000))
        with monkeypatch.context() as patched:
            patched.setattr(quarantine.PushedQuarantine, "_erase", _killed)
            with pytest.raises(KeyboardInterrupt):
                store.replay_quarantined("pushed")
        assert len(store.quarantined_rows("pushed")) == 1
        assert store.replay_quarantined("pushed") == {}
        assert store.quarantined_rows("pushed") == []
        assert both(store, thing=[1])["view__rows"] == [1]


def _killed(*_: object) -> int:
    raise KeyboardInterrupt


def test_a_forgotten_key_is_erased_from_quarantine() -> None:
    """The rows of other keys stay, and can be replayed."""
    with opened(pushed_view(100)) as (store, clock):
        store.push("pushed", [row(1, 150.0, thing=1), row(2, 160.0, thing=2), row(3, 1.0, thing=1)])
        clock.set(hours(1))
        store.forget("thing", {"thing": 1})
        assert [one.values["thing"] for one in store.quarantined_rows("pushed")] == [2]
        apply(store, pushed_view(1000))
        store.replay_quarantined("pushed")
        assert both(store, thing=[1, 2])["view__sum"] == [None, 160.0]


@contextmanager
def project(folder: Path) -> Iterator[FeatureStore]:
    """A project on the disk with pushed rows in quarantine."""
    folder.mkdir(exist_ok=True)
    (folder / "featurestore.toml").write_text('project = "things"\nonline = "lmdb://online"\ndefinitions = []\n')
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("service", features=[pushed_view(100)])])
        store.materialize(progress=False)
        store.push("pushed", [row(1, 150.0), row(2, 1.0)])
        yield store


def test_the_command_line_lists_shows_replays_and_discards(tmp_path: Path) -> None:
    """A replay that leaves a row there ends with 3; JSON has the same."""
    with project(tmp_path / "things"):
        pass

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["--repo", str(tmp_path / "things"), "quarantine", *words])
        return done.exit_code, done.stdout

    code, listed = run("list")
    assert (code, "pushed  (rows in quarantine)  quarantine  1" in listed) == (0, True)
    code, shown = run("show", "pushed", "--json")
    (found,) = json.loads(shown)
    assert (found["values"]["x"], found["unmet"]) == (150.0, [limit(100).title])
    assert limit(100).title in run("show", "pushed")[1]
    code, told = run("replay", "pushed")
    assert code == 3
    assert told.startswith("0 rows pushed, 1 stays in quarantine\n")
    assert run("discard", "pushed", str(found["id"])) == (0, "1 row erased\n")
    assert run("show", "pushed") == (0, "Every row of pushed meets what is expected of it.\n")


def test_all_of_quarantine_is_erased_only_where_somebody_says_so(tmp_path: Path) -> None:
    """At a terminal, by an answer; elsewhere by --yes. So is each command that erases what nobody can take back."""
    folder = tmp_path / "things"
    with project(folder):
        pass

    words = ["--repo", str(folder), "quarantine", "discard", "pushed"]

    def run(answer: str = "") -> tuple[int, str]:
        if answer:
            return at_a_terminal([sys.executable, "-m", "featurestore", *words], answer)
        done = CliRunner().invoke(app, words)
        return done.exit_code, done.output

    assert run() == (1, "Nothing was erased; say --yes.\n")
    code, told = run("n")
    assert (code, "Erase the one row of pushed in quarantine, without pushing it? Nothing brings it back." in told) == (
        1,
        True,
    )
    assert "Nothing was erased." in told
    code, told = run("y")
    assert (code, "1 row erased" in told) == (0, True)
    assert run() == (0, "0 rows erased\n")


def at_a_terminal(command: list[str], answer: str) -> tuple[int, str]:
    """The exit code of a command that is asked a question at a terminal, and all that stands there in the end."""
    ours, its = pty.openpty()
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, close_fds=True)
    os.close(its)
    told = b""
    with os.fdopen(ours, "r+b", buffering=0) as terminal:
        terminal.write(f"{answer}\n".encode())
        with suppress(OSError):  # nobody is there any more
            while piece := terminal.read(4096):
                told += piece
    return process.wait(600), told.decode()


def test_quarantine_is_backed_up_and_restored(tmp_path: Path) -> None:
    """As what nobody can make anew."""
    with project(tmp_path / "things") as store:
        store.backup(tmp_path / "whole.tar")
        before = store.quarantined_rows("pushed")
    (tmp_path / "again").mkdir()
    restore_backup(tmp_path / "whole.tar", tmp_path / "again")
    with FeatureStore(tmp_path / "again", clock=ManualClock(NOON)) as again:
        assert again.quarantined_rows("pushed") == before


BEFORE = {"thing": Int64, "id": Int64, "at": Timestamp, "x": Float64, "gone": Bool}
SINCE = {
    "added": {**BEFORE, "more": Int64},
    "left out": {name: of for name, of in BEFORE.items() if name != "gone"},
    "of another type": {**BEFORE, "x": Int64},
}


@pytest.mark.parametrize("schema", SINCE.values(), ids=SINCE)
def test_rows_of_other_columns_are_shown_forgotten_and_discarded(schema: dict[str, FeatureType]) -> None:
    """None is replayed, since the log takes rows of the columns alone with which it began; a forgotten key is in neither."""

    def view(schema: dict[str, FeatureType]) -> FeatureView:
        source = PushSource("pushed", schema=schema, event_time="at", identity="id", expectations=[limit(100)])
        return FeatureView("view", entity=THING, source=source, features={"rows": Count(window="lifetime")})

    with opened(view(BEFORE)) as (store, clock):
        store.push("pushed", [row(1, 150.0), row(2, 160.0, thing=2), row(3, 1.0), row(4, 1.0, thing=2)])
        store.push("pushed", [{**row(5, 1.0, thing=2), "at": hours(-24 * 90)}])
        apply(store, view(schema))
        first, second = store.quarantined_rows("pushed")
        assert (first.values, first.unmet) == (row(1, 150.0) | {"gone": None}, (quarantine.OTHER_COLUMNS,))
        done = store.replay_quarantined("pushed")
        assert set(done) == {first.id, second.id}
        assert "columns were changed since it was kept aside" in str(done[first.id or 0])

        clock.set(hours(1))
        for dry_run in (True, False):
            told = store.forget("thing", {"thing": 2}, dry_run=dry_run)
            assert (told.log_rows, told.late_rows) == ({"pushed": 1}, {"pushed": 2})
        assert store.forget("thing", {"thing": 2}, dry_run=True).log_rows == {}
        assert store.quarantined_rows("pushed") == [first]
        assert store.discard_quarantined("pushed") == 1
        assert store.quarantined_rows("pushed") == []


def test_what_was_corrected_or_deleted_since_is_replayed_only_by_its_id() -> None:
    """It would replace what came later; another push of the very same row is none, and a replay of it changes nothing."""
    with opened(pushed_view(100)) as (store, clock):
        store.push("pushed", [row(1, 1.0), row(2, 2.0), row(5, 5.0)])
        clock.set(hours(0.1))
        bad = [row(1, 150.0), row(2, 160.0), row(3, 170.0), row(4, 180.0), row(5, 190.0)]
        store.push("pushed", bad)
        first, second, third, fourth, fifth = (one.id or 0 for one in store.quarantined_rows("pushed"))
        clock.set(hours(0.2))
        store.push("pushed", [row(1, 15.0)])
        store.push("pushed", [{**row(2, None), "gone": True}])
        apply(store, pushed_view(1000))
        store.push("pushed", [row(4, 180.0)])
        clock.set(hours(0.3))

        done = store.replay_quarantined("pushed")
        assert (done[third], done[fourth], done[fifth]) == ((1, 0, 0), (0, 1, 0), (1, 0, 0))
        assert all("another version of it was pushed since" in str(done[one]) for one in (first, second))
        assert both(store, thing=[1])["view__sum"] == [15.0 + 170.0 + 180.0 + 190.0]
        assert store.replay_quarantined("pushed", [first]) == {first: (1, 0, 0)}
        assert both(store, thing=[1])["view__sum"] == [150.0 + 170.0 + 180.0 + 190.0]
        assert [one.id for one in store.quarantined_rows("pushed")] == [second]


def test_of_two_replays_at_once_one_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the other one is done between its erasing and its last word; each row is taken once."""
    with opened(pushed_view(100)) as (store, _):
        store.push("pushed", [row(1, 150.0), row(2, 160.0)])
        apply(store, pushed_view(1000))
        erase, others = quarantine.PushedQuarantine._erase, [True]

        def beside_another(self: Any, ids: Any) -> int:
            if others:
                others.clear()
                self._erased(self._leaving())
            return erase(self, ids)

        with monkeypatch.context() as patched:
            patched.setattr(quarantine.PushedQuarantine, "_erase", beside_another)
            with pytest.raises(
                PushError, match="another process replays or discards rows of its quarantine; try again"
            ):
                store.replay_quarantined("pushed")
        assert store.replay_quarantined("pushed") == {}
        assert both(store, thing=[1])["view__sum"] == [310.0]


def beside(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something when rows of quarantine were chosen next, before anything becomes of them."""
    chosen, others = quarantine.PushedQuarantine._table, [do]

    def and_then(self: Any) -> Any:
        found = chosen(self)
        if others:
            others.pop()()
        return found

    monkeypatch.setattr(quarantine.PushedQuarantine, "_table", and_then)


def test_of_two_discards_at_once_each_row_is_counted_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """All, and one by its id; also where the other one comes when rows are noted and not erased yet."""
    with opened(pushed_view(100)) as (store, _):
        for ids in (False, True):
            store.push("pushed", [row(1, 150.0), row(2, 160.0)])
            first, _second = (one.id or 0 for one in store.quarantined_rows("pushed"))
            asked = [first] if ids else None
            counts: list[int] = []
            with monkeypatch.context() as patched:
                beside(patched, lambda asked=asked: counts.append(store.discard_quarantined("pushed", asked)))  # type: ignore[misc]
                counts.append(store.discard_quarantined("pushed", asked))
            assert counts == ([1, 0] if ids else [2, 0])
            store.discard_quarantined("pushed")
        store.push("pushed", [row(1, 150.0)])
        erase, counts = quarantine.PushedQuarantine._erase, []
        others = [lambda: counts.append(store.discard_quarantined("pushed"))]

        def beside_another(self: Any, ids: Any) -> int:
            if others:
                others.pop()()
            return erase(self, ids)

        with monkeypatch.context() as patched:
            patched.setattr(quarantine.PushedQuarantine, "_erase", beside_another)
            with pytest.raises(PushError, match="another process replays or discards"):
                store.discard_quarantined("pushed")
        assert sum(counts) <= 1
        assert store.quarantined_rows("pushed") == []


def test_a_row_is_replayed_or_discarded_and_not_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever chose its rows first: a discard counts no row that was pushed, and a replay pushes none that was discarded."""
    with opened(pushed_view(100)) as (store, _):
        store.push("pushed", [row(1, 150.0), row(2, 160.0)])
        apply(store, pushed_view(1000))
        with monkeypatch.context() as patched:
            beside(patched, lambda: store.replay_quarantined("pushed"))
            assert store.discard_quarantined("pushed") == 0
        assert both(store, thing=[1])["view__sum"] == [310.0]

        apply(store, pushed_view(100))
        store.push("pushed", [row(3, 170.0), row(4, 180.0)])
        apply(store, pushed_view(1000))
        submit, others = Pushing.submit, [lambda: store.discard_quarantined("pushed")]

        def when_discarded(self: Any, name: str, rows: Any, **words: Any) -> Any:
            if others and rows.num_rows:
                assert others.pop()() == 2
            return submit(self, name, rows, **words)

        with monkeypatch.context() as patched:
            patched.setattr(Pushing, "submit", when_discarded)
            with pytest.raises(PushError, match="another process replays or discards"):
                store.replay_quarantined("pushed")
        assert store.quarantined_rows("pushed") == []
        assert both(store, thing=[1])["view__sum"] == [310.0]


def test_a_discard_that_was_killed_is_completed() -> None:
    """By whoever comes next: a row that was to be discarded is not replayed."""
    with opened(pushed_view(100)) as (store, _):
        store.push("pushed", [row(1, 150.0), row(2, 160.0), row(3, 170.0)])
        apply(store, pushed_view(1000))
        first, second, third = (one.id or 0 for one in store.quarantined_rows("pushed"))
        with pytest.MonkeyPatch.context() as killing:
            killing.setattr(quarantine.PushedQuarantine, "_erase", _killed)
            with pytest.raises(KeyboardInterrupt):
                store.discard_quarantined("pushed", [first, third])
        assert store.replay_quarantined("pushed").keys() == {second}
        with pytest.MonkeyPatch.context() as killing:
            apply(store, pushed_view(100))
            store.push("pushed", [row(4, 150.0), row(5, 160.0)])
            killing.setattr(quarantine.PushedQuarantine, "_erase", _killed)
            with pytest.raises(KeyboardInterrupt):
                store.discard_quarantined("pushed")
        apply(store, pushed_view(1000))
        assert store.replay_quarantined("pushed") == {}
        assert both(store, thing=[1])["view__sum"] == [160.0]


def test_an_explanation_tells_which_pushed_rows_of_its_key_are_kept_aside() -> None:
    """Those in quarantine and those that came too late, of this key alone, until they are erased."""
    with opened(pushed_view(100)) as (store, _):
        late = {**row(3, 1.0), "at": hours(-24 * 8)}
        store.push("pushed", [row(1, 1.0), row(2, 500.0), row(4, -1.0), late, row(5, 500.0, thing=2)])
        found = store.explain("view", {"thing": 1})
        assert (found.values["rows"], found.aside) == (1, {"late": 1, "quarantine": 2})
        text = str(found)
        assert "counted nowhere: 1 pushed row of this key, came too late" in text
        assert "counted nowhere: 2 pushed rows of this key, in quarantine: featurestore quarantine show pushed" in text
        assert store.explain("view:sum", {"thing": 2}).aside == {"quarantine": 1}
        assert store.explain("view", {"thing": 3}).aside == {}
        store.discard_quarantined("pushed", [one.id for one in store.quarantined_rows("pushed")[:1] if one.id])
        assert store.explain("view", {"thing": 1}).aside == {"late": 1, "quarantine": 1}
        store.forget("thing", {"thing": 1})
        assert store.explain("view", {"thing": 1}).aside == {}

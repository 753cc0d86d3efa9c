"""The registry keeps every applied version, whoever else applies, dies or damages at the same time."""

from __future__ import annotations

import copy
import os
import re
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from featurestore.access.api_keys import create_key
from featurestore.errors import NotFoundError, PlanOutdatedError, RegistryError
from featurestore.registry import store
from featurestore.registry.activity import Activity
from featurestore.registry.documents import digest_of, empty_document
from featurestore.registry.store import SCHEMA, Freed, Registry, RunRecord
from featurestore.sources import arrivals
from tests.forks import forks
from tests.registry.places import by_hand, words

FORKS = forks()


@pytest.fixture
def registry(place):
    ticks = iter(range(1_000_000, 2_000_000))
    made = Registry(place, now=lambda: next(ticks))
    yield made
    made.close()


def state(**kinds):
    """A document with these fingerprints: state(views={"v": "f1"})."""
    document = empty_document()
    for kind, records in kinds.items():
        document[kind] = {name: {"fingerprint": fingerprint} for name, fingerprint in records.items()}
    return document


def test_reading_creates_nothing(registry):
    """Before the first apply there is version 0, with an empty document."""
    current = registry.current()
    assert (current.number, current.document, current.digest) == (0, empty_document(), digest_of(empty_document()))
    assert registry.version(0) == current
    assert (registry.history(), registry.generation(), registry.runs(), registry.leftovers()) == ((), 0, (), ())
    assert registry.find_service("s", "f") is None
    assert registry.services("s") == ()
    assert (registry.kept(), registry.frames(), registry.api_keys(), registry.activity()) == ((), (), [], [])
    assert registry.state() == (0, (), ())


def test_every_version_is_kept(registry):
    """With when it was applied, its digest and its note; the order of a document's keys is kept too."""
    first, second = state(views={"v": "f1"}), state(views={"v": "f2", "a": "f3"})
    assert registry.commit(first, expected=0, note="first") == 1
    assert registry.commit(second, expected=1) == 2
    assert registry.current() == registry.version(2)
    assert [version.number for version in registry.history()] == [2, 1]
    assert registry.version(1).document == first
    assert (registry.version(1).note, registry.version(1).applied_at) == ("first", 1_000_000)
    assert list(registry.current().document["views"]) == ["v", "a"]
    assert registry.current().digest == digest_of(second)
    assert Registry(registry.place).history() == registry.history()
    assert "applied 1970-01-01 00:00:01Z" in repr(registry.version(1))
    with pytest.raises(NotFoundError, match="no version 7; it has 0 to 2"):
        registry.version(7)


def test_a_plan_that_is_not_current_is_refused(registry):
    """And nothing is written."""
    registry.commit(state(), expected=0)
    for expected in (0, 2):
        with pytest.raises(PlanOutdatedError, match=f"against version {expected} .* come to version 1"):
            registry.commit(state(views={"v": "f"}), expected=expected)
    assert registry.generation() == 1


def test_generation_changes_when_something_is_applied(registry):
    """And with nothing else."""
    assert registry.generation() == 0
    registry.commit(state(), expected=0)
    assert registry.generation() == 1
    registry.record_run(RunRecord("v", "f", 1, 2, 3, 4, 5, "complete"))
    registry.freed("v", "f")
    assert registry.generation() == 1


def test_a_service_is_found_by_its_fingerprint_in_the_newest_version_that_had_it(registry):
    """So that a model gets the definitions that it was trained on; its fingerprints come newest first."""
    for number, fingerprint in enumerate(["f1", "f2", "f1", "f3"]):
        registry.commit(
            state(services={"model": fingerprint, "other": "f9"}, views={"v": str(number)}), expected=number
        )
    found = registry.find_service("model", "f1")
    assert (found.number, found.document["views"]["v"]["fingerprint"]) == (3, "2")
    assert registry.find_service("model", "f2").number == 2
    assert registry.find_service("model", "f9") is None
    assert registry.find_service("none", "f1") is None
    assert registry.services("model") == ("f3", "f1", "f2")
    assert registry.services("other") == ("f9",)


def test_what_is_left_to_be_freed_is_remembered_with_the_version(registry):
    """View versions that a commit leaves out are leftovers until they are struck, or are current again."""
    registry.commit(state(views={"a": "1", "b": "1"}), expected=0)
    assert registry.leftovers() == ()
    registry.commit(state(views={"a": "2"}), expected=1)
    assert registry.leftovers() == (Freed("a", "1"), Freed("b", "1"))
    registry.freed("b", "1")
    registry.freed("b", "1")
    assert registry.leftovers() == (Freed("a", "1"),)
    registry.commit(state(views={"a": "1"}), expected=2)
    assert registry.leftovers() == (Freed("a", "2"),)


@pytest.mark.parametrize("note", ["'; DROP TABLE versions; -- ? % %s {}", "ü→\U0001f600", "\n\t\\"])
def test_a_note_is_any_text(registry, note):
    """It is a value, and no part of a statement."""
    assert registry.commit(state(), expected=0, note=note) == 1
    assert registry.current().note == note
    assert Registry(registry.place).history()[0].note == note


def test_what_is_no_text_is_refused(registry):
    """With nothing of it kept."""
    with pytest.raises(RegistryError, match="cannot be used"):
        registry.commit(state(), expected=0, note="\ud800")
    assert registry.generation() == 0


def test_runs_are_a_journal(registry):
    """Newest first, of one view or all, with their details."""
    for number in range(5):
        run = RunRecord("ab"[number % 2], "f", number, number + 1, number + 2, 10, 20, "complete", {"late": [number]})
        assert registry.record_run(run) == number + 1
    assert [run.instant for run in registry.runs()] == [4, 3, 2, 1, 0]
    assert [run.instant for run in registry.runs("a", limit=2)] == [4, 2]
    first = registry.runs("a")[-1]
    assert first == RunRecord("a", "f", 0, 1, 2, 10, 20, "complete", {"late": [0]}, id=1)
    assert registry.runs("none") == ()


def test_the_last_runs_of_many_views_are_few_readings(registry, monkeypatch):
    """Of each version, and of each view whatever its version; a view that has had no run has none."""
    views = [f"view{n}" for n in range(2 * store.MOST_TOGETHER + 1)]
    for ended, (view, fingerprint) in enumerate(
        [("view0", "f"), ("view0", "g"), ("view0", "f"), ("view0", "g"), (views[-1], "f")]
    ):
        registry.record_run(RunRecord(view, fingerprint, 1, 2, ended, 4, 5, "complete", {"n": ended}))
    readings = []
    read = registry._read
    monkeypatch.setattr(registry, "_read", lambda sql, *values: readings.append(sql) or read(sql, *values))
    assert registry.last_runs((view, "f") for view in views) == {("view0", "f"): 2, (views[-1], "f"): 4}
    assert len(readings) == 3
    found = registry.last_runs_of(views)
    assert {view: (run.id, run.detail) for view, run in found.items()} == {
        "view0": (4, {"n": 3}),
        views[-1]: (5, {"n": 4}),
    }
    assert len(readings) == 6
    assert registry.last_runs([]) == registry.last_runs_of(()) == {}


# --- damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE versions SET digest = 'other'", "version 1 is damaged, its digest is not other"),
        ("UPDATE versions SET note = 'other'", "version 1 is damaged, it is not what was written"),
        ("DELETE FROM versions", "a version after 0 is gone"),
        ("UPDATE runs SET rows = 7", "run 1 is not what was written"),
    ],
)
def test_what_was_changed_by_other_means_is_found(registry, change, says):
    """Rows carry checksums; it is never taken for what was written."""
    registry.commit(state(services={"s": "f"}), expected=0)
    registry.record_run(RunRecord("v", "f", 1, 2, 3, 4, 5, "complete"))
    unbound = words(
        registry.place, "PRAGMA foreign_keys = OFF", "ALTER TABLE services DROP CONSTRAINT services_version_fkey"
    )
    by_hand(registry.place, unbound, change)
    with pytest.raises(RegistryError, match=says):
        registry.current(), registry.runs()


def test_a_newer_version_s_tables_are_neither_read_nor_written(registry):
    """An older program would misunderstand them."""
    registry.commit(state(), expected=0)
    by_hand(registry.place, words(registry.place, "PRAGMA user_version = 99", "UPDATE formats SET schema = 99"))
    for use in (registry.current, lambda: registry.commit(state(), expected=1)):
        with pytest.raises(
            RegistryError,
            match=rf"newer version of featurestore \(schema 99; this one reads {SCHEMA}\); upgrade it here",
        ):
            use()


# --- several processes and threads --------------------------------------------------------------------


def _apply(registry: Registry, who: str, times: int) -> int:
    """Apply `times` definitions, each on top of whatever is current; the number of refusals on the way."""
    refused = 0
    for number in range(times):
        while True:
            current = registry.current()
            document = copy.deepcopy(current.document)
            document["entities"][f"{who}_{number}"] = {"fingerprint": "x" * 2000}
            try:
                registry.commit(document, expected=current.number, note=who)
                break
            except PlanOutdatedError:
                refused += 1
    return refused


def _race(place, who, times, barrier, results):
    barrier.wait()
    results.put((who, _apply(Registry(place), who, times)))


def _applied_in_turn(registry: Registry, workers: list[str], times: int) -> None:
    """Every version adds exactly one definition to the one before it, and every definition is there."""
    history = registry.history()[::-1]
    assert [version.number for version in history] == list(range(1, len(workers) * times + 1))
    before = empty_document()
    for version in history:
        added = version.document["entities"].keys() - before["entities"].keys()
        assert before["entities"].keys() < version.document["entities"].keys()
        assert [name.split("_")[0] for name in added] == [version.note]
        before = version.document
    assert before["entities"].keys() == {f"{who}_{number}" for who in workers for number in range(times)}


def test_processes_that_apply_at_once_lose_and_corrupt_nothing(place):
    """Four processes race from a registry that does not exist yet; every apply is refused or kept whole."""
    workers, times = ["a", "b", "c", "d"], 15
    barrier, results = FORKS.Barrier(len(workers)), FORKS.Queue()
    processes = [FORKS.Process(target=_race, args=(place, who, times, barrier, results)) for who in workers]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=600)
    assert [process.exitcode for process in processes] == [0] * len(workers)
    assert {results.get(timeout=600)[0] for _ in workers} == set(workers)
    _applied_in_turn(Registry(place), workers, times)
    if isinstance(place, Path):
        with closing(sqlite3.connect(place)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_threads_may_share_a_registry(registry):
    """As processes do."""
    workers = ["a", "b", "c"]
    threads = [threading.Thread(target=_apply, args=(registry, who, 10)) for who in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _applied_in_turn(registry, workers, 10)


def _die(place):
    Registry(place, now=lambda: os._exit(9)).commit(state(views={"v": "f2"}), expected=1)


def test_a_process_that_dies_while_it_applies_changes_nothing(place):
    """The clock is read within the transaction; a process that dies there leaves the version before it, and no lock."""
    registry = Registry(place, timeout=600)
    registry.commit(state(views={"v": "f1"}), expected=0)
    process = FORKS.Process(target=_die, args=(place,))
    process.start()
    process.join(timeout=600)
    assert process.exitcode == 9
    assert registry.current().document["views"] == {"v": {"fingerprint": "f1"}}
    assert registry.leftovers() == ()
    assert registry.commit(state(), expected=1) == 2


def test_the_state_tells_of_every_version_and_of_what_is_left(registry: Registry) -> None:
    """Generation and leftovers as each is told alone, before anything was applied too."""
    assert registry.state() == (0, (), ())
    registry.commit(state(views={"v": "f1", "w": "f"}), expected=0)
    registry.commit(state(views={"v": "f2"}), expected=1)
    assert registry.state() == (registry.generation(), registry.leftovers(), ()) == (2, (("v", "f1"), ("w", "f")), ())
    registry.freed("v", "f1")
    assert registry.state() == (2, (("w", "f"),), ())


# --- versions of the tables ---------------------------------------------------------------------------


def test_what_a_server_notes_leaves_the_tables_for_those_that_have_yet_to_be_restarted(registry, monkeypatch):
    """When a key was used and who pushed is written by servers all the time; the first of a new version would shut out the others."""
    made = create_key(registry, "web", ["read"])
    with monkeypatch.context() as newer:
        newer.setattr(store, "SCHEMA", SCHEMA + 1)
        newer.setitem(store.UPGRADES, SCHEMA, ("CREATE TABLE more (name TEXT)",))
        newer.setitem(store.READ_AS, SCHEMA, ("CREATE TEMP TABLE more (name TEXT)",))
        server = Registry(registry.place)
        server.note_used({made.key.id: 5})
        server.add_activity([Activity("push", "s")])
        assert [one.what for one in registry.activity()] == ["push", "create key"]
        assert registry.api_keys()[0].used_at == 5
        server.commit(state(), expected=0)
        server.close()
    with pytest.raises(RegistryError, match="newer version of featurestore"):
        registry.current()


@pytest.mark.parametrize(
    "path", [*Path(store.__file__).parent.glob("*.py"), Path(arrivals.__file__)], ids=lambda path: path.name
)
def test_sql_is_in_words_that_every_place_understands(path):
    """What only SQLite has is in the module of its files."""
    assert re.findall(r"(?i)INSERT OR|sqlite3|sqlite_\w+|PRAGMA|\browid\b(?<!WITHOUT ROWID)", path.read_text()) == []

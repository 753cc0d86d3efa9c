"""Sorted copies: with them and without, the same values; used only where they are the same rows; whatever happens to them."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import featurestore.sources.sorted.sorted_copies as sorted_copies
from featurestore import (
    ARRIVAL,
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    LastN,
    Latest,
    ManualClock,
    Mean,
    ParquetSource,
    Sum,
)
from featurestore.cli import app
from featurestore.errors import FeatureStoreError, NotFoundError, SourceError
from featurestore.semantics.columns import RawColumns
from featurestore.sources.sorted.sorted_copies import SortedCopies, SortedKey
from featurestore.types import Int64, String
from tests.small import NOON, TIME, hours, view_of

KEYS = 40
PAIR = Entity("pair", key={"thing": Int64, "name": String})


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows lie in many files, of several row groups."""
    monkeypatch.setattr(sorted_copies, "BUCKET_ROWS", 20)
    monkeypatch.setattr(sorted_copies, "GROUP_ROWS", 7)
    monkeypatch.setattr(sorted_copies, "READ_ROWS", 33)


def rows(seed: int, count: int = 400) -> pa.Table:
    """Rows with every kind of value, null keys and times, versions and ties."""
    drawn = random.Random(seed)
    at = [None if drawn.random() < 0.02 else hours(-drawn.randrange(2_880) / 60) for _ in range(count)]
    known = [None if moment is None else moment + timedelta(minutes=drawn.choice([0, 1, 90, 3_000])) for moment in at]
    floats = [drawn.choice([None, 0.0, -0.0, float("nan"), float("inf"), 1e300, 0.1, 3.5]) for _ in range(count)]
    return pa.table({
        "thing": [None if drawn.random() < 0.02 else drawn.randrange(KEYS) for _ in range(count)],
        "name": [drawn.choice(["a", "b", "ü", None]) for _ in range(count)],
        "id": [drawn.randrange(count) for _ in range(count)],
        "at": pa.array(at, TIME), "known": pa.array(known, TIME), "x": floats,
        "n": pa.array([drawn.choice([None, -(2**31), 5]) for _ in range(count)], pa.int32()),
        "list": pa.array([drawn.choice([None, [], [0.0, None, -0.0]]) for _ in range(count)], pa.list_(pa.float64())),
        "gone": [drawn.random() < 0.1 for _ in range(count)],
    })  # fmt: skip


VIEWS: dict[str, dict[str, Any]] = {
    "plain": {"features": ["x", "n", "list", "name"], "known_at": "known", "ttl": "1d"},
    "folded": {
        "features": {"n": Count(window="1d"), "mean": Mean("x", window="30h"), "last": LastN("x", n=3, window="2d")},
        "known_at": "known",
    },
    "pair": {"features": ["x", "n"], "known_at": "known", "entity": PAIR},
    "versions": {
        "features": ["x", "n"], "known_at": "known", "identity": ["thing", "id"], "deleted": "gone",
    },
    "moving": {"features": {"x": Latest("x"), "sum": Sum("n", window="1d")}, "known_at": "known", "identity": ["id"]},
}  # fmt: skip


def project_of(root: Path, **views: dict[str, Any]) -> Path:
    """A project of some views over the folder `rows`, applied."""
    (root / "featurestore.toml").write_text('project = "sorted"\ndefinitions = []\n')
    (root / "rows").mkdir()
    for number in range(3):
        pq.write_table(rows(number), root / "rows" / f"{number}.parquet")
    with opened(root) as store:
        made = [view_of("rows", name=name, refresh="1h", **words) for name, words in views.items()]
        store.apply([FeatureService("service", features=made)])
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return project_of(tmp_path, **VIEWS)


def opened(root: Path) -> FeatureStore:
    return FeatureStore(root, clock=ManualClock(NOON))


def spine(keys: list[int]) -> pa.Table:
    """These keys, null and unknown ones beside them, at several instants."""
    asked = [
        (key, name, hours(-back)) for key in [*keys, None, KEYS + 7] for name in ("a", "ü", None) for back in (0, 5, 31)
    ]
    things, names, at = zip(*asked, strict=True)
    return pa.table({"thing": pa.array(things, pa.int64()), "name": names, "event_timestamp": pa.array(at, TIME)})


def frame(store: FeatureStore, keys: list[int]) -> tuple[pa.Table, Any]:
    made = store.get_historical_features(spine(keys), "service", with_status=True, with_event_time=True)
    return made.to_arrow().replace_schema_metadata(None), made.manifest["conflicts"]


def bits(table: pa.Table) -> list[Any]:
    """What tells NaN, -0.0 and nulls apart."""
    return [repr(column.to_pylist()) for column in table.columns]


def read_paths(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The copies' files that are chosen from now on."""
    chosen: list[str] = []
    choose = sorted_copies.SortedCopies.chosen

    def noted(*args: Any) -> Any:
        found = choose(*args)
        chosen.extend(() if found is None else found.paths)
        return found

    monkeypatch.setattr(sorted_copies.SortedCopies, "chosen", noted)
    return chosen


@pytest.mark.parametrize("keys", [[], [3], [3, 17], list(range(5)), list(range(KEYS))])
def test_values_are_the_same(project: Path, keys: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few keys and of all, with statuses, times and conflicts, to the bit; for few, little is read."""
    chosen = read_paths(monkeypatch)
    with opened(project) as store:
        before, conflicts = frame(store, keys)
        assert not chosen
        told = {(one.source, one.why is None) for one in store.optimize()}
        assert told == {
            ("plain_rows", True),
            ("folded_rows", True),
            ("pair_rows", True),
            ("versions_rows", True),
            ("moving_rows", False),
        }
        after, conflicts_after = frame(store, keys)
        assert bits(after) == bits(before)
        assert conflicts_after == conflicts
        held = len(list((project / ".featurestore" / "copies").rglob("sorted/*/*/*/*.parquet")))
        assert bool(chosen) == (len(keys) < KEYS)
        assert len(set(chosen)) < held / 2


def rewrite(root: Path) -> None:
    pq.write_table(rows(8), root / "rows" / "1.parquet")


def remove(root: Path) -> None:
    (root / "rows" / "2.parquet").unlink()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("change", [None, rewrite, remove])
def test_files_that_come_change_and_go(
    tmp_path: Path, change: Callable[[Path], None] | None, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of the files since, and whether it was run again: values are those of the files."""
    root, chosen = project_of(tmp_path, plain=VIEWS["plain"], versions=VIEWS["versions"]), read_paths(monkeypatch)
    with opened(root) as store:
        store.optimize()
        pq.write_table(rows(9), root / "rows" / "9.parquet")
        if again:
            store.optimize()
        if change is not None:
            change(root)
        asked = [[key] for key in range(0, KEYS, 5)]
        after = [bits(frame(store, keys)[0]) for keys in asked]
        assert bool(chosen) == (change is None or again)  # the part of the first files is of none any more
        store.optimize(remove=True)
        assert [bits(frame(store, keys)[0]) for keys in asked] == after


def test_it_is_kept_up(tmp_path: Path) -> None:
    """A run copies what has come, and small parts with it; the next one nothing. What is of files that are gone goes."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    with opened(root) as store:
        assert [(one.files, one.copied, one.made) for one in store.optimize()] == [(3, 3, 3)]
        assert [one.made for one in store.optimize()] == [0]
        pq.write_table(rows(4, 30), root / "rows" / "4.parquet")
        assert [(one.files, one.copied) for one in store.sorted_copies()] == [(4, 3)]
        assert [(one.copied, one.made, one.rows) for one in store.optimize()] == [(4, 1, 1_230)]
        pq.write_table(rows(5, 30), root / "rows" / "5.parquet")
        assert [(one.copied, one.made, one.rows) for one in store.optimize()] == [(5, 2, 1_260)]
        (root / "rows" / "0.parquet").unlink()
        assert [(one.files, one.copied) for one in store.sorted_copies()] == [(4, 2)]
        assert [(one.copied, one.made, one.rows) for one in store.optimize()] == [(4, 4, 860)]
        (gone,) = store.optimize(["plain_rows"], remove=True)
        assert gone.removed > 0
        assert store.sorted_copies() == []
        with pytest.raises(NotFoundError, match="No view reads a source 'plain_row'. Did you mean 'plain_rows'"):
            store.optimize(["plain_row"])


def damage_bits(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [damage_bits, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("which", ["*.parquet", "part.json"])
def test_damage_is_not_read(tmp_path: Path, harm: Callable[[Path], object], which: str) -> None:
    """A copy that is not what was written is not used, and the next run makes it anew."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    with opened(root) as store:
        expected = [bits(frame(store, [key])[0]) for key in range(8)]
        store.optimize()
        for path in (root / ".featurestore" / "copies" / "sorted").rglob(which):
            harm(path)
    with opened(root) as store:
        assert [bits(frame(store, [key])[0]) for key in range(8)] == expected
        assert [one.copied for one in store.sorted_copies()] == [0]
        assert [(one.copied, one.made) for one in store.optimize()] == [(3, 3)]
        assert [bits(frame(store, [key])[0]) for key in range(8)] == expected


VICTIM = """
import os, signal, sys
import featurestore.durable.part_folder as p
from featurestore import FeatureStore
name, number = sys.argv[2], int(sys.argv[3])
called, calls = getattr(p, name), []
def dying(*args, **words):
    calls.append(args)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return called(*args, **words)
setattr(p, name, dying)
with FeatureStore(sys.argv[1]) as store:
    store.optimize()
"""


@pytest.mark.parametrize(("name", "number"), [("checks_of", 1), ("replace", 1), ("_read", 1)])
def test_a_killed_run_leaves_nothing_that_is_read(tmp_path: Path, name: str, number: int) -> None:
    """kill -9 before the checksums, before the words, and after: values stay, and the next run completes it."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    with opened(root) as store:
        expected = bits(frame(store, [1, 2])[0])
    ended = subprocess.run(
        [sys.executable, "-c", VICTIM, str(root), name, str(number)], check=False, capture_output=True
    )
    assert ended.returncode == -signal.SIGKILL, ended
    with opened(root) as store:
        assert bits(frame(store, [1, 2])[0]) == expected
        assert [one.copied for one in store.optimize()] == [3]
        assert bits(frame(store, [1, 2])[0]) == expected
    assert not [path for path in (root / ".featurestore" / "copies" / "sorted").rglob(".*") if path.is_dir()]


def test_a_full_disk_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    """The copies that are there go on being read, and nothing half is left."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    with opened(root) as store:
        store.optimize()
        before = sorted((root / ".featurestore" / "copies").rglob("*.parquet"))
        pq.write_table(rows(7, 5_000), root / "rows" / "7.parquet")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500, limits[1]))
        try:
            with pytest.raises(SourceError, match="no sorted copy can be made: .*(disk full|File too large).*copies"):
                store.optimize()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handled)
        assert sorted((root / ".featurestore" / "copies").rglob("*.parquet")) == before
        assert [one.copied for one in store.sorted_copies()] == [3]


def test_a_file_that_changes_meanwhile_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of two states of a file is no copy of either."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    check = sorted_copies.SortedCopies._check

    def changing(*args: Any) -> None:
        os.utime(root / "rows" / "0.parquet", ns=(7, 7))
        check(*args)

    monkeypatch.setattr(sorted_copies.SortedCopies, "_check", changing)
    with opened(root) as store:
        with pytest.raises(FeatureStoreError, match=r"0.parquet was written anew"):
            store.optimize()
        assert [one.copied for one in store.sorted_copies()] == [0]


def test_a_source_that_is_gone_keeps_nobody_from_the_rest(tmp_path: Path) -> None:
    """status tells of the others, and why not of this one."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    with opened(root) as store:
        store.optimize()
        shutil.rmtree(root / "rows")
        (one,) = store.sorted_copies()
        assert "there is no" in str(one) or "no Parquet file" in str(one)


@pytest.mark.parametrize("gone", ["sorted", "sorted/*", "sorted/*/*"])
def test_copies_that_cannot_be_listed_are_none(tmp_path: Path, gone: str) -> None:
    """Where something else lies in place of a folder, as where another user's cannot be entered, files are read."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    with opened(root) as store:
        expected = bits(frame(store, [1])[0])
        store.optimize()
        (place,) = (root / ".featurestore" / "copies").glob(gone)
        shutil.rmtree(place)
        place.touch(mode=0o700)
        assert bits(frame(store, [1])[0]) == expected


@pytest.mark.parametrize("part", [False, True])
def test_copies_that_are_removed_while_they_are_read(
    tmp_path: Path, part: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be removed at any time: also by another process, between the choice of a copy and its reading."""
    root = project_of(tmp_path, plain=VIEWS["plain"], folded=VIEWS["folded"])
    choose, removed, one_at_a_time = sorted_copies.SortedCopies.chosen, [], threading.Lock()

    def removing(*args: Any) -> Any:
        found = choose(*args)
        if found is not None:
            folder = root / ".featurestore" / "copies" / "sorted"
            with one_at_a_time:  # each view chooses in a thread of its own, and one removal may take another's folder
                removed.append(found.paths)
                shutil.rmtree(Path(found.paths[0]).parent if part else folder, ignore_errors=True)
                assert not Path(found.paths[0]).exists()
        return found

    with opened(root) as store:
        expected = bits(frame(store, [1, 2])[0])
        store.optimize()
        monkeypatch.setattr(sorted_copies.SortedCopies, "chosen", removing)
        assert bits(frame(store, [1, 2])[0]) == expected
        assert removed


def test_copies_that_cannot_be_removed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told that erased rows are gone where they are not; what another process has removed is no error."""
    root, remove_tree = project_of(tmp_path, plain=VIEWS["plain"]), shutil.rmtree

    def refusing(path: Path, *args: Any, **words: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    def overtaken(path: Path, *args: Any, **words: Any) -> None:
        remove_tree(path)
        raise FileNotFoundError(path)

    with opened(root) as store:
        store.optimize()
        monkeypatch.setattr(shutil, "rmtree", refusing)
        with pytest.raises(SourceError, match=r"its sorted copies are not removed: read-only file system \(.*sorted"):
            store.optimize(remove=True)
        assert [one.copied for one in store.sorted_copies()] == [3]
        monkeypatch.setattr(shutil, "rmtree", overtaken)
        assert [one.removed > 0 for one in store.optimize(remove=True)] == [True]
        monkeypatch.undo()
        assert store.sorted_copies() == []


def sharing(root: Path, copies: Path, **views: dict[str, Any]) -> Path:
    """A project of some views over a folder of its own, whose copies lie where others keep theirs."""
    root.mkdir()
    project_of(root, **views)
    (root / "featurestore.toml").write_text(f'project = "sorted"\ndefinitions = []\n[offline]\ncopies = "{copies}"\n')
    return root


@pytest.mark.parametrize(
    "other",
    [
        VIEWS["plain"],  # of other files
        {**VIEWS["plain"], "entity": PAIR},
    ],
)
def test_environments_share_a_folder_of_copies(
    tmp_path: Path, other: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one environment copies another one leaves there, whatever files and keys it has itself; what nobody uses goes."""
    one = sharing(tmp_path / "one", tmp_path / "copies", plain=VIEWS["plain"])
    two = sharing(tmp_path / "two", tmp_path / "copies", plain=other)
    chosen = read_paths(monkeypatch)
    for _ in range(2):
        for root in (one, two):
            with opened(root) as store:
                store.optimize()
                assert [(one.made, one.copied) for one in store.optimize()] == [(0, 3)]
    for root in (one, two):
        with opened(root) as store:
            assert [one.copied for one in store.sorted_copies()] == [3]
            frame(store, [1, 2])
            assert chosen
            chosen.clear()
    age(tmp_path / "copies", days=6)
    with opened(one) as store:  # which uses its own
        store.optimize()
    with opened(two) as store:
        assert [one.copied for one in store.sorted_copies()] == [3]
    age(tmp_path / "copies", days=8)
    with opened(one) as store:
        store.optimize()
        assert [one.copied for one in store.sorted_copies()] == [3]
    with opened(two) as store:
        assert [one.copied for one in store.sorted_copies()] == [0]


def age(copies: Path, *, days: int) -> None:
    """All parts were last used so long ago."""
    for part in copies.rglob("part.json"):
        then = time.time() - days * 86_400
        os.utime(part, (then, then))


def test_a_reading_is_a_use(tmp_path: Path) -> None:
    """Whoever reads a copy keeps others from removing it."""
    one = sharing(tmp_path / "one", tmp_path / "copies", plain=VIEWS["plain"])
    two = sharing(tmp_path / "two", tmp_path / "copies", plain=VIEWS["plain"])
    for root in (one, two):
        with opened(root) as store:
            store.optimize()
    age(tmp_path / "copies", days=8)
    with opened(two) as store:
        frame(store, [1])
    with opened(one) as store:
        store.optimize()
    with opened(two) as store:
        assert [one.copied for one in store.sorted_copies()] == [3]


@pytest.mark.parametrize("change", [rewrite, remove])
def test_rows_that_were_erased_are_in_no_copy(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Once a file was written anew, or is gone, whoever runs it removes the copies of what it held: by other keys too, which no view
    reads any more, and those of other environments."""
    copies = tmp_path / "copies"
    one = sharing(tmp_path / "one", copies, plain={**VIEWS["plain"], "entity": PAIR})
    two = sharing(tmp_path / "two", copies, plain=VIEWS["plain"])
    for root in (one, two):
        with opened(root) as store:
            store.optimize()
    with opened(one) as store:
        made = view_of("rows", name="plain", refresh="1h", **VIEWS["plain"])
        store.apply([FeatureService("service", features=[made])])
        before = set(copies.rglob("part.json"))
        store.optimize()
        assert before < set(copies.rglob("part.json"))
    for root in (one, two):
        change(root)
    with opened(one) as store:
        store.optimize()
    assert not before & set(copies.rglob("part.json"))


def test_a_part_is_kept_for_those_that_began_before(tmp_path: Path) -> None:
    """One whose rows a larger part has goes a day after it was last used, and not with the next run."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    copies = root / ".featurestore" / "copies"
    with opened(root) as store:
        store.optimize()
        (first,) = copies.rglob("part.json")
        age(copies, days=2)
        store.optimize()  # a use
        pq.write_table(rows(4, 900), root / "rows" / "4.parquet")
        store.optimize()
        store.optimize()
        assert len({first, *copies.rglob("part.json")}) == 2
        assert first.exists()
        age(copies, days=2)
        store.optimize()
        assert not first.exists()


def test_a_time_that_is_derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy has the files' columns, so its rows are sorted by key alone."""
    derived = {"seen": '"at" - INTERVAL 1 HOUR'}
    root = project_of(tmp_path, plain={**VIEWS["plain"], "event_time": "seen", "derived": derived})
    chosen = read_paths(monkeypatch)
    with opened(root) as store:
        before = bits(frame(store, [1, 2])[0])
        assert [(one.copied, one.why) for one in store.optimize()] == [(3, None)]
        assert bits(frame(store, [1, 2])[0]) == before
        assert chosen


def test_what_cannot_be_sorted_is_told(tmp_path: Path) -> None:
    """Rows that count from when their file came are not copied, and why not is said."""
    root = project_of(tmp_path, plain={"features": ["x"], "known_at": ARRIVAL})
    with opened(root) as store:
        (one,) = store.optimize()
        assert (one.copied, one.why) == (0, "since its rows count from when their file came")
        assert store.sorted_copies() == []


def test_on_the_command_line(tmp_path: Path) -> None:
    """optimize, status and --remove."""
    root = project_of(tmp_path, plain=VIEWS["plain"])
    runner = CliRunner()
    said = runner.invoke(app, ["optimize", "--repo", str(root)])
    assert (
        said.exit_code,
        "source 'plain_rows' by thing: a sorted copy of 3 of 3 files, 1,200 rows" in said.output,
    ) == (0, True)
    shutil.copy(root / "rows" / "0.parquet", root / "rows" / "5.parquet")
    said = runner.invoke(app, ["status", "--repo", str(root)])
    assert "a sorted copy of 3 of 4 files" in said.output
    assert "1 is read as they lie" in said.output
    said = runner.invoke(app, ["optimize", "--repo", str(root), "--remove"])
    assert "its sorted copies are removed" in said.output
    assert "There are no sorted copies." in runner.invoke(app, ["optimize", "--repo", str(root), "--remove"]).output


@pytest.mark.parametrize(("of", "copied"), [("DECIMAL(38,2)", "-0.01"), ("DECIMAL(38,2)[]", "[-0.01]")])
def test_a_copy_with_another_wide_decimal_is_not_kept(tmp_path: Path, of: str, copied: str) -> None:
    """Of 128 bits the engine's hash is that of both halves in either order: of 0.00 it is that of -0.01."""
    rows, path = copied.replace("-0.01", "0.00"), tmp_path / "copy.parquet"
    connection = duckdb.connect()
    connection.execute(f"COPY (SELECT CAST({copied} AS {of}) AS price) TO '{path}' (FORMAT parquet)")
    connection.execute(f"CREATE TABLE same AS FROM '{path}'")
    connection.execute(f"CREATE TABLE other AS SELECT CAST({rows} AS {of}) AS price")
    source = ParquetSource("rows", "rows.parquet", event_time="at")
    copies = SortedCopies(tmp_path, source, SortedKey(("user",), ('"user"',)), RawColumns({"price": of}))
    copies._check(connection, "same", [path])
    with pytest.raises(SourceError, match="its sorted copy has not the same rows"):
        copies._check(connection, "other", [path])

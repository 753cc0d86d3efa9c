"""Frames in parts: the same rows as the whole frame, whatever was killed meanwhile, or an error that says what has changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore import Count, FeatureService, FeatureStore, FeatureStoreError, ManualClock, Mean
from featurestore.cli import app
from featurestore.errors import FilesChangedError
from tests.small import NOON, TIME, hours, view_of

KEYS, ROWS, SPINE_ROWS = 50, 2_000, 330

PROGRAM = """
import os, signal, sys
from datetime import datetime
from featurestore import FeatureStore
from featurestore.training.training_frame import TrainingFrame
root, number, when, at = sys.argv[1:]
write, parts = TrainingFrame.{hooked}, []
def hook(self, *given):
    parts.append(given)
    if len(parts) == int(number) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, *given)
    if len(parts) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
TrainingFrame.{hooked} = hook
with FeatureStore(root, clock=lambda: datetime.fromisoformat(at)) as store:
    {call}
    print(len(parts))
"""

HISTORICAL = "store.historical_parts(root + '/set', root + '/spine', 'service', part_rows=100)"


def rows(shift: int = 0) -> pa.Table:
    """Rows of every key, over the two days before noon."""
    at = [hours(-((number * 37 + shift) % 2_880) / 60) for number in range(ROWS)]
    values = [None if number % 17 == 0 else number / 3 for number in range(ROWS)]
    return pa.table({"thing": [number % KEYS for number in range(ROWS)], "at": pa.array(at, TIME), "x": values})


def spine(first: int, count: int) -> pa.Table:
    numbers = range(first, first + count)
    at = pa.array([hours(-(number % 40)) for number in numbers], TIME)
    keys = [None if number % 31 == 0 else number % (KEYS + 5) for number in numbers]
    return pa.table({"label": list(numbers), "thing": keys, "event_timestamp": at})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A store of two views over a folder of files, applied, and a spine of three files."""
    (tmp_path / "featurestore.toml").write_text('project = "parts"\ndefinitions = []\n')
    (tmp_path / "rows").mkdir()
    pq.write_table(rows(), tmp_path / "rows" / "a.parquet")
    (tmp_path / "spine").mkdir()
    for number, (first, count) in enumerate([(0, 130), (130, 0), (130, 200)]):
        pq.write_table(spine(first, count), tmp_path / "spine" / f"{number}.parquet", row_group_size=40)
    plain = view_of("rows", ["x"], name="plain", refresh="1h", ttl="1d")
    folded = view_of(
        "rows", {"n": Count(window="1d"), "mean": Mean("x", window="6h")}, name="folded", refresh="1h", settle="5m"
    )
    with opened(tmp_path) as store:
        store.apply([FeatureService("service", features=[plain, folded])])
    return tmp_path


def opened(project: Path) -> FeatureStore:
    return FeatureStore(project, clock=ManualClock(NOON))


def read(folder: Path) -> pa.Table:
    """The rows of all parts, in the order of their names, as any reader of folders takes them."""
    return pq.read_table(folder).replace_schema_metadata(None)


def whole(project: Path, store: FeatureStore) -> tuple[pa.Table, dict[str, object]]:
    frame = store.get_historical_features(project / "spine", "service")
    return frame.to_arrow().replace_schema_metadata(None), frame.manifest


COUNTED = (
    "rows",
    "conflicts",
    "invalid_rows",
    "spine_rows_past_the_last_complete_instant",
    "columns",
    "views",
    "sources",
)


@pytest.mark.parametrize("part_rows", [33, 100, 330, 1_000])
def test_parts_are_the_whole(project: Path, part_rows: int) -> None:
    """A frame in parts has the rows of the whole one, in its order, and its manifest counts the same."""
    with opened(project) as store:
        written = store.historical_parts(project / "set", project / "spine", "service", part_rows=part_rows)
        table, manifest = whole(project, store)
        assert read(project / "set").equals(table)
        assert {name: written.manifest[name] for name in COUNTED} == {name: manifest[name] for name in COUNTED}
        assert len(written.manifest["parts"]) == written.made == -(-SPINE_ROWS // part_rows)
        assert store.load_manifest(project / "set").fingerprint == manifest["fingerprint"]
        again = store.historical_parts(project / "set", project / "spine", "service", part_rows=part_rows)
        assert (again.made, again.manifest) == (0, written.manifest)


@pytest.mark.parametrize(("part_rows", "parts"), [(7, 24), (50, 3), (60, 3), (100, 2), (1_000, 1)])
def test_parts_of_a_snapshot(project: Path, part_rows: int, parts: int) -> None:
    """Of a snapshot: ranges of keys where they are many, several instants where they are few."""
    at = [NOON - timedelta(hours=number) for number in (30, 3, 0)]
    with opened(project) as store:
        written = store.snapshot_parts(project / "set", "service", at=at, part_rows=part_rows)
        frame = store.snapshot("service", at=at)
        assert read(project / "set").equals(frame.to_arrow().replace_schema_metadata(None))
        assert {name: written.manifest[name] for name in COUNTED} == {name: frame.manifest[name] for name in COUNTED}
        assert len(written.manifest["parts"]) == parts


def run(project: Path, hooked: str, number: int, when: str, call: str = HISTORICAL) -> subprocess.Popen[str]:
    text = PROGRAM.format(hooked=hooked, call=call)
    arguments = [sys.executable, "-c", text, str(project), str(number), when, NOON.isoformat()]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("hooked", "when"), [("to_part", "before"), ("_write", "after"), ("to_part", "after")])
def test_a_killed_run_is_gone_on_with(project: Path, hooked: str, when: str) -> None:
    """kill -9 before the third part, while it is written, and after: the next run leaves what is whole, and makes the rest."""
    victim = run(project, hooked, 3, when)
    said = victim.communicate()
    assert victim.returncode == -signal.SIGKILL, said
    before = {path: path.stat().st_ino for path in (project / "set").glob("part-*.parquet")}
    assert len(before) == (3 if (hooked, when) == ("to_part", "after") else 2)
    assert not (project / "set.manifest.json").exists()
    with opened(project) as store:
        written = store.historical_parts(project / "set", project / "spine", "service", part_rows=100)
        assert written.made == 4 - len(before)
        assert {path: path.stat().st_ino for path in before} == before
        assert read(project / "set").equals(whole(project, store)[0])
    assert not [path for path in (project / "set").iterdir() if path.name.endswith(".partial")]


def test_several_processes_share_the_work(project: Path) -> None:
    """Of two that write at once each part is made by one; both return when all are there."""
    both = [run(project, "to_part", 1_000, "after") for _ in range(2)]
    said = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert sum(int(out) for out, _ in said) == 4
    with opened(project) as store:
        assert read(project / "set").equals(whole(project, store)[0])


def test_what_has_changed_is_refused(project: Path) -> None:
    """Other definitions, options, spines or files are no continuation, and nothing that is there is touched."""
    folder = project / "set"
    with opened(project) as store:
        store.historical_parts(folder, project / "spine", "service", part_rows=100)
        next(folder.glob("part-000001-*")).unlink()
        before = sorted(folder.iterdir())
        with pytest.raises(FeatureStoreError, match=r"another frame: its rows a part were 100, and are 50"):
            store.historical_parts(folder, project / "spine", "service", part_rows=50)
        with pytest.raises(
            FeatureStoreError, match=r"another frame: its options with_status False, and are with_status True|options"
        ):
            store.historical_parts(folder, project / "spine", "service", part_rows=100, with_status=True)
        with pytest.raises(FeatureStoreError, match=r"another frame: its service, fingerprint were"):
            store.historical_parts(folder, project / "spine", ["plain"], part_rows=100)
        with pytest.raises(FeatureStoreError, match="another frame: its"):
            store.snapshot_parts(folder, "service", at=NOON)
        (project / "other").mkdir()
        (project / "other" / "one").touch()
        with pytest.raises(FeatureStoreError, match="holds one, and no plan"):
            store.historical_parts(project / "other", project / "spine", "service")
        assert sorted(folder.iterdir()) == before
        pq.write_table(rows(shift=5), project / "rows" / "b.parquet")  # it came, and is not read
        store.historical_parts(folder, project / "spine", "service", part_rows=100)
        only = [
            file["path"] for file in json.loads((project / "set.manifest.json").read_text())["sources"]["plain_rows"]
        ]
        assert only == [str(project / "rows" / "a.parquet")]
        next(folder.glob("part-000001-*")).unlink()
        os.utime(project / "rows" / "a.parquet", ns=(1, 1))
        with pytest.raises(
            FilesChangedError, match=r"cannot be gone on with.*a.parquet was written anew.*another folder"
        ):
            store.historical_parts(folder, project / "spine", "service", part_rows=100)
        pq.write_table(spine(0, 131), project / "spine" / "0.parquet")
        with pytest.raises(FeatureStoreError, match="another frame: its spine's files"):
            store.historical_parts(folder, project / "spine", "service", part_rows=100)


def test_a_spine_is_the_same_by_whatever_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is started again in another folder goes on with what is there."""
    with opened(project) as store:
        monkeypatch.chdir(project)
        first = store.historical_parts("out", "spine", "service", part_rows=100)
        monkeypatch.chdir(project / "spine")
        again = store.historical_parts(project / "out", "../spine", "service", part_rows=100)
    assert (first.made, again.made) == (4, 0)


def test_damage_is_named(project: Path) -> None:
    """A part, the plan or the keys that are not what was written are errors that say which file it is."""
    with opened(project) as store:
        store.historical_parts(project / "set", project / "spine", "service", part_rows=100)
        part = next((project / "set").glob("part-000002-*"))
        part.write_bytes(part.read_bytes()[:-9])
        with pytest.raises(FeatureStoreError, match=f"{part.name} is damaged.*Remove it"):
            store.historical_parts(project / "set", project / "spine", "service", part_rows=100)
        part.unlink()
        assert store.historical_parts(project / "set", project / "spine", "service", part_rows=100).made == 1
        plan = project / "set" / "_plan.json"
        plan.write_bytes(plan.read_bytes().replace(b'"part_rows": 100', b'"part_rows": 101'))
        with pytest.raises(FeatureStoreError, match=r"_plan.json is damaged"):
            store.historical_parts(project / "set", project / "spine", "service", part_rows=100)
        store.snapshot_parts(project / "at", "service", at=NOON, part_rows=7)
        keys = project / "at" / "_keys.parquet"
        keys.write_bytes(keys.read_bytes()[::-1])
        with pytest.raises(FeatureStoreError, match=r"_keys.parquet is damaged"):
            store.snapshot_parts(project / "at", "service", at=NOON, part_rows=7)


def test_a_bad_row_is_named_by_its_number_in_the_spine(project: Path) -> None:
    """An error of a part says which row of the whole spine it is."""
    odd = spine(130, 200).set_column(
        2, "event_timestamp", pa.array([None if n == 120 else NOON for n in range(200)], TIME)
    )
    pq.write_table(odd, project / "spine" / "2.parquet")
    with opened(project) as store, pytest.raises(FeatureStoreError, match="Row 250 of the spine has no time"):
        store.historical_parts(project / "set", project / "spine", "service", part_rows=100)


def test_on_the_command_line(project: Path) -> None:
    """--part-rows of historical and snapshot."""
    runner = CliRunner()
    words = ["--repo", str(project), "historical", str(project / "spine"), "service", "--at", NOON.isoformat()]
    said = runner.invoke(app, [*words, "-o", str(project / "set"), "--part-rows", "100"])
    assert said.exit_code == 0, said.output
    assert "4 parts, of which 0 were there already" in said.output
    said = runner.invoke(app, [*words, "-o", str(project / "set"), "--part-rows", "100", "--json"])
    assert json.loads(said.stdout)["rows"] == SPINE_ROWS
    words = ["--repo", str(project), "snapshot", "service", "--at", NOON.isoformat(), "--part-rows", "20"]
    assert runner.invoke(app, words).exit_code == 2
    said = runner.invoke(app, [*words, "-o", str(project / "at")])
    assert said.exit_code == 0, said.output
    table = read(project / "at")
    assert pc.equal(table["thing"], pa.array(range(KEYS))).to_pylist() == [True] * KEYS

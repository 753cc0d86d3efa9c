"""Files that users name are written whole, or not at all: on a full disk what was there before stays, and nothing is beside it."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

import featurestore
from featurestore import FeatureStore
from featurestore.cli import app
from featurestore.durable.disk import replace, write_file
from featurestore.errors import FeatureStoreError
from tests.server.test_disk_full import no_room
from tests.small import NOON, table, view_of

ROOT = Path(featurestore.__file__).parent
OWN_FOLDERS = {
    "durable/disk.py": "it is how the others write",
    "backup/make.py": "a folder beside the backup, which is renamed when all is there",
    "integrations/kubeflow.py": "a place of the platform's, in a container that fails with the step",
    "integrations/mlflow.py": "a temporary folder",
    "migrate/comparison.py": "a temporary folder",
    "migrate/copied_code.py": "a temporary folder",
    "migrate/feast_python.py": "a temporary folder",
    "migrate/feast_reader/__main__.py": "a temporary folder",
    "migrate/import_feast.py": "a folder beside the repository, which is renamed when all is there",
    "migrate/move_functions.py": "a temporary folder",
    "reports/estimate/calibration.py": "a word to the kernel",
    "serving/log/copying.py": "a folder of the backup",
    "sources/log/copying.py": "a folder of the backup",
    "sources/log/segment_copies.py": "a temporary folder, for a copy that is made again where it is damaged",
}
"""Who writes files straight to their places, and why that is no half file of anybody's."""


def test_all_write_by_one_hand() -> None:
    """`write_file`, or what is below it."""
    found = set()
    for path in ROOT.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                if call.func.attr in {"write_text", "write_bytes"}:
                    found.add(str(path.relative_to(ROOT)))
    assert found <= OWN_FOLDERS.keys()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("write", [write_file, replace])
def test_on_a_full_disk_the_old_file_stays(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    place = tmp_path / "page.html"
    write(place, b"old")
    with no_room(), pytest.raises(OSError, match="File too large") as raised:
        write(place, b"new")
    assert (place.read_bytes(), names(tmp_path)) == (b"old", ["page.html"])
    if write is write_file:
        assert raised.value.filename == str(place)
    write(place, b"new")
    assert (place.read_bytes(), names(tmp_path)) == (b"new", ["page.html"])


def test_what_is_no_file_is_written_to(tmp_path: Path) -> None:
    """And what a link leads to; where there is no folder, that is said."""
    real = tmp_path / "real"
    real.write_text("old")
    (tmp_path / "link").symlink_to(real)
    write_file(tmp_path / "link", "new")
    assert ((tmp_path / "link").is_symlink(), real.read_text()) == (True, "new")
    write_file(Path(os.devnull), "gone")
    assert not Path(os.devnull).is_file()
    with pytest.raises(FileNotFoundError, match="there is no folder .*none"):
        write_file(tmp_path / "none" / "page.html", "new")


def test_a_frame_and_its_manifest_are_replaced_together(tmp_path: Path) -> None:
    """A manifest that cannot be written leaves the frame that was there, with its own."""
    with FeatureStore.local() as store:
        view = view_of(table(thing=[1], at=[NOON], x=[1.0]), ["x"])
        spine = pa.table({"thing": [1], "event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))})
        frame, place = store.get_historical_features(spine, [view]), tmp_path / "frame.parquet"
        frame.to_parquet(place)
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        in_the_way = tmp_path / "frame.parquet.manifest.json.partial"
        in_the_way.mkdir()
        with pytest.raises(FeatureStoreError, match="cannot be written: .*directory"):
            store.get_historical_features(pa.concat_tables([spine, spine]), [view]).to_parquet(place)
        in_the_way.rmdir()
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository that is applied, in which nothing has to be written any more to read it."""
    folder = tmp_path / "shop"
    for words in (["init", str(folder)], ["--repo", str(folder), "apply", "--yes"], ["--repo", str(folder), "show"]):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("words", ["init {new}", "--repo {repo} export-feast {new}", "--repo {repo} docs build {new}"])
def test_a_command_on_a_full_disk_says_so_and_leaves_no_half_file(repo: Path, tmp_path: Path, words: str) -> None:
    new = tmp_path / "new"
    with no_room():
        done = CliRunner().invoke(app, words.format(new=new, repo=repo).split())
    assert (done.exit_code, "disk full" in done.output) == (1, True), done.output
    assert names(new) == []

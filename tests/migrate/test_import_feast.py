"""The command import-feast, as far as it goes without Feast: what it finds, and what it refuses before it writes anything."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.errors import ConfigError
from featurestore.migrate.export_recipes import Export
from featurestore.migrate.feast_python import ask_feast, feast_folder, feast_python
from featurestore.migrate.feast_reader import UnreadableRepositoryError, versions
from featurestore.migrate.frame_differences import DifferingCell, FrameDifferences
from featurestore.migrate.import_feast import ImportOptions, import_feast
from featurestore.migrate.import_report import ImportReport
from featurestore.migrate.move_result import MeaningDifference, Refusal
from tests.cli.test_commands import run
from tests.migrate import feast_records


def test_a_folder_that_is_there_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    said = run(tmp_path, "import-feast", ".", "--out", "out", code=1).output
    assert "out exists already; import-feast writes a folder of its own" in said
    assert "There is no folder" in run(tmp_path, "import-feast", ".", "--out", "none/out", code=1).output


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([], "has no feature_store.yaml, nor has a folder below it"),
        (["a", "b/c"], "Several folders below"),
        ([".venv/x", "lib/site-packages/y"], "has no feature_store.yaml"),
    ],
)
def test_a_repository_is_the_one_folder_with_the_yaml(tmp_path: Path, found: list[str], says: str) -> None:
    for folder in found:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "feature_store.yaml").write_text("project: x\n")
    with pytest.raises(ConfigError, match=says):
        feast_folder(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        feast_folder(tmp_path / "nothing")
    (tmp_path / "one" / "repo").mkdir(parents=True)
    (tmp_path / "one" / "repo" / "feature_store.yaml").write_text("")
    assert feast_folder(tmp_path / "one") == tmp_path / "one" / "repo"
    (tmp_path / "feature_store.yaml").write_text("")
    assert feast_folder(tmp_path) == tmp_path


def test_feasts_python_is_the_one_that_is_said_or_that_its_command_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.symlink_to(sys.executable)
    assert feast_python(python) == python
    assert feast_python(tmp_path / "venv") == python
    with pytest.raises(ConfigError, match="--feast-python: there is no"):
        feast_python(tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="--feast-python PATH, such as"):
        feast_python(None)
    feast = tmp_path / "feast"
    feast.write_text(f"#!{python}\n")
    feast.chmod(feast.stat().st_mode | stat.S_IXUSR)
    assert feast_python(None) == python
    feast.write_text("#!/bin/sh\nexec elsewhere\n")
    shutil.copy(feast, python.with_name("feast"))
    monkeypatch.setenv("PATH", str(python.parent))
    assert feast_python(None) == python


def test_a_python_that_cannot_read_it_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    """Ours, in which there is no Feast."""
    (tmp_path / "feature_store.yaml").write_text("project: x\n")
    (tmp_path / "features.py").write_text("from feast import Entity\n\nx = Entity(name='x')\n")
    said = run(tmp_path, "import-feast", ".", "--out", "out", "--feast-python", sys.executable, code=1).output
    assert "cannot read" in said
    assert "Feast is not installed in it; name the Python in which it is: --feast-python" in " ".join(said.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["feature_store.yaml", "features.py"]
    with pytest.raises(ConfigError, match="cannot be started"):
        ask_feast(tmp_path / "features.py", {"repo": str(tmp_path), "root": str(tmp_path)})


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--refresh", "soon", "--refresh: Duration 'soon' cannot be read"), ("--cutover", "soon", "'soon' is no instant")],
)
def test_options_are_checked_first(tmp_path: Path, option: str, value: str, says: str) -> None:
    done = run(tmp_path, "import-feast", ".", "--out", "out", option, value, code=2 if option == "--cutover" else 1)
    assert says in " ".join(done.output.split())


def test_the_report_has_every_row_and_an_example_of_each_cause() -> None:
    """As text, as the README of what is written, and as JSON."""
    compared = FrameDifferences("stats", rows=2, cells=4)
    for at in ("t1", "t2"):
        compared.note(DifferingCell("stats:x", {"driver": 1}, at, None, 5, "tie"))
        compared.note(DifferingCell("stats:y", {"driver": 1}, at, "a|b", None, "unexplained"))
    found = ImportReport(
        "shop", "0.67.0", "files", "ours", {"views": 1}, {"views": 2},
        [MeaningDifference("stats", "refresh", "there", "a | b", "why"), MeaningDifference("files", "no data", "x", "x", "gone")], [Refusal("feature view", "odd", "reason", "instead")],
        [Export("rows", "BigQuery", "data/rows", "bq query\ncp")], ["h3"], [compared, FrameDifferences("odd", problem="none")], ["README.md"],
    )  # fmt: skip
    assert found.unexplained == 2
    assert found.without_rows == ["files", "rows"]
    text = found.markdown()
    assert "| stats | refresh | there | a \\| b | why |" in text
    assert "| feature view | odd | reason | instead |" in text
    assert "### rows: BigQuery, into `data/rows/`\n\n```text\nbq query\ncp\n```" in text
    assert "stand-ins took their place: h3." in text
    assert "0 of 4 values are equal; 2 differ for a known cause, 2 for none." in text
    assert "First the rows of files, rows: none are at hand." in text
    assert "| stats | 2 | 4 | 0 | tie 2, unexplained 2 |  |" in text
    assert text.count("| stats:x |") == text.count("| stats:y |") == 1
    assert "| stats:y | {'driver': 1} | t1 | 'a\\|b' | None | unexplained |" in text
    for shown in ("Refused: 1", "a | b", "bq query", "tie 2, unexplained 2"):
        assert shown in str(found.report().text())
    assert found.to_dict()["compared"][0]["examples"][0]["cause"] == "tie"
    nothing = replace(found, compared=None, refused=[], exports=[], differences=[])
    assert "First the rows" not in nothing.markdown()
    assert "No frames were compared" in nothing.markdown()
    assert "## Refused\n\nNothing." in nothing.markdown()


@pytest.mark.parametrize(
    ("registry", "says"),
    [
        (None, "It names no registry in feature_store.yaml"),
        ("data/registry.db", "Its registry 'data/registry.db' is not there: run feast apply, or name one that is"),
        ({"registry_type": "file", "path": "x.db"}, "Its registry 'x.db' is not there"),
        ("s3://bucket/registry.db", "Its registry 's3://bucket/registry.db' is no file. With Feast"),
        ({"registry_type": "sql", "path": "postgresql://me:secret@db"}, "Its registry 'postgresql://me:***@db' (sql) is no file."),
        ({"registry_type": "remote"}, "Its registry 'remote' (remote) is no file"),
    ],
)  # fmt: skip
def test_where_nothing_is_declared_the_registry_and_notebooks_that_declare_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: object, says: str
) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "feature_store.yaml").write_text("project: shop\n")
    cell = {"cell_type": "code", "source": ["stats = FeatureView(name='stats')\n"]}
    (tmp_path / "repo" / "declares.ipynb").write_text(json.dumps({"cells": [cell]}))
    settings = {} if registry is None else {"registry": registry}
    files = [{"path": "a.py", "error": "ValueError: no"}]
    monkeypatch.setattr(
        "featurestore.migrate.import_feast.ask_feast", lambda *_: feast_records.told(settings=settings, files=files)
    )
    with pytest.raises(ConfigError) as raised:
        import_feast(ImportOptions(tmp_path / "repo", tmp_path / "out", python=Path(sys.executable)))
    assert says in str(raised.value)
    assert "Files that do not load: a.py: ValueError: no" in str(raised.value)
    assert "Notebooks declare, and are not run: declares.ipynb; run them with Feast first" in str(raised.value)


@pytest.mark.parametrize(
    ("version", "says"),
    [("0.39.1", "0.39.1 is older than 0.40"), ("0.9", "0.9 is older"), ("0.40.0", ""), ("1.0.0rc1", "")],
)
def test_a_feast_that_is_too_old_is_refused_before_it_is_asked(
    monkeypatch: pytest.MonkeyPatch, version: str, says: str
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    if not says:
        assert versions.check() is None
        return
    with pytest.raises(UnreadableRepositoryError, match=says):
        versions.check()

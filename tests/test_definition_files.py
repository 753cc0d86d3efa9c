"""Files of definitions: what a script beside featurestore.toml does, and what init names."""

import subprocess
import sys
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.errors import DeclarationError
from tests.cli.test_commands import run


def project(folder: Path, **files: str) -> Path:
    """A project with the default `definitions`, and these Python files."""
    (folder / "featurestore.toml").write_text('project = "shop"\n')
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


def test_a_script_beside_the_configuration_that_opens_its_store_is_named(tmp_path: Path) -> None:
    """It matches `*.py`, so opening the store runs it, which opens the store, without end."""
    folder = project(tmp_path, train="from featurestore import FeatureStore\n\nFeatureStore('.')\n")
    ran = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("featurestore.errors.DeclarationError: ")
    assert f"{folder / 'train.py'} opens a store" in last
    assert 'definitions = ["definitions.py"]' in last
    assert "RecursionError" not in ran.stderr


def test_a_store_can_be_opened_once_the_script_has_failed(tmp_path: Path) -> None:
    folder = project(tmp_path, train=f"from featurestore import FeatureStore\n\nFeatureStore({str(tmp_path)!r})\n")
    with pytest.raises(DeclarationError, match="opens a store"):
        FeatureStore(folder)
    (folder / "train.py").unlink()
    FeatureStore(folder).close()


def test_a_script_that_ends_the_process_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Such as one that reads its arguments: it would end a server or a notebook."""
    folder = project(tmp_path, report="import sys\n\nsys.exit(2)\n")
    with pytest.raises(DeclarationError, match=r"report\.py cannot be loaded: SystemExit: 2"):
        FeatureStore(folder)


def test_init_names_its_file_of_definitions(tmp_path: Path) -> None:
    """So a script that is put beside it is not run by every command."""
    run(tmp_path, "init", "shop")
    (tmp_path / "shop" / "make_data.py").write_text("raise ValueError('run')\n")
    assert "customer_orders" in run(tmp_path / "shop", "plan").stdout

"""What a project writes is its owner's alone to read."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.durable.own_folder import own_folder
from tests.server.test_metrics import definitions


@pytest.fixture
def careless() -> Iterator[None]:
    """Whoever runs the process lets everybody read and write what it makes."""
    before = os.umask(0)
    yield
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("careless")
def test_nobody_else_reads_what_a_project_writes(tmp_path: Path) -> None:
    """Registry, journal, logs, records online, tiles and the serving log, in folders that were not there."""
    repo, elsewhere = tmp_path / "repo", tmp_path / "a" / "b"
    repo.mkdir()
    (repo / "featurestore.toml").write_text(
        f'project = "p"\ndefinitions = []\nlogs = "{elsewhere}/logs"\n[serving_log]\nrate = 1.0\n'
    )
    with FeatureStore(repo) as store:
        store.apply(definitions())
        store.materialize(progress=False)
        store.push("s", [{"thing": "a", "at": datetime(2025, 1, 5, tzinfo=UTC), "x": 1.0}])
        store.get_online_features([{"thing": "a"}], "m")
        store.audit()
    made = {repo / ".featurestore", tmp_path / "a", elsewhere, elsewhere / "logs"}
    made |= {path for path in (repo / ".featurestore").rglob("*") if path.is_dir()}
    assert {path: rights(path) for path in made} == dict.fromkeys(made, 0o700)
    assert {"online", "served"} <= {path.name for path in made}


@pytest.mark.usefixtures("careless")
def test_a_registry_in_a_folder_of_others_is_its_owners(tmp_path: Path) -> None:
    """With what SQLite writes beside it; a folder that is there keeps its rights."""
    shared = tmp_path / "srv"
    shared.mkdir(mode=0o777)
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\nregistry = "srv/registry.db"\n')
    stores = [FeatureStore(tmp_path) for _ in range(4)]
    applying = [threading.Thread(target=store.apply, args=(definitions(),)) for store in stores]
    for thread in applying:
        thread.start()
    for thread in applying:
        thread.join()
    assert rights(shared) == 0o777
    assert {path.name: rights(path) for path in shared.glob("*registry*")} == {"registry.db": 0o600}
    assert len(stores[0].history()) == 1
    for store in stores:
        store.close()


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    """As the system says it."""
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError):
        own_folder(file / "a" / "b")
    with pytest.raises(FileExistsError):
        own_folder(file)
    own_folder(tmp_path)

"""A registry is moved as a whole: what it tells is what the other one told, and it goes on from there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore.access.api_keys import create_key
from featurestore.errors import RegistryError
from featurestore.registry.forgotten import Forgetting
from featurestore.registry.frames import WrittenFrame
from featurestore.registry.store import Registry, RunRecord, ServiceVersion
from featurestore.semantics.forgotten import ForgottenKey
from featurestore.sources.arrivals import Arrivals, Sighting, Stay, beside
from tests.cli.test_commands import run
from tests.registry.older import make_older
from tests.registry.places import by_hand
from tests.registry.test_kept_statistics import kept
from tests.registry.test_registry import state
from tests.servers import PostgresServer

A, B = Sighting("a.parquet", 10, 1), Sighting("b.parquet", 10, 1)


@pytest.fixture
def old(tmp_path: Path) -> Registry:
    """One with something of everything."""
    registry = Registry(tmp_path / "registry.db", project="shop")
    document = state(views={"v": "f1"}, services={"s": "f"})
    document["services"]["s"]["declared"] = {"features": []}
    registry.commit(document, expected=0, note="first")
    registry.commit(state(views={"v": "f2"}), expected=1, keep=[ServiceVersion("s", "f")])
    registry.record_run(RunRecord("v", "f1", 1, 2, 3, 4, 5, "complete", {"late": [1]}))
    registry.record_frame(WrittenFrame("/a.parquet", "s", "f", 1, 2, "m", ("x",)))
    registry.keep_statistics(kept(5), most=2)
    create_key(registry, "web", ["read"])
    registry.forget_secret()
    registry.put_forgetting(Forgetting(ForgottenKey("customer", ("customer",), "ab12", 7), sources=("orders",)))
    return registry


@pytest.fixture
def new(place: Path | str) -> Iterator[Registry]:
    registry = Registry(place, project="shop")
    yield registry
    registry.close()


def test_a_copy_tells_all_that_was_told(old: Registry, new: Registry) -> None:
    """And goes on: with the next version, the next run and a trail in which nothing is missed."""
    new.take_over(old)
    assert new._everything() == old._everything()
    assert new.commit(state(), expected=2) == 3
    assert new.record_run(RunRecord("v", "f1", 1, 2, 3, 4, 5, "complete")) == 2
    assert len(new.activity()) == len(old.activity()) + 2


def test_nothing_is_written_over(old: Registry, new: Registry, tmp_path: Path) -> None:
    """Nor copied from where there is nothing, or from what was damaged."""
    with pytest.raises(RegistryError, match="There is no registry in .*nowhere.db"):
        new.take_over(Registry(tmp_path / "nowhere.db", project="shop"))
    by_hand(old.place, "UPDATE runs SET rows = 7")
    with pytest.raises(RegistryError, match="run 1 is not what was written"):
        new.take_over(old)
    assert new.generation() == 0
    by_hand(old.place, "UPDATE runs SET rows = 4")
    new.take_over(old)
    with pytest.raises(RegistryError, match="is not empty"):
        new.take_over(old)


@pytest.mark.parametrize("schema", [1, 4])
def test_a_file_of_an_earlier_version_is_copied_too(new: Registry, tmp_path: Path, schema: int) -> None:
    """With what it has."""
    old = Registry(tmp_path / "registry.db", project="shop")
    old.commit(state(views={"v": "f1"}), expected=0, note="first")
    make_older(tmp_path / "registry.db", schema)
    new.take_over(old)
    assert new.history() == old.history()


def test_a_journal_of_arrivals_is_copied_once(place: Path | str, tmp_path: Path) -> None:
    """It may be done again; something else is not written over."""
    old, new = Arrivals(tmp_path / "old.db", project="shop"), Arrivals(place, project="shop")
    for now, there in ((10, [A, B]), (20, [B])):
        old.see("x", lambda there=there: there, now=now, known_by=now)
    for _ in range(2):
        new.take_over(old)
        assert new.stays("x") == old.stays("x") == [Stay(A, 10, 20), Stay(B, 10, None)]
    new.see("x", lambda: [A, B], now=15)  # what was counted is counted there too
    old.see("y", lambda: [A], now=30)
    with pytest.raises(RegistryError, match="is not empty"):
        new.take_over(old)
    new.close()


def test_the_command_moves_a_project(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into PostgreSQL and back, with a URL that is a variable's; its journal of arrivals goes with it."""
    monkeypatch.setenv("FS_NEW", postgres.url)
    (tmp_path / "featurestore.toml").write_text('project = "shop"\nregistry = "a.db"\n')
    Registry(tmp_path / "a.db", project="shop").commit(state(views={"v": "f1"}), expected=0, note="first")
    Arrivals(beside(tmp_path / "a.db"), project="shop").see("x", lambda: [A], now=10)
    said = run(tmp_path, "registry", "copy", "a.db", "${FS_NEW}").output
    assert re.search("Copied 1 version, 0 keys and all else to .*featurestore_shop", said)
    assert "Next: let `registry` in featurestore.toml name" in said
    assert "secret" not in said
    run(tmp_path, "registry", "copy", "${FS_NEW}", "b.db")
    back = Registry(tmp_path / "b.db", project="shop")
    assert back._everything() == Registry(tmp_path / "a.db", project="shop")._everything()
    assert Arrivals(beside(tmp_path / "b.db"), project="shop").seen("x", [A]) == [10]
    assert "is not empty" in run(tmp_path, "registry", "copy", "a.db", "b.db", code=1).output
    assert "a registry is a path" in run(tmp_path, "registry", "copy", "a.db", "mysql://x", code=1).output

"""What the registry keeps beside the current version: until it is retired, whoever applies meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from featurestore.errors import PlanOutdatedError
from featurestore.registry.documents import Document, empty_document, service_views, view_fingerprints
from featurestore.registry.store import KEPT, SCHEMA, Registry, ServiceVersion
from tests.registry.older import make_older


@pytest.fixture
def registry(place: Path | str) -> Registry:
    ticks = iter(range(1_000_000, 2_000_000))
    return Registry(place, now=lambda: next(ticks))


def version(document: Document) -> ServiceVersion:
    return ServiceVersion("model", document["services"]["model"]["fingerprint"])


@pytest.fixture
def documents(repo: Callable, make_document: Callable) -> list[Document]:
    """The same definitions with third lifetimes of one view."""
    return [make_document([repo(ttl=ttl).model]) for ttl in ("1d", "2d", "3d")]


def left(registry: Registry) -> set[tuple[str, str]]:
    return {tuple(one) for one in registry.leftovers()}


def only(one: Document, *others: Document) -> set[tuple[str, str]]:
    """The view versions of a document that the others do not have."""
    return view_fingerprints(one).items() - {item for other in others for item in view_fingerprints(other).items()}


def test_a_service_reads_the_views_of_its_on_demand_features_too(repo: Callable, make_document: Callable) -> None:
    """A view that only a function reads is one that the service version holds; one that others read is not."""
    made = repo(listed=[repo().ratio])
    document = make_document([made.model, made.routes])
    assert document["views"].keys() == {"delays", "routes"}
    assert service_views(document, "model") == {"delays": document["views"]["delays"]["fingerprint"]}


def test_what_is_kept_holds_its_views_until_it_is_retired(registry: Registry, documents: list[Document]) -> None:
    """Its view versions join the leftovers when the last service version that holds them goes, and not before."""
    first, second, third = documents
    registry.commit(first, expected=0)
    registry.commit(second, expected=1, keep=[version(first)])
    assert left(registry) == set()
    kept = registry.kept()
    assert [(one.named, one.version, one.since) for one in kept] == [(version(first), 1, 1_000_001)]
    assert registry.state() == (2, (), kept)
    registry.commit(third, expected=2, keep=[version(second)])
    registry.commit(third, expected=3)  # a later apply
    assert {one.named for one in registry.kept()} == {version(first), version(second)}
    assert left(registry) == set()
    registry.commit(third, expected=4, retire=[version(first)])
    assert left(registry) == only(first, second, third)
    registry.commit(empty_document(), expected=5, retire=[version(second)])
    assert registry.kept() == ()
    assert left(registry) == only(first) | only(second) | only(third)


def test_what_is_current_again_is_kept_no_more(registry: Registry, documents: list[Document]) -> None:
    """It is served as the current version is; what took its place meanwhile may be kept in turn."""
    first, second, third = documents
    registry.commit(first, expected=0)
    registry.commit(second, expected=1, keep=[version(first)])
    registry.commit(first, expected=2, keep=[version(second)])
    assert [one.named for one in registry.kept()] == [version(second)]
    assert left(registry) == set()
    registry.commit(first, expected=3, retire=[version(second)])
    assert left(registry) == only(second, first)


def test_of_two_who_keep_and_retire_at_once_one_plans_again(registry: Registry, documents: list[Document]) -> None:
    """What is kept changes only from the version that a plan was made against."""
    first, second, third = documents
    registry.commit(first, expected=0)
    registry.commit(second, expected=1, keep=[version(first)])
    registry.commit(second, expected=2, retire=[version(first)])
    with pytest.raises(PlanOutdatedError):
        registry.commit(third, expected=2, keep=[version(second)])
    assert registry.kept() == ()


def test_a_file_of_before_is_read_as_it_is_and_upgraded_when_it_is_written(
    tmp_path: Path, documents: list[Document]
) -> None:
    """Reading changes nothing in it; the next apply can keep what it replaces."""
    first, second, third = documents
    registry = Registry(tmp_path / "registry.db")
    registry.commit(first, expected=0)
    make_older(registry.place, 1)
    before = registry.place.read_bytes()
    assert (registry.kept(), registry.state()) == ((), (1, (), ()))
    assert registry.current().document == first
    assert registry.place.read_bytes() == before
    registry.commit(second, expected=1, keep=[version(first)])
    assert [one.named for one in registry.kept()] == [version(first)]
    with closing(sqlite3.connect(registry.place)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        written = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'kept'").fetchone()[0]
    assert written == f"CREATE {KEPT}"

"""No bit of the SQLite files changes what was journalled or applied without a word."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import FeatureStoreError, NotFoundError, RegistryError
from featurestore.registry.documents import empty_document
from featurestore.registry.store import Registry, RunRecord
from featurestore.sources.arrivals import Arrivals, Sighting
from tests.damage import flipped, outcome, places

MANY = 400


def test_arrivals(tmp_path: Path) -> None:
    """When files were seen and missed, and up to when all was counted, is what was written, or there is an error."""
    path = tmp_path / "arrivals.db"
    journal = Arrivals(path, now=lambda: 77)
    files = [Sighting(f"day={n}/rows.parquet", 1000 + n, 10**18 + n) for n in range(60)]
    journal.see("rows", lambda: files[:40], now=10, known_by=15)
    journal.see("rows", lambda: files[10:], now=20)
    journal.see("others", lambda: files[:3], now=30)

    def told() -> Any:
        return [(journal.stays(name), journal.instants(name, files)) for name in ("rows", "others")]

    right = told()
    errors = 0
    for bit in places(path.stat().st_size, MANY, seed="arrivals3"):
        with flipped(path, bit):
            found = outcome(told)
        if isinstance(found, FeatureStoreError):
            assert str(path) in str(found), bit
            errors += 1
        else:
            assert found == right, bit
    assert errors > MANY // 20
    assert told() == right


def test_arrivals_of_an_earlier_version(tmp_path: Path) -> None:
    """They are read as they are, and have checksums from the next time on that something is journalled."""
    path = tmp_path / "arrivals.db"
    journal = Arrivals(path)
    file, other = Sighting("a", 1, 2), Sighting("b", 3, 4)
    journal.see("rows", lambda: [file], now=10)

    def change(sql: str) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(sql)

    change("DROP TABLE checks")
    change("PRAGMA user_version = 2")
    assert journal.seen("rows", [file]) == [10]
    journal.see("others", lambda: [other], now=20)
    assert journal.seen("rows", [file]) == [10]
    change("UPDATE arrivals SET seen = 11 WHERE source = 'rows'")
    with pytest.raises(RegistryError, match=f"{path} is damaged: what it says of source 'rows'"):
        journal.seen("rows", [file])
    with pytest.raises(RegistryError, match="is damaged"):
        journal.see("rows", lambda: [file, other], now=30)
    assert journal.seen("others", [other]) == [20]


def test_the_registry(tmp_path: Path) -> None:
    """What was applied and which runs there were: as written, or an error."""
    registry = Registry(tmp_path / "registry.db", project="p", now=lambda: 5)
    for number in range(4):
        document = {**empty_document(), "services": {f"s{n}": {"fingerprint": f"{n}{number}" * 8} for n in range(3)}}
        document["views"] = {"v": {"fingerprint": f"v{number}" * 8}}
        registry.commit(document, expected=number, note=f"the {number}th")
    for number in range(30):
        registry.record_run(
            RunRecord("v", "v3" * 8, number, number + 1, number + 2, 10, 20, "complete", {"full": True})
        )

    def told() -> Any:
        registry = Registry(path, project="p")  # what one has read stays in its memory
        document = registry.current().document
        found = [registry.find_service(name, item["fingerprint"]) for name, item in document["services"].items()]
        if None in found:
            raise NotFoundError(f"a service of {registry.place} is not there")
        return registry.current(), registry.history(), registry.version(2), found, registry.completions("v", "v3" * 8)

    path = registry.place
    right = told()
    errors = 0
    for bit in places(path.stat().st_size, MANY, seed="registry3"):
        with flipped(path, bit):
            found = outcome(told)
        if isinstance(found, FeatureStoreError):
            assert str(path) in str(found), bit
            errors += 1
        else:
            assert found == right, bit
    assert errors > MANY // 20
    assert told() == right

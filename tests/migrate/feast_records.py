"""Feast's objects as its reader tells them, and what becomes of them here: for tests that need no Feast."""

from __future__ import annotations

import importlib.util
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import FeatureStore, ManualClock
from featurestore.migrate.feast_objects import FeastObjects, feast_objects
from featurestore.migrate.move_repository import MoveOptions, move
from featurestore.migrate.move_result import MoveResult
from featurestore.migrate.repository_files import files_of
from tests.small import hours

TIMES = [hours(0), hours(1), hours(2)]


def told(**objects: Any) -> dict[str, Any]:
    """An answer of the reader's."""
    return {"contract": 1, "feast": "0.67.0", "python": "3.11.7", "read_from": "files", "project": "shop", **objects}


def entity(name: str, key: str | None = None, of: str = "UNKNOWN", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "Entity", "keys": [key or f"{name}_id"], "type": of, **more}


def source(path: str = "data/rows.parquet", name: str = "rows", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "FileSource", "places": {"path": path}, "event_time": "at", **more}


def fields(**types: str | None) -> list[dict[str, Any]]:
    return [{"name": name, "type": of} for name, of in types.items()]


def view(name: str, features: dict[str, Any], *entities: str, **more: Any) -> dict[str, Any]:
    said = {"ttl_seconds": 86_400.0, "batch": source(), **more}
    return {"name": name, "kind": "FeatureView", "entities": list(entities), "fields": fields(**features), **said}


def projection(view: str, *features: str, **more: Any) -> dict[str, Any]:
    return {"view": view, "fields": list(features), **more}


def service(name: str, *features: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "FeatureService", "features": list(features), **more}


def rows(folder: Path, name: str = "data/rows.parquet", **columns: Any) -> Path:
    """A file of rows of a driver, three hours of two of them; columns are added or, where they are None, left out."""
    own: dict[str, Any] = {
        "driver_id": pa.array([1, 2] * 3, pa.int64()),
        "at": pa.array([time for time in TIMES for _ in range(2)], pa.timestamp("us", "UTC")),
        "rate": pa.array([0.5, 0.25, 0.75, None, 1.0, 0.125], pa.float32()),
        "trips": pa.array([1, 2, 3, 4, 5, 6], pa.int64()),
    }
    given = {column: values for column, values in {**own, **columns}.items() if values is not None}
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(given), path)
    return path


class Repository:
    """A repository of Feast's in a folder, and what is written of it."""

    def __init__(self, folder: Path) -> None:
        self.feast, self.out = folder / "feast", folder / "ours"
        self.feast.mkdir()

    def move(self, *, refresh: int | None = None, cutover: datetime | None = None, **objects: Any) -> MoveResult:
        """What becomes of objects; the files are written."""
        self.objects: FeastObjects = feast_objects(told(**objects))
        moved = move(self.objects, MoveOptions(self.feast, self.feast, self.out, refresh, cutover))
        self.out.mkdir()
        for name, text in files_of(self.objects, moved).items():
            (self.out / name).write_text(text, encoding="utf-8")
        return moved

    @property
    def definitions(self) -> str:
        return (self.out / "definitions.py").read_text(encoding="utf-8")

    def opened(self) -> FeatureStore:
        """A store over what was written, three hours after noon."""
        return FeatureStore(self.out, clock=ManualClock(hours(3)))


def formatter() -> list[str]:
    """ruff, as a command."""
    assert importlib.util.find_spec("ruff") is not None
    return [sys.executable, "-m", "ruff"]


def reasons(moved: MoveResult, kind: str | None = None) -> dict[str, str]:
    """What is refused, by name, and why."""
    return {one.name: one.why for one in moved.refused if kind is None or one.kind == kind}


def matters(moved: MoveResult, about: str) -> dict[str, str]:
    """What differs of a definition, and how it is here."""
    return {one.matter: one.here for one in moved.differences if one.about == about}

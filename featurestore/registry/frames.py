"""Training frames that were written: a journal in the registry, one row a file."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from featurestore.durable.database import Transaction
from featurestore.semantics.service import ResolvedService
from featurestore.types import FeatureType

FRAMES = "frames"
"""What the table is called."""

TABLE = """CREATE TABLE IF NOT EXISTS frames (
    path TEXT PRIMARY KEY,
    service TEXT NOT NULL, fingerprint TEXT NOT NULL,
    rows INTEGER NOT NULL, written INTEGER NOT NULL,  -- µs since the epoch
    manifest TEXT NOT NULL,                           -- the path of the file beside it
    reads TEXT NOT NULL                               -- JSON: what of the lineage it is made of
)"""
"""Made when the first frame is written: a registry without it has none, and a program that does not know it goes on."""


@dataclass(frozen=True)
class WrittenFrame:
    """A training frame in a file; `written` in µs. service "adhoc": made of a list of features, under the fingerprint that
    a service of them has. reads: the ids that its features have in a lineage."""

    path: str
    service: str
    fingerprint: str
    rows: int
    written: int
    manifest: str
    reads: tuple[str, ...]


def make_frames(connection: Transaction) -> None:
    """Make the table, where there is none."""
    connection.execute(TABLE)


def add_frame(connection: Transaction, frame: WrittenFrame) -> None:
    """Journal a frame; what was written to its path before is gone."""
    make_frames(connection)
    connection.execute("DELETE FROM frames WHERE path = ?", (frame.path,))
    row = (frame.path, frame.service, frame.fingerprint, frame.rows, frame.written, frame.manifest)
    connection.execute("INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, orjson.dumps(frame.reads).decode()))


def frames_in(connection: Transaction) -> tuple[WrittenFrame, ...]:
    """All frames, the last written first."""
    if FRAMES not in connection.tables():
        return ()
    rows = connection.execute("SELECT * FROM frames ORDER BY written DESC, path").fetchall()
    return tuple(
        WrittenFrame(path, service, fingerprint, count, written, manifest, tuple(orjson.loads(reads)))
        for path, service, fingerprint, count, written, manifest, reads in rows
    )


def feature_id(view: str, feature: str) -> str:
    """The id of a view's feature."""
    return f"feature:{feature_name(view, feature)}"


def feature_name(view: str, feature: str) -> str:
    """What a view's feature is called."""
    return f"{view}:{feature}"


def on_demand_id(name: str) -> str:
    """The id of an on-demand feature."""
    return f"on_demand:{name}"


def named_columns(service: ResolvedService) -> dict[str, tuple[str, FeatureType]]:
    """By column of a service what its feature is called, and its type."""
    views = {part.name: part.view.name for part in service.parts}
    return {
        column.name: (
            column.name if column.part is None else feature_name(views[column.part], column.feature or ""), column.type
        )
        for column in service.columns
    }  # fmt: skip

"""The table of kept statistics in the registry: one row a training frame, run or hour, and no more than are to be kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from featurestore.clock import instant_of, to_datetime
from featurestore.durable.database import Transaction, row_check
from featurestore.statistics.feature_statistics import KeptStatistics, Kind, read_features, write_features

STATISTICS = "statistics"
"""What the table is called."""

TABLE = """CREATE TABLE IF NOT EXISTS statistics (
    kind TEXT NOT NULL,                     -- training_set, run or hour
    subject TEXT NOT NULL, fingerprint TEXT NOT NULL,
    at INTEGER NOT NULL,                    -- µs since the epoch
    place TEXT NOT NULL,                    -- the path of a training frame, the number of a run
    rows INTEGER NOT NULL,
    features TEXT NOT NULL,                 -- JSON
    of_row INTEGER NOT NULL,                -- a checksum of the others
    PRIMARY KEY (kind, subject, fingerprint, at, place)
) WITHOUT ROWID"""
"""Made when the first row is written: a registry without it has none, and a program that does not know it goes on."""

COLUMNS = "kind, subject, fingerprint, at, place, rows, features"


class Described(NamedTuple):
    """Statistics to keep, of whose subject and kind so many are kept at most, the newest."""

    kept: KeptStatistics
    most: int


def make_statistics(connection: Transaction) -> None:
    """Make the table, where there is none."""
    connection.execute(TABLE)


def add_statistics(connection: Transaction, kept: KeptStatistics, *, most: int) -> None:
    """Keep statistics in the place of those of the same frame, run or hour; of their subject and kind so many at most, the newest."""
    make_statistics(connection)
    at = instant_of(kept.at)
    place = kept.training_set or ("" if kept.run is None else str(kept.run))
    if kept.kind == "hour":
        hour = "subject = ? AND fingerprint = ? AND at = ?"
        connection.execute(
            f"DELETE FROM statistics WHERE kind = 'hour' AND {hour}", (kept.subject, kept.fingerprint, at)
        )
    else:
        connection.execute("DELETE FROM statistics WHERE kind = ? AND place = ?", (kept.kind, place))
    features = write_features(kept.features)
    row = (kept.kind, kept.subject, kept.fingerprint, at, place, kept.rows, features)
    connection.execute(
        f"INSERT INTO statistics ({COLUMNS}, of_row) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, row_check(row))
    )
    newest = "SELECT at FROM statistics WHERE kind = ? AND subject = ? ORDER BY at DESC LIMIT ?"
    old = f"kind = ? AND subject = ? AND at < (SELECT min(at) FROM ({newest}) AS newest)"
    given = (kept.kind, kept.subject, kept.kind, kept.subject, most)
    if kept.kind == "hour":
        connection.execute(f"DELETE FROM statistics WHERE {old}", given)
    else:  # what was written just now is the last one, though a clock that was ahead, and was set back, says otherwise
        connection.execute(f"DELETE FROM statistics WHERE {old} AND place <> ?", (*given, place))


def drop_statistics(connection: Transaction, subjects: Iterable[str]) -> None:
    """Remove what is kept of these views and services."""
    connection.executemany("DELETE FROM statistics WHERE subject = ?", [(subject,) for subject in subjects])


def statistics_in(connection: Transaction, **wanted: Any) -> list[KeptStatistics]:
    """Statistics, the newest first. wanted: values of columns; since, until: instants (µs); limit: so many at most.

    ValueError where a row is not what was written.
    """
    if STATISTICS not in connection.tables():
        return []
    limit = wanted.pop("limit")
    conditions = {"since": "at >= ?", "until": "at < ?"}
    given = {conditions.get(name, f"{name} = ?"): value for name, value in wanted.items() if value is not None}
    where = f"WHERE {' AND '.join(given)}" if given else ""
    sql = f"SELECT of_row, {COLUMNS} FROM statistics {where} ORDER BY at DESC, kind, subject, place LIMIT ?"
    return [_kept(check, row) for check, *row in connection.execute(sql, (*given.values(), limit)).fetchall()]


def hours_in(connection: Transaction) -> set[tuple[str, str, int]]:
    """Service, fingerprint and beginning (µs) of each hour that statistics are kept of."""
    if STATISTICS not in connection.tables():
        return set()
    rows = connection.execute("SELECT subject, fingerprint, at FROM statistics WHERE kind = 'hour'").fetchall()
    return {(str(service), str(fingerprint), int(at)) for service, fingerprint, at in rows}


def _kept(check: int, row: list[Any]) -> KeptStatistics:
    kind: Kind
    kind, subject, fingerprint, at, place, rows, features = row
    if check != row_check(row):
        raise ValueError(f"statistics of {kind} {place or at} of '{subject}' are not what was written")
    return KeptStatistics(
        kind, subject, fingerprint, to_datetime(at), rows, place if kind == "training_set" else None,
        int(place) if kind == "run" else None, read_features(features),
    )  # fmt: skip

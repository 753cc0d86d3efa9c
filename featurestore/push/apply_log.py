"""Logged rows into the records of every view version over a source that is complete online, and which rows these lack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from featurestore.declare.push import KNOWN_AT
from featurestore.lazy import pa, pc
from featurestore.online import OnlineStore
from featurestore.online.value_checksums import read_past_damage
from featurestore.push.merge_rows import LoggedRow, PushedView, read_rows
from featurestore.push.rebuild_records import folded_records
from featurestore.semantics.view import ResolvedView
from featurestore.sources.log import Log
from featurestore.sources.offline import Offline
from featurestore.tiles.series import Replaced

PIECE_ROWS = 20_000
"""Rows that are applied at once, where many are missing."""

T = TypeVar("T")
Key = tuple[Any, ...]
Puts = dict[bytes, bytes | None]
BatchReading = list[tuple[list[PushedView], list[LoggedRow]]]
"""The rows of a batch, read once for the views that can share the reading."""


class Applying:
    """Makes the records of a batch's rows; to be used under the log's lock."""

    def __init__(self, offline: Offline, store: OnlineStore, log: Log, *, project: str) -> None:
        self._offline, self._store, self._log, self._project = offline, store, log, project
        self._views: dict[str, PushedView] = {}

    def published(self, versions: Iterable[ResolvedView]) -> list[PushedView]:
        """The view versions that are complete online; the others read the log when they are filled."""
        self._views = {
            v.fingerprint: self._views.get(v.fingerprint) or PushedView(self._project, v, tagged=self._store.tagged)
            for v in versions
        }
        views = list(self._views.values())
        marks = self._store.get([view.keys.watermark_key for view in views]).values
        return [view for view, mark in zip(views, marks, strict=True) if mark is not None]

    def read(self, views: Iterable[PushedView], rows: pa.Table) -> BatchReading:
        """Logged rows, or rows to be logged, as the views take them; ValueError where an expression fails for one."""
        groups: dict[Any, list[PushedView]] = {}
        for view in views:
            groups.setdefault(view.reading, []).append(view)
        return [(group, read_rows(group, rows)) for group in groups.values()]

    def records(self, reading: BatchReading, *, upto: int) -> Puts:
        """The records with these rows in them; upto: the instant (µs) by which all of them are known and have happened."""
        puts: Puts = {}
        for views, logged in reading:
            replaced = self._replaced(views, logged)
            for view in views:
                puts.update(self._records(view, logged, replaced if view.source.identity else [], upto=upto))
        return puts

    def _replaced(self, views: Sequence[PushedView], logged: Sequence[LoggedRow]) -> list[Replaced]:
        """The rows that these replace, deletions left out, which never counted."""
        since = {one.replaces: one.row.known_at for one in logged if one.replaces is not None}
        if not since:
            return []
        wanted, tables = sorted(since), []
        for segment in self._log.segments():
            within = [n for n in wanted if segment.rows and segment.first <= n <= segment.last]  # type: ignore[operator]  # a segment with rows has both
            if within:
                rows = self._log.read(within[0] - 1, within[-1])
                tables.append(rows.filter(pc.is_in(rows[KNOWN_AT], pa.array(within, pa.int64()))))
        before = read_rows(views, pa.concat_tables(tables))
        return [Replaced(old.row, since[old.row.known_at]) for old in before if not old.deletes]

    def _records(
        self, view: PushedView, logged: Sequence[LoggedRow], replaced: Sequence[Replaced], *, upto: int
    ) -> Puts:
        added = _by_key([one.row for one in logged if not one.deletes], view.key_of)
        gone = _by_key(replaced, lambda old: view.key_of(old.row))
        anew = [] if view.exact else list(gone)
        merged = [key for key in {**added, **gone} if view.exact or key not in gone]
        columns = [[key[i] for key in merged] for i in range(len(view.view.keys))]
        stored = view.keys.keys_of(columns, len(merged))
        held, damaged = read_past_damage(self._store, stored)
        puts: Puts = {
            place: view.records.changed(record, added.get(key, ()), gone.get(key, ()))
            for place, record, key in zip(stored, held, merged, strict=True)
            if place not in damaged
        }
        anew += [key for place, key in zip(stored, merged, strict=True) if place in damaged]
        if anew:
            puts |= dict.fromkeys(map(view.keys.key, anew), view.records.emptied(upto))
            puts |= dict(folded_records(view, self._offline, upto=upto, keys=anew))
        return puts


def _by_key(rows: Iterable[T], key_of: Callable[[T], Key | None]) -> dict[Key, list[T]]:
    """The rows of each key; those without one are left out."""
    groups: dict[Key, list[T]] = {}
    for row in rows:
        key = key_of(row)
        if key is not None:
            groups.setdefault(key, []).append(row)
    return groups


def missing_rows(log: Log, after: int | None, *, event_time: str, least: int = PIECE_ROWS) -> Iterator[pa.Table]:
    """The rows after a known_at, in order, at least so many at a time.

    Between two pieces the log stood still for long enough that all rows of the one had happened before any of the next
    was known: so there is an instant for which the records are true when the one was applied and the other was not.
    """
    held: pa.Table | None = None
    for segment in log.segments():
        if segment.last is None or (after is not None and segment.last <= after):
            continue
        rows = log.read(after, segment.last)
        after = segment.last
        held = rows if held is None else pa.concat_tables([held, rows])
        begin = 0
        for cut in _cuts(held, event_time):
            if cut - begin >= least:
                yield held.slice(begin, cut - begin)
                begin = cut
        held = held.slice(begin)
    if held is not None and held.num_rows:
        yield held


def _cuts(rows: pa.Table, event_time: str) -> list[int]:
    """The numbers of the rows that were known after all rows before them were known and had happened."""
    known = rows[KNOWN_AT].to_numpy()
    happened = rows[event_time].cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
    settled = np.maximum.accumulate(np.maximum(known, happened))
    found: list[int] = (np.flatnonzero(settled[:-1] < known[1:]) + 1).tolist()
    return found

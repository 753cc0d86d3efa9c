"""Rows into the records of one view version over a push source, each once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from featurestore.clock import instant_of
from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.semantics.expressions import evaluate
from featurestore.semantics.folds import Additive
from featurestore.semantics.lanes import UNTIL, Lanes, PushedRow, pushed_place
from featurestore.semantics.time import END
from featurestore.semantics.values import canonical, scalars
from featurestore.semantics.view import ResolvedView
from featurestore.stores.codec import ViewCodec
from featurestore.stores.tiles import Change, TileCodec

__all__ = ["LoggedRow", "PushedView", "Replaced", "read_rows"]


class LoggedRow(NamedTuple):
    """A row of the log, beside the known_at of the version that it replaces, and whether it deletes."""

    row: PushedRow
    replaces: int | None
    deletes: bool


class Replaced(NamedTuple):
    """A row that counted until a later version of it was known, at `since`."""

    row: PushedRow
    since: int


class PushedView:
    """A view version over a push source: its lanes, and how its keys and records are written."""

    def __init__(self, project: str, view: ResolvedView) -> None:
        assert isinstance(view.source, PushSource)
        self.view = view
        self.source: PushSource = view.source
        self.lanes = Lanes(view)
        self.keys = ViewCodec(project, view)
        self.records = TileCodec(self.lanes)
        self.exact = all(isinstance(cell.algebra, Additive) for lane in self.lanes.lanes for cell in lane.cells)
        self._key_columns = tuple(key.column for key in view.keys)

    @property
    def reading(self) -> tuple[Any, ...]:
        """What decides how the source's rows are read; equal for views that can share the reading."""
        return tuple(self.source.derived.items()), self.source.event_time, self.source.until, self.source.deleted

    def parts_of(self, row: PushedRow) -> tuple[Any, ...] | None:
        """The values of a row's key; None where one is null."""
        parts = tuple(row.values[column] for column in self._key_columns)
        return None if None in parts else parts

    def merged(
        self,
        records: Sequence[bytes | None],
        added: Sequence[Sequence[PushedRow]],
        replaced: Sequence[Sequence[Replaced]],
    ) -> list[bytes | None]:
        """Each record with the rows that it has not yet, and without those that were replaced since; None where none is left."""
        found, changes, places = list(records), [], []
        for place, (record, rows, olds) in enumerate(zip(records, added, replaced, strict=True)):
            instant = self.records.instant(record)
            fresh = [row for row in rows if row.known_at > instant]
            gone = [old for old in olds if old.since > instant]
            if fresh or gone:
                upto = max([*[row.known_at for row in fresh], *[old.since for old in gone]])
                changes.append(Change(record, upto, fresh, [old.row for old in gone]))
                places.append(place)
        for place, record in zip(places, self.records.changed(changes), strict=True):
            found[place] = record
        return found


def read_rows(views: Sequence[PushedView], table: pa.Table) -> list[LoggedRow]:
    """The rows of a log, in order, as the lanes of views with one `reading` take them.

    ValueError where a derived column or a condition of one of the views cannot be computed for a row.
    """
    source = views[0].source
    conditions = list(dict.fromkeys(text for view in views for text in view.lanes.conditions))
    types = dict(source.columns)
    for view in views:
        types.update({name: of for name, of in view.view.columns.items() if name in source.derived})
    wanted = _derived(views)
    if wanted:
        for name, column in zip(wanted, evaluate(table, wanted).columns, strict=True):
            table = table.append_column(name, column)
    columns = {name: scalars(canonical(table[name], of)) for name, of in types.items()}
    tests = {f"w{i}": f"({text}) IS TRUE" for i, text in enumerate(conditions)}
    tested = evaluate(table, tests)
    holds = [tested[name].to_pylist() for name in tests]
    known, replaces = table[KNOWN_AT].to_pylist(), table[REPLACES].to_pylist()
    deletes = [False] * len(known) if source.deleted is None else [value is True for value in columns[source.deleted]]
    found, names = [], list(columns)
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(names, values, strict=True))
        happened = END if row[source.event_time] is None else instant_of(row[source.event_time])
        until = None if source.until is None else row[source.until]
        row[UNTIL] = END if until is None else instant_of(until)
        met = {text: holds[i][number] for i, text in enumerate(conditions)}
        learned = known[number]
        place = pushed_place(happened, learned)
        found.append(LoggedRow(PushedRow((), happened, learned, place, row, met), replaces[number], deletes[number]))
    return found


def _derived(views: Iterable[PushedView]) -> dict[str, str]:
    """The derived columns that the views read, those of their conditions included."""
    return {name: text for view in views for name, text in view.source.derived.items() if name in view.view.columns}

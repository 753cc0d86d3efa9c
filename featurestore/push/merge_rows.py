"""Decodes logged rows for the tiles of each view version over the source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.lazy import pa, pc
from featurestore.online.view_codec import ViewCodec
from featurestore.semantics.expressions import evaluate
from featurestore.semantics.order import pushed_place
from featurestore.semantics.rows import holds_sql
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.values import canonical, instants, scalars
from featurestore.semantics.view import ResolvedView
from featurestore.tiles.series import UNTIL, PushedRow, ViewTiles
from featurestore.tiles.tile_codec import TileCodec


class LoggedRow(NamedTuple):
    """A row of the log, beside the known_at of the version that it replaces, and whether it deletes. One of a forgotten key
    does: nothing is left of it but what it replaced."""

    row: PushedRow
    replaces: int | None
    deletes: bool


class PushedView:
    """A view version over a push source: its tiles, and how its keys and records are written."""

    def __init__(self, project: str, view: ResolvedView, *, tagged: bool) -> None:
        assert isinstance(view.source, PushSource)
        self.view = view
        self.source: PushSource = view.source
        self.tiles = ViewTiles(view)
        self.keys = ViewCodec(project, view, tagged=tagged)
        self.records = TileCodec(self.tiles)
        self.exact = all(aggregate.numbers for aggregate in self.tiles.aggregates)
        """Whether a row can be taken out of a record again."""
        self._key_columns = tuple(key.column for key in view.keys)
        names = dict.fromkeys((*self._key_columns, *[aggregate.column for aggregate in self.tiles.aggregates]))
        types = {**view.columns, **self.source.columns}
        self.columns = {name: types[name] for name in names if name is not None and name != UNTIL}
        """What is read of each row, with the type of each."""

    @property
    def reading(self) -> tuple[Any, ...]:
        """What decides how the source's rows are read; equal for views that can share the reading."""
        return tuple(self.source.derived.items()), self.source.event_time, self.source.until, self.source.deleted

    def key_of(self, row: PushedRow) -> tuple[Any, ...] | None:
        """The values of a row's key; None where one is null."""
        key = tuple(row.values[column] for column in self._key_columns)
        return None if None in key else key


def read_rows(views: Sequence[PushedView], table: pa.Table) -> list[LoggedRow]:
    """The rows of a log, in order, as the tiles of views with one `reading` take them.

    ValueError where a derived column or a condition of one of the views cannot be computed for a row.
    """
    source = views[0].source
    conditions = list(dict.fromkeys(text for view in views for text in view.tiles.conditions))
    types = {name: of for view in views for name, of in view.columns.items()}
    wanted = _derived(views)
    if wanted:
        for name, column in zip(wanted, evaluate(table, wanted).columns, strict=True):
            table = table.append_column(name, column)
    columns = {name: scalars(canonical(table[name], of)) for name, of in types.items()}
    tests = {f"w{i}": holds_sql(text) for i, text in enumerate(conditions)}
    holds = [column.to_pylist() for column in evaluate(table, tests).columns] if tests else []
    known, replaces = table[KNOWN_AT].to_pylist(), table[REPLACES].to_pylist()
    happened = [END if e is None else e for e in instants(table[source.event_time])]
    untils = [END] * len(known) if source.until is None else instants(table[source.until])
    columns[UNTIL] = [END if until is None else max(BEGINNING, min(until, END)) for until in untils]
    deletes = [False] * len(known)
    if source.deleted is not None:
        deletes = pc.fill_null(table[source.deleted], False).to_pylist()
    if table[source.event_time].null_count:
        deletes = [gone or e is None for gone, e in zip(deletes, table[source.event_time].to_pylist(), strict=True)]
    met = (
        [dict(zip(conditions, each, strict=True)) for each in zip(*holds, strict=True)] if holds else [{}] * len(known)
    )
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [
        LoggedRow(PushedRow((), e, o, pushed_place(e, o), row, holding), before, gone)
        for e, o, row, holding, before, gone in zip(happened, known, rows, met, replaces, deletes, strict=True)
    ]


def _derived(views: Iterable[PushedView]) -> dict[str, str]:
    """The derived columns that the views read, those of their conditions included."""
    return {name: text for view in views for name, text in view.source.derived.items() if name in view.view.columns}

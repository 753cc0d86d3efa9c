"""Rows into the records of the views over a push source, each once and in the order of known_at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from featurestore.clock import instant_of
from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.semantics.expressions import evaluate
from featurestore.semantics.lanes import UNTIL, Lanes, PushedRow, pushed_place
from featurestore.semantics.time import END
from featurestore.semantics.values import canonical, scalars
from featurestore.semantics.view import ResolvedView
from featurestore.stores.codec import ViewCodec
from featurestore.stores.tiles import TileCodec

__all__ = ["PushedView", "Read", "read_rows"]


class PushedView:
    """A view version over a push source: its lanes, and how its keys and records are written."""

    def __init__(self, project: str, view: ResolvedView) -> None:
        self.view = view
        self.lanes = Lanes(view)
        self.keys = ViewCodec(project, view)
        self.records = TileCodec(self.lanes)
        self._key_columns = tuple(key.column for key in view.keys)

    def key_of(self, values: dict[str, Any]) -> bytes | None:
        """The online key of a row's record; None where a part of the key is null."""
        parts = [values[column] for column in self._key_columns]
        return None if None in parts else self.keys.key(parts)

    def merged(self, record: bytes | None, rows: Sequence[PushedRow]) -> bytes | None:
        """The record with the rows that are newer than it."""
        kept = self.records.empty() if record is None else self.records.unpack(record)
        fresh = [row for row in rows if row.known_at > kept.instant]
        if not fresh:
            return record
        self.records.add(kept, fresh)
        return self.records.pack(kept)


@dataclass(frozen=True)
class Read:
    """Logged rows, in order, as lanes take them, beside what each replaces (its known_at), and whether it deletes."""

    rows: list[PushedRow]
    replaces: list[int | None]
    deletes: list[bool]


def read_rows(source: PushSource, views: Iterable[PushedView], table: pa.Table) -> Read:
    """The rows of a log as scalars, with derived columns and conditions evaluated in one go."""
    conditions = list(dict.fromkeys(text for view in views for text in view.lanes.conditions))
    if source.derived:
        for name, column in zip(source.derived, evaluate(table, source.derived).columns, strict=True):
            table = table.append_column(name, column)
    columns: dict[str, list[Any]] = {}
    types = {**source.columns}
    for view in views:
        types.update({name: of for name, of in view.view.columns.items() if name in source.derived})
    for name, of in types.items():
        columns[name] = scalars(canonical(table[name], of))
    tested = (
        evaluate(table, {f"w{i}": f"({text}) IS TRUE" for i, text in enumerate(conditions)}) if conditions else table
    )
    holds = [tested[f"w{i}"].to_pylist() for i in range(len(conditions))]
    known, replaces = table[KNOWN_AT].to_pylist(), table[REPLACES].to_pylist()
    deletes = [False] * len(known) if source.deleted is None else [value is True for value in columns[source.deleted]]
    rows = []
    names = list(columns)
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        row = dict(zip(names, values, strict=True))
        happened = row[source.event_time]
        e = END if happened is None else instant_of(happened)
        until = END if source.until is None or row[source.until] is None else instant_of(row[source.until])
        row[UNTIL] = until
        met = {text: holds[i][number] for i, text in enumerate(conditions)}
        rows.append(PushedRow((), e, known[number], pushed_place(e, known[number]), row, met))
    return Read(rows, replaces, deletes)

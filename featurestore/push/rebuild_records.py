"""Records made anew from a push source's rows: to fill a view, and for keys of which a row was replaced.

A replaced row cannot be taken out of a greatest value or a set, so the key is folded again from the log: the rows are
those of the as-of query, and what is kept of them is what merging them one by one would have kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from featurestore.declare.push import PushSource
from featurestore.lazy import pa
from featurestore.push.merge_rows import PushedView
from featurestore.semantics.columns import read_sql
from featurestore.semantics.engine import batches_of
from featurestore.semantics.order import place, pushed_place
from featurestore.semantics.rows import counts_at_sql, rows_sql
from featurestore.semantics.source_columns import Scan, cell, key_list, same_key, until_sql
from featurestore.semantics.values import canonical, scalars
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.tiles.series import UNTIL, PushedRow
from featurestore.types import FeatureType

READ_BATCH_ROWS = 50_000
"""Rows that are read at once."""


def folded_records(
    view: PushedView, offline: Offline, *, upto: int, keys: Sequence[Sequence[Any]] | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """The record of every key (or of these) that has a current row known by `upto` (µs), by its online key.

    Each record's instant is `upto`: all that was known by then is in it.
    """
    with offline.session() as session, session.reading():
        types = dict(sorted(view.view.columns.items()))
        asked = session.connection.sql(_sql(view, session, types, upto=upto, keys=keys))
        reader = batches_of(asked, READ_BATCH_ROWS)
        rows = (row for batch in reader for row in _rows(view, batch, types))
        for key, group in groupby(rows, key=itemgetter(0)):
            record = view.records.changed(None, group, instant=upto)
            assert record is not None
            yield view.keys.key(key), record


def _sql(
    view: PushedView,
    session: Session,
    types: dict[str, FeatureType],
    *,
    upto: int,
    keys: Sequence[Sequence[Any]] | None,
) -> str:
    resolved, zone = view.view, view.view.source.timezone or "UTC"
    carried = ["learned_us", "file", f"{until_sql(resolved)} AS until"]
    carried += [
        f"{read_sql(cell(name), resolved.raw[name], of, zone)} AS x{i}" for i, (name, of) in enumerate(types.items())
    ]
    carried += [f"w{i}" for i in range(len(view.tiles.conditions))]
    rows = rows_sql(resolved, _scan(view, session, keys), carried=carried, conditions=view.tiles.conditions)
    alive = counts_at_sql(resolved, upto)
    names = key_list(resolved)
    if keys is None:
        return f"SELECT * FROM ({rows}) WHERE {alive} ORDER BY {names}"
    columns = {f"k{i}": pa.array([key[i] for key in keys], of.type.arrow) for i, of in enumerate(resolved.keys)}
    session.connection.register("wanted", pa.table(columns or {"k0": pa.array([0])}))
    return (
        f"SELECT * FROM ({rows}) r SEMI JOIN wanted q ON {same_key(resolved, 'r', 'q')} WHERE {alive} ORDER BY {names}"
    )


def _scan(view: PushedView, session: Session, keys: Sequence[Sequence[Any]] | None) -> Scan:
    """The source; of some keys their rows alone, where its own columns say which these are."""
    own = {i: key.column for i, key in enumerate(view.view.keys) if key.column in view.source.columns}
    if keys is None or not own:
        return session.scan(view.source)
    of_keys = {column: list(dict.fromkeys(key[i] for key in keys)) for i, column in own.items()}
    wanted = {column: pa.array(values, view.source.columns[column].arrow) for column, values in of_keys.items()}
    return session.scan_where(view.source, wanted)


def _rows(view: PushedView, batch: pa.RecordBatch, types: dict[str, FeatureType]) -> Iterator[PushedRow]:
    resolved, source = view.view, view.view.source
    assert isinstance(source, PushSource)
    keys = [scalars(batch[f"k{i}"]) for i in range(len(resolved.keys))]
    columns = [scalars(canonical(batch[f"x{i}"], of)) for i, of in enumerate(types.values())]
    holds = [batch[f"w{i}"].to_pylist() for i in range(len(view.tiles.conditions))]
    times = [batch[name].to_pylist() for name in ("event_us", "learned_us", "until")]
    for number, (e, o, until) in enumerate(zip(*times, strict=True)):
        values = {name: column[number] for name, column in zip(types, columns, strict=True)}
        values[UNTIL] = until
        if source.cutover is not None and o <= source.cutover_instant:
            read = {name: (of, values[name]) for name, of in types.items()}
            where = place(e, o, [read[name] for name in source.tiebreak], read)
        else:
            where = pushed_place(e, o)
        met = {text: holds[i][number] for i, text in enumerate(view.tiles.conditions)}
        yield PushedRow(tuple(key[number] for key in keys), e, o, where, values, met)

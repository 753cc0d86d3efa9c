"""Records made anew from a push source's rows: to fill a view, and for keys of which a row was replaced.

A replaced row cannot be taken out of a greatest value or a set, so the key is folded again from the log: the rows are
those of the as-of query, and what is kept of them is what merging them one by one would have kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from featurestore.semantics.view import ResolvedView
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
        sql = rows_sql_of(view.view, session, types, as_of=upto, keys=keys, conditions=view.tiles.conditions)
        asked = session.connection.sql(sql)
        reader = batches_of(asked, READ_BATCH_ROWS)
        rows = (row for batch in reader for row in _rows(view, batch, types))
        for key, group in groupby(rows, key=itemgetter(0)):
            record = view.records.changed(None, group, instant=upto)
            assert record is not None
            yield view.keys.key(key), record


def rows_sql_of(
    view: ResolvedView,
    session: Session,
    types: Mapping[str, FeatureType],
    *,
    as_of: int,
    keys: Sequence[Sequence[Any]] | None,
    conditions: Sequence[str] = (),
) -> str:
    """The rows of a push source that count at an instant, of every key or of these, in their order: `k…`, `event_us`, `learned_us`,
    `file`, `until`, `x…` (the columns of `types`, which the view reads) and `w…` (whether the conditions hold)."""
    zone = view.source.timezone or "UTC"
    carried = ["learned_us", "file", f"{until_sql(view)} AS until"]
    carried += [
        f"{read_sql(cell(name), view.raw[name], of, zone)} AS x{i}" for i, (name, of) in enumerate(types.items())
    ]
    carried += [f"w{i}" for i in range(len(conditions))]
    rows = rows_sql(view, _scan(view, session, keys), carried=carried, conditions=conditions)
    alive = counts_at_sql(view, as_of)
    names = key_list(view)
    if keys is None:
        return f"SELECT * FROM ({rows}) WHERE {alive} ORDER BY {names}"
    columns = {f"k{i}": pa.array([key[i] for key in keys], of.type.arrow) for i, of in enumerate(view.keys)}
    session.connection.register("wanted", pa.table(columns or {"k0": pa.array([0])}))
    return f"SELECT * FROM ({rows}) r SEMI JOIN wanted q ON {same_key(view, 'r', 'q')} WHERE {alive} ORDER BY {names}"


def _scan(view: ResolvedView, session: Session, keys: Sequence[Sequence[Any]] | None) -> Scan:
    """The source; of some keys their rows alone, where its own columns say which these are."""
    source = view.source
    assert isinstance(source, PushSource)
    own = {i: key.column for i, key in enumerate(view.keys) if key.column in source.columns}
    if keys is None or not own:
        return session.scan(source)
    of_keys = {column: list(dict.fromkeys(key[i] for key in keys)) for i, column in own.items()}
    wanted = {column: pa.array(values, source.columns[column].arrow) for column, values in of_keys.items()}
    return session.scan_where(source, wanted)


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

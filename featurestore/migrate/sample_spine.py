"""Sample spines over a view's own rows: keys and instants at which two stores are most likely to differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.declare.views import FeatureView
from featurestore.migrate.move_changes import batch_source
from featurestore.semantics.columns import instant_sql
from featurestore.semantics.sql import quote
from featurestore.sources.session import Session

KEYS, TIMES, ROWS = 10, 6, 300
"""How many keys are drawn of a view, how many times of each, and how many rows a spine has at most."""

MOST_OF_A_KEY = 20_000
"""Rows of a key that is drawn, where there are others: Feast joins each row of the spine with all of them."""

DAY = 86_400_000_000

FURTHEST = (2**63 - 1) // 1000 - DAY
"""µs from 1970 on: Feast's frames count nanoseconds, in 64 bits."""


@dataclass(frozen=True)
class SampleRow:
    """A row of a spine: its keys as the files have them and as the view reads them, both by key column, and its instant, µs."""

    there: dict[str, Any]
    here: dict[str, Any]
    at: int


def sample_rows(session: Session, view: FeatureView, columns: Mapping[str, str]) -> list[SampleRow]:
    """Rows of a spine for a view. columns: by key column of the entity the files' own column."""
    source = batch_source(view)
    assert source is not None
    assert source.event_time is not None
    raw, relation = session.columns(source), session.scan(source).relation
    keys = list(view.entity.key)
    own = [quote(columns[key]) for key in keys]
    read = [f"CAST({quote(view.key_column(key))} AS {view.entity.key[key].duckdb})" for key in keys]
    happened = instant_sql(source, quote(source.event_time), raw[source.event_time], happened=True)
    selected = ", ".join(
        [*(f"{sql} AS o{n}" for n, sql in enumerate(own)), *(f"{sql} AS k{n}" for n, sql in enumerate(read))]
    )
    table = f"(SELECT {selected}{', ' if keys else ''}{happened} AS t FROM {relation})"
    known = " AND ".join(["t IS NOT NULL", *(f"k{n} IS NOT NULL" for n in range(len(keys)))])
    group = ", ".join([*(f"o{n}" for n in range(len(keys))), *(f"k{n}" for n in range(len(keys)))]) or "1"
    found = _keys(session, table, known, group, len(keys))
    rows: list[SampleRow] = []
    for one in found:
        there, here = one[: len(keys)], one[len(keys) : 2 * len(keys)]
        condition = " AND ".join([known, *(f"k{n} = ?" for n in range(len(keys)))])
        times = _times(session, table, condition, here)
        named = dict(zip(keys, there, strict=True)), dict(zip(keys, here, strict=True))
        rows += [SampleRow(*named, at) for at in _instants(times, view.said("ttl"))]
    return rows[:ROWS]


def _keys(session: Session, table: str, known: str, group: str, count: int) -> list[tuple[Any, ...]]:
    """Keys of which several rows have one time, and others by chance that is always the same."""
    if not count:
        return [()]
    text = " || '|' || ".join(f"CAST(k{n} AS VARCHAR)" for n in range(count))
    times = f"(SELECT {group}, t, count(*) AS n FROM {table} WHERE {known} GROUP BY ALL)"
    query = (
        f"SELECT {group} FROM (SELECT {group}, max(n) AS ties, sum(n) AS many FROM {times} GROUP BY ALL) "
        f"ORDER BY many > {MOST_OF_A_KEY}, ties > 1 DESC, md5({text}) LIMIT"
    )
    some = session.connection.execute(f"{query} {KEYS // 2}").fetchall()
    others = session.connection.execute(query.replace("ties > 1 DESC, ", "") + f" {KEYS}").fetchall()
    return list(dict.fromkeys([*some, *others]))[:KEYS]


def _times(session: Session, table: str, condition: str, key: Sequence[Any]) -> list[tuple[int, int | None]]:
    """Times of a key, each with the next one: the first, the last, those of several rows, and others."""
    query = (
        f"SELECT t, lead(t) OVER (ORDER BY t) AS later, n, row_number() OVER (ORDER BY t) AS up, row_number() OVER (ORDER BY t DESC) "
        f"AS down FROM (SELECT t, count(*) AS n FROM {table} WHERE {condition} GROUP BY t)"
    )
    order = "ORDER BY up > 1 AND down > 1, n > 1 DESC, md5(CAST(t AS VARCHAR))"
    found = session.connection.execute(f"SELECT t, later FROM ({query}) {order} LIMIT {TIMES}", list(key)).fetchall()
    return [(int(t), None if later is None else int(later)) for t, later in found]


def _instants(times: Iterable[tuple[int, int | None]], ttl: int | None) -> list[int]:
    """Just before, at and after each time, at the edges of the ttl, and before all of them."""
    found: dict[int, None] = {}
    for t, later in times:
        middle = t + ((later - t) // 2 if later is not None else DAY // 2)
        found |= dict.fromkeys((t - 1, t, t + 1, middle))
        if ttl is not None:
            found |= dict.fromkeys((t + ttl, t + ttl + 1))
    every = [t for t, _ in times]
    found |= dict.fromkeys([min(every) - DAY]) if every else {}
    return [t for t in found if abs(t) <= FURTHEST]

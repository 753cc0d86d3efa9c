"""What training says of logged keys, at any instant and under any version of a view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from featurestore.lazy import pa
from featurestore.semantics.rows import counts_from_sql, words_sql
from featurestore.semantics.service import ServiceView
from featurestore.semantics.source_columns import key_list
from featurestore.semantics.status import Status
from featurestore.sources.session import Session
from featurestore.training.kernel import answer_part, part_values
from featurestore.training.spine import SpineChunk
from featurestore.training.spine_table import load_chunk
from featurestore.types import FeatureType

Ints = npt.NDArray[np.int64]

NEVER = -(1 << 60)
"""An instant at which no row is known, µs."""

STATUSES = np.array([status.name for status in Status])
"""The names of statuses by their numbers."""


@dataclass(frozen=True)
class Recomputed:
    """A part's columns and the names of their statuses, by column name."""

    columns: Mapping[str, pa.Array]
    statuses: Mapping[str, npt.NDArray[np.str_]]

    def at(self, rows: Ints) -> Recomputed:
        """Only these rows, in this order."""
        index = pa.array(rows)
        return Recomputed(
            {name: column.take(index) for name, column in self.columns.items()},
            {name: status[rows] for name, status in self.statuses.items()},
        )


def ask_keys(
    session: Session, part: ServiceView, keys: pa.Table, as_of: Ints, *, inputs: dict[str, FeatureType],
    judged: Ints | None = None,
) -> Recomputed:  # fmt: skip
    """What training says of each row of keys at its as_of. judged: the instants to judge ttl and until at instead."""
    spine = load_chunk(
        session.connection, SpineChunk(keys, 0), timestamp=None, timezone="UTC", inputs=inputs, from_pandas=False
    )
    session.connection.register("served_for", pa.table({"request_no": np.arange(len(as_of)), "as_of": as_of}))
    answer = answer_part(session, part, spine, served=as_of)
    session.connection.unregister("served_for")
    if judged is not None:
        answer = replace(answer, as_of=judged)
    values = part_values(part, answer)
    return Recomputed(values.columns, {name: STATUSES[status] for name, status in values.statuses.items()})


def neighbours(session: Session, part: ServiceView, as_of: Ints, steps: int) -> tuple[list[Ints], list[Ints]]:
    """The instants just before the last rows that each key had at its as_of, and those of the next rows; NEVER where
    there are fewer. It is asked of the keys that `ask_keys` was asked for last."""
    view = part.view
    names = key_list(view)
    rows = words_sql(view, session.scan_of_keys(view, "requests"))
    visible = f"SELECT {names}, {counts_from_sql(view.timing.settle)} AS counts_from FROM ({rows})"
    sql = (
        f"SELECT request_no, max(counts_from, {steps}) FILTER (counts_from <= as_of) AS before, min(counts_from, {steps}) FILTER (counts_from > as_of) AS after "
        f"FROM requests JOIN ({visible}) USING ({names}) GROUP BY request_no"
    )
    earlier, later = ([np.full(len(as_of), NEVER) for _ in range(steps)] for _ in range(2))
    for n, before, after in session.connection.sql(sql).fetchall():
        for found, instants, shift in ((earlier, before, -1), (later, after, 0)):
            for step, instant in enumerate(instants or ()):
                found[step][n] = instant + shift
    return earlier, later

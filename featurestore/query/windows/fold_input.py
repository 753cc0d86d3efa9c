"""The rows that folds of many rows read, as SQL and as columns: of each its times, the columns and conditions that the folds
name, and what rule 2 orders by where a fold asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from featurestore.lazy import pa
from featurestore.query.windows.addends import Addends
from featurestore.query.windows.filtered_rows import FilteredRows
from featurestore.query.windows.ranges import MonotoneRun
from featurestore.query.windows.window_folds import FilteredColumn
from featurestore.semantics.engine import hash_terms
from featurestore.semantics.folds import FOLDS
from featurestore.semantics.rows import counts_at_sql, rows_sql, visible_span
from featurestore.semantics.source_columns import (
    Scan,
    cell,
    key_list,
    order_terms,
    read_cell,
    same_key,
    tiebreak_terms,
    until_sql,
)
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.values import canonical
from featurestore.semantics.view import ResolvedFeature, ResolvedView, algebra_of
from featurestore.types import FeatureType, Int64

COUNTED = "asof_counted"
"""The temporary table of the rows that folds count."""

CountedColumn = tuple[str | None, FeatureType | None, str | None, bool]
"""One column under one condition: its name, the type it is read as, the condition, and whether nulls are left out."""


def column_name(feature: ResolvedFeature) -> CountedColumn:
    """Which column a feature reads, and under which condition; features of one name share a `FilteredColumn`."""
    return feature.fold.column, feature.reads, feature.where, not algebra_of(feature).takes_null


def rows_name(feature: ResolvedFeature) -> CountedColumn:
    """The rows that a feature's condition lets through, whatever its column holds there."""
    return None, None, feature.where, False


def earliest(view: ResolvedView, features: Sequence[ResolvedFeature], at: int) -> int | None:
    """The instant after which rows may count for a feature at `at`; None where one counts them however old they are."""
    spans = [visible_span(view, feature) for feature in features]
    return None if any(span.length is None for span in spans) else min(span.start(at) for span in spans)


@dataclass(frozen=True)
class FoldRows:
    """What is read of each row for some features of a view."""

    view: ResolvedView
    features: tuple[ResolvedFeature, ...]
    columns: list[tuple[str, FeatureType]]
    """Each with the type it is read as."""

    conditions: list[str]
    """SQL, the view's own included."""

    ordered: bool
    """Whether a fold asks which of two rows rule 2 puts first."""

    until: bool
    """Whether the end of each row's validity is read."""

    at: int | None = None
    """The one instant (µs) of all requests, where there is only one. Then no row is read that does not count for it."""

    @classmethod
    def of(cls, view: ResolvedView, features: tuple[ResolvedFeature, ...], at: int | None = None) -> FoldRows:
        """What these features read."""
        columns: dict[tuple[str, FeatureType], None] = {}
        for feature in features:
            if feature.fold.column is not None and feature.reads is not None:
                columns[feature.fold.column, feature.reads] = None
        conditions = dict.fromkeys(feature.where for feature in features if feature.where is not None)
        ordered = any(FOLDS[feature.fold.kind].ordered for feature in features)
        until = view.source.until is not None and any(feature.fold.kind == "Latest" for feature in features)
        return cls(view, features, list(columns), list(conditions), ordered, until, at)

    @property
    def width(self) -> int:
        """Cells a row, roughly."""
        return 3 + 2 * self.ordered + len(self.columns) + len(self.conditions)

    def statement(self, scan: Scan, *, only: str | None = None) -> str:
        """The rows of the numbered keys: `(key_no, event_us, counts_from, counts_until, x…, w…, until)` and what rule 2 orders by, where a fold asks.

        only: a condition on the key `x` and on the row `r`, its `file` included.
        """
        view = self.view
        carried = [f"{read_cell(view, column, of)} AS x{i}" for i, (column, of) in enumerate(self.columns)]
        carried += [f"w{i}" for i in range(len(self.conditions))]
        carried += [f"{until_sql(view)} AS until"] if self.until else []
        carried += ["learned_us", *(cell(column) for column in sorted(view.columns))] if self.ordered else []
        carried += ["file"] if only is not None else []
        rows = rows_sql(view, scan, carried=carried or ["0 AS nothing"], conditions=self.conditions)
        if self.at is not None:
            rows = self._counting(rows, self.at)
        return (
            f"SELECT x.key_no - 1 AS key_no, r.* EXCLUDE ({key_list(view)}) FROM ({rows}) r JOIN asof_keys x ON {same_key(view, 'x', 'r')}"
            + ("" if only is None else f" WHERE {only}")
        )

    def _counting(self, rows: str, at: int) -> str:
        """The rows that count at an instant, as if they always had and would: then one run holds them all."""
        times = f"CAST({BEGINNING} AS BIGINT) AS counts_from"
        if self.view.source.identity:
            times += f", CAST({END} AS BIGINT) AS counts_until"
        return f"SELECT * REPLACE ({times}) FROM ({rows}) WHERE {counts_at_sql(self.view, at)}"

    def _within(self, keys: str) -> str:
        """Of the rows of some keys those that may count: at one instant, only those of the longest window, and of each key
        that has none there the newest, which says that it is known."""
        rows = f"FROM {COUNTED} WHERE {keys}"
        start = None if self.at is None else earliest(self.view, self.features, self.at)
        if start is None:
            return f"({rows})"
        older = f"SELECT key_no, max(event_us) AS event_us {rows} GROUP BY key_no HAVING max(event_us) <= {start}"
        return f"({rows} AND event_us > {start} UNION ALL SELECT * FROM (FROM {COUNTED} WHERE {keys}) SEMI JOIN ({older}) USING (key_no, event_us))"

    def rows(self, first: int, last: int) -> str:
        """The rows of the keys [first, last), in their order: by event_time, or by all of rule 2."""
        terms = ["key_no", "event_us"]
        if self.ordered:
            columns = order_terms(self.view, first=())
            own = len(columns)
            terms += [*order_terms(self.view, first=("learned_us",))[:1], *tiebreak_terms(self.view), *columns]
        names = [
            "key_no",
            "event_us",
            "counts_from",
            *(["counts_until"] if self.view.source.identity else []),
            *(["until"] if self.until else []),
        ]
        names += [f"x{i}" for i in range(len(self.columns))] + [f"w{i}" for i in range(len(self.conditions))]
        if self.ordered:
            before = [*terms[2:-own], *_decimal_terms(self.view, self.view.source.tiebreak)]
            whole = [*terms[-own:], *_decimal_terms(self.view, sorted(self.view.columns))]
            names += [f"{_hashed(before)} AS before", f"{_hashed(whole)} AS whole"]
        return f"SELECT {', '.join(names)} FROM {self._within(f'key_no >= {first} AND key_no < {last}')} ORDER BY {', '.join(terms)}"

    def column(self, rows: pa.Table, name: CountedColumn, runs: Sequence[MonotoneRun]) -> FilteredColumn:
        """One column of rows that were read, under its condition, along their runs."""
        column, reads, where, skips = name
        counted, values = None, pa.nulls(rows.num_rows, pa.int64())
        if column is not None:
            assert reads is not None
            values = canonical(rows[f"x{self.columns.index((column, reads))}"], reads)
        if where is not None:
            counted = rows[f"w{self.conditions.index(where)}"].to_numpy(zero_copy_only=False)
        if skips and values.null_count:
            valid = values.is_valid().to_numpy(zero_copy_only=False)
            counted = valid if counted is None else counted & valid
        filtered = [FilteredRows.of(run, counted) for run in runs]
        return FilteredColumn(values, filtered, Addends(values, reads or Int64))


def _hashed(terms: Sequence[str]) -> str:
    """A hash of what terms order by; equal where they are. DuckDB gives the null and the empty list one hash."""
    values = [term.removesuffix(" ASC NULLS FIRST") for term in terms]
    return f"hash({', '.join([*values, *(f'{value} IS NULL' for value in values)])})"


def _decimal_terms(view: ResolvedView, columns: Sequence[str]) -> list[str]:
    """The decimals among columns, as a hash tells them apart."""
    return [hash_terms(cell(column)) for column in columns if _has_decimals(view.columns[column])]


def _has_decimals(of: FeatureType) -> bool:
    return of.kind == "Decimal" if of.element is None else _has_decimals(of.element)

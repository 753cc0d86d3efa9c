"""Random folds over random histories, and what they are worth by the naive reading of the rules."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from featurestore.declare import folds as declared
from featurestore.declare.folds import Fold
from tests.fold_oracle import fold
from tests.histories import History, Window, pick, rarely
from tests.oracle import (
    ALWAYS,
    MISSING,
    PRESENT,
    ViewSpec,
    current_rows,
    event_time,
    in_order,
    instant,
    latest_order,
    sort_key,
)

EXPIRED, OVERFLOW = "EXPIRED", "OVERFLOW"

NUMBERS = ("Int32", "Int64", "Float32", "Float64", "Decimal(10,2)", "Decimal(38,0)")
CONDITIONS = {  # SQL, and the same in Python
    '"row" % 2 = 0': lambda row: row["row"] % 2 == 0,
    "value_0 IS NOT NULL": lambda row: row["value_0"] is not None,
    'value_0 IS NULL OR "row" > 3': lambda row: row["value_0"] is None or row["row"] > 3,
    "false": lambda row: False,
}
READ = {'"row" % 2 = 0': {"row"}, "value_0 IS NOT NULL": {"value_0"}, "false": set()}


@dataclass(frozen=True)
class FoldSpec:
    """One feature: the fold, its column, its own parameters, and how far back it sees (µs; None: the ttl or nothing)."""

    kind: str
    column: str | None
    parameters: tuple[tuple[str, Any], ...] = ()
    window: int | str | None = None
    offset: int = 0
    hop: int | None = None
    where: str | None = None

    def declare(self) -> Fold:
        """The fold as a user writes it."""
        words: dict[str, Any] = dict(self.parameters)
        if self.window is not None:
            words["window"] = self.window if isinstance(self.window, str) else f"{self.window}us"
        if self.offset:
            words["offset"] = f"{self.offset}us"
        if self.hop is not None:
            words["hop"] = f"{self.hop}us"
        if self.where is not None:
            words["where"] = self.where
        arguments = [] if self.column is None else [self.column]
        made: Fold = getattr(declared, self.kind)(*arguments, **words)
        return made

    @property
    def reads(self) -> set[str]:
        """The columns that it reads."""
        return ({self.column} if self.column else set()) | READ.get(self.where or "false", {"value_0", "row"})


@st.composite
def fold_specs(draw: st.DrawFn, history: History, *, timed: bool) -> FoldSpec:
    """A fold that one of the history's columns allows, over windows as long as its grid, with edges a µs beside it."""
    columns = {name: of for name, of in history.types.items() if name.startswith("value_")}
    column = pick(draw, *columns)
    of = columns[column]
    kinds: list[tuple[str, tuple[tuple[str, Any], ...]]] = [("First", ()), ("Latest", ())]
    if not of.startswith("Array"):
        n = draw(st.integers(1, 3))
        kinds += [("LastN", (("n", n),)), ("LastDistinctN", (("n", n),)), ("CountDistinct", (("bound", n),))]
    kinds += [("ApproxCountDistinct", (("precision", pick(draw, 12, 14)),))]
    if not of.startswith("Array") and of not in {"Bool"}:
        kinds += [("Min", ()), ("Max", ())]
    if of in NUMBERS:
        ddof = draw(st.integers(0, 1))
        q, accuracy = pick(draw, 0.0, 0.1, 0.5, 0.99, 1.0), pick(draw, 0.01, 0.3)
        kinds += [("ApproxQuantile", (("q", q), ("accuracy", accuracy)))] * 2
        kinds += [("Sum", ()), ("Mean", ()), ("Sum", ()), ("Var", (("ddof", ddof),)), ("StdDev", (("ddof", ddof),))]
    kind, parameters = pick(draw, *kinds, ("Count", ()))
    if kind == "Count" and draw(st.booleans()):
        column = None
    step = history.step
    window: int | str | None = "lifetime"
    offset, hop = 0, None
    if timed and not rarely(draw, 4):
        window = pick(draw, 1, step, 2 * step, 2 * step + 1, 3 * step)
        offset = pick(draw, 0, 0, 0, 1, step)
        if history.view.refresh_us is None:
            hop = pick(draw, 1, max(1, step // 2), step)
    where = draw(st.sampled_from([None, None, *CONDITIONS]))
    if kind in {"Latest", "LastN", "LastDistinctN"} and draw(st.booleans()):
        window, offset, hop = None, 0, None
        if kind == "Latest" and where is None:
            where = '"row" % 2 = 0'
    return FoldSpec(kind, column, parameters, window, offset, hop, where)


def windows_of(specs: Collection[FoldSpec]) -> set[Window]:
    """The windows of folds that have one."""
    return {(spec.window, spec.offset, spec.hop or 0) for spec in specs if isinstance(spec.window, int)}


def reading(history: History, specs: list[FoldSpec], *, plain: bool) -> ViewSpec:
    """The history's view as rule 2 sees it: with every column that the folds read."""
    columns = set(history.view.features.values()) if plain else set()
    columns |= {column for spec in specs for column in spec.reads}
    return replace(history.view, features={f"r_{column}": column for column in sorted(columns)}, defaults={})


def folded_value(
    history: History, view: ViewSpec, spec: FoldSpec, result: str, *, key: tuple[Any, ...], as_of: int, known_by: int
) -> tuple[str, Any]:
    """(status, value) of one fold for one key at one instant, from the rows known by `known_by`."""
    status, value, _ = judged_fold(history, view, spec, result, key=key, as_of=as_of, known_by=known_by)
    return status, value


def judged_fold(
    history: History, view: ViewSpec, spec: FoldSpec, result: str, *, key: tuple[Any, ...], as_of: int, known_by: int
) -> tuple[str, Any, bool]:
    """(status, value, whether a row that was picked tied with a different one in all but its bytes)."""
    source, rows, types = history.source, history.rows, history.types
    if any(part is None for part in key):
        return MISSING, None, False
    columns = tuple(view.key.values())
    asked = tuple(sort_key(types[column], part, source.timezone) for column, part in zip(columns, key, strict=True))
    current, _ = current_rows(source, view, rows, types, known_by)
    mine = [i for i in current if in_order(source, rows[i], types, columns) == asked]
    mine = [i for i in mine if event_time(source, rows[i]) <= as_of]
    if not mine:
        return MISSING, None, False
    counted = [i for i in mine if spec.where is None or CONDITIONS[spec.where](rows[i])]
    seen = [i for i in counted if visible(event_time(source, rows[i]), view, spec, as_of)]
    if spec.window is None and view.ttl_us is not None and not seen:
        return EXPIRED, None, False
    if spec.kind == "LastDistinctN":  # to which a null is nothing
        seen = [i for i in seen if rows[i][spec.column] is not None]
    ordered = sorted(seen, key=lambda i: latest_order(source, view, rows[i], types))
    if spec.kind == "Latest" and ordered and source.until is not None:
        end = instant(rows[ordered[-1]][source.until], source)
        if end is not None and end <= as_of:
            return EXPIRED, None, False
    of = None if spec.column is None else types[spec.column]
    numbered = [(place, None if spec.column is None else rows[i][spec.column]) for place, i in enumerate(ordered)]
    value, status = fold(spec.kind, of, result, numbered, **dict(spec.parameters))
    if status != PRESENT:
        return OVERFLOW, None, False
    order = {i: latest_order(source, view, rows[i], types) for i in ordered}
    picked = [ordered[place] for place in picked_places(spec, of, numbered)]
    tied = any(order[i][:-1] == order[p][:-1] and order[i] != order[p] for p in picked for i in ordered)
    return PRESENT, value, tied


def picked_places(spec: FoldSpec, of: str | None, rows: list[tuple[int, Any]]) -> list[int]:
    """Which of the rows, oldest first, a fold picks."""
    newest = [place for place, _ in reversed(rows)]
    if spec.kind == "LastDistinctN":
        assert of is not None
        first: dict[Any, int] = {}
        for place in newest:
            first.setdefault(repr(sort_key(of, rows[place][1])), place)
        newest = list(first.values())
    n = dict(spec.parameters).get("n", 1)
    return {"First": newest[-1:], "Latest": newest[:1]}.get(
        spec.kind, newest[:n] if spec.kind.startswith("Last") else []
    )


def visible(happened: float, view: ViewSpec, spec: FoldSpec, as_of: int) -> bool:
    """Rule 1(c)."""
    if spec.window is None:
        return view.ttl_us is None or happened >= as_of - view.ttl_us
    if isinstance(spec.window, str):
        return True
    assert happened != ALWAYS
    hop = spec.hop or 0
    start = as_of - spec.offset - spec.window
    end = as_of - spec.offset
    if hop:
        start = start // hop * hop
        end = end // hop * hop if spec.offset else end
    return start < happened <= end

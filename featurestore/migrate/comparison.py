"""One view, or one on-demand view, compared between two stores over a spine: what to ask for, and why values differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurestore.clock import to_datetime
from featurestore.declare.views import FeatureView, Selection
from featurestore.errors import FeatureStoreError
from featurestore.lazy import pa, pq
from featurestore.migrate.frame_differences import (
    DROPPED,
    FAILS,
    MERGED,
    NULL_ROW,
    TIE,
    TYPE,
    UNEXPLAINED,
    DifferingCell,
    FrameDifferences,
)
from featurestore.migrate.move_changes import AS_IN_FEAST, CHANGES, MoveChange, batch_source, with_reverted
from featurestore.migrate.same_value import is_null, likeness
from featurestore.semantics.columns import finer_than_micros, instant_sql
from featurestore.semantics.sql import quote
from featurestore.sources.session import Session

Frame = list[dict[str, Any]]
Trainer = Callable[[pa.Table, Sequence[Any]], Frame]
"""Our training frame of a spine and features, row by row, with statuses and event times."""

NUMBER, AT = "row_number", "event_timestamp"
"""Columns of a spine: which row it is, and its instant."""

MISSING = {"MISSING", "EXPIRED"}


@dataclass(frozen=True)
class SpineRow:
    """A row of a spine: its columns as Feast is asked and as ours is, and its instant, µs."""

    there: Mapping[str, Any]
    here: Mapping[str, Any]
    at: int


@dataclass
class Comparison:
    """Compares the values of some features. train: our frames. there, here: the types of the spine's columns, in both stores.

    features: Feast's columns → ours. shown: ours → as they are called in a report. items: what ours is asked for. references,
    views: what Feast's is.
    """

    differences: FrameDifferences
    train: Trainer
    items: Sequence[Any]
    features: Mapping[str, str]
    shown: Mapping[str, str]
    references: Sequence[str]
    views: Sequence[str]
    rows: Sequence[SpineRow] = ()
    there: Mapping[str, pa.DataType] = field(default_factory=dict)
    here: Mapping[str, pa.DataType] = field(default_factory=dict)
    failing: int = 0
    """Rows that were left out, as the function fails in them."""
    _frames: dict[MoveChange | None, Frame | None] = field(default_factory=dict)
    _given: set[int] = field(default_factory=set)
    """The rows that Feast's frame has."""

    # --- what is asked ---------------------------------------------------------------------------

    def write_spine(self, path: Path) -> None:
        """The spine as Feast reads it."""
        pq.write_table(self._spine([row.there for row in self.rows], self.there), path)

    def _spine(
        self, rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType], *, earlier: int = 0
    ) -> pa.Table:
        columns: dict[str, Any] = {name: pa.array([row[name] for row in rows], of) for name, of in types.items()}
        columns[NUMBER] = pa.array(range(len(rows)), pa.int64())
        columns[AT] = pa.array([row.at - earlier for row in self.rows], pa.timestamp("us", "UTC"))
        return pa.table(columns)

    def _frame(self, change: MoveChange | None = None) -> Frame | None:
        """Our frame, with a change of the move taken back; None where there is no such change."""
        if change not in self._frames:
            items = self.items if change is None else with_reverted(self.items, change)
            spine = self._spine(
                [row.here for row in self.rows], self.here, earlier=0 if change is None else change.earlier
            )
            try:
                self._frames[change] = None if items is None else self.train(spine, items)
            except FeatureStoreError:
                if change is None:
                    raise
                self._frames[change] = None
        return self._frames[change]

    # --- comparing -------------------------------------------------------------------------------

    def compare(self, answer: Path, session: Session) -> None:
        """Compare with Feast's frame. Raises FeatureStoreError where there is no frame of ours."""
        table = pq.read_table(answer)
        feast = {int(row[NUMBER]): row for row in table.to_pylist()}
        left_out = [there for there in self.features if there not in table.column_names]
        if left_out:
            self.differences.problem = (
                f"Feast's frame has no {', '.join(left_out)}, as where an input bears the same name"
            )
        self._given = set(feast)
        self._frame()  # where a function of ours fails, nothing is counted
        self.differences.rows = len(self.rows)
        for number, row in enumerate(self.rows):
            theirs = feast.get(number)
            for there, own in self.features.items():
                if there in left_out:
                    continue
                self._compare(
                    number, row, own, None if theirs is None else theirs.get(there), session, given=theirs is not None
                )
        self._count_failing()

    def _compare(self, number: int, row: SpineRow, own: str, theirs: Any, session: Session, *, given: bool) -> None:
        """One value. given: whether Feast's frame has the row."""
        frame = self._frame()
        assert frame is not None
        value = frame[number][own]
        self.differences.cells += 1
        like = likeness(value, theirs)
        if like == "same" and given:
            self.differences.equal += 1
            return
        cause = TYPE if like == "type" else UNEXPLAINED if like == "same" else self._cause(number, own, theirs, session)
        if cause == UNEXPLAINED and not given:
            cause = DROPPED if self._is_dropped(number, session) else MERGED if self._is_merged(number) else cause
        at = to_datetime(row.at).isoformat()
        self.differences.note(DifferingCell(self.shown[own], dict(row.here), at, theirs, value, cause))

    def _cause(self, number: int, own: str, theirs: Any, session: Session) -> str:
        """The first change of the move without which the value is Feast's."""
        for change in CHANGES:
            if change.earlier and not self._is_finer(number, session):
                continue
            frame = self._frame(change)
            if frame is not None and likeness(frame[number][own], theirs) != "other":
                return change.cause
        view = self.items[0]
        if isinstance(view, FeatureView) and self._is_tie(view, number, own, theirs, session):
            return TIE
        base = self._frame(AS_IN_FEAST)
        return NULL_ROW if base is not None and is_null(base[number][own]) and not is_null(theirs) else UNEXPLAINED

    def _is_dropped(self, number: int, session: Session) -> bool:
        """Whether one of the views that are read has nothing within its ttl, as Feast judges it, in a row that Feast leaves out."""
        changes = [AS_IN_FEAST]
        if self._is_finer(number, session):
            changes.append(AS_IN_FEAST._replace(earlier=1))
        for change in changes:
            frame = self._inputs(change)
            statuses = [] if frame is None else [v for name, v in frame[number].items() if name.endswith("__status")]
            if any(status in MISSING for status in statuses):
                return True
        return False

    def _is_merged(self, number: int) -> bool:
        """Whether Feast's frame has another row of this instant, and of the same key of one of several views that are read."""
        views, row = [one.view for one in read_by(self.items)], self.rows[number]
        others = [other for place in self._given if (other := self.rows[place]).at == row.at]
        return len(views) > 1 and any(
            all(other.here[key] == row.here[key] for key in view.entity.key) for view in views for other in others
        )

    def _is_finer(self, number: int, session: Session) -> bool:
        """Whether a row of the key happened within the very microsecond of a row of the spine, and not at its beginning."""
        views = [item for item in self.items if isinstance(item, FeatureView)]
        views += [one.view for one in read_by(self.items)]
        return any(self._has_finer(view, number, session) for view in views)

    def _has_finer(self, view: FeatureView, number: int, session: Session) -> bool:
        source = batch_source(view)
        assert source is not None
        assert source.event_time is not None
        raw = session.columns(source)[source.event_time]
        if not finer_than_micros(raw):
            return False
        time = quote(source.event_time)
        keys = "".join(f" AND {quote(view.key_column(key))} = ?" for key in view.entity.key)
        query = (
            f"SELECT count(*) FROM {session.scan(source).relation} WHERE {instant_sql(source, time, raw)} = ? "
            f"AND epoch_ns({time}) % 1000 <> 0{keys}"
        )
        given = [self.rows[number].at, *(self.rows[number].here[key] for key in view.entity.key)]
        return bool(session.connection.execute(query, given).fetchall()[0][0])

    def _inputs(self, change: MoveChange) -> Frame | None:
        """The features of views, of which the items are made or which they are."""
        if all(isinstance(item, FeatureView) for item in self.items):
            return self._frame(change)
        key = MoveChange("inputs", change.reverted, change.earlier)
        if key not in self._frames:
            read = read_by(self.items)
            items = with_reverted(read, change) or read
            spine = self._spine([row.here for row in self.rows], self.here, earlier=change.earlier)
            self._frames[key] = self.train(spine, items) if items else None
        return self._frames[key]

    def _is_tie(self, view: FeatureView, number: int, own: str, theirs: Any, session: Session) -> bool:
        """Whether Feast's value is that of another row of the same key and time."""
        frame, source = self._frame(AS_IN_FEAST), batch_source(view)
        at = None if frame is None else frame[number].get(f"{view.name}__event_time")
        column = view.features[own.removeprefix(f"{view.name}__")].column
        if at is None or source is None or source.event_time is None or column is None:
            return False
        happened = instant_sql(
            source, quote(source.event_time), session.columns(source)[source.event_time], happened=True
        )
        keys = list(view.entity.key)
        same = [f"{happened} = epoch_us(?::TIMESTAMPTZ)", *(f"{quote(view.key_column(key))} = ?" for key in keys)]
        query = f"SELECT {quote(column)} FROM {session.scan(source).relation} WHERE {' AND '.join(same)}"
        found = session.connection.execute(query, [at, *(self.rows[number].here[key] for key in keys)]).fetchall()
        return len(found) > 1 and any(likeness(value, theirs) != "other" for (value,) in found)

    # --- functions that fail ---------------------------------------------------------------------

    def whole_rows(self) -> list[SpineRow]:
        """The rows in which no feature that a function reads is null."""
        read = read_by(self.items)
        if not read:
            return list(self.rows)
        frame = self.train(self._spine([row.here for row in self.rows], self.here), read)
        names = [column for item in read for column in item.columns]
        return [
            row
            for row, values in zip(self.rows, frame, strict=True)
            if not any(is_null(values[name]) for name in names)
        ]

    def only(self, rows: Sequence[SpineRow], why: str) -> None:
        """Compare these rows alone: in the others the function fails."""
        self.failing = len(self.rows) - len(rows)
        self.rows = rows
        self.differences.problem = f"it fails where an input is null: {why}"
        self._frames.clear()

    def _count_failing(self) -> None:
        if self.failing:
            cells = self.failing * len(self.features)
            self.differences.cells += cells
            self.differences.causes[FAILS] = self.differences.causes.get(FAILS, 0) + cells


def read_by(items: Sequence[Any]) -> list[Selection]:
    """The features that on-demand features read, those of one view together: a service reads a view once."""
    found: dict[str, Selection] = {}
    for item in items:
        for one in getattr(item, "selections", ()):
            last = found.get(one.name)
            features = dict.fromkeys((*(() if last is None else last.features), *one.features))
            found[one.name] = one.model_copy(update={"features": tuple(features)})
    return list(found.values())


def tried(compare: Callable[[], None], differences: FrameDifferences) -> str | None:
    """Compare; why there is no frame of ours, as where a function fails; None where there is one."""
    try:
        compare()
    except FeatureStoreError as error:
        differences.cells = differences.equal = 0
        differences.causes.clear()
        differences.examples.clear()
        return str(error)
    return None

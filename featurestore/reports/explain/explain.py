"""Explain: what one key's values were at an instant, and which row of the source they come from.

The value is the as-of query's own, asked for this one key over the rows that can matter to it. Beside it each of those
rows gets a verdict, by the same expressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from featurestore.clock import to_datetime
from featurestore.declare.durations import show_duration
from featurestore.declare.problems import shown
from featurestore.declare.push import PushSource
from featurestore.declare.sources import DataFrameSource, Source
from featurestore.errors import RequestError, SourceError, did_you_mean
from featurestore.lazy import duckdb, pa
from featurestore.query.answer import Answer, ask
from featurestore.query.row_choice import CHOSEN, choose
from featurestore.query.row_verdicts import (
    VERDICTS,
    Chosen,
    Narrowed,
    cells_sql,
    counts_sql,
    judged_statement,
    narrowed,
    nearest_sql,
    since,
)
from featurestore.query.windows.fold_input import earliest
from featurestore.report import shown_instant, within
from featurestore.reports.explain.explanation import ExplainedRow, Explanation
from featurestore.reports.explain.kept_aside import rows_aside
from featurestore.semantics.expectations import removing
from featurestore.semantics.judge import status_of
from featurestore.semantics.source_columns import Scan, has_key
from featurestore.semantics.status import Status
from featurestore.semantics.time import BEGINNING, END
from featurestore.semantics.values import scalars
from featurestore.semantics.view import EVENT_TIME, ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import again
from featurestore.sources.unreadable import engine_words
from featurestore.types import FIRST_MICRO, LAST_MICRO

EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
COPIED_MAX_CELLS = 10_000_000
"""Values of a key's rows that are sooner copied than read again for each question. Measured, of 5 M rows of 15 columns: a key of
25 rows takes 0.6 s copied and 1.6 s read again; all rows 3.8 s and 1.3 s."""

LATEST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


@dataclass(frozen=True)
class AskedView:
    """A view, and the instants of asking it; µs. at: None where it is asked by the as_of itself."""

    view: ResolvedView
    at: int | None
    as_of: int
    known_by: int


def explain(view: ResolvedView, offline: Offline, key: Mapping[str, Any], *, at: int, limit: int = 100) -> Explanation:
    """The explanation of a key's values as a lookup or a spine row at the instant `at` (µs) is answered.

    key: every key column of the view's entity; a null in it is allowed, and MISSING. limit: how many rows to show, those
    nearest to the answer first. Raises RequestError where the key does not fit the entity, SourceError where the source
    cannot be read.
    """
    as_of = view.timing.as_of(at)
    if as_of < FIRST_MICRO or view.timing.known_by(as_of) > LAST_MICRO:
        raise RequestError(
            f"at: at {to_datetime(at)} the values of '{view.name}' are those of an instant outside the years 1 to 9999"
        )
    return _answered(AskedView(view, at, as_of, view.timing.known_by(as_of)), offline, key, limit=limit)


def explain_as_of(
    view: ResolvedView, offline: Offline, key: Mapping[str, Any], *, as_of: int, limit: int = 100
) -> Explanation:
    """The explanation of a key's values as they are true for `as_of` (µs), whenever that was served; as `explain`."""
    return _answered(AskedView(view, None, as_of, view.timing.known_by(as_of)), offline, key, limit=limit)


def _answered(question: AskedView, offline: Offline, key: Mapping[str, Any], *, limit: int) -> Explanation:
    if limit < 0:
        raise RequestError(f"limit is {limit}; it is a number of rows, 0 or more")
    view = question.view
    if not isinstance(key, Mapping):
        raise RequestError(
            f"A key is a dict of column and value, of {', '.join(view.declared.entity.key) or 'no column'}, and not {shown(key)}"
        )
    checked = _checked(view, key)

    def explained() -> Explanation:
        with offline.session() as session, session.reading():
            source = view.source
            try:
                return _explain(session, question, checked, offline, limit=limit)
            except duckdb.Error as error:
                raise SourceError(
                    f"{view.declared.title} over {source.title}: {engine_words(error)} ({source.origin})"
                ) from error

    return again(explained)


def _checked(view: ResolvedView, key: Mapping[str, Any]) -> dict[str, Any]:
    """The key in the entity's order, each value as its type has it."""
    entity = view.declared.entity
    for name in key:
        if name not in entity.key:
            known = did_you_mean(name, entity.key, noun="Its keys")
            raise RequestError(f"View '{view.name}' has no key column '{name}'.{known}")
    checked = {}
    for column in view.keys:
        if column.name not in key:
            wanted = ", ".join(f"{name} ({of})" for name, of in entity.key.items())
            raise RequestError(f"Key column '{column.name}' of view '{view.name}' is missing. Its keys: {wanted}.")
        try:
            checked[column.name] = column.type.accept(key[column.name])
        except ValueError as error:
            raise RequestError(
                f"Key column '{column.name}' of view '{view.name}' is {column.type}: {error}. Keys are compared by type "
                'and value, so "1" never meets 1; convert the value first.'
            ) from None
    return checked


def _paths(view: ResolvedView, offline: Offline, session: Session) -> list[str | None]:
    if isinstance(view.source, PushSource):
        history = [] if view.source.history is None else _file_paths(view.source.history, offline, session)
        segments = {segment.number: f"push log '{view.source.name}' segment {segment.number}"
                    for segment in offline.log(view.source).segments()}  # fmt: skip
        # The files of a history are numbered -1, -2, …, and so found from the end.
        return [*(segments.get(number) for number in range(max(segments) + 1)), *reversed(history)]
    return _file_paths(view.source, offline, session)


def _file_paths(source: Source, offline: Offline, session: Session) -> list[str | None]:
    """By number, seen from the repository."""
    if isinstance(source, DataFrameSource):
        return [None]
    return [within(file.path, offline.root) for file in session.files(source)]


def _explain(
    session: Session, question: AskedView, key: dict[str, Any], offline: Offline, *, limit: int
) -> Explanation:
    paths = _paths(question.view, offline, session)
    view, execute = question.view, session.connection.execute
    own = _narrowed(session, question, key)
    answer = _ask(session, question, own)
    chosen = _chosen(session, answer)
    execute(judged_statement(view, own, "requests", as_of=question.as_of, chosen=chosen))
    found = execute(counts_sql(view)).fetchall()
    counted = {verdict: count for verdict, count, *_ in found}
    anchor = question.as_of if chosen is None else chosen.event_time
    rows = _rows(session, question, paths, nearest_sql(view, own, anchor=anchor, limit=limit))
    status = Status(answer.statuses[0])
    if not view.plain:
        status = status_of(bool(answer.index[0] >= 0))
    statuses = answer.statuses_of(view.features)
    visible = "chosen" in counted or "ended" in counted
    return Explanation(
        view=view.name,
        key=key,
        at=None if question.at is None else to_datetime(question.at),
        as_of=to_datetime(question.as_of),
        known_by=to_datetime(question.known_by),
        status=status.name,
        statuses={name: Status(judged[0]).name for name, judged in statuses.items()},
        values=dict(
            zip(
                (f.name for f in view.features),
                (scalars(c)[0] for c in answer.columns(view.features, statuses)),
                strict=True,
            )
        ),
        event_time=_moment(chosen.event_time) if chosen is not None and visible else None,
        conflict=bool(answer.conflicted[0]) and visible,
        conflicts=tuple(name for name, decided in answer.folds_conflicted.items() if decided[0]),
        rows=rows,
        counts={verdict: counted[verdict] for verdict in VERDICTS if verdict in counted},
        counted={feature.name: sum(row[i] for row in found) for i, feature in enumerate(view.folded, 2)},
        aside=rows_aside(session, view, offline, "requests"),
        resolved=view,
    )


def _narrowed(session: Session, question: AskedView, key: dict[str, Any]) -> Narrowed:
    """The rows that matter for this key, which stays behind as the table `requests`."""
    view, execute = question.view, session.connection.execute
    columns = {f"k{i}": pa.array([key[column.name]], column.type.arrow) for i, column in enumerate(view.keys)}
    asked = pa.table(
        {"request_no": pa.array([0]), **(columns or {"k0": pa.array([0])}), "as_of": pa.array([question.as_of])}
    )
    session.connection.register("asked", asked)
    execute(f"CREATE OR REPLACE TEMP TABLE requests AS SELECT * FROM asked WHERE {has_key(view)}")
    session.connection.unregister("asked")
    scan = session.scan(view.source)
    count = cells_sql(view, scan, "requests")
    copied = count is None or execute(count).fetchall()[0][0] <= COPIED_MAX_CELLS
    own = narrowed(view, scan, "requests", copied=copied)
    for sql in own.statements:
        execute(sql)
    return own


def _ask(session: Session, question: AskedView, own: Narrowed) -> Answer:
    """The as-of query for this key alone, over the rows that it needs."""
    view, scan = question.view, own.scan
    if not view.plain:  # which row is the newest is asked for by plain features alone
        start = earliest(view, view.features, question.as_of)
        recent = scan if start is None else since(view, scan, start + 1)
        newest = _newest(session, question, recent)
        if newest is None and recent is not scan:
            newest = _newest(session, question, scan)
            recent = scan if newest is None else since(view, scan, newest)
        scan = recent
    instants = np.array([question.as_of], np.int64)
    return ask(session.connection, view, scan, requests="requests", as_of=instants)


def _newest(session: Session, question: AskedView, scan: Scan) -> int | None:
    """Choose among the rows of a scan; the event_time of the chosen row."""
    choose(session.connection, question.view, scan, "requests", at=question.as_of)
    found = session.connection.execute(f"SELECT event_us FROM {CHOSEN}").fetchall()
    return found[0][0] if found else None


def _chosen(session: Session, answer: Answer) -> Chosen | None:
    found = session.connection.sql(f"SELECT file, row FROM {CHOSEN}").fetchall()
    if not found:
        return None
    file, row = found[0]
    return Chosen(file, row, answer.rows[EVENT_TIME][int(answer.index[0])].as_py())


def _rows(session: Session, question: AskedView, paths: list[str | None], made: list[str]) -> tuple[ExplainedRow, ...]:
    *before, last = made
    for sql in before:
        session.connection.execute(sql)
    table: pa.Table = session.connection.sql(last).to_arrow_table()
    types = sorted(question.view.columns.items())
    read = [scalars(table[f"v{i}"]) for i in range(len(types))]
    words = table.select([name for name in table.column_names if not name.startswith("v") or name == "verdict"])
    found_rows = words.to_pylist()
    explained = []
    for n, found in enumerate(found_rows):
        values = {name: column[n] for (name, _), column in zip(types, read, strict=True)}
        reason = (
            _older(found, found_rows[0]) if found["verdict"] == "older" else _reason(question, found, values, paths)
        )
        times = (_moment(found["event_us"]), _moment(found["learned_us"]))
        counts = tuple(feature.name for i, feature in enumerate(question.view.folded) if found[f"f{i}"])
        explained.append(
            ExplainedRow(found["verdict"], reason, values, *times, paths[found["file"]], found["row"], counts)
        )
    return tuple(explained)


def _reason(question: AskedView, row: dict[str, Any], values: dict[str, Any], paths: list[str | None]) -> str:
    view, verdict = question.view, row["verdict"]
    if verdict == "invalid":
        return _null(view, values)
    if verdict == "quarantined":
        places = [i for i in removing(view.expectations) if row[f"u{i}"]]
        return f"does not meet {' and '.join(view.expectations[i].said.title for i in places)}"
    if verdict == "not yet known":
        return f"known at {_shown(row['known'])}, after {_shown(question.known_by)}"
    if verdict == "superseded":
        place = f"{paths[row['last_file']] or 'frame'} row {row['last_row']}"
        return f"replaced by the version known at {_shown(row['last_learned_us'])}, {place}"
    if verdict == "too new":
        return f"happened at {_shown(row['event_us'])}, after {_shown(question.as_of)}"
    if verdict == "expired":
        past = f"happened more than {show_duration(view.ttl or 0)} before {_shown(question.as_of)}, which is beyond the ttl"
        counts = any(row[f"f{i}"] for i in range(len(view.folded)))
        return f"{past}; folds over longer windows count it" if counts else past
    if verdict == "ended":
        return f"the newest row that counts, but its validity ended at {_shown(row['until'])}"
    return REASONS[verdict]


REASONS = {
    "chosen": "the newest row that counts",
    "deleted": "this version deletes its row",
    "other key": "the row now belongs to another key",
}


def _older(row: dict[str, Any], chosen: dict[str, Any]) -> str:
    """Why rule 2 puts a row before the chosen one, which is the first one shown."""
    if row["event_us"] < chosen["event_us"]:
        return "happened before the chosen row"
    if row["learned_us"] < chosen["learned_us"]:
        return "happened when the chosen row did, and was known earlier"
    return "ties with the chosen row in event_time and known_at; tiebreak, then bytes decided"


def _null(view: ResolvedView, values: dict[str, Any]) -> str:
    """Which column's null makes a row invalid."""
    source = view.source
    roles = [(source.known_column, "known_at"), *((column, "identity") for column in source.identity)]
    roles += [(source.event_time or source.valid_from, "event_time"), *((key.column, "key") for key in view.keys)]
    for column, role in roles:
        if column is not None and values[column] is None:
            return f"column '{column}' ({role}) is null"
    return "an option of the source is null"


def _moment(instant: int | None) -> datetime | None:
    """The datetime of an instant; None for rows without time. What lies beyond Python's years is shown as their edge."""
    if instant is None or instant <= BEGINNING or instant >= END:
        return None
    try:
        return to_datetime(instant)
    except OverflowError:
        return LATEST if instant > 0 else EARLIEST


def _shown(instant: int) -> str:
    return shown_instant(_moment(instant))

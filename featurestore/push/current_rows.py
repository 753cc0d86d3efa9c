"""The current rows of a key, as the process that changes them read them.

What was made from them is pushed in their place, and kept only where they are the current ones still. That is judged under the
log's lock, by the rows that came into the log since: so of several who change a key at the same time, in any process, each has
seen what the one before it did, or is told to read again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from featurestore.declare.push import KNOWN_AT, PushSource
from featurestore.errors import PushError, RowsChangedError
from featurestore.lazy import pa
from featurestore.push.deduplicate import digests_of
from featurestore.push.rebuild_records import rows_sql_of
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.time import END
from featurestore.semantics.values import canonical, scalars
from featurestore.semantics.view import ResolvedView
from featurestore.sources.log import Log
from featurestore.sources.log.log import NEVER
from featurestore.sources.offline import Offline
from featurestore.sources.schemas import pushed_types
from featurestore.sources.source_files import again
from featurestore.types import Scalar

LATEST = END // 2
"""An as_of after whatever a log has, at which a row counts that no other replaced."""


@dataclass(frozen=True)
class CurrentRows:
    """The rows of a key that no other replaced or deleted, whatever their age, in the order of their event times."""

    rows: tuple[dict[str, Scalar], ...]
    """Of each row its values, by column of the source."""
    known_at: tuple[int, ...]
    """When each was learned (µs)."""
    columns: tuple[str, ...]
    """The columns of the source in which the key lies."""
    key: bytes = field(repr=False)
    """A digest of the key."""
    identities: frozenset[bytes] = field(repr=False)
    """A digest of the identity of each row."""
    upto: int = field(repr=False)
    """known_at of the last row of the log when they were read."""
    forgotten: ForgottenKeys | None = field(repr=False)
    """The keys that were forgotten by then."""


def current_rows(offline: Offline, view: ResolvedView, key: Sequence[Scalar]) -> CurrentRows:
    """The current rows of a key of a view over a push source. key: canonical scalars, of columns of the source's own.

    Takes no lock. Raises SourceError and LogError.
    """
    return again(lambda: _current_rows(offline, view, key))


def _current_rows(offline: Offline, view: ResolvedView, key: Sequence[Scalar]) -> CurrentRows:
    source = view.source
    assert isinstance(source, PushSource)
    forgotten, last = offline.forgotten(), offline.log(source).last_known_at()
    whole = replace(view, columns=dict(source.columns), raw={**view.raw, **pushed_types(source)})
    with offline.session(forgotten=forgotten) as session, session.reading():
        sql = rows_sql_of(whole, session, source.columns, as_of=LATEST, keys=[key])
        found = session.connection.sql(f"SELECT * FROM ({sql}) ORDER BY event_us, learned_us").to_arrow_table()
    rows = pa.table({name: canonical(found[f"x{i}"], of) for i, (name, of) in enumerate(source.columns.items())})
    values = zip(*(scalars(rows[name]) for name in source.columns), strict=True)
    columns = tuple(of.column for of in view.keys)
    given = {name: pa.array([value], source.columns[name].arrow) for name, value in zip(columns, key, strict=True)}
    return CurrentRows(
        tuple(dict(zip(source.columns, each, strict=True)) for each in values),
        tuple(found["learned_us"].to_pylist()),
        columns,
        digests_of(source, pa.table(given or {"": [0]}), columns)[0],
        frozenset(digests_of(source, rows, source.identity)) if source.identity else frozenset(),
        NEVER if last is None else last,
        forgotten,
    )


def outdated(
    source: PushSource, tables: Sequence[pa.Table], overwriting: Mapping[int, bool | CurrentRows], *,
    log: Log, forgotten: Callable[[], ForgottenKeys | None],
) -> dict[int, PushError]:  # fmt: skip
    """The requests of a batch, by number, that overwrite rows which are not the current ones any more; under the log's lock.

    tables: the rows of each request. Those of an earlier one count as if they were logged, but for one that is outdated itself.
    """
    read = {number: rows for number, rows in overwriting.items() if isinstance(rows, CurrentRows)}
    if not read:
        return {}
    last, gone = log.last_known_at(), forgotten()
    logged = log.read(min(rows.upto for rows in read.values()))
    since = _RowsSince(source, [logged.select(list(source.columns)), *tables])
    known, first = logged[KNOWN_AT].to_pylist(), logged.num_rows
    found: dict[int, PushError] = {}
    for number, table in enumerate(tables):
        rows = read.get(number)
        if rows is not None and (
            rows.forgotten != gone
            or (NEVER if last is None else last) < rows.upto  # some were taken back
            or since.touch(rows, range(bisect_right(known, rows.upto), first))
        ):
            found[number] = RowsChangedError(
                f"{source.title}: the rows of the key were changed by others since they were read; nothing was kept"
            )
            since.leave_out(range(first, first + table.num_rows))
        first += table.num_rows
    return found


class _RowsSince:
    """Rows that came since others were read, in order."""

    def __init__(self, source: PushSource, tables: Sequence[pa.Table]) -> None:
        self._source, self._rows = source, pa.concat_tables(tables)
        self._identities = digests_of(source, self._rows, source.identity)
        self._keys: dict[tuple[str, ...], list[bytes]] = {}
        self._left_out: set[int] = set()

    def leave_out(self, places: Iterable[int]) -> None:
        """Count these no more."""
        self._left_out.update(places)

    def touch(self, rows: CurrentRows, places: Iterable[int]) -> bool:
        """Whether one of these has the key of the current rows, or is another version of one of them."""
        if rows.columns not in self._keys:
            self._keys[rows.columns] = digests_of(self._source, self._rows, rows.columns)
        keys = self._keys[rows.columns]
        return any(
            (keys[place] == rows.key or self._identities[place] in rows.identities) and place not in self._left_out
            for place in places
        )

"""Pushed rows of a key that count nowhere since they are kept aside: too late, or in quarantine."""

from __future__ import annotations

from featurestore.declare.push import PushSource
from featurestore.forget.logged_rows import with_columns
from featurestore.lazy import pa
from featurestore.semantics.rows import words_sql
from featurestore.semantics.view import ResolvedView
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import ASIDE
from featurestore.sources.session import Session


def rows_aside(session: Session, view: ResolvedView, offline: Offline, requests: str) -> dict[str, int]:
    """In which of the logs beside a push source's own, "late" and "quarantine", there are rows of a key, and how many now.

    requests: the table that has the key, as the as-of query takes it. What a former definition of other columns kept aside is not counted.
    """
    source = view.source
    if not isinstance(source, PushSource):
        return {}
    found: dict[str, int] = {}
    for which in ASIDE:
        if not offline.logs.has(source.name, which):
            continue
        log = offline.log(source, which)
        for segment in log.segments():
            if segment.rows and segment.first is not None:
                count = _of_key(session, view, source, log.read(segment.first - 1, segment.last), requests)
                if count:
                    found[which] = found.get(which, 0) + count
    return found


def _of_key(session: Session, view: ResolvedView, source: PushSource, rows: pa.Table, requests: str) -> int:
    types = {field.name: field.type for field in rows.schema}
    if any(name in types and types[name] != of.arrow for name, of in source.columns.items()):
        return 0
    words = words_sql(view, session.scan_logged(source, with_columns(source, rows), "rows_aside"))
    same = " AND ".join(f"r.k{place} = q.k{place}" for place in range(max(1, len(view.keys))))
    sql = f"SELECT count(*) FROM ({words}) r JOIN {requests} q ON {same} WHERE r.event_us IS NOT NULL"  # else it is erased
    return int(session.connection.execute(sql).fetchall()[0][0])

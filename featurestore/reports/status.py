"""Status: what is applied, how far the online store has come, and how much lies in the logs of pushed rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from featurestore.clock import to_datetime
from featurestore.declare.durations import show_duration
from featurestore.declare.push import PushSource
from featurestore.errors import OnlineStoreError
from featurestore.materialize.lease import Holder, alive_holder
from featurestore.online.source_state import NEVER, SourceState, served_as_of, state_key
from featurestore.online.view_codec import ViewCodec, unpack_watermark
from featurestore.plurals import plural
from featurestore.project import Project
from featurestore.push.quarantine import PushedQuarantine
from featurestore.registry.differences import Differences
from featurestore.registry.rollout import held_views
from featurestore.report import Report, ReportTable, instant_json, plain, plain_fields, shown_instant
from featurestore.semantics.rows import words_sql
from featurestore.semantics.view import ResolvedView
from featurestore.serving.log.serving_log import Losses
from featurestore.serving.served_versions import ServiceBehind
from featurestore.serving.view_readers import Vouched
from featurestore.sources.log import Log
from featurestore.sources.offline import Offline
from featurestore.sources.push_logs import LATE
from featurestore.streams.membership import consumers_key
from featurestore.streams.progress import PartitionProgress, progress_of


@dataclass(frozen=True)
class PushStatus:
    """The log of a push source, and how much of it is in the records online."""

    source: str
    applied: int | None
    """The known_at (µs) of the last row that is; None where none is, or the online store cannot be read."""
    pending: int | None
    """Rows that are not yet; None where the online store cannot be read."""
    rows: int
    """Rows in the log."""
    bytes: int
    """On the disk."""
    segments: int
    late: int
    """Rows that came too late to count and are kept aside."""
    partitions: tuple[PartitionProgress, ...] = ()
    """How far each partition of its stream was read; empty where it has none, or none was read yet."""
    poison: int = 0
    """Messages of its stream that could not be taken and are kept aside."""
    quarantined: int = 0
    """Rows that do not meet what is expected of them and are kept aside."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, instants as RFC 3339."""
        told = [one.to_dict() for one in self.partitions]
        return {**plain(self), "applied": instant_json(self.applied), "partitions": told}


@dataclass(frozen=True)
class RunStatus:
    """A run of materialize that works on a view just now."""

    by: str
    """The process, as "process 17 on jobs-1"."""
    as_of: int | None = None
    """The instant (µs) that it computes; None where it has written nothing yet."""
    written: int = 0
    """The keys that it has written."""
    keys: int | None = None
    """Those that it is to write; None where it has written nothing yet."""

    @classmethod
    def of(cls, holder: Holder) -> RunStatus:
        """What its lease says."""
        return cls(str(holder), *(holder.progress or ()))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the instant as RFC 3339."""
        return {**plain(self), "as_of": instant_json(self.as_of)}


@dataclass(frozen=True)
class ViewStatus:
    """How far one view has come online; instants and durations in µs."""

    view: str
    fingerprint: str
    complete: tuple[int, ...]
    """The instants that lookups can be answered for."""
    served: int | None
    """The one that they are served; None where there is none."""
    wanted: int
    """The one that they ask for."""
    pushes: PushStatus | None = None
    """The log of its source; None where it is read from files."""
    freshness: int | None = None
    """How old the newest row of its source may be; None where the view does not say, or is refreshed."""
    age: int | None = None
    """How old that row is; None where it was not asked, or there is none."""
    kept_for: tuple[str, ...] = ()
    """The service versions for which it is kept, where another version is the applied one."""
    lag: int = 0
    """By how much `served` may be behind `wanted` without being stale."""
    last_run: int | None = None
    """When the last run that was completed ended, by the online store's clock; None where none was."""
    run: RunStatus | None = None
    """The run of materialize that works on it just now, if there is one; a view over pushed rows is filled without one."""
    unavailable: str | None = None
    """Why it is not known how far the view has come: the online store cannot be read. None where it can."""

    @property
    def state(self) -> str:
        """ "not materialized", "stale" or "fresh"; "unknown" where the online store cannot be read."""
        if self.unavailable is not None:
            return "unknown"
        if self.served is None:
            return "not materialized"
        return "fresh" if self.wanted - self.served <= self.lag else "stale"

    @property
    def overdue(self) -> bool:
        """Whether the newest row of the source is older than the view's freshness allows."""
        return self.freshness is not None and self.age is not None and self.age > self.freshness

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, instants as RFC 3339, durations as they are declared."""
        return {
            **plain_fields(self, "view", "fingerprint", "state", "overdue", "kept_for", "unavailable"),
            "as_of": instant_json(self.served),
            "wanted": instant_json(self.wanted),
            "computed": [instant_json(instant) for instant in self.complete],
            "pushes": None if self.pushes is None else self.pushes.to_dict(),
            "freshness": None if self.freshness is None else show_duration(self.freshness),
            "age": None if self.age is None else show_duration(self.age),
            "last_run": instant_json(self.last_run),
            "run": None if self.run is None else self.run.to_dict(),
        }


class _OnlineState(NamedTuple):
    """What the online store says of views: its clock (µs), and by key what it holds of watermarks and of push sources. why: why
    it says nothing, where it cannot be read; then the clock is this machine's."""

    now: int
    held: Mapping[bytes, bytes | None]
    marks: Sequence[bytes]
    leases: Sequence[bytes]
    states: Sequence[bytes | None]
    vouched: Vouched | None
    why: str | None = None


def _online_state(project: Project, views: Sequence[ResolvedView]) -> _OnlineState:
    """All of it in one round trip."""
    name, nothing = project.config.project, [b""] * len(views)
    try:
        online = project.online
        codecs = [ViewCodec(name, view, tagged=online.tagged) for view in views]
        marks, leases = [codec.watermark_key for codec in codecs], [codec.lease_key for codec in codecs]
        states = [
            state_key(name, view.source, tagged=online.tagged) if isinstance(view.source, PushSource) else None
            for view in views
        ]
        streamed = [
            view.source.name for view in views if isinstance(view.source, PushSource) and view.source.stream is not None
        ]
        consumers = [consumers_key(name, source) for source in streamed]
        keys = list(dict.fromkeys([*marks, *leases, *(key for key in states if key is not None), *consumers]))
        reading = online.get(keys)
    except OnlineStoreError as error:
        return _OnlineState(project.now(), {b"": None}, nothing, nothing, [None] * len(views), None, str(error))
    held = dict(zip(keys, reading.values, strict=True))
    return _OnlineState(reading.now, held, marks, leases, states, project.pushing)


def status_of(project: Project) -> list[ViewStatus]:
    """The status of each applied view, and of each that a kept service reads, all read at once. Where the online store cannot be
    read, what is known without it. SourceError where the source of a view that says freshness cannot be read."""
    registry, offline = project.registry, project.offline
    current, held_there = registry.current(), held_views(registry)
    views = [*map(current.view, current.document["views"]), *(one.view for one in held_there)]
    views = [project.rebound(view) if _freshness(view) is not None else view for view in views]
    kept = {one.view.fingerprint: tuple(map(str, one.services)) for one in held_there}
    ran = registry.last_runs((view.name, view.fingerprint) for view in views)
    online = _online_state(project, views)
    logs: dict[str, PushStatus] = {}
    result = []
    for view, mark, lease, key in zip(views, online.marks, online.leases, online.states, strict=True):
        state = SourceState() if key is None else SourceState.unpack(online.held[key])
        complete, wanted = unpack_watermark(online.held[mark]), view.timing.as_of(online.now)
        served = view.timing.served(complete, online.now)
        if view.is_pushed and complete:
            assert key is not None
            assert isinstance(view.source, PushSource)
            witness = None if online.vouched is None else online.vouched.witness(view.source)
            served = served_as_of(state, online.now, held=online.held[key], filled=max(complete), witness=witness)
            wanted = max(wanted, state.applied)
        source, pushes = view.source, None
        if isinstance(source, PushSource):
            pushes = logs.get(source.name) or _log_status(project, source, None if online.why else state, online)
            logs[source.name] = pushes
        freshness = _freshness(view)
        newest = None if freshness is None else _newest(view, offline)
        age = None if newest is None else max(0, online.now - newest)
        lag = online.vouched.lag if online.vouched is not None and view.is_pushed else 0
        last_run = ran.get((view.name, view.fingerprint))
        told = view.name, view.fingerprint, complete, served, wanted
        kept_for = kept.get(view.fingerprint, ())
        holder = alive_holder(online.held[lease], online.now)
        run = None if holder is None else RunStatus.of(holder)
        result.append(ViewStatus(*told, pushes, freshness, age, kept_for, lag, last_run, run, online.why))
    return result


def _freshness(view: ResolvedView) -> int | None:
    """How old the newest row of the source may be; where a view says that, its status is told from the source's rows."""
    said: int | None = view.declared.said("freshness") if view.timing.refresh is None else None
    return said


def _log_status(project: Project, source: PushSource, state: SourceState | None, online: _OnlineState) -> PushStatus:
    """state: what is said online of the source; None where nobody knows."""
    offline = project.offline
    log = offline.log(source)
    partitions: tuple[PartitionProgress, ...] = ()
    if source.stream is not None:
        consumers = online.held.get(consumers_key(project.config.project, source.name))
        partitions = progress_of(source, log.positions(), consumers, online.now)
    segments = log.segments()
    late = offline.log(source, LATE).segments() if offline.logs.has(source.name, LATE) else ()
    return PushStatus(
        source.name,
        None if state is None or state.applied == NEVER else state.applied,
        None if state is None else _pending(log, state.applied),
        sum(segment.rows or 0 for segment in segments),
        log.stored_bytes(),
        len(segments),
        sum(segment.rows or 0 for segment in late),
        partitions,
        0 if source.stream is None else project.poison.count(source.name),
        PushedQuarantine(source, offline, project.pushing).count(),
    )


def _pending(log: Log, applied: int) -> int:
    """The rows of a log after an instant; only the segment in which it lies is read."""
    count = 0
    for segment in log.segments():
        if not segment.rows or segment.first is None or segment.last is None or segment.last <= applied:
            continue
        count += segment.rows if segment.first > applied else log.read(applied, segment.last).num_rows
    return count


def _stream_notes(log: PushStatus) -> Iterator[str]:
    for one in log.partitions:
        lag = (
            "how far behind is not known"
            if one.lag is None
            else f"{'at least ' if one.at_least else ''}{one.lag:,} {plural(one.lag, 'message')} behind"
        )
        since = "" if not one.behind else f", for {show_duration(one.behind)}"
        lost = f", {one.lost:,} lost" if one.lost else ""
        yield (
            f"push source '{log.source}', partition {one.partition} of its stream: read up to {one.place} by {one.consumer or 'nobody now'}, "
            f"{lag}{since}; {one.taken:,} {plural(one.taken, 'message')} taken{lost}"
        )
    if log.poison:
        yield f"push source '{log.source}': {log.poison:,} {plural(log.poison, 'message is', 'messages are')} kept aside; see featurestore poison list {log.source}"


def _newest(view: ResolvedView, offline: Offline) -> int | None:
    """The greatest known_at of a view's source (µs); None where it has no rows."""
    if isinstance(view.source, PushSource) and view.source.history is None:
        return offline.log(view.source).last_known_at()
    with offline.session() as session:
        words = words_sql(view, session.scan(view.source))
        found: list[tuple[int | None]] = session.connection.execute(f"SELECT max(known) FROM ({words})").fetchall()
    return found[0][0]


def nothing_due(views: Iterable[ViewStatus], now: int) -> str:
    """Why no run of materialize was due at an instant (µs), where views are applied."""
    newest = [(view.view, max([*view.complete, *_applied(view)])) for view in views if view.complete]
    newer = [(name, instant) for name, instant in newest if instant > now]
    told = ", ".join(f"{name} as of {_shown(instant)}" for name, instant in newer or newest)
    if newer:
        return (
            f"Nothing is due: what is online is newer than {_shown(now)}: {told}. No run goes back; featurestore snapshot tells "
            "the values of any instant."
        )
    return f"Nothing is due: {told or 'no view'} is online. (Files that were corrected reach what is served by --full.)"


def _applied(view: ViewStatus) -> list[int]:
    """The instant of the last pushed row that is online."""
    return [] if view.pushes is None or view.pushes.applied is None else [view.pushes.applied]


ONLINE = "this is of those that are applied", "featurestore plan shows what apply would do"


def status_report(
    views: Sequence[ViewStatus], behind: Iterable[ServiceBehind], losses: Losses, *, differs: Differences | None = None,
    leader: str | None = None, beside: Iterable[str] = (),
) -> Report:  # fmt: skip
    """A line for each view; then each log of pushed rows, sources that are older than a view allows, services that are
    served in another version than the applied one, what the serving log lost, lines of what lies `beside` sources, who materializes what is due (leader), and in
    what the definitions at hand differ."""
    table = ReportTable(
        ("view", "fingerprint", "state", "served as of", "due as of", "last run", "kept for"),
        [
            (view.view, view.fingerprint[:12], view.state, *map(_shown, (view.served, view.wanted, view.last_run)),
             ", ".join(view.kept_for) or "applied")
            for view in views
        ],
    )  # fmt: skip
    parts = [*([table] if views else ["Nothing is applied."]), *_notes(views)]
    for service in behind:
        served = "in no version" if service.served is None else f"as {service.served}"
        parts.append(
            f"{service.service}: applied as {service.applied}, and served by this code {served}. {service.why}"
        )
    if losses.offered:
        error = "" if losses.last_error is None else f"; the last error was: {losses.last_error}"
        parts.append(
            f"serving log: of {losses.offered:,} {plural(losses.offered, 'request')} {losses.written:,} written, {losses.dropped:,} dropped, "
            f"{losses.lost:,} lost{error}"
        )
    parts.extend(beside)
    if leader is not None:
        parts.append(f"materialize --follow: {leader}")
    if views and differs is not None and (said := differs.told(*ONLINE)):
        parts.append(said)
    return Report("", parts)


def _shown(instant_us: int | None) -> str:
    return "-" if instant_us is None else shown_instant(to_datetime(instant_us))


def _notes(views: Sequence[ViewStatus]) -> Iterator[str]:
    logs = {view.pushes.source: view.pushes for view in views if view.pushes is not None}
    for log in logs.values():
        upto = "nothing is applied" if log.applied is None else f"applied up to {_shown(log.applied)}"
        online = (
            "what is applied is not known"
            if log.pending is None
            else f"{upto}, {log.pending:,} {plural(log.pending, 'row')} pending"
        )
        yield (
            f"push source '{log.source}': {online}, {log.late:,} late {plural(log.late, 'row')} kept aside; its log has "
            f"{log.rows:,} {plural(log.rows, 'row')} in {log.segments:,} {plural(log.segments, 'segment')}, {log.bytes:,} {plural(log.bytes, 'byte')}"
        )
        yield from _stream_notes(log)
        if log.quarantined:
            yield (
                f"push source '{log.source}': {log.quarantined:,} {plural(log.quarantined, 'row is', 'rows are')} in quarantine; see featurestore quarantine show "
                f"{log.source}"
            )
    for view in views:
        if view.run is not None:
            far = (
                ""
                if view.run.keys is None
                else f" as of {_shown(view.run.as_of)}: {view.run.written:,} of {view.run.keys:,} {plural(view.run.keys, 'key is', 'keys are')} written"
            )
            yield f"view '{view.view}': {view.run.by} works on it{far}"
        if view.overdue:
            yield (
                f"view '{view.view}': the newest row of its source is {show_duration(view.age or 0)} old, and its freshness is "
                f"{show_duration(view.freshness or 0)}"
            )

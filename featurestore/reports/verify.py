"""Verify: what is online, compared with what offline data say it has to be, key by key and byte by byte.

A view that is materialized is compared at the instants that lookups can still be answered for; a continuous one over
pushed rows with what folding its log gives. Repair writes all records again, by the way on which they are always written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from featurestore.clock import to_datetime
from featurestore.errors import MaterializeError
from featurestore.materialize.materialize import run_record
from featurestore.materialize.progress import Progress
from featurestore.materialize.records import RecordQuery, collect, existing
from featurestore.online.source_state import SourceState, state_key
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import HEAD, ViewCodec, edition_of, unpack_watermark
from featurestore.plurals import plural
from featurestore.project import Project
from featurestore.push.merge_rows import PushedView
from featurestore.push.rebuild_records import folded_records
from featurestore.query.newest_rows import collected_keys_sql
from featurestore.report import Report, Reported, instant_json, plain, plain_fields, shown_instant
from featurestore.semantics.view import ResolvedView

BATCH_KEYS = 4_000
"""Records that are read and compared at once."""

EXAMPLES_OF_EACH_KIND = 5
"""Keys of each kind of difference that a report shows of a view."""

ATTEMPTS = 5
"""How often a view is compared, where runs complete instants meanwhile."""

Kind = Literal["missing", "extra", "different"]


@dataclass(frozen=True)
class Discrepancy:
    """A key whose record is missing, extra or different, at an instant (µs)."""

    kind: Kind
    key: dict[str, Any]
    as_of: int


@dataclass(frozen=True)
class Verified(Reported):
    """One view version: how many records there have to be online, and which are not right."""

    view: str
    fingerprint: str
    instants: tuple[int, ...]
    """Those compared, in µs; none where the view has no values online."""
    records: int
    missing: int = 0
    extra: int = 0
    different: int = 0
    examples: tuple[Discrepancy, ...] = ()
    repaired: bool = False
    """All was written again since, and is right now."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found that is still there."""
        return self.repaired or not (self.missing or self.extra or self.different)

    def report(self) -> Report:
        """How many records are not right, and examples."""
        head = f"{self.view} ({self.fingerprint[:12]})"
        if not self.instants:
            return Report(f"{head}: no values online; run featurestore materialize")
        counts = f"{self.records:,} {plural(self.records, 'record')}, {self.missing:,} missing, {self.extra:,} extra, {self.different:,} different"
        examples = []
        for one in self.examples:
            key = ", ".join(f"{name}={value!r}" for name, value in one.key.items())
            examples.append(f"{one.kind}: {key} as of {shown_instant(to_datetime(one.as_of))}")
        return Report(f"{head}: {counts}{'; repaired' if self.repaired else ''}", examples)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, instants as RFC 3339."""
        return {
            **plain_fields(self, "view", "fingerprint", "records", "missing", "extra", "different", "repaired", "ok"),
            "as_of": [instant_json(instant) for instant in self.instants],
            "examples": [{**plain(one), "as_of": instant_json(one.as_of)} for one in self.examples],
        }


@dataclass(frozen=True)
class Verification(Reported):
    """What verify found, view by view."""

    views: tuple[Verified, ...]
    """What was found of each view, by the order of names."""

    @property
    def ok(self) -> bool:
        """Whether all that is online is right, by now."""
        return all(view.ok for view in self.views)

    def report(self) -> Report:
        """View by view, and what to do about it."""
        wrong = any(view.missing + view.extra + view.different and not view.repaired for view in self.views)
        cure = (
            "What is not right is written again by featurestore verify --repair; featurestore materialize --full also "
            "publishes files that were corrected."
        )
        parts: list[Report | str] = [view.report() for view in self.views]
        return Report("" if parts else "Nothing is applied.", [*parts, *([cure] if wrong else [])])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return plain_fields(self, "ok", "views")


def verify(project: Project, views: Sequence[str] | None = None, *, repair: bool = False) -> Verification:
    """Compare every record of the applied views, and of those of kept services; views: only these.

    repair: write all records of a view again where one is not right, or where it has none. Raises SourceError,
    MaterializeError, LogError and OnlineStoreError.
    """
    return Verification(tuple(_verified(project, view, repair=repair) for view in project.applied(views)))


def _verified(project: Project, view: ResolvedView, *, repair: bool) -> Verified:
    found = _compared(project, view)
    if not repair or (found.ok and found.instants):
        return found
    for run in project.materializer.materialize(view, full=True, progress=Progress(shown=False)):
        project.registry.record_run(run_record(run, project.now()))
    after = _compared(project, view)
    if not found.instants:
        return after
    return replace(found, repaired=after.ok and bool(after.instants))


def _compared(project: Project, view: ResolvedView) -> Verified:
    return _tiles_compared(project, view) if view.is_pushed else _slots_compared(project, view)


@dataclass
class _ViewFindings:
    """The records of one view that are not right, counted as they are found."""

    codec: ViewCodec
    names: tuple[str, ...]
    records: int = 0
    counts: Counter[Kind] = field(default_factory=Counter)
    examples: list[Discrepancy] = field(default_factory=list)
    damaged: set[bytes] = field(default_factory=set)

    def spoil(self, keys: Iterable[bytes]) -> None:
        """Keep in mind that the records of keys were read, and are damaged; they are different, and not missing."""
        self.damaged.update(keys)

    def compare(self, key: bytes, held: bytes | None, wanted: bytes | None, as_of: int) -> None:
        """Count a key where what is held is not what has to be."""
        if key in self.damaged:
            self.add("different", key, as_of)
        elif held != wanted:
            self.add("missing" if held is None else "extra" if wanted is None else "different", key, as_of)

    def add(self, kind: Kind, key: bytes, as_of: int) -> None:
        """Count a key."""
        self.counts[kind] += 1
        if self.counts[kind] <= EXAMPLES_OF_EACH_KIND:
            values = self.codec.values_of(key)
            self.examples.append(Discrepancy(kind, dict(zip(self.names, values, strict=True)), as_of))

    def told(self, view: ResolvedView, instants: Iterable[int]) -> Verified:
        """All of it."""
        counts = (self.counts["missing"], self.counts["extra"], self.counts["different"])
        return Verified(view.name, view.fingerprint, tuple(instants), self.records, *counts, tuple(self.examples))


def _found(codec: ViewCodec, view: ResolvedView) -> _ViewFindings:
    return _ViewFindings(codec, tuple(key.name for key in view.keys))


class _MovedError(Exception):
    """A run completed an instant while records were compared."""


def _slots_compared(project: Project, view: ResolvedView) -> Verified:
    codec = ViewCodec(project.config.project, view, tagged=project.online.tagged)
    for _ in range(ATTEMPTS):
        now, (watermark,) = project.online.get([codec.watermark_key])
        complete = unpack_watermark(watermark)
        served = view.timing.served(complete, now)
        instants = [instant for instant in complete if served is None or instant >= served]
        found = _found(codec, view)
        try:
            if watermark is not None:
                _compare_slots(project, view, found, watermark, instants)
        except _MovedError:
            continue
        return found.told(view, instants)
    raise MaterializeError(
        f"{view.declared.title}: runs go on all the time, so that nothing can be compared; try again"
    )


def _compare_slots(
    project: Project, view: ResolvedView, found: _ViewFindings, watermark: bytes, instants: Sequence[int]
) -> None:
    codec, edition = found.codec, edition_of(watermark)
    left = existing(project.online, codec)

    def held(keys: Sequence[bytes]) -> list[bytes | None]:
        (mark, *values), damaged = read_past_damage(project.online, [codec.watermark_key, *keys])
        if mark != watermark:
            raise _MovedError
        found.spoil(damaged)
        return values

    with project.offline.session() as session:
        scan = session.scan(view.source)
        keys = collect(session, collected_keys_sql(session.connection, view, scan, instants=instants))
        asked = RecordQuery(session, view, codec, project.online.blocking)
        for instant in instants:
            for batch, records, _ in asked.records(keys, instant, edition, size=BATCH_KEYS):
                left.difference_update(batch)
                for key, record, own in zip(batch, records, held(batch), strict=True):
                    slot = None if own is None else codec.slot(own, instant, edition=edition)
                    row = None if slot is None or slot.row is None else slot.data[HEAD.size :]
                    wanted = None if record is None else record[1 + HEAD.size :]
                    found.records += wanted is not None
                    found.compare(key, row, wanted, instant)
    for batch in _batches(sorted(left)):
        for key, own in zip(batch, held(batch), strict=True):
            for instant in instants:
                slot = None if own is None else codec.slot(own, instant, edition=edition)
                found.compare(key, None if slot is None or slot.row is None else slot.data, None, instant)


def _batches(keys: list[bytes]) -> Iterator[list[bytes]]:
    return (keys[start : start + BATCH_KEYS] for start in range(0, len(keys), BATCH_KEYS))


def _tiles_compared(project: Project, view: ResolvedView) -> Verified:
    """Compare the records of a view over pushed rows: all while pushes go on, and those that differ again while pushes wait."""
    pushed = PushedView(project.config.project, view, tagged=project.online.tagged)
    found = _found(pushed.keys, view)
    mark, state = (
        pushed.keys.watermark_key,
        state_key(project.config.project, pushed.source, tagged=project.online.tagged),
    )

    def applied() -> int | None:
        complete, data = project.online.get([mark, state]).values
        return None if complete is None else max(SourceState.unpack(data).applied, *unpack_watermark(complete))

    upto = applied()
    if upto is None:
        return found.told(view, ())
    unsure, count = set(existing(project.online, pushed.keys)), 0
    for batch in _folded(project, pushed, upto, None):
        held, _ = read_past_damage(project.online, [key for key, _ in batch])
        same = {key for (key, record), own in zip(batch, held, strict=True) if _as_of(pushed, own, upto) == record}
        unsure = (unsure | {key for key, _ in batch}) - same
        count += len(batch)
    if unsure:
        with project.pushing.alone(view.name, view.fingerprint):
            again = applied()
            upto = upto if again is None else again
            _compare_tiles(project, pushed, found, upto, sorted(unsure))
    found.records = count
    return found.told(view, (upto,))


def _compare_tiles(project: Project, pushed: PushedView, found: _ViewFindings, upto: int, keys: list[bytes]) -> None:
    wanted: dict[bytes, bytes] = {}
    for batch in _folded(project, pushed, upto, [pushed.keys.values_of(key) for key in keys]):
        wanted.update(batch)
    for some in _batches(keys):
        values, damaged = read_past_damage(project.online, some)
        found.spoil(damaged)
        for key, own in zip(some, values, strict=True):
            found.compare(key, _as_of(pushed, own, upto), wanted.get(key), upto)


def _folded(
    project: Project, pushed: PushedView, upto: int, keys: Sequence[Sequence[Any]] | None
) -> Iterator[list[tuple[bytes, bytes]]]:
    batch: list[tuple[bytes, bytes]] = []
    for one in folded_records(pushed, project.offline, upto=upto, keys=keys):
        batch.append(one)
        if len(batch) == BATCH_KEYS:
            yield batch
            batch = []
    yield batch


def _as_of(pushed: PushedView, record: bytes | None, upto: int) -> bytes | None:
    """A record as it would be if it had been written at an instant; as it is, where it is of a later one. None: of no rows."""
    if record is None or pushed.records.is_empty(record):
        return None
    if pushed.records.instant(record) > upto:
        return record
    return pushed.records.changed(record, (), instant=upto)

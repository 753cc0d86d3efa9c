"""The parts of a service, ready to be looked up: what to read first, and what a reading answers.

A view that is materialized answers from slots, a continuous view over pushed rows from tiles; nobody else can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from featurestore.clock import to_datetime
from featurestore.declare.push import PushSource
from featurestore.errors import NotMaterializedError
from featurestore.online.judged_slots import Columns, JudgedSlots
from featurestore.online.source_state import LAG_US, NEVER, SourceState, Witness, served_as_of, state_key
from featurestore.online.view_codec import ViewCodec, edition_of, unpack_watermark
from featurestore.semantics.judge import spread
from featurestore.semantics.service import ServiceView
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedView
from featurestore.serving.online_result import Judged, PartAnswer
from featurestore.tiles.series import ViewTiles
from featurestore.tiles.tile_codec import TileCodec


class ViewReader(Protocol):
    """One view as a service reads it. `marks`: the keys to read before any record; `places`: column → number of its feature;
    `alike`: the first of its lists of statuses for each of them, where its features have one status between them, as plain ones do; else None."""

    part: ServiceView
    codec: ViewCodec
    marks: tuple[bytes, ...]
    places: dict[str, int]
    names: tuple[str, ...]
    alike: tuple[int, ...] | None

    def answer(
        self, now: int, marks: Sequence[bytes | None], records: Sequence[bytes | None]
    ) -> tuple[PartAnswer, Columns] | None:
        """The statuses and the columns of the view's features; None where a record was rewritten between two reads.

        now: the online store's clock (µs). Raises NotMaterializedError where the view has no values for it.
        """


class Vouched(Protocol):
    """What a process knows of push sources beside what is online."""

    @property
    def lag(self) -> int:
        """µs that an answer may be behind the clock without being stale."""

    def witness(self, source: PushSource) -> Witness:
        """Who vouches for readings of a source."""


def reader_of(part: ServiceView, project: str, *, tagged: bool, vouched: Vouched | None = None) -> ViewReader:
    """The part, ready to be looked up. tagged: as the online store says it."""
    if part.view.is_pushed:
        return PushedReader(part, project, vouched, tagged=tagged)
    return MaterializedReader(part, project, tagged=tagged)


def _places(part: ServiceView) -> dict[str, int]:
    names = [feature.name for feature in part.view.features]
    return {part.column(feature.name): names.index(feature.name) for feature in part.features}


def _answered(
    loaded: ViewReader, statuses: list[list[Status]], columns: Columns, *, as_of: int, stale: bool
) -> tuple[PartAnswer, Columns]:
    """The answer, withheld where the view says so of values that are late."""
    if stale and loaded.part.view.declared.stale == "withhold":
        rows = len(statuses[0])
        statuses = [[Status.WITHHELD] * rows] * len(columns)
        columns = [[None] * rows] * len(columns)
    if loaded.alike is None:
        judged = _shared([statuses[place] for place in loaded.places.values()])
    else:
        judged = Judged(statuses[:1], loaded.alike)
    return PartAnswer(loaded.names, judged, as_of, stale), columns


def _shared(columns: Sequence[list[Status]]) -> Judged:
    """The statuses of columns; those of one row are shared where they are the same, others where they are one list."""
    names: Sequence[int] = [status[0] for status in columns] if len(columns[0]) == 1 else list(map(id, columns))
    if names.count(names[0]) == len(names):
        return Judged(columns[:1], (0,) * len(names))
    lists = dict(zip(names, columns, strict=True))
    numbers = dict(zip(lists, range(len(lists)), strict=True))
    return Judged(list(lists.values()), tuple([numbers[name] for name in names]))


class MaterializedReader:
    """A part whose values were materialized: slots, judged at the newest watermark that rule 0 allows."""

    def __init__(self, part: ServiceView, project: str, *, tagged: bool) -> None:
        self.part = part
        self.view = part.view
        self.codec = ViewCodec(project, part.view, tagged=tagged)
        self.marks: tuple[bytes, ...] = (self.codec.watermark_key,)
        self.places = _places(part)
        self.names = tuple(self.places)
        self._slots = JudgedSlots(part.view, self.codec)
        self.alike: tuple[int, ...] | None = (0,) * len(self.names) if self._slots.shares_statuses else None
        self._mark: _Watermark | None = None

    def answer(
        self, now: int, marks: Sequence[bytes | None], records: Sequence[bytes | None]
    ) -> tuple[PartAnswer, Columns] | None:
        """See ViewReader."""
        mark = self._mark
        if mark is None or mark.held != marks[0]:
            mark = self._mark = _Watermark(marks[0], unpack_watermark(marks[0]), edition_of(marks[0]))
        base = self.view.timing.served(mark.instants, now)
        if base is None:
            raise NotMaterializedError(
                f"View '{self.view.name}' has no values online at {to_datetime(now).isoformat()}; run "
                "featurestore materialize. Its definition is "
                f"{self.view.fingerprint[:12]}, its first values are served {_first(self.view, marks[0])}"
            )
        try:
            statuses, columns = self._slots.judged(records, base, mark.edition)
        except LookupError:
            return None
        return _answered(self, statuses, columns, as_of=base, stale=self.view.timing.is_late(base, now))


class _Watermark(NamedTuple):
    """A watermark as it was read and as it says: between two runs it stays as it is, and is not decoded again."""

    held: bytes | None
    instants: tuple[int, ...]
    edition: int


def _first(view: ResolvedView, watermark: bytes | None) -> str:
    instants = unpack_watermark(watermark)
    if not instants:
        return "after the first run"
    return f"from {to_datetime(view.timing.served_from(min(instants))).isoformat()} on"


class PushedReader:
    """A part over pushed rows: tiles, merged for the instant up to which they are confirmed to hold all of the log."""

    def __init__(self, part: ServiceView, project: str, vouched: Vouched | None = None, *, tagged: bool) -> None:
        assert isinstance(part.view.source, PushSource)
        self.part = part
        self.view = part.view
        self.codec = ViewCodec(project, part.view, tagged=tagged)
        self.marks: tuple[bytes, ...] = (
            state_key(project, part.view.source, tagged=tagged),
            self.codec.watermark_key,
        )
        self.places = _places(part)
        self.names = tuple(self.places)
        self.alike: tuple[int, ...] | None = None
        self._tiles = ViewTiles(part.view)
        self._records = TileCodec(self._tiles)
        self._witness = None if vouched is None else vouched.witness(part.view.source)
        self._known: _Marks | None = None
        self._lag = LAG_US if vouched is None else vouched.lag
        self._defaults = [feature.default for feature in part.view.features]

    def answer(
        self, now: int, marks: Sequence[bytes | None], records: Sequence[bytes | None]
    ) -> tuple[PartAnswer, Columns] | None:
        """See ViewReader."""
        if marks[1] is None:
            raise NotMaterializedError(
                f"View '{self.view.name}' ({self.view.fingerprint[:12]}) was not filled from its push log yet; run "
                "featurestore materialize"
            )
        as_of = self._as_of(marks[0], marks[1], now)
        stale = self.view.timing.is_late(as_of, now, lag=self._lag)
        tiles = self._records.read([record for record in records if record is not None])
        if max(tiles.instants, default=as_of) > as_of:
            return None
        columns, statuses = self._tiles.columns(tiles, as_of)
        if len(tiles.rows) < len(records) or not all(tiles.rows):
            known = iter([row if count else None for row, count in enumerate(tiles.rows)])
            places = [None if record is None else next(known) for record in records]
            return _answered(self, *spread(places, statuses, columns, self._defaults), as_of=as_of, stale=stale)
        return _answered(self, statuses, columns, as_of=as_of, stale=stale)

    def _as_of(self, held: bytes | None, mark: bytes, now: int) -> int:
        """The instant to answer for. Between two pushes the marks stay as they are, and are not decoded again."""
        known = self._known
        if known is None or known.held != held or known.mark != mark:
            filled = max(unpack_watermark(mark), default=NEVER)
            known = self._known = _Marks(held, mark, SourceState.unpack(held), filled)
        return served_as_of(known.state, now, held=held, filled=known.filled, witness=self._witness)


class _Marks(NamedTuple):
    """The state of a source and the watermark of a view over it, as they were read and as they say."""

    held: bytes | None
    mark: bytes
    state: SourceState
    filled: int

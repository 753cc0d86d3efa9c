"""A consumer of one source's stream: it reads the partitions that are its own, and pushes what they say, exactly once.

The log keeps how far each partition was read in the same append as the rows up to there. A consumer that takes a partition writes its
own number there (`turn`); the consumer that read before is told by the next push that it was deposed, with nothing kept. So it does not matter
who dies where: what is in the log is read no more, and what is not is read again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple, Protocol

from featurestore.declare.push import PushSource
from featurestore.errors import (
    BrokerError,
    DeposedError,
    FeatureStoreError,
    MessagesLostError,
    OnlineStoreError,
    PushError,
    RowRefusedError,
    StreamReplacedError,
)
from featurestore.lazy import pa
from featurestore.plurals import plural
from featurestore.push.push_queue import BATCH_ROWS, Advance, PushAnswer
from featurestore.streams.decoder import DecodedRows, Decoder
from featurestore.streams.membership import Assignment, Membership, PartitionReport
from featurestore.streams.poison import Poison, shown_reason
from featurestore.streams.reader import Message, PartitionLag, Place, StreamReader, is_same, known_of

LOGGER = logging.getLogger("featurestore.streams")

SIGN_UP_SECONDS = 5.0
"""Seconds between two looks at who else reads, at the partitions there are, and at how far one is."""

READ_SECONDS = 0.5
"""Seconds for which messages are waited for at once."""

BATCH_BYTES = 64 << 20
"""Bytes that the rows of one push have at most, but for those of one message."""

BATCH_MESSAGES = 5_000
"""Messages that are read at once at most."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 30.0
"""Seconds after which is tried again what failed: at first, and, doubled each time, at most."""


@dataclass(frozen=True)
class Position:
    """How far a partition was read, as the log keeps it. place: of the reader; identity, ordinal: see Place; turn: the number of the
    consumer that reads it; taken, lost: messages that were read, and that were gone before they were."""

    place: str | None = None
    identity: str = ""
    ordinal: int | None = None
    turn: int = 0
    taken: int = 0
    lost: int = 0

    @classmethod
    def of(cls, text: str | None) -> Position:
        """What a log's text says; of a partition that was never read, for None."""
        return cls() if text is None else cls(**json.loads(text))

    @property
    def text(self) -> str:
        """As the log keeps it."""
        return json.dumps(asdict(self))

    def after(self, message: Message, identity: str) -> Position:
        """The position behind a message more. identity: of the stream, where that is known by now."""
        taken = self.taken + 1
        return replace(
            self, place=message.after, ordinal=message.ordinal, taken=taken, identity=known_of(self.identity, identity)
        )


def partition_name(stream: str, number: int) -> str:
    """What the log calls a partition."""
    return f"{stream} {number}"


class StreamLog(Protocol):
    """The push log of the source, as a consumer uses it."""

    def submit(self, rows: pa.Table, advance: Advance) -> PushAnswer:
        """Push rows with how far they are; see Pusher."""

    def positions(self) -> dict[str, str]:
        """How far partitions were read, as of the rows that are there."""

    def is_open(self) -> bool:
        """Whether rows can be pushed by now."""


class Consumed(NamedTuple):
    """What was done with the messages of one source's stream."""

    messages: int = 0
    """Messages that were read and are done with."""
    accepted: int = 0
    """Rows of them that were new, and are kept."""
    unchanged: int = 0
    """Rows that were there before, to the bit."""
    late: int = 0
    """Rows that happened longer ago than the lateness, and are kept aside."""
    poison: int = 0
    """Messages that could not be taken, and are kept aside with the reason."""
    lost: int = 0
    """Messages that were gone before they were read, and were passed over on request, as far as the broker tells how many."""

    def beside(self, other: Iterable[int]) -> Consumed:
        """What both did."""
        return Consumed(*(mine + its for mine, its in zip(self, other, strict=True)))


class ConsumeOptions(NamedTuple):
    """until_end: stop where every partition was at its end. skip_lost: go on where messages are gone that were not read.
    begin_again: where a stream was made again, read the new one from its beginning."""

    until_end: bool = False
    skip_lost: bool = False
    begin_again: bool = False


class Consumer:
    """Reads the stream of one source. For one thread."""

    def __init__(
        self, source: PushSource, *, log: StreamLog, reader: StreamReader, decoder: Decoder, poison: Poison, membership: Membership,
        options: ConsumeOptions,
    ) -> None:  # fmt: skip
        assert source.stream is not None
        self._source, self._stream, self._log = source, f"{source.stream.kind} {source.stream.called}", log
        self._reader, self._decoder, self._poison, self._membership = reader, decoder, poison, membership
        self._options = options
        self._held: dict[int, Position] = {}
        self._caught_up: dict[int, int] = {}
        self._reached: set[int] = set()  # partitions that were at their ends
        self._every: list[int] = []
        self._identity = ""
        self._assignment: Assignment | None = None
        self._sign_up_at = 0.0
        self._is_unsure = False
        self._gap: MessagesLostError | StreamReplacedError | None = None
        self._stop = threading.Event()
        self.done = Consumed()

    def consume(self, stop: threading.Event) -> Consumed:
        """Go on until `stop` is set; what was begun then is completed. BrokerError where that cannot help itself."""
        pause, trouble = FIRST_PAUSE_SECONDS, ""
        self._stop = stop
        try:
            while not stop.is_set():
                try:
                    if self._is_done():
                        break
                    self._turn()
                    pause, trouble = FIRST_PAUSE_SECONDS, ""
                except FeatureStoreError as error:
                    self._is_unsure = True
                    if isinstance(error, MessagesLostError | StreamReplacedError) and self._is_passed_over(error):
                        self._gap = error
                    elif not self._passes(error):
                        raise
                    if isinstance(error, DeposedError):
                        self._sign_up_at = 0.0
                    elif str(error) != trouble:
                        trouble = str(error)
                        LOGGER.warning("%s: %s: %s", self._source.title, type(error).__name__, error)
                    stop.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            return self.done
        finally:
            self._leave()
            self._reader.close()

    def _passes(self, error: FeatureStoreError) -> bool:
        """Whether trying again may help, sooner or later: with time, or with what somebody does meanwhile."""
        if isinstance(error, PushError) and not error.retry:
            return not self._log.is_open()
        return error.retry or isinstance(error, OnlineStoreError)

    def _leave(self) -> None:
        lags: Mapping[int, PartitionLag] = {}
        with suppress(BrokerError):
            lags = {} if self._is_unsure else self._reader.lags()
        try:
            self._membership.leave(self._reports(lags))
        except FeatureStoreError as error:  # its lease runs out by itself
            LOGGER.warning("%s: %s", self._source.title, error)

    def _is_done(self) -> bool:
        """Whether there is nothing left to do of a run that has an end."""
        if not self._options.until_end or self._assignment is None or self._is_unsure:
            return False
        return self._assignment.mine <= self._reached and self._assignment.mine <= self._held.keys()

    def _turn(self) -> None:
        if self._is_unsure:
            self._look_again()
        if time.monotonic() >= self._sign_up_at:
            self._sign_up()
            self._sign_up_at = time.monotonic() + SIGN_UP_SECONDS
        if not self._held:
            self._stop.wait(READ_SECONDS)
            return
        messages = self._reader.read(BATCH_MESSAGES, READ_SECONDS)
        if messages:
            self._keep(messages)
        elif self._options.until_end:
            self._note_ends(self._reader.lags())

    # --- whose partitions ---------------------------------------------------------------------

    def _sign_up(self) -> None:
        away: BrokerError | None = None
        lags: Mapping[int, PartitionLag] = {}
        try:
            self._every = self._reader.partitions()
            self._identity, lags = self._reader.identity(), self._reader.lags()
        except BrokerError as error:
            if not error.retry:
                raise
            away = error
        for number, one in self._held.items():
            self._check_identity(number, one)
        self._assignment = assigned = self._membership.sign_up(self._reports(lags), self._every)
        self._note_ends(lags)
        left = [number for number in self._held if number not in assigned.mine]
        if away is not None and not left:
            raise away
        if not left and not assigned.free:
            return
        for number in left:
            LOGGER.info("%s: partition %d is read by another consumer from now on", self._source.title, number)
            del self._held[number]
        if assigned.free and away is None:
            self._take(assigned.free)
        else:
            self._assign(self._held)
        self._membership.sign_up(self._reports({}), self._every)
        if away is not None:
            raise away

    def _reports(self, lags: Mapping[int, PartitionLag]) -> dict[int, PartitionReport]:
        now = 0 if self._assignment is None else self._assignment.now
        for number in self._held:
            if number not in self._caught_up or (number in lags and lags[number].messages == 0):
                self._caught_up[number] = now
        unknown = PartitionLag(None)
        return {number: PartitionReport(*lags.get(number, unknown), self._caught_up[number]) for number in self._held}

    def _note_ends(self, lags: Mapping[int, PartitionLag]) -> None:
        self._reached |= {number for number, lag in lags.items() if lag.messages == 0}

    def _take(self, numbers: Iterable[int]) -> None:
        """Begin to read partitions more: from now on nobody else can."""
        texts = self._log.positions()
        taken: dict[int, Position] = {}
        for number in sorted(numbers):
            before = Position.of(texts.get(self._name(number)))
            try:
                self._check_identity(number, before)
            except StreamReplacedError as error:
                if not self._is_passed_over(error):
                    raise
                before = self._passed_over(before, error)
            taken[number] = replace(before, identity=known_of(before.identity, self._identity), turn=before.turn + 1)
        try:
            begins = self._assign({**self._held, **taken})
        except (MessagesLostError, StreamReplacedError) as error:
            if not self._is_passed_over(error) or error.partition not in taken:
                raise
            taken[error.partition] = self._passed_over(taken[error.partition], error)
            begins = self._assign({**self._held, **taken}, skipped=error.partition)
        taken = {number: replace(one, place=begins[number]) for number, one in taken.items()}
        since = {self._name(number): texts.get(self._name(number)) for number in taken}
        upto = {self._name(number): one.text for number, one in taken.items()}
        self._log.submit(self._decoder.nothing, Advance(since, upto)).result()
        self._held |= taken
        for number, one in taken.items():
            LOGGER.info("%s: this process reads partition %d from %s", self._source.title, number, one.place)

    def _check_identity(self, number: int, one: Position) -> None:
        """StreamReplacedError where the stream is known to be another than the one that was read."""
        if is_same(one.identity, self._identity):
            return
        raise StreamReplacedError(
            f"{self._source.stream.title}, partition {number}: the broker has another topic of that name by now than the one that was "  # type: ignore[union-attr]  # a source that is consumed has a stream
            "read: it was deleted and made again. Nothing was read of it. To read it from its beginning: featurestore consume --begin-again",
            partition=number,
        )

    def _assign(self, held: Mapping[int, Position], skipped: int | None = None) -> dict[int, str]:
        """Tell the reader what to read; where messages are gone, and that is to be passed over, from what is there."""
        places = {
            number: Place(one.place, one.identity, one.ordinal, skipped=number == skipped)
            for number, one in held.items()
        }
        return self._reader.assign(places)

    def _look_again(self) -> None:
        """What is kept by now, after something went wrong: of partitions that others have taken, nothing is read any more."""
        texts = self._log.positions()
        found = {number: Position.of(texts.get(self._name(number))) for number in self._held}
        self._held = {number: one for number, one in found.items() if one.turn == self._held[number].turn}
        gap, self._gap = self._gap, None
        skipped = None
        if gap is not None and gap.partition in self._held:
            skipped, before = gap.partition, self._held[gap.partition]
            after, name = self._passed_over(before, gap), self._name(gap.partition)
            begins = self._assign({**self._held, gap.partition: after}, skipped)
            after = replace(after, place=begins[gap.partition])
            self._log.submit(self._decoder.nothing, Advance({name: before.text}, {name: after.text})).result()
            self._held[gap.partition] = after
        else:
            self._assign(self._held)
        self._is_unsure = False

    def _is_passed_over(self, error: MessagesLostError | StreamReplacedError) -> bool:
        """Whether it was said that reading is to go on all the same."""
        return self._options.skip_lost if isinstance(error, MessagesLostError) else self._options.begin_again

    def _passed_over(self, before: Position, gap: MessagesLostError | StreamReplacedError) -> Position:
        """A position after messages that are gone, which are counted; or none yet, in a stream that was made again."""
        if isinstance(gap, StreamReplacedError):
            LOGGER.warning("%s: begins again: %s", self._source.title, gap)
            return replace(before, place=None, ordinal=None, identity=self._identity)
        lost = gap.lost or 0
        self.done = self.done.beside((0, 0, 0, 0, 0, lost))
        LOGGER.warning("%s: passed over: %s", self._source.title, gap)
        ordinal = None if before.ordinal is None else before.ordinal + lost
        return replace(before, place=gap.place, ordinal=ordinal, lost=before.lost + lost)

    def _name(self, number: int) -> str:
        return partition_name(self._stream, number)

    # --- what they say ------------------------------------------------------------------------

    def _keep(self, messages: Sequence[Message]) -> None:
        """Push what messages say, in pieces of so many rows."""
        messages = [one for one in messages if one.partition in self._held]
        decoded = self._decoder.decoded(messages)
        begin = rows = size = 0
        for end, one in enumerate(decoded):
            more, larger = (0, 0) if isinstance(one, PushError) else (one.rows, one.size)
            if rows and (rows + more > BATCH_ROWS or size + larger > BATCH_BYTES):
                self._keep_piece(messages[begin:end], decoded[begin:end])
                begin, rows, size = end, 0, 0
            rows, size = rows + more, size + larger
        if begin < len(messages):
            self._keep_piece(messages[begin:], decoded[begin:])

    def _keep_piece(self, messages: Sequence[Message], decoded: list[DecodedRows | PushError]) -> None:
        after = dict(self._held)
        for message in messages:
            after[message.partition] = after[message.partition].after(message, self._identity)
        moved = {message.partition for message in messages}
        advance = Advance(
            {self._name(number): self._held[number].text for number in moved},
            {self._name(number): after[number].text for number in moved},
        )
        told: dict[int, PushError] = {}
        while True:
            wrong = {n: one for n, one in enumerate(decoded) if isinstance(one, PushError) and n not in told}
            if wrong:  # before the position says that they were read
                self._poison.add(
                    self._source.name, self._stream, [(messages[n], shown_reason(one)) for n, one in wrong.items()]
                )
                told |= wrong
            tables = [one for one in decoded if isinstance(one, DecodedRows)]
            try:
                pushed = self._log.submit(self._decoder.together(tables), advance).result()
                break
            except RowRefusedError as error:
                _refuse(decoded, error)
        self._held = after
        self._reached -= moved if not self._options.until_end else set()
        self.done = self.done.beside((len(messages), *pushed, len(told), 0))
        if told:
            number, why = next(iter(told.items()))
            LOGGER.warning(
                "%s: %d %s kept aside (featurestore poison list %s), such as partition %d, %s: %s",
                self._source.title, len(told), plural(len(told), "message is", "messages are"), self._source.name, messages[number].partition, messages[number].offset, shown_reason(why),
            )  # fmt: skip


def _refuse(decoded: list[DecodedRows | PushError], error: RowRefusedError) -> None:
    """Put the error in the place of the messages that have the rows that it tells of."""
    rows, begin = iter(sorted(error.reasons)), 0
    row = next(rows, None)
    for number, one in enumerate(decoded):
        if isinstance(one, PushError):
            continue
        end = begin + one.rows
        if row is not None and row < end:
            decoded[number] = PushError(error.reasons[row])
            while row is not None and row < end:
                row = next(rows, None)
        begin = end

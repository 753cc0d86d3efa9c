"""The bytes that an online store keeps: keys, watermarks, and the records of views that are materialized.

    key         project ":" view id (8 bytes) kind (1 byte) entity key
                in a store that spreads its keys: project ":" "{" tag (8 hex digits) "}" view id, and so on
    entity key  each column in order: fixed-width values as they are, others behind their length (u32)
    watermark   format (u8), then the last two complete instants, newest first (i64 each); with an edition, format 2 and
                the edition (u32) before the instants
    record      format (u8), then its slots, those of later editions first, within an edition newest first
    slot        instant (i64), 1 if it has a row else 0, and twice its edition modulo 128 (u8); with a row: event_time
                (i64), until (i64, where the source has one), a bit a null (least significant first) and then one for
                each folded feature whose status is not PRESENT, every feature's fixed-width value or the length of its
                bytes (u32), then those bytes

The tag keeps together what is written together: the keys of a view version, and those of a push source with all views over it.

Numbers are little-endian. The view id stands for the view's name and value fingerprint, so that the types of a record
are known from its key, and two versions of a view never share one. A slot is what the view answers from its instant
until the next slot's; without a row, the key had no row that counts. Instants that are computed again, after their rows
were corrected, get an edition of their own: its slots lie before the older ones, and the watermark switches to them all.
A reader passes by slots of an edition after its watermark's. A record has slots of two editions at most, which follow each
other, so a few bits tell which comes first.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from operator import add, getitem
from typing import Any, NamedTuple

import numpy as np

from featurestore.errors import OnlineStoreError
from featurestore.lazy import pa, pc
from featurestore.online.wire import (
    FROM_WIRE,
    KEY_WIRE,
    as_binary,
    cut,
    fixed_column,
    key_pieces,
    tails_column,
    unpack_key,
    wire_dtype,
)
from featurestore.semantics.status import Status
from featurestore.semantics.time import END
from featurestore.semantics.view import EVENT_TIME, UNTIL, ResolvedView, status_column

FORMAT = 1
EDITED = struct.Struct("<BI")  # how a watermark with an edition begins
EDITED_FORMAT = 2
EDITIONS = 128  # that a slot can tell apart; one of the following half of them is a later one
WATERMARK = b"w"  # follows the prefix of a view version
HEAD = struct.Struct("<qB")


def project_prefix(project: str) -> bytes:
    """What every key of a project begins with."""
    return project.encode() + b":"


def key_prefix(project: str, view: str, fingerprint: str, *, pushed: str | None = None, tagged: bool = False) -> bytes:
    """What every key of a view version begins with. pushed: the push source that it is over; tagged: as the store says it."""
    own = _digest(view, fingerprint)
    if not tagged:
        return project_prefix(project) + own
    return project_prefix(project) + _tag(own if pushed is None else _digest(*_named(pushed))) + own


def source_prefix(project: str, pushed: str, *, tagged: bool = False) -> bytes:
    """What every key of a push source, by its name, begins with."""
    return key_prefix(project, *_named(pushed), tagged=tagged)


def _named(pushed: str) -> tuple[str, str]:
    return f"push source {pushed}", ""


def _digest(view: str, fingerprint: str) -> bytes:
    return hashlib.blake2b(f"{view}\0{fingerprint}".encode(), digest_size=8).digest()


def _tag(digest: bytes) -> bytes:
    return b"{%s}" % digest[:4].hex().encode()


def pack_watermark(instants: Sequence[int], edition: int = 0) -> bytes:
    """The last complete instants, newest first, two at most, and how often what was complete was computed again."""
    head = EDITED.pack(EDITED_FORMAT, edition) if edition else bytes([FORMAT])
    return head + struct.pack(f"<{len(instants[:2])}q", *instants[:2])


def unpack_watermark(data: bytes | None) -> tuple[int, ...]:
    """The complete instants, newest first; none where nothing was ever completed."""
    if data is None:
        return ()
    start = EDITED.size if _is_edited(data) else 1
    return struct.unpack_from(f"<{(len(data) - start) // 8}q", data, start)


def edition_of(data: bytes | None) -> int:
    """The edition of the slots that a watermark is about."""
    if data is None or not _is_edited(data):
        return 0
    edition: int = EDITED.unpack_from(data)[1]
    return edition


def _is_edited(data: bytes) -> bool:
    if data and data[0] == EDITED_FORMAT:
        return True
    _check(data)
    return False


def _flags(edition: int, has_row: int) -> int:
    return edition % EDITIONS << 1 | has_row


def _is_later(flags: int, edition: int) -> bool:
    return 0 < ((flags >> 1) - edition) % EDITIONS < EDITIONS // 2


def _check(data: bytes) -> None:
    if not data or data[0] != FORMAT:
        raise OnlineStoreError(
            f"The online store holds format {data[0] if data else 'nothing'}, and this version reads {FORMAT}; "
            "run featurestore teardown and materialize again, or use the version that wrote it"
        )


class Row(NamedTuple):
    """The row that a slot holds: µs, µs (END where open), each feature's canonical scalar, and the numbers of the folded
    features whose status is not PRESENT."""

    event_time: int
    until: int
    values: tuple[Any, ...]
    odd: tuple[int, ...]


class Slot(NamedTuple):
    """What a key answers from `instant` (µs) on; `row` None where no row counts. `data` is its encoded form."""

    instant: int
    row: Row | None
    data: bytes


class Rows(NamedTuple):
    """Rows of several records, column by column: what `Row` has of each. event_time None: that record has no row. odd:
    (record, feature) each."""

    event_times: Sequence[int | None]
    untils: Sequence[int]
    columns: Sequence[Sequence[Any]]
    odd: Sequence[tuple[int, int]]


class ViewCodec:
    """Encodes and decodes one version of a view: keys and slots, a row at a time or column by column."""

    def __init__(self, project: str, view: ResolvedView, *, tagged: bool = False) -> None:
        pushed = view.source.name if view.is_pushed else None
        self.prefix = key_prefix(project, view.name, view.fingerprint, pushed=pushed, tagged=tagged)
        self.watermark_key = self.prefix + WATERMARK
        self.state_key = self.prefix + b"s"
        self.lease_key = self.prefix + b"l"
        self.run_key = self.prefix + b"g"
        self.chunks_key = self.prefix + b"c"
        self.record_prefix = self.prefix + b"r"
        self._keys = tuple(key.type for key in view.keys)
        self._packers = tuple(KEY_WIRE[of.kind](of) for of in self._keys)
        self._types = tuple(feature.type for feature in view.features)
        self._has_until = view.source.until is not None
        self._folded = tuple(i for i, feature in enumerate(view.features) if not feature.plain)
        self._nulls = (len(self._types) + len(self._folded) + 7) // 8
        codes = "".join(of.wire or "I" for of in self._types)
        self._row = struct.Struct(f"<q{'q' if self._has_until else ''}{self._nulls}s{codes}")
        self._first = struct.Struct(f"<B{HEAD.format[1:]}{self._row.format[1:]}")
        self._no_nulls = b"\0" * self._nulls
        self._lead = 2 if self._has_until else 1
        self._long = tuple(i for i, of in enumerate(self._types) if of.wire is None)
        self._from_wire = tuple((i, FROM_WIRE[of.kind](of)) for i, of in enumerate(self._types) if of.kind in FROM_WIRE)
        of_place: dict[int, Any] = dict(self._from_wire)
        self._tails = tuple((i, of_place.pop(i, bytes)) for i in self._long)
        self._fixed = tuple(of_place.items())
        """What becomes of the bytes behind the fixed part, and of what lies in that; a place and a function each."""

    def key(self, values: Sequence[Any]) -> bytes:
        """The store's key for canonical key scalars, none of them null."""
        return self.keys_of([[value] for value in values], 1)[0]

    def keys_of(self, columns: Sequence[Sequence[Any]], rows: int) -> list[bytes]:
        """`key` for each of `rows` rows of key columns."""
        packed = [map(pack, column) for pack, column in zip(self._packers, columns, strict=True)]
        return list(map(b"".join, zip(repeat(self.record_prefix, rows), *packed, strict=True)))

    def keys(self, columns: Sequence[pa.Array], rows: int) -> list[bytes]:
        """The store's key for each of `rows` rows of key columns without nulls."""
        return cut(self.key_array(columns, rows))

    def key_array(self, columns: Sequence[pa.Array], rows: int) -> pa.LargeBinaryArray:
        """`keys` as Arrow has them."""
        pieces = [pa.repeat(pa.scalar(self.record_prefix, pa.large_binary()), rows)]
        for of, column in zip(self._keys, columns, strict=True):
            pieces += key_pieces(of, column)
        return pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()))

    def values_of(self, key: bytes) -> list[Any]:
        """The key scalars of a record's key: what `key` packed."""
        return unpack_key(self._keys, key, len(self.record_prefix))

    def empty(self, instant: int, edition: int = 0) -> bytes:
        """A slot without a row."""
        return HEAD.pack(instant, _flags(edition, 0))

    def of_edition(self, slot: Slot, edition: int) -> bytes:
        """A slot as one of another edition."""
        return HEAD.pack(slot.instant, _flags(edition, slot.row is not None)) + slot.data[HEAD.size :]

    def records(self, instant: int, rows: pa.Table, features: Sequence[str], *, edition: int = 0) -> list[bytes]:
        """A record of one slot for each of the rows `(e, until, feature…)`, all of which count at `instant`."""
        count = rows.num_rows
        fields: list[tuple[str, Any]] = [("format", "u1"), ("instant", "<i8"), ("flags", "u1"), ("e", "<i8")]
        fields += [("until", "<i8")] if self._has_until else []
        fields += [("nulls", "u1", (self._nulls,))] if self._nulls else []  # type: ignore[list-item]  # a field of another shape
        fields += [(f"f{i}", wire_dtype(of)) for i, of in enumerate(self._types)]
        block = np.zeros(count, np.dtype(fields))
        block["format"], block["instant"], block["flags"] = FORMAT, instant, _flags(edition, 1)
        block["e"] = rows[EVENT_TIME].to_numpy()
        if self._has_until:
            block["until"] = rows[UNTIL].to_numpy()
        tails: list[pa.Array] = []
        nulls = np.zeros((count, self._nulls * 8), np.uint8)
        for i, (name, of) in enumerate(zip(features, self._types, strict=True)):
            column = rows[name].combine_chunks() if isinstance(rows[name], pa.ChunkedArray) else rows[name]
            if column.null_count:
                nulls[:, i] = pc.is_null(column).to_numpy(zero_copy_only=False)
            if of.wire is None:
                tails.append(tails_column(of, column))
                block[f"f{i}"] = pc.binary_length(tails[-1]).to_numpy()
            else:
                block[f"f{i}"] = fixed_column(of, column)
        for bit, i in enumerate(self._folded, len(self._types)):
            nulls[:, bit] = rows[status_column(features[i])].to_numpy() != Status.PRESENT
        block["nulls"] = np.packbits(nulls, axis=1, bitorder="little")
        fixed = as_binary(block)
        return cut(pc.binary_join_element_wise(fixed, *tails, pa.scalar(b"", pa.large_binary())) if tails else fixed)

    def with_older(self, record: bytes, *older: bytes) -> bytes:
        """A record of one slot, with older slots behind it."""
        return b"".join((record, *older))

    def record(self, slots: Sequence[bytes]) -> bytes:
        """A record of these slots, newest first."""
        return b"\x01" + b"".join(slots)

    def rows(self, records: Sequence[bytes], base: int, *, edition: int = 0) -> Rows:
        """The row of each record's newest slot that is not after `base`, in an edition: what a lookup asks for.

        Raises LookupError where a record has no such slot.
        """
        if len(records) == 1:
            return self._of_one(records[0], base, edition)
        try:
            formats, instants, flags, *columns = map(list, zip(*map(self._first.unpack_from, records), strict=True))
        except (struct.error, ValueError):  # a slot without a row is shorter, or there is no record
            return self._one_by_one(records, base, edition)
        usual = formats.count(FORMAT) == flags.count(_flags(edition, 1)) == len(records)
        if not usual or max(instants) > base:
            return self._one_by_one(records, base, edition)
        # Every record's first slot is the one asked for, and has a row: as `slot` reads it, but all of them at once.
        event_times = columns.pop(0)
        untils = columns.pop(0) if self._has_until else [END] * len(records)
        nulls = columns.pop(0)
        ends = [self._first.size] * len(records)
        for i in self._long:
            starts, ends = ends, list(map(add, ends, columns[i]))
            columns[i] = list(map(getitem, records, map(slice, starts, ends)))
        for i, convert in self._from_wire:
            columns[i] = list(map(convert, columns[i]))
        odd, width = [], len(columns)
        usual = nulls.count(self._no_nulls) == len(nulls)
        for row, bits in enumerate(nulls if not usual else ()):
            if bits != self._no_nulls:
                for i in _set_bits(bits):
                    if i < width:
                        columns[i][row] = None
                    else:
                        odd.append((row, self._folded[i - width]))
        return Rows(event_times, untils, columns, odd)

    def _of_one(self, record: bytes, base: int, edition: int) -> Rows:
        """`rows` of one record."""
        try:
            form, instant, flags, *fixed = self._first.unpack_from(record)
        except struct.error:  # a slot without a row is shorter
            return self._one_by_one([record], base, edition)
        if form != FORMAT or flags != _flags(edition, 1) or instant > base:
            return self._one_by_one([record], base, edition)
        event_time, until, values, odd = self._decoded(fixed, record, self._first.size)
        return Rows((event_time,), (until,), [[value] for value in values], [(0, i) for i in odd] if odd else ())

    def _one_by_one(self, records: Sequence[bytes], base: int, edition: int) -> Rows:
        slots = [self.slot(record, base, edition=edition) for record in records]
        if None in slots:
            raise LookupError(base)
        nothing = (None, END, (None,) * len(self._types), ())
        rows = [nothing if slot is None or slot.row is None else slot.row for slot in slots]
        if not rows:
            return Rows((), (), [()] * len(self._types), [])
        event_times, untils, values, odd = zip(*rows, strict=True)
        places = [(row, i) for row, features in enumerate(odd) for i in features]
        return Rows(event_times, untils, list(zip(*values, strict=True)), places)

    def slot(self, record: bytes, base: int, *, edition: int = 0) -> Slot | None:
        """The newest slot that an edition has whose instant is not after `base`; None where the record has none."""
        _check(record)
        start = 1
        while start < len(record):
            instant, flags = HEAD.unpack_from(record, start)
            has_row = flags & 1
            end = start + HEAD.size
            fixed: tuple[Any, ...] = ()
            if has_row:
                fixed = self._row.unpack_from(record, end)
                end += self._row.size
                tail = end
                for i in self._long:
                    end += fixed[self._lead + 1 + i]
            if instant <= base and not _is_later(flags, edition):
                row = self._decoded(fixed, record, tail) if has_row else None
                return Slot(instant, row, record[start:end])
            start = end
        return None

    def _decoded(self, fixed: Sequence[Any], record: bytes, tail: int) -> Row:
        lead = self._lead
        values = list(fixed[lead + 1 :])
        for i, convert in self._tails:
            end = tail + values[i]
            values[i] = convert(record[tail:end])
            tail = end
        for i, convert in self._fixed:
            values[i] = convert(values[i])
        odd: list[int] = []
        if fixed[lead] != self._no_nulls:
            for i in _set_bits(fixed[lead]):
                if i < len(values):
                    values[i] = None
                else:
                    odd.append(self._folded[i - len(values)])
        return Row(fixed[0], fixed[1] if self._has_until else END, tuple(values), tuple(odd))


@lru_cache(maxsize=1024)
def _set_bits(data: bytes) -> tuple[int, ...]:
    """The places of the bits that are 1, least significant first; rows have the same ones again and again."""
    bits, places = int.from_bytes(data, "little"), []
    while bits:
        low = bits & -bits
        places.append(low.bit_length() - 1)
        bits ^= low
    return tuple(places)

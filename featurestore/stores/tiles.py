"""The record of a key of a continuous view over pushed rows: lanes of tiles, as bytes.

    record   format (u8), instant (i64): the known_at of the newest row in it, known (i64): how many current rows there are;
             for each lane the number of tiles (u32), for each of them its b (i64) and size (u32), then the tiles
    tile     for each cell the size of its state (u32), then the states

Numbers are little-endian. Tiles stay bytes until they are asked for: a pushed row touches one a lane.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from featurestore.errors import OnlineStoreError
from featurestore.semantics.folds import Group, State
from featurestore.semantics.lanes import Lane, Lanes, PushedRow, Tiles

__all__ = ["Kept", "TileCodec"]

FORMAT = 1
HEAD = struct.Struct("<Bqq")
COUNT = struct.Struct("<I")


@dataclass
class Kept:
    """A record taken apart: for each lane its tiles by b, oldest first, as bytes."""

    instant: int
    known: int
    lanes: list[dict[int, bytes]]


class TileCodec:
    """Packs and unpacks the records of one view, and merges rows into them."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes.lanes
        self._sizes = [struct.Struct(f"<{len(lane.cells)}I") for lane in self._lanes]

    def empty(self) -> Kept:
        """A record of no rows."""
        return Kept(-(1 << 63), 0, [{} for _ in self._lanes])

    def pack(self, kept: Kept) -> bytes:
        """The record as bytes."""
        parts = [HEAD.pack(FORMAT, kept.instant, kept.known)]
        for tiles in kept.lanes:
            ordered = sorted(tiles.items())
            parts.append(COUNT.pack(len(ordered)))
            parts.append(
                struct.pack("<" + "qI" * len(ordered), *(word for b, data in ordered for word in (b, len(data))))
            )
            parts += [data for _, data in ordered]
        return b"".join(parts)

    def unpack(self, record: bytes) -> Kept:
        """The record that `pack` wrote."""
        form, instant, known = HEAD.unpack_from(record)
        if form != FORMAT:
            raise OnlineStoreError(f"The online store holds records of format {form}, and this version reads {FORMAT}")
        lanes, at = [], HEAD.size
        for _ in self._lanes:
            (count,) = COUNT.unpack_from(record, at)
            at += COUNT.size
            words = struct.unpack_from("<" + "qI" * count, record, at)
            at += 12 * count
            tiles = {}
            for b, size in zip(words[::2], words[1::2], strict=True):
                tiles[b] = record[at : at + size]
                at += size
            lanes.append(tiles)
        return Kept(instant, known, lanes)

    def tiles(self, kept: Kept) -> list[Tiles]:
        """Every lane's tiles with their states, oldest first."""
        return [
            [(b, self.states(number, data)) for b, data in tiles.items()] for number, tiles in enumerate(kept.lanes)
        ]

    def states(self, number: int, data: bytes) -> list[State]:
        """The states of one tile of a lane, one a cell."""
        sizes = self._sizes[number].unpack_from(data)
        at, states = self._sizes[number].size, []
        for cell, size in zip(self._lanes[number].cells, sizes, strict=True):
            states.append(cell.algebra.unpack(data[at : at + size]))
            at += size
        return states

    def tile(self, number: int, states: Sequence[State]) -> bytes:
        """One tile as bytes."""
        packed = [cell.algebra.pack(state) for cell, state in zip(self._lanes[number].cells, states, strict=True)]
        return self._sizes[number].pack(*map(len, packed)) + b"".join(packed)

    def add(self, kept: Kept, rows: Sequence[PushedRow]) -> None:
        """Merge rows into a record, each once; its instant is then the newest known_at, and tiles out of reach are gone."""
        kept.known += len(rows)
        kept.instant = max([kept.instant, *(row.known_at for row in rows)])
        if not rows:
            return
        for number, lane in enumerate(self._lanes):
            by_tile: dict[int, list[PushedRow]] = {}
            for row in rows:
                by_tile.setdefault(lane.tile(row.event_time), []).append(row)
            tiles = kept.lanes[number]
            for b, its in by_tile.items():
                tiles[b] = self._added(number, lane, tiles.get(b), its)
            if lane.reach is not None:
                oldest = lane.oldest(kept.instant)
                for b in [b for b in tiles if b < oldest]:
                    del tiles[b]

    def subtract(self, kept: Kept, rows: Sequence[PushedRow]) -> None:
        """Take rows out of a record again, which were merged into it; every cell's algebra must be a Group.

        A tile that is out of reach is gone already, and of one that is there nothing was ever left out.
        """
        kept.known -= len(rows)
        for number, lane in enumerate(self._lanes):
            tiles = kept.lanes[number]
            for row in rows:
                b = lane.tile(row.event_time)
                if b in tiles:
                    tiles[b] = self._subtracted(number, lane, tiles[b], row)

    def _subtracted(self, number: int, lane: Lane, data: bytes, row: PushedRow) -> bytes:
        states = self.states(number, data)
        for place, cell in enumerate(lane.cells):
            state = cell.lift(row)
            if state is not None:
                group = cast("Group", cell.algebra)
                states[place] = group.subtract(states[place], state)
        return self.tile(number, states)

    def _added(self, number: int, lane: Lane, data: bytes | None, rows: Sequence[PushedRow]) -> bytes:
        states = [cell.algebra.zero for cell in lane.cells] if data is None else self.states(number, data)
        for row in rows:
            for place, cell in enumerate(lane.cells):
                state = cell.lift(row)
                if state is not None:
                    states[place] = cell.algebra.merge(states[place], state)
        return self.tile(number, states)

"""How values lie in an online store: each under a checksum that covers its key too.

    stored    MARK, the value, CRC-32 of key + MARK + value (u32, little-endian)

Whatever a store keeps is sealed on its way in and opened on its way out, whatever wrote it and whatever it is. What a version
of the product without checksums wrote does not begin with MARK, and is taken as it is until it is written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import add, itemgetter
from typing import NamedTuple
from zlib import crc32

from featurestore.errors import OnlineDamagedError
from featurestore.online.contract import OnlineStore

MARK = b"\xf5\x9a\xc3\x6e"
SOUND = {0x2144DF1C}
"""The CRC-32 of anything with its own CRC-32 behind it."""

NEAR_BITS = 2
"""Bits in which what begins with MARK may differ from it and is still no value of an earlier version."""

READ_BACK_KEYS = 1000
"""Keys of a batch of which it is known how it was stored, for whoever reads it next."""

BLOCK_KEYS = 1024
"""Keys that are sealed and compared at once, few enough that their bytes stay in a processor's cache: 0.8 of the time of 40,000 at once."""

_inside = itemgetter(slice(len(MARK), -4))


def sealed(key: bytes, value: bytes) -> bytes:
    """A value as it is stored under a key."""
    marked = MARK + value
    return marked + crc32(key + marked).to_bytes(4, "little")


class PutBatch(NamedTuple):
    """A batch as it was just put, in the order of its keys: its values, and of each BLOCK_KEYS of them how many bytes were stored under each
    key, and all of these. What is read back as it was stored needs no other proof: to compare takes a tenth of the time of `opened`."""

    keys: list[bytes]
    values: list[bytes | None]
    blocks: list[tuple[list[int], bytes]]

    @classmethod
    def of(
        cls, keys: list[bytes], values: list[bytes], put: Callable[[list[bytes], list[bytes]], object]
    ) -> PutBatch | None:
        """Seal a batch and put it, some keys and what is stored under them at a time; None where it is too small to be read back so."""
        blocks = []
        for first in range(0, len(keys), BLOCK_KEYS):
            part = keys[first : first + BLOCK_KEYS]
            stored = list(map(sealed, part, values[first : first + BLOCK_KEYS]))
            put(part, stored)
            blocks.append((list(map(len, stored)), b"".join(stored)))
        return cls(keys, list(values), blocks) if len(keys) >= READ_BACK_KEYS else None

    def is_stored(self, keys: Sequence[bytes], read: Callable[[int, list[bytes]], list[bytes | None]]) -> bool:
        """Whether these are the keys, and just that is stored under them which was put. read: what is stored under some of them, the first of
        which has this number."""
        if keys != self.keys:
            return False
        for first, (sizes, block) in zip(range(0, len(keys), BLOCK_KEYS), self.blocks, strict=True):
            found = read(first, self.keys[first : first + BLOCK_KEYS])
            if None in found or list(map(len, found)) != sizes or b"".join(found) != block:  # type: ignore[arg-type]
                return False
        return True


def opened(keys: Sequence[bytes], stored: Sequence[bytes | None], *, where: str) -> list[bytes | None]:
    """The values that are stored under keys. where: the store's name. OnlineDamagedError where one is not what was written."""
    try:
        if {*map(crc32, map(add, keys, stored))} == SOUND:
            return list(map(_inside, stored))  # type: ignore[arg-type]  # with one that is None, add has raised
    except TypeError:  # a key has no value
        pass
    found, damaged = [], []
    for key, data in zip(keys, stored, strict=True):
        if data is None or _is_older(data):
            found.append(data)
        elif crc32(key + data) in SOUND:
            found.append(_inside(data))
        else:
            damaged.append(key)
    if damaged:
        raise OnlineDamagedError(where, damaged)
    return found


def is_sound(key: bytes, stored: bytes) -> bool:
    """Whether what is stored under a key is what was written there, as far as can be told."""
    return crc32(key + stored) in SOUND or _is_older(stored)


def opened_one(key: bytes, stored: bytes | None, *, where: str) -> bytes | None:
    """`opened` for one key."""
    return opened([key], [stored], where=where)[0]


def read_past_damage(store: OnlineStore, keys: Sequence[bytes]) -> tuple[list[bytes | None], frozenset[bytes]]:
    """The values of keys, None for those that are damaged too, and which these are: for who writes them anew."""
    damaged: set[bytes] = set()
    while True:
        sound = [key for key in keys if key not in damaged]
        try:
            values = dict(zip(sound, store.get(sound).values, strict=True))
        except OnlineDamagedError as error:
            damaged.update(error.keys)
        else:
            return [values.get(key) for key in keys], frozenset(damaged)


def _is_older(data: bytes) -> bool:
    """Whether stored bytes are of a version without checksums: they begin otherwise, and not by a bit that has changed."""
    return sum((a ^ b).bit_count() for a, b in zip(data, MARK, strict=False)) > NEAR_BITS

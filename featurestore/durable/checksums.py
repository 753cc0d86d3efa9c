"""Checksums of files that are written once: a CRC-32 of each block, looked at before anything of such a file is used.

A process looks once at a file that stays as it is (size, time of modification, inode); the disk's own copy may change
under it, but what was read has been looked at, and lies in memory. Several files are looked at side by side.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

BLOCK_BYTES = 1 << 20
"""Bytes of which there is one checksum: what an error names the place of damage by."""

DIGITS = 8
FILES_AT_ONCE = 4
REMEMBERED_FILES = 100_000
"""Files that a process remembers to have looked at."""

CHECK = "check"

_Identity = tuple[int, int, int, str]
_LOOKED_AT: dict[str, _Identity] = {}


def checks_of(path: Path) -> str:
    """The checksum of each block of a file, in hexadecimal digits, one after the other."""
    return "".join(_blocks(path))


def _blocks(path: Path) -> Iterator[str]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            while len(block) < BLOCK_BYTES and (more := file.read(BLOCK_BYTES - len(block))):
                block += more
            yield f"{zlib.crc32(block):0{DIGITS}x}"


def check_of(path: Path) -> str:
    """One checksum of a whole file, as short as a name can hold it."""
    check = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            check = zlib.crc32(block, check)
    return f"{check:0{DIGITS}x}"


def is_whole(path: Path, check: str) -> bool:
    """Whether a file is what it was when `check_of` was taken. OSError where it cannot be read."""
    identity = _identity(path, check)
    if _LOOKED_AT.get(str(path)) != identity:
        if check_of(path) != check:
            return False
        _remember(path, identity)
    return True


def _identity(path: Path, checks: str) -> _Identity:
    there = path.stat()
    return there.st_size, there.st_mtime_ns, there.st_ino, checks


def _remember(path: Path, identity: _Identity) -> None:
    if len(_LOOKED_AT) >= REMEMBERED_FILES:
        _LOOKED_AT.clear()
    _LOOKED_AT[str(path)] = identity


def damaged_at(path: Path, checks: str) -> int | None:
    """The offset of the first block that is not what it was when `checks` were taken; None where all are. OSError where the
    file cannot be read."""
    identity = _identity(path, checks)
    if _LOOKED_AT.get(str(path)) == identity:
        return None
    number = 0
    for number, block in enumerate(_blocks(path), 1):
        if block != checks[(number - 1) * DIGITS : number * DIGITS]:
            return (number - 1) * BLOCK_BYTES
    if number * DIGITS != len(checks):  # it is shorter than it was
        return identity[0]
    _remember(path, identity)
    return None


def first_damage(files: Iterable[tuple[Path, str]]) -> tuple[Path, int] | None:
    """The first of several files, with their checksums, that is damaged, and where; None where none is."""
    files = list(files)
    if len(files) == 1:
        offsets = [damaged_at(*files[0])]
    else:
        with ThreadPoolExecutor(min(FILES_AT_ONCE, os.cpu_count() or 1)) as pool:
            offsets = list(pool.map(damaged_at, *zip(*files, strict=True))) if files else []
    for (path, _), offset in zip(files, offsets, strict=True):
        if offset is not None:
            return path, offset
    return None


def signed(words: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a small file of JSON, with a checksum of what they say, in whatever order."""
    return {**words, CHECK: _of_words(words)}


def encoded(words: Mapping[str, Any], *, indent: bool = False) -> bytes:
    """`signed` words as JSON."""
    return orjson.dumps(signed(words), option=orjson.OPT_INDENT_2 if indent else None)


def unsigned(words: Any) -> dict[str, Any]:
    """What `signed` was given. ValueError where that cannot be told any more."""
    if not isinstance(words, Mapping) or CHECK not in words:
        raise ValueError("it has no checksum")
    told = {name: value for name, value in words.items() if name != CHECK}
    if words[CHECK] != _of_words(told):
        raise ValueError("it is not what was written")
    return told


def decoded(data: bytes) -> dict[str, Any]:
    """What `encoded` was given. ValueError where that cannot be told any more."""
    return unsigned(orjson.loads(data))


def _of_words(words: Mapping[str, Any]) -> int:
    return zlib.crc32(orjson.dumps(dict(words), option=orjson.OPT_SORT_KEYS))

"""The options of an online store's URL: `scheme://place?option=value&…`.

No message shows the URL itself, because it may carry a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from featurestore.errors import ConfigError, did_you_mean
from featurestore.number_texts import float_of

_BYTES = re.compile(r"([0-9]+)\s*(?:([KMGT])(?:i?B)?|B)?", re.IGNORECASE)
_SHIFT = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}

Parser = Callable[[str], Any]


def parse_options(query: str, parsers: Mapping[str, Parser], *, scheme: str) -> dict[str, Any]:
    """The options in `query`, each read by its parser; ConfigError for one that is unknown, twice there or wrong."""
    options: dict[str, Any] = {}
    if "@" in query and any(name not in parsers for name, _ in parse_qsl(query, keep_blank_values=True)):
        raise ConfigError(  # of which no part is shown: it may be one of a password
            f"The {scheme}:// URL has an @ among its options. In a user or password, write @ : / ? # % as %40 %3A %2F %3F %23 %25."
        )
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in parsers:
            hint = did_you_mean(name, parsers, noun="Options")
            raise ConfigError(f"A {scheme}:// URL has no option '{name}'.{hint}")
        if name in options:
            raise ConfigError(f"Option '{name}' of the {scheme}:// URL is given twice.")
        try:
            options[name] = parsers[name](text)
        except ValueError as error:
            raise ConfigError(f"Option '{name}' of the {scheme}:// URL: {error}.") from None
    return options


def seconds(text: str) -> float:
    """A duration in seconds, more than 0."""
    try:
        value = float_of(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise ValueError(f"'{text}' is not a number of seconds above 0, such as 0.5")
    return value


def whole_number(least: int) -> Parser:
    """A parser of whole numbers from `least` on."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < least:
            raise ValueError(f"'{text}' is not a whole number from {least} on")
        return int(text)

    return parse


def byte_count(text: str) -> int:
    """A size in bytes, written plainly or with KiB, MiB, GiB or TiB (powers of 1024; K, M, G, T for short)."""
    match = _BYTES.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"'{text}' is not a size such as 1073741824, 512MiB or 64GiB")
    return int(match[1]) << _SHIFT[(match[2] or "").upper()]


def file_path(text: str) -> str:
    """The path of a file that exists."""
    if not Path(text).is_file():
        raise ValueError(f"there is no file '{text}'")
    return text

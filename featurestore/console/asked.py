"""What is asked of a page in words that need reading: instants, stretches of time and keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, overload

from featurestore.clock import datetime_of
from featurestore.console.page import PageRequest
from featurestore.declare.durations import asked_duration
from featurestore.errors import DeclarationError, NotFoundError, RequestError
from featurestore.registry.frames import WrittenFrame
from featurestore.report import within
from featurestore.typed_texts import json_value
from featurestore.types import FeatureType, from_json

KEY = "key."
"""How the word of a key column begins; its name follows."""


def instant_asked(asked: PageRequest, word: str) -> datetime | None:
    """An ISO 8601 instant, of which a naive one is UTC; None where none is asked for. RequestError."""
    said = asked.word(word)
    if said is None:
        return None
    try:
        value = datetime_of(said.removesuffix(" UTC"))
    except ValueError:
        raise RequestError(f"{word}: {said[:40]!r} is no instant such as 2025-01-31T06:30:00Z") from None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def since_asked(asked: PageRequest, default: str) -> datetime | str:
    """An ISO 8601 instant, or how long ago, as it is written: only instants have hyphens."""
    said = asked.word("since")
    if said is not None and "-" in said:
        return instant_asked(asked, "since") or said
    return duration_asked(asked, "since", default)


@overload
def duration_asked(asked: PageRequest, word: str, default: str) -> str: ...
@overload
def duration_asked(asked: PageRequest, word: str, default: None) -> str | None: ...
def duration_asked(asked: PageRequest, word: str, default: str | None) -> str | None:
    """A duration, such as "1d", as it is written; RequestError where it is none."""
    said = asked.word(word) or default
    try:
        if said is not None:
            asked_duration(said, word)
    except DeclarationError as error:
        raise RequestError(str(error)) from None
    return said


def key_asked(asked: PageRequest, types: Mapping[str, FeatureType]) -> dict[str, Any] | None:
    """The value of each key column, whose words are key.COLUMN; None where none is asked for. `null` is null, but for a String.
    RequestError says which is no value of its type."""
    given = {name: asked.query[KEY + name] for name in types if KEY + name in asked.query}
    if types and not given:
        return None
    found: dict[str, Any] = {}
    for name, text in given.items():
        try:
            found[name] = from_json(types[name], json_value(text, types[name]))
        except ValueError as error:
            raise RequestError(f"'{name}' is {types[name]}: {error}") from None
    return found


def frame_asked(said: str, frames: Iterable[WrittenFrame], root: Path) -> WrittenFrame:
    """The training frame of a path, whole or as it is seen from the repository, among those that the registry knows: a page reads
    no other file of the machine. NotFoundError."""
    for frame in frames:
        if said in {frame.path, within(frame.path, root)}:
            return frame
    raise NotFoundError(
        f"The registry has no training frame {said[:200]} that may be shown here; the page offers those that it has"
    )

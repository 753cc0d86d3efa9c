"""Values that are typed on a command line: text, read by the type that was declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import typer

from featurestore.clock import datetime_of, instant_of, wall_clock
from featurestore.errors import RequestError, did_you_mean
from featurestore.typed_texts import json_value
from featurestore.types import FeatureType


def json_row(pairs: Iterable[str], types: Mapping[str, FeatureType]) -> dict[str, Any]:
    """`name=value` arguments as the JSON forms of the declared types; what is not given is left out."""
    row: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise typer.BadParameter(f"'{pair}' must be written name=value")
        if name not in types:
            raise RequestError(f"'{name}' is not asked for.{did_you_mean(name, types, noun='Asked for')}")
        if name in row:
            raise typer.BadParameter(f"'{name}' is given twice")
        try:
            row[name] = json_value(text, types[name])
        except ValueError as error:
            raise RequestError(f"'{name}' must be {types[name]}: {error}") from None
    return row


def instant(text: str, option: str | None = None) -> datetime:
    """An ISO 8601 instant; a naive one is UTC. option: the one that it is given to, for the message where it is none."""
    try:
        value = datetime_of(text)
    except ValueError:
        said = f"{text!r} is no instant such as 2025-01-31T06:30:00Z"
        raise typer.BadParameter(said, param_hint=option) from None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def past(text: str) -> datetime:
    """An instant that may be taken for now: one that is over."""
    value = instant(text, "--at")
    if instant_of(value) > wall_clock():
        raise typer.BadParameter(f"--at {text} is still to come; it is an instant of the past")
    return value


def since_of(text: str | None) -> datetime | str | None:
    """An ISO 8601 instant, or how long ago, as it is written: only instants have hyphens."""
    return instant(text, "--since") if text is not None and "-" in text else text


def one_or_all(names: list[str]) -> str | list[str]:
    """The names of features as the store takes them: a single one is perhaps a service's."""
    return names[0] if len(names) == 1 else names

"""What a request may have at most, as the platform has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from featurestore.plurals import plural
from featurestore.server.compatible.values import member
from featurestore.server.problems import BadRequest

IDENTIFIERS, GROUPS, ENTRIES, PAGE, VALUES = 100, 100, 25, 100, 358_400
"""Identifiers of a group, groups of a batch, records of a batch that is written, what is listed on a page, and values of a list."""


def bounded(given: Any, name: str, most: int, *, of: type = dict) -> list[Any]:
    """A list of one member at least; BadRequest where it is none, or has more than so many."""
    if not isinstance(given, list) or not given or not all(isinstance(each, of) for each in given):
        raise BadRequest(f"{name} must be a list of one at least")
    if len(given) > most:
        raise BadRequest(f"{name} has {len(given)} {plural(len(given), 'member')}; at most {most} are taken")
    return given


def page_size(asked: Mapping[str, Any]) -> int:
    """How many a page has at most; BadRequest."""
    count = member(asked, "MaxResults", int)
    if count is None:
        return PAGE
    if not 1 <= count <= PAGE:
        raise BadRequest(f"MaxResults must be 1 to {PAGE}")
    return count

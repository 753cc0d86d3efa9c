"""What a request may have at most, as the platform has it, and where a page begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from featurestore.server.compatible.values import member
from featurestore.server.problems import BadRequest

IDENTIFIERS, GROUPS, ENTRIES, PAGE = 100, 100, 25, 100
"""Identifiers of a group, groups of a batch, records of a batch that is written, and what is listed on a page."""

TOKEN = re.compile(r"[0-9]{1,18}")
"""A NextToken: how many came before."""


def bounded(given: Any, name: str, most: int, *, of: type = dict) -> list[Any]:
    """A list of one member at least; BadRequest where it is none, or has more than so many."""
    if not isinstance(given, list) or not given or not all(isinstance(each, of) for each in given):
        raise BadRequest(f"{name} must be a list of one at least")
    if len(given) > most:
        raise BadRequest(f"{name} has {len(given)} members; at most {most} are taken")
    return given


def page(asked: Mapping[str, Any]) -> tuple[int, int]:
    """Where a page begins, as the NextToken of the one before it says, and how many it has at most."""
    count, token = member(asked, "MaxResults", int) or PAGE, member(asked, "NextToken", str) or "0"
    if not 1 <= count <= PAGE:
        raise BadRequest(f"MaxResults must be 1 to {PAGE}")
    if not TOKEN.fullmatch(token):
        raise BadRequest("NextToken is none that was given")
    return int(token), count

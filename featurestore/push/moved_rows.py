"""Rows of a stream on their way to where they are kept aside: they lie beside the stream's position until they are there.

The position and the rows that count are one append; rows that came too late, or do not meet what is expected, are another, in another
log. So these come first, beside the positions, with a token, which the append then has, and the other log when it has them. A process that
finds the append without the rows in the other log puts them there. After that they lie nowhere else.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from featurestore import arrow_ipc
from featurestore.lazy import pa


def _kept(which: str) -> str:
    """Under which an append has the token of its rows that belong into another log."""
    return f"{which}, of the last rows"


def nothing(which: str) -> dict[str, str]:
    """What a log keeps of such rows when they are where they belong."""
    return {which: ""}


class MovedRows(NamedTuple):
    """Rows that are to be kept aside, and what a log keeps of them among the positions of its streams: before the append that they belong to, and in it."""

    before: Mapping[str, str]
    within: Mapping[str, str]

    @classmethod
    def of(cls, rows: pa.Table, which: str) -> MovedRows:
        """Those of a batch, and the log that they belong into."""
        token = secrets.token_hex(8)
        return cls({which: f"{token} {base64.b64encode(arrow_ipc.to_bytes(rows)).decode()}"}, {_kept(which): token})


def waiting(positions: Mapping[str, str], which: str) -> tuple[pa.Table | None, str | None]:
    """The rows that a log has for another one, None where it has none, and their token, None where the append that they belong to never came."""
    token, _, data = positions.get(which, "").partition(" ")
    if not data:
        return None, None
    rows = arrow_ipc.from_bytes(base64.b64decode(data))
    return rows, token if positions.get(_kept(which)) == token else None

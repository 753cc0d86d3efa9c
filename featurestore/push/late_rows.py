"""Late rows of a stream, on their way to where they are kept aside: they lie beside the stream's position until they are there.

The position and the rows that count are one append; the late rows are another, in another log. So the late rows come first, beside the
positions, with a token, which the append then has, and the log of late rows when it has them. Whoever finds the append without the
rows in the other log puts them there. After that they lie nowhere else.
"""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from featurestore.lazy import pa
from featurestore.sources.push_logs import LATE

KEPT = "late, of the last rows"
"""Under which an append has the token of its late rows."""

NOTHING = {LATE: ""}
"""What a log keeps of late rows that are where they belong."""


class MovedLateRows(NamedTuple):
    """Late rows, and what a log keeps of them among the positions of its streams: before the append that they belong to, and in it."""

    before: Mapping[str, str]
    within: Mapping[str, str]

    @classmethod
    def of(cls, rows: pa.Table) -> MovedLateRows:
        """Those of a batch."""
        written, token = io.BytesIO(), secrets.token_hex(8)
        with pa.ipc.new_stream(written, rows.schema) as stream:
            stream.write_table(rows)
        return cls({LATE: f"{token} {base64.b64encode(written.getvalue()).decode()}"}, {KEPT: token})


def waiting(positions: Mapping[str, str]) -> tuple[pa.Table | None, str | None]:
    """The late rows that a log has, None where it has none, and their token, None where the append that they belong to never came."""
    token, _, data = positions.get(LATE, "").partition(" ")
    if not data:
        return None, None
    rows = pa.ipc.open_stream(base64.b64decode(data)).read_all()
    return rows, token if positions.get(KEPT) == token else None

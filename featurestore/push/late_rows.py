"""Late rows of a stream, on their way to where they are kept aside: they lie with the stream's position until they are there.

The position and the rows that count are one append; the late rows are another, in another log. So the first has the late rows, too,
with a token; the second has the token. Whoever finds the first without the second makes the second.
"""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Mapping

from featurestore.lazy import pa
from featurestore.sources.push_logs import LATE


def late_rows_moved(rows: pa.Table | None) -> dict[str, str]:
    """What a log keeps of late rows, or of none, among the positions of its streams."""
    if rows is None:
        return {LATE: ""}
    written = io.BytesIO()
    with pa.ipc.new_stream(written, rows.schema) as stream:
        stream.write_table(rows)
    return {LATE: f"{secrets.token_hex(8)} {base64.b64encode(written.getvalue()).decode()}"}


def kept_aside(positions: Mapping[str, str]) -> tuple[pa.Table | None, str]:
    """The last late rows that a log has, and their token; None where it has none."""
    token, _, data = positions.get(LATE, "").partition(" ")
    return (pa.ipc.open_stream(base64.b64decode(data)).read_all() if data else None), token

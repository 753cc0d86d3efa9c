"""What one request is called, in its answer, in its problem, in the logs and in traces."""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import getrandbits

from starlette.types import Scope

from featurestore.serving.request_id import ID

REQUEST_ID = "X-Request-ID"
HEADER = REQUEST_ID.lower().encode()

REQUEST = "featurestore.request_id"
"""Where the scope of a request has its id, once anybody has asked for it."""

TRACE = "featurestore.trace_id"
"""Where it has the id of the trace that the client says it belongs to."""

TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)
"""W3C Trace Context, 3.2: version, trace, parent, flags. Later versions than 00 may add to it; ff is none."""


def note_ids(scope: Scope, headers: Mapping[bytes, bytes]) -> None:
    """Keep what the client calls its request and its trace, where it does so rightly."""
    given = headers.get(HEADER)
    if given is not None and ID.fullmatch(text := given.decode("latin-1")):
        scope[REQUEST] = text
    parent = headers.get(b"traceparent")
    if parent is not None and (found := TRACEPARENT.fullmatch(parent)):
        scope[TRACE] = found[1].decode()


def request_id_of(scope: Scope) -> str:
    """The client's own id, else the one under which the request is logged, else that of its trace, else a new one."""
    known: str | None = scope.get(REQUEST)
    if known is None:
        known = scope[REQUEST] = scope.get(TRACE) or new_id()
    return known


def new_id() -> str:
    """An id that no other request has, as good as certainly: 32 hexadecimal digits. Who knows it may do nothing with it."""
    return f"{getrandbits(128):032x}"

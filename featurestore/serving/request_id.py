"""The id that a client gives its request; of it the client, the server and the serving log say the same."""

from __future__ import annotations

import re

from featurestore.errors import RequestError

ID = re.compile(r"[ -~]{1,128}")


def checked_id(request_id: str) -> str:
    """The id that a client gives its request; RequestError where it is not 1 to 128 printable ASCII characters."""
    if not isinstance(request_id, str) or not ID.fullmatch(request_id):
        raise RequestError("request_id: a request's id must be 1 to 128 printable ASCII characters")
    return request_id

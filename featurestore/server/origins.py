"""Whose web page may ask: nobody's but the server's own, which has none that asks.

A browser sends some requests to any server for any page without asking that server first, also to one that only this machine can
reach. Such a request has another `Origin`, or a body that is no JSON; and where a foreign name was made to lead here, another `Host`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container, Mapping, Sequence
from functools import lru_cache

from starlette.types import Scope

from featurestore.server.problems import BadRequest, ForeignError

BODIES = {"POST", "PUT", "PATCH", "DELETE"}

ONCE = (b"host", b"origin", b"content-type", b"content-encoding", b"content-length")
"""Headers by which a request is judged: of two, another program may believe the other one."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._~%!$&'()*+,;=-]+)(:[0-9]{0,5})?", re.IGNORECASE)


def check_origin(scope: Scope, headers: Mapping[bytes, bytes], hosts: Sequence[str]) -> None:
    """ForeignError where a foreign page may have sent the request. hosts: names of this machine, beside those of loopback."""
    host = headers.get(b"host", b"")
    if len(headers) < len(scope["headers"]):
        names = [name for name, _ in scope["headers"]]
        for name in ONCE:
            if names.count(name) > 1:
                raise BadRequest(f"The request has more than one {name.decode()}")
    if host and _name_of(host) is None:
        raise BadRequest(f"'{host.decode('latin-1')}' is no host")
    server = scope.get("server")
    if server is not None and server[0] and _is_loopback(server[0]) and not _is_here(host, tuple(hosts)):
        raise ForeignError(
            f"'{host.decode('latin-1')}' is no name of this machine. Where it is one, add it to hosts of [server]", 421
        )
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2] != host:
        raise ForeignError(f"Pages of {origin.decode('latin-1')} may not ask here", 403)


def check_type(headers: Mapping[bytes, bytes], *, also: Container[bytes] = ()) -> None:
    """BadRequest with 415 for a body that says to be anything but JSON in UTF-8, as it is. also: other names of JSON, none of which
    a browser sends to another server without asking it first."""
    coding = headers.get(b"content-encoding", b"identity").lower()
    if coding != b"identity":
        raise BadRequest(f"The body must come as it is; its Content-Encoding is {coding.decode('latin-1')}", 415)
    said = headers.get(b"content-type", b"").lower()
    if said != b"application/json" and said not in also and not _is_json(said):
        shown = said.decode("latin-1") or "nothing"
        raise BadRequest(f"The body's Content-Type must be application/json; it is {shown}", 415)


def has_body(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request brings a body."""
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""


@lru_cache(maxsize=256)
def _is_json(said: bytes) -> bool:
    kind, *parameters = (part.strip() for part in said.split(b";"))
    return kind == b"application/json" and {*parameters} <= {b"charset=utf-8", b'charset="utf-8"', b""}


@lru_cache(maxsize=256)
def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # no address: the path of a socket, or what a test calls its server
        return False


@lru_cache(maxsize=256)
def _is_here(host: bytes, hosts: tuple[str, ...]) -> bool:
    """Whether a `Host` names this machine over a loopback address."""
    name = _name_of(host)
    if name is None:
        return False
    return name in {"localhost", *hosts} or name.endswith(".localhost") or _is_loopback(name.strip("[]"))


@lru_cache(maxsize=256)
def _name_of(host: bytes) -> str | None:
    """The name in a `Host`, without its port; None where it has not the form of one."""
    found = _HOST.fullmatch(host.decode("latin-1"))
    return None if found is None else found[1].lower().removesuffix(".")

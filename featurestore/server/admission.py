"""Which scope each route takes, and who asks: the one place where a request is let in."""

from __future__ import annotations

import asyncio

from starlette.types import Scope

from featurestore.access.authentication import Authentication
from featurestore.access.principal import Principal

OPEN = {"/healthz", "/readyz", "/docs", "/openapi.json"}
"""What needs no key: whether the server is up and ready, and its description, in which nothing of the project stands."""

SCOPES = {"/v1/push": "push", "/v1/serving-log": "admin", "/metrics": "admin"}
"""The scope of a route; of all others it is "read"."""

PRINCIPAL = "featurestore.principal"
"""Where the scope of a request has whoever asks."""

NOBODY = Principal("anonymous", frozenset())


async def admit(authentication: Authentication, scope: Scope, path: str) -> None:
    """Put whoever asks into the scope. Raises UnauthenticatedError, ForbiddenError and AccessUnavailableError."""
    if path in OPEN:
        scope[PRINCIPAL] = NOBODY
        return
    headers = scope["headers"]
    found = authentication.at_once(headers)
    principal = found if found is not None else await asyncio.to_thread(authentication.authenticate, headers)
    principal.must(SCOPES.get(path, "read"))
    scope[PRINCIPAL] = principal


def principal_of(scope: Scope) -> Principal:
    """Whoever asks; nobody where the request did not come through the edge."""
    found = scope.get(PRINCIPAL, NOBODY)
    assert isinstance(found, Principal)
    return found

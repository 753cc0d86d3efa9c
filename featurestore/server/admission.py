"""Which scope each route takes, and who asks: the one place where a request is let in."""

from __future__ import annotations

from starlette.types import Scope

from featurestore.access.authentication import REALM, Authentication, Credential, Headers
from featurestore.access.principal import Principal
from featurestore.access.sessions import Sessions
from featurestore.errors import AccessError, UnauthenticatedError
from featurestore.server.compatible.routes import CompatibleRoute

OPEN = {"/healthz", "/readyz", "/docs", "/openapi.json"}
"""What needs no key: whether the server is up and ready, and its description, in which nothing of the project stands."""

TELLS_MORE = {"/readyz"}
"""Of these, what tells more to a client with a key."""

SCOPES = {"/v1/push": "push", "/v1/materialize": "materialize", "/v1/serving-log": "admin", "/metrics": "metrics"}
"""The scope of a route; of all others it is "read"."""

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token of the configured issuer"},
    "key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same, for who cannot set the other",
    },
}
"""The ways in which a request says who asks, as OpenAPI has them."""


def security_of(path: str) -> list[dict[str, list[str]]]:
    """What a route asks for, as OpenAPI has it: one way or the other, with the route's scope."""
    if path in TELLS_MORE:
        return [{}, *({name: ["read"]} for name in SCHEMES)]
    return [] if path in OPEN else [{name: [SCOPES.get(path, "read")]} for name in SCHEMES]


PRINCIPAL = "featurestore.principal"
"""Where the scope of a request has its principal."""

NOBODY = Principal("anonymous", frozenset())


async def admit(authentication: Authentication, scope: Scope, path: str, route: CompatibleRoute | None = None) -> None:
    """Put the principal of a request into its scope. route: of another platform, which says its own scope, and where its clients put a key.
    Raises UnauthenticatedError, ForbiddenError and AccessUnavailableError."""
    headers = scope["headers"] if route is None else route.platform.credentials(scope["headers"])
    needed = SCOPES.get(path, "read") if route is None else route.needs
    if path in OPEN or needed is None:
        scope[PRINCIPAL] = await _if_known(authentication, headers) if path in TELLS_MORE else NOBODY
        return
    principal = await authentication.aauthenticate(headers)
    principal.must(needed)
    scope[PRINCIPAL] = principal


def admit_at_once(authentication: Authentication, scope: Scope, brought: Credential | None, path: str) -> bool:
    """`admit` of a route of ours that takes a scope; False where something must be waited for."""
    principal = authentication.holder_at_once(brought)
    if principal is None:
        return False
    principal.must(SCOPES.get(path, "read"))
    scope[PRINCIPAL] = principal
    return True


async def admit_browser(
    authentication: Authentication, sessions: Sessions, scope: Scope, session: str | None
) -> Principal:
    """Put the principal of a request for the console into its scope: by a key or token of the request's headers as anywhere else, or by a
    session. What a limited key is shown, the console decides. Raises what `admit` does."""
    if not authentication.is_on or any(name in {b"authorization", b"x-api-key"} for name, _ in scope["headers"]):
        principal = await authentication.aauthenticate(scope["headers"])
    else:
        key = None if session is None else sessions.key_of(session)
        if key is None:
            raise UnauthenticatedError("Nobody is signed in", challenge=REALM)
        principal = await authentication.aholder(key)
    principal.must("read")
    scope[PRINCIPAL] = principal
    return principal


async def _if_known(authentication: Authentication, headers: Headers) -> Principal:
    """The principal; nobody where no key, or a wrong one, comes along."""
    try:
        return await authentication.aauthenticate(headers)
    except AccessError:
        return NOBODY


def principal_of(scope: Scope) -> Principal:
    """The principal; nobody where the request did not come through the edge."""
    found = scope.get(PRINCIPAL, NOBODY)
    assert isinstance(found, Principal)
    return found

"""The decision about a request: who asks. What he may do, his principal says."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from featurestore.access.api_keys import PREFIX, digest_of, is_digest_of, key_id
from featurestore.access.principal import EVERYBODY, Principal
from featurestore.access.reread import LOGGER, Ages, Reread, Steps, awaited, waited
from featurestore.clock import wall_clock
from featurestore.config import Config
from featurestore.errors import ConfigError, UnauthenticatedError
from featurestore.registry.keys import ApiKey
from featurestore.registry.store import Registry

if TYPE_CHECKING:
    from featurestore.access.json_web_tokens import Tokens

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case and values, as ASGI has them."""

_CREDENTIALS = {b"authorization", b"x-api-key"}
REALM = 'Bearer realm="featurestore"'

RENEW_SECONDS, WAIT_SECONDS, KEEP_SECONDS = 1.0, 2.0, 60.0
"""How old the keys in memory may be: they are read anew beside a request, a request waits for that, requests are refused."""

UNKNOWN_SECONDS = 0.1
"""Seconds between two readings of the registry at least, whatever clients send: a key that is not known waits for the next."""

USED_US = 600_000_000
"""µs between two times that a key is noted as used."""

BUSY_SECONDS = 5.0
"""Seconds for which a registry that others hold is waited for."""


class _HeldKey(NamedTuple):
    key: ApiKey
    principal: Principal


class Credential(NamedTuple):
    """What a request brings to say who asks. key: the id of what looks like a key, None: it is to be a token; digest: of the key."""

    text: str
    key: str | None
    digest: bytes

    @classmethod
    def of(cls, headers: Headers) -> Credential:
        """The one that stands in headers; UnauthenticatedError where there is none, or more than one."""
        text = _credential(headers)
        key = key_id(text)
        return cls(text, key, b"" if key is None else digest_of(text))


class Authentication:
    """Who asks, by the API keys of a registry and the tokens of an issuer; without a configuration it is off, and every principal is
    `everybody`, who may everything. now: reads a clock in µs; clock: in seconds.

    Raises MissingPackageError where tokens are configured and what verifies them is not installed.
    """

    def __init__(
        self, config: Config | None, *, everybody: Principal = EVERYBODY,
        now: Callable[[], int] = wall_clock, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.is_on, self._everybody = config is not None, everybody
        if config is None:
            return
        self._now, self._clock = now, clock
        self._registry = Registry(config.registry, project=config.project, timeout=BUSY_SECONDS)
        ages = Ages(
            RENEW_SECONDS, WAIT_SECONDS, KEEP_SECONDS, retry_seconds=RENEW_SECONDS, apart_seconds=UNKNOWN_SECONDS
        )
        self._keys: Reread[dict[str, _HeldKey]] = Reread("The registry's API keys", self._read, ages, clock=clock)
        self._used: dict[str, int] = {}
        self._tokens: Tokens | None = None
        if config.jwt.jwks is not None:
            from featurestore.access.json_web_tokens import Tokens

            self._tokens = Tokens(config.jwt, clock=clock, now=lambda: now() / 1e6)

    def at_once(self, headers: Headers) -> Principal | None:
        """The principal, without waiting for anything; None where something must be read first, which `authenticate` does.
        Errors are those of `authenticate`."""
        return self.holder_at_once(self.credential(headers))

    def credential(self, headers: Headers) -> Credential | None:
        """What stands in headers, as `holder_at_once` takes it; None where nothing needs to. UnauthenticatedError."""
        return Credential.of(headers) if self.is_on else None

    def holder_at_once(self, brought: Credential | None) -> Principal | None:
        """`at_once` of what was read of headers before."""
        if brought is None:
            return self._everybody
        text, number, digest = brought
        if number is None:
            return self._of_tokens(text).at_once(text)
        keys = self._keys.at_hand()
        if keys is None or (number not in keys and not self._keys.is_since(self._clock())):
            return None
        return self._of_key(digest, keys.get(number))

    def authenticate(self, headers: Headers) -> Principal:
        """The principal. It may wait for the registry, or for an issuer of tokens.

        Raises UnauthenticatedError where the request names nobody, with what WWW-Authenticate tells of that, and
        AccessUnavailableError where that cannot be known just now. No message has a part of a secret.
        """
        return waited(self._asks(headers))

    async def aauthenticate(self, headers: Headers) -> Principal:
        """`authenticate` for coroutines: no thread waits for what must be waited for."""
        found = self.at_once(headers)
        return found if found is not None else await awaited(self._asks(headers))

    async def aholder(self, number: str) -> Principal:
        """The principal of the live key of an id, as a session has it, whose signature was looked at; errors are those of
        `authenticate`."""
        keys = await awaited(self._keys.value())
        return self._live(keys.get(number))

    def _asks(self, headers: Headers) -> Steps[Principal]:
        if not self.is_on:
            return self._everybody
        came = self._clock()
        text, number, digest = Credential.of(headers)
        if number is None:
            return (yield from self._of_tokens(text).principal(text))
        keys = yield from self._keys.value()
        if number not in keys:  # one that was just made is in a reading that began after the request came
            keys = yield from self._keys.value_since(came)
        return self._of_key(digest, keys.get(number))

    def _of_key(self, digest: bytes, held: _HeldKey | None) -> Principal:
        if held is None or not is_digest_of(digest, held.key):
            raise _refused("The key is not known")
        return self._live(held)

    def _live(self, held: _HeldKey | None) -> Principal:
        if held is None:
            raise _refused("The key is not known")
        now = self._now()
        if not held.key.is_live(now):
            raise _refused(f"The key {PREFIX}{held.key.id} is {held.key.state(now)}")
        if now - self._used.get(held.key.id, held.key.used_at or 0) >= USED_US:
            self._used[held.key.id] = now
            threading.Thread(
                target=self._note, args=(held.key.id, now), name="featurestore key used", daemon=True
            ).start()
        return held.principal

    def _of_tokens(self, text: str) -> Tokens:
        if self._tokens is None:
            shape = (
                "has not the shape of one" if text.startswith(PREFIX) else "is none, and tokens are not configured here"
            )
            raise _refused(f"API keys are taken here; what was sent {shape}")
        return self._tokens

    def _read(self) -> dict[str, _HeldKey]:
        return {
            key.id: _HeldKey(
                key,
                Principal(
                    f"key:{key.name}", frozenset(key.scopes), None if key.only_on is None else frozenset(key.only_on)
                ),
            )
            for key in self._registry.api_keys()
        }

    def _note(self, key: str, at: int) -> None:
        try:
            self._registry.note_used({key: at})
        except Exception as error:  # noqa: BLE001 - a read-only disk, for one; the request is answered all the same
            LOGGER.warning("When API key %s%s was used is not noted: %s", PREFIX, key, error)


def check_open_host(host: str) -> None:
    """ConfigError where a server without authentication would be reached from elsewhere."""
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise ConfigError(
            f"Authentication is off, and every client that reaches {host or 'every address'} could read and push. Listen on 127.0.0.1, "
            "or leave authentication on and make keys: featurestore keys create NAME --scope read"
        )


def _credential(headers: Headers) -> str:
    """The one key or token that a request brings: `Authorization: Bearer …`, or `X-API-Key: …`."""
    found = []
    for name, value in [header for header in headers if header[0] in _CREDENTIALS]:
        if name == b"x-api-key":
            found.append(value.strip())
            continue
        scheme, _, rest = value.strip().partition(b" ")
        if scheme.lower() != b"bearer":
            raise _refused("The scheme of Authorization must be Bearer")
        found.append(rest.strip())
    if not found or found == [b""]:
        raise UnauthenticatedError(
            "The request brings no key. Send one as 'Authorization: Bearer KEY'; featurestore keys create makes one",
            challenge=REALM,
        )
    if len(found) > 1:
        raise _refused("The request brings more than one key")
    try:
        return found[0].decode("ascii")
    except UnicodeDecodeError:
        raise _refused("The key is not known") from None


def _refused(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(why, challenge=f'{REALM}, error="invalid_token", error_description="{why}"')

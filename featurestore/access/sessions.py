"""Sessions of browsers: a signed text that stands for an API key for some hours, and has nothing of its secret.

    ID.UNTIL.SIGNATURE      the key's id, seconds since the epoch, and HMAC-SHA-256 of both under a secret of the servers

Whether the key is still live is asked at each request; a session of a key that was revoked opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable

from featurestore.errors import ConfigError
from featurestore.plurals import plural

SESSION_SECRET = "FEATURESTORE_SESSION_SECRET"  # noqa: S105 - the name of an environment variable
"""Where several servers behind one address find the secret that they share; else each `featurestore serve` draws its own."""

LEAST_CHARACTERS = 32
"""Characters of that secret at least."""

LASTS_SECONDS = 12 * 3600
"""Seconds after which somebody must sign in again."""

SHAPE = re.compile(r"([0-9a-f]{12})\.([0-9]{1,12})\.([0-9a-f]{64})")


def drawn_secret() -> str:
    """A secret that nobody else has."""
    return secrets.token_hex(32)


class Sessions:
    """Signs sessions, and reads those that it, or another server of the same secret, has signed. now: seconds since the epoch.

    Raises ConfigError where the secret is too short to be one.
    """

    def __init__(self, secret: str, *, now: Callable[[], float] = time.time) -> None:
        if len(secret) < LEAST_CHARACTERS:
            raise ConfigError(
                f"{SESSION_SECRET} has {len(secret)} {plural(len(secret), 'character')}, and must have {LEAST_CHARACTERS} at least that nobody can guess"
            )
        self._secret, self._now = secret.encode(), now

    def signed(self, key: str) -> str:
        """A session of an API key, by its id, from now on."""
        until = int(self._now()) + LASTS_SECONDS
        return f"{key}.{until}.{self._signature(key, str(until))}"

    def key_of(self, session: str) -> str | None:
        """The id of the key that a session stands for; None where it is none, or over."""
        found = SHAPE.fullmatch(session)
        if found is None or not hmac.compare_digest(self._signature(found[1], found[2]), found[3]):
            return None
        return found[1] if self._now() < int(found[2]) else None

    def _signature(self, key: str, until: str) -> str:
        return hmac.new(self._secret, f"session.{key}.{until}".encode(), hashlib.sha256).hexdigest()

"""API keys: made, rotated and revoked, and told by what a request brings.

A key is `fsk_ID_SECRET`: an id that may be shown, and 256 random bits. The registry has its SHA-256 alone. A slow hash would
protect what people choose, which can be guessed; 256 random bits cannot, and the hash is computed for each request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from featurestore.access.principal import KINDS, checked_scopes
from featurestore.clock import wall_clock
from featurestore.errors import ConfigError, NotFoundError, did_you_mean
from featurestore.registry.keys import ApiKey
from featurestore.registry.store import Registry

PREFIX = "fsk_"
"""What every key begins with, so that programs that search for leaked secrets find it."""

SHAPE = re.compile(r"fsk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
SECRET = re.compile(r"fsk_|[0-9a-f]{10,}_[A-Za-z0-9_-]{30,}", re.IGNORECASE)
"""What a mistyped secret has; no name has it, and no message shows what has it."""

SECRET_BYTES = 32


@dataclass(frozen=True)
class NewKey:
    """A key that was just made, with its secret, which nobody can tell again."""

    key: ApiKey
    secret: str = field(repr=False)


def create_key(
    registry: Registry, name: str, scopes: Iterable[str], *, only_on: Iterable[str] | None = None,
    lasts_us: int | None = None,
) -> NewKey:  # fmt: skip
    """A new key under a name that no live key bears. only_on: what it is limited to, as "service:NAME"; lasts_us: it expires
    after that time. Raises ConfigError."""
    if SECRET.search(name):
        raise ConfigError(
            "A name of a key has no 'fsk_' in it; this one may be a secret. Say who has the key, or what for"
        )
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a key: 1 to 64 letters, digits and _ . @ -, the first a letter or digit"
        )
    if lasts_us is not None and lasts_us <= 0:
        raise ConfigError("A key must last longer than no time")
    now = wall_clock()
    limits = None if only_on is None else tuple(sorted(set(only_on)))
    for limit in limits or ():
        if limit.partition(":")[0] not in KINDS or not limit.partition(":")[2]:
            raise ConfigError(f"'{limit}' is nothing that a key can be limited to: {':NAME, '.join(KINDS)}:NAME")
    asked = checked_scopes(scopes)
    if limits is not None and {"admin", "materialize", "metrics"} & set(asked):
        raise ConfigError(
            "The scopes 'admin', 'materialize' and 'metrics' are for the whole project; a limited key cannot have them"
        )
    made = _made(name, asked, limits, now, None if lasts_us is None else now + lasts_us)

    def add(there: list[ApiKey]) -> list[ApiKey]:
        if any(key.name == name and key.is_live(now) for key in there):
            raise ConfigError(
                f"There is a live key '{name}': rotate it (featurestore keys rotate {name}), or take another name"
            )
        return [made.key]

    registry.change_keys("create key", add)
    return made


def rotate_key(registry: Registry, which: str, *, overlap_us: int) -> NewKey:
    """A new secret with a key's name, scopes and limits; what it replaces expires after the overlap. which: its name or id.

    A key that expires is given as long as it was at first.
    """
    now = wall_clock()
    rotated: list[NewKey] = []

    def rotate(there: list[ApiKey]) -> list[ApiKey]:
        live = [key for key in named_keys(there, which) if key.is_live(now)]
        if not live:
            raise NotFoundError(f"The key '{which}' is not live any more; make another (featurestore keys create)")
        newest = live[-1]
        lasts = None if newest.expires_at is None else now + newest.expires_at - newest.created_at
        rotated.append(_made(newest.name, newest.scopes, newest.only_on, now, lasts))
        until = now + overlap_us
        ends = [until if key.expires_at is None else min(until, key.expires_at) for key in live]
        return [rotated[0].key, *(replace(key, expires_at=end) for key, end in zip(live, ends, strict=True))]

    registry.change_keys("rotate key", rotate)
    return rotated[0]


def revoke_key(registry: Registry, which: str) -> list[ApiKey]:
    """End every live secret of a name, or the one of an id, now; those that were ended."""
    now = wall_clock()
    ended: list[ApiKey] = []

    def revoke(there: list[ApiKey]) -> list[ApiKey]:
        ended.extend(replace(key, revoked_at=now) for key in named_keys(there, which) if key.revoked_at is None)
        return ended

    registry.change_keys("revoke key", revoke)
    return ended


def named_keys(keys: Iterable[ApiKey], which: str) -> list[ApiKey]:
    """The keys of a name or an id, the oldest first; also `fsk_ID`, as it is shown. NotFoundError where there is none."""
    every = list(keys)
    found = [key for key in every if which in {key.name, key.id, PREFIX + key.id}]
    if found:
        return found
    if SECRET.search(which):
        raise NotFoundError(
            "There is no key of the id that was given. A key is named by its name or its id, and not by its secret"
        )
    raise NotFoundError(f"There is no key '{which}'.{did_you_mean(which, {key.name for key in every}, noun='Keys')}")


def key_id(text: str) -> str | None:
    """The id in what looks like a key; None where it does not."""
    found = SHAPE.fullmatch(text)
    return None if found is None else found[1]


def is_secret_of(text: str, key: ApiKey) -> bool:
    """Whether a text is the key; takes as long whatever of it is right."""
    return is_digest_of(digest_of(text), key)


def is_digest_of(digest: bytes, key: ApiKey) -> bool:
    """Whether a text is the key, by its digest; takes as long whatever of it is right."""
    return hmac.compare_digest(digest, key.hash)


def _made(
    name: str, scopes: tuple[str, ...], only_on: tuple[str, ...] | None, now: int, expires_at: int | None
) -> NewKey:
    number = secrets.token_hex(6)
    secret = f"{PREFIX}{number}_{secrets.token_urlsafe(SECRET_BYTES)}"
    return NewKey(ApiKey(number, name, digest_of(secret), scopes, only_on, now, expires_at), secret)


def digest_of(text: str) -> bytes:
    """What the registry has of a key."""
    return hashlib.sha256(text.encode()).digest()

"""JSON Web Tokens of others: verified by the keys that their issuer publishes, and what their claims mean here."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any

from featurestore.access.principal import KINDS, SCOPES, Principal
from featurestore.access.reread import Ages, Reread, Steps
from featurestore.durable.forks import mutex
from featurestore.errors import MissingPackageError, UnauthenticatedError
from featurestore.hidden import hidden
from featurestore.settings import JwtConfig
from featurestore.timed_opener import timed_opener

try:
    import jwt
    from jwt import PyJWK
except ImportError as error:  # pragma: no cover - the extra is not installed
    raise MissingPackageError(f"Tokens need {error.name}: pip install 'featurestore[jwt]'") from error

LONGEST_BYTES = 8 << 10
"""Bytes of a token; a longer one is refused unread."""

KEY_SET_BYTES = 1 << 20
"""Bytes of a key set; a longer one is refused."""

FETCH_SECONDS = 5.0
"""Seconds for which the issuer is waited for until it is connected, and then until it has answered."""

REFETCH_SECONDS = 10.0
"""Seconds between two fetches that tokens with unknown keys cause, whatever clients send."""

RENEW_SECONDS = 300.0
"""Seconds after which a key set from a URL is fetched anew, so that a key which its issuer withdrew opens nothing any more."""

KEEP_SECONDS = 3600.0
"""Seconds for which a key set counts whose issuer does not answer."""

VERIFIED = 4_096
"""Tokens that are remembered as verified."""

LEAST_RSA_BITS = 2048

TIMES = ("exp", "nbf", "iat")
"""Claims that are seconds since the epoch."""

LAST_SECOND = 253_402_300_800
"""The end of the year 9999: a time is before it."""

UNSAFE = re.compile(r"[^\x21-\x7e]")


class _Unknown(Exception):  # noqa: N818 - a question, and not an error
    """The key of a token is not in the set that is at hand."""


class Tokens:
    """The tokens that one issuer signs. clock: reads seconds, for how old a key set is; now: the instant (s), for tokens."""

    def __init__(
        self, config: JwtConfig, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._config, self._now = config, now
        place = str(config.jwks)
        from_url = "://" in place
        self._keys: Reread[_KeySet] = Reread(
            f"The key set {hidden(place)}",
            lambda: _KeySet(_fetched(place) if from_url else _of_file(place)),
            Ages(RENEW_SECONDS, KEEP_SECONDS, KEEP_SECONDS, REFETCH_SECONDS)
            if from_url
            else Ages(1.0, 2.0, KEEP_SECONDS, 1.0),
            clock=clock,
        )
        self._verified: OrderedDict[str, tuple[_KeySet, float, Principal]] = OrderedDict()
        self._lock = mutex()

    def at_once(self, text: str) -> Principal | None:
        """The principal that a token names, without waiting; None where its issuer's keys must be fetched first. Errors as of `principal`."""
        keys = self._keys.at_hand()
        if keys is None:
            return None
        try:
            return self._principal(text, keys)
        except _Unknown:
            if self._keys.may_renew(apart_seconds=REFETCH_SECONDS):
                return None
            raise self._refused("its key is not one that its issuer publishes") from None

    def principal(self, text: str) -> Steps[Principal]:
        """The principal that a token names. UnauthenticatedError says why it names nobody; AccessUnavailableError where its issuer does not answer."""
        try:
            return self._principal(text, (yield from self._keys.value()))
        except _Unknown:
            keys = yield from self._keys.value_apart(REFETCH_SECONDS)
        try:
            return self._principal(text, keys)
        except _Unknown:
            raise self._refused("its key is not one that its issuer publishes") from None

    def _principal(self, text: str, keys: _KeySet) -> Principal:
        """The same by these keys; _Unknown where the token's is none of them."""
        known = self._verified.get(text)
        if known is not None and known[0] is keys and self._now() < known[1]:
            return known[2]
        claims = self._claims(text, keys)
        principal = self._of(claims)
        with self._lock:
            self._verified[text] = keys, float(claims["exp"]), principal
            while len(self._verified) > VERIFIED:
                self._verified.popitem(last=False)
        return principal

    def _claims(self, text: str, keys: _KeySet) -> dict[str, Any]:
        config = self._config
        if len(text) > LONGEST_BYTES:
            raise self._refused(f"it is longer than {LONGEST_BYTES} bytes")
        try:
            header = jwt.get_unverified_header(text)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise self._refused("it cannot be read") from None
        algorithm, number = header.get("alg"), header.get("kid")
        if algorithm not in config.algorithms:
            raise self._refused(f"its algorithm is none of {', '.join(config.algorithms)}")
        key = keys.key(number if isinstance(number, str) else None, str(algorithm))
        try:
            claims = jwt.decode(
                text,
                key,
                algorithms=[str(algorithm)],
                audience=list(config.audience),
                issuer=config.issuer,
                leeway=config.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise self._refused(_why(error)) from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise self._refused("its claims cannot be read") from None
        for claim in TIMES:
            if claim in claims and not _is_time(claims[claim]):
                raise self._refused(f"its claim {claim} is no time in seconds")
        return claims

    def _of(self, claims: Mapping[str, Any]) -> Principal:
        """What the claims mean here."""
        config = self._config
        name = next((claims[claim] for claim in (config.name_claim, "client_id", "azp") if claims.get(claim)), None)
        if not isinstance(name, str):
            raise self._refused(f"it has no claim {config.name_claim}, which would name the principal")
        scopes: set[str] = set()
        for theirs in _words(claims.get(config.scopes_claim)):
            scopes.update(config.scopes.get(theirs, ()) if config.scopes else {theirs} & SCOPES.keys())
        only: frozenset[str] | None = None
        if config.only_claim is not None:  # a token without it is limited to nothing there is
            said = _words(claims.get(config.only_claim))
            only = frozenset(one for one in said if one.partition(":")[0] in KINDS)
        return Principal(f"jwt:{UNSAFE.sub('?', name)[:128]}", frozenset(scopes), only)

    def _refused(self, why: str) -> UnauthenticatedError:
        return UnauthenticatedError(
            f"The token is not taken: {why}",
            challenge=f'Bearer realm="featurestore", error="invalid_token", error_description="{why}"',
        )


class _KeySet:
    """The keys of a JSON Web Key Set that can verify signatures, by their ids."""

    def __init__(self, document: object) -> None:
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise ValueError("it is no JSON Web Key Set, which is an object with a list 'keys'")
        self._listed = [one for one in listed if isinstance(one, dict) and _is_public(one)]
        self._made: dict[tuple[str | None, str], PyJWK] = {}

    def key(self, number: str | None, algorithm: str) -> PyJWK:
        """The key of an id for an algorithm, or of none the only one; _Unknown where there is not exactly one."""
        made = self._made.get((number, algorithm))
        if made is not None:
            return made
        fitting = []
        for one in self._listed:
            if number in {None, one.get("kid")} and one.get("alg") in {None, algorithm}:
                try:
                    key = PyJWK(one, algorithm)
                except (jwt.PyJWTError, ValueError, TypeError):
                    continue
                if getattr(key.key, "key_size", LEAST_RSA_BITS) >= LEAST_RSA_BITS or not algorithm.startswith(
                    ("RS", "PS")
                ):
                    fitting.append(key)
        if len(fitting) != 1:
            raise _Unknown
        return self._made.setdefault((number, algorithm), fitting[0])


def _is_public(key: Mapping[str, Any]) -> bool:
    """Whether it is a public key for signatures: no shared secret, and no private key that somebody published."""
    operations = key.get("key_ops")
    return (
        key.get("kty") in {"RSA", "EC", "OKP"}
        and "d" not in key
        and key.get("use") in {None, "sig"}
        and (not isinstance(operations, list) or "verify" in operations)
    )


def _why(error: jwt.PyJWTError) -> str:
    """Why a token is not taken, without anything of it."""
    for kind, why in (
        (jwt.ExpiredSignatureError, "it has expired"),
        (jwt.ImmatureSignatureError, "it is not valid yet"),
        (jwt.InvalidAudienceError, "it is for another audience"),
        (jwt.InvalidIssuerError, "it is of another issuer"),
        (jwt.InvalidSignatureError, "its signature is wrong"),
    ):
        if isinstance(error, kind):
            return why
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"it has no claim {error.claim}"
    return "it cannot be read"


def _is_time(claim: object) -> bool:
    """Whether a claim is a number of seconds, as RFC 7519 has times; true and "5" are none."""
    return isinstance(claim, (int, float)) and not isinstance(claim, bool) and 0 <= claim < LAST_SECOND


def _words(claim: object) -> list[str]:
    """A claim that is a list of words, or words with blanks between them."""
    if isinstance(claim, str):
        return claim.split()
    return [one for one in claim if isinstance(one, str)] if isinstance(claim, list) else []


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A key set lies where the configuration says, and not where somebody else's answer says."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """No request."""


def _fetched(url: str) -> object:
    opener = timed_opener(_NoRedirect)
    request = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})  # noqa: S310 - the scheme was looked at
    try:
        with opener.open(request, timeout=FETCH_SECONDS) as answer:
            return _parsed(answer.read(KEY_SET_BYTES + 1))
    except urllib.error.HTTPError as error:
        with error:
            raise ValueError(f"its issuer answered {error.code}") from None
    except (OSError, HTTPException) as error:
        raise ValueError(f"its issuer does not answer ({getattr(error, 'reason', None) or error})") from None


def _of_file(path: str) -> object:
    with Path(path).open("rb") as file:
        return _parsed(file.read(KEY_SET_BYTES + 1))


def _parsed(data: bytes) -> object:
    if len(data) > KEY_SET_BYTES:
        raise ValueError(f"it is longer than {KEY_SET_BYTES} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None

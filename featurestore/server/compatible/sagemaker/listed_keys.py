"""The keys of a group, page by page. They are read ahead, so that not each page reads the key columns of the source."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic
from typing import NamedTuple

import orjson

from featurestore.lazy import pa
from featurestore.semantics.service import ResolvedService
from featurestore.server.compatible.sagemaker.identifiers import json_of_key, key_of_json
from featurestore.server.problems import BadRequest
from featurestore.sources.offline import Offline
from featurestore.training.snapshot import keys_in, next_keys
from featurestore.types import FeatureType, Scalar

AHEAD_KEYS, AHEAD_BYTES = 1 << 16, 4 << 20
"""What is read ahead for one listing at most."""

LISTINGS = 8
"""Listings for which keys are held; those longest without a page go first."""

HELD_SECONDS = 60.0
"""How long they are held after a page."""


class KeyPage(NamedTuple):
    """Some keys in their order, and the token of the next page; None after the last."""

    keys: list[tuple[Scalar, ...]]
    next_token: str | None


class _Token(NamedTuple):
    """Where a page ended: its last key, which is enough to go on, and where that lies among the keys that are held, if it does."""

    key: list[Scalar]
    listing: str
    place: int


class _Ahead(NamedTuple):
    """Keys that were read; whether there may be more; what they are keys of; and when a page last took some."""

    keys: pa.Table
    goes_on: bool
    of: str
    used: float


class ListedKeys:
    """The pages of all listings under way, of any thread.

    A listing without a token reads the source, and so has every key that is there when it begins. What is read ahead
    belongs to that listing alone. Where it is not held any more, or by another process, the key in the token is gone on from.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._held: OrderedDict[str, _Ahead] = OrderedDict()
        self._lock = Lock()

    def page(self, service: ResolvedService, offline: Offline, *, token: str | None, most: int) -> KeyPage:
        """So many keys at most that follow a token, or the first ones. Raises BadRequest for what is no token, SpineError as
        `snapshot` does."""
        types = list(service.key_inputs.values())
        after = None if token is None else _read(types, token)
        listing, place = "", 0
        ahead = None if after is None else self._found(service, after)
        if after is not None and ahead is not None:
            listing, place = after.listing, after.place
        elif after is None:
            ahead = _read_ahead(service, offline, None, most + 1, self._clock())
        else:
            listing = secrets.token_hex(8)
            ahead = _read_ahead(service, offline, after.key, max(AHEAD_KEYS, most + 1), self._clock())
        keys = keys_in(service, ahead.keys.slice(place, most))
        place += len(keys)
        is_left = place < ahead.keys.num_rows
        if listing:
            self._hold(listing, ahead if is_left else None)
        if not keys or not (is_left or ahead.goes_on):
            return KeyPage(keys, None)
        return KeyPage(keys, _told(types, _Token(list(keys[-1]), listing, place)))

    def _found(self, service: ResolvedService, after: _Token) -> _Ahead | None:
        """What is held for the listing of a token, where that is one of this group and ended where it says."""
        with self._lock:
            ahead = self._held.get(after.listing)
        if ahead is None or ahead.of != _of(service) or not 0 < after.place < ahead.keys.num_rows:
            return None
        (last,) = keys_in(service, ahead.keys.slice(after.place - 1, 1))
        return ahead if list(last) == after.key else None

    def _hold(self, listing: str, ahead: _Ahead | None) -> None:
        """Hold what a page was taken of, None where nothing is left of it; and let go of what nobody goes on with."""
        now = self._clock()
        with self._lock:
            self._held.pop(listing, None)
            if ahead is not None:
                self._held[listing] = ahead._replace(used=now)
            while self._held and (
                len(self._held) > LISTINGS or next(iter(self._held.values())).used < now - HELD_SECONDS
            ):
                self._held.popitem(last=False)


def _read_ahead(
    service: ResolvedService, offline: Offline, after: Sequence[Scalar] | None, most: int, now: float
) -> _Ahead:
    """Keys after one, or the first: no more of them than may be held."""
    keys = next_keys(service, offline, after=after, most=most)
    goes_on = keys.num_rows == most
    if keys.nbytes > AHEAD_BYTES:
        fit = max(1, keys.num_rows * AHEAD_BYTES // keys.nbytes)
        keys, goes_on = keys.take(pa.array(range(fit))), True  # a slice would hold all of it
    return _Ahead(keys, goes_on, _of(service), now)


def _of(service: ResolvedService) -> str:
    """What keys are keys of: another definition may have others."""
    return f"{service.name}@{service.fingerprint}"


def _told(types: Sequence[FeatureType], token: _Token) -> str:
    return orjson.dumps([json_of_key(types, token.key), token.listing, token.place]).decode()


def _read(types: Sequence[FeatureType], text: str) -> _Token:
    """A token that was given; BadRequest for another text."""
    try:
        key, listing, place = orjson.loads(text)
        if isinstance(key, list) and isinstance(listing, str) and type(place) is int:
            return _Token(key_of_json(types, key), listing, place)
    except (ValueError, TypeError):
        pass
    raise BadRequest("NextToken is none that was given")

"""Which lookups are logged: whole requests by chance, or rows by their keys.

By request, `rate` is how many of the requests are logged. By key, a row is logged where a hash of its entity keys falls
below the rate: all rows of a key are then logged together, by every process and for ever, and those of a higher rate
include those of a lower one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from featurestore.registry.store import Registry
from featurestore.semantics.order import order_bytes
from featurestore.semantics.service import ResolvedService
from featurestore.serving.log.serving_log import ServingLog
from featurestore.serving.online_result import OnlineResult
from featurestore.serving.served_rows import ServedRows
from featurestore.serving.store_version import StoreVersion
from featurestore.settings import ServingLogConfig


def is_logged_key(key: bytes, rate: float) -> bool:
    """Whether rows of a key (its values in `order_bytes`, joined) are logged at a rate."""
    place = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return place < int(rate * 2**64)


class Recorder:
    """Offers what is served to the log, as much of it as featurestore.toml says (`said`)."""

    def __init__(self, log: ServingLog, said: ServingLogConfig, registry: Registry) -> None:
        self.log = log
        self._said = said
        self._registry = registry
        self._forms: dict[tuple[str, str], ServedRows] = {}

    def prepare(self, service: ResolvedService) -> None:
        """Find out beforehand what the segments of a service version say of it."""
        if self._said.rates.get(service.name, self._said.rate) > 0:
            self._form(service)

    def record(self, result: OnlineResult, request_id: str | None = None) -> str | None:
        """The id under which a request is logged, its own or a new one; None where it is not."""
        service = result.service
        rate = self._said.rates.get(service.name, self._said.rate)
        if rate <= 0 or not len(result):
            return None
        rows: Sequence[int] = range(len(result))
        if rate < 1:
            if self._said.bys.get(service.name, self._said.by) == "key" and service.key_inputs:
                rows = _by_key(result, rate)
                if not rows:
                    return None
            elif random.random() >= rate:  # noqa: S311 - no secret
                return None
        name = self.log.next_request() if request_id is None else request_id
        return name if self.log.offer(self._form(service).served(result, name, rows)) else None

    def _form(self, service: ResolvedService) -> ServedRows:
        named = service.name, service.fingerprint
        form = self._forms.get(named)
        if form is None:
            found = self._registry.find_service(*named)
            version = StoreVersion.of(service, None if found is None else found.number)
            form = self._forms[named] = ServedRows(service, version)
        return form


def _by_key(result: OnlineResult, rate: float) -> list[int]:
    """The rows whose keys are logged."""
    keys = result.service.key_inputs
    columns = [[order_bytes(of, value) for value in result.inputs[name]] for name, of in keys.items()]
    return [row for row, key in enumerate(zip(*columns, strict=True)) if is_logged_key(b"".join(key), rate)]

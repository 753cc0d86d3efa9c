"""One leader among the processes that follow the same views: a lease that it renews as long as it works."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

from featurestore.errors import FeatureStoreError
from featurestore.materialize.lease import Lease, LeaseLostError
from featurestore.online import OnlineStore
from featurestore.online.view_codec import project_prefix

RENEW_SECONDS = 20.0
"""Seconds between two renewals: a sixth of a lease, so that a store that cannot be reached for a while costs none."""


def leader_key(project: str, views: Sequence[str] | None = None) -> bytes:
    """The key of the lease of whoever leads those that follow these views; None: all."""
    names = "\0".join(sorted(views or ()))
    return project_prefix(project) + hashlib.blake2b(f"follow {names}".encode(), digest_size=8).digest() + b"f"


class Leader:
    """This process leads until it leaves, or, stopped for longer than a lease lasts, another took over: then `is_lost`.

    Raises LeaseTakenError where another leads, and OnlineStoreError.
    """

    def __init__(self, store: OnlineStore, key: bytes) -> None:
        self._lease = Lease(store, key, "What is due")
        self._lost, self._left = threading.Event(), threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="featurestore leader", daemon=True)
        self._renewer.start()

    @property
    def is_lost(self) -> bool:
        """Whether another leads by now."""
        return self._lost.is_set()

    def leave(self) -> None:
        """Let another lead, at once."""
        self._left.set()
        self._renewer.join()
        self._lease.give_up()

    def _renew(self) -> None:
        while not self._left.wait(RENEW_SECONDS):
            try:
                self._lease.renew()
            except LeaseLostError:
                self._lost.set()
                return
            except FeatureStoreError:  # the store cannot be reached; what is written there meanwhile says so, too
                continue

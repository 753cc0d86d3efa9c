"""Keeps a lease while its holder does something else than write by it."""

from __future__ import annotations

import threading

from featurestore.errors import FeatureStoreError
from featurestore.materialize.lease import Lease, LeaseLostError

RENEW_SECONDS = 20.0
"""Seconds between two renewals: a sixth of a lease, so that a store that cannot be reached for a while costs none."""


class LeaseRenewer:
    """Renews a lease in a thread until it is stopped, or another took over: then `is_lost`. Nobody else uses the lease meanwhile."""

    def __init__(self, lease: Lease, *, name: str) -> None:
        self._lease = lease
        self._lost, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._renew, name=name, daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether another has the lease by now."""
        return self._lost.is_set()

    def stop(self) -> None:
        """Renew it no more; the lease is the caller's again."""
        self._stopped.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS):
            try:
                self._lease.renew()
            except LeaseLostError:
                self._lost.set()
                return
            except FeatureStoreError:  # the store cannot be reached; what is written there meanwhile says so, too
                continue

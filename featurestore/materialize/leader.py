"""One leader among the processes that follow the same views: a lease that it renews as long as it works."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from featurestore.materialize.lease import Lease
from featurestore.materialize.lease_renewer import LeaseRenewer
from featurestore.online import OnlineStore
from featurestore.online.view_codec import project_prefix


def leader_key(project: str, views: Sequence[str] | None = None) -> bytes:
    """The key of the lease of the process that leads those that follow these views; None: all."""
    names = "\0".join(sorted(views or ()))
    return project_prefix(project) + hashlib.blake2b(f"follow {names}".encode(), digest_size=8).digest() + b"f"


class Leader:
    """This process leads until it leaves, or, stopped for longer than a lease lasts, another took over: then `is_lost`.

    Raises LeaseTakenError where another leads, and OnlineStoreError.
    """

    def __init__(self, store: OnlineStore, key: bytes) -> None:
        self._lease = Lease(store, key, "What is due")
        self._renewer = LeaseRenewer(self._lease, name="featurestore leader")

    @property
    def is_lost(self) -> bool:
        """Whether another leads by now."""
        return self._renewer.is_lost

    def leave(self) -> None:
        """Let another lead, at once."""
        self._renewer.stop()
        self._lease.give_up()

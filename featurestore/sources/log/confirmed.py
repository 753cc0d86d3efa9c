"""Two instants that are kept beside the log: every new row gets a later known_at.

It lies beside the log and not in the online store, which may come back older and with a clock that is behind. It is
written under the log's lock and never synced: within one run of the machine it is exact.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["CONFIRMED_LAYOUT", "NEVER", "Confirmed"]

CONFIRMED_LAYOUT = "<qq"
"""Its numbers in the file, as `struct` has them."""

NEVER = -(1 << 63)


class Confirmed(NamedTuple):
    """written: the greatest instant that was to be confirmed in the online store. served: the greatest that any answer
    was for, as far as whoever has the log at hand vouched for it. µs."""

    written: int = NEVER
    served: int = NEVER

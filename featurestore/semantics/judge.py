"""Rule 4: whether a value is MISSING, EXPIRED, OVERFLOW or PRESENT, and where a default replaces it.

MISSING     the key is not known, or null
EXPIRED     it is known, and no row lies within the ttl, or the validity of the one that was chosen has ended
OVERFLOW    the fold's value is beyond what its type can hold
PRESENT     else
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featurestore.semantics.rows import before_ttl
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedFeature

Bits = npt.NDArray[np.bool_]
Statuses = npt.NDArray[np.uint8]


def ended(until: Any, as_of: Any) -> Any:
    """Whether the validity of a row has ended; END where it is open. Ints, or numpy arrays of int64 alike."""
    return until <= as_of


def ended_sql(until: str, as_of: int) -> str:
    """`ended` of a BIGINT expression."""
    return f"{until} <= {as_of}"


def expired(event_us: Any, until: Any, as_of: Any, ttl: int | None) -> Any:
    """Whether the newest row no longer stands for a value: it lies before the ttl, or its validity has ended."""
    over = ended(until, as_of)
    return over if ttl is None else over | before_ttl(event_us, as_of, ttl)


def status_of(known: bool, *, expired: bool = False, overflow: bool = False) -> Status:
    """The status of one value."""
    if not known:
        return Status.MISSING
    if expired:
        return Status.EXPIRED
    return Status.OVERFLOW if overflow else Status.PRESENT


def statuses_of(known: Bits, *, expired: Bits | bool = False, overflow: Bits | bool = False) -> Statuses:
    """`status_of` of many."""
    of_known = np.where(expired, Status.EXPIRED, np.where(overflow, Status.OVERFLOW, Status.PRESENT))
    return np.where(known, of_known, Status.MISSING).astype(np.uint8)


def row_status(event_us: int | None, until: int, as_of: int, ttl: int | None) -> Status:
    """The status of what is read from a key's newest row, of which event_us is None where the key has none."""
    if event_us is None:
        return status_of(known=False)
    return status_of(known=True, expired=expired(event_us, until, as_of, ttl))


def row_statuses(known: Bits, event_us: Any, until: Any, as_of: Any, ttl: int | None) -> Statuses:
    """`row_status` of many; the times of a key that is not known are any."""
    return statuses_of(known, expired=expired(event_us, until, as_of, ttl))


def non_present(feature: ResolvedFeature) -> Status:
    """What a folded feature of a known key is where it is not PRESENT, which is all that a slot tells: a fold that may do
    without a window can find nothing within the ttl, or a row that has ended; the others can overflow."""
    return Status.OVERFLOW if feature.fold.needs_window else Status.EXPIRED


def are_expired(columns: Iterable[Statuses]) -> Bits:
    """For which rows the values of all columns are EXPIRED."""
    expired: Bits = np.logical_and.reduce([statuses == Status.EXPIRED for statuses in columns])
    return expired


def takes_default(status: Any) -> Any:
    """Whether a default replaces the null of a value that is not PRESENT; a Status, or a numpy array of them."""
    return (status == Status.MISSING) | (status == Status.EXPIRED)


def filled(
    statuses: Sequence[Sequence[Status]], columns: Sequence[Sequence[Any]], defaults: Sequence[Any]
) -> Sequence[Sequence[Any]]:
    """Columns with null, or the default, in place of what is not PRESENT. Columns mostly share their statuses."""
    distinct = {id(status): status for status in statuses}
    complete = {number: status.count(Status.PRESENT) == len(status) for number, status in distinct.items()}
    if all(complete.values()):
        return columns
    return [
        column if complete[id(status)] else [
            value if each is Status.PRESENT else default if takes_default(each) else None
            for each, value in zip(status, column, strict=True)
        ]
        for status, column, default in zip(statuses, columns, defaults, strict=True)
    ]  # fmt: skip


def expire(rows: Iterable[int], values: list[Any], statuses: list[Status], default: Any) -> None:
    """Let a column's values at these rows be EXPIRED."""
    for row in rows:
        values[row], statuses[row] = default, Status.EXPIRED


def spread(
    places: Sequence[int | None],
    statuses: Sequence[Sequence[Status]],
    columns: Sequence[Sequence[Any]],
    defaults: Sequence[Any],
) -> tuple[list[list[Status]], list[list[Any]]]:
    """The statuses and columns of known keys for requests, each at one of their places, or None where its key is not known."""
    found = {id(status): [Status.MISSING if p is None else status[p] for p in places] for status in statuses}
    values = [
        [default if p is None else column[p] for p in places] for column, default in zip(columns, defaults, strict=True)
    ]
    return [found[id(status)] for status in statuses], values

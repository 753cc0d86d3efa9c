"""Rule 4: what a value is at the as_of served. Each judgement is written here once, as Python and as SQL."""

from __future__ import annotations

from typing import Any

from featurestore.semantics.rows import before_ttl

__all__ = ["ended", "ended_sql", "expired"]


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

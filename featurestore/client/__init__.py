"""A client of the HTTP service, whose answers equal the store's own: no definitions, no registry and no online store are needed.

`calls` has what is sent and how answers are read, `blocking` and `asynchronous` how they travel, `retries` how long one waits.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.client.asynchronous import AsyncClient
    from featurestore.client.blocking import Client

__all__ = ["AsyncClient", "Client"]

_HOMES = {"AsyncClient": "asynchronous", "Client": "blocking"}
"""Where each is; imported when it is first used, since each needs a library of its own."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value

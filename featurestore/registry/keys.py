"""API keys: who may call the service. The registry keeps a hash of each, and never the key itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from featurestore.durable.database import Transaction, row_check

COLUMNS = "id, name, hash, scopes, only_on, created_at, expires_at, revoked_at"

REPLACE = "ON CONFLICT (id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in [*COLUMNS.split(", ")[1:], "of_row", "used_at"]
)

API_KEYS = """TABLE api_keys (
        id TEXT PRIMARY KEY,            -- the part of the key that may be shown
        name TEXT NOT NULL,             -- several secrets bear it while one takes the place of another
        hash BLOB NOT NULL,             -- SHA-256 of the whole key
        scopes TEXT NOT NULL,           -- JSON, a list
        only_on TEXT,                   -- JSON, a list such as ["service:delay_model"]; null: everything of the project
        created_at INTEGER NOT NULL,    -- µs since the epoch
        expires_at INTEGER,
        revoked_at INTEGER,
        of_row INTEGER NOT NULL,        -- a checksum of the others
        used_at INTEGER                 -- about when it was last used; under no checksum
    ) WITHOUT ROWID"""


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key. id: the part of it that may be shown. only_on: what it is limited to, such as
    "service:delay_model"; None: everything of the project. Instants in µs; used_at: to some minutes."""

    id: str
    name: str
    hash: bytes = field(repr=False)
    scopes: tuple[str, ...]
    only_on: tuple[str, ...] | None
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    used_at: int | None = None

    def is_live(self, now: int) -> bool:
        """Whether it opens anything at an instant (µs)."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def told(self) -> dict[str, Any]:
        """What the trail of activity says of it."""
        return {
            "id": self.id, "scopes": self.scopes, "only_on": self.only_on, "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
        }  # fmt: skip

    def state(self, now: int) -> str:
        """ "live", "expired" or "revoked" at an instant (µs)."""
        if self.revoked_at is not None:
            return "revoked"
        return "live" if self.is_live(now) else "expired"


def keys_in(connection: Transaction) -> list[ApiKey]:
    """All keys, the oldest first. ValueError, which names its id, where one is not what was written."""
    found = []
    sql = f"SELECT of_row, used_at, {COLUMNS} FROM api_keys ORDER BY created_at, id"
    for check, used, *row in connection.execute(sql).fetchall():
        if check != row_check(row):
            raise ValueError(f"API key {row[0]} is not what was written")
        key, name, secret, scopes, only, created, expires, revoked = row
        only_on = None if only is None else tuple(orjson.loads(only))
        scopes = tuple(orjson.loads(scopes))
        found.append(ApiKey(key, name, secret, scopes, only_on, created, expires, revoked, used))
    return found


def put_keys(connection: Transaction, keys: Iterable[ApiKey]) -> None:
    """Write keys, in the place of those with the same ids."""
    for key in keys:
        scopes = orjson.dumps(key.scopes).decode()
        only = None if key.only_on is None else orjson.dumps(key.only_on).decode()
        row = (key.id, key.name, key.hash, scopes, only, key.created_at, key.expires_at, key.revoked_at)
        connection.execute(
            f"INSERT INTO api_keys ({COLUMNS}, of_row, used_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) {REPLACE}",
            (*row, row_check(row), key.used_at),
        )


def note_used(connection: Transaction, used_at: Mapping[str, int]) -> None:
    """Say when keys, by their ids, were last used (µs); what is there and later stays."""
    rows = [(at, key, at) for key, at in used_at.items()]
    connection.executemany("UPDATE api_keys SET used_at = ? WHERE id = ? AND coalesce(used_at, 0) < ?", rows)

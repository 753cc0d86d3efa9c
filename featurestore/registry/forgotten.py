"""Forgotten keys: of each a digest under the registry's own secret, and how far it is erased."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import orjson

from featurestore.durable.database import Transaction, row_check
from featurestore.semantics.forgotten import SECRET_BYTES, ForgottenKey, ForgottenKeys

COLUMNS = "entity, columns, digest, at, done_at, sources, refill"

REPLACE = "ON CONFLICT (entity, columns, digest) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in ("at", "done_at", "sources", "refill", "of_row")
)

FORGOTTEN = """TABLE forgotten (
        entity TEXT NOT NULL,
        columns TEXT NOT NULL,          -- JSON, a list: the key columns that were given
        digest TEXT NOT NULL,           -- hexadecimal; see semantics.forgotten
        at INTEGER NOT NULL,            -- µs since the epoch, by the online store's clock
        done_at INTEGER,                -- since when all is erased; null: that is still to be done
        sources TEXT NOT NULL,          -- JSON, a list: the push sources out of whose logs rows were erased
        refill TEXT NOT NULL,           -- JSON, a list: views that are to be filled again, since they counted such rows
        of_row INTEGER NOT NULL,        -- a checksum of the others
        PRIMARY KEY (entity, columns, digest)
    ) WITHOUT ROWID"""

FORGET_SECRET = "TABLE forget_secret (secret TEXT NOT NULL)"  # noqa: S105 - a table
"""One row, made when it is first asked for."""


@dataclass(frozen=True)
class Forgetting:
    """A key that is forgotten, and how far that has come. See the table."""

    key: ForgottenKey
    done_at: int | None = None
    sources: tuple[str, ...] = ()
    refill: tuple[str, ...] = ()


def secret_in(connection: Transaction) -> str | None:
    """The secret, where there is one yet."""
    row = connection.execute("SELECT secret FROM forget_secret").fetchone()
    return None if row is None else str(row[0])


def made_secret(connection: Transaction) -> str:
    """The secret, made where there was none."""
    secret = secret_in(connection)
    if secret is None:
        secret = secrets.token_hex(SECRET_BYTES)
        connection.execute("INSERT INTO forget_secret VALUES (?)", (secret,))
    return secret


def forgettings_in(connection: Transaction) -> list[Forgetting]:
    """All of them. ValueError where one is not what was written."""
    found = []
    for check, *row in connection.execute(f"SELECT of_row, {COLUMNS} FROM forgotten").fetchall():
        if check != row_check(row):
            raise ValueError(f"a forgotten key of entity '{row[0]}' is not what was written")
        entity, columns, digest, at, done, sources, refill = row
        key = ForgottenKey(entity, tuple(orjson.loads(columns)), digest, at)
        found.append(Forgetting(key, done, tuple(orjson.loads(sources)), tuple(orjson.loads(refill))))
    return found


def put_forgetting(connection: Transaction, one: Forgetting) -> None:
    """Write one, in the place of what was known of its key."""
    key = one.key
    columns, sources, refill = (orjson.dumps(names).decode() for names in (key.columns, one.sources, one.refill))
    row = (key.entity, columns, key.digest, key.at, one.done_at, sources, refill)
    connection.execute(
        f"INSERT INTO forgotten ({COLUMNS}, of_row) VALUES (?, ?, ?, ?, ?, ?, ?, ?) {REPLACE}", (*row, row_check(row))
    )


def forgotten_in(connection: Transaction) -> ForgottenKeys | None:
    """What readers of sources are told; None where no key is forgotten."""
    found = forgettings_in(connection)
    secret = secret_in(connection) if found else None
    if found and secret is None:
        raise ValueError("the secret of its forgotten keys is gone")
    return None if secret is None else ForgottenKeys(secret, tuple(one.key for one in found))

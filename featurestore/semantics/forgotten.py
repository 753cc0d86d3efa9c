"""Keys that are forgotten: of which nothing counts that was learned by the instant at which they were.

A forgotten row is a row without a key. So it still supersedes what it superseded, which leaves all other keys' values as
they are, and then it is dropped, as rows without a key are. What is kept of a forgotten key is a digest of it under a secret of
the project's. Digests are made here alone, by SQL: of the rows of a source, and of the key that somebody gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from featurestore.semantics.sql import literal
from featurestore.semantics.view import KeyColumn, ResolvedView
from featurestore.types import FeatureType

SECRET_BYTES = 16


class ForgottenKey(NamedTuple):
    """A key, or all keys that have some values in some of their columns."""

    entity: str
    columns: tuple[str, ...]
    """The key columns that were given, in the entity's order."""

    digest: str
    """Of their values, hexadecimal; see `digest_sql`."""

    at: int
    """Rows that were learned by then (µs) do not count."""


@dataclass(frozen=True)
class ForgottenKeys:
    """Those of a project. secret: hexadecimal; who has it can tell which digest a key that he thinks of has."""

    secret: str
    keys: tuple[ForgottenKey, ...]

    def by_columns(self, entity: str) -> dict[tuple[str, ...], list[ForgottenKey]]:
        """Those of an entity, by the columns that were given."""
        found: dict[tuple[str, ...], list[ForgottenKey]] = {}
        for key in self.keys:
            if key.entity == entity:
                found.setdefault(key.columns, []).append(key)
        return found


def digest_sql(secret: str, entity: str, keys: Sequence[tuple[str, FeatureType, str]]) -> str:
    """The digest of some columns of a key, each with its name, its type and the SQL of its value; null where one is.

    It is SHA-256 over a secret of these columns, and the values behind their lengths: no text begins another. With a key of
    20 bytes that is one block.
    """
    names = "".join(f"{len(name)}:{name}" for name in (entity, *(name for name, _, _ in keys)))
    own = blake2b(names.encode(), key=bytes.fromhex(secret), digest_size=SECRET_BYTES).hexdigest()
    texts = [_text_sql(of, sql) for _, of, sql in keys]
    parts = [literal(own), *(f"CAST(strlen({text}) AS VARCHAR) || ':' || {text}" for text in texts)]
    return f"sha256({' || '.join(parts)})"


def _text_sql(of: FeatureType, sql: str) -> str:
    """A value as text, another for each value of the type, whatever the session's settings."""
    if of.kind == "String":
        return sql
    if of.kind == "Bytes":
        return f"hex({sql})"
    if of.kind == "Timestamp":
        return f"CAST(epoch_us({sql}) AS VARCHAR)"
    return f"CAST({sql} AS VARCHAR)"


def given(keys: Sequence[KeyColumn], columns: Sequence[str]) -> list[tuple[str, FeatureType, str]]:
    """Some columns of a view's key as `digest_sql` takes them, named as `key_list` names them."""
    return [(key.name, key.type, f"k{i}") for i, key in enumerate(keys) if key.name in columns]


def without_forgotten_sql(view: ResolvedView, words: str, forgotten: ForgottenKeys | None) -> str:
    """Rows with `k…` and `learned_us`, where those of forgotten keys have no key, and then `forgotten` is true."""
    joins, terms = "", []
    of_entity = {} if forgotten is None else forgotten.by_columns(view.declared.entity.name)
    for number, (columns, found) in enumerate(of_entity.items()):
        keys = given(view.keys, columns)
        if forgotten is None or len(keys) != len(columns):  # of another version of the entity
            continue
        names = [sql for _, _, sql in keys]
        values = ", ".join(f"('{key.digest}', CAST({key.at} AS BIGINT))" for key in found)
        digest = digest_sql(forgotten.secret, view.declared.entity.name, keys)
        # Of each key once: that takes less than a tenth of the time where a key has a hundred rows.
        mine = (
            f"SELECT d.*, f.instant FROM (SELECT DISTINCT {', '.join(names)} FROM ({words})) d "
            f"JOIN (VALUES {values}) f(digest, instant) ON f.digest = {digest}"
        )
        same = " AND ".join(f"w.{name} = f{number}.{name}" for name in names)
        joins += f" LEFT JOIN ({mine}) f{number} ON {same}"
        terms.append(f"(f{number}.instant IS NOT NULL AND (w.learned_us <= f{number}.instant) IS NOT FALSE)")
    if not terms:
        return words
    nulled = ", ".join(f"CASE WHEN forgotten THEN NULL ELSE k{i} END AS k{i}" for i in range(len(view.keys)))
    return f"SELECT * REPLACE ({nulled}) FROM (SELECT w.*, {' OR '.join(terms)} AS forgotten FROM ({words}) w{joins})"


def has_forgotten(view: ResolvedView, forgotten: ForgottenKeys | None) -> bool:
    """Whether `without_forgotten_sql` says which rows are forgotten."""
    return without_forgotten_sql(view, "", forgotten) != ""

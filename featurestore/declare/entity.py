"""Entities: what features are about."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from featurestore.declare.declaration import ColumnName, Declaration, Name, TypeField, declares


def _no_floats(key: dict[str, TypeField]) -> dict[str, TypeField]:
    for name, of in key.items():
        if of.is_float or of.kind in {"Array", "Embedding"}:
            raise ValueError(
                f"key column '{name}' is {of}; a key is made of whole, comparable values, so no floats, no arrays"
            )
    return key


class Entity(Declaration):
    """What features are about: a name and zero or more typed key columns, in order.

    `Entity("carrier", key={"carrier": String})`; `key={}` is the one entity of global features. A key is compared by
    type and value: the string "1" never meets the integer 1, and a null in any column means that there is no key.
    """

    name: Name
    """Its name, by which reports and the command line call it."""
    key: Annotated[dict[ColumnName, TypeField], AfterValidator(_no_floats), Field(examples=["{'user': String}"])]
    """By name the type of each column of a key, in order; empty for the one entity of global features."""
    owner: str = ""
    """Who answers for it, for readers."""
    description: str = ""
    """What it is, for readers."""
    tags: dict[str, str] = {}
    """Words of your own about it, by name."""

    @declares
    def __init__(
        self,
        name: str,
        *,
        key: dict[str, TypeField],
        owner: str = "",
        description: str = "",
        tags: dict[str, str] | None = None,
    ) -> None:
        self.fill(name=name, key=key, owner=owner, description=description, tags=tags or {})

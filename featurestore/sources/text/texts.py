"""Values that were written as text: in names of folders, and in files of text.

A column of texts is converted at once where each of them has a form of which Arrow makes the same value as `value_of`, and one by
one else; a test compares both.
"""

from __future__ import annotations

from typing import Any

import orjson

from featurestore.clock import datetime_of
from featurestore.lazy import pa, pc
from featurestore.number_texts import decimal_of, float_of, whole_of
from featurestore.semantics.engine import connect, settle_session
from featurestore.semantics.input_columns import WrongValueError
from featurestore.semantics.sql import literal
from featurestore.semantics.values import canonical
from featurestore.types import FeatureType, String, Timestamp, from_json

OFFSET = r"(?:[Zz]|[+-]\d{2}:?\d{2}(?::?\d{2})?)$"
"""How the text of an instant ends that says its offset from UTC."""

TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
ALIKE = {
    "Bool": r"^(?:true|false|True|False|TRUE|FALSE)$",
    "Int32": r"^-?[0-9]{1,9}$",
    "Int64": r"^-?[0-9]{1,18}$",
    "Float64": r"^-?[0-9]{1,15}(?:\.[0-9]{1,15})?$",
    "Date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
}
"""Type → the texts of which Arrow makes the same value."""


def value_of(text: str | None, of: FeatureType) -> Any:
    """The value that a folder's name stands for; ValueError says why it is none of this type."""
    if text is None or of == String:
        return text
    if of.kind == "Bool":
        if text.lower() not in {"true", "false"}:
            raise ValueError(f"{text!r} is neither true nor false")
        return text.lower() == "true"
    if of.kind in {"Int32", "Int64", "Decimal"}:
        return of.accept(decimal_of(text) if of.kind == "Decimal" else whole_of(text))
    if of.is_float:
        return of.accept(float_of(text))
    if of.element is not None:
        return from_json(of, _list(text))
    return from_json(of, text)


def _list(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(f"{text!r} is no JSON list") from None


def column_of(texts: pa.Array, of: FeatureType, *, zone: str | None) -> pa.Array:
    """The values that a column's texts stand for, in the type's Arrow type; null where the text is.

    zone: of instants without an offset; None: UTC. Raises WrongValueError for the first text that stands for none.
    """
    if of == String:
        return texts.cast(of.arrow)
    if of == Timestamp:
        return _instants(texts, zone)
    pattern = ALIKE.get(of.kind)
    if pattern is not None and _all_like(texts, pattern):
        if of.kind == "Bool":
            return pc.equal(pc.utf8_lower(texts), "true")
        try:
            return texts.cast(of.arrow)
        except pa.ArrowInvalid:  # a day that no month has
            pass
    return canonical(pa.array(_one_by_one(texts, of), of.arrow), of)


def _all_like(texts: pa.Array, pattern: str) -> bool:
    return pc.all(pc.match_substring_regex(texts, pattern), min_count=0).as_py() is not False


def _one_by_one(texts: pa.Array, of: FeatureType) -> list[Any]:
    values = []
    for row, text in enumerate(texts.to_pylist()):
        try:
            values.append(value_of(text, of))
        except ValueError as error:
            raise WrongValueError(row, str(error)) from None
    return values


def _instants(texts: pa.Array, zone: str | None) -> pa.Array:
    """Instants of texts with an offset, and of those without, which are local."""
    local = pc.fill_null(pc.invert(pc.match_substring_regex(texts, OFFSET)), False)
    said, unsaid = pc.if_else(local, None, texts), pc.if_else(local, texts, None)
    try:
        instants, naive = _said(said), _naive(unsaid)
    except WrongValueError:
        _one_by_one(texts, Timestamp)  # which finds the first of all
        raise
    if naive.null_count == len(naive):
        return instants
    return pc.coalesce(instants, _in_zone(naive, zone or "UTC"))


def _said(texts: pa.Array) -> pa.Array:
    if _all_like(texts, f"{TIME}(?:Z|[+-][0-9]{{2}}:[0-9]{{2}})$"):
        try:
            return texts.cast(Timestamp.arrow)
        except pa.ArrowInvalid:  # an hour that no day has
            pass
    return pa.array(_one_by_one(texts, Timestamp), Timestamp.arrow)


def _naive(texts: pa.Array) -> pa.Array:
    naive = pa.timestamp("us")
    if _all_like(texts, f"{TIME}$"):
        try:
            return texts.cast(naive)
        except pa.ArrowInvalid:
            pass
    _one_by_one(texts, Timestamp)  # which says what is wrong
    return pa.array([None if text is None else datetime_of(text) for text in texts.to_pylist()], naive)


def _in_zone(naive: pa.Array, zone: str) -> pa.Array:
    """The instants of local times, as the engine has them for columns of them."""
    if zone == "UTC":
        return naive.cast(Timestamp.arrow)
    with connect(":memory:", config={"threads": 1}) as connection:
        settle_session(connection)
        connection.register("local_times", pa.table({"c": naive}))
        found = connection.sql(f"SELECT timezone({literal(zone)}, c) AS c FROM local_times").to_arrow_table()["c"]
    return found.combine_chunks().cast(Timestamp.arrow)

"""Feast's types as ours."""

from __future__ import annotations

import re
from typing import NamedTuple

from featurestore.types import (
    Array,
    Bool,
    Bytes,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
)

SAME = {
    "Bool": Bool, "Int32": Int32, "Int64": Int64, "Float32": Float32, "Float64": Float64, "String": String, "Bytes": Bytes,
    "UnixTimestamp": Timestamp, "ZonedTimestamp": Timestamp, "PdfBytes": Bytes, "ImageBytes": Bytes, "Uuid": String,
    "TimeUuid": String,
}  # fmt: skip
OLDER = {
    "BOOL": "Bool", "INT32": "Int32", "INT64": "Int64", "FLOAT": "Float32", "DOUBLE": "Float64", "STRING": "String",
    "BYTES": "Bytes", "UNIX_TIMESTAMP": "UnixTimestamp", "UUID": "Uuid", "TIME_UUID": "TimeUuid", "PDF_BYTES": "PdfBytes",
    "IMAGE_BYTES": "ImageBytes", "MAP": "Map", "JSON": "Json", "DECIMAL": "Decimal",
}  # fmt: skip
"""What Feast called its types before version 0.20, and still calls those of entities."""

AS_JSON = ("Map", "Json", "Struct", "ScalarMap")


class Meant(NamedTuple):
    """What a type of Feast's is here. of: None where that is not known. as_json: it goes as JSON in a text."""

    of: FeatureType | None
    as_json: bool = False
    note: str = ""


def meant(written: str | None) -> Meant:
    """What a type is here that Feast writes so; nothing is known of what it writes as `UNKNOWN`, `Invalid` or not at all."""
    text = (written or "").strip()
    if text.endswith(("_LIST", "_SET")):
        inner = meant(text.rsplit("_", 1)[0])
        return inner._replace(of=None if inner.of is None else Array(inner.of))
    text = OLDER.get(text, text)
    if text in SAME:
        return Meant(SAME[text])
    if text.startswith(AS_JSON):
        return Meant(String, as_json=True)
    found = re.fullmatch(r"(Array|Set)\((.*)\)", text, re.DOTALL)
    if found is None:
        return Meant(None)
    inner = meant(found[2])
    if inner.as_json or (inner.of is not None and inner.of.element is not None):
        return Meant(String, as_json=True)
    return Meant(
        None if inner.of is None else Array(inner.of), note="a set is a list here" if found[1] == "Set" else ""
    )

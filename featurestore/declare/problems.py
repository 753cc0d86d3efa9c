"""What is wrong with a declaration, in the words of its author."""

from __future__ import annotations

import re
from collections.abc import Mapping
from json import JSONDecodeError, loads
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

MUST = {
    "string_type": "text",
    "dict_type": "a dict",
    "tuple_type": "a list",
    "list_type": "a list",
    "bool_type": "True or False",
    "bool_parsing": "True or False",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    **dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing", "datetime_object_invalid"),
        "an instant, such as '2026-03-01T00:00:00Z' or a datetime with a zone",
    ),
}


def problems(error: ValidationError, said_as: Mapping[str, str] = {}, examples: Mapping[str, str] = {}) -> str:
    """What pydantic found wrong, each with the field's name, in one line.

    said_as: field → the option by which callers say it. examples: field → how its value may look. A field that may be one
    of several kinds is one problem.
    """
    places: dict[str, list[ErrorDetails]] = {}
    for item in error.errors():
        places.setdefault(_place(item, said_as), []).append(item)
    texts = [(where, _problem(items, examples)) for where, items in places.items()]
    return "; ".join(f"{where}: {text}" if where else text for where, text in texts)


def _place(item: ErrorDetails, said_as: Mapping[str, str]) -> str:
    """The field, without what pydantic adds for the kinds that it may be: validators, literals and classes."""
    kind = str(item.get("ctx", {}).get("class_name", ""))
    parts = [str(part) for part in item["loc"]]
    own = [part for part in parts if part != kind and not re.match(r"(function-\w+|literal|lax-or-strict)\[", part)]
    return ".".join([said_as.get(part, part) for part in own[:1]] + own[1:])


def _problem(items: list[ErrorDetails], examples: Mapping[str, str]) -> str:
    kinds = [kind for item in items if (kind := _kind(item)) is not None]
    own = list(dict.fromkeys(_own(item) for item in items if _kind(item) is None))
    if not own:
        *most, last = dict.fromkeys(kinds)
        field = str(items[0]["loc"][0]) if len(items[0]["loc"]) == 1 else ""
        example = f", such as {examples[field]}" if field in examples else ""
        return f"must be {', '.join(most)}{' or ' if most else ''}{last}{example}, and is {shown(items[0]['input'])}"
    said = "; ".join(own)
    return f"{said.rstrip('.')}. Or it is {' or '.join(kinds)}" if kinds else said


def _kind(item: ErrorDetails) -> str | None:
    """What the value must be, where that is all there is to say."""
    context: dict[str, Any] = item.get("ctx", {})
    if item["type"] in {"model_type", "is_instance_of"}:
        name = str(context.get("class_name", context.get("class")))
        return _article(name)
    must = MUST.get(item["type"])
    return None if must is None else must.format(**context)


def _article(name: str) -> str:
    return f"{'an' if name[:1].upper() in 'AEIOU' else 'a'} {name}"


def _own(item: ErrorDetails) -> str:
    if item["type"] == "missing":
        return "must be given"
    if item["type"] in {"too_short", "string_too_short"}:
        return "must not be empty"
    if item["type"] == "string_pattern_mismatch":
        form = str(item.get("ctx", {}).get("pattern", "")).strip("^$")
        return f"must be text of the form {form}, and is {shown(item['input'])}"
    return item["msg"].removeprefix("Value error, ")


def no_json(error: JSONDecodeError) -> str:
    """Where a text is no JSON, without the words of whatever read it."""
    if "UTF-8" in error.msg:
        return "it is not UTF-8"
    if not error.doc.strip():
        return "it is empty"
    place = f"line {error.lineno}, column {error.colno}"
    if error.pos >= len(error.doc):
        return f"it ends at {place}, and is not whole"
    return f"it cannot be read from {place} on, where it says {error.doc[error.pos :][:20]!r}"


def name_twice(text: bytes, value: Any) -> str | None:
    """The name that an object in a JSON text has twice, of which its value keeps the last; None where there is none."""
    # Each string has two quotes, and one for each that it holds. Where a name comes twice, those of the first are gone.
    if text.count(b'"') + text.count(b"\\u0022") == orjson.dumps(value).count(b'"'):
        return None
    twice: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                twice.append(name)
            names.add(name)

    loads(text, object_pairs_hook=look)  # which tells the quote from a backslash before u0022
    return twice[0] if twice else None


def shown(value: Any) -> str:
    """A value as its writer knows it: short ones as they are written, others by their type."""
    if type(value).__name__ in {"NaTType", "NAType"}:  # pandas' nulls, of which one is a datetime
        return repr(value)
    text = repr(value) if isinstance(value, (str, int, float, list, tuple, dict, type(None))) else ""
    return text if text and len(text) <= 60 else _article(type(value).__name__)

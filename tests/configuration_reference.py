"""The reference of featurestore.toml, made of the settings' own models: `python -m tests.configuration_reference` writes the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from featurestore.config import DATA, TABLES, Config, _defaults
from featurestore.settings import Table

PAGE = Path(__file__).parents[1] / "docs" / "configuration-reference.md"
HEAD = """# Configuration reference

Every setting of `featurestore.toml`, with what it takes and what it is where the file does not say it. [Configuration](configuration.md) explains them. This page is made
of the program's own models, by `python -m tests.configuration_reference`.

```toml
project = "shop"

[server]
port = 8080
```
"""
NOT_SET = {"root", "environment"}
SIZES = ((1 << 20, "MiB"), (1 << 10, "KiB"))


def reference() -> str:
    """The page."""
    parts = [
        HEAD,
        _table("The file", Config, {name: value for name, value in _defaults(DATA).items() if name not in TABLES}),
    ]
    for name, model in TABLES.items():
        given = _defaults(DATA).get(name, {})
        parts.append(_table(f"[{name}]", model, given))
    return "\n".join(parts)


def _table(title: str, model: type[Table], defaults: dict[str, Any]) -> str:
    said = " ".join((model.__doc__ or "").split("root: the folder")[0].split())
    lines = [f"## {title}", "", said, "", "| key | takes | default | what it is |", "| --- | --- | --- | --- |"]
    schema = model.model_json_schema(mode="validation")
    for name, field in model.model_fields.items():
        if name in NOT_SET or name in TABLES:
            continue
        assert field.description, f"{model.__name__}.{name} has no description"
        takes = _takes(_bounds(field) | schema["properties"][name])
        lines.append(f"| `{name}` | {takes} | {_default(name, field, defaults)} | {field.description} |")
    return "\n".join([*lines, ""])


def _bounds(field: FieldInfo) -> dict[str, Any]:
    """Those of a number that is read strictly, which the schema does not have."""
    words = {"minimum": "ge", "maximum": "le"}
    return {word: getattr(one, name) for word, name in words.items() for one in field.metadata if hasattr(one, name)}


def _takes(schema: dict[str, Any]) -> str:
    """What a value may be, from its JSON schema."""
    options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return " or ".join(dict.fromkeys(map(_one, options)))


def _one(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f'`"{value}"`' for value in schema["enum"])
    if "const" in schema:
        return f"`{str(schema['const']).lower()}`"
    kind = schema["type"]
    if kind == "array":
        inner = schema.get("items", {})
        return f"list of {_one(inner)}" if "enum" in inner else "list of texts"
    if kind == "object":
        return f"table: name = {_one(schema['additionalProperties'])}"
    if kind == "string":
        return "path" if schema.get("format") == "path" else "text"
    least, more, most = (schema.get(word) for word in ("minimum", "exclusiveMinimum", "maximum"))
    noun = "whole number" if kind == "integer" else "number"
    bounds = [
        f"{word} {bound:g}" for word, bound in (("from", least), ("above", more), ("to", most)) if bound is not None
    ]
    return " ".join([noun, *bounds])


def _default(name: str, field: FieldInfo, defaults: dict[str, Any]) -> str:
    if name in defaults:
        return f"`{defaults[name]}`"
    if field.is_required():
        return "must be given"
    value = field.default
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f'`"{one}"`' for one in value)
    if isinstance(value, str):
        return f'`"{value}"`'
    for size, unit in SIZES:
        if name.endswith("bytes") or name == "bytes_in_flight":
            if value % size == 0:
                return f"`{value}` ({value // size} {unit})"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")

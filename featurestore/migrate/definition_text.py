"""Definitions as text: calls that are laid out as a formatter would, and that can be carried out to see what they declare."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import featurestore
from featurestore.types import FeatureType

WIDTH = 120
"""Characters of a line."""


@dataclass(frozen=True)
class VariableName:
    """A variable, by its name."""

    text: str


@dataclass(frozen=True)
class ViewFeatures:
    """Some features of a view: `view["x"]`, `view[["x", "y"]]`."""

    view: VariableName | DeclarationCall
    features: tuple[str, ...]


@dataclass(frozen=True)
class DeclarationCall:
    """A call of a declaration of ours, or of a method of a variable: `method` of `of`."""

    method: str
    args: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    of: VariableName | None = None

    def with_keywords(self, **keywords: Any) -> DeclarationCall:
        """The same call with more keywords; one that is None, "" or empty is left out."""
        more = {name: value for name, value in keywords.items() if value not in (None, "", (), [], {})}
        return DeclarationCall(self.method, self.args, {**self.keywords, **more}, self.of)


def built(value: Any, variables: Mapping[str, Any]) -> Any:
    """What a call declares. variables: what the variables hold that it names."""
    if isinstance(value, VariableName):
        return variables[value.text]
    if isinstance(value, ViewFeatures):
        return built(value.view, variables)[list(value.features)]
    if isinstance(value, DeclarationCall):
        called = (
            getattr(featurestore, value.method)
            if value.of is None
            else getattr(built(value.of, variables), value.method)
        )
        return called(
            *(built(item, variables) for item in value.args),
            **{name: built(item, variables) for name, item in value.keywords.items()},
        )
    if isinstance(value, (list, tuple)):
        return [built(item, variables) for item in value]
    if isinstance(value, dict):
        return {name: built(item, variables) for name, item in value.items()}
    return value


def names_in(value: Any) -> tuple[set[str], set[str]]:
    """The declarations and the types that a text of it imports."""
    declared: set[str] = set()
    typed: set[str] = set()
    ahead = [value]
    while ahead:
        item = ahead.pop()
        if isinstance(item, DeclarationCall):
            declared |= {item.method} if item.of is None else set()
            ahead += [*item.args, *item.keywords.values()]
        elif isinstance(item, ViewFeatures):
            ahead.append(item.view)
        elif isinstance(item, Mapping):
            ahead += item.values()
        elif isinstance(item, (list, tuple)):
            ahead += item
        elif isinstance(item, FeatureType):
            typed |= _type_names(item)
        elif isinstance(item, datetime):
            declared.add("datetime")
    return declared, typed


def _type_names(of: FeatureType) -> set[str]:
    if of.element is not None:
        return {"Array", *_type_names(of.element)}
    return {"Array", "Float32"} if of.kind == "Embedding" else {of.kind}


def text(value: Any, *, indent: int = 0, used: int = 0) -> str:
    """Python text of a value, its lines no longer than they must be. indent: of the line that it begins on; used: the characters
    that stand before it there, and after it."""
    flat = _flat(value)
    if indent + used + len(flat) <= WIDTH and "\n" not in flat:
        return flat
    inner = indent + 4
    pad, end = " " * inner, " " * indent
    if isinstance(value, DeclarationCall):
        head = f"{_flat(value.of)}.{value.method}" if value.of is not None else value.method
        parts = [text(item, indent=inner, used=1) for item in value.args]
        parts += [f"{name}={text(item, indent=inner, used=len(name) + 2)}" for name, item in value.keywords.items()]
        joined = ", ".join(_flat(item) for item in value.args)
        joined += ("" if not value.args or not value.keywords else ", ") + ", ".join(
            f"{k}={_flat(v)}" for k, v in value.keywords.items()
        )
        if inner + len(joined) <= WIDTH:
            return f"{head}(\n{pad}{joined}\n{end})"
        return f"{head}(\n" + "".join(f"{pad}{part},\n" for part in parts) + f"{end})"
    if isinstance(value, ViewFeatures):
        names = list(value.features)
        return f"{_flat(value.view)}[\n{pad}{text(names, indent=inner)}\n{end}]"
    if isinstance(value, (list, tuple)):
        return "[\n" + "".join(f"{pad}{text(item, indent=inner, used=1)},\n" for item in value) + f"{end}]"
    if isinstance(value, Mapping):
        parts = [f"{_flat(k)}: {text(v, indent=inner, used=len(_flat(k)) + 3)}" for k, v in value.items()]
        return "{\n" + "".join(f"{pad}{part},\n" for part in parts) + f"{end}}}"
    return flat


def _flat(value: Any) -> str:
    if isinstance(value, VariableName):
        return value.text
    if isinstance(value, ViewFeatures):
        names = list(value.features)
        return f"{_flat(value.view)}[{_flat(names[0] if len(names) == 1 else names)}]"
    if isinstance(value, DeclarationCall):
        head = f"{_flat(value.of)}.{value.method}" if value.of is not None else value.method
        said = [*map(_flat, value.args), *(f"{name}={_flat(item)}" for name, item in value.keywords.items())]
        return f"{head}({', '.join(said)})"
    if isinstance(value, FeatureType):
        return str(value)
    if isinstance(value, datetime):
        return "datetime(" + ", ".join(map(str, value.timetuple()[: 6 if value.second else 5])) + ", tzinfo=UTC)"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flat(k)}: {_flat(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flat, value)) + "]"
    return repr(value)


def quoted(value: str) -> str:
    """A text in quotes as formatters write it: double ones, unless that takes more backslashes."""
    plain = repr(value)
    if plain.startswith("'") and '"' not in plain:
        return f'"{plain[1:-1]}"'
    return plain


def assigned(variable: str, value: Any) -> str:
    """An assignment."""
    return f"{variable} = {text(value, used=len(variable) + 3)}"


def imports(values: Sequence[Any]) -> str:
    """The imports that the text of values needs, sorted, each line no longer than it must be."""
    declared: set[str] = set()
    typed: set[str] = set()
    for value in values:
        found, of = names_in(value)
        declared |= found
        typed |= of
    lines = []
    if "datetime" in declared:
        lines += ["from datetime import UTC, datetime", ""]
        declared.discard("datetime")
    lines += [_from("featurestore", declared)] if declared else []
    lines += [_from("featurestore.types", typed)] if typed else []
    return "\n".join(lines)


def _from(module: str, names: set[str]) -> str:
    # isort's order: constants, classes, functions
    ordered = sorted(names, key=lambda name: (not name[0].isupper(), name))
    line = f"from {module} import {', '.join(ordered)}"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in ordered) + ")"


def toml_text(value: str) -> str:
    """A basic string of TOML."""
    return json.dumps(value, ensure_ascii=False)

"""What differs between two definitions, field by field, as a person reads it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Change(NamedTuple):
    """One field: its dotted name, and what it was and is as text; None where it was or is not there."""

    field: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.field}: {self.after}"
        if self.after is None:
            return f"- {self.field}: {self.before}"
        return f"~ {self.field}: {self.before} → {self.after}"


def changes(before: Any, after: Any, field: str = "") -> tuple[Change, ...]:
    """The fields in which two plain JSON definitions differ, their order included, in the order of `before`.

    A list of lists that begin with a name each (columns, keys) is compared by these names; of a list of mappings (expectations)
    the ones that went and came are told.
    """
    return tuple(_changes(before, after, field))


def _changes(before: Any, after: Any, field: str) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _mapping(before, after, field)
        return
    old, new = _by_name(before), _by_name(after)
    if old is not None and new is not None and (old or new):
        yield from _mapping(old, new, field)
    elif _are_items(before) and _are_items(after) and before != after:
        went, came = [one for one in before if one not in after], [one for one in after if one not in before]
        yield from (Change(field, _shown(one), None) for one in went)
        yield from (Change(field, None, _shown(one)) for one in came)
        if not went and not came:
            yield Change(f"{field} (order)", _shown(before), _shown(after))
    elif before != after:
        yield Change(field, _shown(before), _shown(after))


def _are_items(value: Any) -> bool:
    """Whether it is a list of mappings, such as expectations: of these each is told that came or went."""
    return isinstance(value, list) and all(isinstance(one, Mapping) for one in value)


def _mapping(before: Mapping[str, Any], after: Mapping[str, Any], field: str) -> Iterator[Change]:
    for name in {**before, **after}:
        inner = f"{field}.{name}" if field else name
        if name not in after:
            yield Change(inner, _shown(before[name]), None)
        elif name not in before:
            yield Change(inner, None, _shown(after[name]))
        else:
            yield from _changes(before[name], after[name], inner)
    old, new = [n for n in before if n in after], [n for n in after if n in before]
    if old != new:
        yield Change(f"{field} (order)".strip(), ", ".join(old), ", ".join(new))


def _by_name(value: Any) -> dict[str, Any] | None:
    """A list such as [["a", "Int64"], ["b", "String"]] by the names that begin its items; None for anything else."""
    if not isinstance(value, list):
        return None
    named = {item[0]: item[1:] for item in value if isinstance(item, list) and item and isinstance(item[0], str)}
    if len(named) != len(value):
        return None
    return {name: rest[0] if len(rest) == 1 else rest for name, rest in named.items()}


def _shown(value: Any) -> str:
    """A value in one line: text without quotes where that is clear, a mapping as `a: 1, b: 2`."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return (
            value if value and value.strip() == value and "\n" not in value else json.dumps(value, ensure_ascii=False)
        )
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_shown(item)}" for name, item in value.items() if item is not None) or "{}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def code_changes(before: str, after: str) -> tuple[str, ...]:
    """The lines that differ between two listings of an on-demand feature's code, each with + or -."""
    lines = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))
    return tuple(line for line in lines[2:] if not line.startswith("@@"))

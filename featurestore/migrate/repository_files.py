"""The files of a repository of ours, as text: definitions.py, featurestore.toml, the modules beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote as quote_url

from featurestore.migrate.definition_text import assigned, imports, toml_text
from featurestore.migrate.feast_objects import FeastObjects
from featurestore.migrate.move_result import DefinitionStatement, MoveResult
from featurestore.migrate.names import Names

MADE_BY = "written by featurestore import-feast; README.md tells what differs"


def files_of(objects: FeastObjects, moved: MoveResult) -> dict[str, str]:
    """The files by name, without the report."""
    return {
        "featurestore.toml": settings_text(objects, moved),
        "definitions.py": definitions_text(objects, moved),
        **moved.modules,
        ".gitignore": ".featurestore/\n",
    }


def definitions_text(objects: FeastObjects, moved: MoveResult) -> str:
    """All definitions, in an order in which they can be read from top to bottom."""
    head = f'"""What Feast\'s project {objects.project or ""} declared, {MADE_BY}."""'
    ours = imports([one.call for one in moved.statements if one.call is not None])
    modules = "\n".join(f"import {name.removesuffix('.py')}" for name in sorted(moved.modules))
    blocks = [head, *([ours] if ours else []), *([modules] if modules else [])]
    return "\n\n".join(blocks) + "\n" + "".join(_spaced(moved.statements))


def _spaced(statements: list[DefinitionStatement]) -> Iterator[str]:
    """The statements, with the empty lines before each that formatters want."""
    before: DefinitionStatement | None = None
    for one in statements:
        wide = bool(one.lines) or (before is not None and bool(before.lines))
        apart = before is None or before.section != one.section
        yield "\n\n" if wide else "\n" if apart else ""
        assert one.call is not None
        yield f"{one.lines or assigned(one.variable, one.call)}\n"
        before = one


def settings_text(objects: FeastObjects, moved: MoveResult) -> str:
    """featurestore.toml."""
    lines = [f"project = {toml_text(project_name(objects))}"]
    online = online_url(objects.settings)
    if online is not None:
        lines.append(f"online = {toml_text(online)}")
    if moved.logged:
        rates = ", ".join(f"{name} = {rate}" for name, rate in sorted(moved.logged.items()))
        lines += ["", "[serving_log]", f"rates = {{ {rates} }}"]
    return "\n".join(lines) + "\n"


def project_name(objects: FeastObjects) -> str:
    """The name of the project, which online keys begin with."""
    return Names(column=True, prefix="project").of(objects.project or "project")


def online_store(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What feature_store.yaml says of the online store."""
    said = settings.get("online_store")
    if isinstance(said, str):
        return {"type": said}
    return said if isinstance(said, dict) else {}


def online_url(settings: Mapping[str, Any]) -> str | None:
    """The URL of the online store where that is Redis, its password a variable; None where LMDB takes its place."""
    store = online_store(settings)
    if store.get("type") != "redis":
        return None
    kind = str(store.get("redis_type", "redis"))
    addresses, options = [], {}
    for part in str(store.get("connection_string", "localhost:6379")).split(","):
        name, is_option, value = part.strip().partition("=")
        if is_option:
            options[name] = value
        elif name:
            addresses.append(name)
    secure = options.get("ssl", "").lower() == "true"
    scheme = f"redis{'s' if secure else ''}" + ("+cluster" if kind == "redis_cluster" else "")
    password = ":${REDIS_PASSWORD:-}@" if options.get("password") else ""
    host = ",".join(addresses) if all(re.fullmatch(r"[\w.\-:\[\]]+", one) for one in addresses) and addresses else ""
    place = "" if kind == "redis_cluster" else f"/{quote_url(options.get('db', '0'))}"
    return f"{scheme}://{password}{host or '${REDIS_HOST:-localhost:6379}'}{place}"

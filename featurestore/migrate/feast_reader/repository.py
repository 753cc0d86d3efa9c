"""All that a repository of Feast's declares, as one answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from featurestore.migrate.feast_reader import CONTRACT, UnreadableRepositoryError
from featurestore.migrate.feast_reader.found_objects import FoundObjects
from featurestore.migrate.feast_reader.older_words import OlderWords
from featurestore.migrate.feast_reader.python_files import load
from featurestore.migrate.feast_reader.records import Records
from featurestore.migrate.feast_reader.registry_file import load_registry
from featurestore.migrate.feast_reader.stand_ins import StandInFinder
from featurestore.migrate.feast_reader.versions import installed


def read(request: dict[str, Any]) -> dict[str, Any]:
    """All that a repository, or a registry, declares."""
    settings = _settings(Path(request["repo"]))
    loaded = declared(request)
    objects = loaded.objects
    project = [found.name for found in objects["projects"]]
    told = Records(loaded.where)
    return {
        "contract": CONTRACT,
        "feast": installed(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "read_from": "registry" if request.get("registry") else "files",
        "project": project[0] if project else settings.get("project"),
        "settings": settings,
        "files": loaded.files,
        "absent": sorted(StandInFinder.asked),
        "older": sorted(OlderWords.words),
        "entities": [told.entity(one) for one in objects["entities"] if one.name != "__dummy"],
        "sources": [told.source(one) for one in objects["sources"]],
        "views": [told.view(one) for one in objects["views"]],
        "on_demand": [told.on_demand(one) for one in objects["on_demand"]],
        "labels": [{"name": one.name, "where": loaded.where[id(one)]} for one in objects["labels"]],
        "services": [told.service(one) for one in objects["services"]],
    }


def declared(request: dict[str, Any]) -> FoundObjects:
    """The objects in the files of a repository, or in the registry that is named."""
    if not request.get("registry"):
        return load(request)
    return load_registry(request, _settings(Path(request["repo"])).get("project"))


SETTINGS = ("project", "registry", "provider", "offline_store", "online_store", "entity_key_serialization_version")


def _settings(repo: Path) -> dict[str, Any]:
    """What feature_store.yaml says, as it is written; variables are read in the names of the project and the registry alone."""
    import yaml

    file = repo / "feature_store.yaml"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UnreadableRepositoryError(f"feature_store.yaml cannot be parsed: {error}") from None
    found = found if isinstance(found, dict) else {}
    settings = {key: _plain(found[key]) for key in SETTINGS if key in found}
    for key in ("project", "registry"):
        if isinstance(settings.get(key), str):
            settings[key] = os.path.expandvars(settings[key])
    return settings


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)

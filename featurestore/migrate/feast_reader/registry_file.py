"""A registry of Feast's that is a file, and the objects in it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from featurestore.migrate.feast_reader import UnreadableRepositoryError
from featurestore.migrate.feast_reader.failures import told
from featurestore.migrate.feast_reader.found_objects import FoundObjects


def load_registry(request: dict[str, Any], project: Any) -> FoundObjects:
    """What is in a registry that is a file. project: that of feature_store.yaml."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    loaded = FoundObjects()
    proto = _parsed(Path(request["registry"]), Registry)
    wanted = _project(proto, project)
    groups = (
        ("data_sources", "feast.data_source", "DataSource"),
        ("entities", "feast.entity", "Entity"),
        ("feature_views", "feast.feature_view", "FeatureView"),
        ("stream_feature_views", "feast.stream_feature_view", "StreamFeatureView"),
        ("on_demand_feature_views", "feast.on_demand_feature_view", "OnDemandFeatureView"),
        ("label_views", "feast.labeling.label_view", "LabelView"),
        ("feature_services", "feast.feature_service", "FeatureService"),
    )
    for field, module, cls in groups:
        for item in getattr(proto, field, ()):
            spec = getattr(item, "spec", item)
            if getattr(spec, "project", wanted) not in ("", wanted) or spec.name == "__dummy":
                continue
            try:
                found = _from_proto(getattr(importlib.import_module(module), cls), item)
            except Exception as error:  # noqa: BLE001 - of another version's form; it is told
                loaded.files.append({"path": f"{field}/{spec.name}", "declared": 0, "error": told(error), "line": None})
                continue
            loaded.add(found, "registry")
            code = getattr(getattr(spec, "feature_transformation", None), "user_defined_function", None)
            code = code if code is not None and code.body_text else getattr(spec, "user_defined_function", None)
            if code is not None and code.body_text:
                found._code_in_registry = code.body_text
    return loaded


def _parsed(file: Path, kind: Any) -> Any:
    try:
        return kind.FromString(file.read_bytes())
    except OSError as error:
        raise UnreadableRepositoryError(f"the registry {file} cannot be read: {error.strerror}") from None
    except Exception:  # noqa: BLE001 - of a library that has several kinds in its versions
        raise UnreadableRepositoryError(f"{file} is no registry file of Feast's") from None


def _project(proto: Any, project: Any) -> Any:
    """The project that is meant: that of feature_store.yaml, or the only one."""
    kinds = (proto.feature_views, proto.entities, proto.on_demand_feature_views, proto.feature_services)
    projects = sorted({item.spec.project for kind in kinds for item in kind} - {""})
    if not projects or project in projects:
        return project
    if len(projects) == 1:
        return projects[0]
    listed = ", ".join(projects)
    raise UnreadableRepositoryError(
        f"the registry holds the projects {listed}, and feature_store.yaml says '{project}'; say one of them there"
    )


def _from_proto(cls: Any, proto: Any) -> Any:
    """An object, without running what is pickled in it, where this version of Feast can."""
    try:
        return cls.from_proto(proto, skip_udf=True)
    except TypeError:
        return cls.from_proto(proto)

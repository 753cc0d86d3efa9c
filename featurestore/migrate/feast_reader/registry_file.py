"""A registry of Feast's that is a file, and the objects in it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from featurestore.migrate.feast_reader.found_objects import FoundObjects


def load_registry(request: dict[str, Any]) -> FoundObjects:
    """What is in a registry that is a file."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    loaded = FoundObjects()
    proto = Registry.FromString(Path(request["registry"]).read_bytes())
    projects = sorted(
        {item.spec.project for item in proto.feature_views} | {item.spec.project for item in proto.entities}
    )
    wanted = request.get("project")
    if wanted not in projects:
        wanted = projects[0] if len(projects) == 1 else wanted
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
                text = f"{type(error).__name__}: {error}"
                loaded.files.append({"path": f"{field}/{spec.name}", "declared": 0, "error": text, "line": None})
                continue
            loaded.add(found, "registry")
            code = getattr(getattr(spec, "feature_transformation", None), "user_defined_function", None)
            code = code if code is not None and code.body_text else getattr(spec, "user_defined_function", None)
            if code is not None and code.body_text:
                found._code_in_registry = code.body_text
    return loaded


def _from_proto(cls: Any, proto: Any) -> Any:
    """An object, without running what is pickled in it, where this version of Feast can."""
    try:
        return cls.from_proto(proto, skip_udf=True)
    except TypeError:
        return cls.from_proto(proto)

"""Feast's objects as plain records, which go as JSON; whatever a version of Feast lacks is left empty."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

TEXTS = (
    "path", "table", "query", "database", "schema", "catalog", "data_source", "topic", "file_format", "table_format",
    "collection_name", "namespace", "scope", "reader_type", "s3_endpoint_override",
)  # fmt: skip
"""Attributes of a source, or of its options, that say where its rows lie."""


def _about(item: Any) -> dict[str, Any]:
    tags = getattr(item, "tags", None) or {}
    return {
        "name": str(getattr(item, "name", "") or ""),
        "description": str(getattr(item, "description", "") or ""),
        "owner": str(getattr(item, "owner", "") or ""),
        "tags": {str(key): str(value) for key, value in tags.items()},
    }


def _seconds(value: Any) -> Any:
    return None if value is None else value.total_seconds() if hasattr(value, "total_seconds") else float(value)


class Records:
    """Objects as plain JSON; whatever a version of Feast lacks is left empty."""

    def __init__(self, where: dict[int, str]) -> None:
        self._where = where

    def _of(self, item: Any) -> dict[str, Any]:
        return {**_about(item), "kind": type(item).__name__, "where": self._where.get(id(item), "")}

    def entity(self, item: Any) -> dict[str, Any]:
        """An entity, with its one join key."""
        keys = getattr(item, "join_keys", None) or [getattr(item, "join_key", None) or item.name]
        return {**self._of(item), "keys": list(keys), "type": _type(getattr(item, "value_type", None))}

    def source(self, item: Any) -> dict[str, Any]:
        """A source, and where its rows lie."""
        places: dict[str, str] = {}
        for holder in (item, *(value for key, value in vars(item).items() if key.endswith("_options"))):
            for name in TEXTS:
                try:
                    value = getattr(holder, name, None) or getattr(holder, f"_{name}", None)
                except Exception:  # noqa: BLE001 - a property of a source that is half filled
                    value = None
                if isinstance(value, (str, os.PathLike)) and str(value):
                    places.setdefault(name, str(value))
                elif value is not None and name in {"file_format", "table_format"}:
                    places.setdefault(name, type(value).__name__)
        uri = getattr(getattr(item, "file_options", None), "uri", None)
        if uri:
            places["path"] = str(uri)
        batch = getattr(item, "batch_source", None)
        asks = getattr(item, "schema", None)
        return {
            **self._of(item),
            "places": places,
            "event_time": getattr(item, "timestamp_field", "") or getattr(item, "event_timestamp_column", "") or "",
            "created": getattr(item, "created_timestamp_column", "") or "",
            "renamed": dict(getattr(item, "field_mapping", None) or {}),
            "batch": None if batch is None else self.source(batch),
            "fields": _fields(asks) if isinstance(asks, (list, dict)) else [],
        }

    def view(self, item: Any) -> dict[str, Any]:
        """A view over a batch or a stream source."""
        batch, stream = getattr(item, "batch_source", None), getattr(item, "stream_source", None)
        transformed = (
            getattr(item, "feature_transformation", None) is not None or getattr(item, "udf", None) is not None
        )
        entities = [name if isinstance(name, str) else name.name for name in getattr(item, "entities", None) or []]
        return {
            **self._of(item),
            "entities": [name for name in entities if name != "__dummy"],
            "ttl_seconds": _seconds(getattr(item, "ttl", None)),
            "keys": [
                field for field in _fields(getattr(item, "entity_columns", None)) if field["name"] != "__dummy_id"
            ],
            "fields": _fields(item.features),
            "batch": None if batch is None else self.source(batch),
            "stream": None if stream is None else self.source(stream),
            "source_views": [view.name for view in getattr(item, "source_views", None) or []],
            "online": bool(getattr(item, "online", True)),
            "transformed": transformed or hasattr(item, "_code_in_registry"),
            "aggregations": [_aggregation(one) for one in getattr(item, "aggregations", None) or []],
        }

    def on_demand(self, item: Any) -> dict[str, Any]:
        """A view that a function computes."""
        requests = list((getattr(item, "source_request_sources", None) or {}).values())
        sentinel = getattr(item, "_input_schema_sentinel", None)
        if sentinel is not None and not any(sentinel is one for one in requests):
            requests.append(sentinel)
        return {
            **self._of(item),
            "fields": _fields(item.features),
            "inputs": [
                _projection(one) for one in (getattr(item, "source_feature_view_projections", None) or {}).values()
            ],
            "requests": [{"name": one.name, "fields": _fields(getattr(one, "schema", None))} for one in requests],
            "mode": str(getattr(item, "mode", None) or "pandas"),
            "singleton": bool(getattr(item, "singleton", False)),
            "stored": bool(getattr(item, "write_to_online_store", False)),
            "aggregations": [_aggregation(one) for one in getattr(item, "aggregations", None) or []],
            "code": _code(item),
        }

    def service(self, item: Any) -> dict[str, Any]:
        """A service, in its order."""
        logging = getattr(item, "logging_config", None)
        return {
            **self._of(item),
            "features": [_projection(one) for one in item.feature_view_projections],
            "references": list(getattr(item, "_pending_feature_refs", None) or []),
            "logged": None if logging is None else float(getattr(logging, "sample_rate", 1.0)),
        }


def _projection(item: Any) -> dict[str, Any]:
    return {
        "view": item.name,
        "alias": getattr(item, "name_alias", None) or None,
        "keys": dict(getattr(item, "join_key_map", None) or {}),
        "fields": [field.name for field in item.features],
        "wanted": list(getattr(item, "desired_features", None) or []),
    }


def _fields(fields: Any) -> list[dict[str, Any]]:
    if isinstance(fields, dict):  # of a request source, before Feast 0.20
        return [
            {"name": str(name), "type": _type(of), "description": "", "vector": False} for name, of in fields.items()
        ]
    return [
        {
            "name": field.name,
            "type": _type(field.dtype),
            "description": str(getattr(field, "description", "") or ""),
            "vector": bool(getattr(field, "vector_index", False)),
        }
        for field in fields or []
    ]


def _type(of: Any) -> str | None:
    """A type as Feast writes it, `Array(Int64)`; of the older kind its name, `INT64_LIST`."""
    if of is None:
        return None
    return of.name if type(of).__name__ == "ValueType" else str(of)


def _aggregation(item: Any) -> dict[str, Any]:
    name = getattr(item, "name", "") or ""
    return {
        "column": item.column,
        "function": item.function,
        "window_seconds": _seconds(item.time_window),
        "name": name,
    }


def _code(item: Any) -> dict[str, Any]:
    """A function's text, and the file and line that it is of where there is one."""
    transformation = getattr(item, "feature_transformation", None)
    function = getattr(transformation, "udf", None) or getattr(item, "udf", None)
    text = getattr(item, "_code_in_registry", None) or getattr(transformation, "udf_string", None)
    code = getattr(function, "__code__", None)
    file = None if code is None or hasattr(item, "_code_in_registry") else code.co_filename
    return {
        "text": text or getattr(item, "udf_string", None) or "",
        "name": None if code is None else code.co_name,
        "file": file if file is not None and Path(file).is_file() else None,
        "line": None if code is None else code.co_firstlineno,
    }

"""The objects of Feast's that a repository or a registry declares, by kind."""

from __future__ import annotations

from typing import Any

KINDS = {
    "Entity": "entities",
    "OnDemandFeatureView": "on_demand",
    "LabelView": "labels",
    "FeatureView": "views",
    "FeatureService": "services",
    "DataSource": "sources",
    "Project": "projects",
}
"""The first class of an object's that is listed decides where it belongs."""


class FoundObjects:
    """The objects of a repository, by kind in the order in which they were met, and what became of its files."""

    def __init__(self) -> None:
        self.objects: dict[str, list[Any]] = {kind: [] for kind in KINDS.values()}
        self.files: list[dict[str, Any]] = []
        self.where: dict[int, str] = {}

    def add(self, value: Any, file: str) -> None:
        """Take an object in where it is one of Feast's that is new."""
        names = {cls.__name__ for cls in type(value).__mro__ if cls.__module__.partition(".")[0] == "feast"}
        kind = next((kind for name, kind in KINDS.items() if name in names), None)
        if kind is None or any(value is known for known in self.objects[kind]):
            return
        self.objects[kind].append(value)
        self.where[id(value)] = file
        for attribute in ("batch_source", "stream_source", "source", "source_views"):
            within = getattr(value, attribute, None)
            for one in within if isinstance(within, list) else [within]:
                self.add(one, file)

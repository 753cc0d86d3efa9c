"""Words of older versions of Feast, which the installed one takes no more, as those that it takes instead."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from typing import Any

from featurestore.migrate.feast_reader import UnreadableRepositoryError
from featurestore.migrate.feast_reader.stand_ins import stand_in


class OlderWords:
    """Lets files be read that are written for an older Feast than the installed one, which takes their words no more."""

    words: set[str] = set()
    entities: dict[str, Any] = {}
    wrapped: list[Any] = []
    unnamed = 0

    def take(self) -> None:
        """Take these words."""
        import feast

        for name in ("Entity", "FeatureView", "StreamFeatureView", "FeatureService"):
            if hasattr(feast, name):
                self._wrap(getattr(feast, name))
        self._wrap_sources()
        module: Any = sys.modules.get("feast.on_demand_feature_view")
        if module is not None and hasattr(module, "on_demand_feature_view"):
            own = module.on_demand_feature_view
            module.on_demand_feature_view = lambda *args, **said: own(
                *args, **self._said("on_demand_feature_view", own, said)
            )
        sources_module: Any = sys.modules.get("feast.data_source")
        if sources_module is not None and not hasattr(sources_module, "RequestDataSource"):
            sources_module.RequestDataSource = sources_module.RequestSource

    def provide(self, imports: Iterable[tuple[str, set[str]]]) -> None:
        """Give modules of Feast's the names that a file imports from them and that they have no more: those that lie elsewhere
        now, and stand-ins for those that are gone. imports: modules, and names."""
        import feast
        from feast import types as feast_types

        for module_name, names in imports:
            try:
                module: Any = importlib.import_module(module_name)
            except Exception:  # noqa: BLE001, S112 - what the file itself will meet, and a stand-in may take its place
                continue
            for name in sorted(names - {"*"}):
                if hasattr(module, name) or _is_submodule(module, name):
                    continue
                self.words.add(f"from {module_name} import {name}")
                elsewhere = getattr(feast, name, None) or getattr(feast_types, name, None)
                setattr(module, name, elsewhere or stand_in(name, module_name))
        self._wrap_sources()

    def _wrap_sources(self) -> None:
        """Every kind of source that is loaded, those of engines too, which lie in modules of their own."""
        from feast.data_source import DataSource

        ahead: list[Any] = [DataSource]
        while ahead:
            cls = ahead.pop()
            ahead += cls.__subclasses__()
            if cls is not DataSource and cls.__module__.partition(".")[0] == "feast" and "__init__" in vars(cls):
                self._wrap(cls)

    def _wrap(self, cls: Any) -> None:
        own = cls.__init__
        if cls in self.wrapped:
            return
        self.wrapped.append(cls)

        def made(item: Any, *args: Any, **said: Any) -> None:
            said = self._said(cls.__name__, own, said)
            if said.get("entities") and all(isinstance(one, str) for one in said["entities"]):
                self.words.add(f"{cls.__name__}(entities=[…] of names)")
                said["entities"] = [self._entity(name) for name in said["entities"]]
            own(item, *args, **said)
            if cls.__name__ == "Entity":
                self.entities[item.name] = item

        cls.__init__ = made

    def _entity(self, name: str) -> Any:
        if name not in self.entities:
            raise UnreadableRepositoryError(f"entity '{name}' is named before a file has declared it")
        return self.entities[name]

    def _said(self, name: str, own: Any, said: dict[str, Any]) -> dict[str, Any]:
        """What is said, in the words of the installed version."""
        taken = inspect.signature(own).parameters
        found = {}
        for word, value in said.items():
            newer, change = RENAMED_WORDS.get(word, (None, None))
            if (
                newer is None
                or newer not in taken
                or newer in said
                or (word in taken and word != "event_timestamp_column")
            ):
                found[word] = value
                continue
            self.words.add(f"{name}({word}=…)")
            found[newer] = value if change is None else change(value)
        if found.get("query") and "name" in taken and not any(found.get(word) for word in ("name", "table")):
            self.unnamed += 1
            found["name"] = f"query_{self.unnamed}"
        if hasattr(found.get("ttl"), "ToTimedelta"):
            self.words.add(f"{name}(ttl=Duration(…))")
            found["ttl"] = found["ttl"].ToTimedelta()
        if isinstance(found.get("schema"), dict):
            found["schema"] = _as_fields(found["schema"])
        return found


def _is_submodule(module: Any, name: str) -> bool:
    return hasattr(module, "__path__") and importlib.util.find_spec(f"{module.__name__}.{name}") is not None


def _as_fields(features: Any) -> Any:
    """Features of the older kind, or a dict of types, as fields."""
    from feast.field import Field
    from feast.types import from_value_type

    named = features.items() if isinstance(features, dict) else [(one.name, one.dtype) for one in features]
    return [
        Field(name=name, dtype=from_value_type(of) if type(of).__name__ == "ValueType" else of) for name, of in named
    ]


def _as_list(value: Any) -> Any:
    return list(value.values()) if isinstance(value, dict) else [value]


RENAMED_WORDS: dict[str, tuple[str, Any]] = {
    "join_key": ("join_keys", _as_list),
    "features": ("schema", _as_fields),
    "batch_source": ("source", None),
    "stream_source": ("source", None),
    "input": ("source", None),
    "inputs": ("sources", _as_list),
    "event_timestamp_column": ("timestamp_field", None),
    "table_ref": ("table", None),
}
"""Words that Feast no longer takes: the one that it takes instead, and how what is said is changed for it."""

"""Runs under Feast's own Python, as a script: tells what a repository of Feast's declares, and what its training frames hold.

    python feast_reader.py REQUEST ANSWER

Both are JSON files. It imports nothing of this product, takes Python 3.9 and whatever version of Feast is installed, applies
nothing, and writes nothing below the folder that it reads: whoever tries is refused. `CONTRACT` counts the forms of its answers.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import os
import sys
import tempfile
import traceback
import types
from pathlib import Path
from typing import Any

CONTRACT = 1

DECLARING = {
    "Entity", "FeatureView", "BatchFeatureView", "StreamFeatureView", "OnDemandFeatureView", "on_demand_feature_view",
    "batch_feature_view", "stream_feature_view", "FeatureService", "FileSource", "PushSource", "RequestSource", "KafkaSource",
    "KinesisSource", "LabelView", "Project", "Field", "Feature", "ValueType", "*",
}  # fmt: skip
"""Names of Feast's that a file of definitions imports; a script imports others."""

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

TEXTS = (
    "path", "table", "query", "database", "schema", "catalog", "data_source", "topic", "file_format", "table_format",
    "collection_name", "namespace", "scope", "reader_type",
)  # fmt: skip
"""Attributes of a source, or of its options, that say where its rows lie."""


def main(request_file: str, answer_file: str) -> None:
    """Do what a request says."""
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    os.dup2(2, 1)  # what a repository prints is no answer
    repo = Path(request["repo"])
    os.chdir(repo)
    project = _project(Path(request["root"]))
    sys.path[0] = str(repo)
    sys.path.append(str(project))
    sys.dont_write_bytecode = True
    _refuse_writes(project)
    sys.meta_path.append(_Absent())
    try:
        answer = _trained(request) if "asks" in request else read(request)
    except Exception as error:  # noqa: BLE001 - whoever asked tells it
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
    Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")


# --- what is not to happen ----------------------------------------------------------------------


def _project(root: Path) -> Path:
    """The folder of the project that a repository is a part of, whose modules it may import."""
    for folder in (root, *root.parents):
        if any((folder / name).exists() for name in (".git", "pyproject.toml", "setup.py", "setup.cfg")):
            return folder
    return root


def _refuse_writes(root: Path) -> None:
    """From now on no file below a folder is written, made, renamed or removed by Python code."""
    real = os.path.realpath(root) + os.sep
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    changes = {
        "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree",
        "shutil.move", "shutil.copyfile", "sqlite3.connect",
    }  # fmt: skip

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            if isinstance(args[2], int) and args[2] & writes:
                refuse(args[0])
        elif event in changes:
            for path in args:
                refuse(path)

    def refuse(path: Any) -> None:
        if isinstance(path, (str, bytes, os.PathLike)):
            there = os.path.realpath(os.fsdecode(path))
            if (there + os.sep).startswith(real):
                raise PermissionError(f"{there} would be written while definitions are read, which changes nothing")

    sys.addaudithook(watch)


class _UsedError(Exception):
    """What only declares has opened a store and worked with it, or used what is not installed."""


class _NoStore:
    """Stands for Feast's store while files are loaded: it notes what they apply, and does nothing else."""

    applied: list[Any] = []

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def apply(self, objects: Any, *_: Any, **__: Any) -> None:
        """Note what is declared."""
        _NoStore.applied += objects if isinstance(objects, (list, tuple)) else [objects]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _UsedError(f"it opens a store and calls {name}, as a script does")


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for libraries that are not installed beside Feast, so that definitions which only mention them can be read."""

    asked: list[str] = []

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """A module of which every name is a stand-in; none while Feast itself looks for what is installed."""
        del path, target
        if not _for_definitions():
            return None
        top = fullname.partition(".")[0]
        if top in {"feast", *sys.builtin_module_names} or top.startswith("_") or (Path.cwd() / top).exists():
            return None
        if fullname == top and top not in self.asked:
            self.asked.append(top)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        """A stand-in."""
        return _AbsentModule(spec.name)

    def exec_module(self, module: Any) -> None:
        """There is nothing to run."""


def _for_definitions() -> bool:
    """Whether an import is one of a file of the repository's, or one that Feast does when such a file imports from it."""
    own, feasts = str(Path.cwd()) + os.sep, f"{os.sep}feast{os.sep}"
    frame: Any = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith("<frozen") and f"{os.sep}importlib{os.sep}" not in file:
            if file.startswith(own) and "site-packages" not in file:
                return True
            if feasts not in file:
                return False
        frame = frame.f_back
    return False


class _AbsentModule(types.ModuleType):
    """A module that is not installed."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_AbsentThing,), {"__module__": self.__name__})


class _AbsentKind(type):
    """What a name of such a module is: a class, so that it can be derived from and annotate; it cannot be worked with."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_AbsentThing,), {"__module__": cls.__module__})

    def __or__(cls, other: Any) -> Any:
        return Any

    __ror__ = __or__


class _AbsentThing(metaclass=_AbsentKind):
    """A stand-in, and what calling one gives."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __class_getitem__(cls, _: Any) -> Any:
        return cls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _AbsentThing()

    def __call__(self, *args: Any, **_: Any) -> Any:
        return args[0] if len(args) == 1 and isinstance(args[0], types.FunctionType) else _AbsentThing()


# --- words of older versions --------------------------------------------------------------------


class _Older:
    """Lets files be read that are written for an older Feast than the installed one, which takes their words no more."""

    words: set[str] = set()
    entities: dict[str, Any] = {}
    unnamed = 0

    def take(self, feast: Any) -> None:
        """Take these words."""
        for name in ("Entity", "FeatureView", "StreamFeatureView", "FeatureService"):
            if hasattr(feast, name):
                self._wrap(getattr(feast, name))
        sources = [cls for cls in vars(feast).values() if isinstance(cls, type) and cls.__name__.endswith("Source")]
        for cls in sources:
            self._wrap(cls)
        module: Any = sys.modules.get("feast.on_demand_feature_view")
        if module is not None and hasattr(module, "on_demand_feature_view"):
            own = module.on_demand_feature_view
            module.on_demand_feature_view = lambda *args, **said: own(
                *args, **self._said("on_demand_feature_view", own, said)
            )
        sources_module: Any = sys.modules.get("feast.data_source")
        if sources_module is not None and not hasattr(sources_module, "RequestDataSource"):
            sources_module.RequestDataSource = sources_module.RequestSource

    def _wrap(self, cls: Any) -> None:
        own = cls.__init__

        def made(item: Any, *args: Any, **said: Any) -> None:
            said = self._said(cls.__name__, own, said)
            if said.get("entities") and all(isinstance(one, str) for one in said["entities"]):
                self.words.add(f"{cls.__name__}(entities=[…] of names)")
                said["entities"] = [self.entities[name] for name in said["entities"]]
            own(item, *args, **said)
            if cls.__name__ == "Entity":
                self.entities[item.name] = item

        cls.__init__ = made

    def _said(self, name: str, own: Any, said: dict[str, Any]) -> dict[str, Any]:
        """What is said, in the words of the installed version."""
        taken = inspect.signature(own).parameters
        found = {}
        for word, value in said.items():
            newer, change = OLDER.get(word, (None, None))
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


OLDER: dict[str, tuple[str, Any]] = {
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


# --- loading ------------------------------------------------------------------------------------


class _Met:
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


def load(request: dict[str, Any]) -> _Met:
    """What the files of a repository declare."""
    import feast

    repo = Path(request["repo"])
    for module in (feast, sys.modules.get("feast.feature_store")):
        if module is not None:
            setattr(module, "FeatureStore", _NoStore)  # noqa: B010 - of a module that is not known here
    older = _Older()
    older.take(feast)
    loaded = _Met()
    trees = {path: _parsed(path, loaded, repo) for path in _files(repo)}
    declaring = _declaring(repo, {path: tree for path, tree in trees.items() if tree is not None})
    for path in declaring:
        shown = str(path.relative_to(repo))
        sys.stderr.write(f"loading {shown}\n")
        sys.stderr.flush()
        _NoStore.applied.clear()
        module, failure = _imported(repo, path)
        found = [*vars(module).values(), *_NoStore.applied]
        count = sum(map(len, loaded.objects.values()))
        for value in found:
            loaded.add(value, shown)
        declared = sum(map(len, loaded.objects.values())) - count
        loaded.files.append({"path": shown, "declared": declared, **failure})
    return loaded


def _files(repo: Path) -> list[Path]:
    """The files that `feast apply` would load, in its order."""
    try:
        from feast.repo_operations import get_repo_files

        found = get_repo_files(repo)
    except Exception:  # noqa: BLE001 - another version of Feast has none, or fails in it
        found = [path for path in repo.glob("**/*.py") if path.name != "__init__.py"]
    apart = {"site-packages", "node_modules", ".venv", "venv", ".git"}
    real = repo.resolve()
    below = (path.resolve() for path in found)
    return sorted(
        real_path for real_path in below if real_path.is_relative_to(real) and not apart & set(real_path.parts)
    )


def _parsed(path: Path, loaded: _Met, repo: Path) -> Any:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        text = f"{type(error).__name__}: {error}"
        loaded.files.append({"path": str(path.relative_to(repo)), "declared": 0, "error": text, "line": None})
        return None


def _declaring(repo: Path, trees: dict[Path, Any]) -> list[Path]:
    """The files that import what declares, from Feast or from one another: of a script nothing is to be run."""
    imports = {path: list(_imports(tree)) for path, tree in trees.items()}
    chosen = {
        path
        for path, found in imports.items()
        if any(module.partition(".")[0] == "feast" and names & DECLARING for module, names in found)
    }
    by_name: dict[str, Path] = {}
    for path in trees:
        parts = path.relative_to(repo).with_suffix("").parts
        for start in range(len(parts)):
            by_name.setdefault(".".join(parts[start:]), path)
    grown = True
    while grown:
        wanted = {
            path
            for path, found in imports.items()
            for module, _ in found
            if by_name.get(module.lstrip(".")) in chosen and not _is_script(trees[path])
        }
        grown = not wanted <= chosen
        chosen |= wanted
    return sorted(chosen)


def _imports(tree: Any) -> Any:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, {"*"}) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = {name.name for name in node.names}
            yield "." * node.level + (node.module or ""), names
            if node.module is None or node.level:
                for name in names:
                    yield name, {"*"}


def _is_script(tree: Any) -> bool:
    """Whether a file that imports nothing of Feast's that declares is to be run, and not imported."""
    return any(
        isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and "__main__" in ast.dump(node.test)
        for node in tree.body
    )


def _imported(repo: Path, path: Path) -> tuple[types.ModuleType, dict[str, Any]]:
    """A file's module, as far as it ran, and why it ran no further."""
    name = ".".join(path.relative_to(repo.resolve()).with_suffix("").parts)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known, {"error": None, "line": None}
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        for parent in _parents(name):
            importlib.import_module(parent)
        spec.loader.exec_module(module)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        lines = [
            line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)
        ]
        text = f"{type(error).__name__}: {error}" if not isinstance(error, _UsedError) else str(error)
        return module, {"error": text.strip(), "line": lines[-1] if lines else None}
    return module, {"error": None, "line": None}


def _parents(name: str) -> list[str]:
    """The packages that a module lies in, where they are such."""
    parts = name.split(".")[:-1]
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return [one for one in names if all(part.isidentifier() for part in one.split("."))]


def load_registry(request: dict[str, Any]) -> _Met:
    """What is in a registry that is a file."""
    from feast.protos.feast.core.Registry_pb2 import Registry

    loaded = _Met()
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


# --- telling ------------------------------------------------------------------------------------


def read(request: dict[str, Any]) -> dict[str, Any]:
    """All that a repository, or a registry, declares."""
    import importlib.metadata

    settings = _settings(Path(request["repo"]))
    loaded = load_registry(request) if request.get("registry") else load(request)
    objects = loaded.objects
    project = [found.name for found in objects["projects"]]
    told = _Told(loaded.where)
    return {
        "contract": CONTRACT,
        "feast": importlib.metadata.version("feast"),
        "python": ".".join(map(str, sys.version_info[:3])),
        "read_from": "registry" if request.get("registry") else "files",
        "project": project[0] if project else settings.get("project"),
        "settings": settings,
        "files": loaded.files,
        "absent": sorted(_Absent.asked),
        "older": sorted(_Older.words),
        "entities": [told.entity(one) for one in objects["entities"] if one.name != "__dummy"],
        "sources": [told.source(one) for one in objects["sources"]],
        "views": [told.view(one) for one in objects["views"]],
        "on_demand": [told.on_demand(one) for one in objects["on_demand"]],
        "labels": [{"name": one.name, "where": loaded.where[id(one)]} for one in objects["labels"]],
        "services": [told.service(one) for one in objects["services"]],
    }


SETTINGS = ("project", "registry", "provider", "offline_store", "online_store", "entity_key_serialization_version")


def _settings(repo: Path) -> dict[str, Any]:
    """What feature_store.yaml says, as it is written: variables are not read."""
    import yaml

    file = repo / "feature_store.yaml"
    found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = found if isinstance(found, dict) else {}
    return {key: _plain(found[key]) for key in SETTINGS if key in found}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


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


class _Told:
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
            "written": bool(getattr(item, "write_to_online_store", False)),
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
        "slide_seconds": _seconds(getattr(item, "slide_interval", None)),
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


# --- training -----------------------------------------------------------------------------------


def _trained(request: dict[str, Any]) -> dict[str, Any]:
    """For each of the asks a frame, or why there is none; of a store in a folder of its own."""
    import feast

    pd = importlib.import_module("pandas")

    real = feast.FeatureStore
    loaded = load_registry(request) if request.get("registry") else load(request)
    answers: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, ask in enumerate(request["asks"]):
            answer: dict[str, Any] = {"error": None}
            try:
                store = _opened(real, Path(folder) / str(number), Path(request["repo"]))
                store.apply(_needed(loaded, ask["views"]))
                spine = pd.read_parquet(ask["spine"])
                spine["event_timestamp"] = spine["event_timestamp"].astype("datetime64[ns, UTC]")
                found = store.get_historical_features(
                    entity_df=spine, features=ask["features"], full_feature_names=True
                ).to_df()
                _written(found, ask["answer"])
            except Exception as error:  # noqa: BLE001 - whatever Feast raises is its answer
                answer["error"] = f"{type(error).__name__}: {error}".strip()[:2000]
            answers.append(answer)
    return {"contract": CONTRACT, "answers": answers}


def _opened(real: Any, folder: Path, repo: Path) -> Any:
    """A store of Feast's own over the files of a repository; all that it writes lies in a folder."""
    from feast.repo_config import RepoConfig

    folder.mkdir()
    config = RepoConfig(
        project="sample",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    config.repo_path = repo
    return real(config=config)


def _needed(loaded: _Met, names: list[str]) -> list[Any]:
    """The views, on-demand views and entities that are asked for."""
    chosen = [one for kind in ("views", "on_demand") for one in loaded.objects[kind] if one.name in names]
    entities = {name for view in chosen for name in getattr(view, "entities", None) or []}
    found: list[Any] = [one for one in loaded.objects["entities"] if one.name in entities]
    return found + chosen


def _written(frame: Any, path: str) -> None:
    """As Parquet; what it cannot hold as it is goes as JSON."""
    try:
        frame.to_parquet(path)
    except Exception:  # noqa: BLE001 - Arrow raises several kinds where a column has no one type
        for name in frame.columns:
            if frame[name].dtype == object:
                frame[name] = [json.dumps(value, default=str) for value in frame[name]]
        frame.to_parquet(path)


if __name__ == "__main__":
    main(*sys.argv[1:])

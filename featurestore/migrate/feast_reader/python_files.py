"""The Python files of a repository: which of them declare, and what they declare when they are imported."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from featurestore.migrate.feast_reader.failures import told
from featurestore.migrate.feast_reader.found_objects import FoundObjects
from featurestore.migrate.feast_reader.older_words import OlderWords
from featurestore.migrate.feast_reader.write_guard import NoStore

DECLARING = {
    "Entity", "FeatureView", "BatchFeatureView", "StreamFeatureView", "OnDemandFeatureView", "on_demand_feature_view",
    "batch_feature_view", "stream_feature_view", "FeatureService", "FileSource", "PushSource", "RequestSource", "KafkaSource",
    "KinesisSource", "LabelView", "Project", "Field", "Feature", "ValueType", "*",
}  # fmt: skip
"""Names of Feast's that a file of definitions imports; a script imports others."""


def load(request: dict[str, Any]) -> FoundObjects:
    """What the files of a repository declare."""
    import feast

    repo = Path(request["repo"])
    for module in (feast, sys.modules.get("feast.feature_store")):
        if module is not None:
            setattr(module, "FeatureStore", NoStore)  # noqa: B010 - of a module that is not known here
    older = OlderWords()
    older.take()
    loaded = FoundObjects()
    trees = {path: _parsed(path, loaded, repo) for path in _files(repo)}
    declaring = _declaring(repo, {path: tree for path, tree in trees.items() if tree is not None})
    for path in declaring:
        shown = str(path.relative_to(repo))
        sys.stderr.write(f"loading {shown}\n")
        sys.stderr.flush()
        NoStore.applied.clear()
        older.provide(one for one in _imports(trees[path]) if one[0].partition(".")[0] == "feast")
        module, failure = _imported(repo, path)
        found = [*vars(module).values(), *NoStore.applied]
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


def _parsed(path: Path, loaded: FoundObjects, repo: Path) -> Any:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        loaded.files.append({"path": str(path.relative_to(repo)), "declared": 0, "error": told(error), "line": None})
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
    module = types.ModuleType(name)
    try:
        for parent in _parents(name):
            importlib.import_module(parent)  # which may import the file itself
        known = sys.modules.get(name)
        if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == path:
            return known, {"error": None, "line": None}
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        lines = [
            line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)
        ]
        return module, {"error": told(error), "line": lines[-1] if lines else None}
    return module, {"error": None, "line": None}


def _parents(name: str) -> list[str]:
    """The packages that a module lies in, where they are such."""
    parts = name.split(".")[:-1]
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return [one for one in names if all(part.isidentifier() for part in one.split("."))]

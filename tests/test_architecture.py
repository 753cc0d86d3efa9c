"""The floors: a module imports only from floors below its own."""

from __future__ import annotations

import ast
import graphlib
import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import featurestore

ROOT = Path(featurestore.__file__).parent
FLOORS = [
    {
        "errors", "elsewhere", "clock", "lazy", "types", "report", "hidden", "settings", "bound", "tracing", "log_lines", "number_texts", "plurals",
        "typed_texts", "typed_json", "timed_response", "timed_opener", "arrow_ipc",
    },
    {"durable"},
    {"declare", "config"},
    {"semantics"},
    {"catalog"},
    {"query", "sources", "online", "loading", "statistics"},
    {"tiles"},
    {"registry"},
    {"training", "access"},
    {"materialize"},
    {"push"},
    {"serving", "streams"},
    {"project", "backup"},
    {"planning", "forget", "said_once"},
    {"reports", "migrate"},
    {"frames", "runs"},
    {"store", "client"},
    {"console"},
    {"server", "cli", "engines", "integrations", "testing"},
]  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
EDGES = FLOORS[-1]


def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for path in set(ROOT.rglob("*.py")) - {ROOT / "__main__.py"}:  # python -m featurestore is the command line
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, path: Path) -> set[str]:
    """The package's modules that one imports, wherever in its text, those for type checkers alone included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively"
            module = node.module or ""
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                found.add(whole if whole in MODULES else module)
    return {item for item in found if item in MODULES and item not in {name, "featurestore"}}


def top(name: str) -> str:
    """The part of the package that a module belongs to."""
    return name.split(".")[1]


NODES = sorted(set(MODULES) - {"featurestore"})


@cache
def graph() -> dict[str, set[str]]:
    """What each module imports; a second of work, which no process is to do that runs other tests."""
    return {name: imports(name, MODULES[name]) for name in NODES}


def test_every_module_has_a_floor() -> None:
    """A new part of the package is put on a floor before anything else."""
    assert {top(name) for name in NODES} <= set(FLOOR)


@pytest.mark.parametrize("name", NODES)
def test_a_module_imports_only_from_below(name: str) -> None:
    """From its own part, or from a lower floor; parts of one floor stay apart, except on the ground floor."""
    for other in graph()[name]:
        below = FLOOR[top(other)] < FLOOR[top(name)] or FLOOR[top(other)] == FLOOR[top(name)] == 0
        assert top(other) == top(name) or below, f"{name} imports {other}"


def test_edges_do_not_import_each_other() -> None:
    """Server, command line, pages and integrations each stand alone on the store."""
    for name, others in graph().items():
        if top(name) in EDGES:
            assert not {top(other) for other in others} & (EDGES - {top(name)}), name


def test_there_are_no_cycles() -> None:
    """Neither at import nor inside functions."""
    graphlib.TopologicalSorter(graph()).prepare()


def test_a_class_name_stands_in_one_file() -> None:
    """One name, one meaning: whoever searches for it finds it."""
    found: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name.removeprefix("_"), []).append(name)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


FOLDERS = sorted(str(path.parent.relative_to(ROOT)) for path in ROOT.rglob("__init__.py"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_says_what_it_is(folder: str) -> None:
    """In the first sentence of its `__init__`."""
    says = ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text())) or ""
    assert says.split("\n\n")[0].endswith((".", "?")), folder


def test_the_map_lists_every_folder() -> None:
    """docs/how-it-works.md has a line for each part of the package."""
    page = (ROOT.parent / "docs" / "how-it-works.md").read_text()
    for part in sorted(set(FLOOR) & {path.name for path in ROOT.iterdir() if path.is_dir()}):
        assert f"| `{part}/` |" in page, part


FRAMEWORKS = {name for name in NODES if top(name) == "integrations"}
FRAMEWORKS |= {"featurestore.streams.avro_decoder", "featurestore.streams.kafka_reader"}
"""They import frameworks that need not be there; tests/platforms runs them."""


@pytest.mark.parametrize("name", sorted(set(MODULES) - FRAMEWORKS))
def test_all_resolves(name: str) -> None:
    """Every name that a module lists in `__all__` is there."""
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        assert getattr(module, public) is not None


def test_importing_the_package_is_light() -> None:
    """`import featurestore`, and its declarations, load no engine, no server and no store."""
    code = (
        "import sys, featurestore; "
        "heavy = {'pandas', 'duckdb', 'fastapi', 'redis', 'lmdb', 'pyarrow', 'numpy', 'polars'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_libraries_of_frames_and_sql_are_imported_in_one_place(name: str) -> None:
    """`featurestore.lazy` imports them when they are first used; another import would be paid for by who only looks up."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        late = {module.partition(".")[0] for module in named} & {"pyarrow", "pandas", "duckdb"}
        assert not late or name == "featurestore.lazy", f"{name}:{node.lineno}: from featurestore.lazy import …"  # type: ignore[attr-defined]  # imports have a line


def test_importing_the_store_loads_no_engine_and_no_frames() -> None:
    """Nor does its HTTP service."""
    code = (
        "import sys, featurestore.store, featurestore.server; "
        "heavy = {'pandas', 'duckdb', 'pyarrow', 'redis', 'lmdb', 'polars'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dir_lists_what_is_public() -> None:
    """Completion in a notebook shows the public names, and an unknown one is an AttributeError."""
    assert set(featurestore.__all__) <= set(dir(featurestore))
    with pytest.raises(AttributeError, match="nothing_such"):
        featurestore.nothing_such  # noqa: B018

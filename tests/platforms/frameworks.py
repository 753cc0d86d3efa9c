"""The project of docs/platforms/frameworks.md, and its pages run within the frameworks that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurestore import FeatureStore
from featurestore.online.view_codec import ViewCodec

PAGES = Path(__file__).parents[2] / "docs/platforms"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLE, DEFINITIONS, BEGINNING = BLOCK.findall((PAGES / "frameworks.md").read_text())


@contextmanager
def example_project(folder: Path, settings: str = "") -> Iterator[dict[str, Any]]:
    """What the examples begin with: `store`, over the project in a folder with everything online, and `rides`."""
    write_example(folder, settings)
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(progress=False)
    with beginning(folder) as names:
        yield names


def write_example(folder: Path, settings: str = "") -> None:
    """The project in a folder, not applied."""
    (folder / "featurestore.toml").write_text(f'project = "rides"\nonline = "lmdb://online"\n{settings}')
    (folder / "definitions.py").write_text(DEFINITIONS)


@contextmanager
def beginning(folder: Path) -> Iterator[dict[str, Any]]:
    """`store`, over the project of a folder as it is, and `rides`."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(BEGINNING.replace('"rides"', repr(str(folder))), "frameworks.md", "exec"), names)
    with names["store"]:
        yield names


def serve_skew(store: FeatureStore) -> None:
    """Look d1 and d2 up while the online store has d2's record under d1's key too, which no run of materialize wrote."""
    (view,) = store._project.applied(["drivers"])
    codec = ViewCodec(store.config.project, view)
    store.online.write({codec.key(["d1"]): store.online.get([codec.key(["d2"])]).values[0]})
    store.get_online_features([{"driver_id": "d1"}, {"driver_id": "d2"}], "ranking")


def run_blocks(text: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run the Python blocks of a page, or one block, with these names."""
    for block in BLOCK.findall(text) or [text]:
        exec(compile(block, "page", "exec"), names)
    return names


def run_framework_page(page: str, folder: Path, **beside: Any) -> dict[str, Any]:
    """Run what a page shows over the examples' project."""
    with example_project(folder) as names:
        return run_blocks((PAGES / f"{page}.md").read_text(), names | beside)

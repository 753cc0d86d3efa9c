"""Lists of features are found in modules and notebooks, and told apart from services and from what a program makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from featurestore.migrate.services_in_code import AskedList, asked_lists


def test_lists_are_found_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "serve.py").write_text(
        "NAMES: list = ['a:x', 'a:y', 'a:x']\n"
        "MORE = ['b:z']\n"
        "changed = ['c:z']\n"
        "changed = ['c:y']\n"
        "def f(store):\n"
        "    store.get_online_features(NAMES, rows)\n"
        "    store.get_historical_features(spine, features=[*NAMES])\n"
        "    store.get_historical_features(spine, NAMES + MORE)\n"
        "    store.get_online_features(changed, rows)\n"
        "    store.get_online_features(feature_refs=('a:x',), entity_rows=rows)\n"
        "    store.get_online_features(features=store.get_feature_service('m'), entity_rows=rows)\n"
        "    store.get_online_features(features=feature_service, entity_rows=rows)\n"
        "    store.get_online_features(entity_rows=rows)\n"
        "    get_offline_features(['no:no'])\n"
    )
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.py").write_text("s.get_online_features(['h:x'], r)\n")
    assert asked_lists(tmp_path) == [
        AskedList("sub/serve.py", 6, ("a:x", "a:y")),
        AskedList("sub/serve.py", 7, None),
        AskedList("sub/serve.py", 8, ("a:x", "a:y", "b:z")),
        AskedList("sub/serve.py", 9, None),
        AskedList("sub/serve.py", 10, ("a:x",)),
    ]


def test_notebooks_are_read_cell_by_cell(tmp_path: Path) -> None:
    """A name of one cell is known in the next; what is no Python leaves out itself alone."""

    def notebook(name: str, *cells: str) -> None:
        given: list[dict[str, Any]] = [{"cell_type": "markdown", "source": "text"}]
        given += [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells]
        (tmp_path / name).write_text(json.dumps({"cells": given}))

    notebook("good.ipynb", "%matplotlib inline\nnames = ['a:x']\n", "!ls\nstore.get_online_features(names, rows)\n")
    notebook("odd.ipynb", "this is no python\n", "store.get_online_features(['b:y'], rows)\n")
    (tmp_path / "empty.ipynb").write_text("[]")
    (tmp_path / "text.ipynb").write_bytes(b"\xff\xfe")
    assert [(one.file, one.references) for one in asked_lists(tmp_path)] == [
        ("good.ipynb", ("a:x",)),
        ("odd.ipynb", ("b:y",)),
    ]

"""The files that the console brings along are those that its table names."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx
import pytest

import featurestore.console
from featurestore.console.files import files

FOLDER = Path(featurestore.console.__file__).parent
VENDORED = FOLDER / "vendored"
TABLE = re.findall(
    r"^\| `(\S+)` \| (\S+) \(npm\), \S+ \| ([0-9.]+) \| [^|]+ \| [^|]+, `(\S+)` \| `([0-9a-f]{64})` \|$",
    (VENDORED / "README.md").read_text(), re.MULTILINE,
)  # fmt: skip


def test_each_library_is_in_the_table() -> None:
    """By its digest, with its licence beside it, and none is large."""
    found = {path.name for path in VENDORED.iterdir() if path.suffix in {".js", ".css"}}
    assert found == {name for name, *_ in TABLE}
    for name, _, _, licence, digest in TABLE:
        content = (VENDORED / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert len(content) < 500_000
        assert "ermission" in (VENDORED / licence).read_text()


def test_no_own_file_asks_another_host() -> None:
    """Nor makes code of text."""
    for path in [*(FOLDER / "static").iterdir(), *(FOLDER / "templates").iterdir()]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|@import|eval\(|new Function|innerHTML|\|\s*safe", text), path.name


@pytest.mark.parametrize("name", sorted(files()))
def test_files_are_kept_by_browsers(client: httpx.Client, name: str) -> None:
    """They have another address when they change, so they may be; but not under one that is another version's, as while servers are
    renewed."""
    answer = client.get(f"/ui/files/{name}", params={"v": files()[name].version})
    assert answer.content == files()[name].content
    assert "immutable" in answer.headers["cache-control"]
    for other in ({}, {"v": ""}, {"v": "0" * 16}):
        assert client.get(f"/ui/files/{name}", params=other).headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["", "nothing.js", "../console.py", "%2e%2e/console.py", "README.md", "htmx.LICENSE"])
def test_nothing_else_is_a_file(client: httpx.Client, name: str) -> None:
    assert client.get(f"/ui/files/{name}").status_code == 404

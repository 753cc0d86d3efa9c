"""The documentation runs: every Python block, every example and the notebook; and its links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import inspect
import itertools
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import nbformat
import pytest
from nbclient import NotebookClient

import featurestore
from featurestore import ManualClock, errors
from featurestore.elsewhere import ELSEWHERE
from tests import site
from tests.console import Page, blocks, is_like
from tests.server.test_http import serving

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = ROOT / "examples"
LINK = re.compile(r"\]\(([^)\s]+)\)")
REFERENCE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
SHOWN_BY = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
EXAMPLE = re.compile(r"^```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLE_LINES = 10
PAGE_OF_DOCS = re.compile(r"\bdocs/[\w/-]+\.md\b")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


RUNNING = [page for page in PAGES if blocks(page) and page.parent.name != "platforms"]
"""Without those that `make test-platforms` runs, with the clients that they show."""


def load(path: Path) -> ModuleType:
    """An example as a module; it stays in `sys.modules`, where FastAPI looks for annotations."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", RUNNING, ids=names(RUNNING))
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other, in an empty folder, and print what the page shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    with Page(page) as running:
        running.run()


def test_what_a_page_shows_is_what_is_printed() -> None:
    """`…` stands for the rest of a line, or for lines; nothing else stands for anything."""
    assert is_like("a\n…\nd …\n", "a\nb\nc\nd e\n")
    assert is_like("a\n…\nb\n", "a\nb\n")
    assert is_like("", "")
    for printed in ("", "a\n", "b\na\n", "a\nbc\n", "a\nb\nc\n"):
        assert not is_like("a\nb\n", printed), printed
    assert not is_like("", "a\n")
    assert not is_like("a.c\n", "abc\n")


FORMED = [page for page in sorted((ROOT / "docs").rglob("*.md")) if page.parent.name != "decisions"]


@pytest.mark.parametrize("page", FORMED, ids=names(FORMED))
def test_a_page_begins_with_what_it_is_for_and_a_short_example(page: Path) -> None:
    """A title, a sentence, and an example of ten lines at most."""
    title, _, rest = page.read_text().partition("\n")
    assert title.startswith("# ")
    assert re.match(r"\n?[A-Z`*]", rest), "it begins with a sentence"
    first = EXAMPLE.search(rest)
    assert first, "it has no example"
    assert "\n## " not in rest[: first.start()], "the example comes first"
    assert len([line for line in first[1].splitlines() if line.strip()]) <= EXAMPLE_LINES, "the first example is short"


def test_tests_that_pages_name_are_there() -> None:
    """Where a page says which test shows something, there is such a test."""
    page = (ROOT / "docs/what-happens-when.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| what "))]
    assert rows
    for line in rows:
        assert SHOWN_BY.search(line), f"no test shows: {line}"
    for file, name in {found for each in PAGES for found in SHOWN_BY.findall(each.read_text())}:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file or folder of the repository, and its anchor a heading of the page."""
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in headings(there), f"{page.name}: {target}"


def test_pages_that_other_files_name_are_there() -> None:
    """Those that code, manifests and examples send the reader to."""
    folders = [ROOT / name for name in ("deploy", "examples", "feature_repo", "featurestore")]
    files = [
        file for folder in folders for file in folder.rglob("*") if file.suffix in {".py", ".yaml", ".yml", ".toml"}
    ]
    files += [ROOT / name for name in ("Dockerfile", "Makefile", "docker-compose.yml", "pyproject.toml")]
    named = [(file, page) for file in files for page in PAGE_OF_DOCS.findall(file.read_text())]
    assert named
    assert [f"{file.name}: {page}" for file, page in named if not (ROOT / page).exists()] == []


def headings(page: Path) -> set[str]:
    lines = FENCED.sub("", page.read_text()).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def test_every_page_is_linked_from_the_readme_or_the_design_pages() -> None:
    """No page of the documentation is an orphan."""
    linked = {(page.parent / t.partition("#")[0]).resolve() for page in PAGES for t in LINK.findall(page.read_text())}
    assert [page.name for page in PAGES[1:] if page.resolve() not in linked] == []


def test_the_first_page_leads_to_every_page() -> None:
    """The README calls it all pages; those of a folder of their own are found by the page on their subject."""
    docs = ROOT / "docs"
    led_to = set(LINK.findall((docs / "index.md").read_text()))
    assert [page.name for page in sorted(docs.glob("*.md")) if page.name not in {*led_to, "index.md"}] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    """The site shows each page of `docs/` once, and nothing else."""
    found: list[str] = []

    def gather(items: list[Any]) -> None:
        for item in items:
            found.append(item) if isinstance(item, str) else gather(next(iter(item.values())))

    gather(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    assert sorted(found) == sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))


def test_the_reference_has_every_public_name() -> None:
    """What users import is on a page of the reference; that each name exists, the site's own check says."""
    shown = {name for page in (ROOT / "docs/api").glob("*.md") for name in REFERENCE.findall(page.read_text())}
    public = {f"featurestore.{name}" for name in featurestore.__all__}
    raised = {f"featurestore.errors.{name}" for name in site.raised()}
    assert public | raised <= shown, sorted((public | raised) - shown)
    for name in shown:
        *home, last = name.split(".")
        assert last == "folds" or hasattr(importlib.import_module(".".join(home)), last), name


def fields_without_words(public: type) -> list[str]:
    """The fields of a class that it says itself, and not a class before it, of which nothing is said below them."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(public))).body
    assert isinstance(node, ast.ClassDef)
    found = []
    for said, after in itertools.pairwise([*node.body, ast.Pass()]):
        if not isinstance(said, ast.AnnAssign) or "ClassVar" in ast.unparse(said.annotation):
            continue
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if not is_text and not ast.unparse(said.target).startswith("_"):
            found.append(f"{public.__name__}.{ast.unparse(said.target)}")
    return found


def test_every_field_of_the_reference_says_what_it_is() -> None:
    """Below it, one by one: what it holds, in which unit, and what None means. Of a class that others are made of, too, where it
    is private."""
    named = (REFERENCE.findall(page.read_text()) for page in (ROOT / "docs/api").glob("*.md"))
    found: set[type] = set()
    for home, _, last in (name.rpartition(".") for names in named for name in names):
        public = getattr(importlib.import_module(home), last, None)
        if inspect.isclass(public):
            found |= {each for each in public.__mro__ if each is public or each.__name__.startswith("_")}
    own = sorted(
        (each for each in found if each.__module__.startswith("featurestore.")), key=lambda each: each.__qualname__
    )
    assert len(own) > 60
    assert [field for each in own for field in fields_without_words(each)] == []


def test_the_site_is_looked_at_link_by_link(tmp_path: Path) -> None:
    """A link to no page, an anchor that is not there, and a name that the reference lacks are each found."""
    assert site.problems(tmp_path)[0] == f"{tmp_path} has no page"
    ids = "".join(f'<a id="featurestore.{name}"></a>' for name in featurestore.__all__)
    ids += "".join(f'<a id="featurestore.errors.{name}"></a>' for name in errors.__all__)
    (tmp_path / "a.html").write_text(
        f'<h1 id="x">A</h1><a href="b.html#y">b</a><a href="https://example.com">e</a>{ids}'
    )
    (tmp_path / "b.html").write_text('<h1 id="y">B</h1><a href="a.html#x">a</a>')
    assert site.problems(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="a.html#z">a</a><img src="c.png">')
    assert site.problems(tmp_path) == [
        "a.html: b.html#y has no such anchor",
        "b.html: a.html#z has no such anchor",
        "b.html: c.png is no page",
    ]
    (tmp_path / "a.html").write_text(ids.replace('"featurestore.Count"', '"x"'))
    (tmp_path / "b.html").unlink()
    assert site.problems(tmp_path) == ["the reference has no featurestore.Count"]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells of the quickstart run in order in a kernel, and what they show is shown; stored they have no outputs."""
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # a kernel writes nothing into the home of whoever runs this
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / "notebook"
    folder.mkdir()
    NotebookClient(notebook, timeout=600, startup_timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    shown = [output.data for cell in cells for output in cell.outputs if output.output_type == "execute_result"]
    assert shown
    assert all("text/html" in data for data in shown if "FeatureView" in data["text/plain"])
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def test_the_redis_example_runs(redis_url: str, tmp_path: Path) -> None:
    """The quickstart on Redis prints what it was served, and says that training agrees."""
    done = run([str(EXAMPLES / "redis_quickstart.py"), redis_url], tmp_path)
    assert "equal to the training frame: True" in done


def test_the_feature_tests_of_the_example_pass(tmp_path: Path) -> None:
    """A user's own tests are ordinary tests."""
    done = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "test_my_features.py")], tmp_path)
    assert "passed" in done


def test_the_model_behind_fastapi_answers() -> None:
    """The example's app scores a request with features that it looks up as numpy."""
    app = load(EXAMPLES / "model_behind_fastapi.py").create_app()

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://example") as client:
            return await client.post("/score", json=[{"carrier": "UA"}, {"carrier": "AA"}])

    answer = asyncio.run(ask())
    assert answer.status_code == 200
    scores = answer.json()["late"]
    assert len(scores) == 2
    assert scores[0] > 0.5 > scores[1]


def run(command: list[str], folder: Path) -> str:
    """What a Python program prints; warnings are errors in it, too."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_routes_of_coming_from_feast_are_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each body that the page shows is sent to a server over the project that the page makes, and each route is asked."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "coming-from-feast.md"
    with Page(page) as running:
        running.run()
    table = page.read_text().split("\n## HTTP\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")
    ]
    asked = []
    with (
        featurestore.FeatureStore("drivers", clock=ManualClock(datetime(2026, 3, 1, 11, 30, tzinfo=UTC))) as store,
        serving(store) as client,
    ):
        for theirs, ours, body in rows:
            for method, path in re.findall(r"(GET|POST) (/[\w/-]+)", ours):
                content = body.strip("`") or None
                answer = client.request(method, path, content=content, headers={"content-type": "application/json"})
                assert answer.status_code == 200, answer.text
                asked.append(path)
            for path in re.findall(r"(/[\w-]+)`", theirs):
                assert path in ELSEWHERE["HTTP"]
    assert asked == ["/v1/online-features", "/v1/push", "/healthz", "/readyz"]

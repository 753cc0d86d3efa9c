"""The static site is the catalog as files: each link leads to one of them, and nothing else is asked for."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest

from featurestore import FeatureStore
from featurestore.console.static_site import build
from featurestore.errors import ConfigError
from tests.cli.test_commands import run
from tests.console_pages.pages import HOSTILE, Read


@pytest.fixture
def site(store: FeatureStore, tmp_path: Path) -> Path:
    build(store, tmp_path / "site")
    return tmp_path / "site"


def test_each_link_leads_to_a_file(store: FeatureStore, site: Path) -> None:
    """So does each script and style; there is no form that asks a server, and no page of what is true for a moment."""
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        found = Read(page.read_text())
        addresses = [
            *found.links(),
            *(one["href"] for one in found.all("link")),
            *(one["src"] for one in found.all("script") if "src" in one),
        ]
        for address in addresses:
            assert address is not None
            if not address.startswith("#"):
                assert (page.parent / unquote(address)).resolve().is_file(), (page, address)
                assert site in (page.parent / unquote(address)).resolve().parents
        assert [form for form in found.all("form") if "action" in form] == []
        assert not found.all("img")
    names = {path.relative_to(site).as_posix() for path in pages}
    assert {
        "index.html",
        "view/things.html",
        "feature/things.x.html",
        "lineage/things.x.html",
        "function/with_fee.html",
    } <= names
    text = Read((site / "index.html").read_text()).text
    assert HOSTILE in text
    first = Read((site / "index.html").read_text())
    assert "filter.js" in str([one.get("src") for one in first.all("script")])  # hidden until it runs
    assert [form for form in first.all("form") if "hidden" not in form] == []
    assert "Freshness" not in (site / "view" / "things.html").read_text()


def test_it_is_written_anew(store: FeatureStore, site: Path) -> None:
    """What is gone is gone, and what somebody put beside it stays."""
    (site / "view" / "gone.html").write_text("old")
    (site / "notes.txt").write_text("mine")
    count = build(store, site)
    assert not (site / "view" / "gone.html").exists()
    assert (site / "notes.txt").read_text() == "mine"
    assert count == len(list(site.rglob("*.html")))


def test_other_folders_are_not_touched(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(ConfigError, match="did not write"):
        build(store, tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        build(store, tmp_path / "index.html")
    assert (tmp_path / "index.html").read_text() == "mine"


def test_the_command_says_where_it_begins(tmp_path: Path) -> None:
    run(tmp_path, "init", "shop")
    shop = tmp_path / "shop"
    assert "site/index.html" in run(shop, "docs", "build", "site").stdout  # what is declared, and was never applied
    assert "not applied" in (shop / "site" / "view" / "customer_orders.html").read_text()


def test_no_file_says_where_the_repository_lies(tmp_path: Path) -> None:
    """Definitions are told by where they are in it."""
    folder = tmp_path / "shop"
    run(tmp_path, "init", str(folder))
    with FeatureStore(folder) as store:
        store.apply(note="first")
        build(store, tmp_path / "site")
    pages = [page.read_text() for page in sorted((tmp_path / "site").rglob("*.html"))]
    assert any("definitions.py:" in page for page in pages)
    assert [page for page in pages if str(tmp_path) in page] == []


@pytest.mark.parametrize("place", ["view", "files", "index.html", "view/things.html"])
def test_nothing_is_written_where_a_link_leads(store: FeatureStore, site: Path, tmp_path: Path, place: str) -> None:
    """Nor is anything of that removed; and it is said before anything is written."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "index.html").write_text("mine")
    moved = tmp_path / "moved"
    (site / place).rename(moved)
    (site / place).symlink_to(elsewhere if moved.is_dir() else elsewhere / "index.html")
    with pytest.raises(ConfigError, match="is a link"):
        build(store, site)
    assert [(path.name, path.read_text()) for path in elsewhere.iterdir()] == [("index.html", "mine")]


def test_what_lies_behind_another_link_stays(store: FeatureStore, site: Path, tmp_path: Path) -> None:
    """Of a folder that has no place among the pages."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "index.html").write_text("mine")
    (site / "notes").symlink_to(tmp_path / "elsewhere")
    build(store, site)
    assert (tmp_path / "elsewhere" / "index.html").read_text() == "mine"

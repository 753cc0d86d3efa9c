"""The first page tells how everything is, and what needs attention."""

from __future__ import annotations

from pathlib import Path

import httpx

from featurestore import FeatureStore
from featurestore.reports.audit.last_audit import FILE, AuditedService
from featurestore.reports.audit.report import COUNTS
from featurestore.reports.last_findings import keep_findings
from tests.console_pages.pages import read, rows
from tests.server.test_http import serving


def test_what_status_tells_is_on_it(client: httpx.Client, store: FeatureStore) -> None:
    page = read(client.get("/ui"))
    assert "/ui/view/things" in page.links()
    views = rows(client, "/ui", "views")
    assert {one["view"]: one["state"] for one in views} == {one.view: one.state for one in store.status()}
    assert {one["view"] for one in rows(client, "/ui", "runs")} == {"things", "counts"}
    assert {(one["service"], one["budget"], one["skew"]) for one in rows(client, "/ui", "skew")} == {
        ("model", "25.0000%", "never audited"), ("clicked", "0.0000%", "never audited"),
    }  # fmt: skip


def test_a_service_beyond_its_budget_needs_somebody(client: httpx.Client, store: FeatureStore) -> None:
    """By the last audit: 3 of 10 values, of which one in four may be; and what is exactly at the budget does not."""
    folder = store.config.serving_log.folder
    folder.mkdir(parents=True, exist_ok=True)

    def kept(skewed: int, early: int) -> None:
        counts = {**dict.fromkeys(COUNTS, 0), "compared": 8, "skewed": skewed}
        keep_findings(folder / FILE, lambda _: {"model": AuditedService(1, counts, early)._asdict()})

    kept(skewed=2, early=0)
    assert "skewed" not in [one["state"] for one in rows(client, "/ui", "needs")]
    kept(skewed=2, early=1)
    (found,) = [one for one in rows(client, "/ui", "needs") if one["state"] == "skewed"]
    assert "<b>1</b> needs attention" in client.get("/ui").text
    assert (found["where"], found["what is wrong"][:8]) == ("model", "37.5000%")
    (folder / FILE).unlink()


def test_an_empty_project_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "featurestore.toml").write_text('project = "empty"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store, serving(store) as client:
        assert "featurestore apply" in read(client.get("/ui")).text
        read(client.get("/ui/catalog"))

"""Whoever looks changes nothing: neither what alerts go by, nor any other file of the project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from featurestore import FeatureStore
from featurestore.console.site_map import PAGES
from featurestore.reports.audit.last_audit import last_audits
from featurestore.reports.drift.last_drift import last_drifts
from tests.console_pages.pages import read, rows
from tests.console_pages.project import project
from tests.console_pages.told import Told, told
from tests.server.test_http import serving

NAMED = {"entity": "person", "source": "rows", "view": "said", "feature": "said:n", "function": "scaled", "service": "model", "lineage": "said"}  # fmt: skip
"""What the pages that are about one thing are about."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with told(tmp_path_factory.mktemp("told")) as made:
        yield made


def files_of(folder: Path) -> dict[str, str]:
    """The digest of each file; those by which readers of a database keep out of each other's way hold nothing of it."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in found
        if not path.name.endswith(("-shm", "-wal", "lock.mdb", ".lock"))
    }


def test_no_page_changes_a_file(made: Told) -> None:
    """Not even where it runs an audit, a comparison or a measurement: of the first one, too, nothing is kept."""
    made.store.audit(keep=False)  # which writes what was served
    before = files_of(made.store.config.root)
    assert before
    words = {"run": "1", "since": "1d", "service": "model", "baseline": str(made.frame), "id": made.request, "view": "said", "of": "rows"}  # fmt: skip
    with serving(made.store) as client:
        for page in PAGES:
            address = "/ui/" + "/".join(filter(None, (page.kind, NAMED.get(page.kind))))
            for form in ("html", "json"):
                asked = {word: said for word, said in words.items() if (page.kind, word) not in {("availability", "since"), ("quarantine", "of")}}  # fmt: skip
                answer = client.get(address, params={**asked, "format": form})
                assert answer.status_code in {200, 404, 422}, answer.text
    assert files_of(made.store.config.root) == before


def test_no_page_makes_a_log(tmp_path: Path) -> None:
    """Of what is pushed, of what came too late, or of what is in quarantine: whoever looks may have no right to write."""
    with project(tmp_path) as store, serving(store) as client:
        before = sorted(store.offline.logs.folder.rglob("*"))
        assert any("clicks" in path.parts for path in before)
        for page in PAGES:
            if not page.is_named:
                asked = {"run": "1", "source": "clicks"}
                assert client.get(f"/ui/{page.kind}", params=asked).status_code == 200, page.kind
        assert sorted(store.offline.logs.folder.rglob("*")) == before


def test_an_empty_project_is_no_search_without_a_find(tmp_path: Path) -> None:
    (tmp_path / "featurestore.toml").write_text('project = "empty"\ndefinitions = []\n')
    with FeatureStore(tmp_path) as store, serving(store) as client:
        assert "Nothing is declared yet" in read(client.get("/ui/catalog")).text
        for page in PAGES:
            if not page.is_named:
                read(client.get(f"/ui/{page.kind}", params={"run": "1"}))


def test_an_audit_of_a_page_is_shown_and_not_kept(made: Told) -> None:
    """Neither it nor a comparison: metrics and alerts go by those of the command."""
    folder = made.store.config.serving_log.folder
    drift = {"service": "model", "since": "1d", "baseline": str(made.frame)}
    with serving(made.store) as client:
        assert "values compared" in read(client.get("/ui/audit", params={"since": "1d", "run": "1"})).text
        assert rows(client, "/ui/audit?since=1d", "features")
        assert "features compared" in read(client.get("/ui/drift", params={**drift, "run": "1"})).text
        assert (last_audits(folder), last_drifts(folder)) == ({}, {})
        found, compared = made.store.audit(since="1d"), made.store.drift("model", since="1d", baseline=str(made.frame))
        assert last_audits(folder)["model"].counts["compared"] == found.compared > 0
        assert last_drifts(folder).keys() == {compared.service}

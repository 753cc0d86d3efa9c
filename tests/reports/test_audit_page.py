"""The audit's page: what it needs is told before the audit begins, and what it says stands where it is looked for."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featurestore import FeatureStore
from featurestore.cli import app
from featurestore.report import ReportTable
from featurestore.store import FeatureStore as Store
from tests.small import hours, opened, table, view_of

SINCE = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, whose audit must not begin."""
    assert CliRunner().invoke(app, ["init", str(tmp_path / "shop")]).exit_code == 0

    def begun(*_: object, **__: Any) -> None:
        raise AssertionError("the audit began")

    monkeypatch.setattr(Store, "audit", begun)
    return tmp_path / "shop"


def test_a_page_without_what_draws_it_is_told_before_the_audit(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = CliRunner().invoke(app, ["audit", "--html", str(shop / "audit.html"), "--repo", str(shop)])
    told = done.stderr
    assert done.exit_code == 1
    assert told.startswith("MissingPackageError: The HTML report needs matplotlib")
    assert "pip install 'featurestore[report]'" in told
    assert not (shop / "audit.html").exists()


@pytest.mark.parametrize(("path", "says"), [("no/audit.html", "there is no folder"), ("data", "data is a folder")])
def test_a_page_that_cannot_be_written_is_told_before_the_audit(shop: Path, path: str, says: str) -> None:
    done = CliRunner().invoke(app, ["audit", "--html", str(shop / path), "--repo", str(shop)])
    assert done.exit_code == 2
    assert says in " ".join(done.stderr.replace("\u2502", " ").split())


def test_an_audit_says_whose_it_is_and_of_when() -> None:
    """As text, as JSON and as a page."""
    with opened(view_of(table(thing=[1], at=[hours(-1)], x=[1.0]), ["x"])) as (store, _):
        assert_told(store)


def assert_told(store: FeatureStore) -> None:
    found = store.audit(since=SINCE, until=hours(0))
    period = (
        "project local, requests from 2024-05-01 00:00:00Z to 2024-05-01 12:00:00Z, audited at 2024-05-01 12:00:00Z"
    )
    assert str(found).splitlines()[1] == period
    assert period in found.to_html()
    told = found.to_dict()
    assert (told["project"], told["since"]) == ("local", "2024-05-01T00:00:00.000000Z")
    assert (told["until"], told["audited_at"]) == ("2024-05-01T12:00:00.000000Z",) * 2


def test_only_long_cells_are_folded() -> None:
    """Numbers, shares and instants are not broken on a page, and a path is."""
    cells = ["0.0001%", "2024-05-01 12:00:00.000001Z", "/a/long/path/of/a/file.parquet row 7"]
    found = ReportTable(("share", "at", "where"), [cells]).html()
    assert [cell in found.partition("white-space:normal")[0] for cell in cells] == [True, True, False]

"""In which definitions those at hand differ from those applied, and where it is said whose are used."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from featurestore import FeatureStore, ManualClock
from featurestore.registry.differences import Differences
from tests.small import NOON, hours, spine, table, write

DEFINITIONS = """
from featurestore import Entity, FeatureService, FeatureView, ParquetSource, Request, on_demand
from featurestore.types import Int64

thing = Entity("thing", key={"thing": Int64})
rows = ParquetSource("rows", "rows.parquet", event_time="at", refresh="1h")
view = FeatureView("view", entity=thing, source=rows, features=["x"])
other = FeatureView("other", entity=thing, source=rows, where="x > 0", features=["x"])


@on_demand(inputs=[view["x"], Request("y", Int64)], output=Int64)
def added(x, y):
    return x + y


model = FeatureService("model", features=[view, added])
others = FeatureService("others", features=[other])
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository that is applied as it stands."""
    (tmp_path / "featurestore.toml").write_text('project = "differs"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    write(tmp_path / "rows.parquet", table(thing=[1], at=[hours(-1)], x=[1]))
    with opened(tmp_path) as store:
        store.apply()
    return tmp_path


def opened(repo: Path) -> FeatureStore:
    return FeatureStore(repo, clock=ManualClock(NOON))


def edit(repo: Path, before: str, after: str) -> None:
    text = (repo / "definitions.py").read_text()
    assert before in text
    (repo / "definitions.py").write_text(text.replace(before, after))


def differences(repo: Path) -> tuple[tuple[str, ...], ...]:
    with opened(repo) as store:
        found = store.differences()
        assert bool(found) == (not store.plan().is_empty) or not found  # labels and places are steps of a plan alone
        return found.changed, found.new, found.gone


@pytest.mark.parametrize(
    ("before", "after", "changed", "new", "gone"),
    [
        ("features=[view, added]", "features=[added, view]", ["model"], [], []),
        ('view", entity=thing, source=rows', 'view", entity=thing, source=rows, ttl="1d"', ["view"], [], []),
        ("x + y", "x - y", ["added"], [], []),
        ("x > 0", "x > 1", ["other"], [], []),
        ('event_time="at"', 'event_time="at", known_after="1m"', ["view", "other", "rows"], [], []),
        ('others = FeatureService("others"', 'renamed = FeatureService("renamed"', [], ["renamed"], ["others"]),
        ("thing = Entity(", "new = Entity('new', key={'new': Int64})\nthing = Entity(", [], ["new"], []),
        ("    return x + y", "    # a comment\n    return x + y", [], [], []),
        ('features=["x"])', 'features=["x"], description="Told.", owner="me")', [], [], []),
        ('refresh="1h"', 'refresh="1h", description="Told."', [], [], []),
    ],
)  # fmt: skip
def test_differences_are_those_that_can_change_a_value(
    repo: Path, before: str, after: str, changed: list[str], new: list[str], gone: list[str]
) -> None:
    """By the name of what says so itself; descriptions, owners and comments are none."""
    assert differences(repo) == ((), (), ())
    edit(repo, before, after)
    assert differences(repo) == (tuple(changed), tuple(new), tuple(gone))


def test_where_the_data_lies_is_no_difference(repo: Path) -> None:
    write(repo / "moved.parquet", table(thing=[1], at=[hours(-1)], x=[1]))
    edit(repo, '"rows.parquet"', '"moved.parquet"')
    assert differences(repo) == ((), (), ())


def test_a_view_that_reads_a_column_that_it_did_not_read_is_changed(repo: Path) -> None:
    """The types that it was applied with do not have it."""
    write(repo / "rows.parquet", table(thing=[1], at=[hours(-1)], x=[1], z=[1]))
    edit(repo, 'rows, features=["x"])\nother', 'rows, features=["x", "z"])\nother')
    edit(repo, "x > 0", "x > 0 OR z > 0")
    with opened(repo) as store:
        assert store.differences().changed == ("model", "view", "other")


def test_what_is_not_at_hand_is_gone_only_where_files_declare(repo: Path) -> None:
    """A program that declares in calls, or none at all, has what it works on at hand, and differs in nothing."""
    (repo / "featurestore.toml").write_text('project = "differs"\ndefinitions = []\n')
    with opened(repo) as store:
        assert not store.differences()
        store.apply([store.catalog.views["other"].model_copy(update={"description": "Told."})])
        assert not store.differences()


def test_the_line_names_a_few(repo: Path) -> None:
    found = Differences(1, tuple("abcdef"), (), ("g",))
    assert found.told("x", "y") == (
        "The definitions at hand differ from those that are applied (changed: a, b, c, d and 2 more; not at hand: g); x. "
        "featurestore plan shows it all"
    )
    assert Differences(0, new=("a",)).told("x", "y") == "Nothing is applied yet; y. Next: featurestore apply"
    assert Differences(1).told("x", "y") == ""


# --- where it is said --------------------------------------------------------------------------


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


def test_training_says_whose_definitions_are_used(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and only where those that are asked for by name differ; those that are passed are the caller's own."""
    edit(repo, 'view", entity=thing, source=rows', 'view", entity=thing, source=rows, ttl="1d"')
    rows = spine(NOON, thing=[1], y=[2])
    with opened(repo) as store:
        for features in ("others", ["other:x"], [store.catalog.views["view"]]):
            store.get_historical_features(rows, features)
        assert said(caplog) == []
        for features in ("model", ["view:x"], ["other", "added"]):
            store.get_historical_features(rows, features)
            store.snapshot("view", at=NOON)
            store.explain("view", {"thing": 1})
        (line,) = said(caplog)
        assert line == (
            "The definitions at hand differ from those that are applied (changed: view); those at hand are used. featurestore "
            "plan shows it all"
        )
        store.apply()
        store.get_historical_features(rows, "model")
    assert said(caplog) == []


def test_what_was_never_applied_is_said(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(repo, "model = ", 'fresh = FeatureService("fresh", features=[view])\nmodel = ')
    with opened(repo) as store:
        store.get_historical_features(spine(NOON, thing=[1]), "fresh")
        assert "(new: fresh); those at hand are used" in said(caplog)[0]
        store.teardown()
        store.get_historical_features(spine(NOON, thing=[1]), "fresh")
        store.get_historical_features(spine(NOON, thing=[1]), [store.catalog.views["view"]])
        assert said(caplog) == ["Nothing is applied yet; the definitions at hand are used. Next: featurestore apply"]


def test_materialize_says_that_the_applied_ones_are_used(repo: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(repo, 'refresh="1h"', 'refresh="2h"')
    with opened(repo) as store:
        runs = store.materialize(progress=False)
        assert [run.view for run in runs] == ["other", "view"]
    assert "(changed: view, other, rows); those that are applied are materialized" in said(caplog)[0]


def test_materialize_before_the_first_apply_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "featurestore.toml").write_text('project = "differs"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    with opened(tmp_path) as store:
        assert store.materialize(progress=False) == []
    assert said(caplog) == ["Nothing is applied yet; there is nothing to materialize. Next: featurestore apply"]


def test_whoever_sits_at_a_notebook_is_told_when_the_store_is_opened(
    repo: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program is told where it matters, and not before."""
    edit(repo, 'refresh="1h"', 'refresh="2h"')
    opened(repo).close()
    assert said(caplog) == []
    monkeypatch.setattr("sys.ps1", ">>> ", raising=False)
    opened(repo).close()
    assert "(changed: view, other, rows); training uses those at hand, materialize and lookups" in said(caplog)[0]

"""The whole meaning of a definition, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featurestore import FeatureStore
from featurestore.cli import app
from featurestore.errors import NotFoundError
from featurestore.reports.description import Description
from tests.small import hours, table, write

DEFINITIONS = """
from featurestore import (
    Count, Entity, FeatureService, FeatureView, LastN, Latest, Mean, ParquetSource, PushSource, Request, RequestTime, on_demand,
)
from featurestore.types import Float64, Int64, String, Timestamp

thing = Entity("thing", key={"thing": Int64, "place": String}, owner="us@example.com")
rows = ParquetSource(
    "rows", "rows.parquet", event_time="at", known_after="2m", identity="id", version="v", tiebreak=["id"], settle="5m",
    derived={"double": "x * 2"},
)
view = FeatureView(
    "view", entity=thing, source=rows, key={"place": "town"}, refresh="1h", refresh_offset="15m", ready_after="10m", where="x > 0",
    features={
        "mean_7d": Mean("x", window="7d", offset="1d", where="double < 9", default=0.5),
        "last": LastN("x", n=3),
        "x": Latest("x"),
    },
    description="What a thing did.", tags={"tier": "1"},
)
clicks = PushSource(
    "clicks", schema={"id": String, "thing": Int64, "place": String, "at": Timestamp}, event_time="at", identity="id", lateness="2d",
    deleted=None,
)
counts = FeatureView("counts", entity=thing, source=clicks, features={"n": Count(windows=["1h", "1d"])}, stale="withhold")


@on_demand(inputs=[view["x"], Request("y", Float64), RequestTime()], output=Float64)
def over(x, y, now):
    \"\"\"How far over.\"\"\"
    return None if x is None else x - y


model = FeatureService("model", features=[over, counts["n_1d"], view.alias("twin", key={"thing": "other"})["x"]], skew_budget=0.25)
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "featurestore.toml").write_text(
        'project = "described"\n[sources]\nrows = "rows.parquet"\n[env.other.sources]\nrows = "${FOLDER}/rows.parquet"\n'
    )
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    columns = {"thing": [1], "town": ["a"], "at": [hours(-1)], "x": [1.0], "id": ["i"], "v": [1]}
    write(tmp_path / "rows.parquet", table(**columns))
    return tmp_path


def described(repo: Path, name: str, **options: Any) -> dict[str, Any]:
    """The only thing of that name, as JSON holds it."""
    with FeatureStore(repo, **options) as store:
        (found,) = store.describe(name)
    told: dict[str, Any] = json.loads(json.dumps(found.to_dict()))
    del told["declared"]
    return told


def test_a_view_tells_its_times_conditions_folds_windows_and_types(repo: Path) -> None:
    """What its source says too, and that it does; the condition of the view is part of each feature's."""
    told = described(repo, "view")
    assert len(told.pop("fingerprint")) == 32
    assert told == {
        "kind": "feature view", "name": "view", "description": "What a thing did.", "tags": {"tier": "1"},
        "state": "not applied", "entity": "thing", "source": "rows", "where": "x > 0",
        "refresh": "1h", "refresh_offset": "15m", "settle": "5m", "ready_after": "10m", "said_by_source": ["settle"], "stale": "serve",
        "services": ["model"],
        "keys": [
            {"key": "thing", "type": "Int64", "read_from": "thing"},
            {"key": "place", "type": "String", "read_from": "town"},
        ],
        "features": [
            {
                "feature": "mean_7d", "fold": "Mean", "column": "x", "window": "7d", "offset": "1d",
                "where": "(x > 0) AND (double < 9)", "default": 0.5, "type": "Float64",
            },
            {"feature": "last", "fold": "LastN", "column": "x", "n": 3, "where": "(x > 0)", "type": "Array(Float64)"},
            {"feature": "x", "fold": "Latest", "column": "x", "where": "(x > 0)", "type": "Float64"},
        ],
    }  # fmt: skip


def test_a_feature_tells_what_holds_for_it_alone(repo: Path) -> None:
    """By its view, as a column, or by its own name; in steps of its hop, where it has one."""
    told = described(repo, "counts:n_1d")
    assert told == described(repo, "counts__n_1d") == described(repo, "n_1d")
    assert told == {
        "kind": "feature", "name": "counts:n_1d", "column": "counts__n_1d", "fold": "Count", "window": "1d", "hop": "1h",
        "type": "Int64", "view": "counts", "entity": "thing", "source": "clicks", "refresh": "continuous",
        "said_by_source": ["refresh"], "stale": "withhold", "services": ["model"], "state": "not applied",
        "keys": [
            {"key": "thing", "type": "Int64", "read_from": "thing"},
            {"key": "place", "type": "String", "read_from": "place"},
        ],
    }  # fmt: skip
    assert "services" not in described(repo, "view:last")


def test_a_name_of_a_definition_goes_before_features_that_bear_it(repo: Path) -> None:
    """A feature's own name finds it in each of its views."""
    with FeatureStore(repo) as store:
        assert [found.kind for found in store.describe("rows")] == ["source"]
        assert [found.name for found in store.describe("x")] == ["view:x"]


def test_a_service_tells_its_columns_and_what_it_is_asked_with(repo: Path) -> None:
    told = described(repo, "model")
    assert len(told.pop("fingerprint")) == 32
    assert told == {
        "kind": "feature service", "name": "model", "state": "not applied", "skew_budget": 0.25,
        "columns": [
            {"column": "over", "from": "on demand", "type": "Float64"},
            {"column": "counts__n_1d", "from": "counts:n_1d", "type": "Int64"},
            {"column": "twin__x", "from": "view:x", "type": "Float64"},
        ],
        "views": [
            {"view": "view", "as": "view", "key": {"thing": "thing", "place": "place"}},
            {"view": "counts", "as": "counts", "key": {"thing": "thing", "place": "place"}},
            {"view": "view", "as": "twin", "key": {"thing": "other", "place": "place"}},
        ],
        "inputs": [
            {"input": "thing", "is": "key", "type": "Int64"},
            {"input": "place", "is": "key", "type": "String"},
            {"input": "other", "is": "key", "type": "Int64"},
            {"input": "y", "is": "request value", "type": "Float64"},
        ],
    }  # fmt: skip


def test_a_function_tells_its_inputs_and_code(repo: Path) -> None:
    told = described(repo, "over")
    assert told["code"] == "def over(x, y, now):\n    return None if x is None else x - y\n"
    assert (told["type"], told["mode"], told["services"]) == ("Float64", "row", ["model"])
    assert told["inputs"] == [
        {"input": "view__x", "from": "view:x", "type": "Float64"},
        {"input": "y", "from": "the request", "type": "Float64"},
        {"input": "the request's time", "from": "the request", "type": "Timestamp"},
    ]


def test_a_source_tells_its_words_place_and_columns(repo: Path) -> None:
    told = described(repo, "rows")
    words = {
        "event_time": "at",
        "known_after": "2m",
        "identity": ["id"],
        "version": "v",
        "tiebreak": ["id"],
        "settle": "5m",
    }
    assert {word: told[word] for word in words} == words
    assert (told["type"], told["path"], told["located"], told["views"]) == (
        "ParquetSource", ["rows.parquet"], f"{repo}/rows.parquet", ["view"],
    )  # fmt: skip
    assert {"column": "x", "type": "Float64"} in told["columns"]
    assert {"column": "double", "type": "Float64", "derived_as": "x * 2"} in told["columns"]
    pushed = described(repo, "clicks")
    assert (pushed["lateness"], pushed["tolerance"], pushed["columns"][0]) == (
        "2d",
        "1s",
        {"column": "id", "type": "String"},
    )


def test_what_is_expected_is_told_where_it_is_said(repo: Path) -> None:
    """Of a source and of a view each its own, as it is written, and what happens otherwise; nothing where nothing is expected."""
    text = DEFINITIONS.replace('tiebreak=["id"],', 'tiebreak=["id"], expectations=[NotNull("x")],')
    text = text.replace(
        'where="x > 0",', 'where="x > 0", expectations=[InRange("x", at_least=0, otherwise="quarantine")],'
    )
    (repo / "definitions.py").write_text(text.replace("LastN, Latest", "InRange, LastN, Latest, NotNull"))
    assert described(repo, "rows")["expectations"] == [{"expectation": "NotNull('x')", "otherwise": "refuse"}]
    expected = {"expectation": "InRange('x', at_least=0)", "otherwise": "quarantine"}
    assert described(repo, "view")["expectations"] == [expected]
    assert "expectations" not in described(repo, "clicks")


def test_an_entity_tells_its_key(repo: Path) -> None:
    told = described(repo, "thing")
    assert (told["owner"], told["views"]) == ("us@example.com", ["view", "counts"])
    assert told["key"] == [{"column": "thing", "type": "Int64"}, {"column": "place", "type": "String"}]


def test_a_view_whose_data_is_away_is_told_as_it_was_applied_or_says_why_not(repo: Path) -> None:
    """Its meaning does not depend on the data; the types that were found do, unless the registry has them."""
    (repo / "rows.parquet").rename(repo / "away.parquet")
    told = described(repo, "view")
    assert told["types"].startswith("not known: ")
    assert [feature.get("type") for feature in told["features"]] == [None] * 3
    assert described(repo, "model")["columns"][0] == {"column": "over"}
    (repo / "away.parquet").rename(repo / "rows.parquet")
    with FeatureStore(repo) as store:
        store.apply()
    (repo / "rows.parquet").unlink()
    told = described(repo, "view")
    assert told["state"] == "applied"
    assert [feature["type"] for feature in told["features"]] == ["Float64", "Array(Float64)", "Float64"]


def test_the_state_is_that_of_the_definition(repo: Path) -> None:
    with FeatureStore(repo) as store:
        store.apply()
    text = (repo / "definitions.py").read_text()
    (repo / "definitions.py").write_text(
        text.replace('ready_after="10m"', 'ready_after="20m"').replace('"model"', '"another"')
    )
    found = {name: described(repo, name)["state"] for name in ("view", "counts", "model", "another")}
    assert found == {
        "view": "changed since it was applied", "counts": "applied", "model": "applied, and not at hand", "another": "not applied",
    }  # fmt: skip


def test_what_a_variable_holds_is_not_shown(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the place where a source lies, as everywhere."""
    monkeypatch.setenv("FOLDER", str(repo))
    told = described(repo, "rows", env="other")
    assert told["located"] == "${FOLDER}/rows.parquet"
    assert {"column": "x", "type": "Float64"} in told["columns"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vieww", "view"),
        ("counts:n_1dd", "counts:n_1d"),
        ("view__lst", "view:last"),
        ("modle", "model"),
        ("row", "rows"),
    ],
)
def test_an_unknown_name_gets_the_nearest(repo: Path, name: str, near: str) -> None:
    with (
        FeatureStore(repo) as store,
        pytest.raises(
            NotFoundError, match=f"no definition '{name}', nor a feature of that name. Did you mean '{near}'?"
        ),
    ):
        store.describe(name)


def test_the_command_prints_text_and_json(repo: Path) -> None:
    """Of one name, of all, and a list where no name is given; notebooks show a table."""

    def run(*args: str) -> str:
        done = CliRunner().invoke(app, ["--repo", str(repo), "show", *args])
        assert done.exit_code == 0, done.output
        return done.stdout

    text = run("view")
    for said in ("feature view view", "refresh_offset  15m", "mean_7d  Mean    x       7d", "(x > 0) AND (double < 9)"):
        assert said in text, text
    assert json.loads(run("view", "--json"))[0]["features"][1]["n"] == 3
    every = json.loads(run("--json"))
    assert {item["name"] for item in every} == {"thing", "rows", "clicks", "view", "counts", "over", "model"}
    assert "feature view       view    What a thing did." in run()
    assert (
        "<td style='text-align:left'>15m</td>"
        in Description("kind", "name", {"refresh_offset": "15m"}, {})._repr_html_()
    )
    assert "  def over(x, y, now):\n      return" in run("over")

"""Words of Feast's methods, modules, commands and routes are answered with what they are called here; others as ever."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from featurestore import FeatureStore, FeatureView, ParquetSource
from featurestore.cli import app
from featurestore.elsewhere import BY_PLACE, ELSEWHERE
from featurestore.serving.online_result import OnlineResult
from featurestore.training.training_frame import TrainingFrame
from tests.server.test_http import serving
from tests.small import NOON, THING, hours, opened, spine, table, write

METHODS = sorted(name for name in ELSEWHERE if "." in name and not name.startswith("featurestore"))
CLASSES = {"FeatureStore": FeatureStore, "OnlineResult": OnlineResult, "TrainingFrame": TrainingFrame}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    write(tmp_path / "rows.parquet", table(thing=[1], at=[hours(-1)], x=[1.0]))
    source = ParquetSource("rows", tmp_path / "rows.parquet", event_time="at")
    with opened(FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h")) as (store, _):
        store.materialize(progress=False)
        yield store


def called(function: Any, *args: Any, **kwargs: Any) -> Any:
    found = function(*args, **kwargs)
    return asyncio.run(found) if inspect.iscoroutine(found) else found


@pytest.mark.parametrize("title", METHODS)
def test_arguments_of_another_store_are_answered_with_ours(title: str) -> None:
    """By name and by place; a word that nobody knows is refused in Python's own words."""
    cls, name = title.split(".")
    method = getattr(CLASSES[cls], name)
    many = [None] * 9
    for word, instead in ELSEWHERE[title].items():
        args, kwargs = (many, {}) if word == BY_PLACE else ([None], {word: 1})
        with pytest.raises(TypeError, match=re.escape(instead)):
            called(method, *args, **kwargs)
        assert word not in inspect.signature(method).parameters
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        called(method, None, colour=1)


@pytest.mark.parametrize("name", CLASSES)
def test_attributes_of_another_store_are_answered_with_ours(name: str, store: FeatureStore) -> None:
    """And what nobody knows as Python does it, with the near name that it finds."""
    results: dict[str, Any] = {
        "FeatureStore": store,
        "OnlineResult": store.get_online_features([{"thing": 1}], "service"),
        "TrainingFrame": store.get_historical_features(spine(NOON, thing=[1]), "service"),
    }
    assert type(results[name]) is CLASSES[name]
    for word, instead in ELSEWHERE[name].items():
        with pytest.raises(AttributeError, match=re.escape(f"{name} has no '{word}': {instead}")):
            getattr(results[name], word)
        assert not hasattr(CLASSES[name], word)
    with pytest.raises(AttributeError, match=f"'{name}' object has no attribute 'colour'"):
        _ = results[name].colour


def test_an_error_within_a_property_stays_as_it_is(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Any) -> None:
        raise AttributeError("of something else")

    monkeypatch.setattr(FeatureStore, "online", property(failing))
    with pytest.raises(AttributeError, match="of something else"):
        _ = store.online


@pytest.mark.parametrize("module", ["featurestore", "featurestore.types"])
def test_names_of_another_store_are_answered_with_ours(module: str) -> None:
    """Where they are imported, where Python would leave out what an AttributeError says."""
    for name, instead in ELSEWHERE[module].items():
        with pytest.raises(ImportError, match=re.escape(instead)):
            exec(f"from {module} import {name}", {})  # noqa: S102 - as users write it
    with pytest.raises(ImportError, match="cannot import name 'Colour'"):
        exec(f"from {module} import Colour", {})  # noqa: S102
    assert not hasattr(importlib.import_module(module), "Colour")


def test_commands_of_another_store_are_answered_with_ours(tmp_path: Path) -> None:
    runner = typer.testing.CliRunner()
    for command, instead in ELSEWHERE["the command line"].items():
        done = runner.invoke(app, [command])
        assert (done.exit_code, f"No such command '{command}': {instead}." in done.output) == (2, True), done.output
    assert "No such command 'colour'." in runner.invoke(app, ["colour"]).output
    times = runner.invoke(app, ["--repo", str(tmp_path), "materialize", "2026-03-01T00:00:00", "2026-03-02T00:00:00"])
    assert times.exit_code == 2
    assert "'2026-03-01T00:00:00': it takes names of views, and no times" in " ".join(times.output.split())


def test_routes_of_another_store_are_answered_with_ours(store: FeatureStore) -> None:
    with serving(store) as client:
        for path, instead in ELSEWHERE["HTTP"].items():
            answer = client.post(path, json={})
            assert (answer.status_code, answer.json()["detail"]) == (404, f"There is no {path}; {instead}")
        assert client.get("/colour").json()["detail"] == "There is no /colour; /docs lists what there is"


def test_a_view_in_no_service_is_materialized_and_served(tmp_path: Path) -> None:
    """As the advice about `online=False` says."""
    write(tmp_path / "rows.parquet", table(thing=[1], at=[hours(-1)], x=[1.0]))
    source = ParquetSource("rows", tmp_path / "rows.parquet", event_time="at")
    view = FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h")
    with FeatureStore.local() as store:
        trained = store.get_historical_features(spine(NOON, thing=[1]), [view]).to_pandas()
        assert trained["view__x"].to_list() == [1.0]
        assert not store.registry.current().document["views"]
        store.apply([view])
        assert [run.view for run in store.materialize(progress=False)] == ["view"]
        assert store.get_online_features([{"thing": 1}], "view").to_dict()["view__x"] == [1.0]

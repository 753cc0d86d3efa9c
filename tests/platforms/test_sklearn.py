"""The transformer within scikit-learn's own pipelines, searches, clones and pickles."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline

from featurestore import FeatureStore
from featurestore.errors import FeatureStoreError, FingerprintError, RequestError
from featurestore.integrations.sklearn import FeatureTransformer
from tests.platforms.conftest import Told
from tests.platforms.frameworks import EXAMPLE, example_project, run_blocks, run_framework_page
from tests.platforms.shop import KEYS, NOON, TYPES, bits, opened
from tests.test_odd_frames import Streamed


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with opened(tmp_path_factory.mktemp("shop")) as store:
        yield store


@pytest.fixture
def project(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with example_project(tmp_path) as names:
        yield names


def cells(frame: Any) -> list[Any]:
    """Every value of a frame, to be compared to the bit."""
    table = pa.table(frame) if isinstance(frame, pl.DataFrame) else pa.Table.from_pandas(frame, preserve_index=False)
    return [[name, bits(column.to_pylist())] for name, column in zip(table.column_names, table.columns, strict=True)]


def asked(times: bool) -> pd.DataFrame:
    draw = random.Random(5)
    keys = [draw.choice([*KEYS, "nobody"]) for _ in range(80)]
    rows = pd.DataFrame({"user_id": keys, "add": [draw.randrange(9) for _ in keys]}, index=range(100, 180))
    if times:
        rows["event_timestamp"] = [NOON - timedelta(minutes=draw.randrange(-5, 900)) for _ in keys]
    return rows


def test_the_values_are_those_of_the_verbs(shop: FeatureStore, tell: Told) -> None:
    """Every type, as of times and as of now, from every kind of frame."""
    count = 0
    in_doubles = [f"users:{name}" for name in TYPES if name != "big"]  # some of which no double is
    for dtypes, features in (("arrow", "model"), ("numpy", in_doubles)):
        past = shop.get_historical_features(asked(times=True), features)
        now = shop.get_online_features(asked(times=False), features)
        names = list(past.types)
        transformer = FeatureTransformer(shop, features, dtypes=dtypes).fit(asked(times=True))
        assert list(transformer.get_feature_names_out()) == names
        expected = [past.to_pandas(dtypes=dtypes)[names], now.to_pandas(dtypes=dtypes)[names]]
        for times, values in zip((True, False), expected, strict=True):
            rows = asked(times)
            table = pa.Table.from_pandas(rows, preserve_index=False)
            for given in (
                rows,
                pl.DataFrame(rows),
                table,
                Streamed(table),
                table.to_reader(),
                duckdb.from_arrow(table),
            ):
                found = transformer.transform(given)
                assert cells(found) == cells(values)
                assert list(found.dtypes) == list(values.dtypes)
                count += found.size
            assert list(transformer.transform(rows).index) == list(rows.index)
        fitted = FeatureTransformer(shop, features, dtypes=dtypes)
        assert cells(fitted.fit_transform(asked(times=True))) == cells(expected[0])
        assert fitted.fingerprint_ == transformer.fingerprint_ == past.manifest["fingerprint"]
    assert len(TYPES) * 500 < count
    tell("scikit-learn", version=version("scikit-learn"), ran="it ran", compared=count)


def test_set_output(shop: FeatureStore) -> None:
    """A polars frame has the types of Arrow; a pandas one is as it was."""
    rows = asked(times=False)
    transformer = FeatureTransformer(shop, "users", dtypes="arrow").fit(asked(times=True))
    plain = transformer.transform(rows)
    assert cells(transformer.set_output(transform="pandas").transform(rows)) == cells(plain)
    polars = transformer.set_output(transform="polars").transform(rows)
    assert isinstance(polars, pl.DataFrame)
    assert cells(polars) == cells(pl.DataFrame(shop.get_online_features(rows, "users")))
    both = FeatureUnion([(name, FeatureTransformer(shop, "users", dtypes="arrow")) for name in "ab"])
    assert both.fit(asked(times=True)).set_output(transform="pandas").transform(rows).shape == (80, 2 * plain.shape[1])


def test_pipelines_search_and_travel(project: dict[str, Any], tmp_path: Path) -> None:
    """What was fitted on times is asked without, in this process and in one that reads it from a file."""
    store, rides = project["store"], project["rides"]
    pipeline = make_pipeline(FeatureTransformer(store, "ranking"), HistGradientBoostingRegressor(min_samples_leaf=1))
    pipeline.fit(rides, rides["tip"])
    keys = rides[["driver_id"]]
    expected = pipeline[-1].predict(store.get_online_features(keys, "ranking").to_pandas(dtypes="numpy").iloc[:, 1:])
    assert pipeline.predict(keys).tolist() == expected.tolist()
    assert clone(pipeline)[0].store is store
    search = GridSearchCV(pipeline, {"histgradientboostingregressor__max_iter": [2, 4]}, cv=2, n_jobs=2)
    assert search.fit(rides, rides["tip"]).best_score_ is not None
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(pipeline))
    code = "import json, pickle, sys, pandas as pd; model = pickle.load(open(sys.argv[1], 'rb')); "
    code += "print(json.dumps(model.predict(pd.DataFrame(json.loads(sys.argv[2]))).tolist()))"
    told = json.dumps(keys.to_dict("list"))
    command = [sys.executable, "-c", code, str(tmp_path / "model.pickle"), told]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found == expected.tolist()


def test_a_changed_definition_is_refused(project: dict[str, Any], tmp_path: Path) -> None:
    """As of times as well as of now: the model that was fitted never sees other features."""
    rides = project["rides"]
    fitted = FeatureTransformer(project["store"], "ranking").fit(rides)
    project["store"].close()
    changed = tmp_path / "changed"
    changed.mkdir()
    shutil.copy(tmp_path / "featurestore.toml", changed)
    text = (tmp_path / "definitions.py").read_text()
    (changed / "definitions.py").write_text(text.replace('"lifetime"', '"7d"'))
    with FeatureStore(changed) as store:
        store.apply()
        store.materialize(progress=False)
        fitted.set_params(store=store)
        with pytest.raises(FingerprintError, match="was fitted with features of fingerprint"):
            fitted.transform(rides)
        with pytest.raises(FingerprintError):
            fitted.transform(rides[["driver_id"]])
        assert len(fitted.fit(rides).transform(rides[["driver_id"]])) == len(rides)


def test_mistakes_are_told(project: dict[str, Any]) -> None:
    """In our words, with the way out."""
    store, rides = project["store"], project["rides"]
    with pytest.raises(NotFittedError):
        FeatureTransformer(store, "ranking").transform(rides)
    with pytest.raises(RequestError, match="X is no frame with the columns of the keys"):
        FeatureTransformer(store, "ranking").fit(np.zeros((2, 2)))
    fitted, other = FeatureTransformer(store, "ranking").fit(rides), rides.rename(columns={"driver_id": "driver"})
    for rows, learns in ((other, fitted.transform), (other[["driver"]], fitted.transform), (other, FeatureTransformer(store, "ranking").fit),
                         (other, FeatureTransformer(store, "ranking", timestamp=None).fit)):  # fmt: skip
        with pytest.raises(
            FeatureStoreError,
            match="^X(: The (spine|frame))? has no input column 'driver_id'. Did you mean 'driver'[?] Its columns: driver",
        ):
            learns(rows)
    unnamed = rides.rename(columns={"event_timestamp": "asked"})
    for learn in (FeatureTransformer(store, "ranking").fit, FeatureTransformer(store, "ranking").fit_transform):
        with pytest.raises(
            RequestError, match="X has no column 'event_timestamp', .* it has driver_id, asked, tip.* timestamp=None"
        ):
            learn(unnamed)
    with pytest.raises(FeatureStoreError, match="or the path of a project, and not 3"):
        FeatureTransformer(3, "ranking").fit(rides)  # type: ignore[arg-type]  # the mistake
    with (
        FeatureStore.local() as local,
        pytest.raises(FeatureStoreError, match="temporary store is of this process alone"),
    ):
        pickle.dumps(FeatureTransformer(local, "ranking"))


def test_rows_of_now_although_they_have_times(project: dict[str, Any]) -> None:
    """timestamp=None leaves the column out, and another name takes its place."""
    store, rides = project["store"], project["rides"]
    now = FeatureTransformer(store, "ranking", timestamp=None).fit_transform(rides)
    assert now["drivers__fare"].tolist()[:3] == [9.5, 9.5, 20.25]
    named = FeatureTransformer(store, "ranking", timestamp="asked").fit_transform(
        rides.rename(columns={"event_timestamp": "asked"})
    )
    assert named["drivers__fare"].tolist()[1:3] == [9.5, 20.25]
    assert np.isnan(named["drivers__fare"][0])
    regression = make_pipeline(FeatureTransformer(store, "ranking", timestamp=None), LinearRegression())
    assert regression.fit(rides[:3], rides["tip"][:3]).predict(rides[:3]).shape == (3,)


def test_what_the_pages_show(tmp_path: Path) -> None:
    """docs/platforms/sklearn.md and the example of frameworks.md."""
    run_blocks(EXAMPLE, run_framework_page("sklearn", tmp_path))

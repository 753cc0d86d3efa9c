"""Databricks' names for training sets: values are the store's own, and rows are neither lost nor doubled."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from featurestore.errors import NotFoundError, RequestError
from featurestore.integrations.databricks import FeatureEngineeringClient, FeatureLookup
from tests.platforms.conftest import Told
from tests.platforms.frameworks import DEFINITIONS, PAGES, example_project, run_blocks
from tests.platforms.shop import KEYS, NOON, PAIRS, TYPES, bits, opened


@pytest.fixture
def project(tmp_path: Path) -> Iterator[dict[str, Any]]:
    with example_project(tmp_path) as names:
        yield names


def listed(frame: Any, name: str) -> Any:
    return bits(frame[name].array.__arrow_array__().to_pylist())


def test_the_values_are_the_stores(tmp_path: Path, tell: Told) -> None:
    """Of every type; keys under other names; several tables, renamed where they share names."""
    draw = random.Random(3)
    with opened(tmp_path) as store:
        pairs = [draw.choice(PAIRS) for _ in range(60)]
        rows = pd.DataFrame({
            "rider": [draw.choice(KEYS) for _ in pairs], "airline": [pair[0] for pair in pairs], "number": [pair[1] for pair in pairs],
            "y": range(60), "at": [NOON - timedelta(minutes=draw.randrange(-5, 900)) for _ in pairs],
        })  # fmt: skip
        names = list(store.catalog.view("pairs").features)
        lookups = [
            FeatureLookup(table_name="users", lookup_key="rider", timestamp_lookup_key="at"),
            FeatureLookup(table_name="a.b.pairs", lookup_key=["airline", "number"], timestamp_lookup_key="at",
                          rename_outputs={name: f"of_pair_{name}" for name in names}),
        ]  # fmt: skip
        client = FeatureEngineeringClient(store)
        found = client.create_training_set(
            df=rows, feature_lookups=lookups, label="y", exclude_columns=["airline"]
        ).load_df()
        assert list(found.columns)[-1] == "y"
        assert "airline" not in found
        renamed = rows.rename(columns={"rider": "user_id", "airline": "carrier", "number": "flight"})
        expected = store.get_historical_features(renamed, ["users", "pairs"], timestamp="at").features
        for column in expected.columns:
            view, _, name = column.partition("__")
            assert listed(found, name if view == "users" else f"of_pair_{name}") == listed(expected, column)
        assert len(expected.columns) >= len(TYPES)
    tell("databricks names in Python", version="none needed", ran="their names, our code", compared=expected.size)


def test_mistakes_are_told(project: dict[str, Any]) -> None:
    """With the way out."""
    client, rides = FeatureEngineeringClient(project["store"]), project["rides"]
    at = {"timestamp_lookup_key": "event_timestamp"}
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"table_name": "drivers", "lookup_key": "driver_id"}, RequestError, "Without it the values of today"),
        ({"table_name": "drivres", "lookup_key": "driver_id", **at}, NotFoundError, "drivers"),
        ({"table_name": "drivers", "lookup_key": ["driver_id", "x"], **at}, RequestError, "its keys are"),
        (
            {"table_name": "drivers", "lookup_key": "driver_id", "rename_outputs": {"fare": "tip"}, **at},
            RequestError,
            "'tip'",
        ),
    ]
    for words, error, says in cases:
        with pytest.raises(error, match=says):
            client.create_training_set(df=rides, feature_lookups=[FeatureLookup(**words)])


def test_what_the_page_shows(project: dict[str, Any]) -> None:
    """docs/platforms/training-joins.md: the joins of others on the same table."""
    run_blocks(DEFINITIONS, project)
    run_blocks((PAGES / "training-joins.md").read_text(), project)

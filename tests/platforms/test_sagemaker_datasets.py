"""The SageMaker SDK's names for data sets: values are the store's own, and rows are neither lost nor doubled."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore.errors import DeclarationError, FeatureStoreError, NotFoundError, RequestError, SpineError
from featurestore.integrations.sagemaker import DatasetBuilder, create_dataset
from tests.platforms.conftest import Told
from tests.platforms.frameworks import example_project
from tests.platforms.shop import KEYS, NOON, PAIRS, TYPES, bits, opened


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    with example_project(tmp_path) as names:
        yield names


class JoinTypeEnum(Enum):
    """As their SDK has it."""

    INNER_JOIN = "JOIN"
    LEFT_JOIN = "LEFT JOIN"


def listed(frame: Any, name: str) -> Any:
    return bits(frame[name].array.__arrow_array__().to_pylist())


def of_times(time: Any) -> pd.DataFrame:
    return pd.DataFrame({"driver_id": ["d1"], "event_timestamp": [time], "tip": [1.0]})


def of_rides(project: dict[str, Any], base: Any = None, **words: Any) -> DatasetBuilder:
    said = {
        "record_identifier_feature_name": "driver_id",
        "event_time_identifier_feature_name": "event_timestamp",
        **words,
    }
    return create_dataset(base=project["rides"] if base is None else base, store=project["store"], **said)


def test_the_values_are_the_stores(tmp_path: Path, tell: Told) -> None:
    """Of every type, of two groups, by keys under other names; a base of pandas keeps its dtypes and its order."""
    draw = random.Random(11)
    with opened(tmp_path) as store:
        pairs = [draw.choice(PAIRS) for _ in range(50)]
        base = pd.DataFrame({
            "airline": [pair[0] for pair in pairs], "rider": [draw.choice(KEYS) for _ in pairs], "number": [pair[1] for pair in pairs],
            "at": [NOON - timedelta(minutes=draw.randrange(-5, 900)) for _ in pairs],
        })  # fmt: skip
        builder = create_dataset(
            base=base, store=store, record_identifier_feature_name="rider", event_time_identifier_feature_name="at",
            included_feature_names=["rider", "at"], output_path="s3://nowhere",
        ).with_feature_group(SimpleNamespace(name="users"), join_type=JoinTypeEnum.LEFT_JOIN)  # fmt: skip
        group = SimpleNamespace(feature_group_name="pairs")
        builder = builder.with_feature_group(
            group, ["airline", "number"], ["big", "wide"]
        ).point_in_time_accurate_join()
        found, said = builder.to_dataframe()
        assert list(found.columns) == ["rider", "at", *(f"{name}.1" for name in TYPES), "big.2", "wide.2"]
        pd.testing.assert_frame_equal(found[["rider", "at"]], base[["rider", "at"]])
        renamed = base.rename(columns={"rider": "user_id", "airline": "carrier", "number": "flight"})
        expected = store.get_historical_features(renamed, ["users", "pairs:big", "pairs:wide"], timestamp="at")
        for column in expected.types:
            view, _, name = column.partition("__")
            assert listed(found, f"{name}.{1 if view == 'users' else 2}") == listed(expected.features, column)
        frame = builder.to_training_frame()
        assert said == str(store.load_manifest(frame))
        assert store.lookup(store.load_manifest(frame)).service.inputs.keys() == {"rider", "airline", "number"}
    compared = len(base) * len(expected.types)
    tell("sagemaker names in Python", version="none needed", ran="their names, our code", compared=compared)


def test_bases_of_every_form(project: dict[str, Any], tmp_path: Path) -> None:
    """Frames and files; times as text and as seconds since 1970, as their feature groups have them."""
    rides = project["rides"]
    seconds = rides.assign(event_timestamp=[at.timestamp() for at in rides["event_timestamp"]])
    text = rides.assign(event_timestamp=[f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in rides["event_timestamp"]])
    rides.to_parquet(tmp_path / "base.parquet")
    text.to_csv(tmp_path / "text.csv", index=False)
    seconds.to_csv(tmp_path / "seconds.csv", index=False)
    bases = [rides, pl.DataFrame(rides), pa.table(rides).to_reader(), seconds, text, seconds.convert_dtypes(dtype_backend="pyarrow"),
             str(tmp_path / "base.parquet"), tmp_path / "text.csv", tmp_path / "seconds.csv"]  # fmt: skip
    for base in bases:
        builder = of_rides(project, base).with_feature_group("drivers").point_in_time_accurate_join()
        found, _ = builder.to_dataframe()
        assert list(found.columns) == ["driver_id", "event_timestamp", "tip", "fare.1", "trips.1"]
        assert listed(found, "fare.1") == bits([None, 9.5, 20.25, None])
        assert [at.timestamp() for at in found["event_timestamp"]] == seconds["event_timestamp"].tolist()


def test_a_key_of_digits_in_a_file_stays_text(project: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "base.csv").write_text("driver_id,event_timestamp\n007,2026-01-03T00:00:00Z\nd1,2026-01-03T00:00:00Z\n")
    builder = of_rides(project, tmp_path / "base.csv").with_feature_group("drivers").point_in_time_accurate_join()
    assert builder.to_dataframe()[0]["driver_id"].tolist() == ["007", "d1"]
    (tmp_path / "base.csv").write_text("driver_id,event_timestamp\n007,2026-01-03T00:00:00Z\n")
    assert builder.to_dataframe()[0]["driver_id"].tolist() == ["007"]


def test_what_would_lose_or_double_rows_is_refused(project: dict[str, Any]) -> None:
    """Each by its name, with what to do."""
    for word, given, says in (
        ("as_of", (NOON,), "leave later rows out of the base"),
        ("with_event_time_range", (NOON, NOON), "the view's ttl"),
        ("include_duplicated_records", (), "once for each record"),
        ("include_deleted_records", (), "was not served either"),
        ("with_number_of_recent_records_by_record_identifier", (1,), "drops the others"),
        ("with_number_of_records_from_query_results", (5,), "take its first ones"),
        ("to_csv_file", (), "to_parquet"),
    ):
        with pytest.raises(RequestError, match=rf"There is no {word}\(\) here: .*{says}"):
            getattr(of_rides(project), word)(*given)
    for name, data in (("bad.csv", b"a,\xff\n"), ("bad.parquet", b"PAR1"), ("empty.csv", b"")):
        Path(name).write_bytes(data)
    cases: list[tuple[dict[str, Any], type[FeatureStoreError], str]] = [
        ({"feature_group": None}, RequestError, "takes the name of a view, or what has one, and not None"),
        ({"join_type": JoinTypeEnum.INNER_JOIN}, RequestError, "join_type is 'JOIN', which loses rows"),
        ({"join_comparator": ">="}, RequestError, "join_comparator is '>='"),
        ({"feature_name_in_target": "fare"}, RequestError, "a view is found by its key"),
        ({"target_feature_name_in_base": ["driver_id", "tip"]}, RequestError, "its keys are"),
        ({"included_feature_names": ["fair"]}, DeclarationError, "Did you mean 'fare'"),
        ({"feature_group": "drivres"}, NotFoundError, "drivers"),
    ]
    for words, error, says in cases:
        with pytest.raises(error, match=says):
            of_rides(project).with_feature_group(**{"feature_group": "drivers", **words})
    whole = of_rides(project).with_feature_group("drivers", feature_name_in_target="driver_id")
    with pytest.raises(RequestError, match="later ones too"):
        whole.to_dataframe()
    with pytest.raises(RequestError, match="there is nothing to join"):
        of_rides(project).point_in_time_accurate_join().to_dataframe()
    for words, error, says in (
        ({"included_feature_names": ["tipp"]}, RequestError, "the base has no column 'tipp'. Did you mean 'tip'"),
        ({"event_time_identifier_feature_name": "at"}, SpineError, "'at'"),
        ({"event_time_identifier_feature_name": "driver_id"}, RequestError, "'driver_id' is no column of times"),
        ({"base": "base.json"}, RequestError, "the path of a .csv or .parquet file"),
        ({"base": "none.csv"}, RequestError, "base: none.csv cannot be read: there is no such file"),
        ({"base": "none.parquet"}, RequestError, "base: none.parquet cannot be read: there is no such file"),
        ({"base": "bad.csv"}, RequestError, "base: bad.csv cannot be read: 'utf-8' codec"),
        ({"base": "bad.parquet"}, RequestError, "base: bad.parquet cannot be read: "),
        ({"base": "empty.csv"}, RequestError, "base: empty.csv cannot be read: No columns"),
        (
            {"base": of_times(1_767_225_600_000)},
            RequestError,
            "1767225600000 seconds since 1970 lie outside .* another unit",
        ),
        ({"base": of_times(math.inf)}, RequestError, "inf seconds since 1970 lie outside"),
        ({"base": of_times(True)}, RequestError, "true and false are no times"),
        ({"base": of_times("soon")}, RequestError, "'event_timestamp' is no column of times"),
        ({"base": of_times(math.nan)}, SpineError, "base: Row 0 of the spine has no time"),
        ({"base": project["rides"].assign(**{"fare.1": 1})}, RequestError, "base: it has a column 'fare.1'"),
        ({"record_identifier_feature_name": "driver"}, SpineError, "base: The spine has no input column 'driver'"),
        ({"included_feature_names": 7}, RequestError, "Columns are named by a text, or by a list of texts"),
        ({"base": project["rides"]["tip"]}, RequestError, "base is no frame"),
    ):
        with pytest.raises(error, match=says):
            of_rides(project, **words).with_feature_group("drivers").point_in_time_accurate_join().to_dataframe()
    one = of_rides(project, included_feature_names="tip").with_feature_group("drivers", included_feature_names="fare")
    assert list(one.point_in_time_accurate_join().to_dataframe()[0].columns) == ["tip", "fare.1"]

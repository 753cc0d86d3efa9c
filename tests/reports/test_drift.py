"""Drift: served values are held against training, or against what was served before, and limits are kept."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore import FeatureService, FeatureStore, ManualClock
from featurestore.cli import app
from featurestore.errors import ManifestError, NotFoundError, RequestError
from featurestore.reports.drift.last_drift import FILE, last_drifts
from tests.small import NOON, hours, raised, spine, table, view_of, write

KEYS = 40


class Served:
    """A store whose one service is asked for some keys at some instants; the values move between noon and three hours later."""

    def __init__(self, folder: Path, *, limits: dict[str, Any] | None = None) -> None:
        times = [hours(-2)] * KEYS + [hours(2.5)] * KEYS
        numbers = [float(k) for k in range(KEYS)] + [k + 20.0 for k in range(KEYS)]
        rows = table(
            thing=[*range(KEYS)] * 2, at=times, x=numbers,
            word=[f"w{k % 4}" for k in range(KEYS)] + ["w0"] * KEYS,
            vector=pa.array([[1.0, k] for k in range(KEYS)] + [[2.0, k] for k in range(KEYS)], pa.list_(pa.float32(), 2)),
        )  # fmt: skip
        self.rows = write(folder / "rows.parquet", rows)
        (folder / "featurestore.toml").write_text('project = "drift"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
        self.clock = ManualClock(NOON)
        self.folder = folder
        self.store = FeatureStore(folder, clock=self.clock)
        self.view = view_of(self.rows, ["x", "word", "vector"], refresh="1h")
        self.store.apply([self.view, FeatureService("model", features=[self.view], drift_limits=limits or {})])

    def serve(self, at: datetime, keys: range) -> None:
        self.clock.set(at)
        self.store.materialize(progress=False)
        self.store.get_online_features([{"thing": key} for key in keys], "model")

    def frame(self, path: Path) -> Path:
        self.store.get_historical_features(spine(NOON, thing=[*range(KEYS)]), "model").to_parquet(path)
        return path


def test_served_values_against_a_training_frame(tmp_path: Path) -> None:
    """From its file, its object, its table and pandas alike; the numbers are those of the same values, counted."""
    served = Served(tmp_path, limits={"kolmogorov_smirnov": 0.9, "view__word": {"l_infinity": 0.5}})
    with served.store as store:
        path = served.frame(tmp_path / "train.parquet")
        frame = store.get_historical_features(spine(NOON, thing=[*range(KEYS)]), "model")
        served.serve(hours(3), range(KEYS + 10))  # ten keys are not known
        found = store.drift("model", baseline=path, since="1h")
        assert found.fingerprint == frame.manifest["fingerprint"]
        for given in (frame, frame.to_arrow(), frame.to_pandas(), str(path)):
            assert store.drift("model", baseline=given, since="1h").features == found.features
        x = found.feature("view__x")
        ours = [float(k) for k in range(KEYS)], [k + 20.0 for k in range(KEYS)]
        assert (x.baseline_rows, x.served_rows, x.baseline_missing, x.served_missing) == (KEYS, KEYS + 10, 0, 0.2)
        assert x.distances["missing"] == 0.2
        assert (sum(x.shape.baseline), sum(x.shape.served)) == (pytest.approx(1), pytest.approx(1))
        assert x.shape.baseline[0] > 0 == x.shape.served[0]  # below 20 lies nothing that was served
        assert x.distances["wasserstein"] == pytest.approx(20)
        shares = [[sum(value <= at for value in side) / KEYS for at in (*ours[0], *ours[1])] for side in ours]
        assert x.distances["kolmogorov_smirnov"] == max(abs(a - b) for a, b in zip(*shares, strict=True)) == 0.5
        word = found.feature("view__word")
        assert dict(zip(word.shape.labels, word.shape.served, strict=True)) == {"w0": 1, "w1": 0, "w2": 0, "w3": 0}
        assert word.distances["l_infinity"] == 0.75
        assert [tuple(of) for of in found.exceeded] == [("view__word", "l_infinity", 0.75, 0.5)]
        assert set(found.feature("view__vector").distances) >= {"length", "missing"}
        text = str(found)
        assert "view__word is over its limit: l_infinity is 0.75, where 0.5 is allowed" in text
        assert "Drift is another thing than skew" in text
        assert store.audit(since="1h").skewed == 0


def test_served_values_against_those_served_before(tmp_path: Path) -> None:
    """And period by period: nothing has drifted until the values move."""
    served = Served(tmp_path)
    with served.store as store:
        for hour in (0, 1, 2, 3, 4):
            served.serve(hours(hour), range(KEYS))
        found = store.drift("model", since=hours(0.5), before="1h", every="1h", until=hours(4.5))
        x = found.feature("view__x")
        assert (x.baseline_rows, x.served_rows) == (KEYS, 4 * KEYS)
        assert [(of.start, of.rows, of.distances["wasserstein"]) for of in x.periods] == [
            (hours(0.5), KEYS, 0), (hours(1.5), KEYS, 0), (hours(2.5), KEYS, 20), (hours(3.5), KEYS, 20)
        ]  # fmt: skip
        assert found.baseline == "the 1h before"
        again = json.loads(json.dumps(found.to_dict()))
        assert again["features"][0]["periods"][2]["distances"]["wasserstein"] == 20
        first, *_, last = x.periods
        assert first.shares == pytest.approx(x.shape.baseline)
        assert last.shares != pytest.approx(x.shape.baseline)
        assert again["features"][0]["shape"]["labels"] == list(x.shape.labels)
        assert again["exceeded"] == []


def test_the_command_fails_where_a_limit_is_exceeded(tmp_path: Path) -> None:
    """With 3, and only where it is told to; what was found is kept for the metrics."""
    served = Served(tmp_path, limits={"psi": 0.2})
    with served.store as store:
        path = served.frame(tmp_path / "train.parquet")
        served.serve(hours(3), range(KEYS))
        folder = store.config.serving_log.folder
    asked = ["drift", "model", "--repo", str(tmp_path), "--since", "1h", "--at", hours(3).isoformat()]
    definitions = tmp_path / "definitions.py"
    definitions.write_text("")
    with_file = [*asked, "--baseline", str(path), "--json"]
    told = CliRunner().invoke(app, with_file)
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert {of["feature"] for of in document["exceeded"]} == {"view__x", "view__word", "view__vector"}
    assert CliRunner().invoke(app, [*with_file, "--fail-on-drift"]).exit_code == 3
    kept = last_drifts(folder)["model"]
    assert kept.limits["view__x"] == {"psi": 0.2}
    assert kept.distances["view__x"]["wasserstein"] == pytest.approx(20)
    (folder / FILE).write_bytes(b"{}")
    assert last_drifts(folder) == {}


def test_a_side_without_rows_is_refused(tmp_path: Path) -> None:
    """A check of nothing must not pass."""
    served = Served(tmp_path)
    with served.store as store:
        path = served.frame(tmp_path / "train.parquet")
        assert "is logged from" in raised(RequestError, lambda: store.drift("model", baseline=path))
        served.serve(hours(3), range(KEYS))
        assert "is logged from" in raised(RequestError, lambda: store.drift("model", since="1h"))
        empty = pq.read_table(path).slice(0, 0)
        assert "has no rows" in raised(RequestError, lambda: store.drift("model", baseline=empty))


def test_what_is_asked_wrongly_is_said(tmp_path: Path) -> None:
    """Services, frames, files and periods that are none."""
    served = Served(tmp_path)
    with served.store as store:
        served.serve(hours(3), range(KEYS))
        path = served.frame(tmp_path / "train.parquet")
        assert "Did you mean 'model'" in raised(NotFoundError, lambda: store.drift("modle"))
        assert "there is no file" in raised(RequestError, lambda: store.drift("model", baseline="gone.parquet"))
        assert "has none of the columns" in raised(
            RequestError, lambda: store.drift("model", baseline=pd.DataFrame({"y": [1]}))
        )
        assert "is none" in raised(RequestError, lambda: store.drift("model", baseline=3))
        (tmp_path / "text.parquet").write_text("PAR1 and no more")
        raised(ManifestError, lambda: store.drift("model", baseline=tmp_path / "text.parquet"))
        other = FeatureService("other", features=[served.view])
        store.apply([served.view, other])
        assert "is of service 'model'" in raised(RequestError, lambda: store.drift("other", baseline=path))
        for every in ("2d", "1ms"):
            assert "periods" in raised(RequestError, lambda of=every: store.drift("model", baseline=path, every=of))
        assert "not after" in raised(
            RequestError, lambda: store.drift("model", since=hours(3), until=hours(3), baseline=path)
        )


def test_a_column_of_another_type_is_left_out_and_named(tmp_path: Path) -> None:
    """The rest is compared."""
    served = Served(tmp_path)
    with served.store as store:
        served.serve(hours(3), range(KEYS))
        frame = pa.table({"view__x": pa.array([1, 2], pa.int64()), "view__word": ["w0", "w1"]})
        found = store.drift("model", baseline=frame, since="1h")
        assert [feature.feature for feature in found.features] == ["view__word"]
        assert found.not_compared == {
            "view__x": "the baseline has it as int64, and it is Float64",
            "view__vector": "the baseline has no such column",
        }
        assert "view__x was not compared" in str(found)


def test_damaged_files_are_left_out_and_named(tmp_path: Path) -> None:
    """Of what is left, the values are compared."""
    served = Served(tmp_path)
    with served.store as store:
        path = served.frame(tmp_path / "train.parquet")
        served.serve(hours(2), range(KEYS))
        store._project.serving_log.flush()
        (damaged,) = store.config.serving_log.folder.glob("model/*/[0-9]*.parquet")
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
        served.serve(hours(3), range(KEYS // 2))
        found = store.drift("model", baseline=path, since="2h")
        assert found.feature("view__x").served_rows == KEYS // 2
        assert list(found.damaged) == [str(damaged)]


def test_limits_are_no_part_of_what_is_served(tmp_path: Path) -> None:
    """A changed limit changes no fingerprint; it holds from the moment it is applied."""
    served = Served(tmp_path)
    with served.store as store:
        before = store.registry.current().document["services"]["model"]["fingerprint"]
        path = served.frame(tmp_path / "train.parquet")
        served.serve(hours(3), range(KEYS))
        assert not store.drift("model", baseline=path, since="1h").exceeded
        store.apply([served.view, FeatureService("model", features=[served.view], drift_limits={"wasserstein": 3})])
        assert store.registry.current().document["services"]["model"]["fingerprint"] == before
        (one,) = store.drift("model", baseline=path, since="1h").feature("view__x").exceeded
        assert (one.measure, one.limit) == ("wasserstein", 3)


def test_the_default_is_the_last_day_against_the_week_before(tmp_path: Path) -> None:
    """Of what is logged in both."""
    served = Served(tmp_path)
    with served.store as store:
        served.serve(NOON, range(KEYS))
        served.serve(NOON + timedelta(days=2), range(KEYS))
        found = store.drift("model")
        assert found.baseline == "the 7d before"
        assert found.feature("view__x").distances["wasserstein"] == pytest.approx(20)


def test_a_limit_that_cannot_be_checked_is_told_and_fails(tmp_path: Path) -> None:
    """Since the feature is not compared, is served as null alone, or has no such measure; of nulls on both sides nothing drifted."""
    limits = {"psi": 0.25, "view__x": {"l_infinity": 0.1}, "view__word": {"missing": 1}}
    served = Served(tmp_path, limits=limits)
    words = pa.array([f"w{k % 4}" for k in range(KEYS)])
    vector = pa.array([[2.0, k] for k in range(KEYS)], pa.list_(pa.float32()))
    with served.store as store:
        served.serve(hours(3), range(KEYS, KEYS + 5))  # of none of them is any row known: all is null

        def unchecked(x: pa.Array) -> list[tuple[str, str, str]]:
            baseline = pa.table({"view__x": x, "view__word": words, "view__vector": vector})
            return [(of.feature, of.measure, of.why) for of in store.drift("model", baseline=baseline).unchecked]

        no_measure = (
            "view__x",
            "l_infinity",
            "a Float64 has the measures missing, jensen_shannon, psi, kolmogorov_smirnov, wasserstein",
        )
        others = [(name, "psi", "what was served has no values") for name in ("view__word", "view__vector")]
        assert unchecked(pa.array([1.0] * KEYS)) == [("view__x", "psi", others[0][2]), no_measure, *others]
        assert unchecked(pa.nulls(KEYS, pa.float64())) == [no_measure, *others]
        left_out = "the baseline has it as int64, and it is Float64"
        assert unchecked(pa.array([1] * KEYS)) == [("view__x", "psi", left_out), no_measure, *others]

        frame = pa.table({"view__word": words})
        pq.write_table(frame, tmp_path / "words.parquet")
        text = str(store.drift("model", baseline=frame))
        assert "view__x: its limit of psi was not checked: the baseline has no such column" in text
    words_of = [
        "--repo",
        str(tmp_path),
        "drift",
        "model",
        "--baseline",
        str(tmp_path / "words.parquet"),
        "--at",
        hours(3).isoformat(),
    ]
    codes = [CliRunner().invoke(app, [*words_of, *more]).exit_code for more in ([], ["--fail-on-drift"])]
    assert codes == [0, 3]

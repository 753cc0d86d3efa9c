"""What values were like: of frames, runs and served hours, as they were when these were made, found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featurestore import FeatureService, FeatureStore, FeatureView, ManualClock, on_demand
from featurestore.cli import app
from featurestore.errors import NotFoundError, RequestError
from featurestore.types import Float64
from tests.small import NOON, THING, hours, spine, table, view_of, write

KEYS = 40


class Shop:
    """A project of one view, a service of it, and a clock. What things are worth changes three hours after noon."""

    def __init__(self, folder: Path, settings: str = "", **words: Any) -> None:
        times = [hours(-2)] * KEYS + [hours(2.5)] * KEYS
        rows = table(
            thing=[*range(KEYS)] * 2, at=times, x=[float(k) for k in range(KEYS)] + [k + 20.0 for k in range(KEYS)],
            word=[f"w{k % 4}" for k in range(KEYS)] + [None] * KEYS,
        )  # fmt: skip
        (folder / "featurestore.toml").write_text(
            f'project = "shop"\ndefinitions = []\n[serving_log]\nrate = 1.0\n[statistics]\n{settings}'
        )
        self.folder, self.clock = folder, ManualClock(NOON)
        self.view: FeatureView = view_of(
            write(folder / "rows.parquet", rows), ["x", "word"], refresh="1h", ready_after="0s", **words
        )

        @on_demand(inputs=[self.view["x"]], output=Float64)
        def half(x: float | None) -> float | None:
            return None if x is None else x / 2

        self.store = FeatureStore(folder, clock=self.clock)
        self.store.apply([self.view, FeatureService("model", features=[self.view, half])])

    def written(self) -> None:
        """What was served is in the log."""
        self.store._project.serving_log.flush()

    def frame(self, name: str = "train.parquet") -> Path:
        frame = self.store.get_historical_features(spine(NOON, thing=[*range(KEYS), 999]), "model")
        path = frame.to_parquet(self.folder / name)
        assert isinstance(path, Path)
        return path


def test_a_training_frame_a_run_and_a_served_hour(tmp_path: Path) -> None:
    """Each is told by what it is of, the newest first, and a feature under one name wherever it went."""
    shop = Shop(tmp_path)
    with shop.store as store:
        assert store.statistics().found == ()
        path = shop.frame()
        store.materialize(progress=False)
        store.get_online_features([{"thing": k} for k in [*range(KEYS), 999]], "model")
        shop.clock.set(hours(4))
        store.materialize(progress=False)
        store.get_online_features([{"thing": 1}], "model")  # of an hour that is not over
    with FeatureStore(tmp_path, clock=shop.clock) as store:
        assert store.compact_serving_log() is not None
        hour, frame = store.statistics(service="model").found
        assert (frame.kind, frame.training_set, frame.rows) == ("training_set", str(path), KEYS + 1)
        assert store.statistics(training_set=path).found == (frame,)
        assert (hour.kind, hour.at, hour.rows) == ("hour", NOON, KEYS + 1)
        assert [one.feature for one in frame.features] == ["view:x", "view:word", "half"]
        for of in (frame, hour):
            x = of.feature("view:x").column
            assert x.numbers is not None
            assert (x.missing, x.numbers.mean, x.numbers.greatest) == (1, 19.5, 39.0)
            half = of.feature("half").column.numbers
            assert half is not None
            assert half.mean == 9.75
        runs = store.statistics(view="view").found
        assert [run.at for run in runs] == [hours(4), NOON]
        assert store.statistics(run=runs[0].run).found == runs[:1]
        newest = runs[0].feature("view:x").column.numbers
        assert newest is not None
        assert (runs[0].rows, newest.mean) == (KEYS, 39.5)
        assert runs[0].feature("view:word").null_rate == 1
        every = store.statistics("view:x").found
        assert [one.kind for one in every] == ["run", "hour", "run", "training_set"]
        assert all(len(one.features) == 1 for one in every)
        assert store.statistics("view:x", since=hours(1)).found == (every[0],)
        assert store.statistics(limit=2).found == store.statistics().found[:2]


def test_a_streamed_frame_and_one_in_parts(tmp_path: Path) -> None:
    """Are described as the same rows in memory are."""
    shop = Shop(tmp_path)
    asked = spine(NOON, thing=[*range(KEYS)] * 5)
    write(tmp_path / "spine.parquet", asked)
    with shop.store as store:
        whole = store.get_historical_features(asked, "model").to_parquet(tmp_path / "whole.parquet")
        streamed = store.get_historical_features(tmp_path / "spine.parquet", "model").to_parquet(tmp_path / "s.parquet")
        parts = store.historical_parts(tmp_path / "parts", tmp_path / "spine.parquet", "model", part_rows=70).folder
        (one,), (two,), (three,) = (store.statistics(training_set=path).found for path in (whole, streamed, parts))
    assert one.rows == 5 * KEYS
    assert one.features == two.features
    for mine, other in zip(one.features, three.features, strict=True):
        assert (mine.column.missing, mine.column.rows) == (other.column.missing, other.column.rows)
        if mine.column.numbers is not None and other.column.numbers is not None:
            assert mine.column.numbers.mean == pytest.approx(other.column.numbers.mean)
            assert mine.column.numbers.quantiles == other.column.numbers.quantiles


def test_values_are_those_that_lookups_answer(tmp_path: Path) -> None:
    """Keys whose rows have expired are null, or have the default."""
    shop = Shop(tmp_path, ttl="90m")
    with shop.store as store:
        store.materialize(progress=False)
        (run,) = store.statistics(view="view").found
        assert run.feature("view:x").null_rate == 1
        shop.clock.set(hours(3))
        store.materialize(progress=False)
        assert store.statistics(view="view").found[0].feature("view:x").null_rate == 0


def test_a_run_is_not_stopped_by_its_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a frame: where they cannot be written, what they are of is there all the same."""
    shop = Shop(tmp_path)

    def refuse(*_: object, **__: Any) -> None:
        raise MemoryError

    failed: list[int] = []
    with shop.store as store:
        store.when_statistics_fail(lambda: failed.append(1))
        monkeypatch.setattr("featurestore.registry.store.add_statistics", refuse)
        store.materialize(progress=False)
        path = shop.frame()
        assert path.exists()
        assert store.get_online_features([{"thing": 3}], "model").columns["view__x"] == [3.0]
        assert store.statistics().found == ()
    assert len(failed) == 2


def test_off_by_a_setting(tmp_path: Path) -> None:
    """Then nothing is kept, of nothing."""
    shop = Shop(tmp_path, "enabled = false\n")
    with shop.store as store:
        shop.frame()
        store.materialize(progress=False)
        store.get_online_features([{"thing": 1}], "model")
        shop.clock.set(hours(4))
    with FeatureStore(tmp_path, clock=shop.clock) as store:
        store.compact_serving_log()
        assert store.statistics().found == ()


def test_as_many_hours_as_are_to_be_kept(tmp_path: Path) -> None:
    """The newest; what is older is not computed again and again."""
    shop = Shop(tmp_path, "keep_hours = 2\nkeep = 1\n")
    with shop.store as store:
        for hour in range(5):
            shop.clock.set(hours(hour))
            store.materialize(progress=False)
            store.get_online_features([{"thing": 1}], "model")
        shop.clock.set(hours(7))
        shop.written()
        for _ in range(2):
            store.compact_serving_log()
            assert [one.at for one in store.statistics(service="model").found] == [hours(4), hours(3)]
        assert len(store.statistics(view="view").found) == 1


def test_a_forgotten_key_is_in_no_statistics(tmp_path: Path) -> None:
    """They tell single values, the greatest for one: those of its views, and of services that read them, are removed."""
    shop = Shop(tmp_path)
    with shop.store as store:
        shop.frame()
        store.materialize(progress=False)
        assert len(store.statistics().found) == 2
        store.forget("thing", {"thing": KEYS - 1})
        assert store.statistics().found == ()
        path = shop.frame("again.parquet")
        (again,) = store.statistics(training_set=path).found
        told = again.feature("view:x").column.numbers
        assert told is not None
        assert told.greatest == KEYS - 2


def test_wrong_questions(tmp_path: Path) -> None:
    """Name what is meant, or which words exclude each other."""
    shop = Shop(tmp_path)
    with shop.store as store:
        for words, told in (
            ({"view": "veiw"}, "view"), ({"service": "modle"}, "Did you mean 'model'"),
            ({"feature": "view:y"}, "y"), ({"feature": "haf"}, "Did you mean 'half'"),
        ):  # fmt: skip
            with pytest.raises(NotFoundError, match=told):
                store.statistics(**words)  # type: ignore[arg-type]  # words of several types
        with pytest.raises(RequestError, match="view and run exclude each other"):
            store.statistics(view="view", run=1)
        with pytest.raises(RequestError, match="limit is 1 or more"):
            store.statistics(limit=0)
        assert "No statistics are kept of that" in str(store.statistics(view="view"))


def test_the_command(tmp_path: Path) -> None:
    """Lines for people, JSON for programs."""
    shop = Shop(tmp_path)
    with shop.store as store:
        store.materialize(progress=False)
    told = CliRunner().invoke(app, ["--repo", str(tmp_path), "statistics", "--view", "view"])
    assert told.exit_code == 0, told.output
    assert "Run 1 of view 'view'" in told.output
    told = CliRunner().invoke(app, ["--repo", str(tmp_path), "statistics", "--feature", "view:x", "--json"])
    (found,) = json.loads(told.output)["found"]
    assert found["features"][0]["numbers"]["quantiles"][-1] == KEYS - 1
    told = CliRunner().invoke(app, ["--repo", str(tmp_path), "statistics", "--view", "nobody"])
    assert told.exit_code == 1


def test_hostile_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    """Escaped in a notebook, cut where they are long, on one line."""
    rows = table(thing=[1, 2], at=[hours(-1)] * 2, x=["<script>alert(1)</script>\n", "y" * 10_000])
    (tmp_path / "featurestore.toml").write_text('project = "shop"\ndefinitions = []\n')
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        view = view_of(write(tmp_path / "rows.parquet", rows), ["x"], refresh="1h", entity=THING)
        store.apply([view])
        store.materialize(progress=False)
        found = store.statistics(view="view")
    assert "<script>" not in found._repr_html_()
    assert len(str(found)) < 1_000

"""A training frame of what was served where it was logged: which request answers which row, and how what differs is told."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore import Entity, FeatureService, FeatureStore, ManualClock, Request, on_demand
from featurestore.cli import app
from featurestore.errors import DeclarationError, RequestError, SpineError
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import Float64, Int64
from tests.small import NOON, hours, table, view_of, write

KEYS = 6
THING = Entity("thing", key={"thing": Int64})


class Served:
    """A project whose one service was asked for some keys at noon and an hour later; things are worth more from half past on."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, ManualClock(NOON)
        self.rows = folder / "rows.parquet"
        self.write_rows(0.0)
        (folder / "featurestore.toml").write_text('project = "shop"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
        view = view_of(self.rows, ["x", "word"], refresh="1h", ready_after="0s", entity=THING)

        @on_demand(inputs=[view["x"], Request("factor", Float64)], output=Float64)
        def scaled(x: float | None, factor: float | None) -> float | None:
            return None if x is None or factor is None else x * factor

        self.view, self.scaled = view, scaled
        self.store = FeatureStore(folder, clock=self.clock)
        self.store.apply([view, FeatureService("model", features=[view, scaled])])

    def write_rows(self, more: float) -> None:
        times = [hours(-2)] * KEYS + [hours(0.5)] * KEYS
        numbers = [k + more for k in range(KEYS)] + [k + 100.0 for k in range(KEYS)]
        write(self.rows, table(thing=[*range(KEYS)] * 2, at=times, x=numbers, word=[f"w{k}" for k in range(KEYS)] * 2))

    def ask(self, at: datetime, things: Any, factor: float | None = 2.0, **words: Any) -> None:
        self.clock.set(at)
        self.store.materialize(progress=False)
        self.store.get_online_features([{"thing": k, "factor": factor} for k in things], "model", **words)

    def frame(self, spine: Any, within: timedelta | str = "0s", **words: Any) -> TrainingFrame:
        return self.store.get_historical_features(spine, "model", from_log=within, **words)


def asked(at: Any, things: Any, factor: Any = 2.0) -> pa.Table:
    things = list(things)
    at = at if isinstance(at, list) else [at] * len(things)
    factor = factor if isinstance(factor, list) else [factor] * len(things)
    return table(event_timestamp=at, thing=things, factor=pa.array(factor, pa.float64()))


def test_logged_rows_where_there_are_some_and_the_query_elsewhere(tmp_path: Path) -> None:
    """Equal on every row where both are there, and each says where it comes from."""
    served = Served(tmp_path)
    with served.store as store:
        served.ask(NOON, [0, 1, 99])
        served.ask(hours(1), [0])
        spine = asked([NOON, NOON, NOON, hours(1), hours(1), NOON], [0, 1, 2, 0, 1, 99])
        frame = served.frame(spine, with_status=True)
        told = frame.to_arrow()
        assert told["values_from"].to_pylist() == ["log", "log", "query", "log", "query", "log"]
        query = store.get_historical_features(spine, "model", with_status=True).to_arrow()
        assert told.drop_columns(["values_from"]).equals(query)
        said = frame.manifest["from_log"]
        assert (said["rows"], said["compared"], said["equal"], said["differing"]) == (4, 12, 12, {})
        assert said["served_for_another_instant"] == {}
        assert frame.notices == ()
        again = store.get_historical_features(told.select(spine.column_names), "model", from_log=timedelta(0))
        assert again.to_arrow()["view__x"].equals(told["view__x"])
        assert store.audit().skewed == 0


@pytest.mark.parametrize(
    ("at", "within", "expected"),
    [
        (0.0, "0s", "log"), (-1e-9, "1h", "query"), (0.5, "30m", "log"), (0.5, "29m59s", "query"), (0.25, "0s", "query"),
        (0.25, timedelta(hours=1), "log"),
    ],
)  # fmt: skip
def test_a_request_answers_up_to_so_long_after_it(
    tmp_path: Path, at: float, within: timedelta | str, expected: str
) -> None:
    """Both ends count; none answers a row of before it."""
    served = Served(tmp_path)
    instant = NOON - timedelta(microseconds=1) if at < 0 else hours(at)
    with served.store:
        served.ask(NOON, [1])
        served.clock.set(hours(2))
        assert served.frame(asked(instant, [1]), within).to_arrow()["values_from"].to_pylist() == [expected]


def test_the_last_request_answers(tmp_path: Path) -> None:
    """Of those with the row's inputs, each of which counts, nulls and the sign of a zero too."""
    served = Served(tmp_path)
    with served.store:
        for minutes, factor in ((1, 2.0), (2, 3.0), (3, 0.0), (4, -0.0), (5, None), (6, float("nan"))):
            served.ask(NOON + timedelta(minutes=minutes), [1], factor, request_id=f"r{minutes}")
        served.ask(NOON + timedelta(minutes=7), [1, 1], 5.0)
        factors = [2.0, 3.0, 0.0, -0.0, None, float("nan"), 5.0, 7.0]
        frame = served.frame(asked(hours(0.4), [1] * len(factors), factors), "1h").to_arrow()
    assert frame["values_from"].to_pylist() == ["log"] * 7 + ["query"]
    scaled = frame["scaled"].to_pylist()
    assert scaled[:3] == [2.0, 3.0, 0.0]
    assert str(scaled[3]) == "-0.0"
    assert scaled[4] is None
    assert str(scaled[5]) == "nan"
    assert scaled[6:] == [5.0, 7.0]


def test_what_differs_has_its_cause(tmp_path: Path) -> None:
    """A file that was written anew since is a history rewritten, as the audit says; the logged values stay."""
    served = Served(tmp_path)
    with served.store as store:
        served.ask(NOON, range(KEYS))
        served.write_rows(50.0)
        frame = served.frame(asked(NOON, range(KEYS)))
        told = frame.to_arrow()
        assert told["view__x"].to_pylist() == [float(k) for k in range(KEYS)]
        said = frame.manifest["from_log"]
        assert said["differing"] == {"view__x": {"history rewritten": KEYS}, "scaled": {"history rewritten": KEYS}}
        assert (said["compared"], said["equal"]) == (4 * KEYS - KEYS, KEYS)
        assert said["examples"][0]["served"] == 0.0
        assert said["examples"][0]["trained"] == 50.0
        (notice,) = frame.notices
        assert "12 of 18 values that were served differ from training: history rewritten 12" in notice
        audit = {one.feature: one.causes for one in store.audit().features if one.causes}
        assert audit == said["differing"]
        path = frame.to_parquet(tmp_path / "frame.parquet")
        assert store.load_manifest(path).raw["from_log"] == said


def test_values_that_were_served_late_say_so(tmp_path: Path) -> None:
    """They are true for the instant that they were served for, which is not the one that the query takes."""
    served = Served(tmp_path)
    with served.store as store:
        served.ask(NOON, [1])
        served.clock.set(hours(1.2))  # no run for one o'clock yet
        store.get_online_features([{"thing": 1, "factor": 2.0}], "model")
        frame = served.frame(asked(hours(1.2), [1, 2]))
        assert frame.to_arrow()["view__x"].to_pylist() == [1.0, 102.0]
        said = frame.manifest["from_log"]
        assert said["served_for_another_instant"] == {"view": 1}
        assert said["differing"] == {}


def test_other_versions_and_outages_answer_nothing(tmp_path: Path) -> None:
    """A service under another fingerprint is another one."""
    served = Served(tmp_path)
    with served.store as store:
        served.ask(NOON, [1])
        store.apply([served.view, FeatureService("model", features=[served.view["x"], served.scaled])])
        frame = served.frame(asked(NOON, [1])).to_arrow()
        assert frame["values_from"].to_pylist() == ["query"]


def test_every_kind_of_spine(tmp_path: Path) -> None:
    """pandas with its index, a file that is read chunk by chunk, other widths and names."""
    served = Served(tmp_path)
    with served.store:
        served.ask(NOON, range(KEYS))
        spine = asked([NOON, hours(0.1)] * 3, range(KEYS))
        frame = spine.to_pandas().astype({"thing": "int32"}).set_index(pd.Index(list("abcdef")))
        told = served.frame(frame).to_pandas()
        expected = ["log", "query"] * 3
        assert list(told.index) == list("abcdef")
        assert told["values_from"].tolist() == expected
        assert served.frame(frame).features["view__x"].tolist() == [float(k) for k in range(KEYS)]
        path = write(tmp_path / "spine.parquet", spine.rename_columns(["when", "thing", "factor"]))
        streamed = served.frame(path, timestamp="when")
        streamed.to_parquet(tmp_path / "out.parquet")
        assert pq.read_table(tmp_path / "out.parquet")["values_from"].to_pylist() == expected
        assert streamed.manifest["from_log"]["rows"] == 3
        assert served.frame(spine.slice(0, 0)).to_arrow().column_names[-1] == "values_from"


def test_a_damaged_file_is_left_out_and_named(tmp_path: Path) -> None:
    """Its rows are those of the query."""
    served = Served(tmp_path)
    with served.store as store:
        served.ask(NOON, [1])
        store.audit()  # which waits until it is written
        (file,) = (tmp_path / ".featurestore").rglob("served/*/*/*.parquet")
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 1
        file.write_bytes(whole)
        frame = served.frame(asked(NOON, [1]))
        assert frame.to_arrow()["values_from"].to_pylist() == ["query"]
        assert frame.manifest["from_log"]["damaged"] == [str(file)]
        assert str(file) in frame.notices[0]


def test_wrong_words(tmp_path: Path) -> None:
    """What is logged nowhere cannot be taken from the log."""
    served = Served(tmp_path)
    with served.store as store:
        spine = asked(NOON, [1])
        with pytest.raises(RequestError, match="'other__x' is given by none"):
            store.get_historical_features(spine, [served.view.alias("other")["x"], "scaled"], from_log="0s")
        with pytest.raises(RequestError, match="exclude each other"):
            served.frame(spine, with_event_time=True)
        with pytest.raises(DeclarationError, match="from_log"):
            served.frame(spine, "soon")
        with pytest.raises(SpineError, match="values_from"):
            served.frame(spine.append_column("values_from", pa.array([1])))


DEFINITIONS = """
from featurestore import Entity, FeatureService, FeatureView, ParquetSource
from featurestore.types import Int64

thing = Entity("thing", key={"thing": Int64})
rows = ParquetSource("rows", "rows.parquet", event_time="at")
view = FeatureView("view", entity=thing, source=rows, refresh="1h", features=["x"])
model = FeatureService("model", features=[view])
"""


def test_the_command(tmp_path: Path) -> None:
    """Writes the same frame, of requests that another process was asked, whole and in parts."""
    (tmp_path / "featurestore.toml").write_text('project = "shop"\n[serving_log]\nrate = 1.0\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    write(tmp_path / "rows.parquet", table(thing=[1, 2], at=[NOON, NOON], x=[1.0, 2.0]))
    with FeatureStore(tmp_path) as store:
        store.apply()
        store.materialize(progress=False)
        store.get_online_features([{"thing": 1}], "model")
    (file,) = (tmp_path / ".featurestore").rglob("served/*/*/*.parquet")
    (instant,) = pq.read_table(file)["time"].to_pylist()
    write(tmp_path / "spine.parquet", table(event_timestamp=[instant] * 2, thing=[1, 2]))
    out = tmp_path / "out.parquet"
    words = ["--repo", str(tmp_path), "historical", str(tmp_path / "spine.parquet"), "model", "-o", str(out)]
    told = CliRunner().invoke(app, [*words, "--from-log", "0s"])
    assert told.exit_code == 0, told.output
    assert "1 of the rows are what was served, from the serving log" in told.output
    assert "1 were compared with training, and 1 are equal" in told.output
    assert pq.read_table(out)["values_from"].to_pylist() == ["log", "query"]
    assert pq.read_table(out)["view__x"].to_pylist() == [1.0, 2.0]
    words = [*words[:-1], str(tmp_path / "parts")]
    told = CliRunner().invoke(app, [*words, "--from-log", "0s", "--part-rows", "1"])
    assert told.exit_code == 0, told.output
    parts = [pq.read_table(path) for path in sorted((tmp_path / "parts").glob("part-*"))]
    assert [part["values_from"].to_pylist() for part in parts] == [["log"], ["query"]]

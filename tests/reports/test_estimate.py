"""An estimate counts what is done afterwards, and does nothing of it."""

from __future__ import annotations

import hashlib
import json
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from featurestore import (
    ARRIVAL,
    Count,
    CsvSource,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    Mean,
    ParquetSource,
    PushSource,
    TableSource,
    on_demand,
)
from featurestore.cli import app
from featurestore.errors import RequestError, SpineError
from featurestore.reports.estimate.calibration import Calibration, Speed
from featurestore.reports.estimate.runs import _peak_bytes
from featurestore.reports.estimate.scale_model import FoldedKeys, part_of
from featurestore.reports.estimate.source_size import COUNTED_ROWS, drawn_from, spread
from featurestore.types import Float64, Int64, String, Timestamp
from tests.small import NOON, THING, TIME, hours, table, write

ROWS, KEYS = 3_000, 40


def rows(count: int = ROWS, *, first: int = 0, begin: float = -48.0, end: float = 0.0) -> pa.Table:
    """Rows in the order of their times, of keys in turn."""
    at = [hours(begin + (end - begin) * number / count) for number in range(count)]
    numbers = range(first, first + count)
    return pa.table({
        "thing": [number % KEYS for number in numbers], "at": pa.array(at, TIME), "x": [number / 7 for number in numbers],
        "y": [f"word {number % 50}" for number in numbers], "unread": [f"{number:050}" for number in numbers],
    })  # fmt: skip


def spine(count: int) -> pa.Table:
    at = [hours(-(number % 30)) for number in range(count)]
    return table(thing=[number % KEYS for number in range(count)], event_timestamp=at)


class Repository:
    """A project whose rows lie in files, and its store."""

    def __init__(self, folder: Path, *views: Any, at: Any = NOON) -> None:
        self.folder, self.clock = folder, ManualClock(at)
        (folder / "featurestore.toml").write_text('project = "p"\nonline = "lmdb://online"\ndefinitions = []\n')
        self.store = FeatureStore(folder, clock=self.clock)
        if views:
            self.store.apply([FeatureService("service", features=list(views))])

    def files(self) -> dict[str, str]:
        """All files below the folder, and what they hold; of an embedded database those that hold its data."""
        aside = {"lock.mdb"}
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*")) if path.is_file() and path.name not in aside
            and not path.name.endswith(("-wal", "-shm"))
        }  # fmt: skip


def plain(name: str = "plain", path: str = "data/*.parquet", **words: Any) -> FeatureView:
    source = ParquetSource(f"{name}_rows", path, event_time="at", **words)
    return FeatureView(name, entity=THING, source=source, features=["x", "y"], refresh="1h")


def folded(name: str = "folded", path: str = "data/*.parquet") -> FeatureView:
    source = ParquetSource(f"{name}_rows", path, event_time="at")
    features = {"n": Count(window="6h"), "mean": Mean("x", window="1d")}
    return FeatureView(name, entity=THING, source=source, features=features, refresh="1h")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(rows(), folder / "one.parquet", row_group_size=500)
    return tmp_path


def test_a_frame_is_counted_as_it_is_made(data: Path) -> None:
    """Rows of the sources and of the spine, and the bytes of the columns that are read, as the footers tell them."""
    pq.write_table(rows(700, first=9_000), data / "data" / "two.parquet")
    store = Repository(data, plain(), folded()).store
    asked = spine(250)
    estimate = store.estimate_historical_features(asked, "service")
    (work,) = estimate.work
    assert work.rows_read == 2 * (ROWS + 700)  # each of the two views reads all of them
    frame = store.get_historical_features(asked, "service")
    assert work.rows_written == work.rows_written_least == work.rows_written_most == len(frame) == 250
    assert work.bytes_read == stored_bytes(data, {"thing", "at", "x", "y"}) + stored_bytes(data, {"thing", "at", "x"})
    assert work.cpu_seconds is not None
    assert work.bytes_written
    assert estimate.measured_rows == 2 * (ROWS + 700)
    assert estimate.measured_asked == 250


def stored_bytes(folder: Path, columns: set[str]) -> int:
    total = 0
    for file in (folder / "data").iterdir():
        found = pq.read_metadata(file)
        for group in range(found.num_row_groups):
            every = [found.row_group(group).column(place) for place in range(found.num_columns)]
            total += sum(column.total_compressed_size for column in every if column.path_in_schema in columns)
    return total


def test_a_spine_is_a_frame_or_files_of_it(data: Path) -> None:
    """And a stream, which would be gone then, is refused."""
    store = Repository(data, plain()).store
    folder = data / "spine"
    folder.mkdir()
    for name, count in (("a", 300), ("b", 20)):
        write(folder / f"{name}.parquet", spine(count))
    asked: Any
    for asked, count in (
        (folder, 320),
        (str(folder / "a.parquet"), 300),
        (spine(33).to_pandas(), 33),
        (spine(33).slice(0, 0), 0),
    ):
        (work,) = store.estimate_historical_features(asked, "service").work
        assert work.rows_written == count
    for asked in (
        duckdb.sql("SELECT 1 AS thing"),
        pa.RecordBatchReader.from_batches(spine(3).schema, spine(3).to_batches()),
    ):
        with pytest.raises(SpineError, match="length is known"):
            store.estimate_historical_features(asked, "service")


def test_parts_read_the_sources_again(data: Path) -> None:
    store = Repository(data, plain()).store
    whole, parts = (
        store.estimate_historical_features(spine(1_000), "service", part_rows=part_rows).work[0] for part_rows in (None, 150)
    )  # fmt: skip
    assert whole.bytes_read is not None
    assert parts.bytes_read == 7 * whole.bytes_read
    assert parts.rows_written == whole.rows_written == 1_000
    with pytest.raises(RequestError, match="part_rows"):
        store.estimate_historical_features(spine(3), "service", part_rows=0)


def test_a_snapshot_is_of_every_key_at_each_instant(data: Path) -> None:
    store = Repository(data, plain(), folded()).store
    at = [hours(-3), hours(-2), hours(-1)]
    (work,) = store.estimate_snapshot("service", at=at).work
    found = len(store.snapshot("service", at=at))
    assert found == 3 * KEYS
    assert work.rows_written_least <= found <= work.rows_written_most
    assert work.rows_written == found
    assert work.cpu_seconds is not None


@pytest.mark.parametrize("view", [plain(), folded()], ids=["plain", "folded"])
def test_runs_are_counted_as_they_are_done(data: Path, view: FeatureView) -> None:
    """The first one over all keys, and none that is not due."""
    repository = Repository(data, view)
    store = repository.store
    for full in (False, True):
        (work,) = store.estimate_materialize(full=full).work
        runs = store.materialize(full=full, progress=False)
        assert work.rows_written == sum(run.keys for run in runs) == KEYS * len(runs)
        assert work.rows_read == ROWS
    (work,) = store.estimate_materialize().work
    assert (work.rows_read, work.rows_written, work.cpu_seconds, work.bytes_read) == (0, 0, 0.0, 0)
    assert "nothing is due" in work.notes
    assert store.materialize(progress=False) == []


def test_chunks_are_told(data: Path) -> None:
    """Into how many parts the keys of the largest run go, which is said where it is more than one."""
    settings = data / "featurestore.toml"
    repository = Repository(data, plain())
    (work,) = repository.store.estimate_materialize().work
    assert (work.chunks, work.notes) == (1, ())
    settings.write_text(f"{settings.read_text()}[materialize]\nchunk_keys = {KEYS // 3}\n")
    with FeatureStore(data, clock=repository.clock) as store:
        (work,) = store.estimate_materialize().work
        assert work.chunks == math.ceil(KEYS / (KEYS // 3))
        assert any(f"about {work.chunks} chunks of {KEYS // 3} keys" in note for note in work.notes)
        assert not any("side by side" in note for note in work.notes)
    settings.write_text(f"{settings.read_text()}processes = 3\n")
    with FeatureStore(data, clock=repository.clock) as store:
        assert f"{work.chunks} chunks" in (said := str(store.estimate_materialize()))
        assert "by 3 processes side by side" in said


def test_each_process_has_a_chunk_in_memory() -> None:
    """And whoever drives them its own; what is read at once is divided among them."""
    speed = Speed(any_run=10.0, per_row=1.0, per_asked=2.0)
    told = Calibration(speed, speed, at_rest_bytes=1_000, cores=1.0, rows=1, asked=1, took_s=1.0)
    of_each = 1_000 + 10 + 100 + 2 * 50
    peaks = [_peak_bytes(told, 7, 100, 50, processes=processes) for processes in (1, 2, 3)]
    assert peaks == [of_each + 7, 2 * of_each + 1_000 + 7, 3 * of_each + 1_000 + 7]
    assert _peak_bytes(told._replace(memory_bytes=None), 7, 100, 50, processes=2) is None


@pytest.mark.parametrize("view", [plain(), folded(), plain(known_at="at"), plain(known_after="90m"), plain(known_at=ARRIVAL)],
                         ids=["plain", "folded", "known_at", "known_after", "arrival"])  # fmt: skip
@pytest.mark.parametrize("lands", [False, True], ids=["the same files", "a file more"])
def test_a_later_run_asks_for_no_more_keys_than_it_is_said(data: Path, view: FeatureView, *, lands: bool) -> None:
    """Rows that happened meanwhile lie in row groups whose statistics say so, and in files that came."""
    repository = Repository(data, view, at=hours(-5))
    repository.store.materialize(progress=False)
    if lands:
        pq.write_table(rows(5, first=ROWS, begin=-5.0, end=-4.0), data / "data" / "late.parquet")
    repository.clock.set(repository.clock() + timedelta(hours=1))
    (work,) = repository.store.estimate_materialize().work
    (run,) = repository.store.materialize(progress=False)
    assert work.rows_written_least <= run.keys <= work.rows_written_most <= KEYS
    assert work.rows_written <= work.rows_written_most


def test_the_second_instant_that_is_due_asks_for_what_changed_since_the_first(data: Path) -> None:
    """As the run for it does, also in the first run of all."""
    source = ParquetSource("rows", "data/*.parquet", event_time="at")
    view, changed = (
        FeatureView("view", entity=THING, source=source, features=["x"], refresh="1h", ready_after=ready)
        for ready in ("30m", "20m")
    )
    store = Repository(data, view, at=hours(-1 + 1 / 6)).store
    (planned,) = store.estimate_plan(store.plan([changed])).work
    (work,) = store.estimate_materialize().work
    first, second = store.materialize(progress=False)
    assert first.keys == KEYS
    for told in (planned, work):
        assert told.rows_written_least <= first.keys + second.keys <= told.rows_written_most
        assert KEYS <= told.rows_written <= told.rows_written_most


def test_row_groups_without_rows_of_then_bound_the_keys(tmp_path: Path) -> None:
    """Keys have their rows in turn of hours: a run an hour later is told to ask for some, and not for all."""
    (tmp_path / "data").mkdir()
    at = pa.array([hours(-40 + number / 10) for number in range(400)], TIME)
    made = pa.table({"thing": list(range(400)), "at": at, "x": [1.0] * 400, "y": ["a"] * 400})
    pq.write_table(made, tmp_path / "data" / "rows.parquet", row_group_size=20)
    repository = Repository(tmp_path, plain(), at=hours(-2))
    repository.store.materialize(progress=False)
    repository.clock.set(hours(-1))
    (work,) = repository.store.estimate_materialize().work
    (run,) = repository.store.materialize(progress=False)
    assert run.keys <= work.rows_written_most <= 40
    assert run.keys / 2 <= work.rows_written <= run.keys * 2


def test_nothing_is_written_and_nothing_is_changed(data: Path) -> None:
    """Neither files, nor the registry and its journals, nor what is online; also where rows count from when their file came."""
    write(data / "spine.parquet", spine(100))
    repository = Repository(data, plain(), folded(), plain("arrived", "data/*.parquet", known_at=ARRIVAL))
    store = repository.store
    store.materialize(["plain"], progress=False)
    pq.write_table(rows(9, first=ROWS), data / "data" / "late.parquet")
    repository.clock.set(hours(1))
    before, online = repository.files(), {key for keys in store.online.scan(b"") for key in keys}
    store.estimate_historical_features(str(data / "spine.parquet"), "service")
    store.estimate_snapshot("service", at=[NOON])
    store.estimate_materialize()
    store.estimate_materialize(full=True)
    store.estimate_plan(store.plan([plain("another")]))
    assert repository.files() == before
    assert {key for keys in store.online.scan(b"") for key in keys} == online


def test_a_plan_is_of_what_it_fills(data: Path) -> None:
    """The views that are new or changed, each by a first run."""
    store = Repository(data, plain()).store
    assert store.estimate_plan(store.plan([plain()])).work == ()
    assert str(store.estimate_plan(store.plan([plain()]))) == "Nothing would be done."
    with pytest.raises(RequestError, match="plan is what FeatureStore.plan gives"):
        store.estimate_plan("plan")  # type: ignore[arg-type]  # the mistake


def test_pushed_views_are_counted_and_not_timed(tmp_path: Path) -> None:
    schema = {"id": Int64, "thing": Int64, "at": Timestamp, "x": Float64}
    source = PushSource("clicks", schema=schema, event_time="at", identity="id")
    view = FeatureView("clicked", entity=THING, source=source, features={"n": Count(window="1d")})
    store = Repository(tmp_path, view).store
    store.push("clicks", [{"id": number, "thing": number % 3, "at": NOON, "x": 1.0} for number in range(12)])
    (work,) = store.estimate_materialize().work
    assert (work.rows_read, work.cpu_seconds) == (12, None)
    assert any("log of pushes" in note for note in work.notes)
    (frame,) = store.estimate_historical_features(spine(10), "service").work
    assert frame.rows_read == 12
    assert frame.cpu_seconds is not None


def sources(folder: Path) -> dict[str, Any]:
    """The same rows in each kind of place."""
    made = rows(200).select(["thing", "at", "x"])
    with duckdb.connect(folder / "rows.duckdb") as connection:
        connection.register("given", made)
        connection.execute("CREATE TABLE rows AS SELECT * FROM given")
    pa_csv.write_csv(
        made.set_column(1, "at", made["at"].cast(pa.timestamp("us")).cast(pa.string())), folder / "rows.csv"
    )
    schema = {"thing": Int64, "at": Timestamp, "x": Float64}
    return {
        "frame": DataFrameSource("rows", made, event_time="at"),
        "table": TableSource("rows", "rows.duckdb", table="rows", event_time="at"),
        "text": CsvSource("rows", "rows.csv", schema=schema, event_time="at"),
    }


@pytest.mark.parametrize("kind", ["frame", "table", "text"])
def test_rows_are_counted_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    view = FeatureView("view", entity=THING, source=sources(tmp_path)[kind], features=["x"], refresh="1h")
    store = Repository(tmp_path, view).store
    (work,) = store.estimate_historical_features(spine(50), "service").work
    assert (work.rows_read, work.rows_written) == (200, 50)
    assert work.cpu_seconds is not None
    (run,) = store.estimate_materialize().work
    assert run.rows_written == sum(one.keys for one in store.materialize(progress=False))


@on_demand(inputs=[plain()["x"]], output=Float64)
def fails(x: float | None) -> float:
    """Fails for every value."""
    return x["no"]  # type: ignore[index, no-any-return]  # a function that fails


def test_rows_are_counted_where_the_speed_cannot_be_measured(data: Path) -> None:
    """A function that fails says so; what was counted is told all the same."""
    store = Repository(data).store
    (work,) = store.estimate_historical_features(spine(5), [plain(), fails]).work
    assert (work.rows_read, work.rows_written, work.cpu_seconds, work.peak_bytes) == (ROWS, 5, None, None)
    assert any("could not be measured" in note for note in work.notes)


def test_an_entity_without_keys_and_a_key_of_two_columns(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    made = rows(400).append_column("place", pa.array([f"p{number % 7}" for number in range(400)]))
    pq.write_table(made, tmp_path / "data" / "rows.parquet")
    source = ParquetSource("rows", "data/*.parquet", event_time="at")
    pair = Entity("pair", key={"thing": Int64, "place": String})
    views = [
        FeatureView(
            "all", entity=Entity("everything", key={}), source=source, features={"n": Count(window="1d")}, refresh="1h"
        ),
        FeatureView("pairs", entity=pair, source=source, features=["x"], refresh="1h"),
        FeatureView("things", entity=THING, source=source, features=["y"], refresh="1h"),
    ]
    store = Repository(tmp_path, *views).store
    asked = spine(60).append_column("place", pa.array([f"p{number % 7}" for number in range(60)]))
    (work,) = store.estimate_historical_features(asked, "service").work
    assert (work.rows_read, work.rows_written) == (1_200, 60)
    assert work.cpu_seconds is not None
    told = {one.name: one.rows_written for one in store.estimate_materialize().work}
    assert told == {run.view: run.keys for run in store.materialize(progress=False)}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(1, 120), st.integers(1, 8))
def test_pieces_lie_in_their_files_and_apart(files: list[int], wanted: int, pieces: int) -> None:
    """As many rows as were asked for at most, each of them there, none twice; all where there are no more."""
    found = spread(files, wanted, pieces)
    every = [(one.file, row) for one in found for row in range(one.first, one.first + one.rows)]
    assert all(row < files[file] for file, row in every)
    assert len(every) == len({*every})
    assert len(every) <= max(wanted, pieces)
    if wanted >= sum(files):
        assert len(every) == sum(files)
    else:
        assert every


@given(st.integers(1, 10**9))
def test_keys_are_told_from_how_many_are_met(keys: int) -> None:
    """Where rows draw them evenly; as many as there can be at least, where each row has its own."""
    met = max(1, round(keys * -math.expm1(-COUNTED_ROWS / keys)))
    if keys < 10 * COUNTED_ROWS:
        assert math.isclose(drawn_from(met, COUNTED_ROWS, 10**10), keys, rel_tol=0.02, abs_tol=2)
    assert met <= drawn_from(met, COUNTED_ROWS, 10**10) <= 10**10


@given(st.floats(0, 10), st.floats(0, 1e-3), st.floats(0, 1e-3))
def test_a_speed_is_what_three_runs_say(any_run: float, per_row: float, per_asked: float) -> None:
    """Exactly, where time grows with rows and asked ones."""
    of = Speed(any_run, per_row, per_asked).of_job
    found = Speed.of(of(1_000, 250), of(4_000, 250), of(4_000, 1_000), rows=4_000, asked=1_000)
    assert math.isclose(found.of_job(1e7, 1e6), of(1e7, 1e6), rel_tol=1e-6, abs_tol=1e-6)


def test_a_speed_is_never_negative() -> None:
    """Where a run of more rows took less, by chance."""
    assert min(Speed.of(3.0, 2.0, 1.0, rows=100, asked=100)) == 0.0


def test_folded_keys_have_as_many_rows_as_all_keys_have() -> None:
    """A key with a tenth of the rows has a tenth of them still; a key that is null stays so; one key is the same one everywhere."""
    drawn = np.random.default_rng(3)
    key = np.where(drawn.random(20_000) < 0.1, 7, drawn.integers(0, 1_000_000, 20_000))
    sample = pa.table({"k": pa.array(key, mask=np.arange(20_000) % 50 == 0), "x": key})
    keys = FoldedKeys.of(sample, ["k"], 500)
    assert keys.count == 500
    made = keys.put(sample, ["k"], 400)
    found = made["k"].drop_null().to_numpy()
    assert 395 <= len(np.unique(found)) <= 400
    assert made["k"].null_count == sample["k"].null_count
    _, counts = np.unique(found, return_counts=True)
    assert 0.08 < counts.max() / len(found) < 0.13
    assert np.median(counts) < 100
    texts = keys.put(pa.table({"n": pa.array([str(one) for one in key[:50]])}), ["n"], 400)
    numbers = keys.put(pa.table({"k": key[:50]}), ["k"], 400)
    assert [int(one) for one in texts["n"].to_pylist()] == numbers["k"].to_pylist()
    assert part_of(sample, 0.25).num_rows == 5_000
    assert part_of(sample.slice(0, 0), 0.25).num_rows == 0


def test_commands_say_it_and_do_nothing(tmp_path: Path) -> None:
    """With the words of the command itself, for people and for programs."""
    shop = tmp_path / "shop"
    done = CliRunner().invoke(app, ["init", str(shop)])
    assert done.exit_code == 0

    def said(*words: str) -> str:
        answer = CliRunner().invoke(app, ["--repo", str(shop), *words])
        assert answer.exit_code == 0, answer.output
        return str(answer.stdout)

    planned = json.loads(said("plan", "--estimate", "--json"))
    assert [one["name"] for one in planned["estimate"]["work"]] == ["customer_carts", "customer_orders"]
    assert "Estimate: nothing was done yet" in said("plan", "--estimate")
    said("apply", "--yes")
    target = tmp_path / "frame.parquet"
    asked = ["historical", str(shop / "data" / "spine.parquet"), "order_model", "-o", str(target)]
    (work,) = json.loads(said(*asked, "--estimate", "--json"))["work"]
    assert "by the clock" in said(*asked, "--part-rows", "2", "--estimate")
    assert not target.exists()
    said(*asked)
    assert work["rows_written"] == pq.read_metadata(target).num_rows
    days = ["snapshot", "customer_orders", "--at", "2025-01-05", "--at", "2025-01-06"]
    (work,) = json.loads(said(*days, "--estimate", "--json"))["work"]
    assert work["rows_written"] == len(json.loads(said(*days, "--json")))
    told = json.loads(said("materialize", "--estimate", "--json"))
    runs = json.loads(said("materialize", "--json", "--quiet"))
    written = {one["name"]: one["rows_written"] for one in told["work"]}
    of_orders = [run["keys"] for run in runs if run["view"] == "customer_orders"]
    assert written["customer_orders"] in {of_orders[0], sum(of_orders)}  # a second instant may be due meanwhile
    refused = CliRunner().invoke(app, ["--repo", str(shop), "materialize", "--follow", "--estimate"])
    assert refused.exit_code == 2

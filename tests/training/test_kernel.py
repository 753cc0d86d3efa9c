"""The kernel gives the same bits from tables of rows as from the files, frames and logs that these were read from."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import ARRIVAL, FeatureService, FeatureStore, ManualClock, Mean, ParquetSource
from featurestore.errors import SourceError
from featurestore.semantics.forgotten import ForgottenKeys
from featurestore.semantics.service import ResolvedService
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.training.historical import get_historical_features, listing_of
from featurestore.training.kernel import Counts, Options, answer_rows
from tests import golden_project
from tests.draws import draws
from tests.folding import FoldSpec
from tests.golden_project import PROJECTS, SERVICES
from tests.histories import History, histories, to_arrow, write_parquet
from tests.platforms.shop import KEYS, PAIRS, bits
from tests.platforms.shop import NOON as SHOP_NOON
from tests.platforms.shop import opened as shop
from tests.small import NOON, hours, opened, table, view_of, write
from tests.sources import same_rows
from tests.test_windows import folded_histories
from tests.test_windows import view_of as folding
from tests.world import declare, resolved, spine_of

FULL = Options(with_status=True, with_event_time=True)
COUNTED = ("rows", "conflicts", "invalid_rows", "spine_rows_past_the_last_complete_instant", "notices")


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline(Path())


def rows_of(service: ResolvedService, offline: Offline) -> dict[str, pa.Table]:
    """What the service reads, out of the project."""
    sources = {part.view.source.name: part.view.source for part in service.parts}
    with offline.session(files=listing_of(service, offline)) as session:
        return {name: session.rows(source, session.own(source).columns) for name, source in sources.items()}


def parts(service: ResolvedService) -> set[str]:
    return {part.name for part in service.parts}


def answered(
    service: ResolvedService, rows: Mapping[str, pa.Table], spine: pa.Table, *, now: int = 0, options: Options = FULL,
    forgotten: ForgottenKeys | None = None,
) -> tuple[pa.Table, dict[str, Any]]:  # fmt: skip
    """From tables, by an engine that knows nothing of the project: its folder is empty, and its clock is not asked."""
    with tempfile.TemporaryDirectory() as folder:
        beside = Offline(Path(folder), instances=Instances(threads=1, memory_limit="500MB"))
        beside.forgotten = lambda: forgotten
        found, counts = answer_rows(
            service, rows, spine, offline=beside, now=now, options=options, counted=parts(service)
        )
        beside.close()
    manifest: dict[str, Any] = {"notices": []}
    Counts.of(orjson.loads(orjson.dumps(counts.plain()))).enter(manifest)
    return found, manifest


def same(
    service: ResolvedService, offline: Offline, spine: pa.Table, *, now: int = 0, options: Options = FULL
) -> pa.Table:
    """That the tables say what the project says, to the bit, with its types and its counts; what they say."""
    expected = get_historical_features(spine, service, offline, now=now, options=options)
    rows, frame = rows_of(service, offline), expected.to_arrow()
    found, manifest = answered(service, rows, spine, now=now, options=options, forgotten=offline.forgotten())
    assert found.schema == frame.schema.remove_metadata()
    for name in frame.column_names:
        assert bits(found[name].to_pylist()) == bits(frame[name].to_pylist()), name
    assert manifest == {name: expected.manifest[name] for name in COUNTED}
    return found


@settings(max_examples=draws(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories())
def test_tables_answer_as_frames_do(offline: Offline, history: History) -> None:
    same(resolved(declare(history), offline), offline, spine_of(history))


@settings(max_examples=draws(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(world=folded_histories(), files=st.integers(1, 3), seed=st.integers(0, 99))
def test_tables_answer_as_files_do(
    offline: Offline, world: tuple[History, list[FoldSpec], bool], files: int, seed: int
) -> None:
    """Folds over windows too, with whatever the source says of identity, deletion, known_at, validity and zones."""
    history, specs, plain = world
    with tempfile.TemporaryDirectory() as folder:
        paths = write_parquet(to_arrow(history.rows, history.types), Path(folder), files=files, seed=seed)
        service = resolved(folding(history, specs, plain=plain, paths=paths), offline)
        same(service, offline, spine_of(history))


@settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), seed=st.integers(0, 99))
def test_counts_of_the_spines_parts_add_up(offline: Offline, history: History, seed: int) -> None:
    """However the spine is cut, where the rows of the sources are counted once."""
    service, spine = resolved(declare(history), offline), spine_of(history)
    rows, cut = rows_of(service, offline), random.Random(seed).randrange(spine.num_rows + 1)
    whole = answer_rows(service, rows, spine, offline=offline, now=0, options=FULL, counted=parts(service))[1]
    cuts = [
        answer_rows(service, rows, part, offline=offline, now=0, options=FULL, counted=() if n else parts(service))[1]
        for n, part in enumerate((spine.slice(0, cut), spine.slice(cut)))
    ]
    assert cuts[0] + cuts[1] == whole


@pytest.mark.parametrize("kind", ["parquet", *same_rows.KINDS])
def test_rows_of_every_type_and_source(kind: str, tmp_path: Path) -> None:
    make = {**same_rows.KINDS, "parquet": same_rows.parquet}[kind]
    source = make(tmp_path, same_rows.ROWS, **same_rows.WORDS)
    with FeatureStore.local(clock=ManualClock(same_rows.NOON)) as store:
        service = store._project.service(same_rows.views(source))
        found = same(service, store.offline, same_rows.asked(), now=store._project.now())
    assert found["plain__wide__status"].to_pylist().count("PRESENT") > 100


@pytest.mark.parametrize("version", PROJECTS)
def test_golden_projects(version: str, tmp_path: Path) -> None:
    """Files that count from when they came, a push log with corrections, functions, folds of every kind."""
    expected = golden_project.copy(version, tmp_path / "golden")
    clock = ManualClock(datetime.fromisoformat(expected["at"]))
    with FeatureStore(tmp_path / "golden", clock=clock) as store:
        service = store._project.service("ride_model")
        found = same(service, store.offline, golden_project.spine(), now=store._project.now())
    trained = {name: found[name].to_pylist() for name in found.column_names if not name.endswith("__event_time")}
    assert {name: value for name, value in golden_project.told(trained).items() if name in expected["trained"]} == {
        name: value for name, value in expected["trained"].items() if name in trained
    }
    assert len(found) == len(SERVICES["ride_model"]) * len(golden_project.SPINE_HOURS)


@pytest.mark.parametrize("forgets", [False, True])
def test_pushes_functions_and_several_entities(forgets: bool, tmp_path: Path) -> None:
    """Corrections, deletions and validity of pushed rows; two keys in one service; and keys that were forgotten since."""
    with shop(tmp_path) as store:
        if forgets:
            store.forget("user", {"user_id": KEYS[3]})
        views = [store.catalog.views[name] for name in ("cards", "pairs", "users", "sums")]
        service = store._project.service(
            FeatureService("all", features=[*views, *store.catalog.services["model"].on_demand])
        )
        rows = [(key, *PAIRS[number % len(PAIRS)]) for number, key in enumerate([*KEYS, "nobody"])]
        spine = pa.table(
            {
                "user_id": [row[0] for row in rows],
                "carrier": [row[1] for row in rows],
                "flight": pa.array([row[2] for row in rows], pa.int64()),
                "add": pa.array(range(len(rows)), pa.int64()),
                "event_timestamp": pa.array([SHOP_NOON] * len(rows), pa.timestamp("us", "UTC")),
            }
        )
        found = same(service, store.offline, spine, now=store._project.now())
        (forgotten,) = found.filter(pc.equal(found["user_id"], KEYS[3])).to_pylist()
        assert (forgotten["cards__text__status"] == "MISSING") >= forgets


def test_derived_columns_are_computed_from_the_tables_own(tmp_path: Path) -> None:
    rows = table(
        thing=[1, 1, 2], at=[hours(-3), hours(-2), hours(-1)], x=[1.0, None, -0.0], n=pa.array([1, 2, 127], pa.uint8())
    )
    source = ParquetSource(
        "rows", write(tmp_path / "rows.parquet", rows), event_time="at",
        derived={"twice": "x * 2", "beside": "n * 2", 'day': 'CAST("at" AS DATE)'},
    )  # fmt: skip
    view = view_of(rows, ["twice", "beside", "day"]).model_copy(update={"source": source})
    with opened(view) as (store, _):
        found = same(store._project.service("service"), store.offline, asked([1, 2, 3]))
    assert found["view__beside"].to_pylist() == [4, 254, None]


def asked(things: list[int]) -> pa.Table:
    return table(thing=things, event_timestamp=[NOON] * len(things))


def test_a_column_of_another_type_is_refused_by_both_names(tmp_path: Path) -> None:
    rows = table(thing=[1], at=[hours(-1)], n=pa.array([7], pa.uint16()))
    with opened(view_of(rows, ["n"])) as (store, _):
        service = store._project.service("service")
        told = rows.set_column(2, "n", rows["n"].cast(pa.int32()))
        with pytest.raises(
            SourceError, match=r"column 'n' of source 'view_rows' is Int32 \(INTEGER\).*and Int32 \(USMALLINT\)"
        ):
            answered(service, {"view_rows": told}, asked([1]))
        with pytest.raises(SourceError, match="column 'n' of source 'view_rows' is missing"):
            answered(service, {"view_rows": rows.drop_columns("n")}, asked([1]))


def test_rows_that_count_from_their_arrival_must_say_it(tmp_path: Path) -> None:
    rows = table(thing=[1], at=[hours(-1)], x=[1.0])
    source = ParquetSource("rows", write(tmp_path / "rows.parquet", rows), event_time="at", known_at=ARRIVAL)
    view = view_of(rows, ["x"]).model_copy(update={"source": source})
    with opened(view) as (store, clock):
        service = store._project.service("service")
        with pytest.raises(SourceError, match=re.escape("no column '__arrived' of 64 bits")):
            answered(service, {"rows": rows}, asked([1]))
        clock.advance(timedelta(hours=1))
        later = table(thing=[1, 1], event_timestamp=[NOON - timedelta(seconds=1), NOON])
        assert same(service, store.offline, later)["view__x"].to_pylist() == [None, 1.0]


def test_what_lies_on_the_disk_is_not_read(tmp_path: Path) -> None:
    """Files that changed or vanished are nothing to whoever has the rows."""
    rows = table(thing=[1, 1], at=[hours(-2), hours(-1)], x=[1.0, 2.0])
    path = write(tmp_path / "rows.parquet", rows)
    with opened(view_of(str(path), {"mean": Mean("x", window="1d")})) as (store, _):
        service = store._project.service("service")
        path.unlink()
        found, _ = answer_rows(
            service, {"view_rows": rows}, asked([1]), offline=store.offline, now=0, options=Options(), counted=()
        )
    assert found["view__mean"].to_pylist() == [1.5]

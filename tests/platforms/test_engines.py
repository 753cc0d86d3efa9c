"""One suite for every engine: in this process, on Spark's executors and on Ray's workers each value has the bits of one machine."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as Number
from pathlib import Path
from threading import Event, Thread
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import (
    ARRIVAL,
    Count,
    DataFrameSource,
    DeltaSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    InRange,
    Latest,
    ManualClock,
    Matches,
    Mean,
    NotNull,
    ParquetSource,
    PushSource,
    Request,
    Sum,
    Unique,
    on_demand,
)
from featurestore.clock import to_datetime
from featurestore.durable.parquet import storable
from featurestore.engines.audit_tasks import EngineAudit
from featurestore.errors import ExpectationError, NotMaterializedError, RequestError, SourceError, SpineError
from featurestore.types import Bool, Date, Float64, Int64, String, Timestamp
from tests import golden_project
from tests.draws import draws
from tests.folding import FoldSpec
from tests.histories import History, to_arrow, write_parquet
from tests.platforms.clusters import OWN_WORDS, PANDAS
from tests.platforms.engine_kinds import NOON, EngineKind, ago, running, spine_of, write
from tests.platforms.record_pairs import Pair, moved, of_moved
from tests.platforms.shop import KEYS, PAIRS
from tests.platforms.shop import NOON as SHOP_NOON
from tests.platforms.shop import opened as shop
from tests.servers import RedisServer
from tests.sources import same_rows
from tests.test_audit_causes import START, World, value
from tests.test_audit_causes import rows as rows_of
from tests.test_windows import folded_histories
from tests.test_windows import view_of as folding
from tests.world import spine_of as spine_of_history

pytestmark = [pytest.mark.filterwarnings(PANDAS), pytest.mark.filterwarnings(OWN_WORDS)]
USER = Entity("user", key={"user": Int64})
DRAWS = {"here": 150, "spark": 10, "ray": 30}
"""Histories that are drawn: a job of Spark takes seconds."""
RUN_DRAWS = {"here": 30, "spark": 3, "ray": 6}
"""Those that are materialized, twice each."""
AUDIT_DRAWS = {"here": 8, "spark": 2, "ray": 3}
"""Those that are audited, by the engine and by one machine."""


@pytest.fixture(scope="module", params=["here", "spark", "ray"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineKind]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as kind:
        yield kind


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_every_type_with_statuses_and_times(engine: EngineKind, tmp_path: Path, tell: Any) -> None:
    """NaN, -0.0, nulls, decimals, lists and derived columns; MISSING and EXPIRED, since no row is left out that says which."""
    source = same_rows.parquet(tmp_path, same_rows.ROWS, **same_rows.WORDS)
    rows = same_rows.asked().to_pylist()
    spine = spine_of([*rows, {"user": None, "event_timestamp": NOON}])
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(hours=7))) as store:
        found, compared = engine.same(
            store, spine, same_rows.views(source), tmp_path, with_status=True, with_event_time=True
        )
    assert {*found["plain__wide__status"].to_pylist()} == {"PRESENT", "MISSING", "EXPIRED"}
    tell(engine.name, version=engine.version, ran="as one machine answers", compared=compared)


def test_a_project_with_arrivals_pushes_and_functions(engine: EngineKind, tmp_path: Path, tell: Any) -> None:
    """Rows of files that count from when the store saw them, a push log with corrections, and code of the repository, which no
    executor has."""
    expected = golden_project.copy("0.1.0", tmp_path / "golden")
    with FeatureStore(tmp_path / "golden", clock=ManualClock(datetime.fromisoformat(expected["at"]))) as store:
        spine = golden_project.spine()
        spine = spine.add_column(0, "id", pa.array(range(spine.num_rows)))
        _, compared = engine.same(store, spine, "ride_model", tmp_path, with_status=True, with_event_time=True)
        audit = engine.engine_of(store).audit(keep=False)
        assert audit.to_dict() == store.audit(keep=False).to_dict()
        assert (audit.compared, audit.skewed) == (expected["compared"], 0)
        (frame,) = store.registry.frames()
        assert (frame.rows, frame.path) == (spine.num_rows, str(tmp_path / "out0"))
        by_key: dict[tuple[str, ...], list[Any]] = {}
        for part in store._project.service("ride_model").parts:
            by_key.setdefault(part.inputs, []).append(part.view.declared)
        for views in by_key.values():
            at = [datetime.fromisoformat(expected["at"]), datetime.fromisoformat(expected["at"]) - timedelta(hours=5)]
            compared += engine.same_snapshot(store, views, at, tmp_path, with_status=True)[1]
    tell(engine.name, version=engine.version, ran="as one machine answers", compared=compared)


def test_several_entities_and_functions_over_them(engine: EngineKind, tmp_path: Path) -> None:
    """One shuffle for each key, the functions last; an entity without keys, whose rows go to every partition; a source by two keys."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "featurestore.toml").write_text('project = "p"\nonline = "lmdb://online"\n')
    (folder / "beside.py").write_text(
        "RATE = 3\n\n\ndef scaled(value):\n    return None if value is None else value * RATE\n"
    )
    write(
        folder / "trips.parquet",
        user=[1, 2, 1, 3],
        city=["a", "b", "b", None],
        at=[ago(3), ago(2), ago(1), ago(1)],
        x=[1.5, -0.0, 2.0, 4.0],
    )
    write(folder / "world.parquet", at=[ago(5), ago(1)], level=[1, 2])
    (folder / "definitions.py").write_text(
        "from featurestore import *\nfrom featurestore.types import Float64, Int64, String\nfrom beside import scaled\n"
        "trips = ParquetSource('trips', 'trips.parquet', event_time='at')\n"
        "world = ParquetSource('world', 'world.parquet', event_time='at')\n"
        "user, city, everything = Entity('user', key={'user': Int64}), Entity('city', key={'city': String}), Entity('everything', key={})\n"
        "users = FeatureView('users', entity=user, source=trips, refresh='1h', features={'x': Latest('x'), 'n': Count(window='1d')})\n"
        "cities = FeatureView('cities', entity=city, source=trips, refresh='1h', features={'x': Sum('x', window='1d'), 'last': Latest('user')})\n"
        "levels = FeatureView('levels', entity=everything, source=world, refresh='1h', features=['level'])\n"
        "@on_demand(inputs=[users['x'], cities['last'], Request('add', Float64), RequestTime()], output=Float64)\n"
        "def both(x, last, add, at):\n    return None if x is None or last is None else scaled(x) + last + add + at.hour\n"
        "model = FeatureService('model', features=[cities['x'], both, levels, users['n'], users.alias('friend', key={'user': 'friend'})])\n"
    )
    spine = spine_of(
        [{"user": user, "friend": 3 - number % 3, "city": city, "add": 0.5, "event_timestamp": ago(number % 4)}
         for number, (user, city) in enumerate([(1, "a"), (2, "b"), (3, None), (None, "b"), (9, "z"), (1, "b")] * 3)],
        friend=pa.int32(),
    )  # fmt: skip
    with FeatureStore(folder, clock=ManualClock(NOON)) as store:
        found, _ = engine.same(store, spine, "model", tmp_path, with_status=True, with_event_time=True)
        assert found["both"].null_count < len(found)
        with pytest.raises(
            SourceError, match=r"'world' goes to every task, since its entity has no keys.*send_bytes=10"
        ):
            engine.frame(store, spine, "model", tmp_path / "none", send_bytes=10)
        with pytest.raises(SpineError, match="no input column 'city'"):
            engine.frame(store, spine.drop_columns("city"), "model", tmp_path / "none")


def test_a_correction_that_moves_a_row_to_another_key(engine: EngineKind, tmp_path: Path) -> None:
    """Partitioned by key alone the old key would keep the row that was replaced."""
    number = 60
    rows = {
        "row": [*range(number), *range(number), 500, None],
        "user": [n % 9 for n in range(number)]
        + [None if n % 10 == 0 else (n + 1 + n % 3) % 9 for n in range(number)]
        + [3, 4],
        "at": [ago(9)] * number + [ago(8)] * number + [ago(7)] * 2,
        "seen": [ago(6)] * number + [ago(2)] * number + [ago(5)] * 2,
        "gone": [False] * number + [n % 7 == 0 for n in range(number)] + [False] * 2,
        "x": [float(n) for n in range(2 * number + 2)],
    }
    path = write(
        tmp_path / "rows.parquet",
        **{**rows, "row": pa.array(rows["row"], pa.int64()), "user": pa.array(rows["user"], pa.int64())},
    )
    source = ParquetSource("rows", path, event_time="at", known_at="seen", identity="row", deleted="gone")
    views = [
        FeatureView(
            "view",
            entity=USER,
            source=source,
            refresh="1h",
            features={"x": Latest("x"), "n": Count(window="2d"), "sum": Sum("x", window="2d")},
        )
    ]
    spine = spine_of([{"user": user, "event_timestamp": ago(at)} for user in [*range(10), None] for at in (0, 3, 7)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        found, _ = engine.same(store, spine, views, tmp_path, with_status=True, partitions=5)
    assert len({*found["view__n"].to_pylist()}) > 3


def test_rows_that_are_not_as_expected(engine: EngineKind, tmp_path: Path) -> None:
    """A quarantined version leaves the good one in place, in each view by what it expects; how many are left out is counted once, and
    where one refuses there is no frame."""
    number = 40
    rows: dict[str, Any] = {
        "row": [n // 2 for n in range(number)],
        "user": [n // 2 % 7 for n in range(number)],
        "at": [ago(9)] * number,
        "seen": [ago(6 - n % 2) for n in range(number)],
        "gone": [n % 11 == 0 for n in range(number)],
        "x": [500.0 if n % 3 == 0 else float(n) for n in range(number)],
        "code": ["B" if n % 5 == 0 else None if n % 4 == 0 else "A" for n in range(number)],
    }
    path = write(tmp_path / "rows.parquet", **rows)
    low = InRange("x", at_most=100, otherwise="quarantine")

    def views(refused: bool = False) -> list[FeatureView]:
        source = ParquetSource(
            "rows", path, event_time="at", known_at="seen", identity="row", deleted="gone",
            expectations=[low, NotNull("code", otherwise="warn"), Unique(["row", "seen"])],
        )  # fmt: skip
        features = {"x": Latest("x"), "n": Count(window="2d"), "sum": Sum("x", window="2d")}
        own = Matches("code", "A", otherwise="refuse" if refused else "quarantine")
        return [
            FeatureView(name, entity=USER, source=source, refresh="1h", features=features, expectations=said)
            for name, said in (("plain", []), ("strict", [own]))
        ]

    spine = spine_of([{"user": user, "event_timestamp": ago(at)} for user in range(8) for at in (0, 5.5, 7)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        found, _ = engine.same(store, spine, views(), tmp_path, with_status=True, partitions=5)
        expected = store.get_historical_features(spine, views()).manifest["unmet_expectations"]
        manifest = engine.frame(store, spine, views(), tmp_path / "counted")
        assert manifest["unmet_expectations"] == expected
        assert expected["strict"][low.title] == expected["plain"][low.title] > 3
        with pytest.raises(ExpectationError, match="do not meet Matches"):
            engine.frame(store, spine, views(refused=True), tmp_path / "refused")
        with pytest.raises(ExpectationError, match="do not meet Matches"):
            engine.rows(store, spine, views(refused=True))
    assert found["plain__n"].to_pylist() != found["strict__n"].to_pylist()


def test_a_history_that_is_not_as_expected(engine: EngineKind, tmp_path: Path) -> None:
    """Its rows go along with the tasks, and refuse before anything is begun; those that are quarantined count nowhere."""
    write(tmp_path / "old.parquet", user=[1, 2, 3], at=[ago(9), ago(8), ago(7)], x=[1.0, 500.0, 3.0])

    def pushed(otherwise: str) -> FeatureView:
        source = PushSource(
            "pushed", schema={"user": Int64, "at": Timestamp, "x": Float64}, event_time="at", cutover=ago(1),
            history=ParquetSource("old", tmp_path / "old.parquet", event_time="at", known_after="1m"),
            expectations=[InRange("x", at_most=100, otherwise=otherwise)],
        )  # fmt: skip
        return FeatureView("view", entity=USER, source=source, features={"x": Latest("x"), "n": Count(window="2d")})

    spine = spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2, 3)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        found, _ = engine.same(store, spine, [pushed("quarantine")], tmp_path, with_status=True)
        assert found["view__x"].to_pylist() == [1.0, None, 3.0]
        with pytest.raises(ExpectationError, match="1 row does not meet InRange"):
            store.get_historical_features(spine, [pushed("refuse")])
        with pytest.raises(ExpectationError, match="1 row does not meet InRange"):
            engine.frame(store, spine, [pushed("refuse")], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_null_keys_and_a_hot_key_are_answered(engine: EngineKind, tmp_path: Path) -> None:
    """Rows without a key meet nothing, and so need not be in one partition; those of one key are, within the memory of a task."""
    count = 20_000
    path = write(
        tmp_path / "rows.parquet",
        user=[7] * count,
        at=[NOON - timedelta(seconds=n) for n in range(count)],
        x=[float(n) for n in range(count)],
    )
    view = FeatureView(
        "view",
        entity=USER,
        source=ParquetSource("rows", path, event_time="at"),
        refresh="1h",
        features={"x": Latest("x"), "m": Mean("x", window="1h")},
    )
    spine = spine_of(
        [{"user": [7, None, 8][n % 3], "event_timestamp": NOON - timedelta(seconds=n)} for n in range(3_000)]
    )
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        engine.same(store, spine, [view], tmp_path, memory_limit="100MB", partitions=4)


TYPES: dict[str, Any] = {
    "i8": pa.array([1, -128], pa.int8()), "u8": pa.array([200, None], pa.uint8()), "i16": pa.array([1, None], pa.int16()),
    "u16": pa.array([65_535, 0], pa.uint16()), "i32": pa.array([1, None], pa.int32()), "u32": pa.array([4_000_000_000, 1], pa.uint32()),
    "i64": pa.array([2**62, None]), "u64": pa.array([2**63 - 1, 1], pa.uint64()), "f32": pa.array([0.1, -0.0], pa.float32()),
    "f64": pa.array([-0.0, float("nan")]), "flag": pa.array([True, None]), "text": pa.array(["한", ""]), "large": pa.array(["x", None], pa.large_string()),
    "bytes": pa.array([b"x", b""]), "fixed": pa.array([b"abcd", None], pa.binary(4)), "day": pa.array([date(1500, 1, 1), date(2026, 1, 1)]),
    "zoned": pa.array([datetime(1500, 1, 1, 3, tzinfo=UTC), NOON], pa.timestamp("us", "UTC")), "naive": pa.array([datetime(2026, 1, 1, 3), None], pa.timestamp("us")),
    "millis": pa.array([NOON, None], pa.timestamp("ms", "UTC")), "few": pa.array([Number("1.23"), None], pa.decimal128(9, 2)),
    "many": pa.array([Number("1.23"), None], pa.decimal128(38, 2)), "list": pa.array([[1, None], []]), "floats": pa.array([[0.5], None], pa.list_(pa.float32())),
    "coded": pa.array(["x", "y"]).dictionary_encode(),
}  # fmt: skip


def test_types_of_files(engine: EngineKind, tmp_path: Path) -> None:
    """Whatever an engine reads as another type goes back to the file's own, where that is exact."""
    path = write(tmp_path / "rows.parquet", user=[1, 2], at=[ago(1)] * 2, **TYPES)
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=list(TYPES)
    )
    spine = spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2, 3)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        engine.same(store, spine, [view], tmp_path)


ODD_TYPES: dict[str, Any] = {
    "nanos": pa.array([1_001, None], pa.int64()).cast(pa.timestamp("ns")), "lists of bytes": pa.array([[200], [1]], pa.list_(pa.uint8())),
    "half": pa.array([1.5, None]).cast(pa.float16()),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD_TYPES)
def test_types_that_an_engine_may_not_have(kind: str, engine: EngineKind, tmp_path: Path) -> None:
    """An engine that reads files by our own code has all of them; another says by name what it has not."""
    path = write(tmp_path / "rows.parquet", user=[1, 2], at=[ago(1)] * 2, v=ODD_TYPES[kind])
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["v"]
    )
    spine = spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2, 3)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        if engine.exact:
            engine.same(store, spine, [view], tmp_path)
        else:
            with pytest.raises(SourceError, match="[Ss]ource 'rows'"):
                engine.frame(store, spine, [view], tmp_path / "none")


def test_keys_and_identities_that_are_derived(engine: EngineKind, tmp_path: Path) -> None:
    """They are computed by our own code, or refused by name."""
    path = write(
        tmp_path / "rows.parquet", text=["1", "2", "1", "3"], part=["a", "b", "a", None], at=[ago(3)] * 4,
        seen=[ago(3), ago(2), ago(1), ago(1)], x=[1.0, 2.0, 3.0, 4.0],
    )  # fmt: skip
    derived = {"who": "CAST(text AS BIGINT)", "name": "part || '!'"}
    source = ParquetSource("rows", path, event_time="at", known_at="seen", derived=derived, identity="name")
    features = {"x": Latest("x"), "n": Count(window="1d")}
    view = FeatureView("view", entity=USER, source=source, key={"user": "who"}, refresh="1h", features=features)
    spine = spine_of([{"user": user, "event_timestamp": ago(at)} for user in (1, 2, 3) for at in (0, 1.5)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        if engine.exact:
            found, _ = engine.same(store, spine, [view], tmp_path, with_status=True)
            assert found["view__x"].to_pylist() == [3.0, 1.0, 2.0, 2.0, None, None]
        else:
            with pytest.raises(SourceError, match="its key column 'who' is derived"):
                engine.frame(store, spine, [view], tmp_path / "none")


def test_rows_of_a_delta_table_count_from_their_commits(engine: EngineKind, tmp_path: Path) -> None:
    """As they do on one machine, also of a table that nobody has looked at before."""
    before = datetime.now(UTC) - timedelta(hours=1)
    rows = pa.table({"user": [1, 2], "at": pa.array([before] * 2, pa.timestamp("us", "UTC")), "x": [1.5, None]})
    deltalake.write_deltalake(tmp_path / "rows", rows)
    deltalake.write_deltalake(tmp_path / "rows", rows.slice(0, 1), mode="append")
    source = DeltaSource("rows", tmp_path / "rows", event_time="at", known_at=ARRIVAL)
    view = FeatureView(
        "view", entity=USER, source=source, refresh="continuous", features={"x": Latest("x"), "n": Count(window="2d")}
    )
    instants = [before + timedelta(minutes=30), before + timedelta(hours=2)]
    asked = [{"user": user, "event_timestamp": at} for user in (1, 2, 3) for at in instants]
    with FeatureStore.local(clock=ManualClock(before + timedelta(days=1))) as store:
        found, _ = engine.same(store, spine_of(asked), [view], tmp_path, with_status=True)
        engine.same_snapshot(store, [view], instants, tmp_path, with_status=True)
    assert found["view__n"].to_pylist() == [None, 2, None, 1, None, None]


def test_frames_and_snapshots_are_made_again(engine: EngineKind, tmp_path: Path) -> None:
    """Of the version of a table, and of the files, that the first one's manifest names; what is gone is told before anything runs."""
    table, folder = tmp_path / "table", tmp_path / "files"

    def rows(*amounts: float) -> pa.Table:
        at = pa.array([ago(3)] * len(amounts), pa.timestamp("us", "UTC"))
        return pa.table({"user": [1] * len(amounts), "at": at, "x": list(amounts)})

    deltalake.write_deltalake(table, rows(1, 2))
    write(folder / "a.parquet", user=[1], at=[ago(2)], x=[5.0])
    views = [
        FeatureView(source.name, entity=USER, source=source, refresh="1h", features={"n": Count(window="2d"), "sum": Sum("x", window="2d")})
        for source in (DeltaSource("table", table, event_time="at"), ParquetSource("files", folder, event_time="at"))
    ]  # fmt: skip
    spine = spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.get_historical_features(spine, views).to_parquet(tmp_path / "first.parquet")
        deltalake.DeltaTable(table).delete("x = 1")
        deltalake.write_deltalake(table, rows(7, 8, 9), mode="append")
        write(folder / "b.parquet", user=[1, 2], at=[ago(2)] * 2, x=[6.0, 7.0])
        words = {"sources_as_in": tmp_path / "first.parquet"}
        newest, _ = engine.same(store, spine, views, tmp_path)
        found, _ = engine.same(store, spine, views, tmp_path, **words)
        at_noon, _ = engine.same_snapshot(store, views, NOON, tmp_path, **words)
        names = ["table__n", "table__sum", "files__n", "files__sum"]
        assert newest.sort_by("id").select(names).to_pylist()[0] == dict(zip(names, (4, 26.0, 2, 11.0), strict=True))
        first = dict(zip(names, (2, 3.0, 1, 5.0), strict=True))
        assert found.sort_by("id").select(names).to_pylist() == [first, dict.fromkeys(names)]
        assert at_noon.select(names).to_pylist() == [first]
        deltalake.DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)
        with pytest.raises(SourceError, match="The rows of table_version 0, which the manifest of .* cannot be read"):
            engine.frame(store, spine, views, tmp_path / "none", **words)
        with pytest.raises(SourceError, match="The rows of table_version 0, which the manifest of .* cannot be read"):
            engine.snapshot(store, views, NOON, tmp_path / "none", **words)


def test_a_delta_table_that_is_materialized(engine: EngineKind, redis_server: RedisServer, tmp_path: Path) -> None:
    """By the files of each version: rows that were appended, and a version that took rows away."""
    rows = pa.table({"user": [1, 2, 3], "at": pa.array([ago(9)] * 3, pa.timestamp("us", "UTC")), "x": [1.5, None, 2.5]})
    deltalake.write_deltalake(tmp_path / "rows", rows)
    source = DeltaSource("rows", tmp_path / "rows", event_time="at")
    features = {"x": Latest("x"), "n": Count(window="2d")}
    with Pair(redis_server, tmp_path, engine.engine_of) as pair:
        pair.apply(FeatureView("view", entity=USER, source=source, refresh="1h", features=features))
        assert [run.keys for run in pair.run()] == [3]
        pair.clock.advance(timedelta(hours=1))
        deltalake.write_deltalake(tmp_path / "rows", rows.slice(1, 1), mode="append")
        assert [(run.keys, run.full) for run in pair.run()] == [(1, False)]
        pair.clock.advance(timedelta(hours=1))
        deltalake.DeltaTable(tmp_path / "rows").delete("user = 1")
        assert [(run.keys, run.full) for run in pair.run()] == [(2, True)]


def test_random_histories(engine: EngineKind) -> None:
    """Folds over windows, with whatever a source says of identity, deletion, known_at, validity and zones: what one machine says,
    which tests/test_training.py and tests/test_windows.py compare with the oracle."""

    @settings(
        max_examples=draws(DRAWS[engine.name]), deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(world=folded_histories(), files=st.integers(1, 3), seed=st.integers(0, 99))
    def check(world: tuple[History, list[FoldSpec], bool], files: int, seed: int) -> None:
        history, specs, plain = world
        with tempfile.TemporaryDirectory() as folder, FeatureStore.local(clock=ManualClock(NOON)) as store:
            Path(folder, "rows").mkdir()
            paths = write_parquet(to_arrow(history.rows, history.types), Path(folder, "rows"), files=files, seed=seed)
            spine = spine_of_history(history)
            spine = spine.append_column("id", pa.array(range(len(spine)), pa.int64()))
            view = folding(history, specs, plain=plain, paths=paths)
            engine.same(store, spine, [view], Path(folder), with_status=True, with_event_time=True)
            engine.same_snapshot(store, [view], [NOON, ago(5)], Path(folder), with_status=True)

    check()


def test_random_histories_that_are_materialized(engine: EngineKind, redis_server: RedisServer) -> None:
    """The same: every key and byte, of all keys and then of those that may have changed."""

    @settings(
        max_examples=draws(RUN_DRAWS[engine.name]),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(world=folded_histories(), files=st.integers(1, 3), seed=st.integers(0, 99))
    def check(world: tuple[History, list[FoldSpec], bool], files: int, seed: int) -> None:
        history, specs, plain = world
        with tempfile.TemporaryDirectory() as folder, Pair(redis_server, Path(folder), engine.engine_of) as pair:
            Path(folder, "rows").mkdir()
            paths = write_parquet(to_arrow(history.rows, history.types), Path(folder, "rows"), files=files, seed=seed)
            pair.apply(folding(history, specs, plain=plain, paths=paths))
            for instant in (history.instants[0], history.instants[-1]):
                pair.clock.set(to_datetime(instant))
                pair.run()

    check()


def test_random_histories_that_are_audited(engine: EngineKind, redis_server: RedisServer) -> None:
    """The same: what was served, and why it is not what training says, where half of the records were lost."""

    @settings(
        max_examples=draws(AUDIT_DRAWS[engine.name]),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(world=folded_histories(), files=st.integers(1, 3), seed=st.integers(0, 99))
    def check(world: tuple[History, list[FoldSpec], bool], files: int, seed: int) -> None:
        history, specs, plain = world
        with tempfile.TemporaryDirectory() as folder, Pair(redis_server, Path(folder), engine.engine_of) as pair:
            Path(folder, "rows").mkdir()
            paths = write_parquet(to_arrow(history.rows, history.types), Path(folder, "rows"), files=files, seed=seed)
            pair.apply(folding(history, specs, plain=plain, paths=paths))
            rows = spine_of_history(history).drop_columns("event_timestamp").to_pylist()
            asked = [dict(key) for key in dict.fromkeys(tuple(row.items()) for row in rows)]
            pair.clock.set(to_datetime(history.instants[-1]))
            pair.other.materialize(progress=False)
            with suppress(NotMaterializedError):  # where no instant was complete by then
                pair.other.get_online_features(asked, "service")
                pair.lose("view", [[*key.values()] for key in asked[::2] if None not in key.values()])
                pair.other.get_online_features(asked, "service")
            pair.audited()

    check()


@pytest.mark.parametrize("forgets", [False, True])
def test_pushes_functions_and_forgotten_keys(forgets: bool, engine: EngineKind, tmp_path: Path, tell: Any) -> None:
    """Corrections, deletions and validity of pushed rows; two keys in one service; and keys that were forgotten since."""
    with shop(tmp_path) as store:
        if forgets:
            store.forget("user", {"user_id": KEYS[3]})
        views = [store.catalog.views[name] for name in ("cards", "pairs", "users", "sums")]
        features = FeatureService("all", features=[*views, *store.catalog.services["model"].on_demand])
        rows = [(key, *PAIRS[number % len(PAIRS)]) for number, key in enumerate([*KEYS, "nobody"])]
        spine = spine_of(
            [
                {"user_id": key, "carrier": carrier, "flight": flight, "add": number, "event_timestamp": SHOP_NOON}
                for number, (key, carrier, flight) in enumerate(rows)
            ]
        )
        found, compared = engine.same(store, spine, features, tmp_path, with_status=True)
        of_key = dict(zip(found["user_id"].to_pylist(), found["cards__text__status"].to_pylist(), strict=True))
        assert (of_key[KEYS[3]] == "MISSING") >= forgets
    tell(engine.name, version=engine.version, ran="as one machine answers", compared=compared)


def test_rows_of_forgotten_keys_in_files(engine: EngineKind, tmp_path: Path) -> None:
    """They count for nobody, though they still lie in the files that tasks read."""
    path = write(tmp_path / "rows.parquet", user=[1, 2, 1], at=[ago(3), ago(2), ago(1)], x=[1.0, 2.0, 3.0])
    source = ParquetSource("rows", path, event_time="at")
    view = FeatureView(
        "view", entity=USER, source=source, refresh="1h", features={"x": Latest("x"), "n": Count(window="1d")}
    )
    spine = spine_of([{"user": user, "event_timestamp": NOON} for user in (1, 2, 3)])
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.apply([view])
        store.forget("user", {"user": 1})
        found, _ = engine.same(store, spine, [view], tmp_path, with_status=True)
    assert found["view__x"].to_pylist() == [None, 2.0, None]


def test_a_spine_that_has_no_row(engine: EngineKind, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", user=[1, None], at=[ago(1)] * 2, x=[1.0, 2.0])
    view = FeatureView(
        "view", entity=USER, source=ParquetSource("rows", path, event_time="at"), refresh="1h", features=["x"]
    )
    spine = spine_of([{"user": 1, "event_timestamp": NOON}]).slice(1)
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        found, _ = engine.same(store, spine, [view], tmp_path, with_status=True)
    assert len(found) == 0


def slots(path: Path, slot: pa.Array, **words: Any) -> FeatureView:
    """A view whose key is an instant."""
    rows = write(path, slot=slot, at=[ago(9)] * 3, x=[1.0, 2.0, 3.0])
    source = ParquetSource("rows", rows, event_time="at", **words)
    entity = Entity("slot", key={"slot": Timestamp})
    return FeatureView("view", entity=entity, source=source, refresh="1h", features=["x"])


NAIVE = [datetime(2026, 3, 1, hour) for hour in (0, 1, 2)]
ZONED = pa.array([at.replace(tzinfo=UTC) for at in NAIVE], pa.timestamp("us", "UTC"))


@pytest.mark.parametrize("spine_is_zoned", [True, False])
def test_a_key_that_is_an_instant_without_a_zone(spine_is_zoned: bool, engine: EngineKind, tmp_path: Path) -> None:
    """It meets the same instant with one, whatever the zone of a session is."""
    without = pa.array(NAIVE, pa.timestamp("us"))
    view = slots(tmp_path / "rows.parquet", without if spine_is_zoned else ZONED)
    spine = spine_of([{"slot": at, "event_timestamp": NOON} for at in NAIVE], slot=pa.timestamp("us"))
    if spine_is_zoned:
        spine = spine.set_column(1, "slot", ZONED)
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        found, _ = engine.same(store, spine, [view], tmp_path, partitions=7)
    assert found["view__x"].to_pylist() == [1.0, 2.0, 3.0]


def test_a_key_that_is_an_instant_in_a_zone_of_its_own(engine: EngineKind, tmp_path: Path) -> None:
    """Keys are read by our own code, or the column is refused: an engine might take another instant for it."""
    seoul = pa.array([at + timedelta(hours=9) for at in NAIVE], pa.timestamp("us"))
    view = slots(tmp_path / "rows.parquet", seoul, timezone="Asia/Seoul")
    spine = spine_of([{"slot": at, "event_timestamp": NOON} for at in NAIVE], slot=pa.timestamp("us"))
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        if engine.exact:
            found, _ = engine.same(store, spine, [view], tmp_path, partitions=7)
            assert found["view__x"].to_pylist() == [1.0, 2.0, 3.0]
            return
        with pytest.raises(
            SourceError, match="its key column 'slot' has instants without a zone, which are read in Asia/"
        ):
            engine.frame(store, spine, [view], tmp_path / "none")
        view = slots(tmp_path / "zoned.parquet", ZONED)
        with pytest.raises(
            SpineError, match="Spine key column 'slot' has instants without a zone, which are read in Asia/"
        ):
            engine.frame(store, spine, [view], tmp_path / "none", timezone="Asia/Seoul")


def test_files_are_those_that_were_listed(engine: EngineKind, tmp_path: Path) -> None:
    """Files of a source differ in their columns, and lie in folders that are columns; rows count from when their file came."""
    folder = tmp_path / "da[t]a *{x}"
    write(folder / "day=1" / "a b.parquet", user=[1], at=[ago(9)], x=pa.array([1], pa.int32()))
    write(folder / "day=2" / "b%20.parquet", user=[1], at=[ago(8)], x=pa.array([2**40]), y=["y"])
    source = ParquetSource("rows", folder, event_time="at", known_at=ARRIVAL, optional="y", partitions={"day": Int64})
    features = {"x": Latest("x", type=Int64), "y": Latest("y"), "day": Latest("day"), "n": Count(window="2d")}
    view = FeatureView("view", entity=USER, source=source, refresh="continuous", features=features)
    clock = ManualClock(ago(5))
    spine = spine_of([{"user": user, "event_timestamp": ago(at)} for user in (1, 2) for at in (0, 4, 6)])
    with FeatureStore.local(clock=clock) as store:
        store.apply([view])
        store.materialize(progress=False)
        clock.set(ago(1))
        write(folder / "day=3" / "c.parquet", user=[2], at=[ago(8)], x=pa.array([3]), y=["z"])
        found, _ = engine.same(store, spine, [view], tmp_path, with_status=True)
    assert found["view__n"].to_pylist()[:3] == [2, 2, None]


@pytest.mark.parametrize("verb", ["frame", "snapshot", "materialize", "audit"])
def test_a_worker_that_is_killed_changes_nothing(
    verb: str, engine: EngineKind, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Its tasks, and what was lost with it, are done again: the same bits, and each partition counted once."""
    if engine.workers is None:
        assert engine.name == "here"  # it has no process to lose but this one
        return
    count = 60_000
    path = write(
        tmp_path / "rows.parquet", user=[n % 500 for n in range(count)], row=list(range(count)), at=[NOON - timedelta(seconds=n) for n in range(count)],
        seen=[NOON - timedelta(seconds=n - 60) for n in range(count)], x=[n / 7 for n in range(count)],
    )  # fmt: skip
    source = ParquetSource("rows", path, event_time="at", known_at="seen", identity="row")
    view = FeatureView(
        "view", entity=USER, source=source, refresh="1h", features={"x": Latest("x"), "m": Mean("x", window="1d")}
    )
    spine = spine_of([{"user": n % 600, "event_timestamp": NOON - timedelta(seconds=n)} for n in range(5_000)])
    killed: list[int] = []
    done = Event()

    def kill() -> None:
        assert engine.workers is not None
        while not done.wait(0.02) and not killed:
            for victim in engine.workers()[:1]:
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    killer = Thread(target=kill)
    with FeatureStore.local(clock=ManualClock(NOON)) as store, Pair(redis_server, tmp_path, engine.engine_of) as pair:
        pair.apply(view)
        if verb == "audit":
            pair.other.materialize(progress=False)
            for _ in range(3):
                pair.other.get_online_features([{"user": user} for user in range(600)], "service")
                pair.other._project.serving_log.flush()
            pair.lose("view", [[7]])
            pair.other.get_online_features([{"user": 7}], "service")
        killer.start()
        try:
            if verb == "frame":
                engine.same(store, spine, [view], tmp_path, partitions=6)
            elif verb == "snapshot":
                engine.same_snapshot(store, [view], [NOON, ago(3), ago(6)], tmp_path, partitions=6)
            elif verb == "materialize":
                assert [run.keys for run in pair.run()] == [500]
            else:
                assert pair.audited().causes == {"not materialized": 2}
        finally:
            done.set()
            killer.join()
    assert killed


def test_snapshots(engine: EngineKind, tmp_path: Path, tell: Any) -> None:
    """Every key that any row ever had, those that a correction took rows from too, at several instants; views over files and frames
    together, by keys of two columns; and an entity without keys."""
    users = [None if n % 10 == 0 else n % 9 for n in range(60)]
    rows = write(
        tmp_path / "rows.parquet", row=[n // 2 for n in range(60)], user=pa.array(users, pa.int64()), day=[date(2026, 3, 1 + n % 2) for n in range(60)],
        at=[ago(9)] * 60, seen=[ago(6 - n % 2) for n in range(60)], gone=[n % 11 == 0 for n in range(60)], x=[n / 7 for n in range(60)],
    )  # fmt: skip
    world = write(tmp_path / "world.parquet", at=[ago(5), ago(1)], level=[1, 2])
    entity = Entity("of_day", key={"user": Int64, "day": Date})
    source = ParquetSource("rows", rows, event_time="at", known_at="seen", identity="row", deleted="gone")
    frame = pa.table(
        {"user": [3, 77, None], "day": [date(2026, 3, 2)] * 3, "at": pa.array([ago(2)] * 3, pa.timestamp("us", "UTC"))}
    )
    many = {"x": Latest("x"), "n": Count(window="2d"), "sum": Sum("x", window="2d")}
    views = [
        FeatureView("many", entity=entity, source=source, refresh="1h", features=many),
        FeatureView("few", entity=entity, source=DataFrameSource("few", frame, event_time="at"), refresh="1h", features={"n": Count(window="1d")}),
    ]  # fmt: skip
    level = FeatureView(
        "level", entity=Entity("world", key={}), source=ParquetSource("world", world, event_time="at"), refresh="1h", features=["level"]
    )  # fmt: skip
    at = [NOON, ago(5.5), ago(100)]
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        found, compared = engine.same_snapshot(store, views, at, tmp_path, with_status=True, partitions=4)
        assert {*found["many__n"].to_pylist()} >= {None, 2}
        assert 77 in found["user"].to_pylist()
        naive = NOON.replace(tzinfo=None)
        whole, _ = engine.same_snapshot(store, [level], [naive, ago(4)], tmp_path)
        assert whole["level__level"].to_pylist() == [1, 2]
        with pytest.raises(SpineError, match="A snapshot needs views of one key"):
            engine.snapshot(store, [*views, level], at, tmp_path / "none")
        with pytest.raises(RequestError, match="at: '2026' is no instant"):
            engine.snapshot(store, views, "2026", tmp_path / "none")
    tell(engine.name, version=engine.version, ran="as one machine answers", compared=compared)


def test_materialize(engine: EngineKind, redis_server: RedisServer, tmp_path: Path, tell: Any) -> None:
    """Every key and byte in Redis is what one machine writes: of every type and several keys, of rows that move to other keys, of all
    keys and of those that may have changed, again, and where keys vanished."""
    folder, rows = tmp_path / "rows", same_rows.table(same_rows.ROWS)
    folder.mkdir()

    def put(name: str, table: pa.Table) -> None:
        pq.write_table(storable(table.rename_columns({"embedding": "list"})), folder / name)

    put("a.parquet", rows.slice(0, 35))
    source = ParquetSource("typed", folder, derived={"embedding": "CAST(list AS FLOAT[2])"}, **same_rows.WORDS)
    by_text = FeatureView(
        "by_text", entity=Entity("text", key={"text": String, "flag": Bool}), source=source, features=["big", "wide"]
    )
    correcting = of_moved(write(tmp_path / "moved.parquet", **moved()))
    with Pair(redis_server, tmp_path, engine.engine_of) as pair:
        pair.apply(*same_rows.views(source), by_text, correcting.alias("moved", key={"user": "mover"}))
        pair.clock.set(NOON - timedelta(hours=1))
        first = pair.run()
        assert {run.full for run in first} == {True}
        pair.clock.set(NOON + timedelta(hours=4, minutes=5))
        put("b.parquet", rows.slice(35))
        changed = pair.run()
        assert False in {run.full for run in changed}
        before = pair.check()
        put("a.parquet", rows.slice(0, 35).filter(pc.not_equal(rows["user"].slice(0, 35), "u1")))
        put("b.parquet", rows.slice(35).filter(pc.not_equal(rows["user"].slice(35), "u1")))
        again = pair.run(full=True)
        assert {run.again for run in again} == {True}
        after = pair.check()
    tell(engine.name, version=engine.version, ran="as one machine answers", compared=before + after)


def test_audit(engine: EngineKind, tmp_path: Path, tell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is that of one machine, its causes and examples too: of files that came late, of records that were lost, went through a
    narrower type or expired, of functions over them, and of a version that a model was not trained on."""
    with ExitStack() as stack:
        world = World(tmp_path, f"lmdb://{tmp_path}/online", stack)
        log = world.store._project.serving_log

        def apply(**words: Any) -> None:
            @on_demand(inputs=[world.view(**words)["x"], Request("by", Float64)], output=Float64)
            def scaled(x, by):
                return None if x is None else x * by

            world.apply(scaled, **words)

        apply()
        for hour in range(2):
            world.run()
            world.store.push("pushed", [{"thing": n, "happened": world.clock(), "x": n / 7} for n in range(3)])
            world.tamper(
                2, {"x": float(np.float32(value(10 + hour, 2)))}, event_time=START + timedelta(hours=10.5 + hour)
            )
            world.ask(by=2.0 + hour)
            log.flush()  # a file of the log
        world.store.online.write({world.codec().key([0]): None})
        world.tamper(4, {}, event_time=START + timedelta(hours=2))
        world.ask(by=0.5)
        log.flush()
        trained = world.store._project.service("service").fingerprint
        world.write("late", rows_of(11, 1, shift=100.0).slice(3, 1))
        apply(ttl="20m")
        world.run()
        world.ask(by=1.0)
        found, real, by_tasks = engine.engine_of(world.store), EngineAudit.compared, list[bool]()

        def compared(self: EngineAudit, *given: Any) -> bool:
            by_tasks.append(real(self, *given))
            return by_tasks[-1]

        monkeypatch.setattr(EngineAudit, "compared", compared)
        for words in ({}, {"since": "90m", "service": "service"}, {"against": {"service": trained}}):
            expected = world.store.audit(**words, keep=False)
            assert found.audit(**words, keep=False).to_dict() == expected.to_dict()
            told = set(expected.causes)
            assert told >= ({"definition changed"} if "against" in words else set())
        everything = world.store.audit(keep=False)
        assert by_tasks
        assert all(by_tasks)
        assert {*everything.causes} >= {"late data", "not materialized", "definition changed", "type or encoding"}
        assert any(example.explanation for feature in found.audit().features for example in feature.examples)
        names = ["request", "row", "input:thing"]
        logged = pa.concat_tables(
            [pq.read_table(path, columns=names) for path in sorted(log.folder.rglob("*.parquet"))]
        )
        spine = logged.rename_columns({"input:thing": "thing"}).slice(3)
        other = spine.slice(0, 1).set_column(0, "request", pa.array(["nobody's"]))
        spine = pa.concat_tables([spine, other]).set_column(2, "thing", pa.array([4, *range(len(spine))]))
        against = world.store.audit(spine=spine, keep=False)
        assert (against.not_served, against.not_trained) == (1, 3)
        assert "request value differed" in against.causes
        assert found.audit(spine=spine, keep=False).to_dict() == against.to_dict()
    tell(engine.name, version=engine.version, ran="as one machine answers", compared=everything.compared)

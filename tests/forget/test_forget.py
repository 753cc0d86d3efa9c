"""A key that is forgotten is nowhere any more, and online and training go on saying the same."""

from __future__ import annotations

import decimal
import shutil
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.errors import FilesChangedError, LogError, NotFoundError, RequestError, SourceError
from featurestore.sources.log import FileLog
from featurestore.sources.push_logs import LATE
from featurestore.tiles import file_tile_query
from featurestore.types import Bool, Bytes, Date, Decimal, Int32, Int64, String, Timestamp
from tests.forget.shop import (
    ANNA,
    BASKETS,
    BOB,
    CUSTOMER,
    HOUR,
    MINUTE,
    NOON,
    ORDERS,
    SERVICES,
    TOTALS,
    UTC_US,
    configured,
    files_with,
    filled,
    look,
    of_anna,
    order,
    trained,
    visits,
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[FeatureStore]:
    with FeatureStore(configured(tmp_path), clock=clock) as store:
        yield store


@pytest.mark.parametrize("online", ["lmdb", "redis"])
def test_a_lookup_sees_what_training_sees(
    online: str, tmp_path: Path, clock: ManualClock, request: pytest.FixtureRequest
) -> None:
    """At every instant, before and after it was forgotten; runs, fills and other processes bring nothing of it back."""
    url = "lmdb://online" if online == "lmdb" else request.getfixturevalue("redis_url")
    configured(tmp_path, online=url)
    with FeatureStore(tmp_path, clock=clock) as store:
        filled(store, clock)
        before = look(store)
        assert before["facts__n"] == [2, 1]
        assert before["totals__n"] == [3, 2]
        clock.advance(MINUTE)
        told = store.forget("customer", {"customer": ANNA})
        assert (told.records, told.log_rows) == ({"facts": 1, "hourly": 1, "totals": 1}, {"orders": 3})
        assert (told.served_rows, told.refilled, told.sources) == (2, ("branches",), ("visits",))
        after = look(store)
        assert of_anna(after) == []
        assert [after[name][1:] for name in before if "branch" not in name] == [
            before[name][1:] for name in before if "branch" not in name
        ]
        assert after["branches__n"] == [2]
        assert after == trained(store, clock())
        assert of_anna(trained(store, NOON + timedelta(minutes=30))) == []
        assert store.verify().ok
        audit = store.audit()
        assert (audit.skewed, {*audit.causes}) == (0, {"history rewritten"})  # of the branch
    with FeatureStore(tmp_path, clock=clock) as store:
        clock.advance(HOUR)
        visits(tmp_path, "b", [(4, BOB, clock() - MINUTE, 4)])
        store.materialize(progress=False)
        store.materialize(progress=False, full=True)
        assert look(store) == trained(store, clock())
        assert of_anna(look(store)) == []
        assert store.verify().ok
        assert store.audit().skewed == 0
        assert ANNA not in store.snapshot("facts", at=clock()).to_arrow()["customer"].to_pylist()
        explained = store.explain("facts", {"customer": ANNA})
        assert (explained.status, explained.rows) == ("MISSING", ())
        assert store.get_historical_features(
            pa.table({"customer": [BOB], "event_timestamp": pa.array([clock()], UTC_US)}), "customers"
        ).manifest["invalid_rows"]["totals"] == {"no known_at or identity": 0, "no key or event_time": 0}
        store.teardown()


def test_a_key_that_comes_back_counts_from_then(store: FeatureStore, tmp_path: Path, clock: ManualClock) -> None:
    """Rows that are learned after it was forgotten count, pushed ones and those of files, and the same rows again are new ones."""
    filled(store, clock)
    store.forget("customer", {"customer": ANNA})
    visits(
        tmp_path, "b", [(9, ANNA, clock() - 2 * HOUR, 9)], late=timedelta(hours=1, minutes=59)
    )  # known before: not there
    visits(tmp_path, "c", [(10, ANNA, clock() - 2 * HOUR, 10)], late=timedelta(hours=2, minutes=1))
    assert store.push("orders", [order(5, ANNA, clock())]).accepted == 1
    clock.advance(HOUR)
    store.materialize(progress=False)
    found = look(store)
    assert found == trained(store, clock())
    assert (found["facts__x"][0], found["facts__n"][0], found["totals__last"][0]) == (10, 1, [5 / 8])
    assert store.verify().ok
    assert store.audit().skewed == 0
    assert store.forget("customer", {"customer": ANNA}).log_rows == {"orders": 1}
    assert of_anna(look(store)) == []


def test_what_replaced_other_keys_rows_goes_on_to(store: FeatureStore, tmp_path: Path, clock: ManualClock) -> None:
    """A row that once was Bob's and then Anna's is no more Bob's when Anna is forgotten; one that went to Bob stays his."""
    visits(tmp_path, "b", [(2, ANNA, NOON - 2 * HOUR, 5), (3, BOB, NOON - HOUR, 6)])
    store.apply(SERVICES)
    store.push("orders", [order(1, BOB, clock()), order(2, ANNA, clock())])
    store.push("orders", [order(1, ANNA, clock()), order(2, BOB, clock())])
    store.materialize(progress=False)
    before = look(store)
    assert (before["facts__n"], before["totals__last"]) == ([2, 1], [[1 / 8], [2 / 8]])
    store.forget("customer", {"customer": ANNA})
    after = look(store)
    assert [after[name][1] for name in ("facts__n", "facts__x", "totals__n", "totals__last")] == [1, 6, 1, [2 / 8]]
    assert after == trained(store, clock())
    assert store.verify().ok
    store.push("orders", [order(2, BOB, clock(), amount=9.0)])
    store.push("orders", [order(1, None, None, gone=True)])
    assert look(store) == trained(store, clock())
    assert look(store)["totals__last"] == [None, [9.0]]
    assert store.verify().ok


@pytest.mark.parametrize("small", [True, False])
def test_no_file_has_its_bytes(
    store: FeatureStore, tmp_path: Path, clock: ManualClock, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the store's own: logs, sealed or not, rows that came late or were taken back, tiles, the serving log, merged or not."""
    if small:
        monkeypatch.setitem(FileLog.__init__.__kwdefaults__, "segment_bytes", 1)  # type: ignore[arg-type]  # it has keyword defaults
    filled(store, clock)
    store.push("orders", [order(6, ANNA, NOON - timedelta(days=60))])
    store.push("orders", [order(7, BOB, NOON - timedelta(days=60))])
    store.compact()
    far = clock() + HOUR
    clock.advance(HOUR)
    store.push("orders", [order(8, ANNA, far), order(9, BOB, far)])
    clock.set(far - HOUR)
    assert store.take_back("orders").rows == 2
    store.materialize(progress=False)
    for _ in range(2):
        store._project.serving_log.flush()
        look(store)
    clock.advance(2 * HOUR)
    store._project.serving_log.flush()
    merged = store.compact_serving_log()
    assert merged is not None
    assert (merged.merged, merged.into) == (6, 2)
    look(store)
    assert any("taken-back" in name for name in files_with(tmp_path))
    for place in ("logs/orders/rows/00000001.parquet.partial", "logs/orders/taken-back-1.parquet.partial"):
        (tmp_path / ".featurestore" / place).write_text(ANNA)  # as processes leave them that are killed
    (served,) = (tmp_path / ".featurestore" / "served" / "customers").iterdir()
    (served / ".1-2-3-abcd-1.parquet").write_text(ANNA)
    told = store.forget("customer", {"customer": ANNA})
    assert (told.log_rows, told.late_rows) == ({"orders": 3}, {"orders": 1 + 1})
    assert [name for name in files_with(tmp_path) if not name.startswith(("data/", "online/"))] == []
    assert store.offline.log(ORDERS).read()["customer"].to_pylist().count(None) == 3
    assert store.offline.log(ORDERS, LATE).read()["customer"].to_pylist() == [None, BOB]
    assert look(store) == trained(store, clock())


def test_a_part_of_a_key_means_all_that_have_it(store: FeatureStore, tmp_path: Path, clock: ManualClock) -> None:
    """Of an entity with several key columns; a whole key means itself alone. Other entities are only told of."""
    store.apply([*SERVICES, FeatureService("baskets", features=[BASKETS])])
    store.push("orders", [{**order(n, who, clock()), "number": n} for n, who in enumerate([ANNA, ANNA, BOB, ANNA])])
    told = store.forget("basket", {"customer": ANNA, "number": 1})
    assert (told.log_rows, told.records) == ({"orders": 1}, {"baskets": 1})
    rows = [{"customer": who, "number": n} for n, who in enumerate([ANNA, ANNA, BOB, ANNA])]
    spine = pa.Table.from_pylist(rows).append_column("event_timestamp", pa.array([clock()] * 4, UTC_US))
    assert store.get_online_features(rows, "baskets").to_dict()["baskets__n"] == [1, None, 1, 1]
    assert store.get_online_features({"customer": ANNA}, [TOTALS["n"]]).to_dict()["totals__n"] == [
        2
    ]  # whose row it was, too
    told = store.forget("basket", {"customer": ANNA})
    assert (told.log_rows, told.records, told.served_rows) == ({"orders": 2}, {"baskets": 2}, 3)
    assert told.notices == ("Entity 'customer' has a key column 'customer' too: forget what is meant there as well.",)
    served = store.get_online_features(rows, "baskets").to_dict()["baskets__n"]
    assert (
        served
        == [None, None, 1, None]
        == store.get_historical_features(spine, "baskets").to_arrow()["baskets__n"].to_pylist()
    )
    assert store.verify().ok
    assert store.forget("basket", {"number": 2}).records == {"baskets": 1}


def test_a_key_of_every_type_is_found_again(tmp_path: Path, clock: ManualClock) -> None:
    """In files, whatever they store it as: numbers, texts with any sign, bytes, dates, instants, decimals."""
    types = {
        "flag": Bool, "small": Int32, "large": Int64, "text": String, "raw": Bytes, "day": Date, "instant": Timestamp,
        "price": Decimal(9, 2),
    }  # fmt: skip
    key = {
        "flag": False, "small": -7, "large": 2**62, "text": "o'hara ✓ \0 end", "raw": b"\0\xff'", "day": date(1969, 12, 31),
        "instant": NOON - timedelta(microseconds=1), "price": decimal.Decimal("-0.10"),
    }  # fmt: skip
    other = {**key, "text": "o'hara ✓ \0 en", "raw": b"d"}
    configured(tmp_path)
    columns = {name: pa.array([key[name], other[name]], of.arrow) for name, of in types.items()}
    pq.write_table(
        pa.table({**columns, "at": pa.array([NOON - HOUR] * 2, UTC_US), "x": [1, 2]}), tmp_path / "typed.parquet"
    )
    source = ParquetSource("typed", "typed.parquet", event_time="at")
    view = FeatureView("typed_view", entity=Entity("typed", key=types), source=source, refresh="1h", features=["x"])
    with FeatureStore(tmp_path, clock=clock) as store:
        store.apply([FeatureService("service", features=[view])])
        store.materialize(progress=False)
        for part in (key, {"text": other["text"], "day": key["day"]}):
            assert store.forget("typed", part).records == {"typed_view": 1}
            spine = pa.table({**columns, "event_timestamp": pa.array([clock()] * 2, UTC_US)})
            served = store.get_online_features([key, other], "service").to_dict()["typed_view__x"]
            assert served == store.get_historical_features(spine, "service").to_arrow()["typed_view__x"].to_pylist()
            assert served == [None, 2 if part is key else None]


def test_tiles_and_simulations_have_nothing_of_it(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of files are made again without it, and what is simulated is the rows of the others."""
    monkeypatch.setattr(file_tile_query, "TILED_MIN_ROWS", 1)
    source = ParquetSource("visits", "data", event_time="at")
    sums = FeatureView("sums", entity=CUSTOMER, source=source, refresh="1h", features={"n": Count(window="7d")})
    with FeatureStore(configured(tmp_path), clock=clock) as store:
        store.apply([FeatureService("sums", features=[sums])])
        visits(tmp_path, "more", [(n, who, NOON - n * MINUTE, 1) for n in range(99) for who in (ANNA, BOB)])
        for _ in range(3):
            store.materialize(progress=False)
            clock.advance(HOUR)
        assert any(name.startswith(".featurestore/tiles") for name in files_with(tmp_path))
        store.forget("customer", {"customer": ANNA})
        assert not any(name.startswith(".featurestore/tiles") for name in files_with(tmp_path))
        visits(tmp_path, "again", [(0, ANNA, clock() + MINUTE, 1), (0, BOB, clock() + MINUTE, 1)])
        for _ in range(2):
            clock.advance(HOUR)
            store.materialize(progress=False)
        assert any(name.startswith(".featurestore/tiles") for name in files_with(tmp_path, BOB))
        both = pa.table({"customer": [ANNA, BOB], "event_timestamp": pa.array([clock()] * 2, UTC_US)})
        counts = store.get_historical_features(both, "sums").to_arrow()["sums__n"].to_pylist()
        served = store.get_online_features([{"customer": ANNA}, {"customer": BOB}], "sums").to_dict()["sums__n"]
        assert served == counts == [1, 101]
        assert store.verify().ok
        simulated = store.simulate(NOON - HOUR, NOON, lookups=2)
        assert (simulated.landed["visits"].rows, simulated.audit.skewed) == (60, 0)


def test_a_simulation_pushes_what_is_left(store: FeatureStore, clock: ManualClock) -> None:
    """Of a log with emptied rows."""
    filled(store, clock)
    store.forget("customer", {"customer": ANNA})
    simulated = store.simulate(NOON - HOUR, clock(), lookups=2, services=["branches"])
    assert (simulated.pushed["orders"].rows, simulated.audit.skewed) == (2, 0)


def test_a_dry_run_says_what_would_go(store: FeatureStore, tmp_path: Path, clock: ManualClock) -> None:
    """The same counts as the call that does it, and nothing is done."""
    filled(store, clock)
    store.push("orders", [order(6, ANNA, NOON - timedelta(days=60))])
    before = look(store)
    would = store.forget("customer", {"customer": ANNA}, dry_run=True)
    assert look(store) == before
    assert store.registry.forgettings() == []
    look(store)
    did = store.forget("customer", {"customer": ANNA})
    assert would.dry_run
    assert (would.records, would.log_rows, would.late_rows, would.refilled) == (
        did.records,
        did.log_rows,
        did.late_rows,
        did.refilled,
    )
    assert "Would forget a key of entity 'customer' by customer" in str(would)
    assert ANNA not in f"{would}{did}{would.to_dict()}{did.to_dict()}"
    (trail,) = store.activity(what="forget")
    assert (trail.subject, trail.detail["log_rows"]) == ("customer", 3)
    assert ANNA not in str(trail)


def test_others_push_and_read_meanwhile(
    store: FeatureStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of them is lost, and what they read is right."""
    monkeypatch.setitem(FileLog.__init__.__kwdefaults__, "segment_bytes", 2_000)  # type: ignore[arg-type]  # it has keyword defaults
    filled(store, clock)
    stop, pushed, failures = threading.Event(), [0], []

    def push() -> None:
        number = 100
        while not stop.is_set():
            store.push("orders", [order(number, BOB, clock())])
            pushed[0], number = pushed[0] + 1, number + 1

    def train() -> None:
        while not stop.is_set():
            found = trained(store, NOON + timedelta(minutes=30))["totals__n"]
            if found not in ([3, 2], [None, 2]):
                failures.append(found)

    threads = [threading.Thread(target=work) for work in (push, train)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        store.forget("customer", {"customer": ANNA})
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    clock.advance(MINUTE)
    assert look(store)["totals__n"] == [None, 2 + pushed[0]] == trained(store, clock())["totals__n"]
    assert pushed[0]
    assert store.verify().ok


@pytest.mark.parametrize(
    ("entity", "key", "said"),
    [
        ("custmer", {"customer": ANNA}, "No entity 'custmer' was declared or applied. Did you mean 'customer'?"),
        ("totals", {"customer": ANNA}, "'totals' is a feature view"),
        (3, {"customer": ANNA}, "by its name, or itself, and not by 3"),
        ("customer", {"custmer": ANNA}, "Entity 'customer' has no key column 'custmer'. Did you mean 'customer'?"),
        ("customer", {"customer": 7}, "Key column 'customer' of entity 'customer' is String"),
        ("customer", {"customer": None}, "is null, which is no key"),
        ("customer", {}, "A key of entity 'customer' is made of customer (String)"),
        ("customer", ANNA, "A key is a dict of column and value"),
    ],
)
def test_what_is_no_key_is_refused(store: FeatureStore, entity: Any, key: Any, said: str) -> None:
    """With what is wrong, and nothing is done."""
    store.apply(SERVICES)
    with pytest.raises((NotFoundError, RequestError), match=".") as refused:
        store.forget(entity, key)
    assert said in str(refused.value)
    assert store.registry.forgettings() == []


def test_it_is_done_where_the_logs_are(store: FeatureStore, tmp_path: Path, clock: ManualClock) -> None:
    """On a machine without them it is refused, before anything is done."""
    filled(store, clock)
    store.close()
    shutil.move(tmp_path / ".featurestore" / "logs", tmp_path / "elsewhere")
    with (
        FeatureStore(tmp_path, clock=clock) as store,
        pytest.raises(LogError, match="on the machine that has the logs"),
    ):
        store.forget("customer", {"customer": ANNA})
    assert store.registry.forgettings() == []


@pytest.mark.parametrize("is_told", [False, True])
def test_a_segment_that_was_sealed_and_erased_from_since_it_was_listed_is_read_again(
    store: FeatureStore, clock: ManualClock, is_told: bool
) -> None:
    """A file that is in force no more is no damage. is_told: the engine's error is ours by then, as training makes it."""
    filled(store, clock)
    source: Any = store.lookup("totals").service.parts[0].view.source
    folder = store.offline.log(source).folder

    def read(name: str) -> None:
        with store.offline.session() as session, session.reading():
            session.scan(source)
            try:
                session.connection.sql(f"FROM read_parquet('{folder}/{name}')").fetchall()
            except duckdb.Error as error:
                if is_told:
                    raise SourceError("It cannot be read") from error
                raise

    with pytest.raises(FilesChangedError, match="rows were erased from its log while it was read; try again"):
        read("00000001.parquet")

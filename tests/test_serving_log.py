"""The serving log keeps what was served, in no lookup's way."""

from __future__ import annotations

import asyncio
import math
import platform
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from unittest.mock import ANY

import duckdb
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    Request,
    on_demand,
)
from featurestore.errors import ConfigError, RequestError
from featurestore.semantics.order import order_bytes
from featurestore.serving.log.serving_log import Losses, segments
from featurestore.serving.log.upkeep import Upkeep
from featurestore.serving.recorder import is_logged_key
from featurestore.serving.served_rows import find_request, store_version
from featurestore.types import Float64, Int64, String
from tests.server.test_http import serving

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
THINGS = 40


def repository(folder: Path, log: str = "rate = 1.0") -> Path:
    """A project with one hourly view of things, and the service `model` over it."""
    happened = [NOON - timedelta(hours=3)] * THINGS
    values = [n / 7 for n in range(THINGS)]
    pq.write_table(pa.table({"thing": range(THINGS), "happened": happened, "x": values}), folder / "rows.parquet")
    text = f'project = "served"\nonline = "lmdb://online"\ndefinitions = []\n[serving_log]\n{log}\n'
    (folder / "featurestore.toml").write_text(text)
    return folder


def opened(folder: Path) -> FeatureStore:
    """The store of a repository, filled."""
    store = FeatureStore(folder, clock=ManualClock(NOON))
    source = ParquetSource("rows", "rows.parquet", event_time="happened", known_after="1m")
    view = FeatureView(
        "view", entity=Entity("thing", key={"thing": Int64}), source=source, features=["x"], refresh="1h"
    )

    @on_demand(inputs=[view["x"], Request("scale", Float64)], output=Float64)
    def scaled(x, scale):
        return None if x is None else x * scale

    store.apply([FeatureService("model", features=[view, scaled])])
    store.materialize(progress=False)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    with opened(repository(tmp_path)) as made:
        yield made


def asked(*things: int) -> list[dict[str, float]]:
    return [{"thing": thing, "scale": 2.0} for thing in things]


def flushed(store: FeatureStore) -> Path:
    """The folder of the log, once what was served is in it."""
    assert store._project.serving_log is not None
    store._project.serving_log.flush()
    return store.config.serving_log.folder


def test_a_request_is_found_by_its_id(store: FeatureStore) -> None:
    """All its rows, with what was asked and what was answered; an id that nobody had finds nothing."""
    store.get_online_features(asked(1, 2), "model")
    result = store.get_online_features(asked(3, 99), "model")
    store.get_online_features(asked(4), "model")
    assert result.request is not None
    logged = find_request(flushed(store), result.request)
    assert logged is not None
    assert (logged.service, logged.fingerprint) == ("model", result.service.fingerprint)
    assert logged.rows.select(["row", "input:thing", "view__x", "scaled", "status:view"]).to_pylist() == [
        {"row": 0, "input:thing": 3, "view__x": 3 / 7, "scaled": 6 / 7, "status:view": "PRESENT"},
        {"row": 1, "input:thing": 99, "view__x": None, "scaled": None, "status:view": "MISSING"},
    ]
    assert find_request(flushed(store), "nobody") is None


def test_a_request_is_logged_under_its_clients_id(store: FeatureStore) -> None:
    """Any printable text of a bounded length; anything else is refused before it is looked up."""
    given = "order 17/" + "x" * 119
    assert store.get_online_features(asked(1), "model", request_id=given).request == given
    assert asyncio.run(store.aget_online_features(asked(2), "model", request_id="~")).request == "~"
    for wrong in ("", "x" * 129, "a\nb", "é", "a\x00"):
        with pytest.raises(RequestError, match="printable"):
            store.get_online_features(asked(1), "model", request_id=wrong)
    (rows,) = written(flushed(store))
    assert rows.select(["request", "input:thing"]).to_pylist() == [
        {"request": given, "input:thing": 1},
        {"request": "~", "input:thing": 2},
    ]


def test_over_http_the_id_is_a_header(store: FeatureStore) -> None:
    """A client's X-Request-ID is what its request is logged under, and comes back; else the log's own id does."""
    body = {"service": "model", "rows": asked(1)}
    with serving(store) as client:
        given = client.post("/v1/online-features", json=body, headers={"x-request-id": "mine"})
        other = client.post("/v1/online-features", json=body)
        wrong = [
            client.post("/v1/online-features", json=body, headers={"X-Request-ID": text})  # type: ignore[arg-type]  # bytes that are no text
            for text in ("", "x" * 129, "a\tb", b"\xff")
        ]
    assert given.headers["x-request-id"] == "mine"
    assert {answer.status_code for answer in wrong} == {400}
    assert "printable" in wrong[0].json()["detail"]
    (rows,) = written(flushed(store))
    assert rows["request"].to_pylist() == ["mine", other.headers["x-request-id"]]


def written(folder: Path) -> list[pa.Table]:
    """The rows of each service version."""
    return [ds.dataset(files).to_table() for files in segments(folder).values()]


def test_any_reader_reads_the_columns(store: FeatureStore) -> None:
    """Keys and values have their own types, statuses are text, instants are instants: in Arrow, in DuckDB and in pandas."""
    store.get_online_features(asked(1, 99), "model", request_id="one")
    (files,) = segments(flushed(store)).values()
    instant = pa.timestamp("us", "UTC")
    assert {field.name: field.type for field in pq.read_schema(files[0])} == {
        "request": pa.string(), "row": pa.int32(), "time": instant, "input:thing": pa.int64(), "input:scale": pa.float64(),
        "view__x": pa.float64(), "scaled": pa.float64(), "status:view": pa.string(), "as_of:view": instant,
    }  # fmt: skip
    told = duckdb.sql(
        f"""SELECT request, row, epoch_us(time), "input:thing", view__x, "status:view", epoch_us("as_of:view")
        FROM '{files[0]}' ORDER BY row"""
    ).fetchall()
    noon = int(NOON.timestamp() * 1e6)
    assert told == [("one", 0, noon, 1, 1 / 7, "PRESENT", noon), ("one", 1, noon, 99, None, "MISSING", noon)]
    assert pd.read_parquet(files[0])["status:view"].tolist() == ["PRESENT", "MISSING"]


def test_each_segment_says_what_served_it(tmp_path: Path) -> None:
    """The service's fingerprint, the registry's version, and the versions of all libraries that a value comes from."""
    with opened(repository(tmp_path)) as store:
        store.get_online_features(asked(1), "model")

        @on_demand(inputs=[Request("scale", Float64)], output=Float64)
        def drawn(scale):
            return float(orjson.loads(orjson.dumps(math.floor(scale))))

        store.apply([FeatureService("other", features=[drawn])])
        other = store.get_online_features([{"scale": 2.5}], "other")
        found = segments(flushed(store))
        versions = {name: store_version(pq.read_schema(files[0]).metadata) for (name, _), files in found.items()}
        model, told = versions["model"], versions["other"]
        assert model is not None
        assert told is not None
        assert (told.service, told.fingerprint, told.registry_version) == ("other", other.service.fingerprint, 2)
        assert (model.service, model.registry_version) == ("model", 1)
        ours = {name: version(name) for name in ("duckdb", "numpy", "pandas", "pyarrow")}
        assert model.libraries == ours
        assert told.libraries == {**ours, "orjson": version("orjson")}
        assert (told.featurestore, told.python) == (version("featurestore"), platform.python_version())


def looked_up(folder: Path, requests: int) -> None:
    """Look every thing up, so many times, in a process of its own."""
    script = """
        import sys
        from datetime import UTC, datetime
        from featurestore import FeatureStore, ManualClock
        with FeatureStore(sys.argv[1], clock=ManualClock(datetime(2024, 5, 1, 12, tzinfo=UTC))) as store:
            for n in range(int(sys.argv[2])):
                rows = [{"thing": thing, "scale": 2.0} for thing in range(n, 40, 2)]
                store.get_online_features(rows, "plain")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(folder), str(requests)], check=True)


def test_by_key_all_rows_of_a_key_are_logged(tmp_path: Path) -> None:
    """In every process the same keys, about as many as the rate says, each with every row of it; and they are audited."""
    with opened(repository(tmp_path, 'rate = 0.5\nby = "key"')) as store:
        store.apply([FeatureService("plain", features=[store.catalog.views["view"]])])
        for _ in range(2):
            looked_up(tmp_path, 2)
        (rows,) = written(store.config.serving_log.folder)
        kept = Counter(rows["input:thing"].to_pylist())
        assert set(kept) == {thing for thing in range(THINGS) if is_logged_key(order_bytes(Int64, thing), 0.5)}
        assert set(kept.values()) == {2}
        assert all(number == (thing - thing % 2) // 2 for thing, number in
                   zip(rows["input:thing"].to_pylist(), rows["row"].to_pylist(), strict=True))  # fmt: skip
        audit = store.audit()
        assert (audit.compared, audit.skewed) == (rows.num_rows, 0)


def test_the_share_of_keys_is_the_rate() -> None:
    """Of 20,000 keys; those of a lower rate are among those of a higher one."""
    keys = [order_bytes(String, f"key {n}") for n in range(20_000)]
    kept = [{key for key in keys if is_logged_key(key, rate)} for rate in (0.0, 0.1, 0.5, 1.0)]
    assert [round(len(some) / len(keys), 2) for some in kept] == [0.0, 0.1, 0.5, 1.0]
    assert kept[1] < kept[2] < kept[3]


def test_losses_are_told_everywhere(tmp_path: Path) -> None:
    """In Python, over HTTP and on the command line, where the log's folder cannot be written too; and lookups go on."""
    with opened(repository(tmp_path, 'rate = 1.0\nfolder = "blocked"')) as store, serving(store) as client:
        assert store.serving_log_losses() == Losses(0, 0, 0, 0)
        (tmp_path / "blocked").write_text("no folder")
        result = store.get_online_features(asked(1), "model")
        assert (result.columns["view__x"], result.request is None) == ([1 / 7], False)
        flushed(store)
        told = Losses(1, 0, 1, 0, "Not a directory")
        assert store.serving_log_losses() == told
        assert client.get("/v1/serving-log").json() == told._asdict()
        (tmp_path / "blocked").unlink()
        client.post("/v1/online-features", json={"service": "model", "rows": asked(2)})
        flushed(store)
        said = [command(tmp_path, "status", *more) for more in ((), ("--json",))]
        assert "serving log: of 2 requests 1 written, 1 dropped, 0 lost; the last error was: Not a directory" in said[0]
        assert orjson.loads(said[1])["serving_log"] == Losses(2, 1, 1, 0, "Not a directory")._asdict()


def command(folder: Path, *words: str) -> str:
    """What a command of the command line prints."""
    done = subprocess.run(
        [sys.executable, "-m", "featurestore", "--repo", str(folder), *words],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_old_hours_are_merged_and_older_ones_deleted_as_configured(tmp_path: Path) -> None:
    """By the store and by the command, which say what they did; an hour of the store's clock is meant."""
    with opened(repository(tmp_path, 'rate = 1.0\nretention = "2h30m"')) as store:
        clock = store._project.clock
        assert isinstance(clock, ManualClock)
        for hour in range(3):
            for _ in range(2):
                store.get_online_features(asked(hour), "model")
                folder = flushed(store)
            clock.advance(timedelta(hours=1))
        clock.advance(timedelta(minutes=10))
        assert store.compact_serving_log() == Upkeep(merged=4, into=2, deleted=2, freed=ANY)
        (rows,) = written(folder)
        assert sorted(rows["input:thing"].to_pylist()) == [1, 1, 2, 2]
        assert (store.audit().compared, store.audit().skewed) == (8, 0)
    # The command goes by the system's clock, for which all of this is long ago.
    assert "serving log: 0 files merged into 0, 0 merged ones removed, 6 deleted by age or size" in command(
        tmp_path, "compact"
    )
    told = orjson.loads(command(tmp_path, "compact", "--json"))
    assert told == {"serving log": {"merged": 0, "into": 0, "removed": 0, "deleted": 0, "freed": 0, "shipped": 0}}
    assert segments(folder) == {}


@pytest.mark.parametrize(
    "text", ['retention = "soon"', 'retention = ""', "retention = 30", "max_bytes = 0", 'by = "row"']
)
def test_what_is_configured_wrongly_is_said(tmp_path: Path, text: str) -> None:
    """With the key's name."""
    with pytest.raises(ConfigError, match=f"serving_log.{text.split(maxsplit=1)[0]}"):
        FeatureStore(repository(tmp_path, text))

"""What a first day meets: objects that are printed, things asked for in other words, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from featurestore import (
    Count,
    DataFrameSource,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    TableSource,
)
from featurestore.errors import SourceError, SpineError, did_you_mean
from featurestore.types import String
from tests.cli.test_commands import run
from tests.small import NOON, hours, table, view_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CARRIER = Entity("carrier", key={"carrier": String})
ROWS = pd.DataFrame({"carrier": ["UA"], "at": pd.to_datetime(["2026-03-01T09:00Z"]), "delay": [12.0]})
DELAYS = FeatureView(
    "delays", entity=CARRIER, source=DataFrameSource("rows", ROWS, event_time="at"), refresh="1h", features=["delay"]
)
MODEL = FeatureService("model", features=[DELAYS])
SPINE = pd.DataFrame({"carrier": ["UA", "ZZ"], "event_timestamp": [NOW, NOW]})


@pytest.fixture
def store() -> Iterator[FeatureStore]:
    with FeatureStore.local(clock=ManualClock(NOW)) as store:
        store.apply([MODEL])
        store.materialize(progress=False)
        yield store


def test_frames_are_printed_as_tables_and_answers_in_a_line(store: FeatureStore, tmp_path: Path) -> None:
    """Not with their whole manifest, nor by their address; of a spine that is a path, nothing is read for it."""
    frame = store.get_historical_features(SPINE, "model")
    title, _, *table = repr(frame).splitlines()
    assert title == f"Training frame of service 'model' ({frame.manifest['fingerprint'][:12]}): 2 rows × 3 columns"
    assert [line.split() for line in table] == [
        ["carrier", "event_timestamp", "delays__delay"],
        ["UA", "2026-03-01", "12:00:00Z", "12.0"],
        ["ZZ", "2026-03-01", "12:00:00Z", "null"],
    ]
    many = store.get_historical_features(pd.concat([SPINE] * 9).assign(**{f"c{n}": n for n in range(30)}), "model")
    assert repr(many).splitlines()[-2].endswith("… 8 more rows")
    assert repr(many).splitlines()[-1].startswith("… 13 more columns: c18, c19, ")
    assert "… 8 more rows" in many._repr_html_()
    SPINE.to_parquet(tmp_path / "spine.parquet")
    lazy = store.get_historical_features(tmp_path / "spine.parquet", "model")
    (tmp_path / "spine.parquet").unlink()
    assert repr(lazy).endswith(": delays__delay; its spine is read when the frame is")
    assert "delays__delay" in lazy._repr_html_()
    online = store.get_online_features({"carrier": "UA"}, "model")
    told = "columns=['delays__delay'], as_of={'delays': '2026-03-01 12:00:00Z'}"
    assert repr(online) == f"OnlineResult(service='model', rows=1, {told})"


@pytest.mark.parametrize("asked", [MODEL, DELAYS, "delays", "delays:delay", ["delays:delay"], [MODEL]])
def test_a_lookup_takes_what_training_takes(store: FeatureStore, asked: object) -> None:
    """And no other words."""
    told = store.get_online_features({"carrier": "UA"}, asked).to_dict()
    assert told == {"carrier": ["UA"], "delays__delay": [12.0]}
    assert store.get_historical_features(SPINE, asked).to_arrow()["delays__delay"].to_pylist() == [12.0, None]


def test_a_spine_without_instants_says_how_to_give_them(store: FeatureStore) -> None:
    with pytest.raises(
        SpineError, match=r"is String \(VARCHAR\).*pd\.to_datetime\(spine\['event_timestamp'\], utc=True\)"
    ):
        store.get_historical_features(SPINE.assign(event_timestamp="2026-03-01"), "model")
    with pytest.raises(SpineError, match=r"no timestamp column 'event_timestamp'\..* timestamp= names another\."):
        store.get_historical_features(SPINE.rename(columns={"event_timestamp": "ts"}), "model")


@pytest.mark.parametrize(
    "source",
    [
        ParquetSource("rows", "rows.parquet", event_time="at"),
        ParquetSource("rows", ["rows.parquet"], event_time="at"),
        ParquetSource("rows", "rows/*.parquet", event_time="at"),
        TableSource("rows", "rows.duckdb", table="rows", event_time="at"),
    ],
    ids=["file", "list", "pattern", "table"],
)
def test_a_relative_path_that_leads_nowhere_says_where_it_begins(source: ParquetSource | TableSource) -> None:
    """A store without a featurestore.toml has a folder of its own, and not the working directory."""
    view = FeatureView("delays", entity=CARRIER, source=source, refresh="1h", features=["delay"])
    with FeatureStore.local(clock=ManualClock(NOW)) as store:
        root = store.config.root
        with pytest.raises(SourceError) as caught:
            store.plan([view])
        assert f"relative paths begin in the project's folder, {root}" in str(caught.value)


def test_an_absolute_path_that_leads_nowhere_does_not(tmp_path: Path) -> None:
    source = ParquetSource("rows", tmp_path / "rows.parquet", event_time="at")
    view = FeatureView("delays", entity=CARRIER, source=source, refresh="1h", features=["delay"])
    with FeatureStore.local(clock=ManualClock(NOW)) as store, pytest.raises(SourceError) as caught:
        store.plan([view])
    assert "there is no file" in str(caught.value)
    assert "relative" not in str(caught.value)


def test_a_run_tells_keys_whose_values_have_expired_from_those_with_values(capsys: pytest.CaptureFixture[str]) -> None:
    """Of plain features by their ttl, of folds by each key's last row; a key of which one feature has a value has one."""
    rows = table(thing=[1, 2, 3, 3], at=[hours(-30), hours(-1), hours(-40), hours(-50)], x=[1, 2, 3, 4])
    plain = view_of(rows, ["x"], name="plain", refresh="1h", ttl="1d")
    mixed = view_of(rows, {"x": Latest("x"), "n": Count(window="1d")}, name="mixed", refresh="1h", ttl="1d")
    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.apply([plain, mixed])
        runs = {run.view: run for run in store.materialize()}
        statuses = store.get_online_features([{"thing": n} for n in (1, 2, 3)], "plain").statuses
    assert list(statuses["plain__x"]) == ["EXPIRED", "PRESENT", "EXPIRED"]
    assert (runs["plain"].keys, runs["plain"].rows, runs["plain"].expired) == (3, 3, 2)
    assert (runs["mixed"].rows, runs["mixed"].expired) == (3, 0)
    told = capsys.readouterr().err
    assert "plain as of 2024-05-01 12:00:00Z: 3 keys (all), 1 with values, 2 expired, " in told
    assert "mixed as of 2024-05-01 12:00:00Z: 3 keys (all), 3 with values, " in told


def test_commands_say_what_leads_on(tmp_path: Path) -> None:
    """Nothing due beside a corrected file, and an audit of a log that keeps nothing."""
    run(tmp_path, "init", "shop")
    shop = tmp_path / "shop"
    weekly = (shop / "definitions.py").read_text().replace('refresh="1h"', 'refresh="1w"')  # whatever hour it is
    (shop / "definitions.py").write_text(weekly)
    run(shop, "apply")
    ran = run(shop, "materialize").stderr
    assert "customer_orders as of" in ran
    assert ": 3 keys (all), 3 with values" in ran
    assert "--full" in run(shop, "materialize").stdout
    orders = pd.read_parquet(shop / "data/orders.parquet")
    orders.assign(amount=orders["amount"] + 1000).to_parquet(shop / "data/orders.parquet")
    found = run(shop, "verify", code=3).stdout
    assert "3 records, 0 missing, 0 extra, 3 different" in found
    assert "featurestore materialize --full" in found
    assert ": 3 keys (all, computed again), 3 with values" in run(shop, "materialize", "--full").stderr
    assert "featurestore" not in run(shop, "verify").stdout
    audited = run(shop, "audit").stdout
    assert "[serving_log] in featurestore.toml" in audited


def test_files_are_told_as_the_repository_sees_them(tmp_path: Path) -> None:
    """Those of a row that is explained, whatever folder the process is in; what lies elsewhere is told whole."""
    for place in ("repo/data/rows.parquet", "elsewhere.parquet"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        ROWS.to_parquet(tmp_path / place)
    (tmp_path / "repo/featurestore.toml").write_text('project = "seen"\ndefinitions = []\n')
    outside = str(tmp_path / "elsewhere.parquet")
    with FeatureStore(tmp_path / "repo", clock=ManualClock(NOW)) as store:
        for path, seen in (("data/rows.parquet", "data/rows.parquet"), (outside, outside)):
            source = ParquetSource("rows", path, event_time="at")
            view = FeatureView("delays", entity=CARRIER, source=source, refresh="1h", features=["delay"])
            (row,) = store.explain(view, {"carrier": "UA"}).rows
            assert (row.file, row.place) == (seen, f"{seen} row 0")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("created", None),
        ("arr_delai", "arr_delay"),
        ("delay", "arr_delay"),
        ("why", None),
        ("delay_modell", "delay_model"),
    ],
)
def test_a_name_is_suggested_only_where_it_is_near(name: str, meant: str | None) -> None:
    """By its letters, or as the beginning or end of a longer one."""
    said = did_you_mean(name, ["acc_rate", "arr_delay", "delay_model", "at"])
    assert said == (f" Did you mean '{meant}'?" if meant else "") + " Known: acc_rate, arr_delay, at, delay_model."
    assert "Did you mean 'delay_model'?" in did_you_mean("delay", ["delay_model"])

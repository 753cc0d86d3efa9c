"""Lineage: from source columns to training frames and serving, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    Mean,
    ParquetSource,
    PushSource,
    Request,
    RequestTime,
    on_demand,
)
from featurestore.errors import NotFoundError
from featurestore.reports.lineage import uses
from featurestore.reports.lineage.lineage import Lineage
from featurestore.types import Bool, Float64, String, Timestamp

START = datetime(2024, 5, 1, tzinfo=UTC)

airport = Entity("airport", key={"airport": String})
landings = ParquetSource(
    "landings", "landings.parquet", event_time="at", known_at="loaded", identity="flight", tiebreak="seq",
    deleted="gone", until="ends", derived={"late": "Delay > 15", "Hour_late": "delay > 15 AND hour(\"at\") > 6"},
)  # fmt: skip
delays = FeatureView(
    "delays", entity=airport, source=landings, key={"airport": "code"}, refresh="1h", where="carrier <> 'XX'",
    features={
        "delay": Latest("Delay"), "mean_7d": Mean("Delay", window="7d"),
        "late_1d": Count(window="1d", where="hour_late"),
    },
)  # fmt: skip
history = ParquetSource("old_swipes", "old.parquet", event_time="at", known_after="1m")
swipes = PushSource(
    "swipes", schema={"airport": String, "at": Timestamp, "amount": Float64}, event_time="at", history=history,
    cutover=START,
)  # fmt: skip
recent = FeatureView("recent", entity=airport, source=swipes, features={"n": Count(window="1h")})
origin, dest = (delays.alias(name, key={"airport": name}) for name in ("origin", "dest"))


@on_demand(inputs=[dest["mean_7d"], Request("scale", Float64), RequestTime()], output=Float64)
def scaled(mean, scale, now):
    return None if mean is None else mean * scale


@on_demand(inputs=[Request("scale", Float64)], output=Bool)
def lone(scale):
    return scale is None


trip = FeatureService("trip", features=[origin["delay"], dest["delay"], scaled])
crowd = FeatureService("crowd", features=[recent])


def rows(count: int = 8) -> pa.Table:
    times = [START + timedelta(hours=n) for n in range(count)]
    return pa.table(
        {
            "code": ["JFK"] * count, "at": times, "loaded": times, "flight": range(count), "seq": range(count),
            "gone": [False] * count, "ends": pa.nulls(count, pa.timestamp("us", "UTC")),
            "Delay": [float(n) for n in range(count)], "carrier": ["UA"] * count,
        }
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    pq.write_table(rows(), tmp_path / "landings.parquet")
    old = {"airport": ["JFK"], "at": [START - timedelta(hours=2)], "amount": [1.0]}
    pq.write_table(
        pa.table(
            old, pa.schema([("airport", pa.string()), ("at", pa.timestamp("us", "UTC")), ("amount", pa.float64())])
        ),
        tmp_path / "old.parquet",
    )
    (tmp_path / "featurestore.toml").write_text('project = "air"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    with FeatureStore(tmp_path, clock=ManualClock(START + timedelta(hours=9))) as made:
        made.apply([trip, crowd, lone])
        yield made


def edges(found: Lineage) -> set[tuple[str, str, str]]:
    return {(edge.start, edge.end, edge.role) for edge in found.edges}


def frame(store: FeatureStore, features: Any, path: Path | str, **columns: Any) -> Path | str:
    spine = pa.table(
        {"event_timestamp": [START + timedelta(hours=8)], **{name: [value] for name, value in columns.items()}}
    )
    return store.get_historical_features(spine, features).to_parquet(path)


def test_every_column_that_a_feature_reads_is_upstream_with_its_role(store: FeatureStore) -> None:
    """Key, times, identity, tiebreak, conditions and derived columns down to the columns that these read, whatever their case."""
    found = store.lineage("delays:late_1d", direction="upstream")
    assert found.roots == ("feature:delays:late_1d",)
    view, feature, column = "view:delays", "feature:delays:late_1d", "column:landings."
    assert edges(found) - {("source:landings", node.id, "column") for node in found.of_kind("column")} == {
        (view, feature, "rows"),
        (f"{column}code", view, "key"), (f"{column}at", view, "event_time"), (f"{column}loaded", view, "known_at"),
        (f"{column}flight", view, "identity"), (f"{column}seq", view, "tiebreak"), (f"{column}gone", view, "deleted"),
        (f"{column}ends", view, "until"), (f"{column}carrier", feature, "where"), (f"{column}Hour_late", feature, "where"),
        (f"{column}Delay", f"{column}Hour_late", "derived"), (f"{column}at", f"{column}Hour_late", "derived"),
    }  # fmt: skip
    assert found.nodes[feature].detail == {"fold": "Count", "window": "1d", "where": ["carrier <> 'XX'", "hour_late"]}
    assert found.nodes[f"{column}Hour_late"].detail == {"expression": 'delay > 15 AND hour("at") > 6'}
    assert {node.kind for node in found.nodes.values()} == {"source", "column", "derived column", "view", "feature"}
    assert "value" not in {edge.role for edge in found.edges}


def test_a_column_is_followed_through_functions_and_services_to_serving_and_frames(
    store: FeatureStore, tmp_path: Path
) -> None:
    """Downstream of a column lie its features, functions, services, the version that is online, and the frames written."""
    store.materialize(progress=False)
    asked = {"origin": "JFK", "dest": "JFK", "scale": 2.0}
    for _ in range(2):
        store.get_online_features([asked, asked], "trip")
    written = frame(store, "trip", tmp_path / "trip.parquet", **asked)
    found = store.lineage("landings.Delay", direction="downstream")
    fingerprint = store.lookup("trip").service.fingerprint
    assert {("column:landings.Delay", "feature:delays:mean_7d", "value"), ("feature:delays:mean_7d", "on_demand:scaled", "input"),
            ("on_demand:scaled", "service:trip", "column"), ("service:trip", f"served:trip@{fingerprint}", "served"),
            ("service:trip", f"frame:{written}", "frame")} <= edges(found)  # fmt: skip
    assert "service:crowd" not in found.nodes
    names = {(edge.start, edge.name) for edge in found.edges if edge.end == "service:trip"}
    assert {("feature:delays:delay", "origin__delay"), ("feature:delays:delay", "dest__delay")} <= names
    assert found.nodes["service:trip"].detail["fingerprint"] == fingerprint
    (served,) = found.of_kind("served version")
    assert (served.detail["online"], served.detail["requests"]) == (True, 2)
    assert served.detail["views"]["dest"]["as_of"] == "2024-05-01T09:00:00.000000Z"
    assert served.detail["views"]["dest"]["pushed"] is False
    (made,) = found.of_kind("training frame")
    assert {word: made.detail[word] for word in ("fingerprint", "rows", "exists", "written")} == {
        "fingerprint": fingerprint, "rows": 1, "exists": True, "written": "2024-05-01T09:00:00.000000Z",
    }  # fmt: skip
    assert (made.name, made.detail["manifest"]) == (
        "trip.parquet",
        "trip.parquet.manifest.json",
    )  # as the repository sees them
    assert json.loads((tmp_path / made.detail["manifest"]).read_text())["fingerprint"] == fingerprint
    assert str(tmp_path) not in str(found)
    text = str(found)
    assert (
        f"served: trip {fingerprint[:8]} (served version: online, origin as of 2024-05-01T09:00:00.000000Z, dest as of"
        in text
    )
    assert "2 requests in the serving log)" in text
    assert f"(training frame: 1 row written 2024-05-01T09:00:00.000000Z, fingerprint {fingerprint[:8]})" in text


def test_pushed_rows_come_from_their_history_too(store: FeatureStore) -> None:
    """A column of a push source is made of its history's, and a view over it is marked as pushed where it is served."""
    store.push("swipes", [{"airport": "JFK", "at": START + timedelta(hours=9), "amount": 2.0}])
    store.materialize(progress=False)
    found = store.lineage("recent:n")
    assert ("column:old_swipes.at", "column:swipes.at", "history") in edges(found)
    (served,) = found.of_kind("served version")
    assert served.detail["views"]["recent"]["pushed"] is True
    assert "recent pushed" in str(found)


@pytest.mark.parametrize(
    ("name", "roots"),
    [
        ("delays:delay", ("feature:delays:delay",)),
        ("delays__delay", ("feature:delays:delay",)),
        ("origin__delay", ("feature:delays:delay",)),
        ("recent", ("view:recent", "feature:recent:n")),
        (recent, ("view:recent", "feature:recent:n")),
        (dest["mean_7d"], ("feature:delays:mean_7d",)),
        ("scaled", ("on_demand:scaled",)),
        (scaled, ("on_demand:scaled",)),
        ("trip", ("service:trip",)),
        (trip, ("service:trip",)),
        ("old_swipes.at", ("column:old_swipes.at",)),
    ],
)
def test_names_and_definitions_are_understood(store: FeatureStore, name: Any, roots: tuple[str, ...]) -> None:
    """Every way of naming a node finds it."""
    assert store.lineage(name).roots == roots


def test_a_source_is_found_with_its_columns(store: FeatureStore) -> None:
    """By its name or itself; derived columns belong to it."""
    for asked in ("landings", landings):
        roots = store.lineage(asked).roots
        assert roots[0] == "source:landings"
        assert {"column:landings.code", "column:landings.Delay"} <= set(roots)


def test_an_unknown_name_is_refused_with_the_nearest(store: FeatureStore) -> None:
    """A misspelled feature is told apart from one without lineage."""
    with pytest.raises(NotFoundError, match="There is no 'delays:mean_7'.*Did you mean 'delays:mean_7d'"):
        store.lineage("delays:mean_7")
    with pytest.raises(NotFoundError, match="There is no '3'"):
        store.lineage(3)


def test_frames_are_journalled_by_what_they_are_made_of(store: FeatureStore, tmp_path: Path) -> None:
    """One of a list of features that was never applied is behind each of them; one whose file is gone is marked; one that is
    written again is one frame; both parts of a split are journalled."""
    spare = FeatureView(
        "spare", entity=airport, source=landings, key={"airport": "code"}, refresh="1h", features=["Delay"]
    )
    path = frame(store, [spare["Delay"], "delays:mean_7d"], tmp_path / "list.parquet", airport="JFK")
    frame(store, [spare["Delay"], "delays:mean_7d"], path, airport="JFK")
    gone = frame(store, "trip", tmp_path / "gone.parquet", origin="JFK", dest="JFK", scale=1.0)
    gone.unlink()
    snap = store.snapshot("delays", at=START + timedelta(hours=8)).to_parquet(tmp_path / "snap.parquet")
    first, _ = store.get_historical_features(
        pa.table({"event_timestamp": [START + timedelta(hours=8)], "airport": ["JFK"]}), ["delays:mean_7d"]
    ).split_by_time("2024-05-02")
    split = first.to_parquet(tmp_path / "split.parquet")
    found = store.lineage("delays:mean_7d", direction="downstream")
    told = {node.name: node.detail for node in found.of_kind("training frame")}
    assert {name: detail["exists"] for name, detail in told.items()} == {
        path.name: True, gone.name: False, snap.name: True, split.name: True,
    }  # fmt: skip
    assert told[path.name]["service"] == "adhoc"
    manifest = tmp_path / told[path.name]["manifest"]
    assert told[path.name]["fingerprint"] == json.loads(manifest.read_text())["fingerprint"]
    assert ("feature:delays:mean_7d", f"frame:{path}", "frame") in edges(found)
    assert ", its file is gone)" in str(found)
    assert not store.lineage("lone").of_kind("training frame")


def test_a_registry_that_cannot_be_written_does_not_stop_a_frame(tmp_path: Path) -> None:
    """The frame is what matters; its place in the lineage is beside it."""
    pq.write_table(rows(), tmp_path / "landings.parquet")
    (tmp_path / "taken").write_text("no folder")
    text = 'project = "air"\ndefinitions = []\nregistry = "taken/registry.db"\n'
    (tmp_path / "featurestore.toml").write_text(text)
    with FeatureStore(tmp_path) as store:
        path = frame(store, [delays["delay"]], tmp_path / "frame.parquet", airport="JFK")
    assert pq.read_table(path)["delays__delay"].to_pylist() == [7.0]


def test_an_online_store_that_is_away_leaves_the_rest_of_the_lineage(tmp_path: Path) -> None:
    """What is not known is said beside the version; the definitions are told all the same, without any data."""
    text = 'project = "air"\ndefinitions = []\nonline = "redis://127.0.0.1:1/0"\n'
    (tmp_path / "featurestore.toml").write_text(text)
    pq.write_table(rows(), tmp_path / "landings.parquet")
    with FeatureStore(tmp_path) as store:
        store.apply([trip])
        (tmp_path / "landings.parquet").unlink()
        found = store.lineage("trip")
    (served,) = found.of_kind("served version")
    assert "the online store cannot be asked" in served.detail["error"]
    assert "served version: the online store cannot be asked" in str(found)
    assert ("column:landings.Delay", "feature:delays:delay", "value") in edges(found)


def test_forms_hold_the_same_graph(store: FeatureStore) -> None:
    """JSON, Mermaid, text and HTML name every node once, or more often where it is reached on several ways."""
    found = store.lineage("delays:late_1d")
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    ids = [node["id"] for node in told["nodes"]]
    assert len(set(ids)) == len(ids) == len(found.nodes)
    assert {end for edge in told["edges"] for end in (edge["from"], edge["to"])} <= set(ids)
    chart = found.to_mermaid()
    assert chart.startswith("flowchart LR\n")
    assert chart.count("-->") == len(found.edges)
    for form in (str(found), chart, found._repr_html_()):
        assert all(node.name.split(".")[-1] in form for node in found.nodes.values())
    assert "hour(&quot;at&quot;) &gt; 6" in found._repr_html_()
    assert str(found).count("(see above)") == 1  # the time, which the derived column reads too


def test_of_other_services_nothing_is_read(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a service, and of what only it is made of, neither the log, nor the online store, nor the frames of others are looked at."""
    store.materialize(progress=False)
    asked = {"origin": "JFK", "dest": "JFK", "scale": 2.0}
    store.get_online_features([asked], "trip")
    store.get_online_features([{"airport": "JFK"}], "crowd")
    frame(store, "trip", tmp_path / "trip.parquet", **asked)
    frame(store, "crowd", tmp_path / "crowd.parquet", airport="JFK")
    looked: list[str] = []

    def counted(files: list[Path]) -> int:
        looked.extend(path.parent.parent.name for path in files)
        return len(files)

    def is_there(path: str) -> bool:
        looked.append(Path(path).stem)
        return True

    monkeypatch.setattr(uses, "_requests", counted)
    monkeypatch.setattr(uses, "_is_there", is_there)
    for of in ("trip", "scaled", "landings.Delay"):
        looked.clear()
        assert store.lineage(of).of_kind("service")[0].name == "trip"
        assert set(looked) == {"trip"}
    looked.clear()
    store.lineage("crowd")
    assert set(looked) == {"crowd"}

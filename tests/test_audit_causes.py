"""Skew that was planted, one cause each, over HTTP and real stores: the audit finds it, and says why."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
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
    on_demand,
)
from featurestore.clock import instant_of
from featurestore.errors import RequestError
from featurestore.online.view_codec import ViewCodec, pack_watermark
from featurestore.reports.audit import CAUSES, Audit
from featurestore.reports.audit.bits import passage
from featurestore.training import manifest
from featurestore.types import Array, FeatureType, Float64, Int64, String, Timestamp
from tests.server.test_http import serving
from tests.tampering import tamper

START = datetime(2024, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
THINGS = 5
THING = Entity("thing", key={"thing": Int64})


def value(hour: int, thing: int) -> float:
    """So that no mean of some hours is that of others."""
    return thing + hour**3 / 7


def rows(first: int, hours: int, *, shift: float = 0.0) -> pa.Table:
    """A row a thing and hour, half past."""
    times = [START + HOUR * (first + n) + timedelta(minutes=30) for n in range(hours) for _ in range(THINGS)]
    values = [value(first + n, thing) + shift for n in range(hours) for thing in range(THINGS)]
    return pa.table({"thing": list(range(THINGS)) * hours, "happened": times, "x": values})


class World:
    """A repository over a file of twenty hours, served by a server on a clock to set; it begins in the eleventh."""

    def __init__(self, folder: Path, online: str, stack: ExitStack) -> None:
        self.folder = folder
        (folder / "data").mkdir()
        self.write("first", rows(0, 20))
        text = f'project = "{folder.name}"\nonline = "{online}"\ndefinitions = []\n[serving_log]\nrate = 1.0\n'
        (folder / "featurestore.toml").write_text(text)
        self.clock = ManualClock(START + HOUR * 10.5)
        self.store = stack.enter_context(FeatureStore(folder, clock=self.clock))
        self.client: httpx.Client = stack.enter_context(serving(self.store))
        self.apply()

    def write(self, name: str, table: pa.Table) -> None:
        """A file, old enough that its time of modification says nothing."""
        path = self.folder / "data" / f"{name}.parquet"
        path.unlink(missing_ok=True)
        pq.write_table(table, path)
        os.utime(path, ns=(0, 1_000_000_000 + table.num_rows))

    def view(self, *, window: str = "4h", **words: Any) -> FeatureView:
        source = ParquetSource("rows", "data/*.parquet", event_time="happened", known_after="1m")
        said: dict[str, Any] = {"refresh": "1h", "ready_after": "10m", "ttl": "3h", **words}
        features = {"x": Latest("x"), "mean": Mean("x", window=window), "n": Count(window="2h")}
        return FeatureView("view", entity=THING, source=source, features=features, **said)

    def apply(self, *functions: Any, **words: Any) -> None:
        pushed = PushSource(
            "pushed", schema={"thing": Int64, "happened": Timestamp, "x": Float64}, event_time="happened"
        )
        recent = FeatureView(
            "recent", entity=THING, source=pushed, features={"last": Latest("x"), "n": Count(window="1h")}
        )
        service = FeatureService("service", features=[self.view(**words), recent, *functions])
        self.store.apply([service])
        self.store.reload()

    def run(self) -> None:
        """Let an hour pass, and materialize."""
        self.clock.advance(HOUR)
        self.store.materialize(progress=False)

    def ask(self, **more: Any) -> None:
        """Look every thing up over HTTP, a request a thing."""
        for thing in range(THINGS):
            body = {"service": "service", "rows": [{"thing": thing, **more}]}
            assert self.client.post("/v1/online-features", json=body).status_code == 200

    def codec(self, view: str = "view") -> ViewCodec:
        (found,) = self.store._project.applied([view])
        return ViewCodec(self.store.config.project, found)

    def tamper(self, thing: int, values: dict[str, Any], *, event_time: datetime) -> None:
        """Overwrite a key's record with other values of its newest instant."""
        tamper(self.store, "view", [thing], values, event_time=event_time)


@pytest.fixture(params=["lmdb", "redis"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    url = f"lmdb://{tmp_path}/online" if request.param == "lmdb" else request.getfixturevalue("redis_url")
    with ExitStack() as stack:
        yield World(tmp_path, url, stack)


def causes(audit: Audit, feature: str) -> dict[str, int]:
    (told,) = [told for told in audit.features if told.feature == feature]
    assert sum(told.causes.values()) == told.compared - told.exact == told.rewritten + told.skewed
    return told.causes


def test_nothing_planted_nothing_found(world: World) -> None:
    """What the tests below plant things into is exact."""
    for _ in range(3):
        world.run()
        world.store.push("pushed", [{"thing": 1, "happened": world.clock(), "x": 0.5}])
        world.ask()
    audit = world.store.audit()
    assert (audit.compared, audit.causes, audit.skewed) == (3 * THINGS * 5, {}, 0)
    assert [hour.compared for hour in audit.features[0].hours] == [THINGS] * 3
    assert audit.features[0].hours[0].hour == START + HOUR * 11


def test_late_data(world: World) -> None:
    """A file that is first seen after the value was computed holds rows that should have been known by then."""
    world.run()
    world.ask()
    world.write("late", rows(10, 1, shift=100.0).filter(pa.array([n == 2 for n in range(THINGS)])))
    world.run()
    world.ask()
    audit = world.store.audit()
    assert causes(audit, "view__n") == {"late data": 1}
    assert set(causes(audit, "view__mean")) == {"late data"}
    assert audit.skewed == 0
    example = audit.features[0].examples[0] if audit.features[0].examples else audit.features[1].examples[0]
    assert example.key == {"thing": 2}
    assert "before late.parquet was first seen" in example.detail
    assert example.explanation is not None
    assert any("late.parquet" in str(row.file) for row in example.explanation.rows)


def test_history_rewritten(world: World) -> None:
    """A file is written anew; one that is removed is told alike."""
    world.run()
    world.ask()
    world.write("first", rows(0, 20, shift=1.0).slice(0, 99))
    audit = world.store.audit()
    assert causes(audit, "view__x") == {"history rewritten": THINGS}
    assert (audit.skewed, audit.features[0].rewritten) == (0, THINGS)
    detail = next(told for told in audit.features if told.feature == "view__x").examples[0].detail
    assert detail.startswith("computed at ")
    assert detail.endswith(", since when a file was written anew or removed")
    world.write("other", rows(0, 10))
    (world.folder / "data" / "first.parquet").unlink()
    assert causes(world.store.audit(), "view__x") == {"history rewritten": THINGS}


def test_not_materialized(world: World) -> None:
    """A record that was lost, and one that an update did not reach, for refreshed and for pushed views."""
    world.run()
    world.store.push("pushed", [{"thing": n, "happened": world.clock(), "x": float(n)} for n in range(THINGS)])
    codec, pushed = world.codec(), world.codec("recent")
    lost, kept, waiting = codec.key([0]), codec.key([1]), pushed.key([3])
    old, older = world.store.online.get([kept, waiting]).values
    world.run()
    world.store.push("pushed", [{"thing": n, "happened": world.clock(), "x": -float(n)} for n in range(THINGS)])
    world.store.online.write({lost: None, kept: old, waiting: older})
    world.ask()
    audit = world.store.audit()
    assert causes(audit, "view__x") == {"not materialized": 2}
    assert causes(audit, "view__mean") == {"not materialized": 2}
    assert causes(audit, "recent__last") == {"not materialized": 1}
    told = audit.features[0]
    assert (told.missing_when_served, told.missing_in_training) == (1, 0)
    assert {example.detail for example in told.examples} == {
        "served as if the key were unknown", f"it is training's value at {(START + HOUR * 11).isoformat()}"
    }  # fmt: skip
    assert audit.skewed == audit.features[0].skewed + sum(told.skewed for told in audit.features[1:])


def test_expiry(world: World) -> None:
    """A row that is held as older than it is expires when it should not."""
    world.run()
    world.tamper(4, {}, event_time=START + HOUR * 2)
    world.ask()
    audit = world.store.audit()
    assert causes(audit, "view__x") == {"expiry": 1}
    (example,) = audit.features[0].examples
    assert example.statuses == ("EXPIRED", "PRESENT")
    assert audit.features[0].missing_when_served == 1


def test_definition_changed_after_training(world: World) -> None:
    """A model that names no fingerprint is served what it was not trained on, once the definition has changed."""
    world.run()
    world.ask()
    trained = world.store.get_historical_features(
        pa.table({"thing": [1], "event_timestamp": [world.clock()]}), "service"
    ).manifest["fingerprint"]
    world.apply(ttl="20m")
    world.run()
    world.ask()
    assert world.store.audit().skewed == 0
    audit = world.store.audit(against={"service": trained})
    by_version = {told.fingerprint: told for told in audit.features if told.feature == "view__x"}
    assert by_version.pop(trained).skewed == 0
    (told,) = by_version.values()
    assert told.causes == {"definition changed": THINGS}
    assert audit.skewed == THINGS


def test_early(world: World) -> None:
    """An as_of that the view's refresh did not give yet: values are exact for it, and it is a defect all the same."""
    world.apply(ready_after="40m")
    trained = world.store._project.service("service").fingerprint
    world.apply(ready_after="10m")
    world.run()
    world.ask()
    assert [view.early for view in world.store.audit().lateness] == [0, 0]
    audit = world.store.audit(against={"service": trained})
    assert [(view.view, view.early, view.stale) for view in audit.lateness] == [("view", THINGS, 0), ("recent", 0, 0)]
    assert (audit.causes, audit.skewed) == ({}, THINGS)


def test_definition_changed_under_the_records(world: World) -> None:
    """Records of an earlier version stand where those of the one that is served should."""
    world.run()
    world.clock.advance(HOUR)
    old = world.codec()
    world.store.materialize(progress=False)
    keys = range(2)
    held = world.store.online.get([old.key([key]) for key in keys]).values
    world.apply(window="6h")
    world.store.materialize(progress=False)
    new = world.codec()
    assert new.prefix != old.prefix
    world.store.online.write({new.key([key]): record for key, record in zip(keys, held, strict=True)})
    world.ask()
    audit = world.store.audit()
    assert causes(audit, "view__mean") == {"definition changed": 2}
    assert causes(audit, "view__x") == {}


def test_type_or_encoding(world: World) -> None:
    """A value went through Float32 on its way."""
    world.run()
    exact = value(10, 2)
    world.tamper(2, {"x": float(np.float32(exact))}, event_time=START + HOUR * 10.5)
    world.ask()
    audit = world.store.audit()
    assert causes(audit, "view__x") == {"type or encoding": 1}
    (example,) = audit.features[0].examples
    assert (example.trained, example.detail) == (exact, "it went through Float32")
    assert audit.to_dict()["causes"] == {"type or encoding": 1}


def test_a_library_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of a library, which is no part of the definition, gives another value now."""
    view = world.view()

    @on_demand(inputs=[view["x"], Request("by", Float64)], output=Float64)
    def scaled(x, by):
        return None if x is None else math.fabs(x * by)

    world.apply(scaled)
    world.run()
    world.ask(by=2.0)
    assert world.store.audit().skewed == 0
    monkeypatch.setattr(math, "fabs", lambda x: x + 1)
    audit = world.store.audit()
    assert causes(audit, "scaled") == {"on-demand code or library changed": THINGS}
    assert "no library that it names has another version" in audit.features[-1].examples[0].detail
    monkeypatch.setattr(manifest, "version", lambda _: "0.0.1")
    assert "numpy was " in world.store.audit().features[-1].examples[0].detail


def test_a_feature_that_only_a_function_reads(world: World) -> None:
    """It is logged as well, so that the function's difference has the cause of its input's."""
    view = world.view()

    @on_demand(inputs=[view["x"]], output=Float64)
    def doubled(x):
        return None if x is None else x * 2

    world.store.apply([FeatureService("service", features=[doubled, view["n"]])])
    world.store.reload()
    world.run()
    world.tamper(2, {"x": float(np.float32(value(10, 2)))}, event_time=START + HOUR * 10.5)
    world.ask()
    audit = world.store.audit()
    assert [told.feature for told in audit.features] == ["doubled", "view__n"]
    assert causes(audit, "doubled") == {"type or encoding": 1}
    assert audit.features[0].examples[0].detail == "by its input view__x"


def test_request_value_differed(world: World) -> None:
    """Training was given other request values, and another key, than the requests brought."""
    view = world.view()

    @on_demand(inputs=[view["x"], Request("by", Float64)], output=Float64)
    def scaled(x, by):
        return None if x is None else x * by

    world.apply(scaled)
    world.run()
    world.ask(by=2.0)
    world.store._project.serving_log.flush()
    logged = logged_rows(world)
    spine = logged.select(["request", "row"]).append_column("thing", logged["input:thing"])
    spine = spine.append_column("by", pa.array([2.0, 3.0, 2.0, 2.0, 2.0]))
    spine = pa.concat_tables(
        [spine.slice(0, 4), pa.table({**spine.slice(0, 1).to_pydict(), "request": ["nobody's"]}, spine.schema)]
    )
    audit = world.store.audit(spine=spine)
    assert causes(audit, "scaled") == {"request value differed": 1}
    assert (audit.not_served, audit.not_trained, audit.skewed) == (1, 1, 1)
    other = spine.slice(0, 4).set_column(2, "thing", pa.array([0, 1, 2, 0]))
    audit = world.store.audit(spine=other)
    assert causes(audit, "view__x") == {"request value differed": 1}
    (example,) = audit.features[0].examples
    assert example.detail == "thing was 3 and is 0"


def logged_rows(world: World) -> pa.Table:
    (folder,) = world.store.config.serving_log.folder.glob("service/*")
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))]).sort_by("input:thing")


def test_as_of_untrue(world: World) -> None:
    """A watermark that claims an instant which no run completed: values of the one before are served for it."""
    world.run()
    world.clock.advance(HOUR)
    codec = world.codec()
    claimed = instant_of(START + HOUR * 12)
    world.store.online.write({codec.watermark_key: pack_watermark([claimed, instant_of(START + HOUR * 11)])})
    world.ask()
    audit = world.store.audit()
    assert causes(audit, "view__x") == {"as_of untrue": THINGS}
    assert f"training's value at {(START + HOUR * 11).isoformat()}" in audit.features[0].examples[0].detail


def test_unexplained(world: World) -> None:
    """A value that nothing accounts for is told as such; the budget says how much of it is too much."""
    world.run()
    world.tamper(3, {"x": 12345.678}, event_time=START + HOUR * 10.5)
    world.ask()
    audit = world.store.audit()
    assert causes(audit, "view__x") == {"unexplained": 1}
    assert audit.over_budget == {"service": 1 / (THINGS * 5)}
    assert set(audit.causes) <= set(CAUSES)


def test_a_gate_stops_where_it_looked_at_too_little(world: World) -> None:
    """Nothing compared is no reason to go on, unless that was said; skew and damage are reasons whatever was compared."""
    world.run()
    (nothing,) = world.store.audit().reasons_to_stop()
    assert nothing.startswith("0 values were compared, and a gate wants 1 at least")
    assert world.store.audit().reasons_to_stop(0) == []
    world.ask()
    found = world.store.audit()
    assert found.reasons_to_stop(found.compared) == []
    assert len(found.reasons_to_stop(found.compared + 1)) == 1
    for wrong in (-1, True, 0.5, "1", None):
        with pytest.raises(RequestError, match="minimum_compared is a number of values, 0 or more"):
            found.reasons_to_stop(wrong)  # type: ignore[arg-type]  # the mistake
    world.tamper(3, {"x": 12345.678}, event_time=START + HOUR * 10.5)
    world.ask()
    (skewed,) = world.store.audit().reasons_to_stop(0)
    assert skewed.startswith("service is over its skew budget")


def test_the_report_is_a_page(world: World, tmp_path: Path) -> None:
    """With plots, causes, examples and the rows that explain them, complete in itself; and the command writes it."""
    world.run()
    world.tamper(3, {"x": 12345.678}, event_time=START + HOUR * 10.5)
    world.ask()
    page = world.store.audit().to_html()
    assert page.count("<svg") == 2
    for text in ("unexplained", "12345.678", "over its skew budget", "first.parquet", "view__mean"):
        assert text in page
    assert not re.search(r"""(src|href)=["']?http""", page)
    assert page.count("served 12345.678 PRESENT") == 1
    project = world.store.config.project
    assert f"<h1>Audit of {project}: what was served, against training</h1>" in page
    made = f"{(START + HOUR * 11.5).isoformat(sep=' ')[:19]}Z"
    assert f"project {project}, requests from the beginning of the log to {made}, audited at {made}" in page
    assert f"<title>Audit of {project}: what was served, against training, {made}</title>" in page
    world.clock.advance(HOUR * 3)
    world.ask()
    assert world.store.audit().to_html().count("<svg") == 3
    command = [
        sys.executable,
        "-m",
        "featurestore",
        "audit",
        "--fail-on-skew",
        "--html",
    ]
    told = subprocess.run(
        [*command, str(tmp_path / "audit.html")], cwd=world.folder, capture_output=True, text=True, check=False
    )
    assert (told.returncode, "over its skew budget" in told.stdout) == (3, True), told.stderr
    assert "<svg" in (tmp_path / "audit.html").read_text()


F32 = float(np.float32(0.1))


@pytest.mark.parametrize(
    ("of", "served", "trained", "through"),
    [
        (Float64, F32, 0.1, "it went through Float32"),
        (Float64, 0.0, -0.0, "the sign of a zero was lost"),
        (Float64, None, math.nan, "null and NaN were taken for one another"),
        (Float64, 0.0, None, "null and 0.0 were taken for one another"),
        (Float64, 0.2, 0.1, None),
        (Int64, 1 << 53, (1 << 53) + 1, "it went through Float64"),
        (String, "", None, "null and '' were taken for one another"),
        (String, "a", "a ", "white space was cut"),
        (String, "Ã©", "é", "UTF-8 was read as Latin-1"),
        (Timestamp, START, START + timedelta(microseconds=7), "it was cut to milliseconds"),
        (Array(Float64), [F32, 0.5], [0.1, 0.5], "it went through Float32"),
        (Array(Float64), [0.5], [0.1, 0.5], None),
    ],
)
def test_passages(of: FeatureType, served: Any, trained: Any, through: str | None) -> None:
    """What a value went through is told by what it became."""
    assert passage(served, trained, of) == through


def test_an_entity_without_keys_is_compared(tmp_path: Path) -> None:
    """A request then brings nothing, and is still one row."""
    with ExitStack() as stack:
        world = World(tmp_path, f"lmdb://{tmp_path}/online", stack)
        source = world.view().source
        whole = FeatureView(
            "whole", entity=Entity("all", key={}), source=source, refresh="1h", features={"n": Count(window="2h")}
        )
        world.store.apply([FeatureService("totals", features=[whole])])
        world.run()
        assert world.store.get_online_features([{}], "totals").to_dict() == {"whole__n": [2 * THINGS]}
        audit = world.store.audit(service="totals")
        assert (audit.compared, audit.exact, audit.skewed) == (1, 1, 0)

"""A simulation finds skew where there is some, none where there is none, and says how old values were."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import featurestore.project as project
from featurestore import (
    ARRIVAL,
    Count,
    DataFrameSource,
    Entity,
    Faults,
    FeatureService,
    FeatureStore,
    FeatureView,
    LastN,
    Latest,
    ManualClock,
    Max,
    Mean,
    ParquetSource,
    PushSource,
    Request,
    RequestTime,
    Sum,
    TableSource,
    on_demand,
)
from featurestore.cli import app
from featurestore.errors import NotFoundError, PushError, RequestError
from featurestore.online import Guard, OnlineStore
from featurestore.online.view_codec import ViewCodec
from featurestore.reports.simulation import Simulation
from featurestore.types import Bool, Float64, Int64, String, Timestamp

START = datetime(2024, 5, 1, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FROM, TO = START + 12 * HOUR, START + 17 * HOUR
THINGS = 6
HARMLESS = Faults(disorder=True, duplicates=0.3, fail=0.3, skip=0.2, restarts=6, pause="90m")
SCHEMA = pa.schema(
    [
        ("id", pa.int64()), ("thing", pa.int64()), ("happened", pa.timestamp("us", "UTC")),
        ("learned", pa.timestamp("us", "UTC")), ("x", pa.float64()), ("label", pa.string()), ("gone", pa.bool_()),
    ]
)  # fmt: skip


def rows(hours: int = 19, seed: int = 0) -> pa.Table:
    """A row a thing and quarter of an hour, learned up to 20 minutes after it happened, some of them twice with a change."""
    drawn = random.Random(seed)
    found = []
    for n in range(hours * 4 * THINGS):
        happened = START + MINUTE * (n // THINGS * 15 + drawn.randrange(15))
        learned = happened + MINUTE * drawn.randrange(20)
        x = drawn.choice([None, -0.0, 0.1, 3.5, n / 7])
        row: dict[str, Any] = {
            "id": n, "thing": n % THINGS, "happened": happened, "learned": learned, "x": x, "label": f"l{n % 7}", "gone": False,
        }  # fmt: skip
        found.append(row)
        if drawn.random() < 0.1:
            found.append({**row, "learned": learned + HOUR, "x": 7.0, "gone": drawn.random() < 0.5})
    return pa.Table.from_pylist(sorted(found, key=lambda row: row["learned"]), SCHEMA)


thing = Entity("thing", key={"thing": Int64})
measured = ParquetSource("measured", "data/measured.parquet", event_time="happened", known_after="1m", tiebreak="id")
corrected = ParquetSource(
    "corrected", "data/corrected", event_time="happened", known_at="learned", identity="id", deleted="gone"
)
facts = ParquetSource("facts", "data/facts.parquet", event_time=None)
sent = PushSource(
    "sent", schema={"id": Int64, "thing": Int64, "happened": Timestamp, "x": Float64, "gone": Bool}, event_time="happened",
    identity="id", deleted="gone", lateness="3h",
)  # fmt: skip
said = PushSource("said", schema={"thing": Int64, "at": Timestamp, "label": String}, event_time="at")
hourly = FeatureView(
    "hourly", entity=thing, source=measured, refresh="1h", settle="5m", ready_after="10m", ttl="2h",
    features={"x": Latest("x", default=-1.0), "mean": Mean("x", window="6h"), "last": LastN("label", n=2)},
)  # fmt: skip
half = FeatureView(
    "half", entity=thing, source=corrected, refresh="30m", ready_after="5m",
    features={"n": Count(window="2h"), "sum": Sum("x", window="3h")},
)  # fmt: skip
about = FeatureView("about", entity=thing, source=facts, refresh="1d", features=["name"])
now = FeatureView(
    "now", entity=thing, source=sent, ttl="1h",
    features={"x": Latest("x"), "n": Count(window="2h"), "most": Max("x", window="1d")},
)  # fmt: skip
rolled = FeatureView("rolled", entity=thing, source=sent, refresh="1h", features={"n": Count(window="1h")})
heard = FeatureView("heard", entity=thing, source=said, features={"label": Latest("label"), "n": Count(window="1h")})


@on_demand(inputs=[hourly["mean"], Request("scale", Float64)], output=Float64)
def scaled(mean, scale):
    return None if mean is None else mean * scale


@on_demand(inputs=[now["n"], RequestTime()], output=Int64)
def hour_of(n, time):
    return None if n is None else n + time.hour


SERVICES = [
    FeatureService("model", features=[hourly, half, about, scaled]),
    FeatureService("live", features=[now, rolled, heard, hour_of]),
]


def repository(folder: Path, definitions: str = "") -> Path:
    (folder / "data" / "corrected").mkdir(parents=True)
    table = rows()
    pq.write_table(table.drop_columns(["learned", "gone"]), folder / "data" / "measured.parquet")
    pq.write_table(table.slice(0, 250), folder / "data" / "corrected" / "a.parquet")
    pq.write_table(table.slice(250), folder / "data" / "corrected" / "b.parquet")
    names = pa.table({"thing": range(THINGS), "name": [f"n{n}" for n in range(THINGS)]})
    pq.write_table(names, folder / "data" / "facts.parquet")
    said = "definitions = []" if not definitions else 'definitions = ["definitions.py"]'
    (folder / "featurestore.toml").write_text(f'project = "small"\n{said}\n')
    if definitions:
        (folder / "definitions.py").write_text(definitions)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository(tmp_path_factory.mktemp("small"))


def pushes() -> dict[str, pa.Table]:
    table = rows(seed=1)
    sent = table.select(["id", "thing", "happened", "x", "gone"]).append_column("known_at", table["learned"])
    return {"sent": sent, "said": table.select(["thing", "label"]).append_column("at", table["happened"])}


def simulated(
    folder: Path, defined: list[FeatureService] = SERVICES, *, end: datetime = TO, **words: Any
) -> Simulation:
    with FeatureStore(folder, clock=ManualClock(TO + 48 * HOUR)) as store:
        store._project.add(defined)
        return store.simulate(FROM, end, **{"rows": pushes(), "lookups": 20, **words})


def differing(found: Simulation) -> dict[str, int]:
    return {f.feature: f.compared - f.exact for f in found.audit.features if f.exact < f.compared}


def tree(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_where_nothing_goes_wrong_nothing_differs_and_nothing_is_old(folder: Path) -> None:
    """Every value has training's bits, every run takes place, no as_of is behind, and the project is as it was."""
    before = tree(folder)
    found = simulated(folder, faults=Faults.none())
    assert tree(folder) == before
    assert (found.differing, found.early, found.stale, found.skewed) == (0, 0, 0, 0)
    assert found.compared > 4_000
    assert found.counts == {"lookups": 200}
    assert {runs.view: runs.completed for runs in found.runs} == {
        "about": 0, "half": 10, "heard": 0, "hourly": 5, "now": 0, "rolled": 5,
    }  # fmt: skip
    served = {f.feature: f for f in found.audit.features}
    assert served.keys() == {
        "hourly__x", "hourly__mean", "hourly__last", "half__n", "half__sum", "about__name", "scaled", "now__x", "now__n",
        "now__most", "rolled__n", "heard__label", "heard__n", "hour_of",
    }  # fmt: skip
    assert found.landed["measured"].rows > 100
    assert found.landed["measured"].history > 200
    assert found.pushed["sent"].accepted == found.pushed["sent"].rows > 100
    assert found.pushed["sent"].history > 200
    assert found.refused == {}
    assert found.advice == ()


def test_faults_that_do_no_harm_change_no_value(folder: Path) -> None:
    """Disorder, duplicates, failing and skipped runs, restarts, dying pushes and a pause longer than a ttl: values keep
    training's bits, and what they cost is told as age."""
    found = simulated(folder, faults=HARMLESS)
    assert (found.differing, found.early) == (0, 0), differing(found)
    assert found.stale > 0
    runs = {each.view: each for each in found.runs}
    for kind in ("failed", "skipped", "paused"):
        assert sum(getattr(each, kind) for each in found.runs) > 0, kind
    assert runs["half"].completed < 10
    assert found.counts["restarts"] == 6
    assert found.landed["corrected"].duplicates > 20
    assert found.landed["measured"].duplicates == 0
    assert found.pushed["sent"].unchanged > 20
    assert found.pushed["said"].unchanged == 0
    assert found.pushed["sent"].died + found.pushed["said"].died > 0
    assert found.pushed["said"].accepted > 100
    told = {view.view: view for view in found.audit.lateness}
    assert told["half"].greatest >= 1_800_000_000
    assert any("FeatureView 'half' was stale" in text for text in found.advice)
    assert not any("defect" in text or "broken" in text for text in found.advice)


def test_rows_that_come_too_late_are_found_and_named(folder: Path) -> None:
    """Rows later than known_after says: differences in the features over that source, and advice that names the promise;
    a source whose rows are known when they are pushed keeps its values."""
    faults = Faults(late=0.2, late_by="3h", disorder=False, duplicates=0, fail=0, skip=0, restarts=0, pause="0s")
    found = simulated(folder, faults=faults)
    assert found.differing > 100
    assert found.skewed == found.differing
    assert set(found.audit.causes) == {"late data"}
    assert {"hourly__x", "hourly__last", "half__n", "half__sum"} <= set(differing(found))
    assert not {"about__name", "now__x", "now__n", "now__most", "rolled__n", "heard__n"} & set(differing(found))
    assert found.landed["measured"].late > 10
    text = "\n".join(found.advice)
    assert "known_after=1m of ParquetSource 'measured' is broken by late rows" in text
    assert "known_at ('learned') of ParquetSource 'corrected' is broken by late rows" in text
    assert found.pushed["sent"].late > 10


def test_pushed_rows_that_come_too_late_are_kept_aside(folder: Path) -> None:
    """Rows later than a push source's lateness count nowhere, in training neither, and the report says how many."""
    faults = Faults(late=0.3, late_by="9h", disorder=False, duplicates=0, fail=0, skip=0, restarts=0, pause="0s")
    found = simulated(folder, faults=faults, services=["live"], lookups=5)
    assert found.differing == 0
    assert found.pushed["sent"].kept_aside > 0
    assert found.pushed["said"].kept_aside == 0
    assert any("kept aside" in text and "lateness of 3h" in text for text in found.advice)


def test_the_same_seed_gives_the_same_report(folder: Path) -> None:
    """Two runs of one seed agree in every figure and every example; those of another do not."""
    words: dict[str, Any] = {"services": ["model"], "lookups": 20, "rows": {}, "end": FROM + 3 * HOUR}
    faults = HARMLESS.model_copy(update={"late": 0.5, "late_by": 7_200_000_000})
    first, again, other = (
        simulated(folder, faults=faults, seed=seed, **words).to_dict() for seed in (3, 3, 4)
    )  # fmt: skip
    assert first["differing"] > 0
    assert first == again
    assert first != {**other, "seed": 3}


class Forgetful:
    """An online store that acknowledges one record of a view and does not keep it."""

    def __init__(self, store: OnlineStore, prefix: list[bytes], after: int) -> None:
        self._store, self._prefix, self._left = store, prefix, after
        self.blocking, self.tagged = store.blocking, store.tagged

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        mine = [key for key in puts if key.startswith(self._prefix[0])]
        self._left -= len(mine)
        if mine and -len(mine) < self._left <= 0:
            puts = {key: value for key, value in puts.items() if key != mine[0]}
        return self._store.write(puts, guard=guard)


def test_a_write_that_is_lost_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record of the pushed view is acknowledged and not kept: its features are skewed, and called a defect."""
    with FeatureStore(folder, clock=ManualClock(TO)) as store:
        store._project.add(SERVICES)
        prefix = [ViewCodec("small", store._project.view("now")).record_prefix]
    opened = project.open_online  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
    monkeypatch.setattr(project, "open_online", lambda *args, **words: Forgetful(opened(*args, **words), prefix, 20))
    found = simulated(folder, faults=Faults.none(), services=["live"], end=FROM + 2 * HOUR)
    assert set(differing(found)) <= {"now__x", "now__n", "now__most", "hour_of"}
    assert differing(found)["now__n"] > 0
    assert any("values of now__n (live) are not training's" in text and "a defect" in text for text in found.advice)


def test_every_kind_of_source_is_replayed(tmp_path: Path) -> None:
    """A frame, a DuckDB table, and files known from their arrival land like Parquet files, and serve training's bits."""
    table = rows()
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("given", table)
        connection.execute("CREATE TABLE orders AS FROM given")
    (tmp_path / "files").mkdir()
    words: dict[str, Any] = {"event_time": "happened"}
    sources = [
        DataFrameSource("framed", table, known_at="learned", identity="id", deleted="gone", **words),
        TableSource("tabled", "w.duckdb", table="orders", known_after="20m", **words),
        ParquetSource("arrived", "files", known_at=ARRIVAL, derived={"twice": "x * 2"}, **words),
    ]
    features = {"n": Count(window="3h"), "label": Latest("label")}
    views = [FeatureView(f"of_{s.name}", entity=thing, source=s, refresh="1h", features=features) for s in sources]
    views.append(FeatureView("running", entity=thing, source=sources[0], refresh="continuous", features=features))
    (tmp_path / "featurestore.toml").write_text('project = "kinds"\ndefinitions = []\n')
    clock = ManualClock(START)
    with FeatureStore(tmp_path, clock=clock) as store:
        for part in range(19):  # files that arrive every hour, journalled by the real store
            clock.set(START + part * HOUR)
            some = table.slice(part * 25, 25)
            pq.write_table(some, tmp_path / "files" / f"{part:02}.parquet")
            store.offline.see(sources[2])
        service = FeatureService("all", features=views)
        store._project.add([service])
        found = store.simulate(FROM, TO, faults=HARMLESS, lookups=15)
        late = store.simulate(FROM, TO, faults=Faults(late=0.3, late_by="2h"), lookups=15)
    assert found.differing == 0, differing(found)
    assert {name: landed.rows > 50 for name, landed in found.landed.items()} == dict.fromkeys(found.landed, True)
    assert any("'running' was stale" in text and "continuous" in text for text in found.advice)
    told = {f.feature: (f.compared, f.exact) for f in late.audit.features}
    assert told["of_arrived__n"][0] == told["of_arrived__n"][1]
    assert told["of_tabled__n"][0] > told["of_tabled__n"][1]


def test_a_log_is_replayed_from_the_middle(tmp_path: Path) -> None:
    """What a real store was pushed up to the start is in the log from the beginning, the rest is pushed when it was."""
    (tmp_path / "featurestore.toml").write_text('project = "logged"\ndefinitions = []\n')
    table = pushes()["sent"].drop_columns(["known_at"])
    clock = ManualClock(START)
    with FeatureStore(tmp_path, clock=clock) as store:
        store.apply([FeatureService("live", features=[now, rolled])])
        for hour in range(1, 19):
            clock.set(max(clock(), START + hour * HOUR))
            store.push(
                "sent",
                table.filter(
                    (pa.compute.field("happened") <= clock()) & (pa.compute.field("happened") > clock() - HOUR)
                ),
            )
        logged = store.offline.log(sent).read()
        store.activity()  # once the trail of the pushes is written
        before = tree(tmp_path)
        found = store.simulate(FROM, TO, faults=HARMLESS, lookups=10)
        assert tree(tmp_path) == before
    start = (FROM - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    known = logged["known_at"].to_pylist()
    assert found.pushed["sent"].history == sum(k <= start for k in known)
    assert found.pushed["sent"].accepted > 100
    assert found.differing == 0
    assert found.compared > 300


def test_a_history_that_lies_after_the_start_is_pushed(folder: Path) -> None:
    """The cutover of a push source moves to the start: its batch rows are pushed from then on, as after the deployment."""
    columns = {"id": Int64, "thing": Int64, "happened": Timestamp, "x": Float64}
    source = PushSource(
        "orders", schema=columns, event_time="happened", history=measured, cutover=TO + 9 * HOUR,
    )  # fmt: skip
    view = FeatureView("running", entity=thing, source=source, features={"n": Count(window="2h"), "x": Latest("x")})
    found = simulated(folder, [FeatureService("run", features=[view])], services=["run"], rows={}, faults=HARMLESS)
    assert found.differing == 0
    assert found.pushed["orders"].accepted > 100
    assert found.landed["measured"].history > 200
    assert any("cutover of PushSource 'orders' was moved" in text for text in found.notes)


def test_what_cannot_be_simulated_is_refused(folder: Path) -> None:
    """Names that are not there, rows for a source of files, an empty stretch, and shares beyond one."""
    with pytest.raises(NotFoundError, match="modell"):
        simulated(folder, services=["modell"])
    with pytest.raises(NotFoundError, match="The services read no source 'sends'"):
        simulated(folder, rows={"sends": rows()})
    with pytest.raises(PushError, match="rows are given for push sources"):
        simulated(folder, rows={"measured": rows()})
    with FeatureStore(folder, clock=ManualClock(TO)) as store, pytest.raises(RequestError, match="nothing to simulate"):
        store.simulate(FROM, TO)
    with FeatureStore(folder, clock=ManualClock(TO)) as store:
        store._project.add(SERVICES)
        with pytest.raises(RequestError, match="is empty"):
            store.simulate(TO, FROM)
    for words in ({"fail": 1.5}, {"late": 0.1}, {"restarts": -1}, {"delay": 1}):
        with pytest.raises(ValueError, match=next(iter(words))):
            Faults(**words)


def test_without_more_the_last_day_of_the_data_is_taken(folder: Path) -> None:
    """The stretch ends where the first source ends, and a source that ended long ago has no say."""
    with FeatureStore(folder, clock=ManualClock(TO + 48 * HOUR)) as store:
        slow: dict[str, Any] = {"refresh": "6h", "features": {"n": Count(window="1d")}}
        views = [FeatureView(f"of_{s.name}", entity=thing, source=s, **slow) for s in (measured, corrected)]
        store._project.add([FeatureService("daily", features=[*views, about])])
        found = store.simulate(faults=Faults.none(), lookups=1)
    assert {runs.view: runs.completed for runs in found.runs} == {"of_measured": 4, "of_corrected": 4, "about": 1}
    ends = [max(rows()["learned"].to_pylist()), max(rows()["happened"].to_pylist()) + MINUTE]
    assert found.end == (min(ends) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert found.end - found.start == 24 * 3_600_000_000


DEFINITIONS = """
from featurestore import Count, Entity, FeatureService, FeatureView, ParquetSource
from featurestore.types import Int64

measured = ParquetSource("measured", "data/measured.parquet", event_time="happened", known_after="1m")
hourly = FeatureView("hourly", entity=Entity("thing", key={"thing": Int64}), source=measured, refresh="1h",
                     features={"n": Count(window="6h")})
model = FeatureService("model", features=[hourly])
"""


def test_the_command_prints_the_report_and_fails_on_skew(tmp_path: Path) -> None:
    """--json prints the report; with --fail-on-skew the exit code is 3 where a value differs, or there is none, and 0 where none does."""
    repository(tmp_path, DEFINITIONS)
    common = ["--repo", str(tmp_path), "simulate", "--from", FROM.isoformat(), "--to", TO.isoformat(), "--fail-on-skew"]
    clean = CliRunner().invoke(app, [*common, "--json", "--lookups", "10", "--no-disorder", "--pause", "1h"])
    assert clean.exit_code == 0, clean.output
    report = json.loads(clean.stdout)
    assert (report["differing"], report["from"]) == (0, "2024-05-01T12:00:00.000000Z")
    assert report["faults"]["disorder"] is False
    late = CliRunner().invoke(app, [*common, "--late", "0.3:3h", "--skip", "0"])
    assert late.exit_code == 3, late.output
    assert "known_after=1m of ParquetSource 'measured' is broken" in late.stdout
    assert "hourly__n" in late.stdout
    nothing = CliRunner().invoke(app, [*common, "--lookups", "0"])
    assert (nothing.exit_code, "nothing was compared" in nothing.stderr) == (3, True), nothing.output
    wrong = CliRunner().invoke(app, [*common, "--late", "3h"])
    assert wrong.exit_code == 2


def test_names_of_sources_may_differ_in_case_alone_or_be_words_of_sql(folder: Path) -> None:
    """Their rows do not meet, and the session that reads them takes every name that a source may have."""
    views = [
        FeatureView(f"of_{name}", entity=thing, source=ParquetSource(name, path, event_time="happened", known_after="1m"),
                    refresh="1h", features={"n": Count(window="6h")})
        for name, path in (("order", "data/measured.parquet"), ("Order", "data/corrected"))
    ]  # fmt: skip
    found = simulated(folder, [FeatureService("both", features=views)], faults=Faults.none(), rows={}, lookups=2)
    assert (found.differing, set(found.landed)) == (0, {"order", "Order"})
    assert found.compared > 0


def test_an_entity_without_keys_is_simulated(folder: Path) -> None:
    """It has one key, which nobody brings, and its values are compared as those of others are."""
    source = measured.model_copy()
    alone = FeatureView(
        "alone", entity=Entity("all", key={}), source=source, refresh="1h", features={"n": Count(window="2h")}
    )
    found = simulated(
        folder, [FeatureService("whole", features=[alone])], faults=Faults.none(), rows={}, end=FROM + 2 * HOUR
    )
    assert found.compared > 30
    assert (found.differing, found.refused) == (0, {})

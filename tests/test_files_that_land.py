"""Files that land, change or vanish while something reads: it works on those that it saw first, all as they were."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import (
    ARRIVAL,
    Count,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    PushSource,
)
from featurestore.errors import FilesChangedError, SourceError
from featurestore.sources import source_files
from featurestore.sources.session import Session
from featurestore.training import spine as spines
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from featurestore.types import Int64, Timestamp
from tests.small import NOON, THING, hours, raised, spine, table, trained, write


class Landing:
    """A folder of files, and what is to happen each time that a session has found them and not read them yet."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.looks = folder, 0
        self.events: list[Callable[[], object]] = []
        folder.mkdir()

    def put(self, name: str, *things: int) -> None:
        """A file with a row each; written anew it is another file."""
        write(self.folder / name, table(thing=list(things), at=[hours(-1)] * len(things)))
        self.looks += 1
        os.utime(self.folder / name, ns=(self.looks * 10**9, self.looks * 10**9))

    def drop(self, name: str) -> None:
        (self.folder / name).unlink()

    def happen(self) -> None:
        if self.events:
            self.events.pop(0)()


@pytest.fixture
def landing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Landing:
    made = Landing(tmp_path / "data")
    made.put("a.parquet", 1)
    made.put("b.parquet", 1, 2)
    real = Session.scan

    def scan(self: Session, source: Any) -> Any:
        found = real(self, source)
        made.happen()
        return found

    monkeypatch.setattr(Session, "scan", scan)
    return made


@pytest.fixture(params=["known when they happened", ARRIVAL])
def store(request: pytest.FixtureRequest, tmp_path: Path, landing: Landing) -> Iterator[FeatureStore]:
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    known: dict[str, Any] = {"known_at": ARRIVAL, "history_until": NOON} if request.param == ARRIVAL else {}
    source = ParquetSource("rows", landing.folder, event_time="at", **known)
    view = FeatureView("view", entity=THING, source=source, refresh="1h", features={"n": Count(window="30d")})
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("service", features=[view])])
        landing.events.clear()
        yield store


def served(store: FeatureStore) -> list[Any]:
    found: list[Any] = store.get_online_features([{"thing": n} for n in (1, 2, 3)], "service").to_dict()["view__n"]
    return [n or 0 for n in found]


def counts(found: pa.Table) -> list[Any]:
    return [n or 0 for n in found["view__n"].to_pylist()]


THINGS = [1, 2, 3]
BEFORE = [2, 1, 0]

EVENTS: dict[str, tuple[Callable[[Landing], object], list[int], list[int]]] = {
    "lands": (lambda landing: landing.put("c.parquet", 3), BEFORE, [2, 1, 1]),
    "is written anew": (lambda landing: landing.put("a.parquet", 3), [1, 1, 1], [1, 1, 1]),
    "vanishes": (lambda landing: landing.drop("b.parquet"), [1, 0, 0], [1, 0, 0]),
}
"""What happens, what a run that it meets says, and what the next one does."""


@pytest.mark.parametrize("event", EVENTS)
def test_a_run_of_materialize_works_on_one_state(store: FeatureStore, landing: Landing, event: str) -> None:
    """A file that lands is the next run's; of one that changed or vanished the run reads again, by itself."""
    happens, now, later = EVENTS[event]
    landing.events = [lambda: happens(landing)]
    (run,) = store.materialize(progress=False)
    assert served(store) == now
    assert landing.events == []
    assert len(run.files) == len(list(landing.folder.iterdir())) - (event == "lands")
    store._project.clock.set(hours(1))  # type: ignore[attr-defined]  # the clock of these tests
    store.materialize(progress=False)
    assert served(store) == later == counts(trained(store, hours(1), thing=THINGS))


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("verb", ["training", "snapshot", "explain", "audit"])
def test_whoever_reads_works_on_one_state(store: FeatureStore, landing: Landing, verb: str, event: str) -> None:
    """Training, snapshots, explanations and audits alike; a manifest lists what was read."""
    store.materialize(progress=False)
    assert served(store) == BEFORE
    happens, now, _ = EVENTS[event]
    landing.events = [lambda: happens(landing)]
    if verb == "training":
        frame = store.get_historical_features(spine(NOON, thing=THINGS), "service")
        assert counts(frame.to_arrow()) == now
        assert frame.manifest["rows"] == 3
        assert len(frame.manifest["sources"]["rows"]) == len(list(landing.folder.iterdir())) - (event == "lands")
    elif verb == "snapshot":
        found = store.snapshot("service", at=NOON).to_arrow()
        known = dict(zip(found["thing"].to_pylist(), found["view__n"].to_pylist(), strict=True))
        assert known == {thing: n for thing, n in zip(THINGS, now, strict=True) if n}
    elif verb == "explain":
        assert [store.explain("view", {"thing": n}).values["n"] or 0 for n in (1,)] == now[:1]
    else:
        audit = store.audit()
        (feature,) = audit.features
        assert (feature.compared, feature.skewed) == (3, 0)
        assert feature.exact == sum(before == after for before, after in zip(BEFORE, now, strict=True))
    assert landing.events == []


def test_what_changes_each_time_is_an_error_in_the_end(store: FeatureStore, landing: Landing) -> None:
    """After a few times, by name; what was served is served on, and when it rests all is well."""
    store.materialize(progress=False)
    store._project.clock.set(hours(1))  # type: ignore[attr-defined]  # the clock of these tests
    verbs: list[Callable[[], Any]] = [
        lambda: store.materialize(progress=False),
        lambda: trained(store, NOON, thing=THINGS),
        lambda: store.snapshot("service", at=NOON).to_arrow(),
        lambda: store.explain("view", {"thing": 1}),
    ]
    for verb in verbs:
        landing.events = [lambda: landing.put("a.parquet", 3)] * 50
        said = raised(FilesChangedError, verb)
        assert "a.parquet was written anew" in said
        assert 50 - len(landing.events) <= 3 * source_files.MAX_READINGS
    landing.events = []
    assert served(store) == BEFORE
    store.materialize(progress=False)
    assert served(store) == [1, 1, 1]


def test_a_frame_of_several_chunks_is_of_one_state(
    store: FeatureStore, landing: Landing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes after the first of them is written: the whole is written again, its counts are its own; a stream,
    which cannot be read again, is refused instead of cut short."""
    monkeypatch.setattr(spines, "CHUNK_ROWS", 2)
    monkeypatch.setattr(spines, "READ_ROWS", 1)
    asked = spine(NOON, thing=[*THINGS, 1, 2, 3])
    path = write(tmp_path / "spine.parquet", asked)

    def change() -> None:
        landing.put("a.parquet", 3)

    quiet: Callable[[], object] = int
    landing.events = [quiet, quiet, change]
    frame = store.get_historical_features(path, "service")
    written = frame.to_parquet(tmp_path / "out.parquet")
    assert landing.events == []
    assert counts(pq.read_table(written)) == [1, 1, 1] * 2
    assert frame.manifest["rows"] == 6
    landing.events = [quiet, quiet, change]
    reader = pa.RecordBatchReader.from_batches(asked.schema, asked.to_batches(1))
    said = raised(FilesChangedError, lambda: store.get_historical_features(reader, "service"))
    assert "ask again" in said


def test_a_frame_that_waited_is_of_the_files_when_it_is_read(
    store: FeatureStore, landing: Landing, tmp_path: Path
) -> None:
    """One over a path is answered when it is read: what changed since it was made is no error."""
    frame = store.get_historical_features(write(tmp_path / "spine.parquet", spine(NOON, thing=THINGS)), "service")
    landing.put("a.parquet", 3)
    assert counts(frame.to_arrow()) == [1, 1, 1]


def test_a_history_that_changes_while_a_view_is_filled_is_read_again(landing: Landing, tmp_path: Path) -> None:
    """Rows before a cutover lie in files too: what is published is of one state of them."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n')
    history = ParquetSource("past", landing.folder, event_time="at", known_after="1m")
    source = PushSource(
        "rows", schema={"thing": Int64, "at": Timestamp}, event_time="at", history=history, cutover=hours(-0.5)
    )
    view = FeatureView("view", entity=THING, source=source, features={"n": Count(window="30d")})
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("service", features=[view])])
        landing.events = [lambda: landing.put("a.parquet", 3)]
        store.materialize(progress=False)
        assert landing.events == []
        assert served(store) == [1, 1, 1] == counts(trained(store, NOON, thing=THINGS))


def test_a_file_that_vanishes_between_listing_and_looking_is_not_there(
    store: FeatureStore, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are listed again, and one that is named by itself is missed by name."""
    real = source_files.Places._listed

    def listed(self: Any, source: Any) -> Any:
        found = real(self, source)
        if (landing.folder / "b.parquet").exists():
            landing.drop("b.parquet")
        return found

    monkeypatch.setattr(source_files.Places, "_listed", listed)
    assert counts(trained(store, NOON, thing=THINGS)) == [1, 0, 0]


def test_a_file_of_another_type_that_lands_meanwhile_is_refused(landing: Landing, tmp_path: Path) -> None:
    """After the types were looked at, before the files are read: it is named, and never cut to what the others have."""
    view = FeatureView(
        "view",
        entity=THING,
        source=ParquetSource("rows", landing.folder, event_time="at"),
        refresh="1h",
        features=["x"],
    )
    for name in ("a.parquet", "b.parquet"):
        write(landing.folder / name, table(thing=[1], at=[hours(-2)], x=pa.array([1], pa.int32())))
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n')
    with FeatureStore(tmp_path, clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("service", features=[view])])
        settled = store._project.service("service")
        write(landing.folder / "c.parquet", table(thing=[1], at=[hours(-1)], x=[2.5]))
        said = raised(
            SourceError,
            lambda: get_historical_features(
                spine(NOON, thing=[1]), settled, store.offline, now=store._project.now(), options=Options()
            ),
        )
        assert "files came with which column 'x' is Float64 (DOUBLE), and was Int32 (INTEGER): " in said
        assert "c.parquet" in said
        assert "a.parquet" not in said

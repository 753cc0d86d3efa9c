"""Frames of what was served for lists of features, and in parts: which services' logs answer, and that all ways say the same."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import Entity, FeatureService, FeatureStore, ManualClock, Request, on_demand
from featurestore.errors import FeatureStoreError, RequestError, SpineError
from featurestore.types import Float64, Int64
from tests.small import NOON, hours, table, view_of, write

THINGS = 8
THING = Entity("thing", key={"thing": Int64})


class Shop:
    """Two services that share a view; `wide` has all, `narrow` the view's x alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, ManualClock(NOON)
        self.write_rows({})
        (folder / "featurestore.toml").write_text('project = "shop"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
        self.view = view_of(folder / "rows.parquet", ["x", "word"], refresh="1h", ready_after="0s", entity=THING)

        @on_demand(inputs=[self.view["x"], Request("factor", Float64)], output=Float64)
        def scaled(x: float | None, factor: float | None) -> float | None:
            return None if x is None or factor is None else x * factor

        self.scaled = scaled
        self.narrow = FeatureService("narrow", features=[self.view["x"]])
        self.wide = FeatureService("wide", features=[self.view["word"], scaled])
        self.store = FeatureStore(folder, clock=self.clock)
        self.store.apply([self.view, self.narrow, self.wide])

    def write_rows(self, changed: dict[int, float]) -> None:
        keys = [*range(THINGS)] * 2
        times = [hours(-2)] * THINGS + [hours(0.5)] * THINGS
        numbers = [changed.get(n, float(n)) for n in range(2 * THINGS)]
        write(self.folder / "rows.parquet", table(thing=keys, at=times, x=numbers, word=[f"w{key}" for key in keys]))

    def ask(self, service: str, hour: float, thing: int, factor: float = 2.0) -> None:
        self.clock.set(hours(hour))
        row = {"thing": thing} if service == "narrow" else {"thing": thing, "factor": factor}
        self.store.get_online_features([row], service)


def spine_of(rows: list[tuple[float, int]], factor: float = 2.0) -> pa.Table:
    return table(
        event_timestamp=[hours(hour) for hour, _ in rows], thing=[thing for _, thing in rows],
        factor=[factor] * len(rows),
    )  # fmt: skip


def test_each_service_that_gives_all_of_a_list_answers_for_it(tmp_path: Path) -> None:
    """Those that read a feature only for a function too; of several requests the last."""
    shop = Shop(tmp_path)
    with shop.store as store:
        store.materialize(progress=False)
        shop.ask("narrow", 0, 1)
        shop.ask("wide", 0.1, 2)
        shop.ask("narrow", 0.2, 3)
        shop.ask("wide", 0.2, 3)
        spine = spine_of([(0.3, 1), (0.3, 2), (0.3, 3), (0.3, 4)])
        frame = store.get_historical_features(spine, ["view:x"], from_log="1h", with_status=True)
        assert frame.to_arrow()["values_from"].to_pylist() == ["log", "log", "log", "query"]
        assert sum(frame.manifest["from_log"]["services"].values()) == 3
        assert frame.manifest["from_log"]["services"].keys() == {"narrow", "wide"}
        query = store.get_historical_features(spine, ["view:x"], with_status=True).to_arrow()
        assert frame.to_arrow().drop_columns(["values_from"]).equals(query)
        both = store.get_historical_features(spine, ["view:x", "view:word", "scaled"], from_log="1h")
        assert both.to_arrow()["values_from"].to_pylist() == ["query", "log", "log", "query"]
        assert both.manifest["from_log"]["services"] == {"wide": 2}
        assert (both.manifest["from_log"]["compared"], both.manifest["from_log"]["equal"]) == (6, 6)


def test_versions_that_define_it_otherwise_do_not_answer(tmp_path: Path) -> None:
    """Neither of the view, nor of a function, nor by another key; older versions of a service that do are asked still."""
    shop = Shop(tmp_path)
    with shop.store as store:
        store.materialize(progress=False)
        shop.ask("wide", 0, 1)
        spine = spine_of([(0, 1)])

        def comes_from(features: list[object]) -> str:
            (told,) = (
                store.get_historical_features(spine, features, from_log="0s").to_arrow()["values_from"].to_pylist()
            )
            return str(told)

        assert comes_from(["view:word"]) == "log"
        store.apply([FeatureService("wide", features=[shop.view["word"]])])
        assert comes_from(["view:word", "scaled"]) == "log"
        other = view_of(tmp_path / "rows.parquet", ["x", "word"], refresh="2h", ready_after="0s", entity=THING)
        store.apply([other, FeatureService("wide", features=[other])])
        assert comes_from(["view:word"]) == "query"
        renamed = other.alias("view", key={"thing": "factor_thing"})
        with_key = spine.append_column("factor_thing", spine["thing"])
        with pytest.raises(RequestError, match="no service gives all that is asked for"):
            store.get_historical_features(with_key, [renamed["word"]], from_log="0s")


def test_features_of_no_one_service_are_refused_by_name(tmp_path: Path) -> None:
    """With the services that give each; an empty log of one that gives all is none to refuse."""
    shop = Shop(tmp_path)
    with shop.store as store:
        second = view_of(tmp_path / "rows.parquet", ["x"], name="second", refresh="1h", ready_after="0s", entity=THING)
        store.apply([second, FeatureService("third", features=[second])])
        spine = spine_of([(0, 1)])
        with pytest.raises(RequestError, match="'view__x' is given by narrow, wide; 'second__x' is given by third"):
            store.get_historical_features(spine, ["view:x", "second:x"], from_log="0s")
        frame = store.get_historical_features(spine, ["second:x"], from_log="0s")
        assert frame.to_arrow()["values_from"].to_pylist() == ["query"]


@pytest.mark.parametrize("seed", range(4))
def test_all_ways_say_the_same_and_what_differs_has_its_cause(tmp_path: Path, seed: int) -> None:
    """Drawn requests, and a history that was changed since for some keys: a frame from the log differs from that of the query where, and only
    where, a cause is told; and parts are the rows of the whole."""
    draw = random.Random(seed)
    shop = Shop(tmp_path)
    with shop.store as store:
        store.materialize(progress=False)
        moments = sorted(draw.choice([n / 16 for n in range(16)]) for _ in range(40))
        for moment in moments:
            shop.ask(draw.choice(["narrow", "wide"]), moment, draw.randrange(THINGS), draw.choice([2.0, 3.0]))
        shop.write_rows({key: 1000.0 + key for key in range(THINGS) if draw.random() < 0.4})
        rows = [(draw.choice(moments), draw.randrange(THINGS)) for _ in range(60)]
        spine, within = spine_of(rows), draw.choice(["0s", "15m", "1h"])
        path = write(tmp_path / "spine.parquet", spine)
        for features in ("wide", ["view:x"], ["view:word", "scaled"]):
            frame = store.get_historical_features(spine, features, from_log=within, with_status=True)
            query = store.get_historical_features(spine, features, with_status=True).to_arrow()
            told, said = frame.to_arrow(), frame.manifest["from_log"]
            differing = Counter[str]()
            for name in query.column_names:
                pairs = zip(
                    told[name].to_pylist(), query[name].to_pylist(), told["values_from"].to_pylist(), strict=True
                )
                for own, other, where in pairs:
                    assert own == other or where == "log"
                    differing[name] += own != other
            causes = {name: sum(causes.values()) for name, causes in said["differing"].items()}
            assert causes == {name: count for name, count in differing.items() if count}
            assert said["compared"] - said["equal"] == sum(causes.values())
            assert said["served_for_another_instant"] == {}
            assert said["rows"] == sum(said["services"].values()) == told["values_from"].to_pylist().count("log")
            folder = tmp_path / f"parts-{len(causes)}-{'-'.join(features)}".replace(":", "_")
            written = store.historical_parts(
                folder, path, features, from_log=within, with_status=True, part_rows=draw.randrange(7, 40)
            )
            whole = pa.concat_tables([pq.read_table(folder / part["name"]) for part in written.manifest["parts"]])
            assert whole.select(told.column_names).equals(told.cast(whole.select(told.column_names).schema))
            of_parts = written.manifest["from_log"]
            words = ("rows", "services", "compared", "equal", "differing", "within_us")
            assert {word: of_parts[word] for word in words} == {word: said[word] for word in words}
            assert [n for n in written.manifest["notices"] if "serving log" in n] == list(frame.notices)


def test_parts_with_and_without_the_log_are_other_frames(tmp_path: Path) -> None:
    """A folder of one is not gone on with as the other; what a spine may not have is told before anything is written."""
    shop = Shop(tmp_path)
    with shop.store as store:
        store.materialize(progress=False)
        shop.ask("narrow", 0, 1)
        path, folder = write(tmp_path / "spine.parquet", spine_of([(0, 1), (0, 2)])), tmp_path / "parts"
        made = store.historical_parts(folder, path, "narrow", from_log="0s", part_rows=1)
        assert store.historical_parts(folder, path, "narrow", from_log="0s", part_rows=1).made == 0
        assert (made.made, made.manifest["from_log"]["rows"]) == (2, 1)
        others: tuple[dict[str, Any], ...] = ({}, {"from_log": "1s"})
        for other in others:
            with pytest.raises(FeatureStoreError, match="its from_log"):
                store.historical_parts(folder, path, "narrow", part_rows=1, **other)
        clash = write(tmp_path / "clash.parquet", pq.read_table(path).append_column("values_from", pa.array([1, 2])))
        with pytest.raises(SpineError, match="values_from"):
            store.historical_parts(tmp_path / "none", clash, "narrow", from_log="0s")
        with pytest.raises(RequestError, match="exclude each other"):
            store.historical_parts(tmp_path / "none", path, "narrow", from_log="0s", with_event_time=True)

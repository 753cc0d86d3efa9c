"""Two projects over the same files, one of which an engine materializes: all that is in Redis has to be the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import redis

from featurestore import (
    Count,
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    ParquetSource,
    Sum,
)
from featurestore.materialize.materialize import Run
from featurestore.online.view_codec import ViewCodec
from featurestore.reports.audit import Audit
from featurestore.types import Int64
from tests.platforms.engine_kinds import NOON, ago, same_features
from tests.servers import RedisServer

PERSON = Entity("person", key={"user": Int64})
LOGGED = "[serving_log]\nrate = 1.0\n"


class Pair:
    """One project twice, over the same files and by the same clock: `one` materializes here, `other` by an engine, which `engine_of`
    makes of its store. What is looked up is logged."""

    def __init__(self, server: RedisServer, folder: Path, engine_of: Callable[[FeatureStore], Any]) -> None:
        self._server, self._folder, self._engine_of = server, folder, engine_of
        self.clock = ManualClock(NOON)
        self._stores = ExitStack()
        server.client().flushall()

    def __enter__(self) -> Self:
        self.one, self.other = self._store("one", 1), self._store("other", 2)
        self.engine = self._engine_of(self.other)
        return self

    def __exit__(self, *error: object) -> None:
        self._stores.close()

    def _store(self, name: str, number: int) -> FeatureStore:
        root = self._folder / name
        root.mkdir()
        url = f"redis://127.0.0.1:{self._server.port}/{number}"
        (root / "featurestore.toml").write_text(f'project = "p"\nonline = "{url}"\ndefinitions = []\n{LOGGED}')
        return self._stores.enter_context(FeatureStore(root, clock=self.clock))

    def apply(self, *views: Any) -> None:
        for store in (self.one, self.other):
            store.apply([FeatureService("service", features=list(views))])

    def run(self, **words: Any) -> list[Run]:
        """Both, and that nothing differs: what runs say of themselves, what is told of their values, and all that is in Redis."""
        expected, found = (
            self.one.materialize(progress=False, **words),
            self.engine.materialize(progress=False, **words),
        )
        assert [replace(run, seconds=0) for run in found] == [replace(run, seconds=0) for run in expected]
        self.check()
        for view in {run.view for run in found}:
            mine, others = (store.statistics(view=view).found for store in (self.other, self.one))
            assert [(kept.at, kept.rows) for kept in mine] == [(kept.at, kept.rows) for kept in others]
            for one, other in zip(mine, others, strict=True):
                same_features(one.features, other.features)
        return found

    def check(self) -> int:
        """That both have the same keys and bytes; how many keys there are."""
        expected, found = contents(self._server, 1), contents(self._server, 2)
        assert expected.keys() == found.keys()
        assert [key for key in expected if expected[key] != found[key]] == []
        return len(found)

    def looked_up(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """What both answer."""
        (one, other) = (store.get_online_features(rows, "service") for store in (self.one, self.other))
        assert repr(one.to_dict()) == repr(other.to_dict())
        assert (one.statuses, one.as_of, one.stale) == (other.statuses, other.as_of, other.stale)
        found: dict[str, Any] = other.to_dict()
        return found

    def audited(self, **words: Any) -> Audit:
        """What the engine says of all that was looked up, which is what one machine says."""
        found: Audit = self.engine.audit(keep=False, **words)
        assert found.to_dict() == self.other.audit(keep=False, **words).to_dict()
        return found

    def lose(self, name: str, keys: list[list[Any]]) -> None:
        """Take the records of some keys of a view out of the engine's store."""
        (view,) = self.other._project.applied([name])
        codec = ViewCodec("p", view)
        self.other.online.write({codec.key(key): None for key in keys})


def contents(server: RedisServer, number: int) -> dict[bytes, bytes]:
    with redis.Redis(port=server.port, db=number) as client:
        return {key: client.get(key) for key in client.scan_iter(count=1000)}


def moved(count: int = 60) -> dict[str, Any]:
    """Rows by identity: each is corrected, most of them into another key, some into none, and some are deleted."""
    return {
        "row": pa.array([*range(count), *range(count), 500, None], pa.int64()),
        "user": pa.array(
            [n % 9 for n in range(count)] + [None if n % 10 == 0 else (n + 1 + n % 3) % 9 for n in range(count)] + [3, 4], pa.int64()
        ),
        "at": [ago(9)] * count + [ago(8)] * count + [ago(7)] * 2,
        "seen": [ago(6)] * count + [ago(2) + timedelta(minutes=n) for n in range(count)] + [ago(5)] * 2,
        "gone": [False] * count + [n % 7 == 0 for n in range(count)] + [False] * 2,
        "x": [float(n) for n in range(2 * count + 2)],
    }  # fmt: skip


def of_moved(path: str) -> FeatureView:
    source = ParquetSource("rows", path, event_time="at", known_at="seen", identity="row", deleted="gone")
    features = {"x": Latest("x"), "n": Count(window="2d"), "sum": Sum("x", window="2d")}
    return FeatureView("view", entity=PERSON, source=source, refresh="1h", features=features)

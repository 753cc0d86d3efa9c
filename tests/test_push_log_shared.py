"""A push log in PostgreSQL, which several machines share: every verb from each of them, and what happens while it is away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.errors import ConfigError, LogError, LogUnavailableError
from featurestore.sources.log.postgresql_log import PostgreSQLLog
from featurestore.types import Int64, Timestamp
from tests.servers import PostgresServer
from tests.small import raised

CLICKS = PushSource("clicks", schema={"id": Int64, "user": Int64, "at": Timestamp}, event_time="at", identity="id")
USER = Entity("user", key={"user": Int64})
VIEW = FeatureView("of_user", entity=USER, source=CLICKS, features={"n": Count(window="1d")})


def project(
    folder: Path, redis_url: str, *, name: str, push_log: str | None, registry: str | None = None
) -> FeatureStore:
    folder.mkdir(exist_ok=True)
    text = f'project = "{name}"\nonline = "{redis_url}"\ndefinitions = []\n'
    text += "" if registry is None else f'registry = "{registry}"\n'
    text += "" if push_log is None else f'push_log = "{push_log}"\n'
    (folder / "featurestore.toml").write_text(text)
    return FeatureStore(folder)


def click(number: int) -> dict[str, object]:
    return {"id": number, "user": 1, "at": datetime.now(UTC) - timedelta(minutes=1)}


def clicks(store: FeatureStore) -> int:
    online = store.get_online_features({"user": 1}, "users")
    found: int = online.to_dict()["of_user__n"][0]
    return found


def trained(store: FeatureStore, now: datetime) -> object:
    spine = _frame({"user": [1, 2], "event_timestamp": [now, now]})
    return store.get_historical_features(spine, "users", with_status=True).to_arrow().to_pylist()


def test_every_verb_from_every_machine(
    tmp_path: Path, redis_url: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pushes, another retries, corrects, seals, trains, explains and verifies; both have the same rows."""
    monkeypatch.setitem(PostgreSQLLog.__init__.__kwdefaults__, "segment_bytes", 1)  # type: ignore[arg-type]  # it has keyword defaults
    places = {"name": "verbs", "push_log": postgres.url, "registry": postgres.url}
    with (
        project(tmp_path / "a", redis_url, **places) as one,  # type: ignore[arg-type]  # words of several types
        project(tmp_path / "b", redis_url, **places) as other,  # type: ignore[arg-type]  # words of several types
    ):
        one.apply([FeatureService("users", features=[VIEW])])
        first, second = click(1), click(2)
        assert one.push("clicks", [first, second]) == (2, 0, 0)
        assert other.push("clicks", [first]) == (0, 1, 0), "a retry"
        assert other.push("clicks", [{**second, "user": 2}]) == (1, 0, 0), "a correction"
        assert one.push("clicks", [{**first, "at": datetime.now(UTC) - timedelta(days=30)}]) == (0, 0, 1), "late"
        assert (clicks(one), clicks(other)) == (1, 1)
        now = datetime.now(UTC)
        before = trained(one, now)
        assert [row["of_user__n"] for row in before] == [1, 1]  # type: ignore[attr-defined]  # rows as dicts
        assert trained(other, now) == before
        assert one.compact()["clicks"][:2] == (1, 2)
        assert other.offline.log(CLICKS).unsealed() == 0
        assert trained(other, now) == before == trained(one, now)
        for store in (one, other):
            assert store.explain("of_user", {"user": 2}).counts == {"chosen": 1, "superseded": 1}
        (told,) = other.status()
        assert told.pushes is not None
        assert (told.pushes.rows, told.pushes.segments, told.pushes.late) == (3, 2, 1)
        assert told.pushes.bytes > 0
        assert other.push("clicks", [{**second, "at": now - timedelta(minutes=5)}]) == (1, 0, 0)
        assert clicks(one) == 2
        assert other.take_back("clicks") == (0, None)
        assert one.verify().ok
        other.materialize(full=True, progress=False)
        assert clicks(one) == 2
        one.backup(tmp_path / "backup.tar")
        other.teardown()


def test_lookups_go_on_while_it_is_away(tmp_path: Path, redis_url: str, postgres: PostgresServer) -> None:
    """They answer for what was confirmed last; who pushes or trains is told, and nothing of that push was kept."""
    with project(tmp_path, redis_url, name="away", push_log=postgres.url) as store:
        store.apply([FeatureService("users", features=[VIEW])])
        store.push("clicks", click(1))
        assert clicks(store) == 1
        before = store.get_online_features({"user": 1}, "users").as_of["of_user"]
        postgres.stop()
        try:
            for _ in range(5):
                online = store.get_online_features({"user": 1}, "users")
                assert online.to_dict()["of_user__n"] == [1]
                assert online.as_of["of_user"] >= before
                before = online.as_of["of_user"]
            with pytest.raises(LogUnavailableError, match="Nothing of this push was kept") as caught:
                store.push("clicks", click(2))
            assert caught.value.retry
            spine: dict[str, list[object]] = {"user": [1], "event_timestamp": [datetime.now(UTC)]}
            with pytest.raises(LogUnavailableError):
                store.get_historical_features(_frame(spine), "users")
        finally:
            postgres.start()
        store.push("clicks", click(2))
        assert clicks(store) == 2
        store.teardown()


def _frame(columns: dict[str, list[object]]) -> object:
    from featurestore.lazy import pd

    return pd.DataFrame(columns)


def test_rows_that_lie_in_the_folder_are_not_left_behind(
    tmp_path: Path, redis_url: str, postgres: PostgresServer
) -> None:
    """A project that was given a push_log would begin an empty log: it is told so, and what it can do."""
    with project(tmp_path, redis_url, name="moved", push_log=None) as store:
        store.apply([FeatureService("users", features=[VIEW])])
        store.push("clicks", click(1))
    with project(tmp_path, redis_url, name="moved", push_log=postgres.url) as store:
        assert str(tmp_path / ".featurestore/logs/clicks/rows") in raised(
            ConfigError, lambda: store.push("clicks", click(2))
        )
    with project(tmp_path, redis_url, name="moved", push_log=None) as store:
        store.push("clicks", click(2))
        assert clicks(store) == 2
        store.teardown()


def test_forgetting_a_key_is_refused(tmp_path: Path, redis_url: str, postgres: PostgresServer) -> None:
    """By name, and before anything was changed."""
    with project(tmp_path, redis_url, name="forgets", push_log=postgres.url) as store:
        store.apply([FeatureService("users", features=[VIEW])])
        store.push("clicks", click(1))
        said = raised(LogError, lambda: store.forget("user", {"user": 1}))
        assert "keys cannot be forgotten yet. Nothing was forgotten" in said
        assert clicks(store) == 1
        store.teardown()

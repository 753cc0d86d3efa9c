"""A push log in PostgreSQL that is away, that others have begun, or that a project has not always had."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.errors import ConfigError, LogError, LogUnavailableError
from featurestore.types import Int64, Timestamp
from tests.servers import PostgresServer
from tests.small import raised

CLICKS = PushSource("clicks", schema={"id": Int64, "user": Int64, "at": Timestamp}, event_time="at", identity="id")
USER = Entity("user", key={"user": Int64})
VIEW = FeatureView("of_user", entity=USER, source=CLICKS, features={"n": Count(window="1d")})


def project(folder: Path, redis_url: str, *, name: str, push_log: str | None) -> FeatureStore:
    folder.mkdir(exist_ok=True)
    text = f'project = "{name}"\nonline = "{redis_url}"\ndefinitions = []\n'
    text += "" if push_log is None else f'push_log = "{push_log}"\n'
    (folder / "featurestore.toml").write_text(text)
    return FeatureStore(folder)


def click(number: int) -> dict[str, object]:
    return {"id": number, "user": 1, "at": datetime.now(UTC) - timedelta(minutes=1)}


def clicks(store: FeatureStore) -> int:
    online = store.get_online_features({"user": 1}, "users")
    found: int = online.to_dict()["of_user__n"][0]
    return found


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
            spine = {"user": [1], "event_timestamp": [datetime.now(UTC)]}
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

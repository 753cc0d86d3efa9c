"""A disk without room: what a client is told of it, and what the log says."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.server import problems
from featurestore.types import Float64, String, Timestamp
from tests.server.test_http import PROBLEM, serving


@contextmanager
def no_room() -> Iterator[None]:
    """No file of this process may grow, which is told in the same way as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told to come again and no path, the log where there is no room, once; later all is as before."""
    monkeypatch.setattr(problems, "_full_log", problems.UntoldLog("The disk is full"))
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n')
    schema = {"thing": String, "at": Timestamp, "x": Float64}
    source = PushSource("s", schema=schema, event_time="at", lateness="36500d")
    view = FeatureView(
        "view", entity=Entity("thing", key={"thing": String}), source=source, refresh="continuous", features=["x"]
    )
    body = {"source": "s", "rows": [{"thing": "a", "at": "2025-01-05T00:00:00Z", "x": 1.0}]}
    with FeatureStore(tmp_path) as store:
        store.apply([FeatureService("m", features=[view])])
        store.materialize(progress=False)
        with serving(store) as client, caplog.at_level(logging.WARNING, "featurestore.server"):
            with no_room():
                refused = [client.post("/v1/push", json=body) for _ in range(3)]
            assert client.post("/v1/push", json=body).json()["accepted"] == 1
    for answer in refused:
        assert (answer.status_code, answer.headers["content-type"]) == (507, PROBLEM)
        assert answer.headers["retry-after"] == "60"
        assert str(tmp_path) not in answer.text
    (line,) = [record.getMessage() for record in caplog.records if record.name == "featurestore.server"]
    assert str(tmp_path) in line

"""UpdateRecord of several servers at once, each a process: every update that was answered is in the record, whoever else changed it,
and whichever server was killed meanwhile."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from featurestore import FeatureStore
from tests.servers import PATIENCE_SECONDS, FeatureServer

SERVERS, FEATURES, UPDATES = 3, 6, 6
DEFINITIONS = f"""
from featurestore import Entity, FeatureService, FeatureView, PushSource
from featurestore.types import Int64, String, Timestamp

FEATURES = [f"f{{number}}" for number in range({FEATURES})]
source = PushSource(
    "points", schema={{"player": String, "at": Timestamp, **dict.fromkeys(FEATURES, Int64)}},
    event_time="at", identity=["player", "at"],
)
players = FeatureView("players", entity=Entity("player", key={{"player": String}}), source=source, features=FEATURES)
game = FeatureService("game", features=[players])
"""
AT = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
HEADERS = {"content-type": "application/json"}


@pytest.fixture(params=["file", "postgresql"])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """Where each server runs: all in one folder, or each on a machine of its own that shares the log."""
    project = f"together_{abs(hash(tmp_path)) % 10**9}"
    if request.param == "file":
        found, places = [tmp_path] * SERVERS, {"online": "lmdb://online"}
    else:
        found = [tmp_path / f"machine{number}" for number in range(SERVERS)]
        shared = request.getfixturevalue("postgres").url
        places = {"online": request.getfixturevalue("redis_url"), "registry": shared, "push_log": shared}
    for folder in found:
        folder.mkdir(exist_ok=True)
        (folder / "definitions.py").write_text(DEFINITIONS)
        lines = [f'{name} = "{value}"' for name, value in {"project": project, **places}.items()]
        server = '[server]\nauthentication = "off"\ncompatible = ["sagemaker"]\n[serving_log]\nrate = 1.0\n'
        (folder / "featurestore.toml").write_text("\n".join([*lines, server]))
    with FeatureStore(found[0]) as store:
        store.apply()
        store.materialize(progress=False)
    return found


@pytest.fixture
def servers(folders: list[Path]) -> Iterator[list[FeatureServer]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(FeatureServer(folder, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            for folder in folders
        ]


def put(client: httpx.Client, player: str) -> None:
    record = [
        {"FeatureName": "player", "ValueAsString": player},
        {"FeatureName": "at", "ValueAsString": AT.isoformat()},
    ]
    record += [{"FeatureName": f"f{number}", "ValueAsString": "0"} for number in range(FEATURES)]
    assert client.put("/FeatureGroup/players", json={"Record": record}).status_code == 200


def update(client: httpx.Client, player: str, feature: str, value: int) -> httpx.Response:
    features = [{"FeatureName": feature, "ValueAsString": str(value)}]
    asked = {"RecordIdentifierValueAsString": player, "Features": features}
    while True:
        answer = client.post("/FeatureGroup/players/Record", json=asked)
        if answer.status_code != 503:  # boto3 asks again by itself then
            return answer


def record(client: httpx.Client, group: str, player: str) -> dict[str, int]:
    answer = client.get(f"/FeatureGroup/{group}", params={"RecordIdentifierValueAsString": player})
    assert answer.status_code == 200
    names = {each["FeatureName"].removeprefix("players__"): each["ValueAsString"] for each in answer.json()["Record"]}
    return {name: int(value) for name, value in names.items() if name != "player"}


def check_chain(store: FeatureStore, player: str) -> dict[str, int]:
    """In the log, each version is the one before it with another value of one feature; returns the last one."""
    rows = store.offline.log(store.catalog.sources["points"]).read().to_pylist()  # type: ignore[arg-type]  # a push source, by its name
    rows = [row for row in rows if row["player"] == player]
    for before, after in zip(rows, rows[1:], strict=False):
        assert after["__replaces"] == before["known_at"]
        assert sum(before[f"f{number}"] != after[f"f{number}"] for number in range(FEATURES)) == 1
    return {f"f{number}": rows[-1][f"f{number}"] for number in range(FEATURES)}


def test_no_update_is_lost(servers: list[FeatureServer], folders: list[Path]) -> None:
    """Each feature of one record is counted up by one client, through each server in turn; one of them is set to and fro."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client(timeout=PATIENCE_SECONDS)) for server in servers]
        put(clients[0], "ann")

        def count(number: int) -> None:
            for value in range(1, UPDATES + 1):
                asked = value % 2 if number == 0 else value
                assert update(clients[(number + value) % SERVERS], "ann", f"f{number}", asked).status_code == 200

        with ThreadPoolExecutor(FEATURES) as together:
            list(together.map(count, range(FEATURES)))
        last = {f"f{number}": UPDATES % 2 if number == 0 else UPDATES for number in range(FEATURES)}
        assert [record(client, "players", "ann") for client in clients] == [last] * SERVERS
    with FeatureStore(folders[0]) as store:
        assert check_chain(store, "ann") == last


def test_a_killed_server_takes_no_update_with_it(servers: list[FeatureServer], folders: list[Path]) -> None:
    """What was answered is there; of what was not, all or nothing; and training says what was served."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client(timeout=PATIENCE_SECONDS)) for server in servers]
        put(clients[0], "bob")
        answered: dict[int, int] = dict.fromkeys(range(FEATURES), 0)
        sent, goes_on = dict(answered), threading.Event()

        def count(number: int) -> None:
            client = clients[number % SERVERS]
            while sent[number] < 400 and not (goes_on.is_set() and answered[number] >= UPDATES):
                sent[number] += 1
                try:
                    assert update(client, "bob", f"f{number}", sent[number]).status_code == 200
                    answered[number] = sent[number]
                    record(client, "game", "bob")
                except httpx.TransportError:
                    assert client is clients[0]
                    return

        with ThreadPoolExecutor(FEATURES) as together:
            counting = [together.submit(count, number) for number in range(FEATURES)]
            deadline = time.monotonic() + PATIENCE_SECONDS
            while min(answered.values()) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            servers[0].process.send_signal(signal.SIGKILL)
            servers[0].process.wait(PATIENCE_SECONDS)
            goes_on.set()
            for each in counting:
                each.result()
        found = record(clients[1], "players", "bob")
        for number in range(FEATURES):
            assert answered[number] <= found[f"f{number}"] <= sent[number]
        assert record(clients[2], "players", "bob") == found
    for server in servers[1:]:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(PATIENCE_SECONDS)
    for folder in dict.fromkeys(folders):
        with FeatureStore(folder) as store:
            assert check_chain(store, "bob") == found
            audit = store.audit()
            assert audit.compared > 0
            assert audit.skewed == 0

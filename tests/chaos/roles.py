"""What the project's processes do until they are killed. Each counts its turns in a file, so that whoever kills it knows
that it is at work, and writes down what no caller should have met."""

from __future__ import annotations

import os
import random
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from featurestore import FeatureStore
from featurestore.errors import FeatureStoreError
from featurestore.server.run import serve
from featurestore.sources.log import FileLog
from tests.chaos.world import KEYS, SEGMENT, Pushes, land, temporary

Turn = Callable[[], object]


def play(role: str, folder: str, seed: int, port: int) -> None:
    """One process of the project."""
    defaults: Any = FileLog.__init__.__kwdefaults__
    defaults["segment_bytes"] = SEGMENT
    temporary(Path(folder))
    said = os.open(Path(folder, f"said.{role}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    try:
        if role == "server":
            serve(folder, host="127.0.0.1", port=port, authentication=False)
            return
        for turn in ROLES[role.rstrip("0123456789")](Path(folder), role, random.Random(seed), port):
            met = _tried(turn)
            if met is not None and not met.retry:  # while the online store restarts, is empty or is filled
                raise met
            if met is None:
                with Path(folder, f"turns.{role}").open("a") as turns:
                    turns.write(".")
    except BaseException:
        with Path(folder, "unexpected").open("a") as file:
            file.write(f"--- {role}\n{traceback.format_exc()}\n")
        raise


def _tried(turn: Turn) -> FeatureStoreError | None:
    try:
        turn()
    except FeatureStoreError as error:
        return error
    return None


def _pusher(folder: Path, role: str, chosen: random.Random, _port: int) -> Iterator[Turn]:
    pushes = Pushes(folder, int(role[-1]))
    with FeatureStore(folder) as store:
        left: list[list[dict[str, Any]]] = []

        def push() -> None:
            rows = left[0] if left else pushes.next(chosen)
            pushes.send(rows)
            left[:] = [rows]  # until it is answered: pushing rows again is safe, they have an identity
            store.push("events", rows, json=True)
            pushes.acknowledge(left.pop())

        while True:
            yield push
            time.sleep(chosen.random() * 0.02)


def _materializer(folder: Path, _role: str, _chosen: random.Random, _port: int) -> Iterator[Turn]:
    with FeatureStore(folder) as store:
        while True:
            yield lambda: store.materialize(progress=False)
            time.sleep(0.05)


def _compactor(folder: Path, _role: str, _chosen: random.Random, _port: int) -> Iterator[Turn]:
    with FeatureStore(folder) as store:
        while True:
            yield store.compact
            yield store.compact_serving_log
            time.sleep(0.2)


def _lander(folder: Path, _role: str, chosen: random.Random, _port: int) -> Iterator[Turn]:
    while True:
        yield lambda: land(folder, len([*(folder / "readings").iterdir()]), chosen)
        time.sleep(0.1 + chosen.random() * 0.3)


def _looker(folder: Path, _role: str, _chosen: random.Random, _port: int) -> Iterator[Turn]:
    with FeatureStore(folder) as store:
        rows = [{"thing": key} for key in range(KEYS)]
        while True:
            yield lambda: store.get_online_features(rows, "both")
            time.sleep(0.05)


def _caller(_folder: Path, _role: str, chosen: random.Random, port: int) -> Iterator[Turn]:
    """Asks the server, which may be dead or without its store, and nothing else."""
    url = f"http://127.0.0.1:{port}/v1/online-features"

    def ask() -> None:
        body = f'{{"service": "both", "rows": [{{"thing": {chosen.randrange(KEYS)}}}]}}'.encode()
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        try:
            with closing(urllib.request.urlopen(request, timeout=600)) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        except (OSError, TimeoutError):
            return

    while True:
        yield ask
        time.sleep(0.03)


ROLES: dict[str, Callable[[Path, str, random.Random, int], Iterator[Turn]]] = {
    "pusher": _pusher,
    "materializer": _materializer,
    "compactor": _compactor,
    "lander": _lander,
    "looker": _looker,
    "caller": _caller,
}

"""Run as a program: look a service up again and again, in several threads, while a changed version of it is rolled out.

rolling FOLDER next    the environment of the changed definitions, which it applies and materializes when told on stdin
rolling FOLDER ""      one that only looks up

Prints "ready" once it looks up, "rolled" once the changed version answers, and when stdin ends a JSON object: how many answers each version gave, what was wrong
with any, and what the rollout raised.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter

from featurestore import FeatureStore
from featurestore.errors import FeatureStoreError, MaterializeError, PlanOutdatedError

KEYS = 200
ROWS = [{"id": key} for key in range(KEYS)]
WANTED = {"old": 1, "new": 1_000_000}
"""Version → what its features hold of the key k: k times this, plus 1 for the second view."""


def look(store: FeatureStore, stop: threading.Event, counts: Counter[str], wrong: list[str]) -> None:
    while not stop.wait(0.002):
        try:
            result = store.get_online_features(ROWS, "service")
        except FeatureStoreError as error:
            wrong.append(f"{type(error).__name__}: {error}")
            continue
        columns = list(result.columns.values())
        version = "old" if columns[0][1] == 1 else "new"
        counts[version] += 1
        factor = WANTED[version]
        expected = [[key * factor for key in range(KEYS)], [key * factor + 1 for key in range(KEYS)]]
        if [list(column) for column in columns] != expected:
            wrong.append(f"{version}: {[(a, b) for a, b in zip(*columns, strict=True)][:5]}")


def roll(store: FeatureStore) -> list[str]:
    """Apply and materialize, as often as another process was in the way."""
    raised = []
    while True:
        try:
            store.apply()
            store.materialize(progress=False)
            return raised
        except (PlanOutdatedError, MaterializeError) as error:
            raised.append(type(error).__name__)
            time.sleep(0.01)


def main(folder: str, env: str) -> None:
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    raised: list[str] = []
    stop = threading.Event()
    with FeatureStore(folder, env=env or None) as store:
        threads = [threading.Thread(target=look, args=(store, stop, counts, wrong)) for _ in range(3)]
        for thread in threads:
            thread.start()
        while not counts and not wrong:
            time.sleep(0.01)
        print("ready", flush=True)
        sys.stdin.readline()
        if env:
            raised = roll(store)
        deadline = time.monotonic() + 600
        while not counts["new"] and not wrong and time.monotonic() < deadline:
            time.sleep(0.01)
        print("rolled", flush=True)
        sys.stdin.read()
        stop.set()
        for thread in threads:
            thread.join()
    print(json.dumps({"counts": counts, "wrong": wrong[:5], "raised": raised}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a process does that pushes rows beside others, and is killed on the way where that was planted."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import traceback
from datetime import datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from featurestore import FeatureStore
from featurestore.clock import to_datetime

REAL = time.time_ns


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def plant(kind: Any, log: Any, point: str) -> None:
    """Die at a point of the next push."""
    write, append, writes = kind.write, log.append, [0]

    def killing_write(*args: Any, **words: Any) -> bool:
        writes[0] += 1
        if point == "apply" and writes[0] == 2:
            die()
        written: bool = write(*args, **words)
        if (point, writes[0]) in {("reserve", 1), ("answer", 2)}:
            die()
        return written

    def killing_append(*args: Any) -> None:
        append(*args)
        if point == "append":
            die()

    kind.write, log.append = killing_write, killing_append


def rows_of(who: int, number: int, now: datetime, chosen: random.Random) -> list[dict[str, Any]]:
    """A few rows of this worker, or corrections of its earlier ones, under the same key or another."""
    rows = []
    for i in range(chosen.randint(1, 3)):
        again = number > 1 and chosen.random() < 0.3
        rows.append(
            {
                "row": who * 10_000 + number * 10 + i,
                "id": who * 10_000 + (chosen.randrange(number) * 10 if again else number * 10 + i),
                "event_time": (now - timedelta(milliseconds=chosen.randrange(3_000))).isoformat(),
                "key_0": chosen.randint(1, 2),
                "value_0": chosen.choice([0.1, 1e300, -1e300, 3.5, None]),
            }
        )
    return rows


def work(told: Connection, folder: str, who: int, pushes: int, *, skew: float, injected: bool, kill: str) -> None:
    """Say "ready", push once something was answered, and say "done", or what went wrong.

    who: the rows of a worker have identities of their own. skew: seconds that this process's clock is ahead. injected: whether
    that is the store's clock, and not the online store's own. kill: "" or a point of the last push: "reserve" (after known_at was
    reserved), "append" (after the rows came into the log), "apply" (before the records are written), "answer" (after that).
    Each push is written to the folder's sent.WHO before it is made, a JSON list of rows a line.
    """
    try:
        _push(told, folder, who, pushes, skew=skew, injected=injected, kill=kill)
        told.send("done")
    except BaseException:  # noqa: BLE001 - whatever it is, it is told
        told.send(traceback.format_exc())


def _push(told: Connection, folder: str, who: int, pushes: int, *, skew: float, injected: bool, kill: str) -> None:
    ahead = round(skew * 1e9)
    time.time_ns = lambda: REAL() + ahead

    def now() -> datetime:
        return to_datetime(time.time_ns() // 1000)

    chosen = random.Random(who)
    with FeatureStore(folder, clock=now if injected else None) as store:
        store.get_online_features({"entity_0": 1}, "view")
        told.send("ready")
        told.recv()
        for number in range(1, pushes + 1):
            happened = now() if injected else to_datetime(REAL() // 1000)
            rows = rows_of(who, number, happened, chosen)
            with Path(folder, f"sent.{who}").open("a") as sent:
                sent.write(json.dumps(rows) + "\n")
            if kill and number == pushes:
                source: Any = store.lookup("view").service.parts[0].view.source
                plant(type(store.online), type(store.offline.log(source)), kill)
            store.push("rows", rows, json=True)

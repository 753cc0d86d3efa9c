"""The project: a push source with a continuous view, files that land with a refreshed one, and a service over both."""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KEYS = 8
PUSHERS = 2
SEGMENT = 12_000
"""Bytes after which a segment of the push log is full: some twenty pushes."""

DEFINITIONS = """
from featurestore import (
    ARRIVAL, Count, Entity, FeatureService, FeatureView, LastDistinctN, LastN, Latest, Max, ParquetSource, PushSource, Sum,
)
from featurestore.types import Bool, Float64, Int64, String, Timestamp

thing = Entity("thing", key={"thing": Int64})
events = PushSource(
    "events", event_time="at", identity="id", deleted="gone", lateness="1h",
    schema={"id": Int64, "n": Int64, "thing": Int64, "at": Timestamp, "amount": Float64, "kind": String, "gone": Bool},
)
live = FeatureView(
    "live", entity=thing, source=events,
    features={
        "rows": Count(window="lifetime"), "some": Count(window="30s", hop="1s"), "total": Sum("amount", window="lifetime"),
        "last": Latest("amount"), "kinds": LastDistinctN("kind", n=3), "newest": LastN("n", n=2, window="1m"),
    },
)
readings = ParquetSource("readings", "readings", event_time="at", known_at=ARRIVAL)
slow = FeatureView(
    "slow", entity=thing, source=readings, refresh="1s", ready_after="500ms",
    features={
        "value": Latest("value"), "rows": Count(window="lifetime"), "total": Sum("value", window="20s"),
        "most": Max("value", window="lifetime"),
    },
)
both = FeatureService("both", features=[live, slow])
"""


def temporary(folder: Path) -> None:
    """Let this process and its children put what is temporary into a folder of the project's."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "temporary")


def write_project(folder: Path, online: str) -> None:
    """The project's folder, where nothing was applied yet."""
    (folder / "readings").mkdir(parents=True)
    (folder / "temporary").mkdir()
    (folder / "definitions.py").write_text(DEFINITIONS)
    (folder / "featurestore.toml").write_text(
        f'project = "chaos"\nonline = "{online}"\ndefinitions = ["definitions.py"]\ncompact_after = 1\n'
        "[serving_log]\nrate = 1.0\n"
    )
    land(folder, 0, random.Random(0))


def land(folder: Path, number: int, chosen: random.Random) -> None:
    """A file of readings, which has its name once it is whole."""
    now = datetime.now(UTC)
    rows = chosen.randint(1, 5)
    at = [now - timedelta(seconds=chosen.random() * 20) for _ in range(rows)]
    table = pa.table(
        {
            "thing": [chosen.randrange(KEYS) for _ in range(rows)],
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "value": [chosen.choice([0.1, 0.2, 1e16, -1e16, 3.5]) for _ in range(rows)],
        }
    )
    unfinished = folder / f"unfinished-{number}"
    pq.write_table(table, unfinished)
    unfinished.rename(folder / "readings" / f"{number:06}.parquet")


class Pushes:
    """What one pusher sends, which it writes down before, and what was acknowledged, after; a dead one's are read again."""

    def __init__(self, folder: Path, who: int) -> None:
        self.who = who
        self._sent, self._acknowledged = folder / f"sent.{who}", folder / f"acknowledged.{who}"
        self._versions: dict[int, int] = {}
        for row in self.sent():
            self._versions[row["id"]] = row["n"]

    def sent(self) -> Iterator[dict[str, Any]]:
        """Every row that was sent, in order; some more than once."""
        yield from _lines(self._sent)

    def acknowledged(self) -> Iterator[dict[str, Any]]:
        """Every row whose push was answered."""
        yield from _lines(self._acknowledged)

    def next(self, chosen: random.Random) -> list[dict[str, Any]]:
        """A few new rows, corrections and deletions; each version of a row has a greater `n`."""
        rows: dict[int, dict[str, Any]] = {}
        for _ in range(chosen.randint(1, 4)):
            again = self._versions and chosen.random() < 0.4
            of = chosen.choice([*self._versions]) if again else self.who + 10 * len(self._versions)
            self._versions[of] = n = self._versions.get(of, 0) + 1
            happened = datetime.now(UTC) - timedelta(milliseconds=chosen.randrange(5_000))
            rows[of] = {
                "id": of, "n": n, "thing": chosen.randrange(KEYS), "at": happened.isoformat(),
                "amount": chosen.choice([0.1, 0.2, 1e300, -1e300, 3.5, None]), "kind": chosen.choice("abcd"),
                "gone": n > 1 and chosen.random() < 0.2,
            }  # fmt: skip
        return list(rows.values())

    def send(self, rows: list[dict[str, Any]]) -> None:
        """Write down that rows are about to be pushed."""
        _append(self._sent, rows)

    def acknowledge(self, rows: list[dict[str, Any]]) -> None:
        """Write down that their push was answered."""
        _append(self._acknowledged, rows)


def versions(rows: Iterator[dict[str, Any]]) -> dict[int, list[int]]:
    """The `n` of the versions of each row, in the order in which they came."""
    found: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        found[row["id"]].append(row["n"])
    return found


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("a") as file:  # one write, which the system keeps when the process is killed
        file.write(json.dumps(rows) + "\n")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text().splitlines():
            yield from json.loads(line)

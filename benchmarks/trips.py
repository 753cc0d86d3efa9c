"""python -m benchmarks.trips [--files]: how far a row or a key travels through the package, counted and not timed.

Of each trip: the files of the package in which anything ran, the calls of functions, and the calls from one file into
another. Each trip is counted when it was made once before, so that what is prepared once is no part of it.
"""

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

import featurestore
from featurestore import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Latest,
    ManualClock,
    Mean,
    ParquetSource,
    PushSource,
    Sum,
)
from featurestore.types import Float64, Int64, Timestamp

PACKAGE = str(Path(featurestore.__file__).parent) + "/"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Trip(NamedTuple):
    """By file the calls in it, and the calls from one file into another."""

    files: Counter[str]
    moves: int


class Tracer:
    """Counts what every thread that begins from now on does in the package, while it is asked to."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.moves = 0
        self._counts = False
        threading.setprofile(self._see)
        sys.setprofile(self._see)

    def close(self) -> None:
        """See nothing any more."""
        threading.setprofile(None)
        sys.setprofile(None)

    def count(self, trip: Callable[[], object]) -> Trip:
        """What one trip does."""
        self.files, self.moves, self._counts = Counter(), 0, True
        trip()
        self._counts = False
        return Trip(self.files, self.moves)

    def _see(self, frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if not self._counts or event != "call" or not file.startswith(PACKAGE):
            return
        self.files[file.removeprefix(PACKAGE)] += 1
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
            caller = caller.f_back
        self.moves += caller is None or caller.f_code.co_filename != file


def _definitions(folder: Path) -> list[Any]:
    """A plain column, a mean, and a view over pushed rows, each of one key."""
    user = Entity("user", key={"user": Int64})
    times = pa.array([NOON - HOUR * hours for hours in range(1, 30)], pa.timestamp("us", "UTC"))
    rows = pa.table({"user": [n % 3 for n in range(29)], "amount": [n / 3 for n in range(29)], "at": times})
    pq.write_table(rows, folder / "rows.parquet")
    source = ParquetSource("rows", str(folder / "rows.parquet"), event_time="at")
    taps = PushSource("taps", schema={"user": Int64, "amount": Float64, "at": Timestamp}, event_time="at")
    views = [
        FeatureView("plain", entity=user, source=source, refresh="1h", ttl="9d", features={"amount": Latest("amount")}),
        FeatureView("means", entity=user, source=source, refresh="1h", features={"mean": Mean("amount", window="1d")}),
        FeatureView("pushed", entity=user, source=taps, features={"total": Sum("amount", window="1h")}),
    ]
    return [FeatureService(f"of_{view.name}", features=[view]) for view in views]


def _trips(store: FeatureStore, clock: ManualClock) -> dict[str, Callable[[], object]]:
    """By name what is done; each can be done several times."""
    spine = pa.table({"user": [1], "event_timestamp": pa.array([NOON - HOUR], pa.timestamp("us", "UTC"))})

    def push() -> None:
        clock.advance(timedelta(seconds=1))
        store.push("taps", [{"user": 1, "amount": 2.5, "at": clock()}])

    def materialize() -> None:
        clock.advance(HOUR)
        store.materialize(["plain"], progress=False)

    return {
        "spine row, plain column": lambda: store.get_historical_features(spine, "of_plain"),
        "spine row, with a mean": lambda: store.get_historical_features(spine, "of_means"),
        "pushed row, whole batch": push,
        "key, materialized view": lambda: store.get_online_features([{"user": 1}], "of_plain"),
        "key, pushed view": lambda: store.get_online_features([{"user": 1}], "of_pushed"),
        "materialize": materialize,
    }


def count_trips() -> dict[str, Trip]:
    """What each trip does, by name."""
    tracer, clock = Tracer(), ManualClock(NOON)
    try:
        with tempfile.TemporaryDirectory() as folder, FeatureStore.local(clock=clock) as store:
            store.apply(_definitions(Path(folder)))
            store.materialize(progress=False)
            counted = {}
            for name, trip in _trips(store, clock).items():
                trip()
                counted[name] = tracer.count(trip)
            return counted
    finally:
        tracer.close()


def main() -> None:
    """Print a table of all trips; with --files, of each trip its files too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", action="store_true", help="the calls in each file of each trip")
    shows_files = parser.parse_args().files
    print("| trip | files | calls | moves between files |\n| --- | --- | --- | --- |")
    for name, (files, moves) in count_trips().items():
        print(f"| {name} | {len(files)} | {files.total():,} | {moves:,} |")
        for file, calls in sorted(files.items()) if shows_files else ():
            print(f"    {calls:>5} {file}")


if __name__ == "__main__":
    main()

"""How many rows are in quarantine is always what lies there, and asking reads no row twice."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore import Count, FeatureStore, FeatureView, InRange, ManualClock, PushSource
from featurestore.reports.quarantine import pushed_quarantine
from featurestore.sources.log.file_log import FileLog
from featurestore.types import Float64, Int64, Timestamp
from tests.small import NOON, THING, apply

SOURCE = PushSource(
    "pushed", schema={"thing": Int64, "id": Int64, "at": Timestamp, "x": Float64}, event_time="at", identity="id",
    expectations=[InRange("x", at_most=9, otherwise="quarantine")],
)  # fmt: skip
VIEW = FeatureView("view", entity=THING, source=SOURCE, features={"n": Count(window="1h")})


def bad(*numbers: int) -> list[dict[str, Any]]:
    return [{"thing": 1, "id": number, "at": NOON, "x": 10.0 + number} for number in numbers]


def opened(folder: Path) -> FeatureStore:
    (folder / "featurestore.toml").write_text('project = "counted"\ndefinitions = []\n')
    return FeatureStore(folder, clock=ManualClock(NOON))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each reading of a log brought."""
    found: list[int] = []
    plain = FileLog.read

    def noting(self: FileLog, after: int | None = None, upto: int | None = None) -> pa.Table:
        table = plain(self, after, upto)
        found.append(table.num_rows)
        return table

    monkeypatch.setattr(FileLog, "read", noting)
    return found


def test_what_was_counted_is_not_read_again(tmp_path: Path, read: list[int]) -> None:
    """Not for the next scrape, and not when more rows come: then those alone are."""
    with opened(tmp_path) as store:
        apply(store, VIEW)
        quarantine = pushed_quarantine(store._project, "pushed")
        store.push("pushed", bad(*range(200)))
        assert quarantine.count() == 200
        read.clear()
        assert quarantine.count() == 200
        assert read == []
        store.push("pushed", bad(200, 201))
        read.clear()
        assert quarantine.count() == 202
        assert read == [2]
        (state,) = store.status()
        assert state.pushes is not None
        assert state.pushes.quarantined == 202


@pytest.mark.parametrize("seed", range(5))
def test_the_count_is_that_of_the_rows(tmp_path: Path, seed: int) -> None:
    """Whatever is pushed, discarded, forgotten and sealed in between, and by whichever process."""
    drawn = random.Random(seed)
    with opened(tmp_path) as store, opened(tmp_path) as other:
        apply(store, VIEW)
        asked = pushed_quarantine(store._project, "pushed")
        number = 0
        for _ in range(25):
            here = drawn.choice([store, other])
            what = drawn.choice(["push", "push", "discard", "seal", "nothing"])
            if what == "push":
                some = drawn.randint(1, 4)
                here.push("pushed", bad(*range(number, number + some)))
                number += some
            elif what == "discard" and (left := [one.id for one in asked.rows()]):
                here.discard_quarantined(
                    "pushed", drawn.sample([one for one in left if one is not None], drawn.randint(1, len(left)))
                )
            elif what == "seal" and store.offline.logs.has("pushed", "quarantine"):
                here.offline.log(SOURCE, "quarantine").compact(everything=True, grace=0)
            assert asked.count() == len(asked.rows())
        assert number

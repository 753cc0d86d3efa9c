"""Status: how far views have come online, what lies in push logs, and whether a source is older than a view allows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore import Count, FeatureStore, FeatureView, ManualClock, PushSource
from featurestore.cli import app
from featurestore.materialize.lease import Lease
from featurestore.report import instant_json
from featurestore.reports.status import RunStatus, ViewStatus, status_report
from featurestore.server.store_state import StoreState
from featurestore.sources.log import FileLog
from featurestore.sources.push_logs import LATE
from featurestore.types import Float64, Int64, Timestamp, to_json
from tests.servers import RedisServer
from tests.small import NOON, THING, apply, hours, opened, table, view_of

SWIPES = PushSource(
    "swipes", schema={"thing": Int64, "swipe": Int64, "at": Timestamp, "amount": Float64}, event_time="at",
    identity="swipe", freshness="1h",
)  # fmt: skip


def pushed_view(**words: Any) -> FeatureView:
    return FeatureView("swiped", entity=THING, source=SWIPES, features={"n": Count(window="1d")}, **words)


def swipe(number: int, at: Any = NOON) -> dict[str, Any]:
    return {"thing": 1, "swipe": number, "at": at, "amount": 1.0}


def only(store: FeatureStore) -> ViewStatus:
    (status,) = store.status()
    return status


def shown(store: FeatureStore) -> str:
    return status_report(store.status(), store.behind(), store.serving_log_losses()).text()


def test_a_view_over_pushed_rows_is_fresh_as_long_as_nothing_is_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty, then with rows, then with rows that a dead pusher left in the log, then repaired."""
    with opened(pushed_view()) as (store, clock):
        assert (only(store).state, only(store).pushes.rows) == ("not materialized", 0)
        store.push("swipes", [swipe(1), swipe(2), swipe(3, hours(-24 * 8))])
        status = only(store)
        assert status.state == "fresh"
        assert (status.pushes.rows, status.pushes.pending, status.pushes.late, status.pushes.segments) == (2, 0, 1, 1)
        assert status.pushes.bytes > 0
        append = FileLog.append

        def killed(log: FileLog, batches: Any, *moves: Any) -> None:
            append(log, batches, *moves)
            raise OSError("killed")

        monkeypatch.setattr(FileLog, "append", killed)
        with pytest.raises(OSError, match="killed"):
            store.push("swipes", [swipe(4)])
        monkeypatch.undo()
        clock.advance(timedelta(seconds=1))
        status = only(store)
        assert (status.state, status.pushes.pending, status.pushes.rows) == ("stale", 1, 3)
        assert status.pushes.applied <= status.served < status.wanted
        assert "1 row pending" in shown(store)
        store.materialize(progress=False)
        assert (only(store).state, only(store).pushes.pending) == ("fresh", 0)


def test_it_makes_no_log_of_late_rows() -> None:
    """Whoever asks may have no right to write, or a full disk."""
    with opened(pushed_view()) as (store, _):
        store.push("swipes", [swipe(1)])
        assert only(store).pushes.late == 0
        assert not store.offline.logs.has("swipes", LATE)


def test_a_compacted_log_says_what_lies_on_the_disk() -> None:
    """Rows stay counted when their segment is sealed into Parquet."""
    with opened(pushed_view()) as (store, _):
        store.push("swipes", [swipe(n) for n in range(50)])
        store.offline.log(SWIPES).compact(everything=True)
        log = only(store).pushes
        assert (log.rows, log.segments, log.pending) == (50, 2, 0)
        sealed = [path for path in store.offline.log(SWIPES).folder.iterdir() if path.suffix == ".parquet"]
        assert log.bytes == sum(path.stat().st_size for path in sealed)


def test_a_source_that_is_older_than_freshness_allows_is_reported() -> None:
    """For pushed rows by when the last was learned; exactly at the limit it is not."""
    with opened(pushed_view()) as (store, clock):
        store.push("swipes", swipe(1))
        learned = store.offline.log(SWIPES).last_known_at()
        clock.advance(timedelta(hours=1) + (NOON - clock()))
        assert learned is not None
        clock.wait_until(learned + 3_600_000_000)
        assert (only(store).age, only(store).overdue) == (3_600_000_000, False)
        clock.advance(timedelta(microseconds=1))
        assert only(store).overdue
        assert only(store).state == "fresh"
        assert "is 1h1us old, and its freshness is 1h" in shown(store)
        assert only(store).to_dict()["overdue"] is True
        assert only(store).to_dict()["wanted"] == to_json(Timestamp, clock())


@pytest.mark.parametrize("words", [{"refresh": "continuous"}, {"refresh": "1h"}])
def test_freshness_is_of_continuous_views_over_files_too(words: dict[str, Any]) -> None:
    """By the greatest known_at of the rows; a refreshed view has none, and its source is not read."""
    rows = table(thing=pa.array([1, 1]), at=[hours(-9), hours(-8)], v=pa.array([1.0, 2.0]))
    with opened(view_of(rows, ["v"], known_after="2h", freshness="5h", **words)) as (store, _):
        status = only(store)
        continuous = words["refresh"] == "continuous"
        assert status.age == (6 * 3_600_000_000 if continuous else None)
        assert status.overdue is continuous
        assert status.pushes is None


def test_a_view_without_rows_is_not_overdue() -> None:
    """Before the first row there is nothing to be old."""
    with opened(pushed_view()) as (store, clock):
        assert isinstance(clock, ManualClock)
        assert (only(store).age, only(store).overdue) == (None, False)
        assert "nothing is applied" in shown(store)


def test_while_the_online_store_is_away_it_tells_the_rest(tmp_path: Path) -> None:
    """What is applied and asked for, the log of pushes and the last run; that nothing is known of what is online, and why."""
    rows = tmp_path / "rows.parquet"
    pq.write_table(table(thing=[1], at=[NOON], v=[1.0]), rows)
    with RedisServer() as redis:
        (tmp_path / "featurestore.toml").write_text(
            f'project = "p"\nonline = "{redis.url_with(query="retries=0")}"\ndefinitions = []\n'
        )
        with FeatureStore(tmp_path) as store:
            apply(store, view_of(rows, ["v"], refresh="1h"), pushed_view())
            store.materialize(progress=False)
            store.push("swipes", [swipe(1, datetime.now(UTC))])
            before = {one.view: one for one in store.status()}
            redis.stop()
            found = {one.view: one for one in store.status()}
            for name, one in found.items():
                assert one.fingerprint == before[name].fingerprint
                assert (one.state, one.served, one.complete) == ("unknown", None, ())
                assert one.wanted >= before[name].wanted
                assert one.last_run == before[name].last_run
                assert f"127.0.0.1:{redis.port}" in (one.unavailable or "")
            log, known = found["swiped"].pushes, before["swiped"].pushes
            assert (log.applied, log.pending, log.rows) == (None, None, 1)
            assert (log.rows, log.late, log.segments, log.bytes) == (
                known.rows,
                known.late,
                known.segments,
                known.bytes,
            )
        told = CliRunner().invoke(app, ["--repo", str(tmp_path), "status"])
        assert told.exit_code == 1
        assert [line.split()[2] for line in told.stdout.splitlines()[1:3]] == ["unknown", "unknown"]
        assert "what is applied is not known" in told.stdout
        assert "Next:" not in told.stdout
        assert told.stderr.startswith("OnlineStoreError: The online store redis://127.0.0.1")
        told = CliRunner().invoke(app, ["--repo", str(tmp_path), "status", "--json"])
        assert told.exit_code == 1
        assert json.loads(told.stdout)["unavailable"] in told.stderr
        assert {one["state"] for one in json.loads(told.stdout)["views"]} == {"unknown"}


def test_of_a_project_without_views_it_says_that_the_online_store_is_away(tmp_path: Path) -> None:
    with RedisServer() as redis:
        url = redis.url_with(query="retries=0")
    (tmp_path / "featurestore.toml").write_text(f'project = "p"\nonline = "{url}"\ndefinitions = []\n')
    told = CliRunner().invoke(app, ["--repo", str(tmp_path), "status"])
    assert (told.exit_code, told.stdout) == (1, "Nothing is applied.\n")
    assert told.stderr.startswith("OnlineUnavailableError: ")


def test_a_run_that_goes_on_is_told_with_what_it_has_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its lease, so whichever process runs it and whichever asks: in the status, its text and JSON, and the metrics."""
    monkeypatch.setattr("featurestore.materialize.kernel.EMBEDDED_BATCH_KEYS", 4)
    seen: list[tuple[RunStatus | None, dict[str, float], str]] = []
    write = Lease.write
    rows = table(thing=list(range(10)), at=[hours(-9)] * 10, v=[1.0] * 10)
    with opened(view_of(rows, ["v"], refresh="1h")) as (store, _):

        def watched(lease: Lease, puts: Mapping[bytes, bytes | None]) -> None:
            write(lease, puts)
            told = {one.name: one.value for family in StoreState(store).collect() for one in family.samples}
            seen.append((only(store).run, told, shown(store)))

        monkeypatch.setattr(Lease, "write", watched)
        store.materialize(progress=False)
        by, instant = f"process {os.getpid()} on {os.uname().nodename}", only(store).complete[0]
        first, *batches = seen
        assert first[0] == RunStatus(by)
        assert f"{by} works on it" in first[2]
        assert [run for run, _, _ in batches] == [RunStatus(by, instant, written, 10) for written in (4, 8, 10)]
        for run, told, text in batches:
            assert run is not None
            assert told["featurestore_materialize_run_keys"] == 10
            assert told["featurestore_materialize_run_written_keys"] == run.written
            assert f"view 'view': {by} works on it as of " in text
            assert f": {run.written} of 10 keys are written" in text
            assert run.to_dict() == {"by": by, "as_of": instant_json(instant), "written": run.written, "keys": 10}
        assert only(store).run is None
        assert only(store).to_dict()["run"] is None

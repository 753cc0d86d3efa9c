"""The serving log in an object store: shipped once, kept until it is, read back, erased from; through kills and a way that is cut."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import LogError
from featurestore.serving.log.serving_log import segments
from featurestore.serving.log.shipping import ship
from featurestore.serving.log.upkeep import Limits
from tests.platforms.conftest import Told
from tests.platforms.s3_server import bad_way, s3_server
from tests.servers import free_port
from tests.serving.shipped_cases import (  # noqa: F401 - the cases are collected here
    HOUR,
    NINE,
    TEN,
    WAIT_SECONDS,
    filled,
    local,
    requests,
    served,
    shop,
    test_a_bucket_that_is_not_there_is_told,
    test_a_key_that_one_machine_forgot_leaves_the_disk_of_another,
    test_each_hour_is_shipped_once_and_read_from_there,
    test_files_of_others_beside_the_log_are_left_alone,
    test_several_ship_at_once,
    test_what_comes_late_and_what_was_merged_again_counts_once,
    test_what_is_damaged_here_is_read_and_erased_there,
    test_what_was_damaged_there_is_told,
    there,
    wait_until,
)


@pytest.fixture
def s3() -> Iterator[pafs.FileSystem]:
    with s3_server() as client:
        client.create_dir("logs")
        client.delete_dir_contents("logs")  # servers of one process have what others left
        yield client


def test_each_hour_is_shipped_once(s3: pafs.FileSystem, tmp_path: Path, tell: Told) -> None:
    """And read from there, by whatever reads the log."""
    test_each_hour_is_shipped_once_and_read_from_there(s3, tmp_path)
    tell("s3", version=f"moto {version('moto')}", ran="the serving log was shipped and audited", compared=9)


def test_nothing_is_deleted_that_is_not_there(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """While the store cannot be reached files stay, whatever their age; then each goes there once."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"', "max_bytes = 1"))
    with store:
        clock.set(TEN + 48 * HOUR)
        with bad_way() as way:
            way.left = 0
            with pytest.raises(
                LogError, match="serving log's files in s3://logs/served/shop are not to be had: .*s3://logs"
            ):
                store.compact_serving_log()
            with pytest.raises(LogError, match="are not to be had"):
                store.audit()
            shipping = store._project.serving_log._shipping  # as a process that serves does it
            assert shipping is not None
            shipping.wake()
            wait_until(lambda: "s3://logs/served/shop" in (store.serving_log_losses().last_error or ""))
        assert there(s3) == {}
        assert len({path.name.split("-")[0] for path in local(store)}) >= 3
        shipping.wake()  # the same thread
        wait_until(lambda: not local(store))
        assert len(there(s3)) == 3
        assert requests(store) == NINE


KILLED = """
import os, signal, sys
from featurestore import FeatureStore, ManualClock
from featurestore.serving.log import shipping
from datetime import datetime

class Killed(shipping.ShippedLog):
    def put(self, path):
        super().put(path)
        if sys.argv[3] == "put":
            os.kill(os.getpid(), signal.SIGKILL)
    def remove(self, path):
        super().remove(path)
        if sys.argv[3] == "remove":
            os.kill(os.getpid(), signal.SIGKILL)

with FeatureStore(sys.argv[1], clock=ManualClock(datetime.fromisoformat(sys.argv[2]))) as store:
    store._project.serving_log.there.__class__ = Killed
    if sys.argv[3] == "delete":
        shipping.delete = lambda files: os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[4] == "forget":
        store.forget("carrier", {"carrier": "UA"})
    else:
        store.compact_serving_log()
"""


def run(folder: Path, at: datetime, when: str, what: str = "compact") -> int:
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), at.isoformat(), when, what], timeout=600, check=False
    ).returncode


@pytest.mark.parametrize("when", ["put", "delete", "remove"])
def test_a_killed_process_loses_and_doubles_nothing(s3: pafs.FileSystem, tmp_path: Path, when: str) -> None:
    """After a file went to the store, after what it replaced went away there, before one is deleted here."""
    store, clock = filled(shop(tmp_path / "shop", 'retention = "1h"'))
    with store:
        at = TEN + 9 * HOUR
        clock.set(at)
        if when == "remove":
            store._project.serving_log.ship()  # parts, which the merged ones will replace
            retained = requests(store)
            assert retained == NINE
        kills = 0
        while run(tmp_path / "shop", at, when) == -signal.SIGKILL:
            kills += 1
            assert requests(store) == NINE
            assert store.audit().compared == 9
            if when == "delete":
                break
        assert kills >= (0 if when == "remove" else 1)
        store.compact_serving_log()
        assert requests(store) == NINE
        assert local(store) == []


def test_a_process_that_is_killed_on_the_way(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """While a file goes to the store: nothing of it is seen there."""
    store, _ = filled(shop(tmp_path / "shop"))
    with store, bad_way() as way:
        at = TEN + 9 * HOUR
        way.stalls, way.left = True, 6000
        words = [sys.executable, "-c", KILLED, str(tmp_path / "shop"), at.isoformat(), "never", "compact"]
        process = subprocess.Popen(words)
        assert way.reached.wait(WAIT_SECONDS)
        process.kill()
        process.wait()
        way.left = 1 << 60
        assert requests(store) == NINE
        assert run(tmp_path / "shop", at, "never") == 0
        assert len(there(s3)) == 3
        assert requests(store) == NINE


def test_a_forgotten_key_leaves_the_store(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """Killed on the way, the same call completes it; another machine's copy does not come back."""
    store, clock = filled(shop(tmp_path / "shop"))
    with store:
        at = TEN + 9 * HOUR
        clock.set(at)
        store.compact_serving_log()
        other = tmp_path / "other"
        for path in local(store):  # a machine that shipped the same files, and has them still
            place = other / path.relative_to(store.config.serving_log.folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
        for path in local(store)[:1]:
            path.unlink()  # one lies in the store alone
    assert run(tmp_path / "shop", at, "put", "forget") == -signal.SIGKILL
    with FeatureStore(tmp_path / "shop", clock=clock) as store:
        left = sorted(set(NINE) - {"0-0", "1-0", "2-0", "0-2", "1-2", "2-2"})
        found = set(requests(store))
        assert found >= set(left)
        assert store.forget("carrier", {"carrier": "UA"}).served_rows >= 1
        assert not any(name.endswith(("-0", "-2")) for name in requests(store))
        assert requests(store) == left
        for name in there(s3):
            with s3.open_input_file(name) as file:
                assert "UA" not in pq.read_table(file)["input:carrier"].to_pylist()
        assert store.audit().skewed == 0
        before = there(s3)
        log = store._project.serving_log
        assert log.there is not None
        live = {name for version in log.there.listing() for name in log.there.segments(other)[version]}
        assert not any(path.is_relative_to(other) for path in live)  # what is in the store replaces it
        assert ship(other, log.there, Limits(), now=int(clock().timestamp() * 1e6)) is not None
        assert there(s3) == before


SERVER = """
import sys
from featurestore.serving.log import serving_log
serving_log.UPKEEP_SECONDS = 0.2
serving_log.FLUSH_SECONDS = 0.1
from featurestore.cli import main
sys.argv = ["featurestore", "--repo", sys.argv[1], "serve", "--no-authentication", "--port", sys.argv[2]]
main()
"""


def test_a_server_ships_and_answers_while_the_way_is_cut(s3: pafs.FileSystem, tmp_path: Path) -> None:
    """What its thread that ships waits for keeps neither lookups nor the log waiting."""
    store, _ = filled(shop(tmp_path / "shop"))
    store.close()
    with FeatureStore(tmp_path / "shop") as now:
        now.materialize(progress=False)
        folder = now.config.serving_log.folder
    port = free_port()
    with bad_way() as way:
        way.stalls, way.left = True, 0
        process = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path / "shop"), str(port)])
        try:
            url = f"http://127.0.0.1:{port}"

            def asked(number: int) -> Any:
                body = json.dumps({"service": "model", "rows": [{"carrier": "UA"}]}).encode()
                headers = {"Content-Type": "application/json", "X-Request-ID": f"live-{number}"}
                with urllib.request.urlopen(
                    urllib.request.Request(f"{url}/v1/online-features", body, headers)
                ) as answer:
                    return json.load(answer)

            def is_up() -> bool:
                try:
                    return bool(asked(0))
                except OSError:
                    assert process.poll() is None
                    return False

            wait_until(is_up)
            assert way.reached.wait(WAIT_SECONDS)  # its thread that ships waits for the store
            for number in range(1, 20):
                assert asked(number)["rows"]

            def logged() -> int:
                files = segments(folder).values()
                return sum(pq.read_metadata(path).num_rows for of in files for path in of)

            wait_until(lambda: logged() >= len(NINE) + 20)
            assert there(s3) == {}
            way.stalls, way.left = False, 1 << 60
            wait_until(lambda: len(there(s3)) == 3)
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS)
    with FeatureStore(tmp_path / "shop") as after:
        assert [name for name in requests(after) if not name.startswith("live")] == NINE
        assert after.audit(until=TEN + 3 * HOUR).skewed == 0

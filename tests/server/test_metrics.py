"""What the server tells Prometheus, read with Prometheus's own parsers, of servers that `featurestore serve` runs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from prometheus_client import Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.access.api_keys import create_key
from featurestore.durable.checksums import decoded, encoded
from featurestore.reports.audit.last_audit import FILE, last_audits
from featurestore.semantics.status import Status
from featurestore.server.limits import ServerLimits
from featurestore.server.metrics import Metrics
from featurestore.settings import ServerConfig
from featurestore.types import Float64, String, Timestamp
from tests.server.test_http import JSON, serving
from tests.servers import PATIENCE_SECONDS, FeatureServer, RedisServer

ROOT = Path(__file__).parents[2]
LOOKUP, PUSH = "/v1/online-features", "/v1/push"
ROW = {"thing": "a", "at": "2025-01-05T00:00:00Z", "x": 1.0}

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def definitions() -> list:
    source = PushSource(
        "s",
        schema={"thing": String, "at": Timestamp, "x": Float64},
        event_time="at",
        identity=["thing", "at"],
        lateness="36500d",
    )
    thing = Entity("thing", key={"thing": String})
    view = FeatureView("v", entity=thing, source=source, refresh="continuous", features=["x"], freshness="1h")
    return [FeatureService("m", features=[view])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository that is applied and materialized, and logs all that is served."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    with FeatureStore(tmp_path) as store:
        store.apply(definitions())
        store.materialize(progress=False)
    return tmp_path


@contextmanager
def server(
    folder: Path, *words: str, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    """`featurestore serve` and its client, whose every request is a connection, so that all workers get some."""
    running = FeatureServer(folder, "--no-authentication", *words, env={**os.environ, **(environment or {})})
    limits = httpx.Limits(max_keepalive_connections=0)
    with running, running.client(headers=JSON, timeout=PATIENCE_SECONDS, limits=limits) as client:
        yield running.process, client


def scraped(client: httpx.Client, **headers: str) -> Samples:
    """Every sample by its name and labels."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    is_open = answer.headers["content-type"].startswith("application/openmetrics-text")
    assert is_open or answer.headers["content-type"].startswith("text/plain")
    families = list((read_openmetrics if is_open else read_text)(answer.text))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"featurestore_{name}", tuple(sorted(labels.items()))))


def ask(client: httpx.Client, count: int = 1, **words: Any) -> httpx.Response:
    return client.post(LOOKUP, json={"service": "m", "rows": [{"thing": "a"}, {"thing": "nobody"}] * count} | words)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_numbers_are_those_of_all_workers(folder: Path, workers: str) -> None:
    """What was asked, pushed and refused is told to the one, whichever worker answers; clients choose no label."""
    with server(folder, "--workers", workers) as (process, client):
        for _ in range(3):
            assert client.post(PUSH, json={"source": "s", "rows": [ROW]}).status_code == 200
        for _ in range(20):
            assert ask(client).status_code == 200
        assert ask(client, 500, service=None, features=["v"]).status_code == 200  # in a lane
        for number in range(5):
            assert ask(client, service=f"no{number}").status_code == 404
            assert client.get(f"/nowhere/{number}").status_code == 404
            assert client.get(f"/v1/views/no{number}").status_code == 404
            assert client.get("/v1/views", headers={"origin": "https://example.com"}).status_code == 403
            assert client.post(PUSH, json={"source": f"no{number}", "rows": [ROW]}).status_code == 404
        assert client.get("/v1/push").status_code == 405
        assert client.get("/v1/views", headers={"x": "x" * 20_000}).status_code == 431
        assert client.post(LOOKUP, content=b" " * (17 << 20)).status_code == 413
        assert ask(client, 6_000).status_code == 422
        assert (
            client.post("/v1/manifests", content=b" " * (2 << 20)).status_code == 413
        )  # refused in a route of FastAPI
        deadline = time.monotonic() + 600
        while value(scraped(client), "requests_in_flight") != 0:  # of the other worker it is up to a second old
            assert time.monotonic() < deadline
        told = [scraped(client, accept="application/openmetrics-text" if turn % 2 else "*/*") for turn in range(8)]
        for samples in told:
            seconds = {
                labels: number
                for (name, labels), number in samples.items()
                if name == "featurestore_request_seconds_count"
            }
            routes = {dict(labels)["route"] for labels in seconds}
            assert routes - {"/metrics"} == {
                LOOKUP,
                PUSH,
                "/v1/views",
                "/v1/views/{name}",
                "/v1/manifests",
                "/readyz",
                "(other)",
            }
            counted = {(dict(labels)["route"], dict(labels)["status"]): number for labels, number in seconds.items()}
            assert (counted[LOOKUP, "2xx"], counted[LOOKUP, "4xx"], counted[PUSH, "2xx"], counted[PUSH, "4xx"]) == (
                21,
                7,
                3,
                6,
            )
            assert (counted["(other)", "4xx"], counted["/v1/views/{name}", "4xx"], counted["/v1/views", "4xx"]) == (
                5,
                5,
                5,
            )
            assert value(samples, "request_seconds_bucket", route=LOOKUP, status="2xx", le="+Inf") == 21
            assert value(samples, "requests_in_flight") == 0
            refusals = {
                dict(labels)["reason"]: number
                for (name, labels), number in samples.items()
                if name == "featurestore_refusals_total"
            }
            assert refusals == {"origin": 5, "header_bytes": 1, "body_bytes": 1, "lookup_rows": 1, "manifest_bytes": 1}
            assert value(samples, "lookup_rows_total", service="m") == 40
            assert value(samples, "lookup_rows_total", service="(features)") == 1000
            statuses = {
                status.name: value(samples, "values_total", service="m", status=status.name) for status in Status
            }
            assert statuses == {
                "PRESENT": 20,
                "MISSING": 20,
                "EXPIRED": 0,
                "OVERFLOW": 0,
                "WITHHELD": 0,
                "UNAVAILABLE": 0,
            }
            assert value(samples, "values_total", service="(features)", status="MISSING") == 500
            pushed = [
                value(samples, "pushed_rows_total", source="s", outcome=name)
                for name in ("accepted", "unchanged", "late")
            ]
            assert pushed == [1, 2, 0]
        assert process.poll() is None


def test_who_asks_while_another_is_being_told_is_told_of_all_lookups(folder: Path) -> None:
    """Two that scrape at once: the first has taken what was counted, and has not told the counters of it yet."""
    taken, goes_on = threading.Event(), threading.Event()
    texts: list[bytes] = []

    def stops(frame: FrameType, _: str, __: object) -> None:
        if frame.f_code is Counter.inc.__code__ and not taken.is_set():
            taken.set()
            goes_on.wait(PATIENCE_SECONDS)

    with FeatureStore(folder) as store:
        metrics = Metrics(store, ServerLimits(ServerConfig()))
        metrics.looked_up({}, store.get_online_features([{"thing": "a"}], "m"), is_service=True)

        def first() -> None:
            before = sys.gettrace()
            sys.settrace(stops)
            metrics.exposition("")
            sys.settrace(before)

        threads = [
            threading.Thread(target=first),
            threading.Thread(target=lambda: texts.append(metrics.exposition("")[0])),
        ]
        threads[0].start()
        assert taken.wait(PATIENCE_SECONDS)
        threads[1].start()
        threads[1].join(1)
        goes_on.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    assert b'featurestore_lookup_rows_total{service="m"} 1.0' in texts[0]


def test_the_state_of_the_store_is_told(folder: Path) -> None:
    """Instants and ages of views, logs of pushes, the serving log, and the version."""
    with server(folder) as (_, client):
        assert client.post(PUSH, json={"source": "s", "rows": [ROW]}).status_code == 200
        for _ in range(4):
            assert ask(client).status_code == 200
        samples = scraped(client)
        with FeatureStore(folder) as store:
            (view,) = store.status()
        version = {"view": "v", "fingerprint": view.fingerprint}
        served = value(samples, "view_served_timestamp_seconds", **version)
        assert served is not None
        assert abs(served - time.time()) < 3600
        assert value(samples, "view_stale", **version) == 0
        behind = value(samples, "view_behind_seconds", **version)
        assert behind is not None
        assert 0 <= behind < 3600
        age = value(samples, "view_source_age_seconds", **version)
        assert age is not None
        assert view.age is not None
        assert 0 < age <= view.age / 1e6
        assert value(samples, "view_freshness_seconds", **version) == 3600
        assert value(samples, "push_pending_rows", source="s") == 0
        assert value(samples, "push_log_bytes", source="s") == view.pushes.bytes
        assert value(samples, "serving_log_offered_total") == 4
        assert value(samples, "serving_log_dropped_total") == value(samples, "serving_log_lost_total") == 0
        assert 0 <= value(samples, "serving_log_waiting") <= 4
        for part in ("status", "serving_log", "runs", "audit"):
            assert value(samples, "readable", part=part) == 1
        assert value(samples, "build_info", version="0.1.0") == 1


def test_what_a_killed_worker_counted_stays_and_what_it_had_under_way_goes(folder: Path) -> None:
    """The process that replaces it goes on counting from there."""
    shared = folder / "metrics"
    shared.mkdir()
    with server(folder, "--workers", "2", environment={"PROMETHEUS_MULTIPROC_DIR": str(shared)}) as (_, client):
        half = b"POST /v1/online-features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as waiting:
            waiting.sendall(half)
            while value(scraped(client), "requests_in_flight") != 1:
                time.sleep(0.01)
            for _ in range(10):
                assert ask(client).status_code == 200
            workers = {int(path.stem.rpartition("_")[2]) for path in shared.glob("gauge_livesum_*.db")}
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            deadline = time.monotonic() + 600
            while True:
                assert time.monotonic() < deadline
                try:
                    samples = scraped(client)
                    if value(samples, "requests_in_flight") == 0:  # both are buried
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        assert value(samples, "lookup_rows_total", service="m") == 20
        assert ask(client).status_code == 200
        assert value(scraped(client), "lookup_rows_total", service="m") == 22


def test_refusals_of_who_asks_are_counted_by_reason(folder: Path) -> None:
    """Without a key, with a wrong one, with a key of another scope; whatever the route is."""
    with FeatureStore(folder) as store, serving(store, authentication=True) as client:
        keys = {
            scope: {"authorization": f"Bearer {create_key(store.registry, scope, [scope]).secret}"}
            for scope in ("read", "metrics")
        }
        key = create_key(store.registry, "l", ["read"], only_on=["service:other"])
        limited = {"authorization": f"Bearer {key.secret}"}
        assert client.get("/metrics").status_code == 401
        assert client.get("/v1/services", headers={"x-api-key": "x"}).status_code == 401
        assert client.get("/metrics", headers=keys["read"]).status_code == 403
        assert client.get("/v1/services/m", headers=limited).status_code == 403  # by the route, which FastAPI has
        assert client.post(LOOKUP, json={"service": "m", "rows": [{"thing": "a"}]}, headers=limited).status_code == 403
        samples = scraped(client, **keys["metrics"])
        assert value(samples, "refusals_total", reason="unauthenticated") == 2
        assert value(samples, "refusals_total", reason="forbidden") == 3


def test_who_asks_for_a_service_is_counted(folder: Path) -> None:
    """By the name of the key, and never by anything of its secret; a request that is refused is none of a service."""
    with FeatureStore(folder) as store, serving(store, authentication=True) as client:
        made = {name: create_key(store.registry, name, ["read", "metrics"]) for name in ("web", "batch")}
        headers = {name: {"authorization": f"Bearer {one.secret}"} for name, one in made.items()}
        for name, times in (("web", 2), ("batch", 1)):
            for _ in range(times):
                assert (
                    client.post(
                        LOOKUP, json={"service": "m", "rows": [{"thing": "a"}]}, headers=headers[name]
                    ).status_code
                    == 200
                )
        assert (
            client.post(LOOKUP, json={"service": "no", "rows": [{"thing": "a"}]}, headers=headers["web"]).status_code
            == 404
        )
        samples = scraped(client, **headers["web"])
        found = {
            dict(labels)["principal"]: number
            for (name, labels), number in samples.items()
            if name == "featurestore_service_requests_total"
        }
        assert found == {"key:web": 2, "key:batch": 1}
        text = client.get("/metrics", headers=headers["web"]).text
        assert not [one for one in made.values() if one.secret in text or one.key.id in text]


def test_a_store_that_cannot_be_read_is_told_and_what_was_counted_too(folder: Path) -> None:
    """The metrics that are read from it are missing, and no others."""
    with FeatureStore(folder) as store, serving(store) as client:
        assert ask(client).status_code == 200
        (folder / ".featurestore" / "registry.db").write_bytes(b"no registry")
        samples = scraped(client)
        assert value(samples, "readable", part="status") == 0
        assert value(samples, "readable", part="runs") == 0
        assert not any(name in {"featurestore_view_stale", "featurestore_materialize_last_keys"} for name, _ in samples)
        assert value(samples, "lookup_rows_total", service="m") == 2


def test_runs_and_audits_of_other_processes_are_told(folder: Path) -> None:
    """When each applied view was filled last, how long that took and what it wrote; what the newest audit of a service found."""
    with FeatureStore(folder) as store, serving(store) as client:
        ask(client)
        began = time.time()
        with FeatureStore(folder) as other:
            other.push("s", [{**ROW, "at": datetime(2025, 1, 5, tzinfo=UTC)}])
            (run,) = other.materialize(full=True, progress=False)
            store.get_online_features([{"thing": "a"}], "m")
        store.audit()
        found = store.audit()
        samples = scraped(client)
        kept = store.config.serving_log.folder / FILE
        found_of = decoded(kept.read_bytes())
        kept.write_bytes(encoded({**found_of, "retired": found_of["m"]}))
        audited = {
            dict(labels)["service"]
            for name, labels in scraped(client)
            if name == "featurestore_audit_timestamp_seconds"
        }
        assert audited == {"m"}  # nobody audits one that is not applied, and it would be called old for ever
        (view,) = store.status()
    version = {"view": "v", "fingerprint": view.fingerprint}
    ended = value(samples, "materialize_last_success_timestamp_seconds", **version)
    assert ended is not None
    assert began - 1 <= ended <= time.time()
    assert 0 <= (value(samples, "materialize_last_seconds", **version) or 0) < 3600
    assert value(samples, "materialize_last_keys", **version) == run.keys
    assert value(samples, "materialize_last_rows", **version) == run.rows
    outcomes = {
        name: value(samples, "audit_values", service="m", outcome=name) for name in ("exact", "rewritten", "skewed")
    }
    assert outcomes == {"exact": found.exact, "rewritten": found.rewritten, "skewed": 0}
    assert found.compared == 3
    assert value(samples, "audit_early_rows", service="m") == 0
    assert abs((value(samples, "audit_timestamp_seconds", service="m") or 0) - time.time()) < 3600


def test_kept_versions_are_told_beside_the_applied_one(folder: Path) -> None:
    """Each under its fingerprint: whoever watches over them sees that both are filled."""
    with FeatureStore(folder) as store, serving(store) as client:
        source = next(iter(definitions()[0].selections())).view.source
        view = FeatureView(
            "v",
            entity=Entity("thing", key={"thing": String}),
            source=source,
            refresh="continuous",
            features=["x"],
            ttl="1d",
        )
        store.apply([FeatureService("m", features=[view])], keep=True)
        views = store.status()
        told = {
            dict(labels)["fingerprint"]: number
            for (name, labels), number in scraped(client).items()
            if name == "featurestore_view_stale"
        }
    assert len(views) == 2
    assert told == {view.fingerprint: view.state != "fresh" for view in views}


def test_round_trips_and_connections_are_counted(tmp_path: Path) -> None:
    """Of an online store on another machine: how long each call took, and how many of the connections are in use."""
    with RedisServer() as redis:
        (tmp_path / "featurestore.toml").write_text(
            f'project = "p"\ndefinitions = []\nonline = "{redis.url}?pool_size=7&timeout=600&retries=0"\n'
        )
        with FeatureStore(tmp_path) as store, serving(store) as client:
            store.apply(definitions())
            store.materialize(progress=False)
            before = scraped(client)
            for _ in range(3):
                assert ask(client).status_code == 200
            samples = scraped(client)
            got = [value(one, "store_seconds_count", call="get", outcome="answered") or 0 for one in (before, samples)]
            assert got[1] >= got[0] + 3
            assert (value(samples, "store_seconds_sum", call="get", outcome="answered") or 0) > 0
            assert (value(samples, "store_seconds_count", call="write", outcome="answered") or 0) > 0
            assert value(samples, "store_connections", state="limit") >= 7
            assert 0 <= value(samples, "store_connections", state="in use") <= 1
            with redis.silent_for(store.online):
                assert ask(client).status_code == 503
            failed = value(scraped(client), "store_seconds_count", call="get", outcome="failed") or 0
            assert failed >= 1  # the server itself may have read meanwhile


def test_a_file_of_audits_that_is_damaged_says_nothing(folder: Path) -> None:
    """And the next audit takes its place."""
    with FeatureStore(folder) as store:
        store.get_online_features([{"thing": "a"}], "m")
        store.audit()
        place = store.config.serving_log.folder
        whole = (place / FILE).read_bytes()
        assert set(last_audits(place)) == {"m"}
        for damaged in (b"", whole[:-9], whole.replace(b'"exact":1', b'"exact":9'), b"[1]"):
            assert damaged != whole
            (place / FILE).write_bytes(damaged)
            assert last_audits(place) == {}
        store.audit()
        assert last_audits(place)["m"].counts["exact"] == 1


def test_the_page_lists_every_metric(folder: Path) -> None:
    """And no other ones."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    with FeatureStore(folder) as store, serving(store) as client:
        client.post(PUSH, json={"source": "s", "rows": [ROW]})
        ask(client)
        store.audit()
        client.get("/v1/views", headers={"origin": "https://example.com"})
        names = {line.split()[2] for line in client.get("/metrics").text.splitlines() if line.startswith("# TYPE")}
    rows = re.findall(r"^\| (`featurestore_.*?) \|", page.split("## What to alert on")[0], re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    told = {name if name.startswith("featurestore") else f"featurestore_serving_log{name}" for name in told}
    assert told == {name for name in names if not name.endswith("_created")}

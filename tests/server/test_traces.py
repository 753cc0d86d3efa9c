"""Traces: what the real SDK of OpenTelemetry sends of requests to a receiver of OTLP over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, PushSource, Request, on_demand
from featurestore.settings import ServerConfig
from featurestore.tracing import span
from featurestore.types import Float64, String, Timestamp
from tests.otlp import OtlpReceiver, ReceivedSpan
from tests.ports import free_port
from tests.server.test_http import serving
from tests.server.test_logs import PARENT, TRACE
from tests.server.test_metrics import LOOKUP, PUSH, ROW

LOOK: dict[str, Any] = {"service": "m", "rows": [{"thing": "a secret", "by": 2.0}]}


def definitions() -> list:
    source = PushSource(
        "s",
        schema={"thing": String, "at": Timestamp, "x": Float64},
        event_time="at",
        identity=["thing", "at"],
        lateness="36500d",
    )
    view = FeatureView(
        "v", entity=Entity("thing", key={"thing": String}), source=source, refresh="continuous", features=["x"]
    )

    @on_demand(inputs=[view["x"], Request("by", Float64)], output=Float64)
    def scaled(x: float | None, by: float) -> float:
        return 1 / by if x is None else x * by

    return [FeatureService("m", features=[view, scaled])]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, OtlpReceiver]]:
    folder = tmp_path_factory.mktemp("traced")
    (folder / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[server]\ntraces = "otlp"\n')
    with OtlpReceiver() as receiver, pytest.MonkeyPatch.context() as patch, FeatureStore(folder) as store:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        patch.setenv("OTEL_SERVICE_NAME", "shop-features")
        store.apply(definitions())
        store.materialize(progress=False)
        with serving(store) as client:
            yield client, receiver
    assert span("nothing") is span("nothing else")  # nobody is told any more


def of_request(receiver: OtlpReceiver, answer: httpx.Response) -> list[ReceivedSpan]:
    """The spans of the trace of a request, the request's own first."""
    known = answer.headers["x-request-id"]

    def own(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
        return [span for span in spans if span.attributes.get("featurestore.request_id") == known]

    spans = receiver.wait_for(lambda spans: bool(own(spans)))
    (root,) = own(spans)
    return [root, *(span for span in spans if span.trace == root.trace and span is not root)]


@pytest.mark.parametrize("rows", [1, 3000])
def test_a_lookup_is_a_span_in_its_clients_trace(traced: tuple[httpx.Client, OtlpReceiver], rows: int) -> None:
    """Its read and its on-demand code are parts of it, on the event loop and in a lane; no span has a key or a value."""
    client, receiver = traced
    known = f"order-{rows}"
    asked = {**LOOK, "rows": LOOK["rows"] * rows}
    answer = client.post(LOOKUP, json=asked, headers={"traceparent": PARENT, "x-request-id": known})
    assert answer.status_code == 200
    root, *parts = of_request(receiver, answer)
    parts = [part for part in parts if part.parent == root.id]
    assert (root.name, root.trace, root.parent, root.kind) == (
        f"POST {LOOKUP}",
        TRACE,
        "00f067aa0ba902b7",
        Span.SPAN_KIND_SERVER,
    )
    assert root.service == "shop-features"
    assert root.attributes == {
        "http.request.method": "POST", "http.route": LOOKUP, "http.response.status_code": 200, "url.scheme": "http",
        "featurestore.request_id": known, "featurestore.service": "m", "featurestore.rows": rows,
    }  # fmt: skip
    assert [(part.name, part.trace) for part in parts] == [("online read", TRACE), ("on-demand feature", TRACE)]
    assert parts[0].attributes["featurestore.keys"] >= 2
    assert parts[1].attributes == {"featurestore.on_demand": "scaled", "featurestore.rows": rows}
    assert not any(part.is_error for part in (root, *parts))
    assert all(part.seconds <= root.seconds for part in parts)
    assert "secret" not in str(receiver.spans)


def test_a_request_without_a_trace_begins_one_and_is_called_so(traced: tuple[httpx.Client, OtlpReceiver]) -> None:
    """What it is called in the answer finds its trace; whoever looks whether the server is alive is no span."""
    client, receiver = traced
    assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200
    answer = client.post(PUSH, json={"source": "s", "rows": [ROW]})
    root, *_ = of_request(receiver, answer)
    assert root.trace == answer.headers["x-request-id"]
    assert root.parent == ""
    assert (root.attributes["featurestore.source"], root.attributes["featurestore.rows"]) == ("s", 1)
    unknown = client.get("/v1/views/a-secret-thing")
    root, *_ = of_request(receiver, unknown)
    assert (root.name, root.attributes["http.response.status_code"], root.is_error) == (
        "GET /v1/views/{name}",
        404,
        False,
    )
    assert not {"GET /healthz", "GET /metrics"} & {span.name for span in receiver.spans}
    assert "secret" not in str(receiver.spans)


def test_what_fails_is_told_by_its_kind_alone(traced: tuple[httpx.Client, OtlpReceiver]) -> None:
    """The message of an error may have a value."""
    client, receiver = traced
    failed = client.post(LOOKUP, json={**LOOK, "rows": [{"thing": "a secret", "by": 0.0}]})
    assert failed.status_code == 422
    root, *parts = of_request(receiver, failed)
    (part,) = [part for part in parts if part.is_error]
    assert (part.name, part.attributes["error.type"]) == ("on-demand feature", "OnDemandError")
    assert not root.is_error  # it is the client's
    assert "secret" not in str(receiver.spans)


def test_nothing_is_loaded_where_traces_are_off(tmp_path: Path) -> None:
    """Nor told; and where they are on and the extra is not installed, an error names it."""
    assert ServerConfig().traces == "off"
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[server]\ntraces = "${TRACES}"\n')
    code = (
        "import sys, json\n"
        "from featurestore import FeatureStore\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('opentelemetry.exporter'): raise ImportError('absent', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from featurestore.server import create_app\n"
        f"store = FeatureStore({str(tmp_path)!r})\n"
        "try: create_app(store, authentication=False)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "else: print(sorted(name for name in sys.modules if name.startswith('opentelemetry.sdk')))\n"
    )  # fmt: skip
    told = {}
    for said in ("off", "otlp"):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "TRACES": said}, capture_output=True, text=True, check=True
        )
        told[said] = done.stdout.strip()
    assert json.loads(told["off"]) == []
    assert told["otlp"].startswith("MissingPackageError Traces need opentelemetry.exporter")
    assert told["otlp"].endswith("pip install 'featurestore[telemetry]'")


def test_a_receiver_that_is_not_there_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are answered, and the server ends."""
    (tmp_path / "featurestore.toml").write_text('project = "p"\ndefinitions = []\n[server]\ntraces = "otlp"\n')
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with FeatureStore(tmp_path) as store, serving(store) as client:
        for _ in range(20):
            assert client.get("/v1/views").status_code == 200

"""A receiver of OTLP over HTTP, for tests: it takes the spans that are sent to it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2


class ReceivedSpan(NamedTuple):
    """A span as it came over the wire; ids in hexadecimal digits."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    attributes: dict[str, Any]
    is_error: bool
    service: str
    seconds: float


class OtlpReceiver:
    """Listens on a free port of this machine; `spans` are those that have come by now."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self._more = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
                receiver._take(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def _take(self, request: ExportTraceServiceRequest) -> None:
        with self._more:
            for resource in request.resource_spans:
                service = _words(resource.resource.attributes)["service.name"]
                self.spans += [_span(span, service) for scope in resource.scope_spans for span in scope.spans]
            self._more.notify_all()

    def wait_for(self, come: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
        """The spans, as soon as they are as they should be."""
        with self._more:
            assert self._more.wait_for(lambda: come(self.spans), 600), [span.name for span in self.spans]
            return list(self.spans)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _words(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


def _span(span: trace_pb2.Span, service: str) -> ReceivedSpan:
    seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
    is_error = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert not span.events
    assert not span.status.message
    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    return ReceivedSpan(span.name, *ids, span.kind, _words(span.attributes), is_error, service, seconds)

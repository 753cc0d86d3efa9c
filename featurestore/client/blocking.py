"""The client for threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from featurestore.client.calls import (
    Call,
    Format,
    address_of,
    listing_of,
    lookup_of,
    materialize_of,
    push_of,
    status_call,
    unreached,
)
from featurestore.client.retries import CallTime, checked_settings
from featurestore.declare.arguments import checked
from featurestore.errors import MissingPackageError
from featurestore.push.pushed import Pushed
from featurestore.serving.online_result import OnlineResult
from featurestore.timed_response import TimedResponse

try:
    import urllib3
except ImportError as error:
    raise MissingPackageError("Client needs urllib3: pip install 'featurestore[client]'") from error

R = TypeVar("R")
PIECE_BYTES = 1 << 20


class _TimedHTTPConnection(urllib3.connection.HTTPConnection):
    response_class = TimedResponse


class _TimedHTTPSConnection(urllib3.connection.HTTPSConnection):
    response_class = TimedResponse


class Client:
    """Looks up and pushes over HTTP; safe to share between threads, which then share its connections.

    url: where `featurestore serve` listens. key: an API key or a token. timeout_seconds: the longest that a call takes, all its
    attempts together. attempts: how often it is tried where the service is busy or cannot be reached; the same rows may be
    pushed again, which changes nothing. connections: kept open, at most. authorities: a file of certificates to believe,
    where those of the system are not meant. certificate: files of the client's own certificate and its key, for mTLS.
    """

    def __init__(
        self, url: str, *, key: str | None = None, timeout_seconds: float = 5.0, attempts: int = 4,
        connections: int = 10, authorities: str | None = None, certificate: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        checked_settings(timeout_seconds, attempts, connections)
        self._address = address_of(url, key)
        self._seconds, self._attempts = timeout_seconds, attempts
        of_tls: dict[str, Any] = {}
        if self._address.url.startswith("https:"):
            of_tls["ca_certs"] = authorities
            if certificate is not None:
                of_tls["cert_file"], of_tls["key_file"] = certificate
        self._pool = urllib3.connection_from_url(self._address.url, maxsize=connections, block=False, **of_tls)
        self._pool.ConnectionCls = _TimedHTTPSConnection if of_tls else _TimedHTTPConnection

    @checked
    def get_online_features(
        self, rows: Any, features: Any, *, fingerprint: str | None = None, request_id: str | None = None,
        format: Format = "json",  # noqa: A002 - the field's word
    ) -> OnlineResult:  # fmt: skip
        """The features of each row now, as `FeatureStore.get_online_features` gives them.

        rows: a list of dicts (or one), or a frame, of keys and request values. features: the name of a service, a list of
        names, or a manifest. fingerprint: what the model was trained on. format: how the answer travels. Raises what the
        store raises, ServerError, and ServerUnavailableError where there was no answer in time.
        """
        return self._call(lookup_of(rows, features, fingerprint=fingerprint, request_id=request_id, form=format))

    @checked
    def push(self, source: str, rows: Any) -> Pushed:
        """Keep rows of a push source: on the disk and seen by the next lookup when it returns; see `FeatureStore.push`.

        Where ServerUnavailableError is raised they may have been kept; the same rows sent again change nothing.
        """
        return self._call(push_of(source, rows))

    @checked
    def materialize(self, views: Sequence[str] | None = None, *, full: bool = False) -> list[str]:
        """Begin to fill what is due now of the applied views, in the background of the service; the names of the views.

        views: only these. full: every key, not only those that may have changed. `status` tells how far it has come. Raises
        NotFoundError, ForbiddenError, and MaterializeError where the service is at it already.
        """
        return self._call(materialize_of(views, full))

    def status(self) -> list[dict[str, Any]]:
        """How far each applied view has come online, and the run that works on it just now; as `ViewStatus.to_dict` tells it."""
        return self._call(status_call())

    def services(self) -> list[dict[str, Any]]:
        """The applied services: name, fingerprint, the versions kept, and that of the server's manifest."""
        return self._call(listing_of("services"))

    @checked
    def service(self, name: str) -> dict[str, Any]:
        """One applied service, with all that can change what it gives."""
        return self._call(listing_of("services", name))

    def views(self) -> list[dict[str, Any]]:
        """The applied views: name and fingerprint."""
        return self._call(listing_of("views"))

    @checked
    def view(self, name: str) -> dict[str, Any]:
        """One applied view, with all that can change its values."""
        return self._call(listing_of("views", name))

    def close(self) -> None:
        """Close the connections. A later call opens new ones."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._address.url + self._address.path!r})"

    def _call(self, call: Call[R]) -> R:
        where, deadline = self._address.url, CallTime(self._seconds, self._attempts)
        while True:
            try:
                status, headers, body = self._sent(call, deadline)
            except urllib3.exceptions.HTTPError as error:
                deadline.remaining(where)
                wait = deadline.wait()
                if wait is None or isinstance(error, urllib3.exceptions.SSLError):
                    raise unreached(where, error) from error
            else:
                wait = deadline.wait(headers) if call.may_repeat(status, body) else None
                if wait is None:
                    return call.result(status, headers, body)
            time.sleep(wait)

    def _sent(self, call: Call[Any], deadline: CallTime) -> tuple[int, Any, bytes]:
        """The answer to one attempt."""
        where = self._address.url
        response = self._pool.urlopen(
            "GET" if call.body is None else "POST", self._address.path + call.path, call.body,
            {**self._address.headers, **call.headers}, retries=False, redirect=False, preload_content=False,
            timeout=urllib3.Timeout(total=deadline.remaining(where)),
        )  # fmt: skip
        pieces = []
        try:
            while piece := response.read1(PIECE_BYTES):
                pieces.append(piece)
                deadline.remaining(where)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        return response.status, response.headers, b"".join(pieces)

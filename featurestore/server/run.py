"""Run the service: uvicorn, one process or several."""

from __future__ import annotations

import json
import logging.config
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn

from featurestore.access.authentication import check_open_host
from featurestore.access.sessions import SESSION_SECRET, drawn_secret
from featurestore.errors import ConfigError
from featurestore.log_lines import log_config, tell
from featurestore.server.app import Application, create_app
from featurestore.server.compatible.chosen import checked_platforms
from featurestore.server.metrics import SHARED
from featurestore.server.presented import presented
from featurestore.server.tls import tls_options
from featurestore.settings import ServerConfig
from featurestore.store import FeatureStore

REPO, ENV = "FEATURESTORE_REPO", "FEATURESTORE_ENV"
MANIFESTS = "FEATURESTORE_MANIFESTS"
"""The paths of the manifests to serve, as a JSON list."""


COMPATIBLE = "FEATURESTORE_COMPATIBLE"
"""The platforms whose clients are answered too, as a JSON list."""

AUTHENTICATION = "FEATURESTORE_AUTHENTICATION"
""""off" where the command line said so."""

NO_KEY = (
    "There is no API key yet, so every request is refused. `featurestore keys create NAME --scope read` makes one, which counts "
    "at once; `featurestore serve --no-authentication` serves this machine without keys."
)


def app_from_environment() -> Application:
    """The application of the repository that the environment names; what each worker process runs."""
    store = FeatureStore(os.environ.get(REPO, "."), env=os.environ.get(ENV) or None)
    on = None if os.environ.get(AUTHENTICATION) != "off" else False
    platforms = os.environ.get(COMPATIBLE)
    return create_app(
        store, manifests=json.loads(os.environ.get(MANIFESTS, "[]")), close_store=True, authentication=on,
        compatible=None if platforms is None else json.loads(platforms),
    )  # fmt: skip


def serve(  # noqa: PLR0913 - each is an option
    repo: str | Path, *, env: str | None = None, host: str, port: int, workers: int = 1,
    manifests: Sequence[str | Path] = (), authentication: bool = True, compatible: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Serve a repository until SIGTERM or SIGINT; requests under way are finished first.

    manifests: files of manifests, whose services are served in exactly these versions to clients that name none. Raises
    ManifestError and FingerprintError before anything is served; see `create_app`. authentication: False leaves requests
    without a key in, on a loopback host alone; ConfigError. compatible: platforms whose clients are answered too, by default as
    configured.
    """
    os.environ[REPO] = str(Path(repo).resolve())
    if env is not None:
        os.environ[ENV] = env
    if compatible is not None:
        os.environ[COMPATIBLE] = json.dumps(checked_platforms(compatible))
    os.environ[MANIFESTS] = json.dumps([str(Path(manifest).resolve()) for manifest in manifests])
    with FeatureStore(repo, env=env) as store:  # said and refused here, once, and not by each worker
        config = store.config.server
        as_json = config.log_format == "json"
        if as_json:
            logging.config.dictConfig(log_config())
            logging.captureWarnings(True)
        differs = store.differences().told("those that are applied are served", "there is nothing to serve")
        if differs:
            tell(differs, as_json=as_json)
        if manifests:
            presented(store, manifests)
        if not authentication or config.authentication == "off":
            check_open_host(host)
        elif store.config.jwt.jwks is None and not store.registry.api_keys():
            tell(NO_KEY, as_json=as_json)
    os.environ[AUTHENTICATION] = "required" if authentication else "off"
    os.environ[SESSION_SECRET] = os.environ.get(SESSION_SECRET) or drawn_secret()  # the same for all workers
    tls = tls_options(config)
    _allow_connections(config.connections)
    with _shared_metrics(workers):
        uvicorn.run(
            "featurestore.server.run:app_from_environment",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            **options(config),
            **tls,
        )


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """A folder in which several workers add up what they count; a single one needs none, nor one that somebody has given."""
    if workers == 1 or SHARED in os.environ:
        yield
        return
    try:
        holder = TemporaryDirectory(prefix="featurestore-metrics-")
    except OSError as error:
        raise ConfigError(
            f"Several workers add up their metrics in a temporary folder, and none can be made ({error.strerror}). Name a folder "
            f"in {SHARED} that is empty and can be written to, or serve with one worker"
        ) from None
    with holder as folder:
        os.environ[SHARED] = folder
        try:
            yield
        finally:
            del os.environ[SHARED]


def options(config: ServerConfig) -> dict[str, Any]:
    """How uvicorn is run: with our connections, without what nobody here uses, and no end to what was begun for 30 s."""
    return {
        "http": "featurestore.server.connection:Connection",  # by name: workers load it once they answer for themselves
        "ws": "none",
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,  # ours has other words, and is written beside the event loop
        **({"log_config": log_config()} if config.log_format == "json" else {}),
        "timeout_keep_alive": math.ceil(config.idle_seconds) + 1,  # that of `Connection` comes first
        "timeout_graceful_shutdown": 30,
    }


OWN_FILES = 256
"""Descriptors that a process needs beside those of its connections, at most."""


def _allow_connections(connections: int) -> None:
    """Let this process, and those that it starts, have as many files open as the limit of connections needs; ConfigError
    where it may not: it would take no connection at all, once the last descriptor is gone."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + OWN_FILES
    if resource.RLIM_INFINITY in {soft, hard} or needed <= soft:
        return
    if needed > hard:
        raise ConfigError(
            f"connections of [server] is {connections}, and with {OWN_FILES} of the server's own that is more than the {hard} "
            "files that this process may have open (ulimit -n). Lower the one or raise the other"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

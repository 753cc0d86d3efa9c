"""Run the service: uvicorn, one process or several."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from featurestore.server.app import create_app
from featurestore.server.presented import presented
from featurestore.store import FeatureStore

REPO, ENV = "FEATURESTORE_REPO", "FEATURESTORE_ENV"
MANIFESTS = "FEATURESTORE_MANIFESTS"
"""The paths of the manifests to serve, as a JSON list."""


def app_from_environment() -> FastAPI:
    """The application of the repository that the environment names; what each worker process runs."""
    store = FeatureStore(os.environ.get(REPO, "."), env=os.environ.get(ENV) or None)
    return create_app(store, manifests=json.loads(os.environ.get(MANIFESTS, "[]")), close_store=True)


def serve(
    repo: str | Path, *, env: str | None = None, host: str, port: int, workers: int = 1,
    manifests: Sequence[str | Path] = (),
) -> None:  # fmt: skip
    """Serve a repository until SIGTERM or SIGINT; requests under way are finished first.

    manifests: files of manifests, whose services are served in exactly these versions to whoever names none. Raises
    ManifestError and FingerprintError before anything is served; see `create_app`.
    """
    os.environ[REPO] = str(Path(repo).resolve())
    if env is not None:
        os.environ[ENV] = env
    os.environ[MANIFESTS] = json.dumps([str(Path(manifest).resolve()) for manifest in manifests])
    with FeatureStore(repo, env=env) as store:  # said and refused here, once, and not by each worker
        differs = store.differences().told("those that are applied are served", "there is nothing to serve")
        if differs:
            print(differs, file=sys.stderr, flush=True)  # noqa: T201 - this is the output
        if manifests:
            presented(store, manifests)
    uvicorn.run(
        "featurestore.server.run:app_from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        timeout_graceful_shutdown=30,
    )

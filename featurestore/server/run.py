"""Run the service: uvicorn, one process or several."""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from featurestore.server.app import create_app
from featurestore.store import FeatureStore

__all__ = ["app_from_environment", "serve"]

REPO, ENV = "FEATURESTORE_REPO", "FEATURESTORE_ENV"


def app_from_environment() -> FastAPI:
    """The application of the repository that the environment names; what each worker process runs."""
    store = FeatureStore(os.environ.get(REPO, "."), env=os.environ.get(ENV) or None)
    return create_app(store, close_store=True)


def serve(repo: str | Path, *, env: str | None = None, host: str, port: int, workers: int = 1) -> None:
    """Serve a repository until SIGTERM or SIGINT; requests under way are finished first."""
    os.environ[REPO] = str(Path(repo).resolve())
    if env is not None:
        os.environ[ENV] = env
    uvicorn.run(
        "featurestore.server.run:app_from_environment",
        factory=True,
        host=host,
        port=port,
        workers=workers,
        access_log=False,
        timeout_graceful_shutdown=30,
    )

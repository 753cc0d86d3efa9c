"""The product's server for the benchmark, with a route that does nothing beside it: python -m benchmarks.app PROJECT PORT [ENV]."""

import sys

import uvicorn
from fastapi import FastAPI

from benchmarks.product import open_store
from featurestore.server import create_app


def app(project: str, env: str | None = None) -> FastAPI:
    served = create_app(open_store(project, env=env))

    @served.post("/noop")
    async def noop() -> dict[str, bool]:
        return {"ok": True}

    return served


if __name__ == "__main__":
    uvicorn.run(
        app(sys.argv[1], *sys.argv[3:]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False
    )

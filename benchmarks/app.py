"""The product's server for the benchmark, with a route that does nothing beside it: python -m benchmarks.app PROJECT PORT."""

import sys

import uvicorn
from fastapi import FastAPI

from benchmarks.product import open_store
from featurestore.server import create_app


def app(project: str) -> FastAPI:
    served = create_app(open_store(project))

    @served.post("/noop")
    async def noop() -> dict[str, bool]:
        return {"ok": True}

    return served


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)

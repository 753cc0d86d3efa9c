"""The product's server for the benchmark, with a route that does nothing beside it: python -m benchmarks.app PROJECT PORT [WORD].

WORD: an environment of the project; or "now", by the store's own clock, and not at the end of the generated history.
"""

import sys

import uvicorn
from fastapi import FastAPI

from benchmarks.product import open_store
from featurestore import FeatureStore
from featurestore.server import create_app


def app(store: FeatureStore) -> FastAPI:
    served = create_app(store)

    @served.post("/noop")
    async def noop() -> dict[str, bool]:
        return {"ok": True}

    return served


if __name__ == "__main__":
    project, port, *words = sys.argv[1:]
    opened = FeatureStore(project) if words == ["now"] else open_store(project, env=words[0] if words else None)
    uvicorn.run(app(opened), host="127.0.0.1", port=int(port), log_level="warning", access_log=False)

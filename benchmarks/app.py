"""The product's server for the benchmark, as `featurestore serve` runs it: python -m benchmarks.app PROJECT PORT [WORD].

It asks for a key, which it makes and writes into PROJECT/PORT.key, and counts what it answers.

WORD: an environment of the project; "now", by the store's own clock, and not at the end of the generated history; or "noop": no
product at all, but the floor: a route of a FastAPI application that does nothing, on uvicorn as it is.
"""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from benchmarks.product import open_store
from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.server import create_app
from featurestore.server.run import options


def floor() -> FastAPI:
    bare = FastAPI()

    @bare.post("/noop")
    async def noop() -> dict[str, bool]:
        return {"ok": True}

    return bare


if __name__ == "__main__":
    project, port, *words = sys.argv[1:]
    told = {"host": "127.0.0.1", "port": int(port), "log_level": "warning"}
    if words == ["noop"]:
        uvicorn.run(floor(), access_log=False, **told)
    else:
        opened = FeatureStore(project) if words == ["now"] else open_store(project, env=words[0] if words else None)
        made = create_key(opened.registry, f"benchmark-{port}", ["read", "push", "admin"])
        Path(project, f"{port}.key").write_text(made.secret)
        uvicorn.run(create_app(opened), **options(opened.config.server), **told)

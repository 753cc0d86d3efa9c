"""The product's server for the benchmark, as `featurestore serve` runs it: python -m benchmarks.app PROJECT PORT [WORD].

It asks for a key, which it makes and writes into PROJECT/PORT.key, and counts what it answers.

WORD: an environment of the project; "now", by the store's own clock, and not at the end of the generated history. Two are floors,
on uvicorn as it is: "noop", a route of a FastAPI application that does nothing; "plain", a route in plain ASGI that asks for
a key, reads the JSON of a lookup and writes that of an answer, whose values it has made up beforehand.
"""

import sys
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.product import SERVICE, open_store
from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.access.authentication import Authentication
from featurestore.server import create_app
from featurestore.server.json_answers import json_body
from featurestore.server.run import options


def floor() -> FastAPI:
    bare = FastAPI()

    @bare.post("/noop")
    async def noop() -> dict[str, bool]:
        return {"ok": True}

    return bare


def plain(store: FeatureStore) -> ASGIApp:
    """Nothing but authentication and the JSON of the same requests and answers: no limits, no metrics, no online store."""
    asks = Authentication(store.config)
    one: dict[str, Any] = orjson.loads(b"".join(json_body(store.get_online_features([{"customer": 0}], SERVICE))))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        (await asks.aauthenticate(scope["headers"])).must("read")
        message = await receive()
        body = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        rows = len(orjson.loads(body)["rows"])
        answer = orjson.dumps({**one, "rows": one["rows"] * rows, "statuses": one["statuses"] * rows})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


if __name__ == "__main__":
    project, port, *words = sys.argv[1:]
    told: dict[str, Any] = {"host": "127.0.0.1", "port": int(port), "log_level": "warning"}
    if words == ["noop"]:
        uvicorn.run(floor(), access_log=False, **told)
    else:
        env = words[0] if words and words != ["plain"] else None
        opened = FeatureStore(project) if words == ["now"] else open_store(project, env=env)
        made = create_key(opened.registry, f"benchmark-{port}", ["read", "push", "admin"])
        Path(project, f"{port}.key").write_text(made.secret)
        if words == ["plain"]:
            uvicorn.run(plain(opened), access_log=False, **told)
        else:
            uvicorn.run(create_app(opened), **options(opened.config.server), **told)

"""Somebody who clicks through the console while lookups are answered: python -m benchmarks.visitors URL KEY."""

import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle
from urllib.request import Request, urlopen

from benchmarks.latency import Figures
from benchmarks.pairs import ROOT
from benchmarks.product import SERVICE, wide_route

PAGES = (
    "",
    "/catalog?q=f1",
    "/view/wide",
    "/feature/wide:f1",
    f"/service/{SERVICE}",
    "/lineage/wide",
    "/runs",
    "/pushes",
    "/activity",
    "/training",
)
"""What is looked at, in turn."""

CLICK_SECONDS = 0.2
"""Seconds between two clicks: of several people who are in a hurry."""


def looked_at_route(
    servers: dict[str, list[str]], *, looks: bool, connections: int, seconds: float
) -> Callable[[], Figures]:
    """POST /v1/online-features of one key and 100 features, while somebody looks at pages of the same server, or nobody does."""
    route = wide_route(servers, connections=connections, seconds=seconds)

    def call() -> Figures:
        if not looks:
            return route()
        url, _, key = servers["ours"]
        visitor = subprocess.Popen([sys.executable, "-m", "benchmarks.visitors", url, key], cwd=ROOT)
        try:
            figures = route()
            if visitor.poll() is not None:
                raise RuntimeError("The visitor was not shown a page")
            return figures
        finally:
            visitor.kill()
            visitor.wait()

    return call


def click_through(url: str, key: str) -> None:
    """Look at page after page, until it is killed; an answer of any other status than 200 is an error."""
    for page in cycle(PAGES):
        with urlopen(Request(f"{url}/ui{page}", headers={"X-API-Key": key})) as answer:
            answer.read()
        time.sleep(CLICK_SECONDS)


if __name__ == "__main__":
    click_through(*sys.argv[1:])

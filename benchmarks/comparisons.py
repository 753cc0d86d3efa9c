"""What is compared with what, and what is aimed at: a table."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from benchmarks.engines import rows_of_engines
from benchmarks.estimating import SHAPES
from benchmarks.explaining import CASES
from benchmarks.fast_paths import CASES as FAST_PATHS
from benchmarks.object_store import stored_rows
from benchmarks.pairs import Job
from benchmarks.scaling import MILLION
from benchmarks.servers import (
    Told,
    empty_cluster,
    empty_redis,
    filled_ranking,
    filled_redis,
    filled_tiles,
    nothing,
    served,
    served_capacity,
    served_pushes,
    served_twice,
    served_wide,
)

THREADS = 2  # for every engine, whatever the machine has


@dataclass(frozen=True)
class Line:
    """A figure of the first job, beside that of the job `against` (its number) where there is one.

    limit: a bound on the ratio where it is compared, else on the figure itself; `at_least` makes it the least allowed.
    """

    figure: str = "wall_s"
    against: int | None = None
    limit: float | None = None
    at_least: bool = False
    within: bool = False
    """That the ratio is neither above the limit nor below one over it."""

    def reached(self, value: float) -> bool | None:
        if self.limit is None:
            return None
        if self.within:
            return 1 / self.limit <= value <= self.limit
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def aim(self) -> str:
        if self.limit is None:
            return ""
        if self.within:
            return f"{1 / self.limit:g} – {self.limit:g} ×"
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g}{'' if self.against is None else ' ×'}"


@dataclass(frozen=True)
class Comparison:
    """Jobs that run in turn, the one in question first, and what is read from their figures."""

    name: str
    jobs: tuple[Job, ...]
    lines: tuple[Line, ...]
    setup: Callable[[str], AbstractContextManager[Told]] = nothing
    warmups: int = 1
    """Rounds that do not count; none of jobs that warm up themselves."""


def product_exists() -> bool:
    """Whether there is a FeatureStore to measure; without one, the floors of training are compared with each other."""
    return find_spec("featurestore.store") is not None


def _training(root: str) -> list[Comparison]:
    found = []
    for size in ("100k", "1m"):
        for ttl in (7, None):
            told = {"root": root, "size": size, "ttl_days": ttl, "threads": THREADS}
            duck = Job("DuckDB ASOF JOIN", "benchmarks.floors:training_duckdb", told)
            polars = Job(
                "Polars join_asof",
                "benchmarks.floors:training_polars",
                told,
                environment={"POLARS_MAX_THREADS": str(THREADS)},
            )
            name = f"training {size}, ttl {'none' if ttl is None else f'{ttl} d'}"
            if product_exists():
                ours = Job("featurestore", "benchmarks.product:training", told)
                least = Job(
                    "rows gathered", "benchmarks.floors:gathered", {"root": root, "size": size, "threads": THREADS}
                )
                small = size == "100k"
                lines: tuple[Line, ...] = (Line(against=1, limit=1.0), Line(against=2, limit=1.0))
                lines += (Line(against=3, limit=1.25 if small else None), Line("cpu_s", against=3))
                lines += (Line("peak_mb", limit=800 if small else 3000),)
                found.append(Comparison(name, (ours, duck, polars, least), lines))
            else:
                found.append(Comparison(name, (duck, polars), (Line(against=1),)))
    return found


def _materialize(root: str) -> list[Comparison]:
    told = {"root": root}
    into_redis = Job("featurestore", "benchmarks.product:materialize_redis", told)
    into_lmdb = Job("featurestore", "benchmarks.product:materialize_lmdb", told)
    by_hand = {**told, "threads": THREADS}
    least = Job("newest rows, records put", "benchmarks.floors:newest_into_lmdb", by_hand)
    least_redis = Job("newest rows, records put and asked for", "benchmarks.floors:newest_into_redis", by_hand)
    peak = Line("peak_mb")
    return [
        Comparison(
            "materialize 18 features, Redis",
            (into_redis, least_redis),
            (
                Line("keys_per_s", limit=200_000, at_least=True),
                Line("keys_per_s", against=1),
                Line("server_keys_per_cpu_s"),
                Line("server_keys_per_cpu_s", against=1),
                peak,
            ),
            empty_redis,
        ),
        Comparison(
            "materialize 18 features, LMDB",
            (into_lmdb, least),
            (Line("keys_per_s", limit=300_000, at_least=True), Line("keys_per_s", against=1), peak),
        ),
    ]


def _statistics(root: str) -> list[Comparison]:
    def pair(call: str, **told: Any) -> tuple[Job, ...]:
        named = (("described", None), ("undescribed", "undescribed"))
        return tuple(Job(name, f"benchmarks.product:{call}", {"root": root, "env": env, **told}) for name, env in named)

    cpu = (Line("cpu_s", against=1, limit=1.1),)
    frames = [
        Comparison(f"training frame {size}, written and described", pair("training_written", size=size), cpu)
        for size in ("100k", "1m")
    ]
    return [*frames, Comparison("materialize 18 features, LMDB, described", pair("materialize_described"), cpu)]


def _lookup(root: str) -> list[Comparison]:
    found = []
    for keys in (1, 100):
        for form in ("to_dict", "to_numpy"):
            told = {"keys": keys, "rounds": 3000}
            ours = Job("featurestore", "benchmarks.product:lookup", {**told, "root": root, "form": form})
            bare = Job("redis-py MGET", "benchmarks.floors:mget", told)
            lines: tuple[Line, ...] = (Line("p50_ms", against=1, limit=2.0), Line("p99_ms", against=1))
            found.append(Comparison(f"lookup {keys} × 18, {form}", (ours, bare), lines, filled_redis))
    return [*found, *_shared_keys()]


def _shared_keys() -> list[Comparison]:
    found = []
    users = {"few": "8 windowed", "many": "30 windowed", "materialized": "18", "on_demand": "a function"}
    for service, user in users.items():
        ours = Job("with the user", "benchmarks.ranking:rank", {"service": service, "rounds": 300})
        items = Job("items alone", "benchmarks.ranking:rank", {"service": "items", "rounds": 300})
        lines: tuple[Line, ...] = (
            Line("p50_ms", against=1, limit=1.2),
            Line("p99_ms", against=1),
            Line("cpu_ms", against=1),
        )
        found.append(Comparison(f"shared key, 500 items and {user} of a user", (ours, items), lines, filled_ranking))
    return found


def _http(root: str) -> list[Comparison]:
    load = {"connections": 16, "seconds": 5.0}
    bare = Job("no-op route", "benchmarks.product:noop_route", load)
    found = []
    for keys, limit, tail in ((1, 0.8, 1.5), (100, 0.25, None)):
        ours = Job("featurestore", "benchmarks.product:online_route", {**load, "root": root, "keys": keys})
        rate = Line("requests_per_s", against=1, limit=limit, at_least=True)
        plain = Job("plain ASGI", "benchmarks.product:plain_route", {**load, "root": root, "keys": keys})
        lines: tuple[Line, ...] = (
            rate,
            Line("p99_ms", against=1, limit=tail),
            Line("cpu_us", against=1),
            Line("cpu_us", against=2),
        )
        found.append(Comparison(f"http {keys} × 18, 16 connections", (ours, bare, plain), lines, served))
    wide = Job("featurestore", "benchmarks.product:wide_route", load)
    lines = (Line("requests_per_s", limit=1_000, at_least=True), Line("cpu_us", limit=1_000), Line("cpu_us", against=1))
    found.append(Comparison("http 1 × 100, 16 connections", (wide, bare), lines, served_wide))
    return found


def _console(_: str) -> list[Comparison]:
    told = {"connections": 4, "seconds": 8.0}
    looked = Job("somebody looks", "benchmarks.visitors:looked_at_route", {**told, "looks": True})
    alone = Job("nobody looks", "benchmarks.visitors:looked_at_route", {**told, "looks": False})
    lines: tuple[Line, ...] = (Line("p99_ms", against=1), Line("p50_ms", against=1), Line("requests_per_s", against=1))
    return [Comparison("http 1 × 100, 4 connections, console", (looked, alone), lines, served_wide)]


def _client(root: str) -> list[Comparison]:
    found = []
    for keys, rounds in ((1, 3_000), (100, 400)):
        told = {"root": root, "keys": keys, "rounds": rounds}
        lines: tuple[Line, ...] = (Line("p50_ms", against=1, limit=1.3), Line("p99_ms", against=1))
        hand, async_hand = (Job(name, f"benchmarks.client:{call}", told) for name, call in (
            ("http.client", "by_hand"), ("aiohttp", "async_by_hand"),
        ))  # fmt: skip
        for form in ("json", "arrow"):
            ours = Job("Client", "benchmarks.client:client", {**told, "form": form})
            found.append(Comparison(f"client {keys} × 18, {form}", (ours, hand), lines, served))
        ours = Job("AsyncClient", "benchmarks.client:async_client", told)
        found.append(Comparison(f"client {keys} × 18, coroutines", (ours, async_hand), lines, served))
    return found


def _serving_log(root: str) -> list[Comparison]:
    found = []
    for keys in (1, 100):
        told = {"root": root, "keys": keys, "seconds": 4.0}
        jobs = tuple(Job(env, "benchmarks.product:route_of", {**told, "env": env}) for env in ("logged", "plain"))
        rate = Line("requests_per_s", against=1, limit=0.9, at_least=True)
        lines: tuple[Line, ...] = (
            rate,
            Line("cpu_us", against=1),
            Line("p50_ms", against=1),
            Line("p99_ms", against=1),
        )
        found.append(Comparison(f"http {keys} × 18, all logged", jobs, lines, served_twice))
    for keys, rounds in ((1, 20_000), (100, 2000)):
        told = {"root": root, "keys": keys, "rounds": rounds}
        logged = Job("logged", "benchmarks.product:lookup_logged", {**told, "env": "logged"})
        plain = Job("plain", "benchmarks.product:lookup_logged", {**told, "env": None})
        lines = (Line("p50_ms", against=1), Line("p99_ms", against=1), Line("cpu_us", against=1))
        found.append(Comparison(f"lookup {keys} × 18, all logged", (logged, plain), lines, filled_redis))
    return found


def _imports(_: str) -> list[Comparison]:
    bare = Job("python -c pass", "benchmarks.imports:bare_python")
    found = []
    for name, call in (("import featurestore", "import_package"), ("featurestore --help", "command_help")):
        ours = Job("featurestore", f"benchmarks.imports:{call}")
        found.append(Comparison(name, (ours, bare), (Line(limit=0.5), Line(against=1))))
    return found


def _windows(root: str) -> list[Comparison]:
    found = []
    for rows, size in (("windowed", "100k"), ("windowed", "1m"), ("hot", "1m"), ("a tenth of hot", "100k")):
        told = {"root": root, "size": size, "threads": THREADS, "rows": rows}
        hand = [Job("DuckDB window query", "benchmarks.windows:window_query", told)]
        if rows != "hot":  # which would take the range join minutes
            hand.append(Job("DuckDB range join", "benchmarks.windows:range_join", told))
        hand.append(Job("rows read", "benchmarks.windows:rows_read", told))
        for known_at in (False, True):
            ours = Job("featurestore", "benchmarks.windows:folds", {**told, "known_at": known_at})
            limits = (1.0, 0.2, None) if len(hand) == 3 else (1.0, None)
            lines: tuple[Line, ...] = (
                *(Line(against=i, limit=limit) for i, limit in enumerate(limits, 1)),
                Line("peak_mb"),
            )
            name = f"windows {rows} {size}, {'known_at' if known_at else 'event_time alone'}"
            found.append(Comparison(name, (ours, *hand), lines))
    told = {"root": root, "size": "1m", "threads": THREADS, "known_at": True}
    whole = Job("featurestore", "benchmarks.windows:folds", told)
    tenth = Job("a tenth of it", "benchmarks.windows:folds", {**told, "rows": "a tenth of windowed"})
    return [*found, Comparison("windows, ten times the data", (whole, tenth), (Line(against=1, limit=13),))]


def _tiles(_: str) -> list[Comparison]:
    found = []
    for keys, rounds in ((1, 2000), (100, 200)):
        told = {"keys": keys, "rounds": rounds}
        ours = Job("featurestore", "benchmarks.tiles:lookup_tiles", told)
        bare = Job("redis-py MGET", "benchmarks.tiles:mget_tiles", told)
        lines: tuple[Line, ...] = (
            Line("p50_ms", against=1, limit=3.0 if keys == 1 else None),
            Line("p99_ms", against=1),
        )
        lines += (Line("cpu_ms", limit=5.0 if keys == 100 else None),)
        found.append(Comparison(f"lookup {keys} × 30 windowed", (ours, bare), lines, filled_tiles))
    return found


def _fast_paths(_: str) -> list[Comparison]:
    found = []
    for case in FAST_PATHS:
        fast, plain = (
            Job(name, "benchmarks.fast_paths:call", {"case": case, "fast": name == "fast"})
            for name in ("fast", "plain")
        )
        found.append(Comparison(case, (fast, plain), (Line("call_us", against=1, limit=0.77),)))
    return found


def _push(_: str) -> list[Comparison]:
    found = []
    for online, setup in (("redis", empty_redis), ("lmdb", nothing)):
        told = {"online": online, "seconds": 4.0}
        batches = Job("featurestore", "benchmarks.tiles:push", {**told, "batch": 500, "pushers": 1})
        single = Job("featurestore", "benchmarks.tiles:push", {**told, "batch": 1, "pushers": 32})
        rows = Line("rows_per_s", limit=20_000, at_least=True)
        found.append(Comparison(f"push batches of 500, {online}", (batches,), (rows,), setup))
        pushes = Line("pushes_per_s", limit=1_000, at_least=True)
        found.append(Comparison(f"push single rows, 32 threads, {online}", (single,), (pushes,), setup))
        route = Job("featurestore", "benchmarks.tiles:push_route", {"connections": 32, "seconds": 4.0})
        requests = Line("requests_per_s", limit=1_000, at_least=True)
        name = f"push single rows over HTTP, 32 connections, {online}"
        found.append(Comparison(name, (route,), (requests, Line("p99_ms")), partial(served_pushes, online=online)))
    return found


def _audit(root: str) -> list[Comparison]:
    ours = Job("featurestore", "benchmarks.evidence:audit", {"root": root})
    return [Comparison("audit of 1 M logged values", (ours,), (Line(limit=20), Line("cpu_s"), Line("peak_mb")))]


def _refresh(root: str) -> list[Comparison]:
    found = []
    for keys in (200, 2_000, 20_000):
        told = {"root": root, "keys": keys, "threads": THREADS}
        tiled = Job("featurestore", "benchmarks.refreshing:hourly", {**told, "tiles": True})
        rows = Job("every row read", "benchmarks.refreshing:hourly", {**told, "tiles": False})
        found.append(Comparison(f"refresh {keys:,} keys an hour later", (tiled, rows), (Line(against=1),)))
    told = {"root": root, "keys": 20_000, "instants": 24, "threads": THREADS}
    together = Job("featurestore", "benchmarks.refreshing:backfill", {**told, "together": True})
    each = Job("one after the other", "benchmarks.refreshing:backfill", {**told, "together": False})
    return [
        *found,
        Comparison("values of 24 instants", (together, each), (Line(against=1), Line("peak_mb", against=1))),
    ]


def _explain(root: str) -> list[Comparison]:
    found = []
    for case in CASES:
        told = {"root": root, "case": case, "threads": THREADS}
        job = Job("featurestore", "benchmarks.explaining:explain", told)
        found.append(Comparison(f"explain {case}", (job,), (Line(limit=1.0), Line("peak_mb"))))
    return found


def _object_store(_: str) -> list[Comparison]:
    stored, local = (
        Job(name, "benchmarks.object_store:training", {"stored": name == "object store"})
        for name in ("object store", "folder")
    )
    lines: tuple[Line, ...] = (Line(against=1), Line("cpu_s", against=1), Line("peak_mb", against=1))
    return [Comparison("training over files of an object store", (stored, local), lines, stored_rows)]


def _scale(_: str) -> list[Comparison]:
    """Of 2.5 M spine rows over 12.5 M rows; what is larger takes hours where machines are shared: see `benchmarks.scaling`."""
    told = {"rows": 12_500_000, "spine": 2_500_000, "threads": THREADS}
    tenth = {"rows": 1_250_000, "spine": 250_000, "threads": THREADS}
    found = []
    for kind, folds in (("newest rows", False), ("windows", True)):
        whole = Job("featurestore", "benchmarks.scaling:frame", {**told, "folds": folds})
        part = Job("a tenth of it", "benchmarks.scaling:frame", {**tenth, "folds": folds})
        lines: tuple[Line, ...] = (
            Line("peak_mb", limit=3000),
            Line("peak_mb", against=1),
            Line("cpu_s", against=1, limit=13),
        )
        found.append(Comparison(f"frame of 2.5 M rows over 12.5 M, {kind}", (whole, part), lines))
    for keys in (1, 100, 10_000):
        copied, plain = (
            Job(name, "benchmarks.scaling:few_keys", {**told, "keys": keys, "copied": name == "sorted copies"}, warm=1)
            for name in ("sorted copies", "files")
        )
        lines = (Line("cpu_s", against=1), Line("peak_mb", against=1))
        found.append(Comparison(f"frame of {keys:,} keys over 12.5 M rows", (copied, plain), lines))
    job = Job("featurestore", "benchmarks.scaling:sort_rows", told)
    return [*found, Comparison("optimize 12.5 M rows", (job,), (Line("cpu_s"), Line("peak_mb"), Line("written_mb")))]


def _growth(_: str) -> list[Comparison]:
    """A frame of 1 M spine rows over 1, 10 and 100 M rows, each beside a tenth of its rows; n log n of ten times as many is 11.4 and 11.7
    times as much. The data take 7 GB of disk."""
    found = []
    for kind, folds in (("newest rows", False), ("windows", True)):
        told = {"spine": MILLION, "threads": THREADS, "folds": folds}
        few, some, many = (
            Job(f"{rows} M rows", "benchmarks.scaling:frame", {**told, "rows": rows * MILLION}) for rows in (1, 10, 100)
        )
        lines: tuple[Line, ...] = (
            Line("cpu_s", against=1, limit=11.4),
            Line("peak_mb", against=1),
            Line("peak_mb", limit=8000),
        )
        found.append(Comparison(f"frame of 1 M rows over 100 M, {kind}", (many, some), lines))
        found.append(Comparison(f"frame of 1 M rows over 10 M, {kind}", (some, few), lines))
    return found


def _estimate(_: str) -> list[Comparison]:
    found = []
    for shape in SHAPES:
        told = {"shape": shape, "threads": THREADS}
        jobs = tuple(Job(name, f"benchmarks.estimating:{name}", told) for name in ("estimated", "taken"))
        figures = ("rows", "written_mb", "cpu_s", "peak_mb")
        found.append(
            Comparison(shape, jobs, tuple(Line(figure, against=1, limit=2.0, within=True) for figure in figures))
        )
    return found


def _backfill(_: str) -> list[Comparison]:
    whole, parted, rest, beside = (
        Job(name, "benchmarks.backfilling:filled", {"chunks": chunks, "threads": THREADS, "done": done, "processes": processes})
        for name, chunks, done, processes in (
            ("one chunk", 1, 0, 1), ("8 chunks", 8, 0, 1), ("4 of 8 chunks done", 8, 4, 1), ("8 chunks, 2 processes", 8, 0, 2),
        )
    )  # fmt: skip
    of_processes = (
        Line("wall_s", against=1),
        Line("cpu_s", against=1),
        Line("peak_mb", against=1),
        Line("worker_peak_mb"),
    )
    return [
        Comparison(
            "materialize 1 M keys in chunks", (parted, whole), (Line("peak_mb", against=1), Line("cpu_s", against=1))
        ),
        Comparison(
            "materialize 1 M keys in chunks, Redis",
            (parted, whole),
            (Line("peak_mb", against=1), Line("cpu_s", against=1)),
            empty_redis,
        ),
        Comparison("materialize 1 M keys, half of the chunks done", (rest, parted), (Line("cpu_s", against=1),)),
        Comparison("materialize 1 M keys, by 2 processes", (beside, parted), of_processes),
        Comparison("materialize 1 M keys, by 2 processes, Redis", (beside, parted), of_processes, empty_redis),
    ]


def _cluster(_: str) -> list[Comparison]:
    figures = [
        f"{what}_{figure}"
        for what in ("write", "read", "lookup")
        for figure in ("server_us", "client_us", "per_cpu_s", "busiest")
    ]
    lines = tuple(Line(figure) for figure in [*figures, "most_of_one"])
    job = Job("featurestore", "benchmarks.clusters:cluster")
    return [
        Comparison(f"keys of {number} Redis", (job,), lines, partial(empty_cluster, primaries=number))
        for number in (1, 3, 6)
    ] + _fail_over()


def _fail_over() -> list[Comparison]:
    figures = [
        f"{kind}_{figure}"
        for kind in ("lost", "others", "pushes")
        for figure in ("calls", "errors", "unanswered_s", "longest_ms")
    ]
    lines = tuple(Line(figure) for figure in [*figures, "wrong", "records_lost", "audited", "skewed", "load"])
    found = []
    for primaries in (3, 6):
        for whole in (True, False):
            job = Job(
                "lookups and pushes", "benchmarks.failing_over:fail_over", {"primaries": primaries, "whole": whole}
            )
            coverage = f"cluster-require-full-coverage {'yes' if whole else 'no'}"
            found.append(Comparison(f"one of {primaries} primaries is lost, {coverage}", (job,), lines, warmups=0))
    return found


def _engines(_: str) -> list[Comparison]:
    """Each job does all once before what counts. The first makes what the others' results are compared with."""
    jobs = tuple(
        Job(name, "benchmarks.engines:run", {"engine": engine, "workers": workers})
        for name, engine, workers in (
            ("this process", "here", 1), ("Spark, 1 executor", "spark", 1), ("Spark, 2 executors", "spark", 2), ("Ray, 1 worker", "ray", 1),
            ("Ray, 2 workers", "ray", 2),
        )
    )  # fmt: skip
    figures = ("frame_cpu_s", "frame_s", "frame_mb", "run_cpu_s", "run_s", "run_mb")
    lines = tuple(Line(figure, against=other) for other in range(1, len(jobs)) for figure in figures)
    return [Comparison("frame and run of materialize on engines", jobs, lines, rows_of_engines, warmups=0)]


def _capacity(_: str) -> list[Comparison]:
    ours, later, other = (
        Job(form, "benchmarks.clusters:key_bytes", {"form": form}) for form in ("one instant", "two instants", "hash")
    )
    found = [
        Comparison("memory of a key, 18 features", (ours, other), (Line("bytes_a_key", against=1), Line("stored_bytes")), empty_redis),
        Comparison("memory of a key, two instants", (later, other), (Line("bytes_a_key", against=1), Line("stored_bytes")), empty_redis),
    ]  # fmt: skip
    figures = ("server_us", "redis_us", "requests_per_core", "primaries", "server_use", "primary_use", "p50_us", "p99_us", "p999_us",
               "p99_after_us", "p999_after_us", "again", "one_server_wait_us", "formula_wait_us")  # fmt: skip
    for keys in (1, 100):
        for of, use in ((3, 0.4), (20, 0.6), (20, 0.8), (200, 0.6)):
            told = {"keys": keys, "of": of, "use": use, "lost": True, "seconds": 3.0}
            job = Job("simulated", "benchmarks.capacity:simulated", told)
            name = f"{of} servers, in use {use:.0%}, one lost, {keys} keys a request"
            found.append(Comparison(name, (job,), tuple(map(Line, figures)), served_capacity))
    return found


GROUPS: dict[str, Callable[[str], list[Comparison]]] = {
    "training": _training,
    "materialize": _materialize,
    "statistics": _statistics,
    "lookup": _lookup,
    "http": _http,
    "console": _console,
    "client": _client,
    "serving-log": _serving_log,
    "imports": _imports,
    "windows": _windows,
    "tiles": _tiles,
    "fast-paths": _fast_paths,
    "push": _push,
    "refresh": _refresh,
    "audit": _audit,
    "explain": _explain,
    "object-store": _object_store,
    "scale": _scale,
    "growth": _growth,
    "estimate": _estimate,
    "backfill": _backfill,
    "cluster": _cluster,
    "capacity": _capacity,
    "engines": _engines,
}

"""What is compared with what, and what is aimed at: a table."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec

from benchmarks.pairs import Job
from benchmarks.servers import Told, empty_redis, filled_redis, nothing, served

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

    def reached(self, value: float) -> bool | None:
        if self.limit is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit

    @property
    def aim(self) -> str:
        if self.limit is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g}{'' if self.against is None else ' ×'}"


@dataclass(frozen=True)
class Comparison:
    """Jobs that run in turn, the one in question first, and what is read from their figures."""

    name: str
    jobs: tuple[Job, ...]
    lines: tuple[Line, ...]
    setup: Callable[[str], AbstractContextManager[Told]] = nothing


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
                lines = (Line(against=1, limit=1.0), Line(against=2, limit=1.0), Line("peak_mb", limit=3000))
                found.append(Comparison(name, (ours, duck, polars), lines))
            else:
                found.append(Comparison(name, (duck, polars), (Line(against=1),)))
    return found


def _materialize(root: str) -> list[Comparison]:
    told = {"root": root}
    into_redis = Job("featurestore", "benchmarks.product:materialize_redis", told)
    into_lmdb = Job("featurestore", "benchmarks.product:materialize_lmdb", told)
    peak = Line("peak_mb")
    return [
        Comparison(
            "materialize 18 features, Redis",
            (into_redis,),
            (Line("keys_per_s", limit=150_000, at_least=True), peak),
            empty_redis,
        ),
        Comparison(
            "materialize 18 features, LMDB", (into_lmdb,), (Line("keys_per_s", limit=300_000, at_least=True), peak)
        ),
    ]


def _lookup(root: str) -> list[Comparison]:
    found = []
    for keys in (1, 100):
        for form in ("to_dict", "to_numpy"):
            told = {"keys": keys, "rounds": 3000}
            ours = Job("featurestore", "benchmarks.product:lookup", {**told, "root": root, "form": form})
            bare = Job("redis-py MGET", "benchmarks.floors:mget", told)
            lines = (Line("p50_ms", against=1, limit=2.0), Line("p99_ms", against=1))
            found.append(Comparison(f"lookup {keys} × 18, {form}", (ours, bare), lines, filled_redis))
    return found


def _http(root: str) -> list[Comparison]:
    load = {"connections": 16, "seconds": 5.0}
    bare = Job("no-op route", "benchmarks.floors:noop_route", load)
    found = []
    for keys, limit in ((1, 0.5), (100, None)):
        ours = Job("featurestore", "benchmarks.product:online_route", {**load, "root": root, "keys": keys})
        lines = (Line("requests_per_s", against=1, limit=limit, at_least=True), Line("p99_ms", against=1))
        found.append(Comparison(f"http {keys} × 18, 16 connections", (ours, bare), lines, served))
    return found


def _imports(_: str) -> list[Comparison]:
    bare = Job("python -c pass", "benchmarks.imports:bare_python")
    found = []
    for name, call in (("import featurestore", "import_package"), ("featurestore --help", "command_help")):
        ours = Job("featurestore", f"benchmarks.imports:{call}")
        found.append(Comparison(name, (ours, bare), (Line(limit=0.5), Line(against=1))))
    return found


GROUPS: dict[str, Callable[[str], list[Comparison]]] = {
    "training": _training,
    "materialize": _materialize,
    "lookup": _lookup,
    "http": _http,
    "imports": _imports,
}

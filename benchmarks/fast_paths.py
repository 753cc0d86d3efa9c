"""Each fast path of the folds, and of a lookup over HTTP, beside its slow twin, which says the same, as jobs (see `pairs`): one that is not worth 1.3 × goes."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import uvicorn
import uvloop
from uvicorn.server import ServerState

from benchmarks.latency import Figures
from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView
from featurestore.online.wire import as_binary, byte_order
from featurestore.semantics.folds import FOLDS, Algebra
from featurestore.semantics.folds.exact import Measure
from featurestore.semantics.folds.moments import Moments
from featurestore.semantics.folds.row_picks import unpack_rows
from featurestore.semantics.values import matrix_of, to_numpy
from featurestore.server import create_app
from featurestore.server.connection import Connection
from featurestore.server.edge import PLAIN
from featurestore.server.received import HEAD
from featurestore.tiles.layout import even_states
from featurestore.types import Float64, Int64

ROUNDS = 2_000

Twins = tuple[Callable[[], object], Callable[[], object]]


def _algebra(kind: str, **parameters: Any) -> Algebra:
    return FOLDS[kind].algebra(Float64, FOLDS[kind].result(Float64, **parameters), **parameters)


def _states(algebra: Algebra, count: int, *, rows: int = 1) -> list[Any]:
    """States of so many rows each, as those of tiles that follow each other in time."""
    choice = random.Random(1)
    places = sorted(choice.randbytes(16) for _ in range(count * rows))
    lifted = [algebra.lift(choice.lognormvariate(3, 2), place) for place in places]
    return [reduce(algebra.merge, lifted[start : start + rows]) for start in range(0, len(lifted), rows)]


def _finished(kind: str) -> Twins:
    algebra = _algebra(kind)
    states = _states(algebra, 100)
    return lambda: algebra.finish_many(states), lambda: Algebra.finish_many(algebra, states)


def _merged(kind: str, **parameters: Any) -> Twins:
    algebra = _algebra(kind, **parameters)
    packed = [algebra.pack(state) for state in _states(algebra, 31, rows=5)]
    return lambda: algebra.merge_packed(packed), lambda: Algebra.merge_packed(algebra, packed)


def _unpacked() -> Twins:
    algebra = _algebra("Latest")
    packed = [algebra.pack(state) for state in _states(algebra, 100)]
    return lambda: [algebra.unpack(data) for data in packed], lambda: [unpack_rows(data) for data in packed]


def _states_read() -> Twins:
    record, step = bytes(range(256)) * 2, 9
    return lambda: even_states(28, step).unpack_from(record, 4), lambda: [
        record[start : start + step] for start in range(4, 4 + 28 * step, step)
    ]


def _moments(kind: str) -> Twins:
    algebra = _algebra(kind, ddof=1)
    assert isinstance(algebra, Moments)
    (state,) = _states(algebra, 1, rows=400)
    twin = replace(algebra, measure=Measure(algebra.measure.unit))
    return lambda: algebra.finish(state), lambda: twin.finish(state)


def _matrix(rows: int) -> Twins:
    columns = {f"f{number}": [float(row) for row in range(rows)] for number in range(18)}
    types = dict.fromkeys(columns, Float64)

    def plain() -> object:
        return to_numpy({name: pa.array(values, pa.float64()) for name, values in columns.items()}, types, dtype=object)

    return lambda: matrix_of(columns, types.values(), object), plain


def _byte_order() -> Twins:
    numbers = as_binary(np.random.default_rng(1).permutation(20_000))
    prefix, nothing = (pa.scalar(part, pa.large_binary()) for part in (b"project:12345678r", b""))
    keys = pc.binary_join_element_wise(prefix, numbers, nothing)
    return lambda: byte_order(keys), lambda: pc.sort_indices(keys)


class _Answered(asyncio.Transport):
    """A client that takes what is written. answered: whether anything was."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8000)})
        self.answered = asyncio.Event()

    def write(self, _: bytes | bytearray | memoryview) -> None:
        self.answered.set()

    def is_closing(self) -> bool:
        return False

    def resume_reading(self) -> None:
        pass


def _lookup(rows: int) -> Twins:
    """20 requests of a connection, one after the other, by plain functions or by a task each; LMDB, without sockets."""
    store, names = FeatureStore.local(), [f"f{n}" for n in range(18)]
    frame = pa.table(
        {"key": range(rows), "at": [datetime(2026, 1, 1, tzinfo=UTC)] * rows, **dict.fromkeys(names, [0.25] * rows)}
    )
    view = FeatureView(
        "served", entity=Entity("key", key={"key": Int64}), source=DataFrameSource("rows", frame, event_time="at"),
        features=names, refresh="1h",
    )  # fmt: skip
    store.apply([view, FeatureService("service", features=[view])])
    store.materialize(progress=False)
    body = json.dumps({"service": "service", "rows": [{"key": key} for key in range(rows)]}).encode()
    head = f"POST /v1/online-features HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    loop, app = uvloop.new_event_loop(), create_app(store, authentication=False)
    state = loop.run_until_complete(app.router.lifespan_context(app).__aenter__())
    config = uvicorn.Config(app, log_level="critical", proxy_headers=False)
    config.load()

    def answering(*, plain: bool) -> Callable[[], object]:
        connection, client = Connection(config, ServerState(), dict(state), loop), _Answered()

        async def ask(count: int) -> None:
            for _ in range(count):
                client.answered.clear()
                connection.data_received(head.encode() + body)
                await client.answered.wait()

        connection.connection_made(client)
        loop.run_until_complete(ask(3))
        assert connection._known is not None
        if not plain:
            connection._known.scope[HEAD][PLAIN] = None
        return lambda: loop.run_until_complete(ask(20))

    return answering(plain=True), answering(plain=False)


CASES: dict[str, Callable[[], Twins]] = {
    "values of 100 states, Count": lambda: _finished("Count"),
    "values of 100 states, Sum": lambda: _finished("Sum"),
    "values of 100 states, Var": lambda: _finished("Var"),
    "values of 100 states, Latest": lambda: _finished("Latest"),
    "values of 100 states, Max": lambda: _finished("Max"),
    "100 rows unpacked, Latest": _unpacked,
    "28 states read of a record": _states_read,
    "31 tiles merged, Latest": lambda: _merged("Latest"),
    "31 tiles merged, Max": lambda: _merged("Max"),
    "31 tiles merged, LastN": lambda: _merged("LastN", n=5),
    "moments finished, Var": lambda: _moments("Var"),
    "moments finished, StdDev": lambda: _moments("StdDev"),
    "order of 20,000 keys": _byte_order,
    "20 lookups of 1 × 18 over HTTP": lambda: _lookup(1),
    "matrix of 1 × 18 objects": lambda: _matrix(1),
    "matrix of 100 × 18 objects": lambda: _matrix(100),
}


def call(case: str, fast: bool) -> Callable[[], Figures]:
    """µs of one call of a case, the least of many: most are calls of a few µs."""
    made = CASES[case]()[0 if fast else 1]

    def measured() -> Figures:
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter_ns()
            made()
            times.append(time.perf_counter_ns() - started)
        return {"call_us": min(times) / 1e3}

    return measured

"""The clients against a real service: what they give is what the store gives, and what it raises is raised."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.client import AsyncClient, Client
from featurestore.errors import (
    FeatureStoreError,
    FingerprintError,
    ForbiddenError,
    NotFoundError,
    OnlineDamagedError,
    OnlineUnavailableError,
    PushError,
    RequestError,
    ServerError,
    ServerUnavailableError,
    UnauthenticatedError,
)
from featurestore.serving.online_result import OnlineResult
from tests.ports import free_port
from tests.servers import PATIENCE_SECONDS, FeatureServer, Front, certificate
from tests.small import NOON, write
from tests.sources.log_rows import bits

ROOT = Path(__file__).parents[2]
DEFINITIONS = """
from datetime import date
from decimal import Decimal as D
from featurestore import Count, Entity, FeatureService, FeatureView, Latest, ParquetSource, PushSource, Request, on_demand
from featurestore.types import *

thing = Entity("thing", key={"thing": Int64, "day": Date})
rows = ParquetSource("rows", "rows.parquet", event_time="at")
of = {
    "b": Bool, "i": Int32, "l": Int64, "f": Float32, "d": Float64, "s": String, "x": Bytes, "day_of": Date, "t": Timestamp,
    "n": Decimal(38, 4), "many": Array(Float64), "times": Array(Timestamp), "vector": Array(Float32, 2),
}
view = FeatureView("view", entity=thing, source=rows, refresh="1d", features=list(of))

given = [Request("by", Decimal(10, 2)), Request("since", Timestamp), Request("raw", Bytes)]

@on_demand(output=Float64, inputs=[view["d"], *given])
def scaled(d, by, since, raw):
    return None if d is None else d * float(by) + since.microsecond + len(raw)

model = FeatureService("model", features=[view, scaled])
pushed = PushSource("pushed", schema={"id": String, "card": String, "at": Timestamp, "amount": Decimal(10, 2)}, event_time="at", identity="id", lateness="1d")
card = Entity("card", key={"card": String})
counts = FeatureView("counts", entity=card, source=pushed, features={"n": Count(window="1d"), "amount": Latest("amount", type=Decimal(10, 2), window="1d")})
cards = FeatureService("cards", features=[counts])
"""


def rows() -> pa.Table:
    """Every type's values, those at the edges of JSON among them, and nulls."""
    nan, inf = float("nan"), float("inf")
    of: dict[str, tuple[Any, list[Any]]] = {
        "thing": (pa.int64(), [1, 2, 3, -(2**63)]),
        "day": (pa.date32(), [date(2024, 1, 1)] * 4),
        "at": (pa.timestamp("us", "UTC"), [NOON] * 4),
        "b": (pa.bool_(), [True, None, False, True]),
        "i": (pa.int32(), [-(2**31), None, 0, 1]),
        "l": (pa.int64(), [2**63 - 1, None, -(2**63), 2**53 + 1]),
        "f": (pa.float32(), [0.1, None, nan, -0.0]),
        "d": (pa.float64(), [0.1, None, -inf, -0.0]),
        "s": (pa.string(), ['"\\\u2028é\U0001f600', None, "", "NaN"]),
        "x": (pa.binary(), [b"\0\xff", None, b"", b"x"]),
        "day_of": (pa.date32(), [date(1, 1, 1), None, date(9999, 12, 31), date(2024, 2, 29)]),
        "t": (pa.timestamp("us", "UTC"), [NOON + timedelta(microseconds=1), None, NOON, NOON]),
        "n": (pa.decimal128(38, 4), [Decimal("9" * 34 + ".9999"), None, Decimal("-0.0001"), Decimal(0)]),
        "many": (pa.list_(pa.float64()), [[0.1, nan, None], None, [], [inf]]),
        "times": (pa.list_(pa.timestamp("us", "UTC")), [[NOON, None], None, [], [NOON]]),
        "vector": (pa.list_(pa.float32(), 2), [[0.1, -0.0], None, [1, 2], [nan, 3]]),
    }
    return pa.table({name: pa.array(values, kind) for name, (kind, values) in of.items()})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FeatureStore, str]]:
    folder = tmp_path_factory.mktemp("client")
    (folder / "featurestore.toml").write_text('project = "client"\n[server]\nlookup_rows = 50\nlookup_seconds = 600\n')
    (folder / "definitions.py").write_text(DEFINITIONS)
    write(folder / "rows.parquet", rows())
    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(progress=False)
        with FeatureServer(folder, answers="/healthz", stderr=subprocess.DEVNULL) as running:
            yield store, running.url


def key(store: FeatureStore, name: str, *scopes: str, **more: Any) -> str:
    return str(create_key(store.registry, name, scopes, **more).secret)


class Threaded:
    """An AsyncClient that is called as a Client is."""

    def __init__(self, url: str, **words: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = AsyncClient(url, **words)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *given, **words: asyncio.run_coroutine_threadsafe(method(*given, **words), self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


KINDS = pytest.mark.parametrize("kind", [Client, Threaded])


@pytest.fixture(scope="module")
def keys(project: tuple[FeatureStore, str]) -> dict[str, str]:
    store, _ = project
    return {
        "all": key(store, "all", "read", "push"),
        "read": key(store, "reader", "read"),
        "one": key(store, "one", "read", only_on=["service:cards"]),
    }


def same(one: OnlineResult, other: OnlineResult) -> None:
    """All that a result says is said by the other, bit by bit."""
    assert repr(one.to_dict()) == repr(other.to_dict())
    assert list(one.to_dict()) == list(other.to_dict())
    assert one.to_arrow().schema == other.to_arrow().schema
    assert bits(one.to_arrow()) == bits(other.to_arrow())
    pd.testing.assert_frame_equal(one.to_pandas(), other.to_pandas())
    pd.testing.assert_frame_equal(one.features, other.features)
    assert (one.statuses, one.status_counts()) == (other.statuses, other.status_counts())
    assert (one.as_of, one.stale) == (other.as_of, other.stale)
    assert (one.service.name, one.service.fingerprint) == (other.service.name, other.service.fingerprint)
    assert one.report().text() == other.report().text()
    numbers = ["view__i", "view__f", "view__d", "scaled"]
    if "scaled" in one.columns:
        assert one.to_numpy(columns=numbers).tobytes() == other.to_numpy(columns=numbers).tobytes()


SINCE = datetime(2024, 1, 1, 5, 30, 0, 7, tzinfo=timezone(timedelta(hours=5, minutes=30)))
ASKED = {"thing": 1, "day": date(2024, 1, 1), "by": Decimal("1.50"), "since": SINCE, "raw": b"\0\xff"}
EVERY = [{**ASKED, "thing": thing} for thing in (1, 2, 3, -(2**63), 7, None)]


@KINDS
@pytest.mark.parametrize("form", ["json", "arrow"])
def test_a_result_is_the_stores(project: tuple[FeatureStore, str], keys: dict[str, str], kind: Any, form: str) -> None:
    store, url = project
    with kind(url, key=keys["all"], timeout_seconds=PATIENCE_SECONDS) as client:
        for rows in (ASKED, EVERY, [EVERY[1]], [EVERY[4]] * 3):
            same(client.get_online_features(rows, "model", format=form), store.get_online_features(rows, "model"))
        features = ["view:s", "scaled", "view:n"]
        one = client.get_online_features(EVERY, features, format=form)
        assert repr(one.to_dict()) == repr(store.get_online_features(EVERY, features).to_dict())
        manifest = store.get_historical_features(
            pa.table(
                {name: [value] for name, value in ASKED.items()}
                | {"event_timestamp": pa.array([NOON], pa.timestamp("us", "UTC"))}
            ),
            "model",
        ).manifest
        for one in (manifest, store.load_manifest(manifest)):
            given = client.get_online_features(ASKED, one, request_id="mine", format=form)
            assert (given.request, given.service.fingerprint) == ("mine", manifest["fingerprint"])


ALONE = """
import importlib.metadata, json, sys
from importlib.metadata import PackageNotFoundError, version

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def found(name):
    if name in absent:
        raise PackageNotFoundError(name)
    return version(name)

kind, url, key, rows, *absent = json.load(sys.stdin)
sys.meta_path.insert(0, Absent())
importlib.metadata.version = found
import asyncio
import featurestore.client as of

def ask():
    with of.Client(url, key=key, timeout_seconds=600) as client:
        return client.get_online_features(rows, "model")

async def aask():
    async with of.AsyncClient(url, key=key, timeout_seconds=600) as client:
        return await client.get_online_features(rows, "model")

print(repr((ask() if kind == "Client" else asyncio.run(aask())).to_dict()))
"""
NEEDED = {"Client": {"urllib3"}, "Threaded": {"aiohttp"}}


@KINDS
def test_it_needs_no_engine(project: tuple[FeatureStore, str], keys: dict[str, str], kind: Any) -> None:
    """Of the packages that come with the product, NumPy, orjson and pydantic are needed; and of its extra the client's own."""
    store, url = project
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        re.split(r"[>=;\[]", line)[0] for line in [*said["dependencies"], *said["optional-dependencies"]["client"]]
    ]
    absent = set(named) - {"numpy", "orjson", "pydantic"} - NEEDED[kind.__name__]
    assert {"duckdb", "pyarrow", "pandas", "redis"} < absent
    rows = [{**row, "day": "2024-01-01", "by": "1.50", "since": SINCE.isoformat(), "raw": "AP8="} for row in EVERY]
    done = subprocess.run(
        [sys.executable, "-c", ALONE], input=json.dumps([kind.__name__, url, keys["read"], rows, *absent]), text=True,
        capture_output=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == repr(store.get_online_features(EVERY, "model").to_dict())


@KINDS
def test_frames_and_the_kinds_of_values_of_others_are_taken(
    project: tuple[FeatureStore, str], keys: dict[str, str], kind: Any
) -> None:
    store, url = project
    frame = pa.Table.from_pylist([{**row, "since": SINCE.astimezone(UTC)} for row in EVERY])
    pandas = frame.to_pandas()  # in which the key is a float, beside a null
    numpy = [{**ASKED, "thing": np.int64(2), "day": np.datetime64("2024-01-01"), "since": pd.Timestamp(SINCE)}]
    with kind(url, key=keys["read"], timeout_seconds=PATIENCE_SECONDS) as client:
        for rows in (frame, pandas.iloc[:3], pl.from_arrow(frame), numpy, frame.to_pydict()):
            same(client.get_online_features(rows, "model"), store.get_online_features(rows, "model"))


@KINDS
def test_pushed_rows_are_served_and_counted(project: tuple[FeatureStore, str], keys: dict[str, str], kind: Any) -> None:
    store, url = project
    now = datetime.now(UTC)
    name = kind.__name__
    rows = [
        {"id": f"{name}1", "card": name, "at": now - timedelta(seconds=5), "amount": Decimal("12.50")},
        {"id": f"{name}2", "card": None, "at": now, "amount": Decimal(3)},
    ]
    with kind(url, key=keys["all"], timeout_seconds=PATIENCE_SECONDS) as client:
        first, again = client.push("pushed", rows), client.push("pushed", pa.Table.from_pylist(rows))
        late = client.push("pushed", {**rows[0], "id": f"{name}3", "at": now - timedelta(days=9)})
        assert (tuple(first), first.without_key, tuple(again), tuple(late)) == ((2, 0, 0), 1, (0, 2, 0), (0, 0, 1))
        assert "no key" in first.notices[0]
        assert "too late" in late.notices[0]
        found = client.get_online_features({"card": name}, "cards").to_dict()
        assert found == {"card": [name], "counts__n": [1], "counts__amount": [Decimal("12.50")]}


@KINDS
def test_errors_are_those_of_the_store(project: tuple[FeatureStore, str], keys: dict[str, str], kind: Any) -> None:
    """Of the same class, and with the same words where the store has some."""
    store, url = project
    calls: list[tuple[type[FeatureStoreError], str, Callable[[Any], Any]]] = [
        (NotFoundError, "Did you mean 'model'?", lambda one: one.get_online_features(ASKED, "modle")),
        (FingerprintError, "", lambda one: one.get_online_features(ASKED, "model", fingerprint="0" * 32)),
        (RequestError, "Row 0 has no 'day'", lambda one: one.get_online_features({"thing": 1}, "model")),
        (RequestError, "'thing'", lambda one: one.get_online_features({**ASKED, "thing": "x"}, "model")),
        (RequestError, "lookup_rows|more than 50 rows", lambda one: one.get_online_features([ASKED] * 51, "model")),
        (RequestError, "There are no rows", lambda one: one.get_online_features([], "model")),
        (RequestError, "Row 0: .*object", lambda one: one.get_online_features({"thing": object()}, "model")),
        (RequestError, "cannot be sent", lambda one: one.get_online_features({"thing": 2**70}, "model")),
        (RequestError, "features is the name", lambda one: one.get_online_features(ASKED, 3)),
        (RequestError, "request_id", lambda one: one.get_online_features(ASKED, "model", request_id="a\nb")),
        (
            RequestError,
            "format is 'json' or 'arrow'",
            lambda one: one.get_online_features(ASKED, "model", format="xml"),
        ),
        (NotFoundError, "Did you mean 'pushed'?", lambda one: one.push("pushd", [{"id": "1"}])),
        (PushError, "row 0 has no 'at'|'at'", lambda one: one.push("pushed", [{"id": "1"}])),
        (NotFoundError, "no service|'nobody'", lambda one: one.service("nobody")),
    ]
    with kind(url, key=keys["all"], timeout_seconds=PATIENCE_SECONDS) as client:
        for error, words, call in calls:
            with pytest.raises(error, match=words or None) as raised:
                call(client)
            assert type(raised.value) is error
        assert [one["name"] for one in client.services()] == ["cards", "model"]
        assert [one["name"] for one in client.views()] == ["counts", "view"]
        assert client.view("view")["fingerprint"] == client.views()[1]["fingerprint"]
    with (
        kind(url, timeout_seconds=PATIENCE_SECONDS) as client,
        pytest.raises(UnauthenticatedError, match="no key") as unknown,
    ):
        client.get_online_features(ASKED, "model")
    assert unknown.value.challenge.startswith("Bearer")
    with (
        kind(url, key=keys["read"], timeout_seconds=PATIENCE_SECONDS) as client,
        pytest.raises(ForbiddenError) as forbidden,
    ):
        client.push("pushed", [{"id": "1"}])
    assert forbidden.value.scope == "push"
    with kind(url, key=keys["one"], timeout_seconds=PATIENCE_SECONDS) as client, pytest.raises(ForbiddenError):
        client.get_online_features(ASKED, "model")
    assert store.get_online_features(ASKED, "model").statuses["view__b"] == ["PRESENT"]


def test_a_wrong_setting_is_refused() -> None:
    for kind in (Client, AsyncClient):
        for words, said in (
            ({"url": "localhost:80"}, "url"), ({"url": "ftp://x"}, "url"),
            ({"url": "http://x:99999"}, "url"), ({"url": "http://[::1"}, "url"), ({"url": 5}, "url"), ({"url": "http://a:b@x"}, "password"),
            ({"key": "a b"}, "key"), ({"key": "é"}, "key"), ({"key": "fsk_a\n"}, r"end of a line, which \.strip\(\)"), ({"timeout_seconds": 0}, "timeout_seconds"),
            ({"timeout_seconds": float("nan")}, "timeout_seconds"), ({"attempts": 0}, "attempts"),
            ({"connections": 1.5}, "connections"),
        ):  # fmt: skip
            given: dict[str, Any] = {"url": "http://127.0.0.1:1", **words}
            with pytest.raises(RequestError, match=said) as raised:
                kind(**given)
            assert "a b" not in str(raised.value)


@KINDS
def test_a_service_that_dies_and_comes_back_is_waited_for(tmp_path: Path, kind: Any) -> None:
    """Within the time of a call; what was pushed twice for it counts once. Where it stands still, the call ends in time."""
    (tmp_path / "featurestore.toml").write_text('project = "again"\n')
    (tmp_path / "definitions.py").write_text(DEFINITIONS)
    write(tmp_path / "rows.parquet", rows())
    with FeatureStore(tmp_path) as store:
        store.apply()
        secret = key(store, "all", "read", "push")
    port = free_port()
    row = {"id": "1", "card": "c", "at": datetime.now(UTC), "amount": Decimal(1)}
    with kind(f"http://127.0.0.1:{port}", key=secret, timeout_seconds=300, attempts=10_000) as client:
        with kind(f"http://127.0.0.1:{port}", key=secret, attempts=2) as hasty, pytest.raises(ServerUnavailableError):
            hasty.push("pushed", row)
        with FeatureServer(tmp_path, port=port, answers="/healthz", stderr=subprocess.DEVNULL) as first:
            assert client.push("pushed", row).accepted == 1
            first.process.kill()
            first.process.wait()
            told: list[Any] = []
            pushing = threading.Thread(target=lambda: told.append(client.push("pushed", row)))
            pushing.start()
            with FeatureServer(tmp_path, port=port, answers="/healthz", stderr=subprocess.DEVNULL) as second:
                pushing.join()
                assert tuple(told[0]) == (0, 1, 0)
                second.process.send_signal(signal.SIGSTOP)
                with (
                    kind(f"http://127.0.0.1:{port}", key=secret, timeout_seconds=0.3) as hasty,
                    pytest.raises(ServerUnavailableError, match="0.3 s"),
                ):
                    hasty.get_online_features({"card": "c"}, "cards")
                second.process.send_signal(signal.SIGCONT)
                assert client.get_online_features({"card": "c"}, "cards").to_dict()["counts__n"] == [1]


def received(connection: socket.socket) -> bytes:
    """A whole request."""
    data = b""
    while True:
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if length is not None and len(body) >= int(length[1]):
            return data
        data += connection.recv(65536)


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """What gives these answers in turn, one to a connection, and the requests that it was sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        asked: list[bytes] = []

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    asked.append(received(connection))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        thread.join(600)


def http(status: str, body: bytes = b"{}", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n".encode() + body


NO_TIMES = (
    b'{"service": "s", "fingerprint": "f", "columns": ["x"], "rows": [[1]], "statuses": [["PRESENT"]], '
    b'"types": {"x": "Int64"}, "as_of": [], "stale": {}}'
)


@KINDS
@pytest.mark.parametrize(
    "begun",
    [
        "HTTP/1.1 200 OK\r\nX: ",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_an_answer_that_comes_in_drops_is_not_waited_for(kind: Any, begun: str) -> None:
    """Neither a head, nor a body, nor the size of its next piece, of which there is always a little more."""
    gone = threading.Event()

    def drop(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, suppress(OSError):
            received(connection)
            connection.sendall(begun.encode())
            for _ in range(6000):  # a minute
                connection.sendall(b"0")
                gone.wait(0.01)
            return
        gone.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drop, args=(server,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with kind(url, attempts=1, timeout_seconds=0.2) as client, pytest.raises(ServerUnavailableError, match="0.2 s"):
            client.get_online_features(ASKED, "model")
        thread.join()
    assert gone.is_set()


@KINDS
def test_what_others_answer_is_told_as_that(kind: Any) -> None:
    """A proxy, or another service: no answer is taken for one that it is not, and no key goes where it was not sent."""
    busy = http(
        "503 Service Unavailable", b'{"type": "urn:featurestore:limit", "detail": "busy"}', "Retry-After: 1\r\n"
    )
    cases: list[tuple[list[bytes], type[FeatureStoreError], str]] = [
        ([http("200 OK", b"<html>")], ServerError, "no answer of this service"),
        ([http("200 OK", b'{"rows": []}')], ServerError, "no answer of this service"),
        ([http("502 Bad Gateway", b"<h1>oops\xff</h1>")], ServerError, "status 502: <h1>oops"),
        ([http("500 X", b'{"type": 3, "detail": 4}')], ServerError, "status 500"),
        ([http("500 X", b'{"type": "urn:featurestore:Exception", "detail": "d"}')], ServerError, "d"),
        ([http("302 Found", b"", "Location: http://127.0.0.1:1/\r\n")], ServerError, "status 302"),
        (
            [http("500 X", b'{"type": "urn:featurestore:Fingerprint", "detail": "d", "changes": [3]}')],
            ServerError,
            "status 500",
        ),
        ([http("500 X", b'{"type": "urn:featurestore:OnlineDamaged", "detail": "d"}')], OnlineDamagedError, "^d$"),
        ([http("200 OK", NO_TIMES)], ServerError, "no answer of this service"),
        ([http("503 X", more=f"Retry-After: {'9' * 400}\r\n")], ServerUnavailableError, "status 503"),
        ([http("503 X", more=f"Retry-After: {'9' * 5000}\r\n")], ServerUnavailableError, "status 503"),
        ([busy, busy], ServerUnavailableError, "busy"),
        ([http("200 OK")[:-3]] * 2, ServerUnavailableError, ""),
        ([b"nonsense\r\n\r\n"] * 2, ServerUnavailableError, ""),
    ]
    for answers, error, words in cases:
        with (
            answering(*answers) as (url, asked),
            kind(url, key="secret-key", attempts=2, timeout_seconds=60) as client,
            pytest.raises(error, match=words or None) as raised,
        ):
            client.get_online_features(ASKED, "model")
        assert type(raised.value) is error, (answers, raised.value)
        assert len(asked) == len(answers)
        assert "secret-key" not in str(raised.value)


@KINDS
@pytest.mark.parametrize(("kept", "attempts"), [("yes", 1), ("unknown", 1), ("no", 2)])
def test_rows_that_are_kept_are_not_pushed_again(kind: Any, kept: str, attempts: int) -> None:
    """A source without an identity would count them twice."""
    told = {"type": "urn:featurestore:OnlineUnavailable", "detail": "d", "kept": kept}
    with (
        answering(*[http("503 X", json.dumps(told).encode())] * attempts) as (url, asked),
        kind(url, attempts=2, timeout_seconds=PATIENCE_SECONDS) as client,
        pytest.raises(OnlineUnavailableError) as raised,
    ):
        client.push("pushed", {"id": "1"})
    assert len(asked) == attempts
    assert raised.value.kept == kept


@KINDS
def test_a_retry_waits_as_it_is_told(kind: Any) -> None:
    pushed = http("200 OK", b'{"accepted": 1, "unchanged": 0, "late": 0, "without_key": 0, "notices": []}')
    full = http("507 Insufficient Storage", b"{}", "Retry-After: 1\r\n")
    with answering(full, pushed) as (url, asked), kind(url, timeout_seconds=100) as client:
        began = time.monotonic()
        assert tuple(client.push("pushed", {"id": "1"})) == (1, 0, 0)
        assert time.monotonic() - began >= 1
    assert asked[0] == asked[1]
    with answering(full) as (url, _), kind(url, timeout_seconds=0.9) as client, pytest.raises(ServerUnavailableError):
        client.push("pushed", {"id": "1"})


def test_a_certificate_that_nobody_believes_is_told_with_the_way_out(tmp_path: Path) -> None:
    """And nothing of it where there is nobody at all."""

    async def asked(url: str) -> None:
        async with AsyncClient(url, attempts=1) as client:
            await client.services()

    with Front(free_port(), certificate=certificate(tmp_path)) as front:
        urls = {f"https://127.0.0.1:{front.port}": True, f"https://127.0.0.1:{free_port()}": False}
        for url, is_there in urls.items():
            with Client(url, attempts=1) as client:
                calls: list[Callable[[], Any]] = [client.services, lambda url=url: asyncio.run(asked(url))]
                for call in calls:
                    with pytest.raises(ServerUnavailableError, match="cannot be reached") as caught:
                        call()
                    assert ("authorities=" in str(caught.value)) is is_there

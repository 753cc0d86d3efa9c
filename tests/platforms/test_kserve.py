"""A transformer of KServe's in front of a predictor of KServe's, each a process of its own, and our server behind them."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

from featurestore import FeatureService, FeatureStore
from featurestore.access.api_keys import create_key
from featurestore.serving.online_result import OnlineResult
from featurestore.serving.served_rows import find_request
from featurestore.types import FeatureType, to_json
from tests.platforms.conftest import Told
from tests.platforms.frameworks import PAGES, example_project
from tests.platforms.shop import BLOCK, KEYS, PAIRS, TYPES, opened, serving
from tests.ports import free_port
from tests.servers import PATIENCE_SECONDS, FeatureServer, certificate

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-kserve" / "bin" / "python"
SERVERS = Path(__file__).with_name("kserve_servers.py")
QUIET = {**os.environ, "PYTHONPATH": str(ROOT)}
"""As after `pip install --no-deps featurestore`: of what we need there is what kserve needs."""

DATATYPES = {"Bool": "BOOL", "Int32": "INT32", "Int64": "INT64", "Float32": "FP32", "Float64": "FP64"}
PAGE = BLOCK.findall((PAGES / "kserve.md").read_text())
LISTS = {name for name, of in TYPES.items() if of.element is not None and of.length is None}


class KServeProcess:
    """A server of KServe's, which is being started from `__enter__` on. log: what it writes."""

    def __init__(self, log: Path, *command: str, key: str = "") -> None:
        self.log, self._command, self._key = log, command, key
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Self:
        with self.log.open("w") as file:
            self._process = subprocess.Popen(
                [PYTHON, *self._command, "--http_port", str(self.port)], stdout=file, stderr=file,
                cwd=self.log.parent, env={**QUIET, "FEATURESTORE_KEY": self._key},
            )  # fmt: skip
        return self

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if httpx.get(f"{self.url}/v2/health/ready", timeout=PATIENCE_SECONDS).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)


@dataclass
class World:
    """Three transformers, one a protocol of the predictor's, and what they ask."""

    store: FeatureStore
    urls: dict[str, str] = field(default_factory=dict)
    grpc: int = field(default_factory=free_port)
    """Where the one of grpc-v2 takes gRPC itself."""

    def ask(self, protocol: str, model: str, rows: list[dict[str, Any]], **headers: str) -> httpx.Response:
        """A lookup in the protocol that the predictor speaks; in v2 with the datatypes that the keys have."""
        if protocol == "v1":
            path, body = f"/v1/models/{model}:predict", {"instances": rows}
        else:
            path, body = f"/v2/models/{model}/infer", {"id": "r1", "inputs": inputs_of(rows)}
        return self.post(protocol, path, body, **headers)

    def post(self, protocol: str, path: str, body: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.urls[protocol] + path, json=body, headers=named, timeout=PATIENCE_SECONDS)


def inputs_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "shape": [len(rows)], "data": [row[name] for row in rows],
         "datatype": "BYTES" if isinstance(rows[0][name], str) else "INT64"}
        for name in rows[0]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kserve")
    (folder / "repo").mkdir()
    with ExitStack() as stack:
        store = stack.enter_context(opened(folder / "repo"))
        users, pairs = store.catalog.view("users"), store.catalog.view("pairs")
        flat = [users[name] for name in TYPES if name not in LISTS]
        numbers = [users[name] for name in ("small", "big", "narrow", "wide")]
        services = {
            "every": [users],
            "flat": flat,
            "numbers": numbers,
            "floats": [users["wide"], users["embedding"]],
            "lists": [users["names"]],
        }
        store.apply([FeatureService(name, features=features) for name, features in services.items()])
        store.apply([FeatureService("flights", features=[pairs["text"], pairs["wide"]])])
        store.materialize(progress=False)
        key = create_key(store.registry, "transformer", ["read"]).secret
        url = stack.enter_context(serving(store, authentication=True))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def of(service: str, **words: Any) -> dict[str, Any]:
            fingerprint = store.lookup(service).service.fingerprint
            usual = {"url": url, "service": service, "fingerprint": fingerprint, "key": key, "timeout_seconds": 600}
            return {**usual, **words}

        models = {name: of(name) for name in (*services, "flights", "model")}
        models["matrix"] = of("numbers", form="matrix")
        models["texts"] = of("flat", form="matrix")
        models["changed"] = of("flat", fingerprint="0" * 32)
        models["unknown"] = {**of("flat"), "service": "flats"}
        models["keyless"] = of("flat", key=None)
        models["gone"] = of("flat", url=f"http://127.0.0.1:{free_port()}", attempts=1)
        models["silent"] = of("flat", url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.5)
        grpc = free_port()
        found = World(store)
        predictor = KServeProcess(
            folder / "predictor.log", str(SERVERS), "predictor", json.dumps(list(models)), "--grpc_port", str(grpc)
        )
        started = [stack.enter_context(predictor)]
        for protocol in ("v1", "v2", "grpc-v2"):
            is_grpc = protocol == "grpc-v2"
            host = f"127.0.0.1:{grpc}" if is_grpc else predictor.host
            command = ["transformers", json.dumps(models), "--predictor_host", host, "--predictor_protocol", protocol]
            command += ["--grpc_port", str(found.grpc)] if is_grpc else ["--enable_grpc", "false"]
            started.append(stack.enter_context(KServeProcess(folder / f"{protocol}.log", str(SERVERS), *command)))
            found.urls[protocol] = started[-1].url
        for process in started:
            process.wait()
        yield found


PROTOCOLS = pytest.mark.parametrize("protocol", ["v1", "v2", "grpc-v2"])
INFINITE, NULL = "JSON has no such number", "has no null"
UNSAYABLE = {"v1": {INFINITE}, "v2": {INFINITE, NULL}, "grpc-v2": {NULL}}
"""What of the values each protocol has no form of."""


def number(value: Any, *, is_v1: bool) -> Any:
    """A float as the predictor has it; null and NaN are one."""
    if isinstance(value, list):
        return [number(item, is_v1=is_v1) for item in value]
    if value is None or value != value:
        return None if is_v1 else math.nan
    return value


def as_told(of: FeatureType, value: Any, *, is_v1: bool) -> str:
    """How the predictor tells of a value that it got, with its datatype in v2."""
    element = of.element or of
    if of.element is not None and value is None:
        value = None if is_v1 else [None] * (of.length or 0)
    plain = number(value, is_v1=is_v1) if element.is_float else to_json(of, value)
    return repr(plain) if is_v1 else f"{DATATYPES.get(element.kind, 'BYTES')} {plain!r}"


def unsayable(result: OnlineResult, row: int, protocol: str) -> str | None:
    """What is said of a row that the protocol has no form of."""
    flat = {
        column: value if isinstance(value, list) else [value]
        for column in result.service.columns
        for value in [result.columns[column.name][row]]
    }
    numbers = [item for values in flat.values() for item in values if isinstance(item, float)]
    if protocol != "grpc-v2" and any(map(math.isinf, numbers)):
        return INFINITE
    plain = [values for column, values in flat.items() if not (column.type.element or column.type).is_float]
    if protocol != "v1" and any(None in values for values in plain):
        return NULL
    return None


def score(values: list[Any]) -> float:
    return math.fsum(
        float(value) * place
        for place, value in enumerate(values, 1)
        if isinstance(value, (int, float)) and math.isfinite(value)
    )


def compared(result: OnlineResult, answer: httpx.Response, protocol: str) -> int:
    """How many values of the predictor's were compared: each is that of `get_online_features`, and so is its score."""
    assert answer.status_code == 200, answer.text
    types = {column.name: column.type for column in result.service.columns}
    is_v1 = protocol == "v1"
    expected = {
        name: [as_told(types[name], value, is_v1=is_v1) for value in values] for name, values in result.columns.items()
    }
    scores = [score(list(row)) for row in zip(*result.columns.values(), strict=True)]
    if is_v1:
        found = answer.json()["predictions"]
        assert [one["score"] for one in found] == scores
        assert [one["told"] for one in found] == [
            dict(zip(expected, row, strict=True)) for row in zip(*expected.values(), strict=True)
        ]
    else:
        outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
        assert outputs.pop("score") == scores
        flat = all(of.element is None for of in types.values())
        assert outputs.pop("content_type") == ["pd" if flat else ""]
        assert outputs == expected
    return len(expected) * len(result) + len(scores)


@PROTOCOLS
def test_predictions_are_those_of_the_stores_features(world: World, protocol: str, tell: Told) -> None:
    """For every key and type, one by one and in a batch; what a protocol has no form of is refused, and says where."""
    count, refused = 0, set[str]()
    for service in ("every", "model", "flat", "numbers", "floats", "flights"):
        if service in {"every", "model"} and protocol != "v1":
            continue
        rows = [{"user_id": key} | ({"add": 3} if service == "model" else {}) for key in [*KEYS, "nobody"]]
        if service == "flights":
            rows = [dict(zip(("carrier", "flight"), pair, strict=True)) for pair in [*PAIRS, ("日本", 5)]]
        whole, good = world.store.get_online_features(rows, service), []
        for number, row in enumerate(rows):
            answer, problem = world.ask(protocol, service, [row]), unsayable(whole, number, protocol)
            if problem is None:
                count += compared(world.store.get_online_features([row], service), answer, protocol)
                good.append(row)
                continue
            refused.add(problem)
            assert answer.status_code == (400 if problem == NULL else 500), answer.text
            assert problem in answer.json()["error"], (row, answer.text)
        count += compared(world.store.get_online_features(good, service), world.ask(protocol, service, good), protocol)
    assert refused == UNSAYABLE[protocol]
    version = subprocess.run(
        [PYTHON, "-c", "import importlib.metadata as m; print(m.version('kserve'))"], text=True, capture_output=True, check=True
    ).stdout.strip()  # fmt: skip
    tell("kserve", version=f"kserve {version}", ran="transformer and predictor ran, without a cluster", compared=count)


@PROTOCOLS
def test_a_matrix(world: World, protocol: str) -> None:
    """All numbers in one input, as KServe's own predictors take it; what is no number is an error that says so."""
    rows = [{"user_id": key} for key in KEYS]
    whole = world.store.get_online_features(rows, "numbers")
    good = [
        row for place, row in enumerate(rows)
        if all(abs(whole.columns["users__big"][place] or 0) <= 2**53 for _ in [0])
        and (protocol == "grpc-v2" or not any(
            isinstance(values[place], float) and math.isinf(values[place]) for values in whole.columns.values()
        ))
    ]  # fmt: skip
    matrix = world.store.get_online_features(good, "numbers").to_numpy().tolist()
    answer = world.ask(protocol, "matrix", good)
    assert answer.status_code == 200, answer.text
    if protocol == "v1":
        found = [one["told"] for one in answer.json()["predictions"]]
        assert found == [[repr(number(value, is_v1=True)) for value in row] for row in matrix]
    else:
        (found,) = [each["data"] for each in answer.json()["outputs"] if each["name"] == "features"]
        assert found == [f"FP64 {row!r}" for row in matrix]
    answer = world.ask(protocol, "texts", [{"user_id": "nobody"}])
    assert (answer.status_code, "form='matrix': " in answer.json()["error"]) == (500, True), answer.text


@PROTOCOLS
def test_what_is_wrong_with_a_request_is_a_400(world: World, protocol: str) -> None:
    """Keys, request values and rows that are not what the service asks for, with the store's own words."""
    cases = [
        ([{"user_id": 5}], "'user_id'"),
        ([{"user": "u1"}], "has no 'user_id'"),
        ([{"user_id": "u1", "add": "x"}], "'add'"),
        ([{"user_id": "x" * 2000, "add": 1}], "2000 bytes; at most 1024"),
        ([{"user_id": "u1", "add": 1}] * 10_001, "10000 rows"),
    ]
    for rows, says in cases:
        answer = world.ask(protocol, "model", rows)
        assert (answer.status_code, says in answer.json()["error"]) == (400, True), answer.text
    answer = world.ask(protocol, "numbers", [{"user_id": "u1"}], x_request_id="x" * 200)
    assert (answer.status_code, "request_id" in answer.json()["error"]) == (400, True), answer.text


def test_bodies_that_are_none_of_v1(world: World) -> None:
    bodies: list[Any] = [
        {},
        [],
        {"instances": {}},
        {"instances": []},
        {"instances": [1]},
        {"instances": ["u1"]},
        {"instances": [[]]},
    ]
    bodies += [
        {"instances": [{"user_id": {"a": 1}}]},
        {"instances": [None]},
        {"inputs": inputs_of([{"user_id": "u1"}])},
        "x",
        7,
    ]
    for body in bodies:
        answer = world.post("v1", "/v1/models/numbers:predict", body)
        assert answer.status_code == 400, (body, answer.text)
    url = world.urls["v1"] + "/v1/models/numbers:predict"
    for content in (b"", b"\xff", b"{", b"[" * 3000):
        answer = httpx.post(
            url, content=content, headers={"content-type": "application/json"}, timeout=PATIENCE_SECONDS
        )
        assert answer.status_code == 400, (content[:9], answer.text)
    answer = httpx.post(url, content=b"a=1", headers={"content-type": "text/plain"}, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("protocol", ["v2", "grpc-v2"])
def test_shapes_and_datatypes_of_v2(world: World, protocol: str) -> None:
    """What is equal is answered alike; what is none says which input, and why."""

    def ask(*inputs: dict[str, Any]) -> httpx.Response:
        return world.post(protocol, "/v2/models/floats/infer", {"id": "é", "inputs": list(inputs)})

    usual = {"name": "user_id", "shape": [2], "datatype": "BYTES", "data": ["u1", "u2"]}
    expected = ask(usual)
    if expected.status_code == 500:  # infinite numbers
        usual["data"] = ["nobody", "nobody"]
        expected = ask(usual)
    assert expected.status_code == 200, expected.text
    assert expected.json()["id"] == "é"
    for same in ({"shape": [2, 1]}, {"shape": [2, 1], "data": [[one] for one in usual["data"]]}, {"datatype": "bytes"}):
        answer = ask({**usual, **same})
        assert answer.json() == expected.json(), answer.text
    wrong: list[tuple[list[dict[str, Any]], str]] = [
        ([{**usual, "shape": [3]}], "shape [3] and 2 values"),
        ([{**usual, "shape": [-1, -2]}], "shape [-1, -2]"),
        ([{**usual, "shape": []}], "shape []"),
        ([{**usual, "shape": [1, 1, 2]}], "shape [1, 1, 2]"),
        ([{**usual, "shape": [0], "data": []}], "'user_id'"),
        ([{**usual, "data": [["u1"], [["u2"]]]}], "value 1 is ['u2']"),
        ([{**usual, "datatype": "INT64"}], "value 0 is"),
        ([{**usual, "datatype": "TEXT"}], "datatype TEXT"),
        ([{**usual, "data": [1, 2]}], "no BYTES"),
        ([{**usual, "datatype": "INT64", "data": [True, 2]}], "no INT64"),
        ([{**usual, "datatype": "FP64", "data": [1.5, 2]}], "'user_id'"),
        ([usual, usual], "Two inputs are called 'user_id'"),
        ([usual, {**usual, "name": "add", "shape": [1], "data": ["u1"]}], "'user_id' 2, 'add' 1"),
        ([{**usual, "name": "ü"}], "has no 'user_id'"),
        ([], "There are no inputs"),
    ]
    for inputs, says in wrong:
        answer = ask(*inputs)
        assert (answer.status_code, says in answer.json()["error"]) == (400, True), (inputs, answer.text)
    body = json.dumps({"inputs": [{**usual, "data": None, "parameters": {"binary_data_size": 12}}]}).replace(
        ', "data": null', ""
    )
    raw = b"".join(len(one).to_bytes(4, "little") + one for one in (b"u1", b"u2"))
    headers = {"inference-header-content-length": str(len(body)), "content-type": "application/octet-stream"}
    answer = httpx.post(
        f"{world.urls[protocol]}/v2/models/flights/infer", content=body.encode() + raw, headers=headers, timeout=PATIENCE_SECONDS
    )  # fmt: skip
    assert (answer.status_code, "has no 'carrier'" in answer.json()["error"]) == (400, True), answer.text


@PROTOCOLS
def test_what_cannot_be_served_is_refused(world: World, protocol: str) -> None:
    """A definition that changed, a service or a server that is not there, no key, a server that says nothing."""
    cases = [
        ("changed", 409, "FingerprintError"),
        ("unknown", 409, "no service of that name is applied"),
        ("keyless", 500, "UnauthenticatedError"),
        ("gone", 503, "cannot be reached"),
        ("silent", 503, "did not answer within 0.5 s"),
    ]
    for model, status, says in cases:
        answer = world.ask(protocol, model, [{"user_id": "u1"}])
        assert (answer.status_code, says in answer.json()["error"]) == (status, True), answer.text
    if protocol != "v1":
        answer = world.ask(protocol, "lists", [{"user_id": "u1"}])
        assert (answer.status_code, "a list of another length in each row" in answer.text) == (500, True), answer.text


def test_the_protocol_is_the_predictors(world: World) -> None:
    """Whoever speaks another is told which, and no half-read answer comes back."""
    rows = [{"user_id": "u1"}]
    for protocol, path in (("v1", "/v2/models/numbers/infer"), ("v2", "/v1/models/numbers:predict")):
        body = {"instances": rows} if path.startswith("/v1") else {"inputs": inputs_of(rows)}
        answer = world.post(protocol, path, body)
        assert answer.status_code == 400
        assert f"speaks {protocol}: send requests of /{protocol}/" in answer.json()["error"]


RAW = """
import asyncio, json, sys
import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient

async def main():
    url, model, keys = json.load(sys.stdin)
    given = InferInput("user_id", [len(keys)], "BYTES")
    given.set_data_from_numpy(np.array([key.encode() for key in keys], dtype=object), binary_data=True)
    answer = await InferenceGRPCClient(url).infer(InferRequest(model, [given]))
    texts = [each for each in answer.outputs if each.datatype == "BYTES"]
    print(json.dumps({each.name: [one.decode() for one in each.as_numpy().tolist()] for each in texts}))

try:
    asyncio.run(main())
except Exception as error:
    print(json.dumps([error.code().name, error.details()]))
"""


def test_clients_of_grpc(world: World) -> None:
    """Their keys come as bytes of the machine; statuses are those of gRPC."""

    def ask(model: str, keys: list[str]) -> Any:
        given = json.dumps([f"127.0.0.1:{world.grpc}", model, keys])
        done = subprocess.run([PYTHON, "-c", RAW], input=given, text=True, capture_output=True, env=QUIET, check=False)
        return json.loads(done.stdout), done.stderr

    whole = world.store.get_online_features([{"user_id": key} for key in KEYS], "floats")
    found, _ = ask("floats", KEYS)
    for column in whole.service.columns:
        assert found[column.name] == [as_told(column.type, value, is_v1=False) for value in whole.columns[column.name]]
    (status, says), _ = ask("gone", ["u1"])
    assert (status, "cannot be reached" in says) == ("UNAVAILABLE", True)
    (status, says), _ = ask("changed", ["u1"])
    assert (status, "FingerprintError" in says) == ("FAILED_PRECONDITION", True), says
    (status, says), _ = ask("model", ["u1"])
    assert (status, "'add'" in says) == ("INVALID_ARGUMENT", True)


@contextmanager
def shown(folder: Path, fingerprint: str, url: str, key: str) -> Iterator[dict[str, KServeProcess]]:
    """The transformer of docs/platforms/kserve.md, started as its container is, before a predictor; by the protocol, which the page
    says is v2."""
    (made,) = (yaml.safe_load(text) for kind, text in PAGE if kind == "yaml")
    (container,) = made["spec"]["transformer"]["containers"]
    assert container["env"][0]["name"] == "FEATURESTORE_KEY"
    _, *command = container["command"]
    command += [text.replace("http://127.0.0.1:6570", url) for text in container["args"]]
    assert {f"--feature_fingerprint={fingerprint}", "--predictor_protocol=v2"} < set(command)
    predictor = KServeProcess(
        folder / "predictor.log", str(SERVERS), "predictor", '["ranking"]', "--enable_grpc", "false"
    )
    command += ["--model_name", "ranking", "--predictor_host", predictor.host, "--enable_grpc", "false"]
    transformers = {
        protocol: KServeProcess(
            folder / f"{protocol}.log", *(text.replace("=v2", f"={protocol}") for text in command), key=key
        )
        for protocol in ("v1", "v2")
    }
    with predictor, transformers["v1"], transformers["v2"]:
        for process in (predictor, *transformers.values()):
            process.wait()
        yield transformers


def test_what_the_page_shows(tmp_path: Path) -> None:
    """Its container's command and its client; then the server goes, comes back, and its definitions change."""
    repo = tmp_path / "rides"
    repo.mkdir()
    with example_project(repo) as names:
        store: FeatureStore = names["store"]
        fingerprint = store.lookup("ranking").service.fingerprint
        key = create_key(store.registry, "transformer", ["read"]).secret
        expected = store.get_online_features([{"driver_id": "d1"}, {"driver_id": "d2"}], "ranking").to_dict()
    settings, definitions = repo / "featurestore.toml", repo / "definitions.py"
    settings.write_text(settings.read_text() + "[serving_log]\nrate = 1.0\n")
    before = definitions.read_text()

    def declare(text: str) -> None:
        definitions.write_text(text)
        with FeatureStore(repo) as store:
            store.apply()
            store.materialize(progress=False)

    (code,) = (text for kind, text in PAGE if kind == "python")
    (body,) = (json.loads(text) for kind, text in PAGE if kind == "json")
    port = free_port()
    first, again = (FeatureServer(repo, port=port, stderr=subprocess.DEVNULL) for _ in range(2))
    with shown(tmp_path, fingerprint, first.url, key) as transformers:
        transformer = transformers["v2"]

        def ask(**headers: str) -> httpx.Response:
            body = {"inputs": inputs_of([{"driver_id": "d1"}])}
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            url = f"{transformer.url}/v2/models/ranking/infer"
            return httpx.post(url, json=body, headers=named, timeout=PATIENCE_SECONDS)

        with first:
            found: dict[str, Any] = {}
            code = code.replace("http://127.0.0.1:8080", transformer.url).replace(
                "timeout=60", f"timeout={PATIENCE_SECONDS}"
            )
            exec(compile(code, "kserve.md", "exec"), found)
            told = {each["name"]: each["data"] for each in found["predictions"]}
            assert told["drivers__fare"] == [f"FP64 {fare!r}" for fare in expected["drivers__fare"]]
            assert told["drivers__trips"] == [f"INT64 {trips}" for trips in expected["drivers__trips"]]
            assert told["score"] == [9.5 + 2 * 2, 20.25 + 2 * 1]
            assert found["answer"].json()["id"] == "r1"
            url = f"{transformers['v1'].url}/v1/models/ranking:predict"
            answer = httpx.post(url, json=body, timeout=PATIENCE_SECONDS)
            named = [{"drivers__fare": "9.5", "drivers__trips": "2"}, {"drivers__fare": "20.25", "drivers__trips": "1"}]
            assert [one["told"] for one in answer.json()["predictions"]] == named
            assert [one["score"] for one in answer.json()["predictions"]] == told["score"]
            answer = ask(x_request_id="order-17", authorization="Bearer of-the-caller")
            assert answer.status_code == 200, answer.text
        answer = ask()
        assert (answer.status_code, "cannot be reached" in answer.json()["error"]) == (503, True), answer.text
        declare(before.replace('Latest("fare")', 'Latest("fare", window="30d")'))
        with again:
            answer = ask()
            assert answer.status_code == 409
            assert "FingerprintError: Service 'ranking'" in answer.json()["error"], answer.text
            declare(before)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while (answer := ask()).status_code != 200:
                assert time.monotonic() < deadline, answer.text
                time.sleep(0.1)
    assert not any("Unclosed" in each.log.read_text() for each in transformers.values())
    with FeatureStore(repo) as store:
        logged = find_request(store.config.serving_log.folder, "order-17")
        assert logged.rows["drivers__fare"].to_pylist() == [9.5]


SENT = """
import pickle, sys
from kserve import context
from kserve.predictor_config import PredictorConfig
from featurestore.integrations.kserve import FeatureStoreTransformer

context.set_predictor_config(PredictorConfig("predictor:80", "v2"))
model = FeatureStoreTransformer("m", url="https://features", service="s", fingerprint="f", key="k", authorities=sys.argv[1])
sys.stdout.buffer.write(pickle.dumps(model))
"""
ARRIVED = """
import pickle, sys
model = pickle.load(sys.stdin.buffer)
print(model.name, model.ready, model.predictor_config.predictor_host, model.predictor_config.protocol, model._client)
"""


WRONG = """
from featurestore.errors import FeatureStoreError
from featurestore.integrations.kserve import FeatureStoreTransformer

for words in ({"service": ""}, {"fingerprint": ""}, {"fingerprint": None}, {"form": "rows"}):
    try:
        FeatureStoreTransformer("m", **{"url": "https://features", "service": "s", "fingerprint": "f", **words})
    except FeatureStoreError as error:
        print(error)
"""


def test_no_transformer_is_made_that_serves_any_definition(tmp_path: Path) -> None:
    """As where a variable of its container is not set."""
    done = subprocess.run(
        [PYTHON, "-c", WRONG], capture_output=True, env=QUIET, text=True, timeout=PATIENCE_SECONDS, check=True
    )
    assert done.stdout.splitlines() == [
        "service is what the manifest of the training set says, and not ''",
        "fingerprint is what the manifest of the training set says, and not ''",
        "fingerprint is what the manifest of the training set says, and not None",
        "form is 'columns' or 'matrix', and not 'rows'",
    ]


def test_workers_know_where_the_predictor_is(tmp_path: Path) -> None:
    """With `--workers`, which `containerConcurrency` sets, KServe sends the model to other processes, and not what it knows of the
    predictor."""
    sent = subprocess.run(
        [PYTHON, "-c", SENT, str(certificate(tmp_path))], capture_output=True, env=QUIET, check=True, timeout=PATIENCE_SECONDS
    )  # fmt: skip
    arrived = subprocess.run(
        [PYTHON, "-c", ARRIVED], input=sent.stdout, capture_output=True, env=QUIET, check=True, timeout=PATIENCE_SECONDS
    )
    assert arrived.stdout.decode().strip() == "m True predictor:80 v2 AsyncClient('https://features')"

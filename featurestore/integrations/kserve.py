"""A transformer of KServe: a request brings keys and request values, and the predictor gets their features as of now.

It asks our HTTP service by `featurestore.client`, so that its image needs neither engines nor definitions. Requests have the predictor's protocol:
v1, or v2 over REST or gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import struct
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

from fastapi.responses import JSONResponse
from grpc_interceptor.exceptions import FailedPrecondition
from kserve import InferInput, InferRequest, Model, ModelServer, model_server
from kserve.errors import InferenceError, InvalidInput, ServerNotReady
from kserve.protocol.infer_type import to_http_parameters

from featurestore.client import AsyncClient
from featurestore.errors import FeatureStoreError, FingerprintError, OnDemandError, RequestError
from featurestore.plurals import plural
from featurestore.serving.online_result import OnlineResult
from featurestore.types import FeatureType, to_json

Form = Literal["columns", "matrix"]
"""How a predictor takes its features: each under its name and with its type, or as one matrix (rows, features) of float64, in the service's order."""

KEY = "FEATURESTORE_KEY"
"""The environment variable that has the API key, or the token, for the feature server."""

DATATYPES = {"Bool": "BOOL", "Int32": "INT32", "Int64": "INT64", "Float32": "FP32", "Float64": "FP64"}
"""The protocol's types of ours; what it has none for is BYTES: text, in the form that JSON has."""

KINDS: dict[str, tuple[type, ...]] = {"BYTES": (str, bytes), "BOOL": (bool,), "FP16": (float,)}
KINDS |= {f"{sign}INT{bits}": (int,) for sign in ("", "U") for bits in (8, 16, 32, 64)}
KINDS |= {f"FP{bits}": (float, int) for bits in (32, 64)}
"""By datatype of an input the kinds of its values."""


class FeaturesUnavailableError(ServerNotReady):  # type: ignore[misc]  # the base class has no types
    """The feature server cannot be reached, or cannot answer just now: status 503. The same request may succeed later."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = self.error_msg = reason


class OtherDefinitionsError(FailedPrecondition):  # type: ignore[misc]  # the base class has no types
    """What the model was trained on is not what is served: status 409, over gRPC FAILED_PRECONDITION, as no error of KServe's is. No
    retry helps: serve these definitions, or train the model anew."""


async def _conflict(_: Any, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, 409)


class FeatureStoreTransformer(Model):  # type: ignore[misc]  # the base class has no types
    """A model that hands on the features of what it is asked for.

    name: of the model, as the predictor has it. url: of the feature server. service, fingerprint: what the model was trained
    on; another definition is refused. words: of `featurestore.client.AsyncClient`, such as key and timeout_seconds.
    """

    def __init__(
        self, name: str, *, url: str, service: str, fingerprint: str, form: Form = "columns", **words: Any
    ) -> None:
        if form not in get_args(Form):
            raise FeatureStoreError(f"form is 'columns' or 'matrix', and not {form!r}")
        for word, said in (("service", service), ("fingerprint", fingerprint)):
            if not isinstance(said, str) or not said:  # without which any definition would be served
                raise FeatureStoreError(f"{word} is what the manifest of the training set says, and not {said!r}")
        super().__init__(name)
        self._service, self._fingerprint, self._form = service, fingerprint, form
        self._connect = partial(AsyncClient, url, **words)
        self._begin()
        self._predictor: Any = None
        self.ready = True

    @property
    def predictor_config(self) -> Any:
        """Where the predictor is, and which protocol it speaks."""
        return super().predictor_config or self._predictor

    def __getstate__(self) -> dict[str, Any]:
        """For KServe's workers, processes that KServe does not tell where the predictor is."""
        state = {name: value for name, value in self.__dict__.items() if name != "_client"}
        return {**state, "_predictor": self.predictor_config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """What each process needs for itself."""
        self._client = self._connect()
        model_server.app.add_exception_handler(OtherDefinitionsError, _conflict)

    def stop(self) -> None:
        """Close the connections to the feature server."""
        super().stop()
        self._closing = asyncio.get_running_loop().create_task(self._client.close())

    async def preprocess(self, payload: Any, headers: Mapping[str, str] | None = None) -> Any:
        """The request that the predictor gets. Raises InvalidInput (400), OtherDefinitionsError (409), FeaturesUnavailableError (503),
        InferenceError (500)."""
        protocol = self.predictor_config.protocol
        if isinstance(payload, InferRequest) is (protocol == "v1"):
            path = f"/v1/models/{self.name}:predict" if protocol == "v1" else f"/v2/models/{self.name}/infer"
            raise InvalidInput(f"The predictor of '{self.name}' speaks {protocol}: send requests of {path}")
        rows = _rows_of_v1(payload) if protocol == "v1" else _rows_of_v2(payload)
        result = await self._features(rows, headers)
        if protocol != "grpc-v2":
            _refuse_infinite(result)
        if protocol == "v1":
            return {"instances": _matrix(result) if self._form == "matrix" else _instances(result)}
        inputs = [_matrix_input(result)] if self._form == "matrix" else _inputs(result)
        parameters = to_http_parameters(payload.parameters or {})
        if self._form == "columns" and all(len(each.shape) == 1 for each in inputs):
            parameters["content_type"] = "pd"  # by which predictors know that the inputs are the columns of a frame
        return InferRequest(
            self.name, inputs, request_id=payload.id, parameters=parameters, request_outputs=payload.request_outputs
        )

    async def _features(self, rows: list[Any], headers: Mapping[str, str] | None) -> OnlineResult:
        try:
            return await self._client.get_online_features(
                rows, self._service, fingerprint=self._fingerprint, request_id=(headers or {}).get("x-request-id")
            )
        except (RequestError, OnDemandError) as error:
            raise InvalidInput(str(error)) from error
        except FingerprintError as error:
            raise OtherDefinitionsError(f"FingerprintError: {error}") from error
        except FeatureStoreError as error:
            if error.retry:
                raise FeaturesUnavailableError(str(error)) from error
            raise InferenceError(f"{type(error).__name__}: {error}") from error


def _rows_of_v1(payload: Any) -> list[Any]:
    instances = payload.get("instances") if isinstance(payload, dict) else None
    if not isinstance(instances, list):
        raise InvalidInput(
            'The body is no JSON object with "instances", a list of objects with keys and request values'
        )
    return instances


def _rows_of_v2(request: Any) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {}
    for given in request.inputs:
        if given.name in columns:
            raise InvalidInput(f"Two inputs are called '{given.name}'")
        shape, values = list(given.shape), _values(given)
        if len(shape) not in {1, 2} or min(shape) < 1 or math.prod(shape) != len(values):
            raise InvalidInput(
                f"Input '{given.name}' has shape {shape} and {len(values)} {plural(len(values), 'value')}; the shape of keys and request values is [rows] "
                "or [rows, 1], and of arrays [rows, length], with one row at least"
            )
        width = math.prod(shape[1:])
        columns[given.name] = values if width == 1 else [values[at : at + width] for at in range(0, len(values), width)]
    if len({len(values) for values in columns.values()}) != 1:
        told = ", ".join(f"'{name}' {len(values)}" for name, values in columns.items())
        raise InvalidInput(
            f"Each input has a value for each row; there are {told}" if columns else "There are no inputs"
        )
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _values(given: Any) -> list[Any]:
    """The values of an input one by one, however they came."""
    kinds = KINDS.get(given.datatype)
    if kinds is None:
        raise InvalidInput(
            f"Input '{given.name}' has datatype {given.datatype}, which is none; there are {', '.join(KINDS)}"
        )
    try:
        nested = given.data or given.as_numpy().ravel().tolist()  # in gRPC they may be bytes of the machine
        values = [value for part in nested for value in (part if isinstance(part, list) else [part])]
        for number, value in enumerate(values):
            if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
                raise ValueError(f"value {number} is {value!r:.100}, and no {given.datatype}")
        return [value.decode() if isinstance(value, bytes) else value for value in values]
    except (ValueError, struct.error) as error:
        raise InvalidInput(f"Input '{given.name}': {error}") from error


def _refuse_infinite(result: OnlineResult) -> None:
    """InferenceError for an infinite number: KServe would send null for it, as it does for NaN."""
    for column in result.service.columns:
        if (column.type.element or column.type).is_float:
            for row, value in enumerate(result.columns[column.name]):
                for item in value if isinstance(value, list) else [value]:
                    if item is not None and math.isinf(item):
                        raise InferenceError(
                            f"Row {row}: '{column.name}' is {item}, and JSON has no such number; the protocol grpc-v2 has"
                        )


def _instances(result: OnlineResult) -> list[dict[str, Any]]:
    columns = [
        [_plain(column.type, value) for value in result.columns[column.name]] for column in result.service.columns
    ]
    return [dict(zip(result.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def _inputs(result: OnlineResult) -> list[Any]:
    return [_input(result, column.name, column.type) for column in result.service.columns]


def _input(result: OnlineResult, name: str, of: FeatureType) -> Any:
    """A feature as an input: [rows], and of arrays of a fixed length [rows, length]."""
    element, values, shape = of.element or of, result.columns[name], [len(result)]
    datatype = DATATYPES.get(element.kind, "BYTES")
    if of.element is not None:
        if of.length is None:
            raise InferenceError(
                f"'{name}' is {of}, a list of another length in each row, for which v2 has no form; leave it out of the service"
            )
        shape, empty = [len(result), of.length], [None] * of.length
        values = [item for array in values for item in (empty if array is None else array)]
    if not element.is_float and None in values:
        row = values.index(None) // (of.length or 1)
        status = result.statuses[name][row]
        raise InvalidInput(
            f"Row {row}: '{name}' is null ({status}), and {datatype} has no null; a default of the feature would stand for it"
        )
    return InferInput(
        name, shape, datatype, [math.nan if value is None else _plain(element, value) for value in values]
    )


def _matrix(result: OnlineResult) -> list[list[float]]:
    try:
        rows: list[list[float]] = result.to_numpy().tolist()
    except RequestError as error:
        raise InferenceError(f"form='matrix': {error}") from error
    return rows


def _matrix_input(result: OnlineResult) -> Any:
    rows = _matrix(result)
    return InferInput("features", [len(rows), len(result.columns)], "FP64", [value for row in rows for value in row])


def _plain(of: FeatureType, value: Any) -> Any:
    """A value in the form that JSON has, and floats as numbers; KServe sends null for a NaN."""
    if of.element is not None and value is not None:
        return [_plain(of.element, item) for item in value]
    return value if of.is_float else to_json(of, value)


def main() -> None:
    """The program of a transformer's container: KServe's own arguments, and those of the features."""
    parser = argparse.ArgumentParser(prog="python -m featurestore.integrations.kserve", parents=[model_server.parser])
    said = parser.add_argument_group("features")
    said.add_argument("--feature_server", required=True, help="The URL of featurestore serve.")
    said.add_argument("--feature_service", required=True, help="What the model was trained on.")
    said.add_argument(
        "--feature_fingerprint", required=True, help="Its fingerprint, as the manifest of the training set says."
    )
    said.add_argument("--feature_form", default="columns", choices=get_args(Form), help="How the predictor takes them.")
    said.add_argument("--feature_timeout_seconds", default=5.0, type=float, help="For a lookup, its retries included.")
    said.add_argument("--feature_authorities", help="A file of certificates to believe, in place of the system's.")
    given = parser.parse_args()
    model = FeatureStoreTransformer(
        given.model_name, url=given.feature_server, service=given.feature_service, fingerprint=given.feature_fingerprint,
        form=given.feature_form, key=os.environ.get(KEY) or None, timeout_seconds=given.feature_timeout_seconds,
        authorities=given.feature_authorities,
    )  # fmt: skip
    ModelServer().start([model])


if __name__ == "__main__":
    main()

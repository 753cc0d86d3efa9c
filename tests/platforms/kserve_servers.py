"""Servers of KServe's, run by the Python of `.venv-kserve`: a predictor that tells what it got, and transformers.

`predictor NAMES …` or `transformers {"NAME": {words of FeatureStoreTransformer}} …`, and KServe's own arguments behind it.
"""

import json
import math
import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

from featurestore.integrations.kserve import FeatureStoreTransformer


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def score(values: list[Any]) -> float:
    """What the model says of the features of a row: every number counts."""
    return math.fsum(
        float(value) * place
        for place, value in enumerate(values, 1)
        if isinstance(value, (int, float)) and math.isfinite(value)
    )


class Predictor(Model):
    """Tells a score of each row, and each value as text with its datatype."""

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if not isinstance(payload, InferRequest):
            rows = [row if isinstance(row, list) else list(row.values()) for row in payload["instances"]]
            told = [
                [repr(value) for value in row]
                if isinstance(row, list)
                else {name: repr(value) for name, value in row.items()}
                for row in payload["instances"]
            ]
            return {"predictions": [{"score": score(row), "told": one} for row, one in zip(rows, told, strict=True)]}
        columns = {each.name: plain(each.as_numpy().tolist()) for each in payload.inputs}
        scores = [score(row) for row in zip(*columns.values(), strict=True)]
        outputs = [InferOutput("score", [len(scores)], "FP64", scores)]
        outputs += [
            InferOutput(
                each.name, [len(scores)], "BYTES", [f"{each.datatype} {value!r}" for value in columns[each.name]]
            )
            for each in payload.inputs
        ]
        content = (payload.parameters or {}).get("content_type", "")
        outputs.append(InferOutput("content_type", [1], "BYTES", [getattr(content, "string_param", content)]))
        return InferResponse(payload.id or "none", self.name, outputs)


def main() -> None:
    role, said = sys.argv[1], json.loads(sys.argv[2])
    if role == "predictor":
        models = [Predictor(name) for name in said]
        for model in models:
            model.ready = True
    else:
        models = [FeatureStoreTransformer(name, **words) for name, words in said.items()]
    ModelServer().start(models)


main()

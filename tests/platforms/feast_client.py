"""What Feast's client is told, as JSON: run by the Python of `.venv-feast`, in a folder with a feature store of Feast's.

On stdin a list of questions: `{"features": […] | "service": …, "rows": […], "full": bool}` is asked, `{"push": …, "rows": […]}`
pushed; on stdout an answer to each, the values with the types that the client has.
"""

import json
import sys
from typing import Any

import pandas as pd
from feast import FeatureStore
from feast.errors import FeastError


def told(value: Any) -> Any:
    """A value with its type: `["int64_val", 14]`; null where it is none."""
    kind = value.WhichOneof("val")
    if kind is None:
        return None
    given = getattr(value, kind)
    return [kind, list(given.val) if hasattr(given, "val") else given]


def asked(store: FeatureStore, question: dict[str, Any]) -> Any:
    if "push" in question:
        frame = pd.DataFrame(question["rows"])
        for column in question["times"]:
            frame[column] = pd.to_datetime(frame[column], utc=True)
        store.push(question["push"], frame)
        return "pushed"
    features = question["features"] if "features" in question else store.get_feature_service(question["service"])
    answer = store.get_online_features(
        features=features, entity_rows=question["rows"], full_feature_names=question.get("full", False)
    ).proto
    names = list(answer.metadata.feature_names.val)
    return {
        name: [[told(value), status] for value, status in zip(result.values, result.statuses, strict=True)]
        for name, result in zip(names, answer.results, strict=True)
    }


def main() -> None:
    store = FeatureStore(".")
    answers = []
    for question in json.load(sys.stdin):
        try:
            answers.append(asked(store, question))
        except FeastError as error:
            answers.append({"error": type(error).__name__, "says": str(error)})
    json.dump(answers, sys.stdout)


main()

"""TensorFlow Data Validation, in its own environment: it reads what we wrote, and says as JSON what it makes of that."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow_data_validation as tfdv
from google.protobuf.json_format import MessageToDict


def plain(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True, including_default_value_fields=True)


def told(stats: Any) -> dict[str, Any]:
    (dataset,) = stats.datasets
    return {
        "rows": dataset.num_examples,
        "features": {feature.path.step[0]: plain(feature) for feature in dataset.features},
    }


def anomalies(found: Any) -> dict[str, Any]:
    return {name: plain(one) for name, one in found.anomaly_info.items()} | (
        {"": plain(found.dataset_anomaly_info)} if found.HasField("dataset_anomaly_info") else {}
    )


def distances(asked: dict[str, Any]) -> dict[str, float]:
    """By name how far each column is from the one of the other statistics."""
    train, serve = (tfdv.load_stats_text(asked[side]) for side in ("train", "serve"))
    schema = tfdv.load_schema_text(asked["schema"])
    for feature in schema.feature:
        if feature.name in asked["texts"]:
            feature.skew_comparator.infinity_norm.threshold = 2.0
        else:
            feature.skew_comparator.jensen_shannon_divergence.threshold = 2.0
    found = tfdv.validate_statistics(train, schema, serving_statistics=serve)
    return {one.path.step[0]: one.skew_measurements[0].value for one in found.drift_skew_info if one.skew_measurements}


asked = json.loads(sys.stdin.read())
answer: dict[str, Any] = {"version": tfdv.__version__}
if "distances" in asked:
    answer["distances"] = [distances(one) for one in asked["distances"]]
if "records" in asked:
    schema = tfdv.load_schema_text(asked["schema"])
    theirs = tfdv.generate_statistics_from_tfrecord(asked["records"])
    ours = tfdv.load_stats_text(asked["stats"])
    answer |= {"theirs": told(theirs), "ours": told(ours)}
    answer["anomalies"] = [anomalies(tfdv.validate_statistics(stats, schema)) for stats in (theirs, ours)]
    answer["inferred"] = {
        feature.name: plain(feature) for feature in tfdv.infer_schema(theirs, infer_feature_shape=True).feature
    }
print(json.dumps(answer))

"""Statistics and a schema of a training set, in the text that TensorFlow Data Validation reads, written without it.

They tell of the values as the training set has them; what the records have of them is said by what `to_tfrecord` returns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from featurestore.durable.disk import replace, told
from featurestore.errors import FeatureStoreError
from featurestore.integrations.tensorflow.examples import form_of
from featurestore.integrations.tensorflow.training_rows import Training, TrainingRows
from featurestore.lazy import pa
from featurestore.sources.source_files import again
from featurestore.statistics.column_statistics import (
    ColumnStatistics,
    NumberStatistics,
    TableStatistics,
    TextStatistics,
    statistics_of,
)
from featurestore.statistics.histogram import Bucket
from featurestore.training.training_frame import writable_target
from featurestore.types import FeatureType, parse_type

TOP_VALUES = 20
"""How many of the most frequent values TFDV shows; beside them it ranks those that a drift is measured by."""

Field = tuple[str, Any]
"""A field of a message, and what it holds: a number, text, bytes, a `Word`, or the fields of a message."""


class Word(str):
    """A word of an enumeration, which stands without quotes."""

    __slots__ = ()


def training_statistics(training: Training, *, columns: Sequence[str] | None = None) -> TableStatistics:
    """What the columns of a training set are like; of those that are null throughout and have no type nothing is told.

    training: a frame, the Parquet file that it was written to, or its Arrow table, which is read once. columns: these and no others.
    """
    rows = TrainingRows(training, columns)
    return again(lambda: _statistics(rows))


def _statistics(rows: TrainingRows) -> TableStatistics:
    opened = rows.opened()
    types = {name: of for name, of in opened.types.items() if of is not None}
    schema = pa.schema([(name, of.arrow) for name, of in types.items()])
    batches = (pa.record_batch([batch.columns[name] for name in types], schema=schema) for batch in opened.batches)
    return statistics_of(batches, types)


def write_statistics(found: TableStatistics, path: str | Path, *, name: str = "") -> Path:
    """Write statistics as a `DatasetFeatureStatisticsList` of one dataset of this name, which `tfdv.load_stats_text` reads."""
    features = [("features", _feature_statistics(column)) for column in found.columns]
    dataset = [("name", name), ("num_examples", found.rows), *features]
    return _write(path, "The statistics", [("datasets", dataset)])


def write_schema(found: TableStatistics, path: str | Path) -> Path:
    """Write the `Schema` of records of these columns, which `tfdv.load_schema_text` reads: types, shapes and presence. What was never
    null is required."""
    return _write(path, "The schema", [("feature", _feature(column, found.rows)) for column in found.columns])


def _write(path: str | Path, title: str, fields: Iterable[Field]) -> Path:
    target = writable_target(path, title)
    try:
        replace(target, "".join(f"{line}\n" for line in _lines(fields)).encode())
    except OSError as error:
        raise FeatureStoreError(f"{title} cannot be written: {told(error, target)}") from error
    return target


# --- Statistics -----------------------------------------------------------------------------------------------------


def _feature_statistics(column: ColumnStatistics) -> list[Field]:
    kind = form_of(parse_type(column.type)).kind
    path: Field = ("path", [("step", column.name)])
    common: Field = ("common_stats", _common(column))
    if kind != "bytes_list":
        assert column.numbers is not None
        type_word = Word("INT" if kind == "int64_list" else "FLOAT")
        return [path, ("type", type_word), ("num_stats", [common, *_numbers(column.numbers)])]
    assert column.texts is not None
    if _element(column).kind == "Bytes":
        return [path, ("type", Word("BYTES")), ("bytes_stats", [common, *_sizes(column.texts)])]
    return [path, ("type", Word("STRING")), ("string_stats", [common, *_texts(column.texts)])]


def _element(column: ColumnStatistics) -> FeatureType:
    of = parse_type(column.type)
    return of.element or of


def _common(column: ColumnStatistics) -> list[Field]:
    there = column.rows - column.missing
    counts: list[Field] = [("num_non_missing", there), ("num_missing", column.missing)]
    if not there:
        return counts
    least, most, total = (1, 1, there) if column.lengths is None else column.lengths[:3]
    return [
        *counts,
        ("min_num_values", least),
        ("max_num_values", most),
        ("avg_num_values", total / there),
        ("tot_num_values", total),
    ]


def _numbers(found: NumberStatistics) -> list[Field]:
    ranks = found.quantiles
    part = found.values / (len(ranks) - 1) if ranks else 0
    quantiles = [Bucket(low, high, part) for low, high in pairwise(ranks)]
    histograms = [
        ("histograms", [("num_nan", found.nan), *map(_bucket, buckets), ("type", Word(kind))])
        for buckets, kind in ((found.histogram.buckets, "STANDARD"), (quantiles, "QUANTILES"))
    ]
    return [
        ("mean", found.mean),
        ("std_dev", found.deviation),
        ("num_zeros", found.zeros),
        ("min", -math.inf if found.minus_infinity else _float(found.least)),
        ("median", _float(ranks[len(ranks) // 2]) if ranks else None),
        ("max", math.inf if found.plus_infinity else _float(found.greatest)),
        *histograms,
    ]


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _bucket(bucket: Bucket) -> Field:
    values = zip(("low_value", "high_value", "sample_count"), map(float, bucket), strict=True)
    return "buckets", list(values)


def _texts(found: TextStatistics) -> list[Field]:
    top = [
        ("top_values", [("value", value), ("frequency", float(count))]) for value, count in found.frequent[:TOP_VALUES]
    ]
    ranks = [
        ("buckets", [("low_rank", rank), ("high_rank", rank), ("label", value), ("sample_count", float(count))])
        for rank, (value, count) in enumerate(found.frequent)
    ]
    average = found.total_bytes / found.values if found.values else None
    return [("unique", found.unique), *top, ("avg_length", average), ("rank_histogram", ranks)]


def _sizes(found: TextStatistics) -> list[Field]:
    if not found.values:
        return [("unique", 0)]
    return [
        ("unique", found.unique),
        ("avg_num_bytes", found.total_bytes / found.values),
        ("min_num_bytes", _float(found.least_bytes)),
        ("max_num_bytes", _float(found.most_bytes)),
        ("max_num_bytes_int", found.most_bytes),
    ]


# --- Schema ---------------------------------------------------------------------------------------------------------

SCHEMA_TYPES = {"bytes_list": "BYTES", "float_list": "FLOAT", "int64_list": "INT"}
DOMAINS: dict[str, list[Field]] = {
    "Bool": [("bool_domain", [])],
    "Int32": [("int_domain", [("min", -(1 << 31)), ("max", (1 << 31) - 1)])],
    "Date": [("time_domain", [("integer_format", Word("UNIX_DAYS"))])],
    "Timestamp": [("time_domain", [("integer_format", Word("UNIX_MICROSECONDS"))])],
}
"""By kind of type what values mean."""


def _feature(column: ColumnStatistics, rows: int) -> list[Field]:
    of = parse_type(column.type)
    form = form_of(of)
    always = rows > 0 and not column.missing
    presence: list[Field] = [("min_fraction", 1.0)] if always else []
    length = 1 if of.element is None else of.length
    if length is None:
        shape: Field = ("value_count", [("min", 0)])
    elif always:
        shape = ("shape", [] if of.element is None else [("dim", [("size", length)])])
    else:
        shape = ("value_count", [("min", length), ("max", length)])
    return [
        ("name", column.name),
        ("type", Word(SCHEMA_TYPES[form.kind])),
        ("presence", [*presence, ("min_count", int(column.missing < rows))]),
        shape,
        *DOMAINS.get((of.element or of).kind, []),
        ("annotation", [("comment", f"{column.type}: {form.is_said_as}")]),
    ]


# --- Protocol Buffers' text -----------------------------------------------------------------------------------------


def _lines(fields: Iterable[Field], indent: str = "") -> Iterator[str]:
    """The fields of a message, those that are None left out."""
    for name, value in fields:
        if isinstance(value, list):
            yield f"{indent}{name} {{"
            yield from _lines(value, f"{indent}  ")
            yield f"{indent}}}"
        elif value is not None:
            yield f"{indent}{name}: {_shown(value)}"


def _shown(value: Any) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, str):
        return '"' + "".join(map(_escaped, value.encode())) + '"'
    return repr(value)  # also inf, -inf and nan, which are written so


def _escaped(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}"

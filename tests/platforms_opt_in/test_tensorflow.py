"""TensorFlow reads what we wrote, and is given what we read; TensorFlow Data Validation makes the same of it as we do."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
from datetime import UTC, date, datetime
from decimal import Decimal as Number
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from featurestore.errors import FingerprintError, ManifestError, NotFoundError, RequestError
from featurestore.integrations.tensorflow import (
    dataset,
    feature_spec,
    open_tfrecord,
    to_tfrecord,
    training_statistics,
    write_schema,
    write_statistics,
)
from featurestore.semantics.values import scalars
from featurestore.statistics.column_statistics import ColumnStatistics
from featurestore.statistics.distances import infinity_norm, jensen_shannon
from featurestore.statistics.histogram import Histogram
from featurestore.types import FeatureType, days_of, micros_of
from tests.platforms.conftest import Told
from tests.platforms.examples_read import expected
from tests.platforms.frameworks import BLOCK, PAGES, example_project, run_blocks
from tests.platforms.shop import TYPES, bits
from tests.platforms.test_tensorflow import every_type, training_set, values_of
from tests.servers import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
TFDV = ROOT / ".venv-tfdv" / "bin" / "python"
CLIENT = Path(__file__).with_name("tfdv_client.py")
FIXED = [name for name, of in TYPES.items() if of.element is None or of.length is not None]
TEXTS = [name for name, of in TYPES.items() if (of.element or of).kind in {"String", "Decimal"}]


def run_tfdv(**asked: Any) -> Any:
    done = subprocess.run(
        [TFDV, "-W", "ignore", str(CLIENT)],
        input=json.dumps(asked), env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def read_examples(path: Path) -> list[Any]:
    opened = open_tfrecord(path)
    read = tf.data.TFRecordDataset(opened.files, compression_type=opened.compression_type)
    return [tf.train.Example.FromString(record.numpy()) for record in read]


def test_tensorflow_reads_every_example(tmp_path: Path, tell: Told) -> None:
    """Feature by feature as its own class has them: null apart from an empty list, each float and byte."""
    compared, table = 0, every_type(500)
    for words in ({}, {"compression": "gzip"}, {"rows_per_file": 77}, {"rows_per_file": 250, "compression": "gzip"}):
        to_tfrecord(table, tmp_path / "set", **words)
        examples = read_examples(tmp_path / "set")
        assert len(examples) == 500
        for name, of in TYPES.items():
            for example, given in zip(examples, scalars(table[name]), strict=True):
                wanted = expected(of, given)
                assert (name in example.features.feature) == (wanted is not None)
                if wanted is not None:
                    feature = example.features.feature[name]
                    kind = feature.WhichOneof("kind")
                    assert (kind, bits(list(getattr(feature, kind).value))) == (wanted[0], bits(wanted[1])), (
                        name,
                        given,
                    )
                compared += 1
    tell(
        "tensorflow",
        version=f"tensorflow {version('tensorflow_cpu')}",
        ran="it read the records, and was given batches",
        compared=compared,
    )


def of_tensor(found: Any, rows: int) -> list[list[Any]]:
    """The values of each row, whichever tensor has them."""
    if isinstance(found, tf.SparseTensor):
        lists: list[list[Any]] = [[] for _ in range(rows)]
        for (row, _), item in zip(found.indices.numpy(), found.values.numpy().tolist(), strict=True):
            lists[row].append(item)
        return lists
    if isinstance(found, tf.RaggedTensor):
        return found.to_list()
    return [one if isinstance(one, list) else [one] for one in found.numpy().tolist()]


def test_its_parser_takes_the_feature_spec(tmp_path: Path, tell: Told) -> None:
    """Of the frame, the file and the records; null is no value, or what `defaults` say; a null among `required` is an error."""
    table, compared = every_type(400), 0
    pq.write_table(table, tmp_path / "set.parquet")
    to_tfrecord(table, tmp_path / "set")
    (batch,) = tf.data.TFRecordDataset(open_tfrecord(tmp_path / "set").files).batch(400)
    defaults = {
        name: np.full(of.length, -1.0, np.float32) if of.length else b"?" if name in TEXTS or name in {"raw"} else -1
        for name, of in TYPES.items()
        if name in FIXED
    }
    for given in (table, tmp_path / "set.parquet", open_tfrecord(tmp_path / "set")):
        for words in ({}, {"defaults": defaults}):
            parsed = tf.io.parse_example(batch, feature_spec(given, **words))
            assert {*parsed} == {*TYPES}
            for name, of in TYPES.items():
                found = of_tensor(parsed[name], 400)
                for told, item in zip(found, scalars(table[name]), strict=True):
                    wanted = expected(of, item)
                    instead = [] if not words or name not in FIXED else np.ravel(defaults[name]).tolist()
                    assert bits([float(one) if of.is_float else one for one in told]) == bits(
                        [float(one) if of.is_float else one for one in (instead if wanted is None else wanted[1])]
                    ), (name, item, told)
                    compared += 1
    whole = training_set({"x": pa.array([1, 2]), "e": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))})
    to_tfrecord(whole, tmp_path / "whole")
    spec = feature_spec(whole, required=["x", "e"])
    (batch,) = tf.data.TFRecordDataset(open_tfrecord(tmp_path / "whole").files).batch(2)
    parsed = tf.io.parse_example(batch, spec)
    assert parsed["x"].numpy().tolist() == [1, 2]
    assert parsed["e"].numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]
    to_tfrecord(training_set({"x": pa.array([1, None]), "e": whole["e"]}), tmp_path / "holes")
    (batch,) = tf.data.TFRecordDataset(open_tfrecord(tmp_path / "holes").files).batch(2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Feature: x .*is required but could not be found"):
        tf.io.parse_example(batch, spec)
    assert [*feature_spec(open_tfrecord(tmp_path / "set"), columns=["wide", "flag"])] == ["wide", "flag"]
    for words, error, says in (
        ({"required": "x"}, RequestError, "required is a list of names"),
        ({"required": ["y"]}, NotFoundError, "There is no column 'y'"),
        (
            {"defaults": {"names": [b""]}},
            RequestError,
            "'names' is Array\\(String\\), whose lists have no fixed length",
        ),
        ({"columns": ["y"]}, NotFoundError, "'y'"),
    ):
        for given in (table, open_tfrecord(tmp_path / "set")):
            with pytest.raises(error, match=says):
                feature_spec(given, **words)
    tell(
        "tensorflow",
        version=f"tensorflow {version('tensorflow_cpu')}",
        ran="it read the records, and was given batches",
        compared=compared,
    )


EXACT = {
    "Bool": tf.bool, "Int32": tf.int32, "Int64": tf.int64, "Float32": tf.float32, "Float64": tf.float64, "String": tf.string,
    "Bytes": tf.string, "Date": tf.int32, "Timestamp": tf.int64, "Decimal": tf.string,
}  # fmt: skip


def as_tensor(of: FeatureType, value: Any) -> Any:
    """What a value is in a tensor of its type; of null what stands there where nothing is said."""
    if value is None:
        value = {"Bool": False, "Int32": 0, "Int64": 0, "Float32": math.nan, "Float64": math.nan, "String": "", "Bytes": b"",
                 "Date": date(1970, 1, 1), "Timestamp": datetime(1970, 1, 1, tzinfo=UTC), "Decimal": Number(0).scaleb(-of.scale), "Array": [],
                 "Embedding": [math.nan] * (of.length or 0)}[of.kind]  # fmt: skip
    if of.element is not None:
        return [as_tensor(of.element, item) for item in value]
    if of.kind in {"Date", "Timestamp"}:
        return days_of(value) if of.kind == "Date" else micros_of(value)
    text = format(value, "f") if of.kind == "Decimal" else value
    return text.encode() if isinstance(text, str) else text


def rows_of(batches: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for batch in batches:
        for name, tensor in batch.items():
            found.setdefault(name, []).extend(
                tensor.to_list() if isinstance(tensor, tf.RaggedTensor) else tensor.numpy().tolist()
            )
    return found


@pytest.mark.parametrize("kind", ["table", "file"])
def test_tf_data_has_the_very_values(tmp_path: Path, kind: str, tell: Told) -> None:
    """In the types that they have, doubles as doubles; null told apart; the same in each epoch."""
    table, compared = every_type(333), 0
    pq.write_table(table, tmp_path / "set.parquet", row_group_size=50)
    found = dataset(table if kind == "table" else tmp_path / "set.parquet", batch_size=64, is_null=True)
    assert len(found) == 6
    for _ in range(2):
        sizes = [int(batch["flag"].shape[0]) for batch in found]
        assert sizes == [64] * 5 + [13]
        rows = rows_of(found)
        assert len(rows) == 2 * len(TYPES)
        for name, of in TYPES.items():
            assert found.element_spec[name].dtype == EXACT[(of.element or of).kind]
            given = scalars(table[name])
            assert rows[f"{name}__is_null"] == [item is None for item in given]
            assert bits(rows[name]) == bits([as_tensor(of, item) for item in given]), name
            compared += len(given)
    tell(
        "tensorflow",
        version=f"tensorflow {version('tensorflow_cpu')}",
        ran="it read the records, and was given batches",
        compared=compared,
    )


def test_tf_data_of_few_columns(tmp_path: Path) -> None:
    """A label apart; what stands for null; an error where nothing does, and for a null in a list; no rows at all."""
    table = training_set(
        {
            "x": pa.array([0.1, None, 3.0]), "n": pa.array([1, None, 3]), "y": pa.array([1, 0, 1]),
            "s": pa.array(["a\0", "", "\0"]), "l": pa.array([[1], None, [2, None]]),
        }
    )  # fmt: skip
    ((features, labels),) = dataset(table, batch_size=5, columns=["x", "s", "y"], label="y")
    assert bits(features["x"].numpy().tolist()) == bits([0.1, math.nan, 3.0])
    assert features["s"].numpy().tolist() == [b"a\0", b"", b"\0"]
    assert labels.numpy().tolist() == [1, 0, 1]
    (batch,) = dataset(table, batch_size=5, columns=["x", "n"], defaults={"x": -1.0, "n": -(2**63)})
    assert batch["n"].numpy().tolist() == [1, -(2**63), 3]
    assert batch["x"].numpy().tolist() == [0.1, -1.0, 3.0]
    with pytest.raises(
        tf.errors.OpError, match="row 1, column 'n': it is null, and a tensor of Int64 has no null; defaults="
    ):
        list(dataset(table, batch_size=5, columns=["n"]))
    with pytest.raises(tf.errors.OpError, match="row 2, column 'l': an element of the list is null"):
        list(dataset(table, batch_size=2, columns=["l"]))
    empty = dataset(table.slice(0, 0), batch_size=2, columns=["x", "s"])
    assert (list(empty), len(empty)) == ([], 0)
    assert empty.element_spec["x"].dtype == tf.float64
    for words, error, says in (
        ({"batch_size": 0}, RequestError, "batch_size is a whole number from 1 on"),
        ({"label": "z"}, NotFoundError, "There is no column 'z'"),
        ({"defaults": {"z": 1}}, NotFoundError, "There is no column 'z'"),
        ({"defaults": {"n": "a"}}, RequestError, "defaults: 'n' is Int64, and 'a' is no integer"),
        ({"columns": ["z"]}, NotFoundError, "no column 'z'"),
    ):
        with pytest.raises(error, match=says):
            dataset(table, **{"batch_size": 2, **words})
    clash = training_set({"x": pa.array([1]), "x__is_null": pa.array([True])})
    with pytest.raises(RequestError, match="is_null adds a tensor 'x__is_null', which is a column too"):
        dataset(clash, batch_size=1, is_null=True)


def test_tf_data_of_changed_definitions_is_refused(tmp_path: Path) -> None:
    """As records are; a frame whose spine is a relation is read for each epoch all the same."""
    import duckdb

    with example_project(tmp_path) as names:
        store, rides = names["store"], names["rides"]
        frame = store.get_historical_features(rides, "ranking")
        pq.write_table(pa.Table.from_pandas(rides, preserve_index=False), tmp_path / "rides.parquet")
        whole = rows_of(dataset(frame, batch_size=4, store=store, is_null=True))
        for spine in (duckdb.sql("SELECT * FROM rides"), tmp_path / "rides.parquet"):
            lazy = dataset(store.get_historical_features(spine, "ranking"), batch_size=3, store=store, is_null=True)
            for _ in range(2):
                assert bits(list(rows_of(lazy).values())) == bits(list(whole.values()))
        path = frame.to_parquet(tmp_path / "set.parquet")
        definitions = tmp_path / "definitions.py"
        with pytest.raises(ManifestError, match="has no manifest"):
            dataset(frame.to_arrow().replace_schema_metadata(None), batch_size=4, store=store)
    definitions.write_text(definitions.read_text().replace('refresh="1h"', 'refresh="2h"'))
    with pytest.raises(FingerprintError, match="~ parts.drivers.view.refresh: 1h → 2h"):
        dataset(path, batch_size=4, store=str(tmp_path))


def test_hostile_names_reach_tensorflow(tmp_path: Path) -> None:
    """Names with dots, quotes, lines, of 10,000 letters and of none."""
    names = ["a", "A", "a.b", 'a"b\\', "a\nb", "日本", "n" * 10_000, "a b", "{}"]
    table = training_set({name: pa.array([place, None]) for place, name in enumerate(names)})
    to_tfrecord(table, tmp_path / "set")
    (batch,) = tf.data.TFRecordDataset(open_tfrecord(tmp_path / "set").files).batch(2)
    parsed = tf.io.parse_example(batch, feature_spec(table))
    assert [of_tensor(parsed[name], 2) for name in names] == [[[place], []] for place in range(len(names))]
    rows = rows_of(dataset(table, batch_size=2, defaults=dict.fromkeys(names, -1)))
    assert [rows[name] for name in names] == [[place, -1] for place in range(len(names))]


def test_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/platforms/tensorflow.md with TensorFlow, and its last block with TFDV in its own environment."""
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((PAGES / "tensorflow.md").read_text())
    with example_project(tmp_path) as names:
        for block in blocks:
            if "tfdv" not in block:
                run_blocks(f"```python\n{block}```\n", names)
    (ours,) = [block for block in blocks if "tfdv" in block]
    subprocess.run(
        [TFDV, "-W", "ignore", "-c", ours],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        timeout=PATIENCE_SECONDS,
    )


# --- TensorFlow Data Validation -------------------------------------------------------------------------------------


def approximately(value: float) -> Any:
    return pytest.approx(value, rel=1e-6, abs=1e-37)


def test_tfdv_makes_the_same_of_the_records(tmp_path: Path, tell: Told) -> None:
    """It reads statistics and schema, finds nothing wrong, and counts the records' values as we count the training set's."""
    draw, compared = random.Random(5), 0
    columns = {name: pa.array(values_of(draw, of, 900), of.arrow) for name, of in TYPES.items()}
    finite = [None if draw.random() < 0.1 else draw.uniform(-5, 90) for _ in range(900)]
    whole = [draw.randrange(-50, 50) for _ in range(900)]
    table = training_set(
        {**columns, "finite": pa.array(finite), "whole": pa.array(whole), "never": pa.nulls(900, pa.float64())}
    )
    to_tfrecord(table, tmp_path / "set")
    found = training_statistics(table)
    write_statistics(found, tmp_path / "stats.pbtxt", name="a set")
    write_schema(found, tmp_path / "schema.pbtxt")
    told = run_tfdv(
        records=str(tmp_path / "set"), stats=str(tmp_path / "stats.pbtxt"), schema=str(tmp_path / "schema.pbtxt")
    )
    assert told["anomalies"] == [{}, {}]
    assert told["theirs"]["rows"] == told["ours"]["rows"] == 900
    for name in table.column_names:
        ours = told["ours"]["features"][name]
        theirs = told["theirs"]["features"].get(name)
        if name == "never":
            assert theirs is None
            assert ours["num_stats"]["common_stats"]["num_missing"] == "900"
            continue
        is_bytes = name == "raw"  # of which TFDV knows nothing before it is told the schema
        (kind,) = [key for key in ours if key.endswith("_stats") and key != "custom_stats"]
        mine, its = ours[kind], theirs["string_stats" if is_bytes else kind]
        for word in ("num_non_missing", "num_missing", "min_num_values", "max_num_values", "tot_num_values"):
            assert mine["common_stats"][word] == its["common_stats"][word], (name, word)
            compared += 1
        if kind == "string_stats":
            assert mine["unique"] == its["unique"], name
            assert mine["avg_length"] == pytest.approx(its["avg_length"], rel=1e-6)
            assert ranks(mine) == ranks(its), name
            assert sorted(one["frequency"] for one in mine["top_values"]) == sorted(
                one["frequency"] for one in its["top_values"]
            )
            compared += 4
        elif kind == "num_stats":
            assert mine["num_zeros"] == its["num_zeros"] if name not in {"wide", "levels"} else True
            assert histogram(mine)["num_nan"] == histogram(its)["num_nan"]
            compared += 2
            if name in {"finite", "whole", "small", "day", "moment", "flag", "flags"}:
                for word in ("mean", "std_dev", "min", "max"):
                    assert mine[word] == approximately(its[word]), (name, word)
                edges = [[bucket["low_value"] for bucket in histogram(side)["buckets"]] for side in (mine, its)]
                assert edges[0] == approximately(edges[1])
                compared += 14
    for name in ("finite", "whole"):  # whose sketches are exact
        mine, its = (told[side]["features"][name]["num_stats"] for side in ("ours", "theirs"))
        counts = [[bucket["sample_count"] for bucket in histogram(side)["buckets"]] for side in (mine, its)]
        assert counts[0] == pytest.approx(counts[1], abs=20)
        assert mine["median"] == pytest.approx(its["median"], abs=2)
    for name, feature in told["inferred"].items():
        assert (
            feature["type"]
            == {"bytes_list": "BYTES", "float_list": "FLOAT", "int64_list": "INT"}[expected_kind(name, table)]
        ), name
    tell(
        "tfdv",
        version=f"tensorflow-data-validation {told['version']}",
        ran="it read statistics, schema and records, and measured distances",
        compared=compared,
    )


def expected_kind(name: str, table: pa.Table) -> str:
    of = open_type(table, name)
    value = next(item for item in scalars(table[name]) if item is not None)
    found = expected(of, value)
    assert found is not None
    return found[0]


def open_type(table: pa.Table, name: str) -> FeatureType:
    from featurestore.semantics.columns import type_of_arrow

    of = type_of_arrow(table.schema.field(name).type)
    assert of is not None
    return of


def ranks(stats: dict[str, Any]) -> dict[str, float]:
    return {bucket["label"]: bucket["sample_count"] for bucket in stats["rank_histogram"]["buckets"]}


def histogram(stats: dict[str, Any]) -> Any:
    (found,) = [one for one in stats["histograms"] if one["type"] == "STANDARD"]
    return found


def as_tfdv(one: ColumnStatistics, other: ColumnStatistics) -> float:
    """Our distance by what TFDV has the column for; of NaN it forgets how many there are where edges differ, and so does this."""
    if one.numbers is None or other.numbers is None or one.type.startswith("Decimal"):
        assert one.texts is not None
        assert other.texts is not None
        return infinity_norm(dict(one.texts.frequent), dict(other.texts.frequent))
    sides = one.numbers.histogram, other.numbers.histogram
    edges = [{edge for bucket in side.buckets if bucket.low != bucket.high for edge in bucket[:2]} for side in sides]
    if edges[0] != edges[1]:
        return jensen_shannon(*(Histogram(side.buckets) for side in sides))
    return jensen_shannon(*sides)


def test_tfdv_measures_our_distances(tmp_path: Path, tell: Told) -> None:
    """From our statistics, to 1e-12: of every type, with NaN, infinities, single values and one side that is narrower."""
    asked, expected_ones, compared = [], [], 0
    for seed in range(8):
        draw = random.Random(seed)
        sides = []
        for side, rows in (("train", 400), ("serve", 300)):
            columns = {
                name: pa.array(values_of(draw, of, rows), of.arrow)
                for name, of in TYPES.items()
                if name not in {"raw", "embedding"}
            }
            shift = 0 if side == "train" else seed
            columns["normal"] = pa.array([draw.gauss(shift / 4, 1 + seed / 8) for _ in range(rows)])
            columns["single"] = pa.array(
                [2.5 if draw.random() < 0.5 or seed % 2 else draw.choice([2.5, 9.0]) for _ in range(rows)]
            )
            columns["odd"] = pa.array(
                [draw.choice([math.nan, math.inf, -math.inf, 1.0, draw.random()]) for _ in range(rows)]
            )
            columns["few"] = pa.array(
                [draw.choice("abcdefg"[: 3 + draw.randrange(4 + shift % 3)]) for _ in range(rows)]
            )
            found = training_statistics(training_set(columns))
            write_statistics(found, tmp_path / f"{side}{seed}.pbtxt")
            sides.append(found)
        write_schema(sides[0], tmp_path / f"schema{seed}.pbtxt")
        asked.append(
            {
                "train": str(tmp_path / f"train{seed}.pbtxt"),
                "serve": str(tmp_path / f"serve{seed}.pbtxt"),
                "schema": str(tmp_path / f"schema{seed}.pbtxt"),
                "texts": ["text", "few", "names", "price"],
            }
        )
        expected_ones.append(
            {column.name: as_tfdv(column, sides[1].column(column.name)) for column in sides[0].columns}
        )
    told = run_tfdv(distances=asked)
    for found, wanted in zip(told["distances"], expected_ones, strict=True):
        assert {*found} == {*wanted}
        for name, value in wanted.items():
            assert found[name] == pytest.approx(value, rel=0, abs=1e-12), name
            compared += 1
    tell(
        "tfdv",
        version=f"tensorflow-data-validation {told['version']}",
        ran="it read statistics, schema and records, and measured distances",
        compared=compared,
    )

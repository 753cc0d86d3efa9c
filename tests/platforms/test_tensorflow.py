"""TFRecords, statistics and schemas as they are written without TensorFlow; `make test-tensorflow` reads them with it."""

from __future__ import annotations

import datetime as dt
import json
import math
import random
import re
import signal
import subprocess
import sys
from decimal import Decimal as Number
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.errors import (
    FeatureStoreError,
    FingerprintError,
    ManifestError,
    MissingPackageError,
    NotFoundError,
    RequestError,
)
from featurestore.integrations.tensorflow import (
    examples,
    feature_spec,
    open_tfrecord,
    to_tfrecord,
    training_statistics,
    write_schema,
    write_statistics,
)
from featurestore.integrations.tensorflow.training_rows import TrainingRows
from featurestore.semantics.values import scalars
from featurestore.training.training_frame import MANIFEST_KEY
from featurestore.types import FarTimestamp, FeatureType, Float64, String, Timestamp
from tests.backup.test_backup import full_disk
from tests.platforms.conftest import Told
from tests.platforms.examples_read import checksum, expected, features, float32, records
from tests.platforms.frameworks import BLOCK, PAGES, example_project, run_blocks
from tests.platforms.shop import TYPES, bits, value
from tests.servers import PATIENCE_SECONDS

MANIFEST = {"service": "adhoc", "fingerprint": "0" * 32}
"""The least that says what a training set is of."""


def training_set(columns: dict[str, Any] | pa.Table) -> pa.Table:
    """A table that says that it is one."""
    return pa.table(columns).replace_schema_metadata({MANIFEST_KEY: json.dumps(MANIFEST).encode()})


def values_of(draw: random.Random, of: FeatureType, rows: int) -> list[Any]:
    """Values with edges; an array has no null elements, which records have not."""
    found = [value(draw, of) for _ in range(rows)]
    if of.element is None:
        return found
    whole = [[item for item in one if item is not None] for one in found]
    return [None if draw.random() < 0.1 else one for one in whole]


def every_type(rows: int, seed: int = 3) -> pa.Table:
    draw = random.Random(seed)
    return training_set({name: pa.array(values_of(draw, of, rows), of.arrow) for name, of in TYPES.items()})


def read(path: Path) -> list[dict[str, Any]]:
    """Every record of the set of records at a path."""
    return [features(record) for file in open_tfrecord(path).files for record in records(Path(file))]


def compare(table: pa.Table, found: list[dict[str, Any]], types: dict[str, FeatureType]) -> int:
    """How many values were compared, all of which are what they are to be."""
    assert len(found) == table.num_rows
    for name, of in types.items():
        for row, given in enumerate(scalars(table[name])):
            told, wanted = found[row].get(name), expected(of, given)
            assert (told is None) == (wanted is None), (row, name, given, told)
            if told is not None and wanted is not None:
                assert (told[0], bits(told[1])) == (wanted[0], bits(wanted[1])), (row, name, given, told)
    assert all(set(one) <= {*types} for one in found)
    return table.num_rows * len(types)


def blocks(page: str) -> list[str]:
    """The Python blocks of a page that need neither TensorFlow nor TFDV."""
    return [
        block
        for block in BLOCK.findall((PAGES / page).read_text())
        if "tensorflow as tf" not in block and "tfdv" not in block
    ]


def test_the_page_runs_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/platforms/tensorflow.md: what is written is read back, with the values of the store."""
    monkeypatch.chdir(tmp_path)
    with example_project(tmp_path) as names:
        for block in blocks("tensorflow.md"):
            run_blocks(f"```python\n{block}```\n", names)
        frame = names["frame"]
        table = frame.to_arrow()
        types = {"driver_id": String, "event_timestamp": Timestamp, "tip": Float64, **frame.types}
        compare(table, read(tmp_path / "rides.tfrecord"), types)
        assert (
            open_tfrecord(tmp_path / "rides.tfrecord", store=names["store"]).manifest.fingerprint
            == frame.manifest["fingerprint"]
        )
        assert "tensorflow" not in sys.modules


def test_the_statistics_of_a_frame_are_kept_with_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a Parquet file of the same frame are, of the features that are written; of a table nobody knows the service."""
    monkeypatch.chdir(tmp_path)
    with example_project(tmp_path) as names:
        for block in blocks("tensorflow.md")[:1]:
            run_blocks(f"```python\n{block}```\n", names)
        frame, store = names["frame"], names["store"]
        parquet = store.statistics(training_set=frame.to_parquet(tmp_path / "rides.parquet")).found[0]
        to_tfrecord(frame, tmp_path / "a.tfrecord", rows_per_file=2)
        (kept,) = store.statistics(training_set=tmp_path / "a.tfrecord").found
        assert (kept.rows, kept.features) == (len(frame), parquet.features)
        (first, *_) = frame.types
        to_tfrecord(frame, tmp_path / "b.tfrecord", columns=[first])
        (kept,) = store.statistics(training_set=tmp_path / "b.tfrecord").found
        assert kept.features == parquet.features[:1]
        to_tfrecord(frame.to_arrow(), tmp_path / "c.tfrecord")
        assert store.statistics().found[0].training_set == str(tmp_path / "b.tfrecord")


def test_every_type_is_read_back(tmp_path: Path, tell: Told) -> None:
    """By Protocol Buffers' own library: from a table, a Parquet file with and without rows groups in between, packed and in several files."""
    table, compared = every_type(700), 0
    pq.write_table(table, tmp_path / "set.parquet", row_group_size=130)
    for given, words in (
        (table, {}), (tmp_path / "set.parquet", {"rows_per_file": 100}), (str(tmp_path / "set.parquet"), {"compression": "gzip"}),
        (table, {"rows_per_file": 350, "compression": "gzip"}), (table.slice(0, 1), {}), (table.slice(0, 0), {"rows_per_file": 9}),
    ):  # fmt: skip
        whole = given if isinstance(given, pa.Table) else table
        written = to_tfrecord(given, tmp_path / "set.tfrecord", **words)
        compared += compare(whole, read(tmp_path / "set.tfrecord"), TYPES)
        opened = open_tfrecord(tmp_path / "set.tfrecord")
        assert (written.rows, opened.rows, list(opened.types.items())) == (
            whole.num_rows,
            whole.num_rows,
            list(TYPES.items()),
        )
        names = [Path(file).name for file in opened.files]
        count = -(-whole.num_rows // words["rows_per_file"]) or 1 if "rows_per_file" in words else None
        assert names == (
            ["set.tfrecord"] if count is None else [f"set.tfrecord-{place:05}-of-{count:05}" for place in range(count)]
        )
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            [*names, "set.parquet", "set.tfrecord.manifest.json"]
        )
        assert opened.compression_type == ("GZIP" if "compression" in words else "")
    tell(
        "tensorflow",
        version=f"protobuf {version('protobuf')}",
        ran="TFRecords were written without it, and read by Protocol Buffers",
        compared=compared,
    )


def test_checksums_are_those_of_the_standard(tmp_path: Path) -> None:
    """The check value of CRC-32C; equal rows are equal files, packed too, whenever they are written."""
    plain = checksum(b"123456789") - 0xA282EAD8 & 0xFFFFFFFF
    assert (plain >> 17 | plain << 15) & 0xFFFFFFFF == 0xE3069283
    for compression in (None, "gzip"):
        to_tfrecord(every_type(20), tmp_path / "a", compression=compression)
        to_tfrecord(every_type(20), tmp_path / "b", compression=compression)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_frame_is_written_as_it_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spine that is a file, chunk by chunk; the registry hears of it, and the manifest counts all rows."""
    monkeypatch.setattr("featurestore.training.spine.CHUNK_ROWS", 3)
    with example_project(tmp_path) as names:
        store, rides = names["store"], names["rides"]
        pa_rides = pa.Table.from_pandas(rides, preserve_index=False)
        pq.write_table(pa_rides, tmp_path / "rides.parquet")
        whole = store.get_historical_features(rides, "ranking")
        to_tfrecord(store.get_historical_features(tmp_path / "rides.parquet", "ranking"), tmp_path / "a")
        to_tfrecord(whole, tmp_path / "b")
        to_tfrecord(whole.to_parquet(tmp_path / "b.parquet"), tmp_path / "c")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
        manifests = [store.load_manifest(tmp_path / name) for name in "abc"]
        assert [one.raw["rows"] for one in manifests] == [4, 4, 4]
        assert {one.fingerprint for one in manifests} == {whole.manifest["fingerprint"]}
        frames = {Path(frame.path).name for frame in store.registry.frames()}
        assert frames == {"a", "b", "b.parquet"}


def test_what_the_report_counts(tmp_path: Path) -> None:
    """What float32 rounds, zeroes and makes infinite; integers that it has not; nulls and empty lists; instants that were finer."""
    wide = [
        0.1,
        1 / 3,
        1e39,
        -1e300,
        5e-324,
        1e-40,
        1.0,
        -0.0,
        math.nan,
        math.inf,
        3.4028235677973366e38,
        2.0**-149,
        None,
    ]
    whole = [0, 1 << 24, (1 << 24) + 1, -(1 << 63), (1 << 63) - 1, (1 << 53) + 1, None]
    finer = pa.array([1_000, 1_001, -1, None], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    pad = len(wide)

    def padded(values: Any, of: pa.DataType) -> pa.Array:
        return pa.concat_arrays(
            [pa.array(values, of) if isinstance(values, list) else values, pa.nulls(pad - len(values), of)]
        )

    table = training_set(
        {
            "wide": padded(wide, pa.float64()),
            "whole": padded(whole, pa.int64()),
            "finer": padded(finer, finer.type),
            "lists": padded([[0.1, 0.5], [], None], pa.list_(pa.float64())),
            "half": padded(pa.array([np.float16(0.1)]), pa.float16()),
        }
    )
    written = to_tfrecord(table, tmp_path / "set")
    found = written.column("wide")
    changed = [given for given in wide if given is not None and given == given and float32(given) != given]
    errors = [abs(float32(given) - given) for given in changed if math.isfinite(float32(given))]
    relative = [abs(float32(given) - given) / abs(given) for given in changed if math.isfinite(float32(given))]
    assert (found.rounded, found.to_infinity, found.to_zero) == (len(changed), 3, 1) == (7, 3, 1)
    assert (found.largest_error, found.largest_relative_error) == (max(errors), max(relative)) == (max(errors), 1.0)
    assert (found.values, found.nulls) == (pad - 1, 1)
    assert written.column("whole").beyond_float32 == 3
    assert written.column("finer").floored == 2
    lists = written.column("lists")
    assert (lists.values, lists.nulls, lists.empty, lists.rounded) == (2, pad - 2, 1, 1)
    assert written.column("half").rounded == 0
    assert "rounded to float32" in str(written)
    assert json.loads(json.dumps(written.to_dict()))["columns"][0]["rounded"] == 7
    assert open_tfrecord(tmp_path / "set").columns == written.columns
    rows = read(tmp_path / "set")
    assert [row.get("finer") for row in rows[:4]] == [
        ("int64_list", [1]),
        ("int64_list", [1]),
        ("int64_list", [-1]),
        None,
    ]
    assert [row.get("lists") for row in rows[1:3]] == [("float_list", []), None]
    assert rows[0]["half"] == ("float_list", [float(np.float16(0.1))])


def test_hostile_names_and_texts(tmp_path: Path) -> None:
    """Names with dots, quotes, lines, of 100,000 letters and of none; texts with NULs; what differs in case alone."""
    names = ["a", "A", "a.b", 'a"b\\', "a\nb", "\0", "日本", "n" * 100_000, "", "ﬀ", "{}"]
    texts = ["\0", "a\0", "", "é" * 70_000, None]
    table = training_set({name: pa.array(texts[place % 3 :] + texts[: place % 3]) for place, name in enumerate(names)})
    to_tfrecord(table, tmp_path / "set")
    compare(table, read(tmp_path / "set"), dict.fromkeys(names, String))
    found = training_statistics(table)
    write_statistics(found, tmp_path / "stats.pbtxt", name='set "1"\n')
    write_schema(found, tmp_path / "schema.pbtxt")
    (dataset,) = text_proto(tmp_path / "stats.pbtxt")["datasets"]
    assert dataset["name"] == ['set "1"\n']
    assert [feature["path"][0]["step"][0] for feature in dataset["features"]] == names
    assert [feature["name"][0] for feature in text_proto(tmp_path / "schema.pbtxt")["feature"]] == names
    values = dataset["features"][0]["string_stats"][0]["top_values"]
    assert sorted(one["value"][0] for one in values) == sorted(text for text in texts if text is not None)


def test_times_beyond_every_calendar(tmp_path: Path) -> None:
    """The least and the greatest Timestamp are integers like others."""
    times = pa.array([(1 << 63) - 1, -(1 << 63)], pa.int64()).cast(pa.timestamp("us", "UTC"))
    to_tfrecord(training_set({"t": times}), tmp_path / "set")
    assert scalars(times) == [FarTimestamp((1 << 63) - 1), FarTimestamp(-(1 << 63))]
    assert [row["t"][1] for row in read(tmp_path / "set")] == [[(1 << 63) - 1], [-(1 << 63)]]


def test_columns_of_a_spine_of_other_types(tmp_path: Path) -> None:
    """Unsigned integers that fit, categories, long texts and decimals of few bits are what they hold; a column of no type is left out."""
    table = training_set(
        {
            "u": pa.array([0, (1 << 63) - 1, None], pa.uint64()),
            "c": pa.array(["x", None, "x"]).dictionary_encode(),
            "l": pa.array(["x", "y", None], pa.large_string()),
            "n": pa.nulls(3),
            "d": pa.array([Number("1.50"), Number("-0.05"), None], pa.decimal128(4, 2)),
            "o": pa.array([dt.date(1969, 12, 31), None, dt.date(9999, 12, 31)], pa.date32()),
        }
    )
    written = to_tfrecord(table, tmp_path / "set")
    assert [(one.type, one.nulls) for one in written.columns] == [
        ("Int64", 1), ("String", 1), ("String", 1), (None, 3), ("Decimal(4, 2)", 1), ("Date", 1),
    ]  # fmt: skip
    rows = read(tmp_path / "set")
    assert [row.get("u") for row in rows] == [("int64_list", [0]), ("int64_list", [(1 << 63) - 1]), None]
    assert [row.get("c") for row in rows] == [("bytes_list", [b"x"]), None, ("bytes_list", [b"x"])]
    assert [row.get("d") for row in rows] == [("bytes_list", [b"1.50"]), ("bytes_list", [b"-0.05"]), None]
    assert [row.get("o") for row in rows] == [("int64_list", [-1]), None, ("int64_list", [2932896])]
    assert all("n" not in row for row in rows)
    assert [one.name for one in training_statistics(table).columns] == ["u", "c", "l", "d", "o"]
    empty = training_set({"x": pa.array([], pa.float64())})
    assert to_tfrecord(empty, tmp_path / "empty").rows == 0
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"u": pa.array([1, 1 << 63], pa.uint64())}, "row 1, column 'u': 9223372036854775808 is beyond Int64"),
        (
            {"s": pa.array([Number("1E+2")], pa.decimal128(5, -2))},
            r"column 's' is decimal128\(5, -2\), which has no form here; leave it out by columns=",
        ),
        (
            {"s": pa.array([{"a": 1}])},
            r"column 's' is struct<a: int64>, which has no form here; leave it out by columns=",
        ),
        ({"t": pa.array([dt.time(1)])}, "column 't' is time64"),
        ({"n": pa.array([[[1]]])}, "column 'n' is list<"),
        (
            {"x": pa.array([[1], [2, None]])},
            "Row 1, column 'x': an element of the list is null, and tf.Example has no null",
        ),
        ({"x": pa.array([["a"]] * 3000 + [[None]])}, "Row 3000, column 'x': an element"),
    ],
)
def test_what_has_no_form_is_refused(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    """By column and row, with what to do; and it can be left out. Nothing is written of it."""
    beside = pa.array(["a"] * len(next(iter(columns.values()))))
    table = training_set({**columns, "beside": beside})
    with pytest.raises(RequestError, match=says):
        to_tfrecord(table, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
    assert [one.name for one in to_tfrecord(table, tmp_path / "set", columns=["beside"]).columns] == ["beside"]


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    """By name, in our own errors, before anything is written."""
    table = every_type(2)
    plain = table.replace_schema_metadata(None)
    pq.write_table(plain, tmp_path / "plain.parquet")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and no more")
    wrong: list[tuple[type[Exception], str, Any, dict[str, Any]]] = [
        (ManifestError, "list is no manifest", [1], {}),
        (ManifestError, "the Arrow table has no manifest|The Arrow table has no manifest", plain, {}),
        (ManifestError, "has no manifest in its metadata", tmp_path / "plain.parquet", {}),
        (ManifestError, "There is no file", tmp_path / "gone.parquet", {}),
        (ManifestError, "does not end as one", tmp_path / "no.parquet", {}),
        (RequestError, "compression is 'gzip', or None, and not 'GZIP'", table, {"compression": "GZIP"}),
        (RequestError, "rows_per_file is a whole number from 1 on, and not 0", table, {"rows_per_file": 0}),
        (RequestError, "rows_per_file is a whole number from 1 on, and not True", table, {"rows_per_file": True}),
        (RequestError, "columns is a list of names, and not 'flag'", table, {"columns": "flag"}),
        (RequestError, r"columns is a list of names, and not \[\]", table, {"columns": []}),
        (RequestError, "columns names 'flag' twice", table, {"columns": ["flag", "flag"]}),
        (NotFoundError, "no column 'flog'.*Did you mean 'flag'", table, {"columns": ["flog"]}),
        (FeatureStoreError, "is a folder, and a file is to be written", table, {"path": tmp_path}),
        (FeatureStoreError, "there is no folder", table, {"path": tmp_path / "none" / "set"}),
        (FeatureStoreError, "is no path", table, {"path": "a\0b"}),
    ]
    before = sorted(tmp_path.iterdir())
    for error, says, given, words in wrong:
        with pytest.raises(error, match=says):
            to_tfrecord(given, **{"path": tmp_path / "set", **words})
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(RequestError, match="int is no training set; give a training frame, the Parquet file"):
        training_statistics(3)


def test_an_example_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its row and its largest column."""
    monkeypatch.setattr(examples, "LARGEST_EXAMPLE_BYTES", 1000)
    texts = pa.array(["a"] * 2500 + ["b" * 1000])
    with pytest.raises(
        RequestError,
        match=r"Row 2500 makes an example of 10\d\d bytes, and Protocol Buffers hold 1000; most of it is column 'long'",
    ):
        to_tfrecord(training_set({"long": texts, "short": pa.array([1] * 2501)}), tmp_path / "set")


def test_what_lay_there_stays_until_all_is_written(tmp_path: Path) -> None:
    """A mistake in a later batch, and a full disk, leave the set as it was; a smaller one leaves nothing of the larger."""
    target = tmp_path / "set"
    to_tfrecord(every_type(100), target, rows_per_file=10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    bad = training_set({"x": pa.array([["a"]] * 5000 + [[None]])})
    with pytest.raises(RequestError, match="Row 5000"):
        to_tfrecord(bad, target, rows_per_file=10)
    with full_disk(), pytest.raises(FeatureStoreError, match="The set of records cannot be written: disk full"):
        to_tfrecord(every_type(100), target)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "set-00099-of-00100").write_bytes(b"another's")
    to_tfrecord(every_type(100), target, rows_per_file=50)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "set-00000-of-00002", "set-00001-of-00002", "set-00099-of-00100", "set.manifest.json",
    ]  # fmt: skip


WRITER = """
import sys
from pathlib import Path
from featurestore.integrations.tensorflow import records, to_tfrecord
from tests.platforms.test_tensorflow import every_type
folder, moment = Path(sys.argv[1]), sys.argv[2]

def stopped(*_):
    print("here", flush=True)
    sys.stdin.read()

if moment == "writing":
    real = records._RecordWriter.add
    records._RecordWriter.add = lambda self, examples: (real(self, examples), stopped())
elif moment == "placing":
    records.replace = stopped  # every file has its final name, and the manifest is yet to come
to_tfrecord(every_type(3000, 4), folder / "set", rows_per_file=1000)
print("written", flush=True)
"""


@pytest.mark.parametrize(("moment", "stays"), [("writing", True), ("placing", False)])
def test_a_killed_writer_leaves_no_set_that_is_none(tmp_path: Path, moment: str, stays: bool) -> None:
    """Killed while it writes, the old set is there; while files get their names, there is none. The next writer clears what was left."""
    target = tmp_path / "set"
    to_tfrecord(every_type(30), target, rows_per_file=10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    command = [sys.executable, "-c", WRITER, str(tmp_path), moment]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "here\n"
        running.send_signal(signal.SIGKILL)
    if stays:
        assert {name: (tmp_path / name).read_bytes() for name in before} == before
        assert len(read(target)) == 30
    else:
        with pytest.raises(ManifestError, match=r"There is no file .*set, nor set\.manifest\.json beside it"):
            open_tfrecord(target)
    done = subprocess.run(
        [*command[:-1], "to the end"], check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert done.stdout == "written\n"
    assert len(read(target)) == 3000
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("featurestore-of-")] == []


def test_a_set_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    """A file that is gone or of another size, and a manifest that was changed or is of no records."""
    target = tmp_path / "set"
    to_tfrecord(every_type(30), target, rows_per_file=10)
    last = tmp_path / "set-00002-of-00003"
    whole = last.read_bytes()
    last.write_bytes(whole[:-1])
    with pytest.raises(
        ManifestError, match=rf"set-00002-of-00003 has {len(whole) - 1} bytes, and was written with {len(whole)}"
    ):
        open_tfrecord(target)
    with pytest.raises(ManifestError, match="opened by its path, and not by None"):
        open_tfrecord(None)  # type: ignore[arg-type]  # the mistake
    last.unlink()
    with pytest.raises(ManifestError, match="set-00002-of-00003 is not there"):
        open_tfrecord(target)
    last.write_bytes(whole)
    beside = tmp_path / "set.manifest.json"
    said = json.loads(beside.read_text())
    unsigned = {name: words for name, words in said.items() if name != "check"}
    for changed, says in (
        ({**said, "tfrecord": {}}, "damaged, or was changed by hand"),
        ({**unsigned, "tfrecord": {"format": 1}}, "damaged, or was changed by hand"),
        ({**unsigned, "tfrecord": {**said["tfrecord"], "files": [{"name": 3}]}}, "damaged, or was changed by hand"),
        (
            {**unsigned, "tfrecord": {**said["tfrecord"], "format": 2}},
            "is of records of format 2, and this version reads 1",
        ),
        ({**unsigned, "tfrecord": None}, "is of a training set, and of no records"),
    ):
        beside.write_text(json.dumps(changed))
        with pytest.raises(ManifestError, match=says):
            open_tfrecord(target)


def test_a_changed_definition_is_refused(tmp_path: Path) -> None:
    """With what changed; by a store or the path of its project, for a service and for a list of features."""
    with example_project(tmp_path) as names:
        store, rides = names["store"], names["rides"]
        for asked, name in (("ranking", "a"), (["drivers:fare"], "b")):
            to_tfrecord(store.get_historical_features(rides, asked), tmp_path / name)
            assert open_tfrecord(tmp_path / name, store=store).rows == 4
    definitions = tmp_path / "definitions.py"
    definitions.write_text(definitions.read_text().replace('refresh="1h"', 'refresh="2h"'))
    with FeatureStore(tmp_path) as changed:
        for name in ("a", "b"):
            for given in (changed, str(tmp_path)):
                with pytest.raises(FingerprintError, match="~ parts.drivers.view.refresh: 1h → 2h") as refused:
                    open_tfrecord(tmp_path / name, store=given)
                assert str(tmp_path / name) in str(refused.value)
            assert open_tfrecord(tmp_path / name).rows == 4


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors need TensorFlow, records a checksum, and statistics and what was written neither."""
    table = every_type(2)
    with pytest.raises(MissingPackageError, match="Tensors need tensorflow: pip install tensorflow"):
        feature_spec(table)
    to_tfrecord(table, tmp_path / "set")
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    with pytest.raises(
        MissingPackageError, match=r"TFRecords need google_crc32c: pip install 'featurestore\[tfrecord\]'"
    ):
        to_tfrecord(table, tmp_path / "set")
    assert open_tfrecord(tmp_path / "set").rows == training_statistics(table).rows == 2


def test_batches_are_of_one_size(tmp_path: Path) -> None:
    """However the rows lie in the file: all but the last."""
    table = training_set({"x": pa.array(range(50), pa.int64())})
    pq.write_table(table, tmp_path / "set.parquet", row_group_size=7)
    for given in (
        table,
        tmp_path / "set.parquet",
        training_set(pa.concat_tables([table.slice(n, 3) for n in range(0, 50, 3)])),
    ):
        for rows, sizes in ((20, [20, 20, 10]), (25, [25, 25]), (50, [50]), (1000, [50])):
            found = list(TrainingRows(given).opened(rows).batches)
            assert [len(batch.columns["x"]) for batch in found] == sizes
            assert [batch.first for batch in found] == [sum(sizes[:place]) for place in range(len(sizes))]
            assert [x for batch in found for x in batch.columns["x"].to_pylist()] == [*range(50)]


def test_the_schema_says_shapes_and_presence(tmp_path: Path) -> None:
    """What was never null is required; lists have any length, embeddings one, and what is null throughout is of no count."""
    table = training_set(
        {
            "always": pa.array([1, 2]), "sometimes": pa.array([1, None]), "never": pa.array([None, None], pa.float64()),
            "flag": pa.array([True, False]), "list": pa.array([["a"], []]), "e": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
            "at": pa.array([0, 0], pa.timestamp("us", "UTC")), "raw": pa.array([b"\xff", b""]), "f": pa.array([1.5, math.inf]),
        }
    )  # fmt: skip
    found = training_statistics(table)
    features = {one["name"][0]: one for one in text_proto(write_schema(found, tmp_path / "schema.pbtxt"))["feature"]}
    shown = {
        name: {key: feature[key][0] for key in feature if key not in {"name", "annotation"}}
        for name, feature in features.items()
    }
    required, optional = {"min_fraction": [1.0], "min_count": [1]}, {"min_count": [1]}
    one = {"min": [1], "max": [1]}
    assert shown == {
        "always": {"type": "INT", "presence": required, "shape": {}},
        "sometimes": {"type": "INT", "presence": optional, "value_count": one},
        "never": {"type": "FLOAT", "presence": {"min_count": [0]}, "value_count": one},
        "flag": {"type": "INT", "presence": required, "shape": {}, "bool_domain": {}},
        "list": {"type": "BYTES", "presence": required, "value_count": {"min": [0]}},
        "e": {"type": "FLOAT", "presence": required, "shape": {"dim": [{"size": [2]}]}},
        "at": {
            "type": "INT",
            "presence": required,
            "shape": {},
            "time_domain": {"integer_format": ["UNIX_MICROSECONDS"]},
        },
        "raw": {"type": "BYTES", "presence": required, "shape": {}},
        "f": {"type": "FLOAT", "presence": required, "shape": {}},
    }
    (dataset,) = text_proto(write_statistics(found, tmp_path / "stats.pbtxt"))["datasets"]
    kinds = [next(key for key in feature if key.endswith("_stats")) for feature in dataset["features"]]
    assert kinds == ["num_stats"] * 4 + ["string_stats"] + ["num_stats"] * 2 + ["bytes_stats", "num_stats"]
    numbers = dataset["features"][-1]["num_stats"][0]
    assert (numbers["min"], numbers["max"], numbers["mean"]) == ([1.5], [math.inf], [1.5])
    assert numbers["histograms"][0]["buckets"][-1] == {
        "low_value": [math.inf],
        "high_value": [math.inf],
        "sample_count": [1.0],
    }
    with pytest.raises(FeatureStoreError, match="The schema cannot be written: .* is a folder"):
        write_schema(found, tmp_path)
    with full_disk(), pytest.raises(FeatureStoreError, match="The statistics cannot be written: disk full"):
        write_statistics(found, tmp_path / "full.pbtxt")


TOKEN = re.compile(r'\s*(?:(\})|(\w+)\s*(\{|:\s*(?:"((?:[^"\\]|\\.)*)"|(\S+))))')


def text_proto(path: Path) -> Any:
    """A message in Protocol Buffers' text: by field a list of what it holds."""
    text, place, stack = path.read_text(), 0, [dict[str, Any]()]
    while text[place:].strip():
        token = TOKEN.match(text, place)
        assert token is not None, text[place : place + 80]
        place = token.end()
        close, name, opens, quoted, word = token.groups()
        if close:
            stack.pop()
        elif opens == "{":
            inner: dict[str, Any] = {}
            stack[-1].setdefault(name, []).append(inner)
            stack.append(inner)
        elif quoted is not None:
            raw = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), quoted)
            stack[-1].setdefault(name, []).append(raw.encode("latin-1").decode())
        else:
            is_word = re.fullmatch(r"[A-Z_]+", word)
            is_whole = re.fullmatch(r"-?\d+", word)
            stack[-1].setdefault(name, []).append(word if is_word else int(word) if is_whole else float(word))
    assert len(stack) == 1
    return stack[0]

"""Fits of the real PyTorch Lightning on a CPU: splits, shards, tensors, checkpoints and what goes wrong."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore import DataFrameSource, Entity, FeatureService, FeatureStore, FeatureView, Latest
from featurestore.durable.lock import exclusive
from featurestore.errors import (
    FeatureStoreError,
    FilesChangedError,
    FingerprintError,
    ManifestError,
    NotFoundError,
    RequestError,
    SpineError,
)
from featurestore.types import Int64
from tests.platforms.conftest import Told
from tests.platforms.frameworks import example_project, run_framework_page
from tests.platforms.shop import KEYS, NOON, TYPES, bits, opened
from tests.servers import PATIENCE_SECONDS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import lightning
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from torch.utils.data import DataLoader

    from featurestore.integrations import lightning as integration
    from featurestore.integrations.lightning import (
        FeatureDataModule,
        FeatureTensors,
        Ragged,
        Shard,
        Shuffle,
        TimeSplit,
        check,
    )
    from tests.platforms.lightning_ranks import Seen

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Consider setting `persistent_workers=True`"),
    pytest.mark.filterwarnings("ignore:.*`IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated"),  # of PyTorch, by Lightning
]

FILL = {"drivers__fare": 0.0, "drivers__trips": 0}
TENSORS = FeatureTensors(torch.float32, fill=FILL)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    with example_project(tmp_path) as names:
        yield names


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    with opened(tmp_path_factory.mktemp("shop")) as store:
        yield store


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row groups of seven rows."""
    monkeypatch.setattr(integration, "GROUP_ROWS", 7)


def asked(rows: int) -> pd.DataFrame:
    """Rows of an hour each, in no order, whose label is the number of the hour."""
    hours = random.Random(3).sample(range(rows), rows)
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(hours, unit="h")
    drivers = [f"d{1 + hour % 3}" for hour in hours]
    return pd.DataFrame({"driver_id": drivers, "event_timestamp": times, "tip": [float(hour) for hour in hours]})


def module_of(project: dict[str, Any], rows: int = 100, **words: Any) -> FeatureDataModule:
    spine = words.pop("spine", asked(rows))
    return FeatureDataModule(
        project["store"], "ranking", spine, **{"path": "t.parquet", "label": "tip", "tensors": TENSORS, **words}
    )


def ready(data: FeatureDataModule, stage: str | None = None) -> FeatureDataModule:
    data.prepare_data()
    data.setup(stage)
    return data


def trainer_of(**words: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return lightning.Trainer(accelerator="cpu", **{**quiet, "max_epochs": 2, **words})


def labels(batches: Any) -> list[float]:
    return [value for _, label in batches for value in label.tolist()]


def in_process(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


PREPARE = """
import sys, featurestore.integrations.lightning as integration
{before}
data = integration.FeatureDataModule(sys.argv[1], "ranking", sys.argv[1] + "/spine.parquet", path=sys.argv[1] + "/t.parquet", label="tip")
data.prepare_data()
import os; print(os.stat(sys.argv[1] + "/t.parquet").st_ino)
"""


# --- the fit -----------------------------------------------------------------------------------


WORKERS: dict[str, dict[str, Any]] = {
    "0": {},
    "fork": {"num_workers": 2, "multiprocessing_context": "fork"},
    "spawn": {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True},
}


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("kind", WORKERS)
def test_a_fit_is_given_the_values_of_the_store(project: dict[str, Any], kind: str, tell: Told) -> None:
    """Each row once an epoch, with the bits of the training frame, in another order each epoch; the gap in no part."""
    data = module_of(
        project,
        split=TimeSplit("2026-01-04", "2026-01-05", gap="5h"),
        tensors=FeatureTensors(torch.float64),
        batch_size=32,
        **WORKERS[kind],
    )
    given: list[Any] = []

    class Module(Seen):
        def training_step(self, batch: Any, number: int) -> Any:
            given.append((self.current_epoch, batch))
            return self.layer(torch.zeros(1, 2)).sum()

        validation_step = test_step = lambda self, batch, number: given.append(("validate", batch))

    trainer = trainer_of()
    trainer.fit(Module("."), data)
    assert data.counts == {"train": 72, "validate": 19, "test": 0, "gap": 9}
    frame = project["store"].get_historical_features(asked(100), "ranking")
    expected = dict(zip(asked(100)["tip"], frame.to_numpy().tolist(), strict=True))
    orders, compared = [], 0
    for epoch in (0, 1):
        batches = [batch for of, batch in given if of == epoch]
        assert [len(label) for _, label in batches] == [24, 24, 24]
        found = {
            tip: row for features, label in batches for tip, row in zip(label.tolist(), features.tolist(), strict=True)
        }
        assert sorted(labels(batches)) == [float(hour) for hour in range(72)]
        for tip, row in found.items():
            assert bits(row) == bits(expected[tip])
            compared += len(row)
        orders.append(labels(batches))
    assert orders[0] != orders[1]
    assert sorted({tip for of, batch in given if of == "validate" for tip in batch[1].tolist()}) == [
        float(hour) for hour in range(77, 96)
    ]
    tell(
        "lightning",
        version=f"lightning {version('lightning')}, torch {version('torch')}",
        ran="it ran, on a CPU",
        compared=compared,
    )


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn", "ddp_fork"])
def test_two_ranks_share_the_rows(tmp_path: Path, strategy: str, tell: Told) -> None:
    """Two real processes over gloo: each row once over both, equally many batches; the rows to predict are shared too."""
    with example_project(tmp_path):
        asked(101).to_parquet(tmp_path / "spine.parquet")
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests/platforms/lightning_ranks.py"), str(tmp_path), strategy],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    given = [json.loads((tmp_path / f"given-{rank}.json").read_text()) for rank in (0, 1)]
    for part, rows in (("train", range(72)), ("validate", range(84, 101))):
        for epoch in (0, 1):
            batches = [[batch for of, batch in one[part] if of == epoch] for one in given]
            assert len(batches[0]) == len(batches[1])
            assert sorted(value for of_rank in batches for batch in of_rank for value in batch) == list(rows)
            assert max(len(batch) for of_rank in batches for batch in of_rank) <= 8
    tell(
        "lightning",
        version=f"lightning {version('lightning')}, torch {version('torch')}",
        ran="it ran, on a CPU",
        compared=178,
    )
    if strategy == "ddp":
        found = [json.loads((tmp_path / f"predicted-{rank}.json").read_text()) for rank in (0, 1)]
        assert found == [[[[9.5, 2.0], [20.25, 1.0]]], [[[0.0, 0.0]]]]


@pytest.mark.usefixtures("small_groups")
def test_each_row_comes_once_over_all_ranks_and_workers(project: dict[str, Any]) -> None:
    """With equally many batches in each rank, none of them larger than asked for, and with more workers than row groups."""
    draw = random.Random(1)
    for rows in (1, 2, 7, 8, 50, 64):
        data = ready(module_of(project, rows, path=f"{rows}.parquet"))
        for _ in range(5):
            ranks, size = draw.randrange(1, min(rows, 5) + 1), draw.randrange(2, 12)
            data.batch_size = size
            shuffle = draw.choice([None, Shuffle(draw.randrange(9), draw.choice([1, 7, 10, 100]))])
            shards = [data.rows("train", shard=Shard(rank, ranks), shuffle=shuffle) for rank in range(ranks)]
            workers = draw.choice([0, 0, 1, 3])
            loaders = [
                DataLoader(
                    one, batch_size=None, num_workers=workers, multiprocessing_context="fork" if workers else None
                )
                for one in shards
            ]
            for epoch in (0, 5):
                batches = []
                for shard, loader in zip(shards, loaders, strict=True):
                    shard.set_epoch(epoch)
                    batches.append(list(loader))
                assert sorted(value for one in batches for value in labels(one)) == list(range(rows))
                assert {len(one) for one in batches} == {len(shards[0])} == {len(loaders[0])}
                for one in batches:
                    sizes = [len(label) for _, label in one]
                    assert max(sizes) <= size
                    assert max(sizes) - min(sizes) <= 1


def test_ranks_that_cannot_share_are_refused(project: dict[str, Any]) -> None:
    data = ready(module_of(project, 3))
    with pytest.raises(RequestError, match="part 'train' has 3 rows, of which 4 ranks cannot .* take fewer ranks"):
        data.rows("train", shard=Shard(0, 4))
    data.batch_size = 1
    with pytest.raises(RequestError, match="of which 2 ranks cannot .* of 1 at most; take a batch_size of 2 or more"):
        data.rows("train", shard=Shard(0, 2))


@pytest.mark.usefixtures("small_groups")
def test_a_seed_says_the_order(project: dict[str, Any]) -> None:
    """The same for the same seed and epoch; rows of several row groups are mixed, and all are moved."""

    def order(seed: int, epoch: int, rows: int = 30) -> list[float]:
        one = data.rows("train", shuffle=Shuffle(seed, rows))
        one.set_epoch(epoch)
        return labels(one)

    data = ready(module_of(project))
    plain = labels(data.rows("train"))
    assert plain == asked(100)["tip"].tolist()
    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    first = {plain.index(value) // 7 for value in order(1, 0)[:14]}
    assert len(first) > 2
    assert len({frozenset(order(seed, 0, 1)[:7]) for seed in range(4)}) > 1


MEMORY = """
import pathlib, re, sys
from featurestore.integrations.pytorch.tensors import FeatureTensors
from featurestore.integrations.lightning import FeatureDataModule, Shuffle

def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) << 10

data = FeatureDataModule(sys.argv[1], "wide", sys.argv[1] + "/spine.parquet", path=sys.argv[1] + "/t.parquet", buffer_rows=30_000)
data.setup("fit")
next(iter(data.rows("train")))  # what is loaded once
before, rows = peak(), 0
for shuffle in (None, data.shuffle):
    for batch in data.rows("train", shuffle=shuffle):
        rows += len(batch["wide__vector"])
print(rows, peak() - before)
"""


def test_a_file_larger_than_memory_is_streamed(tmp_path: Path) -> None:
    """A training set of 400 MB takes 17 MB of rows at a time, and what else it takes to read and to mix them."""
    keys, rows, length = 50_000, 800_000, 128
    vectors = np.random.default_rng(0).random(keys * length, np.float32)
    vector = pa.FixedSizeListArray.from_arrays(pa.array(vectors), length)
    at = pa.array([0] * keys, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"k": np.arange(keys), "at": at, "vector": vector}), tmp_path / "rows.parquet")
    spine = pa.table(
        {
            "k": np.random.default_rng(1).integers(0, keys, rows),
            "event_timestamp": pa.array(np.arange(rows), pa.timestamp("s", "UTC")),
        }
    )
    pq.write_table(spine, tmp_path / "spine.parquet")
    (tmp_path / "featurestore.toml").write_text('project = "wide"\nonline = "lmdb://online"\n')
    (tmp_path / "definitions.py").write_text(
        "from featurestore import *\nfrom featurestore.types import Int64, Array, Float32\n"
        "thing = Entity('thing', key={'k': Int64})\nrows = ParquetSource('rows', 'rows.parquet', event_time='at')\n"
        "wide = FeatureView('wide', entity=thing, source=rows, refresh='1h', features={'vector': Latest('vector', type=Array(Float32, 128))})\n"
    )
    with FeatureStore(tmp_path) as store:
        FeatureDataModule(store, "wide", str(tmp_path / "spine.parquet"), path=tmp_path / "t.parquet").prepare_data()
    whole = rows * length * 4
    assert pq.read_metadata(tmp_path / "t.parquet").num_row_groups > 10
    run = in_process(MEMORY, str(tmp_path))
    out, err = run.communicate(timeout=PATIENCE_SECONDS)
    assert run.returncode == 0, err
    count, grown = map(int, out.split())
    assert count == 2 * rows
    assert grown < whole / 2, f"{grown >> 20} MB"


# --- tensors -----------------------------------------------------------------------------------


def counted(array: pa.Array) -> Any:
    """A function of a column, as a user writes one."""
    return np.array([-1 if value is None else len(str(value)) for value in array.to_pylist()])


WHOLE = {"flag": False, "small": 0, "big": 0, "day": NOON.date(), "moment": NOON, "levels": []}
ENCODED = ("text", "raw", "price", "names", "counts", "flags")


def plain(value: Any, row: int) -> Any:
    """What a row of a tensor holds."""
    if isinstance(value, Ragged):
        return value.values[value.offsets[row] : value.offsets[row + 1]].tolist()
    return value[row].tolist()


def expected(name: str, value: Any, of: Any) -> Any:
    """What a tensor holds for a value of the store."""
    if name in ENCODED:
        return -1 if value is None else len(str(value))
    if value is None and name in WHOLE:
        value = WHOLE[name]
    if name == "day":
        return (value - NOON.date().replace(1970, 1, 1)).days
    if name == "moment":
        return (value - NOON.replace(1970, 1, 1, 0)) // timedelta(microseconds=1)
    if of.length is not None:
        return [math.nan] * of.length if value is None else value
    if isinstance(value, list):
        return [math.nan if one is None else one for one in value]
    return math.nan if value is None else value


def test_a_tensor_holds_each_value_exactly(shop: FeatureStore, tmp_path: Path, tell: Told) -> None:
    """Of every type: a frame's, a file's, and those of a lookup at the frame's instant, by a Trainer too."""
    keys = pd.DataFrame({"user_id": [*KEYS, "nobody"]})
    spine = keys.assign(event_timestamp=NOON)
    frame = shop.get_historical_features(spine, "users")
    tensors = FeatureTensors(
        fill={f"users__{name}": value for name, value in WHOLE.items()},
        encode={f"users__{name}": counted for name in ENCODED},
    )
    made = tensors(frame)
    assert list(made) == list(frame.types)
    table, count = frame.to_arrow(), 0
    for name, of in TYPES.items():
        column = f"users__{name}"
        for row, value in enumerate(table[column].to_pylist()):
            assert bits(plain(made[column], row)) == bits(expected(name, value, of)), (name, row)
            count += 1
    data = FeatureDataModule(
        shop, "users", spine, path=tmp_path / "t.parquet", tensors=tensors, shuffle=False, predict=keys, batch_size=7
    )

    class Module(Seen):
        def predict_step(self, batch: Any, number: int) -> Any:
            return batch

    ready(data)
    whole = {"batches": list(data.rows("train")), "predicted": trainer_of().predict(Module("."), data)}
    for batches in whole.values():
        assert sum(len(batch["users__flag"]) for batch in batches) == len(keys)
        for name in made:
            found = [plain(batch[name], row) for batch in batches for row in range(len(batch["users__flag"]))]
            assert bits(found) == bits([plain(made[name], row) for row in range(len(keys))])
            count += len(keys)
    tell(
        "lightning",
        version=f"lightning {version('lightning')}, torch {version('torch')}",
        ran="it ran, on a CPU",
        compared=count,
    )


def test_lists_are_taken_by_pytorch() -> None:
    with pytest.raises(
        RequestError, match="'x' is Array.Int64., and 1 of its elements are null, which int64 cannot hold"
    ):
        FeatureTensors()(pa.table({"x": pa.array([[1, None]])}))
    with pytest.raises(RequestError, match="'x' is Array.Int64., and null in 1 of 1 row"):
        FeatureTensors()(pa.table({"x": pa.array([None], pa.list_(pa.int64()))}))
    lists = pa.table({"x": pa.array([[1, 2], [], [3]], pa.list_(pa.int64()))})
    ragged = FeatureTensors()(lists)["x"]
    assert [row.tolist() for row in torch.nested.nested_tensor_from_jagged(*ragged).unbind()] == [[1, 2], [], [3]]
    assert torch.nn.EmbeddingBag(4, 2, include_last_offset=True)(*ragged).shape == (3, 2)


def test_a_matrix_has_the_numbers_of_the_frame(shop: FeatureStore) -> None:
    """As to_numpy has them; in a narrower dtype the nearest, and what it cannot hold is refused by its column's name."""
    spine = pd.DataFrame({"user_id": [*KEYS, "nobody"], "event_timestamp": NOON})
    features = [f"users:{name}" for name in ("flag", "small", "narrow", "wide", "embedding")]
    frame = shop.get_historical_features(spine, features)
    matrix = FeatureTensors(torch.float64)(frame)
    assert bits(matrix.tolist()) == bits(frame.to_numpy(expand=True).tolist())
    with pytest.raises(
        RequestError, match=r"column 'users__(small|wide)' holds .*, which float32 cannot hold; take a wider dtype"
    ):
        FeatureTensors(torch.float32)(frame)
    for name, value in (("users:big", "-?922337203685477580[78]|9007199254740993"), ("users:small", "-?214748364[78]")):
        with pytest.raises(RequestError, match=f"holds {value}, which float(64|32) cannot hold"):
            FeatureTensors(torch.float64 if "big" in name else torch.float32)(
                shop.get_historical_features(spine, [name])
            )
    with pytest.raises(RequestError, match="column 'users__text' is String, which is no number of a matrix; .*encode="):
        FeatureTensors(torch.float32)(shop.get_historical_features(spine, ["users:text"]))
    text = FeatureTensors(torch.float16, encode={"users__text": counted})(
        shop.get_historical_features(spine, ["users:text"])
    )
    assert text.shape == (len(spine), 1)
    assert FeatureTensors(torch.float32)(pa.table({"x": pa.array([0.1, None], pa.float64())})).tolist()[0] == [
        np.float32(0.1)
    ]


def test_wrong_tensors_are_told() -> None:
    floats = "torch.float16, torch.bfloat16, torch.float32, torch.float64"
    for dtype in (torch.int64, torch.complex64, torch.float8_e4m3fn):
        with pytest.raises(RequestError, match=f"dtype is {floats} or None, and not {dtype}"):
            FeatureTensors(dtype)
    with pytest.raises(RequestError, match="or None, and not 'float32'"):
        FeatureTensors("float32")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(RequestError, match="fill is a dict by the names of columns, and not 0"):
        FeatureTensors(fill=0)  # type: ignore[arg-type]  # the mistake
    with pytest.raises(RequestError, match="encode.'x'. is a function of the column's Arrow array, and not 3"):
        FeatureTensors(encode={"x": 3})  # type: ignore[dict-item]  # the mistake
    numbers = pa.table({"x": pa.array([1, None])})
    with pytest.raises(
        RequestError,
        match="column 'x' is Int64, and null in 1 of 2 rows; say what stands for null: FeatureTensors.fill",
    ):
        FeatureTensors()(numbers)
    with pytest.raises(RequestError, match="fill.'x'. must be Int64: 'a' is no integer"):
        FeatureTensors(fill={"x": "a"})(numbers)
    with pytest.raises(RequestError, match=r"encode.'x'. gave a tensor of shape \(3,\) for 2 rows"):
        FeatureTensors(encode={"x": lambda _: np.zeros(3)})(numbers)
    with pytest.raises(RequestError, match="encode.'x'. gave what is no tensor: .*object"):
        FeatureTensors(encode={"x": lambda array: array.to_pylist()})(numbers)
    assert FeatureTensors(encode={"x": lambda array: array.fill_null(7)})(numbers)["x"].tolist() == [1, 7]
    odd = pa.table({"x": pa.array(np.ones(1, np.float16)), "y": pa.array([7], pa.uint64())})
    assert {name: made.dtype for name, made in FeatureTensors()(odd).items()} == {"x": torch.float32, "y": torch.int64}
    with pytest.raises(RequestError, match="column 'y' is uint64, and Int64 does not hold each value"):
        FeatureTensors()(pa.table({"y": pa.array([2**63], pa.uint64())}))
    with pytest.raises(RequestError, match="column 'x' is struct<a: int64>, which is no type of this store"):
        FeatureTensors()(pa.table({"x": [{"a": 1}]}))
    with pytest.raises(RequestError, match="result of a lookup or an Arrow table, and not of 3"):
        FeatureTensors()(3)  # type: ignore[arg-type]  # the mistake
    assert FeatureTensors(torch.float32)(numbers.slice(0, 0)).shape == (0, 1)


def test_what_no_batch_can_hold_is_told_before_there_is_one(project: dict[str, Any]) -> None:
    with pytest.raises(
        RequestError,
        match="column 'drivers__trips' is Int64, and null in 47 of 100 rows; .*fill=.'drivers__trips': …}.*default of the feature",
    ):
        ready(module_of(project, tensors=FeatureTensors()))
    with pytest.raises(
        NotFoundError, match="fill names 'drivers__trip', which is no column. Did you mean 'drivers__trips'"
    ):
        ready(module_of(project, tensors=FeatureTensors(torch.float32, fill={"drivers__trip": 0})))
    with pytest.raises(NotFoundError, match="The spine has no column 'tips' that is a label. Did you mean 'tip'"):
        ready(module_of(project, label="tips"))
    with pytest.raises(NotFoundError, match="no column 'drivers__fare' that is a label"):
        ready(module_of(project, label=["drivers__fare"]))
    spine = asked(100).assign(tip=[None, math.nan, *range(98)])
    with pytest.raises(
        RequestError,
        match="column 'tip' is Float64, and null in 2 of 100 rows; .* or leave these rows out of the spine",
    ):
        ready(module_of(project, spine=spine))
    assert "Rounded to float32: drivers__fare" in ready(module_of(project)).notices
    assert len(ready(module_of(project, tensors=FeatureTensors(torch.float64, fill=FILL))).notices) == 1


def test_labels(project: dict[str, Any]) -> None:
    """One, several, none; whole numbers stay such, floats are of the matrix's dtype, NaN in Arrow is a value."""
    spine = pa.Table.from_pandas(asked(4)).append_column("kind", pa.array([0, 1, 2, 0], pa.uint8()))
    spine = spine.set_column(2, "tip", pa.array([0.5, math.nan, 1.0, 2.0]))
    ((features, label),) = ready(module_of(project, spine=spine, label=["tip", "kind"])).rows("train")
    assert features.dtype == label["tip"].dtype == torch.float32
    assert label["kind"].tolist() == [0, 1, 2, 0]
    assert label["kind"].dtype == torch.int32
    assert label["tip"].isnan().tolist() == [False, True, False, False]
    (alone,) = ready(module_of(project, spine=spine, label=None)).rows("train")
    assert alone.shape == (4, 2)
    text = FeatureTensors(torch.float32, fill=FILL, encode={"driver_id": counted})
    ((_, label),) = ready(module_of(project, spine=spine, label="driver_id", tensors=text)).rows("train")
    assert label.tolist() == [2, 2, 2, 2]


# --- the training set --------------------------------------------------------------------------


def test_it_is_written_once(project: dict[str, Any], tmp_path: Path) -> None:
    """And again when the spine, the definitions, the files or the column of times are others."""

    def inode(**words: Any) -> int:
        module_of(project, **words).prepare_data()
        return (tmp_path / "t.parquet").stat().st_ino

    first = inode()
    assert inode() == first
    assert inode(spine=pl.DataFrame(asked(100))) == first
    assert inode(spine=lambda: pa.Table.from_pandas(asked(100), preserve_index=False)) == first
    asked(100).to_parquet(tmp_path / "spine.parquet")
    assert inode(spine=tmp_path / "spine.parquet") == first
    second = inode(spine=asked(100).assign(tip=0.0))
    assert second != first
    third = inode(spine=asked(100).assign(tip=0.0, asked=asked(100)["event_timestamp"]), timestamp="asked")
    assert third != second
    data = module_of(project)
    data.features = ["drivers:fare"]
    data.prepare_data()
    assert pq.read_schema(tmp_path / "t.parquet").names == ["driver_id", "event_timestamp", "tip", "drivers__fare"]
    (tmp_path / "t.parquet.manifest.json").unlink()
    other = (tmp_path / "t.parquet").stat().st_ino
    data.prepare_data()
    assert (tmp_path / "t.parquet").stat().st_ino == other


def test_it_is_written_again_when_a_source_changes(tmp_path: Path) -> None:
    """A file of a source that was written anew may say something else of the past; and a row that was not complete yet is."""
    rows = pa.table({"k": [1], "at": pa.array([0], pa.timestamp("us", "UTC")), "x": [1.0]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    (tmp_path / "featurestore.toml").write_text('project = "p"\nonline = "lmdb://online"\n')
    (tmp_path / "definitions.py").write_text(
        "from featurestore import *\nfrom featurestore.types import Int64\nthing = Entity('thing', key={'k': Int64})\n"
        "view = FeatureView('view', entity=thing, source=ParquetSource('rows', 'rows.parquet', event_time='at'), features=['x'], refresh='1h')\n"
    )
    spine = pa.table({"k": [1], "event_timestamp": pa.array([60_000_000], pa.timestamp("us", "UTC"))})
    with FeatureStore(tmp_path) as store:

        def value(spine: pa.Table) -> tuple[int, Any]:
            data = ready(FeatureDataModule(store, "view", spine, path=tmp_path / "t.parquet"))
            (batch,) = data.rows("train")
            return (tmp_path / "t.parquet").stat().st_ino, batch["view__x"].tolist()

        first = value(spine)
        assert value(spine) == first
        pq.write_table(rows.set_column(2, "x", pa.array([2.0])), tmp_path / "rows.parquet")
        second = value(spine)
        assert second[0] != first[0]
        assert second[1] == [2.0]
        later = spine.set_column(1, "event_timestamp", pa.array([2**53], pa.timestamp("us", "UTC")))
        assert value(later)[0] != value(later)[0]


def test_what_is_no_training_set_is_not_written_over(project: dict[str, Any], tmp_path: Path) -> None:
    asked(3).to_parquet(tmp_path / "t.parquet")
    before = (tmp_path / "t.parquet").read_bytes()
    with pytest.raises(ManifestError, match="t.parquet is there, and no training set, so it is not written over"):
        module_of(project).prepare_data()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ManifestError, match="is not written over: .*notes.txt is no Parquet file, but text"):
        module_of(project, path="notes.txt").prepare_data()
    assert (tmp_path / "t.parquet").read_bytes() == before
    with pytest.raises(FeatureStoreError, match="training set cannot be written: .*no folder .*nowhere"):
        module_of(project, path="nowhere/t.parquet").prepare_data()
    with pytest.raises(FeatureStoreError, match="training set cannot be written: .* is a folder, and a file"):
        module_of(project, path=".").prepare_data()
    with pytest.raises(ManifestError, match="There is no file .*absent.parquet"):
        module_of(project, path="absent.parquet").setup()


KILLS = {
    "in a chunk": "import featurestore.training.spine as spine; spine.CHUNK_ROWS = spine.READ_ROWS = 30\nimport featurestore.training.training_frame as frames\n"
    "chunks, own = [], frames.storable\ndef killed(table):\n    chunks.append(table)\n    len(chunks) == 3 and os.kill(os.getpid(), 9)\n    return own(table)\nframes.storable = killed",
    "before it is in its place": "import pathlib; pathlib.Path.replace = lambda *_: os.kill(os.getpid(), 9)",
    "before the manifest beside it": "import pathlib; pathlib.Path.rename = lambda *_: os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("kill", KILLS)
def test_a_process_that_is_killed_leaves_what_was_there(tmp_path: Path, kill: str) -> None:
    """And the next one goes on: nothing is locked, half or wrong."""
    with example_project(tmp_path) as project:
        asked(100).to_parquet(tmp_path / "spine.parquet")
        old = module_of(project, 50, path=tmp_path / "t.parquet", tensors=FeatureTensors())
        old.features = ["drivers:fare"]
        ready(old)
        kept = (tmp_path / "t.parquet").read_bytes()
        run = in_process(PREPARE.format(before="import os\n" + KILLS[kill]), str(tmp_path))
        _, err = run.communicate(timeout=PATIENCE_SECONDS)
        assert run.returncode == -signal.SIGKILL, err
        assert ((tmp_path / "t.parquet").read_bytes() == kept) == (kill != "before the manifest beside it")
        if kill == "in a chunk":
            assert len(labels(old.rows("train"))) == 50
        data = ready(module_of(project, spine=str(tmp_path / "spine.parquet"), path=tmp_path / "t.parquet"))
        assert sorted(labels(data.rows("train"))) == list(range(100))
        assert project["store"].load_manifest(tmp_path / "t.parquet").raw["rows"] == 100
        assert not list(tmp_path.glob("*.partial"))


def test_two_processes_prepare_one_file(tmp_path: Path) -> None:
    """One after the other: the second finds what the first wrote. Whoever waits is let in when the lock is free."""
    with example_project(tmp_path):
        asked(100).to_parquet(tmp_path / "spine.parquet")
    with exclusive(tmp_path / ".t.parquet.lock", doing="testing"):
        runs = [in_process(PREPARE.format(before=""), str(tmp_path)) for _ in range(2)]
    found = [run.communicate(timeout=PATIENCE_SECONDS) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], found
    assert found[0][0] == found[1][0]


def test_whoever_waits_too_long_is_told_for_whom(project: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "WAIT_SECONDS", 0.0)
    with (
        exclusive(Path(".t.parquet.lock"), doing="testing"),
        pytest.raises(FeatureStoreError, match="cannot be prepared: .* holds it since .*, testing"),
    ):
        module_of(project).prepare_data()


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_written_anew_is_told(project: dict[str, Any], workers: int) -> None:
    """In the middle of an epoch, in a worker too: no epoch has rows of two training sets."""
    words = {"num_workers": workers, "multiprocessing_context": "fork", "prefetch_factor": 1} if workers else {}
    data = ready(module_of(project, batch_size=7, shuffle=False, **words))
    batches = iter(data.train_dataloader())
    next(batches)
    module_of(project, spine=asked(100).assign(tip=-1.0)).prepare_data()
    with pytest.raises(FilesChangedError, match="t.parquet was written anew, or removed, while it was trained on"):
        list(batches)
    with pytest.raises(FilesChangedError):
        next(iter(data.rows("train")))
    with pytest.raises(FilesChangedError, match="is not the training set that was prepared: ~ spine: "):
        data.setup()
    Path("t.parquet").unlink()
    with pytest.raises(FeatureStoreError):
        next(iter(data.rows("train")))


# --- the split ---------------------------------------------------------------------------------


def test_a_split_is_by_time(project: dict[str, Any]) -> None:
    """The first instant behind a gap is in, the one before it is out; naive instants are UTC."""
    split = TimeSplit("2026-01-02T00:00", NOON.replace(2026, 1, 3, 0), gap=timedelta(hours=2))
    data = ready(module_of(project, split=split))
    assert data.counts == {"train": 24, "validate": 22, "test": 50, "gap": 4}
    assert labels(data.rows("train")) == [tip for tip in asked(100)["tip"] if tip < 24]
    assert sorted(labels(data.rows("validate"))) == list(range(26, 48))
    assert sorted(labels(data.rows("test"))) == list(range(50, 100))


def test_parts_without_rows_are_told(project: dict[str, Any]) -> None:
    """One row, one time, a gap that is longer than the data: counted, and told by the part."""
    one = ready(module_of(project, 1))
    assert one.counts == {"train": 1, "gap": 0}
    for split, part, counts in (
        (TimeSplit("2025-01-01"), "train", "0 rows in train, 100 rows in validate"),
        (TimeSplit("2026-01-02", gap="3650d"), "validate", "24 rows in train, 0 rows in validate, 76 rows in no part"),
        (TimeSplit("2026-01-02", "2027-01-01"), "test", "24 rows in train, 76 rows in validate, 0 rows in test"),
    ):
        with pytest.raises(RequestError, match=f"Part '{part}' has no row; {counts}"):
            ready(module_of(project, split=split))
    same = asked(100).assign(event_timestamp=pd.Timestamp("2026-01-02", tz="UTC"))
    with pytest.raises(RequestError, match="Part 'train' has no row; 0 rows in train, 100 rows in validate"):
        ready(module_of(project, spine=same, split=TimeSplit("2026-01-02")))
    ready(module_of(project, split=TimeSplit("2026-01-02", "2027-01-01")), "fit")
    with pytest.raises(RequestError, match="Part 'train' has no row"):
        ready(module_of(project, spine=asked(100)[:0]), "fit")
    with pytest.raises(RequestError, match="The split has no part 'test', but train; TimeSplit"):
        ready(module_of(project), "test").test_dataloader()
    with pytest.raises(SpineError, match="Row 1 of the spine has no time in column 'event_timestamp'"):
        module_of(project, spine=asked(2).assign(event_timestamp=[NOON, pd.NaT])).prepare_data()


def test_wrong_splits_are_told() -> None:
    with pytest.raises(
        RequestError,
        match="test_from is 2026-01-02, and part 'validate' begins at 2026-01-03T00:00:00.00:00, its gap being over",
    ):
        TimeSplit("2026-01-02", "2026-01-02", gap="1d")
    with pytest.raises(RequestError, match="validate_from: 'soon' is no instant"):
        TimeSplit("soon")
    with pytest.raises(FeatureStoreError, match="gap: Duration 3 is a bare number"):
        TimeSplit("2026-01-02", gap=3)
    for start, gap in (("2026-01-02", "3000000d"), ("2026-01-02", "100000000d"), ("9999-12-31T23:00Z", "1d")):
        with pytest.raises(RequestError, match="gap is .*, so that part 'validate' would begin after the year 9999"):
            TimeSplit(start, gap=gap)
    assert TimeSplit("2026-01-02", gap="2000000d").said()["validate"].startswith("7501-")


# --- checkpoints -------------------------------------------------------------------------------


def test_a_checkpoint_says_what_was_trained_on(project: dict[str, Any], tmp_path: Path) -> None:
    """In plain JSON, which is read without running code; of a checkpoint of weights too."""
    data = module_of(project, split=TimeSplit("2026-01-04", gap="1h"))
    trainer = trainer_of()
    trainer.fit(Seen("."), data)
    for only in (False, True):
        trainer.save_checkpoint(tmp_path / "c.ckpt", weights_only=only)
        held = torch.load(tmp_path / "c.ckpt", weights_only=True)
        state = held["FeatureDataModule"]
        assert json.loads(json.dumps(state)) == state == data.state_dict()
        assert (state["service"], state["split"]["gap"], state["label"]) == ("ranking", "1h", ["tip"])
        assert state["columns"] == {"drivers__fare": "Float64", "drivers__trips": "Int64"}
        assert state["fingerprint"] == project["store"].load_manifest(tmp_path / "t.parquet").fingerprint
        assert "datamodule_hyper_parameters" not in held
    found = check(tmp_path / "c.ckpt", project["store"], tensors=TENSORS)
    assert found.fingerprint == state["fingerprint"]
    assert check(held, str(tmp_path)).fingerprint == state["fingerprint"]
    assert len(project["store"].get_online_features(pd.DataFrame({"driver_id": ["d1"]}), found)) == 1
    with pytest.raises(FingerprintError, match="tensors.dtype: float32 → float64"):
        check(tmp_path / "c.ckpt", project["store"], tensors=FeatureTensors(torch.float64, fill=FILL))


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "split": ({"split": TimeSplit("2026-01-04", gap="2h")}, "~ split.gap: 1h → 2h"),
    "fill": (
        {"tensors": FeatureTensors(torch.float32, fill={**FILL, "drivers__trips": -1})},
        "~ tensors.fill.drivers__trips: 0 → -1",
    ),
    "label": ({"label": "hours"}, "~ label: .*tip.* → .*hours"),
    "service": ({"features": ["drivers:fare"]}, "~ service: ranking → "),
    "columns": (
        {"features": ["drivers:fare"], "tensors": FeatureTensors(torch.float32)},
        "- columns.drivers__trips: Int64",
    ),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_something_else_is_refused(project: dict[str, Any], tmp_path: Path, other: str) -> None:
    """By each field that differs, where a Trainer goes on from it."""
    spine = asked(100).assign(hours=1.0)
    own = {"split": TimeSplit("2026-01-04", gap="1h"), "spine": spine}
    trainer = trainer_of()
    trainer.fit(Seen("."), module_of(project, **own))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    words, says = dict(OTHERS[other][0]), OTHERS[other][1]
    features = words.pop("features", "ranking")
    if other == "service":
        words["tensors"] = FeatureTensors(torch.float32, fill={"drivers__fare": 0.0})
    data = module_of(project, **{**own, **words})
    data.features = features
    with pytest.raises(FingerprintError, match=says) as refused:
        trainer_of(max_epochs=3).fit(Seen("."), data, ckpt_path=tmp_path / "c.ckpt")
    assert refused.value.changes
    assert "The checkpoint was trained on ranking@" in str(refused.value)


def test_a_changed_definition_is_refused(project: dict[str, Any], tmp_path: Path) -> None:
    """To go on, to predict and to serve: with what differs."""
    trainer = trainer_of()
    trainer.fit(Seen("."), module_of(project))
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    project["store"].close()
    text = (tmp_path / "definitions.py").read_text()
    (tmp_path / "definitions.py").write_text(text.replace('"lifetime"', '"7d"'))
    keys = pd.DataFrame({"driver_id": ["d1"]})
    with FeatureStore(tmp_path) as store:
        store.apply()
        store.materialize(progress=False)
        changed = {**project, "store": store}
        for verb in (lambda: trainer_of(max_epochs=3).fit(Seen("."), module_of(changed), ckpt_path=tmp_path / "c.ckpt"),
                     lambda: check(tmp_path / "c.ckpt", store),
                     lambda: trainer_of().predict(Seen("."), module_of(changed, path="other.parquet", predict=keys), ckpt_path=tmp_path / "c.ckpt")):  # fmt: skip
            with pytest.raises(FingerprintError, match="drivers.view.features.trips.window: lifetime → 7d"):
                verb()
        other = module_of(changed, path="other.parquet", predict=keys)
        other.features = ["drivers:fare"]
        with pytest.raises(FingerprintError, match="~ service: ranking → adhoc"):
            trainer_of().predict(Seen("."), other, ckpt_path=tmp_path / "c.ckpt")


def test_a_module_takes_the_state_for_a_hyperparameter(project: dict[str, Any], tmp_path: Path) -> None:
    """Where a Trainer is given loaders alone, or a module of its own hyperparameters, `check` finds it all the same."""

    class Module(Seen):
        def __init__(self, trained: Any = None) -> None:
            super().__init__(".")
            self.save_hyperparameters()

    data = ready(module_of(project))
    module, trainer = Module(data.state_dict()), trainer_of()
    trainer.fit(module, data.train_dataloader())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    assert "FeatureDataModule" not in torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert check(tmp_path / "c.ckpt", project["store"]).service == "ranking"
    assert Module.load_from_checkpoint(tmp_path / "c.ckpt").hparams["trained"] == data.state_dict()
    both = {
        "hyper_parameters": {"trained": data.state_dict()},
        "FeatureDataModule": {**data.state_dict(), "label": ["other"]},
    }
    with pytest.raises(FingerprintError, match="~ label: "):
        check(both, project["store"])


def test_what_says_nothing_is_told(project: dict[str, Any], tmp_path: Path) -> None:
    """A file that is none, one of another kind, one that would run code."""
    store = project["store"]
    with pytest.raises(ManifestError, match="nothing.ckpt is no checkpoint that can be read: .*No such file"):
        check("nothing.ckpt", store)
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(ManifestError, match="text.ckpt"):
        check(tmp_path / "text.ckpt", store)
    for text in (b"hello", b"\x80", b"\x80\x02q", b"PK\x03\x04", b"", bytes(64), b"}q.", b"c\n\n."):
        (tmp_path / "text.ckpt").write_bytes(text)
        with pytest.raises(ManifestError, match="text.ckpt"):
            check(tmp_path / "text.ckpt", store)
    torch.save({"state_dict": {}}, tmp_path / "plain.ckpt")
    with pytest.raises(
        ManifestError,
        match="plain.ckpt does not say what it was trained on; a Trainer that was given a FeatureDataModule",
    ):
        check(tmp_path / "plain.ckpt", store)
    torch.save({"state_dict": {}, "hyper_parameters": {"path": Path("x")}}, tmp_path / "code.ckpt")
    with pytest.raises(ManifestError, match="code.ckpt cannot be read without running code that it brings"):
        check(tmp_path / "code.ckpt", store)
    with pytest.raises(ManifestError, match="or what torch.load made of one, and not 3"):
        check(3, store)  # type: ignore[arg-type]  # the mistake
    state = {"service": "ranking", "fingerprint": "x", "columns": {}, "tensors": {}}
    with pytest.raises(ManifestError, match="fingerprint"):
        check({"FeatureDataModule": state}, store)
    with pytest.raises(FingerprintError, match="was never applied with fingerprint"):
        check({"FeatureDataModule": {**state, "fingerprint": "0" * 32}}, store)
    trainer = trainer_of()
    trainer.fit(Seen("."), ready(module_of(project)).train_dataloader())
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    held = torch.load(tmp_path / "c.ckpt", weights_only=True)
    torch.save({**held, "FeatureDataModule": {"x": 1}}, tmp_path / "c.ckpt")
    with pytest.raises(ManifestError, match="service: must be given"):
        trainer_of(max_epochs=3).fit(Seen("."), module_of(project), ckpt_path=tmp_path / "c.ckpt")


@pytest.mark.parametrize("kind", ["0", "fork"])
@pytest.mark.parametrize(
    "saved",
    [
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
        {"every_n_train_steps": 2},
    ],
    ids=["epoch", "validation", "steps"],
)
def test_a_run_goes_on_with_the_rows_that_it_would_have_had(
    project: dict[str, Any], tmp_path: Path, saved: dict[str, Any], kind: str
) -> None:
    """From the end of an epoch, from behind its validation, and from the middle."""
    words = {"batch_size": 24, "split": TimeSplit("2026-01-04"), **WORKERS[kind]}
    straight = Seen(".")
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", filename="{step}", save_top_k=-1, **saved)
    trainer_of(max_epochs=3, callbacks=[keep]).fit(straight, module_of(project, **words))
    kept = sorted((tmp_path / "kept").glob("*.ckpt"))
    assert len(kept) >= 3
    for path in kept:
        steps = int(re.findall(r"\d+", path.stem)[0])
        module = Seen(".")
        trainer_of(max_epochs=3).fit(module, module_of(project, **words), ckpt_path=path)
        assert module.given["train"] == straight.given["train"][steps:], path.name


def test_what_other_workers_gave_is_not_gone_on_with(project: dict[str, Any], tmp_path: Path) -> None:
    words = {"batch_size": 24, "shuffle": False}
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", filename="{step}", save_top_k=-1, every_n_train_steps=1)
    trainer_of(max_epochs=1, callbacks=[keep]).fit(Seen("."), module_of(project, **words))
    with pytest.warns(
        UserWarning,
        match="written behind 1 of 5 batches of an epoch, with 0 workers; with 3 batches and 0 workers they hold other rows",
    ):
        trainer_of(max_epochs=1).fit(
            Seen("."), module_of(project, **{**words, "batch_size": 40}), ckpt_path=tmp_path / "kept/step=1.ckpt"
        )


# --- the module --------------------------------------------------------------------------------


def test_no_store_and_no_frame_goes_into_a_checkpoint(project: dict[str, Any], tmp_path: Path) -> None:
    """Where a class of the user's calls save_hyperparameters(); its state is under its own name."""

    class Rides(FeatureDataModule):
        def __init__(
            self, own: Any, rows: Any, keys: Any, split: TimeSplit, rate: float, city: str, made: Any = counted
        ) -> None:
            super().__init__(own, "ranking", rows, path="t.parquet", label="tip", tensors=TENSORS, predict=keys)
            self.save_hyperparameters(ignore="city")

    data = Rides(project["store"], asked(20), pl.DataFrame({"driver_id": ["d1"]}), TimeSplit(), 0.5, "x")
    assert dict(data.hparams) == {"rate": 0.5}
    trainer = trainer_of(max_epochs=1)
    trainer.fit(Seen("."), data)
    trainer.save_checkpoint(tmp_path / "c.ckpt")
    held = torch.load(tmp_path / "c.ckpt", weights_only=True)
    assert held["datamodule_hyper_parameters"] == {"rate": 0.5}
    (name,) = [name for name in held if name.endswith("Rides")]
    assert held[name]["service"] == "ranking"
    assert check(tmp_path / "c.ckpt", project["store"]).service == "ranking"


def test_paths_are_those_of_the_folder_in_which_they_were_given(
    project: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the training set, its spine and the project, whatever folder a process goes to afterwards."""
    asked(20).to_parquet(tmp_path / "s.parquet")
    data = module_of(project, spine="s.parquet", path="t.parquet")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(labels(ready(data).train_dataloader())) == 20
    assert not list((tmp_path / "elsewhere").iterdir())
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(data)).spine == str(tmp_path / "s.parquet")
    by_path = FeatureDataModule(".", "ranking", asked(1), path="t.parquet")
    assert pickle.loads(pickle.dumps(by_path)).store == str(tmp_path)


def test_it_travels_with_the_path_of_the_project(project: dict[str, Any], tmp_path: Path) -> None:
    other = pickle.loads(pickle.dumps(module_of(project, 20, path=tmp_path / "t.parquet")))
    assert other.store == str(tmp_path)
    assert len(labels(ready(other).rows("train"))) == 20
    with (
        FeatureStore.local() as local,
        pytest.raises(FeatureStoreError, match="temporary store is of this process alone"),
    ):
        pickle.dumps(FeatureDataModule(local, "ranking", asked(1), path="t.parquet"))


def test_mistakes_are_told(project: dict[str, Any]) -> None:
    for words, says in (
        ({"batch_size": 0}, "batch_size is a number of rows, 1 or more, and not 0"),
        ({"batch_size": True}, "batch_size is a number of rows, 1 or more, and not True"),
        ({"buffer_rows": 0}, "buffer_rows is a number of rows"),
        ({"seed": -1}, "seed is a whole number, 0 or more, and not -1"),
        ({"split": "2026-01-01"}, "split is a TimeSplit, and not '2026-01-01'"),
        ({"tensors": torch.float32}, "tensors is a FeatureTensors, and not a dtype"),
        ({"path": 3}, "path is a path, and not 3"),
        ({"label": [3]}, "label is a column of the spine, or a list of these"),
        ({"spine": 3}, "The spine is no frame with the columns of the keys: int is no frame"),
        ({"predict": "keys.parquet"}, "predict is no frame with the columns of the keys: str is no frame"),
    ):
        with pytest.raises(RequestError, match=re.escape(says)):
            module_of(project, **words)
    with pytest.raises(
        TypeError, match="FeatureDataModule has no argument 'num_worker', .* Did you mean 'num_workers'"
    ):
        module_of(project, num_worker=2)
    with pytest.raises(TypeError, match="no argument 'sampler'"):
        module_of(project, sampler=None)
    with pytest.raises(RequestError, match="no rows to predict"):
        trainer_of().predict(Seen("."), module_of(project))
    with pytest.raises(RequestError, match="is not set up; a Trainer does it"):
        module_of(project).rows("train")
    assert module_of(project).notices == ()
    assert module_of(project).state_dict() == {}


def test_names_in_any_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the path, of keys and labels, of columns with a dot, which Parquet takes for a path of its own."""
    monkeypatch.chdir(tmp_path)
    rows = pa.table(
        {
            "k": [1, 1],
            "at": pa.array([0, 86_400], pa.timestamp("s", "UTC")),
            "größe": [1.0, 2.0],
            "v": pa.array([[0.5, 1.0]] * 2, pa.list_(pa.float32(), 2)),
        }
    )
    source = DataFrameSource("rows", rows, event_time="at")
    view = FeatureView(
        "view",
        entity=Entity("thing", key={"k": Int64}),
        source=source,
        refresh="1h",
        features={"x": Latest("größe"), "v": Latest("v")},
    )
    with FeatureStore.local() as store:
        store.apply([FeatureService("dienst", features=[view])])
        spine = pa.table(
            {
                "k": [1, 1],
                "日本.時": pa.array([43_200, 172_800], pa.timestamp("s")),
                "a.b": [1, 2],
                "a": [[1], [2]],
                "Trinkgeld €": [0.5, 1.5],
            }
        )
        data = FeatureDataModule(
            store, "dienst", spine, path="größe 日本.parquet", label=["Trinkgeld €", "a.b"], timestamp="日本.時",
            split=TimeSplit("1970-01-02"), tensors=FeatureTensors(torch.float64),
        )  # fmt: skip
        ready(data)
        ((features, label),) = data.rows("train")
        assert features.tolist() == [[1.0, 0.5, 1.0]]
        assert {name: value.tolist() for name, value in label.items()} == {"Trinkgeld €": [0.5], "a.b": [1]}
        ((features, label),) = data.rows("validate")
        assert features.tolist() == [[2.0, 0.5, 1.0]]


def test_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/platforms/lightning.md."""
    monkeypatch.chdir(tmp_path)
    names = run_framework_page("lightning", tmp_path)
    assert names["tips"].shape == (2,)

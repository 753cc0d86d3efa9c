"""Training over more data than DuckDB may hold at once: it spills, and says the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.draws import long

ROWS = 4_500_000
LIMIT = 96  # MB: half more than DuckDB 1.4 was seen to need for these rows, now and then

DEFINITIONS = """
from featurestore import Count, Entity, FeatureService, FeatureView, Max, ParquetSource, Sum
from featurestore.types import Int64

thing = Entity("thing", key={"thing": Int64})
rows = ParquetSource("rows", "rows.parquet", event_time="happened", known_at="known", identity=["number"])
view = FeatureView("view", entity=thing, source=rows, features=["number", "ratio"], refresh="1h", ttl="1d")
folds = FeatureView(
    "folds", entity=thing, source=rows, refresh="1h",
    features={"sum": Sum("ratio", window="10d"), "count": Count(window="2d"), "most": Max("number", window="lifetime")},
)
service = FeatureService("service", features=[view])
folded = FeatureService("folded", features=[folds])
"""

RUN = """
import pathlib, re, sys
from featurestore import FeatureStore

def peak():  # of this program; what getrusage tells goes back to the process that started it
    return int(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1024

with FeatureStore(sys.argv[1]) as store:
    before = peak()
    store.get_historical_features(sys.argv[1] + "/spine.parquet", sys.argv[3], with_status=True).to_parquet(sys.argv[2])
    print(peak() - before)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project over one file of rows, whose order says nothing, and a spine."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "definitions.py").write_text(DEFINITIONS)
    at = "make_timestamp(1700000000000000 + CAST(hash(i + {}) % 5000000 AS BIGINT) * 1000000)"
    thing = "CAST(hash(i + {}) % 100000 AS BIGINT) AS thing"
    duckdb.sql(
        f"SELECT {thing.format(1)}, {at.format(2)} AS happened, happened + to_minutes(CAST(hash(i + 3) % 90 AS INT)) AS known, "
        f"i AS number, hash(i) / 3.0 AS ratio FROM range({ROWS}) t(i)"
    ).write_parquet(str(folder / "rows.parquet"))
    duckdb.sql(
        f"SELECT {thing.format(4)}, {at.format(5)} AS event_timestamp, i AS label FROM range(100000) t(i)"
    ).write_parquet(str(folder / "spine.parquet"))
    return folder


def train(
    folder: Path, target: Path, *limits: str, service: str = "service", before: str = ""
) -> subprocess.CompletedProcess[str]:
    """A process that trains under these lines of [offline]; it prints by how many MB its memory grew at most, and no more."""
    lines = ['project = "p"', "[offline]", "threads = 2", *limits]
    (folder / "featurestore.toml").write_text("\n".join(lines))
    return subprocess.run(
        [sys.executable, "-c", before + RUN, str(folder), str(target), service],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, timeout=900,
    )  # fmt: skip


def test_a_run_beyond_the_memory_limit_spills_and_is_the_run_without(folder: Path, tmp_path: Path) -> None:
    """The same rows to the bit, in a fraction of the memory; and what makes it possible is the folder to spill to."""
    limit = f'memory_limit = "{LIMIT}MB"'
    free = train(folder, tmp_path / "free.parquet")
    assert free.returncode == 0, free.stderr
    assert int(free.stdout) > 4 * LIMIT, "the data are no challenge"

    limited = train(folder, tmp_path / "limited.parquet", limit, f'spill = "{tmp_path}/spill"')
    assert limited.returncode == 0, limited.stderr
    assert int(limited.stdout) < int(free.stdout) * 0.7
    whole, spilled = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("free", "limited"))
    assert spilled.equals(whole)
    assert set(spilled["view__ratio__status"].to_pylist()) == {"PRESENT", "EXPIRED", "MISSING"}

    (tmp_path / "occupied").touch()
    without = train(folder, tmp_path / "without.parquet", limit, f'spill = "{tmp_path}/occupied"')
    assert without.returncode != 0
    assert "SourceError" in without.stderr
    assert not (tmp_path / "without.parquet").exists()


@long
def test_folds_take_as_many_keys_at_once_as_memory_allows(folder: Path, tmp_path: Path) -> None:
    """Rows wait in DuckDB, which spills, and are folded some keys at a time: the same bits in less memory."""
    patch = "from featurestore.query.windows import batching; batching.MEMORY_BATCH_CELLS = 1_000_000\n"
    free = train(folder, tmp_path / "free.parquet", service="folded")
    assert free.returncode == 0, free.stderr
    limits = f'memory_limit = "{LIMIT}MB"', f'spill = "{tmp_path}/spill"'
    limited = train(folder, tmp_path / "limited.parquet", *limits, service="folded", before=patch)
    assert limited.returncode == 0, limited.stderr
    assert int(limited.stdout) < int(free.stdout) * 0.7
    whole, spilled = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("free", "limited"))
    assert spilled.equals(whole)
    assert set(spilled["folds__sum__status"].to_pylist()) == {"PRESENT", "MISSING"}

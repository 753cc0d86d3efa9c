"""Training over Parquet files in an object store and beside it in a folder, as jobs (see `pairs`): a server that speaks S3, on this machine."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from benchmarks.pairs import JobError
from featurestore import Entity, FeatureStore, FeatureView, ManualClock, ParquetSource
from featurestore.types import Int64

ROWS, FILES, KEYS, SPINE, COLUMNS = 1_000_000, 8, 50_000, 50_000, 12
START = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = 90 * 86_400
BUCKET = "benchmark"
SERVER = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
time.sleep(1e6)
"""


@contextmanager
def stored_rows(_: str) -> Iterator[dict[str, Any]]:
    """The same files in a folder and in a bucket of a server, of which the environment says where it is."""
    if find_spec("moto") is None or find_spec("fsspec") is None:
        raise JobError("moto and fsspec are not installed: pip install 'featurestore[platforms]'")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            assert server.stdout is not None
            endpoint = f"http://127.0.0.1:{server.stdout.readline().strip()}"
            os.environ |= {
                "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "some", "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            }  # fmt: skip
            store = pafs.S3FileSystem(endpoint_override=endpoint, allow_bucket_creation=True)
            store.create_dir(BUCKET)
            for number in range(FILES):
                name = f"rows-{number}.parquet"
                pq.write_table(_rows(number), Path(folder, name))
                pafs.copy_files(str(Path(folder, name)), f"{BUCKET}/{name}", pafs.LocalFileSystem(), store)
            yield {"folder": folder, "url": f"s3://{BUCKET}"}
        finally:
            server.kill()
            server.wait()


def _rows(number: int) -> pa.Table:
    choice, count = np.random.default_rng(number), ROWS // FILES
    at = START.timestamp() * 1e6 + (choice.random(count) * SECONDS * 1e6).astype("int64")
    columns = {f"x{n}": choice.standard_normal(count) for n in range(COLUMNS)}
    times = pa.array(at.astype("int64"), pa.timestamp("us", "UTC"))
    return pa.table({"key": choice.integers(0, KEYS, count), "at": times, **columns})


def training(folder: str, url: str, stored: bool) -> Callable[[], pa.Table]:
    """Six features of as many rows as the spine has, of files that this process has not seen before."""
    choice = np.random.default_rng(99)
    at = START.timestamp() * 1e6 + (choice.random(SPINE) * SECONDS * 1e6).astype("int64")
    spine = pa.table({
        "key": choice.integers(0, KEYS, SPINE), "event_timestamp": pa.array(at.astype("int64"), pa.timestamp("us", "UTC")),
    })  # fmt: skip
    view = FeatureView(
        "values", entity=Entity("key", key={"key": Int64}), refresh="continuous", features=[f"x{n}" for n in range(6)],
        source=ParquetSource("rows", url if stored else folder, event_time="at"),
    )  # fmt: skip
    store = FeatureStore.local(clock=ManualClock(START + timedelta(days=100)))
    return lambda: store.get_historical_features(spine, [view]).to_arrow()

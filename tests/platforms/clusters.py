"""Spark and Ray as they run on one machine: with workers in processes of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import featurestore

ROOT = Path(featurestore.__file__).parents[1]
SPECULATING = {
    "spark.speculation": "true", "spark.speculation.interval": "20ms", "spark.speculation.multiplier": "1.01", "spark.speculation.quantile": "0.1",
    "spark.speculation.minTaskRuntime": "0ms",
}  # fmt: skip
"""Settings with which Spark runs a task once more, beside itself, as soon as others are done: as often as it can."""

PANDAS = "ignore:PySpark does not yet fully support pandas:FutureWarning"
"""Spark says it of pandas 3, which it does not use here."""

OWN_WORDS = r"ignore:`\w+` is deprecated"
"""Ray says it of settings of its own, as it makes them."""

TOKEN = secrets.token_hex(32)
"""By which the processes of a cluster know each other; Ray reads it once in a process."""


@contextmanager
def spark_session(place: Path, *, executors: int = 2, **more: str) -> Iterator[Any]:
    """A session with two executors, or so many, each a process with Python workers of its own. place: where its tables lie. more: settings."""
    assert shutil.which("java"), "Spark needs Java: apt install openjdk-17-jre-headless"
    from pyspark.sql import SparkSession

    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    settings = {
        "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1", "spark.executorEnv.PYTHONPATH": str(ROOT), "spark.executor.memory": "1g",
        "spark.sql.shuffle.partitions": "3", "spark.sql.warehouse.dir": str(place / "tables"),
        "spark.sql.session.timeZone": "Asia/Seoul", "spark.network.timeout": "600s",
        **more,
    }  # fmt: skip
    builder = SparkSession.builder.master(f"local-cluster[{executors},1,1024]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def ray_cluster(*, cpus: int = 2, object_store_bytes: int = 200_000_000) -> Iterator[Any]:
    """A cluster of two workers at a time, or so many."""
    settings = {
        "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "600", "RAY_NUM_REDIS_GET_RETRIES": "600",
        "RAY_worker_register_timeout_seconds": "600",
        "RAY_memory_monitor_refresh_ms": "0",  # which kills workers for what other processes take
    }  # fmt: skip
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # noqa: S108 - the paths of its sockets may not be long
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        import ray

        ray.init(
            address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, object_store_memory=object_store_bytes,
            _node_ip_address="127.0.0.1", _temp_dir=folder,
        )  # fmt: skip
        try:
            yield ray
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def processes_below(pid: int) -> dict[int, str]:
    """The processes that a process started, and those that they did, with their command lines."""
    parents, commands = {}, {}
    for folder in (path.name for path in Path("/proc").iterdir() if path.name.isdigit()):
        try:
            parents[int(folder)] = int(Path(f"/proc/{folder}/stat").read_text().rpartition(")")[2].split()[1])
            commands[int(folder)] = Path(f"/proc/{folder}/cmdline").read_text()
        except OSError:
            continue
    found: dict[int, str] = {}
    below = {pid}
    while below:
        below = {child for child, parent in parents.items() if parent in below and child in commands} - set(found)
        found |= {child: commands[child] for child in below}
    return found


def spark_executors() -> list[int]:
    """The processes of the executors of this process's session."""
    return [
        pid
        for pid, said in processes_below(os.getpid()).items()
        if "java" in said.partition("\0")[0] and "CoarseGrainedExecutor" in said
    ]

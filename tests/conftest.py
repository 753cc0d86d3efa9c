"""A real Redis server for whoever asks for it, where temporary files lie, and which files are tested first."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import branches, draws
from tests.servers import PostgresServer, RedisServer

sys.dont_write_bytecode = False  # else this process would compile the package and all tests anew,
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # and each that a test starts the package

MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30
"""A file system without a disk, and how much must be free on it."""

if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
    os.environ["TMPDIR"] = str(
        MEMORY
    )  # most of what is tested waits until its bytes are on the disk, thousands of times
    tempfile.tempdir = None

LONGEST_FIRST = [
    "test_explain.py",  # some 50 s of CPU time
    "cli/test_streams.py",
    "test_testing.py",
    "test_simulate.py",
    "test_online.py",
    "test_push_processes.py",
    "test_concurrency.py",
    "cli/test_commands.py",
    "test_chunked_runs.py",
    "test_worker_processes.py",
    "test_demo.py",
    "test_push_histories.py",
    "test_windows.py",
    "test_training.py",
    "training/test_snapshot.py",
    "training/test_kernel.py",
    "test_feature_repo.py",
    "test_arrival.py",
    "test_windows_online.py",
    "test_chaos_lmdb.py",
    "test_chaos_redis.py",
    "test_damage.py",
    "server/test_push.py",
    "test_explain_folds.py",
    "training/test_memory.py",
    "sources/test_log_killed.py",  # 15 s
    "sources/test_postgresql_log.py",  # 20 s
    "test_changed_code.py",
    "backup/test_backup.py",
    "streams/test_command.py",
    "streams/test_redis_stream.py",
    "push/test_current_rows.py",
    "server/test_updates_together.py",
    "server/test_sagemaker.py",
    "console_pages/test_limited_keys.py",
]
"""A file is tested by one process, and the last of them is waited for: so no long one may be among the last. Most have few tests,
and would be, since processes take files with many tests first where nothing else is said (`--no-loadscope-reorder`)."""


settings.register_profile("patient", deadline=None)  # no test hangs on how fast the machine is
settings.load_profile("patient")

MEASURING = branches.measuring()
"""What counts branches, where they are counted: from here on, since nothing of ours is imported yet."""

NAMED_ALONE = [Path(__file__).parent / name for name in ("browser", "platforms", "platforms_opt_in")]


def pytest_configure(config: pytest.Config) -> None:
    if MEASURING is not None:
        config.pluginmanager.register(MEASURING)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs other people's clients or a browser runs where it is named alone: `make test-platforms`, `make test-browser`, `make test-tensorflow`."""
    named = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    is_named = any(collection_path in {path, *path.parents} for path in named)
    return True if collection_path in NAMED_ALONE and not is_named else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Nothing that is made while tests are collected becomes garbage: to look for some takes an eighth of the time, and a fourth where nothing is compiled yet."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # marks are asked for by others
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(item.module, "draws", None) is draws.draws and getattr(item.function, "is_hypothesis_test", False):  # type: ignore[attr-defined]  # a function of a module
            item.add_marker(draws.at_length)
    if not draws.TAKES_ALL and not any("::" in argument for argument in config.args):  # a test that is named is run
        items[:] = [item for item in items if item.get_closest_marker("long") is None]
    here = Path(__file__).parent
    rank = {here / name: number for number, name in enumerate(LONGEST_FIRST)}
    if gone := [str(path) for path in rank if not path.exists()]:
        raise pytest.UsageError(f"LONGEST_FIRST in {__file__} names what is not there: {', '.join(gone)}")
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a server that lives as long as this test process; empty it, or use keys of your own."""
    with RedisServer() as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that lives as long as this test process."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> PostgresServer:
    """The same with nothing of ours in it."""
    import psycopg

    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        spaces = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'featurestore%'").fetchall()
        for (space,) in spaces:
            connection.execute(f'DROP SCHEMA "{space}" CASCADE')
    return postgres_server


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a registry may be, and none is yet: what must be true of a registry is true of it in each place."""
    if request.param == "sqlite":
        return tmp_path / "deep/registry.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.url

"""Where a log may lie: what must be true of a log is true of it in each place."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featurestore.sources.log import FileLog, Log
from tests.sources.log_rows import SCHEMA

Opened = Callable[..., Log]


@pytest.fixture(params=["file", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """Opens one log, each time as another process would; in PostgreSQL, as another machine would, with a folder of its own."""
    machines = itertools.count()
    with ExitStack() as stack:

        def in_folder(schema: Callable[[], pa.Schema] = lambda: SCHEMA, **said: Any) -> Log:
            return stack.enter_context(FileLog(tmp_path / "log", schema, **said))

        def in_postgresql(schema: Callable[[], pa.Schema] = lambda: SCHEMA, **said: Any) -> Log:
            from featurestore.sources.log.postgresql_log import PostgreSQLLog, push_log_database

            wait_seconds = said.pop("wait_seconds", 60.0)
            database = push_log_database(url, "shop", wait_seconds=wait_seconds)
            stack.callback(database.close)
            folder = tmp_path / f"machine{next(machines)}"
            return PostgreSQLLog(database, "taps/rows", folder, schema, wait_seconds=wait_seconds, **said)

        if request.param == "file":
            yield in_folder
        else:
            url = request.getfixturevalue("postgres").url
            yield in_postgresql

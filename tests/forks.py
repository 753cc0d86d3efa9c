"""Processes for tests that need many: each is forked from one that has imported the libraries and has done nothing else."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

LIBRARIES = (
    "duckdb", "lmdb", "pandas", "psycopg", "pyarrow.compute", "pyarrow.parquet", "pytest", "redis", "featurestore.store",
)  # fmt: skip
"""What each process would import anew, some 0.8 s of work, when it first uses something of it."""

PLAYED = ("tests.chaos.roles", "tests.chaos.check", "tests.push_worker")
"""What the processes run. There is one process from which all are forked, so it imports all of it."""


def forks() -> ForkServerContext:
    """Makes such processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PLAYED, *LIBRARIES])
    return context

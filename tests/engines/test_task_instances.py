"""Tasks that a process runs one after the other take the same instances of DuckDB, and nothing of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from featurestore.engines.tasks import TaskLimits, engine_of


def test_tasks_take_the_instances_of_those_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of the same limits. One whose task failed is not used again."""
    opened, connect = [], duckdb.connect
    limits = TaskLimits(memory_limit="123MB", spill=str(tmp_path / "spill"))

    def connected(*given: Any, **words: Any) -> Any:
        opened.append(words["config"])
        return connect(*given, **words)

    monkeypatch.setattr("featurestore.sources.instances.duckdb.connect", connected)

    def task(of: TaskLimits) -> list[tuple[Any, ...]]:
        with engine_of(of, None) as offline, offline.session() as session:
            before = session.connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            session.connection.execute("CREATE TEMP TABLE own AS SELECT 1 AS x")
            return before

    for _ in range(3):
        assert task(limits) == []
    assert len(opened) == 1
    assert opened[0]["memory_limit"] == "123MB"
    assert Path(opened[0]["temp_directory"]).parent == tmp_path / "spill"
    with pytest.raises(duckdb.Error), engine_of(limits, None) as offline, offline.session() as session:
        session.connection.execute("SELECT nothing")
    task(limits)
    assert len(opened) == 2
    task(TaskLimits(memory_limit="124MB"))
    assert [config["memory_limit"] for config in opened] == ["123MB", "123MB", "124MB"]

"""The serving log of a project: when this process writes one."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.serving.log.project_log import ProjectLog
from featurestore.settings import ServingLogConfig


@pytest.mark.parametrize(
    ("rate", "rates", "logs"),
    [(0.0, {}, False), (0.0, {"a": 0.0}, False), (0.5, {}, True), (0.5, {"a": 0.0}, True), (0.0, {"a": 0.0, "b": 0.1}, True)],
)  # fmt: skip
def test_there_is_one_where_any_service_is_logged(
    tmp_path: Path, rate: float, rates: dict[str, float], *, logs: bool
) -> None:
    """The services that have a rate of their own, or all others; and one alone, however often it is opened."""
    log = ProjectLog(ServingLogConfig(folder=tmp_path / "served", rate=rate, rates=rates), "project", now=lambda: 0)
    opened = log.open()
    assert (opened is not None) == logs
    assert log.open() is opened
    log.close()

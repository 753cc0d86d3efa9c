"""The oldest versions of libraries that are allowed are those that are tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
TESTED = dict(line.split("==") for line in (ROOT / "constraints-lowest.txt").read_text().split())


def test_the_oldest_versions_are_tested() -> None:
    """Each bound is the version in constraints-lowest.txt, and there is no upper one."""
    for needed in NEEDED:
        found = re.fullmatch(r"([\w-]+)>=([\d.]+)(; .*)?", needed)
        assert found, needed
        name, least = found[1], found[2]
        assert re.fullmatch(rf"{re.escape(least)}(\.0)*", TESTED[name]), needed

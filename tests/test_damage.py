"""Single bits flipped in every kind of file that the product writes: what matters is detected, and no value is ever another.

The same for more bits: python -m tests.damaged_project FOLDER --bits 100
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KINDS = (
    "frame.parquet.manifest.json .json", "logs .log", "logs .json", "logs .parquet", "logs tip", "online .mdb",
    "registry.arrivals.db .db", "registry.db .db", "served .parquet", "served counts", "tiles .json", "tiles .parquet",
)  # fmt: skip


def test_no_bit_changes_a_value(tmp_path: Path) -> None:
    """Training, lookups, explain, audit, materialize, push and compaction give what they give without damage, or an error of
    ours; of each kind of file one bit."""
    command = [sys.executable, "-m", "tests.damaged_project", str(tmp_path / "project"), "--bits", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert set(KINDS) <= set(told)
    assert sum("error" in what for what in told.values()) >= 4
    assert not any("wrong" in what for what in told.values())

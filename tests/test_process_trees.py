"""What a process and those below it take, as benchmarks of clusters tell it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.process_trees import TreeUse

ROOT = Path(__file__).parents[1]
WORKING = """
import time
held = bytearray(50_000_000)
while time.process_time() < 0.5:
    pass
print("done", flush=True)
input()
"""


def test_what_a_process_took_that_ended_is_counted() -> None:
    """Though nobody waited for it; and not what it took before. In a process below which there are no others."""
    subprocess.run([sys.executable, "-c", f"from {__name__} import look; look()"], cwd=ROOT, check=True)


def look() -> None:
    """See a process work and end."""
    with TreeUse() as use:
        process = subprocess.Popen([sys.executable, "-c", WORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        use.look()
        process.kill()
    assert 0.4 < use.cpu_s["python"] < 5
    assert use.peak_mb > 50
    process.communicate()
    with TreeUse() as after:
        pass
    assert set(after.cpu_s) == {"this_process"}

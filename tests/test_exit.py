"""What a process leaves behind when it ends: nothing of the engine's, which tells of what it calls leaked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()

EVERYTHING = """
    import os
    import threading
    from datetime import UTC, datetime, timedelta

    import pandas as pd

    from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, Latest, ParquetSource, PushSource
    from featurestore.types import Float64, Int64, String, Timestamp

    now = datetime.now(UTC)
    rows = pd.DataFrame({"thing": [1, 2], "at": [now - timedelta(days=2)] * 2, "x": [1.5, 2.5], "kind": ["a", "b"]})
    rows.to_parquet("rows.parquet")
    pd.DataFrame({"thing": [1, 2], "event_timestamp": [now] * 2}).to_parquet("spine.parquet")
    thing = Entity("thing", key={"thing": Int64})
    rows = ParquetSource("rows", os.path.abspath("rows.parquet"), event_time="at")
    clicks = PushSource(
        "clicks", schema={"id": String, "thing": Int64, "at": Timestamp, "x": Float64}, event_time="at", identity="id"
    )
    count = {"n": Count(where="x > 1", window="7d")}
    views = [
        FeatureView("hourly", entity=thing, source=rows, refresh="1h", features={"x": Latest("x"), **count}),
        FeatureView("clicked", entity=thing, source=clicks, features=count),
    ]
    model = FeatureService("model", features=views)
    store = FeatureStore.local()
    store.apply([model])
    store.materialize(progress=False)
    row = {"id": "1", "thing": 1, "at": now - timedelta(seconds=1), "x": 2.0}

    def everything():
        frame = store.get_historical_features("spine.parquet", "model")
        assert frame.to_pandas()["hourly__n"].tolist() == [1, 1]
        store.push("clicks", [row])
        assert store.get_online_features([{"thing": 1}], "model").to_dict()["clicked__n"] == [1]
"""
HERE = "    everything()\n"
IN_A_THREAD = """
    done = threading.Event()

    def work():  # as a server's threads, which nobody waits for
        everything()
        done.set()
        threading.Event().wait()

    threading.Thread(target=work, daemon=True).start()
    assert done.wait(600)
"""
BEHIND_A_SERVER = """
    import asyncio

    from featurestore.server import create_app

    async def served():
        app = create_app(store, authentication=False)
        async with app.router.lifespan_context(app):
            everything()

    asyncio.run(served())
"""


def said_at_the_end(script: str, folder: Path) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


@pytest.mark.parametrize(
    "how", [HERE, IN_A_THREAD, BEHIND_A_SERVER], ids=["by itself", "in a thread that goes on", "behind a server"]
)
def test_a_script_leaves_nothing_behind(how: str, tmp_path: Path) -> None:
    """With a frame from a file of questions, a push and a lookup, and a store that nobody closes."""
    script = "\n".join(line.removeprefix("    ") for line in (EVERYTHING + how).splitlines())
    assert said_at_the_end(script, tmp_path) == ""


def test_the_script_of_the_readme_leaves_nothing_behind(tmp_path: Path) -> None:
    """All its blocks, one after the other."""
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert blocks
    assert said_at_the_end("\n".join(blocks), tmp_path) == ""


def test_commands_leave_nothing_behind(tmp_path: Path) -> None:
    """Those of the scaffold that read and write most; what a command has to tell comes on standard error too."""
    run = [sys.executable, "-m", "featurestore"]
    subprocess.run([*run, "init", "shop"], cwd=tmp_path, check=True, capture_output=True)
    for command in (
        ["apply"],
        ["materialize"],
        ["historical", "data/spine.parquet", "order_model", "-o", "frame.parquet"],
    ):
        ended = subprocess.run([*run, *command], cwd=tmp_path / "shop", check=False, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert "leaked" not in ended.stderr

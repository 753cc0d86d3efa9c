"""--at: commands that take an instant of the past for now."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from featurestore import FeatureStore, ManualClock
from featurestore.cli import app
from featurestore.clock import wall_clock
from tests.small import hours, spine, table, write

THEN = "2025-01-05T12:30:00Z"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """What init writes, applied; its orders ended in January 2025."""
    run(tmp_path / "shop", f"init {tmp_path / 'shop'}")
    run(tmp_path / "shop", "apply --yes")
    return tmp_path / "shop"


def run(repo: Path, line: str, *, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["--repo", str(repo), *shlex.split(line)])
    assert done.exit_code == code, done.output
    return done.stderr if code else done.stdout


def told(repo: Path, line: str) -> Any:
    return json.loads(run(repo, f"{line} --json"))


def test_what_is_materialized_and_looked_up_at_an_instant_is_what_training_says_of_it(shop: Path) -> None:
    """Fresh at that instant, and marked stale at any later one; the same values on both paths."""
    assert [run["view"] for run in told(shop, f"materialize --at {THEN}")] == ["customer_carts", "customer_orders"]
    assert {view["state"] for view in told(shop, f"status --at {THEN}")["views"]} == {"fresh"}
    assert {view["state"] for view in told(shop, "status")["views"]} == {"fresh", "stale"}
    then, now = (told(shop, f"online order_model customer=ann amount=3 {at}") for at in (f"--at {THEN}", ""))
    assert then["as_of"] == now["as_of"] == {"customer_orders": "2025-01-05T12:00:00.000000Z"}
    assert (then["stale"], now["stale"]) == ({"customer_orders": False}, {"customer_orders": True})
    (trained,) = (row for row in told(shop, f"snapshot customer_orders --at {THEN}") if row["customer"] == "ann")
    for column in ("customer_orders__amount", "customer_orders__items"):
        assert then["rows"][0][column] == now["rows"][0][column] == trained[column]
    assert all(view["ok"] for view in told(shop, f"verify --at {THEN}")["views"])


def test_another_instant_than_what_is_online_is_refused_with_the_command_that_tells_it(shop: Path) -> None:
    """Both before the first values and after rows were pushed that were not known then; snapshot tells a service without
    request values, a spine one with them."""
    run(shop, f"materialize --quiet --at {THEN}")
    earlier = "2025-01-03T12:30:00Z"
    assert told(shop, f"materialize --at {earlier}") == []
    says = "Nothing is due: what is online is newer than 2025-01-03 12:30:00Z: "
    said = run(shop, f"materialize --at {earlier}")
    assert said.startswith(says), said
    assert "customer_orders as of 2025-01-05 12:00:00Z" in said
    assert "customer_carts as of 2025-01-05 12:30:00Z" in said
    assert "customer_carts" not in run(shop, f"materialize customer_orders --at {earlier}")
    assert run(shop, f"materialize customer_orders --at {THEN}") == (
        "Nothing is due: customer_orders as of 2025-01-05 12:00:00Z is online. (Files that were corrected reach what is "
        "served by --full.)\n"
    )
    said = run(shop, f"online order_model customer=ann amount=3 --at {earlier}", code=1)
    assert "featurestore historical SPINE order_model -o FILE" in said
    run(shop, "push carts data/carts.jsonl".replace("data", str(shop / "data")))
    assert "is newer than 2025-01-05 12:30:00Z: customer_carts as of" in run(shop, f"materialize --at {THEN}")
    said = run(shop, f"online cart_model customer=ann --at {THEN}", code=1)
    assert f"rows that were learned after {THEN}" in said
    assert f"featurestore snapshot cart_model --at {THEN}" in said
    assert {row["customer_carts__carts_1d"] for row in told(shop, f"snapshot cart_model --at {THEN}")} == {None}


def test_an_instant_that_is_still_to_come_is_refused(shop: Path) -> None:
    """What would be computed for it could be served before its time."""
    for command in (
        "materialize",
        "status",
        "plan",
        "verify",
        "audit",
        "availability",
        "online cart_model customer=ann",
    ):
        assert "--at 2999-01-01 is still to come" in run(shop, f"{command} --at 2999-01-01", code=2)
    assert "no instant" in run(shop, "status --at noon", code=2)


def test_an_audit_ends_at_the_instant(shop: Path) -> None:
    """And "1d" is the day before it."""
    run(shop, f"materialize --quiet --at {THEN}")
    for clock in (ManualClock(datetime.fromisoformat(THEN)), None):
        with FeatureStore(shop, clock=clock) as store:
            store.get_online_features({"customer": "ann", "amount": 3.0}, "order_model")
    audits = (f"audit --since 1d --at {THEN}", f"audit --at {THEN}", "audit --since 2025-02-01", "audit")
    one, upto, later, both = (told(shop, audit) for audit in audits)
    assert one["compared"] == upto["compared"] == later["compared"] == both["compared"] / 2 > 0
    assert both["exact"] == both["compared"]


ARRIVES = """
from featurestore import ARRIVAL, Entity, FeatureView, ParquetSource
from featurestore.types import Int64

rows = ParquetSource("rows", "rows", event_time="at", known_at=ARRIVAL, refresh="1h")
view = FeatureView("view", entity=Entity("thing", key={"thing": Int64}), source=rows, features=["x"])
"""


def test_a_file_that_is_first_seen_is_journalled_by_the_true_clock(tmp_path: Path) -> None:
    """A command about the past does not write that the store had seen it then."""
    (tmp_path / "featurestore.toml").write_text('project = "arrives"\n')
    (tmp_path / "definitions.py").write_text(ARRIVES)
    (tmp_path / "rows").mkdir()
    write(tmp_path / "rows/a.parquet", table(thing=[1], at=[hours(-2)], x=[1]))
    run(tmp_path, "apply --yes")
    write(tmp_path / "rows/b.parquet", table(thing=[1], at=[hours(-1)], x=[2]))
    write(tmp_path / "spine.parquet", spine(hours(48), thing=[1]))
    before = wall_clock()
    run(tmp_path, "plan --at 2024-06-01")
    run(tmp_path, f"historical {tmp_path}/spine.parquet view -o {tmp_path}/out.parquet --at 2024-06-01")
    run(tmp_path, "materialize --quiet --at 2024-06-01")
    with FeatureStore(tmp_path) as store:
        seen = {stay.file.name: stay.seen for stay in store.offline.arrivals.stays("rows")}
        assert seen["a.parquet"] < before <= seen["b.parquet"]
        later = store.snapshot("view", at=datetime.now(UTC) + timedelta(hours=2))
        assert later.to_arrow()["view__x"].to_pylist() == [2]

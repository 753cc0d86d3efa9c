"""What is typed wrongly on a command line is told by its option, in words of our own."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore.cli import app
from tests.small import hours, table

ROWS = table(cart=["a"], customer=["ann"], at=[hours(0)], amount=[1.0])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    assert CliRunner().invoke(app, ["init", str(folder)]).exit_code == 0
    assert CliRunner().invoke(app, ["apply", "--repo", str(folder)]).exit_code == 0
    return folder


def told(shop: Path, *args: str, given: bytes | None = None) -> str:
    """What a command that must fail says, on one line."""
    done = CliRunner().invoke(app, [*args, "--repo", str(shop)], input=given)
    assert done.exit_code in {1, 2}, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    text = " ".join(done.stderr.split())
    assert not re.search(r"Input should|Traceback|pydantic|Arrow|magic bytes", text), text
    return text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["serve", "--port", "x"], "'--port': must be a whole number"),
        (["serve", "--port", "99999999"], "'--port': must be at most 65535"),
        (["serve", "--workers", "0"], "'--workers': must be at least 1"),
        (["explain", "customer_orders", "customer=a", "--at", "noon"], "--at: 'noon' is no instant such as 2025-01-31T06:30:00Z"),
        (["snapshot", "order_model", "--at", "noon", "-o", "x.parquet"], "--at: 'noon' is no instant"),
        (["audit", "--until", "now"], "--until: 'now' is no instant"),
        (["audit", "--since", "2026-13-01"], "--since: '2026-13-01' is no instant"),
        (["audit", "--since", "1 day"], "'1 day' cannot be read. Write whole numbers with units"),
        (["explain", "customer_orders", "ann"], "'ann' must be written name=value"),
        (["explain", "customer_ordres", "customer=ann"], "Did you mean 'customer_orders'?"),
        (["explain", "customer_orders", "custmer=ann"], "Did you mean 'customer'?"),
        (["online", "order_modle"], "Did you mean 'order_model'?"),
        (["show", "order_modle"], "Did you mean 'order_model'?"),
        (["materialize", "customer_ordres"], "Did you mean 'customer_orders'?"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_by_its_option(shop: Path, args: list[str], says: str) -> None:
    assert says in told(shop, *args)


def test_a_pushed_file_that_is_none_says_what_is_wrong(shop: Path, tmp_path: Path) -> None:
    """Cut off, damaged within its footer, and no JSON."""
    path = tmp_path / "rows.parquet"
    pq.write_table(ROWS, path)
    whole = path.read_bytes()
    for data, says in (
        (whole[:-9], "rows.parquet begins as a Parquet file and does not end as one"),
        (whole[:-60] + bytes(52) + whole[-8:], "rows.parquet is damaged"),
        (b"cart,customer\na,ann\n", "rows.parquet, line 1 is no JSON"),
    ):
        path.write_bytes(data)
        assert says in told(shop, "push", "carts", str(path))

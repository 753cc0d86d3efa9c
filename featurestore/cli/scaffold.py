"""init: a small repository that works."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from featurestore.clock import to_datetime, wall_clock
from featurestore.errors import ConfigError

__all__ = ["init"]

CONFIGURATION = """\
project = "{project}"
definitions = ["definitions.py"]  # what declares features: each of these files is run by every command

# registry = ".featurestore/registry.db"
# online = "lmdb://.featurestore/online"

[env.staging]  # a project of its own: all that is not said to lie elsewhere lies in .featurestore/{project}_staging
project = "{project}_staging"
"""

DEFINITIONS = '''\
"""The features of customers, from their orders, and from the carts that the shop pushes as they are filled."""

from featurestore import Count, Entity, FeatureService, FeatureView, ParquetSource, PushSource, Request, Sum, on_demand
from featurestore.types import Bool, Float64, String, Timestamp

customer = Entity("customer", key={"customer": String})

orders = ParquetSource("orders", "data/orders.parquet", event_time="ordered_at", known_at="loaded_at")

customer_orders = FeatureView(
    "customer_orders",
    entity=customer,
    source=orders,
    features=["amount", "items"],
    refresh="1h",
    ready_after="10m",
    description="The last order of a customer.",
)


@on_demand(inputs=[customer_orders["amount"], Request("amount", Float64)], output=Bool)
def larger_than_last(last, amount):
    """Whether this order is larger than the customer's last one."""
    return last is not None and amount is not None and amount > last


order_model = FeatureService("order_model", features=[customer_orders, larger_than_last])

carts = PushSource(
    "carts",
    schema={"cart": String, "customer": String, "at": Timestamp, "amount": Float64},
    event_time="at",
    identity="cart",
)

customer_carts = FeatureView(
    "customer_carts",
    entity=customer,
    source=carts,
    features={"carts": Count(windows=["1h", "1d"]), "amount_1d": Sum("amount", window="1d")},
    description="The carts that a customer has just filled.",
)

cart_model = FeatureService("cart_model", features=[customer_carts])
'''

IGNORED = ".featurestore/\n"

CARTS = "data/carts.jsonl"


def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write into.")]) -> None:
    """Write a small repository that works: its configuration, definitions and a little data.

    Example: featurestore init shop
    """
    texts = {
        "featurestore.toml": CONFIGURATION.format(project=_project(folder)),
        "definitions.py": DEFINITIONS,
        ".gitignore": IGNORED,
    }
    tables = {"data/orders.parquet": _orders, "data/spine.parquet": _spine}
    there = [name for name in [*texts, *tables, CARTS] if name != ".gitignore" and (folder / name).exists()]
    if there:
        raise ConfigError(f"{folder / there[0]} exists already; init writes into a folder without one")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if not (folder / name).exists():
            (folder / name).write_text(text, encoding="utf-8")
    for name, rows in tables.items():
        _write(folder / name, rows())
    (folder / CARTS).write_text(_carts(), encoding="utf-8")
    typer.echo(f"Wrote {', '.join([*texts, *tables, CARTS])} into {folder}.")
    typer.echo(f"Now: cd {folder} && featurestore apply && featurestore materialize")


def _project(folder: Path) -> str:
    """A project's name out of a folder's."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", folder.resolve().name).strip("_")
    return name if re.match(r"[A-Za-z]", name) else f"project_{name}".rstrip("_")


def _orders() -> dict[str, list[Any]]:
    """Three customers' orders of a week in January 2025, each loaded ten minutes after it was made."""
    start = datetime(2025, 1, 1, 9, tzinfo=UTC)
    rows = [
        (("ann", "bob", "cleo")[n % 3], start + timedelta(hours=7 * n), 20.0 + 7.5 * (n * n % 11), 1 + n % 4)
        for n in range(24)
    ]
    return {
        "customer": [customer for customer, *_ in rows],
        "ordered_at": [at for _, at, *_ in rows],
        "loaded_at": [at + timedelta(minutes=10) for _, at, *_ in rows],
        "amount": [amount for *_, amount, _ in rows],
        "items": [items for *_, items in rows],
    }


def _spine() -> dict[str, list[Any]]:
    """What a model would learn from: who ordered when, for how much, and whether it came back."""
    start = datetime(2025, 1, 2, 12, tzinfo=UTC)
    return {
        "customer": ["ann", "bob", "cleo", "ann", "bob", "dora"],
        "event_timestamp": [start + timedelta(hours=19 * n) for n in range(6)],
        "amount": [25.0, 80.0, 42.5, 31.0, 19.5, 64.0],
        "returned": [False, True, False, False, True, False],
    }


def _carts() -> str:
    """Carts of the last hours, as JSON lines: what a shop would push."""
    now = to_datetime(wall_clock())
    carts = [(f"c{n}", ("ann", "bob", "cleo")[n % 3], now - timedelta(minutes=37 * n), 12.5 + 4 * n) for n in range(9)]
    rows = [{"cart": cart, "customer": who, "at": at.isoformat(), "amount": amount} for cart, who, at, amount in carts]
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def _write(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)

"""init: a small repository that works."""

from __future__ import annotations

import json
import re
import shlex
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from featurestore.clock import to_datetime, wall_clock
from featurestore.durable.disk import write_file
from featurestore.errors import ConfigError

FILES = {
    "featurestore.toml": "featurestore.toml",
    "definitions.py": "definitions.py.txt",
    "data/orders.parquet": "orders.parquet",
    "data/spine.parquet": "spine.parquet",
}
"""What is written, and the file beside this one, in the folder `shop`, that it is a copy of."""

CARTS = "data/carts.jsonl"


def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write into.")]) -> None:
    """Write a small repository that works: its configuration, definitions and a little data.

    Example: featurestore init shop
    """
    written = [*FILES, CARTS]
    there = [name for name in written if (folder / name).exists()]
    if there:
        raise ConfigError(f"{folder / there[0]} exists already; init writes into a folder without one")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    shop = resources.files("featurestore.cli").joinpath("shop")
    contents: dict[str, str | bytes] = {name: shop.joinpath(copied).read_bytes() for name, copied in FILES.items()}
    configuration = shop.joinpath(FILES["featurestore.toml"]).read_text(encoding="utf-8")
    contents["featurestore.toml"] = configuration.replace("{project}", _project(folder))
    contents[CARTS] = _carts()
    if not (folder / ".gitignore").exists():
        contents[".gitignore"] = ".featurestore/\n"
    made: list[Path] = []
    try:
        for name, content in contents.items():
            write_file(folder / name, content)
            made.append(folder / name)
    except OSError:  # a part of a repository is none, and would be in the way of the next attempt
        for path in made:
            path.unlink()
        raise
    typer.echo(f"Wrote {', '.join([*written, '.gitignore'])} into {folder}.")
    typer.echo(f"Next: cd {shlex.quote(str(folder))} && featurestore plan")


def _project(folder: Path) -> str:
    """A project's name out of a folder's."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", folder.resolve().name).strip("_")
    return name if re.match(r"[A-Za-z]", name) else f"project_{name}".rstrip("_")


def _carts() -> str:
    """Carts of the last hours, as JSON lines: what a shop would push."""
    now = to_datetime(wall_clock())
    carts = [(f"c{n}", ("ann", "bob", "cleo")[n % 3], now - timedelta(minutes=37 * n), 12.5 + 4 * n) for n in range(9)]
    rows = [{"cart": cart, "customer": who, "at": at.isoformat(), "amount": amount} for cart, who, at, amount in carts]
    return "".join(f"{json.dumps(row)}\n" for row in rows)

"""When an online store was found to have come back older than its log: a line of JSON each, for audits to ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Return(NamedTuple):
    """to: the instant up to which the store that came back is true. noticed: when that was found. µs."""

    to: int
    noticed: int


def write_return(path: Path, found: Return) -> None:
    """Add one; under the log's lock."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found._asdict()) + "\n")


def read_returns(path: Path) -> list[Return]:
    """All of them, in the order in which they were found; what a killed process left of one is none."""
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            found.append(Return(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found

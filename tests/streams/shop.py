"""A shop whose swipes come by a stream, and what its log has of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from featurestore import Count, Entity, FeatureService, FeatureStore, FeatureView, PushSource, Sum
from featurestore.declare.streams import Stream
from featurestore.types import Bool, Float64, Int64, String, Timestamp

SCHEMA = {"swipe": Int64, "card": String, "at": Timestamp, "amount": Float64, "void": Bool}
CARD = Entity("card", key={"card": String})


def declared(stream: Stream, *, identity: Sequence[str] = (), **said: Any) -> FeatureService:
    """Without an identity every row counts, so that a message that were kept twice would show."""
    said = {"schema": SCHEMA, "event_time": "at", "deleted": "void" if identity else None, **said}
    source = PushSource("swipes", identity=list(identity), stream=stream, **said)
    folds = {"n": Count(window="1d"), "spent": Sum("amount", window="1d")}
    return FeatureService("fraud", features=[FeatureView("activity", entity=CARD, source=source, features=folds)])


def swipe(number: int, *, minutes: float = 0, **more: Any) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(minutes=minutes)
    return {"swipe": number, "card": f"c{number % 3}", "at": at.isoformat(), "amount": float(number), **more}


def text(number: int, **more: Any) -> bytes:
    return json.dumps(swipe(number, **more)).encode()


def logged(store: FeatureStore, which: str = "rows") -> list[int]:
    """The numbers of the swipes that the log has, in its order."""
    source: Any = store.catalog.sources["swipes"]
    numbers: list[int] = store.offline.log(source, which).read()["swipe"].to_pylist()
    return numbers


def served(store: FeatureStore) -> int:
    """How many swipes of all three cards lookups count."""
    rows = store.get_online_features([{"card": f"c{n}"} for n in range(3)], "fraud").to_dict()
    return sum(count or 0 for count in rows["activity__n"])


def configure(folder: Path, *lines: str, online: str = "lmdb://online", project: str = "shop") -> None:
    folder.mkdir(exist_ok=True, parents=True)
    said = [f'project = "{project}"', f'online = "{online}"', "definitions = []", *lines, ""]
    (folder / "featurestore.toml").write_text("\n".join(said))

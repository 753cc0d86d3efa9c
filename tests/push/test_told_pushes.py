"""What the trail of activity has of pushes: what became of the rows of each that was kept, and nothing of the others."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.errors import PushError, RequestError
from tests.push.test_expected import HIGH, store_over
from tests.small import NOON


def told(store: FeatureStore) -> dict[str, int]:
    """What the trail has of all pushes in sum."""
    counts: Counter[str] = Counter()
    for one in store.activity(what="push"):
        counts.update({name: count for name, count in one.detail.items() if name != "request_ids"})
    return dict(counts)


def row(number: int, x: float) -> dict[str, Any]:
    return {"thing": 1, "id": number, "at": NOON, "x": x}


def test_each_is_told_once_with_what_became_of_its_rows() -> None:
    """Of rows in quarantine only where there are some; also of who does not wait."""
    with store_over(HIGH) as (store, _):
        store.push("pushed", [row(1, 1.0), row(2, 2.0)])
        assert told(store) == {"requests": 1, "accepted": 2, "unchanged": 0, "late": 0}
        assert store.submit_push("pushed", [row(1, 1.0), row(3, 500.0)]).result().quarantined == 1
        store.push("pushed", [row(1, 1.0)])  # when it is answered, that before it is told
        assert told(store) == {"requests": 3, "accepted": 2, "unchanged": 2, "late": 0, "quarantined": 1}


def test_what_is_not_kept_is_not_told() -> None:
    with store_over(HIGH) as (store, _):
        for wrong in (None, 1, []):
            with pytest.raises(RequestError, match="overwrite"):
                store.submit_push("pushed", [row(1, 1.0)], overwrite=wrong)  # type: ignore[arg-type]  # the mistake
        refused = store.submit_push("pushed", [row(1, 500.0)], overwrite=True)
        with pytest.raises(PushError, match="does not meet"):
            refused.result()
        store.push("pushed", [row(2, 2.0)])
        assert told(store) == {"requests": 1, "accepted": 1, "unchanged": 0, "late": 0}

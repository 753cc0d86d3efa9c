"""Training asks the function of key and instant, and nothing else answers."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore.clock import instant_of
from featurestore.declare.entity import Entity
from featurestore.declare.sources import DataFrameSource
from featurestore.declare.views import FeatureView
from featurestore.sources.offline import Offline
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from featurestore.training.training_frame import TrainingFrame
from featurestore.types import Int64
from tests.draws import draws
from tests.histories import History, answers_of, histories, seen, to_arrow, write_parquet
from tests.oracle import ALWAYS
from tests.world import bits, declare, resolved, spine_of

FULL = Options(with_status=True, with_event_time=True)


@pytest.fixture(scope="module")
def offline() -> Offline:
    return Offline(Path())


def ask(history: History, offline: Offline, paths: list[Path] | None = None) -> TrainingFrame:
    service = resolved(declare(history, paths=paths), offline)
    return get_historical_features(spine_of(history), service, offline, now=0, options=FULL)


def as_seen(history: History, frame: TrainingFrame) -> list[tuple]:
    rows = frame.to_arrow().to_pylist()
    first = next(iter(history.view.features))
    return [
        (
            row[f"view__{first}__status"],
            {name: bits(history, name, row[f"view__{name}"]) for name in history.view.features},
            None if row["view__event_time"] is None else instant_of(row["view__event_time"]),
        )
        for row in rows
    ]


def expected(history: History) -> list[tuple]:
    answers = seen(history, answers_of(history))
    return [(status, values, None if at == ALWAYS else at) for status, values, at, _ in answers]


@settings(max_examples=draws(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories())
def test_training_is_the_oracle_to_the_bit(offline: Offline, history: History) -> None:
    """Every value, status and event time of a training frame is what the naive reading of the rules gives."""
    frame = ask(history, offline)
    assert as_seen(history, frame) == expected(history)
    conflicts = sum(answer.conflict for answer in answers_of(history) if answer.status == "PRESENT")
    assert frame.manifest["conflicts"]["view"] == conflicts


@settings(max_examples=draws(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories(), files=st.integers(1, 4), seed=st.integers(0, 99))
def test_row_order_and_file_splits_change_nothing(offline: Offline, history: History, files: int, seed: int) -> None:
    """Shuffled rows in several files answer as the same rows in one frame."""
    with tempfile.TemporaryDirectory() as folder:
        paths = write_parquet(to_arrow(history.rows, history.types), Path(folder), files=files, seed=seed)
        assert as_seen(history, ask(history, offline, paths)) == expected(history)


def test_features_may_bear_the_names_of_the_querys_own_words(offline: Offline) -> None:
    """A feature named `until` or `e` is a value, and never taken for a time."""
    names = ["e", "until", "file", "row", "n", "k0", "f0", "v", "g", "o", "known"]
    when = datetime(2013, 1, 1, tzinfo=UTC)
    table = pa.table({"thing": [1], "at": [when], **{name: [i] for i, name in enumerate(names)}})
    source = DataFrameSource("rows", table, event_time="at")
    view = FeatureView("view", entity=Entity("thing", key={"thing": Int64}), source=source, features=names,
                       refresh="continuous")  # fmt: skip
    spine = pa.table({"thing": [1], "event_timestamp": [when]})
    frame = get_historical_features(spine, resolved(view, offline), offline, now=0, options=FULL)
    (row,) = frame.to_arrow().to_pylist()
    assert [row[f"view__{name}"] for name in names] == list(range(len(names)))
    assert row["view__until__status"] == "PRESENT"
    assert row["view__event_time"] == when

"""What audit tasks say comes back as it was: every type, cause and error, to the bit, and nothing of it is run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurestore import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    ManualClock,
    ParquetSource,
    Request,
    errors,
    on_demand,
)
from featurestore.durable.parquet import storable
from featurestore.engines.audit_outcome import AuditOutcome
from featurestore.errors import FeatureStoreError, OnlineDamagedError, SourceError
from featurestore.reports.audit import CAUSES
from featurestore.reports.audit.audit_counts import AuditCounts, Compared
from featurestore.reports.audit.logged import Logged
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.status import Status
from featurestore.semantics.view import ResolvedView
from featurestore.serving.served_rows import as_of_column, input_column
from featurestore.typed_json import typed, untyped
from featurestore.types import (
    Array,
    Date,
    FarDate,
    FarTimestamp,
    FeatureType,
    Float32,
    Float64,
    Timestamp,
    date_of,
    timestamp_of,
)
from tests.draws import draws
from tests.platforms.shop import bits
from tests.semantics.values import SCALARS, TYPES, of_type
from tests.small import NOON, write

KINDS = [*TYPES, Array(Timestamp), Array(Date)]


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResolvedService]:
    """A service with a key and a feature of every type, and a function."""
    keys = {f"k{n}": of for n, of in enumerate(SCALARS) if not of.is_float}
    columns = {**keys, **{f"c{n}": of for n, of in enumerate(KINDS) if of.length is None}, "list": Array(Float32)}
    rows = {name: pa.nulls(1, of.arrow) for name, of in columns.items()}
    place = tmp_path_factory.mktemp("rows") / "rows.parquet"
    write(place, storable(pa.table({**rows, "at": pa.array([NOON], pa.timestamp("us", "UTC"))})))
    source = ParquetSource("rows", place, event_time="at", derived={"embedding": "CAST(list AS FLOAT[3])"})
    features = [*(name for name in columns if name not in keys), "embedding"]
    view = FeatureView("view", entity=Entity("every", key=keys), source=source, refresh="1h", features=features)

    @on_demand(inputs=[Request("by", Float64)], output=Float64)
    def scaled(by):
        return by

    with FeatureStore.local(clock=ManualClock(NOON)) as store:
        store.apply([FeatureService("model", features=[view, scaled])])
        yield store._project.service("model")


def exact(value: Any) -> Any:
    """What is equal exactly where two things are the same to the bit, in the same order."""
    if isinstance(value, ResolvedView):
        return value.fingerprint
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if is_dataclass(value):
        return type(value), [(field.name, exact(getattr(value, field.name))) for field in fields(value)]
    if isinstance(value, AuditCounts):
        return exact(vars(value))
    if isinstance(value, dict):
        return [(exact(name), exact(item)) for name, item in value.items()]
    if isinstance(value, tuple):
        return tuple(exact(item) for item in value)
    if isinstance(value, Exception):
        return type(value), exact(value.args), exact(vars(value)), str(value)
    return [exact(item) for item in value] if isinstance(value, list) else bits(value)


def column(data: st.DataObject, of: FeatureType, rows: int) -> pa.Array:
    return pa.array(data.draw(st.lists(st.one_of(st.none(), of_type(of)), min_size=rows, max_size=rows)), of.arrow)


@settings(max_examples=draws(40), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), rows=st.integers(1, 4))
def test_what_was_counted(version: ResolvedService, data: st.DataObject, rows: int) -> None:
    """Values and keys of every type, every cause, hours, lateness and the views; and counts of other rows are added to them alike."""
    (part,) = version.parts
    times = [NOON.replace(hour=hour) for hour in data.draw(st.lists(st.integers(0, 23), min_size=rows, max_size=rows))]
    given_rows = {
        "request": [f"r{n}" for n in range(rows)],
        "row": list(range(rows)),
        "time": pa.array(times, pa.timestamp("us", "UTC")),
        as_of_column(part): pa.array([NOON] * rows, pa.timestamp("us", "UTC")),
        **{input_column(name): column(data, of, rows) for name, of in version.inputs.items()},
    }
    logged, counts = Logged(version, None, pa.table(given_rows)), AuditCounts()
    counts.late(
        logged, part, np.array(data.draw(st.lists(st.integers(0, 2**50), min_size=rows, max_size=rows)), np.int64)
    )
    for one in version.columns:
        sides = [column(data, one.type, rows) for _ in range(2)]
        causes = data.draw(st.lists(st.sampled_from(["", *CAUSES]), min_size=rows, max_size=rows))
        details = data.draw(st.lists(st.text(max_size=5), min_size=rows, max_size=rows))
        statuses = tuple(np.array([data.draw(st.sampled_from(Status)).name for _ in range(rows)]) for _ in range(2))
        own = (None, None) if one.part is None else (part, statuses)
        texts = (np.array(said, object) for said in (causes, details))
        counts.add(logged, Compared(one, own[0], *sides, *texts, own[1]))  # type: ignore[call-arg]  # as many as it has fields
    error = data.draw(st.sampled_from([None, SourceError("no"), OnlineDamagedError("it", [b"\xff"])]))
    outcome = AuditOutcome(counts, {"a": "torn"}, error, [1, 3], 2)
    found = AuditOutcome.of_bytes(outcome.to_bytes(), version)
    assert [exact(item) for item in found] == [exact(item) for item in outcome]
    both, other = copy.deepcopy(counts), copy.deepcopy(counts)
    both.add_counts(counts)
    other.add_counts(found.counts)
    assert exact(both) == exact(other)


ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FeatureStoreError)]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda of: of.__name__)
def test_every_error(kind: type[FeatureStoreError], version: ResolvedService) -> None:
    """It is of its kind, and tells what it told."""
    error: FeatureStoreError = kind.__new__(kind, "what happened \udcff")
    vars(error).update(
        changes=(("a", None, "b"),), keys=(b"\xff",), reasons={1: "no"}, lost=None, retry_after_seconds=0.5
    )
    found = AuditOutcome.of_bytes(AuditOutcome(AuditCounts(), {}, error, [], 0).to_bytes(), version).error
    assert exact(found) == exact(error)


def test_a_file_that_is_not_there(tmp_path: Path, version: ResolvedService) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        (tmp_path / "none").read_bytes()
    for error in (raised.value, FileNotFoundError("gone")):
        found = AuditOutcome.of_bytes(AuditOutcome(AuditCounts(), {}, error, [], 0).to_bytes(), version).error
        assert isinstance(found, FileNotFoundError)
        assert str(found) == str(error)


def test_what_another_version_wrote_and_what_nobody_wrote(version: ResolvedService) -> None:
    """It is refused; a name that is no error's makes nothing."""
    said = json.loads(AuditOutcome(AuditCounts(), {}, SourceError("no"), [], 0).to_bytes())
    with pytest.raises(RuntimeError, match="format 2, and the driver reads 1: install the same featurestore"):
        AuditOutcome.of_bytes(json.dumps({**said, "format": 2}).encode(), version)
    for name in ("difflib", "did_you_mean"):
        with pytest.raises(ValueError, match=f"{name} is no kind of error"):
            AuditOutcome.of_bytes(json.dumps({**said, "error": {**said["error"], "kind": name}}).encode(), version)


FAR = [timestamp_of(2**63 - 1), FarTimestamp(-(2**63 - 1)), date_of(2**31 - 1), FarDate(-(2**31 - 1))]
ODD = [
    2**70,
    -0.0,
    float("nan"),
    float("-inf"),
    Number("1E+3"),
    Number("-0.00"),
    b"",
    "\udcff",
    True,
    None,
    [],
    (),
    {},
    {(1, b"x"): [None]},
]
TIMES = [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), date(1, 1, 1)]


@pytest.mark.parametrize("value", [*FAR, *ODD, *TIMES], ids=repr)
def test_values_with_their_kind(value: Any) -> None:
    assert exact(untyped(json.loads(json.dumps(typed([value]))))) == exact([value])


def test_what_is_no_value() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        typed(object())
    with pytest.raises(ValueError, match="'Path' is no kind of value"):
        untyped({"Path": "/"})

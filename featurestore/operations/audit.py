"""Audit: what was served, against what training says of the same keys at the same instants, bit by bit.

The as-of query is asked for each logged key at the as_of that was served. A value is

    exact        it has training's bits and status
    rewritten    it has not, and a file of its source changed after it was served: history is another one now
    skewed       it has not, and nothing explains it: a defect

Whether the as_of itself was the right one is another question: by rule 0 it is `stale` when it is older (operations),
`early` when it is later (a defect). The two are never one number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from featurestore.operations.historical import answer_part
from featurestore.operations.on_demand import REQUEST_TIME, evaluate, input_names
from featurestore.operations.served_rows import as_of_column, input_column, status_columns
from featurestore.operations.spine import SpineChunk, load_chunk
from featurestore.semantics.order import order_bytes
from featurestore.semantics.service import Part, ResolvedService
from featurestore.semantics.status import Status
from featurestore.semantics.values import canonical, scalars
from featurestore.stores.offline import Offline, Session
from featurestore.stores.serving_log import Losses, losses, segments
from featurestore.types import FeatureType

__all__ = ["Audit", "Difference", "FeatureAudit", "Lateness", "audit"]

EXAMPLES = 5
"""Differences of one feature that a report shows."""

Bits = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Columns = dict[str, pa.Array]


@dataclass(frozen=True)
class Difference:
    """One value that was served and is not training's."""

    request: str
    row: int
    time: datetime
    key: dict[str, Any]
    as_of: datetime | None
    served: Any
    trained: Any
    statuses: tuple[str, str]
    cause: str


@dataclass
class FeatureAudit:
    """One feature of one service version: how many values were compared, and how they came out."""

    service: str
    fingerprint: str
    feature: str
    compared: int = 0
    exact: int = 0
    rewritten: int = 0
    skewed: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    examples: list[Difference] = field(default_factory=list)


@dataclass(frozen=True)
class Lateness:
    """How old the as_of of one view was, against rule 0: µs."""

    service: str
    view: str
    requests: int
    stale: int
    early: int
    p50: int
    p99: int
    greatest: int


@dataclass(frozen=True)
class Audit:
    """What the log shows. `not_audited`: service versions whose definitions are not at hand, and why."""

    features: tuple[FeatureAudit, ...]
    lateness: tuple[Lateness, ...]
    losses: Losses
    not_audited: dict[str, str]

    @property
    def compared(self) -> int:
        """Values compared."""
        return sum(feature.compared for feature in self.features)

    @property
    def skewed(self) -> int:
        """Values that differ without a change of history, and as_of that were early: defects."""
        return sum(feature.skewed for feature in self.features) + sum(view.early for view in self.lateness)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; differences as text."""
        return {
            "compared": self.compared,
            "skewed": self.skewed,
            "features": [
                {
                    **{name: getattr(feature, name) for name in FEATURE_FIELDS},
                    "examples": [{**vars(example), "key": str(example.key)} for example in feature.examples],
                }
                for feature in self.features
            ],
            "lateness": [vars(view) for view in self.lateness],
            "losses": self.losses._asdict(),
            "not_audited": self.not_audited,
        }


FEATURE_FIELDS = ("service", "fingerprint", "feature", "compared", "exact", "rewritten", "skewed", "causes")

Resolve = Callable[[str, str], ResolvedService]


def audit(
    folder: Path, offline: Offline, resolve: Resolve, *, since: int | None, until: int | None, service: str | None
) -> Audit:
    """Compare what was served from `since` to `until` (µs, None: all) with training. resolve: (service, fingerprint) → its
    definitions with the functions at hand; a LookupError or ValueError of it says why that version is left out."""
    features: list[FeatureAudit] = []
    lateness: list[Lateness] = []
    left_out: dict[str, str] = {}
    for (name, fingerprint), files in segments(folder, service=service).items():
        try:
            version = resolve(name, fingerprint)
        except (LookupError, ValueError) as error:
            left_out[f"{name} {fingerprint}"] = str(error)
            continue
        rows = _rows(files, since, until)
        if rows.num_rows:
            found, late = _audited(version, rows, offline)
            features += found
            lateness += late
    return Audit(tuple(features), tuple(lateness), losses(folder), left_out)


def _rows(files: Sequence[Path], since: int | None, until: int | None) -> pa.Table:
    of = pa.timestamp("us", "UTC")
    condition = pc.scalar(True)
    if since is not None:
        condition &= pc.field("time") >= pa.scalar(since).cast(of)
    if until is not None:
        condition &= pc.field("time") < pa.scalar(until).cast(of)
    return ds.dataset([str(path) for path in files], format="parquet").to_table(filter=condition)


def _audited(version: ResolvedService, rows: pa.Table, offline: Offline) -> tuple[list[FeatureAudit], list[Lateness]]:
    times = _instants(rows["time"])
    inputs = {name: rows[input_column(name)] for name in version.inputs}
    trained: Columns = {}
    audits: dict[str, FeatureAudit] = {}
    differing = np.zeros(rows.num_rows, np.bool_)
    lateness = []
    with offline.session() as session:
        spine = pa.table({**inputs, "time": rows["time"]})
        load_chunk(
            session.connection, SpineChunk(spine, 0), timestamp="time", timezone="UTC", inputs=version.inputs,
            from_pandas=False,
        )  # fmt: skip
        for part in version.parts:
            served_for = _instants(rows[as_of_column(part)])
            lateness.append(_late(version, part, times, served_for))
            columns, statuses = _trained(session, part, served_for)
            trained.update(columns)
            changed = _changed_since(offline, part, times)
            for name, differs in _compared(version, part, rows, columns, statuses):
                audits[name] = _told(version, name, rows, differs, (columns[name], statuses[name]), changed)
                differing |= differs
    for item in version.declared.on_demand:
        names = input_names(item)
        available: Columns = {**trained, **{name: column.combine_chunks() for name, column in inputs.items()}}
        available[REQUEST_TIME] = rows["time"].combine_chunks()
        again = evaluate(item, {name: available[name] for name in names}, lambda row: f"row {row}")
        differs = ~_same_bits(_column(rows, item.name, item.output), again, item.output) & ~differing
        present = np.full(rows.num_rows, Status.PRESENT.name)
        audits[item.name] = _told(version, item.name, rows, differs, (again, present), None)
    return [audits[column.name] for column in version.columns], lateness


def _trained(session: Session, part: Part, as_of: Ints) -> tuple[Columns, dict[str, npt.NDArray[Any]]]:
    """The part's columns and statuses as training says, each row at the instant that was served."""
    session.connection.register("served_for", pa.table({"n": np.arange(len(as_of)), "a": as_of}))
    answer = answer_part(session, part, as_of, served="served_for")
    session.connection.unregister("served_for")
    statuses = answer.statuses_of(part.features)
    columns = answer.columns(part.features, statuses)
    names = np.array([status.name for status in Status])
    return (
        {part.column(feature.name): column for feature, column in zip(part.features, columns, strict=True)},
        {part.column(name): names[status] for name, status in statuses.items()},
    )


def _compared(
    version: ResolvedService, part: Part, rows: pa.Table, columns: Columns, statuses: dict[str, npt.NDArray[Any]]
) -> list[tuple[str, Bits]]:
    """The service's columns of a part, each with where value or status differ. What was withheld is no value."""
    served = {name: own for own, names in status_columns(part).items() for name in names}
    found = []
    for column in version.columns:
        if column.part == part.name:
            status = rows[served[column.name]].to_numpy(zero_copy_only=False)
            same = _same_bits(_column(rows, column.name, column.type), columns[column.name], column.type)
            found.append((column.name, (~same | (status != statuses[column.name])) & (status != Status.WITHHELD.name)))
    return found


def _told(
    version: ResolvedService, name: str, rows: pa.Table, differs: Bits, trained: tuple[pa.Array, npt.NDArray[Any]],
    changed: Bits | None,
) -> FeatureAudit:  # fmt: skip
    """The count of one feature, with examples. changed: where a file of its source changed after the lookup."""
    column = next(column for column in version.columns if column.name == name)
    part = next((part for part in version.parts if part.name == column.part), None)
    told = FeatureAudit(version.name, version.fingerprint, name, rows.num_rows, int((~differs).sum()))
    values, statuses = trained
    own = None if part is None else next(own for own, names in status_columns(part).items() if name in names)
    for row in np.flatnonzero(differs).tolist():
        before = Status.PRESENT.name if own is None else rows[own][row].as_py()
        is_rewritten = changed is not None and bool(changed[row])
        cause = _cause(before, str(statuses[row]), rewritten=is_rewritten, on_demand=column.on_demand is not None)
        told.rewritten += is_rewritten
        told.skewed += not is_rewritten
        told.causes[cause] = told.causes.get(cause, 0) + 1
        if len(told.examples) < EXAMPLES:
            told.examples.append(
                Difference(
                    rows["request"][row].as_py(), rows["row"][row].as_py(), rows["time"][row].as_py(),
                    {key: rows[input_column(key)][row].as_py() for key in version.key_inputs},
                    None if part is None else rows[as_of_column(part)][row].as_py(),
                    rows[name][row].as_py(), scalars(values.slice(row, 1))[0], (before, str(statuses[row])), cause,
                )
            )  # fmt: skip
    return told


def _cause(served: str, trained: str, *, rewritten: bool, on_demand: bool) -> str:
    if rewritten:
        return "history rewritten"
    if on_demand:
        return "on-demand code or library changed"
    if Status.EXPIRED.name in {served, trained} and served != trained:
        return "expiry"
    return "unexplained"


def _changed_since(offline: Offline, part: Part, times: Ints) -> Bits:
    """Where a file of the part's source was modified after the lookup."""
    modified = max((file.modified for file in offline.files(part.view.source)), default=0) // 1000
    changed: Bits = times < modified
    return changed


def _late(version: ResolvedService, part: Part, times: Ints, served_for: Ints) -> Lateness:
    behind = part.view.timing.as_of(times) - served_for
    late = behind[behind > 0]
    p50, p99 = (int(np.percentile(late, q, method="higher")) if len(late) else 0 for q in (50, 99))
    greatest = int(late.max()) if len(late) else 0
    return Lateness(version.name, part.name, len(times), len(late), int((behind < 0).sum()), p50, p99, greatest)


def _column(rows: pa.Table, name: str, of: FeatureType) -> pa.Array:
    return canonical(rows[name], of)


def _instants(column: pa.ChunkedArray) -> Ints:
    values: Ints = column.cast(pa.int64()).to_numpy()
    return values


def _same_bits(a: pa.Array, b: pa.Array, of: FeatureType) -> Bits:
    """Where two columns of a type hold the same value: NaN is NaN, -0.0 is not 0.0, null is null alone."""
    if of.element is not None:
        pairs = zip(scalars(a), scalars(b), strict=True)
        return np.array([order_bytes(of, x) == order_bytes(of, y) for x, y in pairs], np.bool_)
    if of.is_float:
        bits = pa.int64() if of.kind == "Float64" else pa.int32()
        a, b = a.view(bits), b.view(bits)
    null_a, null_b = (column.is_null().to_numpy(zero_copy_only=False) for column in (a, b))
    equal = pc.fill_null(pc.equal(a, b), False).to_numpy(zero_copy_only=False)
    same: Bits = (null_a & null_b) | (equal & ~null_a & ~null_b)
    return same

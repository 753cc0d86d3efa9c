"""On-demand features: the function asked again, with training's inputs and with those that were served."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from featurestore.declare.on_demand import OnDemand
from featurestore.errors import OnDemandError
from featurestore.lazy import pa
from featurestore.reports.audit.audit_counts import Compared
from featurestore.reports.audit.bits import same_bits
from featurestore.reports.audit.logged import Logged
from featurestore.semantics.evaluate import evaluate, input_names
from featurestore.semantics.service import ServiceColumn
from featurestore.serving.store_version import StoreVersion


def compare_functions(
    logged: Logged, trained: Mapping[str, pa.Array], compared: Mapping[str, Compared]
) -> dict[str, Compared]:
    """The on-demand columns. trained: training's features by column; compared: those that were compared already."""
    found: dict[str, Compared] = {}
    for column in logged.version.columns:
        if column.on_demand is not None:
            served = logged.column(column.name, column.type)
            if served is not None:
                found[column.name] = _compare(logged, column, served, trained, {**compared, **found})
    return found


def _compare(
    logged: Logged, column: ServiceColumn, served: pa.Array, trained: Mapping[str, pa.Array],
    compared: Mapping[str, Compared],
) -> Compared:  # fmt: skip
    item = column.on_demand
    assert item is not None
    names = input_names(item)
    asked = {**trained, **_columns(logged.inputs)}
    again, failed = _evaluated(item, {name: asked[name] for name in names}, logged.rows.num_rows)
    same = same_bits(served, again, column.type)
    causes, details = np.full(len(same), "", object), np.full(len(same), "", object)
    rows = np.flatnonzero(~same)
    if len(rows):
        own = {name: compared[name].served if name in compared else asked[name] for name in names}
        own |= {name: array for name, array in _columns(logged.brought).items() if name in names}
        index = pa.array(rows)
        there, _ = _evaluated(item, {name: array.take(index) for name, array in own.items()}, len(rows))
        by_inputs = same_bits(served.take(index), there, column.type)
        changed, libraries = _is_changed(logged, item), _libraries(logged)
        for row, by_input in zip(rows.tolist(), by_inputs.tolist(), strict=True):
            causes[row], details[row] = _cause(names, compared, row, by_input=by_input, changed=changed)
            if not by_input and not changed:
                details[row] += libraries
            details[row] = failed.get(row) or details[row]
    return Compared(column, None, served, again, causes, details)


def _cause(
    names: list[str], compared: Mapping[str, Compared], row: int, *, by_input: bool, changed: bool
) -> tuple[str, str]:
    """The cause of a difference: that of the first input that differs, where the inputs explain it."""
    if not by_input:
        if changed:
            return "definition changed", "the version served has other code"
        return "on-demand code or library changed", "the function gives another value for the inputs that were served"
    for name in names:
        if name in compared and compared[name].causes[row]:
            return compared[name].causes[row], f"by its input {name}"
    return "request value differed", "training was asked with other request values than the request brought"


def _is_changed(logged: Logged, item: OnDemand) -> bool:
    """Whether the version that was served is another one, with other code for this feature."""
    if logged.served is None:
        return False
    own = {other.name: other.code for other in logged.served.on_demand}
    return own.get(item.name) != item.code


def _libraries(logged: Logged) -> str:
    """The libraries that were others when it was served."""
    now = StoreVersion.of(logged.version, None).libraries
    others = [
        f"{name} was {' and '.join(sorted(versions))} and is {now.get(name, 'not there')}"
        for name, versions in logged.libraries.items()
        if versions != {now.get(name)}
    ]
    return f"; {', '.join(others)}" if others else "; no library that it names has another version"


def _evaluated(item: OnDemand, inputs: dict[str, pa.Array], rows: int) -> tuple[pa.Array, dict[int, str]]:
    """The function's values, null where it fails, and what it failed with."""
    try:
        return _full(evaluate(item, inputs, lambda row: f"row {row}"), rows), {}
    except OnDemandError as error:
        if item.mode != "row":
            return pa.nulls(rows, item.output.arrow), dict.fromkeys(range(rows), str(error))
    values, failed = [], {}
    for row in range(rows):
        try:
            values.append(evaluate(item, {name: array.slice(row, 1) for name, array in inputs.items()}, lambda _: "it"))
        except OnDemandError as error:
            values.append(pa.nulls(1, item.output.arrow))
            failed[row] = str(error)
    return pa.concat_arrays(values), failed


def _full(array: pa.Array, rows: int) -> pa.Array:
    """A function without inputs gives one value for all rows."""
    return array if len(array) == rows else array.take(pa.array(np.zeros(rows, np.int64)))


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    return {name: table[name].combine_chunks() for name in table.column_names}

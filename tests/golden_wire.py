"""The golden files, made anew: `python -m tests.golden_wire` rewrites the bytes of each type and the SQL of the query."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore import Entity, FeatureView
from featurestore.online.view_codec import ViewCodec, pack_watermark
from featurestore.query.asof import (
    Statement,
    asked_rows_sql,
    keys_statements,
    newest_sql,
    rows_statement,
    ties_statements,
)
from featurestore.semantics.source_columns import Scan
from featurestore.semantics.values import canonical
from featurestore.semantics.view import EVENT_TIME, UNTIL, resolve
from featurestore.types import FeatureType, Int64, String, from_json, parse_type
from tests.small import TIME, table, view_of

GOLDEN = Path(__file__).parent / "golden"
WIRE = GOLDEN / "wire.json"

VALUES: dict[str, list[Any]] = {
    "Bool": [True, False],
    "Int32": [1, -2],
    "Int64": [1, -9007199254740993],
    "Float32": [0.5, "NaN"],
    "Float64": [-0.0, "NaN"],
    "String": ["", "日本"],
    "Bytes": ["", "AP8="],
    "Date": ["1970-01-02", "1969-12-31"],
    "Timestamp": ["1970-01-01T00:00:00.000001Z", "1969-12-31T23:59:59.999999Z"],
    "Decimal(10, 2)": ["0.01", "-99999999.99"],
    "Decimal(38, 0)": ["1", "-" + "9" * 38],
    "Array(Float64)": [[], [1.5, None, "NaN"]],
    "Array(String)": [["", None, "a"], []],
    "Array(Float32, 3)": [[1.0, 2.0, 3.0], [-0.0, "NaN", "Infinity"]],
}
RAW = {
    "thing": "BIGINT", "other": "VARCHAR", "id": "VARCHAR", "gone": "BOOLEAN", "at": "TIMESTAMP WITH TIME ZONE",
    "known": "TIMESTAMP WITH TIME ZONE", "x": "DOUBLE",
}  # fmt: skip
ROWS = table(
    thing=[1], other=["a"], id=["a"], gone=[False], at=pa.array([datetime(2024, 1, 1)], TIME),
    known=pa.array([datetime(2024, 1, 1)], TIME), x=[1.0],
)  # fmt: skip
PAIR = Entity("pair", key={"thing": Int64, "other": String})
CASES: dict[str, FeatureView] = {
    "plain": view_of(ROWS, ["x"]),
    "known_at": view_of(ROWS, ["x"], known_at="known", refresh="1h", settle="5m"),
    "identity_deleted": view_of(ROWS, ["x"], known_at="known", identity="id", deleted="gone"),
    "composite_key": view_of(ROWS, ["x"], entity=PAIR),
    "timezone": view_of(ROWS, ["x"], timezone="America/New_York"),
}


def current() -> dict[str, dict[str, list[str]]]:
    """The bytes that this version writes for each type, as hex."""
    return {name: _wire(parse_type(name), values) for name, values in VALUES.items()}


def _wire(of: FeatureType, values: list[object]) -> dict[str, list[str]]:
    raw = {"thing": "BIGINT", "at": "TIMESTAMP WITH TIME ZONE", "x": of.duckdb}
    codec = ViewCodec("project", resolve(view_of(ROWS, ["x"]), raw))
    column = canonical(pa.array([*(from_json(of, value) for value in values), None], of.arrow), of)
    times = pa.array(range(len(column)), pa.int64())
    rows = pa.table({EVENT_TIME: times, UNTIL: times, "x": column})
    result = {"records": [record.hex() for record in codec.records(1_000_000, rows, ["x"])]}
    result["watermark"] = [pack_watermark([2_000_000, 1_000_000]).hex()]
    if of.element is None and not of.is_float:
        keys = ViewCodec(
            "project",
            resolve(view_of(ROWS, ["other"], entity=Entity("e", key={"x": of})), {**raw, "other": "VARCHAR"}),
        )
        result["keys"] = [
            key.removeprefix(keys.record_prefix).hex() for key in keys.keys([column.drop_null()], len(values))
        ]
    return result


def sql_of(name: str) -> str:
    """The SQL of the as-of query of a case."""
    raw = {**RAW, "at": "TIMESTAMP", "known": "TIMESTAMP"} if name == "timezone" else RAW
    view = resolve(CASES[name], raw)
    scan = Scan("read_parquet(['rows.parquet'])", "file_index", "file_row_number")
    parts = ["-- the keys", *map(_filling, keys_statements(view, "requests"))]
    rows = f"{asked_rows_sql(view, scan)};"
    parts += ["-- the rows, to be searched", _filling(rows_statement(view, scan)) if view.source.identity else rows]
    parts += ["-- where all requests are for one instant", f"{newest_sql(view, 1_704_067_200_000_000)};"]
    left = bool(view.source.identity)
    parts += ["-- what the search leaves undecided", *map(_filling, ties_statements(view, scan, left=left))]
    return "\n\n".join(parts) + "\n"


def _filling(statement: Statement) -> str:
    return f"CREATE OR REPLACE TEMP TABLE {statement.table} AS\n{statement.sql};"


def main() -> None:
    """Write all of them."""
    GOLDEN.mkdir(exist_ok=True)
    WIRE.write_text(json.dumps(current(), indent=2, ensure_ascii=False) + "\n")
    for name in CASES:
        (GOLDEN / f"{name}.sql").write_text(sql_of(name))


if __name__ == "__main__":
    main()

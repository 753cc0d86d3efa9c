"""Rows of every type, each kind of source that has them, and what the store says of them: for tests that it is the same."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore import (
    Count,
    CsvSource,
    DataFrameSource,
    Entity,
    FeatureStore,
    FeatureView,
    JsonLinesSource,
    ManualClock,
    Mean,
    ParquetSource,
    TableSource,
)
from featurestore.declare.sources import Source
from featurestore.durable.parquet import storable
from featurestore.types import (
    Array,
    Bool,
    Bytes,
    Date,
    Decimal,
    FeatureType,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
    Timestamp,
    to_json,
)
from tests.platforms.shop import bits

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VALUES: dict[str, tuple[FeatureType, list[Any]]] = {
    "flag": (Bool, [True, False, None]),
    "small": (Int32, [2**31 - 1, -(2**31), None, 0]),
    "big": (Int64, [2**63 - 1, -(2**63), None, 2**53 + 1]),
    "narrow": (Float32, [1.5, -0.0, None, math.nan, math.inf, 2.0**-149]),
    "wide": (Float64, [0.1, -0.0, None, math.nan, -math.inf, 5e-324, 1.7976931348623157e308]),
    "text": (String, ["", "a,b", 'say "hi"', "two\nlines", None, "日本", " blank ", "NULL"]),
    "raw": (Bytes, [b"", b"\x00\xff", None]),
    "day": (Date, [date(1, 1, 1), date(9999, 12, 31), None, date(2026, 2, 28)]),
    "moment": (Timestamp, [NOON, None, datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(9999, 12, 31, tzinfo=UTC)]),
    "price": (Decimal(12, 3), [Number("0.001"), Number("-123456789.000"), None]),
    "numbers": (Array(Int64), [[1, None, -1], [], None]),
    "words": (Array(String), [["a,b", 'q"q', ""], [], None]),
    "embedding": (Array(Float32, 2), [[0.5, -0.0], None]),
}  # fmt: skip
TYPES = {"user": String, "at": Timestamp, "seen": Timestamp, **{name: of for name, (of, _) in VALUES.items()}}
ROWS = [
    {
        "user": f"u{number % 5}",
        "at": NOON + timedelta(minutes=7 * number, microseconds=number),
        "seen": NOON + timedelta(minutes=7 * number + number % 3),
        **{name: values[number % len(values)] for name, (_, values) in VALUES.items()},
    }
    for number in range(60)
]
USER = Entity("user", key={"user": String})
WORDS: dict[str, Any] = {"event_time": "at", "known_at": "seen", "refresh": "1h"}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], of.arrow) for name, of in TYPES.items()})


def parquet(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    listed = table(rows).rename_columns({"embedding": "list"})  # a Parquet file says no length
    pq.write_table(storable(listed), folder / "rows.parquet")
    return ParquetSource("rows", folder / "rows.parquet", derived={"embedding": "CAST(list AS FLOAT[2])"}, **words)


def listed_rows(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows whose arrays of a fixed length are lists, as which other tools write them."""
    whole = table(rows)
    lists = pa.array(whole["embedding"].to_pylist(), pa.list_(pa.float32()))
    return whole.drop_columns(["embedding"]).append_column("list", lists)


def of_others(folder: Path, **words: Any) -> Source:
    """Files that other tools wrote below a folder."""
    return ParquetSource("rows", folder, derived={"embedding": "CAST(list AS FLOAT[2])"}, **words)


NAMES = ("a b", "a%20b", "x=1=2", "[1]", "*", "part-0.c000.snappy", "ü–漢", "%s", "é'\"", "a\nb", "day-09:00")
"""Signs in names of files that readers of patterns, URLs and SQL take for their own."""


def of_arrow(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    """In every compression and layout, under odd names, among what jobs leave beside their files."""
    listed, folder = listed_rows(rows), folder / "rows"
    said: list[dict[str, Any]] = [
        *({"compression": codec} for codec in ("none", "snappy", "gzip", "brotli", "lz4", "zstd")),
        {"version": "1.0"}, {"data_page_version": "2.0"},
        {"store_decimal_as_integer": True}, {"use_dictionary": False}, {"store_schema": False, "row_group_size": 1},
    ]  # fmt: skip
    (folder / "_temporary" / "0").mkdir(parents=True, exist_ok=True)
    for number, (name, how) in enumerate(zip(NAMES, said, strict=True)):
        some = listed.take(list(range(number, len(rows), len(NAMES))))
        pq.write_table(some, folder / f"{name}.parquet", **how)
    pq.write_table(listed[:0], folder / "empty.parquet")
    pq.ParquetWriter(folder / "no row groups.parquet", listed.schema).close()
    pq.write_table(listed, folder / "_temporary" / "0" / "part.parquet")
    pq.write_metadata(listed.schema, folder / "_metadata")
    for name in ("_SUCCESS", "._SUCCESS.crc", ".a.parquet.crc", "part-0000"):
        (folder / name).touch()
    for name, to in (("round", folder), ("itself", folder / "itself")):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(to)
    return of_others(folder, **words)


def of_old_spark(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    """Instants of 96 bits, and decimals as bytes."""
    listed = listed_rows(rows)
    pq.write_table(listed, folder / "rows.parquet", use_deprecated_int96_timestamps=True, store_schema=False)
    return of_others(folder / "rows.parquet", **words)


def of_duckdb(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    (folder / "rows").mkdir(exist_ok=True)
    with duckdb.connect() as connection:
        connection.register("given", listed_rows(rows))
        for number, how in enumerate(("CODEC 'zstd'", "CODEC 'lz4_raw', PARQUET_VERSION v2", "CODEC 'brotli'")):
            some = f"SELECT * EXCLUDE (place) FROM (SELECT *, row_number() OVER () AS place FROM given) WHERE place % 3 = {number}"
            connection.sql(f"COPY ({some}) TO '{folder}/rows/{number}.parquet' (FORMAT parquet, {how})")
    return of_others(folder / "rows", **words)


def of_polars(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    """Keys as categories."""
    listed = pl.DataFrame(listed_rows(rows))
    listed = listed.with_columns(pl.col("user").cast(pl.Categorical))
    listed.write_parquet(folder / "rows.parquet", row_group_size=7, statistics="full")
    return of_others(folder / "rows.parquet", **words)


def of_pandas(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    """The key and the time as index."""
    frame = listed_rows(rows).to_pandas(types_mapper=pd.ArrowDtype)
    frame.set_index(["user", "at"]).to_parquet(folder / "rows.parquet")
    return of_others(folder / "rows.parquet", **words)


def database(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    with duckdb.connect(str(folder / "rows.duckdb")) as connection:
        connection.register("given", table(rows))
        connection.sql("CREATE TABLE rows AS FROM given")
    return TableSource("rows", folder / "rows.duckdb", table="rows", **words)


def frame(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    return DataFrameSource("rows", table(rows), **words)


def as_text(of: FeatureType, value: Any) -> str:
    if of.kind == "Bytes":
        return base64.b64encode(value).decode()
    said = to_json(of, value)
    return said if isinstance(said, str) else json.dumps(said)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def write_csv(file: Path, rows: list[dict[str, Any]], opened: Callable[..., Any] = open) -> None:
    with opened(file, "wt", newline="", encoding="utf-8") as text:
        text.write(",".join([*TYPES, "beside"]) + "\r\n")
        for row in rows:
            said = ["" if row[name] is None else quoted(as_text(of, row[name])) for name, of in TYPES.items()]
            text.write(",".join([*said, "x"]) + "\r\n")


def csv_file(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    write_csv(folder / "rows.csv", rows)
    return CsvSource("rows", folder / "rows.csv", schema=TYPES, **words)


def csv_files(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    (folder / "rows").mkdir(exist_ok=True)
    write_csv(folder / "rows" / "a.csv", rows[::2])
    write_csv(folder / "rows" / "b.csv.gz", rows[1::2], gzip.open)
    return CsvSource("rows", folder / "rows", schema=TYPES, **words)


def json_lines(folder: Path, rows: list[dict[str, Any]], **words: Any) -> Source:
    lines = [
        json.dumps(
            {name: to_json(of, row[name]) for name, of in TYPES.items() if row[name] is not None} | {"beside": 1}
        )
        for row in rows
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return JsonLinesSource("rows", folder / "rows.jsonl", schema=TYPES, **words)


KINDS = {
    "table": database, "frame": frame, "csv": csv_file, "csv files": csv_files, "json lines": json_lines,
    "Arrow's files": of_arrow, "old Spark's file": of_old_spark,
    "DuckDB's files": of_duckdb, "Polars' file": of_polars, "pandas' file": of_pandas,
}  # fmt: skip


def views(source: Source) -> list[FeatureView]:
    plain = FeatureView("plain", entity=USER, source=source, features=list(VALUES), ttl="3h")
    folded = {"count": Count(window="2h"), "mean": Mean("wide", window="1d"), "rows": Count(window="lifetime")}
    return [plain, FeatureView("folded", entity=USER, source=source, features=folded)]


def asked() -> pa.Table:
    """Each key at each row's own instant, one microsecond before, and long after."""
    at = [row["at"] + timedelta(microseconds=step) for row in ROWS for step in (-1, 0)] + [NOON + timedelta(days=9)]
    keys = ["u0", "u1", "u2", "u3", "u4", "nobody"]
    rows = [(key, time) for key in keys for time in at]
    return pa.table(
        {"user": [key for key, _ in rows], "event_timestamp": pa.array([time for _, time in rows], Timestamp.arrow)}
    )


def answers(source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
    """What training says of every instant, with the types, and what is served at one."""
    with FeatureStore.local(clock=ManualClock(NOON + timedelta(hours=7))) as store:
        store.apply(views(source))
        trained = store.get_historical_features(asked(), views(source), with_status=True).to_arrow()
        store.materialize(progress=False)
        served = store.get_online_features([{"user": f"u{number}"} for number in range(6)], views(source))
        said = {
            "types": list(map(str, trained.schema)),
            "values": [bits(column.to_pylist()) for column in trained.columns],
        }
        return said, {
            "values": [bits(column.to_pylist()) for column in served.to_arrow().columns],
            "statuses": served.statuses,
        }

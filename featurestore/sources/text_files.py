"""Files of text, read as columns of the types that their source declares."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from featurestore.declare.text_sources import CsvSource, JsonLinesSource, TextSource
from featurestore.errors import SourceError, did_you_mean
from featurestore.lazy import pa, pa_csv
from featurestore.semantics.input_columns import WrongValueError
from featurestore.semantics.values import canonical
from featurestore.sources.source_files import source_error
from featurestore.sources.texts import column_of
from featurestore.types import Timestamp, from_json

BLOCK_BYTES = 8 << 20
"""Of a CSV file, read at once; a line may not be longer."""

JSON_ROWS = 50_000
"""Of JSON lines, converted at once."""


def schema_of(source: TextSource, present: list[str]) -> pa.Schema:
    """The columns that are read of a file that has those of `present`, in the order in which they are declared."""
    return pa.schema([(name, of.arrow) for name, of in source.columns.items() if name in present])


def batches(source: TextSource, path: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """What a file holds of the declared columns: its schema, and its rows in their order. Raises SourceError, now or while
    they are read, which names the row (the first is 1) and the column."""
    if isinstance(source, CsvSource):
        return _csv(source, path)
    assert isinstance(source, JsonLinesSource)
    return schema_of(source, list(source.columns)), _json_lines(source, path)


def _csv(source: CsvSource, path: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    names = _header(source, path)
    present = [name for name in source.columns if name in names]
    for name in source.columns:
        if names.count(name) > 1:
            raise source_error(source, f"{path} has two columns '{name}'; rename one of them")
        if name not in names and name not in source.optional:
            hint = did_you_mean(name, names, noun="Its columns")
            raise source_error(source, f"{path} has no column '{name}'.{hint}")
    return schema_of(source, present), _csv_batches(source, path, present)


def _options(source: CsvSource) -> dict[str, Any]:
    return {
        "read_options": pa_csv.ReadOptions(block_size=BLOCK_BYTES),
        "parse_options": pa_csv.ParseOptions(delimiter=source.delimiter, newlines_in_values=True),
    }


def _header(source: CsvSource, path: str) -> list[str]:
    """The names in a file's first line."""
    convert = pa_csv.ConvertOptions(check_utf8=False)
    try:
        with pa_csv.open_csv(path, convert_options=convert, **_options(source)) as reader:
            return list(reader.schema.names)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise source_error(source, f"{path} cannot be read as CSV: {error}") from None


def _csv_batches(source: CsvSource, path: str, present: list[str]) -> Iterator[pa.RecordBatch]:
    convert = pa_csv.ConvertOptions(
        include_columns=present, column_types=dict.fromkeys(present, pa.string()), strings_can_be_null=True,
        null_values=list(source.null), quoted_strings_can_be_null=False,
    )  # fmt: skip
    first = 1
    try:
        with pa_csv.open_csv(path, convert_options=convert, **_options(source)) as reader:
            for batch in reader:
                yield _converted(source, path, batch, first)
                first += batch.num_rows
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise source_error(source, f"{path} cannot be read as CSV, after row {first - 1}: {error}") from None


def _converted(source: CsvSource, path: str, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    columns = []
    for name, texts in zip(batch.schema.names, batch.columns, strict=True):
        of = source.columns[name]
        try:
            columns.append(column_of(texts, of, zone=source.timezone))
        except WrongValueError as error:
            text = texts[error.row].as_py()
            hint = f"; where {text!r} stands for null, say null={[*source.null, text]!r}" if _may_be_null(text) else ""
            raise _wrong(source, path, first + error.row, name, f"{error}{hint}") from None
    return pa.RecordBatch.from_arrays(columns, schema=schema_of(source, batch.schema.names))


def _may_be_null(text: str) -> bool:
    return text.strip().lower() in {"", "na", "n/a", "null", "none", "nil", "-", "\\n", "nan", "nat"}


def _wrong(source: TextSource, path: str, row: int, name: str, why: str) -> SourceError:
    return source_error(source, f"{path}, row {row}, column '{name}' must be {source.columns[name]}: {why}")


def _json_lines(source: JsonLinesSource, path: str) -> Iterator[pa.RecordBatch]:
    rows: list[tuple[int, dict[str, Any]]] = []
    with _opened(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                rows.append((number, _object(source, path, number, line)))
                if len(rows) == JSON_ROWS:
                    yield _of_objects(source, path, rows)
                    rows = []
        except (OSError, EOFError) as error:  # of gzip
            raise source_error(source, f"{path} cannot be read: {error}") from None
    yield _of_objects(source, path, rows)


def _opened(path: str) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.endswith(".gz") else Path(path).open("rb")


def _object(source: JsonLinesSource, path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    except orjson.JSONDecodeError as error:
        raise source_error(source, f"{path}, line {number} is no JSON: {error}") from None
    if not isinstance(row, dict):
        raise source_error(source, f"{path}, line {number} is no object of columns and values")
    return row


def _of_objects(source: JsonLinesSource, path: str, rows: list[tuple[int, dict[str, Any]]]) -> pa.RecordBatch:
    columns = []
    for name, of in source.columns.items():
        values = [row.get(name) for _, row in rows]
        try:
            if of == Timestamp and all(value is None or isinstance(value, str) for value in values):
                columns.append(column_of(pa.array(values, pa.string()), of, zone=source.timezone))
                continue
            columns.append(canonical(pa.array([from_json(of, value) for value in values], of.arrow), of))
        except WrongValueError as error:
            raise _wrong(source, path, rows[error.row][0], name, str(error)) from None
        except (ValueError, TypeError):
            for number, row in rows:
                try:
                    from_json(of, row.get(name))
                except (ValueError, TypeError) as error:
                    raise _wrong(source, path, number, name, str(error)) from None
            raise
    return pa.RecordBatch.from_arrays(columns, schema=schema_of(source, list(source.columns)))

"""Files of text, read as columns of the types that their source declares."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from featurestore.declare.problems import name_twice
from featurestore.declare.text_sources import CsvSource, JsonLinesSource, TextSource
from featurestore.errors import SourceError, did_you_mean
from featurestore.lazy import pa, pa_csv, pc
from featurestore.semantics.input_columns import WrongValueError
from featurestore.semantics.values import canonical
from featurestore.sources.source_files import source_error
from featurestore.sources.text.texts import column_of
from featurestore.sources.unreadable import HEAD, KINDS
from featurestore.types import Bytes, String, Timestamp, from_json

BLOCK_BYTES = 8 << 20
"""Of a CSV file, read at once; a line may not be longer."""

UTF_16, GZIP = (b"\xff\xfe", b"\xfe\xff"), b"\x1f\x8b"
"""How such files begin."""

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
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise source_error(source, f"{path} cannot be read as CSV: {_why(path, error)}") from None


def _why(path: str, error: Exception) -> str:
    """What is wrong with a file: what it is where that is no UTF-8 text, or what the reader says."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return str(error)
    if head.startswith(UTF_16):
        return "it is text in UTF-16; write it in UTF-8"
    if path.endswith(".gz"):
        return str(error) if head.startswith(GZIP) else "it is not compressed with gzip, as its name says"
    if head.startswith(GZIP):
        return "it is compressed with gzip; let its name end in .gz"
    known = next((what for begin, what in KINDS if head.startswith(begin)), None)
    return f"it is {known}" if known else str(error)


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
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise source_error(
            source, f"{path} cannot be read as CSV, after row {first - 1}: {_why(path, error)}"
        ) from None


def _converted(source: CsvSource, path: str, batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    columns = []
    for name, read in zip(batch.schema.names, batch.columns, strict=True):
        of = source.columns[name]
        # Of other types an empty text in quotes is no value, so it is null as one without is.
        is_value = of in {String, Bytes}
        texts = read if is_value or "" not in source.null else pc.if_else(pc.equal(read, ""), None, read)
        try:
            columns.append(column_of(texts, of, zone=source.timezone))
        except WrongValueError as error:
            text = texts[error.row].as_py()
            hint = f"; where {text!r} stands for null, say null={[*source.null, text]!r}" if _may_be_null(text) else ""
            if text in source.null:
                hint = f"; in quotes {text!r} is a text, and stands for null without them"
            raise _wrong(source, path, first + error.row, name, f"{error}{hint}") from None
    return pa.RecordBatch.from_arrays(columns, schema=schema_of(source, batch.schema.names))


def _may_be_null(text: str) -> bool:
    return text.strip().lower() in {"", "na", "n/a", "null", "none", "nil", "-", "\\n", "nan", "nat"}


def _wrong(source: TextSource, path: str, row: int, name: str, why: str) -> SourceError:
    return source_error(source, f"{path}, row {row}, column '{name}' must be {source.columns[name]}: {why}")


def _json_lines(source: JsonLinesSource, path: str) -> Iterator[pa.RecordBatch]:
    rows: list[tuple[int, dict[str, Any]]] = []
    missing, seen = {*source.columns}, set[str]()
    with _opened(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                rows.append((number, row := _object(source, path, number, line)))
                if missing:
                    seen.update(row)
                    missing.difference_update(row)
                if len(rows) == JSON_ROWS:
                    yield _of_objects(source, path, rows)
                    rows = []
        except (OSError, EOFError) as error:  # of gzip
            raise source_error(source, f"{path} cannot be read: {_why(path, error)}") from None
    _check_spelling(source, path, missing, seen)
    yield _of_objects(source, path, rows)


def _check_spelling(source: JsonLinesSource, path: str, missing: set[str], seen: set[str]) -> None:
    """A key that no line has is null in each; where one is but spelled otherwise, that is a mistake."""
    spelled = {name.strip().casefold(): name for name in seen - {*source.columns}}
    for name in sorted(missing):
        other = spelled.get(name.strip().casefold())
        if other is not None:
            raise source_error(
                source, f"{path} has no key '{name}', and has a key '{other}'; declare it as it is written"
            )


def _opened(path: str) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.endswith(".gz") else Path(path).open("rb")


def _object(source: JsonLinesSource, path: str, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    except orjson.JSONDecodeError as error:
        why = _why(path, error) if number == 1 else str(error)
        raise source_error(source, f"{path}, line {number} is no JSON: {why}") from None
    if not isinstance(row, dict):
        raise source_error(source, f"{path}, line {number} is no object of columns and values")
    twice = name_twice(line, row)
    if twice is not None:
        raise source_error(source, f"{path}, line {number} has the key '{twice[:100]}' twice")
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

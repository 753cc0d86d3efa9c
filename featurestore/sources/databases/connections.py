"""Databases that rows are copied from: the ADBC driver of each, how a name and a value are written in its SQL, and its errors
without the secrets of its URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from featurestore.declare.database_source import DatabaseSource
from featurestore.errors import SourceError
from featurestore.lazy import pa, pc
from featurestore.sources.source_files import source_error

BIGQUERY = "adbc.bigquery.sql."
BATCH_ROWS = "adbc.sqlite.query.batch_rows"
SECRET_OPTIONS = ("pass", "pwd", "secret", "token", "credential", "key")
"""What is in the name of an option that holds a secret."""


WRAPPED = {32: (-2147472692, -2147472691), 64: (-9222425352054775809, -9222425352054775808)}
"""What the driver of PostgreSQL makes of infinity and -infinity, by the bits of the type: it counts them on from the year 2000, and
so goes round to years before the first that PostgreSQL has."""


class DatabaseKind(NamedTuple):
    """What is particular to a kind of database."""

    driver: str
    """The module of its ADBC driver."""
    extra: str
    """The extra that has it."""
    connect: Callable[[str], dict[str, Any]]
    """A URL as the driver's own arguments."""
    quote: str = '"'
    """Before and after a name."""
    escapes: str = "'"
    """Signs that a text doubles, or puts a backslash before where that is among them."""
    settings: Mapping[str, str] = {}
    """Of the driver, for each query."""
    guesses: bool = False
    """Whether the driver takes a column's type from the values of the first batch, and one of nulls for integers."""


def _whole(url: str) -> dict[str, Any]:
    return {"uri": url}


def _as_postgresql(url: str) -> dict[str, Any]:
    return {"uri": "postgresql" + url[url.index("://") :]}


def _path(url: str) -> dict[str, Any]:
    return {"uri": url.removeprefix("sqlite://")}


def _bigquery(url: str) -> dict[str, Any]:
    """bigquery://project/dataset?credentials=/path/key.json&location=EU; without credentials those of the machine."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    said = {f"{BIGQUERY}project_id": parts.netloc}
    if dataset := parts.path.strip("/"):
        said[f"{BIGQUERY}dataset_id"] = dataset
    if credentials := options.pop("credentials", None):
        said[f"{BIGQUERY}auth_type"] = f"{BIGQUERY}auth_type.json_credential_file"
        said[f"{BIGQUERY}auth_credentials"] = credentials
    return {"db_kwargs": {**said, **{f"{BIGQUERY}{name}": value for name, value in options.items()}}}


POSTGRESQL = DatabaseKind("adbc_driver_postgresql", "databases", _whole)
DATABASES = {
    "sqlite": DatabaseKind("adbc_driver_sqlite", "databases", _path, settings={BATCH_ROWS: str(1 << 22)}, guesses=True),
    "postgresql": POSTGRESQL,
    "postgres": POSTGRESQL,
    "redshift": POSTGRESQL._replace(connect=_as_postgresql),
    "snowflake": DatabaseKind("adbc_driver_snowflake", "snowflake", _whole, escapes="'\\"),
    "bigquery": DatabaseKind("adbc_driver_bigquery", "bigquery", _bigquery, quote="`", escapes="\\'"),
}
"""By the scheme of a URL."""


def quoted(of: DatabaseKind, name: str) -> str:
    """A name as SQL, its schema before it where it has one."""
    return ".".join(of.quote + part.replace(of.quote, of.quote * 2) + of.quote for part in name.split("."))


def literal(of: DatabaseKind, source: DatabaseSource, value: Any) -> str:
    """A cursor's value as SQL."""
    if isinstance(value, bool) or not isinstance(value, (int, str, date, datetime)):
        raise source_error(
            source,
            f"its cursor '{source.cursor}' is {type(value).__name__}, and is to be a whole number, a time or text",
        )
    if isinstance(value, int):
        return str(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    text = value.isoformat(" ") if isinstance(value, datetime) else str(value)
    if of.escapes == "\\'":
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    for sign in of.escapes:
        text = text.replace(sign, sign * 2)
    return f"'{text}'"


def place(url: str) -> tuple[str, str, str]:
    """Which database a URL names, without who opens it."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2], parts.path


def database_of(source: DatabaseSource, url: str) -> DatabaseKind:
    """The kind of database that a URL names; SourceError where it is none that is read."""
    scheme = urlsplit(url).scheme
    if scheme not in DATABASES:
        raise source_error(source, f"database '{source.database}' is {scheme}://…; {', '.join(DATABASES)} are read")
    return DATABASES[scheme]


class DatabaseConnection:
    """An open database, which tells what it refuses without the secrets of its URL."""

    def __init__(self, source: DatabaseSource, url: str, driver: Any, opened: Any) -> None:
        self._source, self._url, self._opened = source, url, opened
        self._errors = _errors(driver)
        self._kind = database_of(source, url)

    @contextmanager
    def rows(self, sql: str) -> Iterator[pa.RecordBatchReader]:
        """What a query gives; SourceError where it is refused, or ends early."""
        with self._opened.cursor() as asked:
            try:
                if self._kind.settings:
                    asked.adbc_statement.set_options(**self._kind.settings)
                asked.execute(sql)
                reader = asked.fetch_record_batch()
                if self._kind.guesses:
                    reader = _without_guesses(reader)
            except self._errors as error:
                raise self._refused(error) from None
            schema = pa.schema([field for field in reader.schema if _is_known(field.type)])
            yield pa.RecordBatchReader.from_batches(schema, self._batches(reader, schema))

    def _batches(self, reader: Any, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        known = [place for place, field in enumerate(reader.schema) if _is_known(field.type)]
        try:
            for batch in reader:
                columns = [batch.column(place) for place in known]
                yield pa.RecordBatch.from_arrays([_with_infinity(column) for column in columns], schema=schema)
        except self._errors as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> SourceError:
        said = _words(error, self._url)
        return source_error(self._source, f"database '{self._source.database}' refuses it: {said}")


@contextmanager
def connected(source: DatabaseSource, url: str) -> Iterator[DatabaseConnection]:
    """A connection to the database that a URL names. Raises SourceError."""
    of = database_of(source, url)
    try:
        driver = import_module(f"{of.driver}.dbapi")
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{source.title} takes the library {error.name}: pip install 'featurestore[{of.extra}]' ({source.origin})"
        ) from error
    if url.startswith("sqlite:") and not Path(url.removeprefix("sqlite://")).exists():
        raise source_error(source, f"there is no file {url.removeprefix('sqlite://')}")
    try:
        opened = driver.connect(**of.connect(url))
    except _errors(driver) as error:
        said = _words(error, url)
        raise source_error(source, f"database '{source.database}' cannot be opened: {said}") from None
    with opened:
        yield DatabaseConnection(source, url, driver, opened)


def _errors(driver: Any) -> tuple[type[Exception], ...]:
    """What a driver raises: its own errors, and those of Arrow where a stream of rows ends early."""
    return driver.Error, pa.ArrowException, OSError, ValueError


def _without_guesses(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same, where a column that is null in each row has no type."""
    batches = iter(reader)
    first, second = next(batches, None), next(batches, None)
    if first is None or second is not None:
        return pa.RecordBatchReader.from_batches(reader.schema, chain(filter(None, (first, second)), batches))
    columns = [pa.nulls(len(c)) if c.null_count == len(c) else c for c in first.columns]
    made = pa.RecordBatch.from_arrays(columns, names=first.schema.names)
    return pa.RecordBatchReader.from_batches(made.schema, [made])


def _is_known(of: pa.DataType) -> bool:
    """Whether a column's values have a form of Arrow's own: of some types a driver gives the bytes that the database sent."""
    opaque = isinstance(of, pa.BaseExtensionType) and of.extension_name == "arrow.opaque"
    return not (opaque and pa.types.is_binary(of.storage_type)) and not pa.types.is_interval(of)


def _with_infinity(column: pa.Array) -> pa.Array:
    """A column with PostgreSQL's infinite dates and times as the engine has them."""
    of = column.type
    if pa.types.is_list(of):
        values = _with_infinity(column.values)
        if values is column.values:
            return column
        return pa.ListArray.from_arrays(column.offsets, values, type=of, mask=column.is_null())
    bits = 32 if pa.types.is_date32(of) else 64 if pa.types.is_timestamp(of) and of.unit == "us" else 0
    if not bits:
        return column
    whole = pa.int32() if bits == 32 else pa.int64()
    numbers, greatest = column.cast(whole), (1 << (bits - 1)) - 1
    for wrapped, infinite in zip(WRAPPED[bits], (greatest, -greatest), strict=True):
        numbers = pc.if_else(pc.equal(numbers, pa.scalar(wrapped, whole)), pa.scalar(infinite, whole), numbers)
    return numbers.cast(of)


def _words(error: Exception, url: str) -> str:
    """What a driver says, with stars for what is secret in a URL."""
    text = " ".join(str(error).split())
    parts = urlsplit(url)
    held = parts.netloc.rpartition("@")[0].partition(":")[2]
    options = (value for name, value in parse_qsl(parts.query) if any(word in name.lower() for word in SECRET_OPTIONS))
    for secret in {held, unquote(held), *options} - {""}:
        text = text.replace(secret, "***")
    return text

"""How the rows of a source that only a warehouse can read come into Parquet files, which are read here."""

from __future__ import annotations

from dataclasses import dataclass

from featurestore.declare.sources import is_url
from featurestore.migrate.feast_objects import FeastSource


@dataclass(frozen=True)
class Export:
    """What is to be run so that a source's rows lie in a folder. source: its name here. system: what holds them now."""

    source: str
    system: str
    folder: str
    commands: str


def export_of(source: FeastSource, name: str, folder: str) -> Export | None:
    """How to export a source; None where its files can be read as they are."""
    kind = source.kind
    if kind == "FileSource":
        return _of_files(source, name, folder)
    system, recipe = RECIPES.get(kind, (kind.removesuffix("Source") or kind, _through_feast))
    return Export(name, system, folder, recipe(source, folder))


def _of_files(source: FeastSource, name: str, folder: str) -> Export | None:
    path = source.places.get("path", "")
    scheme = path.partition("://")[0] if "://" in path else "file"
    if scheme == "file" or in_store(path) is not None:
        return None
    return Export(name, scheme, folder, f"# copy the files of {path} into {folder}/")


def in_store(path: str) -> str | None:
    """A URL of an object store as sources take it; None for another path."""
    scheme, sign, rest = path.partition("://")
    url = f"{SCHEMES.get(scheme, scheme)}{sign}{rest}"
    return url if is_url(url) else None


SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}
"""Other words for the schemes of object stores."""


def _query(source: FeastSource) -> str:
    """The query that Feast reads, "" where it reads a table: of one that names both BigQuery's reads the query, all others the table."""
    query = source.places.get("query", "").strip().rstrip(";")
    return query if source.kind == "BigQuerySource" or not source.places.get("table") else ""


def _rows(source: FeastSource) -> str:
    """What is selected from: a query in brackets, or a table with what it lies in."""
    places, query = source.places, _query(source)
    if query:
        return f"({query})"
    parts = [places[word] for word in ("catalog", "database", "schema", "table") if places.get(word)]
    table = places.get("table", "")
    return table if "." in table else ".".join(parts) or source.name


def _selected(source: FeastSource) -> str:
    return _query(source) or f"SELECT * FROM {_rows(source)}"


def _bigquery(source: FeastSource, folder: str) -> str:
    return (
        f"bq query --use_legacy_sql=false \"EXPORT DATA OPTIONS (uri='gs://BUCKET/{folder}/*.parquet', format='PARQUET', "
        f'overwrite=true) AS {_one_line(_selected(source))}"\n'
        f"gcloud storage cp 'gs://BUCKET/{folder}/*.parquet' {folder}/"
    )


def _snowflake(source: FeastSource, folder: str) -> str:
    return (
        f"COPY INTO @~/{folder}/ FROM ({_one_line(_selected(source))}) FILE_FORMAT = (TYPE = PARQUET) HEADER = TRUE;\n"
        f"GET @~/{folder}/ file://{folder}/;"
    )


def _redshift(source: FeastSource, folder: str) -> str:
    text = _one_line(_selected(source)).replace("'", "''")
    return f"UNLOAD ('{text}') TO 's3://BUCKET/{folder}/' IAM_ROLE default FORMAT PARQUET;\n{_from_s3(folder)}"


def _athena(source: FeastSource, folder: str) -> str:
    return f"UNLOAD ({_one_line(_selected(source))}) TO 's3://BUCKET/{folder}/' WITH (format = 'PARQUET');\n{_from_s3(folder)}"


def _trino(source: FeastSource, folder: str) -> str:
    return (
        f"CREATE TABLE hive.default.exported WITH (format = 'PARQUET', external_location = 's3://BUCKET/{folder}/') AS "
        f"{_one_line(_selected(source))};\n{_from_s3(folder)}"
    )


def _spark(source: FeastSource, folder: str) -> str:
    places, query = source.places, _query(source)
    if query:
        rows = f"spark.sql({_one_line(query)!r})"
    elif places.get("table"):
        rows = f"spark.table({places['table']!r})"
    else:
        rows = f"spark.read.format({places.get('file_format', 'parquet')!r}).load({places.get('path', '')!r})"
    return f"{rows}.write.parquet({folder!r})  # in pyspark"


def _postgres(source: FeastSource, folder: str) -> str:
    return (
        "duckdb -c \"INSTALL postgres; LOAD postgres; ATTACH 'dbname=DATABASE host=HOST' AS pg (TYPE postgres, READ_ONLY); "
        f"COPY (SELECT * FROM postgres_query('pg', '{_one_line(_selected(source)).replace(chr(39), chr(39) * 2)}')) "
        f"TO '{folder}/rows.parquet'\""
    )


def _clickhouse(source: FeastSource, folder: str) -> str:
    return f"clickhouse-client --query \"{_one_line(_selected(source))} INTO OUTFILE '{folder}/rows.parquet' FORMAT Parquet\""


def _through_feast(source: FeastSource, folder: str) -> str:
    """By Feast itself, which can read whatever its store can."""
    return (
        "# in Feast's Python, in its repository\n"
        "from datetime import datetime, timezone\n"
        "from feast import FeatureStore\n"
        "\n"
        "store = FeatureStore('.')\n"
        f"source = store.get_data_source({source.name!r})\n"
        "job = store._get_provider().offline_store.pull_all_from_table_or_query(\n"
        "    store.config, source, ['KEY'], ['COLUMN'], source.timestamp_field, source.created_timestamp_column,\n"
        "    datetime(2000, 1, 1, tzinfo=timezone.utc), datetime.now(timezone.utc),\n"
        ")\n"
        f"job.to_df().to_parquet('{folder}/rows.parquet')"
    )


def _from_s3(folder: str) -> str:
    return f"aws s3 cp --recursive s3://BUCKET/{folder}/ {folder}/"


def _one_line(sql: str) -> str:
    """SQL on one line; a comment that ends with its line stays as it is, on lines of its own."""
    return sql if "--" in sql else " ".join(sql.split())


RECIPES = {
    "BigQuerySource": ("BigQuery", _bigquery),
    "SnowflakeSource": ("Snowflake", _snowflake),
    "RedshiftSource": ("Redshift", _redshift),
    "AthenaSource": ("Athena", _athena),
    "TrinoSource": ("Trino", _trino),
    "SparkSource": ("Spark", _spark),
    "PostgreSQLSource": ("PostgreSQL", _postgres),
    "ClickhouseSource": ("ClickHouse", _clickhouse),
}
"""A kind of Feast's source → what holds its rows, and how they are exported."""

READ_BY_DRIVER = ("BigQuery", "PostgreSQL", "Redshift", "Snowflake")
"""Systems that a DatabaseSource reads, where a column of theirs only grows."""

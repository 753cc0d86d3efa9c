"""What is called or said otherwise here: by other feature stores, foremost Feast, and by other definitions of this one.

A word that nothing here has is looked up by the code that would take it: an option by its declaration or method, an attribute by
its class, a name by its module, a command by the command line, a path by the HTTP service. What the table does not have
is refused as anywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

C = TypeVar("C", bound=type)

BY_PLACE = "*"
"""The word of the table for more arguments than there are places."""

_OF_VIEWS = "a FeatureView says it"
_TYPES_OF_FILES = (
    "types are read from the data, and a feature states its own: features={'x': Latest('x', type=Float64)}"
)
_SERVED = (
    "each applied view is materialized and served, whether a service lists it or not. One that is for training alone need "
    "not be applied: store.get_historical_features(spine, [view])"
)
_LOADED = (
    "tiebreak='created' where one load wrote all rows at once, known_at='created' where it says when each row came "
    "(docs/coming-from-feast.md, created_timestamp_column)"
)
_NAMES = "columns are always called view__feature"
_DUE = "it finds what is due by itself; run it as often as refresh says"
_NOW = f"{_DUE}: materialize(). full=True computes all keys again"
_SPANS = "snapshot(features, at=[…]) gives the values of every key at instants, without a spine"
_BOTH = "a push is always for both: in the log that training reads, and online when it returns"
_PUSH_ROUTE = 'POST /v1/push takes {"source": …, "rows": [{column: value, …}]}'
_JOB = "a job runs featurestore materialize, as often as refresh says"
_LISTS = "store.describe() lists all definitions; store.describe('name') tells one; store.catalog has them by kind"
_SHOWS = "featurestore show lists all definitions; featurestore show NAME tells one"
_SAVED = "store.get_historical_features(spine, features).to_parquet(path) keeps a training frame, with its manifest beside it"
_NO_WRITE = (
    "what is served comes from a source, so that training sees it too: store.push(source, rows), or rows in a file and "
    "store.materialize()"
)
_LOGGED = (
    "lookups are logged by themselves: [serving_log] in featurestore.toml; store.audit() compares them with training"
)
_REMOVED = "take it out of the definitions, and apply"
_EXPORT = "export it to Parquet files, which are a ParquetSource"
_PUSHED = "a consumer of yours calls store.push(source, rows) of a PushSource"
_NO_SUCH = "there is nothing like it here"

_ANSWER = {
    "to_df": "to_pandas()",
    "to_tensor": "to_numpy(dtype) is one array of all features",
    "persist": "to_parquet(path) of a training frame keeps it, with its manifest beside it",
    "to_sql": "the query runs in this process: to_pandas(), to_arrow() or to_parquet(path)",
    "to_remote_storage": "to_parquet(path)",
    "metadata": "a training frame has a manifest; a lookup has statuses, as_of and stale",
}
_LOOKUP = {
    "entity_rows": "the rows are the first argument: get_online_features(rows, features)",
    "full_feature_names": _NAMES,
    BY_PLACE: "get_online_features(rows, features), and all else by name",
}
_PUSH = {
    "push_source_name": "the source's name is the first argument: push(source, rows)",
    "df": "the rows are the second argument: push(source, rows)",
    "to": _BOTH,
    "allow_registry_cache": "leave it out; what is applied is noticed within seconds",
    BY_PLACE: f"push(source, rows); {_BOTH}",
}

ELSEWHERE: Mapping[str, Mapping[str, str]] = {
    "Source": {
        "schema": _TYPES_OF_FILES,
        "columns": _TYPES_OF_FILES,
        "timestamp_field": "event_time names the column",
        "event_timestamp": "event_time names the column",
        "timestamp": "event_time names the column",
        "created_timestamp_column": _LOADED,
        "file_format": "files are Parquet",
        "batch_source": "rows from before rows were pushed are history=… of a PushSource",
        "field_mapping": "a view names its columns: key={'user': 'user_id'}, features={'x': Latest('column')}",
        "entity": f"{_OF_VIEWS}: entity=…",
        "key": f"{_OF_VIEWS}: key={{entity key: column}}",
        "features": f"{_OF_VIEWS}: features=…",
        "where": f"{_OF_VIEWS}, or one fold: where=…",
        "window": "a fold says it: Sum('x', window='7d')",
        "stale": f"{_OF_VIEWS}: stale='withhold'",
        "lateness": "it is for pushed rows; batch rows count from known_at on, however late",
        "tolerance": "it is for pushed rows",
        "history": "it is for pushed rows; several files are one ParquetSource",
        "cutover": "it is for pushed rows",
    },
    "ParquetSource": {"table": "a table of a DuckDB file is a TableSource"},
    "TableSource": {"query": "make it a view in the DuckDB file, and name that as table=…"},
    "DataFrameSource": {
        "path": "a frame lies in memory; files are a ParquetSource",
        "content": "it is worked out from the frame",
    },
    "PushSource": {
        "columns": "the columns of its rows are schema={column: type}",
        "period": "each row brings its instant; what happened over a period is pushed with the end of it as event_time",
        "date": "its event_time is a Timestamp; push the instant at which the day ended",
        "known_at": "the store says when it learned of a row, on the online store's clock",
        "known_after": "the store says when it learned of a row, on the online store's clock; its history= says known_after",
        "history_until": "rows from before rows were pushed are a source of their own: history=…, cutover=…",
        "batch_source": "rows from before rows were pushed are a source of their own: history=…, cutover=…",
        "version": "of pushed rows with equal identity the one that was pushed last replaces the others",
        "valid_from": "it is for tables without time; a pushed row has an event_time",
        "timezone": "instants without a zone are read as UTC; give a row's instant its zone before it is pushed",
        "path": "its rows are in the store's own log",
        "table": "its rows are in the store's own log",
    },
    "Entity": {
        "join_keys": "key={column: type} names the columns and their types",
        "join_key": "key={column: type} names the columns and their types",
        "value_type": "key={column: type} names the columns and their types",
        "type": "key={column: type} names the columns and their types",
        "ttl": f"{_OF_VIEWS}: ttl=…",
    },
    "FeatureView": {
        "entities": "a view has one entity, whose key may have several columns: entity=…",
        "schema": "features={'x': Latest('x', type=Float64)} names the features and their types",
        "columns": "features=['x', …] names the columns",
        "batch_source": "source=… names it",
        "join_keys": "key={entity key: column} names the columns",
        "online": _SERVED,
        "offline": _SERVED,
        "sink_source": "a view over a PushSource keeps its rows in the store's own log",
        "aggregations": "features={'total': Sum('x', window='7d')} folds rows over a window",
        "mode": "derived={'y': 'x * 2'} of its source is SQL over a row",
        "window": "a fold says it: features={'total': Sum('x', window='7d')}",
        **{
            option: f"its source says it: {option}=…"
            for option in (
                "event_time", "known_at", "known_after", "history_until", "identity", "version", "tiebreak", "deleted",
                "until", "valid_from", "timezone", "date", "period", "derived", "lateness", "tolerance",
            )
        },
    },
    "alias": {
        "join_key_map": "key={entity key: column of the spine} names the columns",
        "features": "choose them of the alias: view.alias('origin')[['x', 'y']]",
    },
    "FeatureService": {
        "views": "features=[…] lists views, view['x'], aliases and on-demand features",
        "feature_views": "features=[…] lists views, view['x'], aliases and on-demand features",
        "entities": "its views say what they are about",
        "version": "the fingerprint of what it lists is its version",
        "on_demand": "features=[…] lists on-demand features too",
        "logging_config": "its lookups are logged by themselves: [serving_log] in featurestore.toml",
    },
    "OnDemand": {
        "sources": "inputs=[…] lists features, Request values and RequestTime()",
        "features": "inputs=[…] lists features, Request values and RequestTime()",
        "schema": "output=… is the type of its one value",
        "type": "output=… is the type of its one value",
        "dtype": "output=… is the type of its one value",
        "write_to_online_store": "it is computed at each lookup, by the code that training runs",
        "singleton": "mode='row' is one row at a time",
        "default": "its function gives it: None comes in where a value is null",
        "code": "it is read from the function",
        "source": "it is read from the function",
        "libraries": "they are read from the function",
    },
    "Request": {
        "dtype": "the second argument is its type",
        "default": "a request brings every value; None is one",
    },
    "Fold": {
        "dtype": "type=… states the feature's type",
        "filter": "where=… is its condition",
        "description": f"{_OF_VIEWS}: description=…; what one feature means is said there",
        "tags": f"{_OF_VIEWS}: tags=…",
        "fill": "default=… replaces the null of MISSING and EXPIRED",
        "period": "window=… says how far back rows count",
        "time_window": "window=… says how far back rows count",
        "ttl": f"{_OF_VIEWS}: ttl=…; of one fold, window=…",
        "refresh": f"{_OF_VIEWS}: refresh=…",
        "key": f"{_OF_VIEWS}: key=…",
    },
    "FeatureStore.__init__": {
        "repo_path": "the folder is the first argument: FeatureStore('.')",
        "fs_yaml_file": "the folder, or its featurestore.toml, is the first argument: FeatureStore('.')",
    },
    "FeatureStore": {
        "materialize_incremental": _NOW,
        "get_feature_service": _LISTS,
        "get_feature_view": _LISTS,
        "get_on_demand_feature_view": _LISTS,
        "get_stream_feature_view": _LISTS,
        "get_entity": _LISTS,
        "get_data_source": _LISTS,
        "list_feature_services": _LISTS,
        "list_feature_views": _LISTS,
        "list_all_feature_views": _LISTS,
        "list_batch_feature_views": _LISTS,
        "list_on_demand_feature_views": _LISTS,
        "list_stream_feature_views": _LISTS,
        "list_entities": _LISTS,
        "list_data_sources": _LISTS,
        "delete_feature_view": _REMOVED,
        "delete_feature_service": _REMOVED,
        "refresh_registry": "reload()",
        "create_saved_dataset": _SAVED,
        "get_saved_dataset": _SAVED,
        "write_to_online_store": _NO_WRITE,
        "write_to_offline_store": _NO_WRITE,
        "write_logged_features": _LOGGED,
        "validate_logged_features": _LOGGED,
        "retrieve_online_documents": "there is no search by vectors",
        "retrieve_online_documents_v2": "there is no search by vectors",
        "get_online_features_async": "aget_online_features",
        "push_async": "apush",
        "serve": "featurestore serve, or featurestore.server.create_app(store)",
        "serve_ui": "featurestore ui",
        "project": "config.project",
        "list_projects": "a project is a folder with a featurestore.toml",
        "get_project": "a project is a folder with a featurestore.toml; config.project is its name",
    },
    "FeatureStore.plan": {"desired_repo_contents": "the definitions are the first argument: plan([view, service])"},
    "FeatureStore.apply": {
        "objects": "the definitions are the first argument: apply([view, service])",
        "objects_to_delete": "apply() of the whole repository removes what is declared no more",
        "partial": "apply([view, service]) removes nothing, apply() what is declared no more",
    },
    "FeatureStore.get_historical_features": {
        "entity_df": "the spine is the first argument: get_historical_features(spine, features)",
        "full_feature_names": _NAMES,
        "start_date": _SPANS,
        "end_date": _SPANS,
        BY_PLACE: "get_historical_features(spine, features), and all else by name",
    },
    "FeatureStore.get_online_features": _LOOKUP,
    "FeatureStore.aget_online_features": _LOOKUP,
    "FeatureStore.push": _PUSH,
    "FeatureStore.apush": _PUSH,
    "FeatureStore.materialize": {
        "start_date": _NOW,
        "end_date": _NOW,
        "feature_views": "views=['name', …]",
        BY_PLACE: _NOW,
    },
    "OnlineResult": _ANSWER,
    "TrainingFrame": _ANSWER,
    "OnlineResult.to_dict": {"include_event_timestamps": "as_of has the instant that each view's values are true for"},
    "featurestore": {
        "FileSource": "ParquetSource(name, path, event_time=…)",
        "DuckDBSource": "TableSource(name, path, table=…, event_time=…)",
        "Field": _TYPES_OF_FILES,
        "Feature": _TYPES_OF_FILES,
        "ValueType": "types are in featurestore.types: Int64, Float64, String, …",
        "RequestSource": "Request('x', Int64) is one value of the request",
        "on_demand_feature_view": "@on_demand makes one feature of one function",
        "OnDemandFeatureView": "@on_demand makes one feature of one function",
        "BatchFeatureView": "FeatureView",
        "StreamFeatureView": "a FeatureView over a PushSource",
        "Aggregation": "Count, Sum, Mean, Min, Max, … over a window: Sum('x', window='7d')",
        "RepoConfig": "featurestore.toml says it (docs/configuration.md)",
        "Project": 'project = "name" in featurestore.toml',
        "KafkaSource": "a PushSource says it: stream=KafkaStream('topic', broker='name'), which featurestore consume reads (docs/streams.md)",
        "KinesisSource": _PUSHED,
        "BigQuerySource": _EXPORT,
        "SnowflakeSource": _EXPORT,
        "RedshiftSource": _EXPORT,
        "SparkSource": _EXPORT,
        "PostgreSQLSource": _EXPORT,
        "TrinoSource": _EXPORT,
        "AthenaSource": _EXPORT,
        "LoggingConfig": _LOGGED,
        "PushMode": _BOTH,
        "LabelView": "labels are columns of the spine",
    },
    "featurestore.types": {
        "UnixTimestamp": "Timestamp",
        "Map": "derived={'x': 'json_extract(column, …)'} of the source makes a column of what you need",
        "Json": "it is text: String",
        "Struct": "derived={'x': 'column.field'} of the source makes a column of what you need",
        "Uuid": "it is text: String",
        "Image": "it is Bytes",
        "ImageBytes": "it is Bytes",
        "PdfBytes": "it is Bytes",
    },
    "the command line": {
        "materialize-incremental": f"featurestore materialize: {_DUE}",
        "get-historical-features": "featurestore historical SPINE SERVICE -o FILE",
        "get-online-features": "featurestore online SERVICE KEY=VALUE …",
        "feature-views": _SHOWS,
        "on-demand-feature-views": _SHOWS,
        "stream-feature-views": _SHOWS,
        "feature-services": _SHOWS,
        "features": _SHOWS,
        "entities": _SHOWS,
        "data-sources": _SHOWS,
        "registry-dump": "featurestore show --json",
        "projects": "a project is a folder with a featurestore.toml: --repo FOLDER",
        "configuration": "featurestore.toml says it (docs/configuration.md)",
        "delete": f"{_REMOVED}: featurestore apply",
        "endpoint": "featurestore serve prints it",
        "saved-datasets": "featurestore historical SPINE SERVICE -o FILE keeps a training frame, with its manifest beside it",
        "validate": "featurestore plan --check, verify and audit",
        "validation-references": "featurestore audit compares what was served with training",
        "version": "featurestore --version",
        "serve_offline": f"{_NO_SUCH}; featurestore serve answers lookups and takes pushes",
        "serve_registry": f"{_NO_SUCH}; the registry is a file",
        "serve_transformations": "on-demand functions run where the lookup is answered: featurestore serve",
    },
    "featurestore materialize": {BY_PLACE: f"it takes names of views, and no times: {_DUE}"},
    "HTTP": {
        "/get-online-features": 'POST /v1/online-features takes {"service": …, "rows": [{key: value, …}]}',
        "/push": _PUSH_ROUTE,
        "/write-to-online-store": _PUSH_ROUTE,
        "/materialize": _JOB,
        "/materialize-incremental": _JOB,
        "/health": "GET /healthz says that the process lives, GET /readyz that it can answer",
        "/retrieve-online-documents": "there is no search by vectors",
        "/chat": _NO_SUCH,
    },
}  # fmt: skip
"""Who would take a word (a declaration or a class above it, a class with its method, a module, …) → the word → what to write
instead."""


def elsewhere(kind: type | str, option: str) -> str | None:
    """What an option that a declaration does not have would be there; None where nothing is known of it."""
    names = [kind] if isinstance(kind, str) else [cls.__name__ for cls in kind.__mro__]
    return next((ELSEWHERE[name][option] for name in names if option in ELSEWHERE.get(name, ())), None)


def missing(module: str, name: str) -> ImportError | AttributeError:
    """The error about a name that a module does not have; an ImportError, whose text an import shows, where it is known."""
    instead = elsewhere(module, name)
    if instead is None:
        return AttributeError(f"module '{module}' has no attribute '{name}'")
    return ImportError(f"{module} has no '{name}': {instead}", name=module)


def counterparts(cls: C) -> C:
    """A class of which attributes that the table has are answered with the counterpart, others in Python's own words."""

    def answered(self: Any, name: str) -> Any:
        instead = elsewhere(cls, name)
        if instead is None:
            return object.__getattribute__(self, name)  # which says what it always says
        raise AttributeError(f"{cls.__name__} has no '{name}': {instead}")

    cls.__getattr__ = answered  # type: ignore[attr-defined]  # of a class, at run time
    return cls

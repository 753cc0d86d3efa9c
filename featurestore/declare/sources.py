"""Sources: tables of rows, and what their columns say about time."""

from __future__ import annotations

import functools
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Required, Self, TypedDict, Unpack

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, model_validator

from featurestore.declare.declaration import ColumnName, Declaration, Name, declares, type_of
from featurestore.declare.durations import Duration, PositiveDuration
from featurestore.declare.expectations import Expectation, Expectations
from featurestore.declare.frames import content_digest, table_of
from featurestore.declare.problems import shown
from featurestore.types import FeatureType

ARRIVAL: Final = "<arrival>"
"""`known_at=ARRIVAL`: a row of a file is known from when the store first saw the file, or from when the table's log says that it came.
In a frame it is a column's name."""


def aware(value: datetime) -> datetime:
    """The instant in UTC; ValueError where it has no zone."""
    if value.tzinfo is None:
        raise ValueError("it must be an aware datetime: say its timezone")
    return value.astimezone(UTC)


def known_zone(value: str) -> str:
    """The name of a timezone; ValueError where there is none such."""
    if value not in _zones():
        near = get_close_matches(value, _zones(), n=1, cutoff=0.8)
        hint = f". Did you mean '{near[0]}'?" if near else " such as 'America/New_York'"
        raise ValueError(f"timezone '{value}' is no IANA name{hint}")
    return value


@functools.cache
def _zones() -> set[str]:
    """Names of timezones; they are read from some 600 files."""
    return zoneinfo.available_timezones()


def _columns(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Columns = Annotated[tuple[str, ...], BeforeValidator(_columns)]
Refresh = Literal["continuous"] | PositiveDuration


class RefreshOptions(TypedDict, total=False):
    """When values change and are served; a view that does not say inherits from its source."""

    refresh: Any
    """Values change only at instants k · refresh + refresh_offset, as "1h"; "continuous" means at any instant."""
    refresh_offset: Any
    """Moves those instants, as "5m"."""
    settle: Any
    """Rows learned until I + settle count for the instant I."""
    ready_after: Any
    """The values of I are served from I + ready_after on: at least `settle`, which it is where nothing is said."""
    ttl: Any
    """How far back a row still counts, inclusive."""
    freshness: Any
    """For continuous views: how old the newest row may be before that is reported."""


class SourceOptions(RefreshOptions, total=False):
    """What a source says about its rows; each option but the first may be left out."""

    event_time: Required[str | None]
    """The column of when a row happened; None for a table without time."""
    known_at: str | None
    """The column of when a row was learned. None: at event_time + known_after. ARRIVAL, for files: when the
    store first saw the row's file, as it is now (its size and time of modification), or the commit of a table that added it."""
    known_after: Any
    """How long after it happened a row is learned, as "2m", where no column says."""
    history_until: datetime | None
    """Rows up to then were loaded in bulk: known at min(known_at, event_time + known_after)."""
    identity: str | list[str] | tuple[str, ...]
    """The columns that name a row; rows of equal identity are versions of one row."""
    version: str | None
    """The column that decides which version is the last learned, before known_at."""
    tiebreak: str | list[str] | tuple[str, ...]
    """The columns that order rows of equal times."""
    deleted: str | None
    """The boolean column of a version that makes its row vanish."""
    until: str | None
    """The column where a row's validity ends."""
    valid_from: str | None
    """For a table without time: the column since when a row counts."""
    timezone: str | None
    """The zone of naive timestamps and of dates, by its IANA name. None: UTC."""
    date: Literal["end", "start"]
    """Whether a Date means the "end" or the "start" of its day."""
    period: Any
    """event_time holds the start of a period of this length; the row happened at its end. None: it holds an instant."""
    derived: Mapping[str, str]
    """New columns as SQL expressions over the source's own, `{"late": "delay > 15"}`; usable wherever a column is."""
    expectations: Sequence[Expectation]
    """What must be true of its rows, and what becomes of those of which it is not: `[NotNull("amount", otherwise="quarantine")]`."""
    owner: str
    """Who answers for it, for readers."""
    description: str
    """What it is, for readers."""
    tags: dict[str, str]
    """Words of your own about it, by name."""


class Source(Declaration):
    """Rows, and what their columns say; see SourceOptions for each option."""

    IN_FILES: ClassVar[bool] = False
    """Whether its rows lie in files, each of which comes at some time."""

    name: Name
    kind: str
    event_time: str | None
    known_at: str | None = None
    known_after: Duration = 0
    history_until: Annotated[datetime, AfterValidator(aware)] | None = None
    identity: Columns = ()
    version: str | None = None
    tiebreak: Columns = ()
    deleted: str | None = None
    until: str | None = None
    valid_from: str | None = None
    timezone: Annotated[str, AfterValidator(known_zone)] | None = None
    date: Literal["end", "start"] = "end"
    period: PositiveDuration | None = None
    derived: dict[ColumnName, str] = {}
    expectations: Expectations = ()
    refresh: Refresh | None = None
    refresh_offset: Duration | None = None
    settle: Duration | None = None
    ready_after: Duration | None = None
    ttl: Duration | None = None
    freshness: PositiveDuration | None = None
    owner: str = ""
    description: str = ""
    tags: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        alike = {name.lower(): name for name in self.derived}
        for name in self.derived:
            if alike[name.lower()] != name:
                raise ValueError(
                    f"derived columns '{name}' and '{alike[name.lower()]}' differ in case alone, which SQL cannot tell apart"
                )
        if self.deleted and not self.identity:
            raise ValueError("deleted needs identity: the columns that say which row vanishes")
        if self.identity and not (self.known_at or self.version or self.kind == "push"):
            raise ValueError("identity needs known_at or version: something must say which version is the last")
        if self.known_at == ARRIVAL and not self.IN_FILES and self.kind != "frame":
            raise ValueError("known_at=ARRIVAL is for files; name the column of when a row was learned")
        if self.version and not self.identity:
            raise ValueError("version needs identity: the columns whose rows are versions of one row")
        if self.event_time is None:
            timed = ("known_at", "history_until", "period") + (() if self.valid_from else ("ttl",))
            for option in timed:
                if getattr(self, option) is not None:
                    raise ValueError(f"{option} needs event_time; a table without time has no history")
            if self.known_after:
                raise ValueError("known_after needs event_time; a table without time has no history")
        elif self.valid_from:
            raise ValueError("valid_from is for a table without time; event_time is given")
        return self

    @property
    def arrives(self) -> bool:
        """Whether its rows are known from when the store first saw their file."""
        return self.known_at == ARRIVAL and self.IN_FILES

    @property
    def value_words(self) -> dict[str, Any]:
        """What else of how it is declared says which values its rows have, where that is not what it mostly is."""
        return {}

    @property
    def known_column(self) -> str | None:
        """The column of when a row was learned, where one says it."""
        return None if self.arrives else self.known_at

    @property
    def time_columns(self) -> tuple[str, ...]:
        """The columns that hold instants."""
        return tuple(c for c in (self.event_time, self.known_column, self.until, self.valid_from) if c is not None)

    def option_of(self, column: str) -> str:
        """The first option that names this column, for messages."""
        named = ("event_time", "known_at", "until", "valid_from", "identity", "version", "tiebreak", "deleted")
        return next(
            option for option in named if column in (getattr(self, option) or ()) or column == getattr(self, option)
        )

    @property
    def option_columns(self) -> tuple[str, ...]:
        """Every column that an option of the source names, once each."""
        named = (*self.time_columns, *self.identity, self.version, *self.tiebreak, self.deleted)
        return tuple(dict.fromkeys(c for c in named if c is not None))


def _paths(value: Any) -> Any:
    if isinstance(value, (str, Path)):
        return (_path(value),)
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"must be text, a Path or a list of them, and is {shown(value)}")
    return tuple(map(_path, value))


def _path(value: object) -> str:
    if not isinstance(value, (str, Path)):
        raise ValueError(f"must be text or a Path, and is {shown(value)}")
    if "\0" in str(value):
        raise ValueError(f"{shown(value)} is no path: it holds a NUL")
    return str(value)


Paths = Annotated[tuple[str, ...], BeforeValidator(_paths)]
"""One path or several, as they are written."""


def said_paths(value: object, *, remote: bool = False) -> object:
    """What a caller gives as a path, or as a list of them; ValueError where it is none of a file on this machine, or, where
    `remote`, in an object store."""
    for path in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(path, (str, Path)):
            problem = no_path(str(path), remote=remote)
            if problem is not None:
                raise ValueError(f"path: {problem}")
    return value


def no_path(text: str, *, remote: bool = False) -> str | None:
    """The reason why a text is no path of a file that can be read; None if it is one. remote: files in object stores are read too."""
    if not text:
        return "must not be empty"
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/{0,2}", text)
    if scheme is None or ("://" not in text and scheme[1].lower() not in CLOUDS):
        return None
    if remote and scheme[1] in OBJECT_STORES and "://" in text:
        return None
    if scheme[1].lower() == "file":
        return f"'{text}' is a URL; write the path alone: '{text.partition('://')[2]}'"
    where = f"'{text}' lies in no folder of this machine"
    if remote and scheme[1] in OBJECT_STORES:
        return f"{where}; a URL is given as text, '{scheme[1]}://…', since a Path has one slash of it"
    store = OTHER_SCHEMES.get(scheme[1].lower(), scheme[1].lower())
    if remote and store in OBJECT_STORES:
        return f"{where}; URLs of that object store begin with {store}://{'CONTAINER/' if store == 'az' else ''} here"
    if remote:
        return f"{where}, nor in an object store, whose URLs begin with az://, gs:// or s3://; copy it into one of these, or into a folder"
    parquet = ", and of object stores only Parquet files are read and written" if store in OBJECT_STORES else ""
    return f"{where}{parquet}; name a folder, or mount the store as one"


OBJECT_STORES = frozenset({"az", "gs", "s3"})
"""Schemes of the object stores that Parquet files are read from."""

OTHER_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "wasb": "az", "wasbs": "az"}
"""What other tools call these schemes."""


def is_url(path: str) -> bool:
    """Whether a path names something in an object store."""
    return path.partition("://")[0] in OBJECT_STORES and "://" in path


CLOUDS = frozenset({"abfs", "abfss", "az", "dbfs", "gs", "hdfs", "md", "s3", "s3a"})
"""Schemes of places that are also written with fewer slashes."""


def _partition(value: Any) -> FeatureType | None:
    of = None if value is None else type_of(value)
    if of is not None and of.kind in {"Bytes", "Array", "Embedding"}:
        raise ValueError(f"the name of a folder holds no {of}")
    return of


PartitionType = Annotated[
    FeatureType | None, PlainValidator(_partition), PlainSerializer(lambda of: None if of is None else str(of))
]


class FileSource(Source):
    """Rows in files: what a ParquetSource, a CsvSource, a DeltaSource and the like have in common."""

    IN_FILES: ClassVar[bool] = True
    FORMAT: ClassVar[str]
    """What its files are, for messages."""
    SUFFIXES: ClassVar[tuple[str, ...]]
    """How the names of those files of a folder end that are read."""
    REMOTE: ClassVar[bool] = False
    """Whether they may lie in object stores."""
    IMMUTABLE: ClassVar[bool] = False
    """Whether its files are never changed under their names, as those that a table's own list names."""
    PINNED_AS: ClassVar[str] = ""
    """The option that says which state of the table is read, as the manifest of a training frame has it; empty where it has no states."""

    path: Annotated[Paths, Field(min_length=1)]
    """The files, globs and directories; relative ones are relative to the repository's featurestore.toml."""
    partitions: dict[str, PartitionType] = {}
    """By name the type of a column that folders `name=value` make. None: it is no column. Without a type it is text, or
    Date where an option of time names it."""
    optional: Columns = ()
    """The columns that a file may lack; they are null in its rows."""

    @property
    def declared_types(self) -> dict[str, FeatureType]:
        """The types of columns that the files do not say themselves."""
        return {}

    def may_lack(self, column: str) -> bool:
        """Whether a file may be without a column that others have; it is null in its rows."""
        return column in self.optional

    def pinned(self, state: int, schema: int | None = None) -> Self:  # noqa: ARG002
        """The same source, of whose table a state is read, told as the option `PINNED_AS` tells it, and with the columns of a schema of the
        table, where states do not say them."""
        return self.model_copy(update={self.PINNED_AS: state})


class ParquetSource(FileSource):
    """Parquet files: a file, a glob, a directory, or a list of them.

    `ParquetSource("landings", "data/landings.parquet", event_time="landed_at")`; a relative path is relative to the
    repository's featurestore.toml, which may also say that the source lies elsewhere. `s3://bucket/…`, `gs://bucket/…` and
    `az://container/…` name object stores; they take the extra `object-stores`.

    Folders `name=value` below a directory, or from a glob's first pattern on, are columns of text, and of Date where an option
    of time names them.
    """

    FORMAT: ClassVar[str] = "Parquet"
    SUFFIXES: ClassVar[tuple[str, ...]] = (".parquet",)
    REMOTE: ClassVar[bool] = True

    kind: Literal["parquet"] = "parquet"
    """Which of the sources it is."""

    @declares
    def __init__(
        self,
        name: str,
        path: str | Path | list[str] | tuple[str, ...],
        *,
        partitions: Mapping[str, FeatureType | str | None] | None = None,
        optional: str | list[str] | tuple[str, ...] = (),
        **options: Unpack[SourceOptions],
    ) -> None:
        self.fill(
            name=name, path=said_paths(path, remote=True), partitions=partitions or {}, optional=optional, **options
        )


class TableSource(Source):
    """A table or view in a DuckDB file: `TableSource("orders", "warehouse.duckdb", table="main.orders", event_time="at")`."""

    kind: Literal["table"] = "table"
    """Which of the sources it is."""
    path: Annotated[str, BeforeValidator(_path)]
    """The DuckDB file; a relative one is relative to the repository's featurestore.toml."""
    table: str
    """The table or view in it, with its schema where that is not `main`."""

    @declares
    def __init__(self, name: str, path: str | Path, *, table: str, **options: Unpack[SourceOptions]) -> None:
        if table == "":
            raise ValueError("table: must not be empty")
        self.fill(name=name, path=said_paths(path), table=table, **options)


class DataFrameSource(Source):
    """A frame in memory (pandas, polars, Arrow), copied as it is when declared; equal content is an equal source."""

    kind: Literal["frame"] = "frame"
    """Which of the sources it is."""
    content: str
    """A digest of the rows, by which frames of equal rows are equal sources."""
    frame: Any = Field(default=None, exclude=True, repr=False)
    """The rows, as an Arrow table. None: of a source that was read back from a registry, which keeps no rows."""

    @declares
    def __init__(self, name: str, frame: Any, **options: Unpack[SourceOptions]) -> None:
        try:
            table = table_of(frame, zone=options.get("timezone") or "UTC")
        except (TypeError, ValueError) as error:
            raise ValueError(f"frame: {error}") from None
        self.fill(name=name, content=content_digest(table), frame=table, **options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataFrameSource) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.name, self.content))

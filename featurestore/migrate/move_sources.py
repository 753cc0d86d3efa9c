"""Feast's batch sources as sources of ours: where their rows lie, what their times say, and columns that SQL makes for views."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from featurestore.declare.durations import show_duration
from featurestore.declare.sources import is_url
from featurestore.migrate.definition_text import DeclarationCall
from featurestore.migrate.export_recipes import READ_BY_DRIVER, export_of, in_store
from featurestore.migrate.feast_objects import FeastSource
from featurestore.migrate.move_result import MoveResult
from featurestore.migrate.names import Names, problem_of
from featurestore.migrate.source_data import SourceData, read_source_data
from featurestore.plurals import plural
from featurestore.semantics.columns import NAIVE, ZONED
from featurestore.semantics.sql import folded, quote

READ_AS_FILES = {"SparkSource", "RaySource"}
"""Sources that may be Parquet files or Delta Lake tables, which need no such engine."""


@dataclass
class MovedSource:
    """A batch source: what its files hold, and the derived columns that its views ask for.

    name: its name here. paths: its files, as they are written. event_time: the column, "" where the files are not at hand and
    Feast names none. problem: why no view can be over it.
    """

    feast: FeastSource
    name: str
    paths: tuple[str, ...]
    data: SourceData | None
    event_time: str
    problem: str | None = None
    derived: dict[str, str] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """The class of the source here."""
        return "DeltaSource" if "delta" in _form(self.feast) else "ParquetSource"

    def raw(self, column: str) -> str | None:
        """A column's DuckDB type; None where there is none, or nothing is known."""
        return None if self.data is None else self.data.columns.get(column)

    def derive(self, name: str, expression: str) -> str:
        """The name of a column that SQL makes, which no column of the files has."""
        taken = {folded(column) for column in (() if self.data is None else self.data.columns)}
        free, number = name, 2
        while folded(free) in taken or self.derived.get(free, expression) != expression:
            free, number = f"{name}_{number}", number + 1
        self.derived[free] = expression
        return free


class MoveSources:
    """The batch sources of a repository, each once. repo: the folder of feature_store.yaml; root: the one that holds all of the
    project; out: the folder that is written, from which relative paths begin."""

    def __init__(self, moved: MoveResult, *, repo: Path, root: Path, out: Path) -> None:
        self._moved, self._repo, self._root, self._out = moved, repo, root, out
        self._names = Names(prefix="source")
        self._known: dict[str, MovedSource] = {}
        self.located: dict[str, str] = {}
        """Where the files of each source lie that is declared: `out`, from which relative paths begin, is not there yet."""

    def of(self, feast: FeastSource) -> MovedSource:
        """A source as it is here."""
        key = feast.model_dump_json(exclude={"where", "description", "owner", "tags"})
        if key not in self._known:
            self._known[key] = self._made(feast)
        return self._known[key]

    def _made(self, feast: FeastSource) -> MovedSource:
        name = self._names.fresh(_own_name(feast))
        path = self._readable_path(feast)
        if path is None:
            folder = f"data/{name}"
            export = export_of(feast, name, folder)
            if export is None:
                return MovedSource(feast, name, (), None, "", problem="it names neither files nor a table")
            self._moved.exports.append(export)
            why = "files are read here; export its rows first"
            if export.system in READ_BY_DRIVER:
                why += ", or declare a DatabaseSource, which reads it by its driver (docs/sources.md)"
            self._moved.differs(
                name, "source", f"{export.system}, read where it is", f"{folder}/*.parquet", why
            )  # fmt: skip
            return self._unseen(feast, name, folder)
        if is_url(path):
            endpoint = feast.places.get("s3_endpoint_override", "")
            self._moved.differs(
                name, "source", path, "the same, not looked at now",
                "account, endpoint and credentials are what the environment says"
                f"{f': AWS_ENDPOINT_URL_S3={endpoint}' if endpoint else ''}; it takes the extra object-stores (docs/sources.md)",
            )  # fmt: skip
            return self._unseen(feast, name, path)
        return self._of_files(feast, name, path)

    def _unseen(self, feast: FeastSource, name: str, path: str) -> MovedSource:
        """A source whose rows nobody looks at now."""
        problem = None if feast.event_time else "it names no timestamp_field, and its rows are not at hand"
        return MovedSource(feast, name, (path,), None, feast.column(feast.event_time), problem=problem)

    def _readable_path(self, feast: FeastSource) -> str | None:
        """The path, or the URL, of files that can be read here; None where there is none such."""
        path, form = feast.places.get("path", ""), _form(feast)
        if feast.kind in READ_AS_FILES:
            if "parquet" not in form and "delta" not in form and not path.endswith(".parquet"):
                return None
        elif feast.kind != "FileSource":
            return None
        stored = in_store(path)
        if stored is not None:
            return stored
        path = path.removeprefix("file://")
        return path if path and "://" not in path else None

    def _of_files(self, feast: FeastSource, name: str, path: str) -> MovedSource:
        there = Path(os.path.abspath(self._repo / Path(path).expanduser()))  # noqa: PTH100 - Path.resolve would follow links
        written = self._written(path, there)
        event_time, created = feast.column(feast.event_time), feast.column(feast.created)
        is_delta = "delta" in _form(feast)
        data = read_source_data(there, event_time=event_time, created=created, is_delta=is_delta)
        if data.problem is not None:
            self._moved.differs(
                name, "no data", path, written, f"its files cannot be read now: {data.problem}{self._same_name(path)}"
            )
            problem = None if event_time else "it names no timestamp_field, and its rows are not at hand"
            return MovedSource(feast, name, (written,), None, event_time, problem=problem)
        if not event_time:
            times = [one for one, raw in data.columns.items() if raw in {*NAIVE, *ZONED} and one != created]
            if len(times) != 1:
                return MovedSource(feast, name, (written,), data, "", problem=_no_time(times))
            event_time = times[0]
            data = read_source_data(there, event_time=event_time, created=created, is_delta=is_delta)
        return MovedSource(feast, name, (written,), data, event_time, problem=_time_problem(data, event_time))

    def _same_name(self, path: str) -> str:
        """What is told of a path of another machine, where the project has a file of its name."""
        name = PureWindowsPath(path).name
        found = [] if not name or any(sign in name for sign in "*?[") else sorted(self._root.rglob(name))
        if not found:
            return ""
        return f". The project has {found[0].relative_to(self._root)}: say that path, and import again"

    def _written(self, path: str, there: Path) -> str:
        """A path as the definitions say it: relative where it is of the same project."""
        if PureWindowsPath(path).drive:
            return path
        inside = not Path(path).is_absolute() or there.is_relative_to(self._root)
        return os.path.relpath(there, self._out) if inside else str(there)

    def call(self, source: MovedSource, *, name: str | None = None, history: bool = False) -> DeclarationCall:
        """The declaration of a source. history: that of a push source, which says when each row was known."""
        feast, data = source.feast, source.data
        path = source.paths[0] if len(source.paths) == 1 else list(source.paths)
        own = name or source.name
        if not is_url(source.paths[0]):
            self.located[own] = os.path.normpath(self._out / source.paths[0])
        call = DeclarationCall(source.form, (own, path), {"event_time": source.event_time})
        raw = source.raw(source.event_time)
        if raw == "DATE":
            call = call.with_keywords(date="start")
        call = self._with_created(source, call, history=history)
        naive = raw in NAIVE or (data is None) or data.columns.get(feast.column(feast.created)) in NAIVE
        call = call.with_keywords(timezone="UTC" if naive else None, derived=source.derived)
        return call.with_keywords(owner=feast.owner, description=feast.description, tags=feast.tags)

    def _with_created(self, source: MovedSource, call: DeclarationCall, *, history: bool) -> DeclarationCall:
        """What `created_timestamp_column` is here."""
        column = source.feast.column(source.feast.created)
        data = source.data
        if not source.feast.created or (data is not None and column not in data.columns):
            return call.with_keywords(known_after="1s") if history else call
        created = None if data is None else data.created
        if created is None or created.says == "load":
            return call.with_keywords(tiebreak=column, known_after="1s" if history else None)
        after = show_duration(created.lag) if created.lag else None
        if created.says == "arrival":
            return call.with_keywords(known_at=column)
        return call.with_keywords(known_at=column, history_until=created.load, known_after=after)

    def tell(self, source: MovedSource) -> None:
        """Note what a source's times mean here, once it is written."""
        moved, feast, data = self._moved, source.feast, source.data
        column = feast.column(feast.created)
        if feast.created:
            there = "of rows of one event time, the one created last counts"
            if data is None or data.created is None:
                why = "its rows are not at hand; where each row has the instant at which it came, say known_at instead"
                moved.differs(source.name, "created", there, f'tiebreak="{column}"', why)
            elif data.created.says == "load":
                moved.differs(
                    source.name, "created", there, f'tiebreak="{column}"', f"it is no arrival: {data.created.why}"
                )
            else:
                here = f'known_at="{column}": training sees a row from then on'
                moved.differs(
                    source.name,
                    "created",
                    f"{there}; training sees a row before it was created",
                    here,
                    data.created.why,
                )
        if source.raw(source.event_time) == "DATE":
            moved.differs(
                source.name, "date", "a date is the beginning of its day", 'the same: date="start"',
                'what describes a day is known when it is over: say date="end" where that is so',
            )  # fmt: skip
        if data is not None and data.without_time:
            moved.differs(
                source.name, "rows without time", "kept, and never chosen", "never visible, and counted",
                f"{data.without_time:,} of {data.rows:,} {plural(data.rows, 'row has', 'rows have')} no {source.event_time}",
            )  # fmt: skip


def _form(feast: FeastSource) -> str:
    """What is said of the form of its files, in small letters."""
    return " ".join(feast.places.get(word, "") for word in ("file_format", "table_format", "reader_type")).lower()


def _own_name(feast: FeastSource) -> str:
    """Its name; of a source that is called as its path is, the name of the file."""
    path = feast.places.get("path", "")
    return (
        (Path(path).stem.strip("*?[]") or Path(path).parent.name or feast.name)
        if path and feast.name == path
        else feast.name
    )


def _no_time(times: Sequence[str]) -> str:
    if not times:
        return "it names no timestamp_field, and none of its columns is a timestamp"
    return f"it names no timestamp_field, and several of its columns are timestamps: {', '.join(times)}"


def _time_problem(data: SourceData, event_time: str) -> str | None:
    """Why a column tells no event times; None where it does."""
    if event_time in data.columns.faults:
        return f"its timestamp_field '{event_time}' {data.columns.faults[event_time]}"
    raw = data.columns.get(event_time)
    if raw is None:
        return f"its files have no column '{event_time}', its timestamp_field; columns: {', '.join(data.columns)}"
    if raw not in {*NAIVE, *ZONED, "DATE"}:
        return f"its timestamp_field '{event_time}' is {raw}, and must be a timestamp; cast it in the data"
    return None


def json_of(column: str) -> str:
    """SQL of a column's value as JSON in a text."""
    return f"CAST(to_json({quote(column)}) AS VARCHAR)"


def is_plain(column: str) -> bool:
    """Whether a column can be a feature's name as it is."""
    return problem_of(column, column=True) is None

"""FeatureTest: the definitions as they are declared, over rows of a test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeAlias

from featurestore.catalog import Catalog
from featurestore.clock import datetime_of, instant_of
from featurestore.declare.frames import table_of
from featurestore.declare.push import KNOWN_AT, PushSource
from featurestore.declare.sources import ARRIVAL, DataFrameSource, Source
from featurestore.declare.views import FeatureView
from featurestore.errors import NotFoundError, RequestError, SourceError, did_you_mean
from featurestore.lazy import pa
from featurestore.reports.explain.explain import explain
from featurestore.reports.explain.explanation import Explanation
from featurestore.reports.simulation.world import reading, relocated, settled
from featurestore.semantics.expressions import columns_named
from featurestore.semantics.service import ResolvedService, ServiceView
from featurestore.semantics.sql import quote
from featurestore.semantics.values import scalars
from featurestore.sources.instances import Instances
from featurestore.sources.offline import Offline
from featurestore.testing.columns import column_of, inferred, time_type
from featurestore.testing.replay import PushedRows, Replay
from featurestore.training.historical import get_historical_features
from featurestore.training.kernel import Options
from featurestore.types import FeatureType, from_json

Schema: TypeAlias = "dict[str, pa.DataType]"
ASKED_AT = "asked at"
"""The spine's column of instants, where no input bears the name."""


class FeatureTest:
    """Features over rows of a test.

    features: a view, `view["x"]`, an on-demand feature, a service, or a list of them. root: the folder that the
    sources' relative paths start from (default: the current one). Files are read for their columns' types alone, and
    need not exist.
    """

    def __init__(self, features: Any, *, root: str | Path | None = None) -> None:
        self._declared = Catalog().service_of(features)
        self._catalog = Catalog.of([self._declared])
        self._offline = Offline(Path.cwd() if root is None else Path(root), instances=Instances(threads=1))
        self._tables: dict[str, pa.Table] = {}
        self._pushes: dict[str, list[PushedRows]] = {}
        self._known: ResolvedService | None = None
        self._online: Replay | None = None
        self._whole: Replay | None = None

    def rows(self, source: str, rows: Any, *, schema: Mapping[str, FeatureType] | None = None) -> Self:
        """Let these be all the rows of a source.

        rows: a list of dicts, or a frame (pandas, polars, Arrow), which is taken as it is. In dicts, instants and dates
        may be ISO text, and a column that is left out is null. A column's type is the one in `schema`, else the one that
        it has in the source's files, else (there being none) what the definitions and the values say. Rows of a push
        source may have a `known_at` beside its columns: when they are pushed; without one it is as they happen.
        Raises NotFoundError for a source that the features do not read, SourceError for rows that do not fit it.
        """
        known = {**self._histories, **self._catalog.sources}
        if source not in known:
            raise NotFoundError(f"The features read no source '{source}'.{did_you_mean(source, known, noun='Sources')}")
        if isinstance(rows, Sequence):
            self._tables[source] = self._table(known[source], rows, schema or {})
        elif schema is not None:
            raise SourceError(f"{known[source].title}: schema is for rows in dicts; a frame has types of its own")
        else:
            try:
                self._tables[source] = table_of(rows)
            except TypeError:
                raise SourceError(
                    f"{known[source].title}: {type(rows).__name__} is neither a list of dicts nor a frame"
                ) from None
            except ValueError as error:
                raise SourceError(f"{known[source].title}: the frame cannot be read: {error}") from None
        pushed = known[source]
        if isinstance(pushed, PushSource):
            self._pushes[source] = PushedRows.of(pushed, self._tables[source])
        self._known = self._online = self._whole = None
        return self

    def value_at(self, at: str | datetime, /, **inputs: Any) -> dict[str, Any]:
        """The features by column name, as a training row at the instant `at` has them: Python scalars, None for null.

        at: an aware datetime or ISO text; without a zone it is UTC. inputs: the entities' keys and the request values;
        dates and instants may be ISO text.
        """
        return {
            column.name: value for column, value in zip(self._service().columns, self._row(at, inputs)[0], strict=True)
        }

    def status_at(self, at: str | datetime, /, **inputs: Any) -> dict[str, str]:
        """The status of each feature of a view, by column name: PRESENT, MISSING, EXPIRED or OVERFLOW; see `value_at`."""
        return self._row(at, inputs)[1]

    def served_at(self, at: str | datetime, /, **inputs: Any) -> dict[str, Any]:
        """What a lookup at the instant `at` is served, by column name; see `value_at`.

        The rows are materialized (those of push sources pushed, in the order in which they were learned) into an embedded
        online store whose clock stands at `at`, and the inputs looked up there. Later instants find the store as earlier
        ones left it; an earlier one, or other rows, find a new store.
        Raises AssertionError where a value, to the bit, or a status is not what `value_at` and `status_at` say.
        """
        service, instant = self._service(), _instant(at)
        asked = _typed(inputs, service.inputs, needed=service.inputs)
        if self._online is None or instant < instant_of(self._online.clock()):
            self._online = Replay(service.declared, self._all_pushes())
        self._online.upto(instant)
        served, statuses = self._online.served(asked)
        trained, trained_statuses = self._row(at, inputs)
        for (name, value), wanted in zip(served.items(), trained, strict=True):
            said, status = (value, statuses[name]), trained_statuses.get(name, "PRESENT")
            # Scalars are canonical, with one NaN, so that those of one type are equal to the bit where they read the same.
            assert repr(said) == repr((wanted, status)), f"{name} is served as {said}, and trained as {wanted, status}"
        return served

    @property
    def _replays(self) -> bool:
        """Whether rows are pushed, into a store of their own."""
        return any(isinstance(source, PushSource) for source in self._catalog.sources.values())

    @property
    def _histories(self) -> dict[str, Source]:
        """The batch histories of the push sources, by name."""
        pushed = [source for source in self._catalog.sources.values() if isinstance(source, PushSource)]
        return {source.history.name: source.history for source in pushed if source.history is not None}

    def _all_pushes(self) -> list[PushedRows]:
        return [rows for pushes in self._pushes.values() for rows in pushes]

    def _rows_at_hand(self) -> Offline:
        """Where training finds the test's rows: all of them, those that are pushed in the logs of a store of their own."""
        if not self._replays:
            return self._offline
        if self._whole is None:
            self._whole = Replay(self._service().declared, self._all_pushes())
            self._whole.everything()
        return self._whole.store.offline

    def explain_at(self, at: str | datetime, view: str | None = None, /, **inputs: Any) -> Explanation:
        """The rows that made the values of a view, the rows left out and why; see `value_at`.

        view: its name, or its alias; needed where the features are of several views.
        """
        service = self._service()
        part = _part(service, view)
        values = _typed(inputs, service.inputs, needed=part.inputs)
        key = {column.name: values[name] for column, name in zip(part.view.keys, part.inputs, strict=True)}
        return explain(part.view, self._rows_at_hand(), key, at=_instant(at))

    def _row(self, at: str | datetime, inputs: dict[str, Any]) -> tuple[list[Any], dict[str, str]]:
        service = self._service()
        instant = _instant(at)
        values = _typed(inputs, service.inputs, needed=service.inputs)
        spine = {name: pa.array([values[name]], of.arrow) for name, of in service.inputs.items()}
        asked_at = ASKED_AT
        while asked_at in spine:
            asked_at += "_"
        spine[asked_at] = pa.array([instant], pa.int64()).cast(pa.timestamp("us", "UTC"))
        options = Options(timestamp=asked_at, with_status=True)
        frame = get_historical_features(pa.table(spine), service, self._rows_at_hand(), now=instant, options=options)
        table = frame.to_arrow()
        row = [scalars(table[column.name].combine_chunks())[0] for column in service.columns]
        stored = [column.name for column in service.columns if column.part is not None]
        return row, {name: table[f"{name}__status"][0].as_py() for name in stored}

    def _service(self) -> ResolvedService:
        """The features over the test's rows, their types settled."""
        if self._known is None:
            sources = {name: self._source(source) for name, source in self._catalog.sources.items()}
            (self._known,) = settled(reading([self._declared], sources), self._offline)
        return self._known

    def _source(self, source: Source) -> Source:
        """The source with the test's rows; without rows where it was given none. Those of a push source are pushed."""
        if isinstance(source, PushSource):
            history = None if source.history is None else self._source(source.history)
            return source.model_copy(update={"history": history})
        if source.name not in self._tables:
            self._tables[source.name] = self._table(source, [], {})
        return relocated(source, DataFrameSource, self._tables[source.name])

    def _table(self, source: Source, rows: Sequence[Any], given: Mapping[str, FeatureType]) -> pa.Table:
        for n, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise SourceError(
                    f"{source.title}: row {n} is {type(row).__name__}, and must be a dict of column to value"
                )
        named = list(dict.fromkeys(name for row in rows for name in row))
        stated = {name: of.arrow for name, of in given.items()}
        real = self._real(source)
        schema = self._guessed(source, rows, stated, named=named) if real is None else {**real, **stated}
        for name in named:
            if name not in schema:
                raise SourceError(f"{source.title} has no column '{name}'.{did_you_mean(name, schema, noun='Columns')}")
        return pa.table({name: column_of(source, name, rows, of=of) for name, of in schema.items()})

    def _real(self, source: Source) -> Schema | None:
        """Column → type in the source's own files, frame or schema; None where there is none."""
        if isinstance(source, PushSource):
            return {**{name: of.arrow for name, of in source.columns.items()}, KNOWN_AT: pa.timestamp("us", "UTC")}
        if isinstance(source, DataFrameSource):
            return (
                None
                if source.frame is None
                else dict(zip(source.frame.schema.names, source.frame.schema.types, strict=True))
            )
        try:
            self._offline.files(source)
        except SourceError:
            return None
        self._offline.raw_types(source)  # tells what is wrong with files that cannot be read
        with self._offline.session() as session:
            scan, columns = session.own(source)
            named = ", ".join(map(quote, columns)) or "NULL"
            empty = session.connection.sql(f"SELECT {named} FROM {scan.relation} LIMIT 0").to_arrow_table()
        schema = table_of(empty).schema
        arrival = {ARRIVAL: pa.timestamp("us", "UTC")} if source.arrives else {}
        return {**dict(zip(schema.names, schema.types, strict=True)), **arrival}

    def _guessed(
        self, source: Source, rows: Sequence[Mapping[str, Any]], stated: Schema, *, named: Sequence[str]
    ) -> Schema:
        """Types of all columns that the rows or the definitions name: what is declared, else what the values show."""
        said = self._said(source)
        schema = dict(stated)
        for name in dict.fromkeys([*named, *self._read(source, named)]):
            values = [row[name] for row in rows if row.get(name) is not None]
            if name in schema:
                continue
            if rows and name not in named:
                hint = did_you_mean(name, named, noun="The rows have")
                raise SourceError(f"{source.title}: no row has a column '{name}', which the features read.{hint}")
            if name in said:
                schema[name] = said[name]
            elif name in {*source.time_columns, ARRIVAL}:
                schema[name] = time_type(source, name, values)
            elif values:
                schema[name] = inferred(source, name, values)
            else:
                raise SourceError(
                    f"{source.title}: nothing tells the type of column '{name}': its files are not here, and no row has a "
                    f"value for it. Say it: rows('{source.name}', …, schema={{'{name}': Float64}})"
                )
        return schema

    def _read(self, source: Source, named: Sequence[str]) -> list[str]:
        """The columns that the definitions read; SQL in them may write `named` ones in another case."""
        read = [*source.option_columns, *([ARRIVAL] if source.arrives else [])]
        expressions = list(source.derived.values())
        for view in self._views(source):
            read += [view.key_column(key) for key in view.entity.key]
            read += [fold.column for fold in view.features.values() if fold.column is not None]
            expressions += [text for text in (view.where, *(fold.where for fold in view.features.values())) if text]
        if source.name in self._histories:
            read += self._said(source)
        written = {name.lower(): name for name in (*source.derived, *read, *named)}
        read += [written.get(name.lower(), name) for text in expressions for name in self._named(source, text)]
        return [name for name in read if name not in source.derived]

    def _named(self, source: Source, expression: str) -> tuple[str, ...]:
        try:
            return columns_named(expression)
        except ValueError as error:
            raise SourceError(f"{source.title}: {error}") from None

    def _views(self, source: Source) -> list[FeatureView]:
        return [view for view in self._catalog.views.values() if view.source.name == source.name]

    def _said(self, source: Source) -> Schema:
        """The types that the definitions state: of keys, of features with a type, and of `deleted`."""
        said: Schema = {}
        for pushed in self._catalog.sources.values():
            if isinstance(pushed, PushSource) and pushed.history is not None and pushed.history.name == source.name:
                said.update({name: of.arrow for name, of in pushed.columns.items()})
        for view in self._views(source):
            said.update(
                {
                    fold.column: fold.type.arrow
                    for fold in view.features.values()
                    if fold.type is not None and fold.kind == "Latest" and fold.column is not None
                }
            )
            said.update({view.key_column(key): of.arrow for key, of in view.entity.key.items()})
        if source.deleted is not None:
            said[source.deleted] = pa.bool_()
        return {name: of for name, of in said.items() if name not in source.time_columns and name not in source.derived}


def _part(service: ResolvedService, view: str | None) -> ServiceView:
    names = [part.name for part in service.parts]
    if view is None and len(names) == 1:
        return service.parts[0]
    if view is None:
        raise RequestError(f"The features are of several views; say which one to explain: {', '.join(names)}")
    if view not in names:
        raise NotFoundError(f"The features are of no view '{view}'.{did_you_mean(view, names, noun='Views')}")
    return service.parts[names.index(view)]


def _typed(inputs: dict[str, Any], types: dict[str, FeatureType], *, needed: Iterable[str]) -> dict[str, Any]:
    """The inputs as canonical scalars; RequestError where one is unknown, missing or of another type."""
    for name in inputs:
        if name not in types:
            raise RequestError(f"The features take no '{name}'.{did_you_mean(name, types, noun='They take')}")
    for name in needed:
        if name not in inputs:
            raise RequestError(f"'{name}' ({types[name]}) is missing; pass {name}=…, None for a null")
    typed = {}
    for name, value in inputs.items():
        of = types[name]
        try:
            text = isinstance(value, str) and of.kind in {"Date", "Timestamp", "Decimal"}
            typed[name] = from_json(of, value) if text else of.accept(value)
        except ValueError as error:
            raise RequestError(f"'{name}' is {of}: {error}") from None
    return typed


def _instant(at: str | datetime) -> int:
    """µs of an aware datetime or ISO text; UTC where it says no zone."""
    try:
        return instant_of(datetime_of(at) if isinstance(at, str) else at)
    except (ValueError, TypeError, AttributeError):
        raise RequestError(
            f"{at!r} is no instant; pass an aware datetime, or text such as '2013-01-01T12:10Z'"
        ) from None

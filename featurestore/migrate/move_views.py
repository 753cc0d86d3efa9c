"""Feast's views as views of ours: plain columns, JSON columns, aggregations, and rows that are pushed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from featurestore.declare.durations import GREATEST, show_duration
from featurestore.migrate.definition_text import DeclarationCall, VariableName
from featurestore.migrate.feast_objects import FeastField, FeastSource, FeastView
from featurestore.migrate.feast_types import meant
from featurestore.migrate.move_keys import MoveKeys, ViewKey
from featurestore.migrate.move_result import MoveResult
from featurestore.migrate.move_sources import MovedSource, MoveSources, is_plain, json_of
from featurestore.migrate.names import Names
from featurestore.plurals import plural
from featurestore.semantics.columns import type_of_column, widens
from featurestore.types import FeatureType, Float32, Float64, String, Timestamp

DEFAULT_REFRESH = 3_600_000_000
"""µs: how far apart the instants of a view are where its rows lie on no step."""

FOLDS = {
    "sum": "Sum", "count": "Count", "mean": "Mean", "avg": "Mean", "min": "Min", "max": "Max", "std": "StdDev", "stddev": "StdDev",
    "var": "Var", "variance": "Var", "count_distinct": "CountDistinct", "nunique": "CountDistinct", "first": "First", "last": "Latest",
}  # fmt: skip
"""Feast's functions of aggregations as folds."""

HISTORY_AFTER = timedelta(seconds=1)
"""How long after it happened a row of a push source's history is known."""


@dataclass
class Ready:
    """A view that can be written: its source, its keys and its features, by their names in Feast, each as it is made."""

    feast: FeastView
    source: MovedSource | None
    keys: list[ViewKey]
    features: dict[str, DeclarationCall | str]
    names: Names
    types: dict[str, FeatureType]
    """Of pushed columns."""

    @property
    def pushed(self) -> bool:
        """Whether its rows are pushed."""
        return self.feast.stream is not None


class MoveViews:
    """Makes views. refresh: how often values change, µs, where the user says it."""

    def __init__(self, moved: MoveResult, sources: MoveSources, keys: MoveKeys, *, refresh: int | None) -> None:
        self._moved, self._sources, self._keys, self._refresh = moved, sources, keys, refresh

    def usable(self, view: FeastView) -> tuple[MovedSource | None, list[ViewKey]] | None:
        """A view's source and keys; None, and a refusal, where it cannot be taken over."""
        why, instead = _impossible(view)
        if why:
            self._moved.refuse("feature view", view.name, why, instead)
            return None
        source = None if view.batch is None else self._sources.of(view.batch)
        if (
            source is not None
            and source.problem is not None
            and not (view.stream is not None and view.stream.event_time)
        ):
            self._moved.refuse("feature view", view.name, f"source '{source.name}': {source.problem}")
            return None
        keys = self._keys.of(view, source)
        if isinstance(keys, str):
            self._moved.refuse("feature view", view.name, keys)
            return None
        return source, keys

    def ready(self, view: FeastView, source: MovedSource | None, keys: list[ViewKey]) -> Ready | None:
        """A view with its features; None, and a refusal, where none is left."""
        made = Ready(view, source, keys, {}, Names(column=True, prefix="f"), {})
        fields = list(view.fields) or self._inferred(made)
        if view.aggregations:
            self._aggregated(made)
        else:
            for field in fields:
                self._feature(made, field)
        if not made.features:
            self._moved.refuse("feature view", view.name, *_without_features(known=bool(fields or view.aggregations)))
            return None
        return made

    def _inferred(self, made: Ready) -> list[FeastField]:
        """The features of a view that lists none: all columns but keys and times, as Feast does when it is applied."""
        source = made.source
        if source is None or source.data is None:
            return []
        apart = {key.column for key in made.keys} | {source.event_time, source.feast.column(source.feast.created)}
        renamed = source.feast.renamed
        named = [renamed.get(column, column) for column in source.data.columns if column not in apart]
        self._moved.differs(
            made.feast.name, "schema", "none: all columns of the source", f"{len(named)} {plural(len(named), 'column')}, listed",
            "features are always listed; a column that is added later is none",
        )  # fmt: skip
        return [FeastField(name=name) for name in named]

    def _feature(self, made: Ready, field: FeastField) -> None:
        view, source = made.feast, made.source
        name = self._named(made, field.name)
        said = meant(field.type)
        if field.vector:
            self._moved.refuse(
                "vector search", f"{view.name}:{field.name}", "there is no search by vectors",
                "the vector itself is a feature like any other; search it elsewhere",
            )  # fmt: skip
        if source is None or source.data is None:
            made.features[name] = self._unseen(made, field, said.of, as_json=said.as_json)
            return
        column = source.feast.column(field.name)
        raw = source.raw(column)
        if raw is None:
            fault = source.data.columns.faults.get(column)
            why = f"its files have no column '{column}'" if fault is None else f"column '{column}' {fault}"
            self._moved.refuse("feature", f"{view.name}:{field.name}", why)
            return
        own = type_of_column(raw)
        if own is None:
            json = self._as_json(made, field.name, column, raw)
            made.features |= {} if json is None else {name: json}
            return
        made.features[name] = self._column(made, field, column, own, said.of, as_json=said.as_json)

    def _named(self, made: Ready, feature: str) -> str:
        name = made.names.of(feature)
        if name != feature:
            self._moved.differs(
                f"{made.feast.name}:{name}",
                "name",
                feature,
                name,
                "a name is letters, digits and underscores, and begins with a letter",
            )
        return name

    def _unseen(
        self, made: Ready, field: FeastField, of: FeatureType | None, *, as_json: bool
    ) -> DeclarationCall | str:
        """A feature of a column that nobody has seen."""
        source = made.source
        column = field.name if source is None else source.feast.column(field.name)
        if as_json:
            self._moved.differs(
                f"{made.feast.name}:{field.name}",
                "type",
                field.type or "",
                "String",
                "there are no maps: export the column as JSON text",
            )
        made.types[column] = _pushed_type(of)
        return column

    def _as_json(self, made: Ready, feature: str, column: str, raw: str) -> DeclarationCall | None:
        """A feature of a column of maps, structs or lists of them."""
        source = made.source
        assert source is not None
        about = f"{made.feast.name}:{feature}"
        if raw.startswith(("UNION", "INTERVAL", "TIME", "BIT", "HUGEINT", "UHUGEINT")) or raw == '"NULL"':
            self._moved.refuse(
                "feature", about, f"its column is {raw}, which is no type of a feature", "cast it in the data"
            )
            return None
        text = source.derive(f"{column}_json" if is_plain(column) else "json", json_of(column))
        part = raw.partition("(")[2].partition(" ")[0].strip('"') if raw.startswith("STRUCT") else "key"
        self._moved.differs(
            about, "type", "a map or a struct", "String, its JSON text",
            f'there are no such types; parts of it become columns: derived={{"{part}": "{column}.{part}"}}',
        )  # fmt: skip
        made.types[text] = String
        return DeclarationCall("Latest", (text,))

    def _column(
        self, made: Ready, field: FeastField, column: str, own: FeatureType, said: FeatureType | None, *, as_json: bool
    ) -> DeclarationCall | str:
        made.types[column] = _pushed_type(own)
        about = f"{made.feast.name}:{field.name}"
        if said is None or said == own or as_json:
            return column
        if widens(own, said) and not made.pushed:
            return DeclarationCall("Latest", (column,), {"type": said})
        if not made.pushed:
            self._moved.differs(
                about, "type", f"declared {said}: training has the data's {own}, serving casts", str(own),
                "nothing is rounded or cast: the feature has the data's type on both paths",
            )  # fmt: skip
        return column

    # --- aggregations ----------------------------------------------------------------------------

    def _aggregated(self, made: Ready) -> None:
        view = made.feast
        names = _aggregate_names(view)
        for one, there in zip(view.aggregations, names, strict=True):
            fold = FOLDS.get(one.function.lower())
            about = f"{view.name}:{there}"
            column = one.column if made.source is None else made.source.feast.column(one.column)
            seen = made.source is not None and made.source.data is not None
            if fold is None:
                self._moved.refuse("feature", about, f"there is no fold for '{one.function}'")
            elif seen and made.source is not None and made.source.raw(column) is None:
                self._moved.refuse("feature", about, f"its files have no column '{column}'")
            else:
                window = "lifetime" if not one.window_seconds else _duration(one.window_seconds)
                call = DeclarationCall(fold, (column,), {"window": window})
                raw = None if made.source is None else made.source.raw(column)
                own = None if raw is None else type_of_column(raw)
                made.types[column] = _pushed_type(own)
                made.features[self._named(made, there)] = call
                self._moved.differs(
                    about, "aggregation", f"{one.function} by the stream's engine, in steps of its own", f"{fold} over {window}",
                    "it is exact, and the same in training, batch and stream",
                )  # fmt: skip
        for field in view.fields:
            if field.name not in names:
                self._moved.refuse("feature", f"{view.name}:{field.name}", "no aggregation of the view makes it")

    # --- declarations ----------------------------------------------------------------------------

    def refresh_of(self, made: Ready) -> str:
        """How often the values of a view over a batch source change."""
        data = None if made.source is None else made.source.data
        step = None if data is None else data.step
        chosen = self._refresh or step or DEFAULT_REFRESH
        refresh = show_duration(chosen)
        about = made.feast.name
        there = "training sees a row at once, serving after the next materialize"
        here = f'refresh="{refresh}": both see the rows of the last multiple of it'
        if self._refresh is not None:
            why = "--refresh says so"
        elif step is not None:
            why = f"all event times lie on steps of {refresh}, so no row is seen later than in Feast; say how often materialize runs"
        else:
            why = f"nothing tells how often materialize runs, and {refresh} is a guess: say it. Rows come into training up to {refresh} later"
        self._moved.differs(about, "refresh", there, here, why)
        return refresh

    def ttl_of(self, made: Ready) -> str | None:
        """How far back rows of a view count."""
        seconds = made.feast.ttl_seconds
        if not seconds or seconds < 0 or seconds * 1_000_000 > GREATEST:
            return None
        if made.feast.aggregations:
            self._moved.differs(
                made.feast.name,
                "ttl",
                f"{_duration(seconds)} for aggregates",
                "none",
                "a window says how far back rows count",
            )
            return None
        here = "in both, at the instant itself" if made.pushed else "in both, by the last refresh"
        self._moved.differs(
            made.feast.name, "ttl", "in training, by the time of the request; never when serving", here,
            "one rule on both paths: an older value is EXPIRED",
        )  # fmt: skip
        return _duration(seconds)

    def features_of(self, made: Ready) -> Any:
        """What `features=` says: a list where each is the newest value of the column of its name."""
        plain = [name for name, how in made.features.items() if how == name]
        if len(plain) == len(made.features):
            return plain
        return {
            name: DeclarationCall("Latest", (how,)) if isinstance(how, str) else how
            for name, how in made.features.items()
        }

    def describe(self, view: FeastView) -> str:
        """The description of a view, those of its features within."""
        of_features = [f"{field.name}: {field.description}" for field in view.fields if field.description]
        return "; ".join([*([view.description] if view.description else []), *of_features])

    def push_source(
        self, stream: FeastSource, views: list[Ready], name: str, history: str | None, cutover: datetime | None
    ) -> DeclarationCall:
        """The declaration of a push source that several views read. history: the variable of its batch source."""
        first = views[0]
        source = first.source
        event_time = (source.event_time if source is not None else "") or stream.event_time or "event_timestamp"
        schema: dict[str, FeatureType] = {}
        for view in views:
            for key in view.keys:
                schema[key.column] = self._keys.types[key.join_key]
        schema[event_time] = Timestamp
        for view in views:
            for column, of in view.types.items():
                schema.setdefault(column, of)
        identity = [*dict.fromkeys(key.column for view in views for key in view.keys), event_time]
        call = DeclarationCall(
            "PushSource", (name,), {"schema": schema, "event_time": event_time, "identity": identity}
        )
        if history is not None and cutover is not None:
            call = call.with_keywords(history=VariableName(history), cutover=cutover)
        return call.with_keywords(owner=stream.owner, description=stream.description, tags=stream.tags)


def _pushed_type(of: FeatureType | None) -> FeatureType:
    """The type of a pushed column: numbers of Python and JSON are Float64, and nothing is rounded."""
    if of is None:
        return String
    return Float64 if of == Float32 else of


def _impossible(view: FeastView) -> tuple[str, str]:
    """Why a view cannot be taken over whatever its source, and what can be done; "" where it can."""
    if view.source_views:
        return (
            f"it is made of other views: {', '.join(view.source_views)}",
            "write what computes it into files, and declare a view over them",
        )
    if view.transformed:
        return (
            "a function makes its rows in Feast's engine",
            "run it where rows are made, and declare a view over what it writes; SQL over one row is derived= of the source",
        )
    if view.batch is None and view.stream is None:
        return "it has no source", ""
    return "", ""


def _without_features(*, known: bool) -> tuple[str, str]:
    """Why a view has no features here, and what can be done."""
    if known:
        return "none of its features can be taken over", ""
    return (
        "it lists no features, and its rows are not at hand to tell them",
        "list them in schema=; or name the registry that feast apply wrote, which has them: --registry",
    )


def _duration(seconds: float) -> str:
    return show_duration(round(seconds * 1_000_000))


def _aggregate_names(view: FeastView) -> list[str]:
    """The names of what the aggregations of a view make, in their order: for each that of the schema which it can be, once."""
    free = {field.name for field in view.fields}
    found = []
    for one in view.aggregations:
        base = f"{one.function}_{one.column}"
        with_window = f"{base}_{int(one.window_seconds)}s" if one.window_seconds else base
        named = [one.name, with_window, base, f"{one.column}_{one.function}"]
        if sum(other.column == one.column for other in view.aggregations) == 1:
            named.append(one.column)
        found.append(next((name for name in named if name in free), one.name or with_window))
        free.discard(found[-1])
    return found


def cutover_of(source: MovedSource, said: datetime | None) -> datetime | None:
    """Until when a push source's history counts: as it is said, or just after its newest row; None where it has no rows."""
    if said is not None:
        return said
    data = source.data
    if data is None or data.last is None:
        return None
    end = data.last + HISTORY_AFTER
    return end.replace(microsecond=0) + timedelta(seconds=1 if end.microsecond else 0)


def mapped_keys(keys: list[ViewKey], columns: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """What `key=` of a view says: by key of the entity the source's column, where they differ."""
    return {names[key.join_key]: columns[key.join_key] for key in keys if names[key.join_key] != columns[key.join_key]}

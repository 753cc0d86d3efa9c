"""Feast's entities as entities of ours: the types of keys, which the data tells, and several entities of one view as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featurestore.migrate.definition_text import DeclarationCall
from featurestore.migrate.feast_objects import FeastEntity, FeastView
from featurestore.migrate.feast_types import meant
from featurestore.migrate.move_result import MoveResult
from featurestore.migrate.move_sources import MovedSource
from featurestore.migrate.names import Names
from featurestore.semantics.columns import type_of_column, widens
from featurestore.semantics.sql import quote
from featurestore.types import FeatureType, Int64, String


@dataclass(frozen=True)
class ViewKey:
    """A join key of a view: its name in Feast, and the source's column of it."""

    join_key: str
    column: str


class MoveKeys:
    """The join keys of a repository, each with one type, and the entities that are made of them."""

    def __init__(self, moved: MoveResult, entities: Sequence[FeastEntity]) -> None:
        self._moved = moved
        self._entities = {entity.name: entity for entity in entities}
        self._names, self.columns = Names(prefix="entity"), Names(column=True, prefix="key")
        self.types: dict[str, FeatureType] = {}
        self._made: dict[tuple[str, ...], str] = {}

    def of(self, view: FeastView, source: MovedSource | None) -> list[ViewKey] | str:
        """The join keys of a view, or why it has none that can be used."""
        found = []
        for name in view.entities:
            entity = self._entities.get(name)
            if entity is None:
                return f"its entity '{name}' is declared nowhere"
            for join_key in entity.keys:
                column = join_key if source is None else source.feast.column(join_key)
                if source is not None and source.data is not None and column not in source.data.columns:
                    return f"its files have no column '{column}', the join key of entity '{name}'"
                found.append(ViewKey(join_key, column))
        return found

    def settle(self, views: Sequence[tuple[FeastView, MovedSource | None, list[ViewKey]]]) -> None:
        """Give each join key its type: the widest that the data of its views has, or else what Feast declares."""
        for view, source, keys in views:
            for key in keys:
                of = self._of_data(source, key.column)
                known = self.types.get(key.join_key)
                if of is not None and (known is None or (known != of and widens(known, of))):
                    self.types[key.join_key] = of
                    self._tell_type(view, key, of)
        for view, _, keys in views:
            for key in keys:
                if key.join_key not in self.types:
                    self.types[key.join_key] = self._declared(view, key)

    def _of_data(self, source: MovedSource | None, column: str) -> FeatureType | None:
        raw = None if source is None else source.raw(column)
        of = None if raw is None else type_of_column(raw)
        if of is None or of.element is not None or of.kind == "Embedding":
            return None
        return Int64 if of.is_float else of

    def _said(self, view: FeastView, join_key: str) -> FeatureType | None:
        """The type that Feast declares for a join key."""
        of = next((meant(field.type).of for field in view.keys if field.name == join_key), None)
        entity = next((one for one in self._entities.values() if join_key in one.keys), None)
        return of if of is not None or entity is None else meant(entity.type).of

    def _declared(self, view: FeastView, key: ViewKey) -> FeatureType:
        of = self._said(view, key.join_key)
        if of is not None and not of.is_float and of.element is None:
            return of
        self._moved.differs(
            key.join_key, "key type", "inferred when it is applied", "String",
            "nothing says its type, and its rows are not at hand; correct it where it is another",
        )  # fmt: skip
        return String

    def _tell_type(self, view: FeastView, key: ViewKey, of: FeatureType) -> None:
        said = self._said(view, key.join_key)
        if said is not None and said != of and not widens(of, said):
            self._moved.differs(
                key.join_key,
                "key type",
                f"declared {said}",
                str(of),
                "the data has it so; a key is compared by its type",
            )

    def column(self, view: FeastView, source: MovedSource, key: ViewKey) -> str:
        """The column that holds a key of a view, of a type that fits; ValueError where none does."""
        raw, of = source.raw(key.column), self.types[key.join_key]
        if raw is None:
            return key.column
        own = type_of_column(raw)
        if own is not None and widens(own, of):
            return key.column
        if own is not None and own.is_float and of == Int64:
            self._moved.differs(
                view.name, "key type", f"{key.column} is {own}: numbers with a point", "Int64",
                "a key is a whole number here; a row whose key is none belongs to nobody",
            )  # fmt: skip
            whole = quote(key.column)
            return source.derive(
                f"{key.column}_key", f"CASE WHEN {whole} = floor({whole}) THEN TRY_CAST({whole} AS BIGINT) END"
            )
        raise ValueError(
            f"its key '{key.column}' is {own or raw}, and {of} in other views of that join key; make it one type in the data"
        )

    def entity(self, view: FeastView, keys: Sequence[ViewKey]) -> tuple[str, DeclarationCall, dict[str, str]]:
        """The entity of a view: its name, its declaration, and by join key the key's name here."""
        if not keys:
            return "world", DeclarationCall("Entity", ("world",), {"key": {}}), {}
        names = {key.join_key: self.columns.of(key.join_key) for key in keys}
        chosen = tuple(sorted(view.entities))
        if chosen not in self._made:
            joined = "_".join(chosen)
            self._made[chosen] = self._names.of(joined)
        name = self._made[chosen]
        call = DeclarationCall("Entity", (name,), {"key": self._typed(names, keys, chosen)})
        if len(chosen) == 1:
            own = self._entities[chosen[0]]
            call = call.with_keywords(owner=own.owner, description=own.description, tags=own.tags)
        else:
            self._moved.differs(
                name, "entity", f"several entities of one view: {', '.join(chosen)}", "one entity of several key columns",
                "a view has one entity here",
            )  # fmt: skip
        return name, call, names

    def _typed(
        self, names: Mapping[str, str], keys: Sequence[ViewKey], chosen: tuple[str, ...]
    ) -> dict[str, FeatureType]:
        """Its key columns in an order that all views of these entities share."""
        order = [join_key for name in chosen for join_key in self._entities[name].keys]
        assert {key.join_key for key in keys} == set(order)
        return {names[join_key]: self.types[join_key] for join_key in order}

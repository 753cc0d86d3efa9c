"""Random push sources, what is pushed to them, and what lookups must answer, by the naive reading of the rules.

The rows are those of the log, and a row is superseded by exactly the one that names it in `__replaces`. Nothing here
comes from the product's semantics.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from featurestore import Entity, FeatureService, FeatureStore, FeatureView, PushSource
from featurestore.declare.declaration import Declaration
from featurestore.online import Guard, OnlineStore, Reading
from featurestore.online.view_codec import project_prefix
from featurestore.types import parse_type
from tests.folding import FoldSpec, fold_specs, folded_value, windows_of
from tests.histories import (
    EPOCH,
    HOUR,
    KEY_POOLS,
    KEY_SHAPES,
    MICROSECOND,
    NUDGE,
    VALUE_POOLS,
    History,
    edges,
    pick,
    rarely,
)  # fmt: skip
from tests.oracle import SourceSpec, ViewSpec

MINUTE, DAY = HOUR // 60, 24 * HOUR
GRIDS = ((0, 4), (0, HOUR), (-3 * DAY, DAY), (1_357_000_000_000_000, 1_000_000))  # origin, step
SKETCH_HOPS = (MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY)
SKETCHES = {"CountDistinct", "ApproxCountDistinct", "ApproxQuantile"}
DEFAULT_HOPS = ((12 * DAY, DAY), (12 * HOUR, HOUR), (HOUR, 5 * MINUTE), (MINUTE, MINUTE))
DERIVED = '"row" % 3'
OWN = ("known_at", "__replaces")

Row = dict[str, Any]


@dataclass(frozen=True)
class PushWorld:
    """A random push source with a view over it. `history` has the types and words as the oracle reads them, no rows."""

    history: History
    specs: list[FoldSpec]
    identity: tuple[str, ...]
    deleted: bool
    lateness: int
    tolerance: int
    refresh: int | None = None
    settle: int = 0

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are pushed."""
        return {name: of for name, of in self.history.types.items() if name not in {"known_at", "value_d"}}

    def declare(self) -> list[Declaration]:
        """The source, a view over it and a service of that, as a user writes them."""
        said = self.history.source
        source = PushSource(
            "rows", schema={name: parse_type(of) for name, of in self.columns.items()}, event_time="event_time",
            identity=list(self.identity), deleted="deleted" if self.deleted else None, until=said.until,
            lateness=f"{self.lateness}us", tolerance=f"{self.tolerance}us", derived={"value_d": DERIVED},
        )  # fmt: skip
        key = self.history.view.key
        types = {name: parse_type(self.history.types[column]) for name, column in key.items()}
        view = FeatureView(
            "view", entity=Entity("thing", key=types), source=source, key=key,
            features={f"fold_{i}": spec.declare() for i, spec in enumerate(self.specs)},
            ttl=None if self.history.view.ttl_us is None else f"{self.history.view.ttl_us}us",
        )  # fmt: skip
        views = [view]
        if self.refresh is not None:
            exact = {f"fold_{i}": replace(spec, hop=None).declare() for i, spec in enumerate(self.specs)}
            views.append(
                FeatureView(
                    "rolled", entity=view.entity, source=source, key=key, features=exact, refresh=f"{self.refresh}us",
                    settle=f"{self.settle}us", ttl=None if view.ttl is None else f"{view.ttl}us",
                )
            )  # fmt: skip
        return [*views, *(FeatureService(each.name, features=[each]) for each in views)]

    def edges(self, rows: list[Row]) -> list[int]:
        """The instants at which what is served of rows may change because of the time alone."""
        windows = windows_of([with_hop(spec) for spec in self.specs])
        known = [{**row, "known_at": None} for row in rows]
        found = set(edges(self.history.source, self.history.view, known, windows))
        if self.refresh is not None:
            rolled = replace(self.history.view, refresh_us=self.refresh, settle_us=self.settle)
            found |= set(edges(self.history.source, rolled, known, windows_of(self.specs)))
        return sorted(found)

    def expected(
        self, logged: list[Row], spec: FoldSpec, of: str, *, key: tuple[Any, ...], as_of: int, settle: int = 0
    ) -> Any:
        """(status, value) of one fold at an instant, from the rows of the log."""
        known = [row for row in logged if row["known_at"] <= as_of + settle]
        gone = {row["__replaces"] for row in known}
        current = [row for row in known if row["known_at"] not in gone and row.get("deleted") is not True]
        rows = [
            {**row, "known_at": EPOCH + row["known_at"] * MICROSECOND, "value_d": row["row"] % 3} for row in current
        ]
        reads = {f"r_{column}": column for other in self.specs for column in other.reads}
        view = replace(self.history.view, features=reads)
        history = replace(self.history, rows=rows, view=view)
        return folded_value(history, view, spec, of, key=key, as_of=as_of, known_by=as_of + settle)


def with_hop(spec: FoldSpec) -> FoldSpec:
    """The fold with the hop that is documented for a continuous view, where it declares none."""
    if spec.hop is not None or not isinstance(spec.window, int):
        return spec
    window = spec.window
    if spec.kind in SKETCHES:
        return replace(
            spec, hop=min(window, next((hop for hop in SKETCH_HOPS if 32 * hop >= window), -(-window // 32)))
        )
    return replace(spec, hop=next((hop for least, hop in DEFAULT_HOPS if window >= least), window))


@st.composite
def push_worlds(draw: st.DrawFn) -> PushWorld:
    """Small domains, so that ties, corrections, deletions and rows on an edge are frequent."""
    origin, step = pick(draw, *GRIDS)
    types = {"row": "Int64", "event_time": "Timestamp", "known_at": "Timestamp", "value_d": "Int64"}
    shape = pick(draw, *KEY_SHAPES)
    types |= {f"key_{n}": of for n, of in enumerate(shape)}
    values = draw(st.lists(st.sampled_from(sorted(VALUE_POOLS)), min_size=1, max_size=2))
    types |= {f"value_{n}": of for n, of in enumerate(values)}
    identity = pick(draw, (), ("id",), ("id",), ("id", "id_part"))
    types |= dict.fromkeys(identity, "Int64")
    deleted = bool(identity) and draw(st.booleans())
    if deleted:
        types["deleted"] = "Bool"
    until = "until" if rarely(draw, 4) else None
    if until:
        types["until"] = "Timestamp"
    source = SourceSpec(event_time="event_time", known_at="known_at", until=until)
    ttl = pick(draw, None, None, 1, step, 2 * step, 3 * step + 1)
    view = ViewSpec(key={f"entity_{n}": f"key_{n}" for n in range(len(shape))}, features={}, ttl_us=ttl)
    history = History(source, view, [], types, [], origin, step)
    specs = []
    for _ in range(draw(st.integers(1, 4))):
        spec = draw(fold_specs(history, timed=True))
        if spec.hop is not None and rarely(draw, 3):
            spec = replace(spec, hop=None)
        specs.append(spec)
    if draw(st.booleans()):
        specs.append(FoldSpec("Latest", "value_0"))
    lateness = pick(draw, 2 * step, 5 * step, 100 * step)
    refresh = pick(draw, None, step, 2 * step)
    settle = 0 if refresh is None else pick(draw, 0, 1, step)
    return PushWorld(history, specs, identity, deleted, lateness, pick(draw, 1, 1, step), refresh, settle)


def keys_of(draw: st.DrawFn, world: PushWorld) -> Row:
    """The columns of a key, now and then with a null."""
    types = world.history.types
    row = {column: draw(st.sampled_from(KEY_POOLS[types[column]][:2])) for column in world.history.view.key.values()}
    if row and rarely(draw, 12):
        row[draw(st.sampled_from(sorted(row)))] = None
    return row


def a_row(draw: st.DrawFn, world: PushWorld, now: int, number: int) -> Row:
    """A row that happened about now, or on an edge of the grid, or too long ago, or too far ahead."""
    step, types = world.history.step, world.history.types
    on_grid = (now - world.history.origin) // step * step + world.history.origin
    base = pick(draw, now, on_grid, on_grid, now + world.tolerance, now - world.lateness)
    happened = base - pick(draw, 0, 0, 1, 2, 3) * step + draw(NUDGE)
    row: Row = {"row": number, "event_time": EPOCH + happened * MICROSECOND, **keys_of(draw, world)}
    row |= {name: draw(st.sampled_from(VALUE_POOLS[types[name]])) for name in world.columns if name[:6] == "value_"}
    row |= {name: draw(st.integers(0, 2)) for name in world.identity}
    if "until" in types:
        row["until"] = None if rarely(draw, 3) else row["event_time"] + pick(draw, 0, 1, 2) * step * MICROSECOND
    if world.deleted:
        row["deleted"] = pick(draw, None, False, False, True)
        if row["deleted"] and draw(st.booleans()):  # a tombstone may leave out all but its identity
            keep = {"row", "deleted", *world.identity}
            row = {name: value if name in keep else None for name, value in row.items()}
    return row


class Killed(BaseException):
    """The process ended here."""


class DyingStore:
    """A store whose process dies before its nth write."""

    def __init__(self, store: OnlineStore, writes: int) -> None:
        self._store, self._left = store, writes
        self.blocking, self.tagged = store.blocking, store.tagged

    def get(self, keys: Any) -> Reading:
        return self._store.get(keys)

    def scan(self, prefix: bytes) -> Iterator[list[bytes]]:
        return self._store.scan(prefix)

    def write(self, puts: Mapping[bytes, bytes | None], *, guard: Guard | None = None) -> bool:
        if self._left == 0:
            raise Killed
        self._left -= 1
        return self._store.write(puts, guard=guard)

    def close(self) -> None:
        self._store.close()


class InterleavedStore:
    """A store of which the first reading is not of one moment: between the marks and the records there is a push."""

    blocking = tagged = False

    def __init__(self, store: OnlineStore, marks: int, push: Callable[[], object]) -> None:
        self._store, self._marks, self._push = store, marks, push
        self.readings = 0

    def get(self, keys: Any) -> Reading:
        self.readings += 1
        first = self._store.get(keys[: self._marks])
        if self.readings == 1:
            self._push()
        return Reading(first.now, [*first.values, *self._store.get(keys[self._marks :]).values])


def kept(store: FeatureStore) -> dict[bytes, bytes]:
    """All that a project has online."""
    keys = [key for batch in store.online.scan(project_prefix(store.config.project)) for key in batch]
    values = store.online.get(keys).values
    return {key: value for key, value in zip(keys, values, strict=True) if value is not None}


def put_back(store: FeatureStore, before: Mapping[bytes, bytes]) -> None:
    """The online store comes back as it was."""
    store.online.write({**dict.fromkeys(kept(store)), **before})


PROJECTS = (f"push{n}" for n in itertools.count())


def configure(folder: Path, online: str) -> None:
    """A project of its own in an online store, with its registry and its logs in a folder."""
    text = f'project = "{next(PROJECTS)}"\nonline = "{online}"\ndefinitions = []\n'
    (folder / "featurestore.toml").write_text(text)


def configure_machines(folders: Sequence[Path], *, online: str, database: str) -> None:
    """A project of several machines, each with a folder of its own; they share an online store, and a database for all else."""
    text = f'project = "{next(PROJECTS)}"\nonline = "{online}"\nregistry = "{database}"\npush_log = "{database}"\ndefinitions = []\n'
    text += "[serving_log]\nrate = 1\n"
    for folder in folders:
        folder.mkdir()
        (folder / "featurestore.toml").write_text(text)

"""The graph of lineage: from the columns of sources through views, features and functions to services.

It is made of the definitions alone, so no data is read for it; what was written and served of services is added by
`reports.lineage.uses`. Edges run the way that values do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from featurestore.catalog import Catalog
from featurestore.declare.durations import show_duration
from featurestore.declare.folds import Fold
from featurestore.declare.on_demand import OnDemand, Request
from featurestore.declare.push import PushSource
from featurestore.declare.services import FeatureService
from featurestore.declare.sources import Source
from featurestore.declare.views import FeatureView, Selection
from featurestore.errors import NotFoundError, did_you_mean
from featurestore.registry.frames import feature_id, on_demand_id
from featurestore.semantics.expressions import columns_named


@dataclass(frozen=True)
class Node:
    """One thing of the graph of lineage."""

    id: str
    kind: str
    """"source", "column", "derived column", "view", "feature", "request value", "on-demand feature", "service", "training frame" or "served version"."""
    name: str
    detail: dict[str, Any] = field(default_factory=dict, compare=False)
    """What is known of it, plain JSON values."""


@dataclass(frozen=True)
class Edge:
    """What a value of `end` is made of."""

    start: str
    end: str
    role: str
    """What `start` is to `end`: "value", "key", "event_time", "where", "input", …"""
    name: str = ""
    """What it is called there, where that is another name."""


class Graph:
    """Nodes by id, and edges, each once."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[Edge, None] = {}
        self.spelled: dict[tuple[str, str], str] = {}  # (source, column in lower case) → as a definition names it

    def node(self, kind: str, name: str, identity: str, **detail: Any) -> str:
        """Add a node, unless it is there; its id."""
        known = {word: value for word, value in detail.items() if value not in (None, "", [], {}, ())}
        self.nodes.setdefault(identity, Node(identity, kind, name, known))
        return identity

    def edge(self, start: str, end: str, role: str, name: str = "") -> None:
        """Add an edge between nodes that are there."""
        self.edges[Edge(start, end, role, name)] = None

    def closure(self, roots: Iterable[str], *, upstream: bool) -> set[str]:
        """The nodes that the roots are made of, or that are made of them; the roots among them."""
        near: dict[str, list[str]] = {}
        for edge in self.edges:
            start, end = (edge.end, edge.start) if upstream else (edge.start, edge.end)
            near.setdefault(start, []).append(end)
        seen, left = set(roots), list(roots)
        while left:
            for other in near.get(left.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    left.append(other)
        return seen


@dataclass(frozen=True)
class Subgraph:
    """A part of a graph: some nodes, the roots, and what they are made of or what is made of them."""

    roots: tuple[str, ...]
    nodes: dict[str, Node]
    edges: tuple[Edge, ...]


def source_id(name: str) -> str:
    """The id of a source in the graph."""
    return f"source:{name}"


def service_id(name: str) -> str:
    """The id of a service."""
    return f"service:{name}"


def graph_of(catalog: Catalog) -> Graph:
    """The graph of definitions: everything but frames and served versions."""
    graph = Graph()
    for source in catalog.sources.values():
        _spell(graph, source, (*source.derived, *source.option_columns))
    for view in catalog.views.values():
        named = [view.key_column(key) for key in view.entity.key]
        _spell(graph, view.source, [*named, *(fold.column for fold in view.features.values())])
    for source in catalog.sources.values():
        _add_source(graph, source)
    for view in catalog.views.values():
        _add_view(graph, view)
    for item in catalog.on_demand.values():
        _add_on_demand(graph, item)
    for service in catalog.services.values():
        _add_service(graph, service)
    return graph


def _words(source: Source) -> Iterator[tuple[str, str]]:
    """The columns that a source's words name, each with its role."""
    single = ("event_time", "known_column", "version", "deleted", "until", "valid_from")
    for word in single:
        if (column := getattr(source, word)) is not None:
            yield column, "known_at" if word == "known_column" else word
    for column in source.identity:
        yield column, "identity"
    for column in source.tiebreak:
        yield column, "tiebreak"


def _add_source(graph: Graph, source: Source) -> str:
    known = "when the store learned of it" if isinstance(source, PushSource) else (
        None if source.known_column else "when its file was first seen" if source.arrives
        else f"event_time + {show_duration(source.known_after)}"
    )  # fmt: skip
    place = getattr(source, "path", None)
    made = graph.node(
        "source", source.name, source_id(source.name), type=type(source).__name__, owner=source.owner,
        known_at=known, path=list(place) if isinstance(place, tuple) else place, declared=source.origin,
    )  # fmt: skip
    for column, _ in _words(source):
        _add_column(graph, source, column)
    for column in source.derived:
        _add_column(graph, source, column)
    return made


def _add_column(graph: Graph, source: Source, column: str) -> str:
    """A column, with what it is derived from, and of a push source the column of its batch history."""
    identity = f"column:{source.name}.{column}"
    if identity in graph.nodes:
        return identity
    name, expression = f"{source.name}.{column}", source.derived.get(column)
    if expression is not None:
        graph.node("derived column", name, identity, expression=expression)
        for other in _named(graph, source, expression):
            graph.edge(_add_column(graph, source, other), identity, "derived")
        return identity
    graph.node("column", name, identity)
    if source_id(source.name) not in graph.nodes:
        _add_source(graph, source)
    graph.edge(source_id(source.name), identity, "column")
    if isinstance(source, PushSource) and source.history is not None:
        graph.edge(_add_column(graph, source.history, column), identity, "history")
    return identity


def _named(graph: Graph, source: Source, expression: str) -> list[str]:
    """The columns that an expression names, spelled as a definition names them: in SQL, names have no case."""
    try:
        named = columns_named(expression)
    except ValueError:  # which a plan refuses, with the reason
        return []
    return list(dict.fromkeys(graph.spelled.setdefault((source.name, name.lower()), name) for name in named))


def _spell(graph: Graph, source: Source, columns: Iterable[str | None]) -> None:
    for column in columns:
        if column is not None:
            graph.spelled.setdefault((source.name, column.lower()), column)


def _add_view(graph: Graph, view: FeatureView) -> None:
    source = view.source
    refresh = view.said("refresh")
    made = graph.node(
        "view", view.name, f"view:{view.name}", entity=view.entity.name, owner=view.owner, declared=view.origin,
        refresh=refresh if isinstance(refresh, str) else show_duration(refresh),
        ttl=None if view.said("ttl") is None else show_duration(view.said("ttl")),
    )  # fmt: skip
    for key in view.entity.key:
        column = view.key_column(key)
        graph.edge(_add_column(graph, source, column), made, "key", "" if column == key else key)
    for column, role in _words(source):
        graph.edge(_add_column(graph, source, column), made, role)
    for name, fold in view.features.items():
        where = [text for text in (view.where, fold.where) if text is not None]
        feature = graph.node("feature", f"{view.name}:{name}", feature_id(view.name, name), **_fold(fold), where=where)
        graph.edge(made, feature, "rows")
        if fold.column is not None:
            graph.edge(_add_column(graph, source, fold.column), feature, "value")
        for text in where:
            for column in _named(graph, source, text):
                graph.edge(_add_column(graph, source, column), feature, "where")


def _fold(fold: Fold) -> dict[str, Any]:
    shown = {word: show_duration(value) for word in ("offset", "hop") if (value := getattr(fold, word))}
    window = fold.window if fold.window is None or isinstance(fold.window, str) else show_duration(fold.window)
    return {"fold": fold.kind, "of": fold.column, "window": window, **shown, **fold.parameters}


def _add_on_demand(graph: Graph, item: OnDemand) -> None:
    made = graph.node(
        "on-demand feature", item.name, on_demand_id(item.name), output=str(item.output), code=item.code,
        owner=item.owner, declared=item.origin,
    )  # fmt: skip
    for value in item.inputs:
        if isinstance(value, Selection):
            own = feature_id(value.view.name, value.features[0])
            graph.edge(own, made, "input", "" if value.name == value.view.name else value.columns[0])
        else:
            name = value.name if isinstance(value, Request) else "request time"
            graph.node("request value", name, f"request:{name}", type=str(value.type))
            graph.edge(f"request:{name}", made, "input")


def _add_service(graph: Graph, service: FeatureService) -> None:
    made = graph.node(
        "service", service.name, service_id(service.name), columns=list(service.columns), owner=service.owner,
        declared=service.origin,
    )  # fmt: skip
    for item in service.features:
        if isinstance(item, OnDemand):
            graph.edge(on_demand_id(item.name), made, "column")
            continue
        for feature, column in zip(item.features, item.columns, strict=True):
            name = "" if item.name == item.view.name else column
            graph.edge(feature_id(item.view.name, feature), made, "column", name)


def found(graph: Graph, catalog: Catalog, asked: Any) -> tuple[str, ...]:
    """The nodes that a name, or a definition, stands for; a view's features with it, and a source's columns.

    "view:feature", "view__feature" (or "alias__feature"), "source.column", and the name of a view, an on-demand feature, a
    service or a source; all of them, where several bear it. NotFoundError, with the nearest name, where there is none.
    """
    if isinstance(asked, Selection):
        return tuple(feature_id(asked.view.name, feature) for feature in asked.features)
    if not isinstance(asked, str):
        kinds = {FeatureView: "view", OnDemand: "on_demand", FeatureService: "service", Source: "source"}
        kind = next((kind for of, kind in kinds.items() if isinstance(asked, of)), None)
        names = {f"{kind}:{asked.name}": _whole(_below(graph), f"{kind}:{asked.name}")} if kind is not None else {}
        asked = f"{kind}:{asked.name}" if kind is not None else repr(asked)
    else:
        names = _names(graph, catalog)
    if asked not in names:
        raise NotFoundError(f"There is no '{asked}' to tell the lineage of.{did_you_mean(asked, names)}")
    return names[asked]


def _names(graph: Graph, catalog: Catalog) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    below = _below(graph)
    for node in graph.nodes.values():
        if node.kind != "request value":
            names[node.name] = (*names.get(node.name, ()), *_whole(below, node.id))
    for view in catalog.views.values():
        names.update({f"{view.name}__{feature}": (feature_id(view.name, feature),) for feature in view.features})
    for service in catalog.services.values():
        for item in service.selections():
            columns = zip(item.columns, item.features, strict=True)
            names.update({column: (feature_id(item.view.name, feature),) for column, feature in columns})
    return names


def _below(graph: Graph) -> dict[str, list[str]]:
    """What is made of each node at once."""
    below: dict[str, list[str]] = {}
    for edge in graph.edges:
        below.setdefault(edge.start, []).append(edge.end)
    return below


def _whole(below: Mapping[str, list[str]], identity: str) -> tuple[str, ...]:
    """A node, with the features of a view and the columns of a source."""
    return (identity, *below.get(identity, ())) if identity.partition(":")[0] in {"view", "source"} else (identity,)

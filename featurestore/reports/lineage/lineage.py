"""Lineage: what a feature, a function, a service or a column is made of, and where it goes, up to frames and serving."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Literal

from featurestore.errors import FeatureStoreError
from featurestore.project import Project
from featurestore.report import within
from featurestore.reports.lineage import text as lineage_text
from featurestore.reports.lineage.graph import Graph, Node, Subgraph, found, graph_of, service_id
from featurestore.reports.lineage.uses import add_uses, uses_of

Direction = Literal["both", "upstream", "downstream"]


class Lineage(Subgraph):
    """What some nodes, the roots, are made of and what is made of them: nodes by id, and edges between them."""

    @classmethod
    def of(cls, graph: Graph, roots: tuple[str, ...], direction: Direction) -> Lineage:
        """The part of a graph that is upstream of the roots, downstream of them, or both."""
        parts = [graph.closure(roots, upstream=way == "upstream") for way in ("upstream", "downstream")
                 if direction in {"both", way}]  # fmt: skip
        kept = set().union(*parts)
        edges = tuple(edge for edge in graph.edges if any({edge.start, edge.end} <= part for part in parts))
        return cls(roots, {name: node for name, node in graph.nodes.items() if name in kept}, edges)

    def of_kind(self, kind: str) -> tuple[Node, ...]:
        """Its nodes of one kind."""
        return tuple(node for node in self.nodes.values() if node.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "roots": list(self.roots),
            "nodes": [
                {name: value for name, value in vars(node).items() if value != {}} for node in self.nodes.values()
            ],
            "edges": [
                {"from": edge.start, "to": edge.end, "role": edge.role, **({"name": edge.name} if edge.name else {})}
                for edge in self.edges
            ],
        }

    def to_mermaid(self) -> str:
        """A Mermaid flow chart."""
        return lineage_text.mermaid(self)

    def __str__(self) -> str:
        return lineage_text.text(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def lineage_of(project: Project, asked: Any, *, direction: Direction = "both") -> Lineage:
    """The lineage of a name or a definition, at hand or applied, with what became of services in this project: see `graph.found` for the
    names. What was written and served is read of the services that are made of it, and of no others.

    direction: only what it is made of ("upstream"), or only what is made of it ("downstream"). Raises NotFoundError with
    the nearest name.
    """
    project.serving_log.flush()
    catalog, graph = project.definitions, graph_of(project.definitions)
    roots = found(graph, catalog, asked)
    made = graph.closure(roots, upstream=False)
    own = {}
    for name in project.catalog.services:
        if service_id(name) in made:
            with contextlib.suppress(FeatureStoreError):  # its data is not at hand: what was applied is told
                own[name] = project.service(name).fingerprint
    log = project.serving_log.folder
    add_uses(graph, catalog, uses_of(project.registry, lambda: project.online, project.config.project, log, own, made))
    part = Lineage.of(graph, roots, direction)
    nodes = {name: _seen_from(project.config.root, node) for name, node in part.nodes.items()}
    return Lineage(part.roots, nodes, part.edges)


def _seen_from(root: Path, node: Node) -> Node:
    """The node with its paths as they are seen from the repository."""
    detail = dict(node.detail)
    for word in ("path", "declared", "manifest"):
        said = detail.get(word)
        if isinstance(said, str):
            detail[word] = within(said, root)
        elif isinstance(said, list):
            detail[word] = [within(path, root) for path in said]
    name = within(node.name, root) if node.kind == "training frame" else node.name
    return replace(node, name=name, detail=detail)

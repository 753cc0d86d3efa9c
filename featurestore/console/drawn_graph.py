"""What of a lineage is drawn: all of it, or, where that is too much to be seen, without the kinds of things that there are most of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from featurestore.reports.lineage.graph import Edge, Node, Subgraph

MOST_NODES = 1_000
"""Nodes that are drawn at most: of more nobody sees anything, and they take a browser long to lay out."""

FINEST_FIRST = ("column", "derived column", "request value", "feature", "on-demand feature", "training frame", "served version", "view", "source", "service")  # fmt: skip
"""Kinds of nodes in the order in which they are left out."""


class DrawnGraph(NamedTuple):
    """The nodes and edges that are drawn, and the kinds that are left out, of which only roots are drawn."""

    nodes: list[Node]
    edges: list[Edge]
    left_out: tuple[str, ...]


def drawn_graph(found: Subgraph, most: int = MOST_NODES) -> DrawnGraph:
    """What is drawn of a part of the graph. What is joined by a way through nodes that are left out is joined by one edge of role "through"."""
    roots = found.roots[:most]
    kinds = [kind for kind in FINEST_FIRST if any(node.kind == kind for node in found.nodes.values())]
    for number in range(len(kinds) + 1):
        left_out = kinds[:number]
        shown = {name for name, node in found.nodes.items() if node.kind not in left_out or name in roots}
        if len(shown) <= most:
            break
    edges = list(found.edges) if len(shown) == len(found.nodes) else list(_joined(found, shown))
    return DrawnGraph([found.nodes[name] for name in found.nodes if name in shown], edges, tuple(left_out))


def _joined(found: Subgraph, shown: set[str]) -> Iterator[Edge]:
    after: dict[str, list[str]] = {}
    for edge in found.edges:
        after.setdefault(edge.start, []).append(edge.end)
    for start in found.nodes:
        if start in shown:
            seen, left = set(), list(after.get(start, ()))
            while left:
                node = left.pop()
                if node not in seen:
                    seen.add(node)
                    if node in shown:
                        yield Edge(start, node, "through")
                    else:
                        left += after.get(node, ())

"""The lineage of something: a drawn graph of what it is made of and where it goes, and the same as tables."""

from __future__ import annotations

from featurestore.console.drawn_graph import drawn_graph
from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageTable, plain_text
from featurestore.console.readable_store import ReadableStore
from featurestore.errors import RequestError
from featurestore.plurals import plural
from featurestore.reports.lineage.graph import Node
from featurestore.reports.lineage.lineage import Direction

PAGES_OF = {
    "source": "source", "view": "view", "feature": "feature", "on-demand feature": "function", "service": "service",
}  # fmt: skip
"""The pages of the kinds of nodes that have one."""

DIRECTIONS: dict[str, Direction] = {"both": "both", "upstream": "upstream", "downstream": "downstream"}


def link_of(node: Node) -> object:
    """What leads to the page of a node, or its name."""
    if node.kind in PAGES_OF:
        return PageLink(node.name, PAGES_OF[node.kind], node.name)
    if node.kind == "training frame":
        return PageLink(node.name, "training", "", {"path": node.name})
    return node.name


def lineage(store: ReadableStore, asked: PageRequest) -> PageModel:
    """What `featurestore lineage NAME` tells."""
    said = asked.word("direction") or "both"
    if said not in DIRECTIONS:
        raise RequestError(f"direction is {', '.join(DIRECTIONS)}, and not {said[:40]!r}")
    found = store.lineage(asked.name, direction=DIRECTIONS[said])
    links = {node.id: link_of(node) for node in found.nodes.values()}
    drawn, roots = drawn_graph(found), frozenset(found.roots)
    nodes = [
        {"id": node.id, "kind": node.kind, "name": node.name, "link": links[node.id], "is_root": node.id in roots}
        for node in drawn.nodes
    ]
    edges = [{"start": edge.start, "end": edge.end, "role": edge.role} for edge in drawn.edges]
    tables = (
        PageTable("nodes", "What this lineage is made of", ("kind", "name", "details"),
                  [(node.kind, links[node.id], _details(node)) for node in found.nodes.values()]),
        PageTable("edges", "What is made of what", ("from", "as", "into"),
                  [(links[edge.start], f"{edge.role} {edge.name}".strip(), links[edge.end]) for edge in found.edges],
                  "Nothing else."),
    )  # fmt: skip
    kinds = list(dict.fromkeys(node.kind for node in drawn.nodes))
    count = len(found.nodes)
    not_drawn = f"{count:,} {plural(count, 'thing')} are too many to draw: kinds that are left out of the drawing are {', '.join(drawn.left_out)}. The tables below have all."
    values = {
        "direction": said,
        "directions": list(DIRECTIONS),
        "node_kinds": kinds,
        "not_drawn": not_drawn if drawn.left_out else "",
    }
    return PageModel("lineage.html", f"Lineage of {asked.name}", values, tables, {"nodes": nodes, "edges": edges})


def _details(node: Node) -> str:
    return ", ".join(
        f"{word}: {plain_text(value)}" for word, value in node.detail.items() if word not in {"views", "columns"}
    )


PAGE = PageKind("lineage", "Lineage", lineage, is_named=True, is_listed=False, is_static=True)

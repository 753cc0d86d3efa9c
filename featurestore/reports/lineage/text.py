"""How a lineage is shown: as a tree of text, as a Mermaid flow chart, as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from featurestore.plurals import plural
from featurestore.reports.lineage.graph import Edge, Node, Subgraph

MADE_OF, MAKES = "made of", "goes into"


class Branch(NamedTuple):
    """A line of the tree, and those below it."""

    text: str
    below: tuple[Branch, ...] = ()


def _branches(subgraph: Subgraph) -> tuple[Branch, ...]:
    """The trees of the roots: what each is made of, and what it goes into. What was shown once is named again only."""
    inner = set(subgraph.roots)
    top = [
        root for root in subgraph.roots if not any(edge.end == root and edge.start in inner for edge in subgraph.edges)
    ]
    return tuple(_root(subgraph, root) for root in top)


def _root(subgraph: Subgraph, root: str) -> Branch:
    ways = []
    for title, upstream in ((MADE_OF, True), (MAKES, False)):
        below = tuple(_below(subgraph, root, {root}, upstream=upstream))
        if below:
            ways.append(Branch(title, below))
    return Branch(_line(subgraph.nodes[root]), tuple(ways))


def _below(subgraph: Subgraph, start: str, seen: set[str], *, upstream: bool) -> Iterator[Branch]:
    near: dict[str, list[Edge]] = {}
    for edge in subgraph.edges:
        here, there = (edge.end, edge.start) if upstream else (edge.start, edge.end)
        if here == start:
            near.setdefault(there, []).append(edge)
    for other, edges in near.items():
        role = ", ".join(dict.fromkeys(f"{edge.role} {edge.name}".rstrip() for edge in edges))
        line = f"{role}: {_line(subgraph.nodes[other])}"
        if other in seen:
            has_more = any(other == (edge.end if upstream else edge.start) for edge in subgraph.edges)
            yield Branch(f"{line} (see above)" if has_more else line)
            continue
        seen.add(other)
        yield Branch(line, tuple(_below(subgraph, other, seen, upstream=upstream)))


def _line(node: Node) -> str:
    """A node in a line: its name, its kind, and what matters most of it."""
    told = DETAILS.get(node.kind, lambda _: "")(node)
    return f"{node.name} ({node.kind}{f': {told}' if told else ''})"


def _feature(node: Node) -> str:
    detail = node.detail
    words = [f"{detail['fold']} of {detail['of']}" if "of" in detail else str(detail["fold"])]
    words += [f"{word} {detail[word]}" for word in ("window", "offset", "hop") if word in detail]
    words += [f"where {text}" for text in detail.get("where", ())]
    return ", ".join(words)


def _frame(node: Node) -> str:
    detail = node.detail
    gone = "" if detail["exists"] else ", its file is gone"
    return f"{detail['rows']:,} {plural(detail['rows'], 'row')} written {detail['written']}, fingerprint {detail['fingerprint'][:8]}{gone}"


def _served(node: Node) -> str:
    detail = node.detail
    views = detail.get("views", {})
    as_of = [f"{name} {'pushed' if view['pushed'] else 'as of ' + str(view['as_of'])}" for name, view in views.items()]
    state = "online" if detail["online"] else detail.get("error") or "not online"
    requests = f"{detail['requests']:,} {plural(detail['requests'], 'request')} in the serving log"
    return ", ".join([state, *(as_of if detail["online"] else []), requests])


DETAILS = {
    "source": lambda node: node.detail["type"],
    "derived column": lambda node: node.detail["expression"],
    "view": lambda node: f"of {node.detail['entity']}, refresh {node.detail['refresh']}",
    "feature": _feature,
    "on-demand feature": lambda node: node.detail["output"],
    "service": lambda node: f"fingerprint {node.detail['fingerprint'][:8]}" if "fingerprint" in node.detail else "",
    "training frame": _frame,
    "served version": _served,
}


def text(subgraph: Subgraph) -> str:
    """The trees, a line a node."""
    return "\n".join(line for branch in _branches(subgraph) for line in (branch.text, *_lines(branch, "")))


def _lines(branch: Branch, indent: str) -> Iterator[str]:
    for below in branch.below:
        last = below is branch.below[-1]
        yield f"{indent}{'└─ ' if last else '├─ '}{below.text}"
        yield from _lines(below, indent + ("   " if last else "│  "))


def mermaid(subgraph: Subgraph) -> str:
    """A flow chart, from left to right."""
    number = {identity: f"n{i}" for i, identity in enumerate(subgraph.nodes)}
    lines = ["flowchart LR"]
    for identity, node in subgraph.nodes.items():
        name = node.name.replace('"', "#quot;")
        lines.append(f'    {number[identity]}["{name}<br/><i>{node.kind}</i>"]')
    lines += [f"    {number[edge.start]} -->|{edge.role}| {number[edge.end]}" for edge in subgraph.edges]
    lines += [f"    style {number[root]} stroke-width:3px" for root in subgraph.roots]
    return "\n".join(lines)
